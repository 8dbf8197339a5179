"""What makes steps different, in words: and runs of different steps never share a column."""

from __future__ import annotations

from typing import Any

import pytest

from powerbench.records import Cell
from powerbench.reports.cells import data_of, optimizer_of
from powerbench.reports.terminal import as_terminal
from tests.reports import a_run


@pytest.mark.parametrize(
    ("settings", "words"),
    [({}, "adam"), ({"optimizer": "adamw", "fused": True}, "fused adamw"), ({"fused": False}, "unfused adam")],
)
def test_an_optimizer_is_told_as_it_was_asked_for(settings: dict[str, Any], words: str) -> None:
    assert optimizer_of(Cell(**settings)) == words


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "synthetic"),
        ({"dataset": "rows.csv"}, "text of rows.csv"),
        ({"dataset": "rows.csv", "pad": "longest"}, "text of rows.csv, padded to the longest"),
        ({"dataset": "rows.csv", "include_data": True}, "text of rows.csv, read in the step"),
    ],
)
def test_data_are_told_with_how_they_are_read(settings: dict[str, Any], words: str) -> None:
    assert data_of(Cell(**settings)) == words


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"optimizer": "sgd"}, "sgd"),
        ({"weights": "pretrained"}, "pretrained weights"),
        ({"dataset": "rows.csv"}, "text of rows.csv"),
        ({"phases": True}, "stopped after each phase"),
    ],
)
def test_steps_that_differ_in_these_stand_in_columns_of_their_own(settings: dict[str, Any], words: str) -> None:
    text = " ".join(as_terminal([a_run(16, 128, 20), a_run(16, 128, 30, settings=settings)]).split())

    assert f"no. 1, {words}" in text or f"(24GB), {words}" in text
    assert "times across that difference are not to be compared" in text
