"""A run that is stopped before its end says so, gives the figures of what it measured, and leaves nobody behind."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from powerbench.pace import Progress
from powerbench.profile import make_cell, resolve
from powerbench.records import Cell
from powerbench.rundir.load import Run
from powerbench.session import record_run
from tests.e2e.commands import (
    CTRL_C,
    ENDLESS,
    SLEEP,
    TINY,
    Lease,
    Terminal,
    ended,
    marked_ns,
    nobody_is_left,
    powerbench,
    record_of,
    report,
    rows_of,
    running_in,
    start,
    stepping_in,
    swept,
    told,
    wait_for,
    worker_of,
)

STOPPED = "The run was not completed (interrupted): stopped by Ctrl-C or a signal."


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with swept(tmp_path):
        yield tmp_path


class TestInterrupted:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_by_a_signal_gives_the_figures_so_far(self, folder: Path, number: signal.Signals) -> None:
        process = start("run", *SLEEP, *ENDLESS, "--json", "--output", folder)
        run = stepping_in(folder, steps=10)
        seen = len(marked_ns(run)) - 1

        process.send_signal(number)
        done = ended(process)

        assert (done.status, told(done)) == (130, STOPPED)
        summary = json.loads(done.stdout)
        assert (summary["status"], summary["reason"]) == ("interrupted", "stopped by Ctrl-C or a signal")
        assert (summary["warmup_steps"], summary["steps"]) == (5, len(rows_of(run)) - 5)
        assert summary["steps"] + 5 >= seen
        assert all(row.end_ns is not None for row in rows_of(run)), "the step in flight was ended"
        assert record_of(run)["status"] == "interrupted"
        assert not (run / "marks-0.bin").exists()
        assert not (run / "run.json.new").exists()
        nobody_is_left(folder)

    def test_prints_the_summary_on_stdout_and_where_it_lies_on_stderr(self, folder: Path) -> None:
        process = start("run", *SLEEP, *ENDLESS, "--output", folder)
        run = stepping_in(folder, steps=10)

        process.send_signal(signal.SIGINT)
        done = ended(process)

        assert done.stdout.startswith("sleep, 5.00 ms a step (the control)\n")
        assert "interrupted: stopped by Ctrl-C or a signal" in done.stdout
        assert f"\nRecorded in {run}\nSee it again with: powerbench report {run}\n" in done.stderr

    def test_by_a_typed_ctrl_c_that_the_whole_foreground_group_gets(self, folder: Path) -> None:
        with Terminal("run", *SLEEP, *ENDLESS, "--output", folder) as terminal:
            terminal.read(until=lambda: re.search(rb"measuring step [1-9]", terminal.written))
            terminal.type(CTRL_C)
            status = terminal.status()
            said = terminal.written

        assert status == 130
        assert b"Traceback" not in said
        assert said.count(STOPPED.encode()) == 1
        assert b"ms a step on average" in said
        assert report(running_in(folder))["steps"] > 0
        nobody_is_left(folder)

    def test_twice_kills_a_step_that_does_not_end(self, folder: Path) -> None:
        """The step in flight would last for a minute."""
        process = start("run", "--model", "sleep", "--set", "sleep_ms=60000", "--output", folder)
        run = running_in(folder)
        wait_for(lambda: len(marked_ns(run)) == 1, "the first step's beginning")
        begun_s = time.monotonic()

        process.send_signal(signal.SIGINT)
        wait_for(lambda: not pending(process.pid, signal.SIGINT), "the first Ctrl-C's delivery")
        process.send_signal(signal.SIGINT)
        done = ended(process)

        assert (done.status, told(done)) == (130, STOPPED)
        assert time.monotonic() - begun_s < 4.5, "waited for the five seconds of grace"
        assert rows_of(run) == []
        nobody_is_left(folder)

    def test_while_the_worker_is_still_starting(self, folder: Path) -> None:
        process = start("run", *TINY, *ENDLESS, "--output", folder)
        run = running_in(folder)
        worker_of(run)

        process.send_signal(signal.SIGINT)
        done = ended(process)

        assert (done.status, done.stdout, told(done)) == (130, "", STOPPED)
        assert report(run)["status"] == "interrupted"
        assert report(run)["latency_ms"] is None
        nobody_is_left(folder)

    @pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")
    def test_while_the_ended_run_is_written_down_tears_nothing(self, folder: Path) -> None:
        """The worker's log is read once all is measured, right before the last record is written."""
        process = start("run", *SLEEP, "--steps", "200", "--json", "--output", folder)
        run = stepping_in(folder)
        (run / "worker-0.log").rename(run / "the-workers.log")  # who has it open goes on with it
        with Lease(run / "worker-0.log") as log:
            wait_for(log.is_waited_for, "the reading of the log")
            process.send_signal(signal.SIGINT)
            wait_for(lambda: not pending(process.pid, signal.SIGINT), "the delivery of Ctrl-C")
            log.let_go()
            done = ended(process)

        assert record_of(run)["status"] == "complete"
        assert done.status == 0

    def test_by_a_signal_to_the_worker_alone_has_a_reason(self, folder: Path) -> None:
        process = start("run", *SLEEP, *ENDLESS, "--output", folder)
        run = stepping_in(folder)

        worker_of(run).send_signal(signal.SIGINT)
        done = ended(process)

        assert done.status == 130
        assert "None" not in told(done)

    def test_not_by_the_hangup_that_nohup_has_it_ignore(self, folder: Path) -> None:
        nohup = ["/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "-m", "powerbench"]
        process = start("run", *SLEEP, "--steps", "200", "--output", folder, command=nohup)
        stepping_in(folder)

        process.send_signal(signal.SIGHUP)

        assert ended(process).status == 0


class TestOutOfTime:
    def test_ends_with_the_figures_so_far(self, folder: Path) -> None:
        done = powerbench("run", *SLEEP, *ENDLESS, "--max-seconds", "2", "--json", "--output", folder)

        assert done.status == 1
        assert told(done) == (
            "The run was not completed (timeout): it was still running after 2 s (max_seconds); "
            "allow more or measure less."
        )
        summary = json.loads(done.stdout)
        assert summary["status"] == "timeout"
        assert summary["steps"] > 0
        nobody_is_left(folder)

    def test_before_the_first_measured_step_has_no_figures(self, folder: Path) -> None:
        slow = ("--model", "sleep", "--set", "sleep_ms=2500")

        done = powerbench("run", *slow, "--max-seconds", "1", "--output", folder)

        assert (done.status, done.stdout) == (1, "")
        assert "(timeout)" in told(done)
        nobody_is_left(folder)


class TestAWorker:
    """Programs in the place of the worker, which behave badly."""

    def test_that_ignores_ctrl_c_is_killed_and_what_it_marked_is_kept(self, folder: Path) -> None:
        run = recorded(
            folder,
            """
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            at = 0
            while True:
                marks[at] = marks[at + 1] = time.monotonic_ns()
                at += 2
                time.sleep(0.02)
            """,
            on_progress=ctrl_c_once(after_steps=3),
        )

        assert (run.record.status, run.record.reason) == ("interrupted", "stopped by Ctrl-C or a signal")
        assert len(run.steps[0]) >= 3
        assert len(rows_of(run.path)) == len(run.steps[0])
        # It was given five seconds, and stepped on until it was killed.
        assert run.steps[0].start_ns[-1] - run.steps[0].start_ns[0] > 4.5e9
        nobody_is_left(folder)

    def test_that_raises_fails_with_its_last_line_and_the_log(self, folder: Path) -> None:
        run = recorded(
            folder,
            """
            marks[0] = marks[1] = 100
            marks[2] = marks[3] = 200
            raise ValueError("the abacus has lost a bead")
            """,
        )

        assert run.record.status == "failed"
        assert run.record.reason == (
            "the worker ended with exit status 1: ValueError: the abacus has lost a bead "
            f"(the whole story is in {run.path}/worker-0.log)"
        )
        assert "Traceback" in (run.path / "worker-0.log").read_text()
        assert [(row.start_ns, row.end_ns) for row in rows_of(run.path)] == [(100, 200)]

    def test_that_ends_well_without_saying_so_is_not_complete(self, folder: Path) -> None:
        run = recorded(folder, "raise SystemExit(0)")

        assert (run.record.status, run.record.reason) == ("failed", "the worker ended with exit status 0")

    def test_that_leaves_a_child_behind_does_not_leave_it_behind(self, folder: Path) -> None:
        run = recorded(
            folder,
            """
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", sys.argv[1]])
            raise SystemExit(1)
            """,
        )

        assert run.record.status == "failed"
        nobody_is_left(folder)

    def test_that_crashes_in_native_code_names_the_signal(self, folder: Path) -> None:
        run = recorded(folder, "os.kill(os.getpid(), signal.SIGSEGV)")

        assert (run.record.status, run.record.reason) == ("failed", "the worker was killed by SIGSEGV")

    def test_with_short_steps_is_not_taken_for_one_with_a_long_step(self, folder: Path) -> None:
        run = recorded(
            folder,
            """
            for at in range(0, 400, 2):
                marks[at] = marks[at + 1] = time.monotonic_ns()
                time.sleep(0.01)
            EventWriter(rundir.events(0)).write("end", time_ns=1, outcome="complete", message=None)
            """,
            cell=a_cell(sets={"limits.step_seconds": 0.5}),
        )

        assert (run.record.status, run.record.reason) == ("complete", None)


WORKER = """
import os, signal, subprocess, sys, time
from pathlib import Path
from powerbench.rundir import RunDir
from powerbench.rundir.lines import EventWriter
from powerbench.rundir.marks import MarksWriter

rundir = RunDir(Path(sys.argv[1]))
marks = MarksWriter(rundir.marks(0), capacity=100_000).view
"""


def a_cell(*, sets: dict[str, object] | None = None) -> Cell:
    return resolve(make_cell(options={"model": "sleep", "warmup": 0}, sets=sets), metered=False)


def recorded(
    folder: Path,
    program: str,
    *,
    cell: Cell | None = None,
    on_progress: Callable[[Progress], object] = lambda progress: None,
) -> Run:
    """A run whose worker is `program`, with its marks and its run directory at hand."""
    path = folder / "worker.py"
    path.write_text(WORKER + textwrap.dedent(program), "utf-8")
    command = [sys.executable, str(path)]
    return record_run(cell or a_cell(), parent=folder / "runs", command=command, on_progress=on_progress)


def ctrl_c_once(*, after_steps: int) -> Callable[[Progress], object]:
    """Sends the signal of Ctrl-C to this very process when so many steps are done."""
    sent: list[int] = []

    def watch(progress: Progress) -> None:
        if progress.done >= after_steps and not sent:
            sent.append(progress.done)
            os.kill(os.getpid(), signal.SIGINT)

    return watch


def pending(pid: int, number: signal.Signals) -> bool:
    """Whether a signal still waits to be taken by that process; elsewhere than on Linux, nobody tells."""
    if sys.platform != "linux":
        return False
    fields = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return any(int(fields[name], 16) >> (number - 1) & 1 for name in ("SigPnd", "ShdPnd"))
