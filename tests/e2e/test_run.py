"""`powerbench run` as a user meets it: figures that agree with the files, a quiet stderr, a tidy terminal."""

from __future__ import annotations

import json
import re
import signal
import statistics
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.commands import (
    ENDLESS,
    NS,
    SLEEP,
    Row,
    Terminal,
    ended,
    nobody_is_left,
    powerbench,
    record_of,
    report,
    rows_of,
    running_in,
    start,
    stepping_in,
    swept,
    wait_for,
)

INSTALLED = (str(Path(sys.executable).with_name("powerbench")),)

# design.md, section 8
KEYS = [
    *("run", "status", "reason"),
    *("device", "timer", "model", "mode", "batch_size", "sequence_length", "dtype"),
    *("ranks", "global_batch_size", "steps", "warmup_steps", "wall_s", "wall_s_100_steps"),
    *("latency_ms", "samples_per_s", "tokens_per_s", "tflop_per_s", "peak_memory_bytes"),
    *("energy", "energy_reason", "slowdown", "phases", "operators"),
    *("stragglers", "per_rank", "notes"),
]
LATENCY_KEYS = ["mean", "median", "p5", "p95", "min", "max"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with swept(tmp_path):
        yield tmp_path


def agrees_with_its_files(summary: dict[str, Any], run: Path) -> None:
    """Does the arithmetic of the summary once more, in plain Python, from the rows and the record."""
    record, measured = record_of(run), [row for row in rows_of(run) if row.stage == "step"]
    cell, wall_ns = record["cell"], edge(measured[-1]) - measured[0].start_ns
    each_ms = [(edge(row) - row.start_ns) / 1e6 for row in measured]
    twentieths = statistics.quantiles(each_ms, n=20, method="inclusive")

    assert list(summary) == KEYS
    assert list(summary["latency_ms"]) == LATENCY_KEYS
    assert summary["run"] == str(run)
    assert (summary["status"], summary["reason"]) == (record["status"], record["reason"])
    assert (summary["device"], summary["timer"]) == (cell["device"], record["device"]["timer"])
    for key in ("model", "mode", "batch_size", "sequence_length", "dtype"):
        assert summary[key] == cell[key]
    assert summary["steps"] == len(measured)
    assert summary["warmup_steps"] == sum(row.stage == "warmup" for row in rows_of(run))
    assert summary["wall_s"] == wall_ns / NS
    assert summary["wall_s_100_steps"] == pytest.approx(100 * wall_ns / NS / len(measured), rel=1e-12)
    assert summary["latency_ms"] == pytest.approx(
        {
            "mean": wall_ns / 1e6 / len(measured),
            "median": statistics.median(each_ms),
            "p5": twentieths[0],
            "p95": twentieths[-1],
            "min": min(each_ms),
            "max": max(each_ms),
        },
        rel=1e-9,
    )
    samples = record["workload"]["samples_per_step"]  # of a sleep, none
    a_second = None if samples is None else pytest.approx(samples * len(measured) * NS / wall_ns, rel=1e-12)
    assert (samples is None, summary["samples_per_s"]) == (cell["model"] == "sleep", a_second)
    assert summary["peak_memory_bytes"] == record["peak_memory_bytes"]
    assert record["windows"]["measured"] == {"start_ns": measured[0].start_ns, "end_ns": edge(measured[-1])}


def edge(row: Row) -> int:
    assert row.end_ns is not None
    return row.end_ns


class TestTheSummary:
    def test_agrees_with_the_files(self, folder: Path) -> None:
        cell = ["--steps", "40", "--warmup", "3", "--batch-size", "7"]

        done = powerbench("run", *SLEEP, *cell, "--json", "--output", folder)

        run = running_in(folder)
        summary = json.loads(done.stdout)
        assert done.status == 0
        agrees_with_its_files(summary, run)
        assert (summary["status"], summary["steps"], summary["warmup_steps"]) == ("complete", 40, 3)
        assert (summary["tflop_per_s"], summary["energy"], summary["slowdown"]["n"]) == (None, None, 40)
        assert summary["latency_ms"]["min"] >= 5
        assert report(run) == summary
        nobody_is_left(folder)

    def test_in_words_has_the_same_figures_in_run_and_report(self, folder: Path) -> None:
        done = powerbench("run", *SLEEP, "--steps", "100", "--output", folder)

        run = running_in(folder)
        again = powerbench("report", run)
        assert done.stdout == again.stdout
        assert " for 100 steps\n" in done.stdout
        assert " ms a step on average, median 5." in done.stdout
        assert done.stderr.splitlines()[-2:] == [f"Recorded in {run}", f"See it again with: powerbench report {run}"]

    def test_of_a_run_that_is_still_running_says_so_with_the_figures_so_far(self, folder: Path) -> None:
        process = start("run", *SLEEP, *ENDLESS, "--output", folder)
        run = stepping_in(folder, steps=10)

        summary, words = report(run), powerbench("report", run)
        process.terminate()
        ended(process)

        assert (summary["status"], summary["reason"], summary["warmup_steps"]) == ("running", None, 5)
        assert summary["steps"] >= 5
        assert summary["latency_ms"]["mean"] >= 5
        assert summary["timer"] == "clock"
        assert re.search(r"Status +running\n", words.stdout)


class TestBert:
    def test_trains_end_to_end_from_a_folder_full_of_traps(self, folder: Path) -> None:
        """Nothing is imported from the current folder, and the supervisor has no torch: it stays small."""
        for name in ("torch", "random", "numpy", "transformers", "psutil", "powerbench", "statistics"):
            (folder / f"{name}.py").write_text('raise SystemExit("imported from the current folder")\n')
        cell = ["--model", "bert-tiny", "--mode", "training", "--batch-size", "4", "--sequence-length", "32"]
        settings = ["--steps", "60", "--min-seconds", "2", "--threads", "1", "--dtype", "bfloat16", "--json"]

        process = start("run", *cell, *settings, command=INSTALLED, cwd=folder)
        run = stepping_in(folder / "runs")
        supervisor = psutil.Process(process.pid)
        rss_bytes = supervisor.memory_info().rss
        maps = Path(f"/proc/{process.pid}/maps")
        loaded = (
            {Path(line.split()[-1]).name for line in maps.read_text("utf-8").splitlines()} if maps.exists() else set()
        )
        done = ended(process)

        assert done.status == 0, done.stderr
        summary = json.loads(done.stdout)
        agrees_with_its_files(summary | {"run": str(run)}, run)
        assert summary["run"] == str(run.relative_to(folder))
        assert summary["steps"] >= 60
        assert summary["wall_s"] >= 2
        assert summary["dtype"] == "bfloat16"
        assert 0 < rss_bytes < 60e6
        assert not [name for name in loaded if "torch" in name]
        record = record_of(run)
        assert (record["cell"]["threads"], record["environment"]["threads"]) == (1, 1)
        # design.md, section 5: forward 24 L S H^2 + 4 L S^2 H, training three times that
        flop = 3 * 4 * (24 * 2 * 32 * 128**2 + 4 * 2 * 32**2 * 128)
        assert record["workload"]["flop_per_step"] == flop
        assert summary["tflop_per_s"] == pytest.approx(flop * summary["steps"] / summary["wall_s"] / 1e12)
        nobody_is_left(folder)


class TestSteps:
    def test_are_a_minimum_with_min_seconds(self, folder: Path) -> None:
        done = powerbench("run", *SLEEP, "--steps", "5", "--min-seconds", "1", "--json", "--output", folder)

        summary = json.loads(done.stdout)
        assert 1 <= summary["wall_s"] < 1.5
        assert summary["steps"] > 5
        assert len(rows_of(running_in(folder))) == 5 + summary["steps"]

    def test_are_done_in_full_where_min_seconds_is_over_first(self, folder: Path) -> None:
        done = powerbench("run", *SLEEP, "--steps", "60", "--min-seconds", "0.05", "--json", "--output", folder)

        assert json.loads(done.stdout)["steps"] == 60


class TestTelemetry:
    @pytest.mark.parametrize(
        ("options", "slowest_hz", "fastest_hz"), [(["--trace"], 5.0, 12.0), ([], 0.5, 1.5)], ids=["traced", "untraced"]
    )
    def test_comes_at_its_rate(self, folder: Path, options: list[str], slowest_hz: float, fastest_hz: float) -> None:
        powerbench("run", *SLEEP, *options, "--steps", "1", "--min-seconds", "4.5", "--output", folder)

        assert slowest_hz < self.rate_hz(folder, "system.cpu_ratio") < fastest_hz
        assert slowest_hz < self.rate_hz(folder, "worker0.rss_bytes") < fastest_hz
        assert 0.5 < self.rate_hz(folder, "system.load_1min") < 1.5, "what is costly to ask comes once a second"

    def rate_hz(self, folder: Path, gauge: str) -> float:
        lines = (running_in(folder) / "telemetry.csv").read_text("ascii").splitlines()
        assert lines[0] == "time_ns,name,value"
        times = [int(line.split(",")[0]) for line in lines if line.split(",")[1] == gauge]
        assert len(times) >= 3
        return (len(times) - 1) / (times[-1] - times[0]) * NS


class TestOffATerminal:
    def test_stderr_has_a_plain_line_a_stage_and_no_codes(self, folder: Path) -> None:
        done = powerbench("run", *SLEEP, "--steps", "100", "--output", folder, env={"FORCE_COLOR": ""})

        assert not re.search(r"[\r\x1b\x08]", done.stderr + done.stdout)
        lines = done.stderr.splitlines()
        stages = [line.rpartition(": ")[2] for line in lines if line.startswith("cpu sleep")]
        assert stages in (["starting", "measuring"], ["starting", "warm-up", "measuring"])


class TestOnATerminal:
    def test_the_progress_line_is_rewritten_at_most_four_times_a_second_and_cleared(self, folder: Path) -> None:
        with Terminal("run", *SLEEP, "--steps", "300", "--output", folder, columns=60) as terminal:
            assert terminal.status() == 0
            written, rewritten_s = terminal.written, [at for at, chunk in terminal.chunks if b"ms/step" in chunk]

        shown = [line for line in re.split(rb"\r(?!\n)", written)[1:] if line.startswith(b"cpu sleep")]
        assert len(shown) <= 4 * (rewritten_s[-1] - rewritten_s[0] + 1) + 2
        assert len(rewritten_s) >= 3
        assert all(line.endswith(b"\x1b[K") and b"\n" not in line for line in shown)
        assert max(len(line.removesuffix(b"\x1b[K")) for line in shown) < 60
        assert any(re.search(rb"measuring step \d+ of 300, 5\.\d+ ms/step, \d+(\.\d+)?s left", line) for line in shown)
        before, _, after = written.rpartition(b"\r\x1b[K")
        assert before.endswith(b"\x1b[K")
        assert after.startswith(b"sleep, 5.00 ms a step (the control)\r\n")
        assert b"\x1b" not in after

    def test_a_stopped_and_continued_command_goes_on(self, folder: Path) -> None:
        """As with Ctrl-Z and fg; a shell sends the second."""
        with Terminal("run", *SLEEP, "--steps", "100", "--output", folder) as terminal:
            terminal.read(until=lambda: b"measuring" in terminal.written)
            terminal.process.send_signal(signal.SIGSTOP)
            stopped = psutil.Process(terminal.process.pid)
            wait_for(lambda: stopped.status() == psutil.STATUS_STOPPED, "the stop")
            terminal.process.send_signal(signal.SIGCONT)
            assert terminal.status() == 0

        assert report(running_in(folder))["steps"] == 100


class TestTheFolderOfRuns:
    def test_has_a_link_to_the_newest(self, folder: Path) -> None:
        powerbench("run", *SLEEP, "--steps", "1", "--output", folder)
        first = (folder / "latest").readlink()
        powerbench("run", *SLEEP, "--steps", "2", "--output", folder)
        second = (folder / "latest").readlink()

        assert {first, second} == {Path(path.name) for path in folder.iterdir() if not path.is_symlink()}
        assert report(folder / "latest")["steps"] == 2

    def test_has_a_number_behind_a_name_that_is_taken(self, folder: Path) -> None:
        for seconds in range(60):
            stamp = datetime.now(UTC) + timedelta(seconds=seconds)
            (folder / f"{stamp:%Y%m%dT%H%M%SZ}-cpu-sleep-training-b32-s128").mkdir(exist_ok=True)

        done = powerbench("run", *SLEEP, "--steps", "1", "--json", "--output", folder)

        assert done.status == 0
        name = Path(json.loads(done.stdout)["run"]).name
        assert re.fullmatch(r"\d{8}T\d{6}Z-cpu-sleep-training-b32-s128-2", name)
        assert (folder / name.removesuffix("-2")).is_dir()
        assert (folder / "latest").readlink() == Path(name)

    def test_is_the_one_called_runs_unless_asked_otherwise(self, folder: Path) -> None:
        done = powerbench("run", *SLEEP, "--steps", "1", "--json", command=INSTALLED, cwd=folder)

        assert json.loads(done.stdout)["run"].startswith("runs/2")
        assert sorted(path.name for path in folder.iterdir()) == ["runs"]
