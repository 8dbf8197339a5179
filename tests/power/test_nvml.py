"""NVIDIA's GPUs through the real nvidia-ml-py and a library of ours whose GPUs draw known watts."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from powerbench.power.nvml import INSTANT, Nvml, Sensing, family_of, sensing_of
from tests.power.fake_nvml import COMPILER, FakeNvml, build, fake_nvml

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler (gcc, cc, clang) to build libnvidia-ml.so.1")

NO_COUNTER: dict[str, Any] = {"not_supported": "nvmlDeviceGetTotalEnergyConsumption"}


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeNvml]:
    """A machine with the newest driver."""
    with fake_nvml(build(tmp_path_factory.mktemp("newest"))) as process:
        yield process


class TestByCounter:
    def test_its_changes_are_the_curve(self, nvml: FakeNvml) -> None:
        recording = nvml.record(seconds=0.3, uuids="GPU-a", watts=100)

        assert recording.curve() == [(0.0, 0.0), (0.1, 10.0), (0.2, 20.0), (0.3, 30.0)]
        assert recording.rails["gpu0"].method == "counter"
        assert recording.rails["gpu0"].period_s == 0.1
        assert recording.why_unavailable is None
        assert recording.lost is None
        assert recording.notes == []

    def test_between_two_changes_there_is_no_news(self, nvml: FakeNvml) -> None:
        recording = nvml.record(seconds=6.3, uuids="GPU-a", watts=100, counter_s=2.1)

        assert recording.curve() == [(0.0, 0.0), (2.1, 210.0), (4.2, 420.0), (6.3, 630.0)]

    def test_a_slow_counter_is_found_out(self, nvml: FakeNvml) -> None:
        recording = nvml.record(seconds=21, uuids="GPU-a", counter_s=2.1)

        assert recording.rails["gpu0"].period_s == pytest.approx(2.1)

    def test_a_change_is_seen_at_the_look_after_it(self, nvml: FakeNvml) -> None:
        recording = nvml.record(seconds=0.3, phase_s=0.05, uuids="GPU-a", watts=100)

        assert recording.curve() == [(0.05, 0.0), (0.15, 10.0), (0.25, 20.0), (0.35, 30.0)]

    def test_power_that_swings_is_counted_in_full(self, nvml: FakeNvml) -> None:
        recording = nvml.record(seconds=4, uuids="GPU-a", watts="300/100@0.5")

        assert recording.curve()[-1] == (4.0, 800.0)

    def test_it_is_not_asked_more_often_than_it_bears(self, nvml: FakeNvml) -> None:
        recording = nvml.record(seconds=0.4, period_s=0.01, uuids="GPU-a", watts=100, counter_s=0)

        assert recording.curve()[:3] == [(0.0, 0.0), (0.05, 5.0), (0.1, 10.0)]

    def test_one_that_goes_back_ends_the_curve_and_the_gauges_go_on(self, nvml: FakeNvml) -> None:
        recording = nvml.record(seconds=1, uuids="GPU-a,GPU-b", watts="100;100", reset_after_s=0.5)

        assert recording.curve()[-1] == (0.4, 40.0)
        assert recording.rails["gpu0"].lost == (
            "its energy counter in mJ went back from 52,500 to 0: the driver was reloaded or the GPU reset"
        )
        assert recording.lost is not None
        assert recording.lost.startswith("gpu0: its energy counter")

    def test_it_is_held_against_the_power(self, nvml: FakeNvml) -> None:
        agreed = nvml.record(seconds=10, uuids="GPU-a", watts=100, counter_factor=1.05)
        differed = nvml.record(seconds=10, uuids="GPU-a", watts=100, counter_factor=2)
        too_short = nvml.record(seconds=3, uuids="GPU-a", watts=100, counter_factor=2)

        assert agreed.notes == []
        assert too_short.notes == []
        assert differed.notes == [
            "gpu0 counted 1,980 J where its power adds up to 990 J over 10 s: do not trust either before the driver or "
            "a wall meter has settled it."
        ]

    def test_in_real_time_the_curve_rises_with_the_machines_clock(self, nvml: FakeNvml) -> None:
        recording = nvml.record(seconds=0.4, period_s=0.1, clock="real", uuids="GPU-a", watts=100, counter_s=0.02)
        start_ns = recording.readings[0].time_ns

        assert len(recording.readings) >= 3
        for reading in recording.readings:
            assert reading.energy_j == pytest.approx((reading.time_ns - start_ns) / 1e9 * 100, abs=20)


class TestByPower:
    def test_a_constant_300_watts_for_ten_seconds_is_3000_joules(self, nvml: FakeNvml) -> None:
        recording = nvml.record(seconds=10, uuids="GPU-a", watts=300, **NO_COUNTER)

        assert recording.curve()[-1] == (10.0, 3000.0)
        assert len(recording.curve()) == 101
        assert recording.rails["gpu0"].method == "instant, integrated"
        assert recording.rails["gpu0"].quantum_j is None

    @pytest.mark.parametrize(
        ("settings", "averaging_s"),
        [
            ({"fields": "186=0"}, 0.1),
            ({"fields": "186=3"}, 1.0),
            ({"fields": "186=3,185=3"}, 1.0),
            ({"fields": "186=3,185=3", "arch": 6}, 0.1),
        ],
    )
    def test_the_next_best_way_is_taken_where_a_field_is_not_supported(
        self, nvml: FakeNvml, settings: dict[str, Any], averaging_s: float
    ) -> None:
        recording = nvml.record(seconds=1, uuids="GPU-a", watts=50, **NO_COUNTER, **settings)

        assert recording.curve()[-1] == (1.0, 50.0)
        assert recording.rails["gpu0"].averaging_s == averaging_s
        assert (recording.calls["nvmlDeviceGetPowerUsage"] > 2) == (settings["fields"] == "186=3,185=3")

    def test_without_any_sensor_there_is_no_meter(self, nvml: FakeNvml) -> None:
        functions = "nvmlDeviceGetTotalEnergyConsumption,nvmlDeviceGetFieldValues,nvmlDeviceGetPowerUsage"
        recording = nvml.record(seconds=1, uuids="GPU-a", name="Tesla M2050", not_supported=functions)

        assert recording.lost == "gpu0 (Tesla M2050) has no sensor of power or energy that NVML can read."
        assert recording.inits == 0


class TestRails:
    def test_each_gpu_is_one_by_its_own_watts_and_uuid_in_the_drivers_order(self, nvml: FakeNvml) -> None:
        recording = nvml.record(seconds=1, uuids="GPU-second,GPU-first", watts="300;60")

        assert {rail: record.uuid for rail, record in recording.rails.items()} == {
            "gpu0": "GPU-second",
            "gpu1": "GPU-first",
        }
        assert recording.curve("gpu0")[-1] == (1.0, 300.0)
        assert recording.curve("gpu1")[-1] == (1.0, 60.0)

    def test_nvml_is_shut_down_as_often_as_it_was_started(self, nvml: FakeNvml) -> None:
        assert nvml.record(seconds=0.1, uuids="GPU-a").inits == 0

    def test_the_accuracy_is_the_published_one_with_its_source(self, nvml: FakeNvml) -> None:
        rail = nvml.record(seconds=0.1, uuids="GPU-a").rails["gpu0"]

        assert rail.accuracy == 0.05
        assert rail.accuracy_source is not None
        assert "2312.02741" in rail.accuracy_source

    @pytest.mark.parametrize(
        ("arch", "capability", "name", "sensing"),
        [
            (9, "9.0", "NVIDIA H100 80GB HBM3", Sensing(0.1, 0.025, 0.25)),
            (7, "8.0", "NVIDIA A100-SXM4-40GB", Sensing(0.1, 0.025, 0.25)),
            (7, "8.6", "NVIDIA GeForce RTX 3090", Sensing(0.1, 0.1, 1.0)),
            (5, "7.0", "Tesla V100-SXM2-16GB", Sensing(0.1, 0.01, 0.5)),
            (10, "10.0", "NVIDIA B200", Sensing(0.1, 0.025, 0.25)),
        ],
    )
    def test_what_the_sensor_sees_is_told_by_architecture(
        self, nvml: FakeNvml, arch: int, capability: str, name: str, sensing: Sensing
    ) -> None:
        rail = nvml.record(seconds=0.1, uuids="GPU-a", arch=arch, capability=capability, name=name).rails["gpu0"]

        assert Sensing(rail.period_s, rail.averaging_s, rail.coverage) == sensing

    def test_a_gpu_that_is_lost_ends_alone(self, nvml: FakeNvml) -> None:
        recording = nvml.record(seconds=1, uuids="GPU-a,GPU-b", watts="10;10", lost_after_s=0.45, lost_gpu=0)

        assert recording.curve("gpu0")[-1] == (0.4, 4.0)
        assert recording.curve("gpu1")[-1] == (1.0, 10.0)
        assert recording.rails["gpu0"].lost == "NVML answered 'GPU is lost'"
        assert recording.rails["gpu1"].lost is None
        assert recording.lost is None

    def test_the_meter_is_lost_with_the_last_gpu(self, nvml: FakeNvml) -> None:
        recording = nvml.record(seconds=1, uuids="GPU-a", watts=10, lost_after_s=0.45)

        assert recording.lost == "gpu0: NVML answered 'GPU is lost'"
        assert recording.curve()[-1] == (0.4, 4.0)
        assert recording.inits == 0

    def test_a_call_that_fails_for_a_moment_loses_nothing(self, nvml: FakeNvml) -> None:
        recording = nvml.record(
            seconds=3, uuids="GPU-a", watts=10, lost_after_s=0.45, back_after_s=1.95, lost_status=10
        )

        assert recording.lost is None
        assert recording.curve()[-1] == (3.0, 30.0)
        assert (1.0, 10.0) not in recording.curve()

    def test_silence_for_two_seconds_is_the_end(self, nvml: FakeNvml) -> None:
        recording = nvml.record(seconds=4, uuids="GPU-a", watts=10, lost_after_s=0.45, lost_status=999)

        assert recording.lost == "gpu0: NVML gave no reading for 2 s"

    def test_a_gpu_that_does_not_answer_at_the_start_is_named(self, nvml: FakeNvml) -> None:
        recording = nvml.record(seconds=0.2, uuids="GPU-a,GPU-b", lost_after_s=0, lost_gpu=0)

        assert list(recording.rails) == ["gpu1"]
        assert recording.notes == ["gpu0 is not metered: NVML answers 'GPU is lost'; see what `nvidia-smi` says of it."]


class TestGauges:
    def test_each_look_shows_what_the_gpu_does(self, nvml: FakeNvml) -> None:
        recording = nvml.record(seconds=0, uuids="GPU-a", watts=250, reasons=5)

        assert {gauge.name: gauge.value for gauge in recording.gauges} == {
            "gpu0.power_w": 250.0,
            "gpu0.clock_mhz": 1410.0,
            "gpu0.memory_clock_mhz": 1215.0,
            "gpu0.temperature_c": 65.0,
            "gpu0.utilization": 0.97,
            "gpu0.power_limit_w": 350.0,
            "gpu0.throttle_reasons": 5.0,
        }

    def test_what_a_gpu_does_not_support_is_absent_and_asked_for_once(self, nvml: FakeNvml) -> None:
        recording = nvml.record(
            seconds=1, uuids="GPU-a", not_supported="nvmlDeviceGetUtilizationRates,nvmlDeviceGetTemperatureV"
        )

        assert recording.gauge("gpu0.utilization") == []
        assert recording.calls["nvmlDeviceGetUtilizationRates"] == 1
        assert recording.calls["nvmlDeviceGetTemperatureV"] == 1
        assert recording.gauge("gpu0.temperature_c") == [64.0] * 11

    def test_a_power_of_nothing_is_no_reading(self, nvml: FakeNvml) -> None:
        assert nvml.record(seconds=0.2, uuids="GPU-a", watts=0).gauge("gpu0.power_w") == []


class TestNotes:
    def test_reasons_that_held_the_gpu_back_are_named(self, nvml: FakeNvml) -> None:
        recording = nvml.record(seconds=1, uuids="GPU-a", reasons=0x1 | 0x4 | 0x40)

        assert recording.notes == [
            "gpu0 was held back by its power limit in 100% of 11 looks.",
            "gpu0 was held back by heat, by the hardware in 100% of 11 looks.",
        ]

    def test_idleness_and_clocks_that_were_set_hold_nothing_back(self, nvml: FakeNvml) -> None:
        assert nvml.record(seconds=1, uuids="GPU-a", reasons=0x1 | 0x2 | 0x10 | 0x100).notes == []

    def test_a_gpu_in_instances_is_metered_whole(self, nvml: FakeNvml) -> None:
        recording = nvml.record(seconds=0.2, uuids="GPU-a", mig=1)

        assert recording.rails["gpu0"].scope == "GPU board, all its instances"
        assert recording.notes == [
            "gpu0 is split into instances (MIG) and NVML meters the whole GPU: its joules are those of all instances."
        ]

    def test_a_module_around_the_gpu_is_shown_beside_it(self, nvml: FakeNvml) -> None:
        recording = nvml.record(seconds=0.1, uuids="GPU-a", watts=300, module_watts=500, arch=9, name="GH200 480GB")

        assert recording.gauge("gpu0.module_power_w") == [500.0, 500.0]
        assert recording.curve()[-1] == (0.1, 30.0)
        assert recording.rails["gpu0"].coverage == 0.2
        assert recording.notes[0].startswith("gpu0 sits on a module with its CPU")


class TestWhyUnavailable:
    @pytest.mark.parametrize(
        ("settings", "why"),
        [
            ({"uuids": ""}, "NVIDIA's driver counts no GPU: see whether `nvidia-smi -L` lists one."),
            ({"init": 9}, "NVIDIA's driver does not answer (Driver Not Loaded): see what `nvidia-smi` says"),
            ({"init": 18}, "NVIDIA's driver does not answer (RM has detected an NVML/RM version mismatch.): see what"),
        ],
    )
    def test_a_driver_without_use_is_told_with_the_remedy(
        self, nvml: FakeNvml, settings: dict[str, Any], why: str
    ) -> None:
        recording = nvml.record(seconds=0, **settings)

        assert recording.why_unavailable is not None
        assert recording.why_unavailable.startswith(why)
        assert recording.lost == recording.why_unavailable
        assert recording.inits == 0

    def test_no_driver_at_all(self) -> None:
        try:
            ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            pass
        else:
            pytest.skip("this machine has NVIDIA's driver")

        assert Nvml().why_unavailable() == (
            "No NVIDIA driver was found (libnvidia-ml.so.1 does not load): where there is such a GPU, install it, or "
            "start the container with --gpus all."
        )

    def test_no_package_and_the_wrong_package(self) -> None:
        def none() -> object:
            raise ModuleNotFoundError("No module named 'pynvml'")

        assert Nvml(load=none).why_unavailable() == "nvidia-ml-py is not installed: `pip install nvidia-ml-py`."
        assert str(Nvml(load=SimpleNamespace).why_unavailable()).startswith("The deprecated package `pynvml` stands")


class TestOlderDrivers:
    def test_functions_that_the_library_lacks_are_as_not_supported(self, tmp_path: Path) -> None:
        folder = build(tmp_path, "ENERGY", "FIELDS", "EVENT_REASONS", "TEMPERATURE_V")
        with fake_nvml(folder) as old:
            recording = old.record(seconds=1, uuids="GPU-a", watts=75, reasons=8)

        assert recording.curve()[-1] == (1.0, 75.0)
        assert recording.rails["gpu0"].averaging_s == 1.0
        assert recording.gauge("gpu0.temperature_c") == [64.0] * 11
        assert recording.gauge("gpu0.throttle_reasons") == [8.0] * 11

    def test_only_the_counter_may_be_missing(self, tmp_path: Path) -> None:
        with fake_nvml(build(tmp_path, "ENERGY")) as old:
            recording = old.record(seconds=1, uuids="GPU-a", watts=75)

        assert recording.rails["gpu0"].method == "instant, integrated"
        assert recording.curve()[-1] == (1.0, 75.0)


class TestSensing:
    @pytest.mark.parametrize(
        ("architecture", "capability", "name", "family"),
        [
            (7, (8, 0), "NVIDIA A100-SXM4-80GB", "ga100"),
            (7, None, "NVIDIA A30", "ga100"),
            (7, (8, 6), "NVIDIA A10", "ampere"),
            (7, None, "NVIDIA A1000 Laptop GPU", "ampere"),
            (9, (9, 0), "NVIDIA GH200 480GB", "gh200"),
            (9, (9, 0), "NVIDIA H200", "hopper"),
            (0xFFFFFFFF, None, "Graphics Device", None),
            (None, None, "Graphics Device", None),
        ],
    )
    def test_families(
        self, architecture: int | None, capability: tuple[int, int] | None, name: str, family: str | None
    ) -> None:
        assert family_of(architecture, capability, name) == family

    def test_power_usage_is_a_mean_over_a_second_on_newer_gpus_only(self) -> None:
        assert sensing_of("hopper", "usage").averaging_s == 1.0
        assert sensing_of("ga100", "usage") == INSTANT["ga100"]
        assert sensing_of("volta", "usage") == INSTANT["volta"]
        assert sensing_of("volta", "average").averaging_s == 1.0
