"""How long a cell will take: what it took before, or what another like it took, or at least so much."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from powerbench.errors import PowerbenchError
from powerbench.records import Cell, RunRecord
from powerbench.rundir import RECORD, RunDir
from powerbench.rundir.load import read_record
from powerbench.units import seconds_from_ns
from powerbench.workloads import workload_of

# Of so many times the work or more, a run says nothing: small ones take what starting their operations takes.
FURTHEST = 30.0


class Took(NamedTuple):
    """What a run took from beginning to end, and how much of it were the steps; None where it was ended early."""

    cell: Cell
    whole_s: float
    steps_s: float | None


class Forecast:
    """Tells from the runs that it knows how long a resolved cell will take."""

    def __init__(self, known: Iterable[Took] = ()) -> None:
        self._known = list(known)

    def learn(self, took: Took | None) -> None:
        """Know of this run, too, before all others."""
        if took is not None:
            self._known.insert(0, took)

    def seconds_as_before(self, cell: Cell) -> float | None:
        """What this very cell took when it was last measured; None where it never was."""
        return next((took.whole_s for took in self._known if took.cell == cell), None)

    def seconds(self, cell: Cell) -> float | None:
        """The same, or else what the cell on the device with the most similar step took, in proportion to the work.

        None where there is none, or where the most similar is of quite another size.
        """
        before = self.seconds_as_before(cell)
        if before is not None:
            return before
        workload, work = workload_of(cell.model), _work(cell)
        alike = [
            (_apart(cell, took.cell), took.whole_s, took.steps_s, _work(took.cell))
            for took in self._known
            if took.steps_s is not None and took.cell.device == cell.device and workload_of(took.cell.model) is workload
        ]
        if not alike or min(alike)[0] > FURTHEST:
            return None
        _, whole_s, steps_s, its_work = min(alike)
        within_steps_s = max(steps_s * work / its_work, cell.min_seconds or 0.0)
        return min(whole_s - steps_s + within_steps_s, cell.max_seconds or math.inf)


def at_least_s(cell: Cell) -> float:
    """The time below which a resolved cell cannot come to its end."""
    steps_s = (cell.warmup + cell.steps) * cell.sleep_ms / 1000 if cell.model == "sleep" else 0.0
    return min((cell.idle_seconds or 0.0) + max(cell.min_seconds or 0.0, steps_s), cell.max_seconds or math.inf)


def runs_in(folder: Path) -> Iterator[Took]:
    """The runs in a folder and in its sweeps that were made on this machine, the newest first."""
    for path in sorted([*folder.glob(f"*/{RECORD}"), *folder.glob(f"*/*/{RECORD}")], key=_name, reverse=True):
        if path.parent.is_symlink() or path.parent.parent.is_symlink():
            continue
        try:
            record = read_record(RunDir(path.parent))
        except PowerbenchError:
            continue
        if record.environment.get("host") == platform.node() and (took := took_by(record)) is not None:
            yield took


def took_by(record: RunRecord) -> Took | None:
    """What a run took; None for one that came to no end of its own, and for what is no run of the built-in loop."""
    clock = record.clock
    if (
        not isinstance(record.cell, Cell)
        or clock.end_monotonic_ns is None
        or record.status in ("running", "interrupted")
    ):
        return None
    whole_s = seconds_from_ns(clock.end_monotonic_ns - clock.start_monotonic_ns)
    stages = [record.windows[name] for name in ("warmup", "measured") if name in record.windows]
    if record.status != "complete" or not stages:
        return Took(record.cell, whole_s, None)
    return Took(record.cell, whole_s, seconds_from_ns(stages[-1].end_ns - stages[0].start_ns))


def _apart(one: Cell, other: Cell) -> float:
    """How many times the work of the one's step that of the other's is, whichever is the larger."""
    works = [workload_of(cell.model).work(cell) for cell in (one, other)]
    return max(works) / min(works)


def _work(cell: Cell) -> float:
    return workload_of(cell.model).work(cell) * (cell.warmup + cell.steps)


def _name(record: Path) -> str:
    return record.parent.name
