"""The same steps with a stamp after each phase, where the device is waited for: for runs that are measured for them.

They are apart from the plain ones so that an ordinary run has no trace of this in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from powerbench.records import Cell
from powerbench.workloads.steps import autocast, make_optimizer, make_scaler

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from powerbench.devices import Device
    from powerbench.workloads import Step
    from powerbench.workloads.batches import Batch, Batches
    from powerbench.workloads.laps import Laps


def phased_training_step(
    cell: Cell, model: PreTrainedModel, fetch: Batches, copy: Callable[[Batch], Batch], device: Device, laps: Laps
) -> Step:
    """`training_step`, stamped; `fetch` stamps what it reads itself."""
    optimizer, scaler = make_optimizer(cell, model, device), make_scaler(cell, device)
    precision, rounds = autocast(cell, device), cell.accumulation

    def step(index: int, /) -> None:
        laps.begin(index)
        for number in range(index * rounds, (index + 1) * rounds):
            batch = copy(fetch(number))
            laps.lap()
            with precision():
                loss = model(**batch).loss
            laps.lap()
            scaler.scale(loss if rounds == 1 else loss / rounds).backward()
            laps.lap()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        laps.lap()

    return step


def phased_inference_step(
    cell: Cell, model: PreTrainedModel, fetch: Batches, copy: Callable[[Batch], Batch], device: Device, laps: Laps
) -> Step:
    """`inference_step`, stamped."""
    import torch

    precision = autocast(cell, device)

    def step(index: int, /) -> None:
        laps.begin(index)
        with torch.inference_mode(), precision():
            batch = copy(fetch(index))
            laps.lap()
            model(**batch)
            laps.lap()

    return step
