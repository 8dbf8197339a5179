"""What stood beside the steps: in its own units, whose it is, and never made up where nothing was recorded."""

from __future__ import annotations

from typing import Any

import pytest

from powerbench.analysis.lanes import Lane, lanes_of
from powerbench.analysis.recorded import Recorded
from powerbench.errors import PowerbenchError
from powerbench.records import DeviceRecord, EnergyCurve, StepTrace, Window
from tests.rundir import a_cell, a_rail, a_record

S = 1_000_000_000
GAUGE = [(0, 1000.0), (S, 500.0)]


def recorded(*, kind: str = "cpu", rails: tuple[str, ...] = (), **beside: Any) -> Recorded:
    record = a_record(
        cell=a_cell(device=kind),
        device=DeviceRecord(kind=kind, name="Abacus", timer="clock", uuid="GPU-1"),
        rails={name: a_rail(uuid="GPU-1", part="gpu") for name in rails},
        windows={"measured": Window(0, 10 * S)},
    )
    return Recorded(record, StepTrace(), **beside)


def lanes(**beside: Any) -> dict[str, tuple[str, str, list[float]]]:
    return {lane.name: (lane.subject, lane.unit, lane.values) for lane in lanes_of(recorded(**beside))}


def test_what_was_not_recorded_is_absent() -> None:
    assert lanes() == {}


def test_power_lies_between_the_readings_of_the_counted_rails() -> None:
    curve = EnergyCurve([0, S, 2 * S, 3 * S], [0.0, 10.0, 30.0, 60.0])

    (lane,) = lanes_of(recorded(kind="cuda", rails=("gpu0",), curves={"gpu0": curve, "other": curve}))

    assert (lane.name, lane.subject, lane.unit) == ("power", "gpu0", "W")
    assert sum(lane.values) == pytest.approx(60.0)
    assert lane.time_ns[1] > S


def test_of_two_rails_power_is_the_sum() -> None:
    even = EnergyCurve([0, S, 2 * S], [0.0, 10.0, 20.0])

    assert lanes(kind="cuda", rails=("gpu0", "gpu1"), curves={"gpu0": even, "gpu1": even}) == {
        "power": ("gpu0 + gpu1", "W", [20.0, 20.0])
    }


def test_a_rail_with_one_reading_has_no_power() -> None:
    assert lanes(kind="cuda", rails=("gpu0",), curves={"gpu0": EnergyCurve([0], [0.0])}) == {}


@pytest.mark.parametrize(
    ("kind", "rails", "gauges", "subject"),
    [
        ("cpu", (), ["cpu.clock_mhz", "gpu0.clock_mhz"], "cpu"),
        ("cuda", ("gpu1",), ["cpu.clock_mhz", "gpu0.clock_mhz", "gpu1.clock_mhz"], "gpu1"),
        ("mps", (), ["cpu.clock_mhz", "gpu.clock_mhz"], "gpu"),
        ("cuda", (), ["cpu.clock_mhz", "gpu0.clock_mhz"], "gpu0"),
        ("cuda", (), ["cpu.clock_mhz", "gpu0.clock_mhz", "gpu1.clock_mhz"], None),
        ("cpu", (), ["gpu0.clock_mhz"], None),
    ],
    ids=["cpu", "the counted GPU", "mps", "the only GPU", "one of two GPUs", "another's"],
)
def test_the_clock_is_that_of_the_device(kind: str, rails: tuple[str, ...], gauges: list[str], subject: str) -> None:
    found = lanes(kind=kind, rails=rails, gauges=dict.fromkeys(gauges, GAUGE))

    assert found == ({} if subject is None else {"clock": (subject, "MHz", [1000.0, 500.0])})


def test_memory_is_what_the_allocator_holds_and_else_the_workers() -> None:
    said = [{"event": "memory", "time_ns": 0, "allocated": 5, "reserved": 9}, {"event": "gc", "time_ns": 1}]
    resident = {"worker0.rss_bytes": [(0, 70.0)]}

    assert lanes(events=said, gauges=resident) == {"memory": ("reserved", "bytes", [9.0])}
    assert lanes(gauges=resident) == {"memory": ("worker", "bytes", [70.0])}


def test_others_are_the_busy_cores_that_are_not_the_workers() -> None:
    gauges = {"system.cpu_ratio": [(0, 0.5), (S, 0.125)], "worker0.cpu_cores": [(0, 1.0), (S, 2.0)]}

    assert lanes(gauges=gauges) == {"others": ("cores busy with anything else", "cores", [3.0, 0.0])}


def test_swap_is_shown_where_it_changed_while_the_steps_were_measured() -> None:
    def swap(*used: float) -> dict[str, Any]:
        return {"system.swap_used_bytes": [(at * S, each) for at, each in enumerate(used)]}

    assert lanes(gauges=swap(5e9, 5e9, 5e9)) == {}
    assert lanes(gauges=swap(0.0, 3e6)) == {"swap": ("machine", "bytes", [0.0, 3e6])}


def test_a_recording_of_power_has_no_device() -> None:
    with pytest.raises(PowerbenchError, match="has no steps"):
        lanes_of(Recorded(a_record(cell=None), StepTrace()))


def test_a_stretch_has_the_mean_of_its_samples_or_what_lies_between_two() -> None:
    lane = Lane("clock", "gpu0", "MHz", [10, 12, 14, 30], [1.0, 3.0, 8.0, 16.0])

    assert lane.over([0, 9, 11, 15, 22, 26, 31, 40]) == [None, 1.0, 5.5, 10.25, 13.0, 16.0, None]
