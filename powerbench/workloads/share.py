"""What of a step is one rank's where several make it together: its rows of the batch, and the mean of the gradients."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

from powerbench.records import Cell

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from transformers import PreTrainedModel

    from powerbench.devices import Stopwatch
    from powerbench.workloads import Step
    from powerbench.workloads.batches import Batch


def told_to_nobody() -> None:
    """Who makes a step alone keeps nobody waiting."""


@dataclass(frozen=True)
class Share:
    """Rank `rank` of `ranks` that make each step together.

    `arrived` is told in each step when the rank's gradients are done and it waits for the others', `resumed` when it
    has the mean of all and goes on.
    """

    rank: int = 0
    ranks: int = 1
    arrived: Callable[[], object] = told_to_nobody
    resumed: Callable[[], object] = told_to_nobody

    def rows(self, batch_size: int) -> slice:
        """This rank's rows of a global batch, in which each has `batch_size`."""
        return slice(self.rank * batch_size, (self.rank + 1) * batch_size)

    def of(self, batch: Batch, batch_size: int) -> Batch:
        """This rank's rows of a global batch, in memory of their own."""
        if self.ranks == 1:
            return batch
        return {name: tensor[self.rows(batch_size)].clone() for name, tensor in batch.items()}


WHOLE = Share()
"""All of it, of a process that is alone."""


def watched(step: Step, watch: Stopwatch) -> Step:
    """`step` with its own work stamped: from its begin to its end, but for where it says that it only waits."""

    def watched_step(index: int, /) -> None:
        watch.begin(index)
        step(index)
        watch.end()

    return watched_step


class Averaged:
    """A model in training whose gradients are the mean of all ranks', from the last of a step's rounds on.

    It is torch's DistributedDataParallel as it comes, but for the buffers: those of our models are constants, and
    sending rank 0's to all in each forward pass would make everybody wait for it at the wrong end of the step.
    """

    def __init__(self, cell: Cell, model: PreTrainedModel, example: Batch, share: Share) -> None:
        """`model` on its device, `example` a batch beside it, in a process that has joined its group."""
        import torch
        from torch.nn.parallel import DistributedDataParallel
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        leave_out_unused(model, example)
        self._ddp = DistributedDataParallel(model, **{name_of_buffers(DistributedDataParallel): False})
        self._ddp.register_comm_hook(None, averaging(share.arrived))
        # The optimizer, of which there is one in this process, has the mean gradients when it begins.
        register_optimizer_step_pre_hook(lambda *_: share.resumed())
        self._model = torch.compile(self._ddp) if cell.compile else self._ddp
        self._rounds = cell.accumulation
        self._round = 0

    def __call__(self, **batch: torch.Tensor) -> Any:
        """The model's output; the backward pass after that of the last round reduces."""
        self._round = (self._round + 1) % self._rounds
        if self._round:
            with self._ddp.no_sync():
                return self._model(**batch)
        return self._model(**batch)

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Those of the model."""
        return iter(self._ddp.module.parameters())


def name_of_buffers(kind: Callable[..., Any]) -> str:
    """The argument by which rank 0 sends its buffers to all in each forward pass, or not: another before torch 2.13."""
    name = "forward_sync_buffers"
    return name if name in inspect.signature(kind).parameters else "broadcast_buffers"


def averaging(arrived: Callable[[], object]) -> Callable[[Any, Any], Any]:
    """torch's own reduction of a bucket of gradients; tells of the last one before it waits for the other ranks'."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

    # DistributedDataParallel checks the annotations against classes, which those of this file, as strings, are not.
    @wraps(allreduce_hook)
    def hook(group: Any, bucket: Any) -> Any:
        if bucket.is_last():
            arrived()
        return allreduce_hook(group, bucket)

    return hook


def leave_out_unused(model: PreTrainedModel, example: Batch) -> None:
    """Ask for no gradient of parameters that get none, such as a pooler before a classifier that does not use it.

    DistributedDataParallel would wait for them. The optimizer passes them over, with or without this.
    """
    model(**{name: tensor[:1] for name, tensor in example.items()}).loss.backward()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
