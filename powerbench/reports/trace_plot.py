"""A checked trace as a picture: latency with what the verdict found in it, and what stood beside it, on one axis."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from powerbench.analysis.checked import Checked
from powerbench.analysis.lanes import Lane
from powerbench.reports.chart import LEAST_TOP, NEW, axis_for, changes, shown_shapes
from powerbench.reports.terminal import headline, machine_line
from powerbench.reports.verdict import verdict
from powerbench.units import NS_PER_S, counted, milliseconds

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# 1,280 dots wide: trackers show it at about their own width, and it is sharp on a dense screen.
WIDTH_IN, LATENCY_IN, LANE_IN, HEAD_IN, FOOT_IN, LINE_IN = 8.0, 2.7, 0.95, 0.75, 0.5, 0.17
DPI = 160
# Any: matplotlib types its settings by a union of all their names.
STYLE: dict[Any, Any] = {
    **{"font.size": 9.0, "font.family": "DejaVu Sans", "axes.spines.top": False, "axes.spines.right": False},
    **{"axes.grid": True, "grid.color": "#e4e4e4", "grid.linewidth": 0.6, "axes.axisbelow": True},
    **{"axes.edgecolor": "#888888", "xtick.color": "#444444", "ytick.color": "#444444"},
    **{"figure.facecolor": "white", "svg.hashsalt": "powerbench"},
}
STEPS, LEVEL, BEFORE, WARM, CHANGE, BESIDE = "#8fb3d9", "#1f4e79", "#8a8a8a", "#f2e3c6", "#b3261e", "#4b6b57"
WARMER = "#9a5b00"
# What is written over dots and lines.
OVER = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1.0}
# From so many steps on their dots are small, and in an SVG a picture: it would be megabytes else.
MANY, DOT, FINE_DOT = 2000, 3.5, 1.5
# The level is a running median over so much of the run, of at most so many steps.
SMOOTHED, LONGEST_MEDIAN = 40, 501
# The axis is made for the steps between these quantiles; those that are beyond it are counted at its edge.
ON_THE_AXIS = 0.005, 0.97
SCALES = {"bytes": (1e9, "GB"), "cores": (1.0, "cores"), "W": (1.0, "W"), "MHz": (1.0, "MHz"), "°C": (1.0, "°C")}
# Of the axis of steps: the most, and half a tick's share of the width is the least that lies between two.
MOST_TICKS = 9
# Letters of the title in a line.
WRAP, LONGEST_SUBTITLE = 100, 130


def plot_trace(checked: Checked, path: Path) -> None:
    """Draw it into `path`, whose ending says as what (.png or .svg). Raises OSError where that cannot be written."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    title = textwrap.wrap(verdict(checked), WRAP)
    head_in = HEAD_IN + LINE_IN * len(title)
    height = head_in + LATENCY_IN + LANE_IN * len(checked.lanes) + FOOT_IN
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, height), dpi=DPI)
        heights = [LATENCY_IN, *[LANE_IN] * len(checked.lanes)]
        panels = list(figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0])
        figure.subplots_adjust(left=0.115, right=0.97, bottom=FOOT_IN / height, top=1 - head_in / height, hspace=0.16)
        _title(figure, title, checked, height)
        _draw(panels, checked)
        figure.align_ylabels(panels)
        figure.savefig(path, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)


def _title(figure: Figure, title: Sequence[str], checked: Checked, height: float) -> None:
    """The verdict, and what it is about in a line below."""
    top, below = 1 - 0.1 / height, 1 - (0.14 + LINE_IN * len(title)) / height
    figure.text(0.02, top, "\n".join(title), va="top", weight="bold", fontsize=9.5, linespacing=1.25)
    record = checked.record
    told = checked.name if record is None else f"{headline(record)}; {machine_line(record)}"
    figure.text(0.02, below, textwrap.shorten(told, LONGEST_SUBTITLE), va="top", color="#555555", fontsize=8)


def _draw(panels: Sequence[Axes], checked: Checked) -> None:
    import numpy as np

    latencies = checked.latencies
    panels[0].set_ylabel("ms a step" if checked.is_judged else "ms between\nsubmissions")
    panels[-1].set_xlabel("seconds since the first measured step")
    if not len(latencies):
        panels[0].text(0.5, 0.5, "no step was measured to its end", transform=panels[0].transAxes, ha="center")
        return
    edges_s = np.asarray(latencies.edge_ns) / NS_PER_S
    start_s, edges_s = float(edges_s[0]), edges_s - edges_s[0]
    firsts = np.asarray(latencies.first_steps())
    _draw_latency(panels[0], checked, edges_s)
    for panel, lane in zip(panels[1:], checked.lanes, strict=True):
        _draw_lane(panel, lane, start_s, float(edges_s[-1]))
    _mark_shapes(panels[0], checked, lambda step: float(np.interp(step, firsts, edges_s)))
    _mark_changes(panels, checked, lambda step: float(np.interp(step, firsts, edges_s)))
    panels[0].set_xlim(_before_s(checked), float(edges_s[-1]) or 1.0)
    if edges_s[-1] > 0:
        _count_steps(panels[0], edges_s, firsts)


def _before_s(checked: Checked) -> float:
    """Where the picture begins: with the last steps of the warm-up, but at most a tenth before the measured ones."""
    edges, warmup = checked.latencies.edge_ns, checked.warmup.edge_ns
    lasted_s = (edges[-1] - edges[0]) / NS_PER_S
    return max((warmup[0] - edges[0]) / NS_PER_S, -0.1 * lasted_s) if len(checked.warmup) else 0.0


def _draw_latency(panel: Axes, checked: Checked, edges_s: Floats) -> None:
    """Each step as a dot and their running median as a line; steps of the warm-up as grey dots before them."""
    import numpy as np

    ms = np.asarray(checked.latencies.seconds()) * 1000
    at_s, level = (edges_s[:-1] + edges_s[1:]) / 2, _running_median(ms)
    size = DOT if len(ms) <= MANY else FINE_DOT
    panel.plot(at_s, ms, ".", color=STEPS, markersize=size, rasterized=len(ms) > MANY)
    panel.plot(at_s, level, color=LEVEL, linewidth=1.4)
    if len(checked.warmup):
        before_s = (np.asarray(checked.warmup.edge_ns) - checked.latencies.edge_ns[0]) / NS_PER_S
        panel.plot(
            (before_s[:-1] + before_s[1:]) / 2,
            np.asarray(checked.warmup.seconds()) * 1000,
            ".",
            color=BEFORE,
            markersize=size,
        )
        panel.axvspan(_before_s(checked), 0, color=BEFORE, alpha=0.15, linewidth=0)
    _limit(panel, ms, level, at_s)


def _mark_shapes(panel: Axes, checked: Checked, second_of: Callable[[int], float]) -> None:
    """A diamond on the axis for each step with batches of a length that none before had."""
    steps = shown_shapes(checked)
    if steps:
        lowest = panel.get_ylim()[0]
        panel.plot([second_of(step) for step in steps], [lowest] * len(steps), "D", color=WARMER, ms=4, clip_on=False)
        said = f"{NEW} batches of a length that none before had"
        panel.text(0.005, 0.04, said, transform=panel.transAxes, fontsize=7.5, color=WARMER, bbox=OVER)


def _running_median(ms: Floats) -> Floats:
    import numpy as np
    from scipy.ndimage import median_filter

    size = max(3, min(len(ms) // SMOOTHED, LONGEST_MEDIAN)) | 1
    return np.asarray(median_filter(ms, size=min(size, len(ms)), mode="mirror"))


def _limit(panel: Axes, ms: Floats, level: Floats, at_s: Floats) -> None:
    """An axis for all steps but the few slowest, which are counted where they leave it."""
    import numpy as np

    low, high = (float(each) for each in np.quantile(ms, ON_THE_AXIS))
    axis = axis_for([low, max(high, float(level.max()))])
    ceiling = (axis.top + 0.12 * (axis.top - axis.base)) or 1.0
    panel.set_ylim(min(axis.base, float(ms.min())), ceiling)
    beyond = ms > ceiling
    if beyond.any():
        panel.plot(at_s[beyond], np.full(int(beyond.sum()), ceiling), "^", color=CHANGE, markersize=DOT, clip_on=False)
        said = f"{counted(int(beyond.sum()), 'step')} above the axis, the slowest {milliseconds(float(ms.max()))}"
        panel.text(0.995, 0.04, said, transform=panel.transAxes, ha="right", fontsize=7.5, color=CHANGE, bbox=OVER)


def _draw_lane(panel: Axes, lane: Lane, start_s: float, end_s: float) -> None:
    import numpy as np

    scale, unit = SCALES[lane.unit]
    at_s, values = np.asarray(lane.time_ns) / NS_PER_S - start_s, np.asarray(lane.values) / scale
    panel.plot(at_s, values, color=BESIDE, linewidth=1.1)
    panel.set_ylabel(f"{lane.name}\n{unit}")
    panel.text(1.0, 1.02, lane.subject, transform=panel.transAxes, ha="right", fontsize=7, color="#666666")
    inside = values[(at_s >= 0) & (at_s <= end_s)]
    if len(inside):
        axis = axis_for([float(inside.min()), float(inside.max())], at_least=LEAST_TOP.get(lane.unit, 0.0))
        panel.set_ylim(axis.base, (axis.top + 0.2 * (axis.top - axis.base)) or 1.0)


def _mark_changes(panels: Sequence[Axes], checked: Checked, second_of: Callable[[int], float]) -> None:
    """The warm-up as a shaded stretch, and the steps at which something changes as lines through all panels."""
    warmup = checked.slowdown.warmup_steps
    for panel in panels:
        if warmup:
            panel.axvspan(0, second_of(warmup), color=WARM, linewidth=0, zorder=0)
    lowest = panels[0].get_ylim()[0]
    for number, (step, text) in enumerate(changes(checked)):
        at_s = second_of(step)
        for panel in panels:
            panel.axvline(at_s, color=CHANGE, linewidth=0.9, linestyle=(0, (4, 3)))
        is_late = at_s > panels[0].get_xlim()[1] * 0.6
        panels[0].annotate(
            text,
            (at_s, lowest),
            xytext=(-4 if is_late else 4, 20 + 11 * number),
            textcoords="offset points",
            ha="right" if is_late else "left",
            color=CHANGE,
            fontsize=8,
            bbox=OVER,
        )


def _joined(x: Floats, xs: Floats, ys: Floats) -> Floats:
    """`np.interp`, but beyond the ends the line goes on: else a tick for a step that there is not stands at the end."""
    import numpy as np

    slope = (ys[-1] - ys[0]) / (xs[-1] - xs[0])
    beyond = np.minimum(x - xs[0], 0) + np.maximum(x - xs[-1], 0)
    return np.asarray(np.interp(x, xs, ys) + slope * beyond)


def _count_steps(panel: Axes, edges_s: Floats, firsts: Floats) -> None:
    """The steps as a second axis above; where they are so short that their numbers would overlap, fewer of them."""
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    steps = panel.secondary_xaxis(
        "top",
        functions=(
            lambda at_s: _joined(np.asarray(at_s), edges_s, firsts),
            lambda step: _joined(np.asarray(step), firsts, edges_s),
        ),
    )
    steps.set_xlabel("step", labelpad=3, fontsize=8)
    steps.tick_params(labelsize=8)
    last = int(firsts[-1])
    apart_s, shown = float(edges_s[-1]) / MOST_TICKS / 2, list[float]()
    for step in MaxNLocator(MOST_TICKS, integer=True, steps=[1, 2, 5, 10]).tick_values(0, last):
        if step > last:
            break
        if not shown or np.diff(np.interp([shown[-1], step], firsts, edges_s))[0] >= apart_s:
            shown.append(step)
    steps.set_ticks(shown, [f"{step:,.0f}" for step in shown])
