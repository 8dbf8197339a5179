"""The story of a run: make its directory, start the worker, watch and journal until it ends, write down how."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Literal, NamedTuple

import msgspec
import psutil

from powerbench.environment import boot_id, describe_environment
from powerbench.errors import PowerbenchError
from powerbench.launch import WORKER, WorkerProcess, ending_in_words
from powerbench.metering import Telemetry
from powerbench.records import Cell, Clock, RunRecord, Status, Supervisor
from powerbench.rundir import RunDir, create_run_dir
from powerbench.rundir.journal import Journal
from powerbench.rundir.load import Run, complete_record, load_run, with_sampled_peak
from powerbench.units import NS_PER_S, seconds_from_ns

Message = Literal["interrupt", "worker ended"]

GAUGE_PERIOD_S = 1.0
TRACE_PERIOD_S = 0.1
JOURNAL_PERIOD_S = 1.0
# Marks outlive a kill, so little is lost by it; a step in flight may still take long, or hold the GIL.
GRACE_S = 5.0
NEARLY_FULL_BYTES = 1 << 20


class Progress(NamedTuple):
    """Where a run stands. `step_s` is the pace since the last report; None while there is none."""

    record: RunRecord
    stage: Literal["starting", "warm-up", "measuring", "tail"]
    done: int
    total: int
    step_s: float | None
    left_s: float | None


def record_run(
    cell: Cell,
    *,
    parent: Path,
    on_start: Callable[[RunDir], object] = lambda rundir: None,
    on_progress: Callable[[Progress], object] = lambda progress: None,
    progress_period_s: float = 1.0,
    command: Sequence[str] = WORKER,
) -> Run:
    """Measure `cell`, which must be resolved, in a new directory below `parent`; the run as it then lies on disk.

    Raises PowerbenchError where the directory cannot be made or the disk is full; what was recorded stays.
    """
    rundir = create_run_dir(parent, cell)
    on_start(rundir)
    try:
        record = first_record(rundir, cell)
        rundir.write_record(record)
        with Session(rundir, record, command) as session:
            status, reason = session.attend(on_progress, progress_period_s)
        rundir.write_record(session.last_record(status, reason))
    except OSError as error:
        raise PowerbenchError(
            f"Cannot go on recording in {rundir.path}: {error.strerror}. What was measured so far is kept there; "
            f"make room, and read it with `powerbench report {rundir.path}`."
        ) from error
    return load_run(rundir.path)


def first_record(rundir: RunDir, cell: Cell) -> RunRecord:
    """What is known before anything runs."""
    me = psutil.Process()
    return RunRecord(
        id=rundir.path.name,
        status="running",
        cell=cell,
        clock=Clock(boot_id=boot_id(), start_monotonic_ns=time.monotonic_ns(), start_unix_ns=time.time_ns()),
        environment=describe_environment(),
        supervisor=Supervisor(me.pid, me.create_time()),
    )


class Session:
    """One worker at work, and all that is written down beside it."""

    def __init__(self, rundir: RunDir, record: RunRecord, command: Sequence[str]) -> None:
        self._rundir = rundir
        self._record = record
        self._command = command
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._stopped: tuple[Status, str] | None = None
        self._kill_at_ns: int | None = None

    def __enter__(self) -> Session:
        with ExitStack() as stack:
            self.journal = Journal(self._rundir, rank=0, warmup=self._record.cell.warmup)
            self._telemetry = Telemetry(self._rundir)
            stack.callback(self._telemetry.close)
            stack.enter_context(_signals_to(self._inbox))
            self._worker = WorkerProcess(
                self._rundir, rank=0, command=self._command, when_ended=lambda: self._inbox.put("worker ended")
            )
            stack.callback(self._worker.close)
            self._telemetry.watch({"worker0": self._worker.pid})
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def attend(self, on_progress: Callable[[Progress], object], progress_period_s: float) -> tuple[Status, str | None]:
        """Sample, journal and report until the worker has ended; how it ended, and why."""
        pace = Pace(self._record)
        gauge_period_s = TRACE_PERIOD_S if self._record.cell.trace else GAUGE_PERIOD_S
        duties = [
            Duty(gauge_period_s, self._telemetry.sample),
            Duty(JOURNAL_PERIOD_S, self.journal.update),
            Duty(progress_period_s, lambda: on_progress(pace.progress(self.journal))),
            Duty(TRACE_PERIOD_S, self._keep_time),
        ]
        while True:
            try:
                message = self._inbox.get(timeout=max(0.0, min(duty.due_s for duty in duties) - time.monotonic()))
            except Empty:
                for duty in duties:
                    duty.do_if_due()
                continue
            if message == "worker ended":
                self._worker.close()
                self.journal.finish()
                return self._ending()
            self._interrupt()

    def last_record(self, status: Status, reason: str | None) -> RunRecord:
        """The record of the ended run."""
        record = complete_record(self._record, self.journal.events, self.journal.trace)
        clock = msgspec.structs.replace(record.clock, end_monotonic_ns=time.monotonic_ns(), end_unix_ns=time.time_ns())
        record = msgspec.structs.replace(record, status=status, reason=reason, clock=clock)
        return record if record.peak_memory_bytes is not None else with_sampled_peak(record, self._rundir)

    def _interrupt(self) -> None:
        if self._stopped is not None:  # asked twice: now
            self._worker.kill()
        self._stop("interrupted", "stopped by Ctrl-C or a signal")

    def _stop(self, status: Status, reason: str) -> None:
        if self._stopped is None:
            self._stopped = status, reason
            self._worker.stop()
            self._kill_at_ns = time.monotonic_ns() + round(GRACE_S * NS_PER_S)

    def _keep_time(self) -> None:
        limit_s = self._record.cell.max_seconds
        spent_s = seconds_from_ns(time.monotonic_ns() - self._record.clock.start_monotonic_ns)
        if limit_s is not None and spent_s > limit_s:
            self._stop("timeout", f"it was still running after {limit_s:g} s (max_seconds); allow more or measure less")
        if self._kill_at_ns is not None and time.monotonic_ns() > self._kill_at_ns:
            self._worker.kill()

    def _ending(self) -> tuple[Status, str | None]:
        end = self.journal.event("end")
        if end is not None and end["outcome"] == "complete":
            return "complete", None
        if self._stopped is not None:
            return self._stopped
        if end is not None:
            return end["outcome"], end["message"]
        return "failed", self._last_words()

    def _last_words(self) -> str:
        status = self._worker.exit_status
        how = f"the worker {ending_in_words(status if status is not None else 0)}"
        if shutil.disk_usage(self._rundir.path).free < NEARLY_FULL_BYTES:
            return f"{how} with the disk full; make room, or choose another folder with --output"
        log = self._rundir.log(0)
        lines = log.read_text("utf-8", errors="replace").strip().splitlines()
        return f"{how}: {lines[-1].strip()} (the whole story is in {log})" if lines else how


class Duty:
    """Something to do once a period: late is done once, not made up for."""

    def __init__(self, period_s: float, do: Callable[[], object]) -> None:
        self._period_s = period_s
        self._do = do
        self.due_s = time.monotonic()

    def do_if_due(self) -> None:
        """Do it where its time has come."""
        now_s = time.monotonic()
        if now_s >= self.due_s:
            self._do()
            self.due_s = max(self.due_s + self._period_s, now_s + self._period_s / 2)


class Pace:
    """How fast the steps come and how long the rest will take, from the marks as they stand."""

    def __init__(self, record: RunRecord) -> None:
        self._record = record
        self._seen = (0, 0)
        self._step_s: float | None = None
        self._window_ns: int | None = None

    def progress(self, journal: Journal) -> Progress:
        """Where the run stands now."""
        cell = self._record.cell
        done = max(0, journal.marks.look() - 1)
        last_ns = journal.marks.last_ns()
        if last_ns is None:
            return Progress(self._record, "starting", 0, cell.steps, None, None)
        self._update(done, last_ns)
        if done < cell.warmup:
            return self._at("warm-up", done, cell.warmup, cell.warmup - done + cell.steps)
        self._window_ns = self._window_ns or last_ns
        if journal.measured is not None and self._record.tail_s:
            return self._at("tail", journal.measured, journal.measured, 0)
        measured = done - cell.warmup
        return self._at("measuring", measured, max(cell.steps, measured), max(0, cell.steps - measured))

    def _update(self, done: int, now_ns: int) -> None:
        steps, since_ns = done - self._seen[0], now_ns - self._seen[1]
        if steps > 0:
            if self._seen[1]:
                self._step_s = seconds_from_ns(since_ns) / steps
            self._seen = (done, now_ns)

    def _at(self, stage: Literal["warm-up", "measuring", "tail"], done: int, total: int, left: int) -> Progress:
        left_s = None if self._step_s is None else left * self._step_s
        if left_s is not None and stage == "measuring" and self._window_ns is not None:
            spent_s = seconds_from_ns(self._seen[1] - self._window_ns)
            left_s = max(left_s, (self._record.cell.min_seconds or 0) - spent_s)
        return Progress(self._record, stage, done, total, self._step_s, left_s)


@contextmanager
def _signals_to(inbox: SimpleQueue[Message]) -> Iterator[None]:
    """While inside, Ctrl-C, SIGTERM and SIGHUP are messages: a signal never tears the record in the middle."""

    def note(number: int, frame: FrameType | None) -> None:
        inbox.put("interrupt")

    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, note) for number in watched]
    try:
        yield
    finally:
        for number, handler in zip(watched, before, strict=True):
            signal.signal(number, handler)
