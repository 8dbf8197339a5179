"""BERT as published, small and real: what it is made of, what a step changes, and what it computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from typing import Any

import pytest

from powerbench.devices import DEVICES
from powerbench.errors import UsageError
from powerbench.records import Cell
from powerbench.workloads.batches import in_turn, random_pool
from powerbench.workloads.bert import Bert
from powerbench.workloads.models import load_config, load_model
from powerbench.workloads.operations import flop_per_sample
from powerbench.workloads.sizes import SIZES

CPU = DEVICES["cpu"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """On a busy machine two threads of torch wait for each other longer than one works."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build_model(cell: Cell) -> Any:
    return load_model(cell, load_config(cell, labels=2))


def tiny(**changes: Any) -> Cell:
    settings: dict[str, Any] = {"model": "bert-tiny", "device": "cpu", "batch_size": 2, "sequence_length": 8}
    return Cell(**{"copy": "blocking", "mode": "training"} | settings | changes)


class Forward:
    """One pass of the model through a built step: the model, its inputs and its outputs."""

    def __init__(self, model: Any, inputs: dict[str, Any], output: Any) -> None:
        self.model = model
        self.inputs = inputs
        self.loss = None if output.loss is None else output.loss.item()
        self.logits = output.logits.detach().clone()


@contextmanager
def watched() -> Iterator[list[Forward]]:
    """Each forward pass of a whole BERT inside, through the hook that torch offers for this."""
    import torch
    from transformers import BertForSequenceClassification

    seen: list[Forward] = []

    def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if isinstance(module, BertForSequenceClassification):
            seen.append(Forward(module, kwargs, output))

    hook = torch.nn.modules.module.register_module_forward_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def run_steps(cell: Cell, count: int = 2) -> list[Forward]:
    step, _ = Bert().build(cell, CPU)
    with watched() as seen:
        for index in range(count):
            step(index)
    return seen


def parameters(model: Any) -> list[Any]:
    return [parameter.detach().clone() for parameter in model.parameters()]


class TestSizes:
    def test_are_those_that_were_published(self) -> None:
        assert {name: (size.layers, size.hidden, size.heads) for name, size in SIZES.items()} == {
            "bert-base-cased": (12, 768, 12),
            "bert-base-uncased": (12, 768, 12),
            "bert-large-cased": (24, 1024, 16),
            "bert-large-uncased": (24, 1024, 16),
            "bert-tiny": (2, 128, 2),
            "bert-mini": (4, 256, 4),
            "bert-small": (4, 512, 8),
            "bert-medium": (8, 512, 8),
        }

    @pytest.mark.parametrize(
        ("model", "count"),
        [
            ("bert-base-cased", 108_311_810),
            ("bert-base-uncased", 109_483_778),
            ("bert-large-uncased", 335_143_938),
            ("bert-tiny", 4_386_178),
        ],
    )
    def test_have_as_many_parameters_as_the_published_models_with_two_labels(self, model: str, count: int) -> None:
        import torch

        with torch.device("meta"):
            built = build_model(Cell(model=model))

        assert sum(parameter.numel() for parameter in built.parameters()) == count

    def test_of_base_takes_22_35_gflop_forward_for_a_sample_of_128_tokens_and_three_times_that_in_training(
        self,
    ) -> None:
        config = load_config(Cell(), labels=2)

        forward = flop_per_sample(config, mode="inference", tokens=128)
        assert forward == 24 * 12 * 128 * 768**2 + 4 * 12 * 128**2 * 768 == 22_347_251_712
        assert flop_per_sample(config, mode="training", tokens=128) == 3 * forward

    def test_flop_are_what_torch_counts_for_the_encoder(self) -> None:
        """Less the pooler and the classifier; eager, since torch does not count its fused attention on the cpu."""
        from torch.utils.flop_counter import FlopCounterMode

        cell = tiny(mode="inference", attention="eager", batch_size=1, sequence_length=64)
        step, what = Bert().build(cell, CPU)
        with FlopCounterMode(display=False) as counter:
            step(0)

        pooler, classifier = 2 * 128 * 128, 2 * 128 * 2
        assert counter.get_total_flops() - pooler - classifier == what.flop_per_step


class TestChecking:
    @pytest.mark.parametrize("model", SIZES)
    def test_takes_every_published_size_up_to_512_tokens(self, model: str) -> None:
        Bert().check(Cell(model=model, sequence_length=512))

    def test_refuses_a_sequence_of_513(self) -> None:
        with pytest.raises(UsageError) as caught:
            Bert().check(Cell(sequence_length=513))
        assert str(caught.value) == (
            "sequence_length is 513, but bert-base-cased has only 512 positions; "
            "choose at most 512 with --sequence-length."
        )

    @pytest.mark.parametrize(
        ("model", "hint"),
        [
            ("bert-tinny", "did you mean bert-tiny?"),
            ("slep", "did you mean sleep?"),
        ],
    )
    def test_refuses_a_model_that_is_nearly_one_that_it_knows(self, model: str, hint: str) -> None:
        with pytest.raises(UsageError) as caught:
            Bert().check(Cell(model=model))
        assert str(caught.value) == f"There is no built-in model called {model!r}; {hint}"


class TestTraining:
    def test_changes_the_parameters_at_each_step(self) -> None:
        import torch

        step, _ = Bert().build(tiny(), CPU)
        with watched() as seen:
            step(0)
        model, before = seen[0].model, parameters(seen[0].model)

        step(1)

        changed = [not torch.equal(was, now) for was, now in zip(before, parameters(model), strict=True)]
        assert sum(changed) > len(changed) / 2  # key biases have no gradient, nor do embeddings of absent tokens

    def test_leaves_no_gradients_behind(self) -> None:
        (passed,) = run_steps(tiny(), count=1)

        assert all(parameter.grad is None for parameter in passed.model.parameters())

    def test_learns_a_batch_by_heart(self) -> None:
        losses = [it.loss for it in run_steps(tiny(batches=1, dropout=False, learning_rate=1e-3), count=6)]

        assert losses[-1] is not None
        assert losses[0] is not None
        assert losses[-1] < losses[0] / 2

    def test_without_dropout_computes_the_same_twice_as_in_the_seed_which_never_calls_train(self) -> None:
        first, second = run_steps(tiny(batches=1, dropout=False, learning_rate=1e-30))

        assert first.loss == second.loss
        assert not first.model.training

    def test_with_dropout_computes_something_else_each_time(self) -> None:
        first, second = run_steps(tiny(batches=1, dropout=True, learning_rate=1e-30))

        assert first.loss != second.loss
        assert first.model.training

    def test_with_accumulation_passes_several_batches_a_step_and_counts_their_samples(self) -> None:
        cell = tiny(accumulation=3, batches=6)

        _, what = Bert().build(cell, CPU)
        inputs = [it.inputs["input_ids"] for it in run_steps(cell)]

        assert what.samples_per_step == 6
        assert len(inputs) == 6
        assert not any(one.equal(other) for one, other in combinations(inputs, 2))


class TestInference:
    def test_leaves_the_parameters_alone(self) -> None:
        import torch

        step, _ = Bert().build(tiny(mode="inference"), CPU)
        with watched() as seen:
            step(0)
        before = parameters(seen[0].model)

        step(1)

        assert all(torch.equal(was, now) for was, now in zip(before, parameters(seen[0].model), strict=True))

    def test_drops_nothing_out_and_needs_no_labels(self) -> None:
        first, second = run_steps(tiny(mode="inference", batches=1))

        assert first.inputs.keys() == {"input_ids"}
        assert first.loss is None
        assert not first.model.training
        assert first.logits.equal(second.logits)


class TestRepeating:
    def test_with_the_same_seed_gives_the_same_numbers(self) -> None:
        runs = [[it.loss for it in run_steps(tiny(seed=seed))] for seed in (3, 3, 4)]

        assert runs[0] == runs[1] != runs[2]


def batches(cell: Cell) -> Any:
    return in_turn(random_pool(cell, vocabulary=100), cell, CPU)


class TestBatches:
    def test_are_distinct_and_come_round_in_turn(self) -> None:
        batch = batches(tiny(batches=4))

        tokens = [batch(index)["input_ids"] for index in range(4)]
        assert not any(one.equal(other) for one, other in combinations(tokens, 2))
        assert batch(5)["input_ids"].equal(tokens[1])

    def test_have_the_shape_of_the_cell_and_tokens_of_the_vocabulary(self) -> None:
        batch = batches(tiny(batch_size=3, sequence_length=200))(0)

        assert batch["input_ids"].shape == (3, 200)
        assert batch["labels"].shape == (3,)
        assert 0 <= int(batch["input_ids"].min()) <= int(batch["input_ids"].max()) < 100


@pytest.mark.parametrize(
    "settings",
    [
        *({"copy": copy, "mode": "training"} for copy in ("async", "blocking", "resident")),
        *({"copy": copy, "mode": "inference"} for copy in ("async", "blocking", "resident")),
        *({"attention": attention, "dtype": "bfloat16"} for attention in ("eager", "sdpa")),
        {"dtype": "bfloat16", "mode": "inference"},
        {"dtype": "float16", "mode": "training"},
        {"model": "bert-mini"},
    ],
    ids=lambda settings: " ".join(settings.values()),
)
def test_every_way_of_running_runs_and_gives_finite_numbers(settings: dict[str, Any]) -> None:
    for passed in run_steps(tiny(**settings)):
        assert bool(passed.logits.isfinite().all())


@pytest.mark.parametrize(
    ("dtype", "of_logits"), [("float32", "torch.float32"), ("bfloat16", "torch.bfloat16"), ("float16", "torch.float16")]
)
def test_the_forward_pass_runs_in_the_type_that_was_asked_for(dtype: str, of_logits: str) -> None:
    (passed,) = run_steps(tiny(dtype=dtype, mode="inference"), count=1)

    assert str(passed.logits.dtype) == of_logits


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_is_the_kind_that_was_asked_for(attention: str) -> None:
    assert build_model(tiny(attention=attention)).config._attn_implementation == attention


def test_both_kinds_of_attention_compute_the_same() -> None:
    import torch

    one, other = (run_steps(tiny(mode="inference", attention=kind), count=1)[0].logits for kind in ("sdpa", "eager"))

    assert torch.allclose(one, other, atol=1e-5)
