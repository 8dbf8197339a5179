"""`fenced.py SECONDS RUN_DIR RANK`: the real worker on a device like mps, whose fourth step holds the GIL so long."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Mapping

from powerbench import worker
from powerbench.devices import DEVICES
from powerbench.devices.cpu import Cpu
from powerbench.devices.timers import FencedTimer
from powerbench.records import DeviceRecord

NAME = "like-mps"
QUICK_FENCES = 4  # that of the origin, and of three steps


def hold_the_gil(seconds: float) -> None:
    """Wait in C as `torch.mps.synchronize` does: no other thread runs Python meanwhile, and no signal cuts it short.

    PyDLL keeps the GIL during a call. usleep would return at a signal; a wait for a condition does not (POSIX).
    """
    posix = ctypes.PyDLL(None)
    mutex, condition = ctypes.create_string_buffer(256), ctypes.create_string_buffer(256)  # larger than any system's
    posix.pthread_mutex_init(mutex, None)
    posix.pthread_cond_init(condition, None)
    posix.pthread_mutex_lock(mutex)
    end_s = time.time() + seconds
    end = (ctypes.c_long * 2)(int(end_s), int(end_s % 1 * 1e9))  # struct timespec
    posix.pthread_cond_timedwait(condition, mutex, end)


class LikeMps(Cpu):
    """Its synchronize keeps the GIL, as `torch.mps.synchronize` does."""

    name = NAME

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._fences = 0

    def fence(self) -> None:
        self._fences += 1
        if self._fences == QUICK_FENCES + 1:
            hold_the_gil(self._seconds)

    def timer(self, marks: memoryview, *, sync_every: int) -> FencedTimer:  # type: ignore[override]  # Cpu's is finer
        return FencedTimer(marks, synchronize=self.fence, sync_every=sync_every)

    def describe(self) -> DeviceRecord:
        return DeviceRecord(kind=NAME, name="Abacus 3000", timer="clock after a fence")

    def memory(self) -> Mapping[str, int | None]:
        return {"allocated": 12, "driver": 34, "recommended": None}


if __name__ == "__main__":
    DEVICES[NAME] = LikeMps(float(sys.argv[1]))
    raise SystemExit(worker.main(sys.argv[2:]))
