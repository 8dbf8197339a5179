"""What a step does: each workload checks a cell without torch, and builds itself in the worker."""

from __future__ import annotations

from typing import Protocol

from powerbench.devices import Device
from powerbench.records import Cell, WorkloadRecord
from powerbench.workloads.bert import Bert
from powerbench.workloads.laps import Laps
from powerbench.workloads.share import WHOLE, Share
from powerbench.workloads.sleep import Sleep


class Step(Protocol):
    """One step of the loop, ready to run: submits its work to the device and returns."""

    def __call__(self, index: int, /) -> None:
        """Run step `index`, counted from 0 through warm-up, measured steps and tail."""


class Workload(Protocol):
    """A kind of step."""

    only_device: str | None
    """The one device that it runs on; None where any will do."""

    def check(self, cell: Cell) -> None:
        """Raise UsageError where the cell makes no sense for this workload. Imports no torch."""

    def work(self, cell: Cell) -> float:
        """How much a step does, in a unit of the workload's own: twice as much takes about twice as long."""

    def build(
        self, cell: Cell, device: Device, laps: Laps | None = None, share: Share = WHOLE
    ) -> tuple[Step, WorkloadRecord]:
        """Everything that a step needs, in memory and on the device, and what a step is. Only in the worker.

        `laps` takes the stamps of the phases, where the cell asks for any (`phases_of`). `share` is this rank's part of
        a step; the record is of all ranks together.
        """


WORKLOADS: dict[str, Workload] = {"bert": Bert(), "sleep": Sleep()}


def workload_of(model: str) -> Workload:
    """The workload that runs `model`: the control by its name, else a classifier."""
    return WORKLOADS["sleep" if model == "sleep" else "bert"]
