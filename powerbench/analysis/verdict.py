"""What a latency trace comes to: the verdict with its figures, in a record and in one sentence."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from powerbench.units import counted, milliseconds

Verdict = Literal["flat", "warmup", "slowdown", "speedup", "no steady state", "inconclusive", "insufficient"]
Shape = Literal["step", "ramp", "saturating", "cyclic"]


class Spikes(Struct, frozen=True, kw_only=True):
    """Isolated slow steps, counted and not hidden; the verdict and its ratio are about all the other steps.

    `share_of_time` is how much of the whole time they took; `first_third` and `last_third` are shares of the steps
    there. None where there is no trace to speak of.
    """

    count: int
    share_of_time: float | None
    first_third: float | None
    last_third: float | None


class Slowdown(Struct, frozen=True, kw_only=True):
    """The verdict on a trace of `n` latencies, with the effect and its interval. None: not found, or not to be said.

    `ratio` is the typical latency of the last tenth over that of the first tenth (`last_s` over `first_s`), slow first
    steps set aside and spikes cut back. `change` is the rise or fall that was found, as a share (+0.21, -0.15), and
    `from_step` to `to_step` is where it happens, counted from the first measured step, which is 0: the two differ from
    `ratio` on purpose, since a jump may be certain where the ends of the run are too short to tell. `warmup_steps` are
    those set aside. `steady_s` stands where there is a steady state: for `flat` and `warmup`. `more_steps` is about how
    many more would settle an `inconclusive` trace, None where that is unknown or beyond reason. `unusable` latencies
    (not finite, or not above zero) are no measurements: they are left out of everything but `n` and step numbers.
    """

    verdict: Verdict
    ratio: float | None
    ci99: tuple[float, float] | None
    shape: Shape | None
    still_rising: bool
    change: float | None
    from_step: int | None
    to_step: int | None
    warmup_steps: int
    steady_s: float | None
    steady_ci99_s: tuple[float, float] | None
    first_s: float | None
    last_s: float | None
    spikes: Spikes | None
    more_steps: int | None
    n: int
    unusable: int = 0


FINE = 0.02


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
    return words[slowdown.verdict](slowdown)


def _flat(slowdown: Slowdown) -> str:
    return f"Flat: {_steady(slowdown)} from beginning to end, {_ends(slowdown)}."


def _warmup(slowdown: Slowdown) -> str:
    first = counted(slowdown.warmup_steps, "step")
    return f"Warm-up, then flat: {_steady(slowdown)} after the first {first}; of the rest {_ends(slowdown)}."


def _slowdown(slowdown: Slowdown) -> str:
    return f"Slowdown: {_ends(slowdown)}, {_course(slowdown, 'rising')}."


def _speedup(slowdown: Slowdown) -> str:
    return f"Speed-up: {_ends(slowdown)}, {_course(slowdown, 'falling')}."


def _no_steady_state(slowdown: Slowdown) -> str:
    first, last = (milliseconds(1000 * (value or 0.0)) for value in (slowdown.first_s, slowdown.last_s))
    return (
        f"No steady state: the latency changes more than once; first {first} a step, last {last} ({_ratio(slowdown)})."
    )


def _inconclusive(slowdown: Slowdown) -> str:
    if slowdown.unusable and slowdown.more_steps is None and slowdown.unusable > slowdown.n / 10:
        return (
            f"Inconclusive: {slowdown.unusable:,} of {counted(slowdown.n, 'latency')} are no measurements "
            "(not finite or not above zero), too many to judge by the rest."
        )
    more = "more steps" if slowdown.more_steps is None else f"about {slowdown.more_steps:,} more steps"
    return (
        f"Inconclusive: nothing was found, but the steps wander so much by themselves that a change of 5% could hide "
        f"({_ends(slowdown)}); {more} would help."
    )


def _insufficient(slowdown: Slowdown) -> str:
    return f"Too few steps for a verdict: {counted(slowdown.n, 'step')}."


def _steady(slowdown: Slowdown) -> str:
    return f"steady at {milliseconds(1000 * (slowdown.steady_s or 0.0))} a step"


def _ends(slowdown: Slowdown) -> str:
    value, _, interval = _ratio(slowdown).partition(" ")
    return f"the last tenth takes {value} the first {interval}"


def _ratio(slowdown: Slowdown) -> str:
    ratio, (low, high) = slowdown.ratio or 0.0, slowdown.ci99 or (0.0, 0.0)
    digits = 3 if high - low < FINE else 2
    return f"{ratio:.{digits}f}x (99% CI {low:.{digits}f} to {high:.{digits}f})"


def _course(slowdown: Slowdown, moving: str) -> str:
    if slowdown.shape == "step":
        return f"{moving} by {abs(slowdown.change or 0.0):.0%} at step {slowdown.from_step:,}"
    end = "the end" if slowdown.still_rising else f"{slowdown.to_step:,}"
    return f"{moving} from step {slowdown.from_step:,} to {end}"
