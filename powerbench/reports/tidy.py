"""Runs as one table with a row a run, for other programs: units in the names, nothing where nothing is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from powerbench.analysis.notes import TABLE_STEPS
from powerbench.reports.entries import Entry, entries_of, machine_names
from powerbench.reports.grid import PHASES, phase_j, phase_ms
from powerbench.rundir.load import Run

Value = str | int | float | bool | datetime | None
Kind = type[str] | type[int] | type[float] | type[bool] | type[datetime]


class Column(NamedTuple):
    """A column of the table: what its values are, and how one is taken from a run; None where it is not known."""

    kind: Kind
    value: Callable[[Entry], Value]


def rows_of(runs: Iterable[Run]) -> list[dict[str, Value]]:
    """A row a run, in their order; the keys are those of COLUMNS, behind `machine`."""
    entries = entries_of(runs)
    names = machine_names(entries)
    return [
        {"machine": names[entry.machine], **{name: column.value(entry) for name, column in COLUMNS.items()}}
        for entry in entries
    ]


def kinds() -> Mapping[str, Kind]:
    """The columns in their order, and what their values are."""
    return {"machine": str, **{name: column.kind for name, column in COLUMNS.items()}}


def _start(entry: Entry) -> datetime | None:
    # What was published, or never begun, has no moment.
    return datetime.fromtimestamp(entry.start_unix_ns / 1e9, UTC) if entry.start_unix_ns else None


def _extrapolated(entry: Entry) -> bool | None:
    steps = entry.summary.steps
    return None if not steps else steps < TABLE_STEPS


def _samples_per_j(entry: Entry) -> float | None:
    j_per_sample = entry.summary.energy.j_per_sample if entry.summary.energy else None
    return 1 / j_per_sample if j_per_sample else None


def _stragglers(entry: Entry) -> str | None:
    """The numbers of the ranks that the others wait for; empty where there is none."""
    found = entry.summary.stragglers
    return None if found is None else " ".join(str(it.rank) for it in found)


def _of_cell(name: str, kind: Kind) -> Column:
    return Column(kind, lambda entry: getattr(entry.cell, name, None))


def _of_our_cell(name: str) -> Column:
    """Of a setting on which the published tables are silent."""
    return Column(str, lambda entry: None if entry.published else getattr(entry.cell, name, None))


def _of_summary(name: str, kind: Kind) -> Column:
    return Column(kind, lambda entry: getattr(entry.summary, name))


def _of_facts(name: str, kind: Kind) -> Column:
    return Column(kind, lambda entry: entry.facts.get(name))


def _of_latency(name: str) -> Column:
    return Column(float, lambda entry: getattr(entry.summary.latency_ms, name, None))


def _of_energy(name: str, kind: Kind = float) -> Column:
    return Column(kind, lambda entry: getattr(entry.summary.energy, name, None))


def _of_interval(name: str, end: int) -> Column:
    def value(entry: Entry) -> float | None:
        interval: tuple[float, float] | None = getattr(entry.summary.energy, name, None)
        return None if interval is None else interval[end]

    return Column(float, value)


COLUMNS: dict[str, Column] = {
    "run": _of_summary("run", str),
    "status": _of_summary("status", str),
    "reason": _of_summary("reason", str),
    "published": Column(str, lambda entry: entry.published),
    "start_utc": Column(datetime, _start),
    "device": _of_summary("device", str),
    "device_name": Column(str, lambda entry: entry.device_name),
    "processor": _of_facts("processor", str),
    "machine_memory_bytes": _of_facts("memory_bytes", int),
    "system": _of_facts("system", str),
    "torch": _of_facts("torch", str),
    "transformers": _of_facts("transformers", str),
    "python": _of_facts("python", str),
    "powerbench": _of_facts("powerbench", str),
    "model": _of_summary("model", str),
    "mode": _of_summary("mode", str),
    "batch_size": _of_summary("batch_size", int),
    "sequence_length": _of_summary("sequence_length", int),
    "dtype": _of_summary("dtype", str),
    "attention": _of_our_cell("attention"),
    "compile": _of_cell("compile", bool),
    "accumulation": _of_cell("accumulation", int),
    "dropout": _of_cell("dropout", bool),
    "optimizer": _of_cell("optimizer", str),
    "fused": _of_cell("fused", bool),
    "dataset": _of_our_cell("dataset"),
    "pad": _of_our_cell("pad"),
    "include_data": _of_cell("include_data", bool),
    "weights": _of_our_cell("weights"),
    "copy": _of_cell("copy", str),
    "sync_every": _of_cell("sync_every", int),
    "threads": _of_facts("threads", int),
    "ranks": Column(int, lambda entry: None if entry.cell is None else entry.ranks),
    "nnodes": _of_cell("nnodes", int),
    "global_batch_size": _of_summary("global_batch_size", int),
    "phases": _of_cell("phases", bool),
    "timer": _of_summary("timer", str),
    "steps": _of_summary("steps", int),
    "warmup_steps": _of_summary("warmup_steps", int),
    "wall_s": _of_summary("wall_s", float),
    "wall_s_100_steps": _of_summary("wall_s_100_steps", float),
    "extrapolated": Column(bool, _extrapolated),
    "latency_mean_ms": _of_latency("mean"),
    "latency_median_ms": _of_latency("median"),
    "latency_p5_ms": _of_latency("p5"),
    "latency_p95_ms": _of_latency("p95"),
    "latency_min_ms": _of_latency("min"),
    "latency_max_ms": _of_latency("max"),
    "samples_per_s": _of_summary("samples_per_s", float),
    "tokens_per_s": _of_summary("tokens_per_s", float),
    "tflop_per_s": _of_summary("tflop_per_s", float),
    **{f"phase_{name}_ms": Column(float, partial(phase_ms, name=name)) for name in PHASES},
    **{f"phase_{name}_j": Column(float, partial(phase_j, name=name)) for name in PHASES},
    "stragglers": Column(str, _stragglers),
    "peak_memory_bytes": _of_summary("peak_memory_bytes", int),
    "peak_memory_of": Column(str, lambda entry: entry.peak_memory_of),
    "energy_total_j": _of_energy("total_j"),
    "energy_j_per_step": _of_energy("j_per_step"),
    "energy_j_per_step_sampling_ci95_low": _of_interval("j_per_step_sampling_ci95", 0),
    "energy_j_per_step_sampling_ci95_high": _of_interval("j_per_step_sampling_ci95", 1),
    "energy_sensor_accuracy": _of_energy("sensor_accuracy"),
    "energy_j_per_sample": _of_energy("j_per_sample"),
    "samples_per_j": Column(float, _samples_per_j),
    "mean_w": _of_energy("mean_w"),
    "peak_w": _of_energy("peak_w"),
    "idle_w": _of_energy("idle_w"),
    "net_j_per_step": _of_energy("net_j_per_step"),
    "energy_partial": _of_energy("partial", bool),
    "energy_readings": _of_energy("readings", int),
    "energy_scope": _of_energy("scope", str),
    "energy_estimated": Column(bool, lambda entry: entry.estimated if entry.summary.energy else None),
    "energy_reason": _of_summary("energy_reason", str),
    "notes": Column(str, lambda entry: " | ".join(entry.summary.notes) or None),
}
