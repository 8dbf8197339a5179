"""A record with what the ranks did and said of themselves: devices, workload, windows, memory, notes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from powerbench.records import DeviceRecord, ProfilerRecord, RunRecord, Stage, StepTrace, Window, WorkloadRecord
from powerbench.rundir import RunDir
from powerbench.rundir.combined import combined
from powerbench.rundir.lines import read_telemetry
from powerbench.units import counted

Told = tuple[StepTrace, list[dict[str, Any]]]
"""What a rank did, and what it said of itself."""


def measured_steps(events: Iterable[dict[str, Any]]) -> int | None:
    """How many steps the worker says that it measured; None while it has not said so."""
    return next((event["steps"] for event in events if event["event"] == "window"), None)


def complete_record(record: RunRecord, events: Iterable[dict[str, Any]], steps: StepTrace) -> RunRecord:
    """`record` with what the worker said of itself and the windows that its edges give."""
    changes: dict[str, Any] = {}
    notes = list(record.notes)
    for event in events:
        if event["event"] == "ready":
            changes["device"] = msgspec.convert(event["device"], DeviceRecord)
            changes["workload"] = msgspec.convert(event["workload"], WorkloadRecord)
            notes += changes["workload"].notes
            changes["environment"] = record.environment | event["environment"]
        elif event["event"] == "anchor":
            changes["device"] = msgspec.structs.replace(changes["device"], anchor_error_ns=event["error_ns"])
        elif event["event"] == "window" and event.get("recompiled"):
            graphs = counted(event["recompiled"], "graph")
            notes.append(f"torch.compile made {graphs} more while the steps were timed; some steps hold that time.")
        elif event["event"] == "note":
            notes.append(event["text"])
        elif event["event"] == "operators":
            changes["profiler"] = msgspec.convert(event, ProfilerRecord)
        elif event["event"] == "end":
            changes["peak_memory_bytes"] = event.get("peak_memory_bytes")
            changes["peak_memory_of"] = event.get("peak_memory_of")
    windows = record.windows | windows_of(steps) | _profiled(changes.get("profiler"))
    return msgspec.structs.replace(record, windows=windows, notes=notes, **changes)


def _profiled(profiler: ProfilerRecord | None) -> dict[str, Window]:
    if profiler is None or not profiler.steps:
        return {}
    return {"profiler": Window(profiler.steps[0].start_ns, profiler.steps[-1].end_ns)}


def is_without_operators(events: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the worker began with the steps under torch.profiler and has told of no operators."""
    reasons = {event["event"]: event.get("reason") for event in events if event["event"] in ("profiler", "operators")}
    return bool(reasons) and reasons.get("operators", "it has not come to it") is not None


def complete_ranks(record: RunRecord, ranks: Sequence[Told]) -> RunRecord:
    """The same with what each of the ranks of this directory did and said, in their order.

    The memory is that of the largest of them. What several of them note is said once.
    """
    of_each = [complete_record(record, events, steps) for steps, events in ranks]
    if len(of_each) == 1:
        return of_each[0]
    first = next((it for it in of_each if it.device is not None), record)
    known = [it.device for it in of_each if it.device is not None]
    return msgspec.structs.replace(
        record,
        device=first.device,
        devices=known if len(known) == len(of_each) else [],
        workload=first.workload,
        environment=first.environment,
        windows=record.windows | windows_of(combined([steps for steps, _ in ranks])),
        notes=list(dict.fromkeys(note for it in of_each for note in it.notes)),
        **_largest(dict(zip(record.own_ranks, of_each, strict=True))),
    )


def _largest(records: Mapping[int, RunRecord]) -> dict[str, Any]:
    """The memory of the rank that took most, by number, of those of which it is known."""
    known = {rank: it.peak_memory_bytes for rank, it in records.items() if it.peak_memory_bytes is not None}
    if not known:
        return {}
    rank = max(known, key=lambda rank: known[rank])
    of_it = records[rank].peak_memory_of
    return {
        "peak_memory_bytes": known[rank],
        "peak_memory_of": f"{of_it}; that of rank {rank}, the largest of {counted(len(known), 'rank')}",
    }


def windows_of(steps: StepTrace) -> dict[str, Window]:
    """The stretches of warm-up, measured steps and tail, as far as their edges tell."""
    names: dict[str, Stage] = {"warmup": "warmup", "measured": "step", "tail": "tail"}
    found = {name: steps.window(stage) for name, stage in names.items()}
    return {name: window for name, window in found.items() if window is not None}


def with_sampled_peak(record: RunRecord, rundir: RunDir) -> RunRecord:
    """`record` with the largest sampled resident memory as its peak, for a worker that could not tell its own."""
    gauges = read_telemetry(rundir.telemetry)
    sampled = {rank: [value for _, value in gauges.get(f"worker{rank}.rss_bytes", [])] for rank in record.own_ranks}
    of = f"the {'program' if record.loop else 'worker'}'s resident memory, as sampled"
    peaks = {
        rank: msgspec.structs.replace(record, peak_memory_bytes=int(max(values)), peak_memory_of=of)
        for rank, values in sampled.items()
        if values
    }
    if len(record.own_ranks) == 1:
        return next(iter(peaks.values()), record)
    return msgspec.structs.replace(record, **_largest(peaks))
