"""Where a step's time and joules go: to reading, copying, the forward and the backward pass, and the optimizer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

from msgspec import Struct

from powerbench.analysis.alignment import line_of
from powerbench.analysis.blocks import BLOCK_PERIODS
from powerbench.analysis.counted import counted_rails
from powerbench.analysis.curves import Line
from powerbench.records import EnergyCurve, PhaseSpan, RunRecord, StepTrace, Window
from powerbench.units import NS_PER_MS, duration, seconds_from_ns


class Phase(Struct, frozen=True, kw_only=True):
    """One phase of a step on average: milliseconds, and joules; None where the meter is too slow to tell."""

    ms: float
    j: float | None


class PhaseFindings(NamedTuple):
    """The phases of a step in their order; None where they were not measured. And notes on them."""

    phases: dict[str, Phase] | None
    notes: list[str]


def find_phases(
    record: RunRecord, steps: StepTrace, spans: Sequence[PhaseSpan], curves: Mapping[str, EnergyCurve]
) -> PhaseFindings:
    """The phases of the measured steps.

    `curves` are on the machine's clock (offsets have been added); of a run whose energy is not to be trusted, none.
    """
    measured = [span for span in spans if steps.stage[span.step : span.step + 1] == ["step"]]
    if not measured:
        return PhaseFindings(None, [])
    of_phase: dict[str, list[PhaseSpan]] = defaultdict(list)
    for span in measured:
        of_phase[span.phase].append(span)
    count = len({span.step for span in measured})
    window = steps.window("step")
    counted = counted_rails(record) if record.the_cell.phases and curves and window is not None else []
    lines = {name: line_of(curves.get(name, EnergyCurve()), record.rails[name], window=window) for name in counted}
    needed_s = BLOCK_PERIODS * max((record.rails[name].period_s for name in counted), default=0.0)
    phases = {
        name: Phase(ms=_length_ns(its) / count / NS_PER_MS, j=_joules(lines, its, count=count, needed_s=needed_s))
        for name, its in of_phase.items()
    }
    notes = []
    if record.the_cell.phases:
        notes.append(
            "This run was instrumented: the device was waited for after each phase (--phases), so take the latency of "
            "a step from a run without."
        )
    short = [name for name, its in of_phase.items() if _lasting_s(its) < needed_s]
    if lines and short:
        notes.append(
            f"No joules for {', '.join(short)}: a phase must last {duration(needed_s)} at a time for this meter to "
            "tell it from the next. Larger batches make phases longer."
        )
    unmetered = [name for name, phase in phases.items() if phase.j is None and name not in short]
    if lines and unmetered:
        notes.append(f"No joules for {', '.join(unmetered)}: the meter did not cover all steps from end to end.")
    return PhaseFindings(phases, notes)


def _lasting_s(spans: Sequence[PhaseSpan]) -> float:
    """How long a phase lasts at a time."""
    return seconds_from_ns(round(median(span.end_ns - span.start_ns for span in spans)))


def _length_ns(spans: Sequence[PhaseSpan]) -> int:
    return sum(span.end_ns - span.start_ns for span in spans)


def _joules(lines: Mapping[str, Line], spans: Sequence[PhaseSpan], *, count: int, needed_s: float) -> float | None:
    """Joules a step of the counted rails; None where phases are short, or not metered from end to end."""
    if not lines or _lasting_s(spans) < needed_s:
        return None
    used = [line.energy_in(Window(span.start_ns, span.end_ns)) for line in lines.values() for span in spans]
    known = [joules for joules in used if joules is not None]
    return sum(known) / count if len(known) == len(used) else None
