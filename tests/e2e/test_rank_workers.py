"""Two ranks for real, by torch's launcher and over gloo: what is timed is training, together and to the same step."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from powerbench.records import RunRecord
from powerbench.rundir import RunDir
from powerbench.rundir.load import Run, load_run
from powerbench.rundir.marks import MarksReader
from tests.e2e.commands import POLL_S, ended, start, swept, wait_for
from tests.e2e.workers import training
from tests.rundir import a_cell, a_record, write_run

WORKERS = Path(__file__).parent / "workers"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
WORKER = (sys.executable, "-m", "powerbench.worker")
TINY: dict[str, Any] = {"mode": "training", "batch_size": 2, "sequence_length": 8}
SLEEP: dict[str, Any] = {"model": "sleep", "sleep_ms": 4.0}
RANKS = (0, 1)


def a_run(folder: Path, *, tail_s: float = 0.0, **changes: Any) -> RunDir:
    """A directory for a run of two ranks, as their supervisor leaves it to them."""
    record: RunRecord = a_record(status="running", cell=a_cell(ranks=2, **changes), ranks=2, tail_s=tail_s)
    return write_run(folder, record)


Launch = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Starts a command whose workers have a supervisor until the test is over."""
    stdin, supervisor = os.pipe()
    with swept(tmp_path):
        yield lambda *command, **options: start(command=tuple(map(str, command)), stdin=stdin, **options)
    os.close(stdin)
    os.close(supervisor)


def launch_each(launch: Launch, rundir: RunDir, *command: object) -> list[subprocess.Popen[str]]:
    """Starts each rank by itself, without a launcher that would end one when the other has ended."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [launch(*command, rundir.path, env=place | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in RANKS]


def pid_of(run: Run, rank: int) -> int:
    """The process of a rank, as it says itself."""
    event = run.events(rank)[0]
    assert event["event"] == "started"
    assert abs(psutil.Process(event["pid"]).create_time() - event["create_time_s"]) < 0.02
    return int(event["pid"])


def wait_for_steps(rundir: RunDir, steps: int, process: subprocess.Popen[str]) -> None:
    """Return when every rank has taken so many."""
    readers = [MarksReader(rundir.marks(rank), warmup=0) for rank in RANKS]

    def reached() -> bool:
        assert process.poll() is None, rundir.log(1).read_text()
        return all(reader.look() > steps for reader in readers)

    wait_for(reached, f"{steps} steps of each rank", every_s=POLL_S)


def ends_of(run: Run) -> list[dict[str, Any]]:
    return [run.events(rank)[-1] for rank in RANKS]


def steps_ms(run: Run, rank: int) -> list[float]:
    steps = run.steps[rank]
    return [(end - start) / 1e6 for start, end in zip(steps.start_ns, steps.end_ns, strict=True) if end is not None]


def test_two_ranks_train_as_one_does_with_their_batches_together(launch: Launch, tmp_path: Path) -> None:
    import torch

    done = ended(launch(*TORCHRUN, WORKERS / "training.py", tmp_path, *training.CASES))
    assert done.status == 0, done.stderr

    for case in training.CASES:
        cell = training.alone(training.cell_of(case))
        alone = training.trained(cell)
        ranks = [torch.load(tmp_path / f"{case}-{rank}.pt") for rank in RANKS]
        for number, parameter in alone.items():
            assert torch.equal(ranks[0][number], ranks[1][number]), (case, number)
            assert torch.allclose(ranks[0][number], parameter, rtol=1e-5, atol=1e-6), (case, number)
        fewer = training.trained(cell, steps=training.STEPS - 1)
        assert max(float((fewer[number] - alone[number]).abs().max()) for number in alone) > 1e-4, case


def test_ranks_of_any_speed_end_a_duration_at_one_step_and_so_they_do_its_tail(launch: Launch, tmp_path: Path) -> None:
    rundir = a_run(tmp_path / "run", **SLEEP, warmup=3, steps=5, min_seconds=0.8, tail_s=0.1)
    processes = launch_each(launch, rundir, sys.executable, WORKERS / "straggling.py", 3)
    done = [ended(process) for process in processes]
    assert [(one.status, one.stderr) for one in done] == [(0, "")] * 2

    run = load_run(rundir.path)
    windows = [[event for event in run.events(rank) if event["event"] == "window"] for rank in RANKS]
    ((one,), (other,)) = windows
    assert one["steps"] == other["steps"] > 5
    assert one["first_step"] == other["first_step"] == 3
    assert len(run.steps[0]) == len(run.steps[1]) > 3 + one["steps"]
    assert [end["outcome"] for end in ends_of(run)] == ["complete", "complete"]
    for rank in RANKS:
        measured = run.steps[rank].window("step")
        assert measured is not None
        assert measured.end_ns - measured.start_ns >= 0.8e9
    quick, slow = (min(run.work(rank).values()) / 1e6 for rank in RANKS)
    assert 4 <= quick < 7 <= slow


def test_a_rank_that_misses_another_says_so_in_one_line_and_ends(launch: Launch, tmp_path: Path) -> None:
    rundir = a_run(tmp_path / "run", **SLEEP, warmup=0, steps=1_000_000)
    left, lost = launch_each(launch, rundir, *WORKER)
    wait_for_steps(rundir, 3, left)
    lost.kill()
    done = ended(left)
    ended(lost)

    (end, *_) = ends_of(load_run(rundir.path))
    assert (done.status, end["event"], end["outcome"], end["peer"]) == (1, "end", "failed", True)
    assert "onnection" in end["message"]
    assert "\n" not in end["message"]
    assert rundir.log(0).read_text() == ""
