"""Text as users have it: files in each form, and a tokenizer that was really trained on what this project says."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import powerbench

WORDS = 300
README = Path(powerbench.__file__).parents[1] / "README.md"
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
    lines = [*README.read_text("utf-8").splitlines(), *(row["text"] for row in ROWS)]
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
