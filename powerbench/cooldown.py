"""Waiting between measurements until the machine is nearly as cool as before the first of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import psutil

from powerbench.errors import MeterLost
from powerbench.metering import FIRST_READING_S, METERS, PERIOD_S, MeterThread
from powerbench.power import Source
from powerbench.records import Gauge, Reading
from powerbench.units import seconds_from_ns, significant

# As near to its start as Krun lets a machine come before it goes on (Barrett et al., OOPSLA 2017).
NEAR_C = 3.0
# Idle power is never quite the same: a tenth, and on a machine that draws next to nothing this much.
NEAR_W, NEAR_RATIO = 1.5, 0.1
BETWEEN_LOOKS_S = 2.0
WATCH_S = 2.0
PROCESSOR_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
POWER = "power_w"
TEMPERATURE = "temperature_c"

Look = Callable[[], Mapping[str, float]]
"""What a machine shows of how hot it is, by name (`gpu0.temperature_c`, `power_w`); empty where it shows nothing."""


class Cooled(NamedTuple):
    """How a cool-down went: how long it took, and where the machine still stood if it did not come to rest."""

    waited_s: float
    still: str | None = None


class CoolDown:
    """Looks at the machine and waits; where there is nothing to look at, for the time that is given."""

    def __init__(self, look: Look, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.look = look
        self._clock_s = clock_s

    def wait(self, rest: Mapping[str, float], *, at_most_s: float, pause: Callable[[float], bool]) -> Cooled:
        """Until the machine is back near `rest`, for at most so long.

        `pause` waits for so many seconds, or returns True at once where nothing is to be waited for any more.
        """
        begun_s = self._clock_s()
        while True:
            now = self.look() if rest else {}
            shown = [name for name in rest if name in now]
            hot = [name for name in shown if not is_near(name, now[name], rest[name])]
            left_s = begun_s + at_most_s - self._clock_s()
            if shown and not hot:
                return Cooled(self._clock_s() - begun_s)
            if left_s <= 0 or pause(min(BETWEEN_LOOKS_S, left_s) if rest else left_s):
                still = [in_words(name, now[name], rest[name]) for name in hot]
                return Cooled(self._clock_s() - begun_s, ", ".join(still) or None)


def is_near(name: str, now: float, rest: float) -> bool:
    """Whether a machine that shows `now` is as good as at rest."""
    return now <= rest + (NEAR_C if name.endswith(TEMPERATURE) else max(NEAR_W, NEAR_RATIO * rest))


def in_words(name: str, now: float, rest: float) -> str:
    """`gpu0 at 57 °C (41 at the start)`, `31.0 W (9.51 at the start)`."""
    if not name.endswith(TEMPERATURE):
        return f"{significant(now)} W ({significant(rest)} at the start)"
    return f"{name.rpartition('.')[0]} at {now:.0f} °C ({rest:.0f} at the start)"


def look_at_machine(
    names: Sequence[str],
    sources: Mapping[str, Source] = METERS,
    *,
    processor: Look = lambda: processor_temperature(),
    seconds: float = WATCH_S,
) -> dict[str, float]:
    """The temperatures of the processor and of what these meters watch; where there is none, the power of all rails.

    Temperature is asked first: power falls as soon as the work ends, and says little about what is still hot.
    """
    shown = dict(processor())
    powers_w: list[float] = []
    for name in names:
        with suppress(MeterLost):
            gauges, power_w = watch(sources[name], seconds=seconds)
            shown |= gauges
            powers_w.append(power_w)
    return shown or ({POWER: sum(powers_w)} if powers_w else {})


def processor_temperature() -> dict[str, float]:
    """The hottest of the processor's sensors; macOS and most virtual machines show none."""
    sensors = getattr(psutil, "sensors_temperatures", None)
    if sensors is None:
        return {}
    try:
        found = sensors()
    except OSError:
        return {}
    celsius = [sensor.current for name in PROCESSOR_SENSORS for sensor in found.get(name, [])]
    return {f"processor.{TEMPERATURE}": max(celsius)} if celsius else {}


def watch(source: Source, *, seconds: float) -> tuple[dict[str, float], float]:
    """The last temperatures, and the mean power of all rails in watts, over so long. Raises MeterLost."""
    readings: dict[str, list[Reading]] = {}
    temperatures: dict[str, float] = {}

    def note(_: str, points: Sequence[Reading], gauges: Sequence[Gauge]) -> None:
        for point in points:
            readings.setdefault(point.rail, []).append(point)
        for gauge in gauges:
            if gauge.name.endswith(f".{TEMPERATURE}") and not isinstance(gauge.value, str):
                temperatures[gauge.name] = gauge.value

    thread = MeterThread(source.name, source.open(period_s=PERIOD_S), note)
    thread.settled.wait(FIRST_READING_S)
    if thread.has_read:
        time.sleep(seconds)
    thread.close()
    spans = [(of[-1].energy_j - of[0].energy_j, of[-1].time_ns - of[0].time_ns) for of in readings.values()]
    powers_w = [joules / seconds_from_ns(span_ns) for joules, span_ns in spans if span_ns > 0]
    if not powers_w:
        raise MeterLost(thread.lost or "it gave no two readings")
    return temperatures, sum(powers_w)
