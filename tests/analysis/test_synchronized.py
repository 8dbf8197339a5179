"""Two runs of one cell, without waiting and with it, say whether a slowdown was made by not waiting."""

from __future__ import annotations

from typing import Any

import pytest

from powerbench.analysis.synchronized import Named, artefacts
from powerbench.records import StepTrace
from tests.rundir import START, a_cell, a_record, steps_lasting

STEADY = [20.0, 20.2] * 60
SLOWING = [20.0, 20.2] * 30 + [40.0, 40.4] * 30
FAST_FIRST = [2.0, *STEADY[1:]]


def waited(milliseconds: list[float], **changes: Any) -> Named:
    return Named("waited", a_record(cell=a_cell(sync_every=1, **changes)), steps_lasting(*milliseconds))


def free(milliseconds: list[float], **changes: Any) -> Named:
    steps, at = StepTrace(), START
    for each in milliseconds:
        at += round(each * 1e6)
        steps.append("step", START, at, None)
    steps.end_ns[-1] = at
    return Named("free", a_record(cell=a_cell(sync_every=0, **changes)), steps)


def said(unwaited: Named, fenced: Named) -> str:
    """The one paragraph on the pair, whichever is named first."""
    (text,) = artefacts([unwaited, fenced])
    assert artefacts([fenced, unwaited]) == [text]
    return text


def test_a_first_step_that_is_submission_only_is_an_artefact() -> None:
    assert said(free(FAST_FIRST), waited(STEADY)) == (
        "A script that never waits for the device (free, by the times of its submissions) sees 2.00 ms for the first "
        "step and 20.2 ms for later ones (median); waited for at each step (waited) it is 20.0 ms for the first step "
        "and 20.2 ms for later ones (median). The slowdown is an artefact of not synchronizing: where each step is "
        "waited for it is gone. The times without waiting are those at which Python had submitted the steps, not what "
        "they took."
    )


@pytest.mark.parametrize(
    ("unwaited", "fenced", "conclusion"),
    [
        (SLOWING, STEADY, "The slowdown is an artefact of not synchronizing: "),
        (SLOWING, SLOWING, "The slowdown is no artefact of not synchronizing: it is there too"),
        (STEADY, SLOWING, "The slowdown is no artefact of not synchronizing: it shows where each step is waited for"),
        (STEADY, STEADY, "Neither shows a slowdown"),
        (FAST_FIRST, STEADY[:10], "Whether the slowdown is an artefact of not synchronizing cannot be said"),
    ],
)
def test_the_conclusion_follows_from_both(unwaited: list[float], fenced: list[float], conclusion: str) -> None:
    assert conclusion in said(free(unwaited), waited(fenced))


@pytest.mark.parametrize(
    "other",
    [waited(STEADY, batch_size=32), waited(STEADY, dropout=False), free(STEADY), waited(STEADY, copy="resident")],
)
def test_runs_that_differ_in_more_are_no_pair(other: Named) -> None:
    assert artefacts([free(FAST_FIRST), other]) == []


def test_what_was_metered_beside_them_makes_no_difference() -> None:
    assert len(artefacts([free(FAST_FIRST, power="none"), waited(STEADY, trace=True, idle_seconds=5.0)])) == 1


def test_two_steps_are_too_few() -> None:
    assert artefacts([free([1.0, 2.0]), waited([1.0, 2.0])]) == []
