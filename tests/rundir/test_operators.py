"""The operators on disk: what was written is read back, whatever a kernel is called, and damage costs a row."""

from __future__ import annotations

from pathlib import Path

from powerbench.records import OperatorTimes
from powerbench.rundir.operators import read_operators, write_operators

KERNEL = 'void at::native::kernel<4, "f,g">(at::TensorIteratorBase&,\n int)'
ADDMM = OperatorTimes("aten::addmm", "cpu", 12.0, 1500.25, 1600.5, 900.125, 900.125)
TIMES = [ADDMM, OperatorTimes(KERNEL, "cuda", 1 / 3, 0.0, 0.0, 900.125, 900.125)]


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    write_operators(tmp_path / "operators.csv", TIMES)

    first, second = read_operators(tmp_path / "operators.csv")

    assert first == ADDMM
    assert second == TIMES[1]._replace(calls=0.333333333)
    assert [file.name for file in tmp_path.iterdir()] == ["operators.csv"]


def test_the_header_names_the_columns_with_their_units(tmp_path: Path) -> None:
    write_operators(tmp_path / "operators.csv", [])

    assert (tmp_path / "operators.csv").read_text() == (
        "name,on,calls,cpu_self_us,cpu_total_us,device_self_us,device_total_us\n"
    )


def test_a_time_that_was_not_recorded_is_empty_and_never_zero(tmp_path: Path) -> None:
    unknown = OperatorTimes("aten::mm", "cpu", 1.0, 2.0, 3.0, None, None)
    write_operators(tmp_path / "operators.csv", [unknown])

    assert (tmp_path / "operators.csv").read_text().splitlines()[1] == "aten::mm,cpu,1,2,3,,"
    assert read_operators(tmp_path / "operators.csv") == [unknown]


def test_damaged_rows_are_passed_over_and_no_file_is_no_operators(tmp_path: Path) -> None:
    path = tmp_path / "operators.csv"
    write_operators(path, TIMES)
    path.write_text(f"{path.read_text()}aten::mm,cpu,1,two,3,,\naten::mm,cpu\n\naten::bmm,cpu,1,2,3,,\n")

    assert [it.name for it in read_operators(path)] == ["aten::addmm", KERNEL, "aten::bmm"]
    assert read_operators(tmp_path / "none.csv") == []
