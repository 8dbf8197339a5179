"""The program's side of a record of its own loop: marks at the steps' boundaries, and never an error into the loop."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import get_ident
from types import TracebackType
from typing import Any
from weakref import WeakSet

import msgspec

from powerbench.devices import Device, OpenEndedTimer
from powerbench.endings import Ended, in_one_line
from powerbench.errors import PowerbenchError, Unavailable
from powerbench.loop.order import Order
from powerbench.loop.pipe import SupervisorPipe
from powerbench.loop.program import describe_program, how_it_ended, shown
from powerbench.moments import be_looked_at
from powerbench.records import WorkloadRecord
from powerbench.reporter import REPORT_EVERY_NS, Reporter
from powerbench.rundir import RunDir
from powerbench.rundir.lines import EventWriter
from powerbench.rundir.marks import GrowingMarks

# What marks and events may raise: torch's errors are RuntimeErrors, a full disk is an OSError.
TROUBLE = (RuntimeError, OSError, ValueError, IndexError)

# How long behind a step a pause may come, of that step and at least, without being in the middle of the next.
A_PART, A_WHILE_NS = 0.5, 10_000_000

_living: WeakSet[Recording] = WeakSet()


class Pause:
    """What `Recording.pause` gives: in a `with` statement, the pause ends with it."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def __enter__(self) -> Pause:
        return self

    def __exit__(self, *_: object) -> None:
        self._recording.resume()


class Recording:
    """A record of this program's loop, made by `powerbench.record`, which see. One process marks it, in one thread.

    `with` starts and stops it; so do `start` and `stop`, where the loop lies in several cells of a notebook.
    """

    def __init__(self, order: Order, device: Device, workload: WorkloadRecord, *, quiet: bool) -> None:
        """Record as `order` says, on `device`, steps that are `workload`; `quiet` says nothing on stderr."""
        self._order = order
        self._device = device
        self._workload = workload
        self._quiet = quiet
        self._pipe: SupervisorPipe | None = None
        self._path: Path | None = None
        self._is_marking = False
        self._is_paused = False
        self._is_noted: set[str] = set()

    @property
    def path(self) -> Path | None:
        """The run's directory; None before it is started."""
        return self._path

    def __enter__(self) -> Recording:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(how_it_ended(error))

    def start(self) -> Recording:
        """Open the meters, measure rest, and begin: the first step begins when this returns.

        Raises PowerbenchError where it cannot: a meter or device that was named is not here, nothing can be written.
        """
        if self._path is not None:
            raise PowerbenchError(f"This recording was started already, into {self._path}: call record() for another.")
        complaint = self._device.why_unavailable() or self._device.confirm()
        if complaint is not None:
            raise Unavailable(complaint)
        pipe = SupervisorPipe(self._order)
        self._path = pipe.begin(self._order)
        rundir = RunDir(self._path)
        try:
            self._events = EventWriter(rundir.events(0))
            self._marks = GrowingMarks(rundir.marks(0))
            self._begin(pipe, rundir)
        except OSError as error:
            pipe.close()
            raise PowerbenchError(f"Cannot record in {self._path}: {error.strerror}; make room there.") from error
        except BaseException:  # torch's, or Ctrl-C: the other process must not go on without us
            pipe.close()
            raise
        return self

    def _begin(self, pipe: SupervisorPipe, rundir: RunDir) -> None:
        self._timer: OpenEndedTimer = self._device.timer(self._marks.view, sync_every=self._order.cell.sync_every or 0)
        self._events.write(
            "ready",
            time_ns=time.monotonic_ns(),
            device=msgspec.to_builtins(self._device.describe()),
            workload=msgspec.to_builtins(self._workload),
            environment=describe_program() | {**self._device.settings()},
        )
        cell = self._order.cell
        if cell.py_spy:
            be_looked_at(rundir, self._events, rank=0, supervisor=pipe.pid, rate_hz=cell.py_spy_rate)
        self._thread: int | None = None  # the one that marks; the first step tells
        self._left = len(self._marks.view) // 2 - 1
        self._device.synchronize()
        self._report_ns = self._timer.mark()
        self._timer.fence()
        self._reporter = Reporter(self._events, self._device)
        self._reporter.__enter__()
        _living.add(self)
        atexit.register(self._left_open)
        self._pipe = pipe
        self._is_marking = True

    def step(self) -> None:
        """Say that a step is over: what has come since the last call, or since the start, was one.

        Once started this never raises. What goes wrong becomes a note of the run.
        """
        if not self._is_marking:
            self._not_marking()
            return
        try:
            if not self._left and not self._has_room():
                return
            self._left -= 1
            now = self._timer.mark()
            if now >= self._report_ns or get_ident() != self._thread:
                self._look(now)
        except TROUBLE as error:
            self._give_up(f"Steps were no longer marked after an error: {in_one_line(error)}.")

    def pause(self) -> Pause:
        """Begin a pause, right behind a step: what comes until `resume` (or the end of a `with` block) is no step.

        For evaluation, checkpoints, sleep: it is in no latency and in no joules of a step.
        """
        if self._is_marking:
            try:
                self._tell_if_late(time.monotonic_ns())
                self._timer.fence()
                self._timer.settle()
            except TROUBLE as error:
                self._give_up(f"Steps were no longer marked after an error: {in_one_line(error)}.")
            else:
                self._is_marking, self._is_paused = False, True
        return Pause(self)

    def _tell_if_late(self, now_ns: int) -> None:
        """A pause in the middle of a step takes what was done of it so far, and the step seems short."""
        stamps = self._marks.view
        at = len(stamps) - 2 * self._left  # the boundary that comes next
        if at < 4:
            return
        before_ns, last_ns = (max(abs(stamps[i]), stamps[i + 1]) for i in (at - 4, at - 2))
        if now_ns - last_ns > max(A_WHILE_NS, A_PART * (last_ns - before_ns)):
            self._note(
                "A pause began long after the last step(), in the middle of a step; what was done of that before the "
                "pause is in no figure: pause right behind step()."
            )

    def resume(self) -> None:
        """End a pause: the next step begins now. Without a `pause`, all since the end of the last step was one."""
        if not self._is_marking and not self._is_paused:
            return
        self._is_marking, self._is_paused = True, False
        try:
            if self._left or self._has_room():
                self._left -= 1
                self._timer.resume()
        except TROUBLE as error:
            self._give_up(f"Steps were no longer marked after an error: {in_one_line(error)}.")

    def stop(self) -> None:
        """End the record, which is then complete; stopping twice is no error. Raises nothing."""
        self.end(Ended("complete", None))

    def end(self, ended: Ended) -> None:
        """The same where the loop did not come to its own end, but to this one."""
        pipe = self._pipe
        if pipe is None:
            return
        self._pipe = None
        _living.discard(self)
        atexit.unregister(self._left_open)
        self._finish_marks()
        self._is_marking = self._is_paused = False
        with suppress(*TROUBLE):
            self._reporter.__exit__()
        with suppress(*TROUBLE):
            self._write_end(ended)
        has_ended = pipe.end()
        if not has_ended:
            self._say("the process that finishes the record is still at it; look again in a while")
        verb = "trace" if self._order.cell.trace else "report"
        self._say(f"recorded in {shown(self._path)}; see it with: powerbench {verb} {shown(self._path)}")

    def _finish_marks(self) -> None:
        try:
            self._timer.fence()
            self._timer.finish()
        except TROUBLE as error:
            self._note(f"The last edges could not be read: {in_one_line(error)}.")

    def _write_end(self, ended: Ended) -> None:
        now = time.monotonic_ns()
        if self._timer.anchor_error_ns is not None:
            self._events.write("anchor", time_ns=now, error_ns=self._timer.anchor_error_ns)
        facts: dict[str, Any] = {"outcome": ended.status, "message": ended.reason}
        with suppress(*TROUBLE):  # a device that has failed may not answer any more
            peak, covers = self._device.peak_memory()
            facts |= {"peak_memory_bytes": peak, "peak_memory_of": covers.replace("worker", "program")}
        self._events.write("end", time_ns=now, **facts)

    def _has_room(self) -> bool:
        """Whether the other process has made room for more marks, which it does long before it is needed."""
        before = len(self._marks.view)
        if self._marks.has_grown():
            self._timer.go_on_in(self._marks.view)
            self._left = (len(self._marks.view) - before) // 2
            return True
        self._give_up("Later steps were not marked: there was no room for more, or nobody left to make it.")
        return False

    def _look(self, now_ns: int) -> None:
        """About once a second, right behind a mark."""
        before, self._thread = self._thread, get_ident()
        if before not in (None, self._thread):
            self._note(
                "Steps were marked from several threads: where these ran at once, some are missing, and the times mean "
                "nothing."
            )
        if now_ns >= self._report_ns:
            self._timer.settle()
            self._report_ns = now_ns + REPORT_EVERY_NS
            try:
                self._reporter(now_ns)
            except OSError as error:
                self._note(f"What the device's memory held could not be written: {error.strerror}.")
            if self._pipe is not None and not self._pipe.is_alive():
                self._go_on_alone()

    def _go_on_alone(self) -> None:
        if self._marks.are_there:
            self._note("The process that records is gone: nothing but the steps is recorded from there on.")
        else:  # told to stop, it has folded the marks, and removed them
            self._give_up("The process that records was stopped and has ended the record: later steps are in none.")

    def _not_marking(self) -> None:
        if self._is_paused:
            self._note("A step ended in a pause; it ended the pause, and is not counted.")
            self.resume()
        elif self._path is None:
            raise PowerbenchError(
                "This recording has not been started: write `with powerbench.record(...) as run:`, or call its start()."
            )

    def _give_up(self, why: str) -> None:
        self._is_marking = self._is_paused = False
        self._note(why)

    def _note(self, text: str) -> None:
        """Say it once, on stderr and in the record, as far as either can be written."""
        if text in self._is_noted:
            return
        self._is_noted.add(text)
        with suppress(OSError):
            self._events.write("note", time_ns=time.monotonic_ns(), text=text)
        self._say(text)

    def _say(self, text: str) -> None:
        if self._quiet or sys.stderr is None:
            return
        with suppress(OSError, ValueError):  # nobody reads it, or it was closed
            sys.stderr.write(f"powerbench: {text}\n")

    def _left_open(self) -> None:
        """The interpreter ends, and nobody has stopped the recording."""
        # What ended it, as the traceback had it; where somebody types, that may have been any line before.
        error = None if hasattr(sys, "ps1") else getattr(sys, "last_value", None)
        ended = Ended("interrupted", "the program ended without stopping the recording")
        self.end(ended if error is None else how_it_ended(error))

    def leave_to_parent(self) -> None:
        """In a child that was forked: mark nothing, hold nothing open, and let the parent go on."""
        self._is_marking = self._is_paused = False
        atexit.unregister(self._left_open)
        with suppress(ValueError):
            gc.callbacks.remove(self._reporter.collected)
        if self._pipe is not None:
            self._pipe.let_go()
            self._pipe = None


def _leave_all_to_parent() -> None:
    for recording in list(_living):
        recording.leave_to_parent()
    _living.clear()


os.register_at_fork(after_in_child=_leave_all_to_parent)
