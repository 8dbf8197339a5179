"""Machines as columns: the time of 100 steps, cell by cell, of ours and of the published tables beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from powerbench.reports.entries import Entry, machine_names
from powerbench.reports.figures import published_notes, time_in_words
from powerbench.reports.grid import Column, Row, Section, sections_of
from powerbench.reports.html.shown import TIMES
from powerbench.reports.labels import described, labels_of, not_alike
from powerbench.reports.published import published
from powerbench.units import counted


@dataclass(frozen=True)
class Side:
    """One model and mode: a column a machine, a row a batch and sequence length; None where nothing was measured."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[str | None]]]


@dataclass(frozen=True)
class SideBySide:
    """The tables, what each column was measured with, what must not be compared, and whence the published are."""

    sides: list[Side]
    columns: list[tuple[str, str]]
    notes: list[str]
    source: str | None


def side_by_side(entries: Sequence[Entry]) -> SideBySide | None:
    """The tables in which there is more than one column; None where there is none."""
    sections = [section for section in sections_of(entries) if len(section.columns) > 1]
    if not sections:
        return None
    labels = labels_of(sections, machine_names(entries))
    with_published = any(entry.published for entry in entries)
    return SideBySide(
        sides=[
            Side(
                title=", ".join(filter(None, (section.model, section.mode))),
                columns=[labels[column] for column in section.columns],
                rows=_rows(section),
            )
            for section in sections
        ],
        columns=described(sections, labels),
        notes=[*not_alike(sections), *_suspects(sections, labels)],
        source=published().url if with_published else None,
    )


def _suspects(sections: Sequence[Section], labels: dict[Column, str]) -> Iterable[str]:
    """Which published figures are hard to believe, and why."""
    for column, section, row, note in published_notes(sections):
        yield f"Suspect: {labels[column]}, {section.mode} {_shape(row)}: {note.removeprefix('suspect: ')}"


def _shape(row: Row) -> str:
    steps = "" if row.steps is None else f", {counted(row.steps, 'step')}"
    sides = (f"{side:,}" for side in (row.batch_size, row.sequence_length) if side is not None)
    return f"{TIMES.join(sides)}{steps}"


def _rows(section: Section) -> list[tuple[str, list[str | None]]]:
    return [
        (
            _shape(row),
            [
                time_in_words(group) if (group := section.groups.get((row, column))) else None
                for column in section.columns
            ],
        )
        for row in section.rows
    ]
