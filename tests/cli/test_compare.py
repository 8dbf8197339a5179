"""`powerbench compare`: results on stdout, the gate's word on stderr, and an exit status for each outcome."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from powerbench.cli.app import main
from powerbench.records import Clock
from tests.rundir import a_cell, a_record, rows_of, steps_lasting, write_run

Screen = pytest.CaptureFixture[str]


def repeats(folder: Path, *means_ms: float, **changes: Any) -> Path:
    """A folder of runs, each of a hundred steps of so many milliseconds."""
    folder.mkdir()
    for at, mean_ms in enumerate(means_ms):
        clock = Clock(boot_id=f"{folder}{at}", start_monotonic_ns=1, start_unix_ns=2)
        record = a_record(id=str(at), **{"clock": clock} | changes)
        write_run(folder / f"run{at}", record, rows=rows_of(steps_lasting(*[mean_ms] * 100)))
    return folder


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return repeats(tmp_path / "before", 20.0, 20.1, 19.9)


def test_a_comparison_is_on_stdout_and_ends_well_whatever_it_finds(
    capsys: Screen, before: Path, tmp_path: Path
) -> None:
    after = repeats(tmp_path / "after", 30.0, 30.1, 29.9)

    assert main(["compare", str(before), str(after)]) == 0

    told = capsys.readouterr()
    assert told.err == ""
    assert "Median, ms  20.0  30.0  1.500" in told.out


@pytest.mark.parametrize(
    ("after_ms", "status", "said"),
    [
        ((20.0, 20.1, 19.9), 0, "Passed: no cell costs 5% more in B."),
        ((22.0, 22.1, 21.9), 4, "Regressed: B costs at least 5% more."),
        ((20.0, 22.0, 21.0), 5, "Inconclusive: whether B costs 5% more cannot be told."),
        ((22.0,), 5, "Inconclusive: whether B costs 5% more cannot be told."),
    ],
)
def test_a_gate_has_an_exit_status_for_each_outcome(
    capsys: Screen, before: Path, tmp_path: Path, after_ms: tuple[float, ...], status: int, said: str
) -> None:
    after = repeats(tmp_path / "after", *after_ms)

    assert main(["compare", str(before), str(after), "--fail-above", "5%"]) == status

    assert said in capsys.readouterr().err


def test_a_gate_that_measured_nothing_does_not_pass(capsys: Screen, before: Path, tmp_path: Path) -> None:
    after = repeats(tmp_path / "after", 20.0, status="oom", reason="it is full")

    assert main(["compare", str(before), str(after), "--fail-above", "5%"]) == 1

    told = capsys.readouterr()
    assert "No cell was completed on both sides." in told.out
    assert "Could not measure: not everything that A has could be compared." in told.err
    assert "out of memory: it is full (B)" in told.err


def test_a_share_in_the_place_of_a_percentage_is_refused(capsys: Screen, before: Path, tmp_path: Path) -> None:
    after = repeats(tmp_path / "after", 20.0, 20.0)

    assert main(["compare", str(before), str(after), "--fail-above", "0.05"]) == 2

    assert capsys.readouterr().err == (
        "powerbench: --fail-above 0.05 is open to two readings: write 5% if it is a share, or 0.05% if it is so few "
        "percent.\n"
    )
    assert main(["compare", str(before), str(after), "--fail-above", "0.05%"]) in (0, 5)
    assert main(["compare", str(before), str(after), "--fail-above", "0.5"]) in (0, 5)


def test_noise_and_what_was_not_measured_end_differently(before: Path, tmp_path: Path) -> None:
    noisy = repeats(tmp_path / "noisy", 20.0, 22.0, 21.0)
    partly = repeats(tmp_path / "partly", 20.0, 20.0, 20.0)
    write_run(before / "more", a_record(cell=a_cell(batch_size=64)), rows=rows_of(steps_lasting(*[20.0] * 100)))

    one_cell = repeats(tmp_path / "before-of-one-cell", 20.0, 20.1, 19.9)
    assert main(["compare", str(one_cell), str(noisy), "--fail-above", "5%"]) == 5
    assert main(["compare", str(before), str(partly), "--fail-above", "5%"]) == 1


def test_help_has_an_exit_status_for_each_outcome(capsys: Screen) -> None:
    assert main(["compare", "--help"]) == 0

    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Exit 4 where B costs so much more, 5 where noise hides that, 1 where it was not measured." in told


def test_without_a_gate_nothing_to_compare_is_no_success(before: Path, tmp_path: Path) -> None:
    assert main(["compare", str(before), str(repeats(tmp_path / "after", 20.0, status="failed"))]) == 1


def test_the_gate_is_also_the_threshold(capsys: Screen, before: Path, tmp_path: Path) -> None:
    after = repeats(tmp_path / "after", 22.0, 22.1, 21.9)

    assert main(["compare", str(before), str(after), "--fail-above", "20"]) == 0

    assert "indistinguishable" in capsys.readouterr().out


def test_json_holds_the_ratios_and_the_gate(capsys: Screen, before: Path, tmp_path: Path) -> None:
    after = repeats(tmp_path / "after", 30.0, 30.0, 30.0)

    assert main(["compare", str(before), str(after), "--json", "--fail-above", "2.5%"]) == 4

    told = json.loads(capsys.readouterr().out)
    [cell] = told["cells"]
    assert list(cell) == [
        *("cell", "title", "processes", "is_metered", "latency_ms", "samples_per_s", "j_per_step", "energy_reason"),
    ]
    assert list(cell["latency_ms"]) == ["a", "b", "ratio", "ci95", "interval_of", "verdict"]
    assert (cell["processes"], cell["latency_ms"]["ratio"], cell["j_per_step"]) == (
        [3, 3],
        pytest.approx(1.5, abs=1e-3),
        None,
    )
    assert (told["threshold"], told["gate"]["fail_above"], told["gate"]["outcome"]) == (0.025, 0.025, "regressed")
    assert told["geometric_mean"] is None


def test_without_a_gate_there_is_none_in_json(capsys: Screen, before: Path, tmp_path: Path) -> None:
    assert main(["compare", str(before), str(repeats(tmp_path / "after", 20.0, 20.0)), "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["gate"] is None


def test_what_is_not_comparable_is_refused_by_its_key(capsys: Screen, before: Path, tmp_path: Path) -> None:
    after = repeats(tmp_path / "after", 20.0, cell=a_cell(batch_size=32))

    assert main(["compare", str(before), str(after), "--fail-above", "5%"]) == 1

    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == (
        "powerbench: A and B cannot be compared: batch_size is 16 in A and 32 in B. Measure both alike in this; a "
        "ratio of different steps means nothing.\n"
    )


def test_a_folder_without_runs_is_refused(capsys: Screen, before: Path, tmp_path: Path) -> None:
    assert main(["compare", str(before), str(tmp_path / "missing")]) == 1

    assert f"There is no run in {tmp_path / 'missing'}" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["much", "0", "-5", "5%%", "nan", "2000"])
def test_a_threshold_is_a_percentage(capsys: Screen, before: Path, wrong: str) -> None:
    assert main(["compare", str(before), str(before), f"--fail-above={wrong}"]) == 2

    assert "--fail-above must be a percentage above 0, such as 5%" in capsys.readouterr().err


def test_a_damaged_run_is_named_and_left_out(capsys: Screen, before: Path, tmp_path: Path) -> None:
    after = repeats(tmp_path / "after", 30.0, 30.1, 29.9)
    (after / "run1/run.json").write_text("{")

    assert main(["compare", str(before), str(after), "--json"]) == 0

    told = capsys.readouterr()
    assert told.err.startswith(f"powerbench: Left out: {after / 'run1/run.json'} is no run record")
    assert json.loads(told.out)["cells"][0]["processes"] == [3, 2]


def test_a_folder_of_damaged_runs_is_refused(capsys: Screen, before: Path, tmp_path: Path) -> None:
    after = repeats(tmp_path / "after", 20.0, 20.0)
    for at in (0, 1):
        (after / f"run{at}/run.json").write_text("{")

    assert main(["compare", str(before), str(after), "--fail-above", "5%"]) == 1

    assert "None of the 2 runs can be read; the first: " in capsys.readouterr().err
