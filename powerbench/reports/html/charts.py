"""The charts of the page: each run's trace over its power, the latencies of all runs, and joules against speed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from powerbench.analysis.summary import Latency, Summary
from powerbench.reports.html.svg import COLOURS, WIDTH, as_svg, drawing
from powerbench.reports.html.traces import LatencyTrace, PowerTrace
from powerbench.units import duration, significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS_PER_INCH = 72
# A trace in pixels: latency above, power below, numbers at the left, the distribution at the right.
UPPER, LOWER, TITLE, GAP, BELOW, LEFT, SIDE = 128, 84, 20, 8, 20, 42, 62
# Latencies that differ by less than a tenth are drawn as calm as they are.
NARROWEST = 0.1
# What lies this many times further out than the middle 98% is beyond the edge, and marked there.
BEYOND = 1.0
FEW = 60
# Letters of a run's words.
LONGEST = 34
MARKERS = ("o", "s", "^", "D", "v", "P")


def trace_chart(number: int, summary: Summary, latency: LatencyTrace | None, power: PowerTrace | None) -> str | None:
    """Latency over time with its distribution at the side, and the power below; None where neither was recorded.

    `number` is the run's on the page.
    """
    if latency is None and power is None:
        return None
    upper, lower = UPPER * (latency is not None), LOWER * (power is not None)
    height = upper + lower + BELOW
    with drawing():
        figure = _figure(height=height, layout="none")
        if latency is not None:
            axes = _axes(figure, top=TITLE, height=upper - TITLE - GAP, left=LEFT, right=SIDE)
            _draw_latency(axes, latency, last=power is None)
            beside = _axes(figure, top=TITLE, height=upper - TITLE - GAP, left=WIDTH - SIDE + 6, right=2)
            _draw_distribution(beside, latency, limits=axes.get_ylim())
        if power is not None:
            axes = _axes(figure, top=upper + TITLE, height=lower - TITLE, left=LEFT, right=SIDE)
            _draw_power(axes, power, rest_w=None if summary.energy is None else summary.energy.idle_w)
        return as_svg(figure, prefix=f"trace-{number}", alt=_alt(number, summary, latency, power))


def _axes(figure: Figure, *, top: float, height: float, left: float, right: float) -> Axes:
    """Axes at a place in pixels from the figure's edges: far quicker than to have matplotlib measure all text."""
    whole = float(figure.get_figheight()) * POINTS_PER_INCH
    return figure.add_axes((left / WIDTH, 1 - (top + height) / whole, 1 - (left + right) / WIDTH, height / whole))


def _draw_latency(axes: Axes, trace: LatencyTrace, *, last: bool) -> None:
    low, high = latency_range(trace)
    colour = COLOURS["time"]
    around = trace.envelope
    if around is not None:
        axes.fill_between(around.time_s, around.least, around.largest, color=colour, alpha=0.25, linewidth=0)
        axes.plot(around.time_s, around.middle, color=colour, linewidth=1.1)
    elif len(trace.ms) <= FEW:
        axes.plot(trace.time_s, trace.ms, "o-", color=colour, linewidth=0.9, markersize=2.6)
    else:
        axes.plot(trace.time_s, trace.ms, color=colour, linewidth=0.9)
    beyond = _beyond(trace, high)
    if beyond:
        axes.plot(beyond, [high] * len(beyond), "^", color=colour, markersize=4.5, clip_on=False, linewidth=0)
    axes.set_ylim(low, high)
    _over_time(axes, trace.lasted_s, title="ms a step", numbers=last)


def _over_time(axes: Axes, lasted_s: float, *, title: str, numbers: bool) -> None:
    """What the axes of latency and of power have in common: seconds below, few numbers, their unit above them."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0, lasted_s)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter(_plainly)
    axes.yaxis.set_major_formatter(_plainly)
    axes.grid(axis="y")
    axes.tick_params(labelbottom=numbers)
    axes.annotate(title, (0, 1), (-LEFT, 6), xycoords="axes fraction", textcoords="offset points")
    if numbers:
        axes.annotate("s", (1, 0), (4, -13), xycoords="axes fraction", textcoords="offset points")


def _draw_distribution(axes: Axes, trace: LatencyTrace, *, limits: tuple[float, float]) -> None:
    import numpy as np

    low, high = limits
    counts, edges = np.histogram(np.clip(trace.ms, low, high), bins=24, range=limits)
    axes.stairs(counts, edges, orientation="horizontal", color=COLOURS["time"], alpha=0.55, fill=True, linewidth=0)
    axes.axhline(float(np.median(trace.ms)), color=COLOURS["ink"], linewidth=0.9)
    axes.set_ylim(low, high)
    axes.set_xlim(0, float(counts.max()))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines["bottom"].set_visible(False)


def latency_range(trace: LatencyTrace) -> tuple[float, float]:
    """What the axis of latency spans: all steps, but for a few that lie far beyond the rest."""
    import numpy as np

    bottom, middle, top = (float(value) for value in np.percentile(trace.ms, (1, 50, 99)))
    reach = max(top - bottom, NARROWEST * middle) * BEYOND
    low, high = max(float(trace.ms.min()), bottom - reach), min(float(trace.ms.max()), top + reach)
    least = NARROWEST * middle
    low, high = min(low, middle - least), max(high, middle + least)
    margin = 0.05 * (high - low)
    return max(0.0, low - margin), high + margin


def _beyond(trace: LatencyTrace, high: float) -> list[float]:
    """When steps took longer than the chart is high; neighbours that one mark stands for are left out."""
    marks: list[float] = []
    for moment, ms in zip(trace.time_s, trace.ms, strict=True):
        if ms > high and (not marks or moment - marks[-1] > trace.lasted_s / 60):
            marks.append(float(moment))
    return marks


def _draw_power(axes: Axes, trace: PowerTrace, *, rest_w: float | None) -> None:
    import numpy as np

    axes.stairs(trace.power_w, trace.edges_s, color=COLOURS["power"], linewidth=1.1, baseline=None)
    axes.stairs(np.nan_to_num(trace.power_w), trace.edges_s, color=COLOURS["power"], alpha=0.2, fill=True, linewidth=0)
    if rest_w is not None:
        axes.axhline(rest_w, color=COLOURS["muted"], linewidth=0.9, linestyle=(0, (3, 2)))
    axes.set_ylim(0, 1.15 * max(float(np.nanmax(trace.power_w)), rest_w or 0.0, 1e-9))
    _over_time(axes, float(trace.edges_s[-1]), title="W", numbers=True)


def _alt(number: int, summary: Summary, latency: LatencyTrace | None, power: PowerTrace | None) -> str:
    told = [f"Run {number}."]
    if latency is not None and summary.latency_ms is not None and summary.latency_ms.median is not None:
        told.append(
            f"Latency of {len(latency.ms):,} steps over {duration(latency.lasted_s)}: "
            f"median {significant(summary.latency_ms.median)} ms, "
            f"from {significant(float(latency.ms.min()))} to {significant(float(latency.ms.max()))} ms."
        )
    if power is not None and summary.energy is not None:
        told.append(f"Power: {significant(summary.energy.mean_w)} W on average.")
    return " ".join(told)


class Row(NamedTuple):
    """A run in the chart of latencies: its number and words, and the figures."""

    number: int
    words: str
    latency: Latency


def latency_chart(rows: Sequence[Row]) -> str | None:
    """A row a run: all latencies as a thin line, P5 to P95 as a thick one, the median as a dot; None without any."""
    if not rows:
        return None
    ends = [
        value for row in rows for value in (row.latency.min, row.latency.mean, row.latency.max) if value is not None
    ]
    with drawing():
        figure = _figure(height=17 * len(rows) + 46)
        axes = figure.subplots()
        for at, row in enumerate(rows):
            _draw_row(axes, at, row.latency)
        _scale(axes, "x", ends)
        axes.set_yticks(range(len(rows)), [f"{_cut(row.words)}  {row.number}" for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel("ms a step")
        return as_svg(figure, prefix="latencies", alt=_latencies_alt(rows))


def _cut(words: str) -> str:
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 1]}…"


def _draw_row(axes: Axes, at: int, latency: Latency) -> None:
    colour = COLOURS["time"]
    if latency.min is not None and latency.max is not None:
        axes.plot([latency.min, latency.max], [at, at], color=colour, linewidth=1.0, alpha=0.6)
    if latency.p5 is not None and latency.p95 is not None:
        axes.plot([latency.p5, latency.p95], [at, at], color=colour, linewidth=6, solid_capstyle="butt", alpha=0.45)
    if latency.median is not None:
        axes.plot([latency.median], [at], "o", color=colour, markersize=5)
    else:
        axes.plot([latency.mean], [at], "D", color=colour, markersize=5, fillstyle="none")


def _latencies_alt(rows: Iterable[Row]) -> str:
    told = (
        f"run {row.number} mean {significant(row.latency.mean)}"
        if row.latency.median is None
        else f"run {row.number} median {significant(row.latency.median)}"
        for row in rows
    )
    return f"Milliseconds a step: {', '.join(told)}."


class Point(NamedTuple):
    """A run in the chart of joules: samples a second, joules a sample and the interval that sampling leaves open."""

    number: int
    machine: int
    hollow: bool
    speed: float
    joules: float
    interval: tuple[float, float] | None


def joules_chart(points: Sequence[Point]) -> str | None:
    """Joules a sample against samples a second, a point a run; None without any."""
    if not points:
        return None
    with drawing():
        figure = _figure(height=300)
        axes = figure.subplots()
        _scale(axes, "x", [point.speed for point in points], always_log=True)
        _scale(axes, "y", [point.joules for point in points], always_log=True)
        _draw_watts(axes)
        for point in points:
            _draw_point(axes, point)
        axes.set_xlabel("samples a second")
        axes.set_ylabel("joules a sample")
        return as_svg(figure, prefix="joules", alt=_joules_alt(points))


def _draw_point(axes: Axes, point: Point) -> None:
    """A point with its interval and the run's number; a colour and form a machine."""
    kind = (point.machine - 1) % len(MARKERS)
    colour = COLOURS[f"machine{kind + 1}"]
    if point.interval is not None and point.interval[0] > 0:
        axes.plot([point.speed, point.speed], point.interval, color=colour, linewidth=1)
    fill = COLOURS["page"] if point.hollow else colour
    axes.plot(
        [point.speed],
        [point.joules],
        MARKERS[kind],
        color=colour,
        markerfacecolor=fill,
        markersize=6,
        markeredgewidth=1.3,
    )
    axes.annotate(
        str(point.number),
        (point.speed, point.joules),
        xytext=(6, 3),
        textcoords="offset points",
        color=COLOURS["ink"],
    )


def _draw_watts(axes: Axes) -> None:
    """Lines of equal power, since joules a sample times samples a second are watts."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    least, most = left * bottom, right * top
    for power_w in _round_numbers(least, most):
        axes.plot([left, right], [power_w / left, power_w / right], color=COLOURS["line"], linewidth=0.8)
        x, y = (right, power_w / right) if power_w / right > bottom else (power_w / bottom, bottom)
        if left < x <= right and bottom <= y < top:
            axes.annotate(
                f"{power_w:,g} W",
                (x, y),
                xytext=(-3, 3),
                textcoords="offset points",
                ha="right",
                fontsize=9,
                color=COLOURS["muted"],
            )
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def _round_numbers(low: float, high: float, *, most: int = 6) -> list[float]:
    """1, 2, 5, 10 ... between the two; fewer of a decade where they would be more than `most`."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [step * 10.0**decade for decade in decades for step in steps if low < step * 10.0**decade < high]
        if len(found) <= most:
            return found
    return found[:: math.ceil(len(found) / most)]


def _joules_alt(points: Iterable[Point]) -> str:
    told = (f"run {it.number} {significant(it.joules)} J at {significant(it.speed)} a second" for it in points)
    return f"Joules a sample at samples a second: {', '.join(told)}."


def _figure(*, height: float, layout: Literal["constrained", "none"] = "constrained") -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH / POINTS_PER_INCH, height / POINTS_PER_INCH), layout=layout)


def _plainly(value: float, _position: Any = None) -> str:
    """A tick's number without exponents and needless zeros."""
    return f"{value:,.10g}" if 1e-4 <= abs(value) < 1e15 or value == 0 else f"{value:g}"


def _scale(axes: Axes, axis: str, values: Sequence[float], *, always_log: bool = False) -> None:
    """Limits with some room around the values; a log scale where they span much, with few and round ticks."""
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

    low, high = min(values), max(values)
    its = axes.xaxis if axis == "x" else axes.yaxis
    limits = axes.set_xlim if axis == "x" else axes.set_ylim
    if low > 0 and (always_log or high > 6 * low):
        room = max(1.15, (high / low) ** 0.12)
        low, high = low / room, high * room
        (axes.set_xscale if axis == "x" else axes.set_yscale)("log")
        its.set_major_locator(FixedLocator(_ticks(low, high)))
        its.set_minor_locator(NullLocator())
    else:
        high *= 1.05
        low = 0.0
        its.set_major_locator(MaxNLocator(5))
    limits(low, high)
    its.set_major_formatter(_plainly)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers for a log scale; plain steps where it spans so little that there would be hardly one."""
    from matplotlib.ticker import MaxNLocator

    found = _round_numbers(low, high)
    if len(found) >= 3:
        return found
    return [float(tick) for tick in MaxNLocator(4).tick_values(low, high) if low < tick < high]
