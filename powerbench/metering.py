"""Everything that is recorded beside the steps: joules from a thread a meter, gauges of machine and workers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from threading import Event, Thread
from typing import Protocol

import msgspec

from powerbench.attached import Recorder
from powerbench.errors import MeterLost, PowerbenchError, Unavailable, UsageError
from powerbench.gauges import ProcessGauges
from powerbench.power import SOURCES, Meter, Source
from powerbench.records import Cell, Gauge, RailRecord, Reading
from powerbench.rundir import RunDir
from powerbench.rundir.lines import ENERGY_HEADER, TELEMETRY_HEADER, LineWriter, gauge_line, reading_line

PERIOD_S = 0.1
# Of an instrumented run, in which joules are told apart by what ran at the moment; a source that cannot reads slower.
FINE_PERIOD_S = 0.02
# powermetrics has been seen to take this long to its first sample (research on JouleWise: power).
FIRST_READING_S = 20.0
LAST_READING_S = 10.0
# Sources that read the same sensors: the first one that can be read is taken, with `auto`.
ALTERNATIVES = (("powermetrics", "ioreport"),)
SAME_COUNTERS = "{} reads the same counters."


PRESSURE = "thermal_pressure"
NO_PRESSURE = "Nominal"

RECORDER = Recorder.name
METERS: Mapping[str, Source] = {RECORDER: Recorder(), **SOURCES}


class ReadsGauges(Protocol):
    """Something that can be sampled."""

    def read(self) -> list[Gauge]:
        """The gauges of this moment."""


class Telemetry:
    """Writes a sample of every gauge each time it is asked; `latest` holds the last numbers and words, by name."""

    def __init__(self, rundir: RunDir, machine: ReadsGauges) -> None:
        self.latest: dict[str, float] = {}
        self.latest_words: dict[str, str] = {}
        self._pressures: Counter[str] = Counter()
        self._lines = LineWriter(rundir.telemetry, header=TELEMETRY_HEADER)
        self._machine = machine
        self._workers = ProcessGauges([], [])

    def watch(self, pids: dict[str, int]) -> None:
        """Sample these processes too, under these names."""
        self._workers = ProcessGauges(list(pids), list(pids.values()))

    def sample(self) -> None:
        """Write the gauges of this moment. Raises OSError where they cannot be written."""
        self.write(self._machine.read() + self._workers.read())

    def write(self, gauges: Sequence[Gauge]) -> None:
        """Write these gauges; any thread may."""
        self.latest |= {gauge.name: gauge.value for gauge in gauges if not isinstance(gauge.value, str)}
        self.latest_words |= {gauge.name: gauge.value for gauge in gauges if isinstance(gauge.value, str)}
        self._pressures.update(str(gauge.value) for gauge in gauges if gauge.name == PRESSURE)
        self._lines.write(map(gauge_line, gauges))

    def notes(self) -> list[str]:
        """What a reader must know of the machine while this was recorded."""
        looks, pressed = self._pressures.total(), self._pressures.copy()
        del pressed[NO_PRESSURE]
        if not pressed:
            return []
        words = " or ".join(word.lower() for word in sorted(pressed, key=pressed.__getitem__, reverse=True))
        return [
            f"macOS was under thermal pressure ({words}) in {pressed.total() / looks:.0%} of {looks:,} looks, and may "
            "have slowed the machine down."
        ]

    def close(self) -> None:
        """Let go of the file."""
        self._lines.close()


def sources_for(cell: Cell, sources: Mapping[str, Source] = METERS) -> Mapping[str, Source]:
    """The meters that a run may use: the recording that it names, or all."""
    return sources if cell.power_from is None else {RECORDER: Recorder(Path(cell.power_from))}


def choose_for(cell: Cell, sources: Mapping[str, Source] = METERS) -> tuple[list[str], dict[str, str]]:
    """`choose_sources` for a run. Raises UsageError where it names sources and a recording both."""
    if cell.power_from is None:
        return choose_sources(cell.power, sources)
    if cell.power != "auto":
        raise UsageError(f"--power {cell.power} and --power-from exclude each other: a recording has its own sources.")
    reason = sources_for(cell, sources)[RECORDER].why_unavailable()
    if reason is not None:
        raise PowerbenchError(f"--power-from {cell.power_from}: {reason}")
    return [RECORDER], {}


def choose_sources(power: str, sources: Mapping[str, Source] = METERS) -> tuple[list[str], dict[str, str]]:
    """The sources to open, and of the others why not: `power` is auto, none, or names with commas between.

    What a recorder at work reads already is left to it.

    Raises UsageError for a name that no source has, Unavailable for one that was named and cannot be opened.
    """
    if power == "none":
        return [], {}
    recorded = _recorded(sources)
    if power == "auto":
        return _all_that_can_be_opened(sources, recorded)
    names = list(dict.fromkeys(name.strip() for name in power.split(",")))
    if not any(names):
        raise UsageError(f"--power is {power!r} and names no source: give auto, none, or some of {', '.join(sources)}.")
    for name in names:
        if name not in recorded:
            _demand(name, sources)
    return list(dict.fromkeys(RECORDER if name in recorded else name for name in names)), {}


def _recorded(sources: Mapping[str, Source]) -> set[str]:
    recorder = sources.get(RECORDER)
    return recorder.sources() if isinstance(recorder, Recorder) else set()


def _all_that_can_be_opened(sources: Mapping[str, Source], recorded: set[str]) -> tuple[list[str], dict[str, str]]:
    reasons = {name: source.why_unavailable() for name, source in sources.items() if name not in recorded}
    able = [name for name, reason in reasons.items() if reason is None]
    unmetered = {name: reason for name, reason in reasons.items() if reason is not None}
    for first, *others in ALTERNATIVES:
        for other in others if first in recorded.union(able) else []:
            if other in able:
                able.remove(other)
                unmetered[other] = SAME_COUNTERS.format(first)
    return able, unmetered


def _demand(name: str, sources: Mapping[str, Source]) -> None:
    if name not in sources:
        close = get_close_matches(name, sources, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose auto, none, or some of {', '.join(sources)}."
        raise UsageError(f"There is no power source called {name!r}; {hint}")
    reason = sources[name].why_unavailable()
    if reason is not None:
        raise Unavailable(f"--power {name}: {reason}")


class Metering:
    """The meters of a run.

    No two rails share a name: one that another source was first to use gets its own source in front (`ioreport.cpu`).
    """

    def __init__(
        self,
        rundir: RunDir,
        telemetry: Telemetry,
        sources: Mapping[str, Source] = METERS,
        *,
        period_s: float = PERIOD_S,
    ) -> None:
        self._period_s = period_s
        self._lines = LineWriter(rundir.energy, header=ENERGY_HEADER)
        self._telemetry = telemetry
        self._sources = sources
        self._recorders: list[MeterThread] = []
        self.unmetered: dict[str, str] = {}
        self.tried: list[str] = []
        """The sources that were opened and gave no reading."""
        self._owners: dict[str, str] = {}
        self.latest: dict[str, Reading] = {}
        """The last reading of each rail."""

    def start(self, names: Sequence[str], spared: Mapping[str, str], *, pause: Callable[[float], bool]) -> None:
        """Open these sources and wait until each has given a reading.

        Of `spared` sources, with the reasons of `choose_sources`, one is opened where the one that reads its counters
        turned out to give nothing (sudo says that it may be run, and then asks for a password). The rest is unmetered.
        """
        self.open(names)
        self.wait_until_ready(pause=pause)
        self.tried = sorted(self.unmetered)
        instead = [name for name, reason in spared.items() if reason in map(SAME_COUNTERS.format, self.tried)]
        self.open(instead)
        self.wait_until_ready(pause=pause)
        self.tried = sorted(self.unmetered)
        self.unmetered |= {name: reason for name, reason in spared.items() if name not in instead}

    def open(self, names: Sequence[str], *, period_s: float | None = None) -> None:
        """Start a thread for each of these sources; one that cannot start is unmetered, with the reason."""
        period_s = self._period_s if period_s is None else period_s
        for name in names:
            try:
                meter = self._sources[name].open(period_s=period_s)
            except MeterLost as error:
                self.unmetered[name] = str(error)
                continue
            self._recorders.append(MeterThread(name, meter, self._write))

    def wait_until_ready(self, *, timeout_s: float = FIRST_READING_S, pause: Callable[[float], bool]) -> None:
        """Until each meter has given its first reading; one that has not is closed, and unmetered with the reason.

        `pause` waits for so many seconds, or returns True at once where the run is to end.
        """
        deadline_s = time.monotonic() + timeout_s
        while not all(recorder.settled.is_set() for recorder in self._recorders):
            if time.monotonic() > deadline_s or pause(0.02):
                break
        for recorder in self._recorders:
            if not recorder.has_read:
                recorder.close()
                late = f"no reading came within {timeout_s:g} s"
                early = "the run was ended before its first reading"
                self.unmetered[recorder.name] = recorder.lost or (late if time.monotonic() > deadline_s else early)
        self._recorders = [recorder for recorder in self._recorders if recorder.name not in self.unmetered]

    @property
    def slowest_period_s(self) -> float:
        """The longest period of any rail; 0 without one."""
        return max((rail.period_s for rail in self.rails().values()), default=0.0)

    def rails(self) -> dict[str, RailRecord]:
        """What is metered, by rail; offsets are final after `close`."""
        return {
            self._named(recorder.name, rail): msgspec.structs.replace(record, lost=record.lost or recorder.lost)
            for recorder in self._recorders
            for rail, record in recorder.meter.rails().items()
        }

    def lost(self) -> str | None:
        """Why there is no meter left, or None while there is one."""
        reasons = {recorder.name: recorder.lost for recorder in self._recorders}
        if None in reasons.values():
            return None
        return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())

    def notes(self) -> list[str]:
        """What the meters say of this recording, a sentence each."""
        of_meters = [note for recorder in self._recorders for note in recorder.meter.notes()]
        return [*of_meters, *self._telemetry.notes()]

    def close(self) -> None:
        """Stop every meter and let go of the file; closing twice is no error."""
        for recorder in self._recorders:
            recorder.close()
        self._lines.close()

    def _write(self, source: str, readings: Sequence[Reading], gauges: Sequence[Gauge]) -> None:
        named = [point._replace(rail=self._named(source, point.rail)) for point in readings]
        self._lines.write(map(reading_line, named))
        self.latest |= {point.rail: point for point in named}
        self._telemetry.write(gauges)

    def _named(self, source: str, rail: str) -> str:
        return rail if self._owners.setdefault(rail, source) == source else f"{source}.{rail}"


class MeterThread:
    """A meter and the thread that reads it, until it is closed or lost."""

    def __init__(
        self, name: str, meter: Meter, write: Callable[[str, Sequence[Reading], Sequence[Gauge]], None]
    ) -> None:
        self.name = name
        self.meter = meter
        self.has_read = False
        self.lost: str | None = None
        self.settled = Event()
        """Set once there was a first reading, or there will be none."""
        self._write = write
        self._thread = Thread(target=self._record, name=f"meter-{name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the meter and wait, within reason, for what it still has to say."""
        self.meter.close()
        self._thread.join(LAST_READING_S)
        if self._thread.is_alive():
            self.lost = self.lost or f"it did not end within {LAST_READING_S:g} s of being closed"

    def _record(self) -> None:
        try:
            while points := self.meter.read():
                readings = [point for point in points if isinstance(point, Reading)]
                gauges = [point for point in points if isinstance(point, Gauge)]
                self._write(self.name, readings, gauges)
                if readings:
                    self.has_read = True
                    self.settled.set()
        except MeterLost as error:
            self.lost = str(error)
        except OSError as error:
            self.lost = f"its readings could not be written ({error.strerror})"
        self.settled.set()
