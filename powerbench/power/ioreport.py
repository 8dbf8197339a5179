"""The meter that needs no root on a Mac: Apple's energy counters, polled through zeus-apple-silicon."""

from __future__ import annotations

import importlib
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from threading import Lock
from typing import Any, Literal, NamedTuple, Protocol, cast

from powerbench.environment import is_virtual_machine, processor_name
from powerbench.errors import MeterLost
from powerbench.power.polling import Schedule, Waits
from powerbench.records import Gauge, RailRecord, Reading
from powerbench.units import NS_PER_S, counted, seconds_from_ns

MODULE = "zeus_apple_silicon"
# The counters hold whole mJ: its README calls windows below 10 ms noise of quantisation.
SHORTEST_PERIOD_S = 0.02

# An M5 Max publishes its mJ counters 2.03 to 2.23 s apart (lablup/all-smi#410); macOS 27 leaves those of the CPU and
# of the memory at rest for good (exelban/stats#3608).
STALL_NS = 10 * NS_PER_S
LUMP_NS = NS_PER_S
LUMP_MJ = 100
FEW_LUMPS = 3

ONE_DIE = (
    "ioreport has no cpu rail on an Ultra: zeus-apple-silicon 1.1 keeps the energy of one die of two; powermetrics "
    "has them both."
)
ACCURACY_SOURCE = (
    "none given: the counters are believed to come from a model of use, clock and voltage (zeus-apple-silicon's "
    "README), and Apple says of the same numbers in powermetrics that they may be inaccurate and are not for comparing "
    "devices"
)


class Channel(NamedTuple):
    """A rail, and the field of `AppleEnergyMetrics` that holds its cumulative millijoules."""

    field: str
    part: Literal["cpu", "gpu", "ane", "dram"]
    scope: str
    never_rests: bool = False


# What uses energy whenever we run to ask is marked: where its counter rests, the counter is late and not the energy
# nothing. Cores, clusters and their managers lie inside cpu_total_mj.
CHANNELS = {
    "cpu": Channel("cpu_total_mj", "cpu", "all CPU clusters of the chip", never_rests=True),
    "gpu": Channel("gpu_mj", "gpu", "the chip's GPU"),
    "ane": Channel("ane_mj", "ane", "the chip's neural engine"),
    "dram": Channel("dram_mj", "dram", "the memory", never_rests=True),
}
# Whether the GPU's energy contains that of its SRAM is nowhere said, so it is shown and not counted.
TELEMETRY = {"gpu_sram": Channel("gpu_sram_mj", "gpu", "the memory of the chip's GPU")}


class Monitor(Protocol):
    """What is used of zeus-apple-silicon's monitor (1.1.0; read in its apple_energy.hpp)."""

    def get_cumulative_energy(self) -> Any:
        """Counters in mJ from a fixed point in the past; None in a field that this chip has not."""


class Library(Protocol):
    """What is used of the package."""

    def AppleEnergyMonitor(self) -> Monitor:
        """Subscribe to the energy counters. Raises RuntimeError."""


class Ioreport:
    """Apple's energy model, read without root; `library` stands in for the package in tests."""

    name = "ioreport"

    def __init__(
        self,
        library: Library | None = None,
        *,
        machine: tuple[str, str] | None = None,
        chip: Callable[[], str] = processor_name,
        is_virtual: Callable[[], bool | None] = is_virtual_machine,
    ) -> None:
        self._library = library
        self._machine = machine or (sys.platform, platform.machine())
        self._chip = chip
        self._is_virtual = is_virtual

    def why_unavailable(self) -> str | None:
        """One sentence with the remedy, or None where it can be opened now."""
        if self._machine != ("darwin", "arm64"):
            return "ioreport reads the counters of Apple silicon under macOS: elsewhere take nvml, rapl or hwmon."
        # There the group of channels is missing, and the library hands NULL on to CoreFoundation: a crash.
        if self._is_virtual():
            return "A virtual machine shows no energy counters: measure on the Mac itself."
        if self._library is None and find_spec(MODULE) is None:
            return "The package zeus-apple-silicon is not installed: run `pip install zeus-apple-silicon`."
        return None

    def set_up(self) -> tuple[str, ...]:
        """None: the sentence says all."""
        return ()

    def open(self, *, period_s: float) -> IoreportMeter:
        """Subscribe to the counters. Raises MeterLost."""
        try:
            library = self._library or cast(Library, importlib.import_module(MODULE))
            monitor = library.AppleEnergyMonitor()
        except (ImportError, RuntimeError) as error:
            raise MeterLost(f"zeus-apple-silicon cannot be used: {error}") from error
        # 1.1.0 keeps the last channel whose name contains "CPU Energy"; an Ultra has one of each die.
        hidden = {"cpu"} if "Ultra" in self._chip() else set()
        period_s = max(SHORTEST_PERIOD_S, period_s)
        return IoreportMeter(Counters(monitor, hidden=hidden), Schedule(period_s), period_s=period_s)


class IoreportMeter:
    """Polls the counters at each moment of its schedule."""

    def __init__(self, counters: Counters, schedule: Waits, *, period_s: float) -> None:
        self._counters = counters
        self._schedule = schedule
        self._period_s = period_s
        self._reading = Lock()
        self._closed = False

    def read(self) -> list[Reading | Gauge]:
        """Wait for the next moment and read every counter; see `Meter.read`."""
        while self._schedule.wait():
            with self._reading:
                points = [] if self._closed else self._counters.read()
            if points:
                return points
        return []

    def rails(self) -> Mapping[str, RailRecord]:
        """What the curves are, by rail."""
        return self._counters.rails(self._period_s)

    def notes(self) -> list[str]:
        """What a reader must know of this recording."""
        return self._counters.notes()

    def close(self) -> None:
        """Stop polling."""
        self._schedule.close()
        with self._reading:
            if not self._closed:
                self._closed = True
                self._counters.end()


@dataclass
class Curve:
    """One counter against where it stood at first.

    A counter that never rests in truth gets no point while it does not move, so that the energy it publishes in one
    lump is spread over the time in which it was used.
    """

    channel: Channel
    first_mj: int
    last_mj: int
    drawn_ns: int
    moved_ns: int
    moves: int = 0
    lumps: int = 0
    longest_lump_ns: int = 0
    lost: str | None = None

    @property
    def is_lumpy(self) -> bool:
        """Whether it publishes in lumps, as against a unit that has been idle a few times."""
        return self.lumps >= FEW_LUMPS and 2 * self.lumps >= self.moves

    def add(self, value_mj: int | None, time_ns: int) -> float | None:
        """The mean watts since the last point, or None where there is no point to draw."""
        if self.lost is None and (value_mj is None or value_mj < self.last_mj):
            self.lost = f"its counter went from {self.last_mj} mJ to {'nothing' if value_mj is None else value_mj}"
        if self.lost is not None or value_mj is None:
            return None
        if value_mj == self.last_mj and self.channel.never_rests:
            self._rest(time_ns)
            return None
        power_w = (value_mj - self.last_mj) / 1000 / seconds_from_ns(max(1, time_ns - self.drawn_ns))
        if value_mj > self.last_mj:
            self._move(value_mj, time_ns)
        self.drawn_ns = time_ns
        return power_w

    def end(self, time_ns: int) -> None:
        """Nothing more comes."""
        if self.channel.never_rests and time_ns - self.moved_ns > 2 * max(LUMP_NS, self.longest_lump_ns):
            self._stall(time_ns)

    def _move(self, value_mj: int, time_ns: int) -> None:
        rest_ns = time_ns - self.moved_ns
        self.moves += 1
        if rest_ns > LUMP_NS and value_mj - self.last_mj > LUMP_MJ:
            self.lumps += 1
            self.longest_lump_ns = max(self.longest_lump_ns, rest_ns)
        self.last_mj, self.moved_ns = value_mj, time_ns

    def _rest(self, time_ns: int) -> None:
        if time_ns - self.moved_ns >= STALL_NS:
            self._stall(time_ns)

    def _stall(self, time_ns: int) -> None:
        if self.lost is None:
            self.lost = f"it stalled: its counter did not move for {seconds_from_ns(time_ns - self.moved_ns):.1f} s"


class Counters:
    """The library's counters as curves of joules."""

    def __init__(self, monitor: Monitor, *, hidden: set[str], clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._monitor = monitor
        self._clock_ns = clock_ns
        self._hidden = hidden
        self._curves: dict[str, Curve] = {}
        self._beside: dict[str, Curve] = {}
        self._slowest_ns = 0

    def read(self) -> list[Reading | Gauge]:
        """Where the curves stand now, at first 0 J. Raises MeterLost."""
        time_ns, metrics = self._ask()
        if not self._curves:
            return self._begin(time_ns, metrics)
        points = list(self._points(time_ns, metrics))
        if all(curve.lost is not None for curve in self._curves.values()):
            raise MeterLost("; ".join(f"{rail}: {curve.lost}" for rail, curve in self._curves.items()))
        return points

    def _begin(self, time_ns: int, metrics: Any) -> list[Reading | Gauge]:
        shown = {rail: channel for rail, channel in CHANNELS.items() if rail not in self._hidden}
        self._curves = _curves(shown, metrics, time_ns)
        self._beside = _curves(TELEMETRY, metrics, time_ns)
        if not self._curves:
            raise MeterLost("zeus-apple-silicon knows none of this chip's energy counters; a newer version may")
        return [Reading(time_ns, rail, 0.0) for rail in self._curves]

    def end(self) -> None:
        """Nothing more comes."""
        for curve in self._curves.values():
            curve.end(self._clock_ns())

    def rails(self, period_s: float) -> Mapping[str, RailRecord]:
        """What the curves are."""
        return {rail: self._rail(curve, period_s) for rail, curve in self._curves.items()}

    def notes(self) -> list[str]:
        """What a reader must know of these curves."""
        return [*self._ended(), *self._lumpy(), *([ONE_DIE] if "cpu" in self._hidden else [])]

    def _ended(self) -> list[str]:
        return [
            f"The curve of {rail} ends early: {curve.lost}."
            for rail, curve in self._curves.items()
            if curve.lost is not None
        ]

    def _lumpy(self) -> list[str]:
        return [
            f"The energy of {rail} came in lumps of up to {seconds_from_ns(curve.longest_lump_ns):.1f} s "
            f"({counted(curve.lumps, 'time')}), so nothing shorter can be told of it."
            for rail, curve in self._curves.items()
            if curve.is_lumpy
        ]

    def _ask(self) -> tuple[int, Any]:
        """The counters and the moment they are of: the middle of the call."""
        before_ns = self._clock_ns()
        try:
            metrics = self._monitor.get_cumulative_energy()
        except (RuntimeError, ValueError) as error:  # C++ runtime_error, invalid_argument (a unit that it cannot read)
            raise MeterLost(f"zeus-apple-silicon gave no energy: {error}") from error
        took_ns = self._clock_ns() - before_ns
        self._slowest_ns = max(self._slowest_ns, took_ns)
        return before_ns + took_ns // 2, metrics

    def _points(self, time_ns: int, metrics: Any) -> Iterable[Reading | Gauge]:
        for name, curve in [*self._curves.items(), *self._beside.items()]:
            power_w = curve.add(getattr(metrics, curve.channel.field, None), time_ns)
            if power_w is None:
                continue
            if name in self._curves:
                yield Reading(time_ns, name, (curve.last_mj - curve.first_mj) / 1000)
            yield Gauge(time_ns, f"{name}.power_w", power_w)

    def _rail(self, curve: Curve, period_s: float) -> RailRecord:
        lumps_s = seconds_from_ns(curve.longest_lump_ns) if curve.is_lumpy else None
        return RailRecord(
            source=Ioreport.name,
            method="counter",
            state="estimated",
            scope=curve.channel.scope,
            part=curve.channel.part,
            period_s=period_s,
            averaging_s=lumps_s,
            quantum_j=0.001,
            accuracy_source=ACCURACY_SOURCE,
            time_uncertainty_ns=(self._slowest_ns + 1) // 2,
            lost=curve.lost,
        )


def _curves(channels: Mapping[str, Channel], metrics: Any, time_ns: int) -> dict[str, Curve]:
    """A curve for each of the counters that this chip has."""
    values_mj = {name: getattr(metrics, channel.field, None) for name, channel in channels.items()}
    return {
        name: Curve(channels[name], first_mj=value_mj, last_mj=value_mj, drawn_ns=time_ns, moved_ns=time_ns)
        for name, value_mj in values_mj.items()
        if value_mj is not None
    }
