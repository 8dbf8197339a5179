"""Real text and its labels: from a file or from the hub, through `datasets`, or a sentence why not."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from powerbench.errors import PowerbenchError, UsageError
from powerbench.records import SYNTHETIC, Cell
from powerbench.units import counted
from powerbench.workloads.models import cache_folder, first_sentence

if TYPE_CHECKING:
    from datasets import Dataset

FORMATS = {
    **{".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".txt": "text"},
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "json"),
}
TEXT_NAMES = ("text", "sentence", "review", "content")
LABEL_NAMES = ("label", "labels")
# More classes than this is an identifier taken for a label.
MOST_LABELS = 10_000
ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Text:
    """Rows with a text and a label each, in the order in which they are used.

    `labels` are numbers of classes, of which there are `classes`; `notes` say what a reader must know of the choice.
    """

    texts: list[str]
    labels: list[int]
    classes: int
    notes: list[str]
    table: Dataset
    rows: list[int]
    column: str

    def read(self, first: int, end: int) -> list[str]:
        """The texts of these rows, read anew from the table."""
        return list(map(str, self.table[self.rows[first:end]][self.column]))


def check_text(cell: Cell) -> None:
    """What can be told of a cell's data without `datasets`. Raises UsageError."""
    if cell.dataset == SYNTHETIC:
        needs_data = {"text_column": cell.text_column, "label_column": cell.label_column}
        given = [name for name, value in needs_data.items() if value is not None]
        given += [name for name in ("include_data",) if getattr(cell, name)]
        given += ["pad"] if cell.pad != "max_length" else []
        given += ["split"] if cell.split != "train" else []
        if given:
            raise UsageError(f"{given[0]} is for real text, and the data are synthetic: name some with --dataset.")
    elif is_path(cell.dataset):
        _check_file(Path(cell.dataset))


def is_path(dataset: str) -> bool:
    """Whether this is meant as a file here and not as a name on the hub."""
    path = Path(dataset)
    return path.suffix in FORMATS or path.exists() or dataset[0] in "./~"


def _check_file(path: Path) -> None:
    forms = ", ".join(FORMATS)
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name one file of text ({forms}) with --dataset.")
    if not path.exists():
        raise UsageError(f"There is no file {path}: name one of text ({forms}), or a data set on the hub (OWNER/NAME).")
    if path.suffix not in FORMATS:
        raise UsageError(f"{path} ends in none of {forms}, so its form is not known: convert it, or rename it.")
    if path.stat().st_size == 0:
        raise UsageError(f"{path} is empty: name a file that holds text with --dataset.")


def load_text(cell: Cell, *, most: int) -> Text:
    """Up to `most` rows of the cell's data that have a text and a label, in an order shuffled by its seed.

    Raises PowerbenchError.
    """
    table = load_table(cell)
    if not len(table):
        raise PowerbenchError(f"{cell.dataset} holds no rows: name data with text in them with --dataset.")
    text_column = find_text_column(cell, table)
    # Without training nothing is compared with a label, so that data without any will do.
    label_column = find_label_column(cell, table, text_column) if cell.mode == "training" else None
    order = list(range(len(table)))
    random.Random(cell.seed).shuffle(order)
    rows, texts, given, passed_over = _usable(table, order, text_column, label_column, most=most)
    if not rows:
        both = "" if label_column is None else f" and a label in the column {label_column}"
        options = "--text-column" if label_column is None else "--text-column and --label-column"
        raise PowerbenchError(
            f"None of the {counted(len(table), 'row')} of {cell.dataset} has a text in the column {text_column}{both}: "
            f"choose with {options} ({', '.join(table.column_names)})."
        )
    notes = []
    if passed_over:
        notes.append(f"{counted(passed_over, 'row')} of {cell.dataset} without a text or a label were left out.")
    if label_column is None and cell.mode == "training":
        notes.append(f"{cell.dataset} has no labels; random ones took their place, which costs the same.")
    if label_column is None:
        labels, classes = [random.Random(f"{cell.seed} {row}").randrange(2) for row in rows], 2
    else:
        labels, classes = class_numbers(given, table, label_column, cell.dataset)
    return Text(texts, labels, classes, notes, table, rows, text_column)


def _usable(
    table: Dataset, order: Sequence[int], text_column: str, label_column: str | None, *, most: int
) -> tuple[list[int], list[str], list[Any], int]:
    """The first rows with a text and a label, these, and how many rows were passed over on the way."""
    rows: list[int] = []
    texts: list[str] = []
    labels: list[Any] = []
    passed_over = 0
    for at in range(0, len(order), ROWS_AT_ONCE):
        some = order[at : at + ROWS_AT_ONCE]
        read = table[some]
        for row, text, label in zip(some, read[text_column], read[label_column or text_column], strict=True):
            if len(rows) == most:
                return rows, texts, labels, passed_over
            if text is None or not text.strip() or label is None:
                passed_over += 1
                continue
            rows.append(row)
            texts.append(text)
            labels.append(label)
    return rows, texts, labels, passed_over


def load_table(cell: Cell) -> Dataset:
    """The rows of the cell's data, with nothing left behind of a file that was read. Raises PowerbenchError."""
    import datasets

    datasets.disable_progress_bars()
    with errors_told(cell):
        if not is_path(cell.dataset):
            name, _, configuration = cell.dataset.partition(":")
            return datasets.load_dataset(name, configuration or None, split=cell.split)
        path = Path(cell.dataset)
        options: dict[str, Any] = {"sep": "\t"} if path.suffix == ".tsv" else {}
        with TemporaryDirectory() as aside:
            return datasets.load_dataset(
                FORMATS[path.suffix],
                data_files={cell.split.partition("[")[0]: str(path)},
                split=cell.split,
                cache_dir=aside,
                keep_in_memory=True,
                **options,
            )


@contextmanager
def errors_told(cell: Cell) -> Iterator[None]:
    """Turn what `datasets` raises into one sentence each. Raises PowerbenchError."""
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    try:
        yield
    except (DatasetNotFoundError, ConnectionError) as error:
        raise PowerbenchError(
            f"{cell.dataset} is neither a file here nor in the cache ({cache_folder()}), and it could not be had from "
            "the hub: check the name and the network (a gated one needs `hf auth login`), or fetch a file of it "
            "elsewhere and give --dataset FILE."
        ) from error
    except (DatasetsError, ValueError, OSError) as error:
        raise PowerbenchError(_why_not_read(cell, str(error.__cause__ or error))) from error
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise PowerbenchError(
            f"{cell.dataset} brings Python code of its own, which powerbench does not run: fetch a file of it and give "
            "--dataset FILE."
        ) from error


def _why_not_read(cell: Cell, said: str) -> str:
    why = first_sentence(said)
    if "corresponds to no data" in said:
        return f"{cell.dataset} holds no rows: name data with text in them with --dataset."
    if "onfig name" in said:
        return f"{cell.dataset} has several configurations: name one as {cell.dataset}:CONFIGURATION ({why})."
    if "plit" in said or "nstruction" in said:
        return f"{cell.dataset} has no split {cell.split}: choose another with --split ({why})."
    if is_path(cell.dataset):
        return f"{cell.dataset} cannot be read as {Path(cell.dataset).suffix.lstrip('.')} ({why}): mend or convert it."
    return f"{cell.dataset} cannot be loaded ({why}): fetch a file of it and give --dataset FILE."


def find_text_column(cell: Cell, table: Dataset) -> str:
    """The column that was asked for, or has a usual name, or alone holds text. Raises PowerbenchError."""
    holding_text = [name for name in table.column_names if _kind(table, name) in ("string", "large_string")]
    if cell.text_column is not None:
        name = _existing(cell.text_column, table, "text_column", cell.dataset)
        if name not in holding_text:
            raise PowerbenchError(_why_no_text(cell, table, name, holding_text))
        return name
    usual = [name for name in TEXT_NAMES if name in holding_text]
    others = [name for name in holding_text if name not in (cell.label_column, *LABEL_NAMES)]
    if usual or len(others) == 1:
        return (usual or others)[0]
    named = next((name for name in TEXT_NAMES if name in table.column_names), None)
    if named is not None:
        raise PowerbenchError(_why_no_text(cell, table, named, holding_text))
    there = ", ".join(table.column_names)
    raise PowerbenchError(
        f"Which column of {cell.dataset} is the text is not clear: name it with --text-column ({there})."
    )


def _why_no_text(cell: Cell, table: Dataset, name: str, holding_text: Sequence[str]) -> str:
    is_empty = table.data.column(name).null_count == len(table)
    held = "is empty in every row" if is_empty else f"holds {_kind(table, name)} and no text"
    if not holding_text:
        return f"The column {name} of {cell.dataset} {held}, and no other column holds text: name other data."
    return (
        f"The column {name} of {cell.dataset} {held}: text is in {', '.join(holding_text)}; choose with --text-column."
    )


def find_label_column(cell: Cell, table: Dataset, text_column: str) -> str | None:
    """The column that was asked for, or has a usual name; None where there is none. Raises PowerbenchError."""
    if cell.label_column is not None:
        return _existing(cell.label_column, table, "label_column", cell.dataset)
    return next((name for name in LABEL_NAMES if name in table.column_names and name != text_column), None)


def _existing(name: str, table: Dataset, setting: str, dataset: str) -> str:
    if name not in table.column_names:
        raise PowerbenchError(
            f"{dataset} has no column {name}: choose with --{setting.replace('_', '-')} one of "
            f"{', '.join(table.column_names)}."
        )
    return name


def _kind(table: Dataset, name: str) -> str:
    return str(getattr(table.features[name], "dtype", "lists"))


def class_numbers(given: Sequence[Any], table: Dataset, column: str, dataset: str) -> tuple[list[int], int]:
    """Labels as numbers of classes, and how many classes the whole table has. Raises PowerbenchError.

    Words are numbered in the order of the alphabet; numbers are numbers of classes already.
    """
    every = _different(table, column, dataset)
    if all(isinstance(label, str) for label in given):
        words = sorted(every)
        if len(words) > MOST_LABELS:
            raise PowerbenchError(
                f"The column {column} of {dataset} holds {len(words):,} different words, too many for labels: choose "
                "another with --label-column."
            )
        number_of = {word: number for number, word in enumerate(words)}
        return [number_of[word] for word in given], max(2, len(words))
    wrong = next((label for label in every if not _is_class(label)), None)
    if wrong is not None:
        hidden = " (the hub's sign for labels that are kept back: take another --split)" if wrong == -1 else ""
        raise PowerbenchError(
            f"{wrong!r} in the column {column} of {dataset} is no label{hidden}: labels are words, or whole numbers "
            f"from 0 to {MOST_LABELS - 1:,}; choose another column with --label-column."
        )
    return [int(label) for label in given], max(
        2, int(max(every)) + 1, getattr(table.features[column], "num_classes", 0)
    )


def _different(table: Dataset, column: str, dataset: str) -> list[Any]:
    """The labels of the whole table, each once. Raises PowerbenchError where Arrow cannot tell such values apart."""
    try:
        return [label for label in table.unique(column) if label is not None]
    except NotImplementedError as error:
        raise PowerbenchError(
            f"The column {column} of {dataset} holds lists, or values of several kinds: a label is a word or a whole "
            "number, one a row, and of one kind in all rows; choose another with --label-column."
        ) from error


def _is_class(label: object) -> bool:
    return isinstance(label, int | float) and label == label // 1 and 0 <= label < MOST_LABELS
