"""The batches of a run: random ones, and the way that any take to the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from powerbench.records import Cell
from powerbench.workloads.share import WHOLE, Share

if TYPE_CHECKING:
    import torch

    from powerbench.devices import Device

    Batch = dict[str, torch.Tensor]
    Batches = Callable[[int], Batch]

LABELS = 2
SYNTHETIC_BATCHES = 8


def random_pool(cell: Cell, *, vocabulary: int, share: Share = WHOLE) -> list[Batch]:
    """Distinct batches of random tokens and labels, in the processor's memory: of each, this rank's rows.

    They are input_ids and labels of shape (batch, sequence) and (batch). No attention mask goes with them: nothing is
    padded, and given a mask transformers asks `mask.all()` in each forward pass, which waits for the device in the
    middle of the step (transformers 5, masking_utils).
    """
    import torch

    generator = torch.Generator().manual_seed(cell.seed)
    shape = (cell.batch_size * share.ranks, cell.sequence_length)

    def batch() -> Batch:
        made = {"input_ids": torch.randint(vocabulary, shape, generator=generator)}
        if cell.mode == "training":
            made["labels"] = torch.randint(LABELS, shape[:1], generator=generator)
        return share.of(made, cell.batch_size)

    return [batch() for _ in range(SYNTHETIC_BATCHES if cell.batches is None else cell.batches)]


def in_turn(pool: Sequence[Batch], cell: Cell, device: Device) -> Batches:
    """The batch of a step, where its copy begins; they come round in turn."""
    ready = [prepared(batch, cell, device) for batch in pool]
    count = len(ready)
    return lambda index: ready[index % count]


def prepared(batch: Batch, cell: Cell, device: Device) -> Batch:
    """A batch where its copy begins: in pinned memory, or on the device already."""
    if cell.copy == "async" and device.pins_memory:
        return {name: tensor.pin_memory() for name, tensor in batch.items()}
    if cell.copy == "resident":
        return {name: tensor.to(device.torch_device()) for name, tensor in batch.items()}
    return batch


def to_device(cell: Cell, device: Device) -> Callable[[Batch], Batch]:
    """The copy itself; of a batch that is there already, nothing is moved."""
    where, without_waiting = device.torch_device(), cell.copy == "async"
    return lambda batch: {name: tensor.to(where, non_blocking=without_waiting) for name, tensor in batch.items()}
