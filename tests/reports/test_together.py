"""Repeats of one cell agree, or do not, different cells have nothing to say to each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from powerbench.analysis.checked import verdict_on
from powerbench.analysis.latencies import from_edges
from powerbench.analysis.slowdown import Slowdown
from powerbench.reports.together import together
from powerbench.rundir.load import Run
from tests.rundir import a_cell, a_record, steps_lasting

FLAT = [100.0, 100.4] * 40
WARMING = [200.0] * 10 + [110.0, 110.4] * 40
SLOWING = [100.0, 100.4] * 30 + [150.0, 150.4] * 30


def checked(milliseconds: list[float], **cell: Any) -> tuple[Run, Slowdown]:
    steps = steps_lasting(*milliseconds)
    return Run(Path("run"), a_record(cell=a_cell(**cell)), [steps]), verdict_on(from_edges(steps))


@pytest.mark.parametrize(
    ("repeats", "said"),
    [
        ([FLAT, FLAT], "Flat across 2 repeats (2 flat)"),
        ([FLAT, WARMING, FLAT], "Warmup across 3 repeats (2 flat, 1 warmup)"),
        ([SLOWING, SLOWING], "Slowdown across 2 repeats (2 slowdown): the last tenth takes 1.50x the first"),
        ([FLAT, SLOWING], "Inconsistent: 2 processes that did the same came to different verdicts"),
    ],
)
def test_repeats_of_one_cell_are_compared(repeats: list[list[float]], said: str) -> None:
    (sentence,) = together([checked(each) for each in repeats])

    assert sentence.startswith(f"bert-tiny, inference, batch 16 x sequence 128, float32: {said}")


def test_runs_of_different_cells_are_no_repeats() -> None:
    assert together([checked(FLAT), checked(SLOWING, batch_size=32)]) == []


def test_one_run_says_nothing_with_others() -> None:
    assert together([checked(FLAT)]) == []
