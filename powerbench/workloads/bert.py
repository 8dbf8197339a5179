"""Sequence classification by BERT or a model like it, training or inference: the step that the tool is about."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from powerbench.errors import UsageError
from powerbench.loading import collections_put_off
from powerbench.records import SYNTHETIC, Cell, WorkloadRecord
from powerbench.workloads.batches import LABELS, to_device
from powerbench.workloads.inputs import Inputs, account_of, fetched, random_inputs, rows_needed, text_inputs
from powerbench.workloads.models import check_model, facts_of, load_config, load_model, revision_of
from powerbench.workloads.operations import flop_of
from powerbench.workloads.phased import phased_inference_step, phased_training_step
from powerbench.workloads.share import WHOLE, Averaged, Share
from powerbench.workloads.steps import inference_step, training_step
from powerbench.workloads.text import check_text, load_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from powerbench.devices import Device
    from powerbench.workloads import Step
    from powerbench.workloads.laps import Laps


class Bert:
    """A model with a classifier; weights are random by default: neither speed nor energy depends on their values."""

    only_device: str | None = None

    def check(self, cell: Cell) -> None:
        """A model that there can be, a sequence that fits it, and nothing accumulated where there is no gradient."""
        check_model(cell)
        check_text(cell)
        if cell.mode == "inference" and cell.accumulation > 1:
            raise UsageError("accumulation is for training; leave it at 1, and choose --batch-size, for inference.")
        if cell.torch_profiler and cell.ranks * cell.nnodes > 1:
            raise UsageError("--torch-profiler looks into one process, and here are several ranks: leave one out.")
        if cell.include_data and cell.copy == "resident":
            raise UsageError("--include-data reads batches in the step, and copy is resident: leave one out.")

    def work(self, cell: Cell) -> float:
        """Floating-point operations of a step, roughly for what is no plain encoder."""
        try:
            facts = facts_of(cell.model)
        except UsageError:  # of an earlier run, whose model's folder may hold none any more
            facts = {}
        a_sample = flop_of(facts, mode=cell.mode, tokens=cell.sequence_length)
        return a_sample * cell.batch_size * cell.accumulation

    def build(
        self, cell: Cell, device: Device, laps: Laps | None = None, share: Share = WHOLE
    ) -> tuple[Step, WorkloadRecord]:
        """The model on the device, its batches, and the step over them."""
        import torch

        leave_no_thread()
        torch.manual_seed(cell.seed)
        with collections_put_off():
            text = None if cell.dataset == SYNTHETIC else load_text(cell, most=rows_needed(cell, share))
            config = load_config(cell, labels=LABELS if text is None else text.classes)
            inputs = random_inputs(cell, config, share) if text is None else text_inputs(cell, text, config, share)
            model = load_model(cell, config).to(device.torch_device())
        model.train(cell.mode == "training" and cell.dropout)
        account = account_of(cell, config, inputs, share)
        step = make_step(cell, ready_to_run(cell, model, inputs, device, share), inputs, device, laps)
        record = WorkloadRecord(
            samples_per_step=cell.batch_size * share.ranks * cell.accumulation,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            **account | {"notes": account["notes"] + notes_of(cell, share)},
            compile_s=compile_now(step, device) if cell.compile else None,
            architecture=type(model).__name__,
            revision=revision_of(cell),
        )
        return step, record


def leave_no_thread() -> None:
    """Keep progress bars of what is loaded from starting the thread that then wakes every ten seconds (tqdm)."""
    from tqdm import tqdm

    tqdm.monitor_interval = 0


def ready_to_run(
    cell: Cell, model: PreTrainedModel, inputs: Inputs, device: Device, share: Share
) -> PreTrainedModel | Averaged:
    """The model as a step calls it: compiled where that is asked for, and shared by the ranks that train it."""
    import torch

    if share.ranks == 1 or cell.mode == "inference":
        return torch.compile(model) if cell.compile else model
    averaged = Averaged(cell, model, to_device(cell, device)(inputs.pool[0]), share)
    # The weights are equal by the seed; what drops out is not to be: the rows are others.
    torch.manual_seed(cell.seed + share.rank)
    return averaged


def make_step(cell: Cell, model: PreTrainedModel | Averaged, inputs: Inputs, device: Device, laps: Laps | None) -> Step:
    """The step of the cell's mode, plain, or with stamps between its phases."""
    fetch = fetched(cell, inputs, device, laps)
    copy = to_device(cell, device)
    if cell.phases and laps is not None:
        make_phased = phased_training_step if cell.mode == "training" else phased_inference_step
        return make_phased(cell, model, fetch, copy, device, laps)
    make = training_step if cell.mode == "training" else inference_step
    return make(cell, model, lambda index: copy(fetch(index)), device)


def notes_of(cell: Cell, share: Share) -> list[str]:
    """What to know of the phases of ranks that train together."""
    if share.ranks == 1 or not cell.phases or cell.mode == "inference":
        return []
    return ["The backward phase holds the averaging of the gradients, and so the wait for the slowest rank."]


def compile_now(step: Step, device: Device) -> float:
    """Run a step for what it compiles, before anything is marked; how long that took, in seconds."""
    begun_s = time.monotonic()
    step(0)
    device.synchronize()
    return time.monotonic() - begun_s
