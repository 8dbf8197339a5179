"""What the charts of the page are drawn on: a figure as wide as a phone, places in it in pixels, few plain numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from powerbench.reports.html.svg import WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

POINTS_PER_INCH = 72
# Latencies that differ by less than a tenth are drawn as calm as they are.
NARROWEST = 0.1


def a_figure(*, height: float) -> Figure:
    """A figure so many pixels high."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH / POINTS_PER_INCH, height / POINTS_PER_INCH))


def axes_at(figure: Figure, *, top: float, height: float, left: float, right: float) -> Axes:
    """Axes at a place in pixels from the figure's edges: far quicker than to have matplotlib measure all text."""
    whole = float(figure.get_figheight()) * POINTS_PER_INCH
    return figure.add_axes((left / WIDTH, 1 - (top + height) / whole, 1 - (left + right) / WIDTH, height / whole))


def few_ticks(count: int) -> MaxNLocator:
    """Where an axis has its numbers: at round values, not many more than `count`."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count)


def plainly(value: float, _position: Any = None) -> str:
    """A tick's number without exponents and needless zeros."""
    return f"{value:,.10g}" if 1e-4 <= abs(value) < 1e15 or value == 0 else f"{value:g}"
