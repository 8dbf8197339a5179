"""Reports of several real runs through the real command, in every form, and what another program reads of them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import SLEEP, powerbench

SHORT = (*SLEEP, "--steps", "4", "--warmup", "1", "--power", "none")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs of one cell and one of another."""
    folder = tmp_path_factory.mktemp("runs")
    for batch in ("16", "16", "64"):
        done = powerbench("run", *SHORT, "--batch-size", batch, "--output", folder)
        assert done.status == 0, done.stderr
    return folder


def reported(*arguments: str | Path) -> str:
    done = powerbench("report", *arguments)
    assert (done.status, done.stderr) == (0, "")
    return done.stdout


def test_a_folder_is_a_table_with_a_row_a_cell(runs: Path) -> None:
    lines = reported(runs).splitlines()

    assert lines[0] == "sleep, 5.00 ms a step (the control)"
    head = next(number for number, line in enumerate(lines) if line.split()[:2] == ["batch", "seq"])
    assert [line.split()[:2] for line in lines[head + 1 : head + 4]] == [["16", "128"], ["64", "128"], []]
    assert lines[head + 1].split()[-2] == "2"  # runs


def test_every_format_tells_the_same_of_the_same_runs(runs: Path, tmp_path: Path) -> None:
    from pyarrow import parquet

    file = tmp_path / "runs.parquet"
    done = powerbench("report", runs, "--format", "parquet", "--output", file)
    assert (done.status, done.stdout, done.stderr) == (0, "", f"Written to {file}\n")

    told: list[Any] = json.loads(reported(runs, "--json"))
    rows = list(csv.DictReader(io.StringIO(reported(runs, "--format", "csv"))))
    table = parquet.read_table(file).to_pylist()

    for one, row, typed in zip(told, rows, table, strict=True):
        assert (
            (one["run"], one["batch_size"])
            == (row["run"], int(row["batch_size"]))
            == (typed["run"], typed["batch_size"])
        )
        assert one["wall_s_100_steps"] == float(row["wall_s_100_steps"]) == typed["wall_s_100_steps"]
        assert (row["mean_w"], typed["mean_w"]) == ("", None)


def test_markdown_goes_into_a_file_or_a_pipe(runs: Path, tmp_path: Path) -> None:
    printed = reported(runs, "--format", "markdown")
    file = tmp_path / "runs.md"
    done = powerbench("report", runs, "--format", "markdown", "--output", file)

    assert (done.status, done.stdout) == (0, "")
    assert file.read_text() == printed
    assert "| Batch size | Sequence length |" in printed
