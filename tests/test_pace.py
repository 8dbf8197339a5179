"""Where a run stands, read from its marks: stage, steps, pace and time left are exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from powerbench.pace import Pace, Progress
from powerbench.records import Cell, RunRecord
from powerbench.rundir import RunDir
from powerbench.rundir.journal import Journal
from powerbench.rundir.lines import EventWriter
from powerbench.rundir.marks import MarksWriter
from tests.rundir import a_record

S = 1_000_000_000


class Marked:
    """A run whose marks the test makes, and its pace."""

    def __init__(self, folder: Path, *, tail_s: float = 0.0, **cell: Any) -> None:
        self._rundir = RunDir(folder)
        self.record: RunRecord = a_record(cell=Cell(**cell), tail_s=tail_s, status="running")
        self._journal = Journal(self._rundir, rank=0, warmup=self.record.the_cell.warmup)
        self._pace = Pace()
        self._view: memoryview | None = None
        self._at = 0

    def mark(self, *moments_s: float, edges: bool = True) -> Marked:
        """Mark a boundary at each of these moments, with its edge or only submitted."""
        self._view = self._view or MarksWriter(self._rundir.marks(0), capacity=1000).view
        for moment_s in moments_s:
            self._view[self._at] = round(moment_s * S)
            self._view[self._at + 1] = round(moment_s * S) if edges else 0
            self._at += 2
        return self

    def say_measured(self, steps: int) -> None:
        """What the worker writes behind the last measured step."""
        EventWriter(self._rundir.events(0)).write("window", time_ns=1, first_step=0, steps=steps)
        self._journal.update()

    def stands(self) -> tuple[object, ...]:
        """Stage, done, total, seconds a step and seconds left."""
        progress = self._pace.progress(self.record, self._journal, started=True, stopping=False)
        assert progress.record is self.record
        return tuple(progress[1:])

    def before_the_worker(self) -> Progress:
        return self._pace.progress(self.record, self._journal, started=False, stopping=False)

    def while_it_stops(self) -> Progress:
        return self._pace.progress(self.record, self._journal, started=True, stopping=True)


def test_the_machine_is_idle_before_there_is_a_worker(tmp_path: Path) -> None:
    run = Marked(tmp_path, steps=100)

    assert run.before_the_worker() == Progress(run.record, "idle", 0, 100, None, None)


def test_a_run_that_was_asked_to_stop_says_so_whatever_it_was_at(tmp_path: Path) -> None:
    run = Marked(tmp_path, steps=100)
    stopping = Progress(run.record, "stopping", 0, 100, None, None)

    assert run.while_it_stops() == stopping
    run.mark(10, 11, 12)
    assert run.while_it_stops() == stopping


def test_a_run_is_starting_until_the_first_mark(tmp_path: Path) -> None:
    run = Marked(tmp_path, steps=100)
    assert run.stands() == ("starting", 0, 100, None, None)

    MarksWriter(RunDir(tmp_path).marks(0), capacity=1)  # there, and nothing in it yet
    assert run.stands() == ("starting", 0, 100, None, None)


def test_the_origin_is_no_step(tmp_path: Path) -> None:
    run = Marked(tmp_path, steps=100, warmup=5).mark(10)

    assert run.stands() == ("warm-up", 0, 5, None, None)


def test_warmup_is_counted_by_itself_and_the_time_left_is_that_of_all_steps(tmp_path: Path) -> None:
    run = Marked(tmp_path, steps=100, warmup=5).mark(10, 11)
    run.stands()

    run.mark(13, 15)
    assert run.stands() == ("warm-up", 3, 5, 2.0, 204.0)  # two more, then a hundred, of two seconds each


def test_measuring_begins_with_the_first_step_after_the_warmup(tmp_path: Path) -> None:
    run = Marked(tmp_path, steps=4, warmup=2).mark(10, 11)
    run.stands()

    run.mark(12)
    assert run.stands() == ("measuring", 0, 4, 1.0, 4.0)
    run.mark(13)
    assert run.stands() == ("measuring", 1, 4, 1.0, 3.0)
    run.mark(14, 15, 16)
    assert run.stands() == ("measuring", 4, 4, 1.0, 0.0)


def test_without_a_warmup_the_origin_is_where_measuring_begins(tmp_path: Path) -> None:
    assert Marked(tmp_path, steps=4, warmup=0).mark(10).stands() == ("measuring", 0, 4, None, None)


def test_the_pace_is_that_since_the_last_report(tmp_path: Path) -> None:
    run = Marked(tmp_path, steps=10, warmup=0).mark(10, 11)
    run.stands()

    run.mark(11.5, 12)
    assert run.stands() == ("measuring", 3, 10, 0.5, 3.5)
    run.mark(15)
    assert run.stands() == ("measuring", 4, 10, 3.0, 18.0)


def test_the_pace_stays_while_a_long_step_is_under_way(tmp_path: Path) -> None:
    run = Marked(tmp_path, steps=10, warmup=0).mark(10, 11)
    run.stands()
    run.mark(12)

    assert [run.stands() for _ in range(3)] == [("measuring", 2, 10, 1.0, 8.0)] * 3


def test_the_pace_is_known_from_the_first_step_on(tmp_path: Path) -> None:
    run = Marked(tmp_path, steps=10, warmup=0).mark(10)
    run.stands()

    run.mark(40)
    assert run.stands() == ("measuring", 1, 10, 30.0, 270.0)


def test_a_step_that_is_only_submitted_counts(tmp_path: Path) -> None:
    """On a device that is not waited for, submissions are all there is to see until the end."""
    run = Marked(tmp_path, steps=10, warmup=0).mark(10).mark(11, edges=False)
    run.stands()

    run.mark(12, 13, edges=False)
    assert run.stands() == ("measuring", 3, 10, 1.0, 7.0)


class TestMinSeconds:
    def test_keep_a_run_at_work_when_its_steps_are_done(self, tmp_path: Path) -> None:
        run = Marked(tmp_path, steps=2, warmup=0, min_seconds=60.0).mark(100)
        run.stands()

        run.mark(101)
        run.stands()
        run.mark(102, 103, 104)
        assert run.stands() == ("measuring", 4, 4, 1.0, 56.0)

    def test_are_nothing_where_the_steps_take_longer(self, tmp_path: Path) -> None:
        run = Marked(tmp_path, steps=100, warmup=0, min_seconds=60.0).mark(100, 101)
        run.stands()

        run.mark(102)
        assert run.stands() == ("measuring", 2, 100, 1.0, 98.0)

    def test_count_from_the_end_of_the_warmup(self, tmp_path: Path) -> None:
        run = Marked(tmp_path, steps=2, warmup=2, min_seconds=60.0).mark(100, 110)
        run.stands()

        run.mark(120)
        assert run.stands() == ("measuring", 0, 2, 10.0, 60.0)
        run.mark(130)
        assert run.stands() == ("measuring", 1, 2, 10.0, 50.0)

    def test_that_are_over_leave_none(self, tmp_path: Path) -> None:
        run = Marked(tmp_path, steps=2, warmup=0, min_seconds=1.0).mark(100, 101)
        run.stands()

        run.mark(102, 103)
        assert run.stands() == ("measuring", 3, 3, 1.0, 0.0)

    def test_are_in_the_time_left_of_the_warmup_too(self, tmp_path: Path) -> None:
        run = Marked(tmp_path, steps=2, warmup=3, min_seconds=60.0).mark(100, 101)
        run.stands()

        run.mark(102)
        assert run.stands() == ("warm-up", 2, 3, 1.0, 61.0)


class TestTheTail:
    def test_is_a_stage_of_its_own_with_nothing_left(self, tmp_path: Path) -> None:
        run = Marked(tmp_path, steps=2, warmup=0, tail_s=1.0).mark(100, 101)
        run.stands()
        run.mark(102)
        run.say_measured(2)

        run.mark(103)
        assert run.stands() == ("tail", 2, 2, 1.0, 0.0)

    def test_is_none_without_a_meter(self, tmp_path: Path) -> None:
        run = Marked(tmp_path, steps=2, warmup=0).mark(100, 101, 102)
        run.say_measured(2)

        assert run.stands() == ("measuring", 2, 2, None, None)
