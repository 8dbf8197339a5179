"""What a launcher tells those of other machines of an end, and what it waits to hear from them."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from powerbench.endings import Ended
from powerbench.launcher import SIGNALLED, Launcher
from powerbench.meeting import Beat, Meeting
from powerbench.records import Node, Status
from powerbench.rundir import RunDir
from tests.rundir import a_cell, a_record, write_run
from tests.test_meeting import FakeStore

BEAT = msgspec.json.encode(Beat(0, {})).decode()
STOPPED = "stopped by Ctrl-C or a signal"
LATE = "it was still running after 12 s (max_seconds); allow more or measure less"


def store() -> FakeStore:
    return FakeStore({"beat/0": BEAT})


def a_launcher(folder: Path, *, status: Status = "running", reason: str | None = None, end: str | None) -> Launcher:
    """That of the second of two machines, whose rank has said how it ended, if it has."""
    node = Node(rank=1, rendezvous="alpha:29500", id="x")
    record = a_record(status=status, cell=a_cell(nnodes=2), ranks=2, node=node)
    record = msgspec.structs.replace(record, reason=reason)
    rundir: RunDir = write_run(folder, record)
    if end is not None:
        said = {"event": "end", "time_ns": 1, "outcome": end, "message": None}
        rundir.events(1).write_text(json.dumps(said) + "\n")
    return Launcher(rundir, record, worker=[])


@pytest.mark.parametrize(
    ("status", "reason", "outcome", "exit_status"),
    [
        ("interrupted", STOPPED, "interrupted", 0),
        ("timeout", LATE, "interrupted", 0),
        ("interrupted", STOPPED, None, -2),
    ],
)
def test_it_tells_the_others_how_its_supervisor_has_ended_the_run(
    tmp_path: Path, status: Status, reason: str, outcome: str | None, exit_status: int
) -> None:
    told = store()
    launcher = a_launcher(tmp_path, status=status, reason=reason, end=outcome)

    launcher.answer_for({1: exit_status}, Meeting(told, own=1, hosts=("alpha", "beta"), id="x"))

    assert msgspec.json.decode(told.values["end/1"], type=Ended) == Ended(status, reason)


def test_it_tells_of_a_signal_that_has_ended_itself(tmp_path: Path) -> None:
    told = store()

    a_launcher(tmp_path, end=None).answer_for({}, Meeting(told, own=1, hosts=("alpha", "beta"), id="x"))

    assert msgspec.json.decode(told.values["end/1"], type=Ended) == SIGNALLED


def test_of_ranks_that_were_interrupted_it_hears_by_whom(tmp_path: Path) -> None:
    heard = store()
    heard.set("end/0", msgspec.json.encode(Ended("timeout", LATE)).decode())
    launcher = a_launcher(tmp_path, end="interrupted")

    launcher.answer_for({1: 0}, Meeting(heard, own=1, hosts=("alpha", "beta"), id="x"))

    (event,) = map(json.loads, (next(tmp_path.rglob("launcher.jsonl"))).read_text().splitlines())
    assert (event["event"], event["outcome"], event["message"]) == (
        "elsewhere",
        "timeout",
        f"on alpha (node 0), {LATE}",
    )
    assert "end/1" not in heard.values


def test_of_a_run_that_is_complete_it_says_nothing(tmp_path: Path) -> None:
    told = store()

    a_launcher(tmp_path, end="complete").answer_for({1: 0}, Meeting(told, own=1, hosts=("alpha", "beta"), id="x"))

    assert told.values == {"beat/0": BEAT}
