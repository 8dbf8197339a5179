"""Many runs: found in sweeps and folders, each read when it is come to and let go of, so that ten thousand fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, overload

import msgspec

from powerbench.errors import PowerbenchError
from powerbench.records import Clock, RunRecord, StepTrace, Supervisor
from powerbench.rundir import RECORD, RunDir
from powerbench.rundir.joining import join_machines
from powerbench.rundir.load import Run, find_runs, load_run, read_record
from powerbench.rundir.sweeps import SWEEP_FILE, Measurement, SweepRecord, find_sweeps, read_sweep

# By these a measurement that was not begun is told to be of the machine of the others.
HOST_FACTS = ("host", "processor", "memory_bytes", "system")
NOT_BEGUN = "it has not been begun"


class Machines(NamedTuple):
    """The directories of one run, each of another of its machines, in the order of these."""

    paths: tuple[Path, ...]


OnDisk = Path | Machines
"""Where a run lies: in one directory, or in one on each of its machines."""


class Runs(Sequence[Run]):
    """Runs in their order. What lies on disk is read anew whenever it is asked for; whoever needs it twice keeps it.

    `items` are folders, and runs that are at hand already. Raises PowerbenchError where a folder cannot be read.
    """

    def __init__(self, items: Sequence[OnDisk | Run], *, load: Callable[[Path], Run] = load_run) -> None:
        self._items = items
        self._load = load

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Run]:
        return map(self._loaded, self._items)

    @overload
    def __getitem__(self, at: int) -> Run: ...
    @overload
    def __getitem__(self, at: slice) -> Runs: ...
    def __getitem__(self, at: int | slice) -> Run | Runs:
        if isinstance(at, slice):
            return Runs(self._items[at], load=self._load)
        return self._loaded(self._items[at])

    def _loaded(self, item: OnDisk | Run) -> Run:
        if isinstance(item, Machines):
            return join_machines([self._load(path) for path in item.paths])
        return self._load(item) if isinstance(item, Path) else item


@dataclass(frozen=True)
class Found:
    """What was found in folders that were named.

    `items`: the run directories, those of one run together, and, as runs without a step, what sweeps asked for and has
    none. `unreadable`: of each that cannot be read, a sentence that says why.
    """

    items: list[OnDisk | Run] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    @property
    def on_disk(self) -> list[OnDisk]:
        """The runs of which there is a directory."""
        return [item for item in self.items if not isinstance(item, Run)]


def find_readable(named: Sequence[Path]) -> Found:
    """The runs in these folders, each once, in the order in which they were named.

    Of a sweep's cell that was measured again, the last run alone. Directories of the machines of one run are one run,
    wherever they lie. Raises PowerbenchError where one of the folders holds no run, and where none of the runs can be
    read.
    """
    found = Found()
    machines: dict[str, dict[int, Path]] = {}
    paths, folders = _all_in(named)
    sweeps = _sweeps(folders, found)
    superseded = {folder / name for folder, record in sweeps.items() for name in record.superseded}
    beside: dict[Path, dict[str, RunRecord]] = {folder: {} for folder, record in sweeps.items() if record.without_run}
    wanted = [path for path in paths if path not in superseded]
    for path in wanted:
        try:
            record = read_record(RunDir(path))
        except PowerbenchError as error:
            if len(wanted) == 1:
                raise
            found.unreadable.append(str(error))
            continue
        if record.node is None or record.node.id is None:
            found.items.append(path)
        else:
            _add_machine(found, machines.setdefault(record.node.id, {}), record.node.rank, path)
        if path.parent in beside:
            beside[path.parent][path.name] = record
    for folder, records in beside.items():
        made = [(it, records[it.run]) for it in sweeps[folder].measurements if it.run in records]
        found.items.extend(_without_run(folder, it, made) for it in sweeps[folder].without_run)
    if not found.items:
        raise PowerbenchError(f"None of the {len(paths)} runs can be read; the first: {found.unreadable[0]}")
    return found


def with_their_machines(folder: Path, named: Sequence[Path]) -> list[Path]:
    """The folder, and the run directories in the others that are of other machines of the runs in it."""
    others = [other for other in named if other != folder]
    own = {_id_of(run) for run in _runs_in(folder)} - {None} if others else set()
    return [folder, *(run for other in others if own for run in _runs_in(other) if _id_of(run) in own)]


def _runs_in(folder: Path) -> list[Path]:
    """The runs in what was named; none in a file, or where there is none."""
    try:
        return find_runs(folder) if folder.is_dir() else []
    except PowerbenchError:
        return []


def _id_of(folder: Path) -> str | None:
    """What the machines of a run have in common; None where this is no run of several, or cannot be read."""
    try:
        node = read_record(RunDir(folder)).node
    except PowerbenchError:
        return None
    return None if node is None else node.id


def _add_machine(found: Found, of_run: dict[int, Path], node: int, path: Path) -> None:
    """Put the directory to those of the other machines of its run, `of_run` by node, which stand where the first did.

    A second one of a node is a copy, and left out.
    """
    if node in of_run:
        found.unreadable.append(f"{path} and {of_run[node]} are of the same machine of one run.")
        return
    before = _item(of_run)
    of_run[node] = path
    if before is None:
        found.items.append(path)
    else:
        found.items[found.items.index(before)] = _item(of_run) or path


def _item(of_run: Mapping[int, Path]) -> OnDisk | None:
    paths = tuple(of_run[node] for node in sorted(of_run))
    return Machines(paths) if len(paths) > 1 else paths[0] if paths else None


def _all_in(named: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The run directories in these folders, and the sweeps that were named or lie in them, not those around them."""
    paths: dict[Path, None] = {}
    sweeps: dict[Path, None] = {}
    for folder in named:
        if (folder / RECORD).exists():
            paths |= dict.fromkeys(find_runs(folder))
            continue
        sweeps |= dict.fromkeys(find_sweeps(folder))
        try:
            runs = find_runs(folder)
        except PowerbenchError:
            if not find_sweeps(folder):
                raise
            continue
        paths |= dict.fromkeys(runs)
        sweeps |= {parent: None for parent in dict.fromkeys(run.parent for run in runs) if _is_sweep(parent)}
    return list(paths), list(sweeps)


def _is_sweep(folder: Path) -> bool:
    return (folder / SWEEP_FILE).exists()


def _sweeps(folders: Sequence[Path], found: Found) -> Mapping[Path, SweepRecord]:
    sweeps = {}
    for folder in folders:
        try:
            sweeps[folder] = read_sweep(folder)
        except PowerbenchError as error:
            found.unreadable.append(str(error))
    return sweeps


def _without_run(folder: Path, measurement: Measurement, made: Sequence[tuple[Measurement, RunRecord]]) -> Run:
    """A measurement that has no run, as a run without steps on the machine on which the sweep's others were made."""
    asked = measurement.cell
    alike = [record for _, record in made if record.cell is not None and asked.device in ("auto", record.cell.device)]
    like = alike[0] if alike else None
    device = like.cell.device if like is not None and like.cell is not None else asked.device
    record = RunRecord(
        id=folder.name,
        status=measurement.status or "interrupted",
        reason=measurement.reason if measurement.status else NOT_BEGUN,
        cell=msgspec.structs.replace(asked, device=device),
        clock=Clock(boot_id=None, start_monotonic_ns=0, start_unix_ns=0),
        environment=_expected_facts(measurement, made, like),
        device=None if like is None else like.device,
        ranks=asked.ranks * asked.nnodes,
        supervisor=Supervisor(0, 0.0),
    )
    return Run(folder, record, [StepTrace()] * record.ranks)


def _expected_facts(
    measurement: Measurement, made: Sequence[tuple[Measurement, RunRecord]], like: RunRecord | None
) -> dict[str, Any]:
    """What its environment would have been: the machine's, the torch of its interpreter, and the threads asked for.

    Threads that were left to torch are those of a run that left them to it too.
    """
    facts = like or (made[0][1] if made else None)
    if facts is None:
        return {}
    same = [it for it in made if it[0].interpreter == measurement.interpreter]
    torch = next((record.environment.get("torch") for _, record in same), None)
    threads = next(
        (record.environment.get("threads") for it, record in same if it.cell.threads == measurement.cell.threads),
        measurement.cell.threads,
    )
    return {name: facts.environment.get(name) for name in HOST_FACTS} | {"torch": torch, "threads": threads}
