"""A run that reads along: the recorder's joules, up to the moment that is asked for, and an end to every silence."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import msgspec
import pytest

from powerbench.attached import Recorder
from powerbench.environment import boot_id
from powerbench.errors import MeterLost
from powerbench.metering import choose_sources
from powerbench.power import Meter, Source
from powerbench.records import Gauge, RailRecord, Reading
from powerbench.rundir import RunDir
from powerbench.rundir.lines import ENERGY_HEADER, TELEMETRY_HEADER, LineWriter
from powerbench.rundir.live import Found, Live
from tests.rundir import a_rail, a_record


class Recording:
    """The files of a recorder, written by hand; `gone` is what is said of it."""

    def __init__(self, folder: Path, **rails: RailRecord) -> None:
        folder.mkdir()
        self.rundir = RunDir(folder)
        self.energy = LineWriter(self.rundir.energy, header=ENERGY_HEADER)
        self.telemetry = LineWriter(self.rundir.telemetry, header=TELEMETRY_HEADER)
        self.rails = rails or {"cpu": a_rail(source="powermetrics", period_s=0.1)}
        self.found = Found(Live(pid=1, boot_id=boot_id(), run=str(folder), rails=self.rails), None)
        self.rundir.write_record(a_record(cell=None, ranks=0, rails=self.rails))

    def source(self, *, silence_s: float = 10.0) -> Recorder:
        return Recorder(find=lambda: self.found, silence_s=silence_s)

    def describe(self, **changes: object) -> None:
        self.rails = {name: msgspec.structs.replace(rail, **changes) for name, rail in self.rails.items()}
        assert self.found.live is not None
        self.found = Found(msgspec.structs.replace(self.found.live, rails=self.rails), None)


class Able:
    """A source that could be opened and must not be."""

    def __init__(self, name: str) -> None:
        self.name = name

    def why_unavailable(self) -> str | None:
        return None

    def set_up(self) -> list[str]:
        return []

    def open(self, *, period_s: float) -> Meter:
        raise AssertionError(self.name)


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return Recording(tmp_path / "recording")


def test_what_was_there_before_is_not_read(recording: Recording) -> None:
    recording.energy.write(["1,cpu,1.0", "2,cpu,2.0"])
    meter = recording.source().open(period_s=0.01)
    recording.energy.write(["3,cpu,3.0"])

    assert meter.read() == [Reading(3, "cpu", 3.0)]


def test_a_line_that_was_being_written_is_left_out(recording: Recording) -> None:
    with recording.rundir.energy.open("a") as file:
        file.write("1,cp")
        file.flush()
        meter = recording.source().open(period_s=0.01)
        file.write("u,1.0\n2,cpu,2.0\n")
        file.flush()

        assert meter.read() == [Reading(2, "cpu", 2.0)]


def test_the_meters_gauges_are_taken_and_the_machine_s_are_not(recording: Recording) -> None:
    meter = recording.source().open(period_s=0.01)
    recording.telemetry.write(
        ["1,system.cpu_ratio,0.5", "1,cpu.clock_mhz,9", "1,gpu.clock_mhz,444", "1,thermal_pressure,Nominal"]
    )

    assert meter.read() == [Gauge(1, "gpu.clock_mhz", 444.0), Gauge(1, "thermal_pressure", "Nominal")]


def test_it_is_read_on_until_the_curve_has_passed_the_end(recording: Recording) -> None:
    meter = recording.source().open(period_s=0.01)
    meter.close()
    closed_ns = time.monotonic_ns()
    recording.energy.write([f"{closed_ns - 10**9},cpu,1.0"])
    before = meter.read()
    recording.energy.write([f"{closed_ns + 1},cpu,2.0"])

    assert before == [Reading(closed_ns - 10**9, "cpu", 1.0)]
    assert meter.read() == [Reading(closed_ns + 1, "cpu", 2.0)]
    assert meter.read() == []
    assert len(meter.notes()) == 1


def test_one_that_does_not_come_to_the_end_is_given_three_periods(recording: Recording) -> None:
    meter = recording.source().open(period_s=0.01)
    meter.close()
    began_s = time.monotonic()

    assert meter.read() == []
    assert 0.3 <= time.monotonic() - began_s < 2
    assert "3 periods after the run its curve had not reached the end" in meter.notes()[1]


def test_offsets_that_are_known_late_are_those_at_the_end(recording: Recording) -> None:
    meter = recording.source().open(period_s=0.01)
    recording.describe(offset_ns=-7)

    assert meter.rails()["cpu"].offset_ns == -7


def test_one_that_ends_loses_the_meter(recording: Recording) -> None:
    meter = recording.source(silence_s=1.0).open(period_s=0.01)
    recording.found = Found(None, None)

    with pytest.raises(MeterLost, match="the recorder has ended"):
        meter.read()
    assert meter.rails() == recording.rails


def test_one_that_falls_silent_loses_the_meter(recording: Recording) -> None:
    meter = recording.source(silence_s=0.05).open(period_s=0.01)

    with pytest.raises(MeterLost, match=r"has written nothing for 0\.05 s"):
        meter.read()


def test_one_that_is_too_slow_is_refused_with_a_sentence(tmp_path: Path) -> None:
    slow = Recording(tmp_path / "slow", cpu=a_rail(source="powermetrics", period_s=5.0))

    with pytest.raises(MeterLost, match=r"gives a reading of cpu each 5\.0 s only"):
        slow.source().open(period_s=0.1)


def test_close_frees_a_reader_that_waits(recording: Recording) -> None:
    meter = recording.source().open(period_s=0.01)
    given: list[object] = []
    reader = threading.Thread(target=lambda: given.append(meter.read()))
    reader.start()
    meter.close()
    reader.join(5)

    assert given == [[]]


class TestChoice:
    def sources(self, recording: Recording) -> dict[str, Source]:
        others = {name: Able(name) for name in ("powermetrics", "ioreport", "nvml")}
        return {"recorder": recording.source(), **others}

    def test_what_it_reads_is_left_to_it(self, recording: Recording) -> None:
        names, unmetered = choose_sources("auto", self.sources(recording))

        assert names == ["recorder", "nvml"]
        assert unmetered == {"ioreport": "powermetrics reads the same counters."}

    def test_also_where_it_is_asked_for_by_name(self, recording: Recording) -> None:
        assert choose_sources("nvml,powermetrics", self.sources(recording)) == (["nvml", "recorder"], {})

    def test_without_one_its_reason_is_told(self, recording: Recording) -> None:
        recording.found = Found(None, "It is gone.")
        names, unmetered = choose_sources("auto", self.sources(recording))

        assert names == ["powermetrics", "nvml"]
        assert unmetered["recorder"] == "It is gone."
