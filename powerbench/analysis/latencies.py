"""What the steps of a run took, one after the other: from edge to edge, or as a script that never waits sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

from powerbench.records import Stage, StepTrace
from powerbench.units import NS_PER_S


@dataclass(frozen=True)
class Latencies:
    """Stretch i lasted from `edge_ns[i]` to `edge_ns[i + 1]` and held `steps[i]` steps.

    `of` edges: moments at which the device had been waited for, or its own events. `of` submissions: moments at which
    Python had enqueued a step, which is when a script that never waits for the device reads its clock.
    """

    edge_ns: Sequence[int]
    steps: Sequence[int]
    of: Literal["edges", "submissions"]

    def __len__(self) -> int:
        return len(self.steps)

    def seconds(self) -> list[float]:
        """Seconds a step, one for each stretch."""
        lasted = (end - start for start, end in pairwise(self.edge_ns))
        return [ns / count / NS_PER_S for ns, count in zip(lasted, self.steps, strict=True)]

    def first_steps(self) -> list[int]:
        """The number of the step with which each stretch begins, and at the end the number of all steps."""
        return list(accumulate(self.steps, initial=0))


def from_edges(steps: StepTrace, stage: Stage = "step") -> Latencies:
    """Steps from edge to edge: one stretch where edges were taken at both ends only, none where there is no edge."""
    spans = steps.spans(stage)
    edges = [spans[0][0], *(end for _, end, _ in spans)] if spans else []
    return Latencies(edges, [count for _, _, count in spans], "edges")


def from_submissions(steps: StepTrace) -> Latencies:
    """The measured steps as a script sees them that never waits for the device."""
    submits = [submit for stage, submit in zip(steps.stage, steps.submit_ns, strict=True) if stage == "step"]
    if not submits:
        return Latencies([], [], "submissions")
    start_ns = steps.start_ns[steps.stage.index("step")]
    # Where edges are the device's own events, Python may have been ahead of the first of them.
    return Latencies([min(start_ns, submits[0]), *submits], [1] * len(submits), "submissions")


def from_seconds(seconds: Sequence[float]) -> Latencies:
    """Latencies that another tool has measured, as if one step had followed the other at once."""
    edges = accumulate((round(each * NS_PER_S) for each in seconds), initial=0)
    return Latencies(list(edges), [1] * len(seconds), "edges")
