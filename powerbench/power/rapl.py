"""Linux's view of the energy counters in Intel's and AMD's processors: a rail for each package and its memory."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from powerbench.errors import MeterLost
from powerbench.power.kept import Keeper, our_keeper
from powerbench.power.polling import Counter, PolledMeter, Schedule, Waits, WentBack, sysfs_root, why_no_sysfs
from powerbench.records import Gauge, RailRecord, Reading
from powerbench.units import seconds_from_ns

# What a privileged administrator pastes once, so that powerbench needs no root from then on. Since Linux 5.10 only root
# may read energy_uj, because the energy that a neighbour uses tells an attacker his keys (CVE-2020-8694, PLATYPUS,
# INTEL-SA-00389): so the rule opens the counters to a group, not to everybody. `%S%p` is the zone's path below /sys.
UDEV_RULE_PATH = "/etc/udev/rules.d/70-powerbench-rapl.rules"
UDEV_RULE = (
    'ACTION=="add|change", SUBSYSTEM=="powercap", KERNEL=="intel-rapl:*", '
    'RUN+="/bin/chgrp powerbench %S%p/energy_uj", RUN+="/bin/chmod g+r %S%p/energy_uj"'
)
UDEV_COMMANDS = (
    "sudo groupadd --system --force powerbench",
    'sudo usermod --append --groups powerbench "$USER"',
    f"echo '{UDEV_RULE}' | sudo tee {UDEV_RULE_PATH}",
    "sudo udevadm control --reload",
    "sudo udevadm trigger --action=add --subsystem-match=powercap",
    "newgrp powerbench  # or log in again",
)

ACCURACY_SOURCE = "neither Intel (SDM volume 3B, RAPL interfaces) nor AMD states an accuracy for these counters"

# What a package never draws for long, and what nothing behind one counter ever draws. The first sets how often to look
# so as to miss no wrap (many counters hold 65 kJ), the second tells a reset, as by a suspend, from a wrap.
HIGH_POWER_W = 1_000.0
ABSURD_POWER_W = 10_000.0

# "The energy status counter is updated approximately every millisecond" (Intel SDM volume 3B, RAPL interfaces).
PUBLISHED_S = 0.001

# A package always draws something, and its counter moves each millisecond.
STALL_S = 2.0

UJ_PER_J = 1e6


class Zone(NamedTuple):
    """A folder of the powercap tree. `rail` and `part` are None where it is shown but never counted."""

    path: Path
    rail: str | None
    part: Literal["package", "dram"] | None
    gauge: str


class Rapl:
    """The packages and their DRAM. Shown beside them, never counted: cores, graphics, psys and the MMIO twins."""

    name = "rapl"

    def __init__(
        self,
        *,
        variables: Mapping[str, str] = os.environ,
        schedule: Callable[[float], Waits] = Schedule,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        keeper: Callable[[], Keeper | None] = our_keeper,
    ) -> None:
        self._variables = variables
        self._schedule = schedule
        self._clock_ns = clock_ns
        self._keeper = keeper

    def why_unavailable(self) -> str | None:
        """By the platform, the zones that the kernel shows, and whether one counter can be read."""
        return why_no_sysfs(self.name, self._variables) or self._why_unreadable()

    def set_up(self) -> tuple[str, ...]:
        """How an administrator lets this user read the counters for good, where only root may."""
        return UDEV_COMMANDS if self._reads_are_root_s() else ()

    def open(self, *, period_s: float) -> RaplMeter:
        """Open every counter now: they stay readable after root has been given up. Raises MeterLost."""
        why = self.why_unavailable()
        if why is not None:
            raise MeterLost(why)
        zones = list(find_zones(self._folder()))
        return RaplMeter(
            zones, period_s=period_s, schedule=self._schedule, clock_ns=self._clock_ns, open_counter=self._open_counter
        )

    def _open_counter(self, path: Path) -> int:
        """The counter, by the keeper's hand where it is root's alone. Raises OSError."""
        try:
            return open_to_read(path)
        except PermissionError:
            keeper = self._keeper()
            if keeper is None:
                raise
            with suppress(MeterLost):
                return keeper.open_counter(path.parent.name)
            raise

    def _folder(self) -> Path:
        return sysfs_root(self._variables) / "class/powercap"

    def _reads_are_root_s(self) -> bool:
        counters = [zone.path / "energy_uj" for zone in find_zones(self._folder()) if zone.rail is not None]
        return bool(counters) and not any(os.access(path, os.R_OK) for path in counters)

    def _why_unreadable(self) -> str | None:
        folder = self._folder()
        counters = [zone.path / "energy_uj" for zone in find_zones(folder) if zone.rail is not None]
        if not counters:
            return (
                f"{folder} has no RAPL counters: virtual machines, cloud instances and containers hide them, so "
                "measure on the machine itself; there, `sudo modprobe intel_rapl_msr` loads the driver."
            )
        problems = [why_unreadable(path, self._open_counter) for path in counters]
        return None if None in problems else problems[0]


def why_unreadable(path: Path, open_counter: Callable[[Path], int]) -> str | None:
    """One sentence with the remedy, or None where the counter at `path` gives a number."""
    try:
        file = open_counter(path)
        try:
            value_uj(file)
        finally:
            os.close(file)
    except PermissionError:
        return (
            f"Only root may read {path} (CVE-2020-8694): let your user read it too, with the commands that "
            "`powerbench doctor` prints, or leave `sudo powerbench power` running in another terminal."
        )
    except (OSError, ValueError) as error:
        return f"{path} gives no number ({error}): see `sudo dmesg | grep -i rapl`, or reload its driver."
    return None


def open_to_read(path: Path) -> int:
    """The file at `path`, open for reading. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def value_uj(file: int) -> int:
    """What an open counter shows now. Raises OSError, ValueError."""
    return int(os.pread(file, 64, 0))


def find_zones(folder: Path) -> Iterator[Zone]:
    """The zones of the control types `intel-rapl`, which AMD's processors use as well, and `intel-rapl-mmio`.

    Every zone, nested or not, has an entry in `folder` itself: `intel-rapl:0`, and `intel-rapl:0:1` inside it.
    """
    for path in sorted(folder.glob("intel-rapl*:*")):
        named = re.fullmatch(r"(intel-rapl(?:-mmio)?):(\d+)(:\d+)?", path.name)
        if named is None:
            continue
        control, top, below = named.groups()
        name, parent = zone_name(path), zone_name(folder / f"{control}:{top}")
        if name is not None and parent is not None:
            yield zone_at(path, control=control, name=name, parent=parent if below else None)


def zone_at(path: Path, *, control: str, name: str, parent: str | None) -> Zone:
    """What the zone is: `parent` is the name of the zone around it, None where there is none.

    The memory is metered beside the package, not in it (a RAPL domain of its own). psys has the packages inside, cores
    and graphics lie in one, and `intel-rapl-mmio` shows package-0 once more by another road.
    """
    around = f"{parent}." if parent else ""
    if control != "intel-rapl":
        return Zone(path, None, None, f"mmio.{around}{name}.power_w")
    if parent is None and name.startswith("package-"):
        return Zone(path, name, "package", f"{name}.power_w")
    if name == "dram" and parent is not None and parent.startswith("package-"):
        return Zone(path, parent.replace("package", "dram", 1), "dram", f"{parent}.dram.power_w")
    return Zone(path, None, None, f"{around}{name}.power_w")


def zone_name(path: Path) -> str | None:
    """What the kernel calls the zone: package-0, package-1-die-0, dram, core, uncore, psys."""
    try:
        return (path / "name").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


class Stalled(Exception):
    """A package's counter stood still for longer than a package can do without energy."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class ZoneCounter:
    """A zone's counter, held open: permission is asked for once, when it is opened. Raises OSError, ValueError."""

    def __init__(self, zone: Zone, open_counter: Callable[[Path], int] = open_to_read) -> None:
        self.zone = zone
        self.maximum_uj = read_maximum_uj(zone.path)
        self.power_w: float | None = None
        self.moved_ns: int | None = None
        """When it was last seen to have moved, or first looked at."""
        self._counter = Counter(self.maximum_uj)
        self._last: tuple[int, int] | None = None
        self._file = open_counter(zone.path / "energy_uj")
        try:
            value_uj(self._file)
        except (OSError, ValueError):
            self.close()
            raise

    def read_j(self, clock_ns: Callable[[], int]) -> tuple[int, float]:
        """The moment, and the joules since the first look; `power_w` is then the mean since the last one.

        Raises OSError, ValueError, WentBack.
        """
        shown_uj, now_ns = value_uj(self._file), clock_ns()
        if self._last is None:
            self._last = now_ns, self._counter.add(shown_uj)
            self.moved_ns = now_ns
            return now_ns, 0.0
        then_ns, before_uj = self._last
        past_s = seconds_from_ns(now_ns - then_ns)
        total_uj = self._counter.add(shown_uj, at_most=ABSURD_POWER_W * past_s * UJ_PER_J)
        self.power_w = (total_uj - before_uj) / UJ_PER_J / past_s if past_s > 0 else self.power_w
        self._last = now_ns, total_uj
        if total_uj > before_uj:
            self.moved_ns = now_ns
        return now_ns, total_uj / UJ_PER_J

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


def read_maximum_uj(path: Path) -> int | None:
    """Where the zone's counter starts anew, or None where the kernel does not say."""
    try:
        return int((path / "max_energy_range_uj").read_text("utf-8"))
    except (OSError, ValueError):
        return None


def half_wrap_s(counter: ZoneCounter) -> float:
    """The longest time between two looks that can miss no wrap; no end to it where the counter's is unknown."""
    return math.inf if counter.maximum_uj is None else counter.maximum_uj / UJ_PER_J / 2 / HIGH_POWER_W


class RaplMeter(PolledMeter):
    """The open counters."""

    def __init__(
        self,
        zones: list[Zone],
        *,
        period_s: float,
        schedule: Callable[[float], Waits],
        clock_ns: Callable[[], int],
        open_counter: Callable[[Path], int],
    ) -> None:
        self._open_counter = open_counter
        self._counters: list[ZoneCounter] = []
        self._closed_to_us: list[str] = []
        for zone in zones:
            self._open(zone)
        period_s = min([period_s, *map(half_wrap_s, self._counters)])
        self._clock_ns = clock_ns
        super().__init__(schedule(period_s), dict(self._describe(period_s)))

    def notes(self) -> list[str]:
        """The rails that exist and could not be read."""
        return [f"{rail} is not metered: its counter cannot be read." for rail in self._closed_to_us]

    def _open(self, zone: Zone) -> None:
        if zone.rail is not None and zone.rail in (counter.zone.rail for counter in self._counters):
            return
        try:
            self._counters.append(ZoneCounter(zone, self._open_counter))
        except (OSError, ValueError):
            if zone.rail is not None:
                self._closed_to_us.append(zone.rail)

    def _describe(self, period_s: float) -> Iterator[tuple[str, RailRecord]]:
        for zone in (counter.zone for counter in self._counters):
            if zone.rail is not None and zone.part is not None:
                yield zone.rail, describe(zone.part, period_s)

    def _poll(self) -> list[Reading | Gauge]:
        given: list[Reading | Gauge] = []
        for counter in self._counters[:]:
            try:
                now_ns, energy_j = counter.read_j(self._clock_ns)
            except (OSError, ValueError, WentBack) as error:
                self._drop(counter, error)
                continue
            still_s = seconds_from_ns(now_ns - (counter.moved_ns or now_ns))
            if counter.zone.part == "package" and still_s > 0:
                # No reading, so that the curve ends where it last rose, or goes on straight if it caught up.
                if still_s > STALL_S:
                    self._drop(counter, Stalled(still_s))
                continue
            if counter.zone.rail is not None:
                given.append(Reading(now_ns, counter.zone.rail, energy_j))
            elif counter.power_w is not None:
                given.append(Gauge(now_ns, counter.zone.gauge, counter.power_w))
        return given

    def _drop(self, counter: ZoneCounter, error: OSError | ValueError | WentBack | Stalled) -> None:
        self._counters.remove(counter)
        counter.close()
        if counter.zone.rail is not None:
            self._end(counter.zone.rail, why_lost(error))

    def _let_go(self) -> None:
        for counter in self._counters:
            with suppress(OSError):
                counter.close()


def describe(part: Literal["package", "dram"], period_s: float) -> RailRecord:
    """A package or the memory behind it; the hardware counts on, so nothing is missed between two looks."""
    return RailRecord(
        source=Rapl.name,
        method="counter",
        state="measured",
        scope=part,
        part=part,
        contains=["cpu"] if part == "package" else [],
        period_s=period_s,
        published_s=PUBLISHED_S,
        accuracy_source=ACCURACY_SOURCE,
    )


def why_lost(error: OSError | ValueError | WentBack | Stalled) -> str:
    """The end of a curve in words."""
    if isinstance(error, Stalled):
        return f"it stalled: its counter did not move for {error.seconds:.1f} s"
    if isinstance(error, OSError):
        return f"its counter cannot be read any more ({error.strerror})"
    if isinstance(error, WentBack):
        return f"its counter in µJ {error}, and that was no wrap: it was reset, as by a suspend"
    return f"its counter gave no number ({error})"
