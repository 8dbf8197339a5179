"""Whether the slowdown is one of the clock alone: a script that never waits for the device times submissions."""

from __future__ import annotations

from statistics import median

from powerbench.analysis.causes.cause import Cause, missing
from powerbench.analysis.latencies import from_submissions
from powerbench.analysis.recorded import Recorded
from powerbench.units import counted, milliseconds

FEWEST_STEPS = 6
# The published complaint: "the first iteration took less than half the time than the last".
MUCH_FASTER = 0.5


def is_unsynchronized(recorded: Recorded) -> bool:
    """Whether nobody waited for the device between the first step and the last, and no event told when it was done."""
    return recorded.record.the_cell.sync_every == 0 and len(recorded.steps.spans("step")) <= 1


def not_synchronized(recorded: Recorded) -> Cause | None:
    """The artefact, where the first steps seem much faster than the later ones for want of waiting."""
    seen = from_submissions(recorded.steps).seconds()
    if len(seen) < FEWEST_STEPS:
        return None
    usual_s = median(seen[len(seen) // 2 :])
    fast = next((at for at, each_s in enumerate(seen) if each_s >= MUCH_FASTER * usual_s), 0)
    if not fast:
        return None
    return Cause(
        cause="not synchronized",
        evidence=f"Nobody waited for the device (`sync_every` 0): the first {_steps(fast)} returned after "
        f"{milliseconds(median(seen[:fast]) * 1e3)}, which is submission only, and each later one after "
        f"{milliseconds(usual_s * 1e3)}, since it waited for those before it. The steps need not have become slower.",
        counter_evidence=None,
        not_recorded=missing(["when the device ended each step"], so="a true slowdown cannot be seen in this run"),
        experiment="Repeat the command with `--sync-every 1`, which waits for each step, and compare: "
        "`powerbench trace THIS_RUN THAT_RUN`. An artefact is gone then.",
    )


def _steps(count: int) -> str:
    return "step" if count == 1 else counted(count, "step")
