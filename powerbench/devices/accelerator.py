"""Every other accelerator, through what torch offers for all of them: a step is over when its synchronize returns."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from powerbench.devices.cuda import local_rank
from powerbench.devices.stopwatches import ClockStopwatch
from powerbench.devices.timers import FencedTimer
from powerbench.environment import torch_facts
from powerbench.records import DeviceRecord

if TYPE_CHECKING:
    from powerbench.devices import Copy


class Accelerator:
    """The accelerator that torch calls `name`: `xpu` (Intel), or that of an extension (`npu`, `hpu`)."""

    default_copy: Copy = "blocking"
    default_sync_every = 1
    pins_memory = False  # not every backend can, and asking is an error
    backend: str | None = None  # each has one of its own, if any

    def __init__(self, name: str, torch: Any = None) -> None:
        """`torch` stands in for the module; None imports the real one when it is first needed, in the worker."""
        self.name = name
        self._given = torch

    def why_unavailable(self) -> str | None:
        """By what torch was built for, or the extension of torch that brings the device; no driver is asked."""
        extensions = [f"{point.name} {point.value}" for point in entry_points(group="torch.backends")]
        return why_no_accelerator(self.name, torch=torch_facts(), extensions=extensions)

    def check_ranks(self, ranks: int) -> None:
        """No driver is asked here: the worker finds out."""

    def confirm(self) -> str | None:
        """Ask torch which accelerator it has."""
        torch = self._torch()
        found = torch.accelerator.current_accelerator()
        if found is None or found.type != self.name:
            built_for = "none" if found is None else found.type
            return f"The accelerator of torch {torch.__version__} is {built_for}, not {self.name}: {_remedy(self.name)}"
        count, index = torch.accelerator.device_count(), local_rank()
        if index >= count:
            return (
                f"torch sees {count} {self.name} devices and this rank needs number {index}, counted from 0: "
                "check the device's driver, or start fewer ranks."
            )
        return None

    def torch_device(self) -> str:
        """torch's name for this rank's device."""
        return f"{self.name}:{local_rank()}"

    def describe(self) -> DeviceRecord:
        """The device's name where torch knows it; what it could do at best is not known."""
        ask_name = getattr(self._torch().get_device_module(self.name), "get_device_name", None)
        return DeviceRecord(
            kind=self.name,
            name=self.name if ask_name is None else ask_name(local_rank()),
            timer="clock after torch.accelerator.synchronize",
        )

    def settings(self) -> Mapping[str, bool | int | str | None]:
        """The precision of float32 products, which torch keeps for all devices."""
        return {"float32_matmul_precision": self._torch().get_float32_matmul_precision()}

    def synchronize(self) -> None:
        """Wait for all streams of this rank's device."""
        self._torch().accelerator.synchronize(local_rank())

    def timer(self, marks: memoryview, *, sync_every: int) -> FencedTimer:
        """The clock after a synchronize at each `sync_every`-th boundary; with 0, at both ends only."""
        synchronize, index = self._torch().accelerator.synchronize, local_rank()
        return FencedTimer(marks, synchronize=lambda: synchronize(index), sync_every=sync_every)

    def stopwatch(self, work: memoryview) -> ClockStopwatch:
        """The clock, by which each step is fenced too."""
        return ClockStopwatch(work)

    def memory(self) -> Mapping[str, int | None]:
        """Bytes in tensors and bytes that torch's allocator holds; None where torch does not count them."""
        counted = self._memory_stats()
        return {
            "allocated": counted.get("allocated_bytes.all.current"),
            "reserved": counted.get("reserved_bytes.all.current"),
        }

    def peak_memory(self) -> tuple[int | None, str]:
        """torch's own peak since the worker started; None where it keeps none."""
        return self._memory_stats().get("allocated_bytes.all.peak"), f"torch's tensors on the {self.name}"

    def _memory_stats(self) -> Mapping[str, int]:
        """torch's counters, of which `memory_allocated` and its like would read 0 where they are missing."""
        read = getattr(self._torch().accelerator, "memory_stats", None)  # torch 2.6 has none
        if read is None:
            return {}
        try:
            stats: Mapping[str, int] = read(local_rank())
        except RuntimeError:  # "is not a DeviceAllocator": the backend keeps no counters (c10 CachingDeviceAllocator.h)
            return {}
        return stats

    def _torch(self) -> Any:
        if self._given is not None:
            return self._given
        import torch

        return torch


def why_no_accelerator(name: str, *, torch: Mapping[str, str | None], extensions: list[str]) -> str | None:
    """One sentence with the remedy, or None: `torch` as in `torch_facts`, `extensions` those that torch would load."""
    if not torch:
        return f"torch is not installed: {_remedy(name)}"
    if torch.get(name) is None and not any(name in extension for extension in extensions):
        return f"torch {torch.get('__version__')} was built without {name}: {_remedy(name)}"
    return None


def _remedy(name: str) -> str:
    if name == "xpu":
        return "install a build for it as https://pytorch.org/get-started shows."
    return f"install the extension of torch that brings {name}, as its maker describes."
