"""Files that grow by whole lines: written with one `write` a batch, read without a last line that has no end."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from powerbench.records import EnergyCurve, Gauge, RailRecord, Reading

TELEMETRY_HEADER = "time_ns,name,value"
STEPS_HEADER = "step,stage,start_ns,submit_ns,end_ns"
ENERGY_HEADER = "time_ns,rail,energy_j"


class LineWriter:
    """Appends lines to a file of which this process is the only writer. Raises OSError (a full disk, say)."""

    def __init__(self, path: Path, *, header: str | None = None) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        if header is not None and os.fstat(self._fd).st_size == 0:
            self.write([header])

    def write(self, lines: Iterable[str]) -> None:
        """Append `lines`, all with one system call."""
        data = "\n".join([*lines, ""]).encode()
        if data and os.write(self._fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def close(self) -> None:
        """Let go of the file; closing twice is no error."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class EventWriter:
    """Appends events, one JSON object a line, each stamped with the monotonic clock by its sender."""

    def __init__(self, path: Path) -> None:
        self._lines = LineWriter(path)

    def write(self, event: str, *, time_ns: int, **facts: Any) -> None:
        """Append one event."""
        self._lines.write([msgspec.json.encode({"event": event, "time_ns": time_ns, **facts}).decode()])


class LineTail:
    """Reads on from where the last call stopped; a line that is not ended yet waits for the next call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[str]:
        """The whole lines that came since the last call; none while the file does not exist."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        # Not splitlines(): an event's text may hold other characters that it takes for ends of lines.
        return whole.decode("utf-8", errors="replace").split("\n")[:-1]


class EndOfFile(LineTail):
    """Reads what is written from now on; of the line that is being written, nothing."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return
        self._offset = max(0, size - 1)
        self._torn = size > 0

    _torn = False

    def read(self) -> list[str]:
        """The whole lines that came since the last call."""
        lines = super().read()
        # Begun one byte before the end: what comes first is the rest of a line that was there, if only its newline.
        if self._torn and lines:
            self._torn = False
            return lines[1:]
        return lines


def read_events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The events in `lines`; a line that is none (damaged by a crash) is passed over."""
    for line in lines:
        try:
            event = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            continue
        if isinstance(event.get("event"), str):
            yield event


def gauge_line(gauge: Gauge) -> str:
    """A row of telemetry.csv. Names and words never hold a comma: they are our own."""
    value = gauge.value
    return f"{gauge.time_ns},{gauge.name},{value if isinstance(value, str) else format(value, '.15g')}"


def reading_line(reading: Reading) -> str:
    """A row of energy.csv, to the microjoule."""
    return f"{reading.time_ns},{reading.rail},{reading.energy_j:.6f}"


def read_gauge(line: str) -> Gauge | None:
    """A row of telemetry.csv; None for one that a crash left damaged."""
    time, _, rest = line.partition(",")
    name, _, value = rest.partition(",")
    try:
        time_ns = int(time)
    except ValueError:
        return None
    try:
        return Gauge(time_ns, name, float(value))
    except ValueError:
        return Gauge(time_ns, name, value) if value else None


def read_reading(line: str) -> Reading | None:
    """A row of energy.csv; None for one that a crash left damaged."""
    try:
        time, rail, energy = line.split(",")
        return Reading(int(time), rail, float(energy))
    except ValueError:
        return None


def read_telemetry(path: Path) -> dict[str, list[tuple[int, float]]]:
    """The numeric gauges of telemetry.csv by name, as (time_ns, value) in the order of the file."""
    gauges: dict[str, list[tuple[int, float]]] = {}
    for line in LineTail(path).read()[1:]:
        gauge = read_gauge(line)
        if gauge is not None and not isinstance(gauge.value, str):
            gauges.setdefault(gauge.name, []).append((gauge.time_ns, gauge.value))
    return gauges


def read_words(path: Path) -> dict[str, list[tuple[int, str]]]:
    """The gauges of telemetry.csv that are words (`thermal_pressure`), by name, as `read_telemetry` gives numbers."""
    gauges: dict[str, list[tuple[int, str]]] = {}
    for line in LineTail(path).read()[1:]:
        gauge = read_gauge(line)
        if gauge is not None and isinstance(gauge.value, str):
            gauges.setdefault(gauge.name, []).append((gauge.time_ns, gauge.value))
    return gauges


def read_energy(path: Path, rails: Mapping[str, RailRecord]) -> dict[str, EnergyCurve]:
    """The curves in energy.csv by rail, with each meter's offset added to its times; damaged rows are passed over."""
    curves: dict[str, EnergyCurve] = {}
    offsets_ns = {name: rail.offset_ns for name, rail in rails.items()}
    for line in LineTail(path).read()[1:]:
        try:
            time, rail, energy = line.split(",")
            time_ns, energy_j = int(time), float(energy)
        except ValueError:
            continue
        curve = curves.get(rail) or curves.setdefault(rail, EnergyCurve())
        curve.time_ns.append(time_ns + offsets_ns.get(rail, 0))
        curve.energy_j.append(energy_j)
    return curves
