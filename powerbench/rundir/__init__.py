"""The run directory: what its files are called, how one is made, and how `run.json` is replaced without a gap."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from powerbench.errors import PowerbenchError
from powerbench.records import Cell, LoopCell, Node, RunRecord

RECORD = "run.json"
"""The file by which a folder is a run."""


class RunDir:
    """The paths inside one run directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = path / RECORD
        self.energy = path / "energy.csv"
        self.telemetry = path / "telemetry.csv"
        self.operators = path / "operators.csv"
        self.torch_trace = path / "torch-trace.json"
        self.launcher_events = path / "launcher.jsonl"
        self.launcher_log = path / "launcher.log"

    def marks(self, rank: int) -> Path:
        """The memory-mapped marks of a rank."""
        return self.path / f"marks-{rank}.bin"

    def steps(self, rank: int) -> Path:
        """The steps of a rank, folded from its marks."""
        return self.path / f"steps-{rank}.csv"

    def phase_marks(self, rank: int) -> Path:
        """The memory-mapped stamps of the phases within a rank's steps."""
        return self.path / f"phases-{rank}.bin"

    def phases(self, rank: int) -> Path:
        """The phases of a rank's steps, folded from those."""
        return self.path / f"phases-{rank}.csv"

    def work_marks(self, rank: int) -> Path:
        """The memory-mapped account of a rank's own work within steps that it shares with others."""
        return self.path / f"work-{rank}.bin"

    def work(self, rank: int) -> Path:
        """The own work of a rank, step by step, folded from that."""
        return self.path / f"work-{rank}.csv"

    def events(self, rank: int) -> Path:
        """What a worker said of itself."""
        return self.path / f"worker-{rank}.jsonl"

    def log(self, rank: int) -> Path:
        """A worker's stdout and stderr."""
        return self.path / f"worker-{rank}.log"

    def stacks(self, rank: int) -> Path:
        """The stacks of a rank's threads."""
        return self.path / f"stacks-{rank}.json"

    def py_spy_trace(self, rank: int) -> Path:
        """The same as py-spy writes it, until it is folded."""
        return self.path / f"py-spy-{rank}.json"

    def py_spy_log(self, rank: int) -> Path:
        """What py-spy says of itself."""
        return self.path / f"py-spy-{rank}.log"

    def py_spy_go(self, rank: int) -> Path:
        """The file that says that py-spy looks now, or will not: the worker waits for it."""
        return self.path / f"py-spy-{rank}.go"

    def write_record(self, record: RunRecord) -> None:
        """Replace `run.json` in one stroke: a reader finds the old one or the new one, also after a power cut."""
        write_whole(self.record, record)

    def link_latest(self) -> None:
        """Point `latest`, beside this directory, to it."""
        parent = self.path.parent
        aside = parent / f".latest-{os.getpid()}"
        # The link is a convenience: a file system without links (exFAT), or a folder called latest, costs no run.
        with suppress(OSError):
            aside.unlink(missing_ok=True)
            aside.symlink_to(self.path.name)
            try:
                aside.replace(parent / "latest")
            finally:
                aside.unlink(missing_ok=True)


def write_whole(path: Path, record: msgspec.Struct) -> None:
    """Replace the JSON file `path` so that there is no moment at which it is not whole. Raises OSError."""
    aside = path.with_name(f"{path.name}.new")
    aside.unlink(missing_ok=True)
    with aside.open("xb") as file:  # not through a link that somebody has put there
        file.write(msgspec.json.format(msgspec.json.encode(record), indent=1))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def create_run_dir(parent: Path, cell: Cell, *, node: Node | None = None, now: datetime | None = None) -> RunDir:
    """Make a new run directory below `parent`; `node` is which of several machines this is.

    Raises PowerbenchError where nothing can be written.
    """
    return _create(parent, run_name(cell, now or datetime.now(UTC), node=node))


def create_named_dir(path: Path) -> RunDir:
    """The same for a run whose directory has its name from its maker: `path`, or where that is taken `path-2`, ...

    Raises PowerbenchError where nothing can be written.
    """
    return _create(path.parent, path.name, elsewhere="Record to another path")


def create_recording_dir(parent: Path, command: Sequence[str] | None, *, now: datetime | None = None) -> RunDir:
    """The same for a recording of power, while `command` runs or while nothing of ours does."""
    what = "power" if not command else f"power-{slug(Path(command[0]).name)}"
    return _create(parent, f"{_stamp(now or datetime.now(UTC))}-{what}")


def create_sweep_dir(parent: Path, profile: str, *, now: datetime | None = None) -> RunDir:
    """The same for the runs of a sweep."""
    return _create(parent, f"{_stamp(now or datetime.now(UTC))}-{slug(profile)}")


def _create(parent: Path, name: str, *, elsewhere: str = "Choose another folder with --output") -> RunDir:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        path = _make_unique(parent, name)
    except OSError as error:
        raise PowerbenchError(f"Cannot make a run directory in {parent}: {error.strerror}. {elsewhere}.") from error
    return RunDir(path)


def run_name(cell: Cell, now: datetime, *, node: Node | None = None) -> str:
    """`20261123T173000Z-cpu-bert-tiny-inference-b16-s128`; of 16 ranks on several machines `...-r16-node0`."""
    what = [cell.device, last_name(cell.model), cell.mode, f"b{cell.batch_size}", f"s{cell.sequence_length}"]
    ranks = cell.ranks * cell.nnodes
    what += [f"r{ranks}"] if ranks > 1 else []
    what += [f"node{node.rank}"] if node is not None else []
    return "-".join((_stamp(now), *map(slug, what)))


def program_run_name(cell: LoopCell, now: datetime) -> str:
    """`20261123T173000Z-cpu-mine`, of a program's own loop."""
    return "-".join((_stamp(now), slug(cell.device), slug(cell.model)))


def last_name(model: str) -> str:
    """A model's name without the folders before it: a path would fill the name of the run."""
    return Path(model).resolve().name if model.startswith((".", "/")) else model


def _stamp(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def slug(text: str) -> str:
    """`text` as part of a file name: lower case, nothing but letters, digits, dots and dashes, at most 60 letters."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:60] or "x"


def _make_unique(parent: Path, name: str) -> Path:
    number = 1
    while True:
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path
