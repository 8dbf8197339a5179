"""`powerbench profiles`: the list, and a profile as it stands, to be kept and changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from powerbench.cli.app import main
from powerbench.profile import load_profile, shipped_profiles

Screen = pytest.CaptureFixture[str]


def test_all_are_listed_with_what_they_are_for(capsys: Screen) -> None:
    assert main(["profiles"]) == 0

    told = capsys.readouterr()
    assert [line.split("  ")[0].strip() for line in told.out.splitlines()] == ["quick", "seed", "slowdown"]
    assert all(len(line.split("  ", 1)[1].strip()) > 20 for line in told.out.splitlines())
    assert told.err == ""


def test_one_is_printed_as_it_stands(capsys: Screen, tmp_path: Path) -> None:
    assert main(["profiles", "quick"]) == 0

    text = capsys.readouterr().out
    assert text == shipped_profiles()["quick"].read_text("utf-8")
    (tmp_path / "mine.yaml").write_text(text, "utf-8")
    assert load_profile(tmp_path / "mine.yaml").settings["batch_size"] == 2


def test_as_json_all_are_a_list_and_one_is_an_object(capsys: Screen) -> None:
    assert main(["profiles", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert main(["profiles", "seed", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)

    assert [it["name"] for it in listed] == ["quick", "seed", "slowdown"]
    assert one == listed[1]
    assert (one["settings"]["dropout"], one["settings"]["copy"]) == (False, "blocking")


def test_a_file_of_ones_own_is_checked_and_printed(capsys: Screen, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("steps: 3\n")
    assert (main(["profiles", str(path)]), capsys.readouterr().out) == (0, "steps: 3\n")

    path.write_text("setps: 3\n")
    assert main(["profiles", str(path)]) == 1
    assert capsys.readouterr() == (
        "",
        f"powerbench: In the profile {path}, 'setps' is not a setting; did you mean steps?\n",
    )


def test_one_that_does_not_exist_is_refused_with_the_nearest(capsys: Screen) -> None:
    assert main(["profiles", "slowdwon"]) == 1

    assert capsys.readouterr().err.startswith(
        "powerbench: There is no profile called 'slowdwon'; did you mean slowdown?"
    )
