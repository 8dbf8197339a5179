"""torch's own Chrome trace of the profiled steps, moved onto the clock of the run, so that power stands above it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from powerbench.records import ProfilerRecord

Event = dict[str, Any]

NS_PER_US = 1000
KEPT = ("ph", "cat", "name", "args", "dur", "id", "bp", "s")
SPANS_AND_FLOWS = ("X", "i", "s", "t", "f")
NAMES = ("process_name", "process_labels", "thread_name", "thread_sort_index")


class Numbers:
    """Numbers that no other process, thread or arrow of the whole trace has, one for each key."""

    def __init__(self, *, first: int) -> None:
        self._next = count(first)
        self._given: dict[Any, int] = {}

    def of(self, *key: object) -> int:
        """The number of `key`, the same each time."""
        if key not in self._given:
            self._given[key] = next(self._next)
        return self._given[key]


def torch_events(
    trace: Mapping[str, Any], profiler: ProfilerRecord, *, start_ns: int, run: str, numbers: Numbers
) -> Iterator[Event]:
    """The events of `trace` as those of a run that began at `start_ns`; times in microseconds from there.

    torch writes microseconds of the calendar since `baseTimeNanoseconds`; one moment on both clocks is known:

        monotonic = base + 1000 ts - unix_ns + monotonic_ns

    Its processes that are none (whole profilings, by names instead of numbers) are left out.
    """
    base_ns = int(trace.get("baseTimeNanoseconds", 0))
    ahead_ns = profiler.unix_ns - profiler.monotonic_ns + start_ns - base_ns
    for event in trace.get("traceEvents", []):
        if not isinstance(event.get("pid"), int):
            continue
        moved = {key: event[key] for key in KEPT if key in event}
        moved["pid"] = numbers.of(run, "process", event["pid"])
        moved["tid"] = numbers.of(run, "thread", event["pid"], event.get("tid"))
        if event["ph"] == "M" and event["name"] in NAMES:
            yield _named(moved, run)
        elif event["ph"] in SPANS_AND_FLOWS:
            if "id" in event:
                moved["id"] = numbers.of(run, event.get("cat"), event["id"])
            yield {**moved, "ts": (round(event["ts"] * NS_PER_US) - ahead_ns) / NS_PER_US}


def _named(event: Event, run: str) -> Event:
    """torch calls a process after its program, which is always python."""
    return {**event, "args": {"name": f"torch.profiler, {run}"}} if event["name"] == "process_name" else event
