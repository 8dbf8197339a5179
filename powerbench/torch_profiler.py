"""A few steps under torch.profiler, when all others are measured: what each operator takes, and torch's own trace."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from powerbench.devices import Device
from powerbench.endings import in_one_line
from powerbench.records import OperatorTimes, ProfilerRecord, Window
from powerbench.rundir import RunDir
from powerbench.rundir.lines import EventWriter
from powerbench.rundir.operators import write_operators

if TYPE_CHECKING:
    from torch.profiler import ProfilerActivity

    from powerbench.workloads import Step

WARM_STEPS = 1
STEPS = 3
ANCHORS = 9


def record_operators(
    step: Step, *, first: int, device: Device, rundir: RunDir, events: EventWriter, stopped: Sequence[int]
) -> None:
    """Make the steps from `first` on, and say in an event what was recorded of them, or why nothing was.

    It comes when the run has been told to be complete: whatever goes wrong here, and be it the end of the process, the
    measured steps stand. `stopped` holds something once it is to end.
    """
    events.write("profiler", time_ns=time.monotonic_ns())
    try:
        record = _recorded(step, first, device, rundir, stopped)
    except (RuntimeError, MemoryError, OSError) as error:  # torch's own words, no memory for its events, a full disk
        record = ProfilerRecord(reason=in_one_line(error))
    events.write("operators", time_ns=time.monotonic_ns(), **msgspec.to_builtins(record))


def _recorded(step: Step, first: int, device: Device, rundir: RunDir, stopped: Sequence[int]) -> ProfilerRecord:
    import torch
    from torch.profiler import profile, schedule

    kind = torch.device(device.torch_device()).type
    activities = activities_for(kind)
    steps: list[Window] = []
    before = anchor()
    with profile(activities=activities, schedule=schedule(wait=0, warmup=WARM_STEPS, active=STEPS, repeat=1)) as told:
        for index in range(first, first + WARM_STEPS + STEPS):
            if stopped:
                return ProfilerRecord(reason="the run was told to stop before its last steps were made")
            start_ns = time.monotonic_ns()
            step(index)
            device.synchronize()
            steps.append(Window(start_ns, time.monotonic_ns()))
            told.step()
    after = anchor()
    times = times_of(told.key_averages(), steps=STEPS, with_device=len(activities) > 1)
    aside = rundir.torch_trace.with_name(f"{rundir.torch_trace.name}.new")
    told.export_chrome_trace(str(aside))
    aside.replace(rundir.torch_trace)
    write_operators(rundir.operators, times)
    return ProfilerRecord(
        steps=steps[WARM_STEPS:],
        device=kind if any(it.device_self_us for it in times) else None,
        monotonic_ns=after[0],
        unix_ns=after[1],
        anchor_width_ns=max(after[2], abs((after[1] - after[0]) - (before[1] - before[0]))),
    )


def activities_for(kind: str) -> list[ProfilerActivity]:
    """What the profiler is to record: the processor, and a device that torch calls `kind` where it can see into it.

    Of mps it cannot (there is no such ProfilerActivity up to torch 2.13).
    """
    from torch.profiler import ProfilerActivity, supported_activities

    own = ProfilerActivity.__members__.get(kind.upper())
    has_own = own not in (None, ProfilerActivity.CPU) and own in supported_activities()
    return [ProfilerActivity.CPU, own] if has_own and own is not None else [ProfilerActivity.CPU]


def anchor(
    *, clock_ns: Callable[[], int] = time.monotonic_ns, calendar_ns: Callable[[], int] = time.time_ns
) -> tuple[int, int, int]:
    """One moment on the clock and on the calendar, and within how many ns both were read: the narrowest of a few."""
    readings = [(clock_ns(), calendar_ns(), clock_ns()) for _ in range(ANCHORS)]
    begun, calendar, ended = min(readings, key=lambda reading: reading[2] - reading[0])
    return (begun + ended) // 2, calendar, ended - begun


def times_of(averages: Iterable[Any], *, steps: int, with_device: bool) -> list[OperatorTimes]:
    """What torch added up by name (FunctionEventAvg: microseconds over all steps), a step's mean, the longest first."""
    times = [
        OperatorTimes(
            name=it.key,
            on=it.device_type.name.lower(),
            calls=it.count / steps,
            cpu_self_us=it.self_cpu_time_total / steps,
            cpu_total_us=it.cpu_time_total / steps,
            device_self_us=it.self_device_time_total / steps if with_device else None,
            device_total_us=it.device_time_total / steps if with_device else None,
        )
        for it in averages
        if not _is_a_shadow(it)
    ]
    return sorted(times, key=lambda it: (it.device_self_us or 0.0, it.cpu_self_us), reverse=True)


def _is_a_shadow(it: Any) -> bool:
    """Whether it is a stretch that the program named, as it lies on the device: no work of its own, but that within."""
    return it.device_type.name != "CPU" and bool(getattr(it, "is_user_annotation", False))
