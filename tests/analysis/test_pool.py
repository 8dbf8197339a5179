"""What the batches of a run held, step by step: they come round in turn, and only the first of a shape is new."""

from __future__ import annotations

from typing import Any

from powerbench.analysis.pool import first_seen_shapes, flop_per_step, new_measured_shapes, tokens_per_step
from powerbench.analysis.summary import summarize
from powerbench.records import RunRecord, WorkloadRecord
from tests.rundir import a_cell, a_record, steps_lasting

OF_EACH: dict[str, Any] = {"batch_tokens": [10, 20, 30], "batch_flop": [1e9, 2e9, 6e9]}


def a_run(lengths: list[int] | None, *, accumulation: int = 1, **changes: Any) -> RunRecord:
    work = WorkloadRecord(
        samples_per_step=16, tokens_per_step=20.0, flop_per_step=3e9, batch_lengths=lengths, **changes
    )
    return a_record(workload=work, cell=a_cell(pad="longest", accumulation=accumulation))


class TestFirstSeenShapes:
    def test_are_where_a_length_comes_for_the_first_time(self) -> None:
        assert first_seen_shapes(a_run([16, 24, 16, 32]), steps_lasting(*[20] * 9)) == [0, 1, 3]

    def test_are_those_of_the_steps_that_there_are(self) -> None:
        assert first_seen_shapes(a_run([16, 24, 16, 32]), steps_lasting(20, 20)) == [0, 1]

    def test_count_all_batches_of_a_step(self) -> None:
        assert first_seen_shapes(a_run([16, 24, 16, 32], accumulation=2), steps_lasting(*[20] * 9)) == [0, 1]

    def test_are_none_where_all_batches_are_alike_or_nothing_is_known(self) -> None:
        steps = steps_lasting(20, 20)

        assert first_seen_shapes(a_run([16, 16]), steps) == []
        assert first_seen_shapes(a_run(None), steps) == []
        assert first_seen_shapes(a_record(workload=None), steps) == []

    def test_of_the_measured_steps_are_counted_from_the_first_of_these(self) -> None:
        warm = steps_lasting(50, 50, stage="warmup")

        assert new_measured_shapes(a_run([16, 24, 16, 32]), steps_lasting(*[20] * 9, after=warm)) == [1]
        assert new_measured_shapes(a_run([16, 24]), warm) == []


class TestMeans:
    def test_are_of_the_very_steps(self) -> None:
        run = a_run([16, 24, 32], **OF_EACH)

        assert tokens_per_step(run, first=2, count=2) == (30 + 10) / 2
        assert flop_per_step(run, first=2, count=2) == (6e9 + 1e9) / 2

    def test_are_of_the_pool_where_batches_are_alike(self) -> None:
        run = a_run(None)

        assert (tokens_per_step(run, first=2, count=2), flop_per_step(run, first=0, count=1)) == (20.0, 3e9)

    def test_of_what_is_not_known_are_none(self) -> None:
        run = a_record(workload=WorkloadRecord(samples_per_step=16))

        assert tokens_per_step(run, first=0, count=1) is flop_per_step(run, first=0, count=1) is None

    def test_give_the_throughput_of_the_measured_steps(self) -> None:
        warm = steps_lasting(50, stage="warmup")

        summary = summarize("a run", a_run([16, 24, 32], **OF_EACH), steps_lasting(100, 100, after=warm))

        assert summary.tokens_per_s == (20 + 30) / 0.2
        assert summary.tflop_per_s == (2e9 + 6e9) / 1e12 / 0.2
