"""The runs of a page: each with its number, its figures, its chart, and the few words that tell it from the others."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from powerbench.analysis.slowdown import Slowdown, find_slowdown
from powerbench.analysis.summary import Summary
from powerbench.records import Cell, RunRecord
from powerbench.reports.cells import data_of, optimizer_of
from powerbench.reports.entries import Entry, Machine, entries_of, machine_names
from powerbench.reports.html.charts import trace_chart
from powerbench.reports.html.traces import LatencyTrace, PowerTrace, latency_trace, power_trace
from powerbench.rundir.load import Run
from powerbench.rundir.many import NOT_BEGUN

TIMES = "\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}"
TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
ENDINGS = {
    "complete": "completed",
    "running": "still running",
    "interrupted": "interrupted",
    "oom": "ran out of memory",
    "swapping": "stopped for swapping",
    "timeout": "ran into the time limit",
    "unavailable": "found no such device",
    "failed": "failed",
}


@dataclass(frozen=True)
class Shown:
    """A run on the page. `words` say what it measured as far as the runs differ in it.

    `brief` are those words without the machine; `machine` is its number.
    `chart` is its trace as SVG; None where there is nothing to draw, or beyond the most that are drawn. `verdict` says
    whether it became slower; None where the steps were not told apart, and there too.
    """

    number: int
    record: RunRecord
    entry: Entry
    verdict: Slowdown | None
    chart: str | None
    words: str
    brief: str
    machine: int

    @property
    def anchor(self) -> str:
        """The name of its place on the page."""
        return f"run-{self.number}"

    @property
    def summary(self) -> Summary:
        """Its figures."""
        return self.entry.summary

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        return "not begun" if self.summary.reason == NOT_BEGUN else ENDINGS[self.summary.status]

    @property
    def why(self) -> str | None:
        """How and why it did not complete; None where it did."""
        if self.summary.status == "complete":
            return None
        if self.summary.reason == NOT_BEGUN:
            return NOT_BEGUN
        return f"{self.ending}: {self.summary.reason}" if self.summary.reason else self.ending


@dataclass(frozen=True)
class _Kept:
    """What is kept of a run when its steps and joules have been let go of."""

    record: RunRecord
    verdict: Slowdown | None
    latency: LatencyTrace | None
    power: PowerTrace | None


@dataclass(frozen=True)
class Content:
    """The runs of a page in their order, numbered from 1; the published entries beside them; and machines by number."""

    runs: list[Shown]
    published: list[Entry]
    machines: list[str]


def show_runs(runs: Iterable[Run], *, most_traces: int) -> Content:
    """What the page shows of the runs. Each is read once and then let go of, so that many fit into memory."""
    kept: list[_Kept] = []
    entries = entries_of(_keeping(runs, kept, most_traces))
    ours = [(entry, its) for entry, its in zip(entries, kept, strict=True) if entry.published is None]
    names = machine_names([entry for entry, _ in ours])
    brief = _words([(entry, its.record) for entry, its in ours])
    words = [
        f"{its}, {plain(names[entry.machine])}" if len(names) > 1 else its
        for its, (entry, _) in zip(brief, ours, strict=True)
    ]
    order = list(names)
    shown = [
        Shown(
            number=number,
            record=its.record,
            entry=entry,
            verdict=its.verdict,
            chart=trace_chart(number, entry.summary, its.latency, its.power, its.verdict),
            words=words[number - 1],
            brief=brief[number - 1],
            machine=order.index(entry.machine) + 1,
        )
        for number, (entry, its) in enumerate(ours, start=1)
    ]
    return Content(shown, [entry for entry in entries if entry.published is not None], list(names.values()))


def _keeping(runs: Iterable[Run], kept: list[_Kept], most_traces: int) -> Iterator[Run]:
    """The runs as they come, while of each what the page needs is put aside."""
    for run in runs:
        kept.append(_kept(run) if len(kept) < most_traces else _Kept(run.record, None, None, None))
        yield run


def _kept(run: Run) -> _Kept:
    trace = latency_trace(run)
    verdict = None if trace is None or trace.of_blocks else find_slowdown((trace.ms / 1000).tolist())
    return _Kept(run.record, verdict, trace, power_trace(run))


def plain(text: str) -> str:
    """`text` without what is no letter: characters that control terminals, turn lines around, or are half of one."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_no_letter(letter) else letter for letter in text)


def _is_no_letter(letter: str) -> bool:
    if letter in "\t\n":
        return False
    return unicodedata.category(letter) in ("Cc", "Cs") or unicodedata.bidirectional(letter) in TURNING


_Part = Callable[[RunRecord, Cell], str | None]
# Said where the runs differ in it.
_TELLING: tuple[_Part, ...] = (
    lambda record, cell: cell.dtype,
    lambda record, cell: f"{record.environment['threads']} threads" if record.environment.get("threads") else None,
    lambda record, cell: f"torch {record.environment['torch']}" if record.environment.get("torch") else None,
    lambda record, cell: f"{cell.attention} attention",
    lambda record, cell: "compiled" if cell.compile else None,
    lambda record, cell: f"accumulation {cell.accumulation}",
    lambda record, cell: None if cell.dropout else "dropout off",
    lambda record, cell: optimizer_of(cell) if cell.mode == "training" else None,
    lambda record, cell: f"{cell.weights} weights",
    lambda record, cell: data_of(cell),
    lambda record, cell: "stopped after each phase" if cell.phases else None,
    lambda record, cell: f"{cell.copy} copy" if cell.copy else None,
    lambda record, cell: f"sync every {cell.sync_every}" if cell.sync_every is not None else None,
)


def _words(runs: Sequence[tuple[Entry, RunRecord]]) -> list[str]:
    telling = [part for part in _TELLING if _tells_runs_apart(part, runs)]
    several_models = len({record.cell.model for _, record in runs if record.cell is not None}) > 1
    return [plain(", ".join(_parts_of(record, telling, name_model=several_models))) for _, record in runs]


def _tells_runs_apart(part: _Part, runs: Sequence[tuple[Entry, RunRecord]]) -> bool:
    """Whether it differs between runs of one mode on one machine: else it is said with the mode or the machine.

    Of what was never begun the choices are still open, and so tell nothing.
    """
    values: dict[tuple[Machine, str], set[str | None]] = {}
    for entry, record in runs:
        if record.cell is not None and record.cell.model != "sleep" and entry.start_unix_ns:
            values.setdefault((entry.machine, record.cell.mode), set()).add(part(record, record.cell))
    return any(len(its) > 1 for its in values.values())


def _parts_of(record: RunRecord, telling: Iterable[_Part], *, name_model: bool) -> list[str]:
    cell = record.cell
    if cell is None:
        return ["power alone" if record.command is None else f"power of {shlex.join(record.command)}"]
    if cell.model == "sleep":
        return [f"sleep, {cell.sleep_ms:g} ms"]
    shape = f"{cell.batch_size}{TIMES}{cell.sequence_length}"
    told = [part(record, cell) for part in telling]
    return [text for text in (cell.model if name_model else None, f"{cell.mode} {shape}", *told) if text]
