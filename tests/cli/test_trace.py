"""`powerbench trace`: the verdict and what follows from it, of runs, of pairs, of folders, of CSV files of any tool."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from powerbench.cli.app import main
from powerbench.records import Window
from tests.rundir import START, a_record, write_run
from tests.traced import at_half, write_trace, write_unsynchronized

Screen = pytest.CaptureFixture[str]

STEADY = [100.0, 100.4] * 60
SLOWER = [100.0, 100.4] * 30 + [150.0, 150.4] * 30
UNDECIDED = [100.0] * 40 + [150.0] * 40 + [100.0] * 40


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    return write_trace(tmp_path / "slow", SLOWER, watts=at_half(300.0, 200.0), mhz=at_half(1400, 900))


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    return write_trace(tmp_path / "flat", STEADY)


def out(capsys: Screen, *arguments: str | Path, status: int = 0) -> str:
    """What is printed, where nothing goes wrong."""
    assert main(["trace", *map(str, arguments)]) == status
    return capsys.readouterr().out


def refused(capsys: Screen, *arguments: str | Path, status: int = 2) -> str:
    """The one sentence on what is wrong."""
    assert main(["trace", *map(str, arguments)]) == status
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err


def csv(folder: Path, milliseconds: Sequence[float]) -> Path:
    path = folder / "times.csv"
    path.write_text("\n".join(["latency_ms", *map(str, milliseconds)]))
    return path


def test_a_slow_run_has_verdict_chart_figures_cause_and_the_next_command(capsys: Screen, slow: Path) -> None:
    assert main(["trace", str(slow)]) == 0

    told = capsys.readouterr()
    parts = told.out.rstrip().split("\n\n")
    assert parts[0] == (
        "bert-tiny, inference, batch 16 x sequence 128, float32\ncuda: Abacus 3000, torch 2.13.0+cu128, Linux 6"
    )
    assert parts[1].startswith("Slowdown: ")
    assert "by 50%" in parts[1]
    assert parts[2].startswith("  latency     150 ms ┤")
    assert [line.split()[0] for line in parts[2].splitlines() if line[2:3].isalpha()] == ["latency", "power", "clock"]
    assert "▲ slower from here (step 60)" in parts[2]
    assert "  Latency      no steady state: first 100 ms, last 150 ms a step" in parts[4]
    assert parts[5].startswith("Likely cause: throttling\n  For it       The ")
    assert "  To confirm   " in parts[5]
    assert told.err == f"\nFor a bug report: powerbench trace {slow} --format markdown --plot slowdown.png\n"
    assert max(map(len, told.out.splitlines())) <= 78


def test_a_steady_run_has_its_latency_with_the_interval_and_no_cause(capsys: Screen, flat: Path) -> None:
    assert main(["trace", str(flat)]) == 0

    told = capsys.readouterr()
    assert "\nFlat: " in told.out
    assert "  Steady state 100.20 ms a step (99% CI 100.15 ms to 100.25 ms)" in told.out
    assert "ause" not in told.out
    assert told.err == f"\nIts other figures: powerbench report {flat}\n"


@pytest.mark.parametrize("columns", [40, 60, 100, 140, 250])
def test_it_fits_into_any_terminal(capsys: Screen, slow: Path, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))

    widest = max(map(len, out(capsys, slow).splitlines()))

    assert min(columns, 160) * 0.8 < widest < columns


def test_a_cause_that_was_not_recorded_is_said_to_be(capsys: Screen, tmp_path: Path) -> None:
    text = out(capsys, write_trace(tmp_path / "slow", SLOWER))

    assert "\nCause not recorded: " in text


def test_spikes_are_counted_and_not_hidden(capsys: Screen, tmp_path: Path) -> None:
    spiky = [100.0, 100.4] * 60
    spiky[110] = 2000.0

    text = out(capsys, write_trace(tmp_path / "run", spiky))

    assert "  Spikes       1 isolated slow step, 14." in text


@pytest.mark.parametrize("form", [[], ["--format", "markdown"]], ids=["terminal", "markdown"])
def test_what_must_be_known_to_read_it_is_told(capsys: Screen, tmp_path: Path, form: list[str]) -> None:
    text = out(capsys, write_trace(tmp_path / "run", [100.0, 100.4] * 30), *form)

    assert "60 steps are few for a slowdown trace: only large changes show." in " ".join(text.split())


def test_too_few_steps_ask_for_more(capsys: Screen, tmp_path: Path) -> None:
    assert main(["trace", str(write_trace(tmp_path / "run", [100.0] * 10))]) == 0

    told = capsys.readouterr()
    assert "\nToo few steps for a verdict: 10 steps" in told.out
    assert told.err.startswith("\nFor a verdict, measure more steps: powerbench run --device cuda --model bert-tiny ")
    assert " --steps 300 " in told.err


def test_a_run_that_ran_out_of_memory_is_not_to_be_repeated(capsys: Screen, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", a_record(status="oom", reason="memory ran out"))

    assert main(["trace", str(run.path)]) == 0

    told = capsys.readouterr()
    assert "smaller changes.\n\n  Status       oom: memory ran out" in told.out
    assert told.err == f"\nWhat ended it, and its other figures: powerbench report {run.path}\n"


def test_one_step_that_is_set_aside_is_one(capsys: Screen, tmp_path: Path) -> None:
    text = out(capsys, write_trace(tmp_path / "run", [700.0, *[100.0] * 60]))

    assert "  Set aside    the first step, which was slower (warm-up)" in text


def test_edges_at_both_ends_only_allow_no_verdict(capsys: Screen, tmp_path: Path) -> None:
    assert main(["trace", str(write_unsynchronized(tmp_path / "free", [2.0, *[20.0] * 60]))]) == 0

    told = capsys.readouterr()
    assert "No verdict: the device was waited for at both ends only" in told.out
    assert "\n  submits    20.0 ms ┤" in told.out
    assert "\nLikely cause: not synchronized\n" in told.out
    assert told.err.startswith("\nFor a verdict, wait at each step: powerbench run --device cuda ")
    assert " --sync-every 1 " in told.err


def test_a_pair_with_and_without_waiting_says_whether_it_was_an_artefact(capsys: Screen, tmp_path: Path) -> None:
    free = write_unsynchronized(tmp_path / "free", [2.0, *[20.0] * 60])
    fenced = write_trace(tmp_path / "fenced", [20.0] * 61)

    text = " ".join(out(capsys, free, fenced).split())

    assert f"({free}, by the times of its submissions) sees 2.00 ms for the first step" in text
    assert "The slowdown is an artefact of not synchronizing: where each step is waited for it is gone." in text
    notes = [summary["notes"] for summary in json.loads(out(capsys, fenced, free, "--json"))]
    assert all("an artefact of not synchronizing" in of_run[-1] for of_run in notes)


def test_a_run_that_was_no_trace_can_be_checked_too(capsys: Screen, tmp_path: Path) -> None:
    text = out(capsys, write_trace(tmp_path / "run", SLOWER, trace=False))

    assert "\nSlowdown: " in text


def test_a_run_without_a_step_has_nothing_to_show(capsys: Screen, tmp_path: Path) -> None:
    write_run(tmp_path / "run", a_record(status="failed", reason="it broke"))

    text = out(capsys, tmp_path / "run")

    assert "Too few steps for a verdict: 0 steps" in text
    assert "  Status       failed: it broke" in text


class TestManyRuns:
    def test_each_stands_under_its_name(self, capsys: Screen, slow: Path, flat: Path) -> None:
        text = out(capsys, slow, flat)

        assert text.startswith(f"{slow}:\nbert-tiny, ")
        assert f"\n\n{flat}:\nbert-tiny, " in text

    def test_a_folder_is_all_runs_in_it(self, capsys: Screen, slow: Path, flat: Path) -> None:
        (slow.parent / "latest").symlink_to("slow")

        told = json.loads(out(capsys, slow.parent, "--json"))

        assert [(it["run"], it["slowdown"]["verdict"]) for it in told] == [(str(flat), "flat"), (str(slow), "slowdown")]

    def test_a_run_that_is_named_twice_is_no_repeat_of_itself(self, capsys: Screen, slow: Path) -> None:
        text = out(capsys, slow, slow.parent)

        assert text.count("\nSlowdown: ") == 1
        assert "repeats" not in text

    def test_a_link_is_followed(self, capsys: Screen, slow: Path) -> None:
        link = slow.parent / "latest"
        link.symlink_to("slow")

        assert json.loads(out(capsys, link, "--json"))["slowdown"]["verdict"] == "slowdown"

    def test_recordings_and_damaged_runs_among_them_are_left_out_with_a_word(
        self, capsys: Screen, slow: Path, tmp_path: Path
    ) -> None:
        write_run(tmp_path / "power", a_record(cell=None, windows={"measured": Window(START, START + 1)}))
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / "run.json").write_text("{")

        assert main(["trace", str(tmp_path), "--json"]) == 0

        told = capsys.readouterr()
        assert len(json.loads(told.out)) == 1
        assert told.err.count("powerbench: Left out: ") == 2

    def test_a_recording_alone_is_refused(self, capsys: Screen, tmp_path: Path) -> None:
        write_run(tmp_path / "power", a_record(cell=None))

        assert "is a recording of power alone and has no steps" in refused(capsys, tmp_path / "power", status=1)

    def test_a_folder_without_a_run_is_refused(self, capsys: Screen, tmp_path: Path) -> None:
        assert "There is no run in " in refused(capsys, tmp_path, status=1)
        assert "There is no run in " in refused(capsys, tmp_path / "missing", status=1)


class TestJson:
    def test_of_one_run_it_is_the_object_of_report(self, capsys: Screen, slow: Path) -> None:
        told = json.loads(out(capsys, slow, "--json"))

        found = told["slowdown"]
        assert (found["verdict"], found["shape"], found["from_step"]) == ("slowdown", "step", 60)
        assert list(found)[-1] == "causes"
        assert set(found["causes"][0]) == {"cause", "evidence", "counter_evidence", "not_recorded", "experiment"}
        assert found["causes"][0]["cause"] == "throttling"
        assert main(["report", str(slow), "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == told

    def test_is_a_format_too_and_prints_no_talk(self, capsys: Screen, slow: Path) -> None:
        assert main(["trace", str(slow), "--format", "json"]) == 0

        told = capsys.readouterr()
        assert json.loads(told.out)["steps"] == 120
        assert told.err == ""

    def test_of_a_csv_it_is_trace_steps_and_slowdown(self, capsys: Screen, tmp_path: Path) -> None:
        path = csv(tmp_path, SLOWER)

        told = json.loads(out(capsys, path, "--json"))

        assert list(told) == ["trace", "steps", "slowdown"]
        assert (told["trace"], told["steps"], told["slowdown"]["verdict"]) == (str(path), 120, "slowdown")
        assert told["slowdown"]["first_s"] == pytest.approx(0.1002, rel=1e-3)

    def test_of_several_arguments_it_is_a_list(self, capsys: Screen, tmp_path: Path, slow: Path) -> None:
        told = json.loads(out(capsys, csv(tmp_path, STEADY), slow, "--json"))

        assert [it["slowdown"]["verdict"] for it in told] == ["flat", "slowdown"]


class TestCsv:
    def test_is_shown_as_a_run_is(self, capsys: Screen, tmp_path: Path) -> None:
        assert main(["trace", str(csv(tmp_path, SLOWER))]) == 0

        told = capsys.readouterr()
        assert told.out.startswith("Slowdown: ")
        assert "  latency     150 ms ┤" in told.out
        assert "Cause not recorded: the file holds latencies and nothing beside them." in told.out
        assert "powerbench run --trace" in told.err

    def test_without_a_unit_is_said_to_be_seconds(self, capsys: Screen, tmp_path: Path) -> None:
        (tmp_path / "bare.csv").write_text("0.1\n" * 30)

        assert main(["trace", str(tmp_path / "bare.csv"), "--json"]) == 0

        told = capsys.readouterr()
        assert told.err == f"{tmp_path / 'bare.csv'} names no unit: its latencies are read as seconds.\n"
        assert json.loads(told.out)["slowdown"]["steady_s"] == pytest.approx(0.1)

    def test_that_is_not_there_is_a_file_that_is_missing(self, capsys: Screen, tmp_path: Path) -> None:
        said = refused(capsys, tmp_path / "times.csv", status=1)

        assert said == f"powerbench: Cannot read {tmp_path}/times.csv: No such file or directory; check the path.\n"

    def test_that_is_none_is_refused(self, capsys: Screen, tmp_path: Path) -> None:
        (tmp_path / "two.csv").write_text("1,2\n")

        assert refused(capsys, tmp_path / "two.csv", status=1) == (
            f"powerbench: {tmp_path / 'two.csv'} has 2 numeric columns (column 1 and column 2); "
            "leave only the one with the latencies.\n"
        )


class TestGate:
    @pytest.mark.parametrize(
        ("milliseconds", "status"),
        [(SLOWER, 4), (STEADY, 0), (SLOWER[::-1], 0), (UNDECIDED, 5), (STEADY[:10], 5)],
        ids=["slowdown", "flat", "speedup", "no steady state", "insufficient"],
    )
    def test_the_exit_status_is_the_verdict(
        self, capsys: Screen, tmp_path: Path, milliseconds: list[float], status: int
    ) -> None:
        run = write_trace(tmp_path / "run", milliseconds)

        out(capsys, run, "--fail-on", "slowdown", status=status)
        out(capsys, run)
        out(capsys, csv(tmp_path, milliseconds), "--fail-on", "slowdown", "--json", status=status)

    def test_of_several_runs_the_worst_counts(self, capsys: Screen, slow: Path, flat: Path, tmp_path: Path) -> None:
        short = write_trace(tmp_path / "short", [100.0] * 10)

        out(capsys, flat, short, "--fail-on", "slowdown", status=5)
        out(capsys, short, slow, flat, "--fail-on", "slowdown", status=4)

    def test_knows_no_other_verdict(self, capsys: Screen, slow: Path) -> None:
        assert refused(capsys, slow, "--fail-on", "flat") == (
            "powerbench: --fail-on knows only `slowdown`, not 'flat'.\n"
        )


class TestFormats:
    def test_markdown_names_the_picture(self, capsys: Screen, slow: Path, tmp_path: Path) -> None:
        text = out(capsys, slow, "--format", "markdown", "--plot", tmp_path / "it.png")

        assert text.startswith("## Slowdown: ")
        assert text.endswith("![Latency by step](it.png)\n")
        assert (tmp_path / "it.png").stat().st_size > 10_000

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--format", "xml"], "There is no format called 'xml' here; choose one of terminal, markdown, json."),
            (["--format", "markdown", "--json"], "--json and --format markdown are two formats; leave one out."),
            (
                ["--plot", "it.pdf"],
                "--plot it.pdf: the file's name must end in .png or .svg, which says what to draw.",
            ),
        ],
    )
    def test_what_there_is_not_is_wrong_usage(self, capsys: Screen, arguments: list[str], said: str) -> None:
        assert refused(capsys, "whatever", *arguments) == f"powerbench: {said}\n"

    def test_one_picture_is_of_one_run(self, capsys: Screen, slow: Path, flat: Path) -> None:
        said = refused(capsys, slow, flat, "--plot", "it.png")

        assert said == "powerbench: --plot draws one run, and 2 were found: name one of them.\n"

    def test_a_picture_that_cannot_be_written_is_refused(self, capsys: Screen, slow: Path) -> None:
        said = refused(capsys, slow, "--plot", slow / "missing" / "it.png", status=1)

        assert said.endswith("No such file or directory; choose another file with --plot.\n")


def test_report_ends_a_trace_with_the_verdict_and_a_small_chart(capsys: Screen, slow: Path) -> None:
    assert main(["report", str(slow)]) == 0

    text = capsys.readouterr().out
    assert text.index("  Wall time ") < text.index("\nSlowdown: ") < text.index("  latency     150 ms ┤")
    assert "\nLikely cause: throttling\n" in text


def test_report_has_a_line_where_another_run_was_not_steady(capsys: Screen, slow: Path, flat: Path) -> None:
    for run in (slow, flat):
        record = msgspec.json.decode((run / "run.json").read_bytes())
        record["cell"]["trace"] = False
        (run / "run.json").write_bytes(msgspec.json.encode(record))

    assert main(["report", str(slow)]) == 0
    told: Any = " ".join(capsys.readouterr().out.split())
    assert "Note: Slowdown: " in told
    assert f"See it with: powerbench trace {slow}" in told
    assert "┤" not in told
    assert main(["report", str(flat)]) == 0
    assert "Flat" not in capsys.readouterr().out
