"""Whether it is one rank of several that became slower, for which all the others wait."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from powerbench.analysis.causes.cause import Cause, Finding, Strength, evidence, missing, sentence
from powerbench.analysis.causes.load import MOST_OF_IT
from powerbench.analysis.causes.stretches import Change
from powerbench.analysis.ranks import Rank, place
from powerbench.analysis.recorded import Recorded
from powerbench.records import Window
from powerbench.units import NS_PER_S, milliseconds

# It tells where to look, and so goes before what was found there.
WHERE_TO_LOOK = 100.0
# A rank has not grown slower by less.
HARDLY = 0.02


def straggler(recorded: Recorded, change: Change) -> Finding | None:
    """A rank whose own work grew by most of what a step of the whole did, where that of the others did not."""
    ranks = recorded.ranks.ranks if recorded.ranks is not None else ()
    grown = {rank.number: levels for rank in ranks if (levels := _levels(rank, change)) is not None}
    if len(grown) < max(2, len(ranks)) or change.extra_s <= 0:
        return None
    slowest = max(ranks, key=lambda rank: grown[rank.number][1] - grown[rank.number][0])
    before_s, after_s = grown[slowest.number]
    others = [levels for number, levels in grown.items() if number != slowest.number]
    other_before_s, other_after_s = (median(levels[at] for levels in others) for at in (0, 1))
    alone_s = (after_s - before_s) - max(0.0, other_after_s - other_before_s)
    if alone_s < MOST_OF_IT * change.extra_s or after_s < before_s * (1 + HARDLY):
        return None
    name = f"rank {slowest.number}{place(slowest, recorded.record.the_cell)}"
    cause = Cause(
        cause="straggler",
        evidence=evidence(
            [
                f"{name} works {milliseconds(after_s * 1e3)} in a step, before {milliseconds(before_s * 1e3)}",
                f"the others {milliseconds(other_after_s * 1e3)}, before {milliseconds(other_before_s * 1e3)}",
            ],
            pace=str(change),
        ),
        counter_evidence=sentence(_against(other_before_s, other_after_s)),
        not_recorded=missing(["why that rank became slower"], so="another cause below may say it"),
        experiment="Give its part to another device or machine and repeat the command: where the slowness stays "
        "behind, it is the device or the machine; where it goes along, it is what that rank does.",
    )
    return Finding(Strength.ACCOUNTS_FOR_IT, cause, weight=WHERE_TO_LOOK)


def _against(before_s: float, after_s: float) -> Iterator[str]:
    if after_s > before_s * (1 + HARDLY):
        yield f"the others became slower too, by {after_s / before_s - 1:.0%}"


def _levels(rank: Rank, change: Change) -> tuple[float, float] | None:
    """Its usual own work before and after, in seconds; None where it is not known."""
    before, after = (_in(rank, window) for window in (change.before, change.after))
    return (median(before), median(after)) if before and after else None


def _in(rank: Rank, window: Window) -> list[float]:
    edges = zip(rank.steps.start_ns, rank.steps.end_ns, strict=True)
    return [
        rank.work_ns[step] / NS_PER_S
        for step, (start, end) in enumerate(edges)
        if step in rank.work_ns and end is not None and window.start_ns <= end and start < window.end_ns
    ]
