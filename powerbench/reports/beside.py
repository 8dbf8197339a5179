"""The published tables on the screen, machines as columns and ours among them, folded to the width of a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from powerbench.reports.entries import Entry, machine_names
from powerbench.reports.figures import hundred_steps, published_notes, word_for
from powerbench.reports.grid import Column, Group, Section, sections_of
from powerbench.reports.labels import described, labels_of, not_alike
from powerbench.reports.layout import GAP, WIDTH, aligned, cell_in_words, listed, widths_of
from powerbench.reports.published import published

PUBLISHED_WAY = (
    "Rounded to the second, float32, no accumulation, dropout off, the copy to the device inside the step. "
    "-: memory ran out. An empty field was not measured."
)
COMPARABILITY = "Comparability: exact where our settings are theirs, else similar. The software is never theirs."


def beside_published(entries: Sequence[Entry]) -> Iterable[str]:
    """Time for 100 steps, machines as columns: the published ones, and ours before them where there are any."""
    alone = all(entry.published for entry in entries)
    yield f"Published times for 100 steps{'' if alone else ', and ours beside them'}"
    yield f"  {published().url}"
    yield from textwrap.wrap(PUBLISHED_WAY, WIDTH, initial_indent="  ", subsequent_indent="  ")
    if not alone:
        yield from textwrap.wrap(COMPARABILITY, WIDTH, initial_indent="  ", subsequent_indent="  ")
        yield from _machines_as_columns(entries)
        return
    for vintage in dict.fromkeys(entry.published for entry in entries):
        yield from ("", f"Published {vintage}")
        yield from _machines_as_columns([entry for entry in entries if entry.published == vintage])


def _machines_as_columns(entries: Sequence[Entry]) -> Iterable[str]:
    sections = [it for it in sections_of(entries) if any(column.published for column in it.columns)]
    labels = labels_of(sections, machine_names(entries))
    if all(entry.published for entry in entries):
        labels = {column: label.removesuffix(f", {column.published}") for column, label in labels.items()}
    for section in sections:
        yield from ("", f"{section.model}, {section.mode}")
        yield from _folded(section, labels)
    yield ""
    for both in described(sections, labels):
        yield from textwrap.wrap(": ".join(filter(None, both)), WIDTH, initial_indent="  ", subsequent_indent="    ")
    yield from listed(
        "Suspect among the published",
        [
            f"{labels[column]}, {cell_in_words(section, row, sections)}: {note.removeprefix('suspect: ')}"
            for column, section, row, note in published_notes(sections)
        ],
    )
    yield from listed("Notes", not_alike(sections))


def _folded(section: Section, labels: dict[Column, str]) -> Iterable[str]:
    """The table in as few blocks as the width allows, of about one width each, each with the cells before it."""
    cells = [["batch", "seq"], *([str(row.batch_size), str(row.sequence_length)] for row in section.rows)]
    widths = widths_of(cells)
    begin = _Block([aligned(line, widths) for line in cells])
    columns = [
        (labels[column], [_time(section.groups.get((row, column))) for row in section.rows])
        for column in section.columns
    ]
    for at, block in enumerate(_of_like_widths(begin, columns)):
        yield from [""] if at else []
        yield from block.lines()


def _of_like_widths(begin: _Block, columns: Sequence[tuple[str, list[str]]]) -> list[_Block]:
    """As few blocks as can be, with about as many columns each: else the last would be left with one."""
    fewest = len(_blocks(begin, columns, most=len(columns)))
    for most in range(-(-len(columns) // fewest), len(columns)):
        if len(blocks := _blocks(begin, columns, most=most)) == fewest:
            return blocks
    return _blocks(begin, columns, most=len(columns))


def _blocks(begin: _Block, columns: Sequence[tuple[str, list[str]]], *, most: int) -> list[_Block]:
    """Blocks of at most so many columns, none wider than the screen unless one column is."""
    blocks = [begin]
    for label, fields in columns:
        more = blocks[-1].with_column(label, fields)
        if blocks[-1].heads and (more.width > WIDTH or len(more.heads) > most):
            blocks.append(begin.with_column(label, fields))
        else:
            blocks[-1] = more
    return blocks


def _time(group: Group | None) -> str:
    if group is None:
        return ""
    return hundred_steps(group) or ("-" if group.entries[-1].published else word_for(group))


@dataclass(frozen=True)
class _Block:
    """Lines that grow to the right: a head of several lines, each column's words below each other, and a body."""

    body: list[str]
    heads: list[list[str]] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)

    @property
    def width(self) -> int:
        return len(self.body[0])

    def with_column(self, label: str, fields: Sequence[str]) -> _Block:
        width = max(map(len, [*label.split(), *fields]))
        head = textwrap.wrap(label, width, break_on_hyphens=False)
        body = [f"{line}{GAP}{text.rjust(width)}" for line, text in zip(self.body, ["", *fields], strict=True)]
        return _Block(body, [*self.heads, head], [*self.widths, width])

    def lines(self) -> Iterable[str]:
        height = max(map(len, self.heads))
        first = self.body[0][: self.width - sum(self.widths) - len(GAP) * len(self.widths)]
        for at in range(height):
            words = [head[at - height + len(head)] if at >= height - len(head) else "" for head in self.heads]
            start = first if at == height - 1 else " " * len(first)
            yield start + "".join(f"{GAP}{word.rjust(width)}" for word, width in zip(words, self.widths, strict=True))
        yield from self.body[1:]
