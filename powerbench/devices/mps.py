"""The GPU of Apple silicon, through Metal: a step is over when torch.mps.synchronize returns."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from powerbench.devices.stopwatches import ClockStopwatch
from powerbench.devices.timers import FencedTimer
from powerbench.environment import processor_name, torch_version
from powerbench.errors import UsageError
from powerbench.records import DeviceRecord

if TYPE_CHECKING:
    from powerbench.devices import Copy

# Above what any Apple GPU core does in any of our dtypes. An M4 core has 128 lanes at 1.6 GHz, two operations each:
# 0.41 TFLOP/s. Of the M5, whose cores have matrix units, Apple says over four times the peak. Doubled for 16 bits.
PLAUSIBLE_TFLOP_PER_S_PER_CORE = 4.0
MOST_CORES = 80  # M3 Ultra, where torch is too old to count them

# The oldest macOS, by the torch release since which it is the oldest. torch 2.5 dropped 12 (PR #133141, issue #139425);
# 13 went in September 2025, when 2.9 was made (PR #163515; issue #164943: a 13.7 that is told "13.0+" and refused).
OLDEST_MACOS = (((2, 9), (14, 0)), ((0, 0), (13, 0)))


class Mps:
    """The GPU of Apple silicon.

    No MPS events: in torch up to 2.13 `elapsed_time` after `synchronize` can wait for ever, an event that has been
    read once cannot be read again, and short intervals come out reversed (pytorch#162872; PR #196395 mends it). Their
    times are also taken in a callback on the host, so they would tell no more than our own clock does.

    `torch.mps.synchronize` holds the GIL, so no other Python thread of the worker runs while a step is waited for.
    """

    name = "mps"
    default_copy: Copy = "blocking"
    default_sync_every = 1
    pins_memory = False  # processor and GPU share their memory
    backend: str | None = None  # one GPU a Mac, and torch has no collectives for it

    def __init__(self, torch: Any = None) -> None:
        """`torch` stands in for the module; None imports the real one when it is first needed, in the worker."""
        self._given = torch
        self._peak_driver: int | None = None

    def why_unavailable(self) -> str | None:
        """By the platform, the version of macOS and whether torch is installed."""
        return why_no_mps(
            system=sys.platform, machine=platform.machine(), macos=platform.mac_ver()[0], torch_version=torch_version()
        )

    def check_ranks(self, ranks: int) -> None:
        """One alone: there is one GPU, and torch has no collectives for it."""
        if ranks > 1:
            raise UsageError(
                f"--ranks {ranks} cannot be measured on mps: a Mac has one GPU, over which torch spreads no work; take "
                "--ranks 1, or --device cpu."
            )

    def confirm(self) -> str | None:
        """Ask torch whether it was built for Metal and finds a GPU."""
        backend = self._torch().backends.mps
        if not backend.is_built():
            return "The installed torch was built without MPS: install the macOS arm64 wheel with `pip install torch`."
        if not backend.is_available():
            return (
                f"torch finds no Metal GPU under macOS {platform.mac_ver()[0]}: update macOS (torch 2.9 and later need "
                "14.0), and in a virtual machine use one that passes the GPU through."
            )
        return None

    def torch_device(self) -> str:
        """torch's name for it."""
        return "mps"

    def describe(self) -> DeviceRecord:
        """The chip's name: the GPU has none of its own, and no identifier."""
        count_cores = getattr(self._torch().backends.mps, "get_core_count", None)  # torch 2.6 has none
        cores = MOST_CORES if count_cores is None else count_cores()
        return DeviceRecord(
            kind="mps",
            name=processor_name(),
            timer="clock after torch.mps.synchronize",
            plausible_tflop_per_s=PLAUSIBLE_TFLOP_PER_S_PER_CORE * cores,
        )

    def settings(self) -> Mapping[str, bool | int | str | None]:
        """None: on mps only environment variables change the arithmetic, and `environment` records those."""
        return {}

    def synchronize(self) -> None:
        """Commit the command buffer and wait for it."""
        self._torch().mps.synchronize()

    def timer(self, marks: memoryview, *, sync_every: int) -> FencedTimer:
        """The clock after a synchronize at each `sync_every`-th boundary; with 0, at both ends only."""
        return FencedTimer(marks, synchronize=self._torch().mps.synchronize, sync_every=sync_every)

    def stopwatch(self, work: memoryview) -> ClockStopwatch:
        """The clock, by which each step is fenced too."""
        return ClockStopwatch(work)

    def memory(self) -> Mapping[str, int | None]:
        """Bytes in tensors, bytes that Metal holds for this process, caches included, and the limit it recommends."""
        mps = self._torch().mps
        driver = mps.driver_allocated_memory()
        self._peak_driver = driver if self._peak_driver is None else max(driver, self._peak_driver)
        return {
            "allocated": mps.current_allocated_memory(),
            "driver": driver,
            "recommended": mps.recommended_max_memory(),
        }

    def peak_memory(self) -> tuple[int | None, str]:
        """The largest `driver` that `memory` has read; None before it has. torch keeps no peak on mps."""
        return self._peak_driver, "the most that Metal held for the worker whenever it was read, at steps' edges"

    def _torch(self) -> Any:
        if self._given is not None:
            return self._given
        import torch

        return torch


def why_no_mps(*, system: str, machine: str, macos: str, torch_version: str | None) -> str | None:
    """One sentence with the remedy, or None: `system` as in `sys.platform`, `macos` as in `platform.mac_ver`."""
    if system != "darwin":
        return f"mps is the GPU of a Mac and this is {system}: take --device cuda or --device cpu."
    if machine != "arm64":
        return (
            f"mps needs Apple silicon and an arm64 Python, and this Python is {machine}: on an Apple silicon Mac "
            "install an arm64 Python, on an Intel Mac take --device cpu."
        )
    if torch_version is None:
        return "torch is not installed: install it with `pip install torch`."
    oldest = next(oldest for since, oldest in OLDEST_MACOS if _version(torch_version) >= since)
    if _version(macos) < oldest:
        return (
            f"torch {torch_version} needs macOS {oldest[0]}.{oldest[1]} for mps and this is {macos}: "
            "update macOS, or take --device cpu."
        )
    return None


def _version(text: str) -> tuple[int, int]:
    """The first two numbers of a version: `2.13.0+cpu` is (2, 13), `15` is (15, 0)."""
    major, minor, *_ = [*text.split("+")[0].split("."), "0"]
    return int(major), int(minor)
