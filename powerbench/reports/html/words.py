"""The page in words: its title, what was measured on what, how it ended, and what must be known to read it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from powerbench.analysis.slowdown import Verdict, sentence
from powerbench.records import LoopCell
from powerbench.reports.figures import IN_WORDS, table_time
from powerbench.reports.html.facts import numbers_in_words
from powerbench.reports.html.shown import Content, Shown
from powerbench.reports.html.tables import span_of
from powerbench.reports.terminal import headline, machine_line, recording_headline
from powerbench.units import counted, enumerated, significant

T = TypeVar("T")

FEW_NAMES = 3
NO_BREAK = "\N{NO-BREAK SPACE}"
STEADY = "stayed steady"
# In the order of what a reader must know first.
FOUND: dict[Verdict, str] = {
    "slowdown": "slowed down",
    "speedup": "sped up",
    "no steady state": "found no steady state",
    "inconclusive": "wandered too much to tell",
    "flat": STEADY,
    "warmup": STEADY,
}


@dataclass(frozen=True)
class KeyFigure:
    """A figure that stands large at the top: its name, itself, its unit, and a few words under it."""

    name: str
    value: str
    unit: str
    under: str = ""


@dataclass(frozen=True)
class Note:
    """What must be known of some runs, and which others it is true of with other numbers."""

    text: str
    runs: list[Shown]
    alike: list[Shown]


def title(content: Content) -> str:
    """`bert-base-cased on Apple M1 Max GPU (32GB)`."""
    if not content.runs:
        return "The published tables"
    cells = [shown.record.cell for shown in content.runs]
    models = list(dict.fromkeys("power" if cell is None else cell.model for cell in cells))
    return f"{_names(models, 'model')} on {_names(content.machines, 'machine')}"


def _names(names: Sequence[str], noun: str) -> str:
    return enumerated(names) if len(names) <= FEW_NAMES else counted(len(names), noun)


def lead(runs: Sequence[Shown]) -> list[str]:
    """The first sentences: what was measured, on what, when, and how it ended."""
    if not runs:
        return []
    told = [_of_one(runs[0]) if len(runs) == 1 else _of_several(runs), _ending(runs), _steadiness(runs), _when(runs)]
    return [sentence for sentence in told if sentence]


def _of_one(shown: Shown) -> str:
    record = shown.record
    if record.cell is None:
        return f"{recording_headline(record).capitalize()}."
    return f"One run: {headline(record)}, on {machine_line(record)}."


def _of_several(runs: Sequence[Shown]) -> str:
    cells = [shown.record.cell for shown in runs if shown.record.cell is not None]
    if not cells:
        return f"{len(runs)} recordings of power alone."
    parts = [
        enumerated(_known(cell.mode for cell in cells)),
        _range("batches of {}", _known(cell.batch_size for cell in cells)) + _on_ranks(cells),
        _range("sequences of {} tokens", _known(cell.sequence_length for cell in cells)),
        enumerated(_known(cell.dtype for cell in cells)),
    ]
    torch = list(dict.fromkeys(str(it) for shown in runs if (it := shown.record.environment.get("torch"))))
    software = f", with torch {enumerated(torch)}" if torch and len(torch) <= FEW_NAMES else ""
    told = ", ".join(filter(None, parts)) or enumerated(list(dict.fromkeys(cell.model for cell in cells)))
    return f"{len(runs)} runs: {told}{software}."


def _on_ranks(cells: Sequence[LoopCell]) -> str:
    ranks = list(dict.fromkeys(cell.ranks * cell.nnodes for cell in cells))
    return _range(" on each of {} ranks", ranks) if max(ranks) > 1 else ""


def _known(values: Iterable[T | None]) -> list[T]:
    return list(dict.fromkeys(value for value in values if value is not None))


def _range(words: str, values: Sequence[int]) -> str:
    found = sorted(values)
    if not found:
        return ""
    few = len(found) <= FEW_NAMES
    return words.format(enumerated([f"{it:,}" for it in found]) if few else f"{found[0]:,} to {found[-1]:,}")


def _ending(runs: Sequence[Shown]) -> str:
    ended: dict[str, list[int]] = {}
    for shown in runs:
        ended.setdefault(shown.ending, []).append(shown.number)
    complete = IN_WORDS["complete"]
    if list(ended) == [complete]:
        return "It is complete." if len(runs) == 1 else "All are complete."
    if len(runs) == 1:
        return f"It is not complete: {runs[0].why}."
    told = [
        f"{len(numbers)} {ending}{'' if ending == complete else f' (run {numbers_in_words(numbers)})'}"
        for ending, numbers in sorted(ended.items(), key=lambda it: it[0] != complete)
    ]
    return f"{', '.join(told)}."


def _steadiness(runs: Sequence[Shown]) -> str:
    """Whether any of them became slower, which is what a table of means cannot show."""
    judged = [(shown, shown.verdict) for shown in runs if shown.verdict and shown.verdict.verdict != "insufficient"]
    if len(runs) == 1:
        return sentence(judged[0][1]) if judged else ""
    if not judged:
        return ""
    found: dict[str, list[int]] = {}
    for shown, verdict in judged:
        found.setdefault(FOUND[verdict.verdict], []).append(shown.number)
    of = "" if len(judged) == len(runs) else f"Of {len(judged)} with steps enough "
    if list(found) == [STEADY]:
        return f"{of}none slowed down." if of else "None slowed down."
    told = [
        f"{len(found[words])} {words}{'' if words == STEADY else f' (run {numbers_in_words(found[words])})'}"
        for words in dict.fromkeys(FOUND.values())
        if words in found
    ]
    return f"{of}{', '.join(told)}."


def _when(runs: Sequence[Shown]) -> str:
    days = sorted({_day(its) for shown in runs if (its := shown.record.clock.start_unix_ns)})
    if not days:  # nothing was begun
        return ""
    return f"Recorded on {days[0]} (UTC)." if len(days) == 1 else f"Recorded from {days[0]} to {days[-1]} (UTC)."


def _day(unix_ns: int) -> str:
    return datetime.fromtimestamp(unix_ns / 1e9, UTC).strftime("%Y-%m-%d")


def key_figures(runs: Sequence[Shown]) -> list[KeyFigure]:
    """Of one run its figures, of several what they range over."""
    found = [
        _figure("Latency", runs, "ms a step", lambda it: it.summary.latency_ms and it.summary.latency_ms.mean),
        _figure("Throughput", runs, "samples/s", lambda it: None if _is_control(it) else it.summary.samples_per_s),
        _figure("Energy", runs, "J a sample", lambda it: it.summary.energy and it.summary.energy.j_per_sample),
        _figure("Power", runs, "W on average", lambda it: it.summary.energy and it.summary.energy.mean_w),
    ]
    return [_with_words_under(figure, runs) for figure in found if figure is not None]


def _is_control(shown: Shown) -> bool:
    return shown.summary.model == "sleep"


def _figure(name: str, runs: Sequence[Shown], unit: str, of: Callable[[Shown], Any]) -> KeyFigure | None:
    value = span_of(runs, of)
    return None if value is None else KeyFigure(name, value, unit)


def _with_words_under(figure: KeyFigure, runs: Sequence[Shown]) -> KeyFigure:
    if len(runs) > 1:
        return figure
    summary = runs[0].summary
    latency, energy = summary.latency_ms, summary.energy
    under = ""
    if figure.name == "Latency" and latency is not None and latency.p5 is not None and latency.p95 is not None:
        under = f"P5 to P95: {significant(latency.p5)} to {significant(latency.p95)} ms"
    elif figure.name == "Throughput" and summary.wall_s_100_steps is not None:
        under = f"100 steps in {table_time(summary.wall_s_100_steps)}"
    elif figure.name == "Energy" and energy is not None and energy.j_per_step is not None:
        under = f"{significant(energy.j_per_step)} J a step"
    elif figure.name == "Power" and energy is not None and energy.idle_w is not None:
        under = f"{significant(energy.idle_w)} W at rest"
    return KeyFigure(figure.name, figure.value, figure.unit, under)


def notes(runs: Iterable[Shown]) -> list[Note]:
    """Each note with the runs that it is about, those about most first.

    Of notes that differ in their numbers alone the first stands for all. That a time is extrapolated is left out: it is
    marked in the table.
    """
    found: dict[str, list[tuple[str, Shown]]] = {}
    for shown in runs:
        for note in dict.fromkeys(shown.summary.notes):
            if not note.startswith("The time for 100 steps is extrapolated"):
                found.setdefault(re.sub(r"\d[\d.,]*", "0", note), []).append((note, shown))
    return [_note(its) for its in sorted(found.values(), key=lambda it: -len(it))]


def _note(found: Sequence[tuple[str, Shown]]) -> Note:
    text = found[0][0]
    return Note(text, [shown for its, shown in found if its == text], [shown for its, shown in found if its != text])


def in_a_line(shown: Shown) -> str:
    """A run's figures in a line, for the caption of its chart."""
    summary, energy = shown.summary, shown.summary.energy
    told = []
    if summary.latency_ms is not None and summary.steps:
        told.append(f"{significant(summary.latency_ms.mean)} ms a step over {counted(summary.steps, 'step')}")
    if summary.samples_per_s is not None and not _is_control(shown):
        told.append(f"{significant(summary.samples_per_s)} samples/s")
    if energy is not None and energy.j_per_step is not None:
        told.append(f"{significant(energy.j_per_step)} J a step")
    if energy is not None:
        told.append(f"{significant(energy.mean_w)} W")
    if energy is None and summary.energy_reason:
        told.append("no energy")
    return ", ".join(it.replace(" ", NO_BREAK) for it in told)


def verdict_sentence(shown: Shown) -> str | None:
    """Whether the run became slower; None where the steps were not told apart."""
    return None if shown.verdict is None else sentence(shown.verdict)


def memory_words(runs: Iterable[Shown]) -> list[str]:
    """What peak memory is, as the records say."""
    told = dict.fromkeys(shown.record.peak_memory_of for shown in runs if shown.record.peak_memory_bytes is not None)
    return [text for text in told if text]


def timers(runs: Iterable[Shown]) -> list[str]:
    """What the steps were timed by."""
    return list(dict.fromkeys(shown.summary.timer for shown in runs if shown.summary.timer is not None))
