"""Whether Python's garbage collector is behind it: its pauses are recorded, and lie in the steps that are long."""

from __future__ import annotations

from statistics import median

from powerbench.analysis.causes.cause import Cause, Finding, Strength, evidence, missing
from powerbench.analysis.causes.load import MOST_OF_IT, PART_OF_IT
from powerbench.analysis.causes.stretches import Change, Level, covered_share, judged_spans
from powerbench.analysis.recorded import Recorded
from powerbench.analysis.slowdown import Slowdown
from powerbench.units import milliseconds

# A step that takes half as long again as the usual one is a spike here; most of them must hold a collection.
LONG_STEP, ALIGNED, FEWEST_SPIKES = 1.5, 0.5, 3
# Of a collection that a step holds, what share of the step's delay it must have taken to be its reason.
SHARE_OF_DELAY = 0.5
# Pauses have a length of their own, in which any wait for a core lies: they go before that wait.
FOREMOST = 10.0
MORE_SPIKES, MORE_OFTEN = 0.02, 2.0

EXPERIMENT = (
    "Call `gc.freeze()` before the loop, which leaves what exists by then out of collections, or `gc.disable()` for a "
    "test: if it is the collector, the pauses go. Fewer objects that are kept from step to step make each shorter."
)


def garbage_collection(recorded: Recorded, change: Change) -> Finding | None:
    """Collections that took what a step became longer by."""
    pauses = pauses_of(recorded)
    taken = Level(covered_share(pauses, change.before), covered_share(pauses, change.after), apart=True)
    share = change.share_due_to(taken)
    if share < PART_OF_IT:
        return None
    took = milliseconds(taken.after * change.mean_after_s * 1e3)
    before = milliseconds(taken.before * change.mean_before_s * 1e3)
    text = f"garbage collections took {took} of a step on average, before {before}"
    return _finding(
        evidence([text], pace=str(change)), Strength.ACCOUNTS_FOR_IT if share >= MOST_OF_IT else Strength.SEEN_WITH_IT
    )


def growing_spikes(recorded: Recorded, slowdown: Slowdown) -> Finding | None:
    """Single slow steps that become more in the course of the run, most of them while the collector was at work."""
    if not spikes_grow(slowdown):
        return None
    spans, pauses = judged_spans(recorded.steps, slowdown), pauses_of(recorded)
    usual_ns = median((end - start) / count for start, end, count in spans) if spans else 0.0
    slow = [(start, end) for start, end, count in spans if end - start > LONG_STEP * usual_ns * count]
    held = [span for span in slow if _explains(pauses, span, usual_ns)]
    if len(slow) < FEWEST_SPIKES or len(held) < ALIGNED * len(slow):
        return None
    text = f"{len(held)} of the {len(slow)} slow steps held a garbage collection, and they became more frequent"
    return _finding(f"{text}.", Strength.SEEN_WITH_IT)


def spikes_grow(slowdown: Slowdown) -> bool:
    """Whether single slow steps are clearly more frequent in the last third than in the first."""
    spikes = slowdown.spikes
    if spikes is None or spikes.first_third is None or spikes.last_third is None:
        return False
    return spikes.last_third >= max(MORE_OFTEN * spikes.first_third, spikes.first_third + MORE_SPIKES)


def pauses_of(recorded: Recorded) -> list[tuple[int, int]]:
    """The recorded collections, as (start_ns, end_ns)."""
    return [(event["time_ns"], event["end_ns"]) for event in recorded.events if event["event"] == "gc"]


def _explains(pauses: list[tuple[int, int]], span: tuple[int, int], usual_ns: float) -> bool:
    start, end = span
    inside = sum(max(0, min(end, last) - max(start, first)) for first, last in pauses)
    return inside >= SHARE_OF_DELAY * (end - start - usual_ns)


def _finding(text: str, strength: Strength) -> Finding:
    cause = Cause(
        cause="garbage collection",
        evidence=text,
        counter_evidence=None,
        not_recorded=missing(["how many objects there were"], so="whether they are kept by a leak is not known"),
        experiment=EXPERIMENT,
    )
    return Finding(strength, cause, weight=FOREMOST)
