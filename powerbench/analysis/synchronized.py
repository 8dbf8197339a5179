"""Whether a slowdown was made by not waiting for the device: two runs of one cell, with `sync_every` 0 and with 1."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from statistics import median
from typing import NamedTuple

import msgspec

from powerbench.analysis.checked import verdict_on
from powerbench.analysis.latencies import Latencies, from_edges, from_submissions
from powerbench.analysis.slowdown import Slowdown
from powerbench.records import Cell, LoopCell, RunRecord, StepTrace
from powerbench.units import milliseconds

# "The first iteration took less than half the time than the last" is what was reported; less than this looks like it.
FAST_FIRST = 1.5
FEWEST_STEPS = 3
DECIDED = ("flat", "warmup", "speedup", "slowdown")


class Named(NamedTuple):
    """A run by its name."""

    name: str
    record: RunRecord
    steps: StepTrace


class Seen(NamedTuple):
    """Latencies in short: the first, the usual one of the others, and the verdict on all."""

    first_s: float
    later_s: float
    found: Slowdown

    @property
    def looks_slower(self) -> bool:
        """Whether they seem to become slower, be it only after the first."""
        return self.found.verdict == "slowdown" or self.first_s * FAST_FIRST <= self.later_s

    def __str__(self) -> str:
        """In words, for both at once."""
        first, later = milliseconds(self.first_s * 1000), milliseconds(self.later_s * 1000)
        return f"{first} for the first step and {later} for later ones (median)"


def artefacts(runs: Sequence[Named]) -> list[str]:
    """For each pair that differs in nothing but `sync_every` 0 and 1, what follows from it, in two sentences."""
    return [
        compared(free, fenced)
        for free, fenced in permutations(runs, 2)
        if is_pair(free.record, fenced.record) and min(len(free.steps), len(fenced.steps)) >= FEWEST_STEPS
    ]


def is_pair(free: RunRecord, fenced: RunRecord) -> bool:
    """Whether the first never waited for the device, the second did at each step, and they are alike but for that."""
    one, other = free.the_cell, fenced.the_cell
    if (one.sync_every, other.sync_every) != (0, 1):
        return False
    of_devices = [(record.device.kind, record.device.name) if record.device else None for record in (free, fenced)]
    return _loop(one) == _loop(other) and of_devices[0] == of_devices[1]


def _loop(cell: LoopCell) -> LoopCell:
    """The cell without what decides how it is waited for and metered, and not what its steps do."""
    usual = Cell()
    of_meters = ("power", "power_from", "idle_seconds", "require_power")
    names = ("sync_every", "trace", "torch_profiler", *of_meters, "max_seconds", "limits")
    return msgspec.structs.replace(cell, **{name: getattr(usual, name) for name in names})


def compared(free: Named, fenced: Named) -> str:
    """What both saw, and whether a slowdown was an artefact of not synchronizing."""
    unwaited, waited = _seen(from_submissions(free.steps)), _seen(from_edges(fenced.steps))
    if unwaited is None or waited is None:
        return f"{free.name} and {fenced.name} differ in sync_every alone, but have too few steps to be compared."
    return (
        f"A script that never waits for the device ({free.name}, by the times of its submissions) sees {unwaited}; "
        f"waited for at each step ({fenced.name}) it is {waited}. {_conclusion(unwaited, waited)}"
    )


def _seen(latencies: Latencies) -> Seen | None:
    if len(latencies) < FEWEST_STEPS:
        return None
    first, *later = latencies.seconds()
    return Seen(first, median(later), verdict_on(latencies))


def _conclusion(unwaited: Seen, waited: Seen) -> str:
    if unwaited.looks_slower and waited.looks_slower:
        return "The slowdown is no artefact of not synchronizing: it is there too where each step is waited for."
    if waited.looks_slower:
        return "The slowdown is no artefact of not synchronizing: it shows where each step is waited for."
    if not unwaited.looks_slower:
        return "Neither shows a slowdown, so not synchronizing has made none."
    if waited.found.verdict not in DECIDED:
        return (
            "Whether the slowdown is an artefact of not synchronizing cannot be said: the run that waited has no clear "
            f"verdict ({waited.found.verdict}). Measure it longer."
        )
    return (
        "The slowdown is an artefact of not synchronizing: where each step is waited for it is gone. "
        "The times without waiting are those at which Python had submitted the steps, not what they took."
    )
