"""Two groups of runs against each other: B over A in time and in joules, how sure, and whether it is a difference.

A ratio above 1 means that B costs more. The verdict on a threshold of t (0.05: five percent):

    slower             the ratio is 1 + t or more, and chance alone would come so far above 1 about once in a hundred
                       times (the 98 % interval lies above 1, so 1 % on its side)
    faster             the same on the other side, from 1 / (1 + t) down
    indistinguishable  the whole 95 % interval lies between 1 / (1 + t) and 1 + t: a difference of t would have shown
    inconclusive       anything else: more repeats would tell

                1/(1+t)      1      1+t
    faster    <--x-->  :     |      :
    indist.            : <---|x---> :
    inconcl.           :     | <----x---->
    slower             :     |      :  <-x-->

Both halves of `slower` are needed. The interval alone would call every tiny difference one, the ratio alone every
noisy one. The hundredth is meant for one quantity of one cell, and a gate trips on each of them. Of simulated cells
without a difference it tripped, on latency or throughput, in 0.8 to 1.2 % where processes differ by the threshold or
twice that, and in none of 7,200 where they differ by up to 2 % (tests/benchmarks/bench_compare.py). With one process
on a side nothing is known of how processes differ, and the verdict is `inconclusive`; its interval is from blocks of
steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from msgspec import Struct

from powerbench.analysis.process import Process
from powerbench.analysis.resampling import Estimate, Repeat, estimate, mean_estimate
from powerbench.units import NS_PER_MS, NS_PER_S

THRESHOLD = 0.05
SHOWN = 0.95
# Two-sided: a hundredth on either side.
DECIDING = 0.98

Verdict = Literal["faster", "slower", "less", "more", "indistinguishable", "inconclusive"]
Words = tuple[Verdict, Verdict]
OF_TIME: Words = ("faster", "slower")
OF_ENERGY: Words = ("less", "more")


class Ratio(Struct, frozen=True, kw_only=True):
    """A quantity on both sides (geometric mean of the processes) and B over A, with what that comes to.

    `ci95` is None where nothing is known of the spread. `interval_of`: what it is from. Of a mean over cells, `a` and
    `b` are None.
    """

    a: float | None
    b: float | None
    ratio: float
    ci95: tuple[float, float] | None
    interval_of: Literal["processes", "blocks"]
    verdict: Verdict


class Ratios(Struct, frozen=True, kw_only=True):
    """What there is to compare of a cell, or the geometric mean over several; None where there is no such figure."""

    latency_ms: Ratio | None
    samples_per_s: Ratio | None
    j_per_step: Ratio | None
    energy_reason: str | None


def compare_processes(a: Sequence[Process], b: Sequence[Process], *, threshold: float = THRESHOLD) -> Ratios:
    """B over A, for one cell that both sides have measured."""
    return _ratios(_estimates(a, b), threshold, sides=(a, b), energy_reason=why_no_energy(a, b))


def geometric_mean(pairs: Sequence[tuple[Sequence[Process], Sequence[Process]]], *, threshold: float) -> Ratios:
    """The geometric mean of the cells' ratios: of joules only where each cell has them."""
    each = [_estimates(a, b) for a, b in pairs]
    means = [
        mean_estimate([one for one in column if one is not None]) if None not in column else None
        for column in zip(*each, strict=True)
    ]
    reason = None if means[2] is not None else "not every cell has a ratio of energy"
    return _ratios((means[0], means[1], means[2]), threshold, sides=None, energy_reason=reason)


Estimates = tuple[Estimate | None, Estimate | None, Estimate | None]


def _estimates(a: Sequence[Process], b: Sequence[Process]) -> Estimates:
    """Of latency, time a sample, and joules."""
    latency, step, energy = (
        _estimate([getattr(one, name) for one in a], [getattr(one, name) for one in b])
        for name in ("latency", "step", "energy")
    )
    return latency, step, energy if why_no_energy(a, b) is None else None


def _estimate(a: Sequence[Repeat | None], b: Sequence[Repeat | None]) -> Estimate | None:
    of_a, of_b = ([one for one in side if one is not None] for side in (a, b))
    return estimate(of_a, of_b) if of_a and of_b else None


def _ratios(
    estimates: Estimates,
    threshold: float,
    *,
    sides: tuple[Sequence[Process], Sequence[Process]] | None,
    energy_reason: str | None,
) -> Ratios:
    latency, step, energy = estimates
    values = _Values(*sides) if sides is not None else None
    return Ratios(
        latency_ms=_ratio(latency, threshold, OF_TIME, values.latency_ms() if values else None),
        samples_per_s=_inverse(_ratio(step, threshold, OF_TIME, values.s_per_sample() if values else None)),
        j_per_step=_ratio(energy, threshold, OF_ENERGY, values.j_per_step() if values else None),
        energy_reason=energy_reason,
    )


class _Values(NamedTuple):
    """The figures of both sides: the geometric mean of their processes."""

    a: Sequence[Process]
    b: Sequence[Process]

    def latency_ms(self) -> tuple[float | None, float | None]:
        return self._of("latency", NS_PER_S / NS_PER_MS)

    def s_per_sample(self) -> tuple[float | None, float | None]:
        samples = next((one.samples_per_step for one in (*self.a, *self.b)), None)
        return self._of("step", 1 / samples) if samples else (None, None)

    def j_per_step(self) -> tuple[float | None, float | None]:
        return self._of("energy", 1.0)

    def _of(self, name: str, scale: float) -> tuple[float | None, float | None]:
        of_a, of_b = (
            [math.log(repeat.value) for one in side if (repeat := getattr(one, name)) is not None]
            for side in (self.a, self.b)
        )
        a, b = (math.exp(math.fsum(logs) / len(logs)) * scale if logs else None for logs in (of_a, of_b))
        return a, b


def _ratio(
    of: Estimate | None, threshold: float, words: Words, values: tuple[float | None, float | None] | None
) -> Ratio | None:
    if of is None:
        return None
    a, b = values if values is not None else (None, None)
    return Ratio(
        a=a,
        b=b,
        ratio=math.exp(of.log_ratio),
        ci95=of.interval(SHOWN),
        interval_of=of.of,
        verdict=verdict(of, threshold, words),
    )


def _inverse(ratio: Ratio | None) -> Ratio | None:
    """Seconds a sample as samples a second: the verdict is the same."""
    if ratio is None:
        return None
    return Ratio(
        a=None if ratio.a is None else 1 / ratio.a,
        b=None if ratio.b is None else 1 / ratio.b,
        ratio=1 / ratio.ratio,
        ci95=None if ratio.ci95 is None else (1 / ratio.ci95[1], 1 / ratio.ci95[0]),
        interval_of=ratio.interval_of,
        verdict=ratio.verdict,
    )


def verdict(of: Estimate, threshold: float, words: Words = OF_TIME) -> Verdict:
    """What a ratio comes to; see the head of this file."""
    shown, deciding = of.interval(SHOWN), of.interval(DECIDING)
    if of.of == "blocks" or shown is None or deciding is None:
        return "inconclusive"
    least = math.log1p(threshold)
    if of.log_ratio >= least and deciding[0] > 1:
        return words[1]
    if of.log_ratio <= -least and deciding[1] < 1:
        return words[0]
    within = 1 / (1 + threshold) < shown[0] and shown[1] < 1 + threshold
    return "indistinguishable" if within else "inconclusive"


def why_no_energy(a: Sequence[Process], b: Sequence[Process]) -> str | None:
    """Why joules are not compared; None where they are."""
    for side, processes in (("A", a), ("B", b)):
        if all(one.energy is None for one in processes):
            reason = next((one.energy_reason for one in processes if one.energy_reason), "nothing was metered")
            return f"{side} has no figure: {reason}"
    scopes = [sorted({one.scope for one in side if one.scope is not None}) for side in (a, b)]
    if len({*scopes[0], *scopes[1]}) > 1:
        of_a, of_b = (" or ".join(side) for side in scopes)
        return f"scope is {of_a} in A and {of_b} in B: these joules are of different things"
    return None


def has_any_energy(*sides: Sequence[Process]) -> bool:
    """Whether at least one process has joules."""
    return any(one.energy is not None for side in sides for one in side)
