"""What py-spy saw: its Chrome trace folded into stacks by moment, and tied to the machine's clock."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from powerbench.errors import PowerbenchError
from powerbench.records import RunRecord
from powerbench.rundir import RunDir
from powerbench.rundir.lines import LineTail, read_events

MOMENT_NAME = re.compile(r"powerbench_moment_(\d+)$")
THREAD_NAME = re.compile(r"thread \((\w+)\)(?:: (.*))?")
NS_PER_US = 1000
NOTHING = -1
"""In place of a stack: the thread was not there any more."""
FEWEST_MOMENTS = 4
# A look that was kept waiting on a busy machine must not decide where all of them lie.
LEFT_OUT = 0.1


class Frame(NamedTuple):
    """A place in the code; `line` is 0 where there is none (C and C++), `file` is empty where it is unknown."""

    name: str
    file: str
    line: int


class ThreadStacks(Struct, frozen=True, kw_only=True):
    """One thread: from `time_us[i]` on it had the stack `stack[i]` (NOTHING: it was gone), until the next.

    `steps` is true of the thread that runs the steps.
    """

    name: str
    steps: bool
    time_us: list[int]
    stack: list[int]


class Stacks(Struct, frozen=True, kw_only=True):
    """`stacks-<rank>.json`. Each stack is a list of indices into `frames`, outermost first.

    `start_ns` is the moment of the machine's clock from which `time_us` counts, `time_uncertainty_ns` by how much that
    may be off. A change is seen at the first look behind it, which comes one period later on average.
    """

    sampler: str
    rate_hz: int
    native: bool
    start_ns: int
    time_uncertainty_ns: int
    frames: list[Frame]
    stacks: list[list[int]]
    threads: list[ThreadStacks]


class Unplaced(Exception):
    """Stacks that cannot be put on the machine's clock, or none at all; says why."""


def read_stacks(path: Path) -> Stacks:
    """The file of stacks. Raises PowerbenchError where it is damaged, or cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Stacks)
    except OSError as error:
        raise PowerbenchError(f"Cannot read {path}: {error.strerror}; measure again with --py-spy.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PowerbenchError(f"{path} is damaged ({error}); measure again with --py-spy.") from error


def find_stacks(rundir: RunDir, record: RunRecord) -> Stacks:
    """The stacks of a run, also of one whose supervisor was killed. Raises PowerbenchError with what is to be done."""
    rank = record.own_ranks[0]
    if rundir.stacks(rank).exists():
        return read_stacks(rundir.stacks(rank))
    if rundir.py_spy_trace(rank).exists():
        trace, events = rundir.py_spy_trace(rank).read_bytes(), read_events(LineTail(rundir.events(rank)).read())
        try:
            return fold(trace, events, sampler="py-spy", rate_hz=record.the_cell.py_spy_rate, native=b".so" in trace)
        except Unplaced as error:
            raise PowerbenchError(f"{rundir.path} holds no stacks: {error}. Measure again with --py-spy.") from error
    with_it, again = ("--py-spy", "`powerbench run --py-spy`") if not record.loop else ("py_spy", "record(py_spy=True)")
    why = f"it was measured without {with_it}" if not record.the_cell.py_spy else record.unsampled
    if record.stacks is not None and record.stacks.lost is not None:
        why = record.stacks.lost
    reason = (why or "py-spy has not written them (yet)").rstrip(".")
    raise PowerbenchError(f"{rundir.path} holds no stacks: {reason}. Measure again with {again}.")


def fold(trace: bytes, events: Iterable[Mapping[str, Any]], *, sampler: str, rate_hz: int, native: bool) -> Stacks:
    """py-spy's Chrome trace as stacks, on the clock by the moments that the worker showed. Raises Unplaced."""
    folding = _Folding()
    try:
        folding.take(_rows(trace))
        threads = [thread.told() for thread in folding.threads.values()]
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError) as error:
        raise Unplaced(f"what py-spy wrote cannot be read ({error})") from error
    stamps: list[list[int]] = next((event["stamps"] for event in events if event["event"] == "moments"), [])
    placed = place(folding.seen_us, stamps)
    return Stacks(
        sampler=sampler,
        rate_hz=rate_hz,
        native=native,
        start_ns=placed.start_ns,
        time_uncertainty_ns=placed.uncertainty_ns,
        frames=[*folding.frames],
        stacks=[[*stack] for stack in folding.stacks],
        threads=threads,
    )


class Placed(NamedTuple):
    """Where py-spy's zero lies on the machine's clock."""

    start_ns: int
    uncertainty_ns: int


def place(seen_us: Mapping[int, int], stamps: Sequence[Sequence[int]]) -> Placed:
    """Where py-spy's zero lies, from when it first saw each moment and when the worker was in it. Raises Unplaced.

    A look at t that shows moment k was made between its stamps, so the zero lies between start_k - t and end_k - t.
    The middle of what all of these have in common is taken, without the tenth that a busy machine kept waiting most;
    where they have nothing in common, the middle of the gap. Half of either is the uncertainty. The time that py-spy
    needs to write a look down shifts all of them alike, and goes into the zero.
    """
    bounds = [
        (stamps[number][0] - at_us * NS_PER_US, stamps[number][1] - at_us * NS_PER_US)
        for number, at_us in seen_us.items()
        if number < len(stamps)
    ]
    if len(bounds) < FEWEST_MOMENTS:
        raise Unplaced(
            f"py-spy saw {len(bounds)} of the moments that tie its clock to the machine's, where {FEWEST_MOMENTS} are "
            "needed: it came too late or too rarely"
        )
    spared = math.floor(LEFT_OUT * (len(bounds) - 1))
    latest = sorted(low for low, _ in bounds)[-1 - spared]
    earliest = sorted(high for _, high in bounds)[spared]
    return Placed((latest + earliest) // 2, abs(earliest - latest) // 2)


class _Place(Struct, gc=False):
    filename: str = ""
    line: int | None = None


class _Row(Struct, gc=False):
    """A frame that a thread entered (`ph` is B) or left (E), as py-spy writes it."""

    ph: str
    name: str
    tid: int
    ts: int = 0
    args: _Place = msgspec.field(default_factory=_Place)


def _rows(trace: bytes) -> Iterator[_Row]:
    """Its rows one by one: of a run of an hour there are millions, which are not to be in memory at once."""
    decoder = msgspec.json.Decoder(_Row)
    return map(decoder.decode, msgspec.json.decode(trace, type=list[msgspec.Raw]))


class _Folding:
    """Frames and stacks, each kept once; the threads that had them; and when each moment was first seen (us)."""

    def __init__(self) -> None:
        self.frames: dict[Frame, int] = {}
        self.stacks: dict[tuple[int, ...], int] = {}
        self.threads: dict[int, _Thread] = {}
        self.seen_us: dict[int, int] = {}

    def take(self, rows: Iterable[_Row]) -> None:
        """Fold all rows."""
        for row in rows:
            if row.ph in ("B", "E"):
                if row.tid not in self.threads:
                    self.threads[row.tid] = _Thread(str(row.tid), self)
                self.threads[row.tid].take(row)

    def stack(self, frames: Iterable[Frame]) -> int:
        """The number of a stack."""
        numbers = tuple(self.frames.setdefault(frame, len(self.frames)) for frame in frames)
        return self.stacks.setdefault(numbers, len(self.stacks))


class _Thread:
    """One thread's stacks; the frames that it entered and left at one moment make one change."""

    def __init__(self, name: str, folding: _Folding) -> None:
        self._name = name
        self._folding = folding
        self._steps = False
        self._now: list[Frame] = []
        self._at_us: int | None = None
        self._time_us: list[int] = []
        self._stack: list[int] = []

    def take(self, row: _Row) -> None:
        """The next of its rows."""
        if row.ts != self._at_us:
            self._change()
            self._at_us = row.ts
        if row.ph == "E":
            self._now.pop()
            return
        self._now.append(Frame(row.name, row.args.filename, row.args.line or 0))
        moment = MOMENT_NAME.search(row.name)
        if moment is not None:
            self._steps = True
            self._folding.seen_us.setdefault(int(moment[1]), row.ts)

    def _change(self) -> None:
        """Keep the stack that stands now, if any row has come."""
        if self._at_us is None:
            return
        frames = self._now
        named = THREAD_NAME.fullmatch(frames[0].name) if frames else None
        if named is not None:
            self._name = named[2] or named[1]
            frames = frames[1:]
        self._time_us.append(self._at_us)
        self._stack.append(self._folding.stack(frames) if self._now else NOTHING)

    def told(self) -> ThreadStacks:
        """The thread when all of its rows have come."""
        self._change()
        self._at_us = None
        return ThreadStacks(name=self._name, steps=self._steps, time_us=self._time_us, stack=self._stack)
