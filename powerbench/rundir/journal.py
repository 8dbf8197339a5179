"""The supervisor's hand on a worker's files: marks become rows of steps.csv, events become facts, as they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from powerbench.records import StepTrace
from powerbench.rundir import RunDir
from powerbench.rundir.completed import measured_steps
from powerbench.rundir.lines import STEPS_HEADER, LineTail, LineWriter, read_events
from powerbench.rundir.marks import MarksReader
from powerbench.rundir.phases import PHASES_HEADER, PhasesReader, phase_line
from powerbench.rundir.work import WORK_HEADER, WorkReader, work_line


class Journal:
    """Follows one rank: `update` folds what is new, `finish` folds the rest and removes the marks."""

    def __init__(self, rundir: RunDir, *, rank: int, warmup: int, phases: Sequence[str] = ()) -> None:
        """Follow `rank`; `phases` are those that its steps are stamped with, if any."""
        self.events: list[dict[str, Any]] = []
        self.trace = StepTrace()
        self._marks_path = rundir.marks(rank)
        self.marks = MarksReader(self._marks_path, warmup=warmup)
        self._tail = LineTail(rundir.events(rank))
        self._steps = LineWriter(rundir.steps(rank), header=STEPS_HEADER)
        self._phase_marks_path = rundir.phase_marks(rank)
        self._phase_marks = PhasesReader(self._phase_marks_path, phases)
        self._phases = LineWriter(rundir.phases(rank), header=PHASES_HEADER) if phases else None
        self._work_marks_path = rundir.work_marks(rank)
        self.work_marks = WorkReader(self._work_marks_path)
        self._work_path = rundir.work(rank)
        self._work: LineWriter | None = None

    def update(self, *, final: bool = False) -> None:
        """Fold the steps that are decided by now. Raises OSError where they cannot be written."""
        # Marks first: the worker says where the tail begins before it steps into it.
        self.marks.look()
        self.events += read_events(self._tail.read())
        steps = self.marks.steps(measured=self.measured, final=final)
        first = len(self.trace)
        for row in zip(steps.stage, steps.start_ns, steps.submit_ns, steps.end_ns, strict=True):
            self.trace.append(*row)
        self._steps.write(_rows(steps, first=first))
        if self._phases is not None:
            self._phases.write(map(phase_line, self._phase_marks.read(until=len(self.trace))))
        self._fold_work()

    def finish(self) -> None:
        """Fold everything, and only then let go of the marks. The worker must be gone."""
        self.update(final=True)
        self._steps.close()
        if self._phases is not None:
            self._phases.close()
        if self._work is not None:
            self._work.close()
        self._marks_path.unlink(missing_ok=True)
        self._phase_marks_path.unlink(missing_ok=True)
        self._work_marks_path.unlink(missing_ok=True)

    def _fold_work(self) -> None:
        if self._work is None:
            if not self.work_marks.is_there:  # this rank shares its steps with no other, or has not begun
                return
            self._work = LineWriter(self._work_path, header=WORK_HEADER)
        self._work.write(work_line(*row) for row in self.work_marks.read(until=len(self.trace)))

    @property
    def measured(self) -> int | None:
        """The number of measured steps, once the worker has said it."""
        return measured_steps(self.events)

    def event(self, name: str) -> dict[str, Any] | None:
        """The first event of that name, or None while it has not come."""
        return next((event for event in self.events if event["event"] == name), None)


def _rows(steps: StepTrace, *, first: int) -> list[str]:
    columns = zip(steps.stage, steps.start_ns, steps.submit_ns, steps.end_ns, strict=True)
    return [
        f"{number},{stage},{start},{submit},{'' if end is None else end}"
        for number, (stage, start, submit, end) in enumerate(columns, first)
    ]
