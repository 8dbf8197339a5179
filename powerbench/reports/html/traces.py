"""A run's curves in the few hundred points that a chart can show: no extreme is lost on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from powerbench.analysis.alignment import BLOCK_READINGS, line_of
from powerbench.analysis.blocks import BLOCK_PERIODS
from powerbench.analysis.counted import counted_rails
from powerbench.analysis.curves import Line
from powerbench.records import EnergyCurve, Window
from powerbench.rundir.load import Run
from powerbench.units import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BINS = 240
"""About one for each pixel of a chart on a phone."""


@dataclass(frozen=True)
class LatencyTrace:
    """Latency over the measured steps, whose first edge is second 0.

    Each step lies at its end (`time_s`), with its milliseconds (`ms`). `of_blocks`: the device was waited for at each
    K-th step only, and these are blocks of steps with their means. Of long runs there is also an envelope.
    """

    time_s: Floats
    ms: Floats
    of_blocks: bool
    envelope: Envelope | None

    @property
    def lasted_s(self) -> float:
        """From the first edge to the last."""
        return float(self.time_s[-1])


@dataclass(frozen=True)
class Envelope:
    """Of the steps that ended in each stretch of a run: least, middle and largest latency. Empty stretches are out."""

    time_s: Floats
    least: Floats
    middle: Floats
    largest: Floats


@dataclass(frozen=True)
class PowerTrace:
    """Mean watts of the counted rails together between neighbouring `edges_s`; nan where a rail was not metered."""

    edges_s: Floats
    power_w: Floats


def latency_trace(run: Run) -> LatencyTrace | None:
    """The latencies of the measured steps; None where they are not two or more."""
    import numpy as np

    spans = run.together.spans("step")
    if len(spans) < 2:
        return None
    start, end, count = np.asarray(spans, dtype=np.int64).T
    time_s, ms = (end - start[0]) / NS_PER_S, (end - start) / count / NS_PER_MS
    return LatencyTrace(time_s, ms, bool(count.max() > 1), envelope(time_s, ms) if len(ms) > 2 * BINS else None)


def envelope(time_s: Floats, values: Floats, *, bins: int = BINS) -> Envelope:
    """Least, middle and largest value in `bins` equal stretches of time. `time_s` rises."""
    import numpy as np

    edges = np.linspace(time_s[0], time_s[-1], bins + 1)
    first = np.unique(np.searchsorted(time_s, edges[:-1], side="left"))
    first = first[first < len(values)]
    groups = np.split(values, first[1:])
    last = np.append(first[1:], len(values)) - 1
    return Envelope(
        (time_s[first] + time_s[last]) / 2,
        np.minimum.reduceat(values, first),
        np.array([np.median(group) for group in groups]),
        np.maximum.reduceat(values, first),
    )


def power_trace(run: Run) -> PowerTrace | None:
    """The power of the counted rails while the steps were measured; None where they were not metered then."""
    import numpy as np

    record = run.record
    window = record.windows.get("measured") if record.cell is None else run.together.window("step")
    counted = counted_rails(record)
    if window is None or not counted:
        return None
    told = run.curves()
    curves = [(told.get(name, EnergyCurve()), record.rails[name]) for name in counted]
    if any(len(curve.time_ns) < 2 for curve, _ in curves):
        return None
    short = all(len(curve.time_ns) <= BLOCK_READINGS for curve, _ in curves)
    shortest_s = max(rail.period_s for _, rail in curves) * (BLOCK_PERIODS if short else 2 * BLOCK_PERIODS)
    edges = np.linspace(window.start_ns, window.end_ns, _bins(window, shortest_s) + 1)
    used = np.zeros(len(edges) - 1)
    for curve, rail in curves:
        line = line_of(curve, rail, window=window) if short else _as_read(curve)
        used += np.diff(np.interp(edges, line.time_ns, line.energy_j, left=np.nan, right=np.nan))
    power_w = used / (np.diff(edges) / NS_PER_S)
    return None if np.isnan(power_w).all() else PowerTrace((edges - window.start_ns) / NS_PER_S, power_w)


def _as_read(curve: EnergyCurve) -> Line:
    """The readings where they were taken: of long runs, where to move each is costly, and leaves dents in a chart."""
    import numpy as np

    return Line(np.asarray(curve.time_ns, dtype=np.float64), np.asarray(curve.energy_j, dtype=np.float64))


def _bins(window: Window, shortest_s: float) -> int:
    """As many as there are pixels, and none shorter than that."""
    return max(1, min(BINS, int((window.end_ns - window.start_ns) / NS_PER_S / shortest_s)))
