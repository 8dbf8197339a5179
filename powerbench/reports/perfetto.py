"""Runs as one Chrome trace in JSON, for ui.perfetto.dev: steps as spans, gauges as counters, events as instants."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from powerbench.records import ProfilerRecord, RunRecord, Stage, StepTrace
from powerbench.reports.summaries import summarize_run
from powerbench.reports.terminal import headline, machine_line, recording_headline
from powerbench.reports.torch_trace import Numbers, torch_events
from powerbench.rundir.load import Run
from powerbench.units import NS_PER_MS

Event = dict[str, Any]

NS_PER_US = 1000
# Tracks of a run, each a thread in the format's words; each rank has one of steps and one of submissions below these.
WINDOWS = 1
FIRST_RANK = 2
SPANS: dict[Stage, str] = {"warmup": "warm-up step", "step": "step", "tail": "tail step", "pause": "pause"}


def as_perfetto(runs: Sequence[Run]) -> str:
    """The runs as processes of one trace, each from its own start; times in microseconds.

    The format: "Trace Event Format", Google 2016, of which ui.perfetto.dev reads X, C, i and M events.
    """
    numbers = Numbers(first=len(runs) + 1)
    events = [
        event for pid, run in enumerate(runs, start=1) for event in (*_of_run(run, pid), *_of_torch(run, pid, numbers))
    ]
    told = {"displayTimeUnit": "ms", "traceEvents": events, "otherData": {"runs": [str(run.path) for run in runs]}}
    return msgspec.json.encode(told).decode()


def _of_run(run: Run, pid: int) -> Iterator[Event]:
    """All events of a run that lie behind its start: a meter may have read a moment before it."""
    start_ns = run.record.clock.start_monotonic_ns
    yield from _names(run, pid)
    for event in (*_windows(run.record), *_steps(run), *_counters(run), *_instants(run)):
        if event["ns"] >= start_ns:
            yield _placed(event, pid, start_ns)


def _placed(event: Event, pid: int, start_ns: int) -> Event:
    """An event of a moment of the clock as one of process `pid`, in microseconds from its start."""
    time_ns, lasted_ns = event.pop("ns"), event.pop("lasted_ns", None)
    lasted = {} if lasted_ns is None else {"dur": lasted_ns / NS_PER_US}
    return {**event, "pid": pid, "ts": (time_ns - start_ns) / NS_PER_US, **lasted}


def _of_torch(run: Run, pid: int, numbers: Numbers) -> Iterator[Event]:
    """What torch.profiler saw, as processes of their own: the program's threads, and the device's streams."""
    profiler, start_ns = run.record.profiler, run.record.clock.start_monotonic_ns
    if profiler is None or not profiler.steps:
        return
    trace = run.torch_trace()
    if trace is None:
        lost = "torch-trace.json is missing or damaged: what torch.profiler saw is left out."
        yield _placed(_instant(lost, profiler.steps[0].start_ns, WINDOWS), pid, start_ns)
    else:
        yield from torch_events(trace, profiler, start_ns=start_ns, run=run.record.id, numbers=numbers)


def _names(run: Run, pid: int) -> Iterator[Event]:
    """What the tracks are called, and in which order they stand."""
    record = run.record

    def named(what: str, tid: int, **args: str | int) -> Event:
        return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args}

    told = [recording_headline(record)] if record.cell is None else [headline(record), machine_line(record)]
    yield named("process_name", 0, name=record.id)
    yield named("process_labels", 0, labels=", ".join(told))
    yield named("process_sort_index", 0, sort_index=pid)
    tracks = {WINDOWS: "stretches of the run"}
    if record.cell is not None:
        for rank in run.ranks:
            tracks[_steps_track(rank)] = f"rank {rank}: steps, from edge to edge"
            tracks[_submissions_track(rank)] = f"rank {rank}: Python submits"
    for tid, name in tracks.items():
        yield named("thread_name", tid, name=name)
        yield named("thread_sort_index", tid, sort_index=tid)


def _steps_track(rank: int) -> int:
    return FIRST_RANK + 2 * rank


def _submissions_track(rank: int) -> int:
    return _steps_track(rank) + 1


def _windows(record: RunRecord) -> Iterator[Event]:
    for name, window in record.windows.items():
        yield _span(name, WINDOWS, window.start_ns, window.end_ns)


def _span(name: str, tid: int, start_ns: int, end_ns: int, **args: Any) -> Event:
    return {"ph": "X", "name": name, "tid": tid, "ns": start_ns, "lasted_ns": max(0, end_ns - start_ns), "args": args}


def _steps(run: Run) -> Iterator[Event]:
    yield from _profiled(run.record.profiler)
    for rank, steps in zip(run.ranks, run.steps, strict=True):
        work_ns = run.work(rank) if run.record.ranks > 1 else {}
        yield from _edge_to_edge(steps, _steps_track(rank), work_ns)
        yield from _submissions(steps, _submissions_track(rank), run.record)


def _profiled(profiler: ProfilerRecord | None) -> Iterator[Event]:
    """The steps that were made under torch.profiler when all others were measured."""
    for at, step in enumerate(profiler.steps if profiler else []):
        yield _span("profiled step", _steps_track(0), step.start_ns, step.end_ns, stage="profiler", step=at, steps=1)


def _edge_to_edge(steps: StepTrace, tid: int, work_ns: Mapping[int, int]) -> Iterator[Event]:
    """A span a step; where the device was waited for less often, one for all steps up to the next edge.

    Of several ranks it tells how long this one worked itself; in the rest it waited, or exchanged gradients.
    """
    first = 0
    for at, end_ns in enumerate(steps.end_ns):
        if steps.stage[at] != steps.stage[first]:
            first = at
        if end_ns is not None:
            stage = steps.stage[at]
            name = SPANS[stage] if first == at else f"{at - first + 1} {SPANS[stage]}s"
            own = [work_ns[step] for step in range(first, at + 1) if step in work_ns]
            told = {"own_work_ms": sum(own) / NS_PER_MS} if len(own) == at - first + 1 else {}
            yield _span(name, tid, steps.start_ns[at], end_ns, stage=stage, step=first, steps=at - first + 1, **told)
            first = at + 1


def _submissions(steps: StepTrace, tid: int, record: RunRecord) -> Iterator[Event]:
    """From when Python could begin with a step (the submission before it, or the wait after that) to its submission."""
    waits = record.cell is not None and record.cell.sync_every != 0
    before_ns = min(steps.start_ns[:1] + steps.submit_ns[:1], default=0)
    for at, submit_ns in enumerate(steps.submit_ns):
        if steps.stage[at] == "pause":
            before_ns = submit_ns
            continue
        # Where nobody waits, Python may be ahead of the edge before the step, which is then an event of the device.
        start_ns = max(before_ns, steps.start_ns[at]) if waits else before_ns
        yield _span("submit", tid, start_ns, submit_ns, stage=steps.stage[at], step=at)
        before_ns = submit_ns


def _counters(run: Run) -> Iterator[Event]:
    yield from _powers(run)
    for name, values in run.telemetry().items():
        for time_ns, value in values:
            yield from _counter(name, time_ns, value)
    for rank in run.ranks:
        for event in run.events(rank):
            if event["event"] == "memory":
                yield from _memory(event, rank)


def _powers(run: Run) -> Iterator[Event]:
    """The mean power from each reading to the next; none from the last one on."""
    for rail, curve in run.curves().items():
        readings = list(zip(curve.time_ns, curve.energy_j, strict=True))
        for (time_ns, energy_j), (next_ns, next_j) in pairwise(readings):
            if next_ns > time_ns:
                yield from _counter(f"{rail}.metered_w", time_ns, (next_j - energy_j) / ((next_ns - time_ns) / 1e9))


def _memory(event: Mapping[str, Any], rank: int) -> Iterator[Event]:
    for what, value in event.items():
        if what not in ("event", "time_ns") and value is not None:
            yield from _counter(f"worker{rank}.{what}_bytes", event["time_ns"], value)


def _counter(name: str, time_ns: int, value: float) -> Iterator[Event]:
    """A counter's new value; JSON has no word for one that is no number."""
    if math.isfinite(value):
        yield {"ph": "C", "name": name, "tid": 0, "ns": time_ns, "args": {"value": value}}


def _instants(run: Run) -> Iterator[Event]:
    for rank in run.ranks:
        for event in run.events(rank):
            if event["event"] == "gc":
                lasted_ms = (event["end_ns"] - event["time_ns"]) / NS_PER_MS
                yield _instant(
                    "garbage collection",
                    event["time_ns"],
                    _steps_track(rank),
                    lasted_ms=lasted_ms,
                    generation=event.get("generation"),
                )
    window = run.record.windows.get("measured")
    for note in summarize_run(run).notes:
        yield _instant(note, run.record.clock.start_monotonic_ns if window is None else window.start_ns, WINDOWS)


def _instant(name: str, time_ns: int, tid: int, **args: Any) -> Event:
    return {"ph": "i", "name": name, "s": "t", "tid": tid, "ns": time_ns, "args": args}
