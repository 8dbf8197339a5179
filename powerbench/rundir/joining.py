"""Directories that are read as one run: a run with the joules recorded beside it, and the machines of one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import msgspec

from powerbench.errors import PowerbenchError
from powerbench.records import DeviceRecord, EnergyCurve, PhaseSpan, RunRecord, Status
from powerbench.rundir.combined import shifted
from powerbench.rundir.completed import windows_of
from powerbench.rundir.load import Run
from powerbench.units import counted, enumerated

# How a run of several machines stands: as the one that fared worst. An end that was not meant comes before one that
# may be its consequence elsewhere.
FROM_BEST_TO_WORST: tuple[Status, ...] = (
    *("complete", "running", "interrupted", "failed", "timeout", "swapping", "unavailable", "oom"),
)
# Of these events the other times are durations.
MOMENTS = ("time_ns", "end_ns")
T = TypeVar("T")


def joined(run: Run, recording: Run) -> Run:
    """`run` with the joules of a recording of the same time. Raises PowerbenchError where they have none in common."""
    if recording.record.cell is not None:
        raise PowerbenchError(f"{recording.path} is a run, not a recording of `powerbench power`: name one.")
    if run.record.rails:
        raise PowerbenchError(f"{run.path} has joules of its own: leave --power-from out.")
    if run.record.clock.boot_id is None or run.record.clock.boot_id != recording.record.clock.boot_id:
        raise PowerbenchError(
            f"{run.path} and {recording.path} are not of one boot of one machine, and so have no clock in common: "
            "name the recording that was made beside the run."
        )
    if not recording.record.rails:
        raise PowerbenchError(f"{recording.path} holds no joules: name another recording.")
    note = f"The power was recorded by `powerbench power` (in {recording.path})."
    record = msgspec.structs.replace(
        run.record,
        rails=recording.record.rails,
        unmetered={},
        notes=[*run.record.notes, note, *recording.record.notes],
    )
    return replace(run, record=record, recording=recording.path)


@dataclass(frozen=True)
class JoinedRun(Run):
    """A run of several machines, each with a directory, all on the clock of the first of them.

    Clocks of machines are never compared: on each of them time is counted from its own first measured edge, and these
    are taken for one moment. Rails and the gauges of machines are called `node1.gpu0`, `node1.system.cpu_ratio`.
    """

    hosts: tuple[Run, ...] = ()

    @property
    def ranks(self) -> list[int]:
        """The ranks of all machines that are here."""
        return [rank for run in self.hosts for rank in run.ranks]

    @property
    def machines(self) -> list[Run]:
        """The run on each machine, on its own clock."""
        return list(self.hosts)

    @cached_property
    def _ahead_ns(self) -> list[int]:
        """By how much the first machine's clock is ahead of that of each.

        Where one of them has no measured step, their first steps are taken for one moment, or else their beginnings.
        """
        measured = [run.together.window("step") for run in self.hosts]
        of_all: list[list[int]] = [
            [window.start_ns for window in measured if window is not None],
            [start_ns for run in self.hosts for start_ns in run.together.start_ns[:1]],
            [run.record.clock.start_monotonic_ns for run in self.hosts],
        ]
        moments = next(its for its in of_all if len(its) == len(self.hosts))
        return [moments[0] - moment for moment in moments]

    def _each(self) -> Iterator[tuple[str, Run, int]]:
        for run, ahead_ns in zip(self.hosts, self._ahead_ns, strict=True):
            yield of_machine(run.record.machine), run, ahead_ns

    def _of(self, rank: int) -> tuple[Run, int]:
        """The machine of a rank, and by how much the first one's clock is ahead of its."""
        return next((run, ahead_ns) for _, run, ahead_ns in self._each() if rank in run.ranks)

    def curves(self) -> dict[str, EnergyCurve]:
        """The joules of each rail of each machine."""
        return {
            f"{prefix}{name}": EnergyCurve([time_ns + ahead_ns for time_ns in curve.time_ns], curve.energy_j)
            for prefix, run, ahead_ns in self._each()
            for name, curve in run.curves().items()
        }

    def telemetry(self) -> dict[str, list[tuple[int, float]]]:
        """The numeric gauges; those of a worker have its number already."""
        return self._gauges([run.telemetry() for run in self.hosts])

    def words(self) -> dict[str, list[tuple[int, str]]]:
        """The gauges that are words."""
        return self._gauges([run.words() for run in self.hosts])

    def _gauges(self, told: Sequence[Mapping[str, list[tuple[int, T]]]]) -> dict[str, list[tuple[int, T]]]:
        return {
            name if name.startswith("worker") else f"{prefix}{name}": [(time + ahead_ns, value) for time, value in its]
            for (prefix, _, ahead_ns), gauges in zip(self._each(), told, strict=True)
            for name, its in gauges.items()
        }

    def phases(self, rank: int | None = None) -> list[PhaseSpan]:
        """The phases within a rank's steps."""
        rank = self.ranks[0] if rank is None else rank
        run, ahead_ns = self._of(rank)
        spans = run.phases(rank)
        return [it._replace(start_ns=it.start_ns + ahead_ns, end_ns=it.end_ns + ahead_ns) for it in spans]

    def work(self, rank: int) -> dict[int, int]:
        """How long a rank worked itself in each step."""
        return self._of(rank)[0].work(rank) if rank in self.ranks else {}

    def events(self, rank: int | None = None) -> list[dict[str, Any]]:
        """What the worker of a rank said of itself."""
        rank = self.ranks[0] if rank is None else rank
        run, ahead_ns = self._of(rank)
        return [
            event | {key: event[key] + ahead_ns for key in MOMENTS if isinstance(event.get(key), int)}
            for event in run.events(rank)
        ]


def join_machines(runs: Sequence[Run]) -> Run:
    """The directories of one run's machines as that run, named by the first of them; one alone is itself."""
    if len(runs) == 1:
        return runs[0]
    hosts = tuple(sorted(runs, key=lambda run: run.record.machine))
    joined = JoinedRun(hosts[0].path, hosts[0].record, [], hosts=hosts)
    steps = [shifted(steps, ahead_ns) for _, run, ahead_ns in joined._each() for steps in run.steps]
    joined = replace(joined, steps=steps)
    record = _as_one([run.record for run in hosts], [run.devices for run in hosts])
    windows = {name: it for name, it in record.windows.items() if name == "idle"} | windows_of(joined.together)
    return replace(joined, record=msgspec.structs.replace(record, windows=windows))


def of_machine(machine: int) -> str:
    """What stands before the name of a rail or of a gauge of this machine: `node1.`."""
    return f"node{machine}."


def _as_one(records: Sequence[RunRecord], devices: Sequence[Sequence[DeviceRecord]]) -> RunRecord:
    """The record of the whole; where it has room for one machine alone, as in `node`, that of the first."""
    first = next((it for it in records if it.device is not None), records[0])
    largest = max(records, key=lambda it: it.peak_memory_bytes or 0)
    worst = max(records, key=lambda it: FROM_BEST_TO_WORST.index(it.status))
    return msgspec.structs.replace(
        records[0],
        status=worst.status,
        reason=_reason([worst, *(it for it in records if it is not worst)]),
        environment=first.environment | {"host": _hosts(records)},
        device=first.device,
        devices=[device for its in devices for device in its] if all(devices) else [],
        workload=first.workload,
        rails={f"{of_machine(it.machine)}{name}": rail for it in records for name, rail in it.rails.items()},
        unmetered={f"{of_machine(it.machine)}{name}": why for it in records for name, why in it.unmetered.items()},
        tried=[f"{of_machine(it.machine)}{name}" for it in records for name in it.tried],
        peak_memory_bytes=largest.peak_memory_bytes,
        peak_memory_of=_whose(largest, ranks=records[0].ranks),
        notes=said_by({it.machine: it.notes for it in records}),
    )


def _reason(records: Sequence[RunRecord]) -> str | None:
    """Why it ended so, on the machine that fared worst first; what one only repeats of another is left out."""
    reasons = {it.reason for it in records}
    if len(reasons) == 1:
        return records[0].reason
    known = {it.machine: it.reason for it in records if it.reason is not None}
    told = {
        node: why for node, why in known.items() if not any(why != it and why.endswith(it) for it in known.values())
    }
    return "; ".join(f"node {node}: {why}" for node, why in told.items())


def _whose(record: RunRecord, *, ranks: int) -> str | None:
    """What the memory of the machine that used most covers, with that machine, or its only rank."""
    if record.peak_memory_of is None:
        return None
    own = record.own_ranks
    if len(own) == 1:
        return f"{record.peak_memory_of}; that of rank {own[0]}, the largest of {counted(ranks, 'rank')}"
    return f"{record.peak_memory_of}, on node {record.machine}"


def _hosts(records: Sequence[RunRecord]) -> str | None:
    hosts = dict.fromkeys(it.environment.get("host") for it in records)
    return ", ".join(str(host) for host in hosts if host is not None) or None


def said_by(notes: Mapping[int, Sequence[str]]) -> list[str]:
    """What machines note, by node: what all of them note is said once, and what some of them do with their numbers."""
    found = dict.fromkeys(note for its in notes.values() for note in its)
    of_nodes = {note: [node for node, its in notes.items() if note in its] for note in found}
    return [
        note if len(nodes) == len(notes) else f"On {nodes_in_words(nodes)}: {note}" for note, nodes in of_nodes.items()
    ]


def nodes_in_words(nodes: Sequence[int]) -> str:
    """`node 1`, `nodes 0, 1 and 3`."""
    return f"node {nodes[0]}" if len(nodes) == 1 else f"nodes {enumerated(list(map(str, nodes)))}"
