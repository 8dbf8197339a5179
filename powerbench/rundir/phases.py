"""The stamps of phases on disk: a memory-mapped file beside the marks, folded into rows that name each phase.

row      0                1                int64, little-endian, 0 = not reached; a row a step, a pair a phase
         start,end ...    start,end ...    of it, in the order of `phases_of`
"""

from __future__ import annotations

import mmap
import re
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path

from powerbench.records import PhaseSpan
from powerbench.rundir.lines import LineTail
from powerbench.rundir.marks import new_mapped_file

PHASES_HEADER = "step,phase,start_ns,end_ns"
BYTES_A_PAIR = 16
# As much as the marks may take; of more steps than fit, the first are kept.
MOST_PAIRS = 4_000_000


def new_phases_file(path: Path, names: Sequence[str], *, steps: int) -> memoryview:
    """The worker's side: room for the phases of so many steps, and a last row for scrap. Raises OSError."""
    rows = min(steps, MOST_PAIRS // len(names)) + 1
    return memoryview(new_mapped_file(path, rows * len(names) * BYTES_A_PAIR)).cast("q")


class PhasesReader:
    """The supervisor's side: reads whole rows in order."""

    def __init__(self, path: Path, names: Sequence[str], *, first: int = 0) -> None:
        self._path = path
        self._names = names
        self._next = first
        self._map: mmap.mmap | None = None

    def read(self, *, until: int) -> list[PhaseSpan]:
        """The phases of the steps that were not returned yet, before step `until`: those of which all edges stand."""
        found: list[PhaseSpan] = []
        row_bytes = len(self._names) * BYTES_A_PAIR
        stamps = self._mapped()
        while stamps is not None and self._next < min(until, len(stamps) // row_bytes - 1):
            row = array("q", stamps[self._next * row_bytes : (self._next + 1) * row_bytes])
            if sys.byteorder == "big":
                row.byteswap()
            pairs = zip(self._names, row[::2], row[1::2], strict=True)
            if all(row):
                found += [PhaseSpan(self._next, name, start, end) for name, start, end in pairs]
            self._next += 1
        return found

    def _mapped(self) -> mmap.mmap | None:
        if self._map is None and self._names:
            try:
                with self._path.open("rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except FileNotFoundError:  # not made yet, or folded and removed
                return None
        return self._map


def phase_line(span: PhaseSpan) -> str:
    """A row of phases.csv."""
    return f"{span.step},{span.phase},{span.start_ns},{span.end_ns}"


def read_phases(path: Path) -> list[PhaseSpan]:
    """The phases in a phases.csv, up to the first row that is damaged; none where there is no such file."""
    found = []
    for line in LineTail(path).read()[1:]:
        row = re.fullmatch(r"(\d+),([a-z]+),(\d+),(\d+)", line)
        if row is None:
            break
        found.append(PhaseSpan(int(row[1]), row[2], int(row[3]), int(row[4])))
    return found
