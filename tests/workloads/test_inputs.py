"""What a model is given of a real text: its own tokenizer's tokens, padded as asked, with an account of each batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from powerbench.devices import DEVICES
from powerbench.errors import PowerbenchError
from powerbench.records import Cell, WorkloadRecord
from powerbench.workloads.bert import Bert
from powerbench.workloads.inputs import Inputs, rows_needed, text_inputs
from powerbench.workloads.models import load_config
from powerbench.workloads.operations import flop_of
from powerbench.workloads.sizes import SIZES
from powerbench.workloads.text import load_text
from powerbench.workloads.tokens import TextBatches
from tests.workloads.models import CONFIGS, save_model
from tests.workloads.texts import ROWS, WORDS, WRITERS, save_tokenizer, write_csv

LONG = {"text": "step " * 100, "label": "bad"}


def a_cell(folder: Path, *, rows: Any = ROWS, name: str = "rows.csv", **changes: Any) -> Cell:
    """Of a small model with a trained tokenizer and a file of these rows, all in `folder`."""
    save_tokenizer(save_model(folder / "model", "bert", vocab_size=WORDS))
    settings: dict[str, Any] = {
        **{"model": str(folder / "model"), "dataset": str(WRITERS[name](folder / name, rows)), "device": "cpu"},
        **{"batch_size": 2, "sequence_length": 16, "copy": "blocking"},
    }
    return Cell(**settings | changes)


def inputs_of(cell: Cell) -> Inputs:
    text = load_text(cell, most=rows_needed(cell))
    return text_inputs(cell, text, load_config(cell, labels=text.classes))


def work_of(cell: Cell) -> WorkloadRecord:
    """What is recorded of a cell whose steps run, each once."""
    Bert().check(cell)
    step, what = Bert().build(cell, DEVICES["cpu"])
    for index in range(4):
        step(index)
    return what


class TestPadding:
    def test_to_the_length_asked_for_is_masked(self, tmp_path: Path) -> None:
        inputs = inputs_of(a_cell(tmp_path))

        assert len(inputs.pool) == 4
        for batch, tokens in zip(inputs.pool, inputs.tokens, strict=True):
            assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 16)
            assert tokens == int(batch["attention_mask"].sum()) == int((batch["input_ids"] != 0).sum())

    def test_to_the_longest_is_as_short_as_can_be(self, tmp_path: Path) -> None:
        inputs = inputs_of(a_cell(tmp_path, pad="longest", sequence_length=64))

        for batch in inputs.pool:
            mask = batch.get("attention_mask", batch["input_ids"] != 0)
            assert int(mask.sum(dim=1).max()) == batch["input_ids"].shape[1]
        assert len({batch["input_ids"].shape for batch in inputs.pool}) > 1

    def test_where_there_is_none_needs_no_mask(self, tmp_path: Path) -> None:
        inputs = inputs_of(a_cell(tmp_path, rows=[LONG] * 4))

        assert [sorted(batch) for batch in inputs.pool] == [["input_ids", "labels"]] * 2
        assert inputs.tokens == [32, 32]

    def test_changes_nothing_of_what_a_model_makes_of_a_text(self, tmp_path: Path) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification

        folder = tmp_path / "model"
        long, short = (inputs_of(a_cell(tmp_path, pad=pad, mode="inference")) for pad in ("max_length", "longest"))
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

        with torch.inference_mode():
            for one, other in zip(long.pool, short.pool, strict=True):
                assert torch.allclose(model(**one).logits, model(**other).logits, atol=1e-5)


class TestTexts:
    def test_that_are_too_long_are_cut_and_it_is_said(self, tmp_path: Path) -> None:
        inputs = inputs_of(a_cell(tmp_path, rows=[{"text": "joules", "label": "good"}] * 3 + [LONG]))

        assert inputs.notes == ["25% of the texts were cut off at 16 tokens."]

    def test_that_are_too_long_are_counted_for_a_tokenizer_in_python_too(self, tmp_path: Path) -> None:
        from transformers import ByT5Tokenizer

        cell = a_cell(tmp_path, rows=[{"text": "joules", "label": "good"}] * 3 + [LONG], batch_size=4)
        batches = TextBatches(cell, load_text(cell, most=4), ByT5Tokenizer())
        (batch,) = batches.pool()

        assert batch["input_ids"].shape == (4, 16)
        assert batches.cut == 1

    def test_have_the_labels_of_their_rows(self, tmp_path: Path) -> None:
        rows = [{"text": word, "label": number} for number, word in enumerate(["joules", "steps", "power", "time"])]
        cell = a_cell(tmp_path, rows=rows)

        first_words: dict[int, int] = {}
        for batch in inputs_of(cell).pool:
            first_words |= dict(zip(batch["labels"].tolist(), batch["input_ids"][:, 1].tolist(), strict=True))

        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(cell.model)
        assert {tokenizer(row["text"])["input_ids"][1]: row["label"] for row in rows} == {
            word: label for label, word in first_words.items()
        }

    def test_are_used_for_as_many_steps_as_are_asked_for_and_no_more(self, tmp_path: Path) -> None:
        cell = a_cell(tmp_path, warmup=1, steps=2)

        assert len(inputs_of(cell).pool) == 3

    def test_that_are_fewer_than_were_asked_for_are_counted(self, tmp_path: Path) -> None:
        inputs = inputs_of(a_cell(tmp_path, batch_size=3, batches=5, sequence_length=64))

        assert len(inputs.pool) == 2
        assert inputs.notes == [f"{tmp_path}/rows.csv has text for 2 full batches, not for 5."]

    def test_that_are_fewer_than_a_batch_are_not_enough(self, tmp_path: Path) -> None:
        with pytest.raises(
            PowerbenchError, match=r"has 8 rows with .* a batch of 9: choose at most 8 with --batch-size"
        ):
            inputs_of(a_cell(tmp_path, batch_size=9))

    def test_can_be_read_anew(self, tmp_path: Path) -> None:
        inputs = inputs_of(a_cell(tmp_path))

        assert inputs.read is not None
        for index in range(8):
            again, before = inputs.read(index), inputs.pool[index % 4]
            assert {name: again[name].equal(before[name]) for name in before} == dict.fromkeys(before, True)


class TestTokenizer:
    def test_that_is_not_there(self, tmp_path: Path) -> None:
        cell = a_cell(tmp_path)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (tmp_path / "model" / name).unlink()

        with pytest.raises(PowerbenchError, match=r"holds no tokenizer, and real text needs the model's own: save it"):
            inputs_of(cell)

    def test_that_knows_more_tokens_than_the_model(self, tmp_path: Path) -> None:
        cell = a_cell(tmp_path)
        save_model(tmp_path / "model", "bert", vocab_size=WORDS - 1)

        with pytest.raises(PowerbenchError, match="knows 300 tokens, but the model only 299: they are not of one kind"):
            inputs_of(cell)

    def test_whose_marks_fill_the_whole_sequence(self, tmp_path: Path) -> None:
        with pytest.raises(PowerbenchError, match="sequence_length is 2, and 2 of them are the model's own marks"):
            inputs_of(a_cell(tmp_path, sequence_length=2))

    def test_without_a_token_to_pad_with(self, tmp_path: Path) -> None:
        cell = a_cell(tmp_path)
        save_tokenizer(tmp_path / "model", pad_token=None)

        with pytest.raises(PowerbenchError, match="has no token to pad with"):
            inputs_of(cell)


class TestAccount:
    def test_of_batches_of_one_length_is_a_mean(self, tmp_path: Path) -> None:
        cell = a_cell(tmp_path, accumulation=2)

        what = work_of(cell)

        assert (what.batches, what.batch_lengths, what.batch_tokens, what.batch_flop) == (4, None, None, None)
        assert what.tokens_per_step == 2 * sum(inputs_of(cell).tokens) / 4
        assert what.flop_per_step == 2 * 2 * flop_of(json_of(tmp_path), mode="training", tokens=16)

    def test_of_batches_of_different_lengths_is_of_each(self, tmp_path: Path) -> None:
        cell = a_cell(tmp_path, pad="longest")

        what = work_of(cell)

        inputs = inputs_of(cell)
        lengths = [batch["input_ids"].shape[1] for batch in inputs.pool]
        flop = [2 * flop_of(json_of(tmp_path), mode="training", tokens=length) for length in lengths]
        assert (what.batch_lengths, what.batch_tokens, what.batch_flop) == (lengths, inputs.tokens, flop)
        assert what.flop_per_step == sum(flop) / 4

    def test_of_random_tokens_has_no_padding(self) -> None:
        _, what = Bert().build(Cell(model="bert-tiny", batch_size=3, sequence_length=8), DEVICES["cpu"])

        assert (what.batches, what.tokens_per_step, what.notes) == (8, 24.0, [])


def json_of(folder: Path) -> Any:
    return json.loads((folder / "model/config.json").read_text("utf-8"))


@pytest.mark.parametrize("architecture", CONFIGS)
def test_each_architecture_trains_on_real_text_of_several_labels(architecture: str, tmp_path: Path) -> None:
    cell = a_cell(
        tmp_path, name="rows.parquet", pad="longest", attention="eager", weights="pretrained", sequence_length=48
    )
    save_model(tmp_path / "model", architecture, vocab_size=WORDS)

    what = work_of(cell)

    assert what.batches == 4
    assert len(set(what.batch_lengths or ())) > 1


def test_a_built_in_size_takes_the_tokenizer_that_was_published_with_it(tmp_path: Path) -> None:
    """From the hub, where it is; here it is not, and the sentence names it."""
    cell = Cell(model="bert-tiny", dataset=str(write_csv(tmp_path / "rows.csv")), batch_size=2, sequence_length=8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(PowerbenchError, match=f"^{SIZES['bert-tiny'].hub_id}, which holds the tokenizer"):
            inputs_of(cell)
