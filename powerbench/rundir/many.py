"""Many runs, each read when it is come to and let go of after that, so that ten thousand fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from powerbench.errors import PowerbenchError
from powerbench.rundir import RunDir
from powerbench.rundir.load import Run, find_runs, load_run, read_record


class Runs(Sequence[Run]):
    """Runs in their order. What lies on disk is read anew whenever it is asked for; whoever needs it twice keeps it.

    `items` are folders, and runs that are at hand already. Raises PowerbenchError where a folder cannot be read.
    """

    def __init__(self, items: Sequence[Path | Run], *, load: Callable[[Path], Run] = load_run) -> None:
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

    def _loaded(self, item: Path | Run) -> Run:
        return self._load(item) if isinstance(item, Path) else item


@dataclass(frozen=True)
class Found:
    """The runs in what was named, and of each that cannot be read, a sentence that says why."""

    paths: list[Path]
    unreadable: list[str]


def find_readable(named: Sequence[Path]) -> Found:
    """The runs in these folders, each once, in the order in which they were named.

    Raises PowerbenchError where one of the folders holds no run, and where none of the runs can be read.
    """
    paths = list(dict.fromkeys(path for folder in named for path in find_runs(folder)))
    found = Found([], [])
    for path in paths:
        try:
            read_record(RunDir(path))
        except PowerbenchError as error:
            if len(paths) == 1:
                raise
            found.unreadable.append(str(error))
        else:
            found.paths.append(path)
    if not found.paths:
        raise PowerbenchError(f"None of the {len(paths)} runs can be read; the first: {found.unreadable[0]}")
    return found
