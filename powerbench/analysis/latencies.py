"""What the steps of a run took, one after the other: from edge to edge, or as a script that never waits sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from msgspec import Struct

from powerbench.records import Stage, StepTrace
from powerbench.units import NS_PER_MS, NS_PER_S


class Latency(Struct, frozen=True, kw_only=True):
    """Milliseconds a step. All but the mean are None where edges were taken at both ends only."""

    mean: float
    median: float | None = None
    p5: float | None = None
    p95: float | None = None
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True)
class Latencies:
    """Stretch i lasted from `edge_ns[i]` to `edge_ns[i + 1]` and held `steps[i]` steps.

    Where the loop paused in between, `start_ns[i]` is when the stretch began, which after a pause is later than the
    edge before it; None without pauses.

    `of` edges: moments at which the device had been waited for, or its own events. `of` submissions: moments at which
    Python had enqueued a step, which is when a script that never waits for the device reads its clock.
    """

    edge_ns: Sequence[int]
    steps: Sequence[int]
    of: Literal["edges", "submissions"]
    start_ns: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.steps)

    def seconds(self) -> list[float]:
        """Seconds a step, one for each stretch."""
        starts = self.edge_ns[:-1] if self.start_ns is None else self.start_ns
        lasted = (end - start for start, end in zip(starts, self.edge_ns[1:], strict=True))
        return [ns / count / NS_PER_S for ns, count in zip(lasted, self.steps, strict=True)]

    @property
    def lasted_s(self) -> float:
        """All stretches together, without the pauses between them."""
        return sum(each * count for each, count in zip(self.seconds(), self.steps, strict=True))

    def first_steps(self) -> list[int]:
        """The number of the step with which each stretch begins, and at the end the number of all steps."""
        return list(accumulate(self.steps, initial=0))


def from_edges(steps: StepTrace, stage: Stage = "step") -> Latencies:
    """Steps from edge to edge: one stretch where edges were taken at both ends only, none where there is no edge."""
    spans = steps.spans(stage)
    edges = [spans[0][0], *(end for _, end, _ in spans)] if spans else []
    starts = [start for start, _, _ in spans]
    return Latencies(edges, [count for _, _, count in spans], "edges", None if starts == edges[:-1] else starts)


def lasted_ns(spans: Sequence[tuple[int, int, int]]) -> int:
    """How long stretches (start_ns, end_ns, steps) lasted together, without the pauses between them."""
    return sum(end - start for start, end, _ in spans)


def latency(spans: Sequence[tuple[int, int, int]]) -> Latency | None:
    """Milliseconds a step over stretches (start_ns, end_ns, steps); percentiles between neighbours are interpolated."""
    if not spans:
        return None
    import numpy as np

    start, end, count = np.asarray(spans, dtype=np.int64).T
    mean = float((end - start).sum() / count.sum() / NS_PER_MS)
    if len(spans) == 1 and count[0] > 1:
        return Latency(mean=mean)
    each = (end - start) / count / NS_PER_MS
    p5, middle, p95 = (float(value) for value in np.percentile(each, (5, 50, 95)))
    return Latency(mean=mean, median=middle, p5=p5, p95=p95, min=float(each.min()), max=float(each.max()))


def from_submissions(steps: StepTrace) -> Latencies:
    """The measured steps as a script sees them that never waits for the device."""
    rows = [row for row, stage in enumerate(steps.stage) if stage == "step"]
    if not rows:
        return Latencies([], [], "submissions")
    submits = [steps.submit_ns[row] for row in rows]
    # Where edges are the device's own events, Python may have been ahead of the first of them.
    edges = [min(steps.start_ns[rows[0]], submits[0]), *submits]
    paused = [row > 0 and steps.stage[row - 1] == "pause" for row in rows]
    if not any(paused):
        return Latencies(edges, [1] * len(submits), "submissions")
    starts = [
        steps.submit_ns[row - 1] if rested else before for row, rested, before in zip(rows, paused, edges, strict=False)
    ]
    return Latencies(edges, [1] * len(submits), "submissions", starts)


def from_seconds(seconds: Sequence[float]) -> Latencies:
    """Latencies that another tool has measured, as if one step had followed the other at once."""
    edges = accumulate((round(each * NS_PER_S) for each in seconds), initial=0)
    return Latencies(list(edges), [1] * len(seconds), "edges")
