"""What a run is made of: the settings' limits, the arithmetic of edges, and the record's way through JSON."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerbench.errors import PowerbenchError
from powerbench.records import SCHEMA, STAGES, Cell, LoopCell, RunRecord, Stage, StepTrace, Window
from tests.rundir import GOLDEN, MS, START, a_record, steps_lasting


def test_the_defaults_are_those_of_the_published_tables() -> None:
    cell = Cell()

    assert (cell.model, cell.mode, cell.batch_size, cell.sequence_length) == ("bert-base-cased", "training", 32, 128)
    assert (cell.steps, cell.dtype, cell.optimizer, cell.learning_rate) == (100, "float32", "adam", 1e-4)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_size", 0),
        ("steps", 0),
        ("steps", 10_000_001),
        ("steps", 2.5),
        ("warmup", -1),
        ("min_seconds", -0.5),
        ("max_seconds", 0),
        ("dtype", "float7"),
        ("sleep_ms", 0),
        ("model", ""),
        ("trace", 1),
    ],
)
def test_a_recorded_cell_outside_the_limits_is_refused(key: str, value: object) -> None:
    with pytest.raises(msgspec.ValidationError, match=key):
        msgspec.convert({key: value}, Cell)


def test_a_record_reads_back_from_json_as_it_was_written() -> None:
    record = a_record(windows={"measured": Window(START, START + 1)}, notes=["one"], rails={})

    assert msgspec.json.decode(msgspec.json.encode(record), type=RunRecord) == record


class TestTheCellOfAProgramsOwnLoop:
    def test_reads_back_with_what_is_unknown_unknown(self) -> None:
        record = a_record(cell=LoopCell(device="cpu", model="mine", warmup=1), loop=True)

        again = msgspec.json.decode(msgspec.json.encode(record), type=RunRecord)

        assert again == record
        assert type(again.the_cell) is LoopCell
        assert again.the_cell.batch_size is None

    def test_is_no_cell_that_we_could_measure(self) -> None:
        record = a_record(id="mine", cell=LoopCell(device="cpu", model="mine", warmup=1), loop=True)

        with pytest.raises(PowerbenchError, match="mine is a run of a program's own loop: only that program can step"):
            _ = record.built_in

    def test_that_of_the_built_in_loop_knows_everything(self) -> None:
        again = msgspec.json.decode(msgspec.json.encode(a_record()), type=RunRecord)

        assert type(again.built_in) is Cell

    def test_has_every_setting_of_the_built_in_one_in_its_order(self) -> None:
        assert LoopCell.__struct_fields__ == Cell.__struct_fields__


def test_each_schema_so_far_has_a_golden_run() -> None:
    assert [folder.name for folder in sorted(GOLDEN.glob("schema-*"))] == [f"schema-{n}" for n in range(1, SCHEMA + 1)]


class TestStepTrace:
    def test_with_an_edge_behind_each_step_each_is_a_span(self) -> None:
        trace = steps_lasting(10, 20, 30)

        assert trace.spans("step") == [
            (START, START + 10 * MS, 1),
            (START + 10 * MS, START + 30 * MS, 1),
            (START + 30 * MS, START + 60 * MS, 1),
        ]

    def test_steps_without_an_edge_belong_to_the_span_that_the_next_edge_closes(self) -> None:
        trace = steps_lasting(None, None, 30, None, 20)

        assert trace.spans("step") == [(START, START + 30 * MS, 3), (START + 30 * MS, START + 50 * MS, 2)]

    def test_steps_behind_the_last_edge_are_in_no_span(self) -> None:
        assert steps_lasting(10, None, None).spans("step") == [(START, START + 10 * MS, 1)]

    def test_each_stage_has_its_own_spans_and_window(self) -> None:
        trace = steps_lasting(5, 5, stage="warmup")
        steps_lasting(10, 10, 10, stage="step", after=trace)
        steps_lasting(1, stage="tail", after=trace)

        assert len(trace) == 6
        assert trace.window("warmup") == Window(START, START + 10 * MS)
        assert trace.window("step") == Window(START + 10 * MS, START + 40 * MS)
        assert trace.window("tail") == Window(START + 40 * MS, START + 41 * MS)

    def test_a_step_whose_edge_never_came_does_not_leak_into_the_next_stage(self) -> None:
        trace = steps_lasting(5, None, stage="warmup")
        steps_lasting(10, stage="step", after=trace)

        assert trace.spans("step") == [(START + 5 * MS, START + 15 * MS, 1)]

    def test_without_an_edge_there_is_no_window(self) -> None:
        assert StepTrace().window("step") is None
        assert steps_lasting(None, None).window("step") is None

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(STAGES), st.one_of(st.none(), st.integers(0, 10**13))), max_size=40))
    def test_the_spans_of_a_stage_add_up_to_its_window_to_the_nanosecond(
        self, drawn: list[tuple[Stage, int | None]]
    ) -> None:
        trace = trace_in_order(drawn)

        for stage in STAGES:
            spans, window = trace.spans(stage), trace.window(stage)
            if window is None:
                assert spans == []
            else:
                assert sum(end - start for start, end, _ in spans) == window.end_ns - window.start_ns
                assert sum(steps for *_, steps in spans) <= trace.stage.count(stage)


def trace_in_order(drawn: list[tuple[Stage, int | None]]) -> StepTrace:
    """Steps of these stages and lengths (ns; None: no edge), stages in order and, as the fences see to, whole."""
    trace, edge = StepTrace(), START
    in_order: list[Any] = sorted(drawn, key=lambda step: STAGES.index(step[0]))
    for at, (stage, length) in enumerate(in_order):
        if length is None and at + 1 < len(in_order) and in_order[at + 1][0] != stage:
            length = 1
        end = None if length is None else edge + length
        trace.append(stage, edge, edge, end)
        edge = edge if end is None else end
    return trace
