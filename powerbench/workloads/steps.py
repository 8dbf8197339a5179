"""What a step does with a model and its batches: training or inference, in the precision that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from powerbench.errors import PowerbenchError
from powerbench.records import Cell

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from powerbench.devices import Device
    from powerbench.workloads import Step
    from powerbench.workloads.batches import Batches

OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}
"""The settings' names, and torch's."""


def autocast(cell: Cell, device: Device) -> Callable[[], AbstractContextManager[Any]]:
    """The context in which the forward pass runs: none for float32, else torch's mixed precision."""
    import torch

    if cell.dtype == "float32":
        return nullcontext
    kind = torch.device(device.torch_device()).type
    dtype = getattr(torch, cell.dtype)
    return lambda: torch.autocast(kind, dtype=dtype)


def make_optimizer(cell: Cell, model: PreTrainedModel, device: Device) -> torch.optim.Optimizer:
    """torch's own, as it comes but for its rate. Raises PowerbenchError where it cannot be fused."""
    import torch

    kind = getattr(torch.optim, OPTIMIZERS[cell.optimizer])
    if cell.fused:
        refuse_unfusable(kind, device)
    optimizer: torch.optim.Optimizer = kind(model.parameters(), lr=cell.learning_rate, fused=cell.fused)
    return optimizer


def make_scaler(cell: Cell, device: Device) -> torch.amp.GradScaler:
    """What scales the gradients of float16; of other types it leaves them as they are."""
    import torch

    return torch.amp.GradScaler(torch.device(device.torch_device()).type, enabled=cell.dtype == "float16")


def refuse_unfusable(kind: type[torch.optim.Optimizer], device: Device) -> None:
    """Raise PowerbenchError where torch cannot fuse this on the device: some versions say so in the first step only."""
    import torch

    number = torch.zeros(1, device=device.torch_device(), requires_grad=True)
    number.grad = torch.zeros_like(number)
    try:
        kind([number], lr=0.1, fused=True).step()
    except RuntimeError as error:
        if "fused" not in str(error):
            raise
        raise PowerbenchError(
            f"This torch has no fused {kind.__name__} for {device.torch_device()}: leave `fused` out."
        ) from error


def training_step(cell: Cell, model: PreTrainedModel, batches: Batches, device: Device) -> Step:
    """Copy, forward, backward, `accumulation` times; then the optimizer.

    float16 needs its gradients scaled, and scaling reads one number back from the device in each step: that is what
    training in float16 costs.
    """
    optimizer = make_optimizer(cell, model, device)
    scaler = make_scaler(cell, device)
    precision, rounds = autocast(cell, device), cell.accumulation

    def step(index: int, /) -> None:
        for number in range(index * rounds, (index + 1) * rounds):
            with precision():
                loss = model(**batches(number)).loss
            scaler.scale(loss if rounds == 1 else loss / rounds).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return step


def inference_step(cell: Cell, model: PreTrainedModel, batches: Batches, device: Device) -> Step:
    """Copy, forward."""
    import torch

    precision = autocast(cell, device)

    def step(index: int, /) -> None:
        with torch.inference_mode(), precision():
            model(**batches(index))

    return step
