"""Runs of several ranks and machines by the commands: directories of one run are joined, other ranks not compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from powerbench.cli.app import main
from tests.ranked import two_machines, two_ranks, with_straggler

Screen = pytest.CaptureFixture[str]


def as_json(capsys: Screen, *words: str | Path) -> Any:
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_report_joins_the_directories_of_one_run(capsys: Screen, tmp_path: Path) -> None:
    one, other = two_machines(tmp_path / "runs", watts=(50, 70))

    for named in ((one, other), (other, one), (tmp_path / "runs",)):
        (found,) = as_json(capsys, "report", *named)
        assert (found["run"], found["ranks"], found["samples_per_s"]) == (str(one), 4, 3200)
        assert found["energy"]["total_j"] == pytest.approx(240)


def test_a_directory_alone_says_who_is_missing(capsys: Screen, tmp_path: Path) -> None:
    _, other = two_machines(tmp_path)
    assert main(["report", str(other)]) == 0
    told = " ".join(capsys.readouterr().out.split())

    assert "Note: Only node 1 of 2 is here: ranks and joules are its own." in told
    assert "covers package-0 of node 1 alone" in told


def test_trace_joins_them_and_judges_the_whole(capsys: Screen, tmp_path: Path) -> None:
    """One machine alone is steady: the slower one makes the whole slow down."""
    steady, slower = [20.0] * 120, [20.0] * 60 + [30.0] * 60
    one, other = two_machines(tmp_path, lengths=(steady, slower))

    found = as_json(capsys, "trace", one, other)
    assert [(it["run"], it["ranks"], it["slowdown"]["verdict"]) for it in found] == [(str(one), 4, "slowdown")]
    assert as_json(capsys, "trace", one)["slowdown"]["verdict"] == "flat"


def test_trace_joins_them_from_the_folders_in_which_each_machine_has_them(capsys: Screen, tmp_path: Path) -> None:
    one, other = two_machines(tmp_path)
    folders = [tmp_path / "alpha", tmp_path / "beta"]
    for folder, path in zip(folders, (one, other), strict=True):
        folder.mkdir()
        path.rename(folder / "run")

    for named in (folders, folders[::-1], [folders[1], folders[0] / "run"]):
        assert [(it["run"], it["ranks"]) for it in as_json(capsys, "trace", *named)] == [(str(folders[0] / "run"), 4)]


def test_trace_names_the_straggler(capsys: Screen, tmp_path: Path) -> None:
    assert main(["trace", str(with_straggler(tmp_path / "run"))]) == 0
    told = " ".join(capsys.readouterr().out.split())

    assert "Rank 1 (Abacus 3000) is a straggler from step 60 on" in told


class TestCompare:
    def test_refuses_other_numbers_of_ranks(self, capsys: Screen, tmp_path: Path) -> None:
        one = two_ranks(tmp_path / "one")
        two_machines(tmp_path / "two")

        assert main(["compare", str(one), str(tmp_path / "two")]) == 1
        assert "ranks is 2 in A and 4 in B" in capsys.readouterr().err

    def test_takes_joined_runs(self, capsys: Screen, tmp_path: Path) -> None:
        two_machines(tmp_path / "a", watts=(50, 70))
        two_machines(tmp_path / "b", watts=(100, 140), changes=({"met": "again"}, {"met": "again"}))
        (cell,) = as_json(capsys, "compare", tmp_path / "a", tmp_path / "b")["cells"]

        assert cell["latency_ms"]["ratio"] == pytest.approx(1)
        assert cell["j_per_step"]["ratio"] == pytest.approx(2)
        assert cell["title"] == (
            "bert-base-cased, training, batch 16 x sequence 128 on each of 4 ranks (batch 64 a step)"
        )

    def test_says_of_which_side_a_machine_is_missing(self, capsys: Screen, tmp_path: Path) -> None:
        one, _ = two_machines(tmp_path / "a")
        two_machines(tmp_path / "b", changes=({"met": "again"}, {"met": "again"}))
        found = as_json(capsys, "compare", one, tmp_path / "b")

        assert [note for note in found["notes"] if "machines" in note] == [
            "1 run of A has machines whose directories are not here, and the others alone are compared: name a folder "
            "that holds those of all machines."
        ]
        assert "these joules are of different things" in found["cells"][0]["energy_reason"]

    def test_refuses_two_machines_of_one_run(self, capsys: Screen, tmp_path: Path) -> None:
        one, other = two_machines(tmp_path)

        assert main(["compare", str(one), str(other)]) == 1
        assert "hold machines of one and the same run" in capsys.readouterr().err
