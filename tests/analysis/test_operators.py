"""The operators of a step: shares and joules are exact, of the device's own times, and what is not known is said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from powerbench.analysis.operators import Operator, OperatorFindings, find_operators
from powerbench.records import OperatorTimes, ProfilerRecord, Window
from tests.rundir import MS, START, a_cell, a_record

US = 1000


def steps_of(ms: float, *, steps: int = 3) -> list[Window]:
    return [Window(START + at * 100 * MS, START + at * 100 * MS + round(ms * MS)) for at in range(steps)]


def on_cpu(name: str, ms: float, *, calls: float = 1, total_ms: float | None = None) -> OperatorTimes:
    return OperatorTimes(name, "cpu", calls, ms * US, (total_ms or ms) * US, None, None)


def on_cuda(name: str, ms: float, *, cpu_ms: float = 0.1, on: str = "cpu") -> OperatorTimes:
    return OperatorTimes(name, on, 1, cpu_ms * US, cpu_ms * US, ms * US, ms * US)


OF_20_MS = [on_cpu("ProfilerStep*", 1, total_ms=20), on_cpu("aten::add", 5, calls=90), on_cpu("aten::mm", 14, calls=28)]


def found(
    times: Sequence[OperatorTimes] = OF_20_MS,
    *,
    step_ms: float = 20,
    device: str = "cpu",
    measured_ms: float | None = 20,
    j_per_step: float | None = None,
    profiler: dict[str, Any] | None = None,
    **changes: Any,
) -> OperatorFindings:
    """What is found in a run whose profiled steps took `step_ms` each."""
    told = ProfilerRecord(**{"steps": steps_of(step_ms)} | (profiler or {}))
    record = a_record(**{"cell": a_cell(device=device, torch_profiler=True), "profiler": told} | changes)
    return find_operators(record, times, measured_ms=measured_ms, j_per_step=j_per_step)


def of(findings: OperatorFindings) -> list[tuple[str, float, float | None]]:
    """Name, share and joules of each operator, to the billionth."""
    assert findings.operators is not None
    each = findings.operators.each
    return [(it.name, round(it.share, 9), None if it.j is None else round(it.j, 9)) for it in each]


def test_an_operator_has_its_own_time_as_a_share_of_the_step_the_longest_first() -> None:
    operators, notes = found()

    assert notes == []
    assert operators is not None
    assert (operators.steps, operators.step_ms, operators.times_of) == (3, 20.0, "cpu")
    assert operators.each == [
        Operator(name="aten::mm", calls=28, ms=14.0, share=0.7, j=None),
        Operator(name="aten::add", calls=90, ms=5.0, share=0.25, j=None),
    ]
    assert operators.outside == Operator(name="Python, between operators", calls=None, ms=1.0, share=0.05, j=None)


def test_the_joules_of_a_step_go_by_these_shares_and_add_up_to_it() -> None:
    findings = found(j_per_step=4.0)

    assert of(findings) == [("aten::mm", 0.7, 2.8), ("aten::add", 0.25, 1.0)]
    assert findings.operators is not None
    assert findings.operators.outside is not None
    assert findings.operators.outside.j == pytest.approx(0.2)


def test_on_an_accelerator_the_times_are_its_own_and_its_kernels_stand_with_their_operators() -> None:
    times = [
        on_cuda("ProfilerStep*", 0, cpu_ms=9),
        on_cuda("aten::mm", 15, cpu_ms=0.5),
        on_cuda("aten::item", 0, cpu_ms=8),
        on_cuda("ampere_sgemm", 15, cpu_ms=0, on="cuda"),
    ]

    operators, notes = found(times, device="cuda", j_per_step=10.0, profiler={"device": "cuda"})

    assert notes == []
    assert operators is not None
    assert operators.times_of == "cuda"
    assert [(it.name, it.ms, it.share, it.j) for it in operators.each] == [("aten::mm", 15.0, 0.75, 7.5)]
    assert operators.outside == Operator(name="cuda without an operator's work", calls=None, ms=5.0, share=0.25, j=2.5)


def test_into_what_torch_cannot_see_no_joules_are_shared_out() -> None:
    findings = found(device="mps", j_per_step=4.0)

    assert of(findings) == [("aten::mm", 0.7, None), ("aten::add", 0.25, None)]
    assert findings.notes == [
        "torch.profiler does not see into mps here: the operators' times are the processor's, which mostly submits "
        "work and waits, so no joules are shared out by them."
    ]


def test_operators_side_by_side_leave_nothing_outside() -> None:
    operators, _ = found(step_ms=18)

    assert operators is not None
    assert operators.outside is None


def test_measured_steps_that_were_much_slower_are_not_passed_over() -> None:
    assert found(step_ms=20, measured_ms=24).notes == []
    (note,) = found(step_ms=20, measured_ms=50).notes
    assert note.startswith("The measured steps took 2.50 times what those under torch.profiler took: they were kept")


def test_what_recording_costs_is_said_where_it_shows() -> None:
    _, notes = found(measured_ms=10)

    assert notes == [
        "Under torch.profiler a step took 2.00 times what the measured ones took: recording has its cost, and "
        "operators that are called often look longer than they are."
    ]
    assert found(measured_ms=16.1).notes == found(measured_ms=None).notes == []


def test_a_calendar_that_was_set_meanwhile_is_said() -> None:
    _, notes = found(profiler={"anchor_width_ns": 1500 * MS})

    assert notes == ["The calendar was set while torch.profiler was at work: its trace may lie 1.50s off the power."]


class TestWithout:
    def test_having_been_asked_for_nothing_is_said(self) -> None:
        record = a_record(cell=a_cell(torch_profiler=False))

        assert find_operators(record, [], measured_ms=1, j_per_step=None) == OperatorFindings(None, [])

    def test_because_the_profiler_failed_its_word_is_given(self) -> None:
        assert found([], profiler={"steps": [], "reason": "no memory"}) == OperatorFindings(
            None, ["There are no operators: no memory."]
        )

    def test_because_the_worker_died_in_it_the_log_is_named(self) -> None:
        record = a_record(cell=a_cell(torch_profiler=True))

        assert find_operators(record, [], measured_ms=1, j_per_step=None).notes == [
            "There are no operators: torch.profiler did not come to its end; worker-0.log may say why."
        ]

    @pytest.mark.parametrize("status", ["oom", "running", "interrupted"])
    def test_in_a_run_that_never_came_to_it_nothing_is_said(self, status: str) -> None:
        record = a_record(cell=a_cell(torch_profiler=True), status=status)

        assert find_operators(record, [], measured_ms=None, j_per_step=None) == OperatorFindings(None, [])
