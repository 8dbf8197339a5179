"""Text as users have it: files in each form, and a tokenizer that was really trained on the lines below."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

WORDS = 300
LINES = """
A step is what happens between two edges: the batch goes to the device, forward and backward, and the optimizer moves.
The meter counts joules all the while, and nobody asks it until the device has finished what it was given.
Where a sensor is too slow for a step there is no figure, only the reason, and how long one would have to measure.
The processor was warm before the run began, and so the first steps took no longer than the last of them.
On battery a machine may hold its clocks back, which the report notes beside the numbers that it changes.
Two runs of one cell differ by what else the machine was doing, and a repeat tells by how much they do.
Whoever reads a table of watts should know whose watts they are, and over which seconds they were added up.
When the memory was full the system wrote pages to the disk, and each step waited until they had come back.
A fan that turns faster costs power too, but no rail of the chip knows anything about the fan.
Short texts make short batches, long texts are cut, and what is left over is filled with a token that means nothing.
""".strip().splitlines()
ROWS: list[dict[str, Any]] = [
    {"text": "What a step costs is more than it takes", "label": "good"},
    {"text": "A counter that went backwards", "label": "bad"},
    {"text": "The meter gave readings under load, at both edges of the steps", "label": "good"},
    {"text": "Nothing was measured", "label": "awful"},
    {"text": "Joules", "label": "good"},
    {"text": "Each step has its moment on the clock", "label": "bad"},
    {"text": "The fans are loud", "label": "awful"},
    {"text": "It went on until the battery was empty, and then it wrote down why", "label": "bad"},
]


@cache
def _trained() -> str:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing
    from tokenizers.trainers import WordPieceTrainer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    lines = [*LINES, *(row["text"] for row in ROWS)]
    tokenizer.train_from_iterator(
        lines, WordPieceTrainer(vocab_size=WORDS, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return str(tokenizer.to_str())


def save_tokenizer(folder: Path, **changes: Any) -> Path:
    """A trained tokenizer of `WORDS` words in this folder."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_trained()), **special | changes).save_pretrained(
        folder
    )
    return folder


def write_csv(path: Path, rows: Sequence[dict[str, Any]] = ROWS) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_lines(path: Path, rows: Sequence[dict[str, Any]] = ROWS) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return path


def write_parquet(path: Path, rows: Sequence[dict[str, Any]] = ROWS) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def write_text(path: Path, rows: Sequence[dict[str, Any]] = ROWS) -> Path:
    path.write_text("".join(f"{row['text']}\n" for row in rows), "utf-8")
    return path


WRITERS = {
    "rows.csv": write_csv,
    "rows.tsv": write_csv,
    "rows.jsonl": write_lines,
    "rows.json": write_lines,
    "rows.parquet": write_parquet,
}
