"""How far a window's joules may be off because the meter looks now and then only: the half-width of an interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from powerbench.analysis.curves import Line, duration_s
from powerbench.records import RailRecord, Window
from powerbench.units import NS_PER_S

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Spans = Sequence[tuple[int, int, int]]

# 95 % of a normal distribution lie within this many standard deviations.
NORMAL_95 = 1.96
# How late a counter is, is anything up to its period: 95 % of it in 95 % of cases.
LATE_95 = 0.95
# So many readings around a long gap may show a publication too early or too late.
CLOSE_READINGS = 3
# A step is looked at in this many parts, to see whether the meter saw them all.
PHASES = 40
# From this share of a step on that the meter, keeping time with it, never sees, the two are said to be locked.
LOCKED = 0.05


class Sampling(NamedTuple):
    """The half-width in joules of a 95 % interval, and the share of each step that a locked meter never saw."""

    half_j: float
    unseen: float = 0.0


def sampling_error(line: Line, rail: RailRecord, window: Window, spans: Spans, *, floor_w: float = 0.0) -> Sampling:
    """The interval of `line.energy_in(window)`, which must be known.

    `spans` are the measured stretches (start_ns, end_ns, steps); none where nothing is known of the steps. `floor_w`
    is what the rail surely draws while it works (its idle power); 0 is sure as well.
    """
    near = line.around(window)
    if rail.method == "instant, integrated":
        sampling = _of_samples(near, rail, window, spans, floor_w)
    else:
        sampling = _of_intervals(near, rail, window, spans)
    # The clock's error moves both edges alike, and what that adds at one it takes at the other, but for the swing.
    swing_w = _swing_w(near.powers_w())
    clock_j = swing_w * rail.time_uncertainty_ns / NS_PER_S
    return Sampling(sampling.half_j + clock_j + (rail.quantum_j or 0.0), sampling.unseen)


def pause_error(line: Line, rail: RailRecord, part: Window, pause: Window) -> float:
    """By how many joules those of a pause in the middle of `part` may be off, either way.

    Each of its two edges is as uncertain as those of a window (`_of_intervals`, `_of_samples`), and all of it never by
    more than the swing of s watts over its length. Of a pause shorter than the period no reading shows how deep it
    went, so s is the swing of the whole part, without its few extremes.
    """
    import numpy as np

    near = line.around(part)
    low_w, high_w = np.percentile(near.powers_w(), (2.5, 97.5))
    gap_s = max(rail.period_s, float(np.median(near.gaps_s())))
    edge_s = {"interval average": gap_s / 4, "counter": LATE_95 * gap_s, "instant, integrated": gap_s / 2}[rail.method]
    blurred_s = (rail.averaging_s or 0.0) / 4
    unseen_s = (1 - rail.coverage) * duration_s(pause)
    return float(high_w - low_w) * min(duration_s(pause), 2 * edge_s + blurred_s + unseen_s)


def _of_intervals(near: Line, rail: RailRecord, window: Window, spans: Spans) -> Sampling:
    """Counted joules: nothing is missed, and only the edges, which fall between two readings, are uncertain.

    Inside an interval of h seconds whose power moves between two levels s watts apart, the curve leaves its chord by
    s·h/4 at most (half of the interval at the one level, half at the other). A counter that is late by up to its
    period of q seconds puts s·q joules at most on the wrong side. Two edges, and with n readings in T seconds h = T/n:

        interval average   2·s·T/4n, relative to mean·T: (s/mean)/2n         late counter   2·s·T/n:  2·(s/mean)/n

    s is the swing of the intervals' own powers, at most the true one: power that keeps time with the meter (the same
    part of a wave falls into each interval) cannot be told from steady power by anyone.
    """
    swing_w, gaps_s = _swing_w(near.powers_w()), near.gaps_s()
    edge_s, per_reading = float(gaps_s[0] + gaps_s[-1]), duration_s(window) / max(1, near.readings_in(window))
    if rail.method == "counter":
        late_s = max(rail.period_s, 0.0)
        swing_w = _swing_of_counter_w(near)
        seconds = min(max(float(gaps_s[0]), late_s) + max(float(gaps_s[-1]), late_s), 2 * per_reading)
        edges_j = LATE_95 * swing_w * max(seconds, 0.0)
        if rail.coverage < 1:
            seen = _part_time(near.time_ns[1:], near.powers_w(), rail, window, spans)
            return Sampling(edges_j + seen.half_j, seen.unseen)
        return Sampling(edges_j)
    missed_j = swing_w / 2 * (1 - rail.coverage) * duration_s(window)
    return Sampling(swing_w * min(edge_s / 4, per_reading / 2) + missed_j)


def _of_samples(near: Line, rail: RailRecord, window: Window, spans: Spans, floor_w: float) -> Sampling:
    """Power that was looked at: at the edges as above, and in between by what fell between the looks.

    A mean over w seconds, moved to its middle, blurs an edge: a jump of s watts there costs s·w/8; as much of the lag
    as could not be moved (`late_s`) costs s watts times it. How far the power swings inside the mean is not to
    be seen, so it is taken to reach from `floor_w` to as far above the mean.
    """
    samples_w = near.samples_w()
    gaps_s = near.gaps_s()
    edges_j = _swing_w(samples_w) * float(gaps_s[0] + gaps_s[-1]) / 2
    averaging_s = rail.averaging_s or 0.0
    mean_w = float(samples_w.mean())
    if rail.coverage >= 1:
        hidden_w = max(2 * (mean_w - floor_w), _swing_w(samples_w))
        return Sampling(edges_j / 2 + hidden_w * (averaging_s / 4 + near.late_s))
    seen = _part_time(near.time_ns, samples_w, rail, window, spans)
    return Sampling(edges_j + seen.half_j, seen.unseen)


def _part_time(times_ns: Floats, powers_w: Floats, rail: RailRecord, window: Window, spans: Spans) -> Sampling:
    """A sensor that sees 25 ms of each 100 (A100 and Hopper; arXiv:2312.02741): the rest is inferred.

    Three terms. Looks at random moments: 1.96 times their scatter over the root of their number. Looks that saw one
    part of the steps more often than another: by how much that moves the mean. And a part that was never seen although
    chance would have shown it, since the steps keep time with the sensor: there the power may lie above what was
    seen by 1/coverage of it, which contains the worst error on record (-68.6 %, same source).
    """
    inside = (times_ns >= window.start_ns) & (times_ns <= window.end_ns)
    times_ns, powers_w = times_ns[inside], powers_w[inside]
    if len(powers_w) < 2:
        return Sampling(float("inf"))
    seconds, mean_w = duration_s(window), float(powers_w.mean())
    chance_w = NORMAL_95 * _scatter_w(powers_w) / len(powers_w) ** 0.5
    looks = _looks(times_ns, rail, spans)
    if looks is None:
        return Sampling(chance_w * seconds)
    times_seen = looks.sum(axis=0)
    seen = times_seen > 0
    by_phase_w = (looks.T @ powers_w)[seen] / times_seen[seen]
    uneven_w = abs(float(by_phase_w.mean()) - mean_w)
    unseen = _never_seen(rail, window, spans)
    hidden_w = unseen * mean_w / rail.coverage
    return Sampling((chance_w + uneven_w + hidden_w) * seconds, unseen if unseen > LOCKED else 0.0)


def _scatter_w(powers_w: Floats) -> float:
    """The standard deviation of looks about what changes slowly, from neighbours (von Neumann, 1941).

    A machine that rests, works and rests again is looked at evenly in each part: that its levels differ makes no look
    less certain.
    """
    import numpy as np

    return float(np.sqrt(np.mean(np.diff(powers_w) ** 2) / 2))


def _never_seen(rail: RailRecord, window: Window, spans: Spans) -> float:
    """The share of a step that the sensor leaves out all along, beyond what chance would.

    It looks by its own clock, each period, whenever it is asked for what it saw.
    """
    import numpy as np

    times_ns = np.arange(window.start_ns, window.end_ns, rail.period_s * NS_PER_S)
    looks = _looks(times_ns, rail, spans)
    if looks is None:
        return 0.0
    by_chance = (1 - float(looks.mean())) ** len(times_ns)
    return max(0.0, 1 - float((looks.sum(axis=0) > 0).mean()) - by_chance)


def _looks(times_ns: Floats, rail: RailRecord, spans: Spans) -> NDArray[np.float64] | None:
    """Which of a step's PHASES parts each look fell on, one row a look; None where no steps are known."""
    import numpy as np

    if not spans:
        return None
    start, end, count = np.asarray(spans, dtype=np.float64).T
    span = np.clip(np.searchsorted(start, times_ns, side="right") - 1, 0, len(start) - 1)
    step_ns = (end - start)[span] / count[span]
    phase = ((times_ns - start[span]) / step_ns) % 1.0
    look_s = rail.averaging_s or rail.coverage * rail.period_s
    width = np.minimum(look_s * NS_PER_S / step_ns, 1.0)
    middles = (np.arange(PHASES) + 0.5) / PHASES
    before = (phase[:, None] - middles[None] + 0.5 * width[:, None]) % 1.0  # a sample stands in the middle of its look
    return np.asarray(before < np.maximum(width, 1 / PHASES)[:, None], dtype=np.float64)


def _swing_of_counter_w(near: Line) -> float:
    """The swing of the intervals, but not of those that a publication on the wrong side of a reading made.

    It makes one interval half and the next one double, with a long gap close by. Far from such gaps the intervals
    count. Close to them two together do, which are right, and the median of three such, because with their neighbours
    they are wrong but once; what was truly used is in two pairs. Of either the few at both ends are left out.
    """
    import numpy as np

    gaps_s, powers_w = near.gaps_s(), near.powers_w()
    if len(gaps_s) < 2 * CLOSE_READINGS + 2:  # too few to tell which are close to a long one
        return _swing_w(powers_w)
    is_long = gaps_s > 1.5 * np.median(gaps_s)
    is_clean = np.convolve(is_long, np.ones(2 * CLOSE_READINGS + 1), mode="same") < 0.5
    pairs_w = (near.energy_j[2:] - near.energy_j[:-2]) / (near.time_ns[2:] - near.time_ns[:-2]) * NS_PER_S
    of_three_w = np.median(np.lib.stride_tricks.sliding_window_view(pairs_w, 3), axis=1)
    return max(_swing_w(np.sort(powers_w[is_clean])[1:-1]), _swing_w(np.sort(of_three_w)[2:-2]))


def _swing_w(powers_w: Floats) -> float:
    return float(powers_w.max() - powers_w.min()) if len(powers_w) else 0.0
