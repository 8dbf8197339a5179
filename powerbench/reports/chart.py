"""Charts of plain characters: latency by step, and what stood beside it on the same axis, as wide as there is room."""

from __future__ import annotations

import textwrap
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from powerbench.analysis.checked import Checked
from powerbench.analysis.lanes import Unit
from powerbench.units import byte_size, counted, duration, milliseconds, significant

BARS = " ▁▂▃▄▅▆▇█"
EIGHTHS = len(BARS) - 1
SLOWEST, BEYOND, HERE, NEW = "·", "^", "▲", "◆"
# Noise of a percent is to look like a percent: an axis covers at least so much of its largest value.
LEAST_SPAN = 0.3
# An axis that would begin close to zero begins there.
CLOSE_TO_ZERO = 0.25
# With fewer steps in a column it may be as tall as its slowest: then its neighbours say what is usual.
FEW_A_COLUMN = 3
NEIGHBOURS = 5
MANY_A_COLUMN = 40
# So many of the columns have room for their slowest step; those of the others are beyond the axis.
ROOM_FOR_SLOWEST = 0.75
# Beyond the axis is what is so many times its top; what is closer stands in its highest line.
FAR_BEYOND = 1.3
# Longer steps are told as minutes and seconds.
LONG_S = 9.9995
MOST_LANES = 4
# Labels stand beside the chart where that leaves it so many columns, else above it.
BESIDE = 36
VALUE_WIDTH = 10
TICK_ROOM = 9
# No load of less than a core fills its band.
LEAST_TOP: dict[Unit, float] = {"cores": 1.0}


class Size(NamedTuple):
    """How large a chart is: `width` in characters, the heights in lines."""

    width: int = 78
    height: int = 8
    lane_height: int = 2


class Axis(NamedTuple):
    """What the lowest and the highest line of a band stand for."""

    base: float
    top: float


class Columns(NamedTuple):
    """How stretches are laid out: column i holds those from `bounds[i]` on, and is `cells` characters wide."""

    bounds: list[int]
    cells: int


class Band(NamedTuple):
    """One quantity of a chart: a value a column, its axis with the labels of both ends, and the slowest of a column."""

    name: str
    values: Sequence[float | None]
    axis: Axis
    labels: tuple[str, str]
    height: int
    slowest: Sequence[float] = ()


def bars(values: Sequence[float]) -> str:
    """A bar for each, from nothing to the largest of them."""
    most = max(values, default=0.0)
    return "".join(BARS[max(1, _eighths(value, Axis(0, most), 1))] for value in values)


def chart(checked: Checked, size: Size) -> list[str]:
    """Latency by step with the first lanes below it, and what the signs mean; nothing where there are no steps."""
    if not len(checked.latencies):
        return []
    lanes = checked.lanes[:MOST_LANES]
    name_width = max(len(name) for name in ("latency", *(lane.name for lane in lanes)))
    gutter = name_width + VALUE_WIDTH + 5
    if size.width - gutter < BESIDE:
        gutter = VALUE_WIDTH + 4
    columns = _columns(len(checked.latencies), size.width - gutter)
    latency, *others = _bands(checked, columns, size)
    return [
        *_drawn(latency, columns, gutter),
        *_steps_axis(checked, columns, gutter),
        *_new_shapes(checked, columns, gutter),
        *_marks(checked, columns, gutter),
        *(line for band in others for line in _drawn(band, columns, gutter)),
        *_legend(checked, columns, size),
    ]


def _columns(stretches: int, room: int) -> Columns:
    count = min(stretches, max(1, room))
    return Columns([index * stretches // count for index in range(count + 1)], max(1, room // count))


def _bands(checked: Checked, columns: Columns, size: Size) -> Iterator[Band]:
    yield _latency(checked, columns, size.height)
    edges = [checked.latencies.edge_ns[at] for at in columns.bounds]
    for lane in checked.lanes[:MOST_LANES]:
        values = lane.over(edges)
        known = [value for value in values if value is not None]
        if known:
            least = LEAST_TOP.get(lane.unit, 0.0)
            # A band of one line has room for one label, so that nothing but zero can be at its foot.
            axis = axis_for(known, at_least=least) if size.lane_height > 1 else Axis(0.0, max(*known, least))
            yield Band(lane.name, values, axis, _labels(axis, lane.unit), size.lane_height)


def _latency(checked: Checked, columns: Columns, height: int) -> Band:
    seconds = checked.latencies.seconds()
    parts = [seconds[start:end] for start, end in zip(columns.bounds, columns.bounds[1:], strict=False)]
    medians, slowest = [median(part) for part in parts], [_slowest(part) for part in parts]
    smooth = medians
    if len(seconds) < FEW_A_COLUMN * len(parts):
        smooth = [median(medians[max(0, at - NEIGHBOURS // 2) : at + NEIGHBOURS // 2 + 1]) for at in range(len(parts))]
    roomy = sorted(slowest)[int(ROOM_FOR_SLOWEST * (len(slowest) - 1))]
    axis = axis_for([*smooth, max(*smooth, roomy)], lowest=min(smooth))
    name, labels = "latency" if checked.is_judged else "submits", (_step(axis.base), _step(axis.top))
    return Band(name, medians, axis, labels, height, slowest)


def _slowest(seconds: Sequence[float]) -> float:
    """The slowest; of many the one that 19 of 20 are faster than, since among many there is always a spike."""
    return max(seconds) if len(seconds) < MANY_A_COLUMN else sorted(seconds)[int(0.95 * len(seconds))]


def _step(seconds: float) -> str:
    return milliseconds(seconds * 1000) if seconds < LONG_S else duration(seconds)


def axis_for(values: Sequence[float], *, at_least: float = 0.0, lowest: float | None = None) -> Axis:
    """An axis on which the values differ as much as they do: never only the last percent of them."""
    top = max(*values, at_least)
    span = max(2 * (top - (min(values) if lowest is None else lowest)), LEAST_SPAN * top)
    base = top - span
    return Axis(base if base > CLOSE_TO_ZERO * top else 0.0, top)


def _labels(axis: Axis, unit: Unit) -> tuple[str, str]:
    return quantity(axis.base, unit), quantity(axis.top, unit)


def quantity(value: float, unit: Unit) -> str:
    """`46.1 W`, `1,620 MHz`, `2.77 GB`, `61 °C`, `1.5 cores`."""
    if unit == "bytes":
        return byte_size(value)
    if unit == "cores":
        return f"{value:.1f} cores"
    if unit in ("MHz", "°C"):
        return f"{value:,.0f} {unit}"
    return f"{significant(value)} {unit}"


def _drawn(band: Band, columns: Columns, gutter: int) -> Iterator[str]:
    """The lines of a band, with its name and the ends of its axis to the left, or its name above."""
    low, high = band.labels
    texts = [high, *[""] * (band.height - 2), low] if band.height > 1 else [high]
    names = [band.name, *[""] * (band.height - 1)]
    if gutter < VALUE_WIDTH + 5:
        yield f"  {band.name}"
        names = [""] * band.height
    width = gutter - VALUE_WIDTH - 4
    for name, text, row in zip(names, texts, _rows(band, columns), strict=True):
        yield f"  {name:<{width}}{text:>{VALUE_WIDTH}} ┤{row}".rstrip()


def _rows(band: Band, columns: Columns) -> list[str]:
    """The rows of bars from the top down."""
    slowest: Sequence[float | None] = band.slowest or [None] * len(band.values)
    cells = [_column(value, slow, band) for value, slow in zip(band.values, slowest, strict=True)]
    return ["".join(cell[row] * columns.cells for cell in cells) for row in reversed(range(band.height))]


def _column(value: float | None, slowest: float | None, band: Band) -> list[str]:
    """One column from the bottom up: full blocks, a part of one, and above them the sign of its slowest step."""
    if value is None:
        return [" "] * band.height
    filled = max(1, _eighths(value, band.axis, band.height))
    column = [BARS[min(EIGHTHS, max(0, filled - EIGHTHS * row))] for row in range(band.height)]
    if slowest is None:
        return column
    row, bars_row = ((eighths - 1) // EIGHTHS for eighths in (_eighths(slowest, band.axis, band.height), filled))
    if slowest > band.axis.top * FAR_BEYOND:
        column[-1] = BEYOND
    elif row > bars_row:
        column[row] = SLOWEST
    return column


def _eighths(value: float, axis: Axis, height: int) -> int:
    if axis.top <= axis.base:
        return 0
    share = (value - axis.base) / (axis.top - axis.base)
    return round(min(1.0, max(0.0, share)) * EIGHTHS * height)


def _steps_axis(checked: Checked, columns: Columns, gutter: int) -> list[str]:
    """The axis under the latency: a tick where a round number of steps begins."""
    firsts = checked.latencies.first_steps()
    cells = columns.cells * (len(columns.bounds) - 1)
    apart = _round_up(firsts[-1] * TICK_ROOM / cells)
    line, labels = ["─"] * cells, ""
    for step in range(0, firsts[-1], apart):
        at = _cell_of(step, checked, columns)
        if len(labels) <= at and at + len(f"{step:,}") <= cells:
            line[at] = "┬"
            labels = f"{labels:<{at}}{step:,} "
    return [f"{'└':>{gutter}}{''.join(line)}", f"{'step':>{gutter - 2}}  {labels}".rstrip()]


def _round_up(number: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50, ..."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= number:
                return factor * power
        power *= 10


def _cell_of(step: int, checked: Checked, columns: Columns) -> int:
    firsts = checked.latencies.first_steps()
    stretch = bisect_right(firsts, step) - 1
    column = bisect_right(columns.bounds, stretch) - 1
    return columns.cells * min(column, len(columns.bounds) - 2)


def _new_shapes(checked: Checked, columns: Columns, gutter: int) -> Iterator[str]:
    """A sign under each column in which batches came of a length that none before had."""
    places = sorted({_cell_of(step, checked, columns) for step in shown_shapes(checked)})
    if places:
        yield " " * gutter + "".join(NEW if at in places else " " for at in range(places[-1] + 1))


def shown_shapes(checked: Checked) -> list[int]:
    """The steps with batches of new lengths, as far as the chart reaches."""
    return [step for step in checked.new_shapes if step < sum(checked.latencies.steps)]


def _marks(checked: Checked, columns: Columns, gutter: int) -> Iterator[str]:
    """What the verdict found, each on a line of its own with a sign under its step."""
    cells = columns.cells * (len(columns.bounds) - 1)
    for step, text in changes(checked):
        at = _cell_of(step, checked, columns)
        told = next((each for each in (text, f"step {step:,}") if len(each) < max(at, cells - at - 1)), "")
        if at + len(told) + 2 <= cells or not told:
            yield f"{' ' * (gutter + at)}{HERE} {told}".rstrip()
        else:
            yield f"{' ' * (gutter + at - len(told) - 1)}{told} {HERE}"


def changes(checked: Checked) -> Iterator[tuple[int, str]]:
    """The steps at which something changes, and what: the end of the warm-up, beginning and end of a rise or fall."""
    found = checked.slowdown
    if found.warmup_steps:
        yield found.warmup_steps, f"warmed up (step {found.warmup_steps:,})"
    if found.from_step is None or found.change is None:
        return
    word = "slower" if found.change > 0 else "faster"
    if found.shape == "step" or found.to_step is None:
        yield found.from_step, f"{word} from here (step {found.from_step:,})"
        return
    yield found.from_step, f"{word} and {word} from here (step {found.from_step:,})"
    if not found.still_rising and found.to_step < sum(checked.latencies.steps):
        yield found.to_step, f"to here (step {found.to_step:,})"


def _legend(checked: Checked, columns: Columns, size: Size) -> list[str]:
    latencies = checked.latencies
    many = -(-len(latencies) // (len(columns.bounds) - 1))
    steps, lasted_s = sum(latencies.steps), latencies.lasted_s
    text = f"{counted(steps, 'step')} in {duration(lasted_s)}."
    if many > 1:
        slowest = "the slowest of them" if many < MANY_A_COLUMN else "what 19 of 20 of them are below"
        text += (
            f" A column is up to {counted(many, 'step')}: the bar is their median, {SLOWEST} {slowest}, "
            f"{BEYOND} one beyond the axis."
        )
    if shown_shapes(checked):
        text += f" {NEW} batches of a length that none before had."
    if any(lane.name == "others" for lane in checked.lanes[:MOST_LANES]):
        workers = "worker" if checked.record is None or checked.record.ranks == 1 else "workers"
        text += f" The others are cores that anything but the {workers} kept busy."
    return ["", *(f"  {line}" for line in textwrap.wrap(text, size.width - 2))]
