"""The marks of a rank: boundaries between steps in a memory-mapped file that outlives whoever writes it.

boundary     0         1         2               int64, little-endian, 0 = not reached
           submit,end submit,end submit,end ...  boundary 0 opens the first step; boundary i closes step i - 1

A negative submit closes a pause instead of a step: what lies before it, back to the boundary before, is no step.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from pathlib import Path
from struct import Struct

from powerbench.records import Stage, StepTrace

PAIR = Struct("<qq")
BYTES_A_MARK = PAIR.size
# Marks of a loop of unknown length, at first. A step of 3 us, which is all of a mark, fills them in 0.8 s, of which
# half is left when their number is doubled; `Room` is asked four times a second.
FIRST_ROOM = 1 << 18


class MarksWriter:
    """The worker's side: a preallocated, mapped file, so that a mark is two stores and survives SIGKILL.

    Raises OSError (a full disk).
    """

    def __init__(self, path: Path, *, capacity: int) -> None:
        self.view = memoryview(new_mapped_file(path, (capacity + 1) * BYTES_A_MARK)).cast("q")


class GrowingMarks:
    """The side of a program whose steps nobody has counted: a mapped file that another process makes longer in time.

    Raises OSError (a full disk) where it is made, and never again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.view = memoryview(new_mapped_file(path, FIRST_ROOM * BYTES_A_MARK)).cast("q")

    @property
    def are_there(self) -> bool:
        """Whether somebody will read them: the other process removes them when it ends."""
        return self._path.exists()

    def has_grown(self) -> bool:
        """Map what has been added to the file; `view` is then of all of it. False where nothing can be added."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            try:
                # The other process was late, or is gone. Where blocks can be had without writing into them, two
                # processes may ask for the same ones; zeros would wipe marks away.
                if os.fstat(fd).st_size <= self.view.nbytes and sys.platform == "linux":
                    _allocate(fd, 2 * self.view.nbytes, start=self.view.nbytes)
                size = os.fstat(fd).st_size // BYTES_A_MARK * BYTES_A_MARK
                if size <= self.view.nbytes:
                    return False
                self.view = memoryview(mmap.mmap(fd, size)).cast("q")
            finally:
                os.close(fd)
        except OSError:
            return False
        return True


class Room:
    """The other side of that: keeps the file so far ahead of whoever marks that they do not reach its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._room = FIRST_ROOM
        self.lack: str | None = None
        """Why there is no room beyond what there is (a full disk); None while there is."""

    def keep_ahead(self, reached: int) -> None:
        """Make room for as many boundaries again as have been `reached`."""
        if self.lack is not None or 2 * reached <= self._room:
            return
        wanted = 2 * self._room
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            try:
                _allocate(fd, wanted * BYTES_A_MARK, start=self._room * BYTES_A_MARK)
            finally:
                os.close(fd)
        except OSError as error:
            self.lack = error.strerror
        else:
            self._room = wanted

    def is_used_up(self, reached: int) -> bool:
        """Whether nothing more can be marked."""
        return self.lack is not None and reached >= self._room


def new_mapped_file(path: Path, size: int) -> mmap.mmap:
    """A new file of so many bytes, all zero and all there, mapped. Raises OSError (a full disk).

    It gets its name once it has its size, so a reader that finds it can map it whole.
    """
    if path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    aside = path.with_suffix(".new")
    fd = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        _allocate(fd, size)
        mapped = mmap.mmap(fd, size)
        aside.rename(path)
    except OSError:
        aside.unlink()
        raise
    finally:
        os.close(fd)
    return mapped


class MarksReader:
    """The supervisor's side: reads boundaries in order and says which steps they decide."""

    def __init__(self, path: Path, *, warmup: int) -> None:
        self._path = path
        self._warmup = warmup
        self._map: mmap.mmap | None = None
        self._next = 0  # the first step that has not been returned
        self._edge = 0  # the last edge before it
        self._pauses = 0  # pauses among what has been returned
        self.reached = 0  # boundaries seen so far

    def look(self) -> int:
        """How many boundaries have been reached; only these are in what `steps` returns next."""
        marks = self._mapped()
        while marks is not None:
            capacity = len(marks) // BYTES_A_MARK
            while self.reached < capacity and _pair(marks, self.reached)[0]:
                self.reached += 1
            marks = self._grown() if self.reached == capacity else None
        return self.reached

    def steps(self, *, measured: int | None, final: bool = False) -> StepTrace:
        """The steps decided since the last call, in order.

        A step is decided once its edge or a later one is there; with `final` nothing more will come, and those
        without an edge are returned too. `measured` is the number of steps after the warm-up once that is known:
        what comes later is the tail.
        """
        trace = StepTrace()
        for row, start, submit, end in self._decided(self._pending(), final=final):
            if submit < 0:
                self._pauses += 1
                trace.append("pause", start, -submit, end)
            else:
                stage = stage_of(row - self._pauses, warmup=self._warmup, measured=measured)
                trace.append(stage, start, submit, end)
        return trace

    def last_ns(self) -> int | None:
        """When the last boundary was reached; None before the first."""
        marks = self._mapped()
        return max(map(abs, _pair(marks, self.reached - 1))) if marks is not None and self.reached else None

    @property
    def open_steps(self) -> int:
        """Steps submitted that `steps` has not returned yet: not seen to end, or not asked for."""
        return max(0, self.reached - 1 - self._next)

    def _pending(self) -> list[tuple[int, int]]:
        marks = self._mapped()
        if marks is None or not self.reached:
            return []
        self._edge = self._edge or _pair(marks, 0)[1]
        if not self._edge:
            return []
        # Backwards: edges are written in order, so that with an edge every earlier one is seen.
        return [_pair(marks, at) for at in range(self.reached - 1, self._next, -1)][::-1]

    def _decided(self, pairs: list[tuple[int, int]], *, final: bool) -> list[tuple[int, int, int, int | None]]:
        if not final:
            while pairs and not pairs[-1][1]:
                pairs.pop()
        rows: list[tuple[int, int, int, int | None]] = []
        for submit, end in pairs:
            rows.append((self._next, self._edge, submit, end or None))
            self._next += 1
            self._edge = end or self._edge
        return rows

    def _mapped(self) -> mmap.mmap | None:
        if self._map is None:
            try:
                with self._path.open("rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (FileNotFoundError, ValueError):  # not made yet, or (an old run's) still empty
                return None
        return self._map

    def _grown(self) -> mmap.mmap | None:
        """The marks, mapped again, where the file has become longer; None where it has not."""
        before = 0 if self._map is None else len(self._map)
        try:
            if self._path.stat().st_size <= before:
                return None
        except OSError:
            return None
        self._map = None
        return self._mapped()


def stage_of(step: int, *, warmup: int, measured: int | None) -> Stage:
    """The stage of a step, counted from 0 through warm-up, measured steps and tail."""
    if step < warmup:
        return "warmup"
    return "step" if measured is None or step < warmup + measured else "tail"


def _pair(marks: mmap.mmap, at: int) -> tuple[int, int]:
    submit, end = PAIR.unpack_from(marks, at * BYTES_A_MARK)
    return submit, end


def _allocate(fd: int, size: int, *, start: int = 0) -> None:
    # A hole in the file would turn a full disk into SIGBUS at some mark; allocated blocks make it an error now.
    if sys.platform == "linux":
        os.posix_fallocate(fd, start, size - start)
        return
    zeros = bytes(1 << 20)
    for at in range(start, size, len(zeros)):
        chunk = zeros[: size - at]
        if os.pwrite(fd, chunk, at) != len(chunk):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
