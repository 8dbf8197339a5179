"""`straggling.py MS RUN_DIR`: the real worker as one of several ranks; rank 1 idles so long a step, half of it last."""

from __future__ import annotations

import sys
import time

from powerbench import worker
from powerbench.devices import Device
from powerbench.records import Cell, WorkloadRecord
from powerbench.workloads import WORKLOADS, Step, Workload
from powerbench.workloads.laps import Laps
from powerbench.workloads.share import WHOLE, Share


class Straggling:
    """A workload whose steps take rank 1 longer than the others."""

    only_device: str | None = None

    def __init__(self, of: Workload, milliseconds: float) -> None:
        self._of = of
        self._seconds = milliseconds / 1000

    def check(self, cell: Cell) -> None:
        """Whatever the cell."""

    def work(self, cell: Cell) -> float:
        return 1.0

    def build(
        self, cell: Cell, device: Device, laps: Laps | None = None, share: Share = WHOLE
    ) -> tuple[Step, WorkloadRecord]:
        made, what = self._of.build(cell, device, laps, share)
        if share.rank != 1:
            return made, what

        def step(index: int, /) -> None:
            time.sleep(self._seconds / 2)
            made(index)
            time.sleep(self._seconds / 2)

        return step, what


if __name__ == "__main__":
    for name, workload in list(WORKLOADS.items()):
        WORKLOADS[name] = Straggling(workload, float(sys.argv[1]))
    raise SystemExit(worker.main(sys.argv[2:]))
