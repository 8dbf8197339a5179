"""The processor: a step is over when Python is past it."""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from powerbench.devices.stopwatches import ClockStopwatch
from powerbench.devices.timers import InstantTimer
from powerbench.environment import processor_name
from powerbench.records import DeviceRecord

if TYPE_CHECKING:
    from powerbench.devices import Copy

# No core made does more: an AMX unit multiplies 16-bit floats at 2,048 operations a cycle, at most at 4 GHz.
PLAUSIBLE_TFLOP_PER_S_PER_CORE = 8.2


class Cpu:
    """The processor, all of its cores that torch uses."""

    name = "cpu"
    default_copy: Copy = "blocking"
    default_sync_every = 1
    pins_memory = False
    backend: str | None = "gloo"

    def why_unavailable(self) -> str | None:
        """Never: where this runs, there is a processor."""
        return None

    def check_ranks(self, ranks: int) -> None:
        """They share the cores, however many they are."""

    def confirm(self) -> str | None:
        """Nothing to confirm."""
        return None

    def torch_device(self) -> str:
        """torch's name for it."""
        return "cpu"

    def describe(self) -> DeviceRecord:
        """The processor's own name."""
        return DeviceRecord(
            kind="cpu",
            name=processor_name(),
            timer="clock",
            plausible_tflop_per_s=PLAUSIBLE_TFLOP_PER_S_PER_CORE * (os.cpu_count() or 1),
        )

    def settings(self) -> Mapping[str, bool | int | str | None]:
        """None beyond what the environment records."""
        return {}

    def synchronize(self) -> None:
        """Work on the processor is done when its call returns."""

    def timer(self, marks: memoryview, *, sync_every: int) -> InstantTimer:
        """Every boundary is an edge, whatever `sync_every` asks."""
        return InstantTimer(marks)

    def stopwatch(self, work: memoryview) -> ClockStopwatch:
        """The clock: where Python is, the processor is too."""
        return ClockStopwatch(work)

    def memory(self) -> Mapping[str, int | None]:
        """None of its own: the supervisor samples the worker's resident memory from outside."""
        return {}

    def peak_memory(self) -> tuple[int | None, str]:
        """Peak resident memory of this process, in bytes."""
        return peak_resident_bytes(), "the worker's resident memory"


def peak_resident_bytes() -> int | None:
    """The most memory that this process has held; None where the system does not tell.

    On Linux not from getrusage, whose figure a process inherits from the one that started it (man 2 getrusage).
    """
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes, there
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text("utf-8"), re.MULTILINE)
    return None if peak is None else int(peak[1]) * 1024
