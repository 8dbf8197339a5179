"""Runs checked for slowdown: the verdict and its causes from all that a run recorded."""

from __future__ import annotations

from powerbench.analysis.causes import find_causes, unexplained
from powerbench.analysis.checked import Checked, Explained, explained, verdict_on
from powerbench.analysis.lanes import lanes_of
from powerbench.analysis.latencies import Latencies, from_edges, from_seconds, from_submissions
from powerbench.analysis.pool import new_measured_shapes
from powerbench.analysis.recorded import Recorded, recorded_of
from powerbench.analysis.summary import Summary, summarize
from powerbench.records import StepTrace
from powerbench.rundir.load import Run

NOTHING_ELSE = "Cause not recorded: the file holds latencies and nothing beside them."


def summary_of(run: Run) -> Summary:
    """The figures of a run with its verdict; without it where no step was measured to its end."""
    recorded = recorded_of(run)
    slowdown = explain(recorded) if recorded.steps.spans("step") else None
    return figures_of(str(run.path), recorded, slowdown)


def figures_of(name: str, recorded: Recorded, slowdown: Explained | None = None) -> Summary:
    """The figures of what a run recorded, with the verdict that is given."""
    return summarize(
        name,
        recorded.record,
        recorded.steps,
        recorded.curves,
        phases=recorded.phases,
        slowdown=slowdown,
        ranks=recorded.ranks,
        hosts=recorded.hosts,
    )


def explain(recorded: Recorded) -> Explained:
    """The verdict on the measured steps of a run, and its likely causes."""
    slowdown = verdict_on(from_edges(recorded.steps))
    return explained(slowdown, find_causes(recorded, slowdown))


def check(run: Run) -> Checked:
    """A run with all that is shown of its trace. Raises PowerbenchError where there is nothing to check."""
    return check_recorded(str(run.path), recorded_of(run))


def check_recorded(name: str, recorded: Recorded) -> Checked:
    """The same of what was read of a run already."""
    return Checked(
        name=name,
        record=recorded.record,
        latencies=shown(recorded.steps),
        lanes=lanes_of(recorded),
        slowdown=explain(recorded),
        unexplained=unexplained(recorded),
        warmup=from_edges(recorded.steps, "warmup"),
        new_shapes=new_measured_shapes(recorded.record, recorded.steps),
        notes=figures_of(name, recorded).notes,
    )


def check_latencies(name: str, seconds: list[float]) -> Checked:
    """Latencies that another tool has measured."""
    latencies = from_seconds(seconds)
    return Checked(name, None, latencies, [], explained(verdict_on(latencies)), NOTHING_ELSE)


def shown(steps: StepTrace) -> Latencies:
    """What the steps took; where edges were taken at both ends only, when they were submitted."""
    latencies = from_edges(steps)
    return from_submissions(steps) if len(latencies) == 1 and latencies.steps[0] > 1 else latencies
