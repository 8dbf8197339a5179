"""The words and figures of a table's fields, the same in every form of table."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from powerbench.records import IN_WORDS as IN_WORDS
from powerbench.records import Status
from powerbench.reports.entries import Entry
from powerbench.reports.grid import Column, Figure, Group, Row, Section, phase_j, phase_ms, wall_100
from powerbench.rundir.many import NOT_BEGUN
from powerbench.units import counted, duration, significant, whole_seconds

EXTRAPOLATED = "~"
UNFINISHED = "*"
# Below this, tenths matter, and our own times have them; the published ones are whole seconds.
SHORT_S = 9.995
MOST_NOTES = 8
FEW_LABELS = 3
LONGEST_REASON = 240
NO_REASON = "no step was measured to its end, and no reason was recorded"


def word_for(group: Group) -> str:
    """Why a cell has no figure, in a word or three."""
    begun = [entry for entry in group.entries if not is_not_begun(entry)]
    return IN_WORDS[begun[-1].summary.status] if begun else "not begun"


def hundred_steps(group: Group) -> str | None:
    """`2m 29s`, `~2m 29s` where fewer than a hundred steps were measured; None where there is no figure."""
    seconds = group.median(wall_100)
    if seconds is None:
        return None
    is_whole = all(entry.published for entry in group.entries)
    return f"{EXTRAPOLATED if group.extrapolated else ''}{whole_seconds(seconds) if is_whole else table_time(seconds)}"


def table_time(seconds: float) -> str:
    """The time of a hundred steps as the published tables write it, but tenths and less where those matter."""
    return whole_seconds(seconds) if seconds >= SHORT_S else duration(seconds)


def time_in_words(group: Group, *, repeats: str = "") -> str:
    """`~2m 29s (out of time)`: with how it ended where that was not its end, or the word for what has no figure.

    `repeats` is said between the two.
    """
    figure = hundred_steps(group)
    if figure is None:
        return word_for(group)
    return f"{figure}{repeats}" if group.status == "complete" else f"{figure}{repeats} ({IN_WORDS[group.status]})"


def time_in_brief(group: Group) -> str:
    """`~2m 29s*`: marked where the run did not come to its end; empty where there is no figure."""
    figure = hundred_steps(group)
    return "" if figure is None else figure if group.status == "complete" else f"{figure}{UNFINISHED}"


def number(group: Group, figure: Figure) -> str:
    """A figure with three digits; empty where there is none."""
    value = group.median(figure)
    return "" if value is None else significant(value)


def apart(group: Group, figure: Figure = wall_100) -> str:
    """`2.1%`: how far repeats lie apart; empty for a single run."""
    spread = group.spread(figure)
    return "" if spread is None else f"{spread:.1%}"


@dataclass(frozen=True)
class Gap:
    """A cell that has no figure, or one from a run that was not completed, and why."""

    section: Section
    row: Row
    column: Column
    status: Status
    reasons: list[str]
    has_figure: bool


def gaps_in(sections: Iterable[Section]) -> list[Gap]:
    """Every run of steps that did not come to its end, by cell, unless its word says it all."""
    gaps = []
    for section in sections:
        for (row, column), group in sorted(section.groups.items(), key=lambda it: section.rows.index(it[0][0])):
            usable = group.usable
            ended = [
                it.summary
                for it in group.entries
                if (it.summary.status != "complete" or it not in usable) and not is_not_begun(it)
            ]
            if column.published or not ended:
                continue
            reasons = list(dict.fromkeys(_shortened(it.reason or NO_REASON) for it in ended))
            gaps.append(Gap(section, row, column, ended[-1].status, reasons, bool(group.usable)))
    return gaps


def phases_in(sections: Iterable[Section]) -> list[tuple[Column, Section, Row, str]]:
    """What each phase of a step takes, of the cells that were measured for it: the medians over their runs."""
    told = []
    for section in sections:
        for (row, column), group in sorted(section.groups.items(), key=lambda it: section.rows.index(it[0][0])):
            names = dict.fromkeys(name for entry in group.usable for name in entry.summary.phases or ())
            if names:
                told.append((column, section, row, ", ".join(_phase_in_words(group, name) for name in names)))
    return told


def _phase_in_words(group: Group, name: str) -> str:
    time = number(group, partial(phase_ms, name=name))
    joules = number(group, partial(phase_j, name=name))
    return f"{name} {time} ms{f' ({joules} J)' if joules else ''}"


def not_begun(entries: Iterable[Entry]) -> list[str]:
    """How many measurements of a sweep were not begun, and how to go on; nothing where all were."""
    count = sum(map(is_not_begun, entries))
    told = f"{counted(count, 'measurement')} not begun: the same sweep with --resume goes on."
    return [told] if count else []


def is_not_begun(entry: Entry) -> bool:
    """Whether it is asked for by a sweep and nothing of it was measured yet."""
    return entry.summary.reason == NOT_BEGUN


def _shortened(reason: str) -> str:
    return textwrap.shorten(reason, LONGEST_REASON, placeholder=" ...")


def why_no_joules(entries: Sequence[Entry], names: Mapping[int, str]) -> list[str]:
    """The reasons for which runs with figures, and recordings, have no joules; each with how many runs, and whose."""
    measured = [it for it in entries if it.published is None and (it.summary.latency_ms or it.cell is None)]
    of_reason: dict[str, list[Entry]] = {}
    for entry in measured:
        if entry.summary.energy is None and entry.summary.energy_reason:
            of_reason.setdefault(entry.summary.energy_reason, []).append(entry)
    return [
        f"{reason}{_of_which(found, measured, names)}"
        for reason, found in sorted(of_reason.items(), key=lambda it: -len(it[1]))
    ]


def notes_on(entries: Sequence[Entry], names: Mapping[int, str]) -> list[str]:
    """What the runs' own notes say, each once; notes that differ in their numbers alone are told by the first of them.

    `names` are the labels by the `id` of an entry. That a figure is extrapolated is left out: it is marked.
    """
    ours = [entry for entry in entries if entry.published is None and not is_not_begun(entry)]
    of_shape: dict[str, list[tuple[str, Entry]]] = {}
    for entry in ours:
        for note in entry.summary.notes:
            if not note.startswith("The time for 100 steps is extrapolated"):
                of_shape.setdefault(re.sub(r"\d[\d.,]*", "0", note), []).append((note, entry))
    told = [
        f"{found[0][0]}{_of_which([entry for _, entry in found], ours, names)}"
        for found in sorted(of_shape.values(), key=len, reverse=True)
    ]
    if len(told) > MOST_NOTES:
        rest = len(told) - MOST_NOTES + 1
        told[MOST_NOTES - 1 :] = [f"{counted(rest, 'more note')}: `powerbench report RUN` shows those of a run."]
    return told


def _of_which(found: Sequence[Entry], entries: Sequence[Entry], names: Mapping[int, str]) -> str:
    """` (2 of 14 runs, those of D)`; nothing where it is all of them."""
    if len(found) == len(entries):
        return ""
    labels = list(dict.fromkeys(name for entry in found if (name := names.get(id(entry)))))
    whose = f", those of {', '.join(labels)}" if 0 < len(labels) <= FEW_LABELS else ""
    return f" ({len(found):,} of {counted(len(entries), 'run')}{whose})"


def names_by_entry(sections: Iterable[Section], names: Mapping[Column, str]) -> dict[int, str]:
    """What the column of an entry is called, by the entry's `id`; nothing where all stand in one."""
    if len(set(names.values())) < 2:
        return {}
    return {
        id(entry): names[column]
        for section in sections
        for (_, column), group in section.groups.items()
        for entry in group.entries
    }


def published_notes(sections: Iterable[Section]) -> list[tuple[Column, Section, Row, str]]:
    """The notes of published cells."""
    return [
        (column, section, row, note)
        for section in sections
        for (row, column), group in section.groups.items()
        for entry in group.entries
        if entry.published
        for note in entry.summary.notes
        if note.startswith("suspect")
    ]
