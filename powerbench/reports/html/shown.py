"""The runs of a page: each with its number, its figures, its chart, and the few words that tell it from the others."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from powerbench.analysis.summary import Summary, summarize
from powerbench.records import Cell, RunRecord
from powerbench.reports.html.charts import trace_chart
from powerbench.reports.html.traces import latency_trace, power_trace
from powerbench.reports.terminal import unusual
from powerbench.rundir.load import Run

MOST_TRACES = 60
"""Of so many runs the trace is drawn: beyond that the page would grow past what a browser likes to scroll."""

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
    """A run on the page. `words` say what it measured as far as the runs differ in it; `machine` is its number.

    `chart` is its trace as SVG; None where there is nothing to draw, or beyond `MOST_TRACES`.
    """

    number: int
    path: str
    record: RunRecord
    summary: Summary
    chart: str | None
    words: str
    machine: int

    @property
    def anchor(self) -> str:
        """The name of its place on the page."""
        return f"run-{self.number}"

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        return ENDINGS[self.summary.status]

    @property
    def why(self) -> str | None:
        """How and why it did not complete; None where it did."""
        if self.summary.status == "complete":
            return None
        return f"{self.ending}: {self.summary.reason}" if self.summary.reason else self.ending


@dataclass(frozen=True)
class _Read:
    """What is kept of a run when its steps and joules have been let go of."""

    path: str
    record: RunRecord
    summary: Summary
    chart: str | None


def show_runs(runs: Iterable[Run]) -> list[Shown]:
    """The runs in their order, numbered from 1; machines too, in the order in which they come.

    Each run is read once and then let go of, so that many fit into memory.
    """
    read = [_read(run, number) for number, run in enumerate(runs, start=1)]
    machines = list(dict.fromkeys(machine_of(it.record) for it in read))
    words = _words([it.record for it in read])
    return [
        Shown(
            number=at + 1,
            path=it.path,
            record=it.record,
            summary=it.summary,
            chart=it.chart,
            words=words[at],
            machine=machines.index(machine_of(it.record)) + 1,
        )
        for at, it in enumerate(read)
    ]


def _read(run: Run, number: int) -> _Read:
    summary = summarize(str(run.path), run.record, run.steps[0], run.curves())
    chart = trace_chart(number, summary, latency_trace(run), power_trace(run)) if number <= MOST_TRACES else None
    return _Read(str(run.path), run.record, summary, chart)


def machine_of(record: RunRecord) -> str:
    """The device that was measured, by the name that it gives itself: `Apple M1 Max (mps)`."""
    asked_for = record.cell.device if record.cell is not None else None
    name = record.device.name if record.device else record.environment.get("processor")
    kind = record.device.kind if record.device else asked_for
    if name is None:
        return kind or "a machine that was not recorded"
    return str(name) if kind is None else f"{name} ({kind})"


def plain(text: str) -> str:
    """`text` without what is no letter: characters that control terminals, turn lines around, or are half of one."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_no_letter(letter) else letter for letter in text)


def _is_no_letter(letter: str) -> bool:
    if letter in "\t\n":
        return False
    return unicodedata.category(letter) in ("Cc", "Cs") or unicodedata.bidirectional(letter) in _TURNING


_TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")

_Part = Callable[[RunRecord, Cell], str | None]
# Said where the runs differ in it.
_TELLING: tuple[_Part, ...] = (
    lambda record, cell: machine_of(record),
    lambda record, cell: cell.dtype,
    lambda record, cell: f"{record.environment['threads']} threads" if record.environment.get("threads") else None,
    lambda record, cell: f"torch {record.environment['torch']}" if record.environment.get("torch") else None,
    lambda record, cell: ", ".join(unusual(cell)) or None,
    lambda record, cell: f"{cell.copy} copy" if cell.copy else None,
    lambda record, cell: f"sync every {cell.sync_every}" if cell.sync_every is not None else None,
)


def _words(records: Sequence[RunRecord]) -> list[str]:
    steps = [(record, record.cell) for record in records if record.cell is not None and record.cell.model != "sleep"]
    telling = [part for part in _TELLING if len({part(record, cell) for record, cell in steps}) > 1]
    models = {cell.model for _, cell in steps}
    return [plain(_words_of(record, telling, name_model=len(models) > 1)) for record in records]


def _words_of(record: RunRecord, telling: Iterable[_Part], *, name_model: bool) -> str:
    cell = record.cell
    if cell is None:
        return "power alone" if record.command is None else f"power of {shlex.join(record.command)}"
    if cell.model == "sleep":
        return f"sleep, {cell.sleep_ms:g} ms"
    what = f"{cell.mode} {cell.batch_size} \N{MULTIPLICATION SIGN} {cell.sequence_length}"
    told = [part(record, cell) for part in telling]
    return ", ".join(text for text in (cell.model if name_model else None, what, *told) if text)
