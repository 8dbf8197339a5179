"""The steps under torch.profiler: which they are, what is written of them, and that no trouble with it is more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from powerbench.devices.cpu import Cpu
from powerbench.records import OperatorTimes, ProfilerRecord, Window
from powerbench.rundir import RunDir
from powerbench.rundir.completed import is_without_operators
from powerbench.rundir.lines import EventWriter, LineTail, read_events
from powerbench.rundir.operators import read_operators
from powerbench.torch_profiler import activities_for, anchor, record_operators, times_of

STEPPED = (100, 101, 102, 103)


def recorded(
    folder: Path, step: Callable[[int], object], *, stopped: list[int] | None = None
) -> tuple[RunDir, list[dict[str, Any]]]:
    """The run directory and the events of steps that were made under the profiler."""
    rundir = RunDir(folder)

    def one(index: int, /) -> None:
        step(index)

    record_operators(
        one,
        first=100,
        device=Cpu(),
        rundir=rundir,
        events=EventWriter(rundir.events(0)),
        stopped=stopped if stopped is not None else [],
    )
    return rundir, list(read_events(LineTail(rundir.events(0)).read()))


class Recording(NamedTuple):
    """The steps that were made under the real profiler, and what it left."""

    made: list[int]
    rundir: RunDir
    said: dict[str, Any]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Five matrix products a step."""
    import torch

    made: list[int] = []
    matrix = torch.ones(200, 200)

    def step(index: int) -> None:
        made.append(index)
        for _ in range(5):
            torch.mm(matrix, matrix)

    rundir, (begun, said) = recorded(tmp_path_factory.mktemp("run"), step)
    assert (begun["event"], said["event"]) == ("profiler", "operators")
    return Recording(made, rundir, said)


class TestRealTorch:
    def test_one_step_warms_it_and_three_are_recorded(self, recording: Recording) -> None:
        assert recording.made == list(STEPPED)
        assert len(recording.said["steps"]) == 3
        assert (recording.said["device"], recording.said["reason"]) == (None, None)

    def test_the_operators_are_those_of_one_step(self, recording: Recording) -> None:
        (product,) = [it for it in read_operators(recording.rundir.operators) if it.name == "aten::mm"]

        assert (product.calls, product.on, product.device_self_us) == (5, "cpu", None)
        assert 0 < product.cpu_self_us <= product.cpu_total_us

    def test_own_times_add_up_to_the_steps(self, recording: Recording) -> None:
        own_us = sum(it.cpu_self_us for it in read_operators(recording.rundir.operators))
        step_us = sum(step["end_ns"] - step["start_ns"] for step in recording.said["steps"]) / 3 / 1000

        # torch's step begins before our stamp and ends behind it, by some ten microseconds on a machine at leisure.
        assert own_us >= 0.9 * step_us

    def test_the_trace_lies_where_the_steps_were_on_the_clock(self, recording: Recording) -> None:
        """torch's own span of a step holds ours: it is begun before the one stamp and ended after the other."""
        trace = json.loads(recording.rundir.torch_trace.read_text("utf-8"), strict=False)
        spans = [it for it in trace["traceEvents"] if it["name"].startswith("ProfilerStep#") and it["ph"] == "X"]
        ahead_ns = recording.said["unix_ns"] - recording.said["monotonic_ns"] - trace["baseTimeNanoseconds"]
        slack_ns = 200_000 + recording.said["anchor_width_ns"]

        assert len(spans) == 3
        for span, step in zip(spans, recording.said["steps"], strict=True):
            start_ns = span["ts"] * 1000 - ahead_ns
            assert start_ns <= step["start_ns"] + slack_ns
            assert start_ns + span["dur"] * 1000 >= step["end_ns"] - slack_ns

    def test_nothing_else_is_left_behind(self, recording: Recording) -> None:
        names = sorted(file.name for file in recording.rundir.path.iterdir())

        assert names == ["operators.csv", "torch-trace.json", "worker-0.jsonl"]


def fails(index: int) -> None:
    if index == 102:
        raise RuntimeError("CUPTI is busy\nand more about it")


def test_a_step_or_a_profiler_that_fails_is_a_reason_and_nothing_more(tmp_path: Path) -> None:
    rundir, (_, said) = recorded(tmp_path, fails)

    assert said["reason"] == "CUPTI is busy"
    assert said["steps"] == []
    assert not rundir.operators.exists()
    assert not rundir.torch_trace.exists()


def test_once_the_run_is_to_stop_no_more_steps_are_made(tmp_path: Path) -> None:
    stopped: list[int] = []
    made: list[int] = []

    def step(index: int) -> None:
        made.append(index)
        stopped.append(2)

    rundir, (_, said) = recorded(tmp_path, step, stopped=stopped)

    assert made == [100]
    assert said["reason"] == "the run was told to stop before its last steps were made"
    assert not rundir.operators.exists()


def test_the_worker_is_without_operators_from_its_word_on_them_until_it_has_some() -> None:
    begun: dict[str, Any] = {"event": "profiler"}
    told: dict[str, Any] = {"event": "operators", "reason": None}

    assert not is_without_operators([])
    assert is_without_operators([begun])
    assert not is_without_operators([begun, told])
    assert is_without_operators([begun, told | {"reason": "no memory"}])


def average(name: str, on: str = "CPU", **times: Any) -> Any:
    """As torch's FunctionEventAvg: microseconds over all steps."""
    usual = {"count": 3, "self_cpu_time_total": 30.0, "cpu_time_total": 60.0}
    device = {"self_device_time_total": 0.0, "device_time_total": 0.0, "is_user_annotation": False}
    return SimpleNamespace(key=name, device_type=SimpleNamespace(name=on), **usual | device | times)


class TestTimes:
    def test_are_a_step_s_mean(self) -> None:
        (times,) = times_of([average("aten::mm", count=4)], steps=3, with_device=False)

        assert times == OperatorTimes("aten::mm", "cpu", 4 / 3, 10.0, 20.0, None, None)

    def test_of_a_device_are_told_with_its_kernels_but_without_the_shadows_of_named_stretches(self) -> None:
        averages = [
            average("aten::add", self_device_time_total=3.0, device_time_total=3.0),
            average("aten::mm", self_device_time_total=90.0, device_time_total=90.0),
            average("sgemm", "CUDA", self_cpu_time_total=0.0, self_device_time_total=90.0, device_time_total=90.0),
            average("Optimizer.step#Adam.step", "CUDA", is_user_annotation=True, self_device_time_total=500.0),
            average("Optimizer.step#Adam.step", is_user_annotation=True),
        ]

        times = times_of(averages, steps=3, with_device=True)

        assert [(it.name, it.on, it.device_self_us) for it in times] == [
            ("aten::mm", "cpu", 30.0),
            ("sgemm", "cuda", 30.0),
            ("aten::add", "cpu", 1.0),
            ("Optimizer.step#Adam.step", "cpu", 0.0),
        ]


class TestActivities:
    @pytest.mark.parametrize("kind", ["cpu", "mps", "npu"])
    def test_are_the_processor_s_alone_where_there_is_nothing_else_or_torch_cannot_see_it(self, kind: str) -> None:
        assert [it.name for it in activities_for(kind)] == ["CPU"]

    def test_are_those_that_this_torch_was_built_for(self) -> None:
        from torch.profiler import ProfilerActivity, supported_activities

        expected = {ProfilerActivity.CPU} | ({ProfilerActivity.CUDA} & supported_activities())

        assert set(activities_for("cuda")) == expected


def test_the_anchor_is_the_narrowest_of_its_readings() -> None:
    moments = iter([*(at for start in range(0, 8000, 1000) for at in (start, start + 500)), 9000, 9010])
    calendar = iter(range(70_000, 70_009))

    assert anchor(clock_ns=lambda: next(moments), calendar_ns=lambda: next(calendar)) == (9005, 70_008, 10)


def test_a_record_of_it_is_what_run_json_holds() -> None:
    import msgspec

    told = ProfilerRecord(steps=[Window(1, 2)], device="cuda", monotonic_ns=3, unix_ns=4)

    assert msgspec.convert(msgspec.to_builtins(told), ProfilerRecord) == told
