"""All that a run recorded of itself, gathered once as plain data for those who only reckon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from powerbench.analysis.hosts import Host
from powerbench.analysis.ranks import Rank, Ranks, beside
from powerbench.records import DeviceRecord, EnergyCurve, OperatorTimes, PhaseSpan, RunRecord, StepTrace
from powerbench.rundir.combined import of_the_whole
from powerbench.rundir.joining import of_machine
from powerbench.rundir.load import Run

T = TypeVar("T")


@dataclass(frozen=True)
class Recorded:
    """The steps of the whole and what was sampled beside them.

    `gauges` and `words` are the telemetry by name, as (time_ns, value); `curves` are the joules by rail, `operators`
    those of a step. What is missing was not recorded. Of several ranks, one is looked at closely, the one that the
    others wait for, or else the first: `rank` is its number, `events` is what its worker said of itself, `phases` are
    those within its steps, and `neighbours` are the ranks on its machine, itself included. Of several machines the
    gauges are its machine's; those of each are there too, as `node1.system.cpu_ratio`.
    """

    record: RunRecord
    steps: StepTrace
    gauges: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    words: Mapping[str, Sequence[tuple[int, str]]] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = ()
    curves: Mapping[str, EnergyCurve] = field(default_factory=dict)
    phases: Sequence[PhaseSpan] = ()
    operators: Sequence[OperatorTimes] = ()
    rank: int = 0
    neighbours: Sequence[int] = (0,)
    ranks: Ranks | None = None
    hosts: Sequence[Host] = ()

    @property
    def device(self) -> DeviceRecord | None:
        """That of the rank that is looked at."""
        ranks = self.ranks.ranks if self.ranks is not None else ()
        return next((it.device for it in ranks if it.number == self.rank), self.record.device)

    def of_worker(self, name: str) -> Sequence[tuple[int, float]]:
        """A gauge of the worker that is looked at."""
        return self.gauges.get(f"worker{self.rank}.{name}", ())

    def of_workers(self, name: str) -> list[Sequence[tuple[int, float]]]:
        """A gauge of each worker on its machine, where all of them have it; else none."""
        found = [self.gauges.get(f"worker{rank}.{name}", ()) for rank in self.neighbours]
        return found if all(found) else []

    def memory(self, name: str) -> list[tuple[int, float]]:
        """What the worker said of its memory (`allocated`, `reserved`, `driver`), as (time_ns, bytes)."""
        said = [event for event in self.events if event["event"] == "memory" and event.get(name) is not None]
        return [(event["time_ns"], float(event[name])) for event in said]


def recorded_of(run: Run) -> Recorded:
    """What a run recorded; its files are read here, and nowhere in the arithmetic."""
    ranks = ranks_of(run)
    closest = next(iter(run.ranks), 0) if ranks is None else ranks.closest  # a recording of power has no ranks
    machine = next((it for it in run.machines if closest in it.ranks), run)
    return Recorded(
        record=run.record,
        steps=run.together,
        gauges=_near(run.telemetry(), machine),
        words=_near(run.words(), machine),
        events=run.events(closest),
        curves=run.curves(),
        phases=run.phases(closest),
        operators=run.operators(),
        rank=closest,
        neighbours=machine.ranks,
        ranks=ranks,
        hosts=hosts_of(run),
    )


def _near(gauges: Mapping[str, Sequence[tuple[int, T]]], machine: Run) -> dict[str, Sequence[tuple[int, T]]]:
    """The gauges, those of this machine without its name too."""
    prefix = of_machine(machine.record.machine)
    near = {name.removeprefix(prefix): its for name, its in gauges.items() if name.startswith(prefix)}
    return {**gauges, **near}


def ranks_of(run: Run) -> Ranks | None:
    """The ranks of a run of several; None of other runs."""
    if run.record.cell is None or run.record.ranks == 1:
        return None
    machines = [machine.record for machine in run.machines for _ in machine.ranks]
    devices = dict(pair for machine in run.machines for pair in zip(machine.ranks, machine.devices, strict=False))
    return beside(
        [
            Rank(rank, its.machine, its.environment.get("host"), devices.get(rank), steps, run.work(rank))
            for rank, its, steps in zip(run.ranks, machines, run.steps, strict=True)
        ],
        run.together,
        is_instrumented=run.record.is_instrumented,
    )


def hosts_of(run: Run) -> list[Host]:
    """The machines of a run of several that are here, each with the steps that all of them reached; else none."""
    if run.record.cell is None or run.record.cell.nnodes == 1:
        return []
    return [
        Host(machine.record.machine, machine.record, of_the_whole(machine.together, run.together), machine.curves())
        for machine in run.machines
    ]
