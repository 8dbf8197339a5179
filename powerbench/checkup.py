"""What can be measured on this machine, how well, and what to do about the rest: the checks of `powerbench doctor`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from msgspec import Struct

from powerbench.calibration import Calibration, calibrate
from powerbench.devices import DEVICES
from powerbench.environment import SLOW_MODES, describe_environment
from powerbench.errors import MeterLost
from powerbench.metering import METERS
from powerbench.power import Source
from powerbench.probe import Probe, probe
from powerbench.records import RailRecord
from powerbench.units import byte_size, counted, significant

# Noise below this share of the power is that of the arithmetic.
ROUNDING = 1e-9
METER_PERIOD_S = 0.1
BUSY_LOAD_PER_CORE = 0.25
LITTLE_MEMORY = 0.25


class Check(Struct, frozen=True, kw_only=True):
    """One thing that was looked at. `advice` is what to do, `commands` what to type; none where nothing needs doing."""

    subject: Literal["device", "meter", "software", "machine"]
    name: str
    state: Literal["ok", "note", "missing"]
    finding: str
    advice: str | None = None
    commands: list[str] = []


def check_up(
    ask: Callable[[str], Probe] = probe, sources: Mapping[str, Source] = METERS, *, calibrated: bool = False
) -> list[Check]:
    """Every check, in the order in which a person reads them; `ask` starts the probe of a device.

    `calibrated` watches each meter for some seconds, too, and gives the cost of a fence.
    """
    environment = describe_environment()
    of_meters = [*meters(sources), *(calibrations(sources) if calibrated else ())]
    return [*devices(ask, fences=calibrated), *of_meters, *software(environment), *machine(environment)]


def can_measure(checks: list[Check]) -> bool:
    """Whether there is a device to measure on."""
    return any(check.subject == "device" and check.state == "ok" for check in checks)


def devices(ask: Callable[[str], Probe], *, fences: bool = False) -> Iterator[Check]:
    """Each device: by what can be seen without torch, and then by torch itself."""
    for name, device in DEVICES.items():
        reason = device.why_unavailable()
        if reason is not None:
            yield Check(subject="device", name=name, state="missing", finding=reason)
            continue
        answer = ask(name)
        if answer.complaint is not None:
            yield Check(subject="device", name=name, state="missing", finding=answer.complaint)
        else:
            finding = _device_in_words(name, answer)
            if fences and answer.fence_us is not None:
                finding = f"{finding}; waiting for it at rest costs {significant(answer.fence_us)} us"
            yield Check(subject="device", name=name, state="ok", finding=finding)


def meters(sources: Mapping[str, Source]) -> Iterator[Check]:
    """Each source of power: what it would measure, how fast and in what scope, by reading it; or why it cannot."""
    for name, source in sources.items():
        reason = source.why_unavailable()
        try:
            rails = _first_rails(source) if reason is None else {}
        except MeterLost as error:
            reason = str(error)
        if reason is not None:
            commands = list(source.set_up())
            yield Check(subject="meter", name=name, state="missing", finding=reason, commands=commands)
        else:
            finding = "; ".join(_rail_in_words(rail, record) for rail, record in rails.items())
            yield Check(subject="meter", name=name, state="ok", finding=finding)


def calibrations(sources: Mapping[str, Source]) -> Iterator[Check]:
    """What each meter that can be opened is like at rest."""
    for name, source in sources.items():
        if source.why_unavailable() is not None:
            continue
        try:
            found = calibrate(source)
        except MeterLost as error:
            yield Check(subject="meter", name=name, state="missing", finding=str(error))
            continue
        for rail in found:
            yield Check(subject="meter", name=name, state="ok", finding=_calibration_in_words(rail))


def _calibration_in_words(found: Calibration) -> str:
    if found.period_ms is None or found.idle_w is None or found.noise_w is None:
        return f"{found.rail} at rest: too few readings to tell ({found.readings})"
    quantum = (
        "it counted nothing" if found.quantum_j is None else f"the smallest step was {significant(found.quantum_j)} J"
    )
    noise_w = 0.0 if found.noise_w < ROUNDING * found.idle_w else found.noise_w
    return (
        f"{found.rail} at rest: {significant(found.idle_w)} W, give or take {significant(noise_w)}; "
        f"{found.readings} readings, one each {significant(found.period_ms)} ms, {quantum}"
    )


def _first_rails(source: Source) -> Mapping[str, RailRecord]:
    meter = source.open(period_s=METER_PERIOD_S)
    try:
        meter.read()
        return meter.rails()
    finally:
        meter.close()


def _rail_in_words(rail: str, record: RailRecord) -> str:
    accuracy = "no accuracy published" if record.accuracy is None else f"accurate to {record.accuracy:.0%}"
    often = f"each {significant(record.period_s * 1000)} ms"
    return f"{rail}: {record.scope}, {record.state} ({record.method}, {often}; {accuracy})"


def software(environment: dict[str, Any]) -> Iterator[Check]:
    """torch, the variables that change what it does."""
    torch = environment["torch"]
    if torch is None:
        advice = "Install it as https://pytorch.org/get-started shows."
        yield Check(subject="software", name="torch", state="missing", finding="not installed", advice=advice)
    else:
        yield Check(subject="software", name="torch", state="ok", finding=f"{torch}, Python {environment['python']}")
    variables = environment["variables"]
    if variables:
        yield Check(
            subject="software",
            name="variables",
            state="note",
            finding=", ".join(f"{name}={value}" for name, value in variables.items()),
            advice="These change results and are recorded with each run; unset what you do not mean to measure.",
        )
    else:
        yield Check(subject="software", name="variables", state="ok", finding="none set that changes results")


def machine(environment: dict[str, Any]) -> Iterator[Check]:
    """What else the machine is doing, what memory it has, and how it is powered."""
    yield _load(environment)
    yield _memory(environment)
    yield _swap(environment)
    yield _power(environment)


def _device_in_words(name: str, answer: Probe) -> str:
    threads = f", {counted(answer.threads, 'thread')}" if name == "cpu" and answer.threads is not None else ""
    settings = "".join(f", {key} {value}" for key, value in answer.settings.items() if value is not None)
    return f"{answer.device}{threads}{settings}"


def _load(environment: dict[str, Any]) -> Check:
    load, cores = environment["load_1min"], environment["logical_cores"] or 1
    finding = f"{load:.2f} on {counted(cores, 'core')}"
    if load <= BUSY_LOAD_PER_CORE * cores:
        return Check(subject="machine", name="load", state="ok", finding=finding)
    advice = "Something else is running: close it, or wait, before you measure."
    return Check(subject="machine", name="load", state="note", finding=finding, advice=advice)


def _memory(environment: dict[str, Any]) -> Check:
    free, whole = environment["memory_available_bytes"], environment["memory_bytes"]
    finding = f"{byte_size(free)} of {byte_size(whole)} free"
    if free >= LITTLE_MEMORY * whole:
        return Check(subject="machine", name="memory", state="ok", finding=finding)
    advice = "Little is free: close what you do not need, or the run will swap."
    return Check(subject="machine", name="memory", state="note", finding=finding, advice=advice)


def _swap(environment: dict[str, Any]) -> Check:
    used = environment["swap_used_bytes"]
    if not environment["swap_bytes"]:
        on_demand = environment["system"].startswith("macOS")
        finding = (
            "none so far; macOS makes it as needed" if on_demand else "none: a run too large is killed, not slowed"
        )
        return Check(subject="machine", name="swap", state="ok", finding=finding)
    finding = f"{byte_size(used)} of {byte_size(environment['swap_bytes'])} used"
    if not used:
        return Check(subject="machine", name="swap", state="ok", finding=finding)
    advice = "Pages that come back from swap slow the first steps; a restart clears it."
    return Check(subject="machine", name="swap", state="note", finding=finding, advice=advice)


def _power(environment: dict[str, Any]) -> Check:
    battery, mode = environment["on_battery"], environment["power_mode"]
    supply = {True: "on battery", False: "on mains", None: "no battery seen"}[battery]
    finding = supply if mode is None else f"{supply}, power mode {mode}"
    advice = []
    if battery:
        advice.append("Plug the machine in: on battery it may run slower.")
    if mode in SLOW_MODES:
        advice.append("Switch to a normal or a performance mode, unless this one is what you mean to measure.")
    state: Literal["ok", "note"] = "note" if advice else "ok"
    return Check(subject="machine", name="power", state=state, finding=finding, advice=" ".join(advice) or None)
