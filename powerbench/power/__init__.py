"""The meters: each source turns what its sensor gives into rising curves of joules on the machine's clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from powerbench.power.hwmon import Hwmon
from powerbench.power.ioreport import Ioreport
from powerbench.power.nvml import Nvml
from powerbench.power.powermetrics import Powermetrics
from powerbench.power.rapl import Rapl
from powerbench.records import Gauge, RailRecord, Reading


class Meter(Protocol):
    """A source that has been opened. One thread reads it; `close` may be called from another."""

    def read(self) -> list[Reading | Gauge]:
        """Block until the meter's next moment and return what it gave, oldest first.

        The first call returns once the meter is truly delivering. A rail without news is not in the list. After
        `close` it still gives what arrived until then; an empty list is the end. Raises MeterLost.
        """

    def rails(self) -> Mapping[str, RailRecord]:
        """What the curves are, by rail; whole after the first `read`, final (offset, uncertainty) after `close`."""

    def notes(self) -> list[str]:
        """What a reader must know of this recording, a sentence each; final after `close`."""

    def close(self) -> None:
        """Stop and let go of everything that was opened, within 5 s. Closing twice is no error."""


class Source(Protocol):
    """A driver of one kind of sensor."""

    name: str

    def why_unavailable(self) -> str | None:
        """One sentence with the remedy, or None where it can be opened now."""

    def set_up(self) -> Sequence[str]:
        """Commands with which an administrator makes it available for good; none where the sentence says all."""

    def open(self, *, period_s: float) -> Meter:
        """Start metering, a reading each `period_s` where the sensor can. Raises MeterLost if it cannot start."""


SOURCES: dict[str, Source] = {
    "powermetrics": Powermetrics(),
    "ioreport": Ioreport(),
    "nvml": Nvml(),
    "rapl": Rapl(),
    "hwmon": Hwmon(),
}
