"""The own work of a rank on disk: how long it worked itself in each step that it shares with others.

step     0             1             2              int64, little-endian, 0 = not known (yet)
         arrived,work  arrived,work  arrived,work   arrived: when it first waited for others, on the host's clock;
                                                    work: the step without that waiting
"""

from __future__ import annotations

import mmap
import re
import sys
from array import array
from pathlib import Path
from typing import NamedTuple

from powerbench.rundir.lines import LineTail
from powerbench.rundir.marks import new_mapped_file

WORK_HEADER = "step,work_ns"
BYTES_A_STEP = 16
ROW = re.compile(r"(\d+),(\d+)")


class Arrival(NamedTuple):
    """The last step in which a rank had done its own part, and when, on the monotonic clock of its machine."""

    step: int
    time_ns: int


def new_work_file(path: Path, *, steps: int) -> memoryview:
    """The worker's side: room for so many steps. Raises OSError."""
    return memoryview(new_mapped_file(path, steps * BYTES_A_STEP)).cast("q")


class WorkReader:
    """The supervisor's side: reads in order, each step once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: mmap.mmap | None = None
        self._next = 0
        self._arrived = 0

    @property
    def is_there(self) -> bool:
        """Whether the worker has made the file."""
        return self._mapped() is not None

    def read(self, *, until: int) -> list[tuple[int, int]]:
        """The steps before `until` of which it is known by now, as (step, work_ns), that were not returned yet.

        They become known in order: one that is not known is passed over once a later one is.
        """
        stamps = self._ints(self._next, until)
        known = [(self._next + at, work) for at, work in enumerate(stamps[1::2]) if work]
        if known:
            self._next = known[-1][0] + 1
        return known

    def last_arrival(self) -> Arrival | None:
        """How far the rank has come, also in the step that is not over; None before its first."""
        stamps = self._ints(self._arrived, self._arrived + 1)
        while stamps and stamps[0]:
            self._arrived += 1
            stamps = self._ints(self._arrived, self._arrived + 1)
        if not self._arrived:
            return None
        return Arrival(self._arrived - 1, self._ints(self._arrived - 1, self._arrived)[0])

    def _ints(self, first: int, end: int) -> array[int]:
        stamps = self._mapped()
        ints = array("q", b"" if stamps is None else stamps[first * BYTES_A_STEP : end * BYTES_A_STEP])
        if sys.byteorder == "big":
            ints.byteswap()
        return ints

    def _mapped(self) -> mmap.mmap | None:
        if self._map is None:
            try:
                with self._path.open("rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except FileNotFoundError:  # not made yet, or folded and removed
                return None
        return self._map


def work_line(step: int, work_ns: int) -> str:
    """A row of work.csv."""
    return f"{step},{work_ns}"


def read_work(path: Path) -> dict[int, int]:
    """The ns of each step in a work.csv, up to the first row that is damaged; none where there is no such file."""
    found = {}
    for line in LineTail(path).read()[1:]:
        row = ROW.fullmatch(line)
        if row is None:
            break
        found[int(row[1])] = int(row[2])
    return found
