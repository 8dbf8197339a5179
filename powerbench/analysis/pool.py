"""What the batches of a run held: its tokens, its operations, and which steps were the first of their shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from powerbench.records import RunRecord, StepTrace

T = TypeVar("T")


def first_seen_shapes(record: RunRecord, steps: StepTrace) -> list[int]:
    """The steps, counted from the first of the warm-up, with a batch of a length that none before them had.

    Some devices compile a graph for each new shape, on mps always: such a step takes longer. Empty where all batches
    are of one length.
    """
    lengths = record.workload.batch_lengths if record.workload else None
    if not lengths or len(set(lengths)) == 1:
        return []
    found: list[int] = []
    seen: set[int] = set()
    for step in range(len(steps)):
        new = set(_of_step(lengths, step, record.the_cell.accumulation or 1)) - seen
        if new:
            found.append(step)
            seen |= new
        if len(seen) == len(set(lengths)):
            break
    return found


def new_measured_shapes(record: RunRecord, steps: StepTrace) -> list[int]:
    """The same of the measured steps alone, counted from the first of these."""
    first = steps.stage.index("step") if "step" in steps.stage else len(steps)
    return [at - first for at in first_seen_shapes(record, steps) if steps.stage[at] == "step"]


def tokens_per_step(record: RunRecord, first: int, count: int) -> float | None:
    """The mean tokens, without padding, of `count` steps from step `first` on; None where they were not counted."""
    work = record.workload
    return None if work is None else _mean(record, work.batch_tokens, work.tokens_per_step, first, count)


def flop_per_step(record: RunRecord, first: int, count: int) -> float | None:
    """The mean floating-point operations of these steps, by the lengths of their batches; None where unknown."""
    work = record.workload
    return None if work is None else _mean(record, work.batch_flop, work.flop_per_step, first, count)


def _mean(
    record: RunRecord, of_batches: Sequence[float] | None, of_step: float | None, first: int, count: int
) -> float | None:
    if not of_batches or not count:
        return of_step
    rounds = record.the_cell.accumulation or 1
    return sum(sum(_of_step(of_batches, step, rounds)) for step in range(first, first + count)) / count


def _of_step(of_batches: Sequence[T], step: int, rounds: int) -> list[T]:
    return [of_batches[at % len(of_batches)] for at in range(step * rounds, (step + 1) * rounds)]
