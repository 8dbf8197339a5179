"""Ranks that wait for one that does not come: it is named, and slow work is not taken for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from powerbench.endings import Ended
from powerbench.hang import hung
from powerbench.meeting import BEAT_S, SILENCE_S
from powerbench.records import Limits, Node, RunRecord
from powerbench.rundir import RunDir
from powerbench.rundir.journals import Journals
from powerbench.rundir.lines import EventWriter
from powerbench.rundir.marks import MarksWriter
from powerbench.rundir.work import new_work_file
from tests.rundir import MS, START, a_cell, a_record

STEP_NS = 100 * MS
S = 1000 * MS
CAPACITY = 100


class Hung:
    """Ranks that have made `steps` of a tenth of a second; each has `arrived` in so many, as its last sign."""

    def __init__(self, folder: Path, *, steps: Sequence[int], arrived: Sequence[int], record: RunRecord) -> None:
        self.rundir = RunDir(folder)
        self.record = record
        self.last_ns = START
        for rank, (done, come) in enumerate(zip(steps, arrived, strict=True), record.own_ranks.start):
            marks = MarksWriter(self.rundir.marks(rank), capacity=CAPACITY).view
            for at in range(done + 1):
                marks[2 * at] = marks[2 * at + 1] = self.last_ns = START + at * STEP_NS
            work = new_work_file(self.rundir.work_marks(rank), steps=CAPACITY)
            for at in range(come):
                work[2 * at] = START + at * STEP_NS + 50 * MS
        self.journals = Journals(self.rundir, record)
        self.journals.update()

    def after(self, seconds: float) -> Ended | None:
        return hung(self.rundir, self.record, self.journals, now_ns=self.last_ns + round(seconds * S))


def a_group(ranks: int = 2, *, node: Node | None = None, **settings: Any) -> RunRecord:
    nnodes = 1 if node is None else 2
    cell = a_cell(**{"mode": "training", "ranks": ranks, "nnodes": nnodes, "steps": 50} | settings)
    return a_record(cell=cell, ranks=ranks * nnodes, node=node, device=None)


class TestARankThatDoesNotCome:
    def test_is_named_with_its_log_after_ten_seconds(self, tmp_path: Path) -> None:
        group = Hung(tmp_path, steps=[7, 7, 7], arrived=[8, 7, 8], record=a_group(3))

        assert group.after(9) is None
        assert group.after(11) == Ended(
            "failed",
            "rank 1 (cpu) hangs: step 7 was not done for 11 s, while ranks 0 (cpu) and 2 (cpu) wait (its log is "
            f"{tmp_path}/worker-1.log)",
        )

    def test_of_steps_without_a_reduction_is_the_one_that_is_behind(self, tmp_path: Path) -> None:
        group = Hung(tmp_path, steps=[9, 7], arrived=[9, 7], record=a_group(mode="inference"))

        ended = group.after(11)

        assert ended is not None
        assert (ended.reason or "").startswith(
            "rank 1 (cpu) hangs: step 7 was not done for 11 s, while rank 0 (cpu) wa"
        )

    def test_has_longer_where_the_steps_take_long_or_the_setting_says_so(self, tmp_path: Path) -> None:
        limits = Limits(hang_seconds=30.0)
        group = Hung(tmp_path, steps=[7, 7], arrived=[8, 7], record=a_group(limits=limits))

        assert group.after(29) is None
        assert group.after(31) is not None

    @pytest.mark.parametrize(("steps", "arrived"), [([3, 2], [4, 2]), ([0, 0], [1, 0])])
    def test_has_a_minute_in_the_first_steps(self, tmp_path: Path, steps: list[int], arrived: list[int]) -> None:
        group = Hung(tmp_path, steps=steps, arrived=arrived, record=a_group())

        assert group.after(59) is None
        assert (group.after(61) or Ended("complete", None)).status == "failed"

    def test_is_not_looked_for_while_the_first_steps_are_compiled(self, tmp_path: Path) -> None:
        assert Hung(tmp_path, steps=[3, 2], arrived=[4, 2], record=a_group(compile=True)).after(1000) is None


class TestNobodyHangs:
    def test_where_all_are_at_work(self, tmp_path: Path) -> None:
        """A step for which all compile anew takes long, and none has done its part."""
        assert Hung(tmp_path, steps=[7, 7], arrived=[7, 7], record=a_group()).after(1000) is None

    def test_where_all_are_equally_far_in_the_first_steps(self, tmp_path: Path) -> None:
        assert Hung(tmp_path, steps=[2, 2], arrived=[3, 3], record=a_group()).after(1000) is None

    def test_where_there_is_one_rank(self, tmp_path: Path) -> None:
        assert Hung(tmp_path, steps=[7], arrived=[7], record=a_group(1)).after(1000) is None

    def test_who_has_come_to_its_end(self, tmp_path: Path) -> None:
        group = Hung(tmp_path, steps=[8, 7], arrived=[8, 7], record=a_group())
        for rank in (0, 1):
            EventWriter(group.rundir.events(rank)).write("end", time_ns=1, outcome="complete", message=None)
        group.journals.update()

        assert group.after(1000) is None


@pytest.mark.parametrize(
    ("node", "by_s", "whom"),
    [(None, 11, "one another"), (Node(rank=0, rendezvous="alpha:1"), 16, "ranks of other machines")],
)
def test_ranks_that_all_wait_say_for_whom(tmp_path: Path, node: Node | None, by_s: int, whom: str) -> None:
    group = Hung(tmp_path, steps=[7, 7], arrived=[8, 8], record=a_group(node=node))

    assert group.after(by_s) == Ended(
        "failed",
        f"all 2 ranks here wait for {whom} for {by_s} s (their logs are {tmp_path}/worker-0.log, "
        f"{tmp_path}/worker-1.log)",
    )


def test_ranks_that_wait_for_another_machine_leave_it_to_the_launcher_to_say_that_it_is_lost(tmp_path: Path) -> None:
    group = Hung(tmp_path, steps=[7, 7], arrived=[8, 8], record=a_group(node=Node(rank=0, rendezvous="alpha:1")))

    assert group.after(SILENCE_S + 2 * BEAT_S) is None
