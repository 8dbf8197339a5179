"""Whether the steps of a run become slower: the verdict on a trace of latencies, with the effect and its interval."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from typing import TYPE_CHECKING, NamedTuple

from powerbench.analysis.drift import DELTA, Change, Fit, Noise, fit
from powerbench.analysis.trimming import Blocks, Cut, blocks_of, cut_spikes, slow_first_steps, usable
from powerbench.analysis.verdict import Shape, Slowdown, Spikes, Verdict, sentence
from powerbench.analysis.wander import Level, end_over_start, level_of, tenth

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Places = NDArray[np.intp]

__all__ = ["FEWEST", "Shape", "Slowdown", "Spikes", "Verdict", "find_slowdown", "sentence"]

FEWEST = 20
# A warm-up is over in the first third or so, and leaves enough to judge.
WARM_BY, MOST_CUTS = 0.30, 3
# More slow first steps than this are a warm-up; fewer are what any loop has.
USUAL_FIRST = 2
# With a larger share of latencies that are no measurements, the rest does not stand for the run.
MOST_UNUSABLE = 0.1
SATURATED_BY = 0.5


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
    """The verdict on the latencies of a run's measured steps, in their order (seconds; only ratios matter).

    Values that are not finite or not above zero are no measurements and are left out. Never raises for any numbers.
    """
    measured_s, steps = usable(latency_s)
    first = slow_first_steps(measured_s) if len(measured_s) else 0
    if len(measured_s) - first < FEWEST:
        return _insufficient(latency_s, len(measured_s))
    cut = cut_spikes(measured_s[first:])
    trace = _without_warmup(_trace(cut.log, steps[first:]))
    found = _judged(trace)
    if len(measured_s) < (1 - MOST_UNUSABLE) * len(latency_s):
        found = found._replace(verdict="inconclusive", change=None)
    unusable = len(latency_s) - len(measured_s)
    return _described(found, trace, _spikes(cut, measured_s[first:]), n=len(latency_s), unusable=unusable)


def _insufficient(latency_s: Sequence[float], usable_steps: int) -> Slowdown:
    return Slowdown(
        verdict="insufficient",
        ratio=None,
        ci99=None,
        shape=None,
        still_rising=False,
        change=None,
        from_step=None,
        to_step=None,
        warmup_steps=0,
        steady_s=None,
        steady_ci99_s=None,
        first_s=None,
        last_s=None,
        spikes=None,
        more_steps=FEWEST - usable_steps if usable_steps < FEWEST else None,
        n=len(latency_s),
        unusable=len(latency_s) - usable_steps,
    )


def _trace(log: Floats, steps: Places) -> Trace:
    blocks = blocks_of(log)
    return Trace(log, steps, blocks, fit(blocks))


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


def _judged(trace: Trace) -> Found:
    rise, fall, mean = trace.fit.find(1), trace.fit.find(-1), trace.blocks.mean
    change = rise or fall
    if change is None:
        return Found(_where_nothing_is_found(trace), None, trace.fit.constant)
    if (rise and fall) or not change.stays(mean):
        return Found("no steady state", None, change.noise)
    return Found("slowdown" if rise else "speedup", change, change.noise)


def _where_nothing_is_found(trace: Trace) -> Verdict:
    ratio = end_over_start(trace.blocks, trace.fit.constant)
    if ratio.log - ratio.half < log(1 - DELTA) and ratio.log + ratio.half > log(1 + DELTA):
        return "inconclusive"
    return "warmup" if trace.steps[0] > USUAL_FIRST else "flat"


def _described(found: Found, trace: Trace, spikes: Spikes, *, n: int, unusable: int) -> Slowdown:
    ratio, length, change = end_over_start(trace.blocks, found.noise), tenth(trace.blocks), found.change
    steady = level_of(trace.blocks, found.noise) if found.verdict in ("flat", "warmup") else None
    begin, end = _where(trace, change) if change else (None, None)
    return Slowdown(
        verdict=found.verdict,
        ratio=exp(ratio.log),
        ci99=_interval(ratio),
        shape=_shape(change) if change else None,
        still_rising=change is not None and change.size > 0 and change.end == 1,
        change=exp(change.size) - 1 if change else None,
        from_step=begin,
        to_step=end,
        warmup_steps=int(trace.steps[0]),
        steady_s=exp(steady.log) if steady else None,
        steady_ci99_s=_interval(steady) if steady else None,
        first_s=exp(float(trace.blocks.mean[:length].mean())),
        last_s=exp(float(trace.blocks.mean[-length:].mean())),
        spikes=spikes,
        more_steps=None,
        n=n,
        unusable=unusable,
    )


def _interval(level: Level) -> tuple[float, float]:
    return exp(level.log - level.half), exp(level.log + level.half)


def _shape(change: Change) -> Shape:
    if change.kind == "jump":
        return "step"
    return "saturating" if change.begin == 0 and change.end <= SATURATED_BY else "ramp"


def _where(trace: Trace, change: Change) -> tuple[int, int]:
    """The steps at which a rise or fall begins and ends; for a jump, the first step on the new side is both."""
    begin, end = _place(trace, change.begin), _place(trace, change.end)
    last = len(trace.steps) - 1
    return int(trace.steps[min(begin, last)]), int(trace.steps[min(end, last)])


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
