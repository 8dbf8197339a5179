"""Many ranks by the real command: they step together, and whatever happens to one of them ends all, with its name."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from powerbench.meeting import meet, open_store
from powerbench.profile import make_cell, resolve
from powerbench.records import Cell, Node
from powerbench.rundir import RunDir
from powerbench.rundir.lines import read_telemetry
from powerbench.rundir.load import Run, load_run, read_record
from powerbench.session import record_run
from tests.e2e.commands import (
    ENDLESS,
    SLEEP,
    Done,
    ended,
    kill,
    nobody_is_left,
    powerbench,
    processes_of,
    record_of,
    report,
    rows_of,
    start,
    stepping_in,
    swept,
    told,
    wait_for,
)
from tests.e2e.test_endings import WORKERS, Machine
from tests.e2e.test_meters import a_socket
from tests.power.fake_nvml import COMPILER, build

TRAINING = ("--model", "bert-tiny", "--batch-size", "2", "--sequence-length", "16", "--power", "none")
IDLE_METER = ("--power", "none")
TWO = ("--ranks", "2")
BOTH = (0, 1)
# All of torch is loaded by the launcher and by each rank; after that an end must come within seconds.
SECONDS = 15.0


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with swept(tmp_path):
        yield tmp_path


def pid_of(run: Path, rank: int) -> int:
    """The process of a rank, as it says itself."""
    first = json.loads((run / f"worker-{rank}.jsonl").read_text().splitlines()[0])
    assert first["event"] == "started"
    return int(first["pid"])


def launcher_of(run: Path) -> psutil.Process:
    return next(each for each in processes_of(run) if "powerbench.launcher" in each.cmdline())


def stepping(folder: Path, *arguments: str) -> tuple[subprocess.Popen[str], Path]:
    """Two ranks at work for ever, both past their first steps."""
    command = start("run", *arguments, *TWO, *ENDLESS, "--output", folder)
    return command, stepping_in(folder, ranks=BOTH)


def soon(command: subprocess.Popen[str], folder: Path, *, since_ns: int) -> Done:
    """The end of a command, which came within seconds and left nobody."""
    done = ended(command)
    assert time.monotonic_ns() - since_ns < SECONDS * 1e9
    nobody_is_left(folder)
    return done


def keeps_what_was_recorded(run: Path, *, least: int = 3) -> None:
    """Every rank's steps are rows, and nothing is left of the files that they came from."""
    for rank in BOTH:
        assert [row.step for row in rows_of(run, rank)] == list(range(len(rows_of(run, rank))))
        assert len(rows_of(run, rank)) >= least
    assert not [*run.glob("*.bin"), *run.glob("*.new")]


class TestTwoRanks:
    def test_train_one_global_batch_and_each_keeps_its_own_record(self, folder: Path) -> None:
        done = powerbench("run", *TRAINING, *TWO, "--steps", "12", "--warmup", "3", "--output", folder, "--json")

        summary = json.loads(done.stdout)
        assert (done.status, summary["status"], summary["steps"]) == (0, "complete", 12), done.stderr
        run = Path(summary["run"])
        assert run.name.endswith("-cpu-bert-tiny-training-b2-s16-r2")
        assert (summary["ranks"], summary["batch_size"], summary["global_batch_size"]) == (2, 2, 4)
        assert summary["samples_per_s"] == pytest.approx(4 / (summary["latency_ms"]["mean"] / 1000), rel=1e-3)
        rows = [rows_of(run, rank) for rank in BOTH]
        assert [[row.stage for row in each] for each in rows] == [["warmup"] * 3 + ["step"] * 12] * 2
        assert rows[0] != rows[1]
        record = record_of(run)
        assert (record["ranks"], record["node"]) == (2, None)
        assert [device["kind"] for device in record["devices"]] == ["cpu", "cpu"]
        assert {f"worker{rank}.rss_bytes" for rank in BOTH} <= set(read_telemetry(run / "telemetry.csv"))
        assert not [*run.glob("*.bin")]
        assert report(run) == summary
        nobody_is_left(folder)

    def test_with_a_straggler_made_on_purpose_name_it(self, folder: Path) -> None:
        cell = a_cell(model="bert-tiny", batch_size=2, sequence_length=16, warmup=2, steps=22)
        straggling = [sys.executable, str(WORKERS / "straggling.py"), "150"]

        run = record_run(cell, parent=folder, command=straggling, machine=Machine())

        summary = report(run.path)
        (straggler,) = summary["stragglers"]
        assert (straggler["rank"], summary["status"]) == (1, "complete")
        quick, slow = (rank["own_work_ms"] for rank in summary["per_rank"])
        assert slow > 150 > quick
        one, other = (rank["latency_median_ms"] for rank in summary["per_rank"])
        assert one == pytest.approx(other, rel=0.2)
        assert one > slow
        assert run.work(0).keys() == run.work(1).keys() == set(range(len(run.steps[0])))
        assert any(note.startswith("Rank 1") and "straggler" in note for note in summary["notes"])

    def test_are_a_cell_of_a_sweep_beside_one(self, folder: Path) -> None:
        done = powerbench("run", *SLEEP, "--ranks", "1", *TWO, "--dry-run", "--json", "--output", folder)

        one, two = json.loads(done.stdout)
        assert [one["cell"]["ranks"], two["cell"]["ranks"]] == [1, 2]
        assert [one["command"], two["command"]] == [
            "powerbench run --model sleep --set sleep_ms=5",
            "powerbench run --model sleep --ranks 2 --set sleep_ms=5",
        ]


class TestEndsWithinSecondsAndLeavesNobody:
    def test_a_rank_that_is_killed(self, folder: Path) -> None:
        command, run = stepping(folder, *TRAINING)

        since_ns = kill(psutil.Process(pid_of(run, 1)))
        done = soon(command, folder, since_ns=since_ns)

        assert done.status == 1
        assert told(done) == (
            f"The run was not completed (failed): rank 1 (cpu) was killed by SIGKILL (its log is {run}/worker-1.log)."
        )
        keeps_what_was_recorded(run)

    def test_the_launcher_is_killed(self, folder: Path) -> None:
        command, run = stepping(folder, *SLEEP, *IDLE_METER)

        since_ns = kill(launcher_of(run))
        done = soon(command, folder, since_ns=since_ns)

        assert done.status == 1
        assert told(done) == (
            "The run was not completed (failed): the launcher of the ranks was killed by SIGKILL "
            f"(its log is {run}/launcher.log)."
        )
        keeps_what_was_recorded(run)

    def test_the_supervisor_is_killed(self, folder: Path) -> None:
        command, run = stepping(folder, *SLEEP, *IDLE_METER)

        kill(command)
        ended(command)

        nobody_is_left(folder, within_s=SECONDS)
        loaded = load_run(run)
        assert loaded.record.status == "interrupted"
        assert re.fullmatch(r"its supervisor \(pid \d+\) is gone without having ended it", loaded.record.reason or "")
        assert all(len(steps) >= 3 for steps in loaded.steps)

    def test_ctrl_c_ends_all_ranks_at_one_step(self, folder: Path) -> None:
        command, run = stepping(folder, *SLEEP, *IDLE_METER)

        since_ns = time.monotonic_ns()
        command.send_signal(signal.SIGINT)
        done = soon(command, folder, since_ns=since_ns)

        assert (done.status, told(done)) == (
            130,
            "The run was not completed (interrupted): stopped by Ctrl-C or a signal.",
        )
        assert len(rows_of(run, 0)) == len(rows_of(run, 1))
        keeps_what_was_recorded(run)

    def test_a_rank_that_hangs_is_named_by_the_work_that_it_has_not_done(self, folder: Path) -> None:
        run = misbehaving(folder, "hangs@1", hang_seconds=1.0)

        assert run.record.status == "failed"
        assert re.fullmatch(
            r"rank 1 \(cpu\) hangs: step 5 was not done for \d+ s, while rank 0 \(cpu\) waits "
            rf"\(its log is {run.path}/worker-1\.log\)",
            run.record.reason or "",
        )
        keeps_what_was_recorded(run.path)
        nobody_is_left(folder)

    def test_a_rank_that_runs_out_of_memory(self, folder: Path) -> None:
        run = misbehaving(folder, "runs_out@1")

        assert run.record.status == "oom", run.record.reason
        assert run.record.reason == (
            "rank 1 (cpu): CUDA out of memory. Tried to allocate 20.00 GiB "
            f"(its log is {run.path}/worker-1.log); take a smaller --batch-size or --sequence-length"
        )
        keeps_what_was_recorded(run.path)
        nobody_is_left(folder)


def misbehaving(folder: Path, way: str, **settings: Any) -> Run:
    """The run of two ranks, of which one's sixth step goes wrong."""
    command = [sys.executable, "-X", "faulthandler", str(WORKERS / "misbehaving.py"), way]
    return record_run(a_cell(**settings), parent=folder, command=command, machine=Machine())


def a_cell(*, hang_seconds: float | None = None, **settings: Any) -> Cell:
    options: dict[str, Any] = {"model": "sleep", "device": "cpu", "warmup": 0, "steps": 100_000, "ranks": 2}
    sets = {"limits.hang_seconds": hang_seconds}
    return resolve(make_cell(options=options | settings, sets=sets), metered=False)


@pytest.mark.skipif(COMPILER is None, reason="no C compiler to build libnvidia-ml.so.1")
def test_more_ranks_than_gpus_are_refused_before_anything_starts(folder: Path) -> None:
    two_gpus = {"LD_LIBRARY_PATH": str(build(folder / "driver")), "FAKE_NVML_UUIDS": "GPU-b,GPU-a"}

    done = powerbench("run", "--device", "cuda", "--ranks", "4", "--output", folder / "runs", env=two_gpus)

    assert (done.status, done.stdout, told(done)) == (
        3,
        "",
        "4 ranks need a GPU each, and here are 2 GPUs (by the driver and CUDA_VISIBLE_DEVICES): take --ranks 2, and "
        "more machines for more.",
    )
    assert not (folder / "runs").exists()


class TestTwoMachines:
    """Two commands on this one, which take each other for machines, each with a meter of its own."""

    def test_are_one_run_whose_joules_are_the_sum_of_theirs(self, folder: Path) -> None:
        with a_socket(folder / "left", power_w=40) as left, a_socket(folder / "right", power_w=25) as right:
            asked = ("--steps", "20", "--min-seconds", "1", "--idle", "0.3", "--power", "rapl", "--json")
            commands = machines(folder, *SLEEP, *asked, env=[left.variables, right.variables])
            done = [ended(command) for command in commands]

        assert [each.status for each in done] == [0, 0], [each.stderr for each in done]
        runs = [Path(json.loads(each.stdout)["run"]) for each in done]
        nodes = [record_of(run)["node"] for run in runs]
        assert [node["rank"] for node in nodes] == [0, 1]
        assert nodes[0]["id"] == nodes[1]["id"] is not None
        assert [sorted(path.name for path in run.glob("steps-*.csv")) for run in runs] == [
            ["steps-0.csv"],
            ["steps-1.csv"],
        ]
        alone = [report(run)["energy"]["total_j"] for run in runs]
        whole = report(*runs)
        whole = whole[0] if isinstance(whole, list) else whole
        assert whole["energy"]["total_j"] == pytest.approx(sum(alone), rel=1e-9)
        assert whole["ranks"] == 2

    def test_end_together_and_each_names_the_rank_that_was_lost(self, folder: Path) -> None:
        commands = machines(folder, *SLEEP, *IDLE_METER, *ENDLESS)
        runs = [stepping_in(folder / str(node), ranks=[node]) for node in (0, 1)]

        since_ns = kill(psutil.Process(pid_of(runs[1], 1)))
        there, here = (told(soon(command, folder, since_ns=since_ns)) for command in reversed(commands))

        lost = f"rank 1 (cpu) was killed by SIGKILL (its log is {runs[1]}/worker-1.log)."
        assert there == f"The run was not completed (failed): {lost}"
        assert re.fullmatch(rf"The run was not completed \(failed\): on \S+ \(node 1\), {re.escape(lost)}", here)

    def test_of_which_one_ends_before_the_ranks_of_the_other_have_begun(self, folder: Path) -> None:
        address = f"127.0.0.1:{free_port()}"
        command = start(
            *("run", *SLEEP, *IDLE_METER, *ENDLESS, "--output", folder),
            *("--nnodes", "2", "--node-rank", "0", "--rendezvous", address),
        )
        run = wait_for(lambda: next((path.parent for path in folder.glob("2*/run.json")), None), "its directory")
        node = Node(rank=1, rendezvous=address)
        store = open_store(node, timeout_s=60)
        store.set("end/1", '["failed","it fell over a wire"]')
        meet(node, read_record(RunDir(run)).built_in, store=store, timeout_s=60)

        done = soon(command, folder, since_ns=time.monotonic_ns())

        assert re.fullmatch(
            r"The run was not completed \(failed\): on \S+ \(node 1\), it fell over a wire\.", told(done)
        ), done.stderr

    def test_of_which_one_does_not_come_is_given_up(self, folder: Path) -> None:
        address = f"127.0.0.1:{free_port()}"
        alone = ("--nnodes", "2", "--node-rank", "0", "--rendezvous", address, "--set", "limits.rendezvous_seconds=2")

        done = powerbench("run", *SLEEP, *IDLE_METER, *alone, "--output", folder)

        assert done.status == 1
        assert told(done) == (
            f"The run was not completed (failed): Nobody else joined at {address} within 2 s "
            "(limits.rendezvous_seconds): start the same command with --node-rank 1 on the other machine of 2, and let "
            "the port be reached from there."
        )
        nobody_is_left(folder)


def machines(folder: Path, *arguments: str, env: list[dict[str, str]] | None = None) -> list[subprocess.Popen[str]]:
    """The same command on two machines."""
    address = f"127.0.0.1:{free_port()}"
    return [
        start(
            *("run", *arguments, "--nnodes", "2", "--node-rank", str(node), "--rendezvous", address),
            *("--output", folder / str(node)),
            env=None if env is None else env[node],
        )
        for node in (0, 1)
    ]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
