"""Text as a model reads it: cut into tokens by the model's own tokenizer, and padded into batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from powerbench.errors import PowerbenchError
from powerbench.records import Cell
from powerbench.workloads.models import errors_told, is_folder, source_of
from powerbench.workloads.text import Text

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from powerbench.workloads.batches import Batch

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")


def load_tokenizer(cell: Cell, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of the cell's model. Raises PowerbenchError, also where it makes tokens that the model has not."""
    from transformers import AutoTokenizer

    if is_folder(cell.model) and not any((Path(cell.model) / name).exists() for name in TOKENIZER_FILES):
        raise PowerbenchError(
            f"{cell.model} holds no tokenizer, and real text needs the model's own: save it there with "
            "`tokenizer.save_pretrained`, or measure with --dataset synthetic."
        )
    with errors_told(cell.model):
        tokenizer = AutoTokenizer.from_pretrained(source_of(cell.model), trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise PowerbenchError(f"The tokenizer of {cell.model} has no token to pad with: give it a `pad_token`.")
    if len(tokenizer) > config.vocab_size:
        raise PowerbenchError(
            f"The tokenizer of {cell.model} knows {len(tokenizer):,} tokens, but the model only {config.vocab_size:,}: "
            "they are not of one kind; save the right tokenizer beside the model."
        )
    special = tokenizer.num_special_tokens_to_add()
    if cell.sequence_length <= special:
        raise PowerbenchError(
            f"sequence_length is {cell.sequence_length}, and {special} of them are the model's own marks: choose more "
            "with --sequence-length."
        )
    return tokenizer


class TextBatches:
    """Makes the batches of a text: `tokens` are those of each batch without its padding, `cut` texts were too long."""

    def __init__(self, cell: Cell, text: Text, tokenizer: PreTrainedTokenizerBase) -> None:
        self.count = len(text.texts) // cell.batch_size
        self.tokens: list[int] = []
        self.cut = 0
        self._cell = cell
        self._text = text
        self._tokenizer = tokenizer

    def pool(self) -> list[Batch]:
        """All of them, with what is known of them from then on."""
        return [self._made(self._text.texts, index, keep_account=True) for index in range(self.count)]

    def read(self, index: int) -> Batch:
        """The batch of a step, read and made anew."""
        at, size = index % self.count, self._cell.batch_size
        texts = self._text.read(at * size, (at + 1) * size)
        return self._collated(self._encoded(texts), self._text.labels[at * size : (at + 1) * size])

    def _made(self, texts: Sequence[str], index: int, *, keep_account: bool) -> Batch:
        size = self._cell.batch_size
        some = list(texts[index * size : (index + 1) * size])
        encoded = self._encoded(some)
        self.tokens.append(int(encoded["attention_mask"].sum()))
        self.cut += self._too_long(some, encoded)
        return self._collated(encoded, self._text.labels[index * size : (index + 1) * size])

    def _too_long(self, texts: list[str], encoded: Any) -> int:
        if encoded.encodings is not None:
            return sum(bool(one.overflowing) for one in encoded.encodings)
        # A tokenizer written in Python (BERTweet's, Japanese BERT's) does not say what it cut.
        return sum(len(whole) > self._cell.sequence_length for whole in self._tokenizer(texts)["input_ids"])

    def _encoded(self, texts: list[str]) -> Any:
        return self._tokenizer(
            texts,
            truncation=True,
            max_length=self._cell.sequence_length,
            padding=self._cell.pad,
            return_attention_mask=True,
            return_tensors="pt",
        )

    def _collated(self, encoded: Any, labels: list[int]) -> Batch:
        import torch

        batch = {"input_ids": encoded["input_ids"]}
        # Without padding there is nothing to mask, and a mask costs a wait for the device (batches.py).
        if not bool(encoded["attention_mask"].all()):
            batch["attention_mask"] = encoded["attention_mask"]
        if self._cell.mode == "training":
            batch["labels"] = torch.tensor(labels)
        return batch
