"""A step of several ranks takes as long as its slowest rank, and is over where all of them have ended it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerbench.records import Stage, StepTrace
from powerbench.rundir.combined import combined, shifted
from tests.rundir import MS, START, rows_of, steps_lasting


def trace(*ends: int | None, start: int = 0, stages: list[Stage] | None = None) -> StepTrace:
    """Steps that were submitted where they ended, or a moment after their start; the first begins at `start`."""
    steps = StepTrace()
    for at, end in enumerate(ends):
        steps.append("step" if stages is None else stages[at], start, start + 1 if end is None else end, end)
        start = start if end is None else end
    return steps


def edges(steps: StepTrace) -> list[int]:
    return [end for _, end, _ in steps.spans("step")]


def test_a_step_ends_with_its_slowest_rank_and_the_next_begins_there() -> None:
    whole = combined([trace(10, 30, 40), trace(20, 25, 50, start=2)])

    assert rows_of(whole) == ["0,step,0,20,20", "1,step,20,30,30", "2,step,30,50,50"]


def test_there_is_an_edge_where_every_rank_has_one() -> None:
    whole = combined([trace(10, None, 40), trace(20, 25, 50)])

    assert rows_of(whole) == ["0,step,0,20,20", "1,step,20,25,", "2,step,20,50,50"]
    assert whole.spans("step") == [(0, 20, 1), (20, 50, 2)]


def test_steps_that_a_killed_rank_never_reached_are_none_of_the_whole() -> None:
    assert rows_of(combined([trace(10, 20, 30), trace(12)])) == ["0,step,0,12,12"]
    assert len(combined([trace(10, 20), StepTrace()])) == 0


def test_where_the_tail_begins_is_told_by_the_ranks_that_could_say_it() -> None:
    told = trace(10, 20, 30, stages=["warmup", "step", "tail"])
    killed = trace(11, 21, 31, stages=["warmup", "step", "step"])

    assert combined([killed, told]).stage == ["warmup", "step", "tail"]


def test_a_trace_alone_is_itself() -> None:
    alone = steps_lasting(10, 20)

    assert combined([alone]) is alone
    with pytest.raises(ValueError, match="empty"):
        combined([])


LENGTHS = st.lists(st.none() | st.integers(1, 10**9), min_size=1, max_size=20)


def of_lengths(lengths: list[int | None], *, start: int = START) -> StepTrace:
    """Steps one behind the other; behind one of None no edge was taken."""
    ends: list[int | None] = []
    edge = start
    for length in lengths:
        edge += length or 0
        ends.append(None if length is None else edge)
    return trace(*ends, start=start)


@settings(max_examples=50)
@given(LENGTHS, st.integers(2, 5))
def test_ranks_that_do_the_same_at_the_same_time_are_as_one(lengths: list[int | None], ranks: int) -> None:
    alone = of_lengths(lengths)

    assert combined([alone] * ranks) == alone


@settings(max_examples=50)
@given(st.lists(st.tuples(*[st.integers(1, 10**9)] * 3), min_size=1, max_size=20))
def test_in_whatever_order_and_groups_ranks_are_taken_the_whole_is_the_same(lengths: list[tuple[int, ...]]) -> None:
    one, two, three = (
        of_lengths(list(column), start=START + at) for at, column in enumerate(zip(*lengths, strict=True))
    )
    whole = combined([one, two, three])

    assert combined([three, one, two]) == whole
    assert combined([combined([one, two]), three]) == whole
    assert edges(whole) == [max(ends) for ends in zip(edges(one), edges(two), edges(three), strict=True)]


def test_a_shifted_trace_has_the_same_steps_on_another_clock() -> None:
    steps = shifted(steps_lasting(10, None, 20), 5 * MS)

    assert steps.start_ns == [START + 5 * MS, START + 15 * MS, START + 15 * MS]
    assert steps.end_ns == [START + 15 * MS, None, START + 35 * MS]
    assert [submit - start for submit, start in zip(steps.submit_ns, steps.start_ns, strict=True)] == [
        10 * MS,
        0,
        20 * MS,
    ]
