"""What the polled meters share: a steady schedule, and how counters and samples of power become joules."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from powerbench.errors import MeterLost
from powerbench.records import Gauge, RailRecord, Reading
from powerbench.units import NS_PER_S, seconds_from_ns

# A driver that hangs in a call holds the meter's lock; `close` must be done in 5 s and leaves such a meter alone.
CLOSING_S = 4.0


class Schedule:
    """Moments one period apart from the first `wait`, which returns at once.

    One who comes late waits for the next moment that is still ahead: what was missed is skipped and not made up for.

        moments   |     |     |     |     |
        waits     x     x~~~~~~~x   x     x        ~ busy past a moment: on to the one after it
    """

    def __init__(self, period_s: float, *, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._period_ns = max(1, round(period_s * NS_PER_S))
        self._clock_ns = clock_ns
        self._next_ns: int | None = None
        self._is_closed = False
        self._closing = threading.Lock()
        # Held until `close`. Waiting for it is one call: an Event, written in Python, makes a lock anew for each wait,
        # and ten waits a second of each meter are a good part of what it costs the measured machine.
        self._until_closed = threading.Lock()
        self._until_closed.acquire()

    def wait(self) -> bool:
        """Block until the next moment; False at once where `close` was or is called."""
        now_ns = self._clock_ns()
        if self._next_ns is None:
            self._next_ns = now_ns + self._period_ns
            return not self._is_closed
        late_ns = now_ns - self._next_ns
        if late_ns > 0:
            self._next_ns += self._period_ns * -(-late_ns // self._period_ns)
        due_ns = self._next_ns
        self._next_ns += self._period_ns
        return self._sleep_until(due_ns)

    def close(self) -> None:
        """End the wait in progress, and every later one; for any thread."""
        with self._closing:
            if not self._is_closed:
                self._is_closed = True
                self._until_closed.release()

    def _sleep_until(self, due_ns: int) -> bool:
        while (left_ns := due_ns - self._clock_ns()) > 0:  # a sleep may end a little early
            if self._until_closed.acquire(timeout=seconds_from_ns(left_ns)):
                self._until_closed.release()
                return False
        return not self._is_closed


class Waits(Protocol):
    """Something that says when it is time: a Schedule, or a test's stand-in for one."""

    def wait(self) -> bool:
        """Block until the next moment; False where it was closed."""

    def close(self) -> None:
        """End every wait."""


class PowerIntegral:
    """Joules under samples of power, by the trapezoid rule.

    Every sample counts, also one equal to the last: dropping those turns a constant 300 W into nothing
    (zeus 0.16.0's PowerMonitor; research/power.md §4).
    """

    def __init__(self) -> None:
        self.energy_j = 0.0
        self._last: tuple[int, float] | None = None

    def add(self, time_ns: int, power_w: float) -> float:
        """Joules from the first sample up to this one, which is the newest."""
        if self._last is not None:
            then_ns, power_then_w = self._last
            self.energy_j += (power_w + power_then_w) / 2 * seconds_from_ns(time_ns - then_ns)
        self._last = time_ns, power_w
        return self.energy_j


class WentBack(Exception):
    """A counter showed less than before, and nothing says that it had come to its end."""

    def __init__(self, before: int, now: int) -> None:
        super().__init__(f"went back from {before:,} to {now:,}")


class Counter:
    """How far a rising counter has come since its first value.

    `maximum` is its greatest value, after which it starts anew from 0; None where that is not known.
    """

    def __init__(self, maximum: int | None = None) -> None:
        self.total = 0
        self._maximum = maximum
        self._last: int | None = None

    def add(self, value: int, *, at_most: float = math.inf) -> int:
        """The way since the first value, with at most one wrap since the last.

        Raises WentBack where it shows less and the way round would be unknown, or more than `at_most`.
        """
        if self._last is not None:
            self.total += value - self._last if value >= self._last else self._way_round(value, at_most)
        self._last = value
        return self.total

    def _way_round(self, value: int, at_most: float) -> int:
        last = self._last or 0
        way = None if self._maximum is None else (value - last) % (self._maximum + 1)
        if way is None or way > at_most:
            raise WentBack(last, value)
        return way


class PolledMeter(ABC):
    """A meter that asks its sensors at each moment of a schedule; a subclass says what it asks.

    A rail whose sensor fails ends, with the reason in its record; the meter is lost with its last rail.
    """

    def __init__(self, schedule: Waits, rails: Mapping[str, RailRecord]) -> None:
        self._schedule = schedule
        self._rails = dict(rails)
        self._closed = False
        self._lock = threading.Lock()

    def read(self) -> list[Reading | Gauge]:
        """What the sensors give at the next moment. Raises MeterLost once no rail is left."""
        while self._schedule.wait():
            with self._lock:
                if self._closed:
                    break
                self._raise_if_over()
                given = self._poll()
            if given:
                return given
        return []

    def rails(self) -> Mapping[str, RailRecord]:
        """The rails, with the reason where one has ended."""
        return dict(self._rails)

    def notes(self) -> list[str]:
        """Nothing, unless a subclass has something to say."""
        return []

    def close(self) -> None:
        """Stop, once the poll in progress is over."""
        self._schedule.close()
        if not self._lock.acquire(timeout=CLOSING_S):
            return
        try:
            if not self._closed:
                self._closed = True
                self._let_go()
        finally:
            self._lock.release()

    @abstractmethod
    def _poll(self) -> list[Reading | Gauge]:
        """Ask every sensor once."""

    @abstractmethod
    def _let_go(self) -> None:
        """Close what was opened."""

    def _is_live(self, rail: str) -> bool:
        return self._rails[rail].lost is None

    def _end(self, rail: str, why: str) -> None:
        """End the curve of `rail` for this reason, unless it has ended before."""
        if self._is_live(rail):
            self._rails[rail] = msgspec.structs.replace(self._rails[rail], lost=why)

    def _raise_if_over(self) -> None:
        for record in self._rails.values():
            if record.lost is None:
                return
        raise MeterLost("; ".join(f"{rail}: {record.lost}" for rail, record in self._rails.items()))


def sysfs_root(variables: Mapping[str, str] = os.environ) -> Path:
    """Where the kernel shows its devices; POWERBENCH_SYSFS moves it for tests and containers, but never under sudo."""
    moved = variables.get("POWERBENCH_SYSFS")
    return Path(moved) if moved and "SUDO_UID" not in variables else Path("/sys")


def why_no_sysfs(source: str, variables: Mapping[str, str], system: str = sys.platform) -> str | None:
    """One sentence where this is no Linux, unless POWERBENCH_SYSFS names a tree to read."""
    if system == "linux" or sysfs_root(variables) != Path("/sys"):
        return None
    return f"{source} needs Linux and this is {system}: take ioreport or powermetrics on a Mac."
