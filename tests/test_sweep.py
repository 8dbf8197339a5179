"""The story of a sweep, told with runs that take no time: order, answers, resuming, retrying, cooling, stopping."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from powerbench.cooldown import CoolDown
from powerbench.errors import PowerbenchError, Unavailable, UsageError
from powerbench.forecast import Forecast, Took
from powerbench.records import Cell, Clock, Status
from powerbench.rundir import RunDir, create_run_dir
from powerbench.rundir.load import Run, load_run
from powerbench.rundir.sweeps import Attempt, Measurement, SweepDir, SweepRecord, read_sweep
from powerbench.sweep import Standing, Sweep, measurements_of, pending, refuse_nonsense
from tests.rundir import NOBODY, a_cell, a_record, write_run

S = 1_000_000_000
ONE, TWO, FOUR = (a_cell(batch_size=size) for size in (1, 2, 4))


class Machine:
    """A machine that measures cells in no time, and ends each as the test says; `measured` is what it was given."""

    def __init__(self, folder: Path, **ends: Status | Callable[[], object]) -> None:
        self.sweepdir = SweepDir(folder)
        self.measured: list[tuple[int, int]] = []
        self.standings: list[Standing] = []
        self.said: list[str] = []
        self._ends = ends

    def measure(self, cell: Cell, parent: Path, on_start: Callable[[RunDir], object], standing: Standing) -> Run:
        self.measured.append((cell.batch_size, standing.measurement.repeat))
        rundir = create_run_dir(parent, cell)
        end = self._ends.pop(f"b{cell.batch_size}r{standing.measurement.repeat}", "complete")
        clock = Clock(boot_id=None, start_monotonic_ns=0, start_unix_ns=0, end_monotonic_ns=10 * S)
        write_run(rundir.path, a_record(status="running", cell=cell, clock=clock, supervisor=NOBODY))
        on_start(rundir)
        if not isinstance(end, str):
            end()
        status = end if isinstance(end, str) else "complete"
        rundir.write_record(
            a_record(status=status, reason=None if status == "complete" else "so", cell=cell, clock=clock)
        )
        return load_run(rundir.path)

    def sweep(self, record: SweepRecord, **options: Any) -> Sweep:
        settings: dict[str, Any] = {
            "resolve": lambda cell: cell,
            "measure": self.measure,
            "forecast": Forecast(),
            "cooldown": CoolDown(dict),
            "say": self.said.append,
            "on_cell": self.standings.append,
        }
        return Sweep(self.sweepdir, record, **settings | options)

    def run(self, record: SweepRecord, **options: Any) -> SweepRecord:
        """The sweep as it lies on disk when it has ended."""
        sweep = self.sweep(record, **options)
        sweep.run()
        found = read_sweep(self.sweepdir.path)
        assert found == sweep.record, "what is on disk is what is known"
        return found


def asked(*cells: Cell, repeats: int = 1, **changes: Any) -> SweepRecord:
    settings: dict[str, Any] = {"id": "night", "profile": "night", "host": "here"}
    return SweepRecord(**settings | changes, measurements=measurements_of(cells, repeats=repeats))


def ended(record: SweepRecord) -> list[Status | None]:
    return [one.status for one in record.measurements]


def with_attempts(record: SweepRecord, *attempts: list[Attempt]) -> SweepRecord:
    measurements = [
        msgspec.structs.replace(one, attempts=those) for one, those in zip(record.measurements, attempts, strict=True)
    ]
    return msgspec.structs.replace(record, measurements=measurements)


class TestASweep:
    def test_measures_each_cell_once_and_a_second_time_only_when_all_had_their_first(self, tmp_path: Path) -> None:
        machine = Machine(tmp_path)

        record = machine.run(asked(ONE, TWO, FOUR, repeats=2))

        assert machine.measured == [(1, 1), (2, 1), (4, 1), (1, 2), (2, 2), (4, 2)]
        assert ended(record) == ["complete"] * 6
        assert all((tmp_path / str(one.run) / "run.json").exists() for one in record.measurements)

    @pytest.mark.parametrize("status", ["oom", "timeout", "swapping", "failed", "unavailable"])
    def test_goes_on_behind_a_cell_that_has_no_figure(self, tmp_path: Path, status: Status) -> None:
        record = Machine(tmp_path, b2r1=status).run(asked(ONE, TWO, FOUR))

        assert ended(record) == ["complete", status, "complete"]
        assert record.measurements[1].reason == "so"

    def test_stops_behind_a_run_that_was_interrupted(self, tmp_path: Path) -> None:
        machine = Machine(tmp_path, b2r1="interrupted")
        sweep = machine.sweep(asked(ONE, TWO, FOUR))

        sweep.run()

        assert sweep.stopped
        assert ended(sweep.record) == ["complete", "interrupted", None]

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_stops_by_a_signal_that_a_run_came_too_late_to_hear(self, tmp_path: Path, number: signal.Signals) -> None:
        machine = Machine(tmp_path, b2r1=lambda: os.kill(os.getpid(), number))
        sweep = machine.sweep(asked(ONE, TWO, FOUR))

        sweep.run()

        assert sweep.stopped
        assert ended(sweep.record) == ["complete", "complete", None]

    def test_has_a_run_in_its_file_as_soon_as_it_is_begun(self, tmp_path: Path) -> None:
        seen: list[Measurement] = []
        machine = Machine(tmp_path, b1r1=lambda: seen.append(as_on_disk(tmp_path).measurements[0]))

        machine.run(asked(ONE))

        assert [(one.status, one.run is not None) for one in seen] == [("running", True)]

    def test_that_cannot_be_recorded_stops_with_a_sentence_and_keeps_what_it_has(self, tmp_path: Path) -> None:
        def disk_is_full() -> None:
            raise PowerbenchError("Cannot go on recording: No space left on device.")

        machine = Machine(tmp_path, b2r1=disk_is_full)
        with pytest.raises(PowerbenchError, match="No space left"):
            machine.run(asked(ONE, TWO))

        record = read_sweep(tmp_path)
        assert ended(record) == ["complete", "interrupted"]
        assert record.measurements[1].reason == "Cannot go on recording: No space left on device."


class TestResuming:
    def test_measures_what_has_no_answer_and_nothing_else(self, tmp_path: Path) -> None:
        first = Machine(tmp_path, b2r1="interrupted", b1r1="oom").sweep(asked(ONE, TWO, FOUR))
        first.run()
        machine = Machine(tmp_path)

        record = machine.run(read_sweep(tmp_path))

        assert machine.measured == [(2, 1), (4, 1)]
        assert ended(record) == ["oom", "complete", "complete"]
        assert [attempt.status for attempt in record.measurements[1].attempts] == ["interrupted", "complete"]
        assert len(list(tmp_path.glob("*/run.json"))) == 4, "what was interrupted is kept"

    def test_of_what_was_killed_keeps_its_directory_and_says_why(self, tmp_path: Path) -> None:
        write_run(tmp_path / "killed", a_record(status="running", supervisor=NOBODY, cell=ONE))
        killed = with_attempts(asked(ONE), [Attempt(run="killed", status="running")])
        SweepDir(tmp_path).write(killed)

        record = Machine(tmp_path).run(read_sweep(tmp_path))

        before, after = record.measurements[0].attempts
        assert (before.run, before.status) == ("killed", "interrupted")
        assert before.reason == f"its supervisor (pid {NOBODY.pid}) is gone without having ended it"
        assert after.status == "complete"
        assert (tmp_path / "killed/run.json").exists()

    def test_of_a_finished_sweep_measures_nothing(self, tmp_path: Path) -> None:
        Machine(tmp_path, b2r1="failed").run(asked(ONE, TWO))
        machine = Machine(tmp_path)

        machine.run(read_sweep(tmp_path))

        assert machine.measured == []

    def test_tries_again_what_is_named(self, tmp_path: Path) -> None:
        Machine(tmp_path, b1r1="oom", b2r1="failed", b4r1="timeout").run(asked(ONE, TWO, FOUR))
        machine = Machine(tmp_path)

        record = machine.run(read_sweep(tmp_path), retry=["oom", "failed"])

        assert machine.measured == [(1, 1), (2, 1)]
        assert ended(record) == ["complete", "complete", "timeout"]
        assert [attempt.status for attempt in record.measurements[0].attempts] == ["oom", "complete"]

    def test_measures_again_what_was_deleted(self, tmp_path: Path) -> None:
        record = Machine(tmp_path).run(asked(ONE, TWO))
        (tmp_path / str(record.measurements[0].run) / "run.json").unlink()
        machine = Machine(tmp_path)

        record = machine.run(read_sweep(tmp_path))

        assert machine.measured == [(1, 1)]
        assert record.measurements[0].attempts[0].reason == "its directory is gone"


def test_what_is_pending_has_no_answer_or_one_that_is_to_be_tried_again() -> None:
    statuses: tuple[Status, ...] = ("complete", "oom", "interrupted", "running", "failed")
    measurements = [Measurement(cell=ONE, attempts=[Attempt(status=status)]) for status in statuses]

    assert pending([*measurements, Measurement(cell=ONE)]) == [2, 3, 5]
    assert pending(measurements, retry=["failed", "complete"]) == [0, 2, 3, 4]


class TestACellThatIsNotForThisMachine:
    def resolve(self, cell: Cell) -> Cell:
        if cell == TWO:
            raise Unavailable("there is no such device")
        if cell == FOUR:
            raise UsageError("it makes no sense")
        return cell

    def test_is_an_answer_without_a_run(self, tmp_path: Path) -> None:
        machine = Machine(tmp_path)

        record = machine.run(asked(ONE, TWO), resolve=self.resolve)

        assert machine.measured == [(1, 1)]
        assert record.without_run == [record.measurements[1]]
        assert record.measurements[1].last == Attempt(status="unavailable", reason="there is no such device")

    def test_is_refused_before_a_sweep_begins_where_it_makes_no_sense(self) -> None:
        with pytest.raises(UsageError, match="it makes no sense"):
            refuse_nonsense([ONE, TWO, FOUR], self.resolve)

    def test_is_refused_where_there_is_no_other(self) -> None:
        refuse_nonsense([ONE, TWO], self.resolve)
        with pytest.raises(Unavailable, match="there is no such device"):
            refuse_nonsense([TWO, TWO], self.resolve)


class TestTheTimeLeft:
    def left(self, machine: Machine) -> list[tuple[float | None, float | None]]:
        return [(standing.this_s, standing.left_s) for standing in machine.standings]

    def test_is_unknown_until_something_was_measured(self, tmp_path: Path) -> None:
        """Ten seconds each, and ten of cool-down at most between them."""
        machine = Machine(tmp_path)

        machine.run(asked(ONE, repeats=3))

        assert self.left(machine) == [(None, None), (10.0, 20.0), (10.0, 10.0)]

    def test_is_known_from_former_runs(self, tmp_path: Path) -> None:
        machine = Machine(tmp_path)
        forecast = Forecast([Took(ONE, 60.0, None), Took(TWO, 100.0, None)])

        machine.run(asked(ONE, TWO), forecast=forecast)

        assert self.left(machine) == [(60.0, 160.0), (100.0, 100.0)]

    def test_holds_the_cool_downs_and_not_what_cannot_be_measured(self, tmp_path: Path) -> None:
        machine = Machine(tmp_path)

        def resolve(cell: Cell) -> Cell:
            if cell == TWO:
                raise Unavailable("there is no such device")
            return cell

        machine.run(
            asked(ONE, TWO, ONE, cooldown_seconds=0.001), forecast=Forecast([Took(ONE, 60.0, None)]), resolve=resolve
        )

        assert self.left(machine) == [(60.0, 120.001), (0.0, 10.001), (10.0, 10.0)]

    def test_numbers_the_measurement_among_all(self, tmp_path: Path) -> None:
        Machine(tmp_path, b1r1="failed").run(asked(ONE, TWO))
        machine = Machine(tmp_path)

        machine.run(read_sweep(tmp_path), retry=["failed"])

        assert [(standing.number, standing.total) for standing in machine.standings] == [(1, 2)]


class Cooling(CoolDown):
    """Sensors that show one temperature before the sweep and others behind it, and a clock that waits move."""

    def __init__(self, *celsius: float) -> None:
        self._celsius = list(celsius)
        self._now_s = 0.0
        super().__init__(self._shown, clock_s=self._clock)

    def _shown(self) -> Mapping[str, float]:
        return {"processor.temperature_c": self._celsius.pop(0) if len(self._celsius) > 1 else self._celsius[0]}

    def _clock(self) -> float:
        self._now_s += 1.0
        return self._now_s


class TestCoolingDown:
    def test_comes_between_cells_and_not_before_the_first(self, tmp_path: Path) -> None:
        record = Machine(tmp_path).run(asked(ONE, TWO, cooldown_seconds=60.0), cooldown=Cooling(41.0, 43.0))

        assert record.rest == {"processor.temperature_c": 41.0}
        assert [one.attempts[0].cooldown_s is not None for one in record.measurements] == [False, True]

    def test_goes_by_the_rest_before_the_first_cell_when_it_is_resumed_too(self, tmp_path: Path) -> None:
        begun = asked(ONE, TWO, cooldown_seconds=1.0, rest={"processor.temperature_c": 41.0})
        begun = with_attempts(begun, [Attempt(status="interrupted", reason="killed")], [])
        machine = Machine(tmp_path)

        record = machine.run(begun, cooldown=Cooling(70.0))

        assert record.rest == {"processor.temperature_c": 41.0}
        assert record.measurements[0].attempts[1].cooldown_s is not None
        assert machine.said[:2] == [
            "Cooling down, for at most 1.00s",
            "Not cool yet: processor at 70 °C (41 at the start)",
        ]

    def test_is_none_where_none_is_asked_for(self, tmp_path: Path) -> None:
        machine = Machine(tmp_path)

        record = machine.run(asked(ONE, TWO), cooldown=Cooling(41.0, 99.0))

        assert (record.rest, machine.said) == ({}, [])

    def test_is_ended_by_ctrl_c_and_so_is_the_sweep(self, tmp_path: Path) -> None:
        """It would last for an hour."""
        machine = Machine(tmp_path)
        sweep = machine.sweep(asked(ONE, TWO, cooldown_seconds=3600.0), say=self.interrupt)

        sweep.run()

        assert sweep.stopped
        assert ended(sweep.record) == ["complete", None]

    def interrupt(self, sentence: str) -> None:
        assert sentence == "Cooling down, for 1h 00m"
        os.kill(os.getpid(), signal.SIGINT)


def as_on_disk(folder: Path) -> SweepRecord:
    """sweep.json as it stands, whatever became of the runs."""
    return msgspec.json.decode((folder / "sweep.json").read_bytes(), type=SweepRecord)
