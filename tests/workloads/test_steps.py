"""What a step does: the optimizer that was asked for, in torch's own hands."""

from __future__ import annotations

from typing import Any

import pytest

from powerbench.devices import DEVICES
from powerbench.devices.cpu import Cpu
from powerbench.errors import PowerbenchError
from powerbench.records import Cell
from powerbench.workloads.bert import Bert
from powerbench.workloads.steps import OPTIMIZERS, make_optimizer

CPU = DEVICES["cpu"]


def tiny(**changes: Any) -> Cell:
    return Cell(model="bert-tiny", device="cpu", copy="blocking", batch_size=2, sequence_length=8, **changes)


@pytest.mark.parametrize("fused", [None, False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_is_torch_s_and_fused_as_asked(name: str, fused: bool | None) -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    seen: list[Any] = []
    hook = register_optimizer_step_post_hook(lambda optimizer, args, kwargs: seen.append(optimizer))
    try:
        step, _ = Bert().build(tiny(optimizer=name, fused=fused, learning_rate=0.01), CPU)
        step(0)
    finally:
        hook.remove()

    optimizer = seen[-1]
    assert type(optimizer).__name__.lower() == name
    assert (optimizer.defaults["fused"], optimizer.defaults["lr"]) == (fused, 0.01)


class Nowhere(Cpu):
    """A device on which torch fuses nothing."""

    def torch_device(self) -> str:
        return "meta"


def test_an_optimizer_that_torch_cannot_fuse_there_is_a_sentence() -> None:
    import torch

    with pytest.raises(PowerbenchError, match=r"^This torch has no fused AdamW for meta: leave `fused` out\.$"):
        make_optimizer(tiny(optimizer="adamw", fused=True), torch.nn.Linear(1, 1), Nowhere())
