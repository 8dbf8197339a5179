"""All that a run recorded of itself, gathered once as plain data for those who only reckon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from powerbench.records import EnergyCurve, OperatorTimes, PhaseSpan, RunRecord, StepTrace

if TYPE_CHECKING:
    from powerbench.rundir.load import Run


@dataclass(frozen=True)
class Recorded:
    """One rank's steps and what was sampled beside them.

    `gauges` and `words` are the telemetry by name, as (time_ns, value); `events` is what the worker said of itself;
    `curves` are the joules by rail, `phases` those within the steps, `operators` those of a step. What is missing was
    not recorded.
    """

    record: RunRecord
    steps: StepTrace
    gauges: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    words: Mapping[str, Sequence[tuple[int, str]]] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = ()
    curves: Mapping[str, EnergyCurve] = field(default_factory=dict)
    phases: Sequence[PhaseSpan] = ()
    operators: Sequence[OperatorTimes] = ()

    def memory(self, name: str) -> list[tuple[int, float]]:
        """What the worker said of its memory (`allocated`, `reserved`, `driver`), as (time_ns, bytes)."""
        said = [event for event in self.events if event["event"] == "memory" and event.get(name) is not None]
        return [(event["time_ns"], float(event[name])) for event in said]


def recorded_of(run: Run) -> Recorded:
    """What the first rank of a run recorded; its files are read here, and nowhere in the arithmetic."""
    return Recorded(
        run.record,
        run.steps[0],
        run.telemetry(),
        run.words(),
        run.events(),
        run.curves(),
        run.phases(),
        run.operators(),
    )
