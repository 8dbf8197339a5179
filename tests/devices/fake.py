"""A device that works while Python goes on, on a clock of the test's choosing, and a torch that drives it."""

from __future__ import annotations

import ctypes
import inspect
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import reduce, wraps
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, Protocol

MS = 1_000_000
S = 1_000 * MS


class Time(Protocol):
    """Where a fake device lives."""

    def now_ns(self) -> int:
        """The clock."""

    def wait_until(self, moment_ns: int) -> None:
        """Return when the clock has reached it."""


class VirtualTime:
    """A clock that moves only when somebody waits: answers are exact, and ten hours pass at once."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        return self._now_ns

    def wait_until(self, moment_ns: int) -> None:
        self._now_ns = max(self._now_ns, moment_ns)


class RealTime:
    """The machine's clock; `sleep` takes seconds, and whether it holds the GIL is its own affair."""

    def __init__(self, sleep: Callable[[float], object] = time.sleep) -> None:
        self._sleep = sleep

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def wait_until(self, moment_ns: int) -> None:
        while (left_ns := moment_ns - time.monotonic_ns()) > 0:
            self._sleep(left_ns / S)


def sleep_holding_the_gil(seconds: float) -> None:
    """Wait as `torch.mps.synchronize` does: no other Python thread runs. ctypes.PyDLL keeps the GIL in a call."""
    ctypes.PyDLL(None).usleep(round(seconds * 1e6))


class FakeDevice:
    """Does the work it is given in order, beside Python, each piece from when it is free until it is done.

    It is a row of deadlines, and no thread: a device needs no GIL to make progress, and a thread of ours that stood in
    for it would never finish while `synchronize` holds the GIL.
    """

    def __init__(self, time: Time, *, synchronize_ns: int = 0, clock_rate: Fraction = Fraction(1)) -> None:
        self.time = time
        self.done_ns = 0
        self.calls: list[str] = []
        self._synchronize_ns = synchronize_ns
        self._clock_rate = clock_rate

    def submit(self, work_ns: int, *, enqueue_ns: int = 0) -> None:
        """Enqueue a piece of work, which takes Python `enqueue_ns`."""
        self.calls.append("submit")
        self.time.wait_until(self.time.now_ns() + enqueue_ns)
        self.done_ns = max(self.done_ns, self.time.now_ns()) + work_ns

    def synchronize(self) -> None:
        """Wait until all work is done; that is noticed `synchronize_ns` later."""
        self.calls.append("synchronize")
        self.time.wait_until(self.done_ns)
        self.time.wait_until(self.time.now_ns() + self._synchronize_ns)

    def blocking_copy(self) -> None:
        """Copy to the device, or read an `item()` from it: a fence either way."""
        self.calls.append("copy")
        self.time.wait_until(self.done_ns)

    def is_past(self, moment_ns: int) -> bool:
        return self.time.now_ns() >= moment_ns

    def own_clock_ns(self, moment_ns: int) -> Fraction:
        """A moment on the device's own clock, which started elsewhere and runs at another rate."""
        return 77 * S + moment_ns * self._clock_rate


class FakeEvent:
    """As `torch.cuda.Event`: passed when the work before it is done; elapsed times are float32 milliseconds."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device
        self._reached_ns: int | None = None

    def record(self, stream: object = None) -> None:
        self._device.calls.append("record")
        self._reached_ns = self._device.done_ns = max(self._device.done_ns, self._device.time.now_ns())

    def query(self) -> bool:
        return self._reached_ns is None or self._device.is_past(self._reached_ns)

    def elapsed_time(self, end_event: FakeEvent) -> float:
        from numpy import float32

        start, end = self._reached_ns, end_event._reached_ns
        if start is None or end is None:
            raise ValueError("Both events must be recorded before calculating elapsed time.")
        if not (self.query() and end_event.query()):
            raise RuntimeError("Both events must be completed before calculating elapsed time.")
        return float(float32((self._device.own_clock_ns(end) - self._device.own_clock_ns(start)) / MS))


def marks_for(boundaries: int) -> memoryview:
    """Room for that many marks."""
    return memoryview(bytearray(16 * boundaries)).cast("q")


def submits(marks: memoryview) -> list[int]:
    return marks.tolist()[0::2]


def ends(marks: memoryview) -> list[int]:
    return marks.tolist()[1::2]


def gaps(moments: list[int]) -> list[int]:
    """What lies between neighbours."""
    return [later - earlier for earlier, later in pairwise(moments)]


def fake_torch(parts: Mapping[str, object]) -> Any:
    """A torch made of `parts` (`cuda.synchronize` and so on), and nothing else.

    Each part must exist in the torch that is installed, and where that is a function, ours refuses every call that the
    real one would refuse: so neither a misspelt name nor a wrong argument can hide behind a fake.
    """
    import torch

    root = SimpleNamespace()
    for path, part in parts.items():
        real = reduce(getattr, path.split("."), torch)
        *folders, name = path.split(".")
        place = root
        for folder in folders:
            place.__dict__.setdefault(folder, SimpleNamespace())
            place = getattr(place, folder)
        setattr(place, name, as_strict_as(real, part) if callable(part) else part)
    return root


def as_strict_as(real: Any, part: Callable[..., object]) -> Callable[..., object]:
    """`part`, taking only the arguments that `real` takes."""
    signature = inspect.signature(real)

    @wraps(part)
    def checked(*args: object, **kwargs: object) -> object:
        signature.bind(*args, **kwargs)
        return part(*args, **kwargs)

    return checked
