"""The stamps of phases on disk: folded step by step, and read whatever became of whom."""

from __future__ import annotations

from pathlib import Path

from powerbench.records import PhaseSpan
from powerbench.rundir import RunDir
from powerbench.rundir.journal import Journal
from powerbench.rundir.load import load_run
from powerbench.rundir.marks import MarksWriter
from powerbench.rundir.phases import PHASES_HEADER, PhasesReader, new_phases_file, read_phases
from tests.rundir import a_cell, a_record, write_run

NAMES = ("copy", "forward")
ROWS = [PhaseSpan(0, "copy", 10, 12), PhaseSpan(0, "forward", 12, 20), PhaseSpan(1, "copy", 21, 23)]
ROWS.append(PhaseSpan(1, "forward", 23, 30))


def stamp(view: memoryview, *stamps: int) -> None:
    for at, moment in enumerate(stamps):
        view[at] = moment


class TestReader:
    def test_gives_each_step_once_as_far_as_it_is_asked(self, tmp_path: Path) -> None:
        view = new_phases_file(tmp_path / "phases-0.bin", NAMES, steps=5)
        stamp(view, 10, 12, 12, 20, 21, 23, 23, 30)
        reader = PhasesReader(tmp_path / "phases-0.bin", NAMES)

        assert reader.read(until=1) == ROWS[:2]
        assert reader.read(until=2) == ROWS[2:]
        assert reader.read(until=2) == []

    def test_passes_over_a_step_that_was_not_stamped_to_its_end(self, tmp_path: Path) -> None:
        view = new_phases_file(tmp_path / "phases-0.bin", NAMES, steps=5)
        stamp(view, 10, 12, 12, 0, 21, 23, 23, 30)

        assert PhasesReader(tmp_path / "phases-0.bin", NAMES).read(until=3) == ROWS[2:]

    def test_never_gives_the_scrap_behind_the_last_row(self, tmp_path: Path) -> None:
        view = new_phases_file(tmp_path / "phases-0.bin", NAMES, steps=1)
        stamp(view, 10, 12, 12, 20, 21, 23, 23, 30)

        assert PhasesReader(tmp_path / "phases-0.bin", NAMES).read(until=9) == ROWS[:2]

    def test_of_no_file_gives_nothing(self, tmp_path: Path) -> None:
        assert PhasesReader(tmp_path / "phases-0.bin", NAMES).read(until=9) == []
        assert PhasesReader(tmp_path / "phases-0.bin", ()).read(until=9) == []


class TestRun:
    def begin(self, folder: Path) -> tuple[RunDir, memoryview, memoryview]:
        record = a_record(status="running", cell=a_cell(phases=True))
        rundir = write_run(folder, record)
        marks = MarksWriter(rundir.marks(0), capacity=9).view
        stamp(marks, 9, 9, 20, 20, 30, 30)
        phases = new_phases_file(rundir.phase_marks(0), NAMES, steps=9)
        stamp(phases, 10, 12, 12, 20, 21, 23, 23, 30, 31, 33)  # and the third step was not ended
        return rundir, marks, phases

    def test_is_folded_into_rows_and_the_stamps_removed(self, tmp_path: Path) -> None:
        rundir, _, _ = self.begin(tmp_path)
        journal = Journal(rundir, rank=0, warmup=0, phases=NAMES)

        journal.update()
        assert read_phases(rundir.phases(0)) == ROWS
        journal.finish()

        assert rundir.phases(0).read_text().splitlines()[:2] == [PHASES_HEADER, "0,copy,10,12"]
        assert not rundir.phase_marks(0).exists()
        assert load_run(tmp_path).phases() == ROWS

    def test_is_read_from_the_stamps_where_nobody_could_fold_them(self, tmp_path: Path) -> None:
        self.begin(tmp_path)

        assert load_run(tmp_path).phases() == ROWS

    def test_is_read_from_both_where_only_some_were_folded(self, tmp_path: Path) -> None:
        rundir, marks, _ = self.begin(tmp_path)
        stamp(marks, 9, 9, 20, 20, 0, 0)
        Journal(rundir, rank=0, warmup=0, phases=NAMES).update()
        assert read_phases(rundir.phases(0)) == ROWS[:2]
        stamp(marks, 9, 9, 20, 20, 30, 30)

        assert load_run(tmp_path).phases() == ROWS

    def test_without_phases_has_no_such_files(self, tmp_path: Path) -> None:
        rundir = write_run(tmp_path, a_record())
        Journal(rundir, rank=0, warmup=0).finish()

        assert not list(tmp_path.glob("phases*"))
        assert load_run(tmp_path).phases() == []


def test_rows_are_read_up_to_one_that_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "phases-0.csv").write_text(f"{PHASES_HEADER}\n0,copy,10,12\n0,forward,12,2x\n1,copy,21,23\n")

    assert read_phases(tmp_path / "phases-0.csv") == ROWS[:1]
