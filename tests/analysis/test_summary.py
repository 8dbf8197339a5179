"""The figures of a run are exact arithmetic on its edges, and each that may mislead has its note."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerbench.analysis.latencies import Latency, latency
from powerbench.analysis.summary import Summary, summarize
from powerbench.records import DeviceRecord, RunRecord, StepTrace
from tests.rundir import MS, START, a_cell, a_record, steps_lasting

KEYS_OF_THE_DESIGN = [
    *("run", "status", "reason", "device", "timer", "model", "mode", "batch_size", "sequence_length", "dtype"),
    *("ranks", "global_batch_size", "steps", "warmup_steps", "wall_s", "wall_s_100_steps", "latency_ms"),
    *("samples_per_s", "tokens_per_s", "tflop_per_s"),
    *("peak_memory_bytes", "energy", "energy_reason", "slowdown", "phases", "operators"),
    *("stragglers", "per_rank", "notes"),
]


def figures(steps: StepTrace, record: RunRecord | None = None) -> Summary:
    return summarize("here", record or a_record(), steps)


def each(latency: Latency | None) -> dict[str, float | None]:
    assert latency is not None
    return {str(key): value for key, value in msgspec.to_builtins(latency).items()}


class TestFigures:
    def test_of_a_hundred_steps_of_twenty_milliseconds(self) -> None:
        summary = figures(steps_lasting(*[20] * 100))

        assert (summary.steps, summary.wall_s, summary.wall_s_100_steps) == (100, 2.0, 2.0)
        assert each(summary.latency_ms) == dict.fromkeys(("mean", "median", "p5", "p95", "min", "max"), 20.0)
        assert summary.samples_per_s == 800.0  # 16 a step, 50 steps a second
        assert summary.tflop_per_s == 0.05  # 1 GFLOP a step
        assert summary.notes == []

    def test_leave_warmup_and_tail_out(self) -> None:
        trace = steps_lasting(500, 500, stage="warmup")
        steps_lasting(10, 30, after=trace)
        steps_lasting(900, stage="tail", after=trace)

        summary = figures(trace)

        assert (summary.steps, summary.warmup_steps, summary.wall_s) == (2, 2, 0.04)
        assert summary.wall_s_100_steps == 2.0

    def test_interpolate_percentiles_between_neighbours(self) -> None:
        summary = figures(steps_lasting(50, 10, 30, 20, 40))

        assert each(summary.latency_ms) == pytest.approx(
            {"mean": 30, "median": 30, "p5": 12, "p95": 48, "min": 10, "max": 50}
        )

    def test_with_edges_at_both_ends_only_have_a_mean_and_nothing_else(self) -> None:
        summary = figures(steps_lasting(*[None] * 99, 1500))

        assert (summary.steps, summary.wall_s) == (100, 1.5)
        assert each(summary.latency_ms) == {
            **{"mean": 15.0, "median": None, "p5": None},
            **{"p95": None, "min": None, "max": None},
        }
        assert summary.notes == [
            "The device was waited for at both ends only, so there is a mean latency and nothing else."
        ]

    def test_with_an_edge_at_each_fifth_step_are_of_blocks(self) -> None:
        summary = figures(steps_lasting(*([None] * 4 + [50]) * 19, *[None] * 4, 100))

        assert (summary.steps, summary.wall_s) == (100, 1.05)
        assert each(summary.latency_ms) == pytest.approx(
            {"mean": 10.5, "median": 10, "p5": 10, "p95": 10.5, "min": 10, "max": 20}
        )
        assert summary.notes == [
            "Latencies are means of blocks of up to 5 steps: the device was waited for at each block's end only."
        ]

    def test_count_only_steps_that_an_edge_has_closed(self) -> None:
        summary = figures(steps_lasting(*[10] * 100, None, None))

        assert (summary.steps, summary.wall_s) == (100, 1.0)

    def test_of_a_single_step_are_that_step(self) -> None:
        assert each(figures(steps_lasting(7)).latency_ms) == dict.fromkeys(
            ("mean", "median", "p5", "p95", "min", "max"), 7.0
        )

    def test_of_no_steps_are_unknown_and_not_zero(self) -> None:
        summary = figures(StepTrace(), a_record(device=None, workload=None))

        assert (summary.steps, summary.warmup_steps) == (0, 0)
        unknown = (summary.wall_s, summary.wall_s_100_steps, summary.latency_ms, summary.samples_per_s)
        assert unknown == (None, None, None, None)
        assert (summary.tflop_per_s, summary.timer, summary.peak_memory_bytes) == (None, None, None)

    def test_of_a_workload_without_operations_have_no_tflop_per_s(self) -> None:
        record = a_record()
        assert record.workload is not None
        workload = msgspec.structs.replace(record.workload, flop_per_step=None)

        summary = figures(steps_lasting(*[20] * 100), a_record(workload=workload))

        assert (summary.samples_per_s, summary.tflop_per_s) == (800.0, None)

    def test_have_the_keys_of_the_design_in_its_order(self) -> None:
        assert list(msgspec.to_builtins(figures(StepTrace()))) == KEYS_OF_THE_DESIGN

    def test_repeat_the_cell_and_how_the_run_ended(self) -> None:
        summary = figures(StepTrace(), a_record(status="failed", reason="it rained"))

        assert (summary.run, summary.status, summary.reason) == ("here", "failed", "it rained")
        assert (summary.device, summary.timer, summary.model, summary.mode) == (
            *("cpu", "clock"),
            *("bert-tiny", "inference"),
        )
        assert (summary.batch_size, summary.sequence_length, summary.dtype) == (16, 128, "float32")

    def test_say_why_there_is_no_energy(self) -> None:
        summary = figures(StepTrace())

        assert (summary.energy, summary.energy_reason) == (None, "no meter was recorded with this run")

    def test_of_steps_that_took_no_time_are_given_too(self) -> None:
        summary = figures(steps_lasting(1, 0, 0, 0))

        assert each(summary.latency_ms)["median"] == 0.0

    def test_of_a_window_that_took_no_time_are_given_without_a_rate_of_the_clocks(self) -> None:
        device = DeviceRecord(kind="cuda", name="a GPU", timer="cuda events", anchor_error_ns=5)

        summary = figures(steps_lasting(0, 0, 0), a_record(device=device))

        assert (summary.wall_s, len(summary.notes)) == (0.0, 1)

    @settings(deadline=None)
    @given(st.lists(st.one_of(st.none(), st.floats(0.01, 1e6)), min_size=1, max_size=60))
    def test_have_a_mean_that_times_the_steps_is_the_wall_time(self, lengths: list[float | None]) -> None:
        summary = figures(steps_lasting(*lengths))

        if summary.wall_s is None:
            assert (summary.steps, summary.latency_ms) == (0, None)
        else:
            assert summary.latency_ms is not None
            assert summary.steps is not None
            assert summary.latency_ms.mean * summary.steps == pytest.approx(summary.wall_s * 1000)

    @settings(deadline=None)
    @given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=60))
    def test_rise_from_the_least_to_the_most(self, lengths: list[float]) -> None:
        it = each(figures(steps_lasting(*lengths)).latency_ms)

        rising = [it[key] or 0 for key in ("min", "p5", "median", "p95", "max")]
        assert rising == pytest.approx(sorted(rising))
        assert it["min"] == pytest.approx(min(lengths), abs=1e-6)
        assert it["max"] == pytest.approx(max(lengths), abs=1e-6)


def test_latency_is_not_rounded_on_a_machine_that_has_been_up_for_a_hundred_days() -> None:
    up_ns = 100 * 86400 * 10**9

    assert latency([(up_ns, up_ns + 1_000_001, 1)]) == Latency(
        **dict.fromkeys(("mean", "median", "p5", "p95", "min", "max"), 1.000001)
    )


class TestNotes:
    def notes(self, *lengths: float, **changes: object) -> list[str]:
        return figures(steps_lasting(*lengths or [20] * 100), a_record(**changes)).notes

    def test_come_behind_those_that_were_recorded(self) -> None:
        assert self.notes(*[20] * 50, notes=["The dog barked."]) == [
            "The dog barked.",
            "The time for 100 steps is extrapolated from 50.",
        ]

    @pytest.mark.parametrize(("steps", "has"), [(1, "1 step is"), (99, "99 steps are")])
    def test_say_that_a_trace_is_short(self, steps: int, has: str) -> None:
        assert self.notes(*[20] * steps, cell=a_cell(trace=True)) == [
            f"The time for 100 steps is extrapolated from {steps}.",
            f"{has} few for a slowdown trace: only large changes show. Measure 100 or more with --steps.",
        ]

    def test_say_nothing_of_a_trace_that_is_long_enough(self) -> None:
        assert self.notes(*[20] * 100, cell=a_cell(trace=True)) == []

    def test_say_that_the_first_step_was_slow_and_what_to_do(self) -> None:
        slow = [60, *[20] * 99]

        said = "The first measured step took 3.00 times the median."
        assert self.notes(*slow) == [f"{said} Leave first steps out with --warmup to keep it out."]
        assert self.notes(*slow, cell=a_cell(warmup=2)) == [f"{said} Add steps to --warmup to keep it out."]

    def test_say_nothing_of_a_first_step_that_was_a_little_slow(self) -> None:
        assert self.notes(29, *[20] * 99) == []

    def test_compare_the_first_step_with_the_middle_of_an_even_number(self) -> None:
        assert self.notes(29, 10, 20, 29, cell=a_cell(steps=4))[:-1] == []  # the middle is 24.5

    def test_say_that_the_steps_did_not_last_as_long_as_they_should_and_what_to_do(self) -> None:
        cell = a_cell(min_seconds=10.0)

        assert self.notes(*[20] * 100, cell=cell) == [
            "The measured steps lasted 2.00s, not the 10s of min_seconds: "
            "there was no room to record more of such short steps. Take a larger batch."
        ]

    @pytest.mark.parametrize(
        "changes",
        [
            {"cell": a_cell(min_seconds=2.0)},
            {"cell": a_cell(min_seconds=0.0)},
            {"cell": a_cell(min_seconds=None)},
            {"cell": a_cell(min_seconds=10.0), "status": "interrupted"},
        ],
        ids=["long enough", "no minimum", "none asked for", "interrupted"],
    )
    def test_say_nothing_of_a_duration_that_was_kept_or_cut_short_by_the_ending(self, changes: dict[str, Any]) -> None:
        assert self.notes(*[20] * 100, **changes) == []

    def test_say_that_the_machine_was_busy(self) -> None:
        busy = {"load_1min": 1.0, "logical_cores": 2}

        assert self.notes(environment=busy) == [
            "The machine was busy before the run began (load 1.0 on 2 cores), if only with the run before it."
        ]
        assert self.notes(environment=busy | {"load_1min": 0.9}) == []
        assert self.notes(environment={}) == []

    @pytest.mark.parametrize(("on_battery", "count"), [(True, 1), (False, 0), (None, 0)])
    def test_say_that_the_machine_ran_on_its_battery(self, on_battery: bool | None, count: int) -> None:
        note = "The machine ran on its battery, which may slow it down."

        assert self.notes(environment={"on_battery": on_battery}) == [note] * count

    @pytest.mark.parametrize(("mode", "count"), [("low power", 1), ("quiet", 1), ("powersave", 0), (None, 0)])
    def test_say_that_the_machine_was_told_to_be_slow(self, mode: str | None, count: int) -> None:
        note = f"The machine ran in its {mode} mode, which slows it down."

        assert self.notes(environment={"power_mode": mode}) == [note] * count

    @pytest.mark.parametrize(("virtual", "count"), [(True, 1), (False, 0), (None, 0)])
    def test_say_that_the_machine_is_a_virtual_one(self, virtual: bool | None, count: int) -> None:
        note = (
            "This is a virtual machine: others may use the same cores, and two of its runs may differ for that alone."
        )

        assert self.notes(environment={"virtual_machine": virtual}) == [note] * count

    def test_flag_what_no_device_can_do(self) -> None:
        assert self.notes(*[0.5] * 100) == [  # 1 GFLOP in half a millisecond
            "2.00 TFLOP/s is more than this device can do (at most 1.00): "
            "the clock did not wait for it, and the times are wrong."
        ]

    def test_do_not_flag_where_the_device_has_no_known_bound(self) -> None:
        assert self.notes(*[0.5] * 100, device=None) == []


def test_spans_are_taken_as_they_are() -> None:
    spans = [(START, START + 6 * MS, 3), (START + 6 * MS, START + 8 * MS, 1)]

    assert latency(spans) == Latency(mean=2.0, median=2.0, p5=2.0, p95=2.0, min=2.0, max=2.0)


def test_without_spans_there_is_no_latency() -> None:
    assert latency([]) is None
