"""Runs in the order of a table: a section a model and mode, machines and settings as columns, cells as rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

from powerbench.analysis.notes import TABLE_STEPS
from powerbench.records import SYNTHETIC, Status
from powerbench.reports.cells import data_of, optimizer_of
from powerbench.reports.entries import Entry, Machine
from powerbench.units import counted, significant

# What a run that ended so has measured is what its steps cost; what is left of one that ran out of memory is not.
TOLD_BY_ITS_STEPS: tuple[Status, ...] = ("timeout", "interrupted", "running")
PHASES = ("data", "copy", "forward", "backward", "optimizer")
"""All that a step may have, in their order (records.phases_of)."""
MODES = ("training", "inference", "")

Figure = Callable[[Entry], float | None]


class Column(NamedTuple):
    """Whose figures stand below each other: one device, and one way to measure it (names and values of SETTINGS)."""

    machine: Machine
    device: str
    published: str | None
    settings: tuple[tuple[str, Any], ...]

    def setting(self, name: str) -> Any:
        """The value of a setting; None where it was not recorded or has no meaning here."""
        return dict(self.settings)[name]


class Row(NamedTuple):
    """A cell of a section, in the order of the published tables.

    `steps` are those asked for, where it was measured in one column with several numbers of them: that is no repeat.
    None where it was not. Of a program's own loop, any may be unknown, and None.
    """

    sequence_length: int | None
    batch_size: int | None
    steps: int | None = None


def _of_model(name: str) -> Callable[[Entry], Any]:
    return lambda entry: getattr(entry.cell, name) if entry.cell and entry.cell.model != "sleep" else None


def _not_published(name: str) -> Callable[[Entry], Any]:
    """Of a setting on which the published tables are silent."""
    of_model = _of_model(name)
    return lambda entry: None if entry.published else of_model(entry)


def _of_training(name: str) -> Callable[[Entry], Any]:
    of_model = _of_model(name)
    return lambda entry: of_model(entry) if entry.cell and entry.cell.mode == "training" else None


def _off_the_cpu(name: str) -> Callable[[Entry], Any]:
    of_model = _of_model(name)
    return lambda entry: of_model(entry) if entry.cell and entry.cell.device != "cpu" else None


def is_unfenced(entry: Entry) -> bool:
    """Whether nothing told the steps apart: not waited for, and no events on the device."""
    cell, latency = entry.cell, entry.summary.latency_ms
    return cell is not None and cell.sync_every == 0 and latency is not None and latency.median is None


SETTINGS: dict[str, Callable[[Entry], Any]] = {
    "torch": lambda entry: entry.facts.get("torch") if entry.cell and entry.cell.model != "sleep" else None,
    "threads": lambda entry: entry.facts.get("threads") if entry.summary.device == "cpu" else None,
    "dtype": _of_model("dtype"),
    "attention": _not_published("attention"),
    "compile": _of_model("compile"),
    "accumulation": _of_training("accumulation"),
    "dropout": _of_training("dropout"),
    "optimizer": lambda entry: optimizer_of(entry.cell) if entry.cell and _of_training("optimizer")(entry) else None,
    "weights": _not_published("weights"),
    "data": lambda entry: data_of(entry.cell) if entry.cell and _not_published("dataset")(entry) else None,
    "phases": _not_published("phases"),
    "py_spy": _not_published("py_spy"),
    "copy": _off_the_cpu("copy"),
    "unfenced": is_unfenced,
    "ranks": lambda entry: entry.ranks,
}


def _batches_in_words(batches: int | None) -> str:
    return "" if batches is None else "1 batch a step" if batches == 1 else f"{batches} batches a step"


def _threads_in_words(threads: int | None) -> str:
    return "" if threads is None else counted(threads, "thread")


IN_WORDS: dict[str, Callable[[Any], str]] = {
    "torch": lambda version: "torch not recorded" if version is None else f"torch {version}",
    "threads": _threads_in_words,
    "dtype": lambda dtype: dtype or "",
    "attention": lambda kind: "" if kind is None else f"{kind} attention",
    "compile": lambda compiled: "" if compiled is None else "compiled" if compiled else "not compiled",
    "accumulation": lambda batches: (
        "" if batches is None else f"{counted(batches, 'batch').replace('hs', 'hes')} a step"
    ),
    "dropout": lambda dropout: "" if dropout is None else "dropout on" if dropout else "dropout off",
    "optimizer": lambda optimizer: optimizer or "",
    "weights": lambda weights: "" if weights is None else f"{weights} weights",
    "data": lambda data: "" if data is None else "synthetic data" if data == SYNTHETIC else data,
    "phases": lambda phases: "stopped after each phase" if phases else "",
    "py_spy": lambda py_spy: "stopped by py-spy" if py_spy else "",
    "copy": lambda copy: "" if copy is None else f"{copy} copy",
    "unfenced": lambda unfenced: "not waited for" if unfenced else "waited for",
    "ranks": lambda ranks: counted(ranks, "rank"),
}


@dataclass(frozen=True)
class Group:
    """The runs of one cell in one column: a single one, or repeats."""

    entries: list[Entry] = field(default_factory=list)

    @property
    def usable(self) -> list[Entry]:
        """Those whose steps say what a step costs: complete ones, or else such as were ended early."""
        with_steps = [entry for entry in self.entries if entry.summary.wall_s_100_steps is not None]
        complete = [entry for entry in with_steps if entry.summary.status == "complete"]
        return complete or [entry for entry in with_steps if entry.summary.status in TOLD_BY_ITS_STEPS]

    def median(self, figure: Figure) -> float | None:
        """The median of a figure over the usable runs that have it; None where none has."""
        known = [value for entry in self.usable if (value := figure(entry)) is not None]
        return median(known) if known else None

    def range(self, figure: Figure) -> tuple[float, float] | None:
        """The least and the largest of it; None where fewer than two runs have it."""
        known = [value for entry in self.usable if (value := figure(entry)) is not None]
        return (min(known), max(known)) if len(known) > 1 else None

    def spread(self, figure: Figure) -> float | None:
        """How far the largest is from the least, as a share of the median; None where fewer than two runs have it."""
        ends, middle = self.range(figure), self.median(figure)
        return None if ends is None or not middle else (ends[1] - ends[0]) / middle

    @property
    def extrapolated(self) -> bool:
        """Whether fewer steps than the tables' hundred were measured in one of them."""
        return any((entry.summary.steps or 0) < TABLE_STEPS for entry in self.usable)

    @property
    def status(self) -> Status:
        """How it ended: as its figures did, or where it has none, as its last run did."""
        return (self.usable or self.entries)[-1].summary.status


@dataclass(frozen=True)
class Section:
    """The cells of one model and mode. `groups` holds what was measured; a pair that is not in it was not."""

    model: str
    mode: str
    columns: list[Column]
    rows: list[Row]
    groups: dict[tuple[Row, Column], Group]

    @property
    def is_control(self) -> bool:
        """Whether its steps are made of nothing but rest."""
        return self.model.startswith("sleep, ")

    @property
    def names(self) -> list[str]:
        """What the fields of a row are: `batch`, `seq`, and `steps` where some rows are told apart by them."""
        return ["batch", "seq", *(["steps"] if any(row.steps is not None for row in self.rows) else [])]

    def fields(self, row: Row) -> list[str]:
        """The row in as many fields."""
        steps = "" if row.steps is None else f"{row.steps:,}"
        sides = ["" if side is None else f"{side:,}" for side in (row.batch_size, row.sequence_length)]
        return [*sides, steps][: len(self.names)]

    def with_figure(self, figure: Figure) -> Section:
        """The rows and columns in which there is such a figure."""
        known = {place: group for place, group in self.groups.items() if group.median(figure) is not None}
        columns = [column for column in self.columns if any(it == column for _, it in known)]
        return Section(self.model, self.mode, columns, _in_order(known), known)


def wall_100(entry: Entry) -> float | None:
    """Seconds for the tables' hundred steps."""
    return entry.summary.wall_s_100_steps


def step_ms(entry: Entry) -> float | None:
    """Milliseconds a step, on average."""
    return entry.summary.latency_ms.mean if entry.summary.latency_ms else None


def samples_per_s(entry: Entry) -> float | None:
    """Throughput; None for the control, which has no samples."""
    return entry.summary.samples_per_s if entry.cell and entry.cell.model != "sleep" else None


def j_per_step(entry: Entry) -> float | None:
    """Gross joules a step."""
    return entry.summary.energy.j_per_step if entry.summary.energy else None


def j_per_sample(entry: Entry) -> float | None:
    """Gross joules a sample."""
    return entry.summary.energy.j_per_sample if entry.summary.energy else None


def samples_per_j(entry: Entry) -> float | None:
    """How many samples a joule pays for."""
    joules = j_per_sample(entry)
    return 1 / joules if joules else None


def mean_w(entry: Entry) -> float | None:
    """Mean power of the counted rails."""
    return entry.summary.energy.mean_w if entry.summary.energy else None


def phase_ms(entry: Entry, *, name: str) -> float | None:
    """Milliseconds of a phase of a step; None where it was not measured."""
    phase = (entry.summary.phases or {}).get(name)
    return phase.ms if phase else None


def phase_j(entry: Entry, *, name: str) -> float | None:
    """Joules of a phase of a step."""
    phase = (entry.summary.phases or {}).get(name)
    return phase.j if phase else None


def sections_of(entries: Iterable[Entry]) -> list[Section]:
    """The sections of all runs of steps: models as they come, training before inference; recordings are left out."""
    of_section: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        if entry.cell is not None:
            of_section.setdefault(_title(entry), []).append(entry)
    models = list(dict.fromkeys(model for model, _ in of_section))
    ordered = sorted(of_section, key=lambda title: (models.index(title[0]), MODES.index(title[1])))
    return [_section(model, mode, of_section[model, mode]) for model, mode in ordered]


def _title(entry: Entry) -> tuple[str, str]:
    cell = entry.cell
    assert cell is not None
    if cell.model == "sleep":
        return f"sleep, {significant(cell.sleep_ms or 0.0)} ms a step (the control)", ""
    return cell.model, cell.mode or ""


def _section(model: str, mode: str, entries: Sequence[Entry]) -> Section:
    groups: dict[tuple[Row, Column], Group] = {}
    of_entry = _columns(entries)
    for entry, row, column in zip(entries, _rows(entries, of_entry), of_entry, strict=True):
        groups.setdefault((row, column), Group()).entries.append(entry)
    columns = list(dict.fromkeys(of_entry))
    return Section(model, mode, columns, _in_order(groups), groups)


def _in_order(places: Iterable[tuple[Row, Column]]) -> list[Row]:
    return sorted(
        {row for row, _ in places}, key=lambda row: (row.sequence_length or 0, row.batch_size or 0, row.steps or 0)
    )


def _rows(entries: Sequence[Entry], columns: Sequence[Column]) -> list[Row]:
    """The row of each run."""
    cells = [entry.cell for entry in entries if entry.cell is not None]
    plain = [Row(cell.sequence_length, cell.batch_size) for cell in cells]
    steps: dict[tuple[Row, Column], set[int | None]] = {}
    for row, column, cell in zip(plain, columns, cells, strict=True):
        steps.setdefault((row, column), set()).add(cell.steps)
    with_several = {row for (row, _), its in steps.items() if len(its) > 1}
    return [
        row._replace(steps=cell.steps) if row in with_several else row for row, cell in zip(plain, cells, strict=True)
    ]


def _columns(entries: Sequence[Entry]) -> list[Column]:
    """The column of each run; one that ended before all was known of it stands in the first that it may belong to."""
    own = [_column(entry) for entry in entries]
    known = list(dict.fromkeys(column for entry, column in zip(entries, own, strict=True) if entry.summary.latency_ms))
    return [column if column in known else next((it for it in known if _may_be(column, it)), column) for column in own]


def _column(entry: Entry) -> Column:
    settings = tuple((name, value(entry)) for name, value in SETTINGS.items())
    return Column(entry.machine, entry.summary.device or "", entry.published, settings)


def _may_be(column: Column, known: Column) -> bool:
    """Whether nothing that was recorded tells the two apart."""
    if column[:3] != known[:3]:
        return False
    pairs = zip(column.settings, known.settings, strict=True)
    return all(mine[1] in (None, theirs[1]) or mine[0] == "unfenced" for mine, theirs in pairs)
