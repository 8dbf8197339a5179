"""Where the joules went as a person reads it: the dearest functions in themselves, and with all that they call."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from powerbench.analysis.flame import Cost, Flame, echoes, rows_of, sum_of
from powerbench.reports.flame.burnt import Burnt, lead, of_what, sentences, share, short_file, short_name, watts
from powerbench.reports.lines import WIDTH, notes
from powerbench.rundir.stacks import Frame
from powerbench.units import significant

TOP = 12
LEAST_NAME = 24


def as_terminal(burnt: Burnt, *, width: int = WIDTH) -> str:
    """Two tables, and what must be known to read them."""
    flame = burnt.flame
    rows = rows_of(flame)
    own = [(row.frame, row.own) for row in rows if row.own.seconds or row.own.joules]
    skipped = echoes(flame)
    total = [(row.frame, row.total) for row in rows if row.frame not in skipped]
    total.sort(key=lambda it: key(it[1]), reverse=True)
    lines = [line for text in of_what(burnt) for line in textwrap.wrap(text, width)]
    lines += ["", *textwrap.wrap(lead(burnt), width)]
    lines += ["", "In these functions themselves", *table(flame, own, width, the_rest(flame, own))]
    lines += ["", "In these functions and all that they call", *table(flame, total, width, [])]
    return "\n".join([*lines, *notes(sentences(burnt), width)])


def key(cost: Cost) -> tuple[float, float]:
    """Joules first, where there are any."""
    return cost.joules, cost.seconds


def the_rest(flame: Flame, own: Sequence[tuple[object, Cost]]) -> list[tuple[str, Cost]]:
    """What is in no row of its own."""
    others = own[TOP:]
    rest = [(f"the other {len(others):,}", sum_of(cost for _, cost in others))] if others else []
    return [*rest, ("not attributed: no stack was seen", flame.unattributed)]


def table(
    flame: Flame, costs: Sequence[tuple[Frame, Cost]], width: int, rest: Sequence[tuple[str, Cost]]
) -> Iterator[str]:
    """Rows of figures with the function's name behind them."""
    named = costs[:TOP]
    figures = [header(flame), *(figures_of(flame, cost) for _, cost in (*named, *rest))]
    widths = [max(map(len, column)) for column in zip(*figures, strict=True)]
    room = max(LEAST_NAME, width - sum(widths) - 2 * len(widths) - 2)
    briefly = [text if len(text) <= room else text.partition(":")[0] for text, _ in rest]
    names = ["", *(in_room(frame, room) for frame, _ in named), *briefly]
    for texts, name in zip(figures, names, strict=True):
        yield (
            "  " + "  ".join(f"{text:>{wide}}" for text, wide in zip(texts, widths, strict=True)) + f"  {name}"
        ).rstrip()


def header(flame: Flame) -> tuple[str, ...]:
    """What the columns hold."""
    return ("s", "%") if flame.joules_reason is not None else ("J", "s", "W", "%")


def figures_of(flame: Flame, cost: Cost) -> tuple[str, ...]:
    """The figures of a row."""
    part, seconds = f"{share(flame, cost):.1%}".removesuffix("%"), figure(cost.seconds)
    return (seconds, part) if flame.joules_reason is not None else (figure(cost.joules), seconds, watts(cost), part)


def figure(value: float) -> str:
    """Three digits, and no more than three decimals."""
    return significant(value) if value >= 0.1 else f"{value:.3f}"


def in_room(frame: Frame, room: int) -> str:
    """The name, with its file where there is room for that; a long name without its middle."""
    name, file = short_name(frame), short_file(frame)
    if file and len(name) + len(file) + 3 <= room:
        return f"{name} ({file})"
    base = file.rpartition("/")[2]
    if file and len(name) + len(base) + 3 <= room:
        return f"{name} ({base})"
    half = (room - 3) // 2
    return name if len(name) <= room else f"{name[:half]}...{name[len(name) - (room - 3 - half) :]}"
