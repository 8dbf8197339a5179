"""A sweep on disk: a folder of runs, and sweep.json, which says what is to be measured and what became of it."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from powerbench.errors import PowerbenchError
from powerbench.records import Cell, Count, Seconds, Status
from powerbench.rundir import RECORD, RunDir, create_sweep_dir, slug, write_whole
from powerbench.rundir.load import gone, is_alive, read_record

# History of the format of sweep.json. Raise it with a line here and a sweep in tests/golden/sweep-schema-N.
#   1  the first
SWEEP_SCHEMA = 1
SWEEP_FILE = "sweep.json"
# What stands as an answer; what was interrupted, or was never begun, is measured when the sweep goes on.
ANSWERS: tuple[Status, ...] = ("complete", "oom", "swapping", "timeout", "unavailable", "failed")

# No path: what is read from a file that anyone may have edited must not lead out of the folder.
RunName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$")]


class Attempt(Struct, frozen=True, kw_only=True):
    """One go at a measurement: the name of its run beside sweep.json, and how that ended.

    `run` is None where none was begun, because the device is not here or powerbench was killed just then. `cooldown_s`
    is how long the machine was left alone before it; None where nothing was waited for.
    """

    run: RunName | None = None
    status: Status
    reason: str | None = None
    cooldown_s: Seconds | None = None


class Measurement(Struct, frozen=True, kw_only=True):
    """One cell, once, as it was asked for; of its attempts, oldest first, the last one counts.

    `interpreter` is the Python that its worker runs in; None where that is ours.
    """

    cell: Cell
    repeat: Count = 1
    interpreter: str | None = None
    attempts: list[Attempt] = []

    @property
    def last(self) -> Attempt | None:
        """The attempt that counts; None where it has not been begun."""
        return self.attempts[-1] if self.attempts else None

    @property
    def run(self) -> str | None:
        """The name of the run that counts; None where there is none."""
        return self.last.run if self.last else None

    @property
    def status(self) -> Status | None:
        """How it ended; None where it has not been begun."""
        return self.last.status if self.last else None

    @property
    def reason(self) -> str | None:
        """Why it ended so, where that needs a reason."""
        return self.last.reason if self.last else None


class SweepRecord(Struct, frozen=True, kw_only=True):
    """`sweep.json`: the measurements in the order in which they are made.

    `host` is the machine that they are made on. `rest` is what the machine was like before the first of them
    (`temperature_c` or `power_w`), to which a cool-down waits to come back; empty where nothing tells.
    """

    schema: int = SWEEP_SCHEMA
    id: str
    profile: str
    host: str
    cooldown_seconds: Seconds = 0.0
    rest: dict[str, float] = {}
    measurements: list[Measurement]

    def asks_for_the_same(self, other: Sequence[Measurement]) -> bool:
        """Whether these are the same cells in the same order, whatever became of them."""
        return list(map(_asked, self.measurements)) == list(map(_asked, other))

    @property
    def against(self) -> str | None:
        """The interpreter that ours is compared with; None where there is none."""
        return next((one.interpreter for one in self.measurements if one.interpreter is not None), None)

    @property
    def without_run(self) -> list[Measurement]:
        """What was asked for and has no run to show: not begun yet, or its device is not here."""
        return [one for one in self.measurements if one.run is None]

    @property
    def superseded(self) -> frozenset[str]:
        """The names of the runs that were measured again, and so count for nothing but the record."""
        names = {attempt.run for one in self.measurements for attempt in one.attempts[:-1]}
        return frozenset(name for name in names if name is not None)


class SweepDir:
    """A sweep's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, record: SweepRecord) -> None:
        """Write sweep.json and point `latest` here. Raises PowerbenchError, and leaves no empty folder."""
        try:
            self.write(record)
        except PowerbenchError:
            with suppress(OSError):
                (self.path / f"{SWEEP_FILE}.new").unlink(missing_ok=True)
                self.path.rmdir()
            raise
        RunDir(self.path).link_latest()

    def write(self, record: SweepRecord) -> None:
        """Replace sweep.json in one stroke. Raises PowerbenchError where it cannot be written."""
        try:
            write_whole(self.path / SWEEP_FILE, record)
        except OSError as error:
            raise PowerbenchError(
                f"Cannot write {self.path / SWEEP_FILE}: {error.strerror}. Make room, or choose another folder with "
                "--output."
            ) from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """While inside, no one else measures this sweep. Raises PowerbenchError where someone does.

        The system lets go of it when we end, however we end.
        """
        folder = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(folder)
            raise PowerbenchError(
                f"Another powerbench is measuring the sweep in {self.path}: let it end, or stop it first."
            ) from None
        except OSError:
            pass  # a file system without locks: then nobody can tell
        try:
            yield
        finally:
            os.close(folder)


def create_sweep(parent: Path, profile: str) -> SweepDir:
    """A new folder below `parent` for the runs of a sweep. Raises PowerbenchError."""
    return SweepDir(create_sweep_dir(parent, profile).path)


def read_sweep(folder: Path) -> SweepRecord:
    """sweep.json as it stands, and with it the end of a run of which nobody was left to tell.

    An attempt that is `running` in the file reads as its run.json says; one whose directory was removed, or whose
    supervisor is gone, as `interrupted`. Raises PowerbenchError.
    """
    record = _as_written(folder)
    listed = {attempt.run for one in record.measurements for attempt in one.attempts}
    looked_at = [_looked_at(folder, one, listed) for one in record.measurements]
    return msgspec.structs.replace(record, measurements=looked_at)


def _as_written(folder: Path) -> SweepRecord:
    class HasSchema(Struct):
        schema: int

    path = folder / SWEEP_FILE
    try:
        data = path.read_bytes()
        schema = msgspec.json.decode(data, type=HasSchema).schema
        if schema > SWEEP_SCHEMA:
            raise PowerbenchError(
                f"{folder} was written by a newer powerbench (schema {schema}; this one reads up to {SWEEP_SCHEMA}). "
                "Upgrade powerbench to read it."
            )
        return msgspec.json.decode(data, type=SweepRecord)
    except OSError as error:
        raise PowerbenchError(
            f"Cannot read {path}: {error.strerror}; name the folder that `powerbench run` printed."
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PowerbenchError(
            f"{path} is damaged ({error}). The runs beside it can still be read, one by one; mend it, or begin the "
            "sweep anew without --resume."
        ) from error


def _looked_at(folder: Path, measurement: Measurement, listed: set[str | None]) -> Measurement:
    """With its last attempt as the run itself tells it, where sweep.json cannot be the last word."""
    last = measurement.last
    if last is None or last.status == "interrupted":
        return measurement
    if last.status in ANSWERS and (last.run is None or (folder / last.run / RECORD).exists()):
        return measurement
    if last.run is None:
        last = msgspec.structs.replace(last, run=_left_behind(folder, listed))
    return msgspec.structs.replace(measurement, attempts=[*measurement.attempts[:-1], _as_its_run_says(folder, last)])


def _as_its_run_says(folder: Path, attempt: Attempt) -> Attempt:
    if attempt.run is None:
        return _interrupted(attempt, "powerbench was killed before its run was begun")
    if not (folder / attempt.run / RECORD).exists():
        return _interrupted(attempt, "its directory is gone")
    try:
        record = read_record(RunDir(folder / attempt.run))
    except PowerbenchError as error:
        return _interrupted(attempt, str(error))
    if record.status == "running" and not is_alive(record.supervisor, record.clock.boot_id):
        again = read_record(RunDir(folder / attempt.run))  # it may have been ended while we looked
        if again.status == "running":
            return _interrupted(attempt, gone(record))
        record = again
    return msgspec.structs.replace(attempt, status=record.status, reason=record.reason)


def _interrupted(attempt: Attempt, reason: str) -> Attempt:
    return msgspec.structs.replace(attempt, status="interrupted", reason=reason)


def _left_behind(folder: Path, listed: set[str | None]) -> str | None:
    """The newest run in the folder that sweep.json does not name: it was begun, and then powerbench was killed."""
    names = sorted(path.parent.name for path in folder.glob(f"*/{RECORD}") if not path.parent.is_symlink())
    return next((name for name in reversed(names) if name not in listed), None)


def find_sweeps(path: Path) -> list[Path]:
    """The sweep that the folder `path` is, or all that lie in it, in the order of their names; no links inside."""
    folder = path.resolve() if path.is_symlink() else path
    if (folder / SWEEP_FILE).exists():
        return [folder]
    return sorted(found.parent for found in folder.glob(f"*/{SWEEP_FILE}") if not found.parent.is_symlink())


def newest_like(parent: Path, profile: str, measurements: Sequence[Measurement]) -> SweepDir | None:
    """The newest sweep below `parent` of these very cells on this machine, or None.

    Raises PowerbenchError for one of that profile that cannot be read, where no newer one will do.
    """
    for folder in reversed(find_sweeps(parent)):
        try:
            record = _as_written(folder)
        except PowerbenchError:
            if slug(profile) in folder.name:
                raise
            continue
        if record.host == platform.node() and record.asks_for_the_same(measurements):
            return SweepDir(folder)
    return None


def _asked(measurement: Measurement) -> tuple[Cell, int, str | None]:
    return measurement.cell, measurement.repeat, measurement.interpreter
