"""A real sweep, whatever comes between: memory and time that run out, kills, Ctrl-C, a second one at the same work."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import (
    CTRL_C,
    POWERBENCH,
    SLEEP,
    Terminal,
    ended,
    kill,
    nobody_is_left,
    powerbench,
    record_of,
    start,
    stepping_in,
    swept,
    told,
    wait_for,
)

# 41 GB of tokens, refused at once: no process here may have so much address space.
TOO_LARGE = 10_000_000
WITH_LIMIT = ("/bin/sh", "-c", 'ulimit -v 36000000; exec "$@"', "sh", *POWERBENCH)
# A real night in short: each cell loads torch and builds a BERT of its own, and the endless one is ended by the clock.
NIGHT = f"""
device: cpu
threads: 1
power: none
model: bert-tiny
mode: [training, inference]
batch_size: [2, 4, 8, {TOO_LARGE}]
sequence_length: [16, 512]
steps: [4, 1000000]
max_seconds: [300, 6]
warmup: 0
exclude:
- {{mode: training, batch_size: {TOO_LARGE}}}
- {{batch_size: {TOO_LARGE}, sequence_length: 16}}
- {{batch_size: [2, 4, 8], sequence_length: 512}}
- {{steps: 4, max_seconds: 6}}
- {{steps: 1000000, max_seconds: 300}}
- {{steps: 1000000, batch_size: [4, 8, {TOO_LARGE}]}}
- {{steps: 1000000, mode: inference}}
"""
STATUSES = ["complete", "timeout", "complete", "complete", "complete", "complete", "complete", "oom"]
SHORT = (*SLEEP, "--power", "none", "--steps", "5")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with swept(tmp_path):
        yield tmp_path


def the_sweep(runs: Path) -> Path:
    """The one sweep below `runs`, once it is there."""
    return wait_for(lambda: next(runs.glob("2*/sweep.json"), None), f"a sweep in {runs}").parent


def runs_of(sweep: Path) -> list[Path]:
    return sorted(path.parent for path in sweep.glob("2*/run.json"))


def measurements(sweep: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((sweep / "sweep.json").read_text())["measurements"]
    return found


def last_statuses(sweep: Path) -> list[str | None]:
    return [one["attempts"][-1]["status"] if one["attempts"] else None for one in measurements(sweep)]


class Killed:
    """The night's sweep, and what was finished when its supervisor was killed at a certain measurement."""

    def __init__(self, folder: Path, *options: str, at: int) -> None:
        self.process = start("run", folder / "night.yaml", *options, "--output", folder / "runs", command=WITH_LIMIT)
        self.sweep = the_sweep(folder / "runs")
        wait_for(lambda: self.begun(at), f"the beginning of measurement {at}")
        kill(self.process)
        ended(self.process)
        self.run = self.sweep / str(self.begun(at))
        self.finished = finished(self.sweep)

    def begun(self, number: int) -> str | None:
        """The run of that measurement, where it is at work."""
        attempts = measurements(self.sweep)[number - 1]["attempts"]
        return attempts[-1]["run"] if attempts and attempts[-1]["status"] == "running" else None


def finished(sweep: Path) -> dict[str, bytes]:
    """The records of the runs that have come to an end of their own."""
    return {
        run.name: (run / "run.json").read_bytes()
        for run in runs_of(sweep)
        if record_of(run)["status"] in ("complete", "oom", "timeout")
    }


@pytest.mark.timeout(360)
def test_a_sweep_that_is_killed_twice_is_complete_in_the_end_and_repeats_nothing(folder: Path) -> None:
    (folder / "night.yaml").write_text(NIGHT)

    first = Killed(folder, at=3)
    second = Killed(folder, "--resume", at=6)
    done = powerbench(
        "run", folder / "night.yaml", "--resume", "--json", "--output", folder / "runs", command=WITH_LIMIT
    )

    sweep = the_sweep(folder / "runs")
    assert done.status == 0, done.stderr
    assert (folder / "runs/latest").resolve() == sweep.resolve()

    # Complete, in the order in which it was asked for.
    answers = json.loads(done.stdout)
    assert last_statuses(sweep) == STATUSES
    assert sorted(run["status"] for run in answers) == sorted(STATUSES)
    assert [(run["model"], run["steps"]) for run in answers if run["status"] == "complete"] == [("bert-tiny", 4)] * 6

    # Nothing was measured twice: what was finished before a kill is, to the byte, what it was.
    assert [len(killed.finished) for killed in (first, second)] == [2, 5]
    assert second.finished.items() <= finished(sweep).items()
    assert first.finished.items() <= second.finished.items()
    assert [len(one["attempts"]) for one in measurements(sweep)] == [1, 1, 2, 1, 1, 2, 1, 1]
    assert len(runs_of(sweep)) == len(STATUSES) + 2

    # Every gap is explained, and what was killed is kept.
    reasons = {one["attempts"][-1]["status"]: one["attempts"][-1]["reason"] for one in measurements(sweep)}
    assert "you tried to allocate 40960000000 bytes" in reasons["oom"]
    assert reasons["timeout"].startswith("it was still running after 6 s (max_seconds)")
    assert reasons["complete"] is None
    for killed, number in ((first, 3), (second, 6)):
        before = measurements(sweep)[number - 1]["attempts"][0]
        assert (sweep / before["run"], before["status"]) == (killed.run, "interrupted")
        assert before["reason"] == f"its supervisor (pid {killed.process.pid}) is gone without having ended it"
        assert killed.run.is_dir()
    assert {run["reason"] for run in answers} == set(reasons.values())
    nobody_is_left(folder)


class TestCtrlC:
    def test_once_ends_the_run_at_work_and_the_sweep_and_says_how_to_go_on(self, folder: Path) -> None:
        process = start("run", *SLEEP, "--steps", "1000000", "--repeats", "3", "--json", "--output", folder)
        sweep = the_sweep(folder)
        run = stepping_in(sweep)

        process.send_signal(signal.SIGINT)
        done = ended(process)

        assert done.status == 130
        assert [summary["status"] for summary in json.loads(done.stdout)] == ["interrupted"] * 3
        assert last_statuses(sweep) == ["interrupted", None, None]
        assert record_of(run)["status"] == "interrupted"
        assert "3 measurements to go: the same command with --resume goes on.\n" in done.stderr
        nobody_is_left(folder)

    def test_in_a_cool_down_is_heard_at_once(self, folder: Path) -> None:
        process = start("run", *SHORT, "--repeats", "2", "--cooldown", "3600", "--output", folder)
        sweep = the_sweep(folder)
        wait_for(lambda: last_statuses(sweep) == ["complete", None], "the first run's end")

        process.send_signal(signal.SIGINT)
        done = ended(process)

        assert done.status == 130
        assert last_statuses(sweep) == ["complete", None]
        assert "1 measurement to go: the same command with --resume goes on.\n" in done.stderr


def test_two_cannot_measure_the_same_sweep(folder: Path) -> None:
    endless = (*SLEEP, "--steps", "1000000", "--repeats", "2", "--output", folder)
    process = start("run", *endless)
    sweep = the_sweep(folder)
    stepping_in(sweep)

    done = powerbench("run", *endless, "--resume")
    process.send_signal(signal.SIGINT)

    assert (done.status, done.stdout) == (1, "")
    assert told(done) == f"Another powerbench is measuring the sweep in {sweep}: let it end, or stop it first."
    assert ended(process).status == 130


def test_a_sweep_of_one_is_a_list_even_of_one(folder: Path) -> None:
    done = powerbench("run", *SHORT, "--repeats", "1", "--json", "--output", folder)

    assert [run["status"] for run in json.loads(done.stdout)] == ["complete"]
    assert f"Sweep of 1 measurement in {the_sweep(folder)}\n" in done.stderr


def test_a_failed_cell_makes_the_status_1_and_is_tried_again_where_that_is_asked_for(folder: Path) -> None:
    sweep_of_two = (*SHORT, "--set", "seed=[1, 2]", "--output", folder)
    assert powerbench("run", *sweep_of_two).status == 0

    sweep = the_sweep(folder)
    record = json.loads((sweep / "sweep.json").read_text())
    record["measurements"][1]["attempts"][0] |= {"status": "failed", "reason": "the worker was killed by SIGSEGV"}
    (sweep / "sweep.json").write_text(json.dumps(record))

    still = powerbench("run", *sweep_of_two, "--resume")
    assert still.status == 1

    again = powerbench("run", *sweep_of_two, "--retry", "oom,failed", "--json")
    assert again.status == 0
    assert last_statuses(sweep) == ["complete", "complete"]
    assert len(runs_of(sweep)) == 3


class TestADryRun:
    def test_lists_cells_and_the_least_time_and_makes_nothing(self, folder: Path) -> None:
        options = ("--model", "sleep", "--power", "none", "--set", "sleep_ms=[1000, 2000]", "--steps", "9")

        done = powerbench("run", *options, "--warmup", "1", "--dry-run", "--output", folder / "runs")

        assert (done.status, done.stderr) == (0, "")
        assert done.stdout == (
            "1  sleep training, batch 32 x sequence 128, sleep ms 1000  at least 10s\n"
            "2  sleep training, batch 32 x sequence 128, sleep ms 2000  at least 20s\n"
            "\n"
            "2 measurements: at least 30s.\n"
        ).replace("  sleep training", "  cpu sleep training")
        assert not (folder / "runs").exists()

    def test_tells_what_a_cell_took_before_and_what_is_done(self, folder: Path) -> None:
        options = (*SHORT, "--repeats", "2", "--output", folder)
        done = powerbench("run", *options, "--json")
        assert [run["steps"] for run in json.loads(done.stdout)] == [5, 5]
        assert f"See it again with: powerbench report {the_sweep(folder)}\n" in done.stderr

        new = powerbench("run", *options, "--dry-run")
        resumed = powerbench("run", *options, "--dry-run", "--resume")

        assert re.fullmatch(
            r"(\d  cpu sleep training, batch 32 x sequence 128, repeat \d  about \S+( ms)?\n){2}\n"
            r"2 measurements: about .*\.\n",
            new.stdout,
        )
        assert resumed.stdout.count("  done: complete\n") == 2
        assert resumed.stdout.endswith("\nNothing is left to be measured.\n")

    def test_names_what_is_excluded_in_vain(self, folder: Path) -> None:
        exclude = "exclude: [{seed: [3, 4], threads: 1}, {seed: 2}]"
        (folder / "slip.yaml").write_text(f"model: sleep\nseed: [1, 2]\n{exclude}")

        done = powerbench("run", folder / "slip.yaml", "--dry-run", "--power", "none", "--output", folder)

        assert done.stdout.count("cpu sleep training") == 1
        assert done.stderr == (
            "powerbench: The profile excludes {seed: [3, 4], threads: 1} in vain: no cell has all of that.\n"
        )

    def test_as_json_is_a_list(self, folder: Path) -> None:
        done = powerbench("run", "quick", "--device", "cpu", "--dry-run", "--json", "--output", folder)

        (row,) = json.loads(done.stdout)
        assert (row["number"], row["cell"]["model"], row["as_before_s"]) == (1, "bert-base-cased", None)


def test_on_a_terminal_the_line_has_what_is_left_of_the_whole(folder: Path) -> None:
    """The first run tells how long the others will take: two minutes, and on a busy machine less than an hour."""
    options = (*SLEEP, "--power", "none", "--steps", "1000000", "--max-seconds", "1.5", "--repeats", "100")
    with Terminal("run", *options, "--output", folder) as terminal:
        terminal.read(until=lambda: re.search(rb"\[\d+ of 100, \d+m \d\ds left\] measuring", terminal.written))
        terminal.type(CTRL_C)
        status = terminal.status()

    assert status == 130
    assert re.search(rb"\[2 of 100, \d+m \d\ds left\] cpu sleep training", terminal.written)
