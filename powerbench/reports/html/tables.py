"""The tables of the page as text: what a step takes, what it uses, the best of each kind, and the meters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from powerbench.analysis.counted import counted_rails
from powerbench.analysis.notes import TABLE_STEPS
from powerbench.analysis.operators import Operators
from powerbench.analysis.phases import Phase
from powerbench.analysis.slowdown import Slowdown, Verdict
from powerbench.reports.figures import table_time
from powerbench.reports.grid import IN_WORDS, PHASES, SETTINGS
from powerbench.reports.html.shown import Shown
from powerbench.reports.labels import WORK
from powerbench.reports.operators import headings, operator_rows, operators_explained
from powerbench.units import byte_size, shape, significant

STEADINESS: dict[Verdict, str] = {
    "flat": "steady",
    "warmup": "steady after warm-up",
    "slowdown": "slows down",
    "speedup": "speeds up",
    "no steady state": "no steady state",
    "inconclusive": "inconclusive",
    "insufficient": "too few steps",
}


@dataclass(frozen=True)
class TimeRow:
    """What a step of a run takes; None where there is no figure. `extrapolated`: from fewer steps than 100."""

    shown: Shown
    steps: str | None
    steps_100: str | None
    extrapolated: bool
    mean_ms: str | None
    median_ms: str | None
    spread_ms: str | None
    samples_per_s: str | None
    tflop_per_s: str | None
    memory: str | None
    steady: str | None


@dataclass(frozen=True)
class PhaseRow:
    """What each phase of a step takes, and uses where that is known; None for a phase that the run has not."""

    shown: Shown
    figures: list[str | None]


@dataclass(frozen=True)
class OperatorTable:
    """The operators of a step of a run, the longest first; an empty text is a figure that there is not."""

    shown: Shown
    explained: str
    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class EnergyRow:
    """What a step of a run uses. `reason`: why there is no figure; then all the others are None."""

    shown: Shown
    reason: str | None
    j_per_step: str | None = None
    sampling: str | None = None
    j_per_sample: str | None = None
    samples_per_j: str | None = None
    mean_w: str | None = None
    peak_w: str | None = None
    idle_w: str | None = None
    net_j_per_step: str | None = None
    scope: str | None = None


@dataclass(frozen=True)
class Best:
    """Of the runs of one kind the one with the highest throughput and the one with the fewest joules a sample.

    None where fewer than two of them have joules.
    """

    kind: str
    fastest: Shown
    speed: str
    frugalest: Shown | None
    joules: str | None


@dataclass(frozen=True)
class MeterRow:
    """A rail that was metered, as its records say."""

    rail: str
    source: str
    method: str
    scope: str
    period: str
    accuracy: str
    counted: str


def time_row(shown: Shown) -> TimeRow:
    """A run in the table of times."""
    summary, latency = shown.summary, shown.summary.latency_ms
    spread = None
    if latency is not None and latency.p5 is not None and latency.p95 is not None:
        spread = f"{significant(latency.p5)} to {significant(latency.p95)}"
    is_control = summary.model == "sleep"
    return TimeRow(
        shown=shown,
        steps=f"{summary.steps:,}" if summary.steps else None,
        steps_100=None if summary.wall_s_100_steps is None else table_time(summary.wall_s_100_steps),
        extrapolated=summary.steps is not None and summary.steps < TABLE_STEPS,
        mean_ms=None if latency is None else significant(latency.mean),
        median_ms=None if latency is None else _figure(latency.median),
        spread_ms=spread,
        samples_per_s=None if is_control else _figure(summary.samples_per_s),
        tflop_per_s=None if is_control else _figure(summary.tflop_per_s),
        memory=None if summary.peak_memory_bytes is None else byte_size(summary.peak_memory_bytes),
        steady=None if shown.verdict is None else steadiness(shown.verdict),
    )


def steadiness(slowdown: Slowdown) -> str:
    """The verdict in a word or two: `steady`, `slows down, +21%`."""
    change = "" if slowdown.change is None else f", {slowdown.change:+.0%}"
    return f"{STEADINESS[slowdown.verdict]}{change if slowdown.verdict in ('slowdown', 'speedup') else ''}"


def phase_names(runs: Iterable[Shown]) -> list[str]:
    """The phases that any of the runs has, in their order."""
    return sorted({name for shown in runs for name in shown.summary.phases or ()}, key=PHASES.index)


def phase_row(shown: Shown, names: Iterable[str]) -> PhaseRow:
    """A run in the table of phases."""
    phases = shown.summary.phases or {}
    return PhaseRow(shown, [_phase(phases[name]) if name in phases else None for name in names])


def _phase(phase: Phase) -> str:
    return f"{significant(phase.ms)} ms{'' if phase.j is None else f', {significant(phase.j)} J'}"


def operator_tables(runs: Iterable[Shown]) -> list[OperatorTable]:
    """A table for each run that was profiled."""
    profiled = [(shown, found) for shown in runs if (found := shown.summary.operators) is not None]
    return [_operator_table(shown, found) for shown, found in profiled]


def _operator_table(shown: Shown, operators: Operators) -> OperatorTable:
    head = headings(operators)
    columns = [at for at, heading in enumerate(head) if heading]
    rows = [[row[at] for at in columns] for row in operator_rows(operators)]
    return OperatorTable(shown, operators_explained(operators), [head[at] for at in columns], rows)


def energy_row(shown: Shown) -> EnergyRow:
    """A run in the table of joules."""
    energy = shown.summary.energy
    if shown.has_nothing_measured:
        return EnergyRow(shown, shown.ending)
    if energy is None:
        return EnergyRow(shown, shown.summary.energy_reason or "no meter was recorded with this run")
    interval = energy.j_per_step_sampling_ci95
    return EnergyRow(
        shown=shown,
        reason=None,
        j_per_step=_figure(energy.j_per_step),
        sampling=None if interval is None else " to ".join(significant(edge) for edge in interval),
        j_per_sample=_figure(energy.j_per_sample),
        samples_per_j=significant(1 / energy.j_per_sample) if energy.j_per_sample else None,
        mean_w=significant(energy.mean_w),
        peak_w=_figure(energy.peak_w),
        idle_w=_figure(energy.idle_w),
        net_j_per_step=_figure(energy.net_j_per_step),
        scope=f"{energy.scope}, in part" if energy.partial else energy.scope,
    )


def _figure(value: float | None) -> str | None:
    return None if value is None else significant(value)


def best_of_each(runs: Iterable[Shown]) -> list[Best]:
    """The best of each kind, where there are two or more complete runs to choose from.

    Of one kind are runs of one model, mode and sequence length on one machine, with all settings alike that change the
    work of a step. It is called by those settings in which kinds differ.
    """
    kinds: dict[tuple[Any, ...], list[Shown]] = {}
    for shown in runs:
        summary = shown.summary
        if summary.status == "complete" and summary.samples_per_s is not None and summary.model != "sleep":
            of_step = (summary.model, summary.mode, summary.sequence_length, shown.machine)
            kinds.setdefault((*of_step, *_work(shown).values()), []).append(shown)
    several = [its for its in kinds.values() if len(its) > 1]
    differing = [name for name in WORK if len({_work(shown)[name] for its in kinds.values() for shown in its}) > 1]
    return [_best(_kind(its[0], differing), its) for its in several]


def _work(shown: Shown) -> dict[str, Any]:
    return {name: SETTINGS[name](shown.entry) for name in WORK}


def _kind(shown: Shown, differing: Sequence[str]) -> str:
    summary, work = shown.summary, _work(shown)
    told = [IN_WORDS[name](work[name]) for name in differing]
    return ", ".join(filter(None, [str(summary.model), summary.mode, shape(None, summary.sequence_length), *told]))


def _best(kind: str, runs: Sequence[Shown]) -> Best:
    fastest = max(runs, key=lambda shown: shown.summary.samples_per_s or 0.0)
    metered = [(joules, shown) for shown in runs if (joules := _joules_a_sample(shown)) is not None]
    joules, frugalest = min(metered, key=lambda it: it[0]) if len(metered) > 1 else (None, None)
    return Best(
        kind=kind,
        fastest=fastest,
        speed=f"{significant(fastest.summary.samples_per_s or 0.0)} samples/s",
        frugalest=frugalest,
        joules=None if joules is None else f"{significant(joules)} J",
    )


def _joules_a_sample(shown: Shown) -> float | None:
    return None if shown.summary.energy is None else shown.summary.energy.j_per_sample


def meters(runs: Iterable[Shown]) -> list[tuple[MeterRow, list[int]]]:
    """Each rail as it was metered, once, with the numbers of the runs in which it was."""
    rows: dict[MeterRow, list[int]] = {}
    for shown in runs:
        counted = counted_rails(shown.record)
        for name, rail in shown.record.rails.items():
            row = MeterRow(
                rail=name,
                source=rail.source,
                method=rail.method if rail.state == "measured" else f"{rail.method}, estimated",
                scope=rail.scope,
                period=f"{rail.period_s * 1000:,.0f} ms",
                accuracy="not published" if rail.accuracy is None else f"{rail.accuracy:.1%} (its maker)",
                counted="yes" if name in counted else "no",
            )
            rows.setdefault(row, []).append(shown.number)
    return list(rows.items())


def span_of(runs: Iterable[Shown], figure: Callable[[Shown], float | None]) -> str | None:
    """`12.1 to 40.3`, or one figure where there is one; None where there is none."""
    values = [value for shown in runs if (value := figure(shown)) is not None]
    if not values:
        return None
    low, high = significant(min(values)), significant(max(values))
    return low if low == high else f"{low} to {high}"
