"""Reading a run back, whatever became of it: finished, still running, or killed at any moment."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import msgspec
import psutil

from powerbench.environment import boot_id
from powerbench.errors import PowerbenchError
from powerbench.records import (
    SCHEMA,
    DeviceRecord,
    EnergyCurve,
    OperatorTimes,
    PhaseSpan,
    RunRecord,
    Stage,
    StepTrace,
    Supervisor,
    Window,
    phases_of,
)
from powerbench.rundir import RECORD, RunDir
from powerbench.rundir.combined import combined
from powerbench.rundir.completed import Told, complete_ranks, measured_steps, with_sampled_peak
from powerbench.rundir.lines import LineTail, read_energy, read_events, read_telemetry, read_words
from powerbench.rundir.marks import MarksReader
from powerbench.rundir.operators import read_operators
from powerbench.rundir.phases import PhasesReader, read_phases
from powerbench.rundir.stacks import Stacks, find_stacks
from powerbench.rundir.work import WorkReader, read_work

# How far two readings of one process's start time may lie apart (the kernel counts in hundredths of a second, and
# the calendar may have been set meanwhile).
START_TIME_TOLERANCE_S = 2.0
STEP_ROW = re.compile(r"(\d+),(warmup|step|tail|pause),(\d+),(\d+),(\d*)")


class _HasSchema(msgspec.Struct):
    schema: int


@dataclass(frozen=True)
class Run:
    """A run as it lies on disk: `steps` of each rank, and `recording`, the folder of its joules where that is another.

    Ranks are named by their numbers in the whole run; `steps` are of those in `ranks`, in this order.
    """

    path: Path
    record: RunRecord
    steps: list[StepTrace]
    recording: Path | None = None

    @property
    def ranks(self) -> list[int]:
        """The ranks of which the steps are here."""
        return list(self.record.own_ranks)

    @property
    def machines(self) -> list[Run]:
        """The run on each of its machines of which a directory is here, on the clock of that machine."""
        return [self]

    @cached_property
    def together(self) -> StepTrace:
        """The steps of the whole: each takes as long as its slowest rank."""
        return combined(self.steps)

    @property
    def devices(self) -> list[DeviceRecord]:
        """Those that `ranks` stepped on, in this order; empty where one of them ended before it could say so."""
        alone = self.record.device if len(self.ranks) == 1 else None
        return self.record.devices or ([] if alone is None else [alone])

    def curves(self) -> dict[str, EnergyCurve]:
        """The joules of each rail, read when they are asked for."""
        return read_energy(RunDir(self.recording or self.path).energy, self.record.rails)

    def telemetry(self) -> dict[str, list[tuple[int, float]]]:
        """The numeric gauges by name, as (time_ns, value), read when they are asked for."""
        return read_telemetry(RunDir(self.path).telemetry)

    def words(self) -> dict[str, list[tuple[int, str]]]:
        """The gauges that are words (`thermal_pressure`) by name, as (time_ns, word), read when they are asked for."""
        return read_words(RunDir(self.path).telemetry)

    def phases(self, rank: int | None = None) -> list[PhaseSpan]:
        """The phases within a rank's steps (None: the first's), read when they are asked for; none of most runs."""
        if self.record.cell is None or not (names := phases_of(self.record.cell)):
            return []
        rundir = RunDir(self.path)
        rank = self.ranks[0] if rank is None else rank
        # The marks first: they are removed when all of them are rows.
        marks = PhasesReader(rundir.phase_marks(rank), names)
        stamped = marks.read(until=len(self.steps[self.ranks.index(rank)]))
        rows = read_phases(rundir.phases(rank))
        return rows + [span for span in stamped if not rows or span.step > rows[-1].step]

    def operators(self) -> list[OperatorTimes]:
        """What torch.profiler told of the operators of a step, read when it is asked for; none of an ordinary run."""
        profiler = self.record.profiler
        return [] if profiler is None or not profiler.steps else read_operators(RunDir(self.path).operators)

    def torch_trace(self) -> dict[str, Any] | None:
        """torch's own trace of the steps that were profiled; None where there is none, or it is damaged."""
        if self.record.profiler is None:
            return None
        try:
            # torch writes the names of threads as they are: one with a control character in it is no strict JSON.
            text = RunDir(self.path).torch_trace.read_text("utf-8", errors="replace")
            trace = json.loads(text, strict=False)
        except (OSError, ValueError, RecursionError):
            return None
        return trace if isinstance(trace, dict) else None

    def stacks(self) -> Stacks:
        """What py-spy saw, read when it is asked for. Raises PowerbenchError where there is nothing."""
        return find_stacks(RunDir(self.path), self.record)

    def work(self, rank: int) -> dict[int, int]:
        """How long (ns) a rank, by its number in the whole run, worked itself in each step; none where it was alone.

        Steps of which it is not known are left out.
        """
        if rank not in self.ranks:
            return {}
        rundir = RunDir(self.path)
        # The marks first: they are removed when all of them are rows.
        stamped = WorkReader(rundir.work_marks(rank)).read(until=len(self.steps[self.ranks.index(rank)]))
        return read_work(rundir.work(rank)) | dict(stamped)

    def events(self, rank: int | None = None) -> list[dict[str, Any]]:
        """What the worker of a rank (None: the first) said of itself, read when it is asked for."""
        rank = self.ranks[0] if rank is None else rank
        return list(read_events(LineTail(RunDir(self.path).events(rank)).read()))


def find_runs(path: Path) -> list[Path]:
    """The run that the folder `path` is, or all runs in it, of sweeps too, in the order of their names.

    Links inside a folder are passed over: `latest` would be a second of its kind. Raises PowerbenchError where there is
    no run.
    """
    folder = path.resolve() if path.is_symlink() else path
    if (folder / RECORD).exists():
        return [folder]
    found = sorted(Path(where) for where, _, files in os.walk(folder, followlinks=False) if RECORD in files)
    if not found:
        raise PowerbenchError(
            f"There is no run in {path}: name the folder that `powerbench run` printed, or one that holds such folders."
        )
    return found


def load_run(path: Path) -> Run:
    """Read the run in the folder `path`. Raises PowerbenchError where there is none that this version can read."""
    rundir = RunDir(path)
    record = read_record(rundir)
    if record.cell is None:
        return _load_recording(rundir, record)
    ranks = [read_rank(rundir, rank, record.cell.warmup) for rank in record.own_ranks]
    if record.status == "running":
        alive = is_alive(record.supervisor, record.clock.boot_id)
        if not alive and read_record(rundir).status != "running":  # it was ended while we read
            return load_run(path)
        record = _as_far_as_it_came(rundir, record, ranks, alive=alive)
    return Run(path, record, [steps for steps, _ in ranks])


def _load_recording(rundir: RunDir, record: RunRecord) -> Run:
    """A recording of power: no ranks, and so one trace without a step."""
    if record.status == "running" and not is_alive(record.supervisor, record.clock.boot_id):
        if read_record(rundir).status != "running":  # it was ended while we read
            return load_run(rundir.path)
        record = _without_supervisor(record)
    if record.clock.end_monotonic_ns is None:
        record = msgspec.structs.replace(record, windows=record.windows | _as_far_as_its_curves(rundir, record))
    return Run(rundir.path, record, [StepTrace()])


def _as_far_as_its_curves(rundir: RunDir, record: RunRecord) -> dict[str, Window]:
    """The window of a recording that was not ended: from where it began to where all of its curves have come."""
    begun = record.windows.get("measured")
    if begun is None:
        return {}
    last_ns = [curve.time_ns[-1] for curve in read_energy(rundir.energy, record.rails).values() if curve.time_ns]
    return {"measured": Window(begun.start_ns, max(begun.start_ns + 1, min(last_ns, default=0)))}


def _without_supervisor(record: RunRecord) -> RunRecord:
    """The record of a run that was not ended, and whose supervisor is not at work here; it may be so elsewhere."""
    host = record.environment.get("host")
    if host in (None, platform.node()):
        return msgspec.structs.replace(record, status="interrupted", reason=gone(record))
    unseen = f"its supervisor (pid {record.supervisor.pid}) is on {host}, and whether it is still at work is seen there"
    return msgspec.structs.replace(record, reason=f"{unseen} alone")


def gone(record: RunRecord) -> str:
    """Why a run whose supervisor is gone reads as interrupted."""
    return f"its supervisor (pid {record.supervisor.pid}) is gone without having ended it"


def read_rank(rundir: RunDir, rank: int, warmup: int) -> Told:
    """A rank's steps and events, also while they are being written.

    In this order nothing is missed: marks are removed only when all of them are rows, and a worker says where its
    tail begins before it marks a step of it.
    """
    marks = MarksReader(rundir.marks(rank), warmup=warmup)
    marks.look()
    trace = read_rows(rundir.steps(rank))
    events = list(read_events(LineTail(rundir.events(rank)).read()))
    rest = marks.steps(measured=measured_steps(events), final=True)
    for at in range(len(trace), len(rest)):
        trace.append(rest.stage[at], rest.start_ns[at], rest.submit_ns[at], rest.end_ns[at])
    return trace, events


def _as_far_as_it_came(rundir: RunDir, record: RunRecord, ranks: Sequence[Told], *, alive: bool) -> RunRecord:
    """The record of a run that is not over, or was never ended."""
    if not alive:
        record = _without_supervisor(record)
    record = complete_ranks(record, ranks)
    return record if record.peak_memory_bytes is not None else with_sampled_peak(record, rundir)


def read_record(rundir: RunDir) -> RunRecord:
    """`run.json` as it stands. Raises PowerbenchError."""
    try:
        data = rundir.record.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PowerbenchError(
            f"{rundir.path} is not a run: it holds no run.json. Name the folder that `powerbench run` printed, "
            "or runs/latest."
        ) from error
    except OSError as error:
        raise PowerbenchError(f"Cannot read {rundir.record}: {error.strerror}; see to its permissions.") from error
    schema = _schema(data, rundir)
    if schema > SCHEMA:
        raise PowerbenchError(
            f"{rundir.path} was written by a newer powerbench (schema {schema}; this one reads up to {SCHEMA}). "
            "Upgrade powerbench to read it."
        )
    try:
        return msgspec.json.decode(data, type=RunRecord)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PowerbenchError(f"{rundir.record} is damaged ({error}); its CSV files can still be read.") from error


def _schema(data: bytes, rundir: RunDir) -> int:
    try:
        return msgspec.json.decode(data, type=_HasSchema).schema
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PowerbenchError(f"{rundir.record} is no run record ({error}); name another folder.") from error


def read_rows(path: Path) -> StepTrace:
    """The steps in a steps.csv, up to the first row that is damaged."""
    trace = StepTrace()
    for line in LineTail(path).read()[1:]:
        row = STEP_ROW.fullmatch(line)
        if row is None or int(row[1]) != len(trace):
            break
        trace.append(cast(Stage, row[2]), int(row[3]), int(row[4]), int(row[5]) if row[5] else None)
    return trace


def is_alive(supervisor: Supervisor, boot: str | None) -> bool:
    """Whether that very process still runs on this boot of this machine."""
    if boot != boot_id():
        return False
    try:
        process = psutil.Process(supervisor.pid)
        started = abs(process.create_time() - supervisor.start_time_s) <= START_TIME_TOLERANCE_S
        return started and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
