"""A CSV of any tool: one numeric column in the unit that its name says, and a sentence for all that is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerbench.errors import PowerbenchError
from powerbench.rundir.latency_csv import read_latencies
from tests.rundir import a_record, write_run

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
latencies = st.lists(st.floats(0, 1e9), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("csv") / "times.csv"


def seconds(file: Path, text: str) -> list[float]:
    file.write_text(text, "utf-8")
    return read_latencies(file).seconds


def refused(file: Path, content: str | bytes) -> str:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(PowerbenchError) as error:
        read_latencies(file)
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(file), "FILE")


@given(values=latencies, unit=st.sampled_from(list(UNITS)), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_a_named_column_is_read_in_its_unit(file: Path, values: list[float], unit: str, end: str) -> None:
    text = end.join([f"latency_{unit}", *(f"{value!r}" for value in values)])

    assert seconds(file, text) == pytest.approx([value * UNITS[unit] for value in values], rel=1e-12)


@given(values=latencies, blank=st.sampled_from(["", "\n", "\n\n", "  \n"]))
def test_without_a_name_it_is_seconds(file: Path, values: list[float], blank: str) -> None:
    assert seconds(file, "\n".join(map(repr, values)) + "\n" + blank) == values


@given(values=latencies, delimiter=st.sampled_from(",;\t"), word=st.text("abc -", min_size=0, max_size=5))
def test_columns_of_words_may_stand_beside_it(file: Path, values: list[float], delimiter: str, word: str) -> None:
    rows = [f"{word}{delimiter}{value!r}{delimiter}{word}" for value in values]

    assert seconds(file, "\n".join([f"what{delimiter}latency_s{delimiter}who", *rows])) == values


@given(content=st.binary(max_size=200))
def test_whatever_the_bytes_there_are_latencies_or_a_sentence(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    try:
        found = read_latencies(file).seconds
    except PowerbenchError as error:
        found, said = [0.0], str(error)
    else:
        said = str(file)
    assert said.startswith(str(file))
    assert found
    assert all(0 <= each < float("inf") for each in found)


@pytest.mark.parametrize("name", ["time", "latency", "duration"])
def test_a_name_without_a_unit_is_seconds_and_that_is_known(file: Path, name: str) -> None:
    file.write_text(f"{name}\n1.5\n")

    assert read_latencies(file) == ([1.5], "s", False)


@pytest.mark.parametrize("name", ["step_time_ms", "Latency_MS", "latency (ms)", "Step [ms]", "ms", "latency.ms"])
def test_a_unit_at_the_end_of_another_name_counts_too(file: Path, name: str) -> None:
    file.write_text(f"{name}\n20\n")

    assert read_latencies(file) == ([0.02], "ms", True)


@pytest.mark.parametrize("name", ["µs", "latency (µs)", "latency_us"])
def test_a_microsecond_has_two_spellings(file: Path, name: str) -> None:
    file.write_text(f"{name}\n20\n", "utf-8")

    found = read_latencies(file)
    assert (found.seconds[0], found.unit, found.is_named) == (20 / 1e6, "us", True)


@pytest.mark.parametrize("name", ["latencies", "steps", "items"])
def test_an_s_that_is_part_of_a_word_is_no_unit(file: Path, name: str) -> None:
    file.write_text(f"{name}\n20\n")

    assert read_latencies(file) == ([20.0], "s", False)


def test_of_several_columns_of_numbers_that_called_latency_counts(file: Path) -> None:
    assert seconds(file, "step,latency_ms,loss\n0,20,0.5\n1,30,0.4\n") == [0.02, 0.03]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "FILE is empty: give a CSV with one latency a line."),
        ("\n \n", "FILE is empty: give a CSV with one latency a line."),
        ("latency_ms\n", "FILE holds no latency but only the header: give one latency a line."),
        (
            "step,time_ms\n0,20\n1,21\n",
            "FILE has 2 numeric columns (step and time_ms); leave only the one with the latencies.",
        ),
        ("1,2,3\n", "FILE has 3 numeric columns (column 1 and column 2, ...); leave only the one with the latencies."),
        ("latency_s\n1\nnan\n", "FILE holds nan in line 3, which is no latency: mend the line or take it out."),
        ("1\n-2\n", "FILE holds -2 in line 2, which is no latency: mend the line or take it out."),
        ("1\n1e300\n", "FILE holds 1e300 in line 2, which is no latency: mend the line or take it out."),
        ("1\ninf\n", "FILE holds inf in line 2, which is no latency: mend the line or take it out."),
        ("1\ntwo\n", "FILE is not a CSV of latencies: line 2 holds 'two' where the latencies are; give one latency a "),
        ("a,b\n1,x\n,x\n", "FILE is not a CSV of latencies: line 3 holds nothing where the latencies are; give one "),
        ("1\n2,3\n", "FILE is not a CSV of latencies: line 2 has 2 columns, and the first 1; give one latency a line."),
        ("# Title\n\nWords.\n", "FILE is not a CSV of latencies: line 3 holds no number; give one latency a line."),
        (b"\x89PNG\r\n\x1a\n", "FILE is not a CSV of latencies: it is no text in UTF-8; give one latency a line."),
        (b"PK\x03\x04\0\0", "FILE is not a CSV of latencies: it is no text; give one latency a line."),
    ],
)
def test_what_is_none_is_refused_with_the_place(file: Path, content: str | bytes, said: str) -> None:
    assert refused(file, content).startswith(said)


def test_a_table_of_a_run_is_refused_with_the_runs_folder(tmp_path: Path) -> None:
    rundir = write_run(tmp_path / "run", a_record(), rows=["0,step,1,2,3"])

    with pytest.raises(PowerbenchError, match=r"\(it is part of a run: name its folder, .*/run\)"):
        read_latencies(rundir.steps(0))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PowerbenchError, match=r"Cannot read .*: No such file or directory; check the path"):
        read_latencies(tmp_path / "missing.csv")
