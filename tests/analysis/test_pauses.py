"""A pause between two steps is in no step's latency, in none of its joules, and is said to have been there."""

from __future__ import annotations

from typing import Any

import pytest

from powerbench.analysis.blocks import block_energies
from powerbench.analysis.curves import Line
from powerbench.analysis.energy import EnergyFindings, find_energy
from powerbench.analysis.latencies import from_edges, from_submissions
from powerbench.analysis.process import process_of
from powerbench.analysis.summary import summarize
from powerbench.records import EnergyCurve, StepTrace, Window
from tests.analysis.test_energy import a_gpu, a_rail, a_run, drawing, joules
from tests.rundir import MS, START, a_record, steps_lasting


def paused(*, steps: int = 20, step_ms: float = 100.0, pause_ms: float = 1000.0) -> StepTrace:
    """So many steps, a pause, and as many again."""
    trace = steps_lasting(*[step_ms] * steps)
    steps_lasting(pause_ms, stage="pause", after=trace)
    return steps_lasting(*[step_ms] * steps, after=trace)


def working_and_pausing(*, steps: int = 20) -> EnergyCurve:
    """10 W in the steps, 2 W in the second between them, read each 100 ms."""
    return drawing(*[10.0] * (10 + steps), *[2.0] * 10, *[10.0] * (steps + 10))


class TestLatency:
    def test_is_of_the_steps_alone(self) -> None:
        summary = summarize("mine", a_record(), paused())

        assert (summary.steps, summary.wall_s) == (40, 4.0)
        assert summary.latency_ms is not None
        assert (summary.latency_ms.mean, summary.latency_ms.max) == (100.0, 100.0)

    def test_of_each_step_has_no_pause_in_it(self) -> None:
        assert from_edges(paused(steps=2)).seconds() == [0.1] * 4
        assert from_submissions(paused(steps=2)).seconds() == [0.1] * 4
        assert from_edges(paused(steps=2)).lasted_s == pytest.approx(0.4)

    def test_is_told_with_the_pauses_beside_it(self) -> None:
        notes = summarize("mine", a_record(), paused()).notes

        assert "Between the steps the loop made 1 pause, 1.00s in all, which no figure of the steps contains." in notes

    def test_steps_behind_the_last_edge_before_a_pause_are_not_counted(self) -> None:
        trace = steps_lasting(100.0, None)
        steps_lasting(1000.0, stage="pause", after=trace)
        steps_lasting(100.0, after=trace)

        assert [count for _, _, count in trace.spans("step")] == [1, 1]
        assert trace.stretches("step") == [
            Window(START, START + 100 * MS),
            Window(START + 1100 * MS, START + 1200 * MS),
        ]

    def test_as_a_comparison_takes_it_is_of_the_steps_alone(self) -> None:
        process = process_of(a_run({"package-0": a_rail()}), paused(), {"package-0": working_and_pausing()})

        assert process.step is not None
        assert process.energy is not None
        assert process.step.value == pytest.approx(0.1)
        assert process.energy.value == pytest.approx(1.0)


class TestEnergy:
    def test_is_that_of_the_steps_alone(self) -> None:
        energy = joules(summarize_energy(paused(), working_and_pausing()))

        assert energy.total_j == pytest.approx(40.0)
        assert energy.j_per_step == pytest.approx(1.0)
        assert energy.mean_w == pytest.approx(10.0)
        assert energy.peak_w == pytest.approx(10.0)
        assert energy.rails["package-0"].j_per_step == pytest.approx(1.0)

    def test_has_a_wider_interval_for_each_pause(self) -> None:
        steady = drawing(*[10.0] * 80)
        uneven = drawing(*[9.0, 11.0] * 40)

        low, high = joules(summarize_energy(paused(), steady)).total_j_sampling_ci95
        assert high - low == pytest.approx(0.0)
        without = joules(summarize_energy(steps_lasting(*[100.0] * 50), uneven)).total_j_sampling_ci95
        low, high = joules(summarize_energy(paused(), uneven)).total_j_sampling_ci95
        assert high - low > without[1] - without[0]

    def test_of_a_sensor_that_looks_now_and_then_is_told_too(self) -> None:
        rail = a_gpu(method="instant, integrated", coverage=0.25, averaging_s=0.025)
        run = a_run({"gpu0": rail}, device="cuda", uuid="GPU-a")
        found = find_energy(run, paused(steps=60, step_ms=73.0, pause_ms=50.0), {"gpu0": drawing(*[300.0] * 200)})

        assert joules(found).j_per_step == pytest.approx(300 * 0.073)

    def test_of_blocks_never_reaches_over_a_pause(self) -> None:
        spans = paused(steps=7).spans("step")
        curve = working_and_pausing(steps=7)
        line = Line(*(as_floats(each) for each in (curve.time_ns, curve.energy_j)))

        blocks = block_energies(line, a_rail(), spans)

        assert [block.steps for block in blocks] == [7, 7]
        assert [block.energy_j for block in blocks] == pytest.approx([7.0, 7.0])


def as_floats(values: list[int] | list[float]) -> Any:
    import numpy as np

    return np.asarray(values, dtype=np.float64)


def summarize_energy(steps: StepTrace, curve: EnergyCurve) -> EnergyFindings:
    return find_energy(a_run({"package-0": a_rail()}), steps, {"package-0": curve})
