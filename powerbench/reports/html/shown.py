"""The runs of a page: each with its number, its figures, its chart, and the few words that tell it from the others."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from powerbench.analysis.comparable import in_words
from powerbench.analysis.slowdown import Slowdown, find_slowdown
from powerbench.analysis.summary import Summary
from powerbench.records import LoopCell, RunRecord
from powerbench.reports.cells import data_of, optimizer_of
from powerbench.reports.entries import Entry, Machine, entries_of, machine_names
from powerbench.reports.figures import IN_WORDS, is_not_begun
from powerbench.reports.grid import is_unfenced
from powerbench.reports.html.charts import trace_chart
from powerbench.reports.html.traces import LatencyTrace, PowerTrace, latency_trace, power_trace
from powerbench.rundir.load import Run
from powerbench.rundir.many import NOT_BEGUN

TIMES = "\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}"
TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


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
        return "not begun" if is_not_begun(self.entry) else IN_WORDS[self.summary.status]

    @property
    def has_nothing_measured(self) -> bool:
        """Whether it ended before a step was measured: then that is why it has no joules, whatever was metered."""
        return self.record.cell is not None and self.summary.latency_ms is None and self.summary.status != "complete"

    @property
    def why(self) -> str | None:
        """How and why it did not complete; None where it did."""
        if self.summary.status == "complete":
            return None
        if is_not_begun(self.entry):
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


_Part = Callable[[Entry, LoopCell], str | None]
# Said where the runs differ in it.
_TELLING: tuple[_Part, ...] = (
    lambda entry, cell: cell.dtype,
    lambda entry, cell: f"{entry.facts['threads']} threads" if entry.facts.get("threads") else None,
    lambda entry, cell: f"torch {entry.facts['torch']}" if entry.facts.get("torch") else None,
    lambda entry, cell: f"{cell.attention} attention" if cell.attention else None,
    lambda entry, cell: "compiled" if cell.compile else None,
    lambda entry, cell: f"accumulation {cell.accumulation}" if cell.accumulation else None,
    lambda entry, cell: "dropout off" if cell.dropout is False else None,
    lambda entry, cell: optimizer_of(cell) if cell.mode == "training" and cell.optimizer else None,
    lambda entry, cell: f"{cell.weights} weights" if cell.weights else None,
    lambda entry, cell: data_of(cell) if cell.dataset else None,
    lambda entry, cell: "stopped after each phase" if cell.phases else None,
    lambda entry, cell: "stopped by py-spy" if cell.py_spy else None,
    lambda entry, cell: f"{cell.copy} copy" if cell.copy else None,
    lambda entry, cell: _waits(entry, cell),
)


def _waits(entry: Entry, cell: LoopCell) -> str | None:
    """How often the device was waited for; None where it need not be, since its own events tell the steps apart."""
    if cell.sync_every is None:
        return None
    if cell.sync_every == 0:
        return "not waited for" if is_unfenced(entry) else None
    return "each step waited for" if cell.sync_every == 1 else f"waited for every {cell.sync_every} steps"


def _words(runs: Sequence[tuple[Entry, RunRecord]]) -> list[str]:
    telling = [part for part in _TELLING if _tells_runs_apart(part, [entry for entry, _ in runs])]
    several_models = len({entry.cell.model for entry, _ in runs if entry.cell is not None}) > 1
    return [plain(", ".join(_parts_of(entry, record, telling, name_model=several_models))) for entry, record in runs]


def _tells_runs_apart(part: _Part, entries: Sequence[Entry]) -> bool:
    """Whether it differs between runs of one mode on one machine: else it is said with the mode or the machine.

    Of what was never begun the choices are still open, and so tell nothing.
    """
    values: dict[tuple[Machine, str | None], set[str | None]] = {}
    for entry in entries:
        if entry.cell is not None and entry.cell.model != "sleep" and entry.start_unix_ns:
            values.setdefault((entry.machine, entry.cell.mode), set()).add(part(entry, entry.cell))
    return any(len(its) > 1 for its in values.values())


def _on_ranks(entry: Entry) -> str:
    return f" on each of {entry.ranks:,} ranks" if entry.ranks > 1 else ""


def _parts_of(entry: Entry, record: RunRecord, telling: Iterable[_Part], *, name_model: bool) -> list[str]:
    """What is cut from them where there is little room is the end, so that what tells most comes first."""
    cell = entry.cell
    if cell is None:
        return ["power alone" if record.command is None else f"power of {shlex.join(record.command)}"]
    if cell.model == "sleep":
        return [f"sleep, {cell.sleep_ms:g} ms{_on_ranks(entry)}"]
    told = [part(entry, cell) for part in telling]
    if record.loop:
        return [in_words(cell), *filter(None, told)]
    what = f"{cell.mode} {cell.batch_size:,}{TIMES}{cell.sequence_length:,}{_on_ranks(entry)}"
    return [text for text in (what, cell.model if name_model else None, *told) if text]
