"""What py-spy writes, folded: each thread's stacks by moment, on the machine's clock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from powerbench.errors import PowerbenchError
from powerbench.records import StacksRecord
from powerbench.rundir import RunDir
from powerbench.rundir.lines import EventWriter
from powerbench.rundir.stacks import NOTHING, Frame, Placed, Unplaced, find_stacks, fold, place
from tests.rundir import MS, START, a_cell, a_record

MAIN, OTHER = 140501015399296, 140501004469952


def row(phase: str, name: str, at_us: int, *, thread: int = MAIN, line: int = 1) -> dict[str, Any]:
    """An event as py-spy 0.4 writes it."""
    arguments = {"filename": "" if name.startswith("thread") else "/home/me/train.py", "line": line}
    return {"args": arguments, "cat": "py-spy", "name": name, "ph": phase, "pid": 7, "tid": thread, "ts": at_us}


def moments(count: int, *, first_us: int = 1000) -> list[dict[str, Any]]:
    """Looks in the middle of moments of 4 ms, each in its own."""
    rows = [row("B", "thread (7): MainThread", first_us)]
    for number in range(count):
        at_us = first_us + number * 4000
        rows.append(row("B", f"powerbench_moment_{number}", at_us))
        rows.append(row("E", f"powerbench_moment_{number}", at_us + 4000))
    return rows


def stamps(count: int, *, zero_ns: int) -> list[tuple[int, int]]:
    """When the worker was in those, where py-spy's zero is at `zero_ns`."""
    return [
        (zero_ns + (1000 + number * 4000) * 1000 - 2 * MS, zero_ns + (1000 + number * 4000) * 1000 + 2 * MS)
        for number in range(count)
    ]


def folded(rows: list[dict[str, Any]], *, count: int = 8) -> Any:
    events = [{"event": "moments", "time_ns": 1, "stamps": stamps(count, zero_ns=START)}]
    return fold(json.dumps(rows).encode(), events, sampler="py-spy 0.4.3", rate_hz=100, native=False)


def test_a_stack_stands_from_the_look_that_first_saw_it_to_the_next_change() -> None:
    rows = [
        *moments(8),
        row("B", "step", 50_000),
        row("B", "hot", 50_000, line=3),
        row("E", "hot", 70_000, line=3),
        row("B", "cold", 70_000, line=4),
        row("E", "cold", 90_000, line=4),
        row("E", "step", 90_000),
    ]

    stacks = folded(rows)

    thread = stacks.threads[0]
    seen = [
        (at, [stacks.frames[it].name for it in stacks.stacks[stack]])
        for at, stack in zip(thread.time_us, thread.stack, strict=True)
    ]
    assert (thread.name, thread.steps) == ("MainThread", True)
    assert seen[-3:] == [(50_000, ["step", "hot"]), (70_000, ["step", "cold"]), (90_000, [])]
    assert stacks.frames[stacks.stacks[thread.stack[-2]][-1]] == Frame("cold", "/home/me/train.py", 4)


def test_a_thread_that_ends_has_nothing_from_then_on() -> None:
    rows = [
        *moments(8),
        row("B", "thread (9): reader", 2000, thread=OTHER),
        row("B", "read", 2000, thread=OTHER),
        row("E", "read", 9000, thread=OTHER),
        row("E", "thread (9): reader", 9000, thread=OTHER),
    ]

    stacks = folded(rows)

    assert [(it.name, it.steps) for it in stacks.threads] == [("MainThread", True), ("reader", False)]
    assert stacks.threads[1].stack[-1] == NOTHING


def test_its_zero_lies_where_every_look_falls_into_the_moment_that_it_saw() -> None:
    seen = {number: 1000 + number * 4000 for number in range(8)}

    assert place(seen, stamps(8, zero_ns=START)) == Placed(START, 2 * MS)


def test_looks_at_other_points_of_their_moments_say_more() -> None:
    seen = {number: 1000 + number * 4000 + (-1500 if number % 2 else 1500) for number in range(8)}

    assert place(seen, stamps(8, zero_ns=START)) == Placed(START, MS // 2)


def test_a_look_that_was_kept_waiting_moves_none_of_the_others() -> None:
    seen = {number: 1000 + number * 4000 for number in range(20)} | {7: 1000 + 7 * 4000 + 60_000}

    assert place(seen, stamps(20, zero_ns=START)) == Placed(START, 2 * MS)


def test_too_few_moments_place_nothing() -> None:
    with pytest.raises(Unplaced, match="py-spy saw 3 of the moments"):
        place({0: 1000, 1: 5000, 2: 9000}, stamps(8, zero_ns=START))


@pytest.mark.parametrize(
    "trace", ["", "[", "{}", '[{"ph": "E", "tid": 1, "ts": 1, "name": "a"}]', '[{"ph": "B"}]', "[1]"]
)
def test_what_is_no_trace_is_unplaced_and_no_crash(trace: str) -> None:
    with pytest.raises(Unplaced):
        fold(trace.encode(), [], sampler="py-spy", rate_hz=100, native=False)


def test_of_a_run_whose_supervisor_was_killed_py_spys_own_file_is_read(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path)
    rundir.py_spy_trace(0).write_text(json.dumps(moments(8)))
    EventWriter(rundir.events(0)).write("moments", time_ns=1, stamps=stamps(8, zero_ns=START))

    stacks = find_stacks(rundir, a_record(cell=a_cell(py_spy=True)))

    assert (stacks.start_ns, stacks.native) == (START, False)


def test_a_run_without_stacks_says_why_and_what_to_do(tmp_path: Path) -> None:
    lost = StacksRecord(rank=0, sampler="py-spy", rate_hz=100, native=False, lost="py-spy wrote nothing")
    for record, why in (
        (a_record(), "it was measured without --py-spy"),
        (a_record(cell=a_cell(py_spy=True), unsampled="py-spy is not installed."), "py-spy is not installed"),
        (a_record(cell=a_cell(py_spy=True), stacks=lost), "py-spy wrote nothing"),
        (a_record(cell=a_cell(py_spy=True), status="running"), "py-spy has not written them (yet)"),
    ):
        with pytest.raises(PowerbenchError) as error:
            find_stacks(RunDir(tmp_path), record)
        assert str(error.value) == f"{tmp_path} holds no stacks: {why}. Measure again with `powerbench run --py-spy`."


def test_a_damaged_file_of_stacks_is_named(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path)
    rundir.stacks(0).write_bytes(msgspec.json.encode({"frames": 3}))

    with pytest.raises(PowerbenchError, match=r"stacks-0\.json is damaged"):
        find_stacks(rundir, a_record())
