"""Two groups of runs against each other: B over A in time and in joules, how sure, and whether it is a difference.

A ratio above 1 means that B costs more. The verdict on a threshold of t (0.05: five percent):

    slower             the ratio is 1 + t or more, and chance alone would come so far above 1 once in a hundred times
                       at most (the 98 % interval lies above 1, so 1 % on its side)
    faster             the same on the other side, from 1 / (1 + t) down
    indistinguishable  the whole 95 % interval lies between 1 / (1 + t) and 1 + t: a difference of t would have shown
    inconclusive       anything else: more repeats would tell

                1/(1+t)      1      1+t
    faster    <--x-->  :     |      :
    indist.            : <---|x---> :
    inconcl.           :     | <----x---->
    slower             :     |      :  <-x-->

Both halves of `slower` are needed. The interval alone would call every tiny difference one, the ratio alone every
noisy one. Of pairs without a difference at most one in a hundred is so called slower, whatever the noise, and far
fewer where processes differ by less than the threshold. With one process on a side nothing is known of how processes
differ, and the verdict is `inconclusive`; its interval is from blocks of steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from msgspec import Struct

from powerbench.analysis.alignment import line_of
from powerbench.analysis.blocks import block_energies
from powerbench.analysis.counted import counted_rails
from powerbench.analysis.energy import find_energy
from powerbench.analysis.resampling import (
    Estimate,
    Repeat,
    estimate,
    mean_estimate,
    means_of_blocks,
    medians_of_blocks,
)
from powerbench.records import EnergyCurve, RunRecord, StepTrace, Window
from powerbench.units import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

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


class Process(NamedTuple):
    """One complete run as the comparison takes it; None where it has no such figure.

    `latency` is its median step, `step` all of its time over its steps (both seconds), `energy` joules a step.
    """

    latency: Repeat | None
    step: Repeat | None
    energy: Repeat | None
    energy_reason: str | None
    scope: str | None
    is_estimated: bool
    steps: int
    samples_per_step: int | None


class Ratios(Struct, frozen=True, kw_only=True):
    """What there is to compare of a cell, or the geometric mean over several; None where there is no such figure."""

    latency_ms: Ratio | None
    samples_per_s: Ratio | None
    j_per_step: Ratio | None
    energy_reason: str | None


def process_of(record: RunRecord, steps: StepTrace, curves: Mapping[str, EnergyCurve]) -> Process:
    """The figures of one run. `curves` are its joules by rail."""
    spans = steps.spans("step")
    found = find_energy(record, steps, curves)
    energy, reason = found.energy, found.reason
    if energy is not None and energy.partial:
        energy, reason = None, "the meter was lost before the end"
    joules = None
    if energy is not None and energy.j_per_step is not None and energy.j_per_step > 0:
        joules = Repeat(energy.j_per_step, _energy_blocks(record, spans, curves))
    return Process(
        latency=_latency(spans),
        step=_step(spans),
        energy=joules,
        energy_reason=reason,
        scope=energy.scope if energy is not None else None,
        is_estimated=any(record.rails[name].state == "estimated" for name in counted_rails(record)),
        steps=sum(count for _, _, count in spans),
        samples_per_step=record.workload.samples_per_step if record.workload else None,
    )


def _each_s(spans: Sequence[tuple[int, int, int]]) -> Floats:
    import numpy as np

    start, end, count = np.asarray(spans, dtype=np.int64).T
    return np.asarray((end - start) / count / NS_PER_S)


def _latency(spans: Sequence[tuple[int, int, int]]) -> Repeat | None:
    import numpy as np

    each = _each_s(spans) if spans else None
    if each is None or (middle := float(np.median(each))) <= 0:
        return None
    return Repeat(middle, medians_of_blocks(each))


def _step(spans: Sequence[tuple[int, int, int]]) -> Repeat | None:
    wall_ns = spans[-1][1] - spans[0][0] if spans else 0
    if wall_ns <= 0:
        return None
    return Repeat(wall_ns / NS_PER_S / sum(count for _, _, count in spans), means_of_blocks(_each_s(spans)))


def _energy_blocks(
    record: RunRecord, spans: Sequence[tuple[int, int, int]], curves: Mapping[str, EnergyCurve]
) -> Floats:
    """Joules a step over blocks of steps, long enough for the slowest of the counted meters."""
    import numpy as np

    names, window = counted_rails(record), Window(spans[0][0], spans[-1][1])
    lines = {name: line_of(curves.get(name, EnergyCurve()), record.rails[name], window=window) for name in names}
    slowest = max(names, key=lambda name: record.rails[name].period_s)
    found = []
    for block in block_energies(lines[slowest], record.rails[slowest], spans):
        stretch = Window(block.start_ns, block.end_ns)
        used = [lines[name].energy_in(stretch) for name in names]
        if None in used:
            return np.empty(0)
        found.append(math.fsum(joules for joules in used if joules is not None) / block.steps)
    return means_of_blocks(np.asarray(found))


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
