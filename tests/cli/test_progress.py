"""Where a run stands, in words: each stage, exact."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from powerbench.cli.progress import in_words, whole_left_s
from powerbench.pace import Progress, Stage
from powerbench.records import Node
from powerbench.rundir.sweeps import Measurement
from powerbench.sweep import Standing
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


def test_one_of_several_machines_waits_for_the_others_until_they_have_met() -> None:
    node = Node(rank=1, rendezvous="alpha:29500")
    alone, met = (a_record(cell=a_cell(), node=each) for each in (node, replace(node, id="a run")))

    assert standing("starting", record=alone) == "waiting for the other machines at alpha:29500"
    assert standing("starting", record=met) == "starting (loading torch, building the model)"


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


@pytest.mark.parametrize(
    ("this_s", "after_s", "left_s", "elapsed_s", "whole_s"),
    [
        (60.0, 100.0, None, 10.0, 150.0),  # it tells nothing yet: as expected, less what is over
        (60.0, 100.0, None, 70.0, 100.0),  # longer than expected is no time to come
        (60.0, 100.0, 45.0, 10.0, 145.0),  # it tells itself
        (None, 100.0, 45.0, 10.0, 145.0),
        (None, 100.0, None, 10.0, None),
        (60.0, None, 45.0, 10.0, None),
    ],
)
def test_what_is_left_of_a_sweep_is_this_run_and_all_after_it(
    this_s: float | None, after_s: float | None, left_s: float | None, elapsed_s: float, whole_s: float | None
) -> None:
    cell = a_cell()
    standing = Standing(Measurement(cell=cell), cell, 3, 8, this_s, after_s)

    assert whole_left_s(standing, left_s, elapsed_s=elapsed_s) == whole_s
