"""The recorder of another process as a meter: a run without rights copies the stretch of its curves that it needs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event

from powerbench.environment import boot_id
from powerbench.errors import MeterLost, PowerbenchError
from powerbench.gauges import is_of_machine
from powerbench.keeper import recorder_command
from powerbench.records import Gauge, RailRecord, Reading
from powerbench.rundir import RunDir
from powerbench.rundir.lines import EndOfFile, read_gauge, read_reading
from powerbench.rundir.live import Found, find_live
from powerbench.rundir.load import is_alive, read_record

NAME = "recorder"
# How long the curves are waited for beyond the moment at which the run has ended (design: three periods at most).
LATE_PERIODS = 3
# A run waits no longer than some 10 s for a meter to end.
SLOWEST_S = 3.0
# Silence loses the meter; after a tenth of it we look whether the recorder is still at work.
SILENCE_S = 10.0


class Recorder:
    """A `powerbench power` of the same user that is at work, or the one that writes into `folder`."""

    name = NAME

    def __init__(
        self, folder: Path | None = None, *, find: Callable[[], Found] = find_live, silence_s: float = SILENCE_S
    ) -> None:
        self._silence_s = silence_s
        self._folder = folder
        self._find = find

    def why_unavailable(self) -> str | None:
        """One sentence with the remedy, or None where one is at work."""
        try:
            self._rundir()
        except MeterLost as error:
            return str(error)
        return None

    def set_up(self) -> tuple[str, ...]:
        """The command that starts one with every right."""
        return (recorder_command(),)

    def sources(self) -> set[str]:
        """The sources whose sensors it reads; none where it is not at work."""
        try:
            return {rail.source for rail in _rails(self._rundir()).values()}
        except MeterLost:
            return set()

    def open(self, *, period_s: float) -> RecorderMeter:
        """Read along from now on. Raises MeterLost."""
        rundir = self._rundir()
        slow = {name: rail.period_s for name, rail in self._rails().items() if rail.period_s > SLOWEST_S}
        if slow:
            raise MeterLost(
                f"The recorder gives a reading of {min(slow)} each {max(slow.values()):.1f} s only, which is too slow "
                f"to tell where a run ends: let it give one each {SLOWEST_S:g} s or more often."
            )
        return RecorderMeter(
            rundir,
            period_s=period_s,
            rails=self._rails,
            is_at_work=lambda: self.why_unavailable() is None,
            silence_s=self._silence_s,
        )

    def _rails(self) -> Mapping[str, RailRecord]:
        """What its rails are by now: from its announcement, or once it has ended from its record."""
        live = self._find().live
        if live is not None and Path(live.run) == self._last.path:
            return live.rails
        return _rails(self._last)

    def _rundir(self) -> RunDir:
        self._last = self._named() if self._folder is not None else self._announced()
        return self._last

    def _announced(self) -> RunDir:
        found = self._find()
        if found.live is None:
            raise MeterLost(
                found.why_not
                or "No recorder is at work: `powerbench power` in another terminal is one, under sudo for all meters."
            )
        return RunDir(Path(found.live.run))

    def _named(self) -> RunDir:
        assert self._folder is not None
        rundir = RunDir(self._folder.resolve())
        if not rundir.record.exists():
            raise MeterLost(f"{self._folder} is no recording: name the folder that `powerbench power` is writing.")
        try:
            record = read_record(rundir)
        except PowerbenchError as error:
            raise MeterLost(str(error)) from error
        if record.cell is not None:
            raise MeterLost(f"{self._folder} is a run, not a recording of `powerbench power`: name one.")
        if record.clock.boot_id != boot_id():
            raise MeterLost(f"{self._folder} was recorded on another boot or machine: name one of this boot.")
        if record.status != "running" or not is_alive(record.supervisor, record.clock.boot_id):
            raise MeterLost(
                f"The recording in {self._folder} has ended: to join it to a run that it covers, use `powerbench "
                "report RUN --power-from DIR`."
            )
        return rundir


def _rails(rundir: RunDir) -> Mapping[str, RailRecord]:
    try:
        return read_record(rundir).rails
    except PowerbenchError as error:
        raise MeterLost(str(error)) from error


class RecorderMeter:
    """Follows the files of a recorder. Joules are counted from its own start, in its provisional times."""

    def __init__(
        self,
        rundir: RunDir,
        *,
        period_s: float,
        rails: Callable[[], Mapping[str, RailRecord]],
        is_at_work: Callable[[], bool],
        silence_s: float,
    ) -> None:
        self._silence_s = silence_s
        self._rundir = rundir
        self._is_at_work = is_at_work
        self._period_s = period_s
        self._ask_rails = rails
        self._rails = dict(rails())
        self._energy, self._telemetry = EndOfFile(rundir.energy), EndOfFile(rundir.telemetry)
        self._latest_ns: dict[str, int] = {}
        self._heard_s = time.monotonic()
        self._closed = Event()
        self._closed_ns: int | None = None
        self._late = False
        self._lock = threading.Lock()

    def read(self) -> list[Reading | Gauge]:
        """Block until the recorder has written more; see `Meter.read`. Raises MeterLost."""
        while True:
            new = self._look()
            if new:
                self._heard_s = time.monotonic()
                return new
            if self._is_over():
                return []
            self._raise_if_silent()
            # After close the event is set: then it is a sleep that we want.
            if self._closed.wait(self._period_s):
                time.sleep(self._period_s / 2)

    def rails(self) -> Mapping[str, RailRecord]:
        """The rails as the recorder last described them; their offsets may still move while it goes on."""
        if not self._closed.is_set():
            return self._described()
        with self._lock:
            self._rails = self._described()
        return self._rails

    def notes(self) -> list[str]:
        """Whence the joules are, and whether they came late."""
        notes = [f"The power was recorded by `powerbench power` (in {self._rundir.path})."]
        if self._late:
            notes.append(
                f"The recorder was slow: {LATE_PERIODS} periods after the run its curve had not reached the end of it."
            )
        return notes

    def close(self) -> None:
        """Read on until the curves have passed this moment, for three periods at most."""
        if self._closed_ns is None:
            self._closed_ns = time.monotonic_ns()
            self._closed.set()

    def _raise_if_silent(self) -> None:
        silent_s = time.monotonic() - self._heard_s
        if silent_s > self._silence_s:
            raise MeterLost(f"the recorder has written nothing for {self._silence_s:g} s")
        if silent_s > self._silence_s / 10 and not self._is_at_work():
            raise MeterLost("the recorder has ended")

    def _look(self) -> list[Reading | Gauge]:
        readings = [reading for line in self._energy.read() if (reading := read_reading(line)) is not None]
        gauges = [gauge for line in self._telemetry.read() if (gauge := read_gauge(line)) is not None]
        for reading in readings:
            self._latest_ns[reading.rail] = max(reading.time_ns, self._latest_ns.get(reading.rail, 0))
        return [*readings, *(gauge for gauge in gauges if not is_of_machine(gauge.name))]

    def _is_over(self) -> bool:
        if self._closed_ns is None:
            return False
        rails = {name: rail for name, rail in self._described().items() if rail.lost is None}
        behind = [
            name for name, rail in rails.items() if self._latest_ns.get(name, 0) + rail.offset_ns < self._closed_ns
        ]
        if not behind:
            return True
        slowest_s = max(rails[name].period_s for name in behind)
        self._late = time.monotonic_ns() - self._closed_ns > LATE_PERIODS * slowest_s * 1e9
        return self._late

    def _described(self) -> dict[str, RailRecord]:
        try:
            return dict(self._ask_rails())
        except MeterLost:  # its folder is gone; what it said last still holds
            return dict(self._rails)
