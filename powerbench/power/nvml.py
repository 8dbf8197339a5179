"""NVIDIA's GPUs through the driver's own meter, NVML: a rail for each, by its energy counter or by its power."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal, NamedTuple

import msgspec

from powerbench.errors import MeterLost
from powerbench.power.polling import Counter, PolledMeter, PowerIntegral, Schedule, Waits, WentBack
from powerbench.records import Gauge, RailRecord, Reading
from powerbench.units import NS_PER_S, seconds_from_ns

Way = Literal["instant", "average", "usage"]

# Asked more often, NVML answers NOT_SUPPORTED or 0 now and then (zeus warns of it; research/power.md §2.2).
SHORTEST_PERIOD_S = 0.05
# The counter shows a new value about each 100 ms (ML.ENERGY's blog; PETSc's manual says 20 to 100 ms).
COUNTER_PERIOD_S = 0.1
# A call may fail once and work the next time; a rail that has been silent for this long has ended.
PATIENCE_S = 2.0
# Counter and power are compared where both saw enough; 25 ms out of each 100 ms and a mean over 1 s differ on less.
COMPARED_S = 5.0
DISAGREEMENT = 0.10

ACCURACY = 0.05
ACCURACY_SOURCE = (
    "NVIDIA states ±5 % for Fermi and Kepler (NVML reference, nvmlDeviceGetPowerUsage); on later GPUs the mean error "
    "of long windows was 5 %, on single cards since Pascal -6 % to +11 % (arXiv:2312.02741, SC'24)"
)

# nvmlDeviceGetArchitecture: its numbers are NVML_DEVICE_ARCH_* (nvml.h).
FAMILIES = {
    2: "kepler",
    3: "maxwell",
    4: "pascal",
    5: "volta",
    6: "turing",
    7: "ampere",
    8: "ada",
    9: "hopper",
    10: "blackwell",
    13: "rubin",
}

# nvmlClocksEventReason* (nvml.h), of those that slow the GPU against the will of whoever runs it.
REASONS = {
    0x04: "its power limit",
    0x08: "a hardware slowdown (heat or supply)",
    0x20: "heat, by the driver",
    0x40: "heat, by the hardware",
    0x80: "the power brake of its supply",
}


class Sensing(NamedTuple):
    """How a GPU's sensor sees: a new value each `period_s`, the mean over `averaging_s`, `coverage` of the time."""

    period_s: float
    averaging_s: float | None
    coverage: float


# Measured from outside: arXiv:2312.02741 (SC'24; research/power.md §2.2). Of other families nobody has published it:
# they are taken for as blind as the worst of those that are known to be read so often, until somebody has.
AVERAGED = Sensing(0.1, 1.0, 1.0)
UNPUBLISHED = Sensing(0.1, 0.025, 0.25)
INSTANT = {
    "pascal": Sensing(0.02, 0.01, 0.5),
    "volta": Sensing(0.02, 0.01, 0.5),
    "turing": Sensing(0.1, 0.1, 1.0),
    "ga100": Sensing(0.1, 0.025, 0.25),
    "ampere": Sensing(0.1, 0.1, 1.0),
    "ada": Sensing(0.1, 0.1, 1.0),
    "hopper": Sensing(0.1, 0.025, 0.25),
    "gh200": Sensing(0.1, 0.02, 0.20),
}
# Newer ones, and Ampere but for GA100, answer nvmlDeviceGetPowerUsage with the mean over 1 s (NVML reference).
INSTANT_USAGE = {"kepler", "maxwell", "pascal", "volta", "turing", "ga100"}


class Quantity(NamedTuple):
    """Something to show beside the curve: NVML's functions for it with their arguments, newest first."""

    name: str
    ways: tuple[tuple[str, *tuple[int, ...]], ...]
    convert: Callable[[Any], float]


# 1 is NVML_CLOCK_SM, 2 NVML_CLOCK_MEM, 0 NVML_TEMPERATURE_GPU. nvmlDeviceGetTemperature leaves with CUDA 14;
# older drivers know ThrottleReasons only.
QUANTITIES = (
    Quantity("clock_mhz", (("nvmlDeviceGetClockInfo", 1),), float),
    Quantity("memory_clock_mhz", (("nvmlDeviceGetClockInfo", 2),), float),
    Quantity("temperature_c", (("nvmlDeviceGetTemperatureV", 0), ("nvmlDeviceGetTemperature", 0)), float),
    Quantity("utilization", (("nvmlDeviceGetUtilizationRates",),), lambda rates: rates.gpu / 100),
    Quantity("power_limit_w", (("nvmlDeviceGetEnforcedPowerLimit",),), lambda milliwatts: milliwatts / 1000),
    Quantity(
        "throttle_reasons",
        (("nvmlDeviceGetCurrentClocksEventReasons",), ("nvmlDeviceGetCurrentClocksThrottleReasons",)),
        float,
    ),
)


def import_nvml() -> Any:
    """The module of the package nvidia-ml-py. Raises ImportError."""
    import pynvml

    return pynvml


class Nvml:
    """Every GPU that the driver shows, in its own order (that of PCI), which need not be CUDA's: match by UUID."""

    name = "nvml"

    def __init__(
        self,
        *,
        load: Callable[[], Any] = import_nvml,
        schedule: Callable[[float], Waits] = Schedule,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._load = load
        self._schedule = schedule
        self._clock_ns = clock_ns

    def why_unavailable(self) -> str | None:
        """By starting NVML and counting GPUs."""
        try:
            start(self._load).nvmlShutdown()
        except MeterLost as why:
            return str(why)
        return None

    def set_up(self) -> tuple[str, ...]:
        """None: the sentence says all."""
        return ()

    def open(self, *, period_s: float) -> NvmlMeter:
        """Start NVML and look once at every GPU. Raises MeterLost where none can be metered."""
        nvml = start(self._load)
        period_s = max(period_s, SHORTEST_PERIOD_S)
        with ExitStack() as stack:
            stack.callback(nvml.nvmlShutdown)
            found = [find_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
            gpus = [gpu for gpu in found if isinstance(gpu, Gpu)]
            without = [why for why in found if isinstance(why, str)]
            if not gpus:
                raise MeterLost(" ".join(without))
            stack.pop_all()
        return NvmlMeter(
            nvml, gpus, without, period_s=period_s, schedule=self._schedule(period_s), clock_ns=self._clock_ns
        )


def start(load: Callable[[], Any]) -> Any:
    """NVML, started, with one GPU at least; whoever asks for it calls `nvmlShutdown`. Raises MeterLost."""
    try:
        nvml = load()
    except ImportError:
        raise MeterLost("nvidia-ml-py is not installed: `pip install nvidia-ml-py`.") from None
    if not hasattr(nvml, "_nvmlGetFunctionPointer"):  # how zeus tells them apart as well
        raise MeterLost(
            "The deprecated package `pynvml` stands before nvidia-ml-py, which has a module of the same name: "
            "`pip uninstall pynvml`, then `pip install --force-reinstall nvidia-ml-py`."
        )
    try:
        nvml.nvmlInit()
        if nvml.nvmlDeviceGetCount() > 0:
            return nvml
    except nvml.NVMLError as error:
        raise MeterLost(why_not_started(nvml, error)) from error
    nvml.nvmlShutdown()
    raise MeterLost("NVIDIA's driver counts no GPU: see whether `nvidia-smi -L` lists one.")


def why_not_started(nvml: Any, error: Exception) -> str:
    """What keeps NVML from starting, with the remedy."""
    if isinstance(error, nvml.NVMLError_LibraryNotFound):
        return (
            "No NVIDIA driver was found (libnvidia-ml.so.1 does not load): where there is such a GPU, install it, or "
            "start the container with --gpus all."
        )
    return (
        f"NVIDIA's driver does not answer ({error}): see what `nvidia-smi` says, and restart the machine if the "
        "driver was updated."
    )


def find_gpu(nvml: Any, index: int) -> Gpu | str:
    """The GPU, or one sentence that says why it cannot be metered."""
    try:
        gpu = Gpu(nvml, index, nvml.nvmlDeviceGetHandleByIndex(index))
    except nvml.NVMLError as error:
        return f"gpu{index} is not metered: NVML answers {str(error)!r}; see what `nvidia-smi` says of it."
    if gpu.counts or gpu.way is not None:
        return gpu
    return f"gpu{index} ({gpu.name}) has no sensor of power or energy that NVML can read."


def ask(nvml: Any, function: str, *arguments: Any) -> Any:
    """What NVML answers, or None where this library, driver or GPU does not know the question. Raises NVMLError."""
    try:
        return getattr(nvml, function)(*arguments)
    except no_answers(nvml):
        return None


def no_answers(nvml: Any) -> tuple[type[Exception], ...]:
    """The errors that say that a question will never be answered here."""
    return (
        nvml.NVMLError_NotSupported,
        nvml.NVMLError_FunctionNotFound,
        nvml.NVMLError_NoPermission,
        nvml.NVMLError_InvalidArgument,
        nvml.NVMLError_ArgumentVersionMismatch,
        nvml.NVMLError_Deprecated,
    )


def field_power_w(nvml: Any, handle: Any, field: int, scope: int) -> float | None:
    """One field of power, each of which has a status of its own. Raises NVMLError."""
    values = ask(nvml, "nvmlDeviceGetFieldValues", handle, [(field, scope)])
    if values is None or values[0].nvmlReturn in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_INVALID_ARGUMENT):
        return None
    if values[0].nvmlReturn != nvml.NVML_SUCCESS:
        raise nvml.NVMLError(values[0].nvmlReturn)
    return watts(values[0].value.uiVal)


def usage_w(nvml: Any, handle: Any) -> float | None:
    """The power that every driver knows. Raises NVMLError."""
    milliwatts = ask(nvml, "nvmlDeviceGetPowerUsage", handle)
    return None if milliwatts is None else watts(milliwatts)


def watts(milliwatts: int) -> float | None:
    """None for 0: no GPU that answers draws nothing."""
    return milliwatts / 1000 if milliwatts > 0 else None


# Best first: what is felt at once shows edges best. NVML_POWER_SCOPE_GPU is 0.
POWER_WAYS: dict[Way, Callable[[Any, Any], float | None]] = {
    "instant": lambda nvml, handle: field_power_w(nvml, handle, nvml.NVML_FI_DEV_POWER_INSTANT, 0),
    "average": lambda nvml, handle: field_power_w(nvml, handle, nvml.NVML_FI_DEV_POWER_AVERAGE, 0),
    "usage": usage_w,
}


def family_of(architecture: int | None, capability: tuple[int, int] | None, name: str) -> str | None:
    """The GPU's family by how its sensor sees: GA100 (A100, A800, A30) and GH200 are unlike the rest of theirs."""
    family = FAMILIES.get(architecture) if architecture is not None else None
    if family == "ampere" and (capability == (8, 0) or re.search(r"\bA(100|800|30)\b", name)):
        return "ga100"
    return "gh200" if family == "hopper" and "GH200" in name else family


def sensing_of(family: str | None, way: Way) -> Sensing:
    """How the sensor of such a GPU sees, when it is asked in this way."""
    if way == "average" or (way == "usage" and family not in INSTANT_USAGE):
        return AVERAGED
    return INSTANT.get(family, UNPUBLISHED) if family is not None else UNPUBLISHED


class Gone(Exception):
    """The GPU is to be asked no more."""


class Gpu:
    """One GPU: what NVML can tell of it, and what it has told so far. Raises NVMLError where it does not answer."""

    def __init__(self, nvml: Any, index: int, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle
        self.rail = f"gpu{index}"
        self.name: str = self._ask("nvmlDeviceGetName") or "GPU"
        self.uuid: str | None = self._ask("nvmlDeviceGetUUID")
        self.family = family_of(
            self._ask("nvmlDeviceGetArchitecture"), self._ask("nvmlDeviceGetCudaComputeCapability"), self.name
        )
        self.in_instances = (self._ask("nvmlDeviceGetMigMode") or [0])[0] == nvml.NVML_DEVICE_MIG_ENABLE
        self.in_module = self._module_w() is not None
        self.counts = self._ask("nvmlDeviceGetTotalEnergyConsumption") is not None
        self.way: Way | None = next((way for way, read in POWER_WAYS.items() if read(nvml, handle) is not None), None)
        self._energy_mj = partial(nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
        self._power_w = None if self.way is None else partial(POWER_WAYS[self.way], nvml, handle)
        self._shown = [(quantity.name, *way) for quantity in QUANTITIES if (way := self._way_to(quantity)) is not None]
        self._gone = (
            nvml.NVMLError_GpuIsLost,
            nvml.NVMLError_ResetRequired,
            nvml.NVMLError_GpuNotFound,
            nvml.NVMLError_DriverNotLoaded,
            nvml.NVMLError_LibRmVersionMismatch,
            nvml.NVMLError_Uninitialized,
        )

    def energy_mj(self) -> int | None:
        """The energy counter, or None where it did not answer this time. Raises Gone."""
        energy_mj: int | None = self._try(self._energy_mj)
        return energy_mj

    def power_w(self) -> float | None:
        """The power, or None where it did not answer this time. Raises Gone."""
        power_w: float | None = None if self._power_w is None else self._try(self._power_w)
        return power_w

    def quantities(self) -> Iterator[tuple[str, float]]:
        """Everything else that this GPU knows, by name. Raises Gone."""
        if self.in_module and (module_w := self._try(self._module_w)) is not None:
            yield "module_power_w", module_w
        for name, question, convert in self._shown:
            answer = self._try(question)
            if answer is not None:
                yield name, convert(answer)

    def _way_to(self, quantity: Quantity) -> tuple[Callable[[], Any], Callable[[Any], float]] | None:
        """The first way that is known here, and how its answer is read; None where there is none.

        It is looked for once: what is asked ten times a second must be ready to be asked.
        """
        for function, *arguments in quantity.ways:
            question = partial(getattr(self._nvml, function), self._handle, *arguments)
            try:
                question()
            except no_answers(self._nvml):
                continue
            except self._nvml.NVMLError:
                pass  # not this time
            return question, quantity.convert
        return None

    def _ask(self, function: str, *arguments: int) -> Any:
        return ask(self._nvml, function, self._handle, *arguments)

    def _module_w(self) -> float | None:
        return field_power_w(
            self._nvml, self._handle, self._nvml.NVML_FI_DEV_POWER_INSTANT, self._nvml.NVML_POWER_SCOPE_MODULE
        )

    def _try(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except self._gone as error:
            raise Gone(f"NVML answered {str(error)!r}") from error
        except self._nvml.NVMLError:
            return None


class Point(NamedTuple):
    """Where the counter and the integral of the power stood when the counter changed."""

    time_ns: int
    counted_j: float
    under_power_j: float


class Curve:
    """A GPU's joules as they come in, by its counter where it has one, else under its power.

    The counter is still compared with the power, and gives a point where it changed: between two changes it tells
    nothing new, and a staircase would put the energy of 100 ms on the wrong side of an edge.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._counter = Counter()
        self._under_power = PowerIntegral()
        self._heard_ns: int | None = None
        self._has_begun = False
        self._first: Point | None = None
        self._last: Point | None = None
        self._changes = 0

    def add(self, *, time_ns: int, energy_mj: int | None, power_w: float | None) -> float | None:
        """The new joules, or None where there is no news. Raises WentBack, Gone."""
        if power_w is not None:
            self._under_power.add(time_ns, power_w)
        if (energy_mj if self._gpu.counts else power_w) is None:
            self._bear_silence(time_ns)
            return None
        self._heard_ns = time_ns
        if energy_mj is None:
            return self._under_power.energy_j
        return self._add_count(time_ns, energy_mj)

    def update_period_s(self) -> float | None:
        """How often the counter was seen to change, or None where that was too seldom to say."""
        if self._first is None or self._last is None or self._changes < 5:
            return None
        return seconds_from_ns(self._last.time_ns - self._first.time_ns) / self._changes

    def disagreement(self) -> tuple[float, float, float] | None:
        """Joules of the counter, joules under the power, and seconds, where they differ by more than they may."""
        if self._first is None or self._last is None or self._gpu.way is None:
            return None
        counted_j = self._last.counted_j - self._first.counted_j
        under_power_j = self._last.under_power_j - self._first.under_power_j
        past_s = seconds_from_ns(self._last.time_ns - self._first.time_ns)
        if past_s < COMPARED_S or abs(counted_j - under_power_j) <= DISAGREEMENT * max(counted_j, under_power_j):
            return None
        return counted_j, under_power_j, past_s

    def _add_count(self, time_ns: int, energy_mj: int) -> float | None:
        before_mj, total_mj = self._counter.total, self._counter.add(energy_mj)
        is_start, self._has_begun = not self._has_begun, True
        if total_mj != before_mj:
            self._note_change(Point(time_ns, total_mj / 1000, self._under_power.energy_j))
        return total_mj / 1000 if is_start or total_mj != before_mj else None

    def _note_change(self, point: Point) -> None:
        """Keep the first change, from which on the steps of the counter are whole, and the last."""
        if self._first is None:
            self._first = point
        else:
            self._last = point
            self._changes += 1

    def _bear_silence(self, time_ns: int) -> None:
        if self._heard_ns is None:
            self._heard_ns = time_ns
        if time_ns - self._heard_ns > PATIENCE_S * NS_PER_S:
            raise Gone(f"NVML gave no reading for {PATIENCE_S:g} s")


class NvmlMeter(PolledMeter):
    """The GPUs while they are metered."""

    def __init__(
        self,
        nvml: Any,
        gpus: list[Gpu],
        without: list[str],
        *,
        period_s: float,
        schedule: Waits,
        clock_ns: Callable[[], int],
    ) -> None:
        super().__init__(schedule, {gpu.rail: describe(gpu, period_s) for gpu in gpus})
        self._nvml = nvml
        self._gpus = gpus
        self._without = without
        self._clock_ns = clock_ns
        self._curves = {gpu.rail: Curve(gpu) for gpu in gpus}
        self._gone: set[str] = set()
        self._looks = dict.fromkeys(self._curves, 0)
        self._seen: dict[tuple[str, int], int] = {}

    def rails(self) -> Mapping[str, RailRecord]:
        """The rails; a counter's period is how often it was seen to change, once that is known."""
        return {rail: self._with_period(rail, record) for rail, record in super().rails().items()}

    def notes(self) -> list[str]:
        """What slowed the GPUs, what their figures contain, and where the two ways to meter them disagree."""
        return [*self._without, *(note for gpu in self._gpus for note in self._notes_on(gpu))]

    def _poll(self) -> list[Reading | Gauge]:
        given: list[Reading | Gauge] = []
        for gpu in self._gpus:
            if gpu.rail not in self._gone:
                given += self._poll_gpu(gpu)
        return given

    def _poll_gpu(self, gpu: Gpu) -> Iterator[Reading | Gauge]:
        try:
            energy_mj = gpu.energy_mj() if gpu.counts and self._is_live(gpu.rail) else None
            now_ns = self._clock_ns()
            power_w = gpu.power_w()
            if self._is_live(gpu.rail):
                yield from self._extend(gpu.rail, now_ns, energy_mj, power_w)
            if power_w is not None:
                yield Gauge(now_ns, f"{gpu.rail}.power_w", power_w)
            for name, value in gpu.quantities():
                self._note_reasons(gpu.rail, name, value)
                yield Gauge(now_ns, f"{gpu.rail}.{name}", value)
        except Gone as why:
            self._gone.add(gpu.rail)
            self._end(gpu.rail, str(why))

    def _extend(self, rail: str, now_ns: int, energy_mj: int | None, power_w: float | None) -> Iterator[Reading]:
        try:
            energy_j = self._curves[rail].add(time_ns=now_ns, energy_mj=energy_mj, power_w=power_w)
        except WentBack as why:
            self._end(rail, f"its energy counter in mJ {why}: the driver was reloaded or the GPU reset")
            return
        if energy_j is not None:
            yield Reading(now_ns, rail, energy_j)

    def _note_reasons(self, rail: str, name: str, value: float) -> None:
        if name != "throttle_reasons":
            return
        self._looks[rail] += 1
        for bit in REASONS:
            if int(value) & bit:
                self._seen[rail, bit] = self._seen.get((rail, bit), 0) + 1

    def _notes_on(self, gpu: Gpu) -> Iterator[str]:
        for bit, reason in REASONS.items():
            if seen := self._seen.get((gpu.rail, bit), 0):
                share = seen / self._looks[gpu.rail]
                yield f"{gpu.rail} was held back by {reason} in {share:.0%} of {self._looks[gpu.rail]:,} looks."
        if gpu.in_instances:
            yield (
                f"{gpu.rail} is split into instances (MIG) and NVML meters the whole GPU: its joules are those of all "
                "instances."
            )
        if gpu.in_module:
            yield (
                f"{gpu.rail} sits on a module with its CPU: {gpu.rail}.module_power_w beside it is the module's, and "
                "on a GH200 the GPU's own figure moved with the module's (arXiv:2312.02741)."
            )
        if differ := self._curves[gpu.rail].disagreement():
            yield (
                f"{gpu.rail} counted {differ[0]:,.0f} J where its power adds up to {differ[1]:,.0f} J over "
                f"{differ[2]:,.0f} s: do not trust either before the driver or a wall meter has settled it."
            )

    def _with_period(self, rail: str, record: RailRecord) -> RailRecord:
        seen_s = self._curves[rail].update_period_s()
        return msgspec.structs.replace(record, period_s=max(record.period_s, seen_s)) if seen_s else record

    def _let_go(self) -> None:
        self._nvml.nvmlShutdown()


def describe(gpu: Gpu, period_s: float) -> RailRecord:
    """The rail of a GPU whose sensor is looked at each `period_s`."""
    sensing = sensing_of(gpu.family, "instant" if gpu.counts or gpu.way is None else gpu.way)
    return RailRecord(
        source=Nvml.name,
        method="counter" if gpu.counts else "instant, integrated",
        state="measured",
        scope="GPU board, all its instances" if gpu.in_instances else "GPU board",
        part="gpu",
        period_s=max(period_s, COUNTER_PERIOD_S if gpu.counts else sensing.period_s),
        averaging_s=sensing.averaging_s,
        coverage=sensing.coverage,
        quantum_j=0.001 if gpu.counts else None,
        accuracy=ACCURACY,
        accuracy_source=ACCURACY_SOURCE,
        uuid=gpu.uuid,
    )
