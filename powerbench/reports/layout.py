"""How tables lie on the screen: columns to the right of each other, long lines folded below their beginning."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from powerbench.reports.grid import Row, Section
from powerbench.units import counted, shape

GAP = "  "


def widths_of(lines: Sequence[Sequence[str]]) -> list[int]:
    """The width of each column of a table of these lines."""
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def aligned(texts: Sequence[str], widths: Sequence[int]) -> str:
    """A line of a table, each text at the right of its column."""
    return GAP + GAP.join(text.rjust(width) for text, width in zip(texts, widths, strict=False))


def cell_in_words(section: Section, row: Row, sections: Sequence[Section]) -> str:
    """`training batch 16 x sequence 128`, with the model where there are several."""
    model = [section.model] if len({it.model for it in sections}) > 1 else []
    mode = [section.mode] if section.mode else []
    return " ".join(filter(None, [*model, *mode, in_words(row)]))


def in_words(row: Row) -> str:
    """`batch 16 x sequence 128`, and the steps where it is told from another row by them."""
    steps = None if row.steps is None else counted(row.steps, "step")
    return ", ".join(filter(None, (shape(row.batch_size, row.sequence_length), steps)))


def listed(title: str, lines: Sequence[str], width: int) -> Iterable[str]:
    """The lines under their title, each wrapped."""
    if lines:
        yield from ("", f"  {title}:")
    for line in lines:
        yield from textwrap.wrap(line, width, initial_indent="  - ", subsequent_indent="    ")
