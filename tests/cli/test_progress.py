"""Where a run stands, in words: each stage, exact."""

from __future__ import annotations

from typing import Any

import pytest

from powerbench.cli.progress import in_words
from powerbench.pace import Progress, Stage
from tests.rundir import a_cell, a_record


def standing(stage: Stage, *, model: str = "bert-tiny", **changes: Any) -> str:
    progress = Progress(a_record(cell=a_cell(model=model)), stage, 40, 100, None, None)
    return in_words(progress._replace(**changes))


@pytest.mark.parametrize(
    ("stage", "model", "words"),
    [
        ("idle", "bert-tiny", "measuring the power of the idle machine"),
        ("starting", "bert-tiny", "starting (loading torch, building the model)"),
        ("starting", "sleep", "starting"),
        ("stopping", "bert-tiny", "stopping after the step in flight (Ctrl-C again to stop now)"),
        ("warm-up", "bert-tiny", "warm-up step 40 of 100"),
        ("measuring", "bert-tiny", "measuring step 40 of 100"),
        ("tail", "bert-tiny", "tail step 40 of 100"),
    ],
)
def test_each_stage_has_its_words(stage: Stage, model: str, words: str) -> None:
    assert standing(stage, model=model) == words


@pytest.mark.parametrize(
    ("step_s", "left_s", "words"),
    [
        (0.812, None, "measuring step 40 of 100, 812 ms/step"),
        (0.812, 48.72, "measuring step 40 of 100, 812 ms/step, 49s left"),
        (0.005, 0.3, "measuring step 40 of 100, 5.00 ms/step, 0s left"),
        (1.5, 90.0, "measuring step 40 of 100, 1,500 ms/step, 1m 30s left"),
    ],
)
def test_pace_and_time_left_stand_behind_where_they_are_known(step_s: float, left_s: float | None, words: str) -> None:
    assert standing("measuring", step_s=step_s, left_s=left_s) == words
