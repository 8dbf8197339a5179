"""The charts of the page: each run's trace over its power, the latencies of all runs, and joules against speed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from powerbench.analysis.slowdown import Slowdown
from powerbench.analysis.summary import Latency, Summary
from powerbench.reports.html.svg import COLOURS, WIDTH, as_svg, drawing
from powerbench.reports.html.traces import LatencyTrace, PowerTrace
from powerbench.units import duration, significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

POINTS_PER_INCH = 72
# A trace in pixels: latency above, power below, numbers at the left, the distribution at the right.
UPPER, LOWER, TITLE, GAP, BELOW, LEFT, SIDE = 134, 90, 22, 8, 22, 48, 62
# Latencies that differ by less than a tenth are drawn as calm as they are.
NARROWEST = 0.1
# What lies this many times further out than the middle 98% is beyond the edge, and marked there.
BEYOND = 1.0
FEW = 60
# A row of the chart of latencies in pixels, its words in letters, and how far it follows single steps.
ROW, NUMBER, MEDIAN, LETTER, LONGEST, TICK, FURTHEST = 18, 22, 56, 5.8, 30, 42, 3.0
MARKERS = ("o", "s", "^", "D", "v", "P")


def trace_chart(
    number: int, summary: Summary, latency: LatencyTrace | None, power: PowerTrace | None, verdict: Slowdown | None
) -> str | None:
    """Latency over time with its distribution at the side, and the power below; None where neither was recorded.

    `number` is the run's on the page. Where `verdict` found a rise or a fall, lines stand where it begins and ends.
    """
    if latency is None and power is None:
        return None
    upper, lower = UPPER * (latency is not None), LOWER * (power is not None)
    height = upper + lower + BELOW
    with drawing():
        figure = _figure(height=height)
        if latency is not None:
            axes = _axes(figure, top=TITLE, height=upper - TITLE - GAP, left=LEFT, right=SIDE)
            _draw_latency(axes, latency, last=power is None)
            _draw_change(axes, latency, verdict)
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


def _draw_change(axes: Axes, trace: LatencyTrace, verdict: Slowdown | None) -> None:
    steps = {verdict.from_step, verdict.to_step} if verdict is not None and verdict.change is not None else set()
    for step in steps:
        if step is not None and 0 < step < len(trace.time_s) - 1:
            axes.axvline(float(trace.time_s[step]), color=COLOURS["mark"], linewidth=1.1, linestyle=(0, (4, 2)))


def _over_time(axes: Axes, lasted_s: float, *, title: str, numbers: bool) -> None:
    """What the axes of latency and of power have in common: seconds below, few numbers, their unit above them."""
    axes.set_xlim(0, lasted_s)
    axes.xaxis.set_major_locator(_few(6))
    axes.yaxis.set_major_locator(_few(3))
    axes.xaxis.set_major_formatter(_plainly)
    axes.yaxis.set_major_formatter(_plainly)
    axes.grid(axis="y")
    axes.tick_params(labelbottom=numbers)
    axes.annotate(title, (0, 1), (-LEFT, 6), xycoords="axes fraction", textcoords="offset points")
    if numbers:
        axes.annotate("s", (1, 0), (12, -15), xycoords="axes fraction", textcoords="offset points")


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
    """A row a run, each against its own median: all steps as a thin line, P5 to P95 as a thick one; None without any.

    A run of which only the mean is known has no distribution and no row.
    """
    rows = [row for row in rows if row.latency.median]
    if not rows:
        return None
    words = min(LONGEST, max(len(row.words) for row in rows)) * LETTER
    left = NUMBER + words + MEDIAN + 14
    height = TITLE + ROW * len(rows) + BELOW
    with drawing():
        figure = _figure(height=height)
        axes = _axes(figure, top=TITLE, height=ROW * len(rows), left=left, right=12)
        low, high = _reach(rows)
        for at, row in enumerate(rows):
            _draw_row(axes, at, row, limits=(low, high))
            _beside(axes, at, str(row.number), -left, "left")
            _beside(axes, at, _cut(row.words), NUMBER - left, "left", colour=COLOURS["ink"])
            _beside(axes, at, significant(row.latency.median or 0.0), -10, "right")
        _beside(axes, -0.95, "median, ms", -10, "right")
        axes.axvline(1, color=COLOURS["ink"], linewidth=0.9)
        axes.set_xlim(low, high)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_formatter(lambda value, _: f"{_plainly(value)}\N{MULTIPLICATION SIGN}")
        axes.xaxis.set_major_locator(_few(int((WIDTH - left) / TICK)))
        axes.grid(axis="x")
        return as_svg(figure, prefix="latencies", alt=_latencies_alt(rows))


def _few(count: int) -> MaxNLocator:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count)


def _beside(
    axes: Axes, at: float, text: str, offset: float, align: Literal["left", "right"], colour: str = COLOURS["muted"]
) -> None:
    """Words in a row, so many pixels from the left end of the axes."""
    axes.annotate(
        text,
        (0, at),
        (offset, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha=align,
        va="center",
        fontsize=11,
        color=colour,
        annotation_clip=False,
    )


def _reach(rows: Sequence[Row]) -> tuple[float, float]:
    """How far from the median the axis goes: over all steps, but to `FURTHEST` times the median at most."""
    lows, highs = [1 - NARROWEST], [1 + NARROWEST]
    for row in rows:
        middle = row.latency.median or 1.0
        lows += [value / middle for value in (row.latency.min, row.latency.p5) if value is not None]
        highs += [min(row.latency.max / middle, FURTHEST)] if row.latency.max is not None else []
        highs += [min(row.latency.p95 / middle, FURTHEST)] if row.latency.p95 is not None else []
    room = 0.03 * (max(highs) - min(lows))
    return min(lows) - room, max(highs) + room


def _cut(words: str) -> str:
    """Words that are too long without their middle: what comes last often tells most."""
    if len(words) <= LONGEST:
        return words
    end = 2 * LONGEST // 3
    return f"{words[: LONGEST - 1 - end]}\N{HORIZONTAL ELLIPSIS}{words[-end:]}"


def _draw_row(axes: Axes, at: int, row: Row, *, limits: tuple[float, float]) -> None:
    latency, colour = row.latency, COLOURS["time"]
    middle = latency.median or 1.0
    if latency.min is not None and latency.max is not None:
        least, most = latency.min / middle, latency.max / middle
        axes.plot([least, min(most, limits[1])], [at, at], color=colour, linewidth=1.0, alpha=0.7)
        if most > limits[1]:
            axes.plot([limits[1]], [at], ">", color=colour, markersize=4.5, clip_on=False)
    if latency.p5 is not None and latency.p95 is not None:
        ends = [latency.p5 / middle, min(latency.p95 / middle, limits[1])]
        axes.plot(ends, [at, at], color=colour, linewidth=6.5, solid_capstyle="butt", alpha=0.55)


def _latencies_alt(rows: Iterable[Row]) -> str:
    told = (f"run {row.number} {significant(row.latency.median or 0.0)}" for row in rows)
    return f"Latencies of each run around its median, in ms a step: {', '.join(told)}."


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
        figure = _figure(height=330)
        axes = _axes(figure, top=34, height=252, left=48, right=22)
        _log_scale(axes, "x", [point.speed for point in points])
        _log_scale(axes, "y", [point.joules for point in points])
        _draw_watts(axes)
        for point in points:
            _draw_point(axes, point)
        _number_points(axes, points)
        axes.annotate("joules a sample", (0, 1), (-48, 22), xycoords="axes fraction", textcoords="offset points")
        axes.set_xlabel("samples a second")
        return as_svg(figure, prefix="joules", alt=_joules_alt(points))


def _draw_point(axes: Axes, point: Point) -> None:
    """A point with its interval; a colour and form a machine."""
    kind = (point.machine - 1) % len(MARKERS)
    colour = COLOURS[f"machine{kind + 1}"]
    if point.interval is not None and point.interval[0] > 0:
        axes.plot([point.speed, point.speed], point.interval, color=colour, linewidth=1)
    fill = COLOURS["page"] if point.hollow else colour
    where = [point.speed], [point.joules]
    axes.plot(*where, MARKERS[kind], color=colour, markerfacecolor=fill, markersize=6, markeredgewidth=1.3)


def _number_points(axes: Axes, points: Sequence[Point]) -> None:
    """Each run's number beside its point, at the first of four corners where there is room; else there is none."""
    places = [tuple(axes.transData.transform((it.speed, it.joules))) for it in points]
    scale = axes.get_figure(root=True).dpi / POINTS_PER_INCH  # type: ignore[union-attr]  # it is in a figure
    taken = [(x / scale - 4, y / scale - 4, x / scale + 4, y / scale + 4) for x, y in places]
    for point, (x, y) in zip(points, places, strict=True):
        wide = LETTER * len(str(point.number)) + 2
        for right, up in ((5, 4), (5, -13), (-5 - wide, 4), (-5 - wide, -13)):
            left, bottom = x / scale + right, y / scale + up
            box = (left, bottom, left + wide, bottom + 9)
            if any(_overlap(box, other) for other in taken):
                continue
            taken.append(box)
            where = (point.speed, point.joules)
            axes.annotate(str(point.number), where, (right, up), textcoords="offset points", color=COLOURS["ink"])
            break


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _draw_watts(axes: Axes) -> None:
    """Lines of equal power, since joules a sample times samples a second are watts."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for power_w in _round_numbers(left * bottom, right * top):
        axes.plot([left, right], [power_w / left, power_w / right], color=COLOURS["line"], linewidth=0.8)
        if left < power_w / top < right:
            _name_line(axes, power_w, (power_w / top, top), (0, 4), "center")
        elif bottom < power_w / right < top:
            _name_line(axes, power_w, (right, power_w / right), (0, 4), "right")
        elif left < power_w / bottom < right:
            _name_line(axes, power_w, (power_w / bottom, bottom), (-4, 4), "right")
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def _name_line(
    axes: Axes, power_w: float, end: tuple[float, float], offset: tuple[float, float], align: Literal["center", "right"]
) -> None:
    text = f"{_plainly(power_w)} W"
    axes.annotate(text, end, offset, textcoords="offset points", ha=align, fontsize=10, annotation_clip=False)


def _round_numbers(low: float, high: float, *, most: int = 6) -> list[float]:
    """1, 2, 5, 10 ... between the two; fewer of a decade where they would be more than `most`."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [step * 10.0**decade for decade in decades for step in steps if low < step * 10.0**decade < high]
        if len(found) <= most:
            return found
    return found[:: math.ceil(len(found) / most)]


def _joules_alt(points: Iterable[Point]) -> str:
    told = (f"run {it.number} {significant(it.joules)} J at {significant(it.speed)} a second" for it in points)
    return f"Joules a sample at samples a second: {', '.join(told)}."


def _figure(*, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH / POINTS_PER_INCH, height / POINTS_PER_INCH))


def _plainly(value: float, _position: Any = None) -> str:
    """A tick's number without exponents and needless zeros."""
    return f"{value:,.10g}" if 1e-4 <= abs(value) < 1e15 or value == 0 else f"{value:g}"


def _log_scale(axes: Axes, axis: Literal["x", "y"], values: Sequence[float]) -> None:
    """A log scale with some room around the values, and few and round numbers at it."""
    from matplotlib.ticker import FixedLocator, NullLocator

    low, high = min(values), max(values)
    room = max(1.2, (high / low) ** 0.1)
    low, high = low / room, high * room
    if axis == "x":
        axes.set_xscale("log")
        axes.set_xlim(low, high)
    else:
        axes.set_yscale("log")
        axes.set_ylim(low, high)
    its = axes.xaxis if axis == "x" else axes.yaxis
    its.set_major_locator(FixedLocator(_ticks(low, high)))
    its.set_minor_locator(NullLocator())
    its.set_major_formatter(_plainly)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers for a log scale; plain steps where it spans so little that there would be hardly one."""
    found = _round_numbers(low, high)
    if len(found) >= 3:
        return found
    return [float(tick) for tick in _few(4).tick_values(low, high) if low < tick < high]
