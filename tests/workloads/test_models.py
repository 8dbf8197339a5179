"""Any model for sequence classification: from a folder, with fresh weights or its own, or a sentence why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from powerbench.devices import DEVICES
from powerbench.errors import PowerbenchError, UsageError
from powerbench.records import Cell
from powerbench.workloads.bert import Bert
from powerbench.workloads.models import (
    check_model,
    load_config,
    load_model,
    positions_of,
    revision_of,
    why_not_loaded,
    why_not_taken,
)
from powerbench.workloads.operations import flop_of, flop_per_sample
from powerbench.workloads.sizes import SIZES
from tests.workloads.models import CONFIGS, save_model

CPU = DEVICES["cpu"]
EAGER_ONLY = ("deberta-v2",)


def a_cell(folder: Path | str, **changes: Any) -> Cell:
    settings: dict[str, Any] = {"device": "cpu", "batch_size": 2, "sequence_length": 8, "copy": "blocking"}
    return Cell(model=str(folder), **settings | changes)


def values_of(model: Any, name: str) -> Any:
    return next(value for key, value in model.state_dict().items() if key.endswith(name))


@pytest.mark.parametrize("architecture", CONFIGS)
class TestEachArchitecture:
    def test_trains_a_step_with_fresh_weights(self, architecture: str, tmp_path: Path) -> None:
        folder = save_model(tmp_path, architecture)
        cell = a_cell(folder, attention="eager" if architecture in EAGER_ONLY else "sdpa")
        Bert().check(cell)

        step, what = Bert().build(cell, CPU)
        step(0)

        assert what.architecture is not None
        assert what.architecture.endswith("ForSequenceClassification")
        assert what.parameters is not None
        assert what.parameters > 10_000
        known = architecture not in ("deberta-v2", "modernbert")
        assert (what.flop_per_step is not None) is known, "an architecture whose products are not known has no figure"

    def test_has_trained_weights_where_they_are_asked_for(self, architecture: str, tmp_path: Path) -> None:
        from transformers import AutoModelForSequenceClassification

        folder = save_model(tmp_path, architecture)
        saved = values_of(AutoModelForSequenceClassification.from_pretrained(folder), "embeddings.weight")
        cell = a_cell(folder, attention="eager")

        trained = load_model(a_cell(folder, attention="eager", weights="pretrained"), load_config(cell, labels=3))
        fresh = load_model(cell, load_config(cell, labels=3))

        assert values_of(trained, "embeddings.weight").equal(saved)
        assert not values_of(fresh, "embeddings.weight").equal(saved)


class TestLabels:
    def test_other_labels_than_the_trained_classifier_s_get_a_fresh_one(self, tmp_path: Path) -> None:
        cell = a_cell(save_model(tmp_path, "bert"), weights="pretrained")

        model = load_model(cell, load_config(cell, labels=7))

        assert model.config.num_labels == 7
        assert values_of(model, "classifier.weight").shape == (7, 32)


class TestFlop:
    def test_of_a_folder_s_bert_is_what_torch_counts_for_the_encoder(self, tmp_path: Path) -> None:
        from torch.utils.flop_counter import FlopCounterMode

        cell = a_cell(save_model(tmp_path, "bert"), mode="inference", attention="eager", batch_size=1)
        step, what = Bert().build(cell, CPU)
        with FlopCounterMode(display=False) as counter:
            step(0)

        pooler, classifier = 2 * 32 * 32, 2 * 32 * 2
        assert counter.get_total_flops() - pooler - classifier == what.flop_per_step

    @pytest.mark.parametrize("architecture", ["roberta", "electra", "distilbert"])
    def test_of_others_of_its_kind_is_the_same(self, architecture: str, tmp_path: Path) -> None:
        bert, other = (a_cell(save_model(tmp_path / name, name)) for name in ("bert", architecture))

        assert flop_per_sample(load_config(other, labels=2), mode="training", tokens=8) == flop_per_sample(
            load_config(bert, labels=2), mode="training", tokens=8
        )

    def test_of_what_says_nothing_of_itself_are_guessed_as_bert_base_s(self) -> None:
        assert flop_of({}, mode="inference", tokens=128) == 22_347_251_712


class TestWork:
    def test_follows_the_configuration_in_a_folder(self, tmp_path: Path) -> None:
        cell = a_cell(save_model(tmp_path, "bert"))

        assert Bert().work(cell) == 2 * flop_of(
            json.loads((tmp_path / "config.json").read_text()), mode="training", tokens=8
        )

    def test_of_a_model_that_is_gone_since_is_guessed(self, tmp_path: Path) -> None:
        guessed = 2 * flop_of({}, mode="training", tokens=8)

        assert Bert().work(a_cell(tmp_path)) == Bert().work(a_cell(tmp_path / "gone")) == guessed


class TestPositions:
    def test_are_the_configuration_s(self) -> None:
        assert positions_of({"max_position_embeddings": 512}) == 512

    def test_of_a_roberta_are_counted_from_behind_its_padding(self) -> None:
        facts = {"max_position_embeddings": 514, "model_type": "roberta", "pad_token_id": 1}

        assert positions_of(facts) == 512
        assert positions_of(facts | {"pad_token_id": 0}) == 513

    def test_of_a_gpt_2_have_another_name(self) -> None:
        assert positions_of({"n_positions": 1024}) == 1024

    @pytest.mark.parametrize("facts", [{}, {"max_position_embeddings": None}, {"max_position_embeddings": -1}])
    def test_without_a_number_nothing_limits_them(self, facts: dict[str, Any]) -> None:
        assert positions_of(facts) is None

    def test_a_longer_sequence_is_refused_before_anything_runs(self, tmp_path: Path) -> None:
        folder = save_model(tmp_path, "roberta")

        check_model(a_cell(folder, sequence_length=64))
        with pytest.raises(UsageError, match="has only 64 positions; choose at most 64 with --sequence-length"):
            check_model(a_cell(folder, sequence_length=65))


class TestWhatIsNoModel:
    @pytest.mark.parametrize("model", ["./nowhere", "/nowhere/at/all", "~/model", "a/b/c", "two words", "name/"])
    def test_a_path_that_is_not_there_is_a_sentence(self, model: str) -> None:
        with pytest.raises(UsageError, match="There is no folder "):
            check_model(a_cell(model))

    @pytest.mark.parametrize(
        ("typed", "meant"), [("bert-base", "bert-base-cased"), ("bert-tinny", "bert-tiny"), ("sleeep", "sleep")]
    )
    def test_a_slip_of_a_built_in_name_is_told(self, typed: str, meant: str) -> None:
        with pytest.raises(UsageError, match=f"no built-in model called '{typed}'; did you mean {meant}"):
            check_model(a_cell(typed))

    @pytest.mark.parametrize("model", ["distilbert-base-uncased", "microsoft/deberta-v3-base", "prajjwal1/bert-tiny"])
    def test_a_name_of_the_hub_is_left_to_the_worker(self, model: str) -> None:
        check_model(a_cell(model))

    def test_a_folder_without_a_configuration(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"holds no config\.json and so no model: name the folder"):
            check_model(a_cell(tmp_path))

    @pytest.mark.parametrize("written", ["", "{", "[]", "\xff"])
    def test_a_configuration_that_is_none(self, tmp_path: Path, written: str) -> None:
        (tmp_path / "config.json").write_text(written, "latin-1")

        with pytest.raises(UsageError, match=r"config\.json .*: save the model again"):
            check_model(a_cell(tmp_path))

    def test_one_that_brings_code_of_its_own_is_refused(self, tmp_path: Path) -> None:
        auto_map = {"AutoModelForSequenceClassification": "modeling.Mine"}
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": auto_map}))

        with pytest.raises(UsageError, match=r"brings Python code of its own .*, which powerbench does not run"):
            check_model(a_cell(tmp_path))

    @pytest.mark.parametrize(
        ("facts", "said"),
        [
            ({"model_type": "mine"}, r"transformers has no sequence classifier of the architecture of .*: choose an "),
            ({"model_type": "mamba"}, r"transformers has no sequence classifier of the architecture of .*: choose an "),
            ({"model_type": "vit"}, r"does not read tokens of text: its config\.json \(vit\) has no vocabulary "),
            ({"model_type": "canine"}, r"its config\.json \(canine\) has no vocabulary \(vocab_size\); choose an "),
            ({"model_type": "bart"}, r"is an encoder with a decoder \(bart\): choose an encoder\.$"),
            ({"model_type": "bert", "hidden_size": "wide"}, r"expected int, got str \(value: 'wide'\)\.$"),
            ({"model_type": "bert", "hidden_size": 33}, "33.* is not a multiple of the number of attention heads"),
            ({"model_type": "bert", "hidden_act": "fast"}, r"does not know the 'fast' in the config\.json of .*: mend"),
        ],
        ids=str,
    )
    def test_a_configuration_of_which_no_classifier_can_be_made(
        self, tmp_path: Path, facts: dict[str, Any], said: str
    ) -> None:
        (tmp_path / "config.json").write_text(json.dumps(facts))
        cell = a_cell(tmp_path)

        with pytest.raises(PowerbenchError, match=said) as caught:
            load_model(cell, load_config(cell, labels=2))
        assert "\n" not in str(caught.value)

    def test_weights_in_a_pickle_are_not_loaded(self, tmp_path: Path) -> None:
        import torch

        cell = a_cell(save_model(tmp_path, "bert"), weights="pretrained")
        (tmp_path / "model.safetensors").unlink()
        torch.save({}, tmp_path / "pytorch_model.bin")

        with pytest.raises(PowerbenchError, match="has no trained weights as safetensors, and other files"):
            load_model(cell, load_config(cell, labels=2))

    def test_weights_that_were_fetched_without_git_lfs(self, tmp_path: Path) -> None:
        cell = a_cell(save_model(tmp_path, "bert"), weights="pretrained")
        (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n")

        with pytest.raises(PowerbenchError, match=r"are no safetensors .*: fetch the file again"):
            load_model(cell, load_config(cell, labels=2))

    @pytest.mark.parametrize("change", [{"num_hidden_layers": 3}, {"intermediate_size": 128}])
    def test_weights_of_another_model_than_the_configuration_s(self, tmp_path: Path, change: dict[str, int]) -> None:
        cell = a_cell(save_model(tmp_path, "bert"), weights="pretrained")
        facts = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(facts | change))

        with pytest.raises(PowerbenchError, match=r"are not those of its config\.json: .* tensors of the encoder"):
            load_model(cell, load_config(cell, labels=2))

    def test_fused_attention_that_an_architecture_lacks(self, tmp_path: Path) -> None:
        cell = a_cell(save_model(tmp_path, "deberta-v2"))

        with pytest.raises(PowerbenchError, match=r"has no fused attention for .*: add --attention eager"):
            load_model(cell, load_config(cell, labels=2))


class TestRevision:
    def test_of_what_came_from_the_hub_is_its_commit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        kept = tmp_path / "models--me--mine"
        (kept / "refs").mkdir(parents=True)
        (kept / "refs/main").write_text("0a1b")
        (kept / "snapshots/0a1b").mkdir(parents=True)
        (kept / "snapshots/0a1b/config.json").touch()
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

        assert revision_of(a_cell("me/mine")) == "0a1b"
        assert revision_of(a_cell("me/other")) is None

    def test_of_what_did_not_is_none(self, tmp_path: Path) -> None:
        assert revision_of(a_cell(tmp_path)) is None
        assert revision_of(Cell(model="bert-tiny")) is None


class TestOffline:
    def test_what_was_looked_for_is_said_and_what_to_do(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))

        with pytest.raises(PowerbenchError) as caught:
            load_config(a_cell("nobody/nothing"), labels=2)

        assert str(caught.value) == (
            f"nobody/nothing is neither a folder here nor in the cache ({tmp_path}), and it could not be had from the "
            "hub: check the name and the network (a gated one needs `hf auth login`), or fetch it elsewhere with "
            "`hf download nobody/nothing --local-dir DIR` and give --model DIR."
        )

    def test_a_built_in_size_is_looked_for_by_its_name_on_the_hub(self) -> None:
        said = why_not_loaded("bert-tiny", "We couldn't connect to the hub")

        assert said.startswith(
            "google/bert_uncased_L-2_H-128_A-2, which holds the tokenizer and the trained weights of "
        )
        assert "bert-tiny, is neither a folder here nor in the cache" in said

    def test_a_built_in_size_needs_no_hub(self) -> None:
        assert load_config(Cell(model="bert-tiny"), labels=2).hidden_size == SIZES["bert-tiny"].hidden


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("X requires you to execute ... trust_remote_code=True", "m brings Python code of its own, which powerbench"),
        ("Something is odd. And more.\nlines", "transformers does not take m: Something is odd."),
        ("", "transformers does not take m: no reason was given."),
    ],
)
def test_what_transformers_refuses_is_one_sentence(said: str, sentence: str) -> None:
    assert why_not_taken("m", said).startswith(sentence)


def test_operations_that_a_configuration_does_not_tell_are_unknown_and_not_bert_base_s(tmp_path: Path) -> None:
    cell = a_cell(save_model(tmp_path, "bert"))
    config = load_config(cell, labels=2)
    assert flop_per_sample(config, mode="training", tokens=8) is not None

    config.num_hidden_layers = 0

    assert flop_per_sample(config, mode="training", tokens=8) is None
