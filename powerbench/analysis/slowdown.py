"""Whether the steps of a run become slower: the verdict on a trace of latencies, with the effect and its interval."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from typing import TYPE_CHECKING, NamedTuple

from msgspec import structs

from powerbench.analysis.cycles import is_cyclic
from powerbench.analysis.drift import DELTA, SURE_OF_DELTA, WARM_BY, Change, Fit, Noise, fit
from powerbench.analysis.sentences import sentence, sentence_across
from powerbench.analysis.shapes import OVER
from powerbench.analysis.trimming import Blocks, Cut, blocks_of, cut_spikes, slow_first_steps, usable
from powerbench.analysis.verdict import MOST_UNUSABLE, UNSTEADY, Repeats, Shape, Slowdown, Spikes, Verdict, across
from powerbench.analysis.wander import Level, end_over_start, level_of, probability_beyond, steps_until, tenth

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Places = NDArray[np.intp]

__all__ = [
    "UNSTEADY",
    "Repeats",
    "Shape",
    "Slowdown",
    "Spikes",
    "Verdict",
    "across",
    "find_slowdown",
    "sentence",
    "sentence_across",
]

FEWEST = 20
MOST_CUTS = 3
# More slow first steps than this are a warm-up; fewer are what any loop has.
USUAL_FIRST = 2
# A rise may have gone on under as many of them; what was slow for longer was something else.
MOST_HIDDEN = 3
# Half an interval, as a logarithm: from half to double.
WIDEST = log(2)
# A rise from the start that is over by here has levelled off; one that reaches the last tenth goes on, since a steady
# one seems to flatten on a logarithmic scale.
SATURATED_BY, STILL_FROM = 0.5, 0.9
LARGEST_LOG = 700.0


class Trace(NamedTuple):
    """What is judged: logarithms without spikes, from step number `steps[0]` on, with their blocks and their fit."""

    log: Floats
    steps: Places
    blocks: Blocks
    fit: Fit


class Found(NamedTuple):
    """The verdict, the rise or fall that it rests on, and the noise that is left once that is taken out."""

    verdict: Verdict
    change: Change | None
    noise: Noise


def find_slowdown(latency_s: Sequence[float]) -> Slowdown:
    """The verdict on the latencies of a run's measured steps, in their order (seconds, but only ratios matter).

    Values that are not finite or not above zero are no measurements and are left out. Never raises for any numbers.
    """
    n = len(latency_s)
    measured_s, steps = usable(latency_s)
    first = slow_first_steps(measured_s) if len(measured_s) >= FEWEST else 0
    if len(measured_s) - first < FEWEST:
        return _insufficient(n, len(measured_s), first)
    cut = cut_spikes(measured_s[first:])
    trace = _without_warmup(_trace(cut.log, steps[first:], hidden_steps=min(first, MOST_HIDDEN)))
    found = _in_doubt(_judged(trace, warmup_steps=len(measured_s) - len(trace.log)), trace)
    more_steps = _more_steps(found, trace)
    if n - len(measured_s) > MOST_UNUSABLE * n:
        found, more_steps = Found("inconclusive", None, trace.fit.constant), None
    return structs.replace(
        _described(found, trace),
        warmup_steps=len(measured_s) - len(trace.log),
        spikes=_spikes(cut, measured_s[first:]),
        more_steps=more_steps,
        n=n,
        unusable=n - len(measured_s),
    )


def _insufficient(n: int, usable_steps: int, first: int) -> Slowdown:
    return Slowdown(
        verdict="insufficient", more_steps=FEWEST + first - usable_steps, n=n, unusable=n - usable_steps, warmup_steps=0
    )


def _trace(log: Floats, steps: Places, *, hidden_steps: int = 0) -> Trace:
    blocks = blocks_of(log)
    return Trace(log, steps, blocks, fit(blocks, hidden_steps=hidden_steps))


def _without_warmup(trace: Trace) -> Trace:
    """Set aside what comes before an early fall that stays, and look again."""
    for _ in range(MOST_CUTS):
        fall = trace.fit.find(-1)
        if fall is None or fall.end > WARM_BY or not fall.stays(trace.blocks.mean):
            break
        cut = _place(trace, fall.end)
        if len(trace.log) - cut < max(FEWEST, len(trace.log) / 2):
            break
        trace = _trace(trace.log[cut:], trace.steps[cut:])
    return trace


def _judged(trace: Trace, *, warmup_steps: int) -> Found:
    rise, fall = trace.fit.find(1), trace.fit.find(-1)
    if rise and fall:
        return _judged_both(rise, fall, trace.blocks.mean)
    change = rise or fall
    if change is None:
        return Found(_where_nothing_is_found(trace, warmup_steps), None, trace.fit.constant)
    if change.stays(trace.blocks.mean):
        return _of(change)
    return Found("no steady state", None, change.noise)


def _judged_both(rise: Change, fall: Change, mean: Floats) -> Found:
    """A rise that an equally sure fall undoes is none; but noise beside a great rise may look like a small fall."""
    for change, other in ((rise, fall), (fall, rise)):
        if change.outweighs(other) and change.stays(mean) and not other.stays(mean):
            return _of(change)
    return Found("no steady state", None, rise.noise)


def _of(change: Change) -> Found:
    return Found("slowdown" if change.size > 0 else "speedup", change, change.noise)


def _in_doubt(found: Found, trace: Trace) -> Found:
    """`found`, unless the noise is so large that the last tenth may as well be half as long as the first as twice."""
    if found.change is None:
        return found
    ratio = end_over_start(trace.blocks, found.noise)
    says_nothing = abs(ratio.log) < ratio.half and ratio.half > WIDEST
    return Found("inconclusive", None, found.noise) if says_nothing else found


def _where_nothing_is_found(trace: Trace, warmup_steps: int) -> Verdict:
    """A rise is said if it is probably 5 % or more; that there is none, if it is probably less."""
    moved = probability_beyond(log(1 - DELTA), log(1 + DELTA), trace.blocks, trace.fit.constant)
    if moved > 1 - SURE_OF_DELTA:
        return "inconclusive"
    return "warmup" if warmup_steps > USUAL_FIRST else "flat"


def _described(found: Found, trace: Trace) -> Slowdown:
    ratio, length, change = end_over_start(trace.blocks, found.noise), tenth(trace.blocks), found.change
    steady = level_of(trace.blocks, found.noise) if found.verdict in ("flat", "warmup") else None
    begin, end = _where(trace, change) if change else (None, None)
    return Slowdown(
        verdict=found.verdict,
        ratio=_exp(ratio.log),
        ci99=_interval(ratio),
        shape=_shape(change) if change else "cyclic" if is_cyclic(trace.log) else None,
        still_rising=change is not None and change.size > 0 and change.kind != "jump" and change.end >= STILL_FROM,
        change=_exp(_size_seen(change, trace.blocks.mean)) - 1 if change else None,
        from_step=begin,
        to_step=end,
        warmup_steps=0,
        steady_s=_exp(steady.log) if steady else None,
        steady_ci99_s=_interval(steady) if steady else None,
        first_s=_exp(float(trace.blocks.mean[:length].mean())),
        last_s=_exp(float(trace.blocks.mean[-length:].mean())),
        n=len(trace.log),
    )


def _size_seen(change: Change, mean: Floats) -> float:
    """Its size as a logarithm; of a quick start no more than one of its first blocks speaks for.

    A rise that is over at once within the first few steps is fitted best by a course that begins far below them.
    """
    import numpy as np

    if change.kind != "quick":
        return change.size
    middle, time_constant = (np.arange(len(mean)) + 0.5) / len(mean), change.end / OVER
    first = middle < time_constant
    seen = abs(np.median(mean[middle > change.end]) - mean[first]) * np.exp(middle[first] / time_constant)
    return float(np.sign(change.size)) * min(abs(change.size), float(seen.max()))


def _exp(value: float) -> float:
    """Of what is too large for a number, the largest: JSON has no infinity."""
    return exp(min(max(value, -LARGEST_LOG), LARGEST_LOG))


def _more_steps(found: Found, trace: Trace) -> int | None:
    """In two digits: it is an estimate. None where the latencies themselves are in doubt."""
    if found.verdict != "inconclusive":
        return None
    more = steps_until(log(1 + DELTA), trace.blocks, found.noise)
    if more is None:
        return None
    return round(more, 2 - len(str(more)))


def _interval(level: Level) -> tuple[float, float]:
    return _exp(level.log - level.half), _exp(level.log + level.half)


def _shape(change: Change) -> Shape:
    if change.kind == "jump":
        return "step"
    return "saturating" if change.begin == 0 and change.end <= SATURATED_BY else "ramp"


def _where(trace: Trace, change: Change) -> tuple[int, int]:
    """The steps at which a rise or fall begins and ends; for a jump, the first step on the new side is both."""
    begin, end = _place(trace, change.begin), _place(trace, change.end)
    if change.kind == "jump":
        begin = end = _first_on_the_new_side(trace, change, begin, end)
    last = len(trace.steps) - 1
    return int(trace.steps[min(begin, last)]), int(trace.steps[min(end, last)])


def _first_on_the_new_side(trace: Trace, change: Change, begin: int, end: int) -> int:
    """Within a block of where the blocks have the jump: where the two levels leave the least over."""
    import numpy as np

    first, last = begin - trace.blocks.per_block, end + trace.blocks.per_block
    near, reach = trace.log[first:last], 3 * trace.blocks.per_block
    old, new = np.median(trace.log[max(0, first - reach) : first]), np.median(trace.log[last : last + reach])
    left_over = np.cumsum((near - old) ** 2 - (near - new) ** 2)
    return first + int(np.argmin(np.append(0.0, left_over)))


def _place(trace: Trace, share: float) -> int:
    return round(share * len(trace.blocks.mean)) * trace.blocks.per_block


def _spikes(cut: Cut, latency_s: Floats) -> Spikes:
    third = len(latency_s) // 3
    return Spikes(
        count=int(cut.is_spike.sum()),
        share_of_time=float(latency_s[cut.is_spike].sum() / latency_s.sum()),
        first_third=float(cut.is_spike[:third].mean()),
        last_third=float(cut.is_spike[-third:].mean()),
    )
