"""A slowdown trace from the first step to the bug report: the real commands, on the control and on a small BERT."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import get_args

from powerbench.analysis.slowdown import Verdict
from tests.e2e.commands import SLEEP, TINY, Done, powerbench, the_run
from tests.traced import write_trace

PNG = b"\x89PNG\r\n\x1a\n"


def traced(parent: Path, *cell: str) -> tuple[Path, Done]:
    """A trace of this cell, recorded below `parent`, and what was said of it."""
    done = powerbench("run", *cell, "--trace", "--power", "none", "--output", parent)
    assert done.status == 0, done.stderr
    run = the_run(parent)
    assert run is not None
    return run, done


def test_a_run_with_trace_ends_with_the_verdict_and_a_chart(tmp_path: Path) -> None:
    run, done = traced(tmp_path, *SLEEP, "--steps", "120")

    figures, _, shown = done.stdout.partition("\n  latency ")
    assert "  Wall time " in figures
    assert figures.rstrip().splitlines()[-1].endswith(".")  # the verdict: which one, a busy machine decides
    assert "┤" in shown
    assert f"See it again with: powerbench trace {run}" in done.stderr


def test_trace_says_of_it_what_the_run_said_and_draws_it(tmp_path: Path) -> None:
    run, done = traced(tmp_path / "runs", *TINY, "--steps", "40")

    report = powerbench("trace", run, "--format", "markdown", "--plot", tmp_path / "it.png")
    told = json.loads(powerbench("trace", run, "--json").stdout)

    assert report.status == 0, report.stderr
    verdict = report.stdout.splitlines()[0].removeprefix("## ")
    assert " ".join(done.stdout.split()).count(verdict) == 1
    assert "| Workload | bert-tiny, inference, batch 2 x sequence 16, float32 |" in report.stdout
    assert (tmp_path / "it.png").read_bytes().startswith(PNG)
    assert (told["steps"], told["slowdown"]["n"]) == (40, 40)
    assert told["slowdown"]["verdict"] in get_args(Verdict)


def test_the_command_of_a_bug_report_measures_the_same_cell(tmp_path: Path) -> None:
    run, _ = traced(tmp_path / "first", *SLEEP, "--steps", "30")
    report = powerbench("trace", run, "--format", "markdown").stdout
    command = report.partition("To measure it again:\n\n```\n")[2].partition("\n")[0]

    again = powerbench(*shlex.split(command)[1:], "--output", tmp_path / "second")

    assert again.status == 0, again.stderr
    repeated = the_run(tmp_path / "second")
    assert repeated is not None
    cells = [json.loads((path / "run.json").read_bytes())["cell"] for path in (run, repeated)]
    assert cells[0] == cells[1]


def test_a_pair_with_and_without_waiting_is_compared(tmp_path: Path) -> None:
    fenced, _ = traced(tmp_path / "fenced", *SLEEP, "--steps", "60")
    free, _ = traced(tmp_path / "free", *SLEEP, "--steps", "60", "--sync-every", "0")

    done = powerbench("trace", free, fenced)

    assert done.status == 0, done.stderr
    assert f"A script that never waits for the device ({free}, by the times of its submissions) sees " in " ".join(
        done.stdout.split()
    )


def test_a_terminal_without_blocks_gets_what_it_can_show(tmp_path: Path) -> None:
    run = write_trace(tmp_path / "slow", [100.0] * 60 + [150.0] * 60)

    done = powerbench("trace", run, env={"PYTHONIOENCODING": "ascii", "COLUMNS": "80"})

    assert done.status == 0, done.stderr
    assert "Slowdown: " in done.stdout
    assert "?????" in done.stdout


def test_nothing_is_coloured(tmp_path: Path) -> None:
    run = write_trace(tmp_path / "slow", [100.0] * 60 + [150.0] * 60)

    done = powerbench("trace", run, env={"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"})

    assert done.status == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_the_gate_is_the_exit_status_of_the_command(tmp_path: Path) -> None:
    run = write_trace(tmp_path / "slow", [100.0] * 60 + [150.0] * 60)

    assert powerbench("trace", run, "--fail-on", "slowdown").status == 4
