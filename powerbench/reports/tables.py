"""Several runs on the screen: a row a cell, a column a figure, and nothing in it that is the same for all."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence

from powerbench.reports.beside import beside_published
from powerbench.reports.entries import Entry, machine_names
from powerbench.reports.figures import (
    EXTRAPOLATED,
    IN_WORDS,
    UNFINISHED,
    apart,
    gaps_in,
    names_by_entry,
    not_begun,
    notes_on,
    number,
    phases_in,
    time_in_brief,
    why_no_joules,
    word_for,
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
from powerbench.reports.labels import facts_of, labels_of, not_alike
from powerbench.reports.layout import GAP, aligned, cell_in_words, listed, widths_of
from powerbench.units import duration, significant

FIGURES: dict[str, Callable[[Group], str]] = {
    "100 steps": time_in_brief,
    "ms/step": lambda group: number(group, step_ms),
    "samples/s": lambda group: number(group, samples_per_s),
    "J/step": lambda group: number(group, j_per_step),
    "W": lambda group: number(group, mean_w),
    "runs": lambda group: str(len(group.usable)) if len(group.usable) > 1 else "",
    "apart": apart,
}


def tables(entries: Sequence[Entry], width: int) -> str:
    """The tables of our own runs, and below them, or alone, the published ones with ours beside them."""
    ours = [entry for entry in entries if not entry.published]
    lines = list(_of_ours(ours, width)) if ours else []
    if len(ours) < len(entries):
        lines += ["", "", *beside_published(entries, width)] if ours else beside_published(entries, width)
    return "\n".join(line.rstrip() for line in lines)


def _of_ours(entries: Sequence[Entry], width: int) -> Iterable[str]:
    sections = sections_of(entries)
    names = labels_of(sections, machine_names(entries))
    keys = _keys(names)
    if sections:
        yield from textwrap.wrap(_model(sections), width)
        yield from _columns(sections, names, keys, width)
    for section in sections:
        yield from ("", *textwrap.wrap(_titled(section, sections), width), *_rows(section, names, keys))
    if sections and any(entry.cell is None for entry in entries):
        yield ""
    yield from _recordings(entries)
    yield from _remarks(entries, sections, names, keys, width)


def _keys(labels: dict[Column, str]) -> dict[str, str]:
    """A letter for each column, where there is more than one, since their names are long."""
    different = list(dict.fromkeys(labels.values()))
    return {label: _letters(number) for number, label in enumerate(different)} if len(different) > 1 else {}


def _letters(at: int) -> str:
    """A to Z, then AA and on."""
    return chr(ord("A") + at) if at < 26 else _letters(at // 26 - 1) + _letters(at % 26)


def _model(sections: Sequence[Section]) -> str:
    """The model, where it is one for all of it."""
    models = list(dict.fromkeys(section.model for section in sections))
    return models[0] if len(models) == 1 else ""


def _columns(sections: Sequence[Section], labels: dict[Column, str], keys: dict[str, str], width: int) -> Iterable[str]:
    """What was measured with what, or what the letters stand for."""
    of_label: dict[str, list[Column]] = {}
    for column, label in labels.items():
        of_label.setdefault(label, []).append(column)
    for label, columns in of_label.items():
        text = ", ".join([label, *facts_of(label, columns, sections)])
        key = f"  {keys[label]:<2} " if keys else ""
        yield from textwrap.wrap(text, width, initial_indent=key, subsequent_indent=" " * (len(key) or 2))


def _titled(section: Section, sections: Sequence[Section]) -> str:
    alone = len({it.model for it in sections}) == 1
    return section.mode if alone else ", ".join(filter(None, (section.model, section.mode)))


def _rows(section: Section, labels: dict[Column, str], keys: dict[str, str]) -> Iterable[str]:
    """The table: figures to the right, the word for what has none in their place."""
    places = [(row, column) for row in section.rows for column in section.columns if (row, column) in section.groups]
    shown = [name for name in FIGURES if any(FIGURES[name](section.groups[place]) for place in places)]
    several = bool(keys)
    head = [*section.names, *(["on"] if several else []), *shown]
    body = []
    for row, column in places:
        group = section.groups[row, column]
        fields = [*section.fields(row), *([keys[labels[column]]] if several else [])]
        figures = [FIGURES[name](group) for name in shown]
        body.append((fields, figures if group.usable else [word_for(group)]))
    none = [""] * len(shown)
    widths = widths_of(
        [head, *([*fields, *(figures if len(figures) == len(shown) else none)] for fields, figures in body)]
    )
    yield aligned(head, widths)
    for fields, figures in body:
        yield (
            aligned([*fields, *figures], widths)
            if len(figures) == len(shown)
            else (aligned(fields, widths) + GAP + figures[0])
        )


def _recordings(entries: Sequence[Entry]) -> Iterable[str]:
    recordings = [entry for entry in entries if entry.cell is None]
    if not recordings:
        return
    lines = [("time", "J", "W", "run")]
    for entry in recordings:
        summary, energy = entry.summary, entry.summary.energy
        figures = (significant(energy.total_j), significant(energy.mean_w)) if energy else ("", "")
        lines.append(("" if summary.wall_s is None else duration(summary.wall_s), *figures, summary.run))
    widths = widths_of([line[:3] for line in lines])
    yield "recordings of power"
    yield from (f"{aligned(line[:3], widths)}{GAP}{line[3]}" for line in lines)


def _remarks(
    entries: Sequence[Entry], sections: Sequence[Section], labels: dict[Column, str], keys: dict[str, str], width: int
) -> Iterable[str]:
    """What the marks mean, what is missing and why, what must not be compared, what the runs say."""
    groups = [group for section in sections for group in section.groups.values()]
    marks = []
    if any(group.extrapolated for group in groups):
        marks.append(f"{EXTRAPOLATED}: extrapolated from fewer than 100 steps")
    if any(group.usable and group.status != "complete" for group in groups):
        marks.append(f"{UNFINISHED}: of a run that did not complete, see below")
    if any(group.spread(wall_100) is not None for group in groups):
        marks.append("runs: the figures are their medians; apart: from the fastest to the slowest")
    if marks:
        yield ""
    for mark in marks:
        yield from textwrap.wrap(mark, width, initial_indent="  ", subsequent_indent="    ")

    def where(section: Section, row: Row, column: Column) -> str:
        return ", ".join(filter(None, (cell_in_words(section, row, sections), keys.get(labels[column]))))

    phases = [f"{where(section, row, column)}: {text}" for column, section, row, text in phases_in(sections)]
    yield from listed("Phases of a step", phases, width)
    gaps = [
        f"{where(gap.section, gap.row, gap.column)}: {IN_WORDS[gap.status]}: {'; '.join(gap.reasons)}"
        for gap in gaps_in(sections)
    ]
    yield from listed("Not completed", [*gaps, *not_begun(entries)], width)
    names = names_by_entry(sections, {column: keys.get(label, "") for column, label in labels.items()})
    yield from listed("No joules", why_no_joules(entries, names), width)
    yield from listed("Notes", [*not_alike(sections), *notes_on(entries, names)], width)
