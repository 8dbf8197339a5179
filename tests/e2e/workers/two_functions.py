"""`two_functions.py RUN_DIR RANK`: the real worker, whose step is two functions of known length, noted as they ran."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from powerbench import worker
from powerbench.devices import Device
from powerbench.records import Cell, WorkloadRecord
from powerbench.workloads import WORKLOADS, Step
from powerbench.workloads.laps import Laps

STAMPS = "stamps.csv"
"""A line a call: the function, and when it began and ended."""
COLD_S, HOT_S = 0.8, 0.5


class TwoFunctions:
    """Steps that call `cold`, then `hot`."""

    only_device: str | None = None

    def __init__(self, folder: Path) -> None:
        self._stamps = folder / STAMPS

    def check(self, cell: Cell) -> None:
        """Whatever the cell."""

    def work(self, cell: Cell) -> float:
        return 1.0

    def build(self, cell: Cell, device: Device, laps: Laps | None = None) -> tuple[Step, WorkloadRecord]:
        def step(index: int, /) -> None:
            times = [time.monotonic_ns()]
            cold()
            times.append(time.monotonic_ns())
            hot()
            times.append(time.monotonic_ns())
            with self._stamps.open("a") as file:
                file.write(f"cold,{times[0]},{times[1]}\nhot,{times[1]},{times[2]}\n")

        return step, WorkloadRecord(samples_per_step=1)


def cold() -> None:
    """Takes longer."""
    time.sleep(COLD_S)


def hot() -> None:
    """Takes more power."""
    time.sleep(HOT_S)


if __name__ == "__main__":
    WORKLOADS["sleep"] = TwoFunctions(Path(sys.argv[1]))
    raise SystemExit(worker.main(sys.argv[1:]))
