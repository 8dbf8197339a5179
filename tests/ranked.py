"""Runs of several ranks and machines on disk, as the program writes them, with figures that are easy to reckon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from powerbench.records import (
    Cell,
    Clock,
    DeviceRecord,
    Gauge,
    Node,
    RailRecord,
    Reading,
    RunRecord,
    StepTrace,
    WorkloadRecord,
)
from powerbench.rundir import RunDir
from powerbench.rundir.combined import combined
from powerbench.rundir.completed import windows_of
from powerbench.rundir.lines import (
    ENERGY_HEADER,
    STEPS_HEADER,
    TELEMETRY_HEADER,
    LineWriter,
    gauge_line,
    reading_line,
)
from powerbench.rundir.work import WORK_HEADER, work_line
from tests.rundir import MS, START, a_cell, a_rail, a_record, rows_of

BATCH = 16
READING_MS = 100
RENDEZVOUS = "alpha:29500"


def a_package(**changes: Any) -> RailRecord:
    return a_rail(**{"part": "package"} | changes)


def a_gpu_rail(uuid: str, **changes: Any) -> RailRecord:
    return a_rail(**{"source": "nvml", "part": "gpu", "uuid": uuid, "scope": "the board"} | changes)


def a_gpu(uuid: str | None, **changes: Any) -> DeviceRecord:
    facts = {"kind": "cuda", "name": "NVIDIA H100 80GB HBM3", "timer": "events", "uuid": uuid}
    return DeviceRecord(**facts | changes)


def a_cpu(**changes: Any) -> DeviceRecord:
    return DeviceRecord(**{"kind": "cpu", "name": "Abacus 3000", "timer": "clock"} | changes)


def trace_of(lengths: Sequence[float], *, start_ns: int = START) -> StepTrace:
    """Measured steps one behind the other, of these milliseconds."""
    trace, edge = StepTrace(), start_ns
    for length in lengths:
        trace.append("step", edge, edge + round(length * MS), edge + round(length * MS))
        edge += round(length * MS)
    return trace


def machine_record(
    *,
    ranks: int = 2,
    nnodes: int = 1,
    node: int = 0,
    met: str | None = "met",
    settings: Mapping[str, Any] | None = None,
    **changes: Any,
) -> RunRecord:
    """The record of one of `nnodes` machines with so many ranks each, of batches of 16; `met` is what they share."""
    cell: Cell = a_cell(
        **{"model": "bert-base-cased", "mode": "training", "ranks": ranks, "nnodes": nnodes, "batch_size": BATCH}
        | dict(settings or {})
    )
    host = ("alpha", "beta", "gamma")[node]
    facts: dict[str, Any] = {
        "cell": cell,
        "ranks": ranks * nnodes,
        "device": a_cpu(),
        "devices": [a_cpu()] * ranks,
        "environment": {"host": host, "torch": "2.13.0", "processor": "Abacus 3000", "threads": 1, "logical_cores": 8},
        "workload": WorkloadRecord(samples_per_step=BATCH * ranks * nnodes),
        "clock": Clock(boot_id=f"boot of {host}", start_monotonic_ns=1, start_unix_ns=2),
        "node": None if nnodes == 1 else Node(rank=node, rendezvous=RENDEZVOUS, id=met),
    }
    return a_record(**facts | changes)


def write_ranks(
    folder: Path,
    record: RunRecord,
    steps: Sequence[StepTrace],
    *,
    work_ms: Sequence[Sequence[float]] = (),
    watts: Mapping[str, float] | None = None,
    gauges: Sequence[Gauge] = (),
    events: Mapping[int, Sequence[dict[str, Any]]] | None = None,
) -> Path:
    """The directory of one machine: its ranks' steps and own work, and rails of constant power around them.

    The meters read ten times a second, from a second before the first step to a second behind the last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rundir = RunDir(folder)
    if record.status != "running":
        record = msgspec.structs.replace(record, windows=record.windows | windows_of(combined(list(steps))))
    rundir.write_record(msgspec.structs.replace(record, id=folder.name))
    for rank, trace in zip(record.own_ranks, steps, strict=True):
        _write(rundir.steps(rank), STEPS_HEADER, rows_of(trace))
    for rank, lengths in zip(record.own_ranks, work_ms, strict=False):
        rows = [work_line(step, round(length * MS)) for step, length in enumerate(lengths)]
        _write(rundir.work(rank), WORK_HEADER, rows)
    for rank, its in (events or {}).items():
        _write(rundir.events(rank), None, [msgspec.json.encode(event).decode() for event in its])
    _write(rundir.telemetry, TELEMETRY_HEADER, [gauge_line(gauge) for gauge in gauges])
    if watts:
        _write(rundir.energy, ENERGY_HEADER, [reading_line(it) for it in readings(steps, watts)])
    return folder


def readings(steps: Sequence[StepTrace], watts: Mapping[str, float]) -> list[Reading]:
    """Ten a second and rail."""
    first = min(trace.start_ns[0] for trace in steps) - 1000 * MS
    last = max(end for trace in steps for end in trace.end_ns if end is not None) + 1000 * MS
    return [
        Reading(time_ns, rail, power * (time_ns - first) / 1e9)
        for time_ns in range(first, last + 1, READING_MS * MS)
        for rail, power in watts.items()
    ]


def _write(path: Path, header: str | None, lines: Sequence[str]) -> None:
    writer = LineWriter(path, header=header)
    writer.write(lines)
    writer.close()


def two_ranks(folder: Path, *, watts: float | None = None, **changes: Any) -> Path:
    """Two ranks of one machine, 100 steps of 20 ms in which each works 18 ms itself."""
    rails = {} if watts is None else {"package-0": a_package()}
    record = machine_record(**{"rails": rails} | changes)
    return write_ranks(
        folder,
        record,
        [trace_of([20] * 100)] * 2,
        work_ms=[[18] * 100] * 2,
        watts=None if watts is None else {"package-0": watts},
    )


def with_straggler(folder: Path, **changes: Any) -> Path:
    """Two ranks that work 18 ms in each of 120 steps; from step 60 on rank 1 works 28 ms, and rank 0 waits for it."""
    lengths = [20] * 60 + [30] * 60
    record = machine_record(**changes)
    own = [[18] * 120, [18] * 60 + [28] * 60]
    return write_ranks(folder, record, [trace_of(lengths)] * 2, work_ms=own)


def two_machines(
    folder: Path,
    *,
    watts: tuple[float | None, float | None] = (50, 70),
    ahead_ns: int = 10**15,
    lengths: tuple[Sequence[float], Sequence[float]] = ([20] * 100, [20] * 100),
    changes: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {}),
) -> tuple[Path, Path]:
    """Two machines of two ranks, whose clocks are far apart; each with a package that draws so many watts."""
    paths = []
    for node in range(2):
        power = watts[node]
        rails = {} if power is None else {"package-0": a_package()}
        record = machine_record(nnodes=2, node=node, **{"rails": rails} | dict(changes[node]))
        steps = trace_of(lengths[node], start_ns=START + node * ahead_ns)
        paths.append(
            write_ranks(
                folder / f"machine-{node}",
                record,
                [steps] * 2,
                work_ms=[[18] * len(lengths[node])] * 2,
                watts=None if power is None else {"package-0": power},
            )
        )
    return paths[0], paths[1]
