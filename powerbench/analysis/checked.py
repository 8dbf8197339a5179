"""A trace that was checked for slowdown: its latencies, what stood beside them, the verdict and its likely causes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from powerbench.analysis.causes import Cause
from powerbench.analysis.lanes import Lane
from powerbench.analysis.latencies import Latencies
from powerbench.analysis.slowdown import Slowdown, find_slowdown
from powerbench.records import RunRecord

NO_LATENCIES = Latencies([], [], "edges")


class Explained(Slowdown, frozen=True, kw_only=True):
    """The `slowdown` of a summary: the verdict, and its causes, the likeliest first."""

    causes: list[Cause]


@dataclass(frozen=True)
class Checked:
    """A checked trace, as it is shown.

    `name` is its path. `record` is None for a CSV of another tool. `latencies` are those that the verdict rests on, but
    where edges were taken at both ends only, there is none, and they are what a script that never waits would see.
    `unexplained` is what to say where no cause was found. `warmup` are those of the steps before the measured ones.
    `new_shapes` are the measured steps, counted from 0, with a batch of a length that none before had.
    `notes` is what a reader must know to read the figures right.
    """

    name: str
    record: RunRecord | None
    latencies: Latencies
    lanes: Sequence[Lane]
    slowdown: Explained
    unexplained: str
    warmup: Latencies = NO_LATENCIES
    new_shapes: Sequence[int] = ()
    notes: Sequence[str] = ()

    @property
    def is_judged(self) -> bool:
        """Whether the latencies that are shown are those that were judged."""
        return self.latencies.of == "edges"


def verdict_on(latencies: Latencies) -> Slowdown:
    """The verdict, in steps where the method counts latencies, each of which may be that of a block of steps."""
    found = find_slowdown(latencies.seconds())
    if all(count == 1 for count in latencies.steps):
        return found
    firsts = latencies.first_steps()

    def step(at: int | None) -> int | None:
        return None if at is None else firsts[min(at, len(firsts) - 1)]

    return msgspec.structs.replace(
        found,
        from_step=step(found.from_step),
        to_step=step(found.to_step),
        warmup_steps=step(found.warmup_steps) or 0,
        more_steps=None if found.more_steps is None else found.more_steps * max(latencies.steps),
    )


def explained(slowdown: Slowdown, causes: Sequence[Cause] = ()) -> Explained:
    """The verdict with its causes."""
    return Explained(**msgspec.structs.asdict(slowdown), causes=list(causes))
