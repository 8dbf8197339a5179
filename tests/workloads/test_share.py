"""What of a step is one rank's: its rows of one global batch, of which the record gives the account."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from powerbench.errors import PowerbenchError
from powerbench.records import Cell
from powerbench.workloads.batches import random_pool
from powerbench.workloads.bert import notes_of
from powerbench.workloads.inputs import Inputs, account_of, random_inputs, rows_needed, text_inputs
from powerbench.workloads.models import load_config
from powerbench.workloads.share import WHOLE, Share, averaging, leave_out_unused, name_of_buffers, watched
from powerbench.workloads.text import load_text
from tests.workloads.models import save_model
from tests.workloads.texts import ROWS, WORDS, save_tokenizer, write_csv

if TYPE_CHECKING:
    from powerbench.workloads.batches import Batch

BOTH = (Share(0, 2), Share(1, 2))


def tiny(**changes: Any) -> Cell:
    return Cell(model="bert-tiny", device="cpu", copy="blocking", batch_size=2, sequence_length=8, **changes)


def of_text(folder: Path, **changes: Any) -> Cell:
    """Of a small model and texts of several lengths, in batches of two a rank."""
    save_tokenizer(save_model(folder / "model", "bert", vocab_size=WORDS))
    cell = tiny(dataset=str(write_csv(folder / "rows.csv", ROWS)), **changes)
    return msgspec.structs.replace(cell, model=str(folder / "model"), sequence_length=16)


def inputs_of(cell: Cell, share: Share = WHOLE) -> Inputs:
    text = load_text(cell, most=rows_needed(cell, share))
    return text_inputs(cell, text, load_config(cell, labels=text.classes), share)


def of_both(cell: Cell) -> Cell:
    """The cell of one process with the batches of two ranks."""
    return msgspec.structs.replace(cell, batch_size=2 * cell.batch_size)


def put_together(*parts: Batch) -> Batch:
    import torch

    assert len({tuple(part) for part in parts}) == 1
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def assert_equal(one: Batch, other: Batch) -> None:
    import torch

    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


class TestRandomBatches:
    def test_of_all_ranks_are_the_rows_of_one(self) -> None:
        whole = random_pool(of_both(tiny()), vocabulary=99)
        parts = [random_pool(tiny(), vocabulary=99, share=share) for share in BOTH]

        assert len(whole) == len(parts[0]) == len(parts[1]) == 8
        for batch, one, other in zip(whole, *parts, strict=True):
            assert one["input_ids"].shape == (2, 8)
            assert_equal(put_together(one, other), batch)

    def test_keep_no_hold_of_the_rows_of_others(self) -> None:
        batch, *_ = random_pool(tiny(), vocabulary=99, share=BOTH[1])

        assert batch["input_ids"].untyped_storage().nbytes() == 2 * 8 * 8


@pytest.mark.parametrize("pad", ["max_length", "longest"])
class TestText:
    def test_of_all_ranks_is_that_of_one_and_as_long(self, pad: str, tmp_path: Path) -> None:
        cell = of_text(tmp_path, pad=pad)
        whole = inputs_of(of_both(cell))
        parts = [inputs_of(cell, share) for share in BOTH]

        assert len(whole.pool) == 2
        for batch, one, other in zip(whole.pool, *[part.pool for part in parts], strict=True):
            assert_equal(put_together(one, other), batch)
        assert whole.tokens == parts[0].tokens == parts[1].tokens

    def test_read_in_the_step_is_what_was_made_before_it(self, pad: str, tmp_path: Path) -> None:
        cell = of_text(tmp_path, pad=pad, include_data=True)

        for share in BOTH:
            inputs = inputs_of(cell, share)
            assert inputs.read is not None
            for index in range(4):
                assert_equal(inputs.read(index), inputs.pool[index % 2])


class TestAccount:
    def test_is_of_the_global_batch(self, tmp_path: Path) -> None:
        config = load_config(tiny(), labels=2)
        one = account_of(of_both(tiny()), config, random_inputs(of_both(tiny()), config))

        for share in BOTH:
            assert account_of(tiny(), config, random_inputs(tiny(), config, share), share) == one
        assert one["tokens_per_step"] == 4 * 8

    def test_of_batches_of_several_lengths_is_too(self, tmp_path: Path) -> None:
        cell = of_text(tmp_path, pad="longest")
        config = load_config(cell, labels=3)
        one = account_of(of_both(cell), config, inputs_of(of_both(cell)))

        assert len(one["batch_lengths"]) == 2
        for share in BOTH:
            assert account_of(cell, config, inputs_of(cell, share), share) == one

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (3, "rows.csv has 3 rows with a text and a label, fewer than a batch of 2 on each of 2 ranks: choose at "),
            (1, "rows.csv has 1 row with a text and a label, not one for each of 2 ranks: name data with more."),
        ],
    )
    def test_of_too_little_text_is_a_sentence(self, rows: int, message: str, tmp_path: Path) -> None:
        cell = of_text(tmp_path)
        write_csv(tmp_path / "rows.csv", ROWS[:rows])

        with pytest.raises(PowerbenchError) as error:
            inputs_of(cell, BOTH[0])

        assert message in str(error.value)
        if rows == 3:
            assert str(error.value).endswith("choose at most 1 with --batch-size.")

    def test_of_phases_says_what_the_backward_one_holds(self) -> None:
        assert len(notes_of(tiny(phases=True), BOTH[0])) == 1
        assert notes_of(tiny(phases=True), WHOLE) == notes_of(tiny(), BOTH[0]) == []


class TestReduction:
    def test_asks_for_no_gradient_of_what_gets_none(self) -> None:
        import torch

        class Output:
            def __init__(self, loss: Any) -> None:
                self.loss = loss

        class WithoutItsPooler(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
            def __init__(self) -> None:
                super().__init__()
                self.used, self.pooler = torch.nn.Linear(8, 1), torch.nn.Linear(8, 8)

            def forward(self, input_ids: Any) -> Output:
                assert input_ids.shape[0] == 1  # one row is enough to see
                return Output(self.used(input_ids.float()).sum())

        model = WithoutItsPooler()
        leave_out_unused(model, {"input_ids": torch.zeros(2, 8)})

        wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        assert wanted == {"used.weight": True, "used.bias": True, "pooler.weight": False, "pooler.bias": False}
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_tells_when_the_last_bucket_is_ready_before_it_is_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

        told: list[str] = []
        monkeypatch.setattr(default_hooks, "allreduce_hook", lambda group, bucket: told.append(f"sent {bucket.name}"))
        hook = averaging(lambda: told.append("arrived"))

        class Bucket:
            def __init__(self, name: str) -> None:
                self.name = name

            def is_last(self) -> bool:
                return self.name == "b"

        for name in "ab":
            hook(None, Bucket(name))

        assert told == ["sent a", "arrived", "sent b"]

    def test_sends_no_buffers_by_the_name_that_torch_has_for_it(self) -> None:
        assert name_of_buffers(lambda module, broadcast_buffers=True: None) == "broadcast_buffers"
        assert name_of_buffers(lambda module, forward_sync_buffers=True: None) == "forward_sync_buffers"


def test_a_step_s_own_work_is_stamped_from_its_begin_to_its_end() -> None:
    stamps: list[str] = []

    class Watch:
        def begin(self, index: int) -> None:
            stamps.append(f"begin {index}")

        def arrive(self) -> None:
            stamps.append("arrive")

        def resume(self) -> None:
            stamps.append("resume")

        def end(self) -> None:
            stamps.append("end")

        def settle(self) -> None:
            stamps.append("settle")

    watched(lambda index: stamps.append(f"step {index}"), Watch())(7)
    assert stamps == ["begin 7", "step 7", "end"]
