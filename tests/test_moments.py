"""The moments that a worker shows py-spy: each under a name of its own, between stamps, one behind the other."""

from __future__ import annotations

import inspect
import json
import sys
from itertools import pairwise
from pathlib import Path

from powerbench.moments import MOMENT, MOMENTS, be_looked_at, is_looked_at, let_be_traced, named, show_moments
from powerbench.rundir import RunDir
from powerbench.rundir.lines import EventWriter
from tests.rundir import a_cell


def test_a_moment_stands_in_the_stack_under_its_own_name() -> None:
    moment = named(f"{MOMENT}7")

    assert (moment.__code__.co_name, moment.__code__.co_qualname) == ("powerbench_moment_7", "powerbench_moment_7")


def test_the_moments_follow_one_another_between_their_stamps() -> None:
    stamps = show_moments(0.0)

    assert len(stamps) == MOMENTS
    assert all(start <= end for start, end in stamps)
    assert all(before[1] <= after[0] for before, after in pairwise(stamps))


def test_the_worker_waits_for_the_word_and_tells_what_it_showed(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path)
    rundir.py_spy_go(0).touch()

    be_looked_at(rundir, EventWriter(rundir.events(0)), rank=0, supervisor=1, rate_hz=1000)

    events = [json.loads(line) for line in rundir.events(0).read_text().splitlines()]
    assert [event["event"] for event in events] == ["awaits_py_spy", "moments"]
    assert len(events[1]["stamps"]) == MOMENTS


def test_one_rank_of_each_machine_is_looked_at_and_only_where_that_was_asked_for() -> None:
    assert is_looked_at(a_cell(py_spy=True), 0)
    assert not is_looked_at(a_cell(py_spy=True, ranks=2), 1)
    assert is_looked_at(a_cell(py_spy=True, ranks=2, nnodes=2), 2)
    assert not is_looked_at(a_cell(), 0)


def test_leave_to_trace_is_given_where_the_kernel_knows_that_and_else_nothing_happens() -> None:
    let_be_traced(by=1)

    assert inspect.signature(let_be_traced).parameters["by"].kind is inspect.Parameter.KEYWORD_ONLY
    assert sys.platform in ("linux", "darwin")
