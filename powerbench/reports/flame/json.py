"""Where the joules went as JSON, for programs: each frame with what it cost itself and in all."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from powerbench.analysis.flame import Cost, rows_of
from powerbench.reports.flame.burnt import Burnt, sentences


class FrameCost(Struct, frozen=True, kw_only=True):
    """A function, or a line of one (`line` is None by function, and of C and C++). Joules are None where not known."""

    name: str
    file: str
    line: int | None
    self_s: float
    total_s: float
    self_j: float | None
    total_j: float | None


class Unattributed(Struct, frozen=True, kw_only=True):
    """What no stack was seen for."""

    s: float
    j: float | None


class Sampling(Struct, frozen=True, kw_only=True):
    """How the stacks were taken."""

    sampler: str
    rate_hz: int
    native: bool
    time_uncertainty_ms: float


class FlameSummary(Struct, frozen=True, kw_only=True):
    """The object that `flame --json` prints. `step`: the frame that has the device's own joules; None on the cpu.

    The stacks are those of `rank`, the joules those of `ranks` ranks.
    """

    run: str
    device: str
    rank: int
    ranks: int
    window: str
    steps: int
    total_s: float
    total_j: float | None
    joules_reason: str | None
    scope: str | None
    step: str | None
    frames: list[FrameCost]
    unattributed: Unattributed
    sampling: Sampling
    notes: list[str]


def as_json(burnt: Burnt) -> str:
    """The object."""
    flame, stacks = burnt.flame, burnt.stacks

    def joules(cost: Cost) -> float | None:
        return None if flame.joules_reason is not None else cost.joules

    frames = [
        FrameCost(
            name=row.frame.name,
            file=row.frame.file,
            line=row.frame.line or None,
            self_s=row.own.seconds,
            total_s=row.total.seconds,
            self_j=joules(row.own),
            total_j=joules(row.total),
        )
        for row in rows_of(flame)
    ]
    told = FlameSummary(
        run=str(burnt.run.path),
        device=burnt.run.record.the_cell.device,
        rank=burnt.rank,
        ranks=len(burnt.run.ranks),
        window=flame.window,
        steps=flame.steps,
        total_s=flame.whole.seconds,
        total_j=joules(flame.whole),
        joules_reason=flame.joules_reason,
        scope=flame.scope,
        step=None if flame.step is None else flame.step.name,
        frames=frames,
        unattributed=Unattributed(s=flame.unattributed.seconds, j=joules(flame.unattributed)),
        sampling=Sampling(
            sampler=stacks.sampler,
            rate_hz=stacks.rate_hz,
            native=stacks.native,
            time_uncertainty_ms=stacks.time_uncertainty_ns / 1e6,
        ),
        notes=sentences(burnt),
    )
    return msgspec.json.format(msgspec.json.encode(told)).decode()
