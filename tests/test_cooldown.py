"""Between measurements a machine comes to rest: as its sensors tell, or for a time where there are none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from powerbench.cooldown import CoolDown, Cooled, is_near, look_at_machine, watch
from powerbench.errors import MeterLost
from powerbench.records import Gauge, RailRecord, Reading
from tests.rundir import a_rail

PROCESSOR = "processor.temperature_c"
S = 1_000_000_000


class Machine:
    """A clock that moves when somebody waits, and sensors that follow it."""

    def __init__(self, shown: Callable[[float], Mapping[str, float]] = lambda now_s: {}, *, stop_at_s: float = 1e9):
        self.now_s = 0.0
        self._shown = shown
        self._stop_at_s = stop_at_s

    def wait(self, rest: Mapping[str, float], at_most_s: float) -> Cooled:
        cooldown = CoolDown(lambda: self._shown(self.now_s), clock_s=lambda: self.now_s)
        return cooldown.wait(rest, at_most_s=at_most_s, pause=self._pause)

    def _pause(self, seconds: float) -> bool:
        self.now_s = min(self.now_s + seconds, self._stop_at_s)
        return self.now_s >= self._stop_at_s


def cooling(now_s: float) -> dict[str, float]:
    """80 °C, and a degree less each second."""
    return {PROCESSOR: 80.0 - now_s}


class TestCoolingDown:
    def test_ends_within_three_degrees_of_the_start(self) -> None:
        assert Machine(cooling).wait({PROCESSOR: 41.0}, 600.0) == Cooled(36.0)

    def test_ends_at_once_where_the_machine_is_cool(self) -> None:
        assert Machine(cooling).wait({PROCESSOR: 79.0}, 600.0) == Cooled(0.0)

    def test_ends_with_its_time_and_says_how_hot_it_still_is(self) -> None:
        assert Machine(cooling).wait({PROCESSOR: 41.0}, 15.0) == Cooled(15.0, "processor at 65 °C (41 at the start)")

    def test_waits_for_the_last_of_several(self) -> None:
        shown = Machine(lambda now_s: {PROCESSOR: 40.0, "gpu0.temperature_c": 90.0 - now_s})

        assert shown.wait({PROCESSOR: 40.0, "gpu0.temperature_c": 37.0}, 600.0) == Cooled(50.0)

    def test_goes_by_power_where_there_is_no_temperature(self) -> None:
        """Nine and a half watts at rest, and near it is 11: a watt and a half above."""
        shown = Machine(lambda now_s: {"power_w": 31.0 - now_s})

        assert shown.wait({"power_w": 9.5}, 600.0) == Cooled(20.0)
        assert Machine(lambda now_s: {"power_w": 31.0}).wait({"power_w": 9.5}, 4.0) == Cooled(
            4.0, "31.0 W (9.50 at the start)"
        )

    def test_is_a_time_where_nothing_tells(self) -> None:
        assert Machine().wait({}, 90.0) == Cooled(90.0)

    def test_is_a_time_where_the_sensor_is_gone(self) -> None:
        assert Machine().wait({PROCESSOR: 40.0}, 90.0) == Cooled(90.0)

    def test_ends_where_it_is_stopped(self) -> None:
        assert Machine(stop_at_s=7.0).wait({}, 90.0).waited_s == 7.0
        assert Machine(cooling, stop_at_s=7.0).wait({PROCESSOR: 20.0}, 90.0).waited_s == 7.0


@pytest.mark.parametrize(
    ("name", "now", "rest", "near"),
    [
        (PROCESSOR, 44.0, 41.0, True),
        (PROCESSOR, 44.1, 41.0, False),
        (PROCESSOR, 20.0, 41.0, True),
        ("power_w", 11.5, 10.0, True),
        ("power_w", 11.6, 10.0, False),
        ("power_w", 109.0, 100.0, True),
        ("power_w", 111.0, 100.0, False),
    ],
)
def test_near_is_three_degrees_a_tenth_of_the_power_or_a_watt_and_a_half(
    name: str, now: float, rest: float, near: bool
) -> None:
    assert is_near(name, now, rest) is near


class Ten:
    """A meter of ten watts on each of its rails, and of a temperature; it gives a reading whenever it is asked."""

    name = "ten"

    def __init__(self, *, rails: Sequence[str] = ("a",), gauges: Mapping[str, float | str] | None = None) -> None:
        self._rails = rails
        self._gauges = gauges or {}
        self._at = 0
        self._closed = False

    def why_unavailable(self) -> str | None:
        return None

    def set_up(self) -> tuple[str, ...]:
        return ()

    def open(self, *, period_s: float) -> Ten:
        return Ten(rails=self._rails, gauges=self._gauges)

    def read(self) -> list[Reading | Gauge]:
        self._at += 1
        if self._closed and self._at > 3:
            return []
        points: list[Reading | Gauge] = [Reading(self._at * S, rail, 10.0 * self._at) for rail in self._rails]
        return points + [Gauge(self._at * S, name, value) for name, value in self._gauges.items()]

    def rails(self) -> Mapping[str, RailRecord]:
        return dict.fromkeys(self._rails, a_rail())

    def notes(self) -> list[str]:
        return []

    def close(self) -> None:
        self._closed = True


class Broken(Ten):
    def open(self, *, period_s: float) -> Ten:
        raise MeterLost("it is broken")


class TestLookingAtAMachine:
    def test_adds_up_the_power_of_all_rails(self) -> None:
        temperatures, power_w = watch(Ten(rails=("a", "b")), seconds=0.0)

        assert temperatures == {}
        assert power_w == pytest.approx(20.0)

    def test_takes_the_temperatures_of_what_the_meters_watch(self) -> None:
        gauges: dict[str, float | str] = {"gpu0.temperature_c": 57.0, "gpu0.clock_mhz": 1500.0, "thermal_pressure": "?"}

        assert watch(Ten(gauges=gauges), seconds=0.0)[0] == {"gpu0.temperature_c": 57.0}

    @pytest.mark.parametrize(
        ("meters", "processor", "shown"),
        [
            (
                [Ten(gauges={"gpu0.temperature_c": 57.0})],
                {PROCESSOR: 41.0},
                {PROCESSOR: 41.0, "gpu0.temperature_c": 57.0},
            ),
            ([Ten(gauges={"gpu0.temperature_c": 57.0})], {}, {"gpu0.temperature_c": 57.0}),
            ([Ten(), Broken()], {}, {"power_w": pytest.approx(10.0)}),
            ([Broken()], {}, {}),
            ([], {}, {}),
        ],
        ids=["both temperatures", "the meter's", "power, of the meter that works", "no meter that works", "no meter"],
    )
    def test_asks_temperature_first_and_power_where_there_is_none(
        self, meters: list[Ten], processor: dict[str, float], shown: dict[str, float]
    ) -> None:
        sources = {str(number): meter for number, meter in enumerate(meters)}

        assert look_at_machine(list(sources), sources, processor=lambda: processor, seconds=0.0) == shown
