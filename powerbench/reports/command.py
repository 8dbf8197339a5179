"""The command that measures a cell again, as it would be typed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import msgspec

from powerbench.devices import DEVICES
from powerbench.profile import IDLE_S, METERED_S
from powerbench.records import SYNTHETIC, Cell, Limits, RunRecord
from powerbench.workloads.batches import SYNTHETIC_BATCHES

OPTIONS = {
    **{
        name: f"--{name.replace('_', '-')}"
        for name in (
            *("device", "model", "mode", "batch_size", "sequence_length", "dtype", "attention", "steps", "warmup"),
            *("weights", "optimizer", "dataset", "text_column", "label_column", "split", "pad"),
            *("min_seconds", "max_seconds", "threads", "copy", "sync_every", "power", "power_from", "ranks", "nnodes"),
        )
    },
    "idle_seconds": "--idle",
}
FLAGS = {
    **{"compile": "--compile", "include_data": "--include-data", "phases": "--phases", "py_spy": "--py-spy"},
    **{"torch_profiler": "--torch-profiler", "trace": "--trace", "require_power": "--require-power"},
}


def command_for(record: RunRecord, **changes: Any) -> str:
    """`powerbench run` with the options that make the cell of this run, but for `changes`.

    What the cell has by default, or what its device chooses by itself, is left out. Of a run on several machines it is
    the command on that of the record. Raises PowerbenchError for a recording of power, and for a program's own loop,
    which it cannot start.
    """
    cell = msgspec.structs.replace(record.built_in, **changes)
    options = _options(cell, _usual(cell, is_metered=bool(record.rails)))
    node = record.node
    there = () if node is None else ("--node-rank", str(node.rank), "--rendezvous", node.rendezvous)
    return shlex.join(["powerbench", "run", *options, *there])


def command_of(cell: Cell) -> str:
    """`powerbench run` with the options that make this cell as it was asked for, its open choices left open."""
    return shlex.join(["powerbench", "run", *_options(cell, Cell())])


def _usual(cell: Cell, *, is_metered: bool) -> Cell:
    """The cell that `powerbench run --device ...` measures."""
    device = DEVICES.get(cell.device)
    return Cell(
        batches=SYNTHETIC_BATCHES if cell.dataset == SYNTHETIC else None,
        copy=device.default_copy if device else None,
        sync_every=device.default_sync_every if device else None,
        min_seconds=METERED_S if is_metered else 0.0,
        idle_seconds=IDLE_S if is_metered else 0.0,
    )


def _options(cell: Cell, usual: Cell) -> Iterator[str]:
    for name in cell.__struct_fields__:
        value = getattr(cell, name)
        if value is None or value == getattr(usual, name):  # of what is None, the choice was left open
            continue
        if name == "limits":
            yield from _limits(cell.limits)
        elif name in FLAGS and value:
            yield FLAGS[name]
        elif name in OPTIONS:
            yield from (OPTIONS[name], _written(value))
        else:
            yield from ("--set", f"{name}={_written(value)}")


def _limits(limits: Limits) -> Iterator[str]:
    for name in limits.__struct_fields__:
        if getattr(limits, name) != getattr(Limits(), name):
            yield from ("--set", f"limits.{name}={_written(getattr(limits, name))}")


def _written(value: object) -> str:
    """A value as YAML and the options read it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return format(value, ".15g") if isinstance(value, float) else str(value)
