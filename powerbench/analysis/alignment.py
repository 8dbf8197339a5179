"""Where the joules of a curve belong in time: each reading at the moment that it speaks of, as well as can be told."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from powerbench.analysis.curves import Line
from powerbench.records import EnergyCurve, RailRecord, Window
from powerbench.units import NS_PER_S, seconds_from_ns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# Readings that are fitted to one grid of publications: 30 s at 10 Hz, in which two clocks drift apart but little.
BLOCK_READINGS = 300
NEIGHBOURS = 5
FEW_READINGS = 8
# How many phases and periods of publication are tried: in step with the readings, drifting against them, and around
# the best, so much closer each time; and how far the periods lie from that of the readings, to each side.
IN_STEP, DRIFTING, CLOSE = (200, 1), (32, 33), (12, 7)
SPREAD = 0.005
ZOOMS, ZOOM = 4, 5.0
# The part of a period within which it is open whether a reading shows the new value already.
HAIR, MENDS = 0.1, 10
STEADY_STEPS = 401
RHYTHM_SPREAD, RHYTHM_STEPS = 0.15, 1201
# How far around a window its readings are fitted.
MARGIN_S = 1.0
# Powers this even are not made more even by moving their readings.
EVEN = 1e-6
# What a variance of the lag is worth against unevenness of the power: enough to decide between equals, no more.
LAG_WEIGHT = 0.002


def line_of(curve: EnergyCurve, rail: RailRecord, *, window: Window | None = None) -> Line:
    """The curve with each reading at the moment that its joules speak of, as well as can be told.

    `curve` is on the machine's clock, its rail's `offset_ns` added. Samples that are means over the time before them
    are moved to the middle of that time, as far as the readings behind `window` allow (SC'24, arXiv:2312.02741 §5:
    "shift the data by the delay"); the readings of a counter are moved to when it was published.
    """
    import numpy as np

    time_ns = np.asarray(curve.time_ns, dtype=np.float64)
    energy_j = np.asarray(curve.energy_j, dtype=np.float64)
    new = np.concatenate([[True], np.diff(time_ns) > 0])[: len(time_ns)]
    line = Line(time_ns[new], energy_j[new])
    if rail.method == "counter":
        return as_published(line, window)
    return _without_lag(line, rail, window) if rail.method == "instant, integrated" else line


def _without_lag(line: Line, rail: RailRecord, window: Window | None) -> Line:
    lag_s = (rail.averaging_s or 0.0) / 2
    if window is None or not len(line.time_ns):
        return Line(line.time_ns - lag_s * NS_PER_S, line.energy_j)
    behind_s = max(0.0, seconds_from_ns(int(line.time_ns[-1]) - window.end_ns))
    moved_s = min(lag_s, behind_s)
    return Line(line.time_ns - moved_s * NS_PER_S, line.energy_j, late_s=lag_s - moved_s)


def as_published(line: Line, window: Window | None = None) -> Line:
    """A counter's readings moved back to the moments of its publications, where the curve gives them away.

    A counter that is published each 100 ms and read each 100 ms shows nothing new now and then, and twice as much
    the next time, although the power is even:

        published   |    |    |    |    |    |         with a grid of publications under the readings the power is
        read          ^    ^   ^    ^     ^    ^       even again, and the joules lie where they were used

    Of all grids that each new value agrees with, and of the readings as they are, that one is right under which the
    power is the most even. Where the readings are even already, they stay as they are. With a window, only the
    readings of it and close to it are moved: a rest before the steps has nothing to say about them.
    """
    import numpy as np

    moved = line.time_ns.copy()
    first, last = 0, len(moved)
    if window is not None:
        edges = [window.start_ns - MARGIN_S * NS_PER_S, window.end_ns + MARGIN_S * NS_PER_S]
        first, last = (int(index) for index in np.searchsorted(line.time_ns, edges))
    blocks = -(-(last - first) // BLOCK_READINGS)
    ends = np.linspace(first, last, blocks + 1).astype(int)
    lag_ns: float | None = None
    for start, end in pairwise(ends):
        moved[start:end] = _on_its_grid(line.time_ns[start:end], line.energy_j[start:end], lag_ns)
        lag_ns = float(np.median((line.time_ns - moved)[max(start, end - NEIGHBOURS) : end]))
    if window is not None and len(moved) and line.time_ns[-1] >= window.end_ns:
        moved[-1] = max(float(moved[-1]), window.end_ns)
    moved = np.maximum.accumulate(np.rint(moved))
    kept = np.concatenate([np.diff(moved) > 0, [True]])[: len(moved)]
    return Line(moved[kept], line.energy_j[kept])


def _on_its_grid(time_ns: Floats, energy_j: Floats, lag_ns: float | None) -> Floats:
    import numpy as np

    used = np.diff(energy_j)
    moving = np.flatnonzero(used > 0)
    if len(moving) < FEW_READINGS or _unevenness(time_ns[None], used)[0] < EVEN:
        return time_ns
    period = _rhythm(time_ns[np.concatenate([[0], moving + 1])])
    middle = float(time_ns[len(time_ns) // 2])
    best, counts = _unevenness(time_ns[None], used)[0], None
    in_step = Grid(middle, period, width=period, phases=IN_STEP[0], spread=0.0, periods=IN_STEP[1])
    drifting = Grid(middle, period, width=period, phases=DRIFTING[0], spread=SPREAD * period, periods=DRIFTING[1])
    for grid in (in_step, drifting):
        for _ in range(ZOOMS):
            score, since, phase, found = _search(grid, time_ns, used)
            if score < best:
                best, counts, period = score, since, found
            spread = max(grid.spread, SPREAD * found / ZOOM)
            grid = Grid(phase, found, width=grid.width / ZOOM, phases=CLOSE[0], spread=spread / ZOOM, periods=CLOSE[1])
        if best < EVEN:
            break
    return time_ns if counts is None else _steadily(time_ns, _mended(counts, used), period, lag_ns)


class Grid(NamedTuple):
    """Where to look for the publications: phases around `phase`, `width` in all, and periods `spread` to each side."""

    phase: float
    period: float
    width: float
    phases: int
    spread: float
    periods: int


def _search(grid: Grid, time_ns: Floats, used: Floats) -> tuple[float, Floats, float, float]:
    """The best of the grids: its score, the periods from its phase to each reading, its phase, its period."""
    import numpy as np

    phases = grid.phase + grid.width * (np.arange(grid.phases) / grid.phases - 0.5)
    periods = grid.period + grid.spread * np.linspace(-1, 1, grid.periods)
    period, phase = (each.reshape(-1, 1) for each in np.meshgrid(periods, phases))
    since = (time_ns[None] - phase) / period
    numbers = np.floor(since)
    scores = _unevenness(numbers, used) + LAG_WEIGHT * (since - numbers).var(axis=1)
    best = int(scores.argmin())
    return float(scores[best]), since[best], float(phase[best, 0]), float(period[best, 0])


def _mended(since: Floats, used: Floats) -> Floats:
    """The number of the publication that each reading shows, given the periods from the phase to it.

    A reading that was taken within a hair of a publication may show the one before or the one behind: that of the two
    is taken which makes the power more even.
    """
    import numpy as np

    numbers = np.floor(since)
    into = since - numbers
    other = np.where(into > 1 - HAIR, 1.0, np.where(into < HAIR, -1.0, 0.0))
    best = _unevenness(numbers[None], used)[0]
    for _ in range(MENDS):
        tried = np.concatenate([numbers + moves for moves in _moves(other)])
        tried = tried[(np.diff(tried, axis=1) >= 0).all(axis=1)]
        scores = _unevenness(tried, used) if len(tried) else np.array([best])
        if scores.min() >= best * (1 - 1e-9):
            break
        best, chosen = scores.min(), tried[int(scores.argmin())]
        other, numbers = other - 2 * (chosen - numbers), chosen
    return numbers


def _moves(other: Floats) -> list[Floats]:
    """One row for each way to change one reading, or a few neighbours alike, to the publication that `other` says."""
    import numpy as np

    open_to = np.flatnonzero(other)
    rows = [np.zeros((len(open_to), len(other)))]
    for _ in range(NEIGHBOURS):
        row, at = rows[-1].copy(), open_to + len(rows) - 1
        inside = at < len(other)
        row[np.flatnonzero(inside), at[inside]] = other[at[inside]]
        rows.append(row)
    return rows[1:]


def _rhythm(time_ns: Floats) -> float:
    """The period that moments keep time with, if with gaps: the one at which they fall on one phase (Rayleigh)."""
    import numpy as np

    usual = float(np.median(np.diff(time_ns)))
    guesses = usual * np.linspace(1 - RHYTHM_SPREAD, 1 + RHYTHM_SPREAD, RHYTHM_STEPS)
    turns = np.exp(2j * np.pi * (time_ns - time_ns[0])[None] / guesses[:, None])
    return float(guesses[int(np.abs(turns.sum(axis=1)).argmax())])


def _steadily(time_ns: Floats, counts: Floats, period: float, lag_ns: float | None) -> Floats:
    """The moments of publications number `counts`, seen at `time_ns`: of all clocks that are never later than seen
    and never a period earlier, the one that drifts the least against the readings.
    """
    import numpy as np

    periods = period * (1 + SPREAD * np.linspace(-1, 1, STEADY_STEPS))[:, None]
    lags = time_ns[None] - counts[None] * periods
    spread = np.ptp(lags, axis=1)
    allowed = spread < periods[:, 0]
    drift = np.abs(lags - np.median(lags, axis=1, keepdims=True)).sum(axis=1)  # a late reading is no drift
    chosen = int(np.where(allowed, drift, np.inf).argmin()) if allowed.any() else int(spread.argmin())
    its_period, its_lags = float(periods[chosen, 0]), lags[chosen]
    latest, earliest = float(its_lags.min()), min(float(its_lags.max()) - its_period, float(its_lags.min()))
    if lag_ns is None:
        return counts * its_period + (earliest + latest) / 2
    return counts * its_period + min(max(float(np.median(its_lags[:NEIGHBOURS])) - lag_ns, earliest), latest)


def _unevenness(times: Floats, used: Floats) -> Floats:
    """How far the joules of each row of moments lie off the chords between their neighbours, in all, relatively.

    A level that changes costs little and slow change nothing; joules on the wrong side of a reading cost them twice.
    """
    import numpy as np

    gaps = np.diff(times, axis=1)
    pairs = gaps[:, :-1] + gaps[:, 1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        chords = np.where(pairs > 0, gaps[:, :-1] / pairs, 0.0) * (used[:-1] + used[1:])
    off = np.abs(used[:-1] - chords) / used.mean()
    return np.asarray((off**1.5).sum(axis=1) / len(used))
