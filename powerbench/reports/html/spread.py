"""The chart of latencies: a row a run, its steps around their median."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from powerbench.analysis.latencies import Latency
from powerbench.reports.html.canvas import NARROWEST, a_figure, axes_at, plainly
from powerbench.reports.html.svg import COLOURS, WIDTH, as_svg, colour_of, drawing
from powerbench.units import significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import MultipleLocator

# In pixels: what stands above and below the rows, a row, the run's number, its median, a letter, a number of the axis.
TITLE, BELOW, ROW, NUMBER, MEDIAN, LETTER, TICK = 22, 22, 18, 22, 56, 5.8, 42
# The most letters of a run's words, how few of a part are worth nothing, how many times the median steps are followed.
LONGEST, FEW_LETTERS, FURTHEST = 30, 4, 3.0
STEPS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Row(NamedTuple):
    """A run in the chart of latencies: its number, its machine's, its words and its figures."""

    number: int
    machine: int
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
        figure = a_figure(height=height)
        axes = axes_at(figure, top=TITLE, height=ROW * len(rows), left=left, right=12)
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
        axes.xaxis.set_major_formatter(lambda value, _: f"{plainly(value)}\N{MULTIPLICATION SIGN}")
        axes.xaxis.set_major_locator(_ticks(high - low, most=(WIDTH - left) / TICK))
        axes.grid(axis="x")
        return as_svg(figure, prefix="latencies", alt=_latencies_alt(rows))


def _ticks(span: float, *, most: float) -> MultipleLocator:
    """Numbers at round steps, among them 1, which is the median."""
    from matplotlib.ticker import MultipleLocator

    return MultipleLocator(next((step for step in STEPS if span / step <= most), STEPS[-1]))


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
    """Words that are too long without their end, and without the few letters of a part that say nothing."""
    if len(words) <= LONGEST:
        return words
    kept = words[: LONGEST - 1]
    before, comma, rest = kept.rpartition(", ")
    kept = before if comma and len(rest) < FEW_LETTERS else kept
    return f"{kept.rstrip(' ,-')}\N{HORIZONTAL ELLIPSIS}"


def _draw_row(axes: Axes, at: int, row: Row, *, limits: tuple[float, float]) -> None:
    latency, colour = row.latency, colour_of(row.machine)
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
