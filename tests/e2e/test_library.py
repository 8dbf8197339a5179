"""The library in real programs: what they record is true, and none of their ends, however sudden, loses it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from powerbench.cli.app import main
from powerbench.rundir.load import load_run
from tests.e2e.commands import (
    ended,
    kill,
    marked_ns,
    nobody_is_left,
    powerbench,
    record_of,
    report,
    rows_of,
    start,
    swept,
    wait_for,
)
from tests.e2e.test_meters import a_socket

WATTS = 40.0
# It stamps the clock on both sides of each call, so the moment of each edge is known to some microseconds.
TRAINING = """
import json, sys, time
import torch
from torch.utils.data import DataLoader, Dataset
import powerbench

class Samples(Dataset):
    def __len__(self):
        return 4 * 64
    def __getitem__(self, index):
        return torch.full((16,), float(index)), torch.tensor([1.0])

model = torch.nn.Linear(16, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
loader = DataLoader(Samples(), batch_size=4, num_workers=2, multiprocessing_context="fork")
stamps, pause = [], None
with powerbench.record(sys.argv[1], device="cpu", power="rapl", idle_seconds=0.5, warmup=4, name="linear",
                       batch_size=4, mode="training", parameters=17) as run:
    for number, (inputs, targets) in enumerate(loader):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()
        time.sleep(0.03)
        before = time.monotonic_ns()
        run.step()
        stamps.append((before, time.monotonic_ns()))
        if number == 31:
            with run.pause():
                time.sleep(1.0)
                pause = time.monotonic_ns()
json.dump({"stamps": stamps, "paused_until": pause}, sys.stdout)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """A training with forked loaders and a pause, beside a meter of 40 W: its run, what it saw itself, its stderr."""
    folder = tmp_path_factory.mktemp("trained")
    with swept(folder), a_socket(folder / "sys", WATTS) as socket:
        done = ended(run_script(folder, TRAINING, folder / "mine", env=socket.variables))
    assert done.status == 0, done.stderr
    return folder / "mine", json.loads(done.stdout), done.stderr


def run_script(folder: Path, text: str, *arguments: str | Path, env: dict[str, str] | None = None) -> Any:
    """Start a program of these lines in `folder`, as its user would."""
    script = folder / "train.py"
    script.write_text(text)
    return start(*arguments, command=(sys.executable, str(script)), env=env, cwd=folder)


class TestATraining:
    def test_has_every_edge_where_the_program_saw_it(self, trained: tuple[Path, dict[str, Any], str]) -> None:
        path, seen, _ = trained

        steps = [row for row in rows_of(path) if row.stage != "pause"]

        assert [row.stage for row in steps] == ["warmup"] * 4 + ["step"] * 60
        for row, (before, after) in zip(steps, seen["stamps"], strict=True):
            assert row.end_ns is not None
            assert before <= row.end_ns <= after

    def test_counts_no_pause_as_a_step(self, trained: tuple[Path, dict[str, Any], str]) -> None:
        path, seen, _ = trained

        (pause,) = [row for row in rows_of(path) if row.stage == "pause"]
        summary = report(path)

        assert pause.end_ns is not None
        assert pause.end_ns >= seen["paused_until"]
        ends_ns = [end for _, end in seen["stamps"]]
        stepped_ns = ends_ns[31] - ends_ns[3] + ends_ns[-1] - seen["paused_until"]
        assert summary["wall_s"] == pytest.approx(stepped_ns / 1e9, abs=0.3)
        assert summary["steps"] == 60
        assert "1 pause" in " ".join(summary["notes"])

    def test_has_the_joules_of_its_steps(self, trained: tuple[Path, dict[str, Any], str]) -> None:
        summary = report(trained[0])

        energy = summary["energy"]
        assert energy["mean_w"] == pytest.approx(WATTS, rel=0.02)
        assert energy["j_per_step"] == pytest.approx(WATTS * summary["latency_ms"]["mean"] / 1000, rel=0.02)
        assert energy["j_per_sample"] == pytest.approx(energy["j_per_step"] / 4)
        assert energy["idle_w"] == pytest.approx(WATTS, rel=0.05)
        assert energy["partial"] is False

    def test_says_what_is_known_and_null_for_the_rest(self, trained: tuple[Path, dict[str, Any], str]) -> None:
        path, _, stderr = trained
        summary, record = report(path), record_of(path)

        assert (summary["model"], summary["mode"], summary["batch_size"]) == ("linear", "training", 4)
        assert (summary["sequence_length"], summary["dtype"], summary["tflop_per_s"]) == (None, None, None)
        assert {record["cell"][name] for name in ("steps", "optimizer", "attention", "dataset", "dropout")} == {None}
        assert (record["loop"], record["workload"]["parameters"]) == (True, 17)
        assert record["environment"]["program"] == "train.py"
        assert record["environment"]["torch"] is not None
        assert stderr == "powerbench: recorded in mine; see it with: powerbench report mine\n"


class TestItsReports:
    """By the command in this process, which by now has all that it takes to draw."""

    @pytest.mark.parametrize("form", ["json", "markdown", "csv"])
    def test_show_it_in_each_form(
        self, trained: tuple[Path, dict[str, Any], str], capsys: pytest.CaptureFixture[str], form: str
    ) -> None:
        assert main(["report", str(trained[0]), "--format", form]) == 0
        assert "linear" in capsys.readouterr().out

    @pytest.mark.parametrize("form", ["html", "parquet", "perfetto"])
    def test_write_it_in_each_form(self, trained: tuple[Path, dict[str, Any], str], tmp_path: Path, form: str) -> None:
        assert main(["report", str(trained[0]), "--format", form, "--output", str(tmp_path / "file")]) == 0
        assert (tmp_path / "file").stat().st_size > 0

    def test_judge_its_trace(
        self, trained: tuple[Path, dict[str, Any], str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["trace", str(trained[0]), "--format", "markdown"]) == 0

        said = capsys.readouterr().out
        assert "60 steps" in said
        assert "powerbench run" not in said  # no command of ours makes it again

    def test_compare_it_with_its_like(
        self, trained: tuple[Path, dict[str, Any], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        again = shutil.copytree(trained[0], tmp_path / "again")

        assert main(["compare", str(trained[0]), str(again), "--json"]) == 0

        (cell,) = json.loads(capsys.readouterr().out)["cells"]
        assert cell["title"] == "linear, training, batch 4"
        assert cell["latency_ms"]["ratio"] == 1.0

    def test_put_several_in_a_table(
        self, trained: tuple[Path, dict[str, Any], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("one", "two"):
            shutil.copytree(trained[0], tmp_path / name)

        assert main(["report", str(tmp_path)]) == 0
        said = capsys.readouterr().out
        assert said.startswith("linear\n")
        assert "\ntraining\n  batch  seq  100 steps" in said


STEPPING = """
import os, signal, sys, time
import powerbench

def steps(run, count):
    for _ in range(count):
        time.sleep(0.002)
        run.step()

recording = powerbench.record(sys.argv[1], device="cpu", power="none", name="mine", warmup=0)
"""
ENDLESSLY = "with recording as run:\n    steps(run, 10**9)\n"
ENDINGS = {
    "an exception": (
        "with recording as run:\n    steps(run, 20)\n    raise ValueError('no such\\nbatch')\n",
        ("failed", "an exception left the loop: ValueError: no such"),
        1,
    ),
    "no memory": (
        "with recording as run:\n    steps(run, 20)\n    raise RuntimeError('CUDA out of memory. Tried to')\n",
        ("oom", "CUDA out of memory. Tried to"),
        1,
    ),
    "an exit status": (
        "with recording as run:\n    steps(run, 20)\n    sys.exit(3)\n",
        ("failed", "the program ended itself with exit status 3"),
        3,
    ),
    "os._exit": (
        "with recording as run:\n    steps(run, 20)\n    os._exit(5)\n",
        (
            "interrupted",
            "the program ended without ending its record: it was killed, crashed, or left by os._exit",
        ),
        5,
    ),
    "a crash": (
        "with recording as run:\n    steps(run, 20)\n    os.abort()\n",
        (
            "interrupted",
            "the program ended without ending its record: it was killed, crashed, or left by os._exit",
        ),
        -signal.SIGABRT,
    ),
    "a forgotten stop": (
        "steps(recording.start(), 20)\n",
        ("interrupted", "the program ended without stopping the recording"),
        0,
    ),
    "an exception beyond any with": (
        "steps(recording.start(), 20)\nraise KeyError('lost')\n",
        ("failed", "an exception left the loop: KeyError: 'lost'"),
        1,
    ),
    "enough of a generator": (
        "def each():\n    with recording as run:\n        while True:\n            steps(run, 1)\n            yield\n"
        "numbers = zip(range(20), each())\nlist(numbers)\ndel numbers\n",
        ("complete", None),
        0,
    ),
    "its own end": ("run = recording.start()\nsteps(run, 20)\nrun.stop()\nrun.stop()\n", ("complete", None), 0),
}


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, Any]]]:
    """All these programs, started at once: the run of each, and how it ended."""
    folder = tmp_path_factory.mktemp("endings")
    with swept(folder):
        begun = {}
        for number, (name, (text, _, _)) in enumerate(ENDINGS.items()):
            own = folder / str(number)
            own.mkdir()
            begun[name] = own, run_script(own, STEPPING + text, own / "mine")
        yield {name: (own / "mine", ended(process)) for name, (own, process) in begun.items()}


class TestHowItEnded:
    @pytest.mark.parametrize("name", ENDINGS)
    def test_is_in_the_record_with_every_step(self, endings: dict[str, tuple[Path, Any]], name: str) -> None:
        path, done = endings[name]
        _, (status, reason), exit_status = ENDINGS[name]

        record = wait_for(lambda: is_ended(path), f"the end of {name}")

        assert (record["status"], record["reason"]) == (status, reason)
        assert done.status == exit_status, done.stderr
        assert [row.stage for row in rows_of(path)] == ["step"] * 20
        assert not (path / "marks-0.bin").exists()

    def test_leaves_the_programs_own_traceback_alone(self, endings: dict[str, tuple[Path, Any]]) -> None:
        _, done = endings["an exception"]

        assert "ValueError: no such" in done.stderr
        assert done.stderr.count("Traceback") == 1


def is_ended(path: Path) -> dict[str, Any] | None:
    """The record of a run that is over; None while it is not."""
    record = record_of(path)
    return None if record["status"] == "running" else record


def stepping(path: Path) -> None:
    """Wait until some steps have been marked."""
    wait_for(lambda: len(marked_ns(path)) > 20, f"20 marked steps in {path}")


def supervisor_of(path: Path) -> psutil.Process:
    """The process beside, which the run's record names."""
    return psutil.Process(record_of(path)["supervisor"]["pid"])


A_CHILD = """
import multiprocessing

def child(run):
    if run is not None:  # forked: it has the parent's
        steps(run, 5)
        run.pause()
        run.stop()
    time.sleep(300)

if __name__ == "__main__":
    with recording as run:
        context = multiprocessing.get_context("HOW")
        process = context.Process(target=child, args=(run if "HOW" == "fork" else None,))
        process.start()
        print(process.pid, flush=True)
        steps(run, 10**9)
"""


class TestFromOutside:
    def test_ctrl_c_is_the_programs_and_ends_the_record(self, tmp_path: Path) -> None:
        with swept(tmp_path):
            process = run_script(tmp_path, STEPPING + ENDLESSLY, tmp_path / "mine")
            stepping(tmp_path / "mine")
            process.send_signal(signal.SIGINT)
            done = ended(process)

        record = record_of(tmp_path / "mine")
        assert (record["status"], record["reason"]) == ("interrupted", "stopped by Ctrl-C")
        assert done.status == -signal.SIGINT
        assert "KeyboardInterrupt" in done.stderr

    @pytest.mark.parametrize("how", ["fork", "spawn"])
    def test_a_kill_loses_nothing_though_a_child_lives_on(self, tmp_path: Path, how: str) -> None:
        path = tmp_path / "mine"
        text = A_CHILD.replace("HOW", how)
        with swept(tmp_path):
            process = run_script(tmp_path, STEPPING + text, path)
            stepping(path)
            supervisor = supervisor_of(path)
            seen = len(marked_ns(path)) - 1
            kill(process)
            record = wait_for(lambda: is_ended(path), "the end of the record")
            wait_for(lambda: not supervisor.is_running(), "the end of the process beside")
            child = psutil.Process(int(process.stdout.readline()))
            assert child.is_running()
            child.kill()

        assert record["status"] == "interrupted"
        assert len(rows_of(path)) >= seen
        for before, after in pairwise(rows_of(path)):
            assert before.end_ns == after.start_ns
        nobody_is_left(tmp_path)

    def test_a_process_beside_that_is_told_to_stop_ends_the_record_and_the_program_says_so(
        self, tmp_path: Path
    ) -> None:
        text = "with recording as run:\n    steps(run, 30)\n    sys.stdin.readline()\n    steps(run, 700)\n"
        path = tmp_path / "mine"
        with swept(tmp_path):
            script = tmp_path / "train.py"
            script.write_text(STEPPING + text)
            process = start(path, command=(sys.executable, str(script)), stdin=subprocess.PIPE)
            stepping(path)
            supervisor_of(path).terminate()
            wait_for(lambda: is_ended(path), "the end of the record")
            wait_for(lambda: not (path / "marks-0.bin").exists(), "the end of the marks")
            done = ended_after(process, "\n")

        assert done.status == 0, done.stderr
        assert done.stderr.count("has ended the record: later steps are in none.") == 1
        assert load_run(path).record.reason == "the process that records it was stopped by a signal"

    def test_ctrl_c_before_the_first_step_is_said(self, tmp_path: Path) -> None:
        with swept(tmp_path), a_socket(tmp_path / "sys", WATTS) as socket:
            text = STEPPING.replace('power="none"', 'power="rapl", idle_seconds=60') + ENDLESSLY
            process = run_script(tmp_path, text, tmp_path / "mine", env=socket.variables)
            wait_for(lambda: (tmp_path / "mine" / "run.json").exists(), "the record")
            process.send_signal(signal.SIGINT)
            ended(process)
            record = wait_for(lambda: is_ended(tmp_path / "mine"), "the end of the record")

        assert record["status"] == "interrupted"
        assert record["reason"].startswith("it was given up before the first step")

    def test_the_loss_of_the_process_beside_is_a_note_and_costs_no_step(self, tmp_path: Path) -> None:
        text = "with recording as run:\n    steps(run, 30)\n    sys.stdin.readline()\n    steps(run, 700)\n"
        path = tmp_path / "mine"
        with swept(tmp_path):
            script = tmp_path / "train.py"
            script.write_text(STEPPING + text)
            process = start(path, command=(sys.executable, str(script)), stdin=subprocess.PIPE)
            stepping(path)
            kill(supervisor_of(path))
            done = ended_after(process, "\n")

        run = load_run(path)
        assert done.status == 0, done.stderr
        assert done.stderr.count("The process that records is gone") == 1
        assert run.record.status == "interrupted"
        assert len(run.steps[0]) == 730
        assert any("The process that records is gone" in note for note in run.record.notes)


def ended_after(process: Any, said: str) -> Any:
    """Say something to a program, and wait for its end."""
    process.stdin.write(said)
    process.stdin.flush()
    process.stdin.close()
    process.stdin = None
    return ended(process)


LOOKED_AT = """
import sys, time
import powerbench


def main():
    with powerbench.record(sys.argv[1], device="cpu", power="rapl", idle_seconds=0.1, py_spy=True, quiet=True) as run:
        for _ in range(6):
            fetch()
            train()
            run.step()
    print("still here")
    time.sleep(0.1)


def fetch():
    time.sleep(0.1)


def train():
    time.sleep(0.2)


main()
"""


def test_of_a_loop_of_ones_own_flame_says_where_the_joules_went(tmp_path: Path) -> None:
    with swept(tmp_path), a_socket(tmp_path / "sys", WATTS) as socket:
        done = ended(run_script(tmp_path, LOOKED_AT, tmp_path / "mine", env=socket.variables))

    assert (done.status, done.stdout) == (0, "still here\n"), done.stderr
    record = record_of(tmp_path / "mine")
    assert record["status"] == "complete"
    if record["unsampled"] is not None:
        pytest.skip(f"py-spy may not look here: {record['unsampled']}")
    flame = json.loads(powerbench("flame", tmp_path / "mine", "--json").stdout)
    frames = {frame["name"]: frame for frame in flame["frames"]}
    assert flame["steps"] == 5
    assert frames["train"]["total_j"] > 1.3 * frames["fetch"]["total_j"] > 0
    assert frames["main"]["total_j"] == pytest.approx(flame["total_j"], rel=0.2)
    assert not [path.name for path in (tmp_path / "mine").iterdir() if path.name.startswith("py-spy")]
    said = " ".join(powerbench("report", tmp_path / "mine").stdout.split())
    assert "This run was instrumented: py-spy stopped the program about 100 times a second" in said
