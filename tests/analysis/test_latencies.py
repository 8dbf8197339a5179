"""What steps took: from edge to edge, as a script sees them that never waits, and in blocks where edges are fewer."""

from __future__ import annotations

import pytest

from powerbench.analysis.checked import verdict_on
from powerbench.analysis.latencies import Latencies, from_edges, from_seconds, from_submissions
from powerbench.records import StepTrace
from tests.rundir import MS, START, steps_lasting


def test_each_edge_ends_a_latency() -> None:
    latencies = from_edges(steps_lasting(10, 30))

    assert latencies == Latencies([START, START + 10 * MS, START + 40 * MS], [1, 1], "edges")
    assert latencies.seconds() == [0.01, 0.03]


def test_steps_up_to_an_edge_share_its_time() -> None:
    latencies = from_edges(steps_lasting(None, None, 30, None, 10))

    assert (latencies.seconds(), latencies.steps) == ([0.01, 0.005], [3, 2])
    assert latencies.first_steps() == [0, 3, 5]


def test_warmup_is_asked_for_by_name() -> None:
    steps = steps_lasting(20, after=steps_lasting(50, stage="warmup"))

    assert from_edges(steps).seconds() == [0.02]
    assert from_edges(steps, "warmup").seconds() == [0.05]


@pytest.mark.parametrize("steps", [StepTrace(), steps_lasting(None, None)])
def test_without_an_edge_there_is_no_latency(steps: StepTrace) -> None:
    assert len(from_edges(steps)) == 0


def unsynchronized(*submits_ms: float) -> StepTrace:
    """Steps that were submitted so long after the first edge; the last alone has an edge."""
    steps = StepTrace()
    for at, ms in enumerate(submits_ms, start=1):
        submit = START + round(ms * MS)
        steps.append("step", START, submit, submit if at == len(submits_ms) else None)
    return steps


def test_a_script_that_never_waits_sees_the_first_submission_and_then_their_differences() -> None:
    assert from_submissions(unsynchronized(1, 11, 31)).seconds() == [0.001, 0.01, 0.02]


def test_python_may_be_ahead_of_an_edge_that_is_an_event_of_the_device() -> None:
    steps = StepTrace()
    steps.append("step", START, START - 5 * MS, START + 10 * MS)
    steps.append("step", START + 10 * MS, START - 3 * MS, START + 20 * MS)

    assert from_submissions(steps).seconds() == [0.0, 0.002]


def test_without_a_step_nothing_was_submitted() -> None:
    assert len(from_submissions(StepTrace())) == 0


def test_latencies_of_another_tool_follow_one_another() -> None:
    assert from_seconds([0.1, 0.2]) == Latencies([0, 100 * MS, 300 * MS], [1, 1], "edges")


def test_the_verdict_on_blocks_of_steps_speaks_of_steps() -> None:
    blocks = [None] * 4 + [50.0]

    slower = verdict_on(from_edges(steps_lasting(*blocks * 60, *([*[None] * 4, 75.0] * 60))))

    assert (slower.verdict, slower.from_step, slower.to_step, slower.n) == ("slowdown", 300, 300, 120)
