"""Sequence classification by BERT or a model like it, training or inference: the step that the tool is about."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from powerbench.errors import UsageError
from powerbench.records import Cell, WorkloadRecord
from powerbench.workloads.models import LABELS, check_model, facts_of, load_config, load_model, revision_of
from powerbench.workloads.operations import flop_of, flop_per_sample

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from powerbench.devices import Device
    from powerbench.workloads import Step

    Batches = Callable[[int], dict[str, torch.Tensor]]


class Bert:
    """A model with a classifier; weights are random by default: neither speed nor energy depends on their values."""

    only_device: str | None = None

    def check(self, cell: Cell) -> None:
        """A model that there can be, a sequence that fits it, and nothing accumulated where there is no gradient."""
        check_model(cell)
        if cell.mode == "inference" and cell.accumulation > 1:
            raise UsageError("accumulation is for training; leave it at 1, and choose --batch-size, for inference.")

    def work(self, cell: Cell) -> float:
        """Floating-point operations of a step, roughly for what is no plain encoder."""
        a_sample = flop_of(facts_of(cell.model), mode=cell.mode, tokens=cell.sequence_length)
        return a_sample * cell.batch_size * cell.accumulation

    def build(self, cell: Cell, device: Device) -> tuple[Step, WorkloadRecord]:
        """The model on the device, a pool of distinct batches, and the step over them.

        The inputs are input_ids and labels of shape (batch, sequence) and (batch). No attention mask goes with them:
        nothing is padded, and given a mask transformers asks `mask.all()` in each forward pass, which waits for the
        device in the middle of the step (transformers 5, masking_utils).
        """
        import torch

        torch.manual_seed(cell.seed)
        config = load_config(cell, labels=LABELS)
        model = load_model(cell, config).to(device.torch_device())
        model.train(cell.mode == "training" and cell.dropout)
        make = training_step if cell.mode == "training" else inference_step
        batches = make_batches(cell, device, vocabulary=config.vocab_size)
        step = make(cell, torch.compile(model) if cell.compile else model, batches, device)
        samples = cell.batch_size * cell.accumulation
        flop = flop_per_sample(config, mode=cell.mode, tokens=cell.sequence_length)
        record = WorkloadRecord(
            samples_per_step=samples,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            flop_per_step=None if flop is None else flop * samples,
            compile_s=compile_now(step, device) if cell.compile else None,
            architecture=type(model).__name__,
            revision=revision_of(cell),
        )
        return step, record


def compile_now(step: Step, device: Device) -> float:
    """Run a step for what it compiles, before anything is marked; how long that took, in seconds."""
    begun_s = time.monotonic()
    step(0)
    device.synchronize()
    return time.monotonic() - begun_s


def make_batches(cell: Cell, device: Device, *, vocabulary: int) -> Batches:
    """A pool of distinct random batches, and how the one of a step gets to the device: the cell's `copy`."""
    import torch

    generator = torch.Generator().manual_seed(cell.seed)
    shape = (cell.batch_size, cell.sequence_length)
    where = device.torch_device()

    def batch() -> dict[str, torch.Tensor]:
        made = {"input_ids": torch.randint(vocabulary, shape, generator=generator)}
        if cell.mode == "training":
            made["labels"] = torch.randint(LABELS, shape[:1], generator=generator)
        if cell.copy == "async" and device.pins_memory:
            return {name: tensor.pin_memory() for name, tensor in made.items()}
        return {name: tensor.to(where) for name, tensor in made.items()} if cell.copy == "resident" else made

    pool = [batch() for _ in range(cell.batches)]
    count = len(pool)
    without_waiting = cell.copy == "async"

    def copied(index: int) -> dict[str, torch.Tensor]:
        return {name: tensor.to(where, non_blocking=without_waiting) for name, tensor in pool[index % count].items()}

    return copied


def autocast(cell: Cell, device: Device) -> Callable[[], AbstractContextManager[Any]]:
    """The context in which the forward pass runs: none for float32, else torch's mixed precision."""
    import torch

    if cell.dtype == "float32":
        return nullcontext
    kind = torch.device(device.torch_device()).type
    dtype = getattr(torch, cell.dtype)
    return lambda: torch.autocast(kind, dtype=dtype)


def training_step(cell: Cell, model: PreTrainedModel, batches: Batches, device: Device) -> Step:
    """Copy, forward, backward, `accumulation` times; then Adam.

    float16 needs its gradients scaled, and scaling reads one number back from the device in each step: that is what
    training in float16 costs.
    """
    import torch

    optimizer = torch.optim.Adam(model.parameters(), lr=cell.learning_rate)
    scaler = torch.amp.GradScaler(torch.device(device.torch_device()).type, enabled=cell.dtype == "float16")
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
