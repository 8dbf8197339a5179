"""`misbehaving.py WAY[@RANK] RUN_DIR [RANK]`: the real worker, whose sixth step goes wrong in one of these ways.

Of several ranks all do, or the one that is named.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections.abc import Callable

from powerbench import worker
from powerbench.devices import Device
from powerbench.records import Cell, WorkloadRecord
from powerbench.workloads import WORKLOADS, Step
from powerbench.workloads.laps import Laps
from powerbench.workloads.share import WHOLE, Share

METAL = """\
Error: command buffer exited with error status.
\tThe Metal Performance Shaders operations encoded on it may not have completed.
\tError:
\t(null)
\t{}
\t<AGXG13XFamilyCommandBuffer: 0x3601ec380>
    label = <none>
    device = <AGXG13XDevice: 0x11f3b5400>
        name = Apple M1 Pro
"""
FALLBACK = (
    "The operator 'aten::linalg_svd' is not currently supported on the MPS backend and will fall back to run on the "
    "CPU. This may have performance implications. (Triggered internally at MPSFallback.mm:14.)"
)
SIXTH = 5
CHUNK = 16 << 20

eaten: list[bytearray] = []


def raises() -> None:
    raise ValueError("the abacus has lost a bead")


def is_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crashes() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def eats() -> None:
    while True:
        eaten.append(bytearray(b"x" * CHUNK))


def runs_out_on_metal() -> None:
    sys.stderr.write(METAL.format("Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"))


def fails_on_metal() -> None:
    sys.stderr.write(METAL.format("Internal Error (0000000e:Internal Error)"))


def falls_back() -> None:
    warnings.warn(FALLBACK, UserWarning, stacklevel=1)


def runs_out() -> None:
    raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def hangs() -> None:
    time.sleep(1e6)


def behaves() -> None:
    """Nothing goes wrong."""


WAYS: dict[str, Callable[[], None]] = {
    way.__name__: way
    for way in (
        *(raises, is_killed, crashes, eats, runs_out_on_metal, fails_on_metal, falls_back, runs_out, hangs, behaves),
    )
}


class Misbehaving:
    """Steps of two milliseconds, of which the sixth goes the given way."""

    only_device: str | None = None

    def __init__(self, way: str) -> None:
        self._way = WAYS[way]

    def check(self, cell: Cell) -> None:
        """Whatever the cell."""

    def work(self, cell: Cell) -> float:
        return 1.0

    def build(
        self, cell: Cell, device: Device, laps: Laps | None = None, share: Share = WHOLE
    ) -> tuple[Step, WorkloadRecord]:
        def step(index: int, /) -> None:
            time.sleep(0.002)
            if index == SIXTH:
                self._way()

        return step, WorkloadRecord(samples_per_step=1)


if __name__ == "__main__":
    way, _, rank = sys.argv[1].partition("@")
    WORKLOADS["sleep"] = Misbehaving(way if rank in ("", os.environ.get("RANK")) else "behaves")
    raise SystemExit(worker.main(sys.argv[2:]))
