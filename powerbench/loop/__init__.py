"""The library: `powerbench.record()` around any program's loop makes a run like any other, with the same meters."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from operator import index
from pathlib import Path
from typing import Any, Literal

from powerbench.devices import device_of_program
from powerbench.errors import PowerbenchError, UsageError
from powerbench.loop.order import Order
from powerbench.loop.program import name_of_program
from powerbench.loop.ranks import Rank
from powerbench.loop.recording import Pause, Recording
from powerbench.profile import IDLE_S
from powerbench.records import Limits, LoopCell, WorkloadRecord
from powerbench.rundir import RECORD, program_run_name
from powerbench.settings import checked, written

__all__ = ["Pause", "Recording", "record"]

IN_RECORD = "In record(), "
SHOWN = {"model": "name"}  # settings that have another name here


def record(
    path: str | os.PathLike[str] | None = None,
    *,
    device: str = "auto",
    power: str = "auto",
    warmup: int = 1,
    name: str | None = None,
    mode: Literal["training", "inference"] | None = None,
    batch_size: int | None = None,
    sequence_length: int | None = None,
    accumulation: int | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    sync_every: int | None = None,
    idle_seconds: float = IDLE_S,
    trace: bool = False,
    py_spy: bool = False,
    parameters: int | None = None,
    notes: Sequence[str] = (),
    quiet: bool = False,
) -> Recording:
    """Record the steps of a loop of your own, with joules, as `powerbench run` records those of its own.

        with powerbench.record("runs/mine", device="mps") as run:
            for batch in loader:
                train(batch)
                run.step()

    `path` is the run's own folder; where a run lies there already, `path-2`, and so on. A folder that is there and is
    no run gets the run as a new folder inside, named by the time; so does `runs`, where no path is given. Under
    torchrun each rank has a run of its own, `path-rank0`, ..., and the first of a machine reads its meters.

    `device` is where the steps run: `cpu`, `cuda`, `cuda:1`, `mps`, `xpu`, or `auto`, the best one here. `power` names
    meters, or is `auto` or `none`. The first `warmup` steps are set aside; the first of all begins with the `with`.

    `name` is what the loop is called in tables, by default the script. `mode`, `batch_size` (samples), `accumulation`
    (batches a step), `sequence_length` (tokens), `dtype` and `parameters` say what a step was; what is left out is
    unknown, and so are figures that need it. `notes` are sentences for whoever reads the figures.

    `sync_every`: wait for the device at each so manieth step; None is 1, and 0 on cuda, where events do without.
    `idle_seconds` of rest are measured first, where there is a meter. `trace`: gauges at 10 Hz, and the verdict on the
    steps in every report. `py_spy`: stacks for `powerbench flame`, by py-spy, which stops the program at each look, so
    that its latencies are no longer its own. `quiet`: nothing on stderr.

    Returns a Recording that is not started yet. Raises UsageError for an argument that makes no sense, here, and
    PowerbenchError when it is started and that fails. Once it is started, nothing is raised into the loop any more.
    """
    chosen = device_of_program(str(device))
    asked = {
        **{"mode": mode, "batch_size": batch_size, "sequence_length": sequence_length, "accumulation": accumulation},
        **{"dtype": dtype, "idle_seconds": idle_seconds},
        **{"sync_every": chosen.default_sync_every if sync_every is None else sync_every},
    }
    always = {"power": power, "warmup": warmup, "trace": trace, "py_spy": py_spy, "model": _name(name)}
    known = always | {key: value for key, value in asked.items() if value is not None}
    told = {key: _told(key, value) for key, value in known.items()}
    rank = Rank.of()
    told["power"] = rank.power(told["power"])
    cell = LoopCell(device=chosen.name, limits=Limits(swap_out_mb=None), **told)
    where = rank.place(_place(None if path is None else Path(path).expanduser(), cell)).absolute()
    order = Order(path=str(where), cell=cell, program=name_of_program(), notes=[*_sentences(notes), *rank.notes()])
    samples = None if cell.batch_size is None else cell.batch_size * (cell.accumulation or 1)
    workload = WorkloadRecord(samples_per_step=samples, parameters=_parameters(parameters))
    return Recording(order, chosen, workload, quiet=quiet)


def _told(key: str, value: object) -> Any:
    """A setting as records have it. Raises UsageError."""
    try:
        return checked(key, _plain(value), IN_RECORD, shown=SHOWN.get(key))
    except PowerbenchError as error:
        raise UsageError(str(error)) from error


def _plain(value: Any) -> Any:
    """Python's own number for one of numpy or torch, as programs have them; anything else as it is."""
    if isinstance(value, bool | str | bytes):
        return value
    numbers: tuple[Callable[[Any], int | float], ...] = (index, float)
    for number in numbers:
        with suppress(TypeError, ValueError, OverflowError):
            return number(value)  # what is no such number is a TypeError
    return value


def _parameters(count: object) -> int | None:
    plain = _plain(count)
    if plain is None or (isinstance(plain, int) and not isinstance(plain, bool) and plain >= 0):
        return plain
    raise UsageError(f"{IN_RECORD}parameters must be a whole number, 0 or more, not {written(count)}.")


def _sentences(notes: object) -> list[str]:
    """The notes as a list; one alone may come without it."""
    if isinstance(notes, str):
        return [notes]
    each: list[Any] = list(notes) if isinstance(notes, Iterable) else [notes]
    if all(isinstance(note, str) for note in each):
        return each
    raise UsageError(f"{IN_RECORD}notes must be sentences, not {written(notes)}.")


def _name(name: str | None) -> str:
    if name == "sleep":
        raise UsageError("In record(), the name sleep is that of the built-in control: choose another.")
    return Path(name_of_program()).stem if name is None else name


def _place(path: Path | None, cell: LoopCell) -> Path:
    """The folder of the run, which may yet get a number behind its name."""
    try:
        is_parent = path is not None and path.is_dir() and not (path / RECORD).exists()
    except OSError as error:
        raise UsageError(
            f"{IN_RECORD}nothing can be recorded to {path}: {error.strerror}; name another path."
        ) from error
    if path is None or is_parent:
        return (path or Path("runs")) / program_run_name(cell, datetime.now(UTC))
    return path
