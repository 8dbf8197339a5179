"""Builds the stand-in for NVIDIA's library, and drives our meter through the real nvidia-ml-py in another process."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from powerbench.errors import MeterLost
from powerbench.power.nvml import Nvml
from powerbench.power.polling import Schedule
from powerbench.records import Gauge, RailRecord, Reading

SOURCE = Path(__file__).with_name("fake_nvml.c")
LIBRARY = "libnvidia-ml.so.1"
COMPILER = next((path for name in ("gcc", "cc", "clang") if (path := shutil.which(name))), None)
START_NS = 1_000_000_000_000
S = 1_000_000_000


class Recording(NamedTuple):
    """What a meter gave; `lost` is why it stopped, and times are seconds since the GPUs began to draw."""

    why_unavailable: str | None
    lost: str | None
    readings: list[Reading]
    gauges: list[Gauge]
    rails: dict[str, RailRecord]
    notes: list[str]
    calls: dict[str, int]
    inits: int

    def curve(self, rail: str = "gpu0") -> list[tuple[float, float]]:
        """Seconds and joules."""
        return [(round((r.time_ns - START_NS) / S, 6), round(r.energy_j, 6)) for r in self.readings if r.rail == rail]

    def gauge(self, name: str) -> list[float | str]:
        """The values of one gauge."""
        return [gauge.value for gauge in self.gauges if gauge.name == name]


def build(folder: Path, *leave_out: str) -> Path:
    """Compile the library into `folder` without the functions named; returns the folder."""
    assert COMPILER is not None
    flags = [f"-DWITHOUT_{name}" for name in leave_out]
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / LIBRARY
    subprocess.run([COMPILER, "-shared", "-fPIC", *flags, "-o", target, SOURCE, "-lm"], check=True)
    return folder


class FakeNvml:
    """A process in which that library is the driver's."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def record(
        self, *, seconds: float, period_s: float = 0.1, phase_s: float = 0.0, clock: str = "virtual", **settings: object
    ) -> Recording:
        """Meter for so long, from `phase_s` after the GPUs began to draw; settings as in fake_nvml.c, lower case."""
        variables = {f"FAKE_NVML_{name.upper()}": str(value) for name, value in settings.items()}
        polls = round(seconds / period_s) + 1
        task = {"variables": variables, "polls": polls, "period_s": period_s, "phase_s": phase_s, "clock": clock}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return msgspec.json.decode(self._process.stdout.readline(), type=Recording)


@contextmanager
def fake_nvml(folder: Path | None) -> Iterator[FakeNvml]:
    """A process that finds the library in `folder`; with None it finds no driver, unless the machine has one."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder or "")}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.power.fake_nvml"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    with process:
        yield FakeNvml(process)


# What follows runs in that process.


class VirtualSchedule:
    """Moments that come at once: it is the clock, and the library's clock, that are moved."""

    def __init__(self, period_s: float, *, library: Any, polls: int, start_ns: int) -> None:
        self._period_ns = round(period_s * S)
        self._library = library
        self._left = polls
        self.now_ns = start_ns - self._period_ns

    def wait(self) -> bool:
        if self._left == 0:
            return False
        self._left -= 1
        self.now_ns += self._period_ns
        self._library.fake_nvml_at_ns(ctypes.c_longlong(self.now_ns))
        return True

    def close(self) -> None:
        self._left = 0


def perform(task: Mapping[str, Any]) -> Recording:
    """Record as the task says, with the real nvidia-ml-py."""
    for name in [name for name in os.environ if name.startswith("FAKE_NVML_")]:
        del os.environ[name]
    os.environ.update(task["variables"])
    if task["clock"] == "virtual":
        return perform_virtually(task)
    return record(Nvml(schedule=lambda period_s: Limited(period_s, polls=task["polls"])), period_s=task["period_s"])


def perform_virtually(task: Mapping[str, Any]) -> Recording:
    os.environ.update({"FAKE_NVML_CLOCK": "virtual", "FAKE_NVML_START_NS": str(START_NS)})
    try:
        library: Any = ctypes.CDLL(LIBRARY)
        library.fake_nvml_at_ns(ctypes.c_longlong(START_NS + round(task["phase_s"] * S)))
    except (OSError, AttributeError):
        library = None
    schedules: list[VirtualSchedule] = []

    def schedule(period_s: float) -> VirtualSchedule:
        start_ns = START_NS + round(task["phase_s"] * S)
        schedules.append(VirtualSchedule(period_s, library=library, polls=task["polls"], start_ns=start_ns))
        return schedules[-1]

    return record(Nvml(schedule=schedule, clock_ns=lambda: schedules[-1].now_ns), period_s=task["period_s"])


class Limited(Schedule):
    """A schedule of so many moments."""

    def __init__(self, period_s: float, *, polls: int) -> None:
        super().__init__(period_s)
        self._left = polls

    def wait(self) -> bool:
        self._left -= 1
        return self._left >= 0 and super().wait()


def record(source: Nvml, *, period_s: float) -> Recording:
    """Everything that the source gives until its schedule is over."""
    why, lost = source.why_unavailable(), None
    given: list[Reading | Gauge] = []
    try:
        meter = source.open(period_s=period_s)
    except MeterLost as error:
        return Recording(why, str(error), [], [], {}, [], {}, inits_of_library())
    try:
        while news := meter.read():
            given += news
    except MeterLost as error:
        lost = str(error)
    calls = calls_of_library()
    meter.close()
    meter.close()
    readings = [item for item in given if isinstance(item, Reading)]
    gauges = [item for item in given if isinstance(item, Gauge)]
    return Recording(why, lost, readings, gauges, dict(meter.rails()), meter.notes(), calls, inits_of_library())


def calls_of_library() -> dict[str, int]:
    library = ctypes.CDLL(LIBRARY)
    names = (
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetTemperatureV",
        "nvmlDeviceGetTotalEnergyConsumption",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetPowerUsage",
    )
    return {name: library.fake_nvml_calls(name.encode()) for name in names}


def inits_of_library() -> int:
    try:
        return int(ctypes.CDLL(LIBRARY).fake_nvml_inits())
    except (OSError, AttributeError):
        return 0


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(msgspec.json.encode(perform(json.loads(line))).decode() + "\n")
        sys.stdout.flush()
