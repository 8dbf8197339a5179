"""A powermetrics that runs, as a meter: hands what the process writes to the recording, until it is closed or lost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from threading import Lock

from powerbench.errors import MeterLost
from powerbench.power.powermetrics.child import Child
from powerbench.power.powermetrics.documents import Framing
from powerbench.power.powermetrics.launch import Launch, needs_root
from powerbench.power.powermetrics.process import Process
from powerbench.power.powermetrics.recording import Arrival, Recording
from powerbench.records import Gauge, RailRecord, Reading
from powerbench.units import counted

# JouleWise allows 15 s until the first document; later, silence of several windows means that it hangs.
START_S = 15.0
SILENCE_S = 10.0

CUT_OFF = "The last document of powermetrics was cut off, so its window is not counted."


class PowermetricsMeter:
    """A powermetrics that runs. What arrives while it ends can still be read after `close`."""

    def __init__(self, launch: Launch, *, start: Callable[[Launch], Child], grace_s: float) -> None:
        self._launch = launch
        self._start_child = start
        self._grace_s = grace_s
        self._notes: list[str] = []
        self._pending: list[Reading | Gauge] = []
        self._lost: str | None = None
        self._closed = False
        self._reading = Lock()
        self._closing = Lock()
        self._wake_r, self._wake_w = os.pipe()
        try:
            self._start()
        except MeterLost:
            self._forget_wake()
            raise

    def read(self) -> list[Reading | Gauge]:
        """Block until a document has arrived; see `Meter.read`."""
        with self._reading:
            while not self._pending:
                if self._closed:
                    return []
                if self._lost is not None:
                    raise MeterLost(self._lost)
                if not self._advance():
                    return []
            pending, self._pending = self._pending, []
            return pending

    def rails(self) -> Mapping[str, RailRecord]:
        """What the curves are, by rail."""
        return self._recording.rails()

    def notes(self) -> list[str]:
        """What a reader must know of this recording."""
        return self._notes + self._recording.notes()

    def close(self) -> None:
        """End powermetrics, taking in what it still says: its summary checks the sum."""
        with self._closing:
            if self._closed:
                return
            os.write(self._wake_w, b"\0")
            with self._reading:
                self._closed = True
                self._recording.expect_summary()
                note = self._process.end(take=self._take, grace_s=self._grace_s)
                self._notes += [note] if note else []
                self._notes += [CUT_OFF] if self._framing.unfinished() else []
                self._recording.end()
                self._forget_wake()

    def _start(self) -> None:
        self._framing = Framing()
        self._recording = Recording(started_ns=time.monotonic_ns())
        self._process = Process(self._start_child(self._launch), wake_fd=self._wake_r)

    def _advance(self) -> bool:
        """Take in what comes next; False where `close` has called."""
        try:
            data = self._process.receive(patience_s=self._patience_s())
            if data is None:
                return False
            if data:
                self._take(data)
            else:
                self._at_end_of_stream()
        except MeterLost as lost:
            self._lost = str(lost)
        return True

    def _patience_s(self) -> float:
        period_s = self._launch.period_ms / 1000
        return max(SILENCE_S, 5 * period_s) if self._recording.windows else START_S + period_s

    def _take(self, data: bytes) -> None:
        arrival = Arrival(time.monotonic_ns(), time.time_ns())
        for document in self._framing.feed(data):
            self._pending += self._recording.add(document, arrival)

    def _at_end_of_stream(self) -> None:
        words = self._process.last_words()
        if self._recording.windows:
            raise MeterLost(f"powermetrics ended after {counted(self._recording.windows, 'sample')}{words.ending}")
        sampler = words.unrecognized_sampler()
        if sampler in self._launch.samplers:
            self._start_without(sampler)
        elif self._launch.sudo and words.from_sudo():
            raise MeterLost(needs_root(self._launch))
        else:
            raise MeterLost(f"powermetrics ended before its first sample{words.ending}")

    def _start_without(self, sampler: str) -> None:
        self._process.end(take=lambda data: None, grace_s=self._grace_s)
        self._notes.append(f"This powermetrics knows no sampler {sampler}, so what that tells was not recorded.")
        self._launch = self._launch.without(sampler)
        self._start()

    def _forget_wake(self) -> None:
        os.close(self._wake_r)
        os.close(self._wake_w)
