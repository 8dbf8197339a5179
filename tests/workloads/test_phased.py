"""Steps with stamps: they do what plain steps do, and their phases add up to them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from powerbench.devices import DEVICES
from powerbench.records import Cell, PhaseSpan, phases_of
from powerbench.workloads.bert import Bert
from powerbench.workloads.laps import Laps

CPU = DEVICES["cpu"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """On a busy machine two threads of torch wait for each other longer than one works."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(**changes: Any) -> Cell:
    settings: dict[str, Any] = {"device": "cpu", "batch_size": 2, "sequence_length": 8, "copy": "blocking"}
    return Cell(model="bert-tiny", **settings | changes)


def stamped(cell: Cell, steps: int) -> list[PhaseSpan]:
    names = phases_of(cell)
    view = memoryview(bytearray(16 * len(names) * (steps + 1))).cast("q")
    step, _ = Bert().build(cell, CPU, Laps(view, width=len(names), synchronize=CPU.synchronize))
    for index in range(steps):
        step(index)
    pairs = zip(view[::2].tolist(), view[1::2].tolist(), strict=True)
    rows = [name for _ in range(steps) for name in names]
    return [PhaseSpan(at // len(names), name, *pair) for at, (name, pair) in enumerate(zip(rows, pairs, strict=False))]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["copy", "forward", "backward", "optimizer"]),
        ({"accumulation": 2}, ["copy", "forward", "backward"] * 2 + ["optimizer"]),
        ({"mode": "inference"}, ["copy", "forward"]),
        ({"include_data": True, "mode": "inference"}, ["data", "copy", "forward"]),
        ({"phases": False}, []),
        ({"phases": False, "include_data": True, "accumulation": 2}, ["data", "data"]),
    ],
)
def test_the_phases_of_a_step_are_those_of_its_cell(changes: dict[str, Any], names: list[str]) -> None:
    assert phases_of(tiny(**{"phases": True} | changes)) == names


@pytest.mark.parametrize("changes", [{}, {"accumulation": 2}, {"mode": "inference"}, {"dtype": "bfloat16"}])
def test_each_phase_takes_time_and_begins_where_the_last_ended(changes: dict[str, Any]) -> None:
    cell = tiny(phases=True, **changes)

    spans = stamped(cell, 3)

    assert [span.phase for span in spans] == phases_of(cell) * 3
    assert all(span.start_ns < span.end_ns for span in spans)
    for one, next_one in pairwise(spans):
        assert one.end_ns == next_one.start_ns if one.step == next_one.step else one.end_ns <= next_one.start_ns


@pytest.mark.parametrize("changes", [{"accumulation": 2}, {"dtype": "float16"}, {"optimizer": "sgd"}])
def test_a_stamped_step_computes_what_a_plain_one_does(changes: dict[str, Any]) -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    seen: list[list[Any]] = []

    def note(optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append([parameter.detach().clone() for parameter in optimizer.param_groups[0]["params"]])

    hook = register_optimizer_step_post_hook(note)
    try:
        plain, _ = Bert().build(tiny(**changes), CPU)
        plain(0)
        plain(1)
        stamped(tiny(phases=True, **changes), 2)
    finally:
        hook.remove()

    assert len(seen) == 4
    for one, other in zip(seen[:2], seen[2:], strict=True):
        assert all(mine.equal(its) for mine, its in zip(one, other, strict=True))
