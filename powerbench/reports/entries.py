"""What tables keep of a run when its steps have been let go of: its figures, its settings, and whose they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from powerbench.analysis.summary import Summary
from powerbench.records import LoopCell, RunRecord
from powerbench.reports.summaries import summarize_run
from powerbench.rundir.load import Run

GIB = 2**30
FACTS = (
    *("torch", "transformers", "python", "powerbench", "system", "processor", "memory_bytes", "threads"),
    *("published", "peak_w"),
)


class Machine(NamedTuple):
    """A device in a machine: its name for the reader, and the host by which it is told from another of that name."""

    name: str
    host: str | None


@dataclass(frozen=True)
class Entry:
    """One run in a table. `facts` are those of FACTS that were recorded."""

    summary: Summary
    cell: LoopCell | None
    machine: Machine
    facts: dict[str, Any]
    device_name: str | None
    ranks: int
    start_unix_ns: int
    peak_memory_of: str | None
    estimated: bool

    @property
    def published(self) -> str | None:
        """The vintage of the published table that it stands in; None for a run of ours."""
        found = self.facts.get("published")
        return found if isinstance(found, str) else None


def entries_of(runs: Iterable[Run]) -> list[Entry]:
    """An entry of each run, in one pass."""
    entries = [_entry(run) for run in runs]
    known = {_where(entry): entry.machine for entry in entries if entry.device_name is not None}
    return [replace(entry, machine=known.get(_where(entry), entry.machine)) for entry in entries]


def _where(entry: Entry) -> tuple[object, ...]:
    """By what a run that ended before its device was named is told to be of the same one as another run."""
    return entry.machine.host, entry.summary.device, entry.device_name if entry.published else None


def machine_names(entries: Sequence[Entry]) -> dict[Machine, str]:
    """A name for each machine; where two have the same, each gets a number in the order in which they come."""
    of_name: dict[str, list[Machine]] = {}
    for machine in dict.fromkeys(entry.machine for entry in entries):
        of_name.setdefault(machine.name, []).append(machine)
    return {
        machine: name if len(machines) == 1 else f"{name} no. {number}"
        for name, machines in of_name.items()
        for number, machine in enumerate(machines, 1)
    }


def _entry(run: Run) -> Entry:
    record = run.record
    summary = summarize_run(run)
    counted = summary.energy.rails if summary.energy else {}
    return Entry(
        summary=summary,
        cell=record.cell,
        machine=_machine(record),
        facts={name: record.environment[name] for name in FACTS if record.environment.get(name) is not None},
        device_name=record.device.name if record.device else None,
        ranks=record.ranks,
        start_unix_ns=record.clock.start_unix_ns,
        peak_memory_of=record.peak_memory_of,
        estimated=any(rail.counted and record.rails[name].state == "estimated" for name, rail in counted.items()),
    )


def _machine(record: RunRecord) -> Machine:
    return Machine(machine_name(record), record.environment.get("host"))


def machine_name(record: RunRecord) -> str:
    """`AMD EPYC CPU (24GB)`, `Apple M1 Max GPU (32GB)`, `NVIDIA H100 80GB HBM3`: as the published tables name theirs.

    The memory is the machine's where the device shares it.
    """
    facts = record.environment
    if facts.get("published"):
        return record.device.name if record.device else "unknown"
    kind = record.device.kind if record.device else record.cell.device if record.cell else "cpu"
    name = _plain(record.device.name if record.device else facts.get("processor") or "")
    if kind not in ("cpu", "mps"):
        return name if record.device else f"{kind} beside {name}".removesuffix(" beside ")
    memory = facts.get("memory_bytes")
    what = " CPU" if kind == "cpu" else " GPU"
    size = "" if memory is None else f" ({round(memory / GIB)}GB)"
    return f"{name.removesuffix(what)}{what}{size}".strip()


def _plain(name: str) -> str:
    """A processor's marketing name without its marks, its clock and the word for what it is."""
    name = re.sub(r"\((R|TM)\)|@.*$|\b\d+-Core Processor\b|\bProcessor\b", "", name)
    return " ".join(name.split())
