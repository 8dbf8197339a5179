"""One rail's curve made ready for arithmetic: the joules between two moments, and the power in between readings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

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
IN_STEP, DRIFTING, CLOSE = (400, 1), (40, 41), (15, 9)
SPREAD = 0.005
ZOOMS, ZOOM = 4, 5.0
# The part of a period within which it is open whether a reading shows the new value already.
HAIR = 0.05
STEADY_STEPS = 401
RHYTHM_SPREAD, RHYTHM_STEPS = 0.15, 1201
# How far around a window its readings are fitted.
MARGIN_S = 1.0
# Powers this even are not made more even by moving their readings.
EVEN = 1e-6
# What a variance of the lag is worth against unevenness of the power: enough to decide between equals, no more.
LAG_WEIGHT = 0.002
# A battery's gauge, a lump, a lost document: from this share on, an interval is as long as its meter's period.
NEARLY_A_PERIOD = 0.9


@dataclass(frozen=True)
class Line:
    """A rising curve: at `time_ns[i]`, `energy_j[i]` had been used. Between two readings power counts as constant.

    `late_s` is by how much it is known to lag behind the power, where that could not be put right.
    """

    time_ns: Floats
    energy_j: Floats
    late_s: float = 0.0

    def covers(self, window: Window) -> bool:
        """Whether there are readings on both sides of the window, or at its edges."""
        return len(self.time_ns) >= 2 and bool(self.time_ns[0] <= window.start_ns and window.end_ns <= self.time_ns[-1])

    def covered(self, window: Window) -> Window | None:
        """The part of the window that lies between the first reading and the last, or None."""
        if len(self.time_ns) < 2:
            return None
        start_ns = max(window.start_ns, int(self.time_ns[0]))
        end_ns = min(window.end_ns, int(self.time_ns[-1]))
        return Window(start_ns, end_ns) if start_ns < end_ns else None

    def energy_in(self, window: Window) -> float | None:
        """Joules from edge to edge, interpolated at both; None where the curve does not reach over the window."""
        if not self.covers(window):
            return None
        import numpy as np

        start_j, end_j = np.interp([window.start_ns, window.end_ns], self.time_ns, self.energy_j)
        return float(end_j - start_j)

    def readings_in(self, window: Window) -> int:
        """How many readings lie in the window, edges included."""
        import numpy as np

        first = np.searchsorted(self.time_ns, window.start_ns, side="left")
        return int(np.searchsorted(self.time_ns, window.end_ns, side="right") - first)

    def around(self, window: Window) -> Line:
        """The stretch from the reading before the window to the one behind it."""
        import numpy as np

        first = max(0, int(np.searchsorted(self.time_ns, window.start_ns, side="right")) - 1)
        last = int(np.searchsorted(self.time_ns, window.end_ns, side="left"))
        return replace(self, time_ns=self.time_ns[first : last + 1], energy_j=self.energy_j[first : last + 1])

    def until(self, end_ns: int) -> Line:
        """The curve up to its last reading that is not after `end_ns`."""
        import numpy as np

        count = int(np.searchsorted(self.time_ns, end_ns, side="right"))
        return replace(self, time_ns=self.time_ns[:count], energy_j=self.energy_j[:count])

    def thinned(self, period_s: float) -> Line:
        """Without the readings that follow another one in less than the meter's period."""
        kept = [0] if len(self.time_ns) else []
        for index in range(1, len(self.time_ns)):
            if self.time_ns[index] - self.time_ns[kept[-1]] >= NEARLY_A_PERIOD * period_s * NS_PER_S:
                kept.append(index)
        return replace(self, time_ns=self.time_ns[kept], energy_j=self.energy_j[kept])

    def gaps_s(self) -> Floats:
        """Seconds between neighbouring readings."""
        import numpy as np

        return np.asarray(np.diff(self.time_ns) / NS_PER_S)

    def powers_w(self) -> Floats:
        """The mean power between neighbouring readings."""
        import numpy as np

        return np.diff(self.energy_j) / self.gaps_s()

    def samples_w(self) -> Floats:
        """The samples of power that lie under a curve that was made of them by the trapezoid rule, one a reading.

        The joules tell the sum of each two neighbours, so that all is known but an amount that is added and taken
        away in turn; the least jumpy row is taken.
        """
        import numpy as np

        powers = self.powers_w()
        sign = 1 - 2 * (np.arange(len(powers) + 1) % 2)
        row = sign * np.concatenate([[0.0], np.cumsum(-2 * sign[:-1] * powers)])
        swap = -float(np.mean(sign[1:] * np.diff(row))) / 2
        return np.maximum(row + sign * swap, 0.0)


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
    blocks = max(1, -(-(last - first) // BLOCK_READINGS))
    ends = np.linspace(first, last, blocks + 1).astype(int)
    lag_ns: float | None = None
    for start, end in zip(ends, ends[1:], strict=False):
        moved[start:end] = _on_its_grid(line.time_ns[start:end], line.energy_j[start:end], lag_ns)
        lag_ns = float(np.median((line.time_ns - moved)[max(start, end - NEIGHBOURS) : end]))
    if window is not None and len(moved) and line.time_ns[-1] >= window.end_ns:
        moved[-1] = max(float(moved[-1]), window.end_ns)
    moved = np.maximum.accumulate(moved)
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
    close = np.flatnonzero((into < HAIR) | (into > 1 - HAIR))
    other = np.where(into > 0.5, 1.0, -1.0)[close]
    for _ in close:
        tried = np.repeat(numbers[None], len(close), axis=0)
        tried[np.arange(len(close)), close] += other
        tried[(np.diff(tried, axis=1) < 0).any(axis=1)] = numbers
        scores = _unevenness(tried, used)
        best = int(scores.argmin())
        if scores[best] >= _unevenness(numbers[None], used)[0] * (1 - 1e-9):
            break
        numbers, other[best] = tried[best], -other[best]
    return numbers


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


def duration_s(window: Window) -> float:
    """How long the window is."""
    return seconds_from_ns(window.end_ns - window.start_ns)


def common(windows: Sequence[Window]) -> Window | None:
    """Where all of the windows overlap, or None."""
    start_ns = max(window.start_ns for window in windows)
    end_ns = min(window.end_ns for window in windows)
    return Window(start_ns, end_ns) if start_ns < end_ns else None
