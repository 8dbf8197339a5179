"""The BERTs that are built in: as published, made from a few numbers, so that nothing need be downloaded."""

from __future__ import annotations

from typing import NamedTuple

MAX_POSITIONS = 512
CASED_VOCABULARY = 28996
UNCASED_VOCABULARY = 30522


class Size(NamedTuple):
    """A published BERT: the feed-forward layer is four times as wide as `hidden`, a head is 64 wide.

    `hub_id` is where its trained weights and its tokenizer are.
    """

    layers: int
    hidden: int
    vocabulary: int
    hub_id: str

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.hidden // 64

    @property
    def facts(self) -> dict[str, int]:
        """The configuration of such a model, by the names of its config.json."""
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.hidden,
            "max_position_embeddings": MAX_POSITIONS,
        }


# Devlin et al. 2018 (arXiv 1810.04805) and, for the small ones, Turc et al. 2019 (arXiv 1908.08962).
SIZES = {
    "bert-base-cased": Size(12, 768, CASED_VOCABULARY, "google-bert/bert-base-cased"),
    "bert-base-uncased": Size(12, 768, UNCASED_VOCABULARY, "google-bert/bert-base-uncased"),
    "bert-large-cased": Size(24, 1024, CASED_VOCABULARY, "google-bert/bert-large-cased"),
    "bert-large-uncased": Size(24, 1024, UNCASED_VOCABULARY, "google-bert/bert-large-uncased"),
    "bert-tiny": Size(2, 128, UNCASED_VOCABULARY, "google/bert_uncased_L-2_H-128_A-2"),
    "bert-mini": Size(4, 256, UNCASED_VOCABULARY, "google/bert_uncased_L-4_H-256_A-4"),
    "bert-small": Size(4, 512, UNCASED_VOCABULARY, "google/bert_uncased_L-4_H-512_A-8"),
    "bert-medium": Size(8, 512, UNCASED_VOCABULARY, "google/bert_uncased_L-8_H-512_A-8"),
}
