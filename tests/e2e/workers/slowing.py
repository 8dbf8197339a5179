"""`slowing.py WAY RUN_DIR RANK`: the real worker, whose steps become slower half-way, in one of these ways."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from powerbench import worker
from powerbench.devices import DEVICES, Device
from powerbench.devices.cpu import Cpu
from powerbench.devices.timers import FencedTimer
from powerbench.records import Cell, DeviceRecord, WorkloadRecord
from powerbench.workloads import WORKLOADS, Step
from powerbench.workloads.laps import Laps
from powerbench.workloads.share import WHOLE, Share
from tests.devices.fake import MS, FakeDevice, S

NAME, UUID = "like-cuda", "GPU-abacus"
CHANGED = "changed"
"""The file in the run's directory that says that the steps are slower from now on."""
FAST, SLOW = 200, 80
"""How many are fast, and how many are slow behind them."""
FAST_NS, SLOW_NS = 3 * MS, 10 * MS
ENQUEUE_NS = MS // 2
LEAK_BYTES = 2_000_000
MANY_OBJECTS = 200_000  # their collection takes longer than a step, which would hide a shorter one


class Plan:
    """A clock that goes by what the steps are meant to take, and waits for the machine's to come that far.

    So latencies are exact on a machine however busy, while gauges and meters beside them are sampled as ever.
    """

    def __init__(self) -> None:
        self._now_ns = time.monotonic_ns()

    def now_ns(self) -> int:
        return self._now_ns

    def wait_until(self, moment_ns: int) -> None:
        self._now_ns = max(self._now_ns, moment_ns)
        while (left_ns := self._now_ns - time.monotonic_ns()) > 0:
            time.sleep(left_ns / S)

    def spend(self, doing: Callable[[], object]) -> None:
        """Do something that takes the time that it takes."""
        start_ns = time.monotonic_ns()
        doing()
        self._now_ns += time.monotonic_ns() - start_ns


plan = Plan()
gpu = FakeDevice(plan)
kept: list[list[int]] = []
allocated = 1_000_000_000


def work(work_ns: int) -> None:
    gpu.submit(work_ns, enqueue_ns=ENQUEUE_NS)


def stays(index: int) -> None:
    work(2 * FAST_NS)


def slows(index: int) -> None:
    work(FAST_NS if index < FAST else SLOW_NS)


def leaks(index: int) -> None:
    """Each step keeps some memory of the device and takes a little longer than the one before."""
    global allocated
    allocated += LEAK_BYTES
    work(FAST_NS + (SLOW_NS - FAST_NS) * index // (FAST + SLOW))


def collects(index: int) -> None:
    """From half-way on there are many objects, and each step has a collection that looks at all of them."""
    work(FAST_NS)
    if index == FAST:
        kept.extend([at] for at in range(MANY_OBJECTS))
    if index >= FAST:
        plan.spend(gc.collect)


def copies(index: int) -> None:
    """As a script that never waits, but for its blocking copy of the batch, which waits for the step before."""
    gpu.blocking_copy()
    work(SLOW_NS)


WAYS: dict[str, Callable[[int], None]] = {way.__name__: way for way in (stays, slows, leaks, collects, copies)}


class LikeCuda(Cpu):
    """A device that works while Python goes on, and counts its memory."""

    name = NAME

    def timer(self, marks: memoryview, *, sync_every: int) -> FencedTimer:  # type: ignore[override]  # Cpu's is finer
        return FencedTimer(marks, synchronize=gpu.synchronize, sync_every=sync_every, clock=plan.now_ns)

    def describe(self) -> DeviceRecord:
        return DeviceRecord(kind="cuda", name="Abacus 3000", timer="clock after a fence", uuid=UUID)

    def memory(self) -> Mapping[str, int | None]:
        return {"allocated": allocated, "reserved": allocated + 100_000_000}


class Slowing:
    """Steps that go the given way."""

    only_device: str | None = None

    def __init__(self, way: str, folder: Path) -> None:
        self._way = WAYS[way]
        self._changed = folder / CHANGED

    def check(self, cell: Cell) -> None:
        """Whatever the cell."""

    def work(self, cell: Cell) -> float:
        return 1.0

    def build(
        self, cell: Cell, device: Device, laps: Laps | None = None, share: Share = WHOLE
    ) -> tuple[Step, WorkloadRecord]:
        def step(index: int, /) -> None:
            if index == FAST:
                self._changed.touch()
            self._way(index)

        return step, WorkloadRecord(samples_per_step=1)


if __name__ == "__main__":
    DEVICES[NAME] = LikeCuda()
    WORKLOADS["sleep"] = Slowing(sys.argv[1], Path(sys.argv[2]))
    raise SystemExit(worker.main(sys.argv[2:]))
