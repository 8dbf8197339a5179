"""Repeats of one cell agree, or do not, or leave it open; different cells have nothing to say to each other."""

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
UP_AND_DOWN = [100.0] * 40 + [150.0] * 40 + [100.0] * 40


def checked(milliseconds: list[float], **cell: Any) -> tuple[Run, Slowdown]:
    steps = steps_lasting(*milliseconds)
    return Run(Path("run"), a_record(cell=a_cell(**cell)), [steps]), verdict_on(from_edges(steps))


@pytest.mark.parametrize(
    ("repeats", "said"),
    [
        ([FLAT, FLAT], "The 2 repeats agree: all reach a steady state (2 x flat), at 100 ms to 100 ms a step."),
        (
            [FLAT, WARMING, FLAT],
            "The 3 repeats agree: all reach a steady state (2 x flat, 1 x warmup), at 100 ms to 110 ms a step.",
        ),
        ([SLOWING, SLOWING], "The 2 repeats agree: 2 x slowdown, the last tenth 1.50x to 1.50x the first."),
        (
            [FLAT, SLOWING],
            "The 2 repeats do not agree (1 x flat, 1 x slowdown): what made the difference is no property of the cell, "
            "so look for what changed between the runs.",
        ),
        ([FLAT, FLAT[:10]], "Whether the 2 repeats agree is open: 1 x flat, 1 x insufficient."),
        ([UP_AND_DOWN, UP_AND_DOWN], "Whether the 2 repeats agree is open: 2 x no steady state."),
    ],
)
def test_repeats_of_one_cell_are_compared(repeats: list[list[float]], said: str) -> None:
    assert together([checked(each) for each in repeats]) == [said]


def test_runs_of_different_cells_are_no_repeats() -> None:
    assert together([checked(FLAT), checked(SLOWING, batch_size=32)]) == []


def test_one_run_says_nothing_with_others() -> None:
    assert together([checked(FLAT)]) == []
