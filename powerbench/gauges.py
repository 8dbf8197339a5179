"""What the machine and the workers are doing at a moment: load, clocks, memory, swap and paging."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import psutil

from powerbench.procfs import CoreTimes, MemoryFiles, MemoryUse, ProcessFiles, Usage
from powerbench.records import Gauge

# A little under a second: who samples each second gets them each time.
COSTLY_PERIOD_NS = 950_000_000


class MachineGauges:
    """Samples the whole machine; ratios cover the time since the last sample.

    Asking the kernel for memory, swap and clocks costs a third of a millisecond each where its caches are cold: ten
    times a second that would be the observer's largest share of the measured machine, so they come once a second.
    """

    def __init__(self, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock_ns = clock_ns
        self._look_at_cores, self._look_at_memory = looks_at_machine()
        self._spent = self._look_at_cores()
        self._costly_ns = -COSTLY_PERIOD_NS

    def read(self) -> list[Gauge]:
        """The gauges of this moment; one that the system does not offer, or whose turn it is not, is absent."""
        now = self._clock_ns()
        values = self._ratios()
        if now - self._costly_ns >= COSTLY_PERIOD_NS:
            self._costly_ns = now
            values |= self._costly()
        return [Gauge(now, name, value) for name, value in values.items() if value is not None]

    def _costly(self) -> dict[str, float | None]:
        memory = self._look_at_memory()
        # On macOS psutil gives pageins and pageouts here, which are of files too, and not what the compressor swaps.
        kind = "page" if sys.platform == "darwin" else "swap"
        return {
            "system.load_1min": os.getloadavg()[0],
            "system.memory_available_bytes": memory.available_bytes,
            "system.swap_used_bytes": memory.swap_used_bytes,
            f"system.{kind}_in_bytes": memory.in_bytes,
            f"system.{kind}_out_bytes": memory.out_bytes,
            "cpu.clock_mhz": _clock_mhz(),
        }

    def _ratios(self) -> dict[str, float | None]:
        """The share of the cores' time that was busy, and what of it a hypervisor gave to others (Linux)."""
        before, self._spent = self._spent, self._look_at_cores()
        spent = {what: now - before[what] for what, now in self._spent.items()}
        # guest time is counted in user time as well (man 5 proc)
        total = sum(spent.values()) - spent.get("guest", 0.0) - spent.get("guest_nice", 0.0)
        if total <= 0:
            return {}
        stolen = spent.get("steal")
        return {
            "system.cpu_ratio": 1 - (spent["idle"] + spent.get("iowait", 0.0)) / total,
            "system.steal_ratio": None if stolen is None else stolen / total,
        }


def looks_at_machine() -> tuple[Callable[[], Mapping[str, float]], Callable[[], MemoryUse]]:
    """Looks at what the time of all cores has gone to so far, in one unit or another, and at the memory."""
    if sys.platform == "linux":
        return CoreTimes().look, MemoryFiles().look
    return lambda: psutil.cpu_times()._asdict(), memory_by_psutil


def memory_by_psutil() -> MemoryUse:
    """The memory as psutil shows it anywhere."""
    swap = psutil.swap_memory()
    return MemoryUse(psutil.virtual_memory().available, swap.used, swap.sin, swap.sout)


def is_of_machine(name: str) -> bool:
    """Whether a gauge of this name is one of `MachineGauges`."""
    return name.startswith("system.") or name == "cpu.clock_mhz"


class ProcessGauges:
    """Samples the processes of the run from outside; one that has ended has no gauges."""

    def __init__(self, names: Sequence[str], pids: Sequence[int]) -> None:
        self._processes: list[tuple[str, LooksAtProcess]] = []
        for name, pid in zip(names, pids, strict=True):
            with suppress(OSError, psutil.Error):
                self._processes.append((name, process_at(pid)))
        self._before: dict[str, tuple[int, float]] = {}

    def read(self) -> list[Gauge]:
        """Resident memory, pages read back from disk so far, busy cores since the last sample, and waits for one."""
        gauges: list[Gauge] = []
        for name, process in self._processes:
            with suppress(OSError, psutil.Error):
                gauges += self._gauges(name, time.monotonic_ns(), process.look())
        return gauges

    def _gauges(self, name: str, now: int, usage: Usage) -> Iterator[Gauge]:
        if usage.rss_bytes:  # a process that is ending holds no memory any more: that is no reading of the run's
            yield Gauge(now, f"{name}.rss_bytes", usage.rss_bytes)
        if usage.page_ins is not None:
            yield Gauge(now, f"{name}.page_ins", usage.page_ins)
        if usage.waited_s is not None:
            yield Gauge(now, f"{name}.waited_s", usage.waited_s)
        if name in self._before:
            then, busy_then_s = self._before[name]
            yield Gauge(now, f"{name}.cpu_cores", (usage.busy_s - busy_then_s) / ((now - then) / 1e9))
        self._before[name] = (now, usage.busy_s)


class LooksAtProcess(Protocol):
    """A process that can be looked at from outside."""

    def look(self) -> Usage:
        """What it has used by now. Raises OSError or psutil.Error once it is gone."""


def process_at(pid: int) -> LooksAtProcess:
    """The process of that number. Raises OSError or psutil.Error where there is none."""
    return ProcessFiles(pid) if sys.platform == "linux" else PortableProcess(pid)


class PortableProcess:
    """A process as psutil shows it anywhere. Raises psutil.Error where there is none."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)

    def look(self) -> Usage:
        """What it has used by now. Raises psutil.Error once the process is gone."""
        with self._process.oneshot():
            memory, times = self._process.memory_info(), self._process.cpu_times()
        page_ins = getattr(memory, "pageins", None)  # macOS
        return Usage(rss_bytes=memory.rss, busy_s=times.user + times.system, page_ins=page_ins, waited_s=None)


def _clock_mhz() -> float | None:
    try:
        clock = psutil.cpu_freq()
    except (OSError, NotImplementedError, AttributeError):  # containers and some ARM boards list no clocks
        return None
    return clock.current if clock is not None and clock.current > 0 else None
