"""Everything that is sampled beside the steps: gauges of machine and workers, into telemetry.csv."""

from __future__ import annotations

from typing import Protocol

from powerbench.gauges import ProcessGauges
from powerbench.records import Gauge
from powerbench.rundir import RunDir
from powerbench.rundir.lines import TELEMETRY_HEADER, LineWriter, gauge_line


class ReadsGauges(Protocol):
    """Something that can be sampled."""

    def read(self) -> list[Gauge]:
        """The gauges of this moment."""


class Telemetry:
    """Writes a sample of every gauge each time it is asked; `latest` holds the last numbers, by name."""

    def __init__(self, rundir: RunDir, machine: ReadsGauges) -> None:
        self.latest: dict[str, float] = {}
        self._lines = LineWriter(rundir.telemetry, header=TELEMETRY_HEADER)
        self._machine = machine
        self._workers = ProcessGauges([], [])

    def watch(self, pids: dict[str, int]) -> None:
        """Sample these processes too, under these names."""
        self._workers = ProcessGauges(list(pids), list(pids.values()))

    def sample(self) -> None:
        """Write the gauges of this moment. Raises OSError where they cannot be written."""
        gauges = self._machine.read() + self._workers.read()
        self.latest |= {gauge.name: gauge.value for gauge in gauges if not isinstance(gauge.value, str)}
        self._lines.write(map(gauge_line, gauges))

    def close(self) -> None:
        """Let go of the file."""
        self._lines.close()
