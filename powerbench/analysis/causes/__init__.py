"""Why a run became slower, from what was recorded beside its steps: likely causes, each with what speaks for it."""

from __future__ import annotations

from collections.abc import Iterator

from powerbench.analysis.causes.artefact import is_unsynchronized, not_synchronized
from powerbench.analysis.causes.cause import Cause, Finding, Kind, Strength
from powerbench.analysis.causes.host import host_bound
from powerbench.analysis.causes.load import other_load
from powerbench.analysis.causes.memory import memory_growth, memory_pressure
from powerbench.analysis.causes.pauses import garbage_collection, growing_spikes
from powerbench.analysis.causes.straggler import straggler
from powerbench.analysis.causes.stretches import Change, find_change
from powerbench.analysis.causes.throttling import power_fell, throttling
from powerbench.analysis.recorded import Recorded, recorded_of
from powerbench.analysis.slowdown import Slowdown

__all__ = ["Cause", "Kind", "Recorded", "find_causes", "recorded_of", "unexplained"]

SLOWER = ("slowdown", "no steady state")
# Where it goes up and down, two stretches may differ by hardly anything, of which every trifle is the greater part.
LEAST_LOST = 0.02


def find_causes(recorded: Recorded, slowdown: Slowdown) -> list[Cause]:
    """The likely causes of a slowdown, most likely first; none where nothing recorded speaks for one.

    `slowdown` is the verdict on the measured steps of `recorded`, its places in steps. Where the run became no slower
    there is nothing to explain, with two exceptions: slow steps that become more frequent, and times that were taken
    without waiting for the device, in which a slowdown may be seen that is none.
    """
    if is_unsynchronized(recorded):
        artefact = not_synchronized(recorded)
        return [] if artefact is None else [artefact]
    change = find_change(recorded.steps, slowdown) if slowdown.verdict in SLOWER else None
    findings = [] if change is None or change.lost_speed < LEAST_LOST else list(_findings(recorded, change))
    if not any(finding.cause.cause == "garbage collection" for finding in findings):
        spikes = growing_spikes(recorded, slowdown)
        findings += [] if spikes is None else [spikes]
    ranked = sorted(findings, key=lambda finding: (finding.strength, finding.weight), reverse=True)
    return [finding.cause for finding in ranked]


def _findings(recorded: Recorded, change: Change) -> Iterator[Finding]:
    load, pauses = other_load(recorded, change), garbage_collection(recorded, change)
    pressure = memory_pressure(recorded, change, power=power_fell(recorded, change))
    growth = memory_growth(recorded, change, pressure=pressure)
    waits_for = _strongest_wait(pressure, load, pauses)
    bound = host_bound(recorded, change, waits_for=waits_for)
    held_back = throttling(recorded, change, waits_for=waits_for or _strongest_wait(bound))
    found = (straggler(recorded, change), load, pauses, pressure, growth, bound, held_back)
    yield from (finding for finding in found if finding is not None)


def _strongest_wait(*findings: Finding | None) -> str | None:
    """What is known to have kept the device waiting, in a word."""
    known = [finding for finding in findings if finding is not None and finding.strength > Strength.GROWS_TOO]
    return max(known, key=lambda finding: finding.strength).cause.cause if known else None


# What a record may lack, the gauges of which one is enough (a clock has its device before it), and what then cannot be
# ruled out.
WITNESSES = (
    ("memory and swap", ("system.swap_out_bytes", "system.swap_used_bytes"), "swapping"),
    ("the load of the machine", ("system.cpu_ratio",), "other processes"),
    ("the worker's memory", (".rss_bytes",), "a leak"),
    ("a clock", (".clock_mhz",), "throttling"),
)


def unexplained(recorded: Recorded) -> str:
    """What to say where no cause was found: what was not recorded, and so cannot be ruled out."""
    lacking = [] if recorded.record.rails else [("power", "throttling")]
    lacking += [
        (what, cause) for what, ends, cause in WITNESSES if not any(name.endswith(ends) for name in recorded.gauges)
    ]
    if recorded.record.the_cell.device != "cpu":
        lacking.append(("who else used the device", "another program on it"))
    begin = "Cause not recorded: nothing that was recorded speaks for one."
    if not lacking:
        return begin
    whats = ", ".join(what for what, _ in lacking)
    causes = ", ".join(dict.fromkeys(cause for _, cause in lacking))
    return f"{begin} Not recorded, and so not ruled out: {whats} ({causes}). `powerbench doctor` says what could be."
