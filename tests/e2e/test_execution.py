"""The ways to execute a step, each through the real command with a small real BERT: recorded, told, and as asked."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec

from powerbench.devices import DEVICES
from powerbench.records import Cell
from powerbench.reports.terminal import as_terminal
from powerbench.rundir.load import Run, load_run
from powerbench.workloads.bert import Bert
from powerbench.workloads.models import load_config, load_model
from powerbench.workloads.operations import flop_per_sample
from powerbench.workloads.sizes import SIZES
from powerbench.workloads.steps import training_step
from tests.e2e.commands import powerbench, running_in

CPU = DEVICES["cpu"]
SMALL = ("--batch-size", "2", "--sequence-length", "16")


def measured(
    folder: Path, *arguments: str, size: tuple[str, ...] = SMALL, **options: Any
) -> tuple[Run, dict[str, Any]]:
    """A run of bert-tiny with these arguments, as it lies on disk, and what `--json` printed."""
    steps = ("--model", "bert-tiny", "--steps", "6", "--warmup", "2")
    done = powerbench("run", *steps, *size, *arguments, "--json", "--output", folder, **options)
    assert done.status == 0, done.stderr
    run = load_run(running_in(folder))
    assert run.record.status == "complete"
    assert run.steps[0].stage == ["warmup"] * 2 + ["step"] * 6
    return run, json.loads(done.stdout)


def headline(run: Run) -> str:
    """What was measured, above the line of the device, in one line."""
    return " ".join(as_terminal([run]).partition("\ncpu: ")[0].split())


def steps_ms(run: Run) -> list[float]:
    return [(end - start) / 1e6 for start, end, _ in run.steps[0].spans("step")]


def test_compiling_is_told_apart_and_in_no_step_and_attention_where_it_is_not_the_usual(tmp_path: Path) -> None:
    """Of the smallest size and in float32: compiling takes half a minute, and in bfloat16 twice that."""
    fresh = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}  # else a second run of this test compiles nothing
    smallest = ("--batch-size", "1", "--sequence-length", "8", "--mode", "inference")
    ways = ("--attention", "eager", "--compile")

    run, _ = measured(tmp_path / "runs", *ways, size=smallest, env=fresh)

    cell, work = run.record.built_in, run.record.workload
    assert (cell.compile, cell.attention) == (True, "eager")
    assert work is not None
    assert work.compile_s is not None
    assert work.compile_s > 1
    assert max(steps_ms(run)) < work.compile_s * 1000 / 5
    assert run.steps[0].start_ns[0] - run.record.clock.start_monotonic_ns > work.compile_s * 1e9
    assert headline(run) == "bert-tiny, inference, batch 1 x sequence 8, float32, eager attention, compiled"
    text = as_terminal([run])
    assert "\n  Compiling    " in text
    assert ", before the warm-up\n" in text


def test_float16_on_one_thread_and_all_batches_of_a_step_are_recorded_and_told(tmp_path: Path) -> None:
    run, summary = measured(tmp_path, "--dtype", "float16", "--threads", "1", "--set", "accumulation=3")

    cell, work = run.record.built_in, run.record.workload
    assert cell.dtype == summary["dtype"] == "float16"
    assert cell.threads == run.record.environment["threads"] == 1
    assert cell.attention == "sdpa"  # unless asked
    assert ", 1 thread, " in as_terminal([run]).splitlines()[1]
    assert work is not None
    assert work.samples_per_step == 6
    flop = flop_per_sample(load_config(cell, labels=2), mode="training", tokens=16)
    assert flop is not None
    assert work.flop_per_step == 6 * flop
    assert summary["batch_size"] == 2
    assert math.isclose(summary["samples_per_s"], 6 * 6 / summary["wall_s"])
    assert math.isclose(summary["tflop_per_s"], 6 * work.flop_per_step / 1e12 / summary["wall_s"])
    assert headline(run) == "bert-tiny, training, batch 2 x sequence 16, float16, 3 batches a step"


class TestAccumulation:
    def test_gives_the_gradients_of_one_batch_of_all_its_samples(self) -> None:
        import torch

        pool = make_pool(6, 16)
        cell = Cell(
            model="bert-tiny", device="cpu", copy="blocking", dropout=False, batch_size=6, sequence_length=16, batches=1
        )
        three = msgspec.structs.replace(cell, batch_size=2, batches=3, accumulation=3)

        at_once = gradients(cell, [pool])
        added_up = gradients(three, [{name: tensor[at : at + 2] for name, tensor in pool.items()} for at in (0, 2, 4)])

        assert len(at_once) == len(added_up) > 30
        for one, other in zip(at_once, added_up, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
        assert any(gradient.abs().max() > 1e-3 for gradient in at_once)

    def test_gives_other_gradients_than_its_first_batch_alone(self) -> None:
        import torch

        pool = make_pool(2, 16)
        cell = Cell(
            model="bert-tiny", device="cpu", copy="blocking", dropout=False, batch_size=2, sequence_length=16, batches=1
        )
        other = msgspec.structs.replace(cell, batches=2, accumulation=2)

        alone = gradients(cell, [pool])
        with_another = gradients(other, [pool, make_pool(2, 16, seed=8)])

        assert not all(torch.allclose(one, two, atol=1e-6) for one, two in zip(alone, with_another, strict=True))


def test_a_step_changes_nothing_that_its_compiled_form_depends_on() -> None:
    cell = Cell(model="bert-tiny", batch_size=2, sequence_length=16)
    model = load_model(cell, load_config(cell, labels=2))
    before = model.config.to_dict()

    training_step(cell, model, lambda index: make_pool(2, 16), CPU)(0)

    assert model.config.to_dict() == before


def make_pool(samples: int, tokens: int, *, seed: int = 7) -> dict[str, Any]:
    """A batch of random tokens and labels."""
    import torch

    random = torch.Generator().manual_seed(seed)
    vocabulary = SIZES["bert-tiny"].vocabulary
    return {
        "input_ids": torch.randint(vocabulary, (samples, tokens), generator=random),
        "labels": torch.randint(2, (samples,), generator=random),
    }


def gradients(cell: Cell, batches: list[dict[str, Any]]) -> list[Any]:
    """What Adam is given in the first step over `batches`, through the hook that torch offers for this."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    seen: list[Any] = []

    def note(optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.extend(
            parameter.grad.detach().clone() for group in optimizer.param_groups for parameter in group["params"]
        )

    Bert().check(cell)
    torch.manual_seed(0)
    step = training_step(
        cell, load_model(cell, load_config(cell, labels=2)).eval(), lambda index: batches[index % len(batches)], CPU
    )
    hook = register_optimizer_step_pre_hook(note)
    try:
        step(0)
    finally:
        hook.remove()
    return seen
