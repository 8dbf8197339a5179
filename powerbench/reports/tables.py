"""Several runs on the screen: a row a cell, a column a figure, and nothing in it that is the same for all."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from powerbench.reports.entries import Entry, machine_names
from powerbench.reports.figures import (
    EXTRAPOLATED,
    IN_WORDS,
    apart,
    gaps_in,
    hundred_steps,
    names_by_entry,
    notes_on,
    number,
    published_notes,
    why_no_joules,
)
from powerbench.reports.grid import (
    Column,
    Group,
    Row,
    Section,
    j_per_step,
    mean_w,
    samples_per_s,
    sections_of,
    step_ms,
    wall_100,
)
from powerbench.reports.labels import described, facts_of, labels_of, not_alike
from powerbench.reports.published import published
from powerbench.units import duration, significant

WIDTH = 78
GAP = "  "
PUBLISHED_WAY = (
    "Rounded to the second, float32, no accumulation, dropout off, the copy to the device inside the step. "
    "-: memory ran out. An empty field was not measured."
)
COMPARABILITY = "Comparability: exact where our settings are theirs, else similar. The software is never theirs."
FIGURES: dict[str, Callable[[Group], str]] = {
    "100 steps": lambda group: hundred_steps(group) or "",
    "ms a step": lambda group: number(group, step_ms),
    "samples/s": lambda group: number(group, samples_per_s),
    "J/step": lambda group: number(group, j_per_step),
    "W": lambda group: number(group, mean_w),
    "runs": lambda group: str(len(group.usable)) if len(group.usable) > 1 else "",
    "apart": apart,
}


def tables(entries: Sequence[Entry]) -> str:
    """The tables of our own runs, and below them, or alone, the published ones with ours beside them."""
    ours = [entry for entry in entries if not entry.published]
    parts = [*(_of_ours(ours) if ours else []), *(_beside_published(entries) if len(ours) < len(entries) else [])]
    return "\n".join(line.rstrip() for line in parts)


def _of_ours(entries: Sequence[Entry]) -> Iterable[str]:
    sections = sections_of(entries)
    names = labels_of(sections, machine_names(entries))
    keys = _keys(names)
    if sections:
        yield from _heading(sections, names, keys)
    for section in sections:
        yield from ("", *_titled(section, sections), *_rows(section, names, keys))
    yield from _recordings(entries)
    yield from _remarks(entries, sections, names, keys)


def _keys(labels: dict[Column, str]) -> dict[str, str]:
    """A letter for each column, where there is more than one, since their names are long."""
    different = list(dict.fromkeys(labels.values()))
    return {label: _letters(number) for number, label in enumerate(different)} if len(different) > 1 else {}


def _letters(at: int) -> str:
    """A to Z, then AA and on."""
    return chr(ord("A") + at) if at < 26 else _letters(at // 26 - 1) + _letters(at % 26)


def _heading(sections: Sequence[Section], labels: dict[Column, str], keys: dict[str, str]) -> Iterable[str]:
    """What holds for all of it, or what the letters stand for."""
    models = dict.fromkeys(section.model for section in sections)
    if len(models) == 1:
        yield from textwrap.wrap(next(iter(models)), WIDTH)
    of_label: dict[str, list[Column]] = {}
    for column, label in labels.items():
        of_label.setdefault(label, []).append(column)
    for label, columns in of_label.items():
        text = ", ".join([label, *facts_of(label, columns, sections)])
        key = f"  {keys[label]:<2} " if keys else ""
        yield from textwrap.wrap(text, WIDTH, initial_indent=key, subsequent_indent=" " * (len(key) or 2))


def _titled(section: Section, sections: Sequence[Section]) -> Iterable[str]:
    alone = len({it.model for it in sections}) == 1
    title = section.mode if alone else ", ".join(filter(None, (section.model, section.mode)))
    return textwrap.wrap(title, WIDTH)


def _rows(section: Section, labels: dict[Column, str], keys: dict[str, str]) -> Iterable[str]:
    """The table: figures to the right, the word for what has none in their place."""
    places = [(row, column) for row in section.rows for column in section.columns if (row, column) in section.groups]
    shown = [name for name in FIGURES if any(FIGURES[name](section.groups[place]) for place in places)]
    several = bool(keys)
    head = ["batch", "sequence", *(["on"] if several else []), *shown]
    body = []
    for row, column in places:
        group = section.groups[row, column]
        fields = [str(row.batch_size), str(row.sequence_length), *([keys[labels[column]]] if several else [])]
        figures = [FIGURES[name](group) for name in shown]
        body.append((fields, figures if group.usable else [IN_WORDS[group.status]]))
    widths = _widths([head, *([*fields, *figures] for fields, figures in body if len(figures) == len(shown))])
    yield _aligned(head, widths)
    for fields, figures in body:
        yield (
            _aligned([*fields, *figures], widths)
            if len(figures) == len(shown)
            else (_aligned(fields, widths) + GAP + figures[0])
        )


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def _aligned(texts: Sequence[str], widths: Sequence[int]) -> str:
    return GAP + GAP.join(text.rjust(width) for text, width in zip(texts, widths, strict=False))


def _recordings(entries: Sequence[Entry]) -> Iterable[str]:
    recordings = [entry for entry in entries if entry.cell is None]
    if not recordings:
        return
    lines = [("time", "J", "W", "run")]
    for entry in recordings:
        summary, energy = entry.summary, entry.summary.energy
        figures = (significant(energy.total_j), significant(energy.mean_w)) if energy else ("", "")
        lines.append(("" if summary.wall_s is None else duration(summary.wall_s), *figures, summary.run))
    widths = _widths([line[:3] for line in lines])
    yield from ("", "recordings of power")
    yield from (f"{_aligned(line[:3], widths)}{GAP}{line[3]}" for line in lines)


def _remarks(
    entries: Sequence[Entry], sections: Sequence[Section], labels: dict[Column, str], keys: dict[str, str]
) -> Iterable[str]:
    """What the marks mean, what is missing and why, what must not be compared, what the runs say."""
    groups = [group for section in sections for group in section.groups.values()]
    if any(group.extrapolated for group in groups):
        yield from ("", f"  {EXTRAPOLATED} extrapolated from fewer than 100 steps")
    if any(group.spread(wall_100) is not None for group in groups):
        yield from ("", "  runs: figures are their medians; apart: from the fastest to the slowest")
    gaps = []
    for gap in gaps_in(sections):
        where = ", ".join(filter(None, (_cell(gap.section, gap.row, sections), keys.get(labels[gap.column]))))
        gaps.append(f"{where}: {IN_WORDS[gap.status]}: {'; '.join(gap.reasons)}")
    yield from _listed("Not completed", gaps)
    names = names_by_entry(sections, {column: keys.get(label, "") for column, label in labels.items()})
    yield from _listed("No joules", why_no_joules(entries, names))
    yield from _listed("Notes", [*not_alike(sections), *notes_on(entries, names)])


def _cell(section: Section, row: Row, sections: Sequence[Section]) -> str:
    model = [section.model] if len({it.model for it in sections}) > 1 else []
    mode = [section.mode] if section.mode else []
    return " ".join([*model, *mode, f"batch {row.batch_size} x sequence {row.sequence_length}"])


def _listed(title: str, lines: Sequence[str]) -> Iterable[str]:
    """The lines under their title, each wrapped."""
    if lines:
        yield from ("", f"  {title}:")
    for line in lines:
        yield from textwrap.wrap(line, WIDTH, initial_indent="  - ", subsequent_indent="    ")


def _beside_published(entries: Sequence[Entry]) -> Iterable[str]:
    """Time for 100 steps, machines as columns: the published ones, and ours before them where there are any."""
    alone = all(entry.published for entry in entries)
    yield from [] if alone else ["", ""]
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
    yield from _listed(
        "Suspect among the published",
        [
            f"{labels[column]}, {_cell(section, row, sections)}: {note.removeprefix('suspect: ')}"
            for column, section, row, note in published_notes(sections)
        ],
    )
    yield from _listed("Notes", not_alike(sections))


def _folded(section: Section, labels: dict[Column, str]) -> Iterable[str]:
    """The table in as few blocks as the width allows, of about one width each, each with the cells before it."""
    cells = [["batch", "sequence"], *([str(row.batch_size), str(row.sequence_length)] for row in section.rows)]
    widths = _widths(cells)
    begin = _Block([_aligned(line, widths) for line in cells])
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
    return hundred_steps(group) or ("-" if group.entries[-1].published else IN_WORDS[group.status])


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
