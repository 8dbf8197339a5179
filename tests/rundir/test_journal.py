"""The journal: each step is one row, once, and the marks stay until every row is written."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerbench.records import Supervisor
from powerbench.rundir import RunDir
from powerbench.rundir.journal import Journal
from powerbench.rundir.lines import STEPS_HEADER, EventWriter
from powerbench.rundir.load import load_run, read_rank
from powerbench.rundir.marks import MarksWriter
from tests.rundir import a_cell, a_record, rows_of, write_marks


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def written(rundir: RunDir) -> list[str]:
    header, *rows = rundir.steps(0).read_text().splitlines()
    assert header == STEPS_HEADER
    return rows


def test_a_journal_of_nothing_has_a_header_and_leaves_no_marks(rundir: RunDir) -> None:
    journal = Journal(rundir, rank=0, warmup=5)
    journal.update()
    journal.finish()

    assert written(rundir) == []
    assert [path.name for path in rundir.path.iterdir()] == ["steps-0.csv"]


def test_steps_become_rows_as_they_are_decided(rundir: RunDir) -> None:
    view = MarksWriter(rundir.marks(0), capacity=4).view
    journal = Journal(rundir, rank=0, warmup=1)
    seen = []
    for at, (submit, end) in enumerate([(9, 10), (18, 20), (29, 0), (38, 40)]):
        view[2 * at], view[2 * at + 1] = submit, end
        journal.update()
        seen.append(written(rundir))

    first, rest = ["0,warmup,10,18,20"], ["1,step,20,29,", "2,step,20,38,40"]
    assert seen == [[], first, first, first + rest]
    assert rows_of(journal.trace) == first + rest


def test_the_end_writes_also_what_has_no_edge_and_removes_the_marks(rundir: RunDir) -> None:
    write_marks(rundir, [(10, 10), (20, 20), (30, 0)])
    journal = Journal(rundir, rank=0, warmup=0)

    journal.finish()

    assert written(rundir) == ["0,step,10,20,20", "1,step,20,30,"]
    assert not rundir.marks(0).exists()


def test_the_tail_begins_where_the_worker_said(rundir: RunDir) -> None:
    view = MarksWriter(rundir.marks(0), capacity=4).view
    journal, worker = Journal(rundir, rank=0, warmup=1), EventWriter(rundir.events(0))
    for at in range(3):
        view[2 * at] = view[2 * at + 1] = 10 * (at + 1)
    journal.update()
    worker.write("window", time_ns=31, first_step=1, steps=1)
    view[6] = view[7] = 40
    journal.finish()

    assert journal.measured == 1
    assert written(rundir) == ["0,warmup,10,20,20", "1,step,20,30,30", "2,tail,30,40,40"]


def test_events_are_known_by_name_once_they_have_come(rundir: RunDir) -> None:
    journal, worker = Journal(rundir, rank=0, warmup=0), EventWriter(rundir.events(0))
    assert (journal.event("end"), journal.measured) == (None, None)

    worker.write("end", time_ns=1, outcome="complete")
    journal.update()
    worker.write("end", time_ns=2, outcome="failed")
    journal.update()

    assert journal.event("end") == {"event": "end", "time_ns": 1, "outcome": "complete"}
    assert len(journal.events) == 2


def test_of_a_killed_supervisor_and_worker_the_rows_and_the_marks_make_one_trace(rundir: RunDir) -> None:
    rundir.write_record(a_record(status="running", supervisor=Supervisor(2**22 + 1, 0.0), cell=a_cell(warmup=1)))
    view = MarksWriter(rundir.marks(0), capacity=9).view
    journal = Journal(rundir, rank=0, warmup=1)
    for at in range(3):
        view[2 * at] = view[2 * at + 1] = 10 * (at + 1)
    journal.update()
    for at in range(3, 5):
        view[2 * at] = view[2 * at + 1] = 10 * (at + 1)

    run = load_run(rundir.path)

    assert len(written(rundir)) == 2
    assert rows_of(run.steps[0]) == ["0,warmup,10,20,20", "1,step,20,30,30", "2,step,30,40,40", "3,step,40,50,50"]
    assert run.record.status == "interrupted"


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 10**10), min_size=1, max_size=30),
    st.sets(st.integers(0, 30)),
    st.integers(0, 5),
    st.booleans(),
)
def test_however_often_it_was_updated_and_whether_or_not_it_was_finished_the_steps_read_back_are_the_marks(
    lengths: list[int], updates: set[int], warmup: int, is_finished: bool
) -> None:
    with TemporaryDirectory() as folder:
        rundir = RunDir(Path(folder))
        view = MarksWriter(rundir.marks(0), capacity=len(lengths)).view
        journal = Journal(rundir, rank=0, warmup=warmup)
        edges = [1]
        view[0] = view[1] = 1
        for at, length in enumerate(lengths, 1):
            edges.append(edges[-1] + length)
            view[2 * at] = view[2 * at + 1] = edges[-1]
            if at in updates:
                journal.update()
        if is_finished:
            journal.finish()

        trace, _ = read_rank(rundir, 0, warmup)

    assert list(zip(trace.start_ns, trace.end_ns, strict=True)) == list(pairwise(edges))
    assert trace.stage == ["warmup" if step < warmup else "step" for step in range(len(lengths))]
