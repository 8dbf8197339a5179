"""Whatever becomes of supervisor or worker, and whenever, what was measured until then is on disk and reads back."""

from __future__ import annotations

import json
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from powerbench.environment import boot_id
from powerbench.records import Clock, StepTrace, Supervisor
from powerbench.rundir import RunDir
from powerbench.rundir.lines import STEPS_HEADER, EventWriter
from powerbench.rundir.load import load_run
from powerbench.rundir.marks import BYTES_A_MARK
from tests.e2e.commands import (
    ENDLESS,
    NS,
    SLEEP,
    TINY,
    Done,
    Lease,
    ended,
    kill,
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
    the_run,
    told,
    wait_for,
    worker_of,
)
from tests.rundir import START, a_record, steps_lasting, write_marks, write_run
from tests.rundir import rows_of as rows_that_stand_for

KILLS_A_BATCH = 10
AT_ONCE = 4
WORKER_KILLED = "the worker was killed by SIGKILL"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with swept(tmp_path):
        yield tmp_path


class Killed(NamedTuple):
    """A run, the boundaries that stood in its marks right before the kill, the clock then, and how the command ended.

    `run` is None where it had not come to a directory.
    """

    run: Path | None
    seen_ns: list[int]
    killed_ns: int
    done: Done


class TestKilledWithTheSleeper:
    """Fifty runs of short steps, each killed at a moment of its own, on its way up or while it steps."""

    @pytest.mark.parametrize("seed", range(5))
    def test_what_was_measured_is_there_and_nobody_is_left(self, folder: Path, seed: int) -> None:
        random_moment = random.Random(seed)
        ways = [killed_early, killed_supervisor, killed_worker, killed_stepping_supervisor, killed_stepping_worker] * 2
        assert len(ways) == KILLS_A_BATCH
        with ThreadPoolExecutor(AT_ONCE) as at_once:
            futures = [
                at_once.submit(way, folder / str(number), random_moment.random()) for number, way in enumerate(ways)
            ]
            killed = [future.result() for future in futures]

        loaded = [
            loads_with_nothing_lost(one, of_worker=way in OF_WORKER) for one, way in zip(killed, ways, strict=True)
        ]

        paths = [run for run in loaded if run is not None]
        assert [summary["run"] for summary in report(*paths)] == [str(path) for path in paths]
        assert len(paths) >= KILLS_A_BATCH * 6 // 10  # of the early ones some had no record yet
        assert sum(len(one.seen_ns) > 3 for one in killed) >= 4


class TestKilledWithBert:
    def test_what_was_measured_is_there_and_nobody_is_left(self, folder: Path) -> None:
        with ThreadPoolExecutor(2) as at_once:
            of_supervisor = at_once.submit(killed_stepping_supervisor, folder / "supervisor", 0.7, TINY)
            of_worker = at_once.submit(killed_stepping_worker, folder / "worker", 0.4, TINY)

        for killed, was_worker in ((of_supervisor.result(), False), (of_worker.result(), True)):
            run = loads_with_nothing_lost(killed, of_worker=was_worker)
            assert run is not None
            summary = report(run)
            assert summary["status"] == ("failed" if was_worker else "interrupted")
            assert summary["steps"] + summary["warmup_steps"] >= len(killed.seen_ns) - 1 >= 3
            assert summary["tflop_per_s"] is None or summary["tflop_per_s"] > 0
            assert summary["peak_memory_bytes"] > 50_000_000

    def test_on_its_way_up_ends_with_its_supervisor(self, folder: Path) -> None:
        """While torch is loaded, the interpreter is held for long stretches."""
        process = start("run", *TINY, *ENDLESS, "--output", folder)
        worker = worker_of(running_in(folder))
        wait_for(lambda: worker.memory_info().rss > 100_000_000, "torch on its way in")

        killed = killed_now(process, process, folder)

        assert loads_with_nothing_lost(killed, of_worker=False) == killed.run


def killed_early(parent: Path, moment: float) -> Killed:
    """The supervisor, up to a second and a half after it was started: maybe before there is a directory or a worker."""
    process = start("run", *SLEEP, *ENDLESS, "--output", parent)
    time.sleep(1.5 * moment)
    return killed_now(process, process, parent)


def killed_supervisor(parent: Path, moment: float) -> Killed:
    """The supervisor, up to a second after its record was there."""
    process = start("run", *SLEEP, *ENDLESS, "--output", parent)
    running_in(parent)
    time.sleep(moment)
    return killed_now(process, process, parent)


def killed_worker(parent: Path, moment: float) -> Killed:
    """The worker, up to a second after it was there."""
    process = start("run", *SLEEP, *ENDLESS, "--output", parent)
    worker = worker_of(running_in(parent))
    time.sleep(moment)
    return killed_now(process, worker, parent)


def killed_stepping_supervisor(parent: Path, moment: float, cell: Sequence[str] = SLEEP) -> Killed:
    """The supervisor, up to half a second after the first steps."""
    process = start("run", *cell, *ENDLESS, "--output", parent)
    stepping_in(parent)
    time.sleep(moment / 2)
    return killed_now(process, process, parent)


def killed_stepping_worker(parent: Path, moment: float, cell: Sequence[str] = SLEEP) -> Killed:
    """The worker, up to half a second after the first steps."""
    process = start("run", *cell, *ENDLESS, "--output", parent)
    worker = worker_of(stepping_in(parent))
    time.sleep(moment / 2)
    return killed_now(process, worker, parent)


OF_WORKER = (killed_worker, killed_stepping_worker)


def killed_now(process: subprocess.Popen[str], victim: psutil.Process | subprocess.Popen[str], parent: Path) -> Killed:
    """Kill `victim`; all that belongs to the run must then end within three seconds.

    But a supervisor whose worker was killed has figures to work out and print, here on a machine full of others.
    """
    run = the_run(parent)
    seen_ns = marked_ns(run) if run else []
    killed_ns = kill(victim)
    if victim is not process and run is not None:
        nobody_is_left(run)
    nobody_is_left(parent, within_s=3.0 if victim is process else 20.0)
    return Killed(the_run(parent), seen_ns, killed_ns, ended(process))


def loads_with_nothing_lost(killed: Killed, *, of_worker: bool) -> Path | None:
    """Checks a killed run; its directory, or None where it had not come to a record."""
    assert killed.done.status == (1 if of_worker else -signal.SIGKILL)
    if killed.run is None:
        return None
    if not (killed.run / "run.json").exists():
        assert {path.name for path in killed.run.iterdir()} <= {"run.json.new"}
        answer = powerbench("report", killed.run)
        assert (answer.status, answer.stdout) == (1, "")
        assert told(answer).startswith(f"There is no run in {killed.run}: name the folder that")
        return None
    record = load_run(killed.run).record
    if of_worker:
        assert (record.status, record.reason) == ("failed", WORKER_KILLED)
        assert told(killed.done) == f"The run was not completed (failed): {WORKER_KILLED}."
        assert not (killed.run / "marks-0.bin").exists()
    else:
        gone = f"its supervisor (pid {record.supervisor.pid}) is gone without having ended it"
        assert (record.status, record.reason) == ("interrupted", gone)
    no_step_is_lost(killed.run, seen_ns=killed.seen_ns, killed_ns=killed.killed_ns)
    return killed.run


def no_step_is_lost(run: Path, *, seen_ns: list[int], killed_ns: int) -> None:
    """The steps follow one another without a gap, hold every boundary seen before the kill, and reach up to it."""
    steps = load_run(run).steps[0]
    edges = [end for end in steps.end_ns if end is not None]
    assert len(edges) >= len(steps) - 1, "only the step in flight may lack its edge"
    assert steps.start_ns[1:] == edges[: max(0, len(steps) - 1)]
    assert all(start < end for start, end in zip(steps.start_ns, edges, strict=False))
    assert steps.submit_ns[: len(seen_ns[1:])] == seen_ns[1:]
    assert steps.start_ns[:1] == seen_ns[:1] or not seen_ns[1:]
    assert steps.stage == (["warmup"] * 5 + ["step"] * len(steps))[: len(steps)]
    if len(seen_ns) > 1:
        assert edges[-1] >= killed_ns - NS


def test_a_supervisor_killed_around_the_end_of_its_run_leaves_every_step(folder: Path) -> None:
    """While marks become rows, the record is replaced and the summary is printed."""
    moments = random.Random(7)
    with ThreadPoolExecutor(AT_ONCE) as at_once:
        runs = list(
            at_once.map(killed_at_its_end, [folder / str(at) for at in range(8)], [moments.random() for _ in range(8)])
        )

    for run in runs:
        loaded = load_run(run)
        assert loaded.record.status in ("complete", "interrupted")
        assert loaded.steps[0].stage == ["warmup"] * 5 + ["step"] * 20
        assert None not in loaded.steps[0].end_ns
    assert all(summary["steps"] == 20 for summary in report(*runs))


def killed_at_its_end(parent: Path, moment: float) -> Path:
    """The supervisor, up to a tenth of a second after the worker has said that it ended."""
    process = start("run", *SLEEP, "--steps", "20", "--output", parent)
    run = running_in(parent)
    events = run / "worker-0.jsonl"
    wait_for(lambda: events.exists() and '"event":"end"' in events.read_text(), "the worker's end", every_s=0.001)
    time.sleep(moment / 10)
    kill(process)
    nobody_is_left(parent)
    ended(process)
    return run


class TestAStoppedSupervisor:
    def test_does_not_stop_the_worker_and_goes_on_with_every_step(self, folder: Path) -> None:
        process = start("run", *SLEEP, "--steps", "100", "--json", "--output", folder)
        run = stepping_in(folder)

        process.send_signal(signal.SIGSTOP)
        wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "the supervisor's stop")
        wait_for(lambda: len(marked_ns(run)) == 1 + 5 + 100, "the last step, taken while the supervisor was stopped")
        while_stopped = report(run)
        process.send_signal(signal.SIGCONT)
        done = ended(process)

        assert (while_stopped["status"], while_stopped["steps"]) == ("running", 100)
        assert done.status == 0
        assert [row.stage for row in rows_of(run)] == ["warmup"] * 5 + ["step"] * 100
        assert max(row.end_ns - row.start_ns for row in rows_of(run) if row.end_ns) < NS
        assert record_of(run)["status"] == "complete"
        nobody_is_left(folder)

    def test_that_is_killed_leaves_nobody(self, folder: Path) -> None:
        process = start("run", *SLEEP, *ENDLESS, "--output", folder)
        run = stepping_in(folder)
        process.send_signal(signal.SIGSTOP)

        kill(process)
        nobody_is_left(folder)
        ended(process)

        assert load_run(run).record.status == "interrupted"

    @pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
    def test_of_a_stopped_worker_that_is_killed_leaves_nobody(self, folder: Path) -> None:
        """The kernel continues the stopped members of a group that has lost its parent."""
        process = start("run", *SLEEP, *ENDLESS, "--output", folder)
        worker = worker_of(stepping_in(folder))
        worker.suspend()
        # The kernel counts the group as stopped when the last thread of it is.
        wait_for(lambda: {state_of(task) for task in tasks_of(worker)} == {"T"}, "the stop of all its threads")

        kill(process)
        nobody_is_left(folder)
        ended(process)


def tasks_of(process: psutil.Process) -> list[Path]:
    """The threads of a process."""
    return list(Path(f"/proc/{process.pid}/task").iterdir())


def state_of(task: Path) -> str:
    """R, S, T, ...: man 5 proc."""
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")
class TestReadingARunWhileItEnds:
    """The reader is held in front of one of the files, with others behind it, while the writers write on."""

    def test_does_not_call_a_complete_run_interrupted(self, folder: Path) -> None:
        with Lives() as supervisor:
            rundir = a_running_run(folder / "run", supervisor.pid)
            with Lease(rundir.steps(0)) as rows:
                reader = start("report", rundir.path, "--json")
                wait_for(rows.is_waited_for, "the reader")
                rundir.write_record(a_record())
                supervisor.end()
                rows.let_go()
                done = ended(reader)

        assert json.loads(done.stdout)["status"] == "complete"

    def test_misses_no_step_that_moves_from_the_marks_to_the_rows(self, folder: Path) -> None:
        with Lives() as supervisor:
            rundir = a_running_run(folder / "run", supervisor.pid)
            with Lease(rundir.steps(0)) as rows:
                reader = start("report", rundir.path, "--json")
                wait_for(rows.is_waited_for, "the reader")
                # The reader gets what the rows were, as if it had read them a moment before they were completed.
                rundir.steps(0).rename(folder / "as-they-were")
                write_rows(rundir, steps_lasting(1000, 1000, 1000))
                rundir.marks(0).unlink()
                rundir.write_record(a_record())
                rows.let_go()
                done = ended(reader)

        assert json.loads(done.stdout)["steps"] == 3

    def test_takes_no_step_of_the_tail_for_a_measured_one(self, folder: Path) -> None:
        with Lives() as supervisor:
            rundir = a_running_run(folder / "run", supervisor.pid, tail_s=1.0)
            with Lease(rundir.steps(0)) as rows:
                reader = start("report", rundir.path, "--json")
                wait_for(rows.is_waited_for, "the reader")
                EventWriter(rundir.events(0)).write("window", time_ns=START + 3 * NS, first_step=0, steps=3)
                mark_on(rundir, [START + 4 * NS, START + 5 * NS], behind=4)
                rows.let_go()
                done = ended(reader)

        assert json.loads(done.stdout)["steps"] == 3

    def test_that_is_then_complete_has_all_of_its_steps(self, folder: Path) -> None:
        """Reading a million rows takes longer than ending a run does."""
        with Lives() as supervisor:
            rundir = a_running_run(folder / "run", supervisor.pid)
            rundir.events(0).unlink()  # `write_run` holds its file open, and a lease must be the only one
            with Lease(rundir.events(0)) as events:
                reader = start("report", rundir.path, "--json")
                wait_for(events.is_waited_for, "the reader")
                write_rows(rundir, steps_lasting(1000, 1000, 1000, 1000))
                rundir.marks(0).unlink()
                rundir.write_record(a_record())
                supervisor.end()
                events.let_go()
                done = ended(reader)

        summary = json.loads(done.stdout)
        assert (summary["status"], summary["steps"]) == ("complete", 4)


class Lives:
    """A process that only lives, in the place of a supervisor."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.pid = self._process.pid

    def __enter__(self) -> Lives:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End it; twice is no error."""
        self._process.kill()
        self._process.communicate()


def a_running_run(path: Path, pid: int, *, tail_s: float = 0.0) -> RunDir:
    """Three steps of a second by their marks, the first of them journalled."""
    record = a_record(
        status="running",
        clock=Clock(boot_id=boot_id(), start_monotonic_ns=1, start_unix_ns=2),
        supervisor=Supervisor(pid, psutil.Process(pid).create_time()),
        tail_s=tail_s,
    )
    rundir = write_run(path, record)
    write_rows(rundir, steps_lasting(1000))
    write_marks(rundir, [(START + at * NS, START + at * NS) for at in range(4)], room=10)
    return rundir


def mark_on(rundir: RunDir, edges_ns: list[int], *, behind: int) -> None:
    """Write more edges into the marks, behind so many."""
    with rundir.marks(0).open("r+b") as file:
        file.seek(behind * BYTES_A_MARK)
        file.write(b"".join(struct.pack("<qq", edge, edge) for edge in edges_ns))


def write_rows(rundir: RunDir, steps: StepTrace) -> None:
    """steps-0.csv as the supervisor writes it."""
    rundir.steps(0).write_text("\n".join([STEPS_HEADER, *rows_that_stand_for(steps), ""]), "ascii")
