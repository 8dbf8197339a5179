"""`two_functions.py [SECONDS WORDS] RUN_DIR RANK`: the real worker, whose step is two functions, noted as they ran.

With SECONDS each of them takes so long, and says into the pipe WORDS what a fake meter draws from then on.
"""

from __future__ import annotations

import os
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
    draw(20)
    time.sleep(seconds["cold"])


def hot() -> None:
    """Takes more power."""
    draw(60)
    time.sleep(seconds["hot"])


def draw(watts: int) -> None:
    """Tell the meter, if there is one."""
    for pipe in words:
        os.write(pipe, f"WATTS intel-rapl:0={watts}\n".encode())


seconds = {"cold": 0.8, "hot": 0.5}
words: list[int] = []

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if len(arguments) > 2:
        seconds = dict.fromkeys(seconds, float(arguments[0]))
        words.append(os.open(arguments[1], os.O_WRONLY))
        arguments = arguments[2:]
    WORKLOADS["sleep"] = TwoFunctions(Path(arguments[0]))
    raise SystemExit(worker.main(arguments))
