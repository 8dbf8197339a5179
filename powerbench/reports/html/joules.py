"""The chart of joules a sample against samples a second, a point a run, over lines of equal power."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from powerbench.reports.html.canvas import a_figure, axes_at, few_ticks, plainly
from powerbench.reports.html.svg import COLOURS, as_svg, colour_of, drawing
from powerbench.units import significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = ("o", "s", "^", "D", "v", "P")
FORMS = (
    "M5 1a4 4 0 1 0 .01 0z",
    "M1.5 1.5h7v7h-7z",
    "M5 1 9 9H1z",
    "M5 .5 9.5 5 5 9.5 .5 5z",
    "M5 9 9 1H1z",
    "M3.5 1h3v2.5H9v3H6.5V9h-3V6.5H1v-3h2.5z",
)
"""The same marks as paths in ten by ten, for a legend in words."""
LETTER = 6.5


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
        figure = a_figure(height=330)
        axes = axes_at(figure, top=34, height=252, left=48, right=22)
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
    colour, marker = colour_of(point.machine), MARKERS[(point.machine - 1) % len(MARKERS)]
    if point.interval is not None and point.interval[0] > 0:
        axes.plot([point.speed, point.speed], point.interval, color=colour, linewidth=1)
    fill = COLOURS["page"] if point.hollow else colour
    where = [point.speed], [point.joules]
    axes.plot(*where, marker, color=colour, markerfacecolor=fill, markersize=6, markeredgewidth=1.3)


def _number_points(axes: Axes, points: Sequence[Point]) -> None:
    """Each run's number beside its point, at the first of four corners where there is room; else there is none."""
    places = [tuple(axes.transData.transform((it.speed, it.joules))) for it in points]
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in places]
    for point, (x, y) in zip(points, places, strict=True):
        wide = LETTER * len(str(point.number)) + 2
        for right, up in ((5, 4), (5, -13), (-5 - wide, 4), (-5 - wide, -13)):
            left, bottom = x + right, y + up
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
    text = f"{plainly(power_w)} W"
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
    its.set_major_formatter(plainly)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers for a log scale; plain steps where it spans so little that there would be hardly one."""
    found = _round_numbers(low, high)
    if len(found) >= 3:
        return found
    return [float(tick) for tick in few_ticks(4).tick_values(low, high) if low < tick < high]
