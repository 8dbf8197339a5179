"""Text as a model reads it: cut into tokens by the model's own tokenizer, and padded into batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from powerbench.errors import PowerbenchError
from powerbench.records import Cell
from powerbench.workloads.models import errors_told, is_folder, source_of
from powerbench.workloads.share import WHOLE, Share
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
    """Makes a rank's rows of the batches of a text.

    `tokens` are those of each batch of all ranks without its padding, `cut` texts were too long. Each rank looks at the
    whole of a batch once: all pad to what is the longest of any.
    """

    def __init__(self, cell: Cell, text: Text, tokenizer: PreTrainedTokenizerBase, share: Share = WHOLE) -> None:
        self._size = cell.batch_size * share.ranks
        self.count = len(text.texts) // self._size
        self.tokens: list[int] = []
        self.cut = 0
        self._cell = cell
        self._text = text
        self._tokenizer = tokenizer
        self._share = share
        self._shapes: list[tuple[int, bool]] = []  # of each batch its length, and whether any of it is padding

    def pool(self) -> list[Batch]:
        """All of them, with what is known of them from then on."""
        return [self._made(self._text.texts, index) for index in range(self.count)]

    def read(self, index: int) -> Batch:
        """The batch of a step, read and made anew: its own rows alone."""
        at = index % self.count
        rows = self._share.rows(self._cell.batch_size)
        first, end = at * self._size + rows.start, at * self._size + rows.stop
        texts, labels = self._text.read(first, end), self._text.labels[first:end]
        if self._share.ranks == 1:
            return self._collated(self._encoded(texts), labels)
        length, padded = self._shapes[at]
        return self._collated(self._encoded(texts, length=length), labels, padded=padded)

    def _made(self, texts: Sequence[str], index: int) -> Batch:
        size = self._size
        some = list(texts[index * size : (index + 1) * size])
        encoded = self._encoded(some)
        self.tokens.append(int(encoded["attention_mask"].sum()))
        self.cut += self._too_long(some, encoded)
        batch = self._collated(encoded, self._text.labels[index * size : (index + 1) * size])
        self._shapes.append((int(batch["input_ids"].shape[1]), "attention_mask" in batch))
        return self._share.of(batch, self._cell.batch_size)

    def _too_long(self, texts: list[str], encoded: Any) -> int:
        if encoded.encodings is not None:
            return sum(bool(one.overflowing) for one in encoded.encodings)
        # A tokenizer written in Python (BERTweet's, Japanese BERT's) does not say what it cut.
        return sum(len(whole) > self._cell.sequence_length for whole in self._tokenizer(texts)["input_ids"])

    def _encoded(self, texts: list[str], *, length: int | None = None) -> Any:
        """`texts` as tokens, padded as the cell asks; or to `length`."""
        return self._tokenizer(
            texts,
            truncation=True,
            max_length=self._cell.sequence_length if length is None else length,
            padding=self._cell.pad if length is None else "max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )

    def _collated(self, encoded: Any, labels: list[int], *, padded: bool | None = None) -> Batch:
        import torch

        batch = {"input_ids": encoded["input_ids"]}
        # Without padding there is nothing to mask, and a mask costs a wait for the device (batches.py).
        if not bool(encoded["attention_mask"].all()) if padded is None else padded:
            batch["attention_mask"] = encoded["attention_mask"]
        if self._cell.mode == "training":
            batch["labels"] = torch.tensor(labels)
        return batch
