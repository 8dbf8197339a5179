"""How many floating-point operations a sample takes, where a model's products are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from powerbench.records import Mode

# Encoders of plain attention over the whole sequence and a feed-forward part of two products; of others (relative or
# local attention, gated parts) the count would be wrong.
PLAIN_ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert")
# The names that configurations have for the three numbers, and those of bert-base.
NAMES = {
    "layers": (("num_hidden_layers", "n_layers", "n_layer"), 12),
    "hidden": (("hidden_size", "dim", "n_embd"), 768),
    "wide": (("intermediate_size", "hidden_dim", "n_inner"), 3072),
}


def flop_per_sample(config: PreTrainedConfig, *, mode: Mode, tokens: int) -> float | None:
    """Floating-point operations for one sample of so many tokens; None where the model's products are not known."""
    facts = config.to_dict()
    is_known = all(_number(facts, names) is not None for names, _ in NAMES.values())
    return flop_of(facts, mode=mode, tokens=tokens) if is_known and config.model_type in PLAIN_ENCODERS else None


def flop_of(facts: Mapping[str, Any], *, mode: Mode, tokens: int) -> float:
    """The same by a configuration's facts, for a forecast: a number that is not among them is taken to be bert-base's.

    Forward `L (8 S H^2 + 4 S^2 H + 4 S H F)`, which is `24 L S H^2 + 4 L S^2 H` where the feed-forward part F is four
    times as wide as H; three times that in training. Matrix products of the encoder only; embeddings, softmax and the
    optimizer are left out.
    """
    layers, hidden, wide = (_number(facts, names) or usual for names, usual in NAMES.values())
    forward = layers * (8 * tokens * hidden**2 + 4 * tokens**2 * hidden + 4 * tokens * hidden * wide)
    return float(forward * (3 if mode == "training" else 1))


def _number(facts: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """The first of these that is a number above zero; None where there is none."""
    return next((facts[name] for name in names if isinstance(facts.get(name), int) and facts[name] > 0), None)
