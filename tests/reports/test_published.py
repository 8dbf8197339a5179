"""The published tables: every figure of the shipped file is printed, in the tables' own form, and nothing else is."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pytest
import yaml

from powerbench.reports.csv import as_csv
from powerbench.reports.markdown import as_markdown
from powerbench.reports.published import FILE, published, published_runs
from powerbench.reports.terminal import as_terminal

SHIPPED = yaml.safe_load(FILE.read_text("utf-8"))
TIME = re.compile(r"(?:(\d+)h ?)?(?:(\d+)m ?)?(?:(\d+)s)?")

Key = tuple[str, str, str, int, int]


def shipped() -> dict[Key, Any]:
    """Seconds, or `oom`, by vintage, mode, machine, batch and sequence, as the file has them."""
    return {
        (vintage["name"], it["mode"], it["machine"], it["batch_size"], it["sequence_length"]): it.get(
            "wall_s_100_steps", it.get("outcome")
        )
        for vintage in SHIPPED["vintages"]
        for it in vintage["results"]
    }


def read_back(field: str) -> Any:
    """What a field of a printed table says."""
    if field == "-":
        return "oom"
    found = TIME.fullmatch(field)
    assert found is not None, field
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds


def printed(markdown: str) -> dict[Key, Any]:
    """The same from the printed tables; empty fields are left out."""
    figures: dict[Key, Any] = {}
    vintage = mode = ""
    machines: list[str] = []
    for line in markdown.splitlines():
        if line.startswith("## Published "):
            vintage = line.removeprefix("## Published ")
        elif line.startswith("**"):
            mode, machines = line.strip("*:").lower(), []
        elif line.startswith("| ") and not line.startswith("| -"):
            fields = [field.strip() for field in line.strip("|").split("|")]
            if not machines:
                assert fields[:2] == ["Batch size", "Sequence length"]
                machines = fields[2:]
                continue
            for machine, field in zip(machines, fields[2:], strict=True):
                if field:
                    figures[vintage, mode, machine, int(fields[0]), int(fields[1])] = read_back(field)
    return figures


def test_alone_the_tables_are_printed_figure_for_figure() -> None:
    assert printed(as_markdown(published_runs())) == shipped()


def test_they_are_in_the_form_in_which_they_were_published() -> None:
    lines = as_markdown(published_runs()).splitlines()

    assert lines[lines.index("**Training**:") + 2 :][:8] == [
        "| Batch size | Sequence length | M1 Max CPU (32GB) | M1 Max GPU (32GB) | V100 (16GB) | T4     |",
        "| ---------- | --------------- | ----------------- | ----------------- | ----------- | ------ |",
        "| 16         | 128             | 2m 29s            | 43s               | 12s         | 31s    |",
        "| 64         | 128             | 8m 32s            | 1m 30s            | 41s         | 2m     |",
        "| 256        | 128             | 50m 10s           | 18m 1s            | -           | -      |",
        "| 16         | 512             | 11m 22s           | 2m 20s            | 47s         | 2m 25s |",
        "| 64         | 512             | 1h 21m 2s         | 26m 33s           | -           | -      |",
        "| 256        | 512             | 6h 33m 7s         | 2h 55m 4s         | -           | -      |",
    ]


def test_the_later_vintage_has_its_machines_in_the_order_of_the_published_table() -> None:
    assert published().vintages[1].machines == [
        *("M1 Max CPU (32GB)", "M1 Max GPU 32-core (32GB)", "M1 Ultra 48-core (64GB)", "M2 Ultra GPU 60-core (64GB)"),
        *("M3 Pro GPU 14-core (18GB)", "M3 Max GPU 40-core (64GB)", "V100 (16GB)", "T4 (16GB)"),
    ]


def test_every_column_has_its_torch_and_the_source_is_named() -> None:
    markdown = as_markdown(published_runs())

    assert SHIPPED["url"] in markdown
    assert "- M1 Max GPU (32GB): torch 1.12/1.13 nightly, May 2022, 41 W at the peak" in markdown
    assert "- M3 Pro GPU 14-core (18GB): torch 2.2.0.dev20231113" in markdown
    assert "- T4 (16GB): torch not stated" in markdown


def test_suspect_cells_keep_their_notes() -> None:
    notes = [it["note"] for vintage in SHIPPED["vintages"] for it in vintage["results"] if "note" in it]
    terminal = " ".join(as_terminal(published_runs()).split())

    assert len(notes) == 4
    for note in notes:
        assert note.removeprefix("suspect: ") in terminal
        assert note.removeprefix("suspect: ") in as_markdown(published_runs())


def test_on_the_screen_every_figure_is_there_too() -> None:
    screen = as_terminal(published_runs())

    for key, value in shipped().items():
        if value != "oom":
            assert re.search(rf"(?<![\w]){time_of(value)}(?![\w])", screen), key


def time_of(seconds: int) -> str:
    parts = [(seconds // 3600, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s")]
    return " ".join(f"{number}{unit}" for number, unit in parts if number)


def test_as_runs_they_claim_nothing_that_was_not_published() -> None:
    (row,) = csv.DictReader(io.StringIO(as_csv(published_runs()[:1])))

    assert (row["machine"], row["run"], row["published"]) == ("M1 Max CPU (32GB)", "published 2022-05", "2022-05")
    silent = ("start_utc", "processor", "system", "transformers", "attention", "weights", "threads", "latency_p5_ms")
    assert {row[name] for name in silent} == {""}


@pytest.mark.parametrize("vintage", published().vintages, ids=lambda it: it.name)
def test_a_vintage_has_each_cell_of_a_machine_once(vintage: Any) -> None:
    cells = [(it.machine, it.mode, it.batch_size, it.sequence_length) for it in vintage.results]

    assert len(cells) == len(set(cells))
    assert all((it.wall_s_100_steps is None) == (it.outcome == "oom") for it in vintage.results)
