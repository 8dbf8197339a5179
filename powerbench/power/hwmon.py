"""What Linux's hardware monitors and batteries tell of power: AMD's and Intel's GPUs, sockets, a laptop on battery."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from powerbench.errors import MeterLost
from powerbench.power.polling import (
    Counter,
    PolledMeter,
    PowerIntegral,
    Schedule,
    Waits,
    WentBack,
    sysfs_root,
    why_no_sysfs,
)
from powerbench.records import Gauge, RailRecord, Reading
from powerbench.units import NS_PER_S, seconds_from_ns

Kind = Literal["energy", "power"]
Part = Literal["cpu", "gpu", "ane", "dram", "package", "soc", "module", "system"]

MICRO = 1e-6  # hwmon and power_supply speak of µW, µJ, µV and µA (Documentation/hwmon/sysfs-interface.rst)
# A GPU that has just been woken answers EPERM or EBUSY for a moment; a rail that is silent for this long has ended.
PATIENCE_S = 2.0
# Sensors that are only shown may be a hundred and more (amd_energy has one a core), and looking costs joules as well.
SHOWN_PERIOD_S = 1.0
# The kernel asks an ACPI battery at most this often (cache_time in drivers/acpi/battery.c).
BATTERY_PERIOD_S = 1.0
ACCURACY_SOURCE = "the kernel passes on what the device says, and its maker states no accuracy"


class Sensor(NamedTuple):
    """One file below hwmonN that tells of power or energy."""

    path: Path
    driver: str
    label: str
    kind: Kind


class Listed(NamedTuple):
    """A sensor that is known: by whom, under which label (a regular expression), and what its joules contain."""

    driver: str
    label: str
    kind: Kind
    rail: str
    part: Part
    contains: tuple[Part, ...]
    scope: str
    holds: Callable[[Path, Path], bool]


def is_discrete(hwmon: Path, root: Path) -> bool:
    """Whether amdgpu drives a card of its own: it shows neither file where the CPU is on the same chip (AMD_IS_APU).

    `board_info` on newer kernels (amdgpu_board_attrs_is_visible), `pcie_bw` on most cards before and after.
    """
    return any((hwmon / "device" / name).exists() for name in ("board_info", "pcie_bw"))


def is_apu(hwmon: Path, root: Path) -> bool:
    """Whether the CPU is on the same chip: tables of metrics v2 and v3 are for those alone (kgd_pp_interface.h).

    What is neither this nor discrete (an old card, an MI300A) is not known well enough to be counted.
    """
    try:
        with (hwmon / "device/gpu_metrics").open("rb") as table:
            header = table.read(4)  # u16 size, u8 format, u8 content
    except OSError:
        return False
    return len(header) == 4 and header[2] in (2, 3) and not is_discrete(hwmon, root)


def is_without_rapl(hwmon: Path, root: Path) -> bool:
    """Whether the same registers are not metered by rapl already."""
    return not any(is_readable(zone / "energy_uj") for zone in root.glob("class/powercap/intel-rapl:*"))


def is_known(hwmon: Path, root: Path) -> bool:
    """The driver's name says it all: i915 and xe register with hwmon for discrete cards only."""
    return True


# Of each hwmonN the first line that fits; its other sensors are shown and not counted, since they lie inside.
LISTED = (
    # "power used by the SoC; on APUs this includes the CPU" (amdgpu_pm.c)
    Listed("amdgpu", "PPT|power1", "power", "amdgpu", "gpu", (), "GPU, as amdgpu sees it", is_discrete),
    Listed("amdgpu", "PPT|slowPPT|power1", "power", "amdapu", "soc", ("cpu", "gpu", "package"), "SoC", is_apu),
    # Documentation/ABI/testing/sysfs-driver-intel-xe-hwmon: card is the board, pkg (once without a label) the chip
    Listed("xe", "card", "energy", "xe", "gpu", (), "GPU board", is_known),
    Listed("xe", "pkg|energy1", "energy", "xe", "gpu", (), "GPU chip", is_known),
    # .../sysfs-driver-intel-i915-hwmon: the device; i915_gtN, its halves, are other drivers by name
    Listed("i915", "energy1", "energy", "i915-", "gpu", (), "GPU, as i915 sees it", is_known),
    # Documentation/hwmon/amd_energy.rst (gone in Linux 5.13, kept up at github.com/amd/amd_energy and as zenergy)
    Listed("amd_energy|zenergy", r"Esocket\d+", "energy", "socket-", "package", ("cpu",), "package", is_without_rapl),
)


class Found(NamedTuple):
    """A sensor that is listed, and the number of its like."""

    sensor: Sensor
    listed: Listed
    rail: str


class Hwmon:
    """The listed sensors are rails; all others are shown as `hwmon.<driver>.<label>.power_w` and never counted."""

    name = "hwmon"

    def __init__(
        self,
        *,
        variables: Mapping[str, str] = os.environ,
        schedule: Callable[[float], Waits] = Schedule,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._variables = variables
        self._schedule = schedule
        self._clock_ns = clock_ns

    def why_unavailable(self) -> str | None:
        """By the platform, and by what the kernel shows."""
        return why_no_sysfs(self.name, self._variables) or why_nothing(sysfs_root(self._variables))

    def set_up(self) -> tuple[str, ...]:
        """None: the sentence says all."""
        return ()

    def open(self, *, period_s: float) -> HwmonMeter:
        """Find the sensors. Raises MeterLost where none is listed."""
        why = self.why_unavailable()
        if why is not None:
            raise MeterLost(why)
        return HwmonMeter(
            sysfs_root(self._variables), period_s=period_s, schedule=self._schedule(period_s), clock_ns=self._clock_ns
        )


def why_nothing(root: Path) -> str | None:
    """One sentence with the remedy, or None where a sensor is listed and can be read."""
    if list(find_listed(root)) or Battery(root).power_w() is not None:
        return None
    if Battery(root).exists():
        return "No sensor but the battery knows this machine's power, and only off the mains: unplug the charger."
    drivers = sorted({sensor.driver for hwmon in hwmon_folders(root) for sensor in find_sensors(hwmon)})
    found = ", ".join(drivers) or "none"
    return (
        f"No power sensor in {root / 'class/hwmon'} is one that powerbench knows (found: {found}): it reads there "
        "discrete GPUs of AMD (amdgpu) and Intel (xe, i915), whose drivers must be loaded."
    )


def hwmon_folders(root: Path) -> list[Path]:
    """The monitors in the order of their devices: a card keeps its place from boot to boot, hwmonN does not."""
    return sorted(root.glob("class/hwmon/hwmon*"), key=lambda hwmon: (str((hwmon / "device").resolve()), str(hwmon)))


def find_sensors(hwmon: Path) -> Iterator[Sensor]:
    """Its sensors of energy and power; of two files about one power, the average, which misses less."""
    driver = read_text(hwmon / "name")
    if driver is None:
        return
    taken = set()
    for pattern in ("energy*_input", "power*_average", "power*_input"):
        for path in sorted(hwmon.glob(pattern)):
            channel = path.name.rpartition("_")[0]
            if channel not in taken and re.fullmatch(r"(energy|power)\d+", channel):
                taken.add(channel)
                label = read_text(hwmon / f"{channel}_label") or channel
                yield Sensor(path, driver, label, "energy" if channel.startswith("energy") else "power")


def find_listed(root: Path) -> Iterator[Found]:
    """The sensors that are rails, and can be read."""
    numbers: dict[str, int] = {}
    for hwmon in hwmon_folders(root):
        sensors = list(find_sensors(hwmon))
        for sensor, listed in next(filter(None, (matches(hwmon, root, sensors, line) for line in LISTED)), []):
            number = numbers.get(listed.rail, 0)
            numbers[listed.rail] = number + 1
            yield Found(sensor, listed, f"{listed.rail}{number}")


def matches(hwmon: Path, root: Path, sensors: list[Sensor], listed: Listed) -> list[tuple[Sensor, Listed]]:
    """The sensors of this monitor that a line of the list means."""
    found = [
        (sensor, listed)
        for sensor in sensors
        if sensor.kind == listed.kind
        and re.fullmatch(listed.driver, sensor.driver)
        and re.fullmatch(listed.label, sensor.label)
        and is_readable(sensor.path)
    ]
    return found if found and listed.holds(hwmon, root) else []


def read_text(path: Path) -> str | None:
    """A line of text, or None where there is none to be read."""
    try:
        return path.read_text("utf-8", errors="replace").strip()
    except OSError:
        return None


def read_number(path: Path) -> int:
    """A number. Raises OSError, ValueError."""
    return int(path.read_text("utf-8"))


def is_readable(path: Path) -> bool:
    """Whether the file gives a number now."""
    try:
        read_number(path)
    except (OSError, ValueError):
        return False
    return True


class Battery:
    """All batteries of the machine as one: while it runs on them, what they give is what it takes."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "class/power_supply"

    def exists(self) -> bool:
        """Whether the machine has a battery of its own."""
        return bool(self._batteries())

    def power_w(self) -> float | None:
        """What flows out of the batteries, or None where that is not all: on mains, charging, or not said."""
        batteries = self._batteries()
        states = [read_text(battery / "status") for battery in batteries]
        if self._is_on_mains() or "Discharging" not in states or "Charging" in states:
            return None
        flows = [discharge_w(path) for path, state in zip(batteries, states, strict=True) if state == "Discharging"]
        known = [flow for flow in flows if flow is not None]
        return sum(known) if len(known) == len(flows) else None

    def _batteries(self) -> list[Path]:
        # A mouse has a battery as well: its scope is "Device" (Documentation/ABI/testing/sysfs-class-power).
        return [path for path in self._supplies("Battery") if read_text(path / "scope") != "Device"]

    def _is_on_mains(self) -> bool:
        return any(read_text(supply / "online") == "1" for supply in self._supplies("Mains"))

    def _supplies(self, kind: str) -> list[Path]:
        return [path for path in sorted(self._folder.glob("*")) if read_text(path / "type") == kind]


def discharge_w(battery: Path) -> float | None:
    """One battery's outflow; some drivers give it a minus sign. None where it does not tell."""
    with suppress(OSError, ValueError):
        return abs(read_number(battery / "power_now")) * MICRO
    with suppress(OSError, ValueError):
        return abs(read_number(battery / "current_now")) * MICRO * read_number(battery / "voltage_now") * MICRO
    return None


class Look(NamedTuple):
    """What a sensor told at a moment; the power is None where it counts energy and this is its first look."""

    time_ns: int
    energy_j: float
    power_w: float | None


class Follows(Protocol):
    """A sensor that is followed. `look` raises OSError, ValueError, WentBack."""

    def look(self) -> Look:
        """Ask it now."""


class EnergyFollower:
    """A counter in µJ. Where it starts anew is known nowhere: i915, xe and amd_energy keep 64 bits."""

    def __init__(self, path: Path, clock_ns: Callable[[], int]) -> None:
        self._path = path
        self._clock_ns = clock_ns
        self._counter = Counter()
        self._last: Look | None = None

    def look(self) -> Look:
        """Joules since the first look, mean watts since the last."""
        value = read_number(self._path)
        now_ns, energy_j = self._clock_ns(), self._counter.add(value) * MICRO
        power_w = None
        if self._last is not None and now_ns > self._last.time_ns:
            power_w = (energy_j - self._last.energy_j) / seconds_from_ns(now_ns - self._last.time_ns)
        self._last = Look(now_ns, energy_j, power_w)
        return self._last


class PowerFollower:
    """Something that tells watts."""

    def __init__(self, read_w: Callable[[], float], clock_ns: Callable[[], int]) -> None:
        self._read_w = read_w
        self._clock_ns = clock_ns
        self._integral = PowerIntegral()

    def look(self) -> Look:
        """Joules under all looks so far, and the watts of this one."""
        power_w = self._read_w()
        now_ns = self._clock_ns()
        return Look(now_ns, self._integral.add(now_ns, power_w), power_w)


class OnMains(Exception):
    """The battery no longer feeds the machine alone."""


def follow(sensor: Sensor, clock_ns: Callable[[], int]) -> Follows:
    """The right way to follow the sensor."""
    if sensor.kind == "energy":
        return EnergyFollower(sensor.path, clock_ns)
    return PowerFollower(lambda: read_number(sensor.path) * MICRO, clock_ns)


class HwmonMeter(PolledMeter):
    """The sensors while they are followed."""

    def __init__(self, root: Path, *, period_s: float, schedule: Waits, clock_ns: Callable[[], int]) -> None:
        found = list(find_listed(root))
        self._clock_ns = clock_ns
        self._battery = Battery(root)
        self._followed: dict[str, Follows] = {each.rail: follow(each.sensor, clock_ns) for each in found}
        rails = {each.rail: describe(each, period_s) for each in found}
        if self._battery.power_w() is not None:
            self._followed["battery"] = PowerFollower(self._battery_w, clock_ns)
            rails["battery"] = describe_battery(period_s)
        self._shown = dict(self._find_shown(root, {each.sensor.path for each in found}))
        self._shown_ns: int | None = None
        self._heard_ns: dict[str, int] = {}
        super().__init__(schedule, rails)

    def notes(self) -> list[str]:
        """What a battery's figure is, where there is one."""
        if "battery" not in self._followed:
            return []
        return [
            "battery is the whole machine, screen included, and its sensor tells something new once a second or less."
        ]

    def _find_shown(self, root: Path, counted: set[Path]) -> Iterator[tuple[str, Follows]]:
        names: set[str] = set()
        for hwmon in hwmon_folders(root):
            for sensor in find_sensors(hwmon):
                if sensor.path not in counted:
                    name = unlike(names, f"hwmon.{sensor.driver}.{sensor.label}".replace(" ", "_"))
                    names.add(name)
                    yield name, follow(sensor, self._clock_ns)

    def _poll(self) -> list[Reading | Gauge]:
        given: list[Reading | Gauge] = []
        for rail, followed in self._followed.items():
            if self._is_live(rail):
                given += self._look(rail, followed)
        return given + list(self._show())

    def _look(self, rail: str, followed: Follows) -> Iterator[Reading | Gauge]:
        try:
            look = followed.look()
        except (OSError, ValueError) as error:
            self._bear_silence(rail, error)
        except WentBack as why:
            self._end(rail, f"its counter in µJ {why}: it was reset")
        except OnMains:
            self._end(rail, "the machine no longer ran on its battery alone")
        else:
            self._heard_ns[rail] = look.time_ns
            yield Reading(look.time_ns, rail, look.energy_j)
            if isinstance(followed, PowerFollower) and look.power_w is not None:
                yield Gauge(look.time_ns, f"{rail}.power_w", look.power_w)

    def _bear_silence(self, rail: str, error: OSError | ValueError) -> None:
        now_ns = self._clock_ns()
        if now_ns - self._heard_ns.setdefault(rail, now_ns) > PATIENCE_S * NS_PER_S:
            self._end(rail, f"its sensor gave no reading for {PATIENCE_S:g} s ({error})")

    def _show(self) -> Iterator[Gauge]:
        now_ns = self._clock_ns()
        if self._shown_ns is not None and now_ns - self._shown_ns < SHOWN_PERIOD_S * NS_PER_S:
            return
        self._shown_ns = now_ns
        for name, followed in list(self._shown.items()):
            try:
                look = followed.look()
            except (OSError, ValueError, WentBack):
                continue
            if look.power_w is not None:
                yield Gauge(look.time_ns, f"{name}.power_w", look.power_w)

    def _battery_w(self) -> float:
        power_w = self._battery.power_w()
        if power_w is None:
            raise OnMains
        return power_w

    def _let_go(self) -> None:
        """Nothing is held open."""


def unlike(names: set[str], name: str) -> str:
    """`name`, or `name-2` and so on where two sensors say the same of themselves."""
    number = 2
    candidate = name
    while candidate in names:
        candidate, number = f"{name}-{number}", number + 1
    return candidate


def describe(found: Found, period_s: float) -> RailRecord:
    """The rail of a listed sensor."""
    return RailRecord(
        source=Hwmon.name,
        method="counter" if found.listed.kind == "energy" else "instant, integrated",
        state="measured",
        scope=found.listed.scope,
        part=found.listed.part,
        contains=list(found.listed.contains),
        period_s=period_s,
        accuracy_source=ACCURACY_SOURCE,
        uuid=unique_id(found.sensor.path.parent),
    )


def describe_battery(period_s: float) -> RailRecord:
    """The rail of a machine on battery."""
    return RailRecord(
        source=Hwmon.name,
        method="instant, integrated",
        state="measured",
        scope="whole machine",
        part="system",
        contains=["cpu", "gpu", "ane", "dram", "package", "soc", "module"],
        period_s=max(period_s, BATTERY_PERIOD_S),
        accuracy_source=ACCURACY_SOURCE,
    )


def unique_id(hwmon: Path) -> str | None:
    """The identifier by which ROCm knows an AMD card, or None where the driver shows none."""
    identifier = read_text(hwmon / "device/unique_id")
    return f"GPU-{identifier}" if identifier else None
