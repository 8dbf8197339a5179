"""Files of whole lines: what was written comes back, and a line that a crash cut off does not."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerbench.records import EnergyCurve, Gauge, RailRecord, Reading
from powerbench.rundir.lines import (
    ENERGY_HEADER,
    TELEMETRY_HEADER,
    EventWriter,
    LineTail,
    LineWriter,
    gauge_line,
    read_energy,
    read_events,
    read_telemetry,
    read_words,
    reading_line,
)

WRITES_BEYOND_ITS_LIMIT = """
import resource, sys
from pathlib import Path
from powerbench.rundir.lines import LineWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
try:
    LineWriter(Path(sys.argv[1])).write(["twenty letters and on"])
except OSError as error:
    print(error.strerror)
"""


class TestLineWriter:
    def test_writes_its_header_once_however_often_the_file_is_opened(self, tmp_path: Path) -> None:
        for line in ("1,2", "3,4"):
            writer = LineWriter(tmp_path / "file.csv", header="a,b")
            writer.write([line])
            writer.close()

        assert (tmp_path / "file.csv").read_text() == "a,b\n1,2\n3,4\n"

    def test_of_no_lines_writes_nothing(self, tmp_path: Path) -> None:
        LineWriter(tmp_path / "file.csv").write([])

        assert (tmp_path / "file.csv").read_bytes() == b""

    def test_may_be_closed_twice(self, tmp_path: Path) -> None:
        writer = LineWriter(tmp_path / "file.csv")
        writer.close()
        writer.close()

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
    def test_says_that_the_disk_is_full(self) -> None:
        with pytest.raises(OSError, match="No space left") as caught:
            LineWriter(Path("/dev/full"), header="a,b")

        assert caught.value.errno == errno.ENOSPC

    def test_takes_a_line_that_was_written_in_part_for_a_full_disk(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-c", WRITES_BEYOND_ITS_LIMIT, str(tmp_path / "file.csv")],
            capture_output=True,
            text=True,
            check=True,
        )

        assert done.stdout == "No space left on device\n"

    def test_does_not_follow_a_link_that_somebody_laid_there(self, tmp_path: Path) -> None:
        (tmp_path / "file.csv").symlink_to(tmp_path / "elsewhere")

        with pytest.raises(OSError, match="symbolic links"):
            LineWriter(tmp_path / "file.csv")
        assert not (tmp_path / "elsewhere").exists()


class TestLineTail:
    def test_has_no_lines_while_there_is_no_file(self, tmp_path: Path) -> None:
        assert LineTail(tmp_path / "none").read() == []

    def test_reads_on_from_where_it_stopped_and_waits_for_the_end_of_a_line(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        tail, seen = LineTail(path), []
        for piece in ("one\ntw", "o\nthr", "", "ee\n"):
            with path.open("a") as file:
                file.write(piece)
            seen.append(tail.read())

        assert seen == [["one"], ["two"], [], ["three"]]

    def test_is_not_upset_by_a_letter_that_is_cut_in_half(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"\xc3\n")

        assert LineTail(tmp_path / "file").read() == ["\ufffd"]


class TestEvents:
    def test_come_back_as_they_were_written(self, tmp_path: Path) -> None:
        path = tmp_path / "worker-0.jsonl"
        writer = EventWriter(path)
        writer.write("window", time_ns=7, first_step=5, steps=20)
        writer.write("end", time_ns=8, message='said "no",\nand left')

        assert list(read_events(LineTail(path).read())) == [
            {"event": "window", "time_ns": 7, "first_step": 5, "steps": 20},
            {"event": "end", "time_ns": 8, "message": 'said "no",\nand left'},
        ]

    def test_among_lines_that_are_none_are_found(self) -> None:
        lines = [
            '{"event":"re',
            "",
            "null",
            "[]",
            "{}",
            '{"event":3}',
            "[" * 100_000,
            '{"event":"end","time_ns":1}',
            "\ufffd",
        ]

        assert list(read_events(lines)) == [{"event": "end", "time_ns": 1}]

    @pytest.mark.parametrize("mark", ["\u2028", "\x85"])
    def test_hold_any_text(self, tmp_path: Path, mark: str) -> None:
        path = tmp_path / "worker-0.jsonl"
        EventWriter(path).write("end", time_ns=8, message=f"one{mark}two")

        assert [event["message"] for event in read_events(LineTail(path).read())] == [f"one{mark}two"]


class TestTelemetry:
    def test_of_numbers_is_read_by_name_in_the_order_of_the_file(self, tmp_path: Path) -> None:
        path = telemetry(
            tmp_path,
            *(Gauge(10, "a", 1.5), Gauge(10, "b", 2), Gauge(20, "a", -3e-7)),
        )

        assert read_telemetry(path) == {"a": [(10, 1.5), (20, -3e-7)], "b": [(10, 2.0)]}

    def test_without_a_file_is_empty(self, tmp_path: Path) -> None:
        assert read_telemetry(tmp_path / "telemetry.csv") == {}

    def test_passes_over_lines_that_a_crash_left_damaged(self, tmp_path: Path) -> None:
        path = telemetry(tmp_path, Gauge(10, "a", 1.5), Gauge(20, "a", 2.5))
        path.write_text(path.read_text().replace("10,a,1.5", "1\0,a,1.5"))

        assert read_telemetry(path) == {"a": [(20, 2.5)]}

    def test_of_words_is_left_out(self, tmp_path: Path) -> None:
        path = telemetry(tmp_path, Gauge(10, "thermal_pressure", "Nominal"), Gauge(20, "a", 1.0))

        assert read_telemetry(path) == {"a": [(20, 1.0)]}
        assert read_words(path) == {"thermal_pressure": [(10, "Nominal")]}

    def test_cut_off_at_any_byte_holds_all_whole_lines(self, tmp_path: Path) -> None:
        path = telemetry(tmp_path, *(Gauge(10 * at, "a", at / 8) for at in range(12)))
        whole, cut = path.read_bytes(), tmp_path / "cut.csv"

        for size in range(len(whole) + 1):
            cut.write_bytes(whole[:size])
            rows = whole[:size].count(b"\n") - 1
            assert sum(map(len, read_telemetry(cut).values())) == max(0, rows)

    @settings(deadline=None)
    @given(st.floats(-1e300, 1e300, allow_subnormal=False))
    def test_keeps_fifteen_digits(self, value: float) -> None:
        with TemporaryDirectory() as folder:
            path = telemetry(Path(folder), Gauge(10, "a", value))

            ((time_ns, read),) = read_telemetry(path)["a"]
            assert (time_ns, read == pytest.approx(value, rel=5.1e-15, abs=1e-300)) == (10, True)


class TestEnergy:
    RAIL = RailRecord(
        source="fake", method="counter", state="measured", scope="a processor", part="cpu", period_s=0.1, offset_ns=-7
    )

    def energy(self, folder: Path, *readings: Reading) -> Path:
        lines = LineWriter(folder / "energy.csv", header=ENERGY_HEADER)
        lines.write(map(reading_line, readings))
        lines.close()
        return folder / "energy.csv"

    def test_is_a_curve_a_rail_at_the_times_that_its_meter_s_offset_gives(self, tmp_path: Path) -> None:
        path = self.energy(tmp_path, Reading(10, "cpu", 0.0), Reading(10, "gpu", 0.5), Reading(20, "cpu", 1.25))

        assert read_energy(path, {"cpu": self.RAIL}) == {
            "cpu": EnergyCurve([3, 13], [0.0, 1.25]),
            "gpu": EnergyCurve([10], [0.5]),
        }

    def test_without_a_file_or_readings_is_empty(self, tmp_path: Path) -> None:
        assert read_energy(tmp_path / "energy.csv", {}) == {}
        assert read_energy(self.energy(tmp_path), {"cpu": self.RAIL}) == {}

    def test_cut_off_at_any_byte_holds_all_whole_lines(self, tmp_path: Path) -> None:
        whole = self.energy(tmp_path, *(Reading(10 * at, "cpu", at / 8) for at in range(12))).read_bytes()
        cut = tmp_path / "cut.csv"

        for size in range(len(whole) + 1):
            cut.write_bytes(whole[:size])
            rows = max(0, whole[:size].count(b"\n") - 1)
            curve = read_energy(cut, {}).get("cpu", EnergyCurve())
            assert curve.energy_j == [at / 8 for at in range(rows)]


def telemetry(folder: Path, *gauges: Gauge) -> Path:
    lines = LineWriter(folder / "telemetry.csv", header=TELEMETRY_HEADER)
    lines.write(map(gauge_line, gauges))
    lines.close()
    return folder / "telemetry.csv"


@pytest.mark.parametrize(
    ("gauge", "line"),
    [
        (Gauge(5, "gpu0.power_w", 71.25), "5,gpu0.power_w,71.25"),
        (Gauge(5, "worker0.rss_bytes", 36466688), "5,worker0.rss_bytes,36466688"),
        (Gauge(5, "thermal_pressure", "nominal"), "5,thermal_pressure,nominal"),
    ],
)
def test_a_gauge_is_a_row_of_telemetry(gauge: Gauge, line: str) -> None:
    assert gauge_line(gauge) == line


def test_a_reading_is_a_row_of_energy_to_the_microjoule() -> None:
    assert reading_line(Reading(5, "package-0", 12.3456789)) == "5,package-0,12.345679"
