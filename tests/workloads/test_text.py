"""Real text and its labels from each form of file; whatever is wrong with one is a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from powerbench.errors import PowerbenchError, UsageError
from powerbench.records import Cell
from powerbench.workloads.text import Text, check_text, errors_told, load_text
from tests.workloads.texts import ROWS, WRITERS, write_csv, write_lines, write_parquet, write_text

NUMBER = {"awful": 0, "bad": 1, "good": 2}  # in the order of the alphabet
PAIRS = {(row["text"], NUMBER[row["label"]]) for row in ROWS}


def load(path: Path | str, *, most: int = 1000, **changes: Any) -> Text:
    cell = Cell(model="bert-tiny", dataset=str(path), **changes)
    check_text(cell)
    return load_text(cell, most=most)


def texts_as(*labels: Any, name: str = "label") -> list[dict[str, Any]]:
    return [{"text": f"text {number}", name: label} for number, label in enumerate(labels)]


@pytest.mark.parametrize("name", WRITERS)
def test_each_form_of_file_gives_its_texts_with_their_labels(name: str, tmp_path: Path) -> None:
    text = load(WRITERS[name](tmp_path / name))

    assert set(zip(text.texts, text.labels, strict=True)) == PAIRS
    assert (text.classes, text.notes) == (3, [])


def test_a_file_of_lines_has_random_labels_and_says_so(tmp_path: Path) -> None:
    text = load(write_text(tmp_path / "rows.txt"))

    assert sorted(text.texts) == sorted(row["text"] for row in ROWS)
    assert set(text.labels) == {0, 1}
    assert text.notes == [f"{tmp_path}/rows.txt has no labels; random ones took their place, which costs the same."]


def test_nothing_is_left_behind_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    (tmp_path / "data").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))

    text = load(write_csv(tmp_path / "data/rows.csv"))

    assert text.read(0, 2) == text.texts[:2]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["data", "rows.csv", "temporary"]


class TestOrder:
    def test_is_shuffled_by_the_seed(self, tmp_path: Path) -> None:
        path = write_csv(tmp_path / "rows.csv", texts_as(*range(100)))

        one, again, other = (load(path, seed=seed) for seed in (1, 1, 2))

        assert one.texts == again.texts != other.texts
        assert sorted(one.texts) == sorted(other.texts)
        assert one.texts != sorted(one.texts, key=lambda text: int(text.split()[1]))

    def test_is_cut_off_where_no_more_is_needed(self, tmp_path: Path) -> None:
        path = write_csv(tmp_path / "rows.csv", texts_as(*range(100)))

        few, all_ = load(path, most=7), load(path)

        assert (few.texts, few.classes) == (all_.texts[:7], 100)


class TestLabels:
    @pytest.mark.parametrize(
        ("labels", "classes"),
        [((0, 1, 1), 2), ((1, 5, 3), 6), ((1.0, 0.0, 2.0), 3), ((True, False, True), 2), ((0, 0, 0), 2)],
    )
    def test_that_are_numbers_are_those_of_classes(self, labels: tuple[Any, ...], classes: int, tmp_path: Path) -> None:
        text = load(write_parquet(tmp_path / "rows.parquet", texts_as(*labels)))

        assert dict(zip(text.texts, text.labels, strict=True)) == {
            f"text {number}": int(label) for number, label in enumerate(labels)
        }
        assert text.classes == classes

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            (-1, r"^-1 in the column label of \S+ is no label \(the hub's sign for labels that are kept back: take "),
            (
                10_000,
                r"^10000 in the column label of \S+ is no label: labels are words, or whole numbers from 0 to 9,999;",
            ),
            (0.5, r"^0\.5 in the column label of \S+ is no label: labels are words"),
            (-2, r"^-2 in the column label of \S+ is no label: .* choose another column with --label-column\.$"),
        ],
    )
    def test_that_are_out_of_range(self, wrong: Any, said: str, tmp_path: Path) -> None:
        with pytest.raises(PowerbenchError, match=said):
            load(write_csv(tmp_path / "rows.csv", texts_as(1, wrong, 0)))

    def test_that_are_identifiers(self, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "rows.jsonl", texts_as(*(f"id {number}" for number in range(10_001))))

        with pytest.raises(PowerbenchError, match="holds 10,001 different words, too many for labels: choose another"):
            load(path)

    @pytest.mark.parametrize("labels", [([0, 1], [1, 0]), (0, "good"), ({"stars": 5}, {"stars": 1})], ids=str)
    def test_that_are_lists_or_of_several_kinds(self, labels: tuple[Any, ...], tmp_path: Path) -> None:
        path = write_lines(tmp_path / "rows.jsonl", texts_as(*labels))

        with pytest.raises(
            PowerbenchError, match=r"^The column label of \S+ holds lists, or values of several kinds: "
        ):
            load(path)

    def test_are_not_asked_for_where_nothing_is_trained(self, tmp_path: Path) -> None:
        """The hub keeps the labels of many test sets back."""
        text = load(write_csv(tmp_path / "rows.csv", texts_as(-1, -1)), mode="inference")

        assert (len(text.texts), text.notes) == (2, [])

    def test_are_in_the_column_that_is_named(self, tmp_path: Path) -> None:
        path = write_csv(tmp_path / "rows.csv", [{"text": "a", "label": 0, "stars": 4}])

        assert load(path, label_column="stars").labels == [4]


class TestColumns:
    @pytest.mark.parametrize("name", ["text", "sentence", "review", "words"])
    def test_of_a_usual_name_or_the_only_one_of_text_need_no_naming(self, name: str, tmp_path: Path) -> None:
        assert load(write_csv(tmp_path / "rows.csv", [{"id": 7, name: "a b", "label": "x"}])).texts == ["a b"]

    def test_of_text_where_several_might_be_meant(self, tmp_path: Path) -> None:
        path = write_csv(tmp_path / "rows.csv", [{"title": "a", "body": "b", "label": 0}])

        with pytest.raises(PowerbenchError, match=r"not clear: name it with --text-column \(title, body, label\)\.$"):
            load(path)
        assert load(path, text_column="body").texts == ["b"]

    @pytest.mark.parametrize("setting", ["text_column", "label_column"])
    def test_that_are_not_there_are_named_with_those_that_are(self, setting: str, tmp_path: Path) -> None:
        option, wrong = setting.replace("_", "-"), {setting: "mood"}

        with pytest.raises(PowerbenchError, match=f"has no column mood: choose with --{option} one of text, label\\.$"):
            load(write_csv(tmp_path / "rows.csv"), most=9, **wrong)

    def test_of_numbers_are_no_text(self, tmp_path: Path) -> None:
        with pytest.raises(PowerbenchError, match=r"The column label of .* holds int64 and no text: text is in text;"):
            load(write_csv(tmp_path / "rows.csv", texts_as(1, 2)), text_column="label")


class TestRowsWithout:
    def test_a_text_or_a_label_are_left_out_and_counted(self, tmp_path: Path) -> None:
        rows = [*texts_as(1, 0), {"text": " ", "label": 1}, {"text": "", "label": 1}, {"text": "a", "label": None}]

        text = load(write_lines(tmp_path / "rows.jsonl", rows))

        assert sorted(text.texts) == ["text 0", "text 1"]
        assert text.notes == [f"3 rows of {tmp_path}/rows.jsonl without a text or a label were left out."]

    def test_any_text_at_all(self, tmp_path: Path) -> None:
        rows = [{"text": " ", "label": 1}, {"text": "", "label": 0}]

        said = r"None of the 2 rows of .* has a text in the column text and a label in the column label: choose with "
        with pytest.raises(PowerbenchError, match=said):
            load(write_lines(tmp_path / "rows.jsonl", rows))

    @pytest.mark.parametrize(("held", "said"), [(None, "is empty in every row"), (5, "holds int64 and no text")])
    def test_text_in_the_column_called_so(self, held: int | None, said: str, tmp_path: Path) -> None:
        rows = [{"text": held, "label": "good"}] * 2

        for path in (write_csv(tmp_path / "rows.csv", rows), write_lines(tmp_path / "rows.jsonl", rows)):
            with pytest.raises(PowerbenchError, match=rf"^The column text of \S+ {said}: text is in label; choose "):
                load(path)

    @pytest.mark.parametrize(("held", "said"), [(None, "is empty in every row"), (["a"], "holds list.* and no text")])
    def test_text_in_any_column(self, held: list[str] | None, said: str, tmp_path: Path) -> None:
        rows = [{"text": held, "label": 1}] * 2

        with pytest.raises(PowerbenchError, match=rf"{said}, and no other column holds text: name other data"):
            load(write_lines(tmp_path / "rows.jsonl", rows))


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "make", "said"),
        [
            ("rows.csv", lambda path: None, "There is no file .*: name one of text "),
            ("rows.csv", lambda path: path.touch(), "is empty: name a file that holds text with --dataset"),
            ("rows.csv", lambda path: path.mkdir(), "is a folder: name one file of text "),
            ("rows.docx", lambda path: path.write_text("a"), r"ends in none of \.csv, .* so its form is not known"),
        ],
    )
    def test_that_hold_no_text_are_refused_before_anything_runs(
        self, name: str, make: Callable[[Path], object], said: str, tmp_path: Path
    ) -> None:
        make(tmp_path / name)

        with pytest.raises(UsageError, match=said):
            check_text(Cell(dataset=str(tmp_path / name)))

    @pytest.mark.parametrize("name", ["rows.csv", "rows.txt"])
    def test_without_a_row(self, name: str, tmp_path: Path) -> None:
        (tmp_path / name).write_text("text,label\n" if name.endswith("csv") else "\n\n")

        with pytest.raises(PowerbenchError, match=r"holds no rows: |None of the 2 rows of .* has a text"):
            load(tmp_path / name)

    @pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
    def test_of_another_form_than_their_name_says(self, name: str, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(b'"a\x00\xff{[' * 9)

        with pytest.raises(PowerbenchError, match=rf"cannot be read as {name.split('.')[1]} \(.*\): mend or") as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)

    def test_may_have_any_split_and_parts_of_it(self, tmp_path: Path) -> None:
        path = write_csv(tmp_path / "rows.csv", texts_as(*range(100)))

        assert len(load(path, split="test[:25%]").texts) == 25
        with pytest.raises(PowerbenchError, match=r"has no split train\[most\]: choose another with --split"):
            load(path, split="train[most]")


def test_data_that_bring_code_of_their_own_are_refused() -> None:
    # What `datasets` 4 and later raise for one with a script (load.py), which nothing here can fetch.
    said = r"^some/data brings Python code of its own, .* give --dataset FILE\.$"
    with pytest.raises(PowerbenchError, match=said), errors_told(Cell(dataset="some/data")):
        raise RuntimeError("Dataset scripts are no longer supported, but found data.py")
    with pytest.raises(RuntimeError, match="a bug"), errors_told(Cell(dataset="some/data")):
        raise RuntimeError("a bug")


class TestSynthetic:
    @pytest.mark.parametrize("given", [{"text_column": "a"}, {"label_column": "a"}, {"include_data": True}])
    def test_data_have_no_columns_and_no_reading(self, given: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match=f"^{next(iter(given))} is for real text, .* name some with --dataset"):
            check_text(Cell(**given))

    def test_data_need_no_padding(self) -> None:
        with pytest.raises(UsageError, match=r"^pad is for real text"):
            check_text(Cell(pad="longest"))


def test_offline_what_was_looked_for_is_said_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(
        PowerbenchError, match=r"^nobody/nothing is neither a file here nor in the cache \(.*\), and it"
    ):
        load("nobody/nothing")
