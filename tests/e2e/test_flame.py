"""Where the joules go, end to end: real py-spy beside a real worker, and power that is known at each moment."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from powerbench.cli.app import main
from powerbench.records import Cell, RailRecord
from powerbench.rundir import RunDir
from powerbench.rundir.lines import ENERGY_HEADER
from powerbench.rundir.load import load_run, read_record
from powerbench.spying import PROGRAM_VARIABLE
from tests.e2e.commands import SLEEP, TINY, ended, powerbench, record_of, rows_of, start, the_run, told
from tests.e2e.workers import two_functions
from tests.reports.speedscope import is_valid_speedscope
from tests.rundir import GOLDEN, a_cell, a_rail

WATTS = {"cold": 20.0, "hot": 60.0}
REST_W = 15.0
PERIOD_NS = 20_000_000
WITHIN = 0.03
"""How far joules by frame may be from the truth (design, "Where the joules go")."""


class Call(NamedTuple):
    """A call of one of the two functions."""

    name: str
    start_ns: int
    end_ns: int


def calls_in(run: Path) -> list[Call]:
    lines = (run / two_functions.STAMPS).read_text("ascii").splitlines()
    return [Call(name, int(start), int(end)) for name, start, end in (line.split(",") for line in lines)]


def meter(run: Path, calls: list[Call]) -> None:
    """Give the run a meter that counted what the functions drew, read each 20 ms from before it to behind it."""
    start_ns, end_ns = calls[0].start_ns - 1_000_000_000, calls[-1].end_ns + 1_000_000_000
    lines, joules = [ENERGY_HEADER, f"{start_ns},package-0,0.0"], 0.0
    for before_ns, now_ns in pairwise(range(start_ns, end_ns, PERIOD_NS)):
        joules += REST_W * (now_ns - before_ns) / 1e9
        for call in calls:
            inside_ns = max(0, min(now_ns, call.end_ns) - max(before_ns, call.start_ns))
            joules += (WATTS[call.name] - REST_W) * inside_ns / 1e9
        lines.append(f"{now_ns},package-0,{joules:.6f}")
    rundir = RunDir(run)
    rundir.energy.write_text("\n".join(lines) + "\n", "ascii")
    record = read_record(rundir)
    rail: RailRecord = a_rail(part="package", period_s=PERIOD_NS / 1e9, published_s=0.001)
    cell = msgspec.structs.replace(record.the_cell, power="auto")
    rundir.write_record(msgspec.structs.replace(record, cell=cell, rails={"package-0": rail}))


def measure(parent: Path, cell: Cell, *, worker: str) -> Path:
    """The directory of a run by one of our workers."""
    supervise = (sys.executable, "-m", "tests.e2e.workers.supervise", str(parent), msgspec.json.encode(cell).decode())
    ended(start(command=(*supervise, sys.executable, "-m", f"tests.e2e.workers.{worker}")))
    run = the_run(parent)
    assert run is not None
    return run


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps of `cold` and `hot`, with its meter."""
    cell = a_cell(model="sleep", steps=4, power="none", py_spy=True, py_spy_rate=400)
    run = measure(tmp_path_factory.mktemp("two"), cell, worker="two_functions")
    if record_of(run)["unsampled"] is not None:
        pytest.skip(f"py-spy may not look here: {record_of(run)['unsampled']}")
    meter(run, calls_in(run))
    return run


def flame_of(run: Path, capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    """What `powerbench flame --json` says."""
    assert main(["flame", str(run), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def frame(flame: Any, name: str) -> Any:
    found = [it for it in flame["frames"] if it["name"] == name]
    assert len(found) == 1, [it["name"] for it in flame["frames"]]
    return found[0]


def test_the_joules_of_two_functions_of_different_watts_are_true(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flame = flame_of(two, capsys)

    for name, watts in WATTS.items():
        seconds = sum(call.end_ns - call.start_ns for call in calls_in(two) if call.name == name) / 1e9
        assert frame(flame, name)["total_s"] == pytest.approx(seconds, rel=WITHIN)
        assert frame(flame, name)["total_j"] == pytest.approx(watts * seconds, rel=WITHIN)
    # By time alone, the function that takes longer would be the dearer one.
    assert frame(flame, "cold")["total_s"] > frame(flame, "hot")["total_s"]
    assert frame(flame, "cold")["total_j"] < 0.6 * frame(flame, "hot")["total_j"]
    assert flame["unattributed"]["j"] < 0.01 * flame["total_j"]


def test_the_clocks_agree_to_less_than_the_time_between_two_looks(two: Path) -> None:
    record = record_of(two)
    stacks = load_run(two).stacks()

    assert record["stacks"]["time_uncertainty_ns"] == stacks.time_uncertainty_ns < 1e9 / 400
    thread = next(thread for thread in stacks.threads if thread.steps)
    seen = {
        stacks.start_ns + at_us * 1000: {stacks.frames[at].name for at in stacks.stacks[stack]}
        for at_us, stack in zip(thread.time_us, thread.stack, strict=True)
        if stack >= 0
    }
    for call in calls_in(two):
        first_ns = min(at_ns for at_ns, names in seen.items() if call.name in names and at_ns > call.start_ns - 5e6)
        assert first_ns >= call.start_ns - stacks.time_uncertainty_ns - 1e6


def test_the_whole_run_has_more_than_its_measured_steps(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(two)

    flame = flame_of(two, capsys, "--window", "all")

    assert (flame["window"], flame["steps"]) == ("all", len(rows))
    assert flame["total_s"] == pytest.approx(((rows[-1].end_ns or 0) - rows[0].start_ns) / 1e9)


def test_such_a_run_says_that_it_was_instrumented_and_is_not_compared(
    two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(two)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "This run was instrumented: py-spy stopped the worker about 400 times a second" in said

    assert main(["compare", str(GOLDEN / "schema-1"), str(two)]) == 1

    assert "cannot be compared: py-spy stopped the worker at each look" in capsys.readouterr().err


def test_a_real_bert_shows_where_its_time_goes_and_why_there_are_no_joules(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ("--steps", "80", "--py-spy", "--power", "none", "--device", "cpu")
    done = powerbench("run", *TINY, *how, "--output", tmp_path)
    assert done.status == 0, done.stderr
    assert done.stderr.endswith(f"powerbench flame {the_run(tmp_path)}\n")
    run = the_run(tmp_path)
    assert run is not None
    if record_of(run)["unsampled"] is not None:
        pytest.skip(record_of(run)["unsampled"])

    flame = flame_of(run, capsys)

    assert (flame["total_j"], flame["joules_reason"]) == (None, "no meter was asked for (--power none)")
    assert {it["self_j"] for it in flame["frames"]} == {None}
    assert frame(flame, "BertForSequenceClassification.forward")["total_s"] > 0.5 * flame["total_s"]
    assert not [path.name for path in run.iterdir() if path.name.startswith("py-spy")]
    assert main(["flame", str(run), "--format", "speedscope"]) == 0
    assert is_valid_speedscope(json.loads(capsys.readouterr().out))
    assert main(["flame", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "No joules: no meter was asked for (--power none)." in shown
    assert "inference_step.step (workloads/steps.py)" in shown


REFUSING = '#!/bin/sh\necho "Permission Denied: Try running again with elevated permissions"\nexit 1\n'


@pytest.mark.skipif(sys.platform == "darwin", reason="there it is started by sudo")
def test_where_py_spy_may_not_look_the_run_goes_on_and_says_what_helps(tmp_path: Path) -> None:
    parent, program = tmp_path / "runs", tmp_path / "py-spy"
    program.write_text(REFUSING)
    program.chmod(0o755)
    how = ("--steps", "20", "--power", "none", "--py-spy", "--output", parent)

    done = powerbench("run", *SLEEP, *how, env={PROGRAM_VARIABLE: str(program)})

    assert done.status == 0, done.stderr
    run = the_run(parent)
    assert run is not None
    record = record_of(run)
    assert (record["status"], record["stacks"]) == ("complete", None)
    assert "--cap-add SYS_PTRACE" in record["unsampled"] or "kernel.yama.ptrace_scope" in record["unsampled"]
    said = " ".join(done.stdout.split())
    assert f"There are no stacks: {record['unsampled']}." in said
    assert "instrumented" not in said
    assert record["unsampled"] in told(powerbench("flame", run))
