"""The devices a step can run on, and the one question asked of each: how is the end of a step seen on the clock?"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Literal, Protocol

from powerbench.devices.accelerator import Accelerator
from powerbench.devices.cpu import Cpu
from powerbench.devices.cuda import Cuda, local_rank
from powerbench.devices.mps import Mps
from powerbench.errors import UsageError
from powerbench.records import DeviceRecord

Copy = Literal["async", "blocking", "resident"]


class Timer(Protocol):
    """Writes one mark for each boundary between steps: int64 pairs (submit_ns, end_ns), 0 = not reached.

    The first mark is the origin and always an edge. Edges are written in order, and are final once written.
    """

    anchor_error_ns: int | None
    """How much later than the device's events the clock stood at the last fence; None for timers without events."""

    def mark(self) -> int:
        """Stamp the boundary behind the step just submitted; returns the clock in ns. Called once a step: be quick."""

    def fence(self) -> int:
        """Wait until the device has finished, so that the last boundary gets its edge; returns the clock in ns."""

    def settle(self) -> None:
        """Write the edges that can be read by now, without waiting. About once a second, right behind a mark."""

    def finish(self) -> None:
        """After the last fence, or when nothing more will come: write the edges that can only be read now."""


class Stopwatch(Protocol):
    """Writes how long a rank works itself in each step: int64 pairs (arrived_ns, work_ns), 0 = not known (yet)."""

    def begin(self, index: int) -> None:
        """Here begins step `index`."""

    def arrive(self) -> None:
        """Here begins waiting for others: what comes until `resume` is not its own work."""

    def resume(self) -> None:
        """Here ends waiting for others."""

    def end(self) -> None:
        """Here ends the step; in one without `arrive`, it was all work."""

    def settle(self) -> None:
        """Write what can be read by now, without waiting."""


class OpenEndedTimer(Timer, Protocol):
    """A timer of a loop whose length nobody knows beforehand, and that may pause between two steps."""

    def resume(self) -> int:
        """Stamp the end of a pause, which began at the last boundary; returns the clock in ns. No step is closed."""

    def go_on_in(self, marks: memoryview) -> None:
        """Write into `marks` from now on, which maps the same file, but more of it."""


class Device(Protocol):
    """A kind of device. Only `confirm` and what comes after it may import torch: they run in the worker."""

    name: str
    default_copy: Copy
    default_sync_every: int
    pins_memory: bool
    """Whether an asynchronous copy needs its source in pinned memory."""
    backend: str | None
    """What torch.distributed calls the way in which ranks exchange tensors on it; None where they cannot, with us."""

    def why_unavailable(self) -> str | None:
        """One sentence with the remedy, or None if the device seems to be here. Imports no torch."""

    def check_ranks(self, ranks: int) -> None:
        """Whether so many processes of this machine can step here. Imports no torch. Raises UsageError, Unavailable."""

    def confirm(self) -> str | None:
        """The worker's own check, with torch, before it builds anything: one sentence, or None if all is well."""

    def torch_device(self) -> str:
        """The name by which torch knows it."""

    def describe(self) -> DeviceRecord:
        """What the run records of the device that it stepped on."""

    def settings(self) -> Mapping[str, bool | int | str | None]:
        """torch's switches that change what a step on this device costs, as they stand."""

    def synchronize(self) -> None:
        """Wait until all submitted work is done."""

    def timer(self, marks: memoryview, *, sync_every: int) -> OpenEndedTimer:
        """A timer that writes into `marks` (int64, two a boundary) and takes an edge at each `sync_every`-th."""

    def stopwatch(self, work: memoryview) -> Stopwatch:
        """What writes a rank's own work into `work` (int64, two a step), and never waits for the device."""

    def memory(self) -> Mapping[str, int | None]:
        """Bytes by gauge (`allocated`, `reserved`, ...), cheap enough for an edge; None where torch does not tell."""

    def peak_memory(self) -> tuple[int | None, str]:
        """The most bytes in use so far, and what that figure covers."""


# In the order of choice for `auto`, which never gets past the cpu.
DEVICES: dict[str, Device] = {"mps": Mps(), "cuda": Cuda(), "cpu": Cpu(), "xpu": Accelerator("xpu")}


def device_of_program(name: str) -> Device:
    """The device that a program steps on, which has set it up by itself: `auto`, a name in DEVICES, or `cuda:1`.

    Raises UsageError for a name that no device has.
    """
    kind, colon, index = name.partition(":")
    chosen = choose_device(kind)
    if colon and not index.isdecimal():
        raise UsageError(f"There is no device called {name!r}; write {kind}, or {kind}:0 for the first of several.")
    if chosen == "cuda":
        return Cuda(index=int(index) if colon else local_rank())
    return DEVICES[chosen]


def choose_device(name: str) -> str:
    """The name of a device in `DEVICES`: `name` itself, or for `auto` the best one here.

    Raises UsageError for a name that no device has.
    """
    if name == "auto":
        return next(name for name, device in DEVICES.items() if device.why_unavailable() is None)
    if name in DEVICES:
        return name
    close = get_close_matches(name, DEVICES, n=1, cutoff=0.7)  # gpu is nearer to cpu than to what is meant
    hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(['auto', *DEVICES])}."
    raise UsageError(f"There is no device called {name!r}; {hint}")
