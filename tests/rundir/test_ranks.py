"""A run of several ranks loads from the files of each, finished, still running, or killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from powerbench.records import RunRecord, Window
from powerbench.reports.summaries import summarize_run
from powerbench.rundir import RunDir
from powerbench.rundir.completed import complete_ranks
from powerbench.rundir.load import load_run
from powerbench.rundir.marks import MarksWriter
from powerbench.rundir.work import new_work_file
from tests.ranked import a_gpu, machine_record, trace_of, two_machines, two_ranks, write_ranks
from tests.rundir import GOLDEN, MS, NOBODY, START, rows_of

WINDOW = {"event": "window", "time_ns": 4, "first_step": 0, "steps": 3}


def ready(uuid: str, *notes: str) -> dict[str, Any]:
    device = msgspec.to_builtins(a_gpu(uuid))
    work = {"samples_per_step": 32, "notes": list(notes)}
    return {"event": "ready", "time_ns": 3, "device": device, "workload": work, "environment": {"threads": 2}}


def end(size: int) -> dict[str, Any]:
    return {"event": "end", "time_ns": 5, "outcome": "complete", "peak_memory_bytes": size, "peak_memory_of": "its own"}


def a_running_record(**changes: Any) -> RunRecord:
    record = machine_record(device=None, devices=[], workload=None, supervisor=NOBODY, **changes)
    return msgspec.structs.replace(record, status="running", environment={})


class TestGolden:
    """`powerbench run --model bert-tiny --ranks 2 --batch-size 2 --sequence-length 16 --steps 24 --warmup 3`."""

    run = load_run(GOLDEN / "ranks-schema-1")

    def test_the_record_is_all_there(self) -> None:
        record = self.run.record

        assert (record.schema, record.status, record.ranks, record.node) == (1, "complete", 2, None)
        assert (record.the_cell.model, record.the_cell.ranks, record.the_cell.nnodes) == ("bert-tiny", 2, 1)
        assert [device.name for device in record.devices] == ["AMD EPYC"] * 2
        assert record.workload is not None
        assert (record.workload.samples_per_step, record.workload.parameters) == (4, 4386178)
        assert record.windows["measured"] == Window(13041249973834, 13046475844868)

    def test_the_steps_and_the_work_of_each_rank_are_all_there(self) -> None:
        assert [steps.stage for steps in self.run.steps] == [["warmup"] * 3 + ["step"] * 24] * 2
        assert (self.run.steps[0].start_ns[0], self.run.steps[1].end_ns[-1]) == (13040481907523, 13046475844868)
        assert [len(self.run.work(rank)) for rank in self.run.ranks] == [27, 27]
        assert (self.run.work(0)[0], self.run.work(1)[26]) == (91691946, 45995994)
        assert [event["event"] for event in self.run.events(1)] == ["started", "ready", "gc", "window", "end"]

    def test_the_summary_says_what_it_always_said(self) -> None:
        summary = summarize_run(self.run)

        assert (summary.steps, summary.ranks, summary.global_batch_size) == (24, 2, 4)
        assert summary.wall_s == 5.225871034
        assert summary.samples_per_s == pytest.approx(24 * 4 / 5.225871034)
        assert [(it.rank, it.since_step) for it in summary.stragglers or []] == [(1, 0)]
        assert [it.own_work_ms for it in summary.per_rank or []] == pytest.approx([29.1852475, 50.3087825])
        assert (summary.peak_memory_bytes, self.run.record.peak_memory_of) == (
            573136896,
            "the worker's resident memory; that of rank 0, the largest of 2 ranks",
        )


def test_a_finished_run_has_the_steps_and_the_work_of_each_rank(tmp_path: Path) -> None:
    run = load_run(two_ranks(tmp_path / "run"))

    assert run.ranks == [0, 1]
    assert [rows_of(steps) for steps in run.steps] == [rows_of(trace_of([20] * 100))] * 2
    assert run.work(1) == dict.fromkeys(range(100), 18 * MS)
    assert run.machines == [run]


def test_a_step_of_the_whole_takes_as_long_as_its_slowest_rank(tmp_path: Path) -> None:
    steps = [trace_of([20, 20, 20]), trace_of([25, 10, 30])]
    run = load_run(write_ranks(tmp_path / "run", machine_record(), steps))

    assert [end - start for start, end, _ in run.together.spans("step")] == [25 * MS, 15 * MS, 25 * MS]


def test_a_machines_ranks_have_their_numbers_in_the_whole_run(tmp_path: Path) -> None:
    _, other = two_machines(tmp_path)
    run = load_run(other)

    assert run.ranks == [2, 3]
    assert (len(run.work(2)), run.work(0)) == (100, {})


class TestAKilledRun:
    def test_has_what_each_rank_said_and_did_as_far_as_all_of_them_came(self, tmp_path: Path) -> None:
        path = write_ranks(
            tmp_path / "run",
            a_running_record(),
            [trace_of([20, 20, 20]), trace_of([30, 10])],
            events={0: [ready("a", "It rained."), WINDOW, end(100)], 1: [ready("b", "It rained.", "It snowed.")]},
        )
        record = load_run(path).record

        assert (record.status, record.ranks) == ("interrupted", 2)
        assert (record.device, record.devices) == (a_gpu("a"), [a_gpu("a"), a_gpu("b")])
        assert record.windows == {"measured": Window(START, START + 40 * MS)}
        assert record.notes == ["It rained.", "It snowed."]
        assert record.environment == {"threads": 2}
        assert (record.peak_memory_bytes, record.peak_memory_of) == (
            100,
            "its own; that of rank 0, the largest of 1 rank",
        )

    def test_whose_rank_never_said_a_word_has_no_devices_and_no_step(self, tmp_path: Path) -> None:
        record = a_running_record()
        path = write_ranks(tmp_path / "run", record, [trace_of([20]), trace_of([])], events={0: [ready("a")]})
        run = load_run(path)

        assert (run.record.device, run.record.devices, run.record.windows) == (a_gpu("a"), [], {})
        assert len(run.together) == 0

    def test_is_read_from_the_marks_of_each_rank(self, tmp_path: Path) -> None:
        rundir = RunDir(tmp_path)
        rundir.write_record(a_running_record())
        for rank in range(2):
            marks = MarksWriter(rundir.marks(rank), capacity=9).view
            for at, time_ns in enumerate((10, 20 + rank, 30)):
                marks[2 * at] = marks[2 * at + 1] = time_ns
        work = new_work_file(rundir.work_marks(1), steps=9)
        work[0], work[1] = 19, 9
        run = load_run(tmp_path)

        assert rows_of(run.together) == ["0,step,10,21,21", "1,step,21,30,30"]
        assert (run.work(0), run.work(1)) == ({}, {0: 9})

    def test_has_the_largest_memory_that_was_sampled_of_any_rank(self, tmp_path: Path) -> None:
        rundir = RunDir(tmp_path)
        rundir.write_record(a_running_record())
        rundir.telemetry.write_text("time_ns,name,value\n1,worker0.rss_bytes,100\n2,worker1.rss_bytes,300\n")
        record = load_run(tmp_path).record

        assert (record.peak_memory_bytes, record.peak_memory_of) == (
            300,
            "the worker's resident memory, as sampled; that of rank 1, the largest of 2 ranks",
        )


def test_of_one_rank_nothing_is_said_of_ranks() -> None:
    record = complete_ranks(machine_record(ranks=1, device=None, devices=[]), [(trace_of([20]), [ready("a"), end(7)])])

    assert (record.device, record.devices, record.peak_memory_of) == (a_gpu("a"), [], "its own")
