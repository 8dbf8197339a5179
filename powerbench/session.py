"""The story of a run: make its directory, start the worker, watch and journal until it ends, write down how."""

from __future__ import annotations

import errno
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Empty, SimpleQueue

import msgspec
import psutil

from powerbench.duties import Duty, Message, signals_to
from powerbench.endings import Ended, evidence_of_kill, how_it_ended, log_notes, out_of_memory_kills
from powerbench.environment import boot_id, describe_environment, suspended_ns
from powerbench.errors import PowerbenchError
from powerbench.gauges import MachineGauges
from powerbench.launch import WORKER, WorkerProcess, kept_awake
from powerbench.limits import LimitsGuard
from powerbench.metering import (
    FINE_PERIOD_S,
    METERS,
    PERIOD_S,
    Metering,
    ReadsGauges,
    Telemetry,
    choose_for,
    sources_for,
)
from powerbench.pace import Pace, Progress
from powerbench.power import Source
from powerbench.records import Cell, Clock, RunRecord, Supervisor, Window, phases_of
from powerbench.rundir import RunDir, create_run_dir
from powerbench.rundir.journal import Journal
from powerbench.rundir.load import Run, complete_record, load_run, read_record, with_sampled_peak
from powerbench.spying import Spy
from powerbench.units import NS_PER_S

GAUGE_PERIOD_S = 1.0
TRACE_PERIOD_S = 0.1
JOURNAL_PERIOD_S = 1.0
LIMITS_PERIOD_S = 0.25
# How long a worker that was asked to stop may finish its step, which may hold the GIL; marks outlive the kill after it.
GRACE_S = 5.0
NEARLY_FULL_BYTES = 1 << 20


def record_run(
    cell: Cell,
    *,
    parent: Path,
    on_start: Callable[[RunDir], object] = lambda rundir: None,
    on_progress: Callable[[Progress], object] = lambda progress: None,
    progress_period_s: float = 1.0,
    command: Sequence[str] = WORKER,
    machine: ReadsGauges | None = None,
    sources: Mapping[str, Source] = METERS,
) -> Run:
    """Measure `cell`, which must be resolved, in a new directory below `parent`; the run as it then lies on disk.

    `command` starts a worker, `machine` samples the gauges of the whole machine, and `sources` are the meters.

    Raises PowerbenchError where the directory cannot be made or the disk is full; what was recorded stays.
    """
    rundir = create_run_dir(parent, cell)
    record = begin(rundir, cell)
    on_start(rundir)
    try:
        machine = machine or MachineGauges()
        with Session(rundir, record, command=command, machine=machine, sources=sources) as session:
            ended = session.attend(on_progress, progress_period_s)
            rundir.write_record(session.last_record(ended))
    except OSError as error:
        _write_failed(rundir, f"the recording could not go on: {error.strerror}")
        room = "make room, and " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise PowerbenchError(
            f"Cannot go on recording in {rundir.path}: {error.strerror}. What was measured so far is kept there; "
            f"{room}read it with `powerbench report {rundir.path}`."
        ) from error
    return load_run(rundir.path)


def begin(rundir: RunDir, cell: Cell) -> RunRecord:
    """Write the first record, from which on the directory is a run. Raises PowerbenchError and leaves no trace."""
    try:
        record = first_record(rundir, cell)
        rundir.write_record(record)
    except OSError as error:
        shutil.rmtree(rundir.path, ignore_errors=True)
        raise PowerbenchError(
            f"Cannot write a run into {rundir.path.parent}: {error.strerror}. Make room, or choose another folder with "
            "--output."
        ) from error
    rundir.link_latest()
    return record


def _write_failed(rundir: RunDir, reason: str) -> None:
    # It may well not be written either; then the run reads as interrupted, if it is still there at all.
    with suppress(OSError, PowerbenchError):
        rundir.write_record(msgspec.structs.replace(read_record(rundir), status="failed", reason=reason))


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

    def __init__(
        self,
        rundir: RunDir,
        record: RunRecord,
        *,
        command: Sequence[str],
        machine: ReadsGauges,
        sources: Mapping[str, Source],
    ) -> None:
        self._rundir = rundir
        self._record = record
        self._command = command
        self._machine = machine
        self._sources = sources_for(record.the_cell, sources)
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._duties: list[Duty] = []
        self._worker: WorkerProcess | None = None
        self._stopped: Ended | None = None
        self._kill_at_ns: int | None = None
        self._guard = LimitsGuard(record.the_cell, start_ns=record.clock.start_monotonic_ns)
        self._kills_before = out_of_memory_kills()
        self._suspended_before = suspended_ns()

    def __enter__(self) -> Session:
        with ExitStack() as stack:
            cell = self._record.the_cell
            self.journal = Journal(self._rundir, rank=0, warmup=cell.warmup, phases=phases_of(cell))
            self._telemetry = Telemetry(self._rundir, self._machine)
            stack.callback(self._telemetry.close)
            period_s = FINE_PERIOD_S if cell.py_spy else PERIOD_S
            self._metering = Metering(self._rundir, self._telemetry, self._sources, period_s=period_s)
            stack.callback(self._metering.close)
            stack.enter_context(signals_to(self._inbox))
            stack.enter_context(kept_awake())
            self._spy = stack.enter_context(Spy(self._rundir, cell))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def attend(self, on_progress: Callable[[Progress], object], progress_period_s: float) -> Ended:
        """Meters, rest, worker: watch until it is over; how it ended, and why."""
        pace = Pace()
        self._duties = [
            Duty(TRACE_PERIOD_S if self._record.the_cell.trace else GAUGE_PERIOD_S, self._telemetry.sample),
            Duty(JOURNAL_PERIOD_S, self.journal.update),
            Duty(progress_period_s, lambda: on_progress(self._progress(pace))),
            Duty(LIMITS_PERIOD_S, self._keep_limits),
        ]
        self._start_meters()
        self._rest()
        if self._stopped is None:
            self._start_worker()
            self._serve()
        if self._worker is not None:
            self._worker.close()
        self._spy.finish()
        self.journal.finish()
        self._metering.close()
        return self._ending()

    def _progress(self, pace: Pace) -> Progress:
        started, stopping = self._worker is not None, self._stopped is not None
        return pace.progress(self._record, self.journal, started=started, stopping=stopping)

    def _start_meters(self) -> None:
        names, unmetered = choose_for(self._record.the_cell, self._sources)
        self._metering.start(names, unmetered, pause=self._pause)
        self._record = msgspec.structs.replace(
            self._record,
            rails=self._metering.rails(),
            unmetered=self._metering.unmetered,
            tried=self._metering.tried,
            # Two periods of the slowest meter: then its readings that straddle the last edge are readings under load.
            tail_s=2 * self._metering.slowest_period_s,
        )

        if self._record.the_cell.require_power and not self._record.rails and self._stopped is None:
            reasons = "; ".join(f"{name}: {self._metering.unmetered[name]}" for name in self._metering.tried)
            self._stop(Ended("unavailable", f"energy is required, and no meter could be opened ({reasons})"))

    def _rest(self) -> None:
        seconds = self._record.the_cell.idle_seconds
        if self._record.rails and seconds and self._stopped is None:
            start_ns = time.monotonic_ns()
            self._pause(seconds)
            idle = Window(start_ns, time.monotonic_ns())
            self._record = msgspec.structs.replace(self._record, windows={"idle": idle})

    def _start_worker(self) -> None:
        self._rundir.write_record(self._record)  # the worker reads its tail from it, and a killed run its rails
        self._worker = WorkerProcess(
            self._rundir, rank=0, command=self._command, when_ended=lambda: self._inbox.put("worker ended")
        )
        self._stack.callback(self._worker.close)
        self._telemetry.watch({"worker0": self._worker.pid})

    def _pause(self, seconds: float) -> bool:
        """Do the duties for so long; whether the run is to end."""
        self._serve(until_s=time.monotonic() + seconds)
        return self._stopped is not None

    def _serve(self, until_s: float = math.inf) -> None:
        """Do the duties until then, the worker's end, or an interrupt while there is no worker."""
        while time.monotonic() < until_s:
            due_s = min(until_s, *(duty.due_s for duty in self._duties))
            try:
                message = self._inbox.get(timeout=max(0.0, due_s - time.monotonic()))
            except Empty:
                for duty in self._duties:
                    duty.do_if_due()
            else:
                if message == "worker ended":
                    return
                self._interrupt()
            if self._worker is None and self._stopped is not None:
                return

    def last_record(self, ended: Ended) -> RunRecord:
        """The record of the ended run."""
        record = self._spy.told(complete_record(self._record, self.journal.events, self.journal.trace))
        slept_ns = suspended_ns()
        clock = msgspec.structs.replace(
            record.clock,
            end_monotonic_ns=time.monotonic_ns(),
            end_unix_ns=time.time_ns(),
            suspended_ns=None
            if slept_ns is None or self._suspended_before is None
            else slept_ns - self._suspended_before,
        )
        record = msgspec.structs.replace(
            record,
            status=ended.status,
            reason=ended.reason,
            clock=clock,
            rails=self._metering.rails(),
            notes=[*record.notes, *log_notes(self._log()), *self._metering.notes()],
        )
        return record if record.peak_memory_bytes is not None else with_sampled_peak(record, self._rundir)

    def _interrupt(self) -> None:
        if self._stopped is not None and self._worker is not None:  # asked twice: now
            self._worker.kill()
        self._stop(Ended("interrupted", "stopped by Ctrl-C or a signal"))

    def _stop(self, ended: Ended) -> None:
        if self._stopped is None:
            self._stopped = ended
            if self._worker is not None:
                self._worker.stop()
            self._kill_at_ns = time.monotonic_ns() + round(GRACE_S * NS_PER_S)

    def _keep_limits(self) -> None:
        if self._kill_at_ns is not None:
            if self._worker is not None and time.monotonic_ns() > self._kill_at_ns:
                self._worker.kill()
            return
        self.journal.marks.look()
        over = self._guard.over(
            now_ns=time.monotonic_ns(),
            last_step_ns=self.journal.marks.last_ns(),
            open_steps=self.journal.marks.open_steps,
            gauges=self._telemetry.latest,
        )
        if over is not None:
            self._stop(over)

    def _ending(self) -> Ended:
        free = self._telemetry.latest.get("system.memory_available_bytes")
        memory = self._record.environment["memory_bytes"]
        return how_it_ended(
            end=self.journal.event("end"),
            stopped=self._stopped,
            exit_status=None if self._worker is None else self._worker.exit_status,
            log=self._log(),
            log_path=self._rundir.log(0),
            evidence=evidence_of_kill(
                self._kills_before, out_of_memory_kills(), None if free is None else free / memory
            ),
            disk_full=shutil.disk_usage(self._rundir.path).free < NEARLY_FULL_BYTES,
        )

    def _log(self) -> str:
        log = self._rundir.log(0)
        return log.read_text("utf-8", errors="replace") if log.exists() else ""
