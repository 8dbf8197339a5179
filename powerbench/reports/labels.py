"""What the columns of tables are called, what they were measured with, and which of them must not be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from powerbench.records import SYNTHETIC, Cell, LoopCell
from powerbench.reports.entries import Entry, Machine
from powerbench.reports.grid import IN_WORDS, Column, Row, Section
from powerbench.units import enumerated

USUAL = {
    "dtype": "float32",
    "attention": "sdpa",
    "compile": False,
    "accumulation": 1,
    "optimizer": "adam",
    "weights": "random",
    "data": SYNTHETIC,
    "phases": False,
    "py_spy": False,
    "unfenced": False,
    "ranks": 1,
}
# What changes the work of a step: times across it are not of the same thing (and `compare` refuses them).
WORK = ("dtype", "accumulation", "dropout", "optimizer", "weights", "data", "phases", "py_spy", "copy", "ranks")
CALLED = {"py_spy": "py-spy", "unfenced": "waiting for the device", "compile": "compiling"}
ORDER = (
    *("torch", "threads", "dtype", "attention", "compile", "accumulation", "dropout"),
    *("optimizer", "weights", "data", "phases", "py_spy", "copy", "unfenced", "ranks"),
)


def labels_of(sections: Sequence[Section], names: dict[Machine, str]) -> dict[Column, str]:
    """A name for each column: its machine, and what tells it from others of the same machine, unless it is usual."""
    everywhere = [column for section in sections for column in section.columns]
    labels: dict[Column, str] = {}
    for column in everywhere:
        unknown = (_not_recorded(column, section.columns) for section in sections if column in section.columns)
        words = [*_telling(column, everywhere), *dict.fromkeys(chain.from_iterable(unknown))]
        vintage = [column.published] if column.published else []
        labels[column] = ", ".join([names[column.machine], *vintage, *words])
    return labels


def _telling(column: Column, columns: Sequence[Column]) -> Iterable[str]:
    same = [it for it in columns if it[:3] == column[:3]]
    for name in ORDER:
        value = column.setting(name)
        if len({it.setting(name) for it in same} - {None}) > 1 and value not in (None, USUAL.get(name)):
            yield IN_WORDS[name](value)


def _not_recorded(column: Column, columns: Sequence[Column]) -> Iterable[str]:
    """Of columns in one section, what an old run or a program of one's own does not tell and another does."""
    same = [it for it in columns if it[:3] == column[:3]]
    for name in ORDER:
        if column.setting(name) is None and any(it.setting(name) is not None for it in same):
            yield f"{CALLED.get(name, name)} not recorded"


def facts_of(label: str, columns: Sequence[Column], sections: Sequence[Section]) -> list[str]:
    """With what the columns of that label were measured, in words that are not in it already.

    Of the published ones it is the torch: their settings are all the same.
    """
    facts: list[str] = []
    told: set[str] = set()
    for name in ORDER[:1] if columns[0].published else ORDER:
        values = {column.setting(name) for column in columns} - {None}
        if name in USUAL and values <= {USUAL[name]} and not _differs(name, sections):
            continue
        found = [IN_WORDS[name](value) for value in sorted(values, key=str)] or _unknown(name, columns)
        words = [word for word in found if word and word not in label]
        facts += words
        told |= {name} if words else set()
    if any(_untold(entry, column) & told for column in columns for entry in entries_in([column], sections)):
        facts.append("not all of it recorded of every run")
    return [*facts, *_of_joules(columns, sections), *_of_publication(columns, sections)]


def described(sections: Sequence[Section], labels: dict[Column, str]) -> list[tuple[str, str]]:
    """Each label with what its columns were measured with, and how far they compare with the published or with ours."""
    of_label: dict[str, list[Column]] = {}
    for section in sections:
        for column in section.columns:
            of_label.setdefault(labels[column], []).append(column)
    told = []
    for label, columns in of_label.items():
        facts, beside = facts_of(label, columns, sections), comparability(columns, sections)
        compared = [] if beside is None else [f"comparability: {beside}"]
        told.append((label, "; ".join(filter(None, [", ".join(facts), *compared]))))
    return told


def _unknown(name: str, columns: Sequence[Column]) -> list[str]:
    return ["torch not stated"] if name == "torch" and any(column.published for column in columns) else []


def _untold(entry: Entry, column: Column) -> set[str]:
    """The settings that a program did not tell of its own loop; of the built-in one all are known."""
    is_own = entry.cell is not None and not isinstance(entry.cell, Cell)
    return {name for name in ORDER if is_own and column.setting(name) is None}


def _differs(name: str, sections: Sequence[Section]) -> bool:
    return any(len({_told_by(column.setting(name)) for column in section.columns} - {None}) > 1 for section in sections)


def _told_by(value: Any) -> Any:
    # 2.13.0+cpu and 2.13.0+cu126 are one torch, built for two devices.
    return value.partition("+")[0] if isinstance(value, str) else value


def _of_joules(columns: Sequence[Column], sections: Sequence[Section]) -> list[str]:
    entries = list(entries_in(columns, sections))
    scopes = dict.fromkeys(entry.summary.energy.scope for entry in entries if entry.summary.energy)
    facts = [f"joules of {' or of '.join(scopes)}"] if scopes else []
    return [*facts, "by Apple's estimate"] if any(entry.estimated for entry in entries) else facts


def _of_publication(columns: Sequence[Column], sections: Sequence[Section]) -> list[str]:
    watts = dict.fromkeys(entry.facts.get("peak_w") for entry in entries_in(columns, sections) if entry.published)
    return [f"{value:g} W at the peak" for value in watts if value is not None]


def entries_in(columns: Sequence[Column], sections: Sequence[Section]) -> Iterable[Entry]:
    """The runs that stand in these columns."""
    for section in sections:
        for (_, column), group in section.groups.items():
            if column in columns:
                yield from group.entries


def not_alike(sections: Sequence[Section]) -> list[str]:
    """Sentences on what differs between columns and so forbids to take their quotient for that of the machines."""
    differing = [name for name in ORDER if name != "threads" and _differs(name, sections)]
    work = [name for name in differing if name in WORK]
    software = [name for name in differing if name not in WORK]
    notes = []
    if work:
        notes.append(
            f"The columns differ in {_called(work)}, which changes what a step does: times across that difference are "
            "not to be compared."
        )
    if software:
        notes.append(f"The columns differ in {_called(software)}: what differs in their times may be that.")
    estimated = {
        entry.estimated
        for section in sections
        for entry in entries_in(section.columns, [section])
        if entry.summary.energy
    }
    if True in estimated and len(estimated) > 1:
        notes.append("Apple's estimates of joules are, by Apple's own words, not for comparing devices.")
    return [*_of_each_rank(sections), *notes]


def _of_each_rank(sections: Sequence[Section]) -> Iterable[str]:
    """What a batch in the rows is where columns are of several ranks."""
    ranks = sorted({column.setting("ranks") for section in sections for column in section.columns if section.mode})
    several = [f"{number:,}" for number in ranks if number > 1]
    if several:
        yield f"A batch is that of each rank: a step of {' or '.join(several)} ranks takes as many batches."


def _called(words: Sequence[str]) -> str:
    return enumerated([CALLED.get(word, word) for word in words])


def comparability(columns: Sequence[Column], sections: Sequence[Section]) -> str | None:
    """How far these columns, ours or published, may be held against the others where they share a cell.

    `exact`: our settings are those of the published script, wherever one has an effect. `similar`: not all of them are.
    None where there are no published ones, or none but those.
    """
    kinds = {bool(column.published) for section in sections for column in section.columns}
    if len(kinds) == 1:
        return None
    ours = [
        entry.cell
        for section in sections
        for row in _rows_of(columns, section)
        for (its_row, column), group in section.groups.items()
        if its_row == row
        and not column.published
        and (columns[0].published or column in columns)
        and (columns[0].published or _is_published(row, section))
        for entry in group.entries
        if entry.cell is not None
    ]
    if not ours:
        return "no run of ours beside it" if columns[0].published else "nothing published beside it"
    each = {", ".join(_other_than_published(cell)) for cell in ours}
    if columns[0].published:  # what differs stands with each column of ours
        return "exact" if each == {""} else "exact with some of ours" if "" in each else "similar"
    differences = [f"similar ({words})" for words in sorted(each) if words]
    return " or ".join([*(["exact"] if "" in each else []), *differences])


def _rows_of(columns: Sequence[Column], section: Section) -> set[Row]:
    return {row for row, column in section.groups if column in columns}


def _is_published(row: Row, section: Section) -> bool:
    return any(column.published for its_row, column in section.groups if its_row == row)


def _other_than_published(cell: LoopCell) -> Iterable[str]:
    """What of a cell differs from the published script: float32, no accumulation, dropout off, a blocking copy."""
    if not isinstance(cell, Cell):
        yield "a loop of its own, of which not all is known"
    if cell.dtype != "float32":
        yield f"{cell.dtype or 'unknown precision'}, theirs float32"
    if (cell.accumulation or 1) > 1:
        yield "gradients accumulated, theirs not"
    if cell.compile:
        yield "compiled, theirs not"
    if cell.mode == "training" and cell.dropout:
        yield "dropout on, theirs off"
    if cell.device != "cpu" and cell.copy not in ("blocking", None):
        yield f"{cell.copy} copy, theirs blocking"
