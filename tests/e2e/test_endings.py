"""Each way a run can end, made for real: what the record says, what the command says, and what is kept."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from powerbench.analysis.summary import summarize
from powerbench.cli.run import EXIT_STATUS, show
from powerbench.pace import Progress
from powerbench.profile import make_cell, resolve
from powerbench.records import Cell, Gauge
from powerbench.reports.terminal import as_terminal
from powerbench.rundir.lines import read_telemetry
from powerbench.rundir.load import Run, load_run
from powerbench.session import record_run
from tests.e2e.commands import (
    SLEEP,
    Done,
    ended,
    marked_ns,
    nobody_is_left,
    powerbench,
    processes_of,
    report,
    rows_of,
    running_in,
    start,
    stepping_in,
    swept,
    told,
    wait_for,
)
from tests.e2e.workers.fenced import NAME as LIKE_MPS
from tests.e2e.workers.fenced import QUICK_FENCES

WORKERS = Path(__file__).parent / "workers"
REMEDY = "take a smaller --batch-size or --sequence-length"
S = 1_000_000_000
MB = 1_000_000
FIVE_STEPS = ["step"] * 5


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with swept(tmp_path):
        yield tmp_path


class Machine:
    """A machine's gauges, of which a test says how they stand."""

    def __init__(self, *, swapped_mb: float = 0, free_bytes: float = 1e18) -> None:
        self.swapped_mb = swapped_mb
        self._free_bytes = free_bytes

    def read(self) -> list[Gauge]:
        now = time.monotonic_ns()
        return [
            Gauge(now, "system.swap_out_bytes", self.swapped_mb * MB),
            Gauge(now, "system.memory_available_bytes", self._free_bytes),
        ]


def a_cell(**settings: object) -> Cell:
    options: dict[str, object] = {"model": "sleep", "device": "cpu", "warmup": 0, "steps": 20}
    return resolve(make_cell(options=options | settings), metered=False)


def worker(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-X", "faulthandler", str(WORKERS / script), *arguments]


def misbehaving(folder: Path, way: str, *, cell: Cell | None = None, machine: Machine | None = None) -> Run:
    """The run of a worker whose sixth step goes wrong in that way."""
    command = worker("misbehaving.py", way)
    return record_run(cell or a_cell(), parent=folder, command=command, machine=machine or Machine())


Says = Callable[[Run], str]


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Says:
    """What `powerbench run` says on stderr of a run that was not completed."""

    def said(run: Run) -> str:
        show(run, json=False)
        first, *rest = capsys.readouterr().err.strip().splitlines()
        again = "trace" if run.record.the_cell.trace else "report"
        assert rest == [f"Recorded in {run.path}", f"See it again with: powerbench {again} {run.path}"]
        return first.removeprefix("powerbench: ")

    return said


class TestOutOfMemory:
    def test_by_torch_s_own_allocator_names_what_it_wanted_and_the_remedy(self, folder: Path, says: Says) -> None:
        cell = a_cell(model="bert-tiny", mode="inference", batch_size=4096, sequence_length=512, batches=1)

        run = record_run(cell, parent=folder, command=worker("short_of_memory.py"), machine=Machine())

        assert run.record.status == "oom"
        assert re.fullmatch(
            r"The run was not completed \(oom\): \[enforce fail at alloc_cpu\.cpp:\d+\] err == 0\. "
            r"DefaultCPUAllocator: can't allocate memory: you tried to allocate \d+ bytes\. "
            rf"Error code 12 \(Cannot allocate memory\); {REMEDY}\.",
            says(run),
        )
        assert EXIT_STATUS.get(run.record.status, 1) == 1
        assert summarize("", run.record, run.steps[0]).peak_memory_bytes is not None

    def test_by_the_system_s_kill_in_a_container_has_the_kernel_s_counter_as_evidence(self, folder: Path) -> None:
        with MemoryCgroup(limit_bytes=256 << 20) as cgroup:
            supervisor = supervise(folder, a_cell(), worker("misbehaving.py", "eats"), preexec_fn=cgroup.enter)
            status, reason = Reports(ended(supervisor)).ending

        assert status == "oom"
        assert re.fullmatch(
            r"the worker was killed by SIGKILL: the system killed it for memory "
            rf"\(oom_kill in memory\.oom_control rose from \d+ to \d+\); {REMEDY}",
            reason,
        )
        assert load_run(running_in(folder)).steps[0].stage == FIVE_STEPS
        nobody_is_left(folder)

    def test_by_a_kill_when_hardly_any_memory_was_free(self, folder: Path) -> None:
        run = misbehaving(folder, "is_killed", machine=Machine(free_bytes=1.0))

        assert run.record.status == "oom"
        assert (run.record.reason or "").endswith(f"it was killed when 0.0% of the memory was free; {REMEDY}")

    def test_by_metal_s_word_is_never_complete_though_the_worker_goes_on(self, folder: Path) -> None:
        run = misbehaving(folder, "runs_out_on_metal")

        assert len(run.steps[0]) == 20
        assert run.record.status == "oom"
        assert run.record.reason == (
            "Metal gave up on work of the run: Error: command buffer exited with error status: Insufficient Memory "
            f"(00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory); {REMEDY}"
        )


class TestFailed:
    def test_by_a_kill_without_evidence_names_the_signal(self, folder: Path, says: Says) -> None:
        run = misbehaving(folder, "is_killed")

        assert says(run) == "The run was not completed (failed): the worker was killed by SIGKILL."
        assert run.steps[0].stage == FIVE_STEPS
        assert [row.step for row in rows_of(run.path)] == [0, 1, 2, 3, 4]

    def test_by_an_error_has_its_last_line_and_the_log(self, folder: Path, says: Says) -> None:
        run = misbehaving(folder, "raises")

        assert says(run) == (
            "The run was not completed (failed): the worker ended with exit status 1: "
            f"ValueError: the abacus has lost a bead (the whole story is in {run.path}/worker-0.log)."
        )
        assert "Traceback (most recent call last)" in (run.path / "worker-0.log").read_text()
        assert run.steps[0].stage == FIVE_STEPS

    def test_by_a_crash_in_native_code_names_the_signal_and_leaves_the_stack(self, folder: Path) -> None:
        run = misbehaving(folder, "crashes")

        assert run.record.status == "failed"
        assert run.record.reason == (
            "the worker was killed by SIGSEGV: Fatal Python error: Segmentation fault "
            f"(the whole story is in {run.path}/worker-0.log)"
        )
        assert "in crashes" in (run.path / "worker-0.log").read_text()
        assert run.steps[0].stage == FIVE_STEPS

    def test_by_metal_is_never_complete_though_the_worker_goes_on(self, folder: Path, says: Says) -> None:
        run = misbehaving(folder, "fails_on_metal")

        assert len(run.steps[0]) == 20
        assert run.record.status == "failed"
        assert says(run) == (
            "The run was not completed (failed): "
            "Metal gave up on work of the run: Error: command buffer exited with error status."
        )


class TestSwapping:
    def test_is_told_with_what_was_swapped_since_the_first_step(self, folder: Path, says: Says) -> None:
        machine = Machine(swapped_mb=5_000)

        def swap_while_measuring(progress: Progress) -> None:
            machine.swapped_mb += 700 if progress.stage == "measuring" else 100_000

        cell = a_cell(steps=100_000, sleep_ms=2, trace=True)
        run = record_run(cell, parent=folder, machine=machine, on_progress=swap_while_measuring, progress_period_s=0.5)

        assert run.record.status == "swapping"
        said = re.fullmatch(
            r"The run was not completed \(swapping\): the machine wrote ([\d,]+) MB to swap since the first step "
            r"\(limits\.swap_out_mb is 1000\), so it was the disk that was measured; take a smaller batch\.",
            says(run),
        )
        assert said is not None
        swapped_mb = int(said[1].replace(",", ""))
        assert swapped_mb % 700 == 0  # nothing of what was swapped before the first step
        assert 1_000 < swapped_mb < 100_000
        assert run.steps[0].stage.count("step") > 100
        assert summarize("", run.record, run.steps[0]).status == "swapping"

    def test_below_the_limit_is_no_reason_to_stop(self, folder: Path) -> None:
        machine = Machine(swapped_mb=5_000)

        def swap_a_little(progress: Progress) -> None:
            machine.swapped_mb += 1

        cell = a_cell(steps=200, sleep_ms=2, trace=True)
        run = record_run(cell, parent=folder, machine=machine, on_progress=swap_a_little, progress_period_s=0.1)

        assert (run.record.status, run.record.reason) == ("complete", None)

    def test_by_a_step_that_takes_too_long(self, folder: Path) -> None:
        limit = ("--set", "limits.step_seconds=0.5", "--set", "sleep_ms=2000")

        done = powerbench("run", "--model", "sleep", "--warmup", "0", *limit, "--json", "--output", folder)

        assert done.status == 1
        assert told(done) == (
            "The run was not completed (swapping): a step was not over after 0.5 s (limits.step_seconds); "
            "take a smaller batch or allow more."
        )
        summary = json.loads(done.stdout)
        assert (summary["status"], summary["steps"]) == ("swapping", 1)  # the step in flight was let end
        nobody_is_left(folder)


def test_out_of_time_is_told_with_the_limit(folder: Path) -> None:
    done = powerbench("run", *SLEEP, "--steps", "1000000", "--max-seconds", "1.5", "--output", folder)

    assert done.status == 1
    assert told(done) == (
        "The run was not completed (timeout): it was still running after 1.5 s (max_seconds); "
        "allow more or measure less."
    )
    assert "ms a step on average" in done.stdout
    nobody_is_left(folder)


class TestUnavailable:
    def test_by_the_worker_s_own_check_is_told_in_torch_s_words(self, folder: Path, says: Says) -> None:
        cell = msgspec.structs.replace(a_cell(), device="gone")

        run = record_run(cell, parent=folder, command=worker("unavailable.py"), machine=Machine())

        assert run.record.status == "unavailable"
        assert says(run) == (
            "The run was not completed (unavailable): "
            "torch finds no GPU that it can use: see whether `nvidia-smi` lists one."
        )
        assert EXIT_STATUS[run.record.status] == 3
        assert len(run.steps[0]) == 0

    @pytest.mark.parametrize("device", ["cuda", "mps", "xpu"])
    def test_by_name_is_exit_status_3_with_a_sentence_and_no_directory(self, folder: Path, device: str) -> None:
        from powerbench.devices import DEVICES

        reason = DEVICES[device].why_unavailable()
        if reason is None:
            pytest.skip(f"this machine has {device}")

        done = powerbench("run", "--device", device, "--output", folder / "runs")

        assert (done.status, done.stdout, told(done)) == (3, "", reason)
        assert not (folder / "runs").exists()


def test_an_operator_that_fell_back_to_the_processor_is_noted(folder: Path) -> None:
    run = misbehaving(folder, "falls_back")

    note = "These operators ran on the processor, not on the GPU (MPS fallback): aten::linalg_svd."
    assert run.record.status == "complete"
    assert note in summarize("", run.record, run.steps[0]).notes
    assert note in report(run.path)["notes"]
    assert f"Note: {note}" in " ".join(as_terminal([run]).split())


class TestAFenceThatHoldsTheGil:
    """On a device like mps: three quick steps, and a fourth whose fence lets no other Python of the worker run."""

    def test_hides_no_mark_and_is_killed_five_seconds_after_ctrl_c(self, folder: Path) -> None:
        run, supervisor = in_the_fence(folder, seconds=10)
        submitted_ns = marked_ns(run)[-1]
        wait_for(lambda: time.monotonic_ns() > submitted_ns + S, "a second of the fence")

        asked_ns = time.monotonic_ns()
        supervisor.send_signal(signal.SIGINT)
        done = Reports(ended(supervisor))

        assert 4 * S < time.monotonic_ns() - asked_ns < 8 * S
        assert done.ending == ("interrupted", "stopped by Ctrl-C or a signal")
        seen = done.between(submitted_ns, asked_ns)
        assert len(seen) >= 5  # the supervisor was not held up,
        assert set(seen) == {QUICK_FENCES}  # saw the step that was submitted and not over,
        assert len(done.between(asked_ns, asked_ns + 4 * S)) >= 20  # and went on after it was asked
        rows = rows_of(run)
        assert [row.step for row in rows] == [0, 1, 2, 3]
        assert [row.end_ns is None for row in rows] == [False, False, False, True]
        assert not marked_ns(run)
        memory = read_telemetry(run / "telemetry.csv")["worker0.rss_bytes"]
        assert sum(moment_ns > rows[-1].submit_ns for moment_ns, _ in memory) >= 3
        nobody_is_left(folder)

    def test_ends_the_run_within_two_seconds_of_its_own_end_after_ctrl_c(self, folder: Path) -> None:
        run, supervisor = in_the_fence(folder, seconds=2)

        supervisor.send_signal(signal.SIGINT)
        done = Reports(ended(supervisor))
        ended_ns = time.monotonic_ns()

        assert done.ending == ("interrupted", "stopped by Ctrl-C or a signal")
        rows = rows_of(run)
        assert [row.step for row in rows] == [0, 1, 2, 3]
        fenced_ns = rows[-1].end_ns
        assert fenced_ns is not None
        assert fenced_ns - rows[-1].submit_ns > 1.9 * S
        assert ended_ns - fenced_ns < 2 * S
        nobody_is_left(folder)

    def test_outlives_a_killed_supervisor_by_no_more_than_two_seconds_and_loses_nothing(self, folder: Path) -> None:
        run, supervisor = in_the_fence(folder, seconds=4)
        submitted_ns = marked_ns(run)[-1]

        supervisor.kill()
        ended(supervisor)
        assert processes_of(run)  # nothing of the worker can run now, not even its own end

        nobody_is_left(run, within_s=6)
        assert time.monotonic_ns() - submitted_ns < 6 * S
        loaded = load_run(run)
        assert loaded.record.status == "interrupted"
        assert re.fullmatch(r"its supervisor \(pid \d+\) is gone without having ended it", loaded.record.reason or "")
        assert len(loaded.steps[0]) >= QUICK_FENCES
        assert loaded.steps[0].submit_ns[QUICK_FENCES - 1] == submitted_ns


def in_the_fence(folder: Path, *, seconds: float) -> tuple[Path, subprocess.Popen[str]]:
    """A run whose worker has just entered its long fence, and its supervisor."""
    cell = msgspec.structs.replace(a_cell(steps=1_000_000, sleep_ms=5), device=LIKE_MPS)
    supervisor = supervise(folder, cell, worker("fenced.py", str(seconds)))
    return stepping_in(folder, steps=QUICK_FENCES), supervisor


def supervise(folder: Path, cell: Cell, command: list[str], **options: Any) -> subprocess.Popen[str]:
    """A supervisor as a process of its own; `options` are those of subprocess.Popen."""
    arguments: list[str | Path] = [folder, msgspec.json.encode(cell).decode(), *command]
    return start(*arguments, command=[sys.executable, str(WORKERS / "supervise.py")], **options)


class Reports:
    """What such a supervisor printed: reports of progress, and at last the ending."""

    def __init__(self, done: Done) -> None:
        assert done.status == 0, done.stderr
        *self._reports, ending = map(json.loads, done.stdout.splitlines())
        self.ending: tuple[str, str] = ending["status"], ending["reason"]

    def between(self, start_ns: int, end_ns: int) -> list[int]:
        """How many steps each report in that time had seen."""
        return [report["done"] for report in self._reports if start_ns < report["at_ns"] < end_ns]


class MemoryCgroup:
    """A cgroup below our own that may hold so much memory; skips the test where none can be made."""

    def __init__(self, *, limit_bytes: int) -> None:
        own = re.search(r"^\d+:memory:(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
        if own is None:
            pytest.skip("no cgroup of version 1 limits memory here")
        self._folder = Path(f"/sys/fs/cgroup/memory{own[1]}/powerbench-{os.getpid()}")
        self._limit_bytes = limit_bytes

    def __enter__(self) -> MemoryCgroup:
        try:
            self._folder.mkdir()
            (self._folder / "memory.limit_in_bytes").write_text(str(self._limit_bytes))
        except OSError as error:
            pytest.skip(f"no cgroup can be made in {self._folder.parent}: {error.strerror}")
        return self

    def __exit__(self, *_: object) -> None:
        wait_for(lambda: not (self._folder / "cgroup.procs").read_text(), "an empty cgroup")
        self._folder.rmdir()

    def enter(self) -> None:
        """Move this process, and those that it will start, inside."""
        (self._folder / "cgroup.procs").write_text(str(os.getpid()))
