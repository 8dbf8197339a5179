"""Meters beside a run: which are opened, what they give is written down, and none of them stops the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Queue
from threading import Event

import msgspec
import pytest

from powerbench.errors import MeterLost, PowerbenchError, Unavailable, UsageError
from powerbench.metering import Metering, Telemetry, choose_sources
from powerbench.power import Source
from powerbench.records import Gauge, RailRecord, Reading
from powerbench.rundir import RunDir

Point = Reading | Gauge
CPU = RailRecord(
    source="fake", method="counter", state="measured", scope="a processor", part="cpu", contains=[], period_s=0.1
)
GPU = msgspec.structs.replace(CPU, scope="a graphics card", part="gpu", period_s=0.25)


class FakeMeter:
    """A meter whose reads a test writes: points, or why it is lost. Then it blocks until it is closed."""

    def __init__(self, *reads: Sequence[Point] | MeterLost, rails: Mapping[str, RailRecord] | None = None) -> None:
        self.is_closed = Event()
        self.waiting = Event()
        self.offset_ns = 0
        self._rails = {"cpu": CPU} if rails is None else rails
        self._reads: Queue[Sequence[Point] | MeterLost] = Queue()
        for read in reads:
            self._reads.put(read)

    def read(self) -> list[Point]:
        if self._reads.empty():
            self.waiting.set()
            self.is_closed.wait()
            if self._reads.empty():
                return []
        read = self._reads.get()
        if isinstance(read, MeterLost):
            raise read
        return list(read)

    def give_when_closed(self, *points: Point) -> None:
        """What is still on its way when the meter is closed."""
        self._reads.put(points)
        self._reads.put([])

    def rails(self) -> Mapping[str, RailRecord]:
        return {
            name: msgspec.structs.replace(rail, offset_ns=self.offset_ns if self.is_closed.is_set() else 0)
            for name, rail in self._rails.items()
        }

    def notes(self) -> list[str]:
        return ["The meter was a fake."]

    def close(self) -> None:
        self.is_closed.set()


class FakeSource:
    """A source with one meter to open, or a reason why it is unavailable, or one why it cannot start."""

    def __init__(
        self, name: str = "fake", meter: FakeMeter | None = None, *, reason: str | None = None, fails: str | None = None
    ) -> None:
        self.name = name
        self.period_s: float | None = None
        self._meter = meter or FakeMeter()
        self._reason = reason
        self._fails = fails

    def why_unavailable(self) -> str | None:
        return self._reason

    def set_up(self) -> Sequence[str]:
        return ()

    def open(self, *, period_s: float) -> FakeMeter:
        self.period_s = period_s
        if self._fails is not None:
            raise MeterLost(self._fails)
        return self._meter


class NoGauges:
    def read(self) -> list[Gauge]:
        return []


class Bench:
    """Metering of these sources, in a folder, with a pause that takes no time."""

    def __init__(self, folder: Path, **sources: Source) -> None:
        self.rundir = RunDir(folder)
        self.telemetry = Telemetry(self.rundir, NoGauges())
        self.metering = Metering(self.rundir, self.telemetry, sources)
        self.pauses = 0
        self.metering.open(list(sources))

    def pause(self, seconds: float) -> bool:
        self.pauses += 1
        Event().wait(0.001)
        return False

    def get_ready(self, *, timeout_s: float = 60.0) -> None:
        self.metering.wait_until_ready(timeout_s=timeout_s, pause=self.pause)

    def energy(self) -> list[str]:
        return self.rundir.energy.read_text().splitlines()

    def gauges(self) -> list[str]:
        return self.rundir.telemetry.read_text().splitlines()


def three_sources() -> dict[str, Source]:
    return {
        "rapl": FakeSource("rapl"),
        "nvml": FakeSource("nvml", reason="there is no NVIDIA driver."),
        "hwmon": FakeSource("hwmon"),
    }


class TestChoosing:
    def test_auto_takes_all_that_can_be_opened_and_says_why_not_of_the_others(self) -> None:
        assert choose_sources("auto", three_sources()) == (["rapl", "hwmon"], {"nvml": "there is no NVIDIA driver."})

    def test_none_takes_none_and_asks_none(self) -> None:
        assert choose_sources("none", three_sources()) == ([], {})

    def test_takes_those_that_are_named_in_their_order(self) -> None:
        assert choose_sources("hwmon, rapl", three_sources()) == (["hwmon", "rapl"], {})

    @pytest.mark.parametrize(
        ("power", "said"),
        [
            ("rapll", "There is no power source called 'rapll'; did you mean rapl?"),
            ("abacus", "There is no power source called 'abacus'; choose auto, none, or some of rapl, nvml, hwmon."),
            (
                "rapl,abacus",
                "There is no power source called 'abacus'; choose auto, none, or some of rapl, nvml, hwmon.",
            ),
            ("", "--power is '' and names no source: give auto, none, or some of rapl, nvml, hwmon."),
            (",", "--power is ',' and names no source: give auto, none, or some of rapl, nvml, hwmon."),
        ],
    )
    def test_an_unknown_name_is_wrong_usage(self, power: str, said: str) -> None:
        assert refused(power, three_sources()) == (UsageError, 2, said)

    def test_a_name_that_is_not_on_this_machine_is_exit_3_with_the_reason(self) -> None:
        said = "--power nvml: there is no NVIDIA driver."

        assert refused("rapl,nvml", three_sources()) == (Unavailable, 3, said)

    @pytest.mark.parametrize("names", [("powermetrics", "ioreport"), ("ioreport", "powermetrics")])
    def test_auto_takes_powermetrics_before_ioreport_which_reads_the_same(self, names: tuple[str, str]) -> None:
        sources: dict[str, Source] = {name: FakeSource(name) for name in names}

        assert choose_sources("auto", sources) == (
            ["powermetrics"],
            {"ioreport": "powermetrics reads the same counters."},
        )

    def test_auto_takes_ioreport_where_powermetrics_cannot_be_opened(self) -> None:
        sources: dict[str, Source] = {
            "powermetrics": FakeSource("powermetrics", reason="it needs root."),
            "ioreport": FakeSource("ioreport"),
        }

        assert choose_sources("auto", sources) == (["ioreport"], {"powermetrics": "it needs root."})

    def test_auto_takes_powermetrics_alone_and_keeps_the_reason_of_the_other(self) -> None:
        sources: dict[str, Source] = {
            "powermetrics": FakeSource("powermetrics"),
            "ioreport": FakeSource("ioreport", reason="it is not installed."),
        }

        assert choose_sources("auto", sources) == (["powermetrics"], {"ioreport": "it is not installed."})

    def test_takes_a_source_that_is_named_twice_once(self) -> None:
        assert choose_sources("rapl,rapl", three_sources()) == (["rapl"], {})


class TestFallingBack:
    def started(self, folder: Path, **sources: Source) -> Metering:
        bench = Bench(folder)
        metering = Metering(RunDir(folder / "x"), bench.telemetry, sources)
        names, spared = choose_sources("auto", sources)
        metering.start(names, spared, pause=bench.pause)
        metering.close()
        return metering

    def ioreport(self) -> FakeSource:
        return FakeSource("ioreport", FakeMeter([Reading(10, "cpu", 0.0)]))

    def test_to_what_reads_the_same_where_the_first_gives_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "x").mkdir()
        metering = self.started(
            tmp_path,
            powermetrics=FakeSource("powermetrics", fails="sudo: a password is required."),
            ioreport=self.ioreport(),
            rapl=FakeSource("rapl", reason="this is no Linux."),
        )

        assert metering.unmetered == {"powermetrics": "sudo: a password is required.", "rapl": "this is no Linux."}
        assert metering.tried == ["powermetrics"]
        assert metering.rails().keys() == {"cpu"}

    def test_but_not_where_it_gives_readings(self, tmp_path: Path) -> None:
        (tmp_path / "x").mkdir()
        powermetrics = FakeSource("powermetrics", FakeMeter([Reading(10, "cpu", 0.0)]))
        metering = self.started(tmp_path, powermetrics=powermetrics, ioreport=self.ioreport())

        assert metering.unmetered == {"ioreport": "powermetrics reads the same counters."}
        assert metering.tried == []


class TestThermalPressure:
    def notes(self, folder: Path, *words: str) -> list[str]:
        telemetry = Telemetry(RunDir(folder), NoGauges())
        for word in words:
            telemetry.write([Gauge(1, "thermal_pressure", word)])
        telemetry.close()
        return telemetry.notes()

    def test_is_noted_with_its_share(self, tmp_path: Path) -> None:
        assert self.notes(tmp_path, "Nominal", "Moderate", "Heavy", "Heavy") == [
            "macOS was under thermal pressure (heavy or moderate) in 75% of 4 looks, and may have slowed the machine "
            "down."
        ]

    @pytest.mark.parametrize("words", [(), ("Nominal", "Nominal")])
    def test_that_was_not_there_is_not(self, tmp_path: Path, words: tuple[str, ...]) -> None:
        assert self.notes(tmp_path, *words) == []


def refused(power: str, sources: Mapping[str, Source]) -> tuple[type[PowerbenchError], int, str]:
    with pytest.raises(PowerbenchError) as caught:
        choose_sources(power, sources)
    return type(caught.value), caught.value.exit_status, str(caught.value)


class TestRecording:
    def test_writes_readings_to_energy_and_gauges_to_telemetry(self, tmp_path: Path) -> None:
        meter = FakeMeter([Reading(10, "cpu", 0.0)], [Gauge(20, "cpu.power_w", 10.0), Reading(20, "cpu", 1.25)])
        bench = Bench(tmp_path, fake=FakeSource(meter=meter))

        assert meter.waiting.wait(60)
        assert bench.energy() == ["time_ns,rail,energy_j", "10,cpu,0.000000", "20,cpu,1.250000"]
        assert bench.gauges() == ["time_ns,name,value", "20,cpu.power_w,10"]
        assert bench.telemetry.latest == {"cpu.power_w": 10.0}
        bench.metering.close()

    def test_knows_the_rails_the_slowest_period_and_the_notes(self, tmp_path: Path) -> None:
        meter = FakeMeter([Reading(10, "cpu", 0.0), Reading(10, "gpu", 0.0)], rails={"cpu": CPU, "gpu": GPU})
        bench = Bench(tmp_path, fake=FakeSource(meter=meter))
        bench.get_ready()

        assert bench.metering.rails() == {"cpu": CPU, "gpu": GPU}
        assert bench.metering.slowest_period_s == 0.25
        assert bench.metering.notes() == ["The meter was a fake."]
        assert bench.metering.unmetered == {}
        bench.metering.close()

    def test_of_no_source_has_no_rails_and_is_ready_at_once(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path)
        bench.get_ready()

        assert (bench.metering.rails(), bench.metering.slowest_period_s, bench.metering.notes()) == ({}, 0.0, [])
        assert bench.pauses == 0

    def test_opens_each_source_with_the_period_asked_for(self, tmp_path: Path) -> None:
        source = FakeSource(meter=FakeMeter([Reading(10, "cpu", 0.0)]))
        bench = Bench(tmp_path)
        metering = Metering(bench.rundir, bench.telemetry, {"fake": source})

        metering.open(["fake"], period_s=0.5)
        metering.close()

        assert source.period_s == 0.5

    def test_of_several_sources_writes_whole_lines_of_each(self, tmp_path: Path) -> None:
        sources = {
            rail: FakeSource(rail, FakeMeter(*[[Reading(at, rail, at / 8)] for at in range(500)], rails={rail: CPU}))
            for rail in ("one", "two", "three")
        }
        bench = Bench(tmp_path, **sources)
        bench.get_ready()
        bench.metering.close()

        _, *rows = bench.energy()
        for rail in sources:
            mine = [row for row in rows if f",{rail}," in row]
            assert mine == [f"{at},{rail},{at / 8:.6f}" for at in range(500)][: len(mine)]
        assert len(rows) == sum(len([row for row in rows if f",{rail}," in row]) for rail in sources)

    def test_gives_two_sources_rails_of_their_own_even_where_they_have_one_name(self, tmp_path: Path) -> None:
        meters = [FakeMeter([Reading(at, "cpu", float(at))]) for at in (10, 20)]
        bench = Bench(tmp_path, one=FakeSource("one", meters[0]), two=FakeSource("two", meters[1]))
        bench.get_ready()
        bench.metering.close()

        rails = bench.metering.rails().keys()
        assert rails in ({"cpu", "two.cpu"}, {"cpu", "one.cpu"})  # whoever was first to read has the plain name
        assert {row.split(",")[1] for row in bench.energy()[1:]} == rails


class TestAMeter:
    def test_that_cannot_start_is_unmetered_with_its_reason_and_the_others_go_on(self, tmp_path: Path) -> None:
        good = FakeMeter([Reading(10, "cpu", 0.0)])
        bench = Bench(tmp_path, bad=FakeSource("bad", fails="its device is gone"), fake=FakeSource(meter=good))
        bench.get_ready()

        assert bench.metering.unmetered == {"bad": "its device is gone"}
        assert bench.metering.rails() == {"cpu": CPU}
        bench.metering.close()

    def test_that_is_lost_before_it_gave_anything_is_unmetered_with_its_reason(self, tmp_path: Path) -> None:
        meter = FakeMeter(MeterLost("powermetrics ended with exit status 1"), rails={})
        bench = Bench(tmp_path, fake=FakeSource(meter=meter))
        bench.get_ready()

        assert bench.metering.unmetered == {"fake": "powermetrics ended with exit status 1"}
        assert (bench.metering.rails(), bench.metering.notes()) == ({}, [])
        assert meter.is_closed.is_set()

    def test_that_knows_its_rails_and_is_lost_before_it_gave_anything_is_unmetered_too(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, fake=FakeSource(meter=FakeMeter(MeterLost("its counter went away"))))
        bench.get_ready()
        bench.metering.close()

        assert bench.metering.unmetered == {"fake": "its counter went away"}
        assert bench.metering.rails() == {}

    def test_that_is_lost_later_leaves_its_rails_and_why(self, tmp_path: Path) -> None:
        first = FakeMeter([Reading(10, "cpu", 0.0)], [Reading(20, "cpu", 1.0)], MeterLost("it went back in time"))
        second = FakeMeter([Reading(10, "gpu", 0.0)], rails={"gpu": GPU})
        bench = Bench(tmp_path, one=FakeSource("one", first), two=FakeSource("two", second))
        bench.get_ready()
        bench.metering.close()

        assert bench.metering.unmetered == {}
        assert bench.metering.rails() == {
            "cpu": msgspec.structs.replace(CPU, lost="it went back in time"),
            "gpu": GPU,
        }
        assert [row for row in bench.energy() if ",cpu," in row] == ["10,cpu,0.000000", "20,cpu,1.000000"]

    def test_whose_rail_says_itself_why_it_was_lost_keeps_that(self, tmp_path: Path) -> None:
        rail = msgspec.structs.replace(CPU, lost="the cable was pulled")
        meter = FakeMeter([Reading(10, "cpu", 0.0)], MeterLost("cpu: the cable was pulled"), rails={"cpu": rail})
        bench = Bench(tmp_path, fake=FakeSource(meter=meter))
        bench.get_ready()
        bench.metering.close()

        assert bench.metering.rails() == {"cpu": rail}

    def test_that_never_gives_a_reading_is_given_up_on(self, tmp_path: Path) -> None:
        silent, good = FakeMeter(), FakeMeter([Reading(10, "gpu", 0.0)], rails={"gpu": GPU})
        bench = Bench(tmp_path, silent=FakeSource("silent", silent), good=FakeSource("good", good))
        bench.get_ready(timeout_s=0.05)

        assert bench.pauses > 1
        assert bench.metering.unmetered == {"silent": "no reading came within 0.05 s"}
        assert bench.metering.rails() == {"gpu": GPU}
        assert (silent.is_closed.is_set(), good.is_closed.is_set()) == (True, False)
        bench.metering.close()

    def test_that_gives_gauges_only_is_not_ready(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, fake=FakeSource(meter=FakeMeter([Gauge(10, "cpu.power_w", 1.0)])))
        bench.get_ready(timeout_s=0.05)

        assert bench.metering.unmetered == {"fake": "no reading came within 0.05 s"}

    def test_is_not_waited_for_where_the_run_is_to_end(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, fake=FakeSource())
        bench.metering.wait_until_ready(timeout_s=1e6, pause=lambda seconds: True)

        assert bench.metering.unmetered == {"fake": "the run was ended before its first reading"}

    def test_whose_readings_cannot_be_written_is_lost_with_the_reason(self, tmp_path: Path) -> None:
        meter = FakeMeter([Reading(10, "cpu", 0.0)])
        bench = Bench(tmp_path, fake=FakeSource(meter=meter))
        bench.get_ready()
        assert meter.waiting.wait(60)
        bench.telemetry.close()
        meter.give_when_closed(Gauge(20, "cpu.power_w", 1.0))
        bench.metering.close()

        assert bench.metering.rails()["cpu"].lost == "its readings could not be written (Bad file descriptor)"


class TestClosing:
    def test_waits_for_what_is_still_on_its_way(self, tmp_path: Path) -> None:
        meter = FakeMeter([Reading(10, "cpu", 0.0)])
        bench = Bench(tmp_path, fake=FakeSource(meter=meter))
        bench.get_ready()
        assert meter.waiting.wait(60)
        meter.give_when_closed(Reading(20, "cpu", 2.0))
        bench.metering.close()

        assert bench.energy()[1:] == ["10,cpu,0.000000", "20,cpu,2.000000"]

    def test_makes_what_the_meter_knows_of_its_rails_final(self, tmp_path: Path) -> None:
        meter = FakeMeter([Reading(10, "cpu", 0.0)])
        meter.offset_ns = -7
        bench = Bench(tmp_path, fake=FakeSource(meter=meter))
        bench.get_ready()
        assert bench.metering.rails()["cpu"].offset_ns == 0
        bench.metering.close()

        assert bench.metering.rails()["cpu"].offset_ns == -7

    def test_twice_is_no_error(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, fake=FakeSource(meter=FakeMeter([Reading(10, "cpu", 0.0)])))
        bench.metering.close()
        bench.metering.close()

        assert bench.metering.rails() == {"cpu": CPU}

    def test_leaves_a_meter_alone_whose_driver_hangs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("powerbench.metering.LAST_READING_S", 0.05)  # ten seconds are too long for a test
        bench = Bench(tmp_path, fake=FakeSource(meter=Hanging([Reading(10, "cpu", 0.0)])))
        bench.get_ready()
        bench.metering.close()

        assert bench.metering.rails()["cpu"].lost == "it did not end within 0.05 s of being closed"


class Hanging(FakeMeter):
    """A meter whose read never returns after the first, closed or not."""

    def close(self) -> None:
        """The driver does not let go."""
