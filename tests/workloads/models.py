"""Models as users have them, in folders: small, of several architectures, made by transformers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SMALL: dict[str, Any] = {
    **{"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"intermediate_size": 64, "max_position_embeddings": 66, "num_labels": 3},
}
DISTILBERT = {
    **{"vocab_size": 300, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 66},
    "num_labels": 3,
}
SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": SMALL,
    "roberta": SMALL,
    "electra": SMALL | {"embedding_size": 32},
    "distilbert": DISTILBERT,
    "deberta-v2": SMALL,
    "modernbert": SMALL | dict.fromkeys(SPECIAL, 1),
}


def save_model(folder: Path, architecture: str, **changes: Any) -> Path:
    """A folder with a small model of this architecture, its weights as safetensors."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.for_model(architecture, **CONFIGS[architecture] | changes)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder
