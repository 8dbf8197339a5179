"""The own work of ranks on disk: folded step by step, and read whatever became of whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from powerbench.records import Node
from powerbench.rundir import RunDir
from powerbench.rundir.journal import Journal
from powerbench.rundir.load import load_run
from powerbench.rundir.marks import MarksWriter
from powerbench.rundir.work import WORK_HEADER, Arrival, WorkReader, new_work_file, read_work
from tests.rundir import a_cell, a_record, write_run


def stamp(view: memoryview, *stamps: int) -> None:
    for at, moment in enumerate(stamps):
        view[at] = moment


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "work-0.bin"


class TestReader:
    def test_gives_each_step_once_as_far_as_it_is_asked(self, path: Path) -> None:
        stamp(new_work_file(path, steps=5), 110, 10, 220, 20, 330, 30)
        reader = WorkReader(path)

        assert reader.read(until=1) == [(0, 10)]
        assert reader.read(until=3) == [(1, 20), (2, 30)]
        assert reader.read(until=5) == []

    def test_comes_back_for_a_step_that_is_not_known_yet(self, path: Path) -> None:
        """On a GPU the work is read from its events, about once a second."""
        view = new_work_file(path, steps=5)
        stamp(view, 110, 10, 220, 0, 330, 0)
        reader = WorkReader(path)

        assert reader.read(until=3) == [(0, 10)]
        stamp(view, 110, 10, 220, 20, 330, 30)
        assert reader.read(until=3) == [(1, 20), (2, 30)]

    def test_passes_over_a_step_that_stays_unknown(self, path: Path) -> None:
        stamp(new_work_file(path, steps=5), 110, 10, 220, 0, 330, 30)

        assert WorkReader(path).read(until=3) == [(0, 10), (2, 30)]

    def test_asked_for_more_steps_than_there_is_room_for_gives_those_it_has(self, path: Path) -> None:
        stamp(new_work_file(path, steps=1), 110, 10)

        assert WorkReader(path).read(until=9) == [(0, 10)]

    def test_of_no_file_gives_nothing_until_it_is_there(self, path: Path) -> None:
        reader = WorkReader(path)

        assert (reader.is_there, reader.read(until=9), reader.last_arrival()) == (False, [], None)
        stamp(new_work_file(path, steps=1), 110, 10)
        assert (reader.is_there, reader.read(until=9)) == (True, [(0, 10)])

    def test_says_how_far_the_rank_has_come_also_where_its_work_is_not_known_yet(self, path: Path) -> None:
        view = new_work_file(path, steps=3)
        reader = WorkReader(path)
        seen = [reader.last_arrival()]
        for step in range(3):
            view[2 * step] = 100 + step
            seen.append(reader.last_arrival())

        assert seen == [None, Arrival(0, 100), Arrival(1, 101), Arrival(2, 102)]


class TestRun:
    def begin(self, folder: Path, *, rank: int = 0) -> tuple[RunDir, memoryview, memoryview]:
        record = a_record(status="running", cell=a_cell(ranks=2), ranks=2)
        rundir = write_run(folder, record)
        marks = MarksWriter(rundir.marks(rank), capacity=9).view
        stamp(marks, 9, 9, 20, 20, 30, 30)
        work = new_work_file(rundir.work_marks(rank), steps=9)
        stamp(work, 18, 9, 27, 7, 36, 6)  # and the third step has not ended
        return rundir, marks, work

    def test_is_folded_into_rows_and_the_stamps_removed(self, tmp_path: Path) -> None:
        rundir, _, _ = self.begin(tmp_path, rank=1)
        journal = Journal(rundir, rank=1, warmup=0)

        journal.update()
        assert read_work(rundir.work(1)) == {0: 9, 1: 7}
        journal.finish()

        assert rundir.work(1).read_text().splitlines() == [WORK_HEADER, "0,9", "1,7"]
        assert not rundir.work_marks(1).exists()
        assert load_run(tmp_path).work(1) == {0: 9, 1: 7}

    def test_that_is_known_late_is_folded_at_the_end(self, tmp_path: Path) -> None:
        rundir, _, work = self.begin(tmp_path)
        stamp(work, 18, 0, 27, 0)
        journal = Journal(rundir, rank=0, warmup=0)
        journal.update()
        stamp(work, 18, 9, 27, 7)

        journal.finish()

        assert load_run(tmp_path).work(0) == {0: 9, 1: 7}

    def test_is_read_from_the_stamps_where_nobody_could_fold_them(self, tmp_path: Path) -> None:
        self.begin(tmp_path)

        assert load_run(tmp_path).work(0) == {0: 9, 1: 7}

    def test_is_read_from_both_where_only_some_was_folded(self, tmp_path: Path) -> None:
        rundir, marks, _ = self.begin(tmp_path)
        stamp(marks, 9, 9, 20, 20, 0, 0)
        Journal(rundir, rank=0, warmup=0).update()
        assert read_work(rundir.work(0)) == {0: 9}
        stamp(marks, 9, 9, 20, 20, 30, 30)

        assert load_run(tmp_path).work(0) == {0: 9, 1: 7}

    def test_of_one_rank_has_no_such_files(self, tmp_path: Path) -> None:
        rundir = write_run(tmp_path, a_record())
        Journal(rundir, rank=0, warmup=0).finish()

        assert not list(tmp_path.glob("work-*"))
        assert load_run(tmp_path).work(0) == {}

    def test_of_another_machine_has_only_its_own_ranks(self, tmp_path: Path) -> None:
        node = Node(rank=1, rendezvous="here:29500", id="a meeting")
        record = a_record(cell=a_cell(ranks=2, nnodes=2), ranks=4, node=node)
        rundir = write_run(tmp_path, record)
        for rank in (2, 3):
            stamp(MarksWriter(rundir.marks(rank), capacity=9).view, 9, 9, 20, 20)
            stamp(new_work_file(rundir.work_marks(rank), steps=9), 18, rank)

        run = load_run(tmp_path)

        assert [run.work(rank) for rank in range(4)] == [{}, {}, {0: 2}, {0: 3}]


def test_rows_are_read_up_to_one_that_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "work-0.csv").write_text(f"{WORK_HEADER}\n0,9\n1,7x\n2,8\n")

    assert read_work(tmp_path / "work-0.csv") == {0: 9}
