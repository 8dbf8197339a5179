"""Whether other processes, or other guests of the same hypervisor, took the cores from the worker."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from powerbench.analysis.causes.cause import Cause, Finding, Sign, Strength, evidence, missing, sentence, strongest
from powerbench.analysis.causes.stretches import Change, Level, level_of, rate_of
from powerbench.analysis.recorded import Recorded
from powerbench.units import significant

# Of the time by which a step grew, what one thing must have taken for it to be called the cause, or a part of it.
MOST_OF_IT, PART_OF_IT = 0.5, 0.25
# A quarter of a core more, for others, is more than the daemons of a quiet machine come and go with.
MORE_CORES = 0.25
FEWER_CORES = 0.1
STOLEN = 0.05
# A process's time comes in hundredths of a second: over a second or two, less than this is hardly a number.
MEANINGFUL_CORES = 0.02
# With so much of all cores idle, nobody needs to wait for one.
IDLE = 0.3


def other_load(recorded: Recorded, change: Change) -> Finding | None:
    """Other processes (or, in a virtual machine, other guests) that took the cores from the worker."""
    signs = list(_signs_of_load(recorded, change))
    strength = strongest(signs)
    if strength is None:
        return None
    cause = Cause(
        cause="other load",
        evidence=evidence([sign.text for sign in signs], pace=str(change)),
        counter_evidence=sentence(_against_load(recorded, change)),
        not_recorded=missing(_not_recorded_of_load(recorded), so="so which processes they were is not known"),
        experiment="End what else runs and repeat the command; while it is slow, "
        "`ps -Ao pcpu,pid,comm -r | head` (macOS) or `ps -eo pcpu,pid,comm --sort=-pcpu | head` (Linux) names who uses "
        "the cores.",
    )
    return Finding(strength, cause, weight=len(signs))


def _signs_of_load(recorded: Recorded, change: Change) -> Iterator[Sign]:
    waited = rate_of(recorded.of_worker("waited_s"), change)
    if waited is not None:
        share = _share_of_waiting(waited, level_of(recorded.of_worker("cpu_cores"), change, fmean), change)
        if share >= PART_OF_IT:
            strength = Strength.ACCOUNTS_FOR_IT if share >= MOST_OF_IT else Strength.SEEN_WITH_IT
            yield Sign(
                strength,
                f"the worker waited for a core for {waited.after:.0%} of the time, before for {waited.before:.0%}",
            )
    stolen = _mean_of("system.steal_ratio", recorded, change)
    if stolen is not None and stolen.after - stolen.before >= STOLEN:
        yield Sign(
            Strength.SEEN_WITH_IT,
            f"the hypervisor gave {stolen.after:.0%} of the cores' time to other guests, before {stolen.before:.0%}",
        )
    others, own = _others(recorded, change), level_of(recorded.of_worker("cpu_cores"), change, fmean)
    if others is not None and others.after - others.before >= MORE_CORES:
        displaced = own is not None and own.apart and own.ratio <= 1 - FEWER_CORES
        yield Sign(
            Strength.SEEN_WITH_IT if displaced else None,
            f"other processes kept {significant(max(0.0, others.after))} cores busy, before "
            f"{significant(max(0.0, others.before))}",
        )
        if own is not None and displaced:
            yield Sign(None, f"the worker got {significant(own.after)} cores, before {significant(own.before)}")


def _share_of_waiting(waited: Level, own: Level | None, change: Change) -> float:
    """How much of the extra time went into waiting longer for a core than the same work had waited before.

    Steps that have more to compute wait more often under a load that was there all the time: so waiting counts in
    proportion to computing, where the worker computes enough for that.
    """
    if own is None or min(own.before, own.after) < MEANINGFUL_CORES:
        return change.share_due_to(waited)
    longer = waited.after / own.after - waited.before / own.before
    return longer * own.after * change.mean_after_s / change.extra_s if change.extra_s > 0 else 0.0


def _others(recorded: Recorded, change: Change) -> Level | None:
    """The cores that were busy with anything but the workers on this machine."""
    busy = _mean_of("system.cpu_ratio", recorded, change)
    own = [level_of(each, change, fmean) for each in recorded.of_workers("cpu_cores")]
    known = [level for level in own if level is not None]
    cores = recorded.record.environment.get("logical_cores")
    if busy is None or not known or len(known) < len(own) or not cores:
        return None
    before, after = sum(level.before for level in known), sum(level.after for level in known)
    apart = busy.apart or any(level.apart for level in known)
    return Level(busy.before * cores - before, busy.after * cores - after, apart=apart)


def _mean_of(gauge: str, recorded: Recorded, change: Change) -> Level | None:
    return level_of(recorded.gauges.get(gauge, ()), change, fmean)


def _against_load(recorded: Recorded, change: Change) -> Iterator[str]:
    busy = _mean_of("system.cpu_ratio", recorded, change)
    if busy is not None and 1 - busy.after >= IDLE:
        yield f"{1 - busy.after:.0%} of the cores' time was idle meanwhile"
    others = _others(recorded, change)
    if others is not None and others.after - others.before < MORE_CORES:
        yield (
            f"other processes kept hardly more cores busy ({significant(max(0.0, others.after))}, before "
            f"{significant(max(0.0, others.before))})"
        )


def _not_recorded_of_load(recorded: Recorded) -> Iterator[str]:
    yield "the names of other processes"
    if recorded.record.the_cell.device != "cpu":
        yield "who else used the device"
