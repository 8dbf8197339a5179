"""Which rails make the headline: the device's own energy, with nothing counted twice."""

from __future__ import annotations

from collections.abc import Mapping

from powerbench.records import RailRecord, RunRecord

SOC_SOURCES = ("powermetrics", "ioreport")
SOC_PARTS = ("cpu", "gpu", "ane", "dram")
PROCESSOR_PARTS = ("package", "dram")


def counted_rails(record: RunRecord) -> list[str]:
    """The names of the rails whose joules are those of the run, in the order in which they were recorded.

    On cuda the GPU that the worker stepped on, by its identifier. On a Mac the whole SoC, for cpu and mps alike, since
    they share it. Else, on the cpu, packages and their memory. And whatever source was asked for by name. A recording
    of power has no device: all that was metered counts.
    """
    own = set(record.rails) if record.cell is None else _of_the_device(record, record.cell.device)
    power = "auto" if record.cell is None else record.cell.power
    asked = () if power in ("auto", "none") else [name.strip() for name in power.split(",")]
    wanted = {
        name: rail
        for name, rail in record.rails.items()
        if name in own or (rail.source in asked and not _is_another_gpu(rail, record))
    }
    return [name for name in wanted if not _is_counted_already(name, wanted)]


def scope_in_words(record: RunRecord, counted: list[str]) -> str:
    """What the headline covers: `SoC (cpu + gpu + ane)`, `gpu0`, `package-0 + dram-0`."""
    names = " + ".join(counted)
    return f"SoC ({names})" if all(record.rails[name].source in SOC_SOURCES for name in counted) else names


def _is_another_gpu(rail: RailRecord, record: RunRecord) -> bool:
    """Whether it is a GPU with an identifier, and the worker stepped on one with another."""
    used = record.device.uuid if record.device else None
    return used is not None and rail.uuid is not None and rail.uuid != used


def _of_the_device(record: RunRecord, asked_for: str) -> set[str]:
    rails, kind = record.rails, record.device.kind if record.device else asked_for
    if kind == "cuda":
        uuid = record.device.uuid if record.device else None
        return {name for name, rail in rails.items() if uuid is not None and rail.uuid == uuid}
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
