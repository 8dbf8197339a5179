"""Runs checked for slowdown: the verdict and its causes from all that a run recorded."""

from __future__ import annotations

from powerbench.analysis.causes import find_causes
from powerbench.analysis.checked import Checked, Explained, explained, verdict_on
from powerbench.analysis.lanes import lanes_of
from powerbench.analysis.latencies import Latencies, from_edges, from_submissions
from powerbench.analysis.summary import Summary, summarize
from powerbench.records import StepTrace
from powerbench.rundir.load import Run


def summary_of(run: Run) -> Summary:
    """The figures of a run with its verdict; of a recording of power, which has no steps, without."""
    slowdown = None if run.record.cell is None else explain(run)
    return summarize(str(run.path), run.record, run.steps[0], run.curves(), slowdown=slowdown)


def explain(run: Run) -> Explained:
    """The verdict on the measured steps of a run, and its likely causes."""
    slowdown = verdict_on(from_edges(run.steps[0]))
    return explained(slowdown, find_causes(run, slowdown))


def check(run: Run) -> Checked:
    """A run with all that is shown of its trace. Raises PowerbenchError for a recording of power: it has no steps."""
    steps = run.steps[0]
    lanes = lanes_of(run.record, curves=run.curves(), telemetry=run.telemetry(), events=run.events())
    return Checked(str(run.path), run.record, shown(steps), lanes, explain(run), from_edges(steps, "warmup"))


def shown(steps: StepTrace) -> Latencies:
    """What the steps took; where edges were taken at both ends only, when they were submitted."""
    latencies = from_edges(steps)
    return from_submissions(steps) if len(latencies) == 1 and latencies.steps[0] > 1 else latencies
