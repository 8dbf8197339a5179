"""What the machine and the workers are doing at a moment: load, clocks, memory, swap and paging."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

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
        self._times = psutil.cpu_times()
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
        swap = psutil.swap_memory()
        return {
            "system.load_1min": os.getloadavg()[0],
            "system.memory_available_bytes": psutil.virtual_memory().available,
            "system.swap_used_bytes": swap.used,
            **self._paging(swap.sin, swap.sout),
            "cpu.clock_mhz": _clock_mhz(),
        }

    def _paging(self, read_bytes: int, written_bytes: int) -> dict[str, float | None]:
        # On macOS psutil gives pageins and pageouts here, which are of files too, and not what the compressor swaps.
        kind = "page" if sys.platform == "darwin" else "swap"
        return {f"system.{kind}_in_bytes": read_bytes, f"system.{kind}_out_bytes": written_bytes}

    def _ratios(self) -> dict[str, float | None]:
        """The share of the cores' time that was busy, and what of it a hypervisor gave to others (Linux)."""
        before, self._times = self._times, psutil.cpu_times()
        spent = [after - was for after, was in zip(self._times, before, strict=True)]
        # guest time is counted in user time as well (man 5 proc)
        named = dict(zip(self._times._fields, spent, strict=True))
        total = sum(spent) - named.get("guest", 0.0) - named.get("guest_nice", 0.0)
        if total <= 0:
            return {}
        stolen = named.get("steal")
        return {
            "system.cpu_ratio": 1 - (named["idle"] + named.get("iowait", 0.0)) / total,
            "system.steal_ratio": None if stolen is None else stolen / total,
        }


def is_of_machine(name: str) -> bool:
    """Whether a gauge of this name is one of `MachineGauges`."""
    return name.startswith("system.") or name == "cpu.clock_mhz"


class ProcessGauges:
    """Samples the processes of the run from outside; one that has ended has no gauges."""

    def __init__(self, names: Sequence[str], pids: Sequence[int]) -> None:
        self._processes: list[tuple[str, psutil.Process]] = []
        for name, pid in zip(names, pids, strict=True):
            with suppress(psutil.Error):
                self._processes.append((name, psutil.Process(pid)))
        self._before: dict[str, tuple[int, float]] = {}

    def read(self) -> list[Gauge]:
        """Resident memory, pages read back from disk so far, busy cores since the last sample, and waits for one."""
        gauges: list[Gauge] = []
        for name, process in self._processes:
            with suppress(psutil.Error):
                gauges += self._read(name, process)
        return gauges

    def _read(self, name: str, process: psutil.Process) -> list[Gauge]:
        with process.oneshot():
            now = time.monotonic_ns()
            memory, times = process.memory_info(), process.cpu_times()
        # A process that is ending holds no memory any more: that is no reading of the run's.
        gauges = [Gauge(now, f"{name}.rss_bytes", memory.rss)] if memory.rss else []
        page_ins = getattr(memory, "pageins", None) if sys.platform == "darwin" else _major_faults(process.pid)
        if page_ins is not None:
            gauges.append(Gauge(now, f"{name}.page_ins", page_ins))
        waited_s = _waited_s(process.pid)
        if waited_s is not None:
            gauges.append(Gauge(now, f"{name}.waited_s", waited_s))
        busy_s = times.user + times.system
        if name in self._before:
            then, busy_then_s = self._before[name]
            gauges.append(Gauge(now, f"{name}.cpu_cores", (busy_s - busy_then_s) / ((now - then) / 1e9)))
        self._before[name] = (now, busy_s)
        return gauges


def _major_faults(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:
        return None
    # man 5 proc: majflt is field 12; the name, field 2, may hold anything but ends with the last parenthesis.
    return int(stat.rpartition(")")[2].split()[9])


def _waited_s(pid: int) -> float | None:
    """How long the process's first thread, which makes the steps, could have run and had no core; None off Linux."""
    try:
        fields = Path(f"/proc/{pid}/schedstat").read_text("ascii").split()
    except OSError:
        return None
    # Documentation/scheduler/sched-stats: time on a core, time waiting for one (ns), turns; zeros where it is off.
    return int(fields[1]) / 1e9 if len(fields) == 3 and int(fields[2]) else None


def _clock_mhz() -> float | None:
    try:
        clock = psutil.cpu_freq()
    except (OSError, NotImplementedError, AttributeError):  # containers and some ARM boards list no clocks
        return None
    return clock.current if clock is not None and clock.current > 0 else None
