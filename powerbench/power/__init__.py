"""The meters: each source turns what its sensor gives into rising curves of joules on the machine's clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from powerbench.records import Gauge, RailRecord, Reading


class MeterLost(Exception):
    """The meter gives no more readings (died, lost its device, went back in time): one sentence that says why."""


class Meter(Protocol):
    """A source that has been opened. One thread reads it; `close` may be called from another."""

    def read(self) -> list[Reading | Gauge]:
        """Block until the meter's next moment and return what it gave, oldest first.

        The first call returns once the meter is truly delivering. An empty list means that it was closed.
        Raises MeterLost.
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

    def open(self, *, period_s: float) -> Meter:
        """Start metering, a reading each `period_s` where the sensor can. Raises MeterLost if it cannot start."""


SOURCES: dict[str, Source] = {}
