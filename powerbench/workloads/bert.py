"""BERT for sequence classification, training or inference, on random tokens: the step that the tool is about."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from powerbench.errors import UsageError
from powerbench.records import Cell, WorkloadRecord

if TYPE_CHECKING:
    import torch
    from transformers import BertForSequenceClassification

    from powerbench.devices import Device
    from powerbench.workloads import Step

    Batches = Callable[[int], dict[str, torch.Tensor]]

LABELS = 2
MAX_POSITIONS = 512
CASED_VOCABULARY = 28996
UNCASED_VOCABULARY = 30522


class Size(NamedTuple):
    """A published BERT: the feed-forward layer is four times as wide as `hidden`, a head is 64 wide."""

    layers: int
    hidden: int
    vocabulary: int

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.hidden // 64


# Devlin et al. 2018 (arXiv 1810.04805) and, for the small ones, Turc et al. 2019 (arXiv 1908.08962).
SIZES = {
    "bert-base-cased": Size(12, 768, CASED_VOCABULARY),
    "bert-base-uncased": Size(12, 768, UNCASED_VOCABULARY),
    "bert-large-cased": Size(24, 1024, CASED_VOCABULARY),
    "bert-large-uncased": Size(24, 1024, UNCASED_VOCABULARY),
    "bert-tiny": Size(2, 128, UNCASED_VOCABULARY),
    "bert-mini": Size(4, 256, UNCASED_VOCABULARY),
    "bert-small": Size(4, 512, UNCASED_VOCABULARY),
    "bert-medium": Size(8, 512, UNCASED_VOCABULARY),
}


class Bert:
    """BERT with a classifier of two labels, weights random: neither speed nor energy depends on their values."""

    only_device: str | None = None

    def check(self, cell: Cell) -> None:
        """A size we know, a sequence that fits it, and nothing accumulated where there is no gradient."""
        if cell.model not in SIZES:
            close = get_close_matches(cell.model, [*SIZES, "sleep"], n=1)
            hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join([*SIZES, 'sleep'])}."
            raise UsageError(f"There is no built-in model called {cell.model!r}; {hint}")
        if cell.sequence_length > MAX_POSITIONS:
            raise UsageError(
                f"sequence_length is {cell.sequence_length}, but {cell.model} has only {MAX_POSITIONS} positions; "
                f"choose at most {MAX_POSITIONS} with --sequence-length."
            )
        if cell.mode == "inference" and cell.accumulation > 1:
            raise UsageError("accumulation is for training; leave it at 1, and choose --batch-size, for inference.")

    def work(self, cell: Cell) -> float:
        """Floating-point operations of a step."""
        return flop_per_sample(SIZES[cell.model], cell) * cell.batch_size * cell.accumulation

    def build(self, cell: Cell, device: Device) -> tuple[Step, WorkloadRecord]:
        """The model on the device, a pool of distinct batches, and the step over them.

        The inputs are input_ids and labels of shape (batch, sequence) and (batch). No attention mask goes with them:
        nothing is padded, and given a mask transformers asks `mask.all()` in each forward pass, which waits for the
        device in the middle of the step (transformers 5, masking_utils).
        """
        import torch

        torch.manual_seed(cell.seed)
        model = build_model(cell).to(device.torch_device())
        model.train(cell.mode == "training" and cell.dropout)
        make = training_step if cell.mode == "training" else inference_step
        step = make(cell, torch.compile(model) if cell.compile else model, make_batches(cell, device), device)
        samples = cell.batch_size * cell.accumulation
        record = WorkloadRecord(
            samples_per_step=samples,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            flop_per_step=self.work(cell),
            compile_s=compile_now(step, device) if cell.compile else None,
        )
        return step, record


def compile_now(step: Step, device: Device) -> float:
    """Run a step for what it compiles, before anything is marked; how long that took, in seconds."""
    begun_s = time.monotonic()
    step(0)
    device.synchronize()
    return time.monotonic() - begun_s


def build_model(cell: Cell) -> BertForSequenceClassification:
    """A BERT of the cell's size with fresh random weights, in float32, on the cpu."""
    from transformers import BertConfig, BertForSequenceClassification

    size = SIZES[cell.model]
    config = BertConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.hidden,
        max_position_embeddings=MAX_POSITIONS,
        num_labels=LABELS,
        # Else the first pass with labels sets it, and a compiled model is compiled again for that.
        problem_type="single_label_classification",
        attn_implementation=cell.attention,
    )
    return BertForSequenceClassification(config)


def make_batches(cell: Cell, device: Device) -> Batches:
    """A pool of distinct random batches, and how the one of a step gets to the device: the cell's `copy`."""
    import torch

    size = SIZES[cell.model]
    generator = torch.Generator().manual_seed(cell.seed)
    shape = (cell.batch_size, cell.sequence_length)
    where = device.torch_device()

    def batch() -> dict[str, torch.Tensor]:
        made = {"input_ids": torch.randint(size.vocabulary, shape, generator=generator)}
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


def training_step(cell: Cell, model: BertForSequenceClassification, batches: Batches, device: Device) -> Step:
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


def inference_step(cell: Cell, model: BertForSequenceClassification, batches: Batches, device: Device) -> Step:
    """Copy, forward."""
    import torch

    precision = autocast(cell, device)

    def step(index: int, /) -> None:
        with torch.inference_mode(), precision():
            model(**batches(index))

    return step


def flop_per_sample(size: Size, cell: Cell) -> float:
    """Floating-point operations for one sample: `24 L S H^2 + 4 L S^2 H` forward, three times that in training.

    Matrix products of the encoder only; embeddings, softmax and the optimizer are left out.
    """
    layers, hidden, sequence = size.layers, size.hidden, cell.sequence_length
    forward = 24 * layers * sequence * hidden**2 + 4 * layers * sequence**2 * hidden
    return float(forward * (3 if cell.mode == "training" else 1))
