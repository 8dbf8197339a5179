"""The process beside a program that records its own loop: meters, gauges, the journal, and the end, whatever it is."""

from __future__ import annotations

import math
import os
import select
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import SimpleQueue

import msgspec

from powerbench.bounds import Suspended, first_record
from powerbench.duties import Duty, Message, signals_to
from powerbench.endings import Ended, evidence_of_kill, out_of_memory_kills
from powerbench.errors import PowerbenchError
from powerbench.gauges import MachineGauges
from powerbench.launch import kept_awake
from powerbench.loop.order import OVER, Answer, Order
from powerbench.metering import FINE_PERIOD_S, METERS, PERIOD_S, Metering, Telemetry, choose_for, sources_for
from powerbench.power import Source
from powerbench.records import RunRecord, Window
from powerbench.rundir import RunDir, create_named_dir
from powerbench.rundir.completed import complete_record, with_sampled_peak
from powerbench.rundir.journal import Journal
from powerbench.rundir.load import read_record
from powerbench.rundir.marks import Room
from powerbench.session import GAUGE_PERIOD_S, JOURNAL_PERIOD_S, TRACE_PERIOD_S
from powerbench.spying import AS_ROOT, Spy

LOOK_PERIOD_S = 0.25
# The last edge lies between two readings: how long the one behind it is waited for, beyond some periods of the meter.
LAST_READING_S, LAST_PERIODS = 0.5, 3
NEVER_BEGUN = "it was given up before the first step: by Ctrl-C, an error, or the end of the program"
GONE = "the program ended without ending its record: it was killed, crashed, or left by os._exit"


def main() -> int:
    """`python -m powerbench.loop.supervisor PATH`: take an order from stdin, answer on stdout, record until the end."""
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    order = msgspec.json.decode(line, type=Order)
    try:
        sources = sources_for(order.cell)
        chosen = choose_for(order.cell, sources)
        rundir, record = begin(order)
    except PowerbenchError as error:
        _answer(Answer(error=str(error), exit_status=error.exit_status))
        return error.exit_status
    try:
        with Beside(rundir, record, sources=sources, program_pid=os.getppid()) as beside:
            beside.open_meters(*chosen)
            beside.rest()
            _answer(Answer(run=str(rundir.path)))
            ended = beside.attend()
            rundir.write_record(beside.last_record(ended))
    except OSError as error:
        _write_failed(rundir, f"the recording could not go on: {error.strerror}")
        return 1
    return 0


def _answer(answer: Answer) -> None:
    with suppress(OSError):  # nobody is there to hear it: then the pipe is closed, too
        os.write(sys.stdout.fileno(), msgspec.json.encode(answer) + b"\n")


def begin(order: Order) -> tuple[RunDir, RunRecord]:
    """Make the directory and its first record. Raises PowerbenchError where nothing can be written."""
    rundir = create_named_dir(Path(order.path))
    record = first_record(rundir.path.name, cell=order.cell, loop=True, notes=order.notes)
    record.environment["program"] = order.program
    try:
        rundir.write_record(record)
    except OSError as error:
        raise PowerbenchError(
            f"Cannot write a run into {rundir.path}: {error.strerror}. Make room, or record to another folder."
        ) from error
    rundir.link_latest()
    return rundir, record


def _write_failed(rundir: RunDir, reason: str) -> None:
    with suppress(OSError, PowerbenchError):
        rundir.write_record(msgspec.structs.replace(read_record(rundir), status="failed", reason=reason))


class Beside:
    """One program's loop at work, seen from outside: it is never signalled, and goes on as it would without us."""

    def __init__(
        self, rundir: RunDir, record: RunRecord, *, sources: Mapping[str, Source] = METERS, program_pid: int
    ) -> None:
        self._rundir = rundir
        self._record = record
        self._sources = sources
        self._program_pid = program_pid
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._duties: list[Duty] = []
        self._is_over = False
        self._room = Room(rundir.marks(0))
        self._kills_before = out_of_memory_kills()
        self._suspended = Suspended()

    def __enter__(self) -> Beside:
        with ExitStack() as stack:
            cell = self._record.the_cell
            self._journal = Journal(self._rundir, rank=0, warmup=cell.warmup)
            self._telemetry = Telemetry(self._rundir, MachineGauges())
            stack.callback(self._telemetry.close)
            period_s = FINE_PERIOD_S if cell.py_spy else PERIOD_S
            self._metering = Metering(self._rundir, self._telemetry, self._sources, period_s=period_s)
            stack.callback(self._metering.close)
            stack.enter_context(signals_to(self._inbox))
            stack.enter_context(kept_awake())
            self._spy = stack.enter_context(Spy(self._rundir, cell, on_a_mac=AS_ROOT))
            self._telemetry.watch({"worker0": self._program_pid})
            self._duties = [Duty(TRACE_PERIOD_S if cell.trace else GAUGE_PERIOD_S, self._telemetry.sample)]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open_meters(self, names: list[str], unmetered: dict[str, str]) -> None:
        """Open these, of the others saying why not."""
        self._metering.start(names, unmetered, pause=self._pause)
        self._record = msgspec.structs.replace(
            self._record,
            rails=self._metering.rails(),
            unmetered=self._metering.unmetered,
            tried=self._metering.tried,
        )

    def rest(self) -> None:
        """Measure the machine at rest, which here is with the program loaded and waiting; then write what is known."""
        seconds = self._record.the_cell.idle_seconds
        if self._record.rails and seconds and not self._is_over:
            start_ns = time.monotonic_ns()
            self._pause(seconds)
            self._record = msgspec.structs.replace(
                self._record, windows={"idle": Window(start_ns, time.monotonic_ns())}
            )
        self._rundir.write_record(self._record)  # a killed run's rails

    def attend(self) -> Ended:
        """Journal and keep room until the program says that it is over, or is gone; how it ended, and why."""
        self._duties += [
            Duty(LOOK_PERIOD_S, lambda: self._room.keep_ahead(self._journal.marks.look())),
            Duty(JOURNAL_PERIOD_S, self._journal.update),
        ]
        self._serve()
        self._spy.stop()
        self._journal.update()
        self._wait_for_last_readings()
        self._metering.close()
        self._spy.finish()
        reached = self._journal.marks.reached
        self._journal.finish()
        return self._ending(reached)

    def _pause(self, seconds: float) -> bool:
        self._serve(until_s=time.monotonic() + seconds)
        return self._is_over

    def _serve(self, until_s: float = math.inf) -> None:
        """Do the duties until then, or until the program is over."""
        while not self._is_over and (now_s := time.monotonic()) < until_s:
            due_s = min(until_s, now_s + LOOK_PERIOD_S, *(duty.due_s for duty in self._duties))
            if select.select([sys.stdin], [], [], max(0.0, due_s - now_s))[0]:
                self._hear(os.read(sys.stdin.fileno(), 4096))
            # A child that the program has forked may hold the pipe open after it; who our parent is, it cannot hold.
            self._is_over |= os.getppid() != self._program_pid or not self._inbox.empty()
            for duty in self._duties:
                duty.do_if_due()

    def _hear(self, said: bytes) -> None:
        self._is_over |= said in (b"", OVER)

    def _wait_for_last_readings(self) -> None:
        """Until each rail has been read behind the last edge, so that its curve covers the steps; not for ever."""
        last_ns = self._journal.marks.last_ns()
        rails = self._metering.rails()
        if last_ns is None or not rails:
            return
        deadline_s = time.monotonic() + LAST_READING_S + LAST_PERIODS * self._metering.slowest_period_s
        while time.monotonic() < deadline_s and not all(
            (point := self._metering.latest.get(name)) is not None and point.time_ns >= last_ns for name in rails
        ):
            time.sleep(0.02)

    def _ending(self, reached: int) -> Ended:
        end = self._journal.event("end")
        if self._room.is_used_up(reached):
            return Ended("failed", f"there was no room to mark more steps ({self._room.lack}); make room on the disk")
        if end is not None:
            return Ended(end["outcome"], end["message"])
        if not self._inbox.empty():
            return Ended("interrupted", "the process that records it was stopped by a signal")
        if not reached:
            return Ended("interrupted", NEVER_BEGUN)
        kill = evidence_of_kill(self._kills_before, out_of_memory_kills(), None)
        return Ended("interrupted", GONE) if kill is None else Ended("oom", f"the program is gone: {kill}")

    def last_record(self, ended: Ended) -> RunRecord:
        """The record of the ended run."""
        record = self._spy.told(complete_record(self._record, self._journal.events, self._journal.trace))
        record = msgspec.structs.replace(
            record,
            status=ended.status,
            reason=ended.reason,
            clock=self._suspended.ended(record.clock),
            rails=self._metering.rails(),
            notes=[*record.notes, *self._metering.notes()],
        )
        return record if record.peak_memory_bytes is not None else with_sampled_peak(record, self._rundir)


if __name__ == "__main__":
    raise SystemExit(main())
