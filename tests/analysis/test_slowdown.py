"""The verdict on traces whose truth is known, and on what no clock should say."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerbench.analysis.slowdown import Slowdown, Verdict, across, find_slowdown, sentence, sentence_across
from powerbench.analysis.trimming import cut_spikes
from tests.analysis import traces
from tests.analysis.traces import Noise

if TYPE_CHECKING:
    from tests.analysis.traces import Shape

SHORT, LONG = 0.5, 0.9
FLAT = [0.1] * 100


def judged(shape: Shape, *, n: int = 300, seed: int = 1, **noise: Any) -> Slowdown:
    return find_slowdown(trace(shape, n=n, seed=seed, **noise))


def trace(shape: Shape, *, n: int = 300, seed: int = 1, **noise: Any) -> list[float]:
    return [float(each) for each in traces.trace(shape, n, Noise(**noise), seed).latency_s]


def verdicts(shape: Shape, *, n: int, runs: int = 30, **noise: Any) -> Counter[Verdict]:
    return Counter(judged(shape, n=n, seed=seed, **noise).verdict for seed in range(runs))


class TestWithoutNoise:
    def test_a_constant_trace_is_flat_at_its_latency(self) -> None:
        found = find_slowdown(FLAT)

        assert (found.verdict, found.warmup_steps, found.shape, found.change) == ("flat", 0, None, None)
        assert found.steady_s == pytest.approx(0.1)
        assert found.ratio == pytest.approx(1)
        assert [*(found.ci99 or ())] == pytest.approx([1, 1], abs=0.002)

    def test_a_jump_is_found_at_its_step_and_with_its_size(self) -> None:
        found = find_slowdown([0.1] * 60 + [0.12] * 40)

        assert (found.verdict, found.shape, found.still_rising) == ("slowdown", "step", False)
        assert (found.from_step, found.to_step) == (60, 60)
        assert found.change == pytest.approx(0.2, abs=1e-3)
        assert found.ratio == pytest.approx(1.2)
        assert found.first_s == pytest.approx(0.1)
        assert found.last_s == pytest.approx(0.12)
        assert found.steady_s is None

    def test_a_jump_inside_of_a_block_is_found_at_its_step_too(self) -> None:
        found = find_slowdown([0.1] * 4_321 + [0.12] * 5_679)

        assert (found.verdict, found.from_step) == ("slowdown", 4_321)

    def test_a_ramp_over_the_whole_run_is_still_rising(self) -> None:
        found = find_slowdown([0.1 + 0.001 * step for step in range(100)])

        assert (found.verdict, found.shape, found.still_rising) == ("slowdown", "ramp", True)
        assert found.from_step == 0
        assert found.to_step in range(90, 100)

    def test_a_rise_that_levels_off_is_no_longer_rising(self) -> None:
        found = find_slowdown([0.1 + 0.0005 * min(max(step - 100, 0), 100) for step in range(400)])

        assert (found.verdict, found.shape, found.still_rising) == ("slowdown", "ramp", False)
        assert found.from_step == pytest.approx(100, abs=20)
        assert found.to_step == pytest.approx(200, abs=20)

    def test_a_quick_start_is_found_with_its_size_and_its_end(self) -> None:
        found = judged(traces.saturating(0.15, 0.03), n=1_000, cv=0, spikes=0, slow_first=False)

        assert (found.verdict, found.shape, found.still_rising) == ("slowdown", "saturating", False)
        assert (found.from_step, found.to_step) == (0, 90)
        assert found.change == pytest.approx(0.15, abs=0.002)

    @pytest.mark.parametrize(("fast", "n"), [(3, 300), (6, 1_000)])
    def test_one_that_is_over_at_once_is_no_larger_than_its_steps_say(self, fast: int, n: int) -> None:
        found = find_slowdown([0.1] * fast + [0.12] * (n - fast))

        assert (found.verdict, found.shape) == ("slowdown", "saturating")
        assert found.change is not None
        assert 0.15 < found.change < 0.25

    def test_of_a_quick_start_that_slow_first_steps_hid_only_what_was_seen_is_told(self) -> None:
        found = judged(traces.saturating(0.15, 0.03), n=1_000, cv=0, spikes=0)

        assert (found.verdict, found.warmup_steps, found.from_step) == ("slowdown", 2, 2)
        assert found.change == pytest.approx(1.15 / (1.15 - 0.15 * math.exp(-2 / 30)) - 1, abs=0.002)

    def test_a_fall_late_in_the_run_is_a_speedup(self) -> None:
        found = find_slowdown([0.12] * 60 + [0.1] * 40)

        assert (found.verdict, found.shape, found.from_step) == ("speedup", "step", 60)
        assert found.change == pytest.approx(0.1 / 0.12 - 1, abs=1e-3)

    def test_a_long_warmup_is_set_aside(self) -> None:
        found = find_slowdown([0.14] * 40 + [0.1] * 160)

        assert (found.verdict, found.warmup_steps) == ("warmup", 40)
        assert found.steady_s == pytest.approx(0.1)

    def test_a_slowdown_after_a_warmup_is_a_slowdown(self) -> None:
        found = find_slowdown([0.14] * 40 + [0.1] * 100 + [0.12] * 60)

        assert (found.verdict, found.warmup_steps, found.from_step) == ("slowdown", 40, 140)

    def test_what_rises_and_falls_again_has_no_steady_state(self) -> None:
        assert find_slowdown([0.1] * 60 + [0.12] * 60 + [0.1] * 80).verdict == "no steady state"


class TestUnderNoise:
    @pytest.mark.parametrize("memory", [0, SHORT, LONG, 0.98])
    def test_a_flat_trace_is_hardly_ever_called_a_slowdown(self, memory: float) -> None:
        assert sum(verdicts(traces.flat, n=n, memory=memory)["slowdown"] for n in (30, 100, 1_000)) <= 2

    @pytest.mark.parametrize("memory", [SHORT, LONG, 0.98])
    def test_nor_is_one_with_much_noise(self, memory: float) -> None:
        assert sum(verdicts(traces.flat, n=n, memory=memory, cv=0.05)["slowdown"] for n in (100, 300)) <= 4

    @pytest.mark.parametrize("memory", [0, SHORT])
    @pytest.mark.parametrize("n", [100, 300, 1_000])
    def test_with_a_short_memory_it_is_called_flat(self, n: int, memory: float) -> None:
        assert verdicts(traces.flat, n=n, memory=memory)["flat"] >= 27

    @pytest.mark.parametrize("memory", [0, LONG, 0.98])
    @pytest.mark.parametrize(
        "shape", [traces.jump(0.1), traces.ramp(0.15), traces.ramp(1.0)], ids=["jump +10%", "ramp to 1.15", "ramp to 2"]
    )
    def test_rises_are_found(self, shape: Shape, memory: float) -> None:
        assert verdicts(shape, n=100, memory=memory)["slowdown"] >= 26

    @pytest.mark.parametrize("memory", [0, LONG])
    def test_a_cold_start_that_was_faster_is_found(self, memory: float) -> None:
        assert verdicts(traces.saturating(0.2, 0.05), n=300, memory=memory)["slowdown"] >= 27

    @pytest.mark.parametrize("memory", [0, LONG, 0.98])
    @pytest.mark.parametrize("tau", [0.02, 0.03])
    def test_so_is_one_over_within_a_tenth_of_the_run(self, tau: float, memory: float) -> None:
        assert verdicts(traces.saturating(0.15, tau), n=300, memory=memory)["slowdown"] >= 27

    @pytest.mark.parametrize(
        "shape", [traces.jump(-0.15), traces.sawtooth(0.1), traces.sawtooth(0.1, falling=True), traces.flicker(0.1)]
    )
    @pytest.mark.parametrize("memory", [0, LONG])
    def test_speedups_sawteeth_and_flicker_are_no_slowdown(self, shape: Shape, memory: float) -> None:
        assert verdicts(shape, n=300, memory=memory)["slowdown"] <= 3

    def test_a_few_slow_steps_at_the_very_end_are_no_slowdown(self) -> None:
        assert verdicts(traces.last_steps(2.0), n=300)["slowdown"] <= 1

    def test_the_interval_holds_the_true_ratio(self) -> None:
        found = [judged(traces.jump(0.2, at=0.5), memory=LONG, seed=seed) for seed in range(40)]

        assert sum(each.ci99 is not None and each.ci99[0] <= 1.2 <= each.ci99[1] for each in found) >= 39

    def test_slow_first_steps_are_set_aside_and_no_warmup(self) -> None:
        found = judged(traces.flat)

        assert (found.verdict, found.warmup_steps) == ("flat", 2)

    def test_the_interval_of_a_steady_state_holds_its_latency(self) -> None:
        intervals = [judged(traces.flat, memory=SHORT, seed=seed).steady_ci99_s or (0.0, 0.0) for seed in range(50, 80)]

        assert sum(low <= 0.1 <= high for low, high in intervals) >= 28
        assert all(high - low < 0.003 for low, high in intervals)


class TestShape:
    @pytest.mark.parametrize(
        ("shape", "name"),
        [
            (traces.jump(0.2), "step"),
            (traces.ramp(0.5), "ramp"),
            (traces.ramp(0.3, begin=0.3, end=0.6), "ramp"),
            (traces.saturating(0.2, 0.05), "saturating"),
            (traces.saturating(0.2, 0.1), "saturating"),
            (traces.sawtooth(0.1), "cyclic"),
        ],
    )
    def test_is_named(self, shape: Shape, name: str) -> None:
        assert Counter(judged(shape, seed=seed, memory=SHORT).shape for seed in range(15))[name] >= 14  # type: ignore[index]

    def test_noise_with_a_long_memory_is_not_cyclic(self) -> None:
        assert Counter(judged(traces.flat, seed=seed, memory=LONG).shape for seed in range(30))["cyclic"] <= 1


class TestSpikes:
    def test_are_counted_with_their_share_of_time(self) -> None:
        latency_s = [0.1] * 300
        for step in (50, 90, 200, 250, 260):
            latency_s[step] = 0.5
        found = find_slowdown(latency_s)

        assert found.verdict == "flat"
        assert found.spikes is not None
        assert found.spikes.share_of_time == pytest.approx(2.5 / 32)
        assert (found.spikes.count, found.spikes.first_third, found.spikes.last_third) == (5, 0.02, 0.03)

    def test_that_become_more_frequent_are_in_the_sentence(self) -> None:
        latency_s = [0.1] * 300
        for step in range(205, 300, 10):
            latency_s[step] = 0.5

        assert "single slow steps became more frequent, from 0% of the steps to 10%" in sentence(
            find_slowdown(latency_s)
        )

    def test_that_are_one_or_two_have_no_frequency(self) -> None:
        assert "more frequent" not in sentence(find_slowdown([*[0.1] * 19, 100.0]))
        assert "more frequent" not in sentence(find_slowdown([*FLAT[:50], 100.0, *FLAT[51:-1], 100.0]))

    def test_one_of_a_thousand_times_the_rest_changes_nothing(self) -> None:
        for place in (0, 5, 50, 97, 99):
            latency_s = [*FLAT[:place], 100.0, *FLAT[place + 1 :]]
            assert find_slowdown(latency_s).verdict == "flat", place

    @pytest.mark.parametrize("count", [1, 2])
    def test_that_are_fast_and_come_first_are_no_slowdown(self, count: int) -> None:
        assert find_slowdown([0.08] * count + trace(traces.flat, slow_first=False)).verdict == "flat"

    def test_are_not_what_a_rise_begins_with(self) -> None:
        import numpy as np

        noisy = trace(traces.flat, cv=0.015, spikes=0, slow_first=False)
        rising = [0.09, 0.094, 0.097, 0.099]

        assert cut_spikes(np.array(rising + noisy)).log[:4] == pytest.approx(np.log(rising))
        assert cut_spikes(np.array([0.08, 0.08, *noisy])).log[:2] == pytest.approx(np.log([0.1, 0.1]), abs=0.04)


class TestInput:
    @pytest.mark.parametrize("n", range(20))
    def test_fewer_than_twenty_steps_are_too_few(self, n: int) -> None:
        found = find_slowdown([0.1] * n)

        assert (found.verdict, found.n, found.more_steps) == ("insufficient", n, 20 - n)
        assert (found.ratio, found.ci99, found.first_s, found.spikes) == (None, None, None, None)

    def test_twenty_are_enough(self) -> None:
        assert find_slowdown([0.1] * 20).verdict == "flat"

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, -0.1])
    def test_what_is_no_measurement_is_left_out_and_counted(self, value: float) -> None:
        found = find_slowdown([*FLAT[:5], value, *FLAT[5:], value])

        assert (found.verdict, found.n, found.unusable) == ("flat", 102, 2)

    def test_step_numbers_count_what_is_left_out(self) -> None:
        found = find_slowdown([math.nan] * 5 + [0.1] * 60 + [0.12] * 40)

        assert (found.verdict, found.from_step, found.warmup_steps) == ("slowdown", 65, 0)

    @pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
    def test_nothing_but_such_is_too_few(self, value: float) -> None:
        assert find_slowdown([value] * 50).verdict == "insufficient"

    def test_too_many_of_them_leave_it_undecided(self) -> None:
        found = find_slowdown([0.1, 0.0, 0.1, 0.1] * 25)

        assert (found.verdict, found.more_steps) == ("inconclusive", None)
        assert sentence(found).startswith("Inconclusive: 25 of 100 latencies are no measurements")

    def test_a_clock_with_coarse_ticks_is_flat(self) -> None:
        ticks = [round(each, 2) for each in trace(traces.flat, cv=0.02)]

        assert len(set(ticks)) < 40
        assert find_slowdown(ticks).verdict in ("flat", "warmup")

    def test_every_fourth_step_slower_is_no_slowdown(self) -> None:
        assert find_slowdown([0.1, 0.1, 0.1, 0.15] * 75).verdict in ("flat", "inconclusive")

    def test_numbers_beyond_any_clock_are_no_measurements(self) -> None:
        assert find_slowdown([5e-324] * 30 + [1e308] * 30).verdict == "insufficient"

    @given(st.lists(st.floats(), max_size=60))
    @settings(max_examples=60, deadline=None)
    def test_no_numbers_make_it_fail(self, latency_s: list[float]) -> None:
        found = find_slowdown(latency_s)

        assert found.n == len(latency_s)
        assert sentence(found).endswith(".")
        assert "Infinity" not in json.dumps(msgspec.to_builtins(found))

    @given(st.lists(st.floats(min_value=1e-9, max_value=1e9), min_size=20, max_size=80))
    @settings(max_examples=60, deadline=None)
    def test_positive_numbers_always_get_a_ratio_inside_its_interval(self, latency_s: list[float]) -> None:
        found = find_slowdown(latency_s)

        if found.verdict != "insufficient":
            assert found.ratio is not None
            assert found.ci99 is not None
            assert found.ci99[0] <= found.ratio <= found.ci99[1]

    @given(st.sampled_from([1e-9, 1e-3, 60.0, 1e9]), st.integers(0, 50))
    @settings(max_examples=20, deadline=None)
    def test_only_ratios_matter(self, unit: float, seed: int) -> None:
        latency_s = trace(traces.jump(0.1), n=120, seed=seed, memory=SHORT)
        seconds, other = find_slowdown(latency_s), find_slowdown([each * unit for each in latency_s])

        assert other.ratio == pytest.approx(seconds.ratio)
        assert (other.verdict, other.from_step, other.shape) == (seconds.verdict, seconds.from_step, seconds.shape)

    @given(st.integers(0, 50))
    @settings(max_examples=15, deadline=None)
    def test_a_late_rise_read_backwards_is_no_slowdown(self, seed: int) -> None:
        latency_s = trace(traces.jump(0.2, at=0.5), n=200, seed=seed, slow_first=False)

        assert find_slowdown(latency_s).verdict == "slowdown"
        assert find_slowdown(latency_s[::-1]).verdict == "speedup"

    def test_the_longest_trace_is_no_trouble(self) -> None:
        assert judged(traces.jump(0.1, at=0.5), n=200_000).from_step == pytest.approx(100_000, abs=20)


class TestMoreSteps:
    def test_are_asked_for_where_the_noise_hides_a_change(self) -> None:
        found = [judged(traces.flat, n=100, memory=LONG, seed=seed) for seed in range(20)]
        wanted = [each.more_steps for each in found if each.verdict == "inconclusive" and each.more_steps]

        assert wanted
        assert all(10 <= each <= 10_000 for each in wanted)

    def test_and_settle_it(self) -> None:
        settled = []
        for seed in range(30):
            found = judged(traces.flat, n=100, memory=LONG, seed=seed)
            if found.verdict == "inconclusive" and found.more_steps:
                longer = judged(traces.flat, n=100 + found.more_steps, memory=LONG, seed=100 + seed)
                settled.append(longer.verdict in ("flat", "warmup"))

        assert settled.count(True) >= 0.8 * len(settled) > 0


class TestSentence:
    def test_of_a_step(self) -> None:
        assert sentence(find_slowdown([0.1] * 60 + [0.12] * 40)) == (
            "Slowdown: the last tenth takes 1.200x the first (99% CI 1.198 to 1.202), rising by 20% at step 60."
        )

    def test_of_a_ramp_that_goes_on(self) -> None:
        assert sentence(find_slowdown([0.1 + 0.001 * step for step in range(100)])).endswith(
            "rising from step 0 to the end and still rising."
        )

    def test_of_a_ramp(self) -> None:
        slow = Slowdown(
            verdict="slowdown", ratio=2.07, ci99=(2.01, 2.12), shape="ramp", from_step=40, to_step=180, n=300
        )

        assert sentence(slow) == (
            "Slowdown: the last tenth takes 2.07x the first (99% CI 2.01 to 2.12), rising from step 40 to 180."
        )

    def test_of_a_flat_trace(self) -> None:
        flat = Slowdown(
            verdict="flat", ratio=1.003, ci99=(0.991, 1.012), steady_s=0.0201, steady_ci99_s=(0.02, 0.0202), n=300
        )

        assert sentence(flat) == (
            "Flat: steady at 20.1 ms a step (99% CI 20.0 ms to 20.2 ms) from beginning to end; "
            "the last tenth takes 1.00x the first (99% CI 0.99 to 1.01)."
        )

    def test_of_a_warmup(self) -> None:
        assert sentence(find_slowdown([0.14] * 40 + [0.1] * 160)).startswith(
            "Warm-up: steady at 100 ms a step (99% CI 99.9 ms to 100 ms) after the first 40 steps, which were slower; "
        )

    def test_of_no_steady_state(self) -> None:
        assert sentence(find_slowdown([0.1] * 60 + [0.12] * 60 + [0.1] * 80)).startswith(
            "No steady state: the latency changes and does not stay so; a step takes 100 ms in the first tenth and "
        )

    def test_a_ratio_that_is_hardly_known_has_no_digits_that_mean_nothing(self) -> None:
        unsure = Slowdown(verdict="inconclusive", ratio=0.57, ci99=(0.00002, 18400.27), more_steps=None, n=60)

        assert "takes 0.57x the first (99% CI 0.00 to 18,400)" in sentence(unsure)

    def test_of_an_inconclusive_trace_says_how_many_more_steps_would_help(self) -> None:
        unsure = Slowdown(verdict="inconclusive", ratio=1.01, ci99=(0.92, 1.11), more_steps=1300, n=100)

        assert sentence(unsure) == (
            "Inconclusive: no slowdown was found, but the steps wander by themselves, and one of 5% could hide in that "
            "(the last tenth takes 1.01x the first (99% CI 0.92 to 1.11)); about 1,300 more steps would settle it."
        )

    def test_of_too_few_steps_says_how_many_are_needed(self) -> None:
        assert sentence(find_slowdown([0.1] * 12)) == (
            "Too few steps for a verdict: 12 steps; 8 more are needed, and 100 or more tell smaller changes."
        )


class TestAcrossRepeats:
    def a(self, *given: Verdict) -> str:
        return across([Slowdown(verdict=each, ratio=1.0, ci99=(0.9, 1.1), n=100) for each in given]).verdict

    def test_the_same_verdict_is_the_verdict(self) -> None:
        assert self.a("slowdown", "slowdown", "slowdown") == "slowdown"

    def test_flat_and_warmup_agree(self) -> None:
        assert self.a("flat", "warmup", "flat") == "warmup"

    @pytest.mark.parametrize("other", ["slowdown", "speedup", "no steady state"])
    def test_what_contradicts_is_inconsistent(self, other: Verdict) -> None:
        assert self.a("flat", "flat", other) == "inconsistent"

    def test_one_that_could_not_tell_contradicts_none(self) -> None:
        assert self.a("slowdown", "slowdown", "inconclusive") == "slowdown"
        assert self.a("slowdown", "inconclusive", "insufficient") == "inconclusive"

    def test_nothing_is_too_little(self) -> None:
        assert self.a() == self.a("insufficient", "insufficient") == "insufficient"

    def test_says_what_came_out_and_how_far_apart(self) -> None:
        slow = Slowdown(verdict="slowdown", ratio=1.2, ci99=(1.1, 1.3), n=100)
        repeats = [slow, msgspec.structs.replace(slow, ratio=1.3), msgspec.structs.replace(slow, ratio=1.5)]

        assert sentence_across(across(repeats)) == (
            "Slowdown across 3 repeats (3 slowdown): the last tenth takes 1.30x the first at the median, "
            "1.20x to 1.50x."
        )
        assert sentence_across(across([slow, replace_verdict(slow, "flat")])) == (
            "Inconsistent: 2 processes that did the same came to different verdicts (1 slowdown, 1 flat)."
        )


def replace_verdict(slowdown: Slowdown, verdict: Verdict) -> Slowdown:
    return msgspec.structs.replace(slowdown, verdict=verdict)


def test_a_verdict_never_stands_beside_an_interval_that_says_nothing() -> None:
    slow_then_fast_and_uneven = [
        *(594, 596, 592, 604, 596, 624, 643, 596, 588, 423, 9, 8, 9, 47, 133),
        *(15, 18, 5, 7, 7, 4, 45, 142, 16, 10, 5, 5, 5, 5, 25),
    ]

    for latencies in (slow_then_fast_and_uneven, slow_then_fast_and_uneven[::-1]):
        found = find_slowdown([milliseconds / 1000 for milliseconds in latencies])

        low, high = found.ci99 or (0.0, 0.0)
        assert (found.verdict, low < 1 < high) == ("inconclusive", True)
