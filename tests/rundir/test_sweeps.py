"""A sweep reads back whatever became of it: ended, killed at any moment, edited by hand, from a newer version."""

from __future__ import annotations

import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from powerbench.environment import boot_id
from powerbench.errors import PowerbenchError
from powerbench.records import Cell, Clock, Supervisor
from powerbench.rundir.sweeps import (
    SWEEP_SCHEMA,
    Attempt,
    Measurement,
    SweepDir,
    SweepRecord,
    create_sweep,
    find_sweeps,
    newest_like,
    read_sweep,
)
from tests.rundir import GOLDEN, NOBODY, a_cell, a_record, write_run

GONE = f"its supervisor (pid {NOBODY.pid}) is gone without having ended it"


def a_sweep(*measurements: Measurement, **changes: Any) -> SweepRecord:
    settings: dict[str, Any] = {"id": "20261123T173000Z-night", "profile": "night", "host": platform.node()}
    return SweepRecord(**settings | changes, measurements=list(measurements))


def one(*attempts: Attempt, cell: Cell | None = None, repeat: int = 1) -> Measurement:
    return Measurement(cell=cell or a_cell(), repeat=repeat, attempts=list(attempts))


def written(folder: Path, *measurements: Measurement, **changes: Any) -> SweepDir:
    folder.mkdir(parents=True, exist_ok=True)
    sweepdir = SweepDir(folder)
    sweepdir.write(a_sweep(*measurements, **changes))
    return sweepdir


class TestASweep:
    def test_reads_back_as_it_was_written(self, tmp_path: Path) -> None:
        write_run(tmp_path / "first", a_record())
        record = a_sweep(
            one(Attempt(run="first", status="complete", cooldown_s=3.5)),
            one(Attempt(status="unavailable", reason="no such device"), cell=a_cell(device="cuda")),
            one(repeat=2),
            cooldown_seconds=60.0,
            rest={"temperature_c": 41.0},
        )

        SweepDir(tmp_path).write(record)

        assert read_sweep(tmp_path) == record

    def test_of_schema_1_loads_for_ever(self) -> None:
        record = read_sweep(GOLDEN / "sweep-schema-1")

        assert (record.schema, record.profile, record.cooldown_seconds) == (1, "night", 60.0)
        assert [(it.cell.mode, it.repeat, it.status, it.run) for it in record.measurements] == [
            ("training", 1, "complete", "20261123T173100Z-cpu-bert-tiny-training-b16-s128"),
            ("inference", 1, "unavailable", None),
            ("training", 2, None, None),
        ]
        assert [attempt.reason for attempt in record.measurements[0].attempts] == [
            "its supervisor (pid 4194305) is gone without having ended it",
            None,
        ]
        assert record.superseded == {"20261123T173000Z-cpu-bert-tiny-training-b16-s128"}

    def test_has_a_golden_sweep_for_each_schema(self) -> None:
        assert all((GOLDEN / f"sweep-schema-{number}/sweep.json").exists() for number in range(1, SWEEP_SCHEMA + 1))

    def test_tells_what_has_no_run_to_show(self) -> None:
        absent, unavailable = one(repeat=2), one(Attempt(status="unavailable"), repeat=3)
        record = a_sweep(one(Attempt(run="first", status="oom")), absent, unavailable)

        assert record.without_run == [absent, unavailable]

    def test_tells_which_runs_count_no_more(self) -> None:
        twice = one(Attempt(run="first", status="interrupted"), Attempt(run="second", status="complete"))
        nothing = one(Attempt(status="interrupted"), Attempt(run="third", status="complete"))

        assert a_sweep(twice, nothing).superseded == {"first"}

    @pytest.mark.parametrize(
        ("other", "same"),
        [
            ([one(), one(repeat=2)], True),
            ([one(Attempt(run="first", status="oom")), one(repeat=2)], True),
            ([one()], False),
            ([one(repeat=2), one()], False),
            ([one(cell=a_cell(seed=1)), one(repeat=2)], False),
        ],
    )
    def test_asks_for_the_same_where_cells_repeats_and_order_are_the_same(
        self, other: list[Measurement], same: bool
    ) -> None:
        assert a_sweep(one(), one(repeat=2)).asks_for_the_same(other) is same


class TestAnAttemptThatSweepJsonLeavesRunning:
    def test_is_interrupted_where_its_supervisor_is_gone(self, tmp_path: Path) -> None:
        write_run(tmp_path / "killed", a_record(status="running", supervisor=NOBODY))
        written(tmp_path, one(Attempt(run="killed", status="running")))

        assert read_sweep(tmp_path).measurements[0].attempts == [
            Attempt(run="killed", status="interrupted", reason=GONE)
        ]

    def test_is_running_while_its_supervisor_lives(self, tmp_path: Path) -> None:
        me = Supervisor(os.getpid(), psutil.Process().create_time())
        clock = Clock(boot_id=boot_id(), start_monotonic_ns=1, start_unix_ns=2)
        write_run(tmp_path / "now", a_record(status="running", supervisor=me, clock=clock))
        written(tmp_path, one(Attempt(run="now", status="running")))

        assert read_sweep(tmp_path).measurements[0].status == "running"

    def test_is_what_its_run_says_where_powerbench_was_killed_behind_its_end(self, tmp_path: Path) -> None:
        write_run(tmp_path / "done", a_record(status="timeout", reason="it took too long"))
        written(tmp_path, one(Attempt(run="done", status="running")))

        last = read_sweep(tmp_path).measurements[0].last
        assert last == Attempt(run="done", status="timeout", reason="it took too long")

    def test_owns_the_run_that_was_begun_right_before_the_kill(self, tmp_path: Path) -> None:
        write_run(tmp_path / "20261123T173000Z-a", a_record())
        write_run(tmp_path / "20261123T173100Z-b", a_record(status="running", supervisor=NOBODY))
        (tmp_path / "latest").symlink_to("20261123T173100Z-b")
        written(
            tmp_path,
            one(Attempt(run="20261123T173000Z-a", status="complete")),
            one(Attempt(status="running"), repeat=2),
        )

        assert read_sweep(tmp_path).measurements[1].last == Attempt(
            run="20261123T173100Z-b", status="interrupted", reason=GONE
        )

    def test_was_killed_before_its_run_where_there_is_none(self, tmp_path: Path) -> None:
        written(tmp_path, one(Attempt(status="running")))

        assert read_sweep(tmp_path).measurements[0].last == Attempt(
            status="interrupted", reason="powerbench was killed before its run was begun"
        )

    def test_is_interrupted_with_the_reason_where_its_record_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "torn").mkdir()
        (tmp_path / "torn/run.json").write_text("{")
        written(tmp_path, one(Attempt(run="torn", status="running")))

        last = read_sweep(tmp_path).measurements[0].last
        assert last is not None
        assert last.status == "interrupted"
        assert (last.reason or "").startswith(f"{tmp_path}/torn/run.json is no run record (")


def test_a_run_whose_directory_was_deleted_is_interrupted(tmp_path: Path) -> None:
    write_run(tmp_path / "first", a_record())
    written(tmp_path, one(Attempt(run="first", status="complete")))
    shutil.rmtree(tmp_path / "first")

    assert read_sweep(tmp_path).measurements[0].last == Attempt(
        run="first", status="interrupted", reason="its directory is gone"
    )


class TestWhatCannotBeRead:
    def said(self, folder: Path) -> str:
        with pytest.raises(PowerbenchError) as raised:
            read_sweep(folder)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    def test_is_refused_where_it_is_newer(self, tmp_path: Path) -> None:
        (tmp_path / "sweep.json").write_text('{"schema": 99, "from": "the future"}')

        assert self.said(tmp_path) == (
            f"{tmp_path} was written by a newer powerbench (schema 99; this one reads up to {SWEEP_SCHEMA}). "
            "Upgrade powerbench to read it."
        )

    @pytest.mark.parametrize(
        ("was", "made", "said"),
        [
            ('"complete"', '"completed"', "Invalid enum value 'completed'"),
            ('"first"', '"../../elsewhere"', "Expected `str` matching regex"),
            ('"batch_size":16', '"batch_size":"many"', "Expected `int`, got `str`"),
            ('"measurements"', '"measurement"', "missing required field `measurements`"),
            ("}", "", "JSON is malformed"),
            ('"schema":1', '"schema":"one"', "Expected `int`, got `str` - at `$.schema`"),
        ],
    )
    def test_is_named_with_what_is_wrong_where_it_was_edited_by_hand(
        self, tmp_path: Path, was: str, made: str, said: str
    ) -> None:
        text = msgspec.json.encode(a_sweep(one(Attempt(run="first", status="complete")))).decode()
        assert was in text
        (tmp_path / "sweep.json").write_text(text.replace(was, made))

        sentence = self.said(tmp_path)

        assert sentence.startswith(f"{tmp_path}/sweep.json is damaged (")
        assert said in sentence
        assert sentence.endswith("mend it, or begin the sweep anew without --resume.")

    @pytest.mark.parametrize("text", [b"\xff\xfe", b"[1, 2]", b"[" * 100_000, b""])
    def test_is_damaged_where_it_is_no_record_at_all(self, tmp_path: Path, text: bytes) -> None:
        (tmp_path / "sweep.json").write_bytes(text)

        assert "sweep.json is damaged (" in self.said(tmp_path)

    def test_is_no_sweep_where_there_is_no_file(self, tmp_path: Path) -> None:
        assert self.said(tmp_path) == (
            f"Cannot read {tmp_path}/sweep.json: No such file or directory; name the folder that `powerbench run` "
            "printed."
        )


class TestTheNewestSweepOfTheSameCells:
    def test_is_found_whatever_became_of_it(self, tmp_path: Path) -> None:
        written(tmp_path / "20261121T000000Z-night", one())
        written(tmp_path / "20261122T000000Z-night", one(Attempt(status="unavailable")))
        written(tmp_path / "20261123T000000Z-other", one(cell=a_cell(seed=1)))
        (tmp_path / "latest").symlink_to("20261121T000000Z-night")

        found = newest_like(tmp_path, "night", [one()])

        assert found is not None
        assert found.path.name == "20261122T000000Z-night"

    def test_is_none_where_there_is_none(self, tmp_path: Path) -> None:
        written(tmp_path / "20261121T000000Z-night", one(repeat=2))

        assert newest_like(tmp_path, "night", [one()]) is None
        assert newest_like(tmp_path / "nowhere", "night", [one()]) is None

    def test_is_none_of_another_machine(self, tmp_path: Path) -> None:
        written(tmp_path / "20261121T000000Z-night", one(), host="another")

        assert newest_like(tmp_path, "night", [one()]) is None

    def test_may_not_be_the_damaged_one_of_the_same_profile(self, tmp_path: Path) -> None:
        written(tmp_path / "20261121T000000Z-night", one())
        (written(tmp_path / "20261122T000000Z-night").path / "sweep.json").write_text("{}")

        with pytest.raises(PowerbenchError, match=r"20261122T000000Z-night/sweep\.json is damaged"):
            newest_like(tmp_path, "night", [one()])
        assert newest_like(tmp_path, "noon", [one()]) is not None


def test_sweeps_are_found_in_a_folder_and_links_passed_over(tmp_path: Path) -> None:
    first = written(tmp_path / "20261121T000000Z-a", one()).path
    second = written(tmp_path / "20261122T000000Z-b", one()).path
    (tmp_path / "latest").symlink_to(second.name)
    write_run(tmp_path / "20261123T000000Z-a-run", a_record())

    assert find_sweeps(tmp_path) == [first, second]
    assert find_sweeps(first) == [first]
    assert find_sweeps(tmp_path / "latest") == [second]


class TestTheLock:
    def test_is_for_one_alone(self, tmp_path: Path) -> None:
        sweepdir = create_sweep(tmp_path, "My night!")
        assert sweepdir.path.name.endswith("Z-my-night")
        with sweepdir.held():
            with pytest.raises(PowerbenchError) as raised, SweepDir(sweepdir.path).held():
                pass
            assert str(raised.value) == (
                f"Another powerbench is measuring the sweep in {sweepdir.path}: let it end, or stop it first."
            )

    def test_is_free_again_behind_its_holder(self, tmp_path: Path) -> None:
        for _ in range(2):
            with SweepDir(tmp_path).held():
                pass


def test_a_sweep_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(PowerbenchError) as raised:
        SweepDir(tmp_path / "gone").write(a_sweep(one()))

    assert str(raised.value) == (
        f"Cannot write {tmp_path}/gone/sweep.json: No such file or directory. Make room, or choose another folder with "
        "--output."
    )


def test_sweep_json_can_be_read_by_anyone(tmp_path: Path) -> None:
    written(tmp_path, one(Attempt(run="first", status="complete")))

    told = json.loads((tmp_path / "sweep.json").read_text())
    assert told["schema"] == SWEEP_SCHEMA
    assert told["measurements"][0]["attempts"][0] == {
        "run": "first",
        "status": "complete",
        "reason": None,
        "cooldown_s": None,
    }
