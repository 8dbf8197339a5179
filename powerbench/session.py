"""The story of a run: make its directory, start the workers, watch and journal until they end, write down how."""

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

from powerbench.bounds import Suspended, first_record
from powerbench.duties import Duty, Message, signals_to
from powerbench.endings import Ended, evidence_of_kill, out_of_memory_kills
from powerbench.errors import PowerbenchError
from powerbench.gauges import MachineGauges
from powerbench.hang import hung
from powerbench.launch import LAUNCHER, WORKER, Commands, kept_awake
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
from powerbench.records import Cell, Node, RunRecord, Window
from powerbench.rundir import RunDir, create_run_dir
from powerbench.rundir.completed import complete_ranks, with_sampled_peak
from powerbench.rundir.journals import Journals
from powerbench.rundir.load import Run, load_run, read_record
from powerbench.spying import Spy
from powerbench.units import NS_PER_S
from powerbench.workers import Circumstances, NoWorkers, Workers, start_workers

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
    node: Node | None = None,
    command: Sequence[str] = WORKER,
    launcher: Sequence[str] = LAUNCHER,
    machine: ReadsGauges | None = None,
    sources: Mapping[str, Source] = METERS,
) -> Run:
    """Measure `cell`, which must be resolved, in a new directory below `parent`; the run as it then lies on disk.

    Of a run on several machines this is what one of them does, `node`. `command` starts a worker, `launcher` what
    starts several, `machine` samples the gauges of the whole machine, and `sources` are the meters.

    Raises PowerbenchError where the directory cannot be made or the disk is full; what was recorded stays.
    """
    rundir = create_run_dir(parent, cell, node=node)
    record = begin(rundir, cell, node)
    on_start(rundir)
    try:
        machine = machine or MachineGauges()
        with Session(rundir, record, commands=Commands(command, launcher), machine=machine, sources=sources) as session:
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


def begin(rundir: RunDir, cell: Cell, node: Node | None = None) -> RunRecord:
    """Write the first record, from which on the directory is a run. Raises PowerbenchError and leaves no trace."""
    try:
        record = first_record(rundir.path.name, cell=cell, ranks=cell.ranks * cell.nnodes, node=node)
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


class Session:
    """The workers at work, and all that is written down beside them."""

    def __init__(
        self,
        rundir: RunDir,
        record: RunRecord,
        *,
        commands: Commands,
        machine: ReadsGauges,
        sources: Mapping[str, Source],
    ) -> None:
        self._rundir = rundir
        self._record = record
        self._commands = commands
        self._machine = machine
        self._sources = sources_for(record.the_cell, sources)
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._duties: list[Duty] = []
        self._workers: Workers = NoWorkers()
        self._are_started = False
        self._stopped: Ended | None = None
        self._kill_at_ns: int | None = None
        self._guard = LimitsGuard(record.the_cell, start_ns=record.clock.start_monotonic_ns)
        self._kills_before = out_of_memory_kills()
        self._suspended = Suspended()

    def __enter__(self) -> Session:
        with ExitStack() as stack:
            cell = self._record.the_cell
            self._journals = Journals(self._rundir, self._record)
            self._telemetry = Telemetry(self._rundir, self._machine)
            stack.callback(self._telemetry.close)
            period_s = FINE_PERIOD_S if cell.py_spy else PERIOD_S
            self._metering = Metering(self._rundir, self._telemetry, self._sources, period_s=period_s)
            stack.callback(self._metering.close)
            stack.enter_context(signals_to(self._inbox))
            stack.enter_context(kept_awake())
            self._spy = stack.enter_context(Spy(self._rundir, cell, rank=self._record.own_ranks[0]))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def attend(self, on_progress: Callable[[Progress], object], progress_period_s: float) -> Ended:
        """Meters, rest, workers: watch until it is over; how it ended, and why."""
        pace = Pace()
        self._duties = [
            Duty(TRACE_PERIOD_S if self._record.the_cell.trace else GAUGE_PERIOD_S, self._telemetry.sample),
            Duty(JOURNAL_PERIOD_S, self._keep_journals),
            Duty(progress_period_s, lambda: on_progress(self._progress(pace))),
            Duty(LIMITS_PERIOD_S, self._keep_limits),
        ]
        self._start_meters()
        self._rest()
        if self._stopped is None:
            self._start_workers()
            self._serve()
        self._workers.close()
        self._spy.finish()
        self._keep_journals()
        self._journals.finish()
        self._metering.close()
        return self._ending()

    def _progress(self, pace: Pace) -> Progress:
        stopping = self._stopped is not None
        return pace.progress(self._record, self._journals.look(), started=self._are_started, stopping=stopping)

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

    def _start_workers(self) -> None:
        self._rundir.write_record(self._record)  # workers read their tail from it, and a killed run its rails
        self._workers = start_workers(
            self._rundir,
            self._record,
            self._journals,
            commands=self._commands,
            when_ended=lambda: self._inbox.put("workers ended"),
        )
        self._are_started = True
        self._stack.callback(self._workers.close)
        self._telemetry.watch(self._workers.pids())

    def _keep_journals(self) -> None:
        """Write down what is new: steps, and with several ranks who has come and what they call their run."""
        self._journals.update()
        self._telemetry.watch(self._workers.pids())
        node, run_id = self._record.node, self._workers.run_id()
        if node is not None and node.id != run_id:
            self._record = msgspec.structs.replace(self._record, node=msgspec.structs.replace(node, id=run_id))
            self._rundir.write_record(self._record)

    def _pause(self, seconds: float) -> bool:
        """Do the duties for so long; whether the run is to end."""
        self._serve(until_s=time.monotonic() + seconds)
        return self._stopped is not None

    def _serve(self, until_s: float = math.inf) -> None:
        """Do the duties until then, the workers' end, or an interrupt while there are none."""
        while time.monotonic() < until_s:
            due_s = min(until_s, *(duty.due_s for duty in self._duties))
            try:
                message = self._inbox.get(timeout=max(0.0, due_s - time.monotonic()))
            except Empty:
                for duty in self._duties:
                    duty.do_if_due()
            else:
                if message == "workers ended":
                    return
                self._interrupt()
            if not self._are_started and self._stopped is not None:
                return

    def last_record(self, ended: Ended) -> RunRecord:
        """The record of the ended run."""
        record = self._spy.told(complete_ranks(self._record, self._journals.told()))
        record = msgspec.structs.replace(
            record,
            status=ended.status,
            reason=ended.reason,
            clock=self._suspended.ended(record.clock),
            rails=self._metering.rails(),
            notes=[*record.notes, *self._workers.notes(), *self._metering.notes()],
        )
        return record if record.peak_memory_bytes is not None else with_sampled_peak(record, self._rundir)

    def _interrupt(self) -> None:
        if self._stopped is not None:  # asked twice: now
            self._workers.kill()
        self._stop(Ended("interrupted", "stopped by Ctrl-C or a signal"))

    def _stop(self, ended: Ended, *, grace_s: float = GRACE_S) -> None:
        if self._stopped is None:
            self._stopped = ended
            if self._record.node is not None:  # its launcher tells the other machines
                self._record = msgspec.structs.replace(self._record, status=ended.status, reason=ended.reason)
                self._rundir.write_record(self._record)
            self._workers.stop()
            self._kill_at_ns = time.monotonic_ns() + round(grace_s * NS_PER_S)

    def _keep_limits(self) -> None:
        if self._kill_at_ns is not None:
            if time.monotonic_ns() > self._kill_at_ns:
                self._workers.kill()
            return
        if self._over() is not None:
            self._journals.update()  # they may have said meanwhile that their steps are over
            if (over := self._over()) is not None:
                self._stop(over)
                return
        hang = hung(self._rundir, self._record, self._journals, now_ns=time.monotonic_ns())
        if hang is not None:
            self._stop(hang, grace_s=0)  # who hangs does not hear

    def _over(self) -> Ended | None:
        last = self._journals.look()
        return self._guard.over(
            now_ns=time.monotonic_ns(),
            # No mark comes from the steps under torch.profiler, which may take long to write down what it saw.
            last_step_ns=None if last.event("end") else last.marks.last_ns(),
            open_steps=last.marks.open_steps,
            gauges=self._telemetry.latest,
        )

    def _ending(self) -> Ended:
        free = self._telemetry.latest.get("system.memory_available_bytes")
        memory = self._record.environment["memory_bytes"]
        free_ratio = None if free is None else free / memory
        return self._workers.ending(
            Circumstances(
                stopped=self._stopped,
                evidence=evidence_of_kill(self._kills_before, out_of_memory_kills(), free_ratio),
                disk_full=shutil.disk_usage(self._rundir.path).free < NEARLY_FULL_BYTES,
            )
        )
