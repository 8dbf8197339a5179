"""Runs for other programs: a row a run, units in the names, and nothing, not zero, where nothing is known."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import pytest

from powerbench.reports.csv import as_csv
from powerbench.reports.parquet import as_parquet
from powerbench.reports.tidy import kinds
from powerbench.rundir.load import Run
from tests.reports import a_phased_run, a_run

MEASURED = a_run(16, 128, 1490, watts=20)
GONE = a_run(256, 128, None, status="oom", reason='no room, "none", at all\nreally', device=None)


def from_csv(runs: Sequence[Run]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(as_csv(runs))))


def from_parquet(runs: Sequence[Run]) -> Any:
    from pyarrow import BufferReader, parquet

    return parquet.read_table(BufferReader(as_parquet(runs)))


def test_a_row_holds_the_figures_of_a_run() -> None:
    (row,) = from_parquet([MEASURED]).to_pylist()

    assert {name: row[name] for name in ("model", "mode", "batch_size", "sequence_length", "steps", "dropout")} == {
        **{"model": "bert-base-cased", "mode": "training", "batch_size": 16, "sequence_length": 128},
        **{"steps": 100, "dropout": False},
    }
    assert (row["machine"], row["torch"], row["threads"]) == ("Abacus 3000 CPU (24GB)", "2.13.0+cpu", 2)
    assert (row["wall_s_100_steps"], row["extrapolated"], row["latency_median_ms"]) == (149.0, False, 1490.0)
    assert [
        round(row[name], 6) for name in ("energy_j_per_step", "energy_j_per_sample", "samples_per_j", "mean_w")
    ] == [*(29.8, 1.8625, 0.536913, 20.0)]
    assert (row["energy_scope"], row["energy_estimated"], row["energy_reason"]) == ("package-0", False, None)


def test_a_row_tells_the_phases_of_a_step() -> None:
    phased, plain = from_parquet([a_phased_run(16, 1000, watts=20), MEASURED]).to_pylist()

    assert [row["phases"] for row in (phased, plain)] == [True, False]
    assert {name: value for name, value in phased.items() if name.startswith("phase_") and value is not None} == {
        **{"phase_forward_ms": 400.0, "phase_backward_ms": 600.0},
        **{"phase_backward_j": pytest.approx(12.0)},
    }
    assert {value for name, value in plain.items() if name.startswith("phase_")} == {None}


def test_what_is_not_known_is_null_and_empty() -> None:
    (row,) = from_parquet([GONE]).to_pylist()
    (text,) = from_csv([GONE])

    unknown = {name for name, value in row.items() if value is None}
    assert unknown >= {"device_name", "wall_s", "extrapolated", "latency_mean_ms", "energy_total_j", "mean_w"}
    assert {name for name, value in text.items() if value == ""} == unknown


def test_text_with_commas_quotes_and_ends_of_lines_comes_back() -> None:
    rows = from_csv([GONE, MEASURED])

    assert [row["reason"] for row in rows] == [GONE.record.reason, ""]
    assert [row["status"] for row in rows] == ["oom", "complete"]


def test_several_notes_stay_in_one_line() -> None:
    """Each run is a line also to programs that know nothing of quotes."""
    noted = [a_run(notes=["It rained.", "The sun shone."])]

    assert from_csv(noted)[0]["notes"] == "It rained. | The sun shone."
    assert len(as_csv(noted).splitlines()) == 2
    assert from_parquet(noted)["notes"].to_pylist() == ["It rained. | The sun shone."]


def test_csv_and_parquet_have_the_same_columns_whose_types_do_not_hang_on_the_rows() -> None:
    measured, gone = from_parquet([MEASURED]), from_parquet([GONE])

    assert measured.schema == gone.schema
    assert measured.column_names == list(kinds()) == list(from_csv([GONE])[0])


def test_machines_of_one_name_are_told_apart_and_no_host_is_told() -> None:
    rows = from_csv([a_run(), a_run(facts={"host": "beta"})])

    assert [row["machine"] for row in rows] == ["Abacus 3000 CPU (24GB) no. 1", "Abacus 3000 CPU (24GB) no. 2"]
    assert "beta" not in as_csv([a_run(facts={"host": "beta"})])
