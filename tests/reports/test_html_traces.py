"""The curves of a run in few points: every extreme is still there, power is that of the joules, nothing is made up."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from powerbench.reports.html.traces import BINS, envelope, latency_trace, power_trace
from powerbench.rundir.load import Run
from tests.reports import a_run
from tests.rundir import a_record, steps_lasting


def a_run_of(*milliseconds: float | None) -> Run:
    return Run(Path("runs/one"), a_record(), [steps_lasting(*milliseconds)])


def test_each_step_lies_at_its_end() -> None:
    trace = latency_trace(a_run_of(10, 20, 30))

    assert trace is not None
    assert trace.time_s.tolist() == pytest.approx([0.01, 0.03, 0.06])
    assert trace.ms.tolist() == [10, 20, 30]
    assert trace.envelope is None
    assert not trace.of_blocks
    assert trace.lasted_s == pytest.approx(0.06)


def test_where_only_some_edges_were_taken_blocks_have_means() -> None:
    trace = latency_trace(a_run_of(None, 40, None, 80))

    assert trace is not None
    assert (trace.ms.tolist(), trace.of_blocks) == ([20, 40], True)


@pytest.mark.parametrize("lengths", [(), (10,), (None, None, 30)], ids=["none", "one", "one edge"])
def test_fewer_than_two_edges_are_no_trace(lengths: tuple[float | None, ...]) -> None:
    assert latency_trace(a_run_of(*lengths)) is None


def test_no_extreme_of_a_long_run_is_lost() -> None:
    random = Random(1)
    lengths = [random.uniform(19, 21) for _ in range(20_000)]
    lengths[777], lengths[12_345] = 500, 1

    trace = latency_trace(a_run_of(*lengths))

    assert trace is not None
    assert trace.envelope is not None
    assert len(trace.envelope.time_s) == BINS
    assert (trace.envelope.largest.max(), trace.envelope.least.min()) == (500, 1)
    assert all(abs(middle - 20) < 0.5 for middle in trace.envelope.middle)


def test_a_stretch_in_which_no_step_ended_has_no_point() -> None:
    import numpy as np

    around = envelope(np.array([1.0, 1.1, 9.0, 9.1]), np.array([1.0, 3.0, 5.0, 9.0]), bins=4)

    assert (around.least.tolist(), around.middle.tolist(), around.largest.tolist()) == ([1, 5], [2, 7], [3, 9])


@pytest.mark.parametrize("steps", [20, 400], ids=["short", "long"])
def test_forty_watts_are_drawn_as_forty_watts(steps: int) -> None:
    trace = power_trace(a_run(step_ms=500, steps=steps, watts=40))

    assert trace is not None
    assert trace.power_w.tolist() == pytest.approx([40] * len(trace.power_w), rel=0.01)
    assert trace.edges_s[[0, -1]].tolist() == [0, steps / 2]
    assert 0.5 <= trace.edges_s[1] <= 1


def test_a_run_without_a_meter_has_no_power() -> None:
    assert power_trace(a_run()) is None
