"""Runs as Markdown in the form of the published tables: machines as columns, cells as rows, `2m 29s` for 100 steps."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from powerbench.reports.entries import Entry, entries_of, machine_names
from powerbench.reports.figures import (
    IN_WORDS,
    apart,
    gaps_in,
    hundred_steps,
    names_by_entry,
    not_begun,
    notes_on,
    number,
    phases_in,
    published_notes,
    time_in_words,
    why_no_joules,
)
from powerbench.reports.grid import (
    Column,
    Figure,
    Group,
    Row,
    Section,
    j_per_sample,
    j_per_step,
    mean_w,
    samples_per_j,
    sections_of,
    wall_100,
)
from powerbench.reports.labels import described, labels_of, not_alike
from powerbench.reports.layout import in_words
from powerbench.reports.operators import headings, operator_rows, operators_explained
from powerbench.reports.published import published
from powerbench.rundir.load import Run
from powerbench.units import duration, significant

NAMES = {"batch": "Batch size", "seq": "Sequence length", "steps": "Steps"}
ENERGIES: dict[str, Figure] = {
    "J/step": j_per_step,
    "J/sample": j_per_sample,
    "samples/J": samples_per_j,
    "W": mean_w,
}
EXPLAINED = (
    "The tables show the time for 100 steps without the warm-up. `~`: extrapolated from fewer steps. "
    "An empty field was not measured."
)
PUBLISHED_EXPLAINED = (
    "The time for 100 steps, rounded to the second, `float32`, without gradient accumulation, dropout off, the copy to "
    "the device inside the step. `-`: memory ran out. An empty field was not measured."
)
BESIDE_EXPLAINED = (
    "Published columns carry the month of their table (<{url}>). Comparability: `exact` where our settings are "
    "theirs (float32, no accumulation, dropout off, blocking copy), else `similar`; the software is never theirs."
)


def as_markdown(runs: Sequence[Run]) -> str:
    """The tables of all runs; of the published ones alone, those tables as they were published."""
    entries = entries_of(runs)
    if all(entry.published for entry in entries):
        return "\n".join(_published_alone(entries))
    beside = [BESIDE_EXPLAINED.format(url=published().url)] if any(entry.published for entry in entries) else []
    parts = (*_models(entries), *_recordings(entries), *_operators(entries), *_notes(entries))
    return "\n".join([EXPLAINED, *beside, *parts])


def _published_alone(entries: Sequence[Entry]) -> Iterable[str]:
    yield f"From <{published().url}>. {PUBLISHED_EXPLAINED}"
    for vintage in dict.fromkeys(entry.published for entry in entries):
        own = [entry for entry in entries if entry.published == vintage]
        yield from ("", f"## Published {vintage}")
        yield from _models(own, without_vintage=True)
        yield from _suspects(sections_of(own), labels_of(sections_of(own), machine_names(own)))


def _models(entries: Sequence[Entry], *, without_vintage: bool = False) -> Iterable[str]:
    """A heading for each model, what its columns were measured with, and its tables."""
    sections = sections_of(entries)
    labels = labels_of(sections, machine_names(entries))
    if without_vintage:
        labels = {column: label.removesuffix(f", {column.published}") for column, label in labels.items()}
    for model in dict.fromkeys(section.model for section in sections):
        own = [section for section in sections if section.model == model]
        yield from ("", f"### {escaped(model)}" if own[0].is_control else f"### `{model}`", "")
        yield from (f"- {escaped(': '.join(filter(None, both)))}" for both in described(own, labels))
        for section in own:
            yield from _tables(section, labels)


def _tables(section: Section, labels: dict[Column, str]) -> Iterable[str]:
    mode = section.mode.capitalize() or ("The control" if section.is_control else "The steps")
    alone = all(column.published for column in section.columns)
    yield from ("", f"**{mode}**:", "")
    yield from table(section, labels, _published_time if alone else _time)
    for name, figure in ENERGIES.items():
        known = section.with_figure(figure)
        if known.groups:
            yield from ("", f"**{mode}, {name}**:", "")
            yield from table(known, labels, partial(_number, figure=figure))


def table(section: Section, labels: dict[Column, str], field: Callable[[Group], str]) -> Iterable[str]:
    """A table in columns of one width each, so that it reads as text too."""
    head = [*(NAMES[name] for name in section.names), *(escaped(labels[column]) for column in section.columns)]
    body = [
        section.fields(row)
        + [field(found) if (found := section.groups.get((row, column))) else "" for column in section.columns]
        for row in section.rows
    ]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    for line in (head, ["-" * width for width in widths], *body):
        yield f"| {' | '.join(text.ljust(width) for text, width in zip(line, widths, strict=True))} |"


def _published_time(group: Group) -> str:
    return hundred_steps(group) or "-"


def _time(group: Group) -> str:
    return time_in_words(group, repeats=_repeats(group))


def _number(group: Group, *, figure: Figure) -> str:
    text = number(group, figure)
    return f"{text}{_repeats(group, figure)}" if text else ""


def _repeats(group: Group, figure: Figure = wall_100) -> str:
    """` (3 runs, 2.1% apart)`: of how many a figure is the median, and how far they lie apart; nothing for one run."""
    runs, spread = len(group.usable), apart(group, figure)
    return f" ({runs} runs, {spread} apart)" if runs > 1 and spread else ""


def _notes(entries: Sequence[Entry]) -> Iterable[str]:
    """What is missing and why, what must not be compared, and what the runs themselves say."""
    sections = sections_of(entries)
    labels = labels_of(sections, machine_names(entries))
    gaps = [
        f"{escaped(labels[gap.column])}, {_cell(gap.section, gap.row)}: {IN_WORDS[gap.status]}: "
        f"{escaped('; '.join(gap.reasons))}"
        for gap in gaps_in(sections)
    ]
    yield from _list(
        "Phases of a step",
        [
            f"{escaped(labels[column])}, {_cell(section, row)}: {text}"
            for column, section, row, text in phases_in(sections)
        ],
    )
    yield from _list("Not completed", [*gaps, *not_begun(entries)])
    names = names_by_entry(sections, labels)
    yield from _list("No joules", map(escaped, why_no_joules(entries, names)))
    yield from _suspects(sections, labels)
    yield from _list("Notes", map(escaped, [*not_alike(sections), *notes_on(entries, names)]))


def _suspects(sections: Sequence[Section], labels: dict[Column, str]) -> Iterable[str]:
    yield from _list(
        "Suspect among the published",
        [
            f"{escaped(labels[column])}, {_cell(section, row)}: {escaped(note.removeprefix('suspect: '))}"
            for column, section, row, note in published_notes(sections)
        ],
    )


def _cell(section: Section, row: Row) -> str:
    return f"{escaped(section.model)} {section.mode}, {in_words(row)}".replace(" ,", ",")


def _list(title: str, lines: Iterable[str]) -> Iterable[str]:
    found = [f"- {line}" for line in lines]
    if found:
        yield from ("", f"**{title}**:", "", *found)


def _recordings(entries: Sequence[Entry]) -> Iterable[str]:
    """A table of what was recorded of power alone, where there is any."""
    recordings = [entry for entry in entries if entry.cell is None]
    if not recordings:
        return
    yield from ("", "### Recordings of power", "", "| Recording | Time | J | W |", "| --- | --- | --- | --- |")
    for entry in recordings:
        summary, energy = entry.summary, entry.summary.energy
        time = "" if summary.wall_s is None else duration(summary.wall_s)
        joules, watts = (significant(energy.total_j), significant(energy.mean_w)) if energy else ("", "")
        yield f"| {escaped(summary.run)} | {time} | {joules} | {watts} |"


def _operators(entries: Sequence[Entry]) -> Iterable[str]:
    """A table of the operators of each run that was profiled for them."""
    profiled = [(entry.summary.run, found) for entry in entries if (found := entry.summary.operators) is not None]
    for run, operators in profiled:
        yield from ("", f"### Operators of a step{f', {escaped(run)}' if len(profiled) > 1 else ''}", "")
        yield from (escaped(operators_explained(operators)), "")
        head, body = headings(operators), operator_rows(operators)
        shown = [at for at, heading in enumerate(head) if heading]
        yield _line([head[at].capitalize() if at == 0 else head[at] for at in shown])
        yield _line(["---" if at == 0 else "---:" for at in shown])
        yield from (_line([escaped(row[at]) for at in shown]) for row in body)


def _line(fields: Iterable[str]) -> str:
    return f"| {' | '.join(fields)} |"


def escaped(text: str) -> str:
    """`text` as Markdown shows it: nothing in it is a table's edge, an emphasis, a link or HTML."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))
