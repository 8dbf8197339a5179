"""A run reads back whatever became of it: finished, running, killed, cut off at any byte, from an older version."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path, PosixPath
from typing import Any

import msgspec
import psutil
import pytest

from powerbench.analysis.summary import summarize
from powerbench.environment import boot_id
from powerbench.errors import PowerbenchError
from powerbench.records import SCHEMA, Clock, OperatorTimes, RunRecord, Stage, Supervisor, Window
from powerbench.rundir import RunDir
from powerbench.rundir.completed import measured_steps
from powerbench.rundir.journal import Journal
from powerbench.rundir.lines import EventWriter
from powerbench.rundir.load import find_runs, is_alive, load_run
from powerbench.rundir.marks import MarksWriter
from powerbench.rundir.operators import write_operators
from tests.rundir import (
    GOLDEN,
    MS,
    NOBODY,
    START,
    a_cell,
    a_record,
    rows_of,
    steps_lasting,
    write_marks,
    write_run,
)

READY = {
    "event": "ready",
    "time_ns": 3,
    "device": {"kind": "cpu", "name": "Abacus 4000", "timer": "clock"},
    "workload": {"samples_per_step": 16, "parameters": 7, "flop_per_step": 2e9},
    "environment": {"threads": 2},
}
WINDOW = {"event": "window", "time_ns": 4, "first_step": 0, "steps": 2}
END = {"event": "end", "time_ns": 5, "outcome": "complete", "peak_memory_bytes": 123, "peak_memory_of": "all of it"}
RSS = "worker0.rss_bytes"


def myself() -> Supervisor:
    return Supervisor(os.getpid(), psutil.Process().create_time())


def this_boot() -> Clock:
    return Clock(boot_id=boot_id(), start_monotonic_ns=1, start_unix_ns=2)


def a_running_record(**changes: Any) -> RunRecord:
    return a_record(**{"status": "running", "supervisor": NOBODY, "device": None, "workload": None} | changes)


class TestGolden:
    """`powerbench run --model sleep --steps 20 --set sleep_ms=2`, by the version that brought schema 1."""

    run = load_run(GOLDEN / "schema-1")

    def test_the_record_is_all_there(self) -> None:
        record = self.run.record

        assert (record.schema, record.status, record.reason) == (1, "complete", None)
        assert record.id == "20261123T212129Z-cpu-sleep-training-b32-s128"
        assert (record.the_cell.model, record.the_cell.steps, record.the_cell.warmup, record.the_cell.sleep_ms) == (
            "sleep",
            20,
            5,
            2.0,
        )
        assert (record.clock.start_monotonic_ns, record.clock.end_monotonic_ns) == (2447176669262, 2447490999394)
        assert record.environment["host"] == "example"
        assert record.device is not None
        assert (record.device.kind, record.device.name, record.device.timer) == ("cpu", "AMD EPYC", "clock")
        assert record.workload is not None
        assert (record.workload.samples_per_step, record.workload.flop_per_step) == (32, None)
        assert record.windows == {
            "warmup": Window(2447393697003, 2447404357745),
            "measured": Window(2447404357745, 2447449929093),
        }

    def test_the_steps_are_all_there(self) -> None:
        steps = self.run.steps[0]

        assert steps.stage == ["warmup"] * 5 + ["step"] * 20
        assert (steps.start_ns[0], steps.submit_ns[0], steps.end_ns[0]) == (2447393697003, 2447395826313, 2447395826313)
        assert (steps.start_ns[-1], steps.end_ns[-1]) == (2447447827885, 2447449929093)

    def test_the_summary_says_what_it_always_said(self) -> None:
        summary = summarize("golden", self.run.record, self.run.steps[0])

        assert (summary.steps, summary.warmup_steps) == (20, 5)
        assert summary.wall_s == 0.045571348
        assert summary.wall_s_100_steps == pytest.approx(0.22785674)
        assert summary.latency_ms is not None
        assert msgspec.to_builtins(summary.latency_ms) == pytest.approx(
            {"mean": 2.2785674, "median": 2.107745, "p5": 2.09217345, "p95": 2.3126944, "min": 2.08595, "max": 5.552012}
        )
        assert summary.samples_per_s == pytest.approx(640 / 0.045571348)
        assert summary.tflop_per_s is None
        assert summary.peak_memory_bytes == 36466688


class TestGoldenOfAProgram:
    """`powerbench.record(..., device="cpu", batch_size=4, warmup=2)`: 22 steps, a pause behind the twelfth."""

    run = load_run(GOLDEN / "schema-2")

    def test_the_cell_says_what_was_told_and_nothing_else(self) -> None:
        record = self.run.record
        cell = record.the_cell

        assert (record.schema, record.loop, record.status) == (2, True, "complete")
        assert (cell.device, cell.model, cell.batch_size, cell.warmup) == ("cpu", "mine", 4, 2)
        assert (cell.mode, cell.sequence_length, cell.steps, cell.dtype, cell.dataset, cell.seed) == (None,) * 6

    def test_the_pause_is_in_no_figure(self) -> None:
        steps = self.run.steps[0]
        summary = summarize("golden", self.run.record, steps)

        assert steps.stage == ["warmup"] * 2 + ["step"] * 10 + ["pause"] + ["step"] * 10
        assert summary.steps == 20
        assert summary.wall_s == pytest.approx(0.100397385 - 0.050126238)
        assert summary.samples_per_s == pytest.approx(80 / (0.100397385 - 0.050126238))


@pytest.mark.parametrize("name", ["steps-0.csv", "worker-0.jsonl", "telemetry.csv"])
@pytest.mark.parametrize("status", ["complete", "running"])
def test_a_run_whose_file_was_cut_off_at_any_byte_loads(tmp_path: Path, name: str, status: str) -> None:
    """As a crash of the machine leaves it: rows are not synced to disk."""
    rundir = RunDir(shutil.copytree(GOLDEN / "schema-1", tmp_path / "run"))
    rundir.write_record(msgspec.structs.replace(load_run(rundir.path).record, status=status, supervisor=NOBODY))
    whole = (rundir.path / name).read_bytes()
    rows = (rundir.path / "steps-0.csv").read_text().splitlines()[1:]

    for size in range(len(whole) + 1):
        (rundir.path / name).write_bytes(whole[:size])
        run = load_run(rundir.path)
        kept = max(0, whole[:size].count(b"\n") - 1) if name == "steps-0.csv" else len(rows)
        assert rows_of(run.steps[0]) == rows[:kept]


class TestARunningRun:
    def test_is_running_while_its_supervisor_lives(self, tmp_path: Path) -> None:
        record = a_running_record(supervisor=myself(), clock=this_boot())
        write_run(tmp_path, record, rows=rows_of(steps_lasting(10, 20)))

        run = load_run(tmp_path)

        assert (run.record.status, run.record.reason) == ("running", None)
        assert run.record.windows == {"measured": Window(START, START + 30 * MS)}

    def test_of_another_machine_is_not_known_to_be_over(self, tmp_path: Path) -> None:
        """A folder that machines share shows what another one writes, and not whether its processes live."""
        write_run(tmp_path, a_running_record(environment={"host": "beta"}), rows=rows_of(steps_lasting(10, 20)))

        run = load_run(tmp_path)

        assert (run.record.status, run.record.reason) == (
            "running",
            f"its supervisor (pid {NOBODY.pid}) is on beta, and whether it is still at work is seen there alone",
        )

    def test_whose_supervisor_is_gone_is_interrupted_with_all_that_it_recorded(self, tmp_path: Path) -> None:
        record = a_running_record()
        write_run(tmp_path, record, rows=rows_of(steps_lasting(10, 20, 30)), events=[READY, WINDOW, END])

        run = load_run(tmp_path)

        assert run.record.status == "interrupted"
        assert run.record.reason == f"its supervisor (pid {NOBODY.pid}) is gone without having ended it"
        assert len(run.steps[0]) == 3
        assert run.record.device is not None
        assert run.record.device.name == "Abacus 4000"
        assert run.record.workload is not None
        assert run.record.workload.flop_per_step == 2e9
        assert run.record.environment["threads"] == 2
        assert (run.record.peak_memory_bytes, run.record.peak_memory_of) == (123, "all of it")

    def test_that_never_said_anything_has_no_steps_and_no_device(self, tmp_path: Path) -> None:
        RunDir(tmp_path).write_record(a_running_record())

        run = load_run(tmp_path)

        assert (run.record.status, run.record.device, run.record.windows) == ("interrupted", None, {})
        assert len(run.steps[0]) == 0

    def test_without_rows_is_read_from_its_marks(self, tmp_path: Path) -> None:
        rundir = write_run(tmp_path, a_running_record(cell=a_cell(warmup=1)), events=[READY, WINDOW])
        write_marks(rundir, [(10, 10), (20, 20), (30, 30), (40, 40), (50, 50)], room=100)

        assert load_run(tmp_path).steps[0].stage == ["warmup", "step", "step", "tail"]

    def test_whose_last_rows_are_damaged_has_them_from_its_marks(self, tmp_path: Path) -> None:
        rows = ["0,step,10,20,20", "1,step,20,\0\0\0\0\0", "2,step,30,40,40"]
        rundir = write_run(tmp_path, a_running_record(), rows=rows)
        write_marks(rundir, [(10, 10), (20, 20), (30, 30), (40, 40)])

        assert rows_of(load_run(tmp_path).steps[0]) == ["0,step,10,20,20", "1,step,20,30,30", "2,step,30,40,40"]

    def test_has_the_largest_sampled_memory_where_the_worker_never_told_its_own(self, tmp_path: Path) -> None:
        rundir = write_run(tmp_path, a_running_record())
        rundir.telemetry.write_text(f"time_ns,name,value\n1,{RSS},100\n2,{RSS},3.0e+02\n3,{RSS},200\n4,other,900\n")

        record = load_run(tmp_path).record

        assert (record.peak_memory_bytes, record.peak_memory_of) == (300, "the worker's resident memory, as sampled")


class TestARunThatEndsWhileItIsRead:
    """The writers go on just before or just behind the reader's look at one file."""

    MOMENTS = (
        "before run.json",
        "before marks-0.bin",
        *("before steps-0.csv", "behind steps-0.csv"),
        *("before worker-0.jsonl", "behind worker-0.jsonl"),
    )
    MARKS = ((10, 10), (20, 20), (30, 30), (40, 40))
    ROWS = ("0,warmup,10,20,20", "1,step,20,30,30", "2,step,30,40,40")

    @pytest.mark.parametrize("moment", MOMENTS)
    @pytest.mark.parametrize("is_ended", [False, True])
    def test_misses_no_step_that_moves_from_the_marks_to_the_rows(
        self, tmp_path: Path, moment: str, is_ended: bool
    ) -> None:
        record = a_running_record(cell=a_cell(warmup=1), supervisor=myself(), clock=this_boot())
        rundir = write_run(tmp_path, record, events=[READY])
        view = MarksWriter(rundir.marks(0), capacity=9).view
        journal = Journal(rundir, rank=0, warmup=1)
        for at, (submit, end) in enumerate(self.MARKS):
            view[2 * at], view[2 * at + 1] = submit, end
            if at == 1:
                journal.update()

        def finish() -> None:
            journal.finish()
            if is_ended:
                rundir.write_record(msgspec.structs.replace(record, status="complete"))

        run = load_run(path_where(tmp_path, moment, finish))

        assert rows_of(run.steps[0]) == list(self.ROWS)
        assert not rundir.marks(0).exists()

    @pytest.mark.parametrize("moment", MOMENTS)
    def test_is_not_called_interrupted(self, tmp_path: Path, moment: str) -> None:
        record = a_running_record(clock=this_boot())  # by then its supervisor has ended the run, and is gone
        rundir = write_run(tmp_path, record, rows=self.ROWS, events=[READY])
        write_marks(rundir, self.MARKS)

        run = load_run(path_where(tmp_path, moment, lambda: rundir.write_record(a_record())))

        assert (run.record.status, run.record.reason) == ("complete", None)
        assert rows_of(run.steps[0]) == list(self.ROWS)

    @pytest.mark.parametrize("moment", MOMENTS)
    def test_has_no_step_of_the_tail_among_the_measured_ones(self, tmp_path: Path, moment: str) -> None:
        rundir = write_run(tmp_path, a_running_record(tail_s=1.0), events=[READY])
        view = MarksWriter(rundir.marks(0), capacity=9).view

        def mark(first: int, last: int) -> None:
            for at in range(first, last):
                view[2 * at] = view[2 * at + 1] = 10 * (at + 1)

        def go_on_into_the_tail() -> None:
            mark(2, 3)
            EventWriter(rundir.events(0)).write("window", time_ns=31, first_step=0, steps=2)
            mark(3, 6)

        mark(0, 2)
        run = load_run(path_where(tmp_path, moment, go_on_into_the_tail))

        stages = run.steps[0].stage
        assert stages == (["step"] * 2 + ["tail"] * 3)[: len(stages)]
        assert stages[:1] == ["step"]


def path_where(folder: Path, moment: str, happens: Callable[[], None]) -> Path:
    """`folder`, where something happens once, just before or just behind the first read of a file in it."""
    when, name = moment.split()
    to_do = [happens]

    class Watched(PosixPath):
        def open(self, *args: Any, **kwargs: Any) -> Any:
            if self.name != name or not to_do:
                return super().open(*args, **kwargs)
            it_happens = to_do.pop()
            if when == "before":
                it_happens()
                return super().open(*args, **kwargs)
            as_it_was = BytesIO(self.read_bytes())
            it_happens()
            return as_it_was

    return Watched(folder)


def test_a_row_that_is_out_of_order_ends_the_trace(tmp_path: Path) -> None:
    write_run(tmp_path, a_record(), rows=["0,step,10,20,20", "2,step,20,30,30"])

    assert rows_of(load_run(tmp_path).steps[0]) == ["0,step,10,20,20"]


@pytest.mark.parametrize("stage", ["warmup", "step", "tail"])
def test_a_row_without_an_edge_reads_back(tmp_path: Path, stage: Stage) -> None:
    rows = [f"0,{stage},10,20,", f"1,{stage},10,30,35"]
    write_run(tmp_path, a_record(), rows=rows)

    assert rows_of(load_run(tmp_path).steps[0]) == rows


class TestASupervisor:
    def test_that_runs_is_alive(self) -> None:
        assert is_alive(myself(), boot_id())

    def test_of_another_boot_is_gone(self) -> None:
        assert not is_alive(myself(), "another boot")

    def test_that_runs_no_more_is_gone(self) -> None:
        assert not is_alive(NOBODY, boot_id())

    def test_whose_pid_a_later_process_has_is_gone(self) -> None:
        me = myself()

        assert not is_alive(Supervisor(me.pid, me.start_time_s - 60), boot_id())


def test_the_measured_steps_are_known_once_the_worker_has_said_them() -> None:
    assert measured_steps([READY]) is None
    assert measured_steps([READY, WINDOW]) == 2


def no_folder(folder: Path) -> str:
    folder.rmdir()
    return (
        f"{folder} is not a run: it holds no run.json. Name the folder that `powerbench run` printed, or runs/latest."
    )


def an_empty_folder(folder: Path) -> str:
    return (
        f"{folder} is not a run: it holds no run.json. Name the folder that `powerbench run` printed, or runs/latest."
    )


def a_folder_for_a_record(folder: Path) -> str:
    (folder / "run.json").mkdir()
    return f"Cannot read {folder}/run.json: Is a directory; see to its permissions."


def a_newer_run(folder: Path) -> str:
    (folder / "run.json").write_text(f'{{"schema": {SCHEMA + 1}, "what": "comes later"}}')
    return (
        f"{folder} was written by a newer powerbench (schema {SCHEMA + 1}; this one reads up to {SCHEMA}). "
        "Upgrade powerbench to read it."
    )


def an_empty_record(folder: Path) -> str:
    (folder / "run.json").touch()
    return f"{folder}/run.json is no run record (Input data was truncated); name another folder."


def a_record_of_something_else(folder: Path) -> str:
    (folder / "run.json").write_text('{"name": "left-pad"}')
    return f"{folder}/run.json is no run record (Object missing required field `schema`); name another folder."


def a_record_with_a_hole(folder: Path) -> str:
    (folder / "run.json").write_text(f'{{"schema": {SCHEMA}}}')
    why = "Object missing required field `id`"
    return f"{folder}/run.json is damaged ({why}); its CSV files can still be read."


@pytest.mark.parametrize(
    "spoil",
    [
        no_folder,
        an_empty_folder,
        a_folder_for_a_record,
        a_newer_run,
        an_empty_record,
        a_record_of_something_else,
        a_record_with_a_hole,
    ],
)
def test_what_is_no_run_or_none_that_we_can_read_is_refused_in_a_sentence(
    tmp_path: Path, spoil: Callable[[Path], str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    sentence = spoil(folder)

    with pytest.raises(PowerbenchError) as caught:
        load_run(folder)

    assert str(caught.value) == sentence


def test_a_record_cut_off_anywhere_is_refused_in_a_sentence(tmp_path: Path) -> None:
    whole = (GOLDEN / "schema-1" / "run.json").read_bytes().rstrip()

    for size in range(0, len(whole), 3):
        (tmp_path / "run.json").write_bytes(whole[:size])
        with pytest.raises(PowerbenchError, match=r"run\.json is"):
            load_run(tmp_path)


def test_a_record_that_is_not_utf_8_is_refused_in_a_sentence(tmp_path: Path) -> None:
    whole = (GOLDEN / "schema-1" / "run.json").read_bytes()
    (tmp_path / "run.json").write_bytes(whole.replace(b"2026", b"\xff\xff\xff\xff", 1))

    with pytest.raises(PowerbenchError, match="damaged"):
        load_run(tmp_path)


def test_a_line_that_is_no_event_of_ours_is_passed_over(tmp_path: Path) -> None:
    rundir = write_run(tmp_path, a_record(), rows=[])
    rundir.events(0).write_text("{}\n")

    assert load_run(tmp_path).record.status == "complete"


def test_steps_under_the_profiler_are_a_stretch_of_the_run_with_the_operators_that_it_told(tmp_path: Path) -> None:
    steps = [{"start_ns": START + at * MS, "end_ns": START + (at + 5) * MS} for at in (100, 110, 120)]
    said = {"event": "operators", "time_ns": 9, "steps": steps, "device": "cuda", "monotonic_ns": 3, "unix_ns": 4}
    rundir = write_run(tmp_path, a_running_record(cell=a_cell(torch_profiler=True)), events=[READY, WINDOW, END, said])
    times = OperatorTimes("aten::mm", "cpu", 2.0, 3.0, 4.0, 5.0, 5.0)
    write_operators(rundir.operators, [times])

    run = load_run(tmp_path)

    assert run.record.windows["profiler"] == Window(START + 100 * MS, START + 125 * MS)
    assert run.record.profiler is not None
    assert (run.record.profiler.device, run.record.profiler.reason) == ("cuda", None)
    assert run.operators() == [times]


def test_operators_of_which_the_worker_has_not_told_are_not_read(tmp_path: Path) -> None:
    rundir = write_run(tmp_path, a_running_record(cell=a_cell(torch_profiler=True)), events=[READY, WINDOW, END])
    write_operators(rundir.operators, [OperatorTimes("aten::mm", "cpu", 2.0, 3.0, 4.0, None, None)])

    run = load_run(tmp_path)

    assert (run.record.profiler, run.operators(), run.torch_trace()) == (None, [], None)
    assert "profiler" not in run.record.windows


@pytest.mark.parametrize(
    ("recompiled", "notes"),
    [
        (0, []),
        (1, ["torch.compile made 1 graph more while the steps were timed; some steps hold that time."]),
        (2, ["torch.compile made 2 graphs more while the steps were timed; some steps hold that time."]),
    ],
)
def test_what_was_compiled_while_steps_were_timed_is_noted(tmp_path: Path, recompiled: int, notes: list[str]) -> None:
    window = WINDOW | {"recompiled": recompiled}
    write_run(tmp_path, a_running_record(), rows=rows_of(steps_lasting(10, 20)), events=[READY, window])

    assert load_run(tmp_path).record.notes == notes


class TestFindingRuns:
    def test_a_run_is_itself(self, tmp_path: Path) -> None:
        write_run(tmp_path / "a", a_record())

        assert find_runs(tmp_path / "a") == [tmp_path / "a"]

    def test_a_folder_holds_runs_and_sweeps_of_runs(self, tmp_path: Path) -> None:
        (tmp_path / "sweep").mkdir()
        for name in ("b", "a", "sweep/2", "sweep/1"):
            write_run(tmp_path / name, a_record())

        assert find_runs(tmp_path) == [tmp_path / name for name in ("a", "b", "sweep/1", "sweep/2")]

    def test_a_link_is_followed_where_it_is_named_and_passed_over_inside(self, tmp_path: Path) -> None:
        write_run(tmp_path / "a", a_record())
        (tmp_path / "latest").symlink_to("a")

        assert find_runs(tmp_path) == [tmp_path / "a"]
        assert find_runs(tmp_path / "latest") == [tmp_path / "a"]

    @pytest.mark.parametrize("name", ["", "nowhere"])
    def test_without_a_run_says_what_to_name(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(PowerbenchError, match=r"There is no run in .*: name the folder"):
            find_runs(tmp_path / name)
