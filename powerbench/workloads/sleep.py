"""The control: a step of known duration that needs no torch, to check the instrument with."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from powerbench.errors import UsageError
from powerbench.records import Cell, WorkloadRecord, phases_of
from powerbench.workloads.share import WHOLE, Share

if TYPE_CHECKING:
    from powerbench.devices import Device
    from powerbench.workloads import Step
    from powerbench.workloads.laps import Laps


class Sleep:
    """Sleeps `sleep_ms` milliseconds a step."""

    only_device: str | None = "cpu"

    def check(self, cell: Cell) -> None:
        """Only the processor can sleep."""
        if cell.device not in ("auto", self.only_device):
            raise UsageError(f"The model sleep runs on the cpu, not on {cell.device}: leave --device out.")
        if phases_of(cell):
            raise UsageError("The model sleep has no phases and reads nothing: leave --phases and --include-data out.")

    def work(self, cell: Cell) -> float:
        """Milliseconds."""
        return cell.sleep_ms

    def build(
        self, cell: Cell, device: Device, laps: Laps | None = None, share: Share = WHOLE
    ) -> tuple[Step, WorkloadRecord]:
        """Nothing to build."""
        seconds = cell.sleep_ms / 1000

        def step(index: int, /) -> None:
            time.sleep(seconds)

        return step, WorkloadRecord(samples_per_step=None)
