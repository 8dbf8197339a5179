"""`run --torch-profiler` with a small real BERT, and what becomes of a run whose worker ends in those steps."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from powerbench.devices import DEVICES
from powerbench.pace import Progress
from powerbench.profile import make_cell, resolve
from powerbench.records import Cell
from powerbench.reports.perfetto import as_perfetto
from powerbench.reports.terminal import as_terminal
from powerbench.rundir import RunDir
from powerbench.rundir.lines import EventWriter
from powerbench.rundir.load import Run, load_run
from powerbench.rundir.operators import read_operators
from powerbench.session import record_run
from powerbench.torch_profiler import record_operators
from powerbench.workloads.bert import Bert
from tests.e2e.commands import powerbench, running_in, told
from tests.e2e.test_interrupt import WORKER
from tests.e2e.test_meters import a_socket

SMALL = ("--model", "bert-tiny", "--batch-size", "8", "--sequence-length", "64", "--device", "cpu")
MATRIX_PRODUCTS = {"aten::addmm", "aten::mm", "aten::bmm"}
POWER_W = 40.0


class Profiled(NamedTuple):
    """A run as it lies on disk, what `--json` printed of it, and its events in a Chrome trace."""

    run: Run
    summary: dict[str, Any]
    events: list[dict[str, Any]]

    @property
    def operators(self) -> dict[str, Any]:
        found: dict[str, Any] = self.summary["operators"]
        return found

    def spans(self, name: str) -> list[tuple[float, float]]:
        """Where the spans of this name begin and end, in microseconds."""
        return [
            (it["ts"], it["ts"] + it["dur"]) for it in self.events if it["ph"] == "X" and it["name"].startswith(name)
        ]


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Profiled:
    """A training run of two batches a step, on a processor that draws 40 W."""
    folder = tmp_path_factory.mktemp("profiled")
    with a_socket(folder / "sys", POWER_W) as socket:
        done = powerbench(
            *("run", *SMALL, "--steps", "10", "--warmup", "1", "--min-seconds", "1.5", "--idle", "0"),
            *("--set", "accumulation=2", "--power", "rapl", "--torch-profiler", "--json"),
            *("--output", folder / "runs"),
            env=socket.variables,
        )
    assert done.status == 0, done.stderr
    assert "cpu bert-tiny training: profiling\n" in done.stderr
    run = load_run(running_in(folder / "runs"))
    return Profiled(run, json.loads(done.stdout), json.loads(as_perfetto([run]))["traceEvents"])


class TestTraining:
    def test_names_the_matrix_products_among_the_longest(self, profiled: Profiled) -> None:
        names = {it["name"] for it in profiled.operators["each"]}
        table = as_terminal([profiled.run]).partition("By operator")[2].partition("Note:")[0]

        assert names >= MATRIX_PRODUCTS
        assert any("scaled_dot_product" in name for name in names)
        assert "  aten::mm  " in table
        assert "  aten::addmm  " in table

    def test_a_matrix_product_is_called_as_often_as_the_model_has_it_in_both_batches(self, profiled: Profiled) -> None:
        calls = {it["name"]: it["calls"] for it in profiled.operators["each"]}

        # Two layers of six linear ones, the pooler and the classifier; backward, two products for each.
        assert calls["aten::addmm"] == 2 * (2 * 6 + 2)
        assert calls["aten::mm"] == 2 * 2 * (2 * 6 + 2)

    def test_the_times_add_up_to_the_profiled_step(self, profiled: Profiled) -> None:
        operators = profiled.operators
        in_operators_ms = sum(it["ms"] for it in operators["each"])

        assert operators["times_of"] == "cpu"
        assert 0.5 * operators["step_ms"] < in_operators_ms <= operators["step_ms"]
        assert in_operators_ms + operators["outside"]["ms"] == pytest.approx(operators["step_ms"])

    def test_the_joules_add_up_to_those_of_a_measured_step(self, profiled: Profiled) -> None:
        j_per_step = profiled.summary["energy"]["j_per_step"]
        shared_j = sum(it["j"] for it in profiled.operators["each"]) + profiled.operators["outside"]["j"]

        assert shared_j == pytest.approx(j_per_step)
        assert j_per_step == pytest.approx(POWER_W * profiled.summary["latency_ms"]["mean"] / 1000, rel=0.1)

    def test_no_profiled_step_is_among_the_measured_ones(self, profiled: Profiled) -> None:
        steps, window = profiled.run.steps[0], profiled.run.record.windows["profiler"]

        assert max(end for end in steps.end_ns if end is not None) <= window.start_ns
        assert steps.stage.count("step") == profiled.summary["steps"] >= 10

    def test_power_was_metered_while_they_were_made(self, profiled: Profiled) -> None:
        (curve,) = profiled.run.curves().values()

        assert curve.time_ns[-1] > profiled.run.record.windows["profiler"].start_ns

    def test_the_trace_has_their_edges_torch_s_spans_and_power_on_one_base(self, profiled: Profiled) -> None:
        ours, torch_s = profiled.spans("profiled step"), profiled.spans("ProfilerStep#")
        power = [it["ts"] for it in profiled.events if it["name"] == "package-0.metered_w"]
        slack_us = 300.0

        assert len(ours) == len(torch_s) == 3
        for (start, end), (torch_start, torch_end) in zip(ours, torch_s, strict=True):
            assert torch_start <= start + slack_us
            assert torch_end >= end - slack_us
        products = profiled.spans("aten::mm")
        assert len(products) == 3 * 2 * 2 * 14
        assert all(ours[0][0] - slack_us <= start <= ours[-1][1] + slack_us for start, _ in products)
        assert min(power) < ours[0][0]


def test_inference_has_its_operators_too(tmp_path: Path) -> None:
    cell = Cell(model="bert-tiny", mode="inference", device="cpu", copy="blocking", batch_size=2, sequence_length=16)
    step, _ = Bert().build(cell, DEVICES["cpu"])
    rundir = RunDir(tmp_path)

    record_operators(
        step, first=0, device=DEVICES["cpu"], rundir=rundir, events=EventWriter(rundir.events(0)), stopped=[]
    )

    calls = {it.name: it.calls for it in read_operators(rundir.operators)}
    assert calls["aten::addmm"] == 2 * 6 + 2
    assert "Optimizer.step#Adam.step" not in calls


def test_the_control_has_none_and_says_so(tmp_path: Path) -> None:
    done = powerbench("run", "--model", "sleep", "--torch-profiler", "--output", tmp_path)

    assert done.status == 2
    assert told(done) == "The model sleep runs without torch, so it has no operators: leave --torch-profiler out."


AT_IT = """
for at in range(0, 12, 2):
    marks[at] = marks[at + 1] = time.monotonic_ns()
events = EventWriter(rundir.events(0))
events.write("window", time_ns=1, first_step=0, steps=5)
events.write("end", time_ns=1, outcome="complete", message=None)
events.write("profiler", time_ns=1)
"""


def cut_short(
    folder: Path, ending: str, *, on_progress: Callable[[Progress], object] = lambda progress: None, **limits: float
) -> Run:
    """A run whose worker ends so when it has come to the steps under torch.profiler."""
    program = folder / "worker.py"
    program.write_text(WORKER + AT_IT + ending, "utf-8")
    options = {"model": "bert-tiny", "device": "cpu", "warmup": 0, "steps": 5, "torch_profiler": True}
    cell = resolve(make_cell(options=options, sets=dict(limits)), metered=False)
    command = [sys.executable, str(program)]
    return record_run(cell, parent=folder / "runs", command=command, on_progress=on_progress, progress_period_s=0.1)


def test_a_profiler_that_takes_the_worker_with_it_costs_no_run(tmp_path: Path) -> None:
    run = cut_short(tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)")

    assert (run.record.status, run.record.reason) == ("complete", None)
    assert run.steps[0].stage == ["step"] * 5
    text = " ".join(as_terminal([run]).split())
    assert "There are no operators: torch.profiler did not come to its end; worker-0.log may say why." in text


def test_one_that_takes_long_is_not_taken_for_a_step_that_hangs(tmp_path: Path) -> None:
    stages: set[str] = set()

    run = cut_short(
        tmp_path,
        "time.sleep(1.5)",
        on_progress=lambda progress: stages.add(progress.stage),
        **{"limits.step_seconds": 0.5},
    )

    assert (run.record.status, run.record.reason) == ("complete", None)
    assert "profiling" in stages


def test_ctrl_c_there_ends_the_run_and_what_comes_next_and_keeps_what_was_measured(tmp_path: Path) -> None:
    sent: list[str] = []

    def watch(progress: Progress) -> None:
        if progress.stage == "profiling" and not sent:
            sent.append(progress.stage)
            os.kill(os.getpid(), signal.SIGINT)

    run = cut_short(tmp_path, "time.sleep(600)", on_progress=watch)

    assert (run.record.status, run.record.reason) == ("interrupted", "stopped by Ctrl-C or a signal")
    assert run.steps[0].stage == ["step"] * 5
