"""`powerbench profiles`: the list, and a profile as it stands, to be kept and changed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from powerbench.cli.app import main
from powerbench.profile import load_profile, make_plan, shipped_profiles
from powerbench.reports.published import published as published_tables

SHIPPED = ["energy", "large", "quick", "seed", "slowdown"]
Screen = pytest.CaptureFixture[str]


def test_all_are_listed_with_what_they_are_for(capsys: Screen) -> None:
    assert main(["profiles"]) == 0

    told = capsys.readouterr()
    assert [line.split("  ")[0].strip() for line in told.out.splitlines()] == SHIPPED
    assert all(len(line.split("  ")[-1]) > 20 for line in told.out.splitlines())
    assert told.err == ""


def test_each_is_listed_with_how_many_cells_it_has(capsys: Screen) -> None:
    main(["profiles"])

    sizes = [re.split("  +", line)[1] for line in capsys.readouterr().out.splitlines()]
    assert sizes == ["4 cells x 3", "12 cells", "1 cell", "12 cells", "1 cell"]


def test_seed_has_the_cells_of_the_published_tables() -> None:
    """What both vintages of the tables hold together, in their order."""
    plan = make_plan(profile=load_profile(shipped_profiles()["seed"]))

    published = dict.fromkeys(
        (result.mode, result.sequence_length, result.batch_size)
        for vintage in published_tables().vintages
        for result in vintage.results
    )
    assert [(cell.mode, cell.sequence_length, cell.batch_size) for cell in plan.cells] == list(published)
    assert {(cell.model, cell.device, cell.steps, cell.warmup, cell.dropout, cell.copy) for cell in plan.cells} == {
        ("bert-base-cased", "auto", 100, 0, False, "blocking")
    }


def test_large_is_seed_with_a_larger_model() -> None:
    seed, large = (load_profile(shipped_profiles()[name]).settings for name in ("seed", "large"))

    assert large == seed | {"model": "bert-large-cased"}


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

    assert [it["name"] for it in listed] == SHIPPED
    assert one == listed[3]
    assert (one["settings"]["dropout"], one["settings"]["copy"], one["cells"]) == (False, "blocking", 12)


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
