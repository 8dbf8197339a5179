"""The run directory: its name, its place, and a record that is never half there."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerbench.errors import PowerbenchError
from powerbench.records import Node
from powerbench.rundir import RunDir, create_run_dir, run_name, slug
from powerbench.rundir.load import read_record
from tests.rundir import a_cell, a_record

NOW = datetime(2026, 11, 23, 17, 30, tzinfo=UTC)
NAME = "20261123T173000Z-cpu-bert-tiny-inference-b16-s128"


def test_a_run_is_named_by_its_start_and_its_cell() -> None:
    assert run_name(a_cell(), NOW) == NAME


def test_of_several_ranks_their_number_is_named_and_of_several_machines_which_it_is() -> None:
    node = Node(rank=1, rendezvous="alpha:29500")

    assert run_name(a_cell(ranks=8), NOW) == f"{NAME}-r8"
    assert run_name(a_cell(ranks=8, nnodes=2), NOW, node=node) == f"{NAME}-r16-node1"


def test_the_start_is_in_universal_time_wherever_it_was() -> None:
    in_india = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))

    assert run_name(a_cell(), in_india) == NAME


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("/home/me/models/Mine", "mine"),
        ("./models/mine/", "mine"),
        ("microsoft/deberta-v3-base", "microsoft-deberta-v3-base"),
    ],
)
def test_a_model_in_a_folder_gives_the_folder_s_own_name(model: str, named: str) -> None:
    assert run_name(a_cell(model=model), NOW) == NAME.replace("bert-tiny", named)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bert-base-cased", "bert-base-cased"),
        ("Google/BERT_uncased L-2", "google-bert-uncased-l-2"),
        ("../../etc", "etc"),
        ("...", "x"),
        ("", "x"),
        ("a" * 100, "a" * 60),
    ],
)
def test_a_slug_is_a_plain_part_of_a_file_name(text: str, expected: str) -> None:
    assert slug(text) == expected


@settings(deadline=None)
@given(st.text())
def test_any_text_makes_a_slug(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,59}", slug(text))


class TestCreating:
    def test_makes_the_parents_and_links_latest_to_the_newest(self, tmp_path: Path) -> None:
        parent = tmp_path / "some" / "runs"

        first = create_run_dir(parent, a_cell(), now=NOW)
        assert [entry.name for entry in parent.iterdir()] == [first.path.name]  # no link before it is a run
        first.link_latest()
        second = create_run_dir(parent, a_cell(), now=NOW + timedelta(seconds=1))
        assert (parent / "latest").readlink() == Path(first.path.name)
        second.link_latest()

        assert (first.path.name, second.path.name) == (NAME, NAME.replace("173000Z", "173001Z"))
        assert (parent / "latest").readlink() == Path(second.path.name)
        assert sorted(entry.name for entry in parent.iterdir()) == [first.path.name, second.path.name, "latest"]

    def test_twice_in_a_second_numbers_the_later_ones(self, tmp_path: Path) -> None:
        names = [create_run_dir(tmp_path, a_cell(), now=NOW).path.name for _ in range(3)]

        assert names == [NAME, f"{NAME}-2", f"{NAME}-3"]

    def test_leaves_a_folder_called_latest_alone(self, tmp_path: Path) -> None:
        (tmp_path / "latest").mkdir()
        (tmp_path / "latest" / "mine").touch()

        create_run_dir(tmp_path, a_cell(), now=NOW).link_latest()

        assert sorted(entry.name for entry in tmp_path.iterdir()) == [NAME, "latest"]
        assert (tmp_path / "latest" / "mine").exists()

    def test_where_a_file_is_in_the_way_says_so_and_what_to_do(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()

        for parent, why in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "runs", "Not a directory")):
            with pytest.raises(PowerbenchError) as caught:
                create_run_dir(parent, a_cell())
            assert (
                str(caught.value)
                == f"Cannot make a run directory in {parent}: {why}. Choose another folder with --output."
            )


class TestTheRecord:
    def test_is_read_back_as_it_was_written(self, tmp_path: Path) -> None:
        RunDir(tmp_path).write_record(a_record())

        assert read_record(RunDir(tmp_path)) == a_record()

    def test_is_replaced_and_nothing_else_is_left(self, tmp_path: Path) -> None:
        (tmp_path / "run.json.new").write_text('{"schema": 1, "id"')  # of one killed while it wrote

        for status in ("running", "complete"):
            RunDir(tmp_path).write_record(msgspec.structs.replace(a_record(), status=status))

        assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]
        assert read_record(RunDir(tmp_path)).status == "complete"

    def test_that_could_not_be_written_leaves_the_old_one(self, tmp_path: Path) -> None:
        RunDir(tmp_path).write_record(a_record())
        (tmp_path / "run.json.new").mkdir()

        with pytest.raises(IsADirectoryError):
            RunDir(tmp_path).write_record(a_record(status="failed"))

        assert read_record(RunDir(tmp_path)).status == "complete"


def test_the_files_of_a_rank_carry_its_number() -> None:
    rundir = RunDir(Path("run"))

    paths = [rundir.marks(1), rundir.steps(1), rundir.events(1), rundir.log(1)]
    assert [path.name for path in paths] == ["marks-1.bin", "steps-1.csv", "worker-1.jsonl", "worker-1.log"]
