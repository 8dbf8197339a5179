"""What py-spy saw: its Chrome trace folded into stacks by moment, and tied to the machine's clock."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
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
    try:
        rows = msgspec.json.decode(trace, type=list[dict[str, Any]])
        threads, folding = _threads(rows)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, IndexError) as error:
        raise Unplaced(f"what py-spy wrote cannot be read ({error})") from error
    stamps: list[list[int]] = next((event["stamps"] for event in events if event["event"] == "moments"), [])
    placed = place(_moments_seen(rows), stamps)
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


class _Folding:
    """Frames and stacks, each kept once."""

    def __init__(self) -> None:
        self.frames: dict[Frame, int] = {}
        self.stacks: dict[tuple[int, ...], int] = {}

    def stack(self, frames: Iterable[Frame]) -> int:
        numbers = tuple(self.frames.setdefault(frame, len(self.frames)) for frame in frames)
        return self.stacks.setdefault(numbers, len(self.stacks))


def _threads(rows: Iterable[Mapping[str, Any]]) -> tuple[list[ThreadStacks], _Folding]:
    """Each thread's stacks."""
    folding = _Folding()
    of_thread: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["ph"] in ("B", "E"):
            of_thread.setdefault(row["tid"], []).append(row)
    return [_thread(str(thread), its, folding) for thread, its in of_thread.items()], folding


def _thread(name: str, rows: Iterable[Mapping[str, Any]], folding: _Folding) -> ThreadStacks:
    """One thread's stacks, from the frames that it entered (B) and left (E); those of one moment make one change."""
    now: list[Frame] = []
    time_us, stacks, steps = [], [], False
    for at_us, changes in groupby(rows, key=itemgetter("ts")):
        for row in changes:
            if row["ph"] == "B":
                now.append(Frame(row["name"], row["args"]["filename"], row["args"].get("line") or 0))
                steps = steps or MOMENT_NAME.search(row["name"]) is not None
            else:
                now.pop()
        named = THREAD_NAME.fullmatch(now[0].name) if now else None
        if named is not None:
            name = named[2] or named[1]
        time_us.append(at_us)
        stacks.append(folding.stack(now if named is None else now[1:]) if now else NOTHING)
    return ThreadStacks(name=name, steps=steps, time_us=time_us, stack=stacks)


def _moments_seen(rows: Iterable[Mapping[str, Any]]) -> dict[int, int]:
    """When each moment was first seen, by its number."""
    seen: dict[int, int] = {}
    for row in rows:
        name = MOMENT_NAME.search(row["name"]) if row["ph"] == "B" else None
        if name is not None:
            seen.setdefault(int(name[1]), row["ts"])
    return seen
