"""Any model for sequence classification: a built-in size, a folder, or a name on the Hugging Face hub."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from powerbench.errors import PowerbenchError, UsageError
from powerbench.records import Cell
from powerbench.units import counted
from powerbench.workloads.sizes import SIZES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedConfig, PreTrainedModel

CONFIG = "config.json"
LABELS = 2
# These count positions from behind the padding token's (transformers, create_position_ids_from_input_ids).
OFFSET_BY_PADDING = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "luke")


def check_model(cell: Cell) -> None:
    """What can be told of a cell's model without torch. Raises UsageError."""
    if cell.model not in SIZES and not is_folder(cell.model):
        refuse_slip(cell.model)
    facts = facts_of(cell.model)
    if "auto_map" in facts:
        raise UsageError(
            f"The model in {cell.model} brings Python code of its own (auto_map in its {CONFIG}), which powerbench "
            "does not run: choose one of an architecture that transformers has."
        )
    check_length(cell, positions_of(facts))


def refuse_slip(model: str) -> None:
    """Raise UsageError for a name that is nearly a built-in one, or that no model on the hub can have."""
    # Other models on the hub have names not far from these: distilbert-base-uncased is alike by 0.85.
    close = get_close_matches(model, [*SIZES, "sleep"], n=1, cutoff=0.88)
    close += [name for name in SIZES if name.startswith(f"{model}-")]
    if close and "/" not in model:
        raise UsageError(f"There is no built-in model called {model!r}; did you mean {close[0]}?")
    owner, _, name = model.rpartition("/")
    if not name or "/" in owner or model[0] in "./~" or any(letter.isspace() for letter in model):
        raise UsageError(
            f"There is no folder {model}: name one that holds a {CONFIG}, a model on the hub (OWNER/NAME), or one of "
            f"{', '.join(SIZES)}."
        )


def check_length(cell: Cell, positions: int | None) -> None:
    """Raise UsageError for a sequence that is longer than a model takes; None is no limit."""
    if positions is not None and cell.sequence_length > positions:
        raise UsageError(
            f"sequence_length is {cell.sequence_length}, but {cell.model} has only {positions} positions; "
            f"choose at most {positions} with --sequence-length."
        )


def is_folder(model: str) -> bool:
    """Whether a model's name is that of a folder here."""
    return model not in SIZES and Path(model).is_dir()


def facts_in(folder: Path) -> dict[str, Any]:
    """The configuration in a model's folder, as it is written there. Raises UsageError."""
    try:
        facts = json.loads((folder / CONFIG).read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"{folder} holds no {CONFIG} and so no model: name the folder that `save_pretrained` wrote."
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder / CONFIG} cannot be read ({error}): save the model again.") from error
    if not isinstance(facts, dict):
        raise UsageError(f"{folder / CONFIG} is no configuration of a model: save the model again.")
    return facts


def facts_of(model: str) -> Mapping[str, Any]:
    """What can be told of a model's configuration without the hub."""
    if model in SIZES:
        return SIZES[model].facts
    return facts_in(Path(model)) if is_folder(model) else {}


def positions_of(facts: Mapping[str, Any]) -> int | None:
    """How many tokens fit into a model with this configuration; None where nothing limits them."""
    positions = facts.get("max_position_embeddings", facts.get("n_positions"))
    if not isinstance(positions, int) or positions < 1:
        return None
    if facts.get("model_type") in OFFSET_BY_PADDING:
        padding = facts.get("pad_token_id")
        return positions - (padding if isinstance(padding, int) else 1) - 1
    return positions


def load_config(cell: Cell, *, labels: int) -> PreTrainedConfig:
    """The configuration of the cell's model, for so many labels. Raises PowerbenchError. Imports transformers."""
    from transformers import AutoConfig, BertConfig

    # Else the first pass with labels sets problem_type, and a compiled model is compiled again for that.
    task: dict[str, Any] = {"num_labels": labels, "problem_type": "single_label_classification"}
    if cell.model in SIZES and cell.weights == "random":
        return BertConfig(**SIZES[cell.model].facts, **task)
    with errors_told(cell.model), quiet_about_the_classifier():
        config = AutoConfig.from_pretrained(source_of(cell.model), trust_remote_code=False, **task)
    if getattr(config, "is_encoder_decoder", False):
        raise PowerbenchError(f"{cell.model} is an encoder with a decoder ({config.model_type}): choose an encoder.")
    if not getattr(config, "vocab_size", None):  # of pictures or sounds; CANINE reads characters
        raise PowerbenchError(
            f"{cell.model} does not read tokens of text: its {CONFIG} ({config.model_type}) has no vocabulary "
            "(vocab_size); choose an encoder like BERT."
        )
    check_length(cell, positions_of(config.to_dict() | {"model_type": config.model_type}))
    if getattr(config, "pad_token_id", None) is None:  # models that look for the last token refuse a batch without one
        config.pad_token_id = 0
    return config


def load_model(cell: Cell, config: PreTrainedConfig) -> PreTrainedModel:
    """The model in float32 on the cpu, its weights fresh and random, or trained ones from safetensors.

    A classifier that the trained ones lack, or that is for other labels, is fresh. Raises PowerbenchError.
    """
    from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

    with errors_told(cell.model):
        if cell.weights == "pretrained":
            return load_trained(cell, config)
        if cell.model in SIZES:
            config._attn_implementation = cell.attention
            return BertForSequenceClassification(config)
        return AutoModelForSequenceClassification.from_config(
            config, attn_implementation=cell.attention, trust_remote_code=False, dtype="float32"
        )


def load_trained(cell: Cell, config: PreTrainedConfig) -> PreTrainedModel:
    """The model with the weights that were trained. Raises PowerbenchError where they are another model's."""
    from transformers import AutoModelForSequenceClassification

    # Else a public service is asked to convert the weights of a model on the hub that has none as safetensors.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    with quiet_about_the_classifier():
        model, found = AutoModelForSequenceClassification.from_pretrained(
            source_of(cell.model),
            config=config,
            attn_implementation=cell.attention,
            dtype="float32",
            use_safetensors=True,  # a pickle may run anything
            ignore_mismatched_sizes=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    unfit = [*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])]
    # What was trained for another task has no pooler, as it has no classifier.
    unfit = [key for key in unfit if key.startswith(f"{model.base_model_prefix}.") and "pooler" not in key]
    if unfit:
        raise PowerbenchError(
            f"The weights of {cell.model} are not those of its {CONFIG}: {counted(len(unfit), 'tensor')} of the "
            f"encoder, such as {unfit[0]}, are missing or of another shape; save the model again."
        )
    return model


def source_of(model: str) -> str:
    """Where a model and its tokenizer are loaded from: a folder, or a name on the hub."""
    return SIZES[model].hub_id if model in SIZES else model


def revision_of(cell: Cell) -> str | None:
    """The commit of the files that were loaded from the hub; None where none were."""
    if is_folder(cell.model) or (cell.model in SIZES and cell.weights == "random"):
        return None
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(source_of(cell.model), CONFIG)  # .../snapshots/COMMIT/config.json
    return Path(path).parent.name if isinstance(path, str) else None


@contextmanager
def quiet_about_the_classifier() -> Iterator[None]:
    """transformers warns of other labels and of a fresh classifier, which are what is asked for."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


@contextmanager
def errors_told(model: str) -> Iterator[None]:
    """Turn what transformers raises while it loads into one sentence each. Raises PowerbenchError."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:  # a file that is not there, here or on the hub; a connection that is not
        raise PowerbenchError(why_not_loaded(model, str(error))) from error
    except SafetensorError as error:
        raise PowerbenchError(
            f"The weights of {model} are no safetensors ({error}): fetch the file again (`git clone` without git-lfs "
            "leaves a pointer in its place)."
        ) from error
    except KeyError as error:  # a word in the configuration, such as an activation, that transformers does not know
        raise PowerbenchError(f"transformers does not know the {error} in the {CONFIG} of {model}: mend it.") from error
    except (ValueError, TypeError, StrictDataclassError, ImportError) as error:
        raise PowerbenchError(why_not_taken(model, str(error))) from error


def why_not_loaded(model: str, said: str) -> str:
    """What was looked for and was not there, and what to do."""
    if "safetensors" in said or "pytorch_model.bin" in said:
        return (
            f"{model} has no trained weights as safetensors, and other files of weights are not loaded since they may "
            "run code: convert them, or leave --weights at random."
        )
    if is_folder(model):
        return f"The model in {model} cannot be loaded: {first_sentence(said)}."
    source, name = source_of(model), ""
    if source != model:  # only what is not built in is looked for
        name = f", which holds the tokenizer and the trained weights of {model},"
    return (
        f"{source}{name} is neither a folder here nor in the cache ({cache_folder()}), and it could not be had from "
        "the hub: check the name and the network (a gated one needs `hf auth login`), or fetch it elsewhere with "
        f"`hf download {source} --local-dir DIR` and give --model DIR."
    )


def why_not_taken(model: str, said: str) -> str:
    """What transformers does not do with this model, and what to do."""
    if "scaled_dot_product_attention" in said:
        return f"transformers has no fused attention for {model}: add --attention eager."
    if "trust_remote_code" in said:
        return f"{model} brings Python code of its own, which powerbench does not run: choose another."
    if "Unrecognized" in said or "does not recognize this architecture" in said:
        return f"transformers has no sequence classifier of the architecture of {model}: choose an encoder like BERT."
    return f"transformers does not take {model}: {first_sentence(said)}."


def first_sentence(said: str) -> str:
    """The first sentence of a long message, in one line and without its full stop."""
    return " ".join(said.split()).split(". ")[0].rstrip(".") or "no reason was given"


def cache_folder() -> str:
    """Where the hub's files are kept on this machine (huggingface_hub, `HF_HUB_CACHE`)."""
    home = os.environ.get("HF_HOME") or str(Path("~/.cache/huggingface").expanduser())
    return os.environ.get("HF_HUB_CACHE") or str(Path(home) / "hub")
