"""`leaking.py [--within GROUP FILE] RUN_DIR RANK`: the real worker, whose steps keep memory and walk through it all.

With `--within` it lives in that memory cgroup, whose limit it sets a little above what it needs, and its steps read at
random from a mapped file: what they keep takes the room of the file's pages, which must then come from the disk again.
"""

from __future__ import annotations

import mmap
import os
import random
import sys
import time
from pathlib import Path

from powerbench import worker
from powerbench.devices import Device
from powerbench.records import Cell, WorkloadRecord
from powerbench.workloads import WORKLOADS, Step
from powerbench.workloads.laps import Laps
from powerbench.workloads.share import WHOLE, Share

MB = 1 << 20
KEPT_BYTES = MB // 2
FILE_BYTES = 32 * MB
ROOM_BYTES = 40 * MB
PAGES = 200
STEP_S = 0.004

kept: list[bytes] = []


class Leaking:
    """Steps that keep half a megabyte each and look at every byte that was kept."""

    only_device: str | None = None

    def check(self, cell: Cell) -> None:
        """Whatever the cell."""

    def work(self, cell: Cell) -> float:
        return 1.0

    def build(
        self, cell: Cell, device: Device, laps: Laps | None = None, share: Share = WHOLE
    ) -> tuple[Step, WorkloadRecord]:
        def step(index: int, /) -> None:
            kept.append(os.urandom(4096) * (KEPT_BYTES // 4096))
            time.sleep(STEP_S)
            for block in kept:
                block.count(b"x")

        return step, WorkloadRecord(samples_per_step=1)


class Paging:
    """Steps that keep half a megabyte each and read pages of a file, all of which are in memory at first."""

    only_device: str | None = None

    def __init__(self, group: Path, file: Path) -> None:
        self._group = group
        self._file = file

    def check(self, cell: Cell) -> None:
        """Whatever the cell."""

    def work(self, cell: Cell) -> float:
        return 1.0

    def build(
        self, cell: Cell, device: Device, laps: Laps | None = None, share: Share = WHOLE
    ) -> tuple[Step, WorkloadRecord]:
        with self._file.open("wb+") as file:  # written here: a page counts for the group that was first to touch it
            file.write(os.urandom(FILE_BYTES))
            os.fsync(file.fileno())
            pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        pages.madvise(mmap.MADV_RANDOM)  # a page that is missing is read alone
        places = range(0, len(pages), mmap.PAGESIZE)
        sum(pages[at] for at in places)
        limit_memory(self._group, room_bytes=ROOM_BYTES)
        chosen = random.Random(0)

        def step(index: int, /) -> None:
            kept.append(os.urandom(4096) * (KEPT_BYTES // 4096))
            time.sleep(STEP_S)
            sum(pages[at] for at in chosen.sample(places, PAGES))

        return step, WorkloadRecord(samples_per_step=1)


def limit_memory(group: Path, *, room_bytes: int) -> None:
    """Allow the group so much more than it uses."""
    for used, limit in (("memory.usage_in_bytes", "memory.limit_in_bytes"), ("memory.current", "memory.max")):
        if (group / used).exists():
            (group / limit).write_text(str(int((group / used).read_text()) + room_bytes))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[0] == "--within":
        _, group, file, *arguments = arguments
        (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
        WORKLOADS["sleep"] = Paging(Path(group), Path(file))
    else:
        WORKLOADS["sleep"] = Leaking()
    raise SystemExit(worker.main(arguments))
