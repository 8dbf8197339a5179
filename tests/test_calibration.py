"""What a meter is like at rest, exactly, from readings that a script gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from powerbench.calibration import PERIOD_S, Calibration, calibrate, of_rail
from powerbench.errors import MeterLost
from powerbench.records import Gauge, RailRecord, Reading

MS = 1_000_000
S = 1000 * MS

Read = Sequence[Reading | Gauge] | MeterLost


class Script:
    """A source whose one meter gives these reads and then ends."""

    name = "script"

    def __init__(self, *reads: Read) -> None:
        self.reads = list(reads)
        self.period_s: float | None = None
        self.closed = 0

    def why_unavailable(self) -> str | None:
        return None

    def set_up(self) -> Sequence[str]:
        return ()

    def open(self, *, period_s: float) -> Script:
        self.period_s = period_s
        return self

    def read(self) -> list[Reading | Gauge]:
        read = self.reads.pop(0) if self.reads else []
        if isinstance(read, MeterLost):
            raise read
        return list(read)

    def rails(self) -> Mapping[str, RailRecord]:
        return {}

    def notes(self) -> list[str]:
        return []

    def close(self) -> None:
        self.closed += 1


def at(seconds: float, energy_j: float, rail: str = "cpu") -> Reading:
    return Reading(round(seconds * S), rail, energy_j)


class TestARail:
    def test_of_ten_watts_each_tenth_of_a_second_has_no_noise(self) -> None:
        found = of_rail("cpu", [at(5.0, 0.0), at(5.1, 1.0), at(5.2, 2.0), at(5.3, 3.0)])

        assert found == Calibration(rail="cpu", readings=4, period_ms=100.0, quantum_j=1.0, idle_w=10.0, noise_w=0.0)

    def test_that_draws_8_and_12_watts_by_turns_has_a_noise_of_2(self) -> None:
        found = of_rail("cpu", [at(0, 0.0), at(1, 8.0), at(2, 20.0), at(3, 28.0), at(4, 40.0)])

        assert (found.idle_w, found.noise_w) == (10.0, 2.0)

    def test_that_moves_in_lumps_shows_the_least_of_them(self) -> None:
        found = of_rail("cpu", [at(0, 0.0), at(1, 0.0), at(2, 3.0), at(3, 3.0), at(4, 3.5)])

        assert found.quantum_j == 0.5

    def test_with_one_late_reading_keeps_its_usual_period(self) -> None:
        found = of_rail("cpu", [at(0, 0.0), at(0.1, 1.0), at(0.2, 2.0), at(1.2, 12.0)])

        assert found.period_ms == 100.0

    def test_that_counts_nothing_has_no_grain_and_draws_nothing(self) -> None:
        found = of_rail("cpu", [at(0, 7.0), at(1, 7.0), at(2, 7.0)])

        assert (found.quantum_j, found.idle_w, found.noise_w) == (None, 0.0, 0.0)

    def test_read_once_tells_nothing(self) -> None:
        assert of_rail("cpu", [at(5.0, 0.0)]) == Calibration(
            rail="cpu", readings=1, period_ms=None, quantum_j=None, idle_w=None, noise_w=None
        )

    def test_read_twice_has_a_power_and_no_noise(self) -> None:
        found = of_rail("cpu", [at(0, 0.0), at(2, 10.0)])

        assert (found.period_ms, found.idle_w, found.noise_w) == (2000.0, 5.0, None)

    def test_read_twice_at_one_moment_is_not_divided_by_nothing(self) -> None:
        found = of_rail("cpu", [at(1, 0.0), at(1, 1.0)])

        assert (found.period_ms, found.idle_w, found.noise_w) == (0.0, None, None)


class TestWatching:
    def test_each_rail_is_told_of_in_the_order_in_which_it_came(self) -> None:
        script = Script(
            [at(0, 0.0, "gpu"), at(0, 0.0, "cpu"), Gauge(0, "gpu.power_w", 4.0)],
            [at(1, 4.0, "gpu")],
            [at(2, 8.0, "gpu"), at(2, 2.0, "cpu")],
        )

        assert calibrate(script) == [
            Calibration(rail="gpu", readings=3, period_ms=1000.0, quantum_j=4.0, idle_w=4.0, noise_w=0.0),
            Calibration(rail="cpu", readings=2, period_ms=2000.0, quantum_j=2.0, idle_w=1.0, noise_w=None),
        ]
        assert (script.period_s, script.closed) == (PERIOD_S, 1)

    def test_gauges_alone_are_no_rail(self) -> None:
        assert calibrate(Script([Gauge(0, "psys.power_w", 4.0)])) == []

    def test_no_longer_than_was_asked_for(self) -> None:
        script = Script([at(0, 0.0)])

        assert calibrate(script, seconds=0) == []
        assert (len(script.reads), script.closed) == (1, 1)

    def test_a_meter_that_is_lost_tells_what_it_told_until_then(self) -> None:
        script = Script([at(0, 0.0)], [at(1, 3.0)], MeterLost("it was unplugged"))

        assert [found.idle_w for found in calibrate(script)] == [3.0]
        assert script.closed == 1

    def test_a_meter_that_is_lost_before_it_told_anything_is_no_meter(self) -> None:
        script = Script(MeterLost("it was unplugged"))

        with pytest.raises(MeterLost, match="it was unplugged"):
            calibrate(script)
        assert script.closed == 1
