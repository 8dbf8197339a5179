"""`powerbench report`: the same figures from disk, however the run ended, and a sentence where there is no run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from powerbench.cli.app import main
from powerbench.records import SCHEMA
from tests.rundir import GOLDEN, NOBODY, a_record, rows_of, steps_lasting, write_run

Screen = pytest.CaptureFixture[str]


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "schema-1", tmp_path / "golden"))


def refused(capsys: Screen, path: Path) -> str:
    """What is said of a path that cannot be reported."""
    assert main(["report", str(path)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err


def test_a_run_is_shown_on_stdout_and_nothing_on_stderr(capsys: Screen, golden: Path) -> None:
    assert main(["report", str(golden)]) == 0

    told = capsys.readouterr()
    assert told.err == ""
    assert told.out.splitlines()[:6] == [
        "sleep, 2.00 ms a step (the control)",
        "cpu: AMD EPYC, Linux 6.18.44-fc-v595",
        "",
        "  Wall time    45.6 ms for 20 steps (228 ms for 100)",
        "  Latency      2.28 ms a step on average, median 2.11 (P5 2.09 to P95 2.31)",
        "  Peak memory  36.5 MB (the worker's resident memory)",
    ]


def test_as_json_a_run_is_an_object_and_several_are_a_list(capsys: Screen, golden: Path) -> None:
    assert main(["report", str(golden), "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    again = shutil.copytree(golden, golden.parent / "z again")
    assert main(["report", str(golden), str(again), "--json"]) == 0
    two = json.loads(capsys.readouterr().out)

    assert (one["run"], one["steps"], one["wall_s"]) == (str(golden), 20, 0.045571348)
    assert two == [one, one | {"run": str(again)}]


def test_a_folder_is_a_list_in_json_even_of_one(capsys: Screen, golden: Path) -> None:
    assert main(["report", str(golden.parent), "--json"]) == 0

    (one,) = json.loads(capsys.readouterr().out)
    assert one["run"] == str(golden)


def test_a_run_named_twice_is_one_run(capsys: Screen, golden: Path) -> None:
    assert main(["report", str(golden), str(golden.parent), "--format", "json"]) == 0

    assert [it["run"] for it in json.loads(capsys.readouterr().out)] == [str(golden)]


def test_latest_is_followed_to_the_run(capsys: Screen, golden: Path) -> None:
    link = golden.parent / "latest"
    link.symlink_to("golden")

    assert main(["report", str(link), "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["run"] == str(golden)


def test_a_killed_run_is_shown_with_what_it_recorded(capsys: Screen, tmp_path: Path) -> None:
    record = a_record(status="running", supervisor=NOBODY)
    write_run(tmp_path / "killed", record, rows=rows_of(steps_lasting(10, 20, 30)))

    assert main(["report", str(tmp_path / "killed"), "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert (told["status"], told["steps"], told["wall_s"]) == ("interrupted", 3, 0.06)


def test_a_run_of_a_newer_version_is_refused_by_name(capsys: Screen, golden: Path) -> None:
    record = golden / "run.json"
    record.write_text(record.read_text().replace('"schema": 1', f'"schema": {SCHEMA + 1}'))

    assert refused(capsys, golden) == (
        f"powerbench: {golden} was written by a newer powerbench (schema {SCHEMA + 1}; this one reads up to {SCHEMA}). "
        "Upgrade powerbench to read it.\n"
    )


def test_a_broken_record_is_refused(capsys: Screen, golden: Path) -> None:
    record = golden / "run.json"
    record.write_text(record.read_text()[:200])

    assert refused(capsys, golden).startswith(f"powerbench: {record} is ")


def test_a_folder_without_runs_is_refused_with_the_remedy(capsys: Screen, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        assert refused(capsys, path) == (
            f"powerbench: There is no run in {path}: name the folder that `powerbench run` printed, or one that holds "
            "such folders.\n"
        )


def test_a_run_that_is_not_there_stops_the_report_of_the_others(capsys: Screen, golden: Path, tmp_path: Path) -> None:
    assert main(["report", str(golden), str(tmp_path / "missing")]) == 1

    assert capsys.readouterr().out == ""


def test_a_damaged_run_among_others_is_named_and_the_rest_is_shown(capsys: Screen, golden: Path) -> None:
    damaged = Path(shutil.copytree(golden, golden.parent / "damaged"))
    (damaged / "run.json").write_text("{")

    assert main(["report", str(golden.parent), "--json"]) == 0

    told = capsys.readouterr()
    assert [it["run"] for it in json.loads(told.out)] == [str(golden)]
    assert told.err.startswith(f"powerbench: Left out: {damaged / 'run.json'} is no run record (")
    assert told.err.count("\n") == 1


def test_where_every_run_is_damaged_there_is_no_report(capsys: Screen, golden: Path) -> None:
    again = Path(shutil.copytree(golden, golden.parent / "again"))
    for run in (golden, again):
        (run / "run.json").write_text("{")

    assert refused(capsys, golden.parent).startswith("powerbench: None of the 2 runs can be read; the first: ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Name a run, a sweep, or a folder of them: powerbench report RUN..."),
        (
            ["{run}", "--format", "pdf"],
            "There is no format called 'pdf' here; choose one of terminal, markdown, csv, json, html, parquet, "
            "perfetto.",
        ),
        (["{run}", "--json", "--format", "csv"], "--json and --format csv are two formats; leave one out."),
        (
            ["{run}", "--format", "parquet"],
            "parquet is not printed but written to a file: name it with --output FILE.",
        ),
    ],
    ids=["no run", "no such format", "two formats", "no file"],
)
def test_what_cannot_be_meant_is_wrong_usage(capsys: Screen, golden: Path, arguments: list[str], sentence: str) -> None:
    assert main(["report", *(it.replace("{run}", str(golden)) for it in arguments)]) == 2

    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"powerbench: {sentence}\n")


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("it.html", "<!doctype html>"),
        ("it.md", "the tables show"),
        ("it.CSV", "machine,run,"),
        ("it.json", "{"),
        ("it.txt", "sleep, "),
    ],
)
def test_a_file_is_in_the_format_of_its_ending(golden: Path, tmp_path: Path, name: str, begins: str) -> None:
    assert main(["report", str(golden), "--output", str(tmp_path / name)]) == 0

    assert (tmp_path / name).read_text("utf-8").lower().startswith(begins)


def test_the_page_is_written_to_a_file(capsys: Screen, golden: Path, tmp_path: Path) -> None:
    assert main(["report", str(golden), "--format", "html", "--output", str(tmp_path / "it.html")]) == 0

    assert capsys.readouterr().out == ""
    assert (tmp_path / "it.html").read_text("utf-8").startswith("<!DOCTYPE html>")


def test_a_format_that_prints_can_be_written_to_a_file(capsys: Screen, golden: Path, tmp_path: Path) -> None:
    file = tmp_path / "it.json"

    assert main(["report", str(golden), "--json", "--output", str(file)]) == 0

    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"Written to {file}\n")
    assert json.loads(file.read_text())["run"] == str(golden)


def test_a_file_that_cannot_be_written_is_named(capsys: Screen, golden: Path, tmp_path: Path) -> None:
    assert main(["report", str(golden), "--output", str(tmp_path / "missing" / "it.txt")]) == 1

    assert capsys.readouterr().err == (
        f"powerbench: Cannot write {tmp_path / 'missing' / 'it.txt'}: No such file or directory; choose another file "
        "with --output.\n"
    )


def test_the_published_tables_need_no_run(capsys: Screen) -> None:
    assert main(["report", "--published"]) == 0

    told = capsys.readouterr()
    assert told.err == ""
    assert told.out.startswith("Published times for 100 steps\n")
    assert "1h 49m 9s" in told.out


def test_a_run_beside_the_published_tables_is_one_of_a_list(capsys: Screen, golden: Path) -> None:
    assert main(["report", str(golden), "--published", "--json"]) == 0

    first, *published = json.loads(capsys.readouterr().out)
    assert first["run"] == str(golden)
    assert len(published) == 110
    assert published[0]["run"] == "published 2022-05"


def test_a_folder_of_one_run_is_shown_in_full_as_the_run_is(capsys: Screen, golden: Path) -> None:
    assert main(["report", str(golden)]) == 0
    alone = capsys.readouterr().out
    assert main(["report", str(golden.parent)]) == 0

    assert capsys.readouterr().out == alone


def test_several_runs_are_a_table(capsys: Screen, golden: Path) -> None:
    shutil.copytree(golden, golden.parent / "again")

    assert main(["report", str(golden.parent)]) == 0

    assert "     32  128    ~228 ms     2.28     2   0.0%\n" in capsys.readouterr().out
