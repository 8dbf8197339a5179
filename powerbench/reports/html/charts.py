"""The chart of a run: its steps over time, how often each latency came, and the power under them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from powerbench.analysis.slowdown import Slowdown
from powerbench.analysis.summary import Summary
from powerbench.reports.html.canvas import NARROWEST, a_figure, axes_at, few_ticks, plainly
from powerbench.reports.html.svg import COLOURS, WIDTH, as_svg, drawing
from powerbench.reports.html.traces import LatencyTrace, PowerTrace
from powerbench.units import duration, significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The chart in pixels: latency above, power below, numbers at the left, the distribution at the right.
UPPER, LOWER, TITLE, GAP, BELOW, LEFT, SIDE = 134, 90, 22, 8, 22, 48, 62
# Steps that lie further from the middle 98% than those are wide are beyond the edge, and marked there.
BEYOND = 1.0
FEW = 60


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
        figure = a_figure(height=height)
        if latency is not None:
            axes = axes_at(figure, top=TITLE, height=upper - TITLE - GAP, left=LEFT, right=SIDE)
            _draw_latency(axes, latency, last=power is None)
            _draw_change(axes, latency, verdict)
            beside = axes_at(figure, top=TITLE, height=upper - TITLE - GAP, left=WIDTH - SIDE + 6, right=2)
            _draw_distribution(beside, latency, limits=axes.get_ylim())
        if power is not None:
            axes = axes_at(figure, top=upper + TITLE, height=lower - TITLE, left=LEFT, right=SIDE)
            _draw_power(axes, power, rest_w=None if summary.energy is None else summary.energy.idle_w)
        return as_svg(figure, prefix=f"trace-{number}", alt=_alt(number, summary, latency, power))


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
    if verdict is None or verdict.change is None:
        return
    for step in dict.fromkeys((verdict.from_step, verdict.to_step)):
        if step is not None and 0 < step < len(trace.time_s) - 1:
            axes.axvline(float(trace.time_s[step]), color=COLOURS["mark"], linewidth=1.1, linestyle=(0, (4, 2)))


def _over_time(axes: Axes, lasted_s: float, *, title: str, numbers: bool) -> None:
    """What the axes of latency and of power have in common: seconds below, few numbers, their unit above them."""
    axes.set_xlim(0, lasted_s)
    axes.xaxis.set_major_locator(few_ticks(6))
    axes.yaxis.set_major_locator(few_ticks(3))
    axes.xaxis.set_major_formatter(plainly)
    axes.yaxis.set_major_formatter(plainly)
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
