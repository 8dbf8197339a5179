"""Who ended a run of many ranks: the cause is named before what followed from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from powerbench.blame import RankEnd, consequence, device_of, first_cause, terminated
from powerbench.endings import SMALLER, Ended
from tests.rundir import a_record

TERM, KILL, SEGV = -15, -9, -11


def a_rank(number: int, exit_status: int | None = 0, end: dict[str, Any] | None = None, log: str = "") -> RankEnd:
    return RankEnd(number, f"cuda:{number}", end, exit_status, log, Path(f"worker-{number}.log"))


def an_end(outcome: str, message: str | None = None, *, time_ns: int = 1, **facts: Any) -> dict[str, Any]:
    return {"event": "end", "time_ns": time_ns, "outcome": outcome, "message": message, **facts}


LOST = an_end("failed", "Connection closed by peer [127.0.0.1]:1.", peer=True)


def failed(reason: str) -> Ended:
    return Ended("failed", reason)


@pytest.mark.parametrize(
    ("ranks", "ended"),
    [
        (
            [a_rank(0, 1, LOST), a_rank(1, KILL)],
            failed("rank 1 (cuda:1) was killed by SIGKILL (its log is worker-1.log)"),
        ),
        (
            [a_rank(0, TERM), a_rank(1, SEGV, log="Fatal Python error: Segmentation fault\n\nThread 1")],
            failed(
                "rank 1 (cuda:1) was killed by SIGSEGV: Fatal Python error: Segmentation fault "
                "(its log is worker-1.log)"
            ),
        ),
        (
            [a_rank(0, 1, LOST), a_rank(1, TERM), a_rank(2, 1, log="Traceback\nValueError: a bead is lost\n")],
            failed("rank 2 (cuda:2) ended with exit status 1: ValueError: a bead is lost (its log is worker-2.log)"),
        ),
        (
            [a_rank(0, -6, LOST, log="Fatal Python error: Aborted"), a_rank(1, 1, an_end("oom", "CUDA out of memory"))],
            Ended("oom", f"rank 1 (cuda:1): CUDA out of memory (its log is worker-1.log); {SMALLER}"),
        ),
        (
            [
                a_rank(0, 1, an_end("failed", "late.", time_ns=9)),
                a_rank(1, 1, an_end("unavailable", "No GPU.", time_ns=8)),
            ],
            Ended("unavailable", "rank 1 (cuda:1): No GPU (its log is worker-1.log)"),
        ),
    ],
)
def test_the_cause_is_named_before_its_consequences(ranks: list[RankEnd], ended: Ended) -> None:
    assert first_cause(ranks) == ended


def test_a_kill_for_memory_is_told_with_its_evidence() -> None:
    ended = first_cause([a_rank(0, TERM), a_rank(1, KILL)], evidence="oom_kill rose")

    assert ended == Ended(
        "oom", f"rank 1 (cuda:1) was killed by SIGKILL (its log is worker-1.log): oom_kill rose; {SMALLER}"
    )


@pytest.mark.parametrize(
    "ranks",
    [
        [a_rank(0), a_rank(1, 0, an_end("complete"))],
        [a_rank(0, 1, LOST), a_rank(1, TERM)],
        [a_rank(0, TERM), a_rank(1, None)],
        [a_rank(0, 0, an_end("interrupted"))],
    ],
)
def test_without_a_cause_nobody_is_blamed(ranks: list[RankEnd]) -> None:
    assert first_cause(ranks) is None


def test_what_followed_from_another_machine_is_told_where_nothing_else_is_known() -> None:
    assert consequence([a_rank(0, TERM), a_rank(1, 1, LOST)]) == failed(
        "rank 1 (cuda:1) lost its connection to the others: Connection closed by peer [127.0.0.1]:1 (its log is "
        "worker-1.log)"
    )
    assert consequence([a_rank(0, TERM)]) == failed("rank 0 (cuda:0) was killed by SIGTERM (its log is worker-0.log)")
    assert consequence([a_rank(0)]) is None


def test_a_device_that_is_one_of_several_has_its_number() -> None:
    record = a_record()
    ready = {"event": "ready", "device": {"kind": "cuda", "uuid": "GPU-1"}}

    assert device_of([ready], record, 3) == "cuda:3"
    assert device_of([{"event": "ready", "device": {"kind": "cpu", "uuid": None}}], record, 3) == "cpu"
    assert device_of([], record, 3) == "cpu"  # as the cell has it, while the rank has not said


def test_a_rank_that_a_signal_from_elsewhere_ended_is_the_one_that_all_others_lost() -> None:
    assert terminated([a_rank(0, TERM, LOST), a_rank(1, TERM)]) == failed(
        "rank 1 (cuda:1) was killed by SIGTERM (its log is worker-1.log)"
    )


@pytest.mark.parametrize(
    "ranks",
    [
        [a_rank(0, 1, LOST), a_rank(1, TERM), a_rank(2, TERM)],
        [a_rank(0, 1, LOST), a_rank(1, 1, LOST)],
        [a_rank(0, 0, an_end("complete")), a_rank(1, TERM)],
        [a_rank(0, TERM)],
    ],
)
def test_where_it_may_have_been_the_launcher_no_rank_is_named(ranks: list[RankEnd]) -> None:
    assert terminated(ranks) is None
