"""Everything that is sampled beside the steps: gauges of machine and workers, into telemetry.csv."""

from __future__ import annotations

from powerbench.gauges import MachineGauges, ProcessGauges
from powerbench.rundir import RunDir
from powerbench.rundir.lines import TELEMETRY_HEADER, LineWriter, gauge_line


class Telemetry:
    """Writes a sample of every gauge each time it is asked."""

    def __init__(self, rundir: RunDir) -> None:
        self._lines = LineWriter(rundir.telemetry, header=TELEMETRY_HEADER)
        self._machine = MachineGauges()
        self._workers = ProcessGauges([], [])

    def watch(self, pids: dict[str, int]) -> None:
        """Sample these processes too, under these names."""
        self._workers = ProcessGauges(list(pids), list(pids.values()))

    def sample(self) -> None:
        """Write the gauges of this moment. Raises OSError where they cannot be written."""
        self._lines.write(map(gauge_line, self._machine.read() + self._workers.read()))

    def close(self) -> None:
        """Let go of the file."""
        self._lines.close()
