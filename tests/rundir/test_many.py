"""Many runs: found once each in sweeps and folders, with what a sweep asked for and has no run of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from powerbench.errors import PowerbenchError
from powerbench.rundir.load import Run
from powerbench.rundir.many import Found, Runs, find_readable
from powerbench.rundir.sweeps import Attempt, Measurement, SweepDir, SweepRecord
from tests.rundir import a_cell, a_record, rows_of, steps_lasting, write_run


def a_folder(parent: Path, *names: str) -> Path:
    """A folder of runs with these names, each of one step."""
    parent.mkdir(exist_ok=True)
    for name in names:
        write_run(parent / name, a_record(), rows=rows_of(steps_lasting(20)))
    return parent


def a_sweep(folder: Path, *measurements: Measurement) -> Path:
    """That folder as a sweep of these."""
    SweepDir(folder).write(SweepRecord(id=folder.name, profile="p", host="h", measurements=list(measurements)))
    return folder


def measurement(*attempts: Attempt, **settings: Any) -> Measurement:
    return Measurement(cell=a_cell(**settings), attempts=list(attempts))


def done(run: str) -> Attempt:
    return Attempt(run=run, status="complete")


def names(found: Found) -> list[str]:
    return [item.name for item in found.items if isinstance(item, Path)]


def without_runs(found: Found) -> list[Run]:
    return [item for item in found.items if isinstance(item, Run)]


def test_runs_of_a_folder_and_of_sweeps_in_it_are_found_once_each(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, "one")
    a_sweep(a_folder(tmp_path / "sweep", "two"), measurement(done("two")))

    assert names(find_readable([folder, tmp_path / "sweep", tmp_path / "one"])) == ["one", "two"]


def test_what_was_measured_again_counts_for_nothing(tmp_path: Path) -> None:
    again = measurement(Attempt(run="one", status="oom"), done("two"))
    sweep = a_sweep(a_folder(tmp_path / "sweep", "one", "two"), again)

    assert names(find_readable([sweep])) == ["two"]
    assert names(find_readable([tmp_path])) == ["two"]
    assert names(find_readable([sweep / "one"])) == ["one"]


def test_what_a_sweep_has_no_run_of_is_a_run_without_steps_with_its_reason(tmp_path: Path) -> None:
    sweep = a_sweep(
        a_folder(tmp_path / "sweep", "one"),
        measurement(done("one")),
        measurement(batch_size=64, device="auto"),
        measurement(Attempt(status="unavailable", reason="torch is built without CUDA."), device="cuda"),
    )

    missing = without_runs(find_readable([sweep]))

    told = [(run.record.status, run.record.reason, run.record.the_cell.device) for run in missing]
    assert told == [
        ("interrupted", "it has not been begun", "cpu"),
        ("unavailable", "torch is built without CUDA.", "cuda"),
    ]
    assert [run.record.device is None for run in missing] == [False, True]
    assert all(run.path == sweep and not run.steps[0] for run in missing)


def test_what_was_not_begun_has_the_threads_and_the_torch_with_which_it_would_have_been_made(tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "sweep")
    for run, threads, torch in (("one", 1, "2.13.0"), ("two", 2, "2.13.0"), ("other", 1, "2.12.0")):
        record = a_record(environment={"host": "h", "threads": threads, "torch": torch})
        write_run(folder / run, record, rows=rows_of(steps_lasting(20)))
    a_sweep(
        folder,
        measurement(done("one"), threads=1),
        measurement(done("two"), threads=2),
        Measurement(cell=a_cell(threads=1), interpreter="other/python", attempts=[done("other")]),
        measurement(threads=2, batch_size=64),
        measurement(threads=4, batch_size=64),
        Measurement(cell=a_cell(threads=1, batch_size=64), interpreter="other/python"),
    )

    facts = [run.record.environment for run in without_runs(find_readable([folder]))]

    assert [(it["host"], it["threads"], it["torch"]) for it in facts] == [
        ("h", 2, "2.13.0"),
        ("h", 4, "2.13.0"),
        ("h", 1, "2.12.0"),
    ]


def test_a_sweep_of_which_nothing_was_begun_is_shown_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    sweep = a_sweep(tmp_path / "sweep", measurement(), measurement(batch_size=64))

    assert len(without_runs(find_readable([sweep]))) == 2


def test_a_damaged_sweep_file_is_told_and_its_runs_are_shown(tmp_path: Path) -> None:
    sweep = a_folder(tmp_path / "sweep", "one", "two")
    (sweep / "sweep.json").write_text("{")

    found = find_readable([sweep])

    assert names(found) == ["one", "two"]
    assert len(found.unreadable) == 1
    assert "sweep.json is damaged" in found.unreadable[0]


def test_a_damaged_run_alone_is_an_error_of_its_own(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, "one")
    (folder / "one" / "run.json").write_text("{")

    with pytest.raises(PowerbenchError, match="is no run record"):
        find_readable([folder])


def test_runs_are_read_when_they_are_come_to_and_again_when_asked_for_again() -> None:
    read: list[Path] = []
    at_hand = Run(Path("at hand"), a_record(), [])

    def load(path: Path) -> Run:
        read.append(path)
        return Run(path, a_record(), [])

    runs = Runs([Path("one"), at_hand, Path("two")], load=load)

    assert (len(runs), read) == (3, [])
    assert [run.path.name for run in runs] == ["one", "at hand", "two"]
    assert [run.path.name for run in runs[:2]] == ["one", "at hand"]
    assert runs[1] is at_hand
    assert runs[2].path == Path("two")
    assert read == [Path("one"), Path("two"), Path("one"), Path("two")]


def test_what_was_not_begun_has_as_many_ranks_as_were_asked_for(tmp_path: Path) -> None:
    sweep = a_sweep(a_folder(tmp_path / "sweep", "one"), measurement(done("one")), measurement(ranks=4))
    (missing,) = without_runs(find_readable([sweep]))

    assert (missing.record.ranks, missing.ranks, len(missing.steps)) == (4, [0, 1, 2, 3], 4)
    assert len(missing.together) == 0
