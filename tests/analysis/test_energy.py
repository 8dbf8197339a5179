"""Joules of a window are exact sums, stay in it, are told with how sure they are, and are never invented."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerbench.analysis.alignment import line_of
from powerbench.analysis.blocks import block_energies
from powerbench.analysis.energy import Energy, EnergyFindings, find_energy
from powerbench.analysis.sampling import sampling_error
from powerbench.records import DeviceRecord, EnergyCurve, RailRecord, RunRecord, StepTrace, Window
from tests.rundir import MS, START, a_cell, a_record, steps_lasting

S = 1_000 * MS

KEYS_OF_THE_DESIGN = [
    *(
        "total_j",
        "total_j_sampling_ci95",
        "j_per_step",
        "j_per_step_sampling_ci95",
        "sensor_accuracy",
        "j_per_sample",
        "mean_w",
        "peak_w",
    ),
    *("net_j_per_step", "idle_w", "partial", "readings", "scope", "rails"),
]


def a_rail(**changes: Any) -> RailRecord:
    rail = RailRecord(
        source="rapl",
        method="interval average",
        state="measured",
        scope="package",
        part="package",
        contains=["cpu"],
        period_s=0.1,
    )
    return msgspec.structs.replace(rail, **changes)


def a_gpu(uuid: str = "GPU-a", **changes: Any) -> RailRecord:
    return a_rail(source="nvml", part="gpu", contains=[], uuid=uuid, **changes)


def drawing(*watts: float, from_s: float = -1.0, each_s: float = 0.1) -> EnergyCurve:
    """Readings each 100 ms, the first at `from_s` after the first edge; between them these powers."""
    times = [START + round((from_s + index * each_s) * S) for index in range(len(watts) + 1)]
    return EnergyCurve(times, [0.0, *itertools.accumulate(power * each_s for power in watts)])


def steady(power_w: float, *, seconds: float, from_s: float = -1.0) -> EnergyCurve:
    return drawing(*[power_w] * round(seconds * 10), from_s=from_s)


def a_run(rails: dict[str, RailRecord] | None = None, *, device: str = "cpu", **changes: Any) -> RunRecord:
    return a_record(
        cell=a_cell(device=device, power=changes.pop("power", "auto")),
        device=DeviceRecord(kind=device, name="", timer="clock", uuid=changes.pop("uuid", None)),
        rails={"package-0": a_rail()} if rails is None else rails,
        **changes,
    )


def tenths(count: int) -> StepTrace:
    return steps_lasting(*[100] * count)


def joules(found: EnergyFindings) -> Energy:
    assert found.energy is not None, found.reason
    return found.energy


def cost(curve: EnergyCurve, steps: StepTrace | None = None, **run: Any) -> Energy:
    """The energy of a run with one package."""
    return joules(find_energy(a_run(**run), steps or tenths(100), {"package-0": curve}))


class TestSums:
    def test_300_watts_for_ten_seconds_are_3000_joules(self) -> None:
        energy = cost(steady(300, seconds=12))

        assert energy.total_j == pytest.approx(3_000, rel=1e-12)
        assert [energy.mean_w, energy.peak_w] == pytest.approx([300, 300])
        assert energy.j_per_step == pytest.approx(30)
        assert energy.j_per_step_sampling_ci95 == pytest.approx((30, 30))

    def test_ten_watts_for_a_tenth_of_a_second_are_one_joule_a_step(self) -> None:
        assert cost(steady(10, seconds=12)).j_per_step == pytest.approx(1)

    def test_a_joule_a_step_of_16_samples_is_a_sixteenth_a_sample(self) -> None:
        assert cost(steady(10, seconds=12)).j_per_sample == pytest.approx(1 / 16)

    def test_the_edges_are_interpolated(self) -> None:
        curve = drawing(*[10] * 9, 20, *[10] * 110, from_s=-0.95)

        assert cost(curve).total_j == pytest.approx(100 + 10 * 0.05)  # half of the interval of 20 W lies inside

    def test_net_of_idle_is_what_the_steps_add(self) -> None:
        curve = drawing(*[4] * 50, *[10] * 130, from_s=-6.0)
        idle = Window(START - 6 * S, START - 2 * S)

        energy = cost(curve, windows={"idle": idle})

        assert [energy.idle_w, energy.net_j_per_step] == pytest.approx([4, 1 - 0.4])

    def test_without_a_rest_before_the_steps_net_is_unknown_and_not_gross(self) -> None:
        energy = cost(steady(10, seconds=12))

        assert (energy.idle_w, energy.net_j_per_step) == (None, None)

    def test_the_keys_are_those_of_the_contract_in_its_order(self) -> None:
        assert list(msgspec.to_builtins(cost(steady(10, seconds=12)))) == KEYS_OF_THE_DESIGN

    def test_several_counted_rails_add_up_and_so_do_their_intervals(self) -> None:
        rails = {"package-0": a_rail(), "package-1": a_rail(), "dram-0": a_rail(part="dram", contains=[])}
        wave = drawing(*[30, 50] * 60)
        curves = {"package-0": wave, "package-1": wave, "dram-0": steady(5, seconds=12)}

        energy = joules(find_energy(a_run(rails), tenths(100), curves))

        alone = cost(wave)
        assert energy.total_j == pytest.approx(2 * alone.total_j + 50)
        assert energy.j_per_step_sampling_ci95 is not None
        low, high = energy.j_per_step_sampling_ci95
        assert alone.j_per_step_sampling_ci95 is not None
        low_alone, high_alone = alone.j_per_step_sampling_ci95
        assert high - low == pytest.approx(2 * (high_alone - low_alone))


METHODS: list[RailRecord] = [
    a_rail(),
    a_rail(method="counter"),
    a_rail(method="instant, integrated", averaging_s=1.0),
    a_rail(method="instant, integrated", averaging_s=0.025, coverage=0.25),
]
powers = st.lists(st.floats(0, 1_000), min_size=40, max_size=80)
fractions = st.lists(st.floats(0, 1), min_size=1, max_size=8)


class TestNoJouleIsLostOrDoubled:
    @settings(max_examples=60, deadline=None)
    @given(watts=powers, cuts=fractions, rail=st.sampled_from(METHODS))
    def test_any_cut_of_a_window_adds_up_to_the_whole(
        self, watts: list[float], cuts: list[float], rail: RailRecord
    ) -> None:
        whole = Window(START, START + 2 * S)
        line = line_of(drawing(*watts), rail, window=whole)
        edges = [START, *sorted(START + round(cut * 2 * S) for cut in cuts), START + 2 * S]
        parts = [line.energy_in(Window(start, end)) for start, end in itertools.pairwise(edges)]

        assert None not in parts
        assert sum(part or 0.0 for part in parts) == pytest.approx(line.energy_in(whole), rel=1e-9, abs=1e-9)

    @settings(max_examples=40, deadline=None)
    @given(watts=powers, rail=st.sampled_from(METHODS))
    def test_all_that_was_counted_is_in_the_whole_curve(self, watts: list[float], rail: RailRecord) -> None:
        curve = drawing(*watts)
        line = line_of(curve, rail)

        everything = Window(int(line.time_ns[0]), int(line.time_ns[-1]))
        assert line.energy_in(everything) == pytest.approx(curve.energy_j[-1] - line.energy_j[0], rel=1e-9, abs=1e-9)

    @settings(max_examples=40, deadline=None)
    @given(watts=powers, lengths=st.lists(st.integers(20, 400), min_size=2, max_size=20))
    def test_blocks_add_up_to_their_steps(self, watts: list[float], lengths: list[int]) -> None:
        spans = [span for span in steps_lasting(*lengths).spans("step") if span[1] <= START + 2 * S]
        if not spans:
            return
        line = line_of(drawing(*watts), a_rail())

        blocks = block_energies(line, a_rail(), spans)

        assert sum(block.steps for block in blocks) == len(spans)
        assert sum(block.energy_j or 0.0 for block in blocks) == pytest.approx(
            line.energy_in(Window(spans[0][0], spans[-1][1])), rel=1e-9, abs=1e-9
        )


class TestCountedOnce:
    def test_a_package_without_memory_beside_it(self) -> None:
        energy = cost(steady(40, seconds=12))

        assert energy.scope == "package-0"
        assert energy.mean_w == pytest.approx(40)

    def test_a_package_with_its_memory(self) -> None:
        rails = {"package-0": a_rail(), "dram-0": a_rail(part="dram", contains=[])}
        curves = {"package-0": steady(40, seconds=12), "dram-0": steady(6, seconds=12)}

        energy = joules(find_energy(a_run(rails), tenths(100), curves))

        assert energy.mean_w == pytest.approx(46)

    def test_psys_and_an_apu_that_contain_the_package_are_shown_and_not_added(self) -> None:
        rails = {
            "package-0": a_rail(),
            "psys": a_rail(part="system", contains=["package", "cpu", "dram"]),
            "amdapu": a_rail(source="hwmon", part="soc", contains=["cpu", "gpu", "package"]),
        }
        curves = {"package-0": steady(40, seconds=12), "psys": steady(70, seconds=12), "amdapu": steady(50, seconds=12)}

        energy = joules(find_energy(a_run(rails), tenths(100), curves))

        assert energy.mean_w == pytest.approx(40)
        assert {name: rail.counted for name, rail in energy.rails.items()} == {
            "package-0": True,
            "psys": False,
            "amdapu": False,
        }
        assert energy.rails["amdapu"].mean_w == pytest.approx(50)

    def test_a_gpu_that_no_rank_used_is_shown_and_not_counted(self) -> None:
        rails = {"gpu0": a_gpu("GPU-other"), "gpu1": a_gpu("GPU-used")}
        curves = {"gpu0": steady(70, seconds=12), "gpu1": steady(300, seconds=12)}

        energy = joules(find_energy(a_run(rails, device="cuda", uuid="GPU-used"), tenths(100), curves))

        assert (energy.scope, energy.rails["gpu0"].counted) == ("gpu1", False)
        assert [energy.mean_w, energy.rails["gpu0"].mean_w] == pytest.approx([300, 70])

    def test_where_no_rail_is_the_device_s_the_reason_names_those_there_were(self) -> None:
        found = find_energy(
            a_run({"gpu0": a_gpu("GPU-other")}, device="cuda", uuid="GPU-used"), tenths(100), {"gpu0": EnergyCurve()}
        )

        assert found.energy is None
        assert "gpu0" in (found.reason or "")


class TestACounterThatNeverMoved:
    rails: ClassVar = {"package-0": a_rail(), "dram-0": a_rail(part="dram", contains=[])}

    def test_of_memory_is_not_taken_for_nothing(self) -> None:
        curves = {"package-0": steady(10, seconds=12), "dram-0": steady(0, seconds=12)}

        found = find_energy(a_run(self.rails), tenths(100), curves)

        energy = joules(found)
        assert energy.scope == "package-0"
        assert energy.mean_w == pytest.approx(10)
        assert (energy.rails["dram-0"].counted, energy.rails["dram-0"].mean_w) == (False, None)
        assert "dram-0 is not counted: its counter never moved, and memory always draws something." in found.notes

    def test_of_a_neural_engine_is_rest(self) -> None:
        rails = {name: a_rail(source="ioreport", part=name, contains=[]) for name in ("cpu", "ane")}
        curves = {"cpu": steady(10, seconds=12), "ane": steady(0, seconds=12)}

        assert joules(find_energy(a_run(rails), tenths(100), curves)).rails["ane"].mean_w == 0


class TestWhatIsNotKnown:
    """Unknown is never zero."""

    def none(self, curve: EnergyCurve, steps: StepTrace | None = None, **run: Any) -> str:
        found = find_energy(a_run(**run), steps or tenths(100), {"package-0": curve})
        assert found.energy is None
        return found.reason or ""

    def test_a_window_outside_the_curve_has_no_energy(self) -> None:
        line = line_of(steady(10, seconds=2), a_rail())

        assert line.energy_in(Window(START, START + 2 * S)) is None

    def test_a_meter_that_was_lost_before_the_steps_gives_its_reason(self) -> None:
        rails = {"package-0": a_rail(lost="its counter cannot be read any more (No such device)")}

        assert "No such device" in self.none(steady(10, seconds=1, from_s=-3.0), rails=rails)

    @pytest.mark.parametrize("curve", [EnergyCurve(), steady(10, seconds=1, from_s=-3.0)], ids=["never", "before"])
    def test_a_counter_without_a_reading_near_the_steps_gives_none(self, curve: EnergyCurve) -> None:
        stalled = a_rail(method="counter", lost="it stalled")

        assert self.none(curve, rails={"package-0": stalled}) == (
            "the meter gave nothing during the measured steps (it stalled)"
        )

    def test_a_meter_that_was_lost_in_the_middle_leaves_a_partial_energy(self) -> None:
        found = find_energy(
            a_run({"package-0": a_rail(lost="it died")}), tenths(100), {"package-0": steady(10, seconds=6)}
        )

        energy = joules(found)
        assert energy.partial
        assert energy.total_j == pytest.approx(50)  # five of ten seconds, not extrapolated
        assert energy.j_per_step == pytest.approx(1)
        assert found.notes == [
            "The curve of package-0 ends early: it died.",
            "The energy is partial: the meter covers 5.00s of 10s and gave nothing after that; the figures a step are "
            "by the mean power of that part.",
        ]

    def test_one_rail_of_two_that_was_lost_before_is_not_taken_for_nothing(self) -> None:
        rails = {"package-0": a_rail(), "dram-0": a_rail(part="dram", contains=[], lost="it died")}
        curves = {"package-0": steady(10, seconds=12), "dram-0": steady(3, seconds=1, from_s=-3.0)}

        found = find_energy(a_run(rails), tenths(100), curves)

        assert found.energy is None
        assert "it died" in (found.reason or "")

    def test_a_meter_that_counts_nothing_while_the_steps_run_is_not_believed(self) -> None:
        assert "not to be believed" in self.none(steady(0, seconds=12))

    def test_a_meter_that_stalls_and_catches_up_has_an_interval_that_says_so(self) -> None:
        at_once = cost(drawing(*[10] * 50, *[0] * 10, 110, *[10] * 59))
        even = cost(steady(10, seconds=12))

        assert at_once.total_j == pytest.approx(even.total_j)
        assert at_once.j_per_step_sampling_ci95 is not None
        low, high = at_once.j_per_step_sampling_ci95
        assert high - low > 0.05

    def test_a_machine_that_slept_has_no_energy(self) -> None:
        clock = msgspec.structs.replace(a_record().clock, suspended_ns=60 * S)

        assert "slept for 1m 00s" in self.none(steady(10, seconds=12), clock=clock)

    def test_two_readings_are_too_few_and_how_long_to_run_is_said(self) -> None:
        assert "measure" in self.none(steady(10, seconds=3), steps_lasting(100, 50))

    def test_around_a_command_the_remedy_is_a_longer_one(self) -> None:
        window = Window(START + S + 10 * MS, START + S + 60 * MS)
        run = msgspec.structs.replace(a_run(), cell=None, command=["true"], windows={"measured": window})

        reason = find_energy(run, StepTrace(), {"package-0": steady(10, seconds=12)}).reason

        assert reason == "no reading of the meter fell into the recording; run what lasts 1 s"

    def test_an_interval_beyond_ten_per_cent_is_no_headline(self) -> None:
        reason = self.none(drawing(*[1, 200] * 20), steps_lasting(*[100] * 4))

        assert "--min-seconds" in reason

    def test_a_gpu_s_window_below_five_seconds_is_no_headline(self) -> None:
        run = a_run({"gpu0": a_gpu(method="counter")}, device="cuda", uuid="GPU-a")

        short = find_energy(run, tenths(40), {"gpu0": steady(300, seconds=8)})
        long = find_energy(run, tenths(60), {"gpu0": steady(300, seconds=8)})

        assert (short.energy, "5 s" in (short.reason or "")) == (None, True)
        assert joules(long).total_j == pytest.approx(1_800)

    def test_steps_that_keep_time_with_a_part_time_sensor_are_no_headline(self) -> None:
        gpu = a_gpu(method="instant, integrated", averaging_s=0.025, coverage=0.25)
        run = a_run({"gpu0": gpu}, device="cuda", uuid="GPU-a")
        curves = {"gpu0": steady(300, seconds=14)}

        locked = find_energy(run, tenths(100), curves)
        free = find_energy(run, steps_lasting(*[93.7] * 100), curves)

        assert "keep time with the sensor" in (locked.reason or "")
        assert joules(free).mean_w == pytest.approx(300)


class TestTheInterval:
    window = Window(START, START + 10 * S)

    def half_j(self, rail: RailRecord, watts: Sequence[float], **how: Any) -> float:
        line = line_of(drawing(*watts), rail, window=self.window)
        return sampling_error(line, rail, self.window, [], **how).half_j

    def test_of_steady_power_has_no_width(self) -> None:
        assert self.half_j(a_rail(), [300] * 130) == pytest.approx(0, abs=1e-6)

    def test_of_interval_averages_is_half_the_swing_times_an_interval(self) -> None:
        swing, interval_s = 100, 0.1

        half = self.half_j(a_rail(), [200, 300] * 65)

        assert half == pytest.approx(swing * interval_s / 2, rel=0.02)  # (swing/mean)/2n of 2,500 J, n = 101

    def test_of_a_late_counter_is_four_times_as_wide_at_most(self) -> None:
        levels = [200] * 60 + [300] * 70

        wide, narrow = self.half_j(a_rail(method="counter"), levels), self.half_j(a_rail(), levels)

        assert narrow < wide <= 4 * narrow

    def test_grows_with_the_clock_s_uncertainty_and_the_counter_s_quantum(self) -> None:
        watts = [200, 300] * 65

        plain = self.half_j(a_rail(), watts)

        assert self.half_j(a_rail(time_uncertainty_ns=5 * MS), watts) == pytest.approx(plain + 100 * 0.005)
        assert self.half_j(a_rail(quantum_j=1.0), watts) == pytest.approx(plain + 1)

    def test_of_a_part_time_sensor_is_no_wider_for_a_level_that_changes_once(self) -> None:
        hopper = a_rail(part="gpu", method="counter", averaging_s=0.025, coverage=0.25)

        once = self.half_j(hopper, [100] * 60 + [600] * 70)
        all_along = self.half_j(hopper, [100, 600] * 65)

        assert once < 0.05 * 3_500
        assert all_along > 0.15 * 3_500

    def test_of_a_mean_over_a_second_allows_for_swings_inside_it_down_to_idle(self) -> None:
        smoothed = a_rail(method="instant, integrated", averaging_s=1.0)

        half = self.half_j(smoothed, [300] * 130, floor_w=100)

        assert half == pytest.approx(2 * (300 - 100) * 1.0 / 4)


class TestAlignment:
    def test_a_mean_over_a_second_is_moved_to_its_middle(self) -> None:
        smoothed = a_rail(method="instant, integrated", averaging_s=1.0)

        line = line_of(steady(10, seconds=13), smoothed, window=Window(START, START + 10 * S))

        assert (line.time_ns[0], line.late_s) == (START - 1.5 * S, 0)

    def test_but_no_further_than_leaves_the_window_covered(self) -> None:
        smoothed = a_rail(method="instant, integrated", averaging_s=1.0)

        line = line_of(steady(10, seconds=11.2), smoothed, window=Window(START, START + 10 * S))

        assert line.covers(Window(START, START + 10 * S))
        assert line.late_s == pytest.approx(0.3)

    def test_a_counter_read_out_of_step_with_its_publications_is_even_again(self) -> None:
        """Published each 100 ms; read just before one, and just behind the next, so that it shows none or two."""
        curve, rail = EnergyCurve(), a_rail(method="counter")
        for number in range(-20, 131):
            just_before = number % 4 in (2, 3)
            shown_j = 30.0 * (number - 1 if just_before else number)
            if not curve.energy_j or shown_j != curve.energy_j[-1]:
                curve.time_ns.append(START + number * 100 * MS + (-2 if just_before else 2) * MS)
                curve.energy_j.append(shown_j)
        assert max(line_of(curve, a_rail()).powers_w()) == pytest.approx(60 / 0.104)  # as it was read

        line = line_of(curve, rail, window=Window(START, START + 10 * S))

        inside = line.around(Window(START, START + 10 * S))
        assert inside.powers_w() == pytest.approx(300, rel=1e-3)
        assert line.energy_in(Window(START, START + 10 * S)) == pytest.approx(3_000, rel=1e-3)


class TestBlocks:
    def test_a_step_that_is_long_for_the_meter_is_a_block(self) -> None:
        spans = steps_lasting(1000, 1000).spans("step")

        blocks = block_energies(line_of(drawing(*[10] * 20, *[20] * 10, from_s=-1.0), a_rail()), a_rail(), spans)

        assert [block.steps for block in blocks] == [1, 1]
        assert [block.energy_j for block in blocks] == pytest.approx([10, 20])

    def test_short_steps_are_gathered_and_the_rest_joins_the_last(self) -> None:
        spans = tenths(13).spans("step")

        blocks = block_energies(line_of(steady(10, seconds=12), a_rail()), a_rail(), spans)

        assert [block.steps for block in blocks] == [5, 8]
        assert [block.energy_j for block in blocks] == pytest.approx([5, 8])

    def test_what_the_meter_did_not_cover_is_unknown(self) -> None:
        spans = steps_lasting(1000, 1000).spans("step")

        blocks = block_energies(line_of(steady(10, seconds=2.5), a_rail()), a_rail(), spans)

        assert [block.energy_j for block in blocks] == [pytest.approx(10), None]
