"""Apple's counters as curves: joules since the first reading, and what a counter that rests or leaps comes to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import pytest

from powerbench.errors import MeterLost
from powerbench.power.ioreport import MODULE, Counters, Ioreport
from powerbench.records import Gauge, RailRecord, Reading

MS = 1_000_000
S = 1000 * MS


@dataclass
class Metrics:
    """`AppleEnergyMetrics` of zeus-apple-silicon 1.1.0: millijoules, None where the chip has no such counter."""

    cpu_total_mj: int | None = None
    efficiency_cores_mj: list[int] | None = None
    performance_cores_mj: list[int] | None = None
    efficiency_cluster_mj: list[int] | None = None
    performance_cluster_mj: list[int] | None = None
    efficiency_core_manager_mj: int | None = None
    performance_core_manager_mj: int | None = None
    dram_mj: int | None = None
    gpu_mj: int | None = None
    gpu_sram_mj: int | None = None
    ane_mj: int | None = None


@dataclass
class FakeMac:
    """Stands in for the package, its monitor and the clock: each asking takes 2 ms and shows the next metrics."""

    shows: Iterator[Metrics | Exception]
    now_ns: int = 5 * S

    def AppleEnergyMonitor(self) -> FakeMac:
        return self

    def get_cumulative_energy(self) -> Metrics:
        self.now_ns += 2 * MS
        shown = next(self.shows)
        if isinstance(shown, Exception):
            raise shown
        return shown

    def clock_ns(self) -> int:
        return self.now_ns


class Polled:
    """What the counters drew when they were asked every 100 ms, the first time at 5.001 s."""

    def __init__(self, *shows: Metrics | Exception, hidden: frozenset[str] = frozenset()) -> None:
        self.mac = FakeMac(iter(shows))
        self.counters = Counters(self.mac, hidden=set(hidden), clock_ns=self.mac.clock_ns)
        self.points: list[Reading | Gauge] = []
        for number in range(len(shows)):
            self.mac.now_ns = 5 * S + number * 100 * MS
            self.points += self.counters.read()

    def curve(self, rail: str) -> list[tuple[float, float]]:
        readings = [point for point in self.points if isinstance(point, Reading) and point.rail == rail]
        return [(time_ns / S, energy_j) for time_ns, _, energy_j in readings]

    def gauges(self, name: str) -> list[float | str]:
        return [point.value for point in self.points if isinstance(point, Gauge) and point.name == name]

    def rail(self, rail: str) -> RailRecord:
        return self.counters.rails(0.1)[rail]


def test_ten_watts_for_a_tenth_of_a_second_are_one_joule() -> None:
    polled = Polled(Metrics(cpu_total_mj=7_000, gpu_mj=0), Metrics(cpu_total_mj=8_000, gpu_mj=500))

    assert polled.curve("cpu") == [(5.001, 0.0), (5.101, 1.0)]
    assert polled.curve("gpu") == [(5.001, 0.0), (5.101, 0.5)]
    assert polled.gauges("cpu.power_w") == [10.0]
    assert polled.rail("cpu").method == "counter"
    assert polled.rail("cpu").state == "estimated"
    assert polled.rail("cpu").time_uncertainty_ns == MS  # half of how long it takes to ask


def test_a_counter_that_the_chip_has_not_is_absent_and_not_zero() -> None:
    polled = Polled(Metrics(cpu_total_mj=0, gpu_mj=0, ane_mj=0), Metrics(cpu_total_mj=1, gpu_mj=1, ane_mj=0))

    assert set(polled.counters.rails(0.1)) == {"cpu", "gpu", "ane"}


def test_what_lies_inside_the_cpu_is_not_counted_again() -> None:
    first = Metrics(cpu_total_mj=0, performance_cluster_mj=[0], efficiency_cores_mj=[0, 0])
    second = Metrics(cpu_total_mj=100, performance_cluster_mj=[60], efficiency_cores_mj=[10, 10])

    assert set(Polled(first, second).counters.rails(0.1)) == {"cpu"}


def test_the_gpus_memory_is_shown_and_not_counted() -> None:
    polled = Polled(Metrics(gpu_mj=0, gpu_sram_mj=0), Metrics(gpu_mj=500, gpu_sram_mj=100))

    assert set(polled.counters.rails(0.1)) == {"gpu"}
    assert polled.gauges("gpu_sram.power_w") == [1.0]


def test_a_mac_without_any_counter_is_a_sentence() -> None:
    with pytest.raises(MeterLost, match="none of this chip's energy counters"):
        Polled(Metrics())


def test_a_unit_that_the_package_cannot_read_is_a_sentence() -> None:
    with pytest.raises(MeterLost, match="gave no energy: Unsupported or invalid energy unit"):
        Polled(ValueError("Unsupported or invalid energy unit provided: fJ"))


def test_a_counter_that_goes_back_ends_its_curve_and_no_other() -> None:
    values = [(0, 0), (100, 50), (40, 100), (140, 150)]
    polled = Polled(*(Metrics(cpu_total_mj=cpu, gpu_mj=gpu) for cpu, gpu in values))

    assert polled.curve("cpu") == [(5.001, 0.0), (5.101, 0.1)]
    assert polled.rail("cpu").lost == "its counter went from 100 mJ to 40"
    assert polled.curve("gpu")[-1] == (5.301, 0.15)
    assert polled.counters.notes() == ["The curve of cpu ends early: its counter went from 100 mJ to 40."]


def test_a_counter_that_vanishes_ends_its_curve() -> None:
    polled = Polled(Metrics(cpu_total_mj=0, dram_mj=0), Metrics(cpu_total_mj=9, dram_mj=9), Metrics(cpu_total_mj=18))

    assert polled.rail("dram").lost == "its counter went from 9 mJ to nothing"


def test_the_meter_is_lost_with_its_last_rail() -> None:
    with pytest.raises(MeterLost, match="cpu: its counter went from 5 mJ to 4; gpu: its counter went from 5 mJ to 3"):
        Polled(Metrics(cpu_total_mj=5, gpu_mj=5), Metrics(cpu_total_mj=4, gpu_mj=3))


def test_a_gpu_that_rests_stays_where_it_is() -> None:
    polled = Polled(*(Metrics(gpu_mj=100) for _ in range(200)))

    assert polled.curve("gpu")[-1] == (24.901, 0.0)
    assert polled.gauges("gpu.power_w")[-1] == 0.0
    assert polled.rail("gpu").lost is None


def test_lumps_of_the_cpu_are_spread_over_the_time_between_them() -> None:
    """An M5 Max at 10 W that publishes every 2.1 s."""
    polled = Polled(*(Metrics(cpu_total_mj=number // 21 * 21_000) for number in range(85)))

    assert polled.curve("cpu") == [(5.001, 0.0), (7.101, 21.0), (9.201, 42.0), (11.301, 63.0), (13.401, 84.0)]
    assert polled.gauges("cpu.power_w") == pytest.approx([10.0] * 4)
    assert polled.rail("cpu").averaging_s == pytest.approx(2.1)
    assert polled.counters.notes() == [
        "The energy of cpu came in lumps of up to 2.1 s (4 times), so nothing shorter can be told of it."
    ]


def test_a_gpu_that_was_idle_a_few_times_is_not_lumpy() -> None:
    energies_mj = [second * 10_000 + min(tenth, 5) * 2_000 for second in range(5) for tenth in range(20)]
    polled = Polled(*(Metrics(gpu_mj=energy_mj) for energy_mj in energies_mj))

    assert polled.rail("gpu").averaging_s is None
    assert polled.counters.notes() == []


def test_a_cpu_whose_counter_never_moves_is_lost_after_ten_seconds() -> None:
    """macOS 27: the CPU's counter rests for good while the GPU's goes on."""
    polled = Polled(*(Metrics(cpu_total_mj=7, gpu_mj=number) for number in range(110)))

    assert polled.curve("cpu") == [(5.001, 0.0)]
    assert polled.rail("cpu").lost == "it stalled: its counter did not move for 10.0 s"
    assert polled.curve("gpu")[-1] == (15.901, 0.109)


def test_a_cpu_whose_counter_rests_to_the_end_is_lost_too() -> None:
    polled = Polled(*(Metrics(cpu_total_mj=7, gpu_mj=number) for number in range(50)))
    polled.counters.end()

    assert polled.rail("cpu").lost == "it stalled: its counter did not move for 4.9 s"


# --- the source


def apple_silicon(library: Any, **given: Any) -> Ioreport:
    facts = {"machine": ("darwin", "arm64"), "chip": lambda: "Apple M4", "is_virtual": lambda: False, **given}
    return Ioreport(library, **facts)


def rising() -> Iterator[Metrics]:
    energy_mj = 0
    while True:
        yield Metrics(cpu_total_mj=energy_mj, gpu_mj=energy_mj, dram_mj=energy_mj)
        energy_mj += 1000


def test_the_meter_reads_at_each_moment_until_it_is_closed() -> None:
    meter = apple_silicon(FakeMac(rising())).open(period_s=0.02)
    first, second = meter.read(), meter.read()
    meter.close()
    meter.close()

    assert {point.energy_j for point in first if isinstance(point, Reading)} == {0.0}
    assert {point.energy_j for point in second if isinstance(point, Reading)} == {1.0}
    assert set(meter.rails()) == {"cpu", "gpu", "dram"}
    assert meter.notes() == []
    assert meter.read() == []


def test_closing_from_another_thread_wakes_a_blocked_read() -> None:
    meter = apple_silicon(FakeMac(rising())).open(period_s=60.0)
    meter.read()
    given: list[list[Reading | Gauge]] = []
    reader = threading.Thread(target=lambda: given.append(meter.read()))
    reader.start()
    meter.close()
    reader.join(timeout=10)

    assert given == [[]]


def test_an_ultra_has_no_cpu_rail_of_one_die() -> None:
    meter = apple_silicon(FakeMac(rising()), chip=lambda: "Apple M2 Ultra").open(period_s=0.02)
    meter.read()

    assert set(meter.rails()) == {"gpu", "dram"}
    assert meter.notes()[0].startswith("ioreport has no cpu rail on an Ultra")


def test_a_subscription_that_fails_is_a_sentence() -> None:
    class Refusing:
        def AppleEnergyMonitor(self) -> FakeMac:
            raise RuntimeError("Failed to create IOReport subscription.")

    with pytest.raises(MeterLost, match="cannot be used: Failed to create IOReport subscription"):
        apple_silicon(Refusing()).open(period_s=0.1)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"machine": ("linux", "aarch64")}, "ioreport reads the counters of Apple silicon under macOS"),
        ({"machine": ("darwin", "x86_64")}, "ioreport reads the counters of Apple silicon under macOS"),
        ({"is_virtual": lambda: True}, "A virtual machine shows no energy counters"),
    ],
)
def test_where_it_cannot_be_it_says_why(given: dict[str, Any], why: str) -> None:
    sentence = apple_silicon(FakeMac(rising()), **given).why_unavailable()

    assert sentence is not None
    assert sentence.startswith(why)


def test_on_apple_silicon_it_can_be_opened() -> None:
    assert apple_silicon(FakeMac(rising())).why_unavailable() is None


@pytest.mark.skipif(find_spec(MODULE) is not None, reason="the package is installed")
def test_a_missing_package_is_named_with_its_remedy() -> None:
    source = apple_silicon(None)

    assert source.why_unavailable() == (
        "The package zeus-apple-silicon is not installed: run `pip install zeus-apple-silicon`."
    )
    with pytest.raises(MeterLost, match="No module named 'zeus_apple_silicon'"):
        source.open(period_s=0.1)
