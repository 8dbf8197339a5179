"""The stretch before a slowdown and the one after it, and how anything that was recorded differs between the two."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import correlation, median
from typing import NamedTuple

from powerbench.analysis.latencies import lasted_ns
from powerbench.analysis.slowdown import Slowdown
from powerbench.records import EnergyCurve, StepTrace, Window
from powerbench.units import byte_size, milliseconds, seconds_from_ns

# A stretch shorter than this share of the run is too short to say what was usual in it; then an end of the run is
# taken that is long enough to hold some readings, and short against a rise over the whole run.
SHORTEST_SHARE, END_SHARE = 0.05, 0.2
FEWEST_STEPS = 6
# Below three readings a median is one reading or the mean of two.
FEWEST_READINGS = 3
# What grows must be seen to grow more than once: a leak does, and a buffer that is made once does not.
PARTS, RISING_PARTS, LEAST_RISE = 6, 0.6, 0.05
# Six parts of a straight rise beside six of a jump in the middle correlate with 0.88.
IN_PROPORTION = 0.95
# A worker's memory wanders by some megabytes and some percent, whatever it does.
GROWTH_BYTES, GROWTH_SHARE = 32e6, 0.05

Series = Sequence[tuple[int, float]]
Spans = Sequence[tuple[int, int, int]]


class Level(NamedTuple):
    """What was usual before and after; `apart` where most readings before lie on one side of most of those after."""

    before: float
    after: float
    apart: bool

    @property
    def ratio(self) -> float:
        """After over before; infinite where it was nothing before."""
        return self.after / self.before if self.before else float("inf")


class Growth(NamedTuple):
    """From where to where something grew, again and again, in bytes."""

    first: float
    last: float

    @property
    def bytes(self) -> float:
        """By how much."""
        return self.last - self.first

    def __str__(self) -> str:
        return f"from {byte_size(self.first)} to {byte_size(self.last)}"


@dataclass(frozen=True)
class Change:
    """The stretches, and the usual and the mean time of a step in each, in seconds."""

    before: Window
    after: Window
    before_s: float
    after_s: float
    mean_before_s: float
    mean_after_s: float

    @property
    def measured(self) -> Window:
        """From the start of the first stretch to the end of the second."""
        return Window(self.before.start_ns, self.after.end_ns)

    @property
    def lost_speed(self) -> float:
        """The share of its speed that the loop has lost: 0.5 where a step takes twice as long."""
        return 1 - self.before_s / self.after_s

    @property
    def extra_s(self) -> float:
        """By how much longer a step takes on average."""
        return self.mean_after_s - self.mean_before_s

    def share_due_to(self, taken: Level) -> float:
        """How much of the extra time is due to something that takes a share of all time, by the change of that share.

        With the old share, the rest of a step would have taken `(1 - after) / (1 - before)` of what a step takes. What
        takes the same share of longer steps explains nothing: then all of a step became longer, and it with it.
        """
        if self.extra_s <= 0 or taken.before >= 1:
            return 0.0
        without_s = self.mean_after_s * (1 - min(1.0, taken.after)) / (1 - taken.before)
        return (self.mean_after_s - without_s) / self.extra_s

    def __str__(self) -> str:
        return f"while a step went from {milliseconds(self.before_s * 1e3)} to {milliseconds(self.after_s * 1e3)}"


def find_change(steps: StepTrace, slowdown: Slowdown) -> Change | None:
    """The stretches on both sides of the rise that was found, in edges; None where there are too few.

    Where there was no single rise (`no steady state`), the two fifths of the run that show the greatest one.
    """
    spans = judged_spans(steps, slowdown)
    if len(spans) < FEWEST_STEPS:
        return None
    if slowdown.from_step is None or slowdown.to_step is None or slowdown.verdict == "no steady state":
        return _greatest_rise(spans)
    shortest, end = (max(FEWEST_STEPS // 2, round(share * len(spans))) for share in (SHORTEST_SHARE, END_SHARE))
    firsts = list(accumulate((count for _, _, count in spans), initial=slowdown.warmup_steps))
    rises, risen = (bisect_left(firsts, step) for step in (slowdown.from_step, slowdown.to_step))
    rises = rises if rises >= shortest else end
    risen = risen if len(spans) - risen >= shortest else len(spans) - end
    return _between(spans[:rises], spans[max(rises, risen) :])


def judged_spans(steps: StepTrace, slowdown: Slowdown) -> Spans:
    """The measured stretches between edges (start_ns, end_ns, steps), without those that were set aside."""
    spans = steps.spans("step")
    firsts = list(accumulate((count for _, _, count in spans), initial=0))
    return spans[bisect_left(firsts, slowdown.warmup_steps) :]


def _greatest_rise(spans: Spans) -> Change | None:
    length = max(FEWEST_STEPS // 2, round(END_SHARE * len(spans)))
    parts = [spans[at : at + length] for at in range(0, len(spans) - length + 1, length)]
    usual = [median(_each_s(part)) for part in parts]
    pairs = [(at, later) for at in range(len(parts)) for later in range(at + 1, len(parts))]
    if not pairs:
        return None
    at, later = max(pairs, key=lambda pair: usual[pair[1]] / usual[pair[0]] if usual[pair[0]] else 0.0)
    return _between(parts[at], parts[later])


def _between(before: Spans, after: Spans) -> Change | None:
    if len(before) < FEWEST_STEPS // 2 or len(after) < FEWEST_STEPS // 2:
        return None
    usual = [median(_each_s(spans)) for spans in (before, after)]
    if min(usual) <= 0:
        return None
    windows = [Window(spans[0][0], spans[-1][1]) for spans in (before, after)]
    return Change(windows[0], windows[1], usual[0], usual[1], _mean_s(before), _mean_s(after))


def _mean_s(spans: Spans) -> float:
    return seconds_from_ns(lasted_ns(spans)) / sum(count for _, _, count in spans)


def _each_s(spans: Spans) -> list[float]:
    return [seconds_from_ns(end - start) / count for start, end, count in spans]


def values_in(series: Series, window: Window) -> list[float]:
    """The readings of the window; one at its very start is still of what was before."""
    times = [time for time, _ in series]
    return [value for _, value in series[bisect_right(times, window.start_ns) : bisect_right(times, window.end_ns)]]


def level_of(series: Series, change: Change, usual: Callable[[list[float]], float] = median) -> Level | None:
    """The usual value before and after; None where there are too few readings in either stretch.

    What is itself counted over the time between two readings (busy cores) has a mean as its usual value.
    """
    before, after = (sorted(values_in(series, window)) for window in (change.before, change.after))
    if min(len(before), len(after)) < FEWEST_READINGS:
        return None
    (low, high), (low_after, high_after) = _quartiles(before), _quartiles(after)
    return Level(usual(before), usual(after), apart=high < low_after or high_after < low)


def _quartiles(ordered: Sequence[float]) -> tuple[float, float]:
    cut = (len(ordered) - 1) // 4
    return ordered[cut], ordered[-1 - cut]


def rate_of(counter: Series, change: Change) -> Level | None:
    """How fast a counter rose before and after, a second; None where its readings do not reach over the stretches."""
    rates = [_rate_in(counter, window) for window in (change.before, change.after)]
    if rates[0] is None or rates[1] is None:
        return None
    return Level(rates[0], rates[1], apart=True)


def _rate_in(counter: Series, window: Window) -> float | None:
    if len(counter) < 2:
        return None
    inside = [reading for reading in counter if window.start_ns <= reading[0] <= window.end_ns]
    if len(inside) >= FEWEST_READINGS:  # then nothing from beyond the edges gets in
        counter = inside
    start_ns, end_ns = max(window.start_ns, counter[0][0]), min(window.end_ns, counter[-1][0])
    if end_ns - start_ns < (window.end_ns - window.start_ns) / 2:
        return None
    risen = _at(counter, end_ns) - _at(counter, start_ns)
    return risen / seconds_from_ns(end_ns - start_ns) if risen >= 0 else None  # else it was set back


def _at(counter: Series, time_ns: int) -> float:
    """The counter between its two readings around this moment, at which it must have been read before and after."""
    at = min(max(1, bisect_left([time for time, _ in counter], time_ns)), len(counter) - 1)
    (start_ns, start), (end_ns, end) = counter[at - 1], counter[at]
    return start + (end - start) * (time_ns - start_ns) / max(1, end_ns - start_ns)


def power_of(curve: EnergyCurve, change: Change) -> Level | None:
    """Mean watts before and after, each between the first and the last reading in the stretch."""
    found = [_power_in(curve, window) for window in (change.before, change.after)]
    return Level(found[0], found[1], apart=True) if found[0] is not None and found[1] is not None else None


def _power_in(curve: EnergyCurve, window: Window) -> float | None:
    first, last = bisect_left(curve.time_ns, window.start_ns), bisect_right(curve.time_ns, window.end_ns) - 1
    if last - first + 1 < FEWEST_READINGS:
        return None
    return (curve.energy_j[last] - curve.energy_j[first]) / seconds_from_ns(curve.time_ns[last] - curve.time_ns[first])


def growth_of(series: Series, change: Change) -> Growth | None:
    """By how much bytes grew from stretch to stretch, where they kept growing; None where they did not.

    The usual values of equal parts must rise from most parts to the next, and in all by more than memory wanders.
    """
    inside = values_in(series, change.measured)
    parts = min(PARTS, len(inside))
    if parts < FEWEST_READINGS:
        return None
    cuts = [round(at * len(inside) / parts) for at in range(parts + 1)]
    usual = [median(inside[start:end]) for start, end in pairwise(cuts)]
    grown = usual[-1] - usual[0]
    if grown < max(GROWTH_BYTES, GROWTH_SHARE * usual[0]):
        return None
    rising = sum(later - earlier > LEAST_RISE * grown for earlier, later in pairwise(usual))
    return Growth(usual[0], usual[-1]) if rising >= RISING_PARTS * (parts - 1) else None


def goes_along(series: Series, steps: StepTrace, change: Change) -> bool:
    """Whether the steps became longer in proportion, part by part, and not at one place where something happened."""
    spans = [(start, end, count) for start, end, count in steps.spans("step") if _lies_in(start, end, change.measured)]
    size = -(-len(spans) // PARTS)
    parts = [spans[at : at + size] for at in range(0, len(spans), size)] if size else []
    pairs = [
        (median(_each_s(part)), median(inside))
        for part in parts
        if (inside := values_in(series, Window(part[0][0], part[-1][1])))
    ]
    if len(pairs) < PARTS or any(min(values) == max(values) for values in zip(*pairs, strict=True)):
        return False
    return correlation(*zip(*pairs, strict=True)) >= IN_PROPORTION


def _lies_in(start_ns: int, end_ns: int, window: Window) -> bool:
    return window.start_ns <= start_ns and end_ns <= window.end_ns


def covered_share(pauses: Sequence[tuple[int, int]], window: Window) -> float:
    """The share of the window that lies in pauses (start_ns, end_ns)."""
    inside = (min(end, window.end_ns) - max(start, window.start_ns) for start, end in pauses)
    return sum(max(0, ns) for ns in inside) / max(1, window.end_ns - window.start_ns)
