"""Which rails make the headline: the device's own energy, with nothing counted twice."""

from __future__ import annotations

import re
from collections.abc import Mapping

from powerbench.records import DeviceRecord, RailRecord, RunRecord

SOC_SOURCES = ("powermetrics", "ioreport")
SOC_PARTS = ("cpu", "gpu", "ane", "dram")
PROCESSOR_PARTS = ("package", "dram")
# Of a run whose machines were put together, each rail has its machine before its name.
OF_A_MACHINE = re.compile(r"node\d+\.")


def counted_rails(record: RunRecord) -> list[str]:
    """The names of the rails whose joules are those of the run, in the order in which they were recorded.

    On cuda the GPUs that the ranks stepped on, by their identifiers, each once. On a Mac the whole SoC, for cpu and mps
    alike, since they share it. Else, on the cpu, packages and their memory. And whatever source was asked for by name.
    A recording of power has no device: all that was metered counts.
    """
    machines: dict[str, dict[str, RailRecord]] = {}
    for name, rail in record.rails.items():
        machine = OF_A_MACHINE.match(name)
        machines.setdefault("" if machine is None else machine[0], {})[name] = rail
    counted: list[str] = []
    for rails in machines.values():
        seen = {record.rails[name].uuid for name in counted} - {None}  # two directories may be of one machine
        counted += [name for name in _counted_of(rails, record) if record.rails[name].uuid not in seen]
    return counted


def _counted_of(rails: Mapping[str, RailRecord], record: RunRecord) -> list[str]:
    """Those of one machine."""
    own = set(rails) if record.cell is None else _of_the_device(rails, record, record.cell.device)
    power = "auto" if record.cell is None else record.cell.power
    asked = () if power in ("auto", "none") else [name.strip() for name in power.split(",")]
    wanted = {
        name: rail
        for name, rail in rails.items()
        if name in own or (rail.source in asked and not _is_another_gpu(rail, record))
    }
    return [name for name in wanted if not _is_counted_already(name, wanted)]


def used_devices(record: RunRecord) -> list[DeviceRecord]:
    """The device of each rank, as far as they are known; one that several ranks share stands there as often."""
    return record.devices or ([] if record.device is None else [record.device])


def distinct_devices(record: RunRecord) -> list[DeviceRecord]:
    """Those devices once each: one without an identifier is its machine's, and shared by the ranks there."""
    ranks = 1 if record.cell is None else record.cell.ranks
    found = {
        (device.uuid,) if device.uuid is not None else (device.kind, device.name, at // ranks): device
        for at, device in enumerate(used_devices(record))
    }
    return list(found.values())


def unmetered_gpus(record: RunRecord) -> list[str]:
    """The identifiers of GPUs that ranks stepped on and no meter saw, where others were metered."""
    used = dict.fromkeys(device.uuid for device in used_devices(record) if device.uuid is not None)
    metered = {rail.uuid for rail in record.rails.values()}
    return [uuid for uuid in used if uuid not in metered] if metered & set(used) else []


def scope_in_words(record: RunRecord, counted: list[str]) -> str:
    """What the headline covers: `SoC (cpu + gpu + ane)`, `gpu0`, `package-0 + dram-0`."""
    names = " + ".join(counted)
    return f"SoC ({names})" if all(record.rails[name].source in SOC_SOURCES for name in counted) else names


def _is_another_gpu(rail: RailRecord, record: RunRecord) -> bool:
    """Whether it is a GPU with an identifier, and the ranks stepped on such with others."""
    used = {device.uuid for device in used_devices(record)}
    return bool(used) and None not in used and rail.uuid is not None and rail.uuid not in used


def _of_the_device(rails: Mapping[str, RailRecord], record: RunRecord, asked_for: str) -> set[str]:
    kind = record.device.kind if record.device else asked_for
    if kind == "cuda":
        used = {device.uuid for device in used_devices(record)}
        return set() if None in used else {name for name, rail in rails.items() if rail.uuid in used}
    if any(rail.source in SOC_SOURCES for rail in rails.values()):
        return _of_the_soc(rails)
    if kind != "cpu":
        return set()
    return {name for name, rail in rails.items() if rail.part in PROCESSOR_PARTS}


def _of_the_soc(rails: Mapping[str, RailRecord]) -> set[str]:
    """One source's parts of it: that of the two which has more of them. An Intel Mac has a package instead."""
    of_source = {
        source: {name for name, rail in rails.items() if rail.source == source and rail.part in SOC_PARTS}
        for source in SOC_SOURCES
    }
    parts = max(of_source.values(), key=len)
    return parts or {name for name, rail in rails.items() if rail.part == "package"}


def _is_counted_already(name: str, wanted: Mapping[str, RailRecord]) -> bool:
    """Whether another wanted rail contains this one, or an earlier source measures the same part."""
    rail = wanted[name]
    if any(rail.part in other.contains for other in wanted.values() if other is not rail):
        return True
    first = next(other.source for other in wanted.values() if other.part == rail.part)
    return rail.source != first
