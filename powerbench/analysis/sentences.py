"""Verdicts in plain words: what a person is told about a trace, or about repeats of it."""

from __future__ import annotations

from powerbench.analysis.verdict import Repeats, Slowdown, Spikes
from powerbench.units import counted, milliseconds, milliseconds_in

# Ratios get a third decimal where their interval is narrower than this, and none from so many times on.
FINE, MANY_TIMES = 0.02, 100
# When spikes become so much more frequent, from so much more of the steps, it is worth saying.
MORE_OFTEN, MORE_STEPS = 2.0, 0.03
# One or two slow steps have no frequency, and among a few dozen they are many percent.
FEWEST_SPIKES = 3


def sentence(slowdown: Slowdown) -> str:
    """The verdict in one plain sentence, with the effect and its interval."""
    words = {
        "flat": _flat,
        "warmup": _warmup,
        "slowdown": _slowdown,
        "speedup": _speedup,
        "no steady state": _no_steady_state,
        "inconclusive": _inconclusive,
        "insufficient": _insufficient,
    }
    return words[slowdown.verdict](slowdown) + _more_spikes(slowdown.spikes) + "."


def sentence_across(repeats: Repeats) -> str:
    """The verdict on repeats in one plain sentence."""
    total = sum(repeats.counts.values())
    each = ", ".join(f"{count} {verdict}" for verdict, count in repeats.counts.items())
    if repeats.verdict == "inconsistent":
        return f"Inconsistent: {total} processes that did the same came to different verdicts ({each})."
    name = repeats.verdict[0].upper() + repeats.verdict[1:]
    if repeats.ratio is None:
        return f"{name} in {counted(total, 'repeat')} ({each})."
    return (
        f"{name} across {counted(total, 'repeat')} ({each}): the last tenth takes {repeats.ratio:.2f}x the first "
        f"at the median, {repeats.lowest_ratio:.2f}x to {repeats.highest_ratio:.2f}x."
    )


def _flat(slowdown: Slowdown) -> str:
    return f"Flat: {_steady(slowdown)} from beginning to end; {_ends(slowdown)}"


def _warmup(slowdown: Slowdown) -> str:
    return f"Warm-up: {_steady(slowdown)} after the {set_aside(slowdown)}; of the rest {_ends(slowdown)}"


def set_aside(slowdown: Slowdown) -> str:
    """`first 3 steps, which were slower`."""
    if slowdown.warmup_steps == 1:
        return "first step, which was slower"
    return f"first {slowdown.warmup_steps:,} steps, which were slower"


def _slowdown(slowdown: Slowdown) -> str:
    return f"Slowdown: {_ends(slowdown)}, {_course(slowdown, 'rising')}"


def _speedup(slowdown: Slowdown) -> str:
    return f"Speed-up: {_ends(slowdown)}, {_course(slowdown, 'falling')}"


def _no_steady_state(slowdown: Slowdown) -> str:
    first, last = (_ms(value) for value in (slowdown.first_s, slowdown.last_s))
    moves = "goes up and down with a period" if slowdown.shape == "cyclic" else "changes and does not stay so"
    return (
        f"No steady state: the latency {moves}; a step takes {first} in the first tenth and {last} in the last, "
        f"{_ratio(slowdown)}"
    )


def _inconclusive(slowdown: Slowdown) -> str:
    if slowdown.too_many_unusable:
        return (
            f"Inconclusive: {slowdown.unusable:,} of {slowdown.n:,} latencies are no measurements (no number above "
            "zero), too many to judge by the rest"
        )
    why = "go up and down with a period" if slowdown.shape == "cyclic" else "wander by themselves"
    more = "more steps may" if slowdown.more_steps is None else f"about {slowdown.more_steps:,} more steps would"
    return (
        f"Inconclusive: no slowdown was found, but the steps {why}, and one of 5% could hide in that "
        f"({_ends(slowdown)}); {more} settle it"
    )


def _insufficient(slowdown: Slowdown) -> str:
    usable = slowdown.n - slowdown.unusable
    left_out = f" (and {slowdown.unusable:,} that are no number above zero)" if slowdown.unusable else ""
    return (
        f"Too few steps for a verdict: {counted(usable, 'step')}"
        f"{left_out}; {slowdown.more_steps or 0:,} more are needed, and 100 or more tell smaller changes"
    )


def _steady(slowdown: Slowdown) -> str:
    return f"steady at {steady(slowdown) or '?'}"


def steady(slowdown: Slowdown) -> str | None:
    """`58.15 ms a step (99% CI 58.13 ms to 58.17 ms)`; None where there is no steady state."""
    if slowdown.steady_s is None or slowdown.steady_ci99_s is None:
        return None
    value, low, high = milliseconds_in(1000 * slowdown.steady_s, *(1000 * end for end in slowdown.steady_ci99_s))
    return f"{value} a step (99% CI {low} to {high})"


def _ms(seconds: float | None) -> str:
    return "?" if seconds is None else milliseconds(1000 * seconds)


def _ends(slowdown: Slowdown) -> str:
    value, _, interval = _ratio(slowdown).partition(" ")
    return f"the last tenth takes {value} the first {interval}"


def _ratio(slowdown: Slowdown) -> str:
    if slowdown.ratio is None or slowdown.ci99 is None:
        return "?x"
    low, high = slowdown.ci99
    digits = 3 if high - low < FINE else 2
    value, low_end, high_end = (
        f"{times:,.0f}" if times >= MANY_TIMES else f"{times:.{digits}f}" for times in (slowdown.ratio, low, high)
    )
    return f"{value}x (99% CI {low_end} to {high_end})"


def _course(slowdown: Slowdown, moving: str) -> str:
    begin, end = f"{slowdown.from_step or 0:,}", f"{slowdown.to_step or 0:,}"
    if slowdown.shape == "step":
        return f"{moving} by {abs(slowdown.change or 0.0):.0%} at step {begin}"
    if slowdown.still_rising:
        return f"{moving} from step {begin} to the end and still {moving}"
    if slowdown.shape == "saturating":
        return f"{moving} from the start and level from step {end} on"
    return f"{moving} from step {begin} to {end}"


def _more_spikes(spikes: Spikes | None) -> str:
    if spikes is None or spikes.count < FEWEST_SPIKES or spikes.first_third is None or spikes.last_third is None:
        return ""
    first, last = spikes.first_third, spikes.last_third
    if last < MORE_OFTEN * first or last < first + MORE_STEPS:
        return ""
    return f"; but single slow steps became more frequent, from {first:.0%} of the steps to {last:.0%}"
