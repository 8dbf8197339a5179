"""Two groups of processes come to the verdict that their ratio, interval and threshold leave no doubt about."""

from __future__ import annotations

import math

import pytest

from powerbench.analysis.compare import (
    OF_ENERGY,
    Ratio,
    compare_processes,
    geometric_mean,
    verdict,
)
from powerbench.analysis.process import Process, process_of
from powerbench.analysis.resampling import Estimate, Repeat
from powerbench.records import EnergyCurve
from tests.rundir import MS, START, a_rail, a_record, steps_lasting


def process(latency_s: float, *, j_per_step: float | None = None, scope: str = "package-0") -> Process:
    """A process of which every step took so long."""
    import numpy as np

    blocks = np.empty(0)
    return Process(
        latency=Repeat(latency_s, blocks),
        step=Repeat(latency_s, blocks),
        energy=None if j_per_step is None else Repeat(j_per_step, blocks),
        energy_reason="no meter was asked for (--power none)" if j_per_step is None else None,
        scope=None if j_per_step is None else scope,
        is_estimated=False,
        steps=100,
        samples_per_step=16,
    )


def the(ratio: Ratio | None) -> Ratio:
    assert ratio is not None
    return ratio


class TestVerdict:
    def of(self, ratio: float, *, error: float, freedom: float = 8.0, threshold: float = 0.05) -> str:
        return verdict(Estimate(math.log(ratio), error, freedom, "processes"), threshold)

    @pytest.mark.parametrize(
        ("ratio", "error", "said"),
        [
            (1.10, 0.01, "slower"),
            (0.90, 0.01, "faster"),
            (1.00, 0.01, "indistinguishable"),
            (1.02, 0.01, "indistinguishable"),
            (1.04, 0.01, "inconclusive"),  # more, and perhaps by five percent
            (1.00, 0.05, "inconclusive"),
            (1.10, 0.05, "inconclusive"),  # so much, and perhaps by chance
        ],
    )
    def test_weighs_the_ratio_against_the_threshold_and_against_chance(
        self, ratio: float, error: float, said: str
    ) -> None:
        assert self.of(ratio, error=error) == said

    def test_asks_for_a_surety_of_one_in_a_hundred_on_its_side(self) -> None:
        surely = math.log(1.06) / 2.896  # Student's 99th percentile at 8 degrees of freedom

        assert self.of(1.06, error=surely * 0.999) == "slower"
        assert self.of(1.06, error=surely * 1.001) == "inconclusive"

    def test_of_the_threshold_itself_is_slower_and_of_its_inverse_faster(self) -> None:
        assert self.of(1.05000001, error=0.0) == "slower"
        assert self.of(1 / 1.05000001, error=0.0) == "faster"
        assert self.of(1.0499, error=0.0) == "indistinguishable"

    def test_follows_the_threshold(self) -> None:
        assert self.of(1.03, error=0.001, threshold=0.02) == "slower"
        assert self.of(1.03, error=0.001, threshold=0.10) == "indistinguishable"

    @pytest.mark.parametrize("error", [None, 0.0, 0.001])
    def test_of_one_process_a_side_is_always_open(self, error: float | None) -> None:
        assert verdict(Estimate(math.log(2.0), error, 20, "blocks"), 0.05) == "inconclusive"

    def test_of_joules_is_less_or_more(self) -> None:
        assert verdict(Estimate(0.3, 0.01, 8, "processes"), 0.05, OF_ENERGY) == "more"
        assert verdict(Estimate(-0.3, 0.01, 8, "processes"), 0.05, OF_ENERGY) == "less"


class TestRatios:
    def test_are_exact_for_processes_that_agree(self) -> None:
        a = [process(0.020, j_per_step=0.4)] * 3
        b = [process(0.025, j_per_step=0.6)] * 3

        ratios = compare_processes(a, b)

        latency, throughput, energy = (the(it) for it in (ratios.latency_ms, ratios.samples_per_s, ratios.j_per_step))
        assert (latency.a, latency.b, latency.ratio) == pytest.approx((20.0, 25.0, 1.25))
        assert (throughput.a, throughput.b, throughput.ratio) == pytest.approx((800.0, 640.0, 0.8))
        assert (energy.a, energy.b, energy.ratio) == pytest.approx((0.4, 0.6, 1.5))
        assert [it.verdict for it in (latency, throughput, energy)] == ["slower", "slower", "more"]
        assert ratios.energy_reason is None

    def test_of_throughput_have_the_interval_of_time_turned_round(self) -> None:
        a, b = ([process(it) for it in side] for side in ((0.020, 0.021, 0.022), (0.024, 0.026, 0.025)))

        ratios = compare_processes(a, b)

        latency, throughput = the(ratios.latency_ms), the(ratios.samples_per_s)
        assert latency.ci95 is not None
        assert throughput.ci95 == pytest.approx((1 / latency.ci95[1], 1 / latency.ci95[0]))

    def test_of_joules_of_different_things_are_refused_by_the_key(self) -> None:
        a = [process(0.02, j_per_step=0.4, scope="gpu0")] * 3
        b = [process(0.02, j_per_step=0.4, scope="SoC (cpu + gpu + ane)")] * 3

        ratios = compare_processes(a, b)

        assert ratios.j_per_step is None
        assert ratios.energy_reason == (
            "scope is gpu0 in A and SoC (cpu + gpu + ane) in B: these joules are of different things"
        )
        assert the(ratios.latency_ms).ratio == 1.0

    def test_of_joules_that_one_side_lacks_say_which_and_why(self) -> None:
        ratios = compare_processes([process(0.02, j_per_step=0.4)] * 3, [process(0.02)] * 3)

        assert ratios.energy_reason == "B has no figure: no meter was asked for (--power none)"

    def test_over_cells_are_their_geometric_mean(self) -> None:
        pairs = [([process(0.02)] * 3, [process(0.04)] * 3), ([process(0.02)] * 3, [process(0.02)] * 3)]

        mean = geometric_mean(pairs, threshold=0.05)

        assert the(mean.latency_ms).ratio == pytest.approx(2**0.5)
        assert the(mean.samples_per_s).ratio == pytest.approx(0.5**0.5)
        assert (the(mean.latency_ms).a, mean.j_per_step) == (None, None)


class TestAProcess:
    def test_is_its_median_step_and_the_time_of_all_over_their_number(self) -> None:
        found = process_of(a_record(), steps_lasting(10, 10, 10, 10, 60), {})

        assert found.latency is not None
        assert found.step is not None
        assert (found.latency.value, found.step.value) == (0.010, 0.020)
        assert (found.steps, found.samples_per_step, found.energy) == (5, 16, None)
        assert found.energy_reason == "no meter was recorded with this run"

    def test_of_edges_at_both_ends_only_is_their_mean(self) -> None:
        found = process_of(a_record(), steps_lasting(*[None] * 9, 100), {})

        assert found.latency is not None
        assert (found.latency.value, len(found.latency.blocks)) == (0.010, 1)

    def test_without_a_step_has_no_figure(self) -> None:
        found = process_of(a_record(), steps_lasting(), {})

        assert (found.latency, found.step, found.energy, found.steps) == (None, None, None, 0)

    def test_has_the_joules_of_its_steps_and_of_blocks_of_them(self) -> None:
        # Twenty watts from two seconds before the first step on: 0.4 J in each of 20 ms.
        times = [START + at * 100 * MS for at in range(-20, 140)]
        curve = EnergyCurve(times, [2.0 * at for at in range(len(times))])
        record = a_record(rails={"package-0": a_rail(part="package", method="interval average")})

        found = process_of(record, steps_lasting(*[20] * 500), {"package-0": curve})

        assert found.energy is not None
        assert found.energy.value == pytest.approx(0.4)
        assert found.energy.blocks.tolist() == pytest.approx([0.4] * len(found.energy.blocks))
        assert len(found.energy.blocks) >= 5
        assert found.scope == "package-0"
