"""The story of a sweep: each measurement without an answer, in a run of its own, until all have one or it stops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

import msgspec

from powerbench.cooldown import CoolDown
from powerbench.duties import Message, signals_to
from powerbench.errors import PowerbenchError, Unavailable, UsageError
from powerbench.forecast import Forecast, took_by
from powerbench.launch import kept_awake
from powerbench.records import Cell, Status
from powerbench.rundir import RunDir
from powerbench.rundir.load import Run
from powerbench.rundir.sweeps import ANSWERS, Attempt, Measurement, SweepDir, SweepRecord
from powerbench.units import duration

Resolve = Callable[[Cell], Cell]
"""Makes the choices that a cell leaves open. Raises UsageError, Unavailable."""


class Standing(NamedTuple):
    """Where a sweep stands: the measurement at hand, its number, how many there are, and the time that they take.

    `cell` is the measurement's, with its choices made where they can be made. `this_s` is what this measurement is
    expected to take, `after_s` all that come after it; None where nothing tells.
    """

    measurement: Measurement
    cell: Cell
    number: int
    total: int
    this_s: float | None
    after_s: float | None

    @property
    def left_s(self) -> float | None:
        """What is left of the whole as this measurement begins."""
        return None if self.this_s is None or self.after_s is None else self.this_s + self.after_s


Measure = Callable[[Cell, Path, Callable[[RunDir], object], Standing], Run]
"""Measures a resolved cell in a new directory below a folder, and says when that is made."""


def measurements_of(cells: Sequence[Cell], *, repeats: int, against: str | None = None) -> list[Measurement]:
    """Each cell so many times, in turns: what drifts with time then meets all cells alike.

    With another interpreter, each cell in both, one right after the other, and the other way round each second time
    (A B, B A): a drift that goes on meets both alike.
    """
    return [
        Measurement(cell=cell, repeat=repeat, interpreter=interpreter)
        for repeat in range(1, repeats + 1)
        for cell in cells
        for interpreter in _turns(repeat, against)
    ]


def _turns(repeat: int, against: str | None) -> Sequence[str | None]:
    if against is None:
        return (None,)
    return (None, against) if repeat % 2 else (against, None)


def pending(measurements: Iterable[Measurement], *, retry: Sequence[Status] = ()) -> list[int]:
    """The positions of those that have no answer, or one that is to be tried again."""
    return [at for at, one in enumerate(measurements) if one.status not in ANSWERS or one.status in retry]


class Sweep:
    """A sweep at work. Whatever changes is in sweep.json before anything else happens.

    `todo` are the positions of what is to be measured.
    """

    def __init__(
        self,
        sweepdir: SweepDir,
        record: SweepRecord,
        *,
        resolve: Resolve,
        measure: Measure,
        forecast: Forecast,
        cooldown: CoolDown,
        retry: Sequence[Status] = (),
        say: Callable[[str], object] = lambda sentence: None,
        on_cell: Callable[[Standing], object] = lambda standing: None,
    ) -> None:
        self.record = record
        self.todo = pending(record.measurements, retry=retry)
        self._sweepdir = sweepdir
        self._resolve = resolve
        self._measure = measure
        self._forecast = forecast
        self._cooldown = cooldown
        self._say = say
        self._on_cell = on_cell
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._likely: dict[Cell, Cell | None] = {}
        self.stopped = False
        """Whether Ctrl-C ended it."""

    def run(self) -> None:
        """Measure all that is to be measured, or until it is stopped.

        A cell that cannot be measured has that for an answer. Ctrl-C ends the run at work and then the sweep. Raises
        PowerbenchError where nothing can be recorded any more.
        """
        with signals_to(self._inbox), kept_awake():
            for done, at in enumerate(self.todo):
                cooldown_s = self._cool_down() if self._can_be(at) else None
                if self._is_stopped():
                    return
                standing = self._standing(done)
                self._on_cell(standing)
                self._turn(at, standing, cooldown_s)
                self.stopped = self.record.measurements[at].status == "interrupted"
                if self._is_stopped():
                    return

    def _cool_down(self) -> float | None:
        """Rest, except before the very first measurement, when it is seen what rest is like; how long, in seconds."""
        if not self.record.cooldown_seconds:
            return None
        if not any(one.attempts for one in self.record.measurements):
            self._write(rest=dict(self._cooldown.look()))
            return None
        rest, at_most_s = self.record.rest, self.record.cooldown_seconds
        self._say(f"Cooling down, for {'at most ' if rest else ''}{duration(at_most_s)}")
        cooled = self._cooldown.wait(rest, at_most_s=at_most_s, pause=self._pause)
        if cooled.still is not None and not self.stopped:
            self._say(f"Not cool yet: {cooled.still}")
        return cooled.waited_s

    def _pause(self, seconds: float) -> bool:
        try:
            self._inbox.get(timeout=seconds)
        except Empty:
            return False
        self.stopped = True
        return True

    def _is_stopped(self) -> bool:
        self.stopped = self.stopped or not self._inbox.empty()
        return self.stopped

    def _standing(self, done: int) -> Standing:
        one = self.record.measurements[self.todo[done]]
        this_s, *others_s = [self._expected_s(self.record.measurements[at].cell) for at in self.todo[done:]]
        known_s = [seconds for seconds in others_s if seconds is not None]
        after_s = sum(known_s) + self.record.cooldown_seconds * sum(map(self._can_be, self.todo[done + 1 :]))
        return Standing(
            measurement=one,
            cell=self._with_choices(one.cell) or one.cell,
            number=self.todo[done] + 1,
            total=len(self.record.measurements),
            this_s=this_s,
            after_s=after_s if len(known_s) == len(others_s) else None,
        )

    def _can_be(self, at: int) -> bool:
        return self._with_choices(self.record.measurements[at].cell) is not None

    def _expected_s(self, cell: Cell) -> float | None:
        likely = self._with_choices(cell)
        return 0.0 if likely is None else self._forecast.seconds(likely)

    def _with_choices(self, cell: Cell) -> Cell | None:
        """As it will likely be measured; None where it cannot be. Asked once: to look at every meter takes time."""
        if cell not in self._likely:
            try:
                self._likely[cell] = self._resolve(cell)
            except (Unavailable, UsageError):
                self._likely[cell] = None
        return self._likely[cell]

    def _turn(self, at: int, standing: Standing, cooldown_s: float | None) -> None:
        self._begin(at, Attempt(status="running", cooldown_s=cooldown_s))
        try:
            cell = self._resolve(self.record.measurements[at].cell)
        except (Unavailable, UsageError) as error:
            self._note(at, status="unavailable" if isinstance(error, Unavailable) else "failed", reason=str(error))
            return
        try:
            run = self._measure(
                cell, self._sweepdir.path, lambda rundir: self._note(at, run=rundir.path.name), standing
            )
        except PowerbenchError as error:  # the disk is full, the folder is gone: no answer of the cell's
            with suppress(PowerbenchError):
                self._note(at, status="interrupted", reason=str(error))
            raise
        self._note(at, run=run.path.name, status=run.record.status, reason=run.record.reason)
        self._forecast.learn(took_by(run.record))

    def _begin(self, at: int, attempt: Attempt) -> None:
        self._replace(at, [*self.record.measurements[at].attempts, attempt])

    def _note(self, at: int, **changes: object) -> None:
        *before, last = self.record.measurements[at].attempts
        self._replace(at, [*before, msgspec.structs.replace(last, **changes)])

    def _replace(self, at: int, attempts: list[Attempt]) -> None:
        measurements = list(self.record.measurements)
        measurements[at] = msgspec.structs.replace(measurements[at], attempts=attempts)
        self._write(measurements=measurements)

    def _write(self, **changes: object) -> None:
        self.record = msgspec.structs.replace(self.record, **changes)
        self._sweepdir.write(self.record)


def refuse_nonsense(cells: Sequence[Cell], resolve: Resolve) -> None:
    """Raises UsageError for a cell that makes no sense, and Unavailable where none can be measured here at all."""
    unavailable: list[PowerbenchError] = []
    for cell in cells:
        try:
            resolve(cell)
        except Unavailable as error:
            unavailable.append(error)
    if len(unavailable) == len(cells):
        raise unavailable[0]
