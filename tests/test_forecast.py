"""How long a cell will take is told by what it took, by what one like it took, or not at all."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from powerbench.forecast import Forecast, Took, at_least_s, runs_in, took_by
from powerbench.records import Cell, Clock, RunRecord, Status, Window
from tests.rundir import NOBODY, a_cell, a_record, write_run

S = 1_000_000_000
SIXTEEN = a_cell(batch_size=16)


def a_run(*, whole_s: float = 30.0, status: Status = "complete", cell: Cell | None = None) -> RunRecord:
    """A run of so long, of which two seconds were warm-up and twenty the steps."""
    return a_record(
        status=status,
        cell=cell or SIXTEEN,
        clock=Clock(boot_id=None, start_monotonic_ns=0, start_unix_ns=0, end_monotonic_ns=round(whole_s * S)),
        windows={"warmup": Window(5 * S, 7 * S), "measured": Window(7 * S, 27 * S)},
        environment={"host": platform.node()},
    )


class TestAForecast:
    def test_is_what_the_very_cell_took_last(self) -> None:
        forecast = Forecast([Took(SIXTEEN, 30.0, 22.0)])
        forecast.learn(Took(SIXTEEN, 40.0, 32.0))

        assert (forecast.seconds(SIXTEEN), forecast.seconds_as_before(SIXTEEN)) == (40.0, 40.0)

    def test_is_nothing_where_nothing_is_known(self) -> None:
        assert Forecast().seconds(SIXTEEN) is None
        assert Forecast([Took(SIXTEEN, 30.0, 20.0)]).seconds_as_before(a_cell(batch_size=32)) is None

    def test_takes_the_steps_of_another_cell_in_proportion_to_their_work(self) -> None:
        """Ten seconds around the steps stay, twenty of steps become forty."""
        assert Forecast([Took(SIXTEEN, 30.0, 20.0)]).seconds(a_cell(batch_size=32)) == pytest.approx(50.0)
        assert Forecast([Took(SIXTEEN, 30.0, 20.0)]).seconds(a_cell(steps=8)) == pytest.approx(50.0)

    def test_takes_the_cell_that_does_most_nearly_as_much(self) -> None:
        forecast = Forecast([Took(a_cell(batch_size=1), 1000.0, 1000.0), Took(SIXTEEN, 30.0, 20.0)])

        assert forecast.seconds(a_cell(batch_size=32)) == pytest.approx(50.0)

    def test_is_not_taken_from_a_step_of_quite_another_size_but_from_any_number_of_its_like(self) -> None:
        """A small step takes what starting its operations takes: by it, a large one would take weeks."""
        forecast = Forecast([Took(a_cell(batch_size=1), 30.0, 20.0)])

        assert forecast.seconds(a_cell(batch_size=30)) == pytest.approx(10.0 + 20.0 * 30)
        assert forecast.seconds(a_cell(batch_size=31)) is None
        assert forecast.seconds(a_cell(batch_size=1, steps=4000)) == pytest.approx(10.0 + 20.0 * 1000)

    def test_knows_the_time_that_a_cell_is_given(self) -> None:
        forecast = Forecast([Took(SIXTEEN, 30.0, 20.0)])

        assert forecast.seconds(a_cell(batch_size=8, min_seconds=60.0)) == pytest.approx(70.0)
        assert forecast.seconds(a_cell(batch_size=64, max_seconds=45.0)) == 45.0

    @pytest.mark.parametrize(
        "other",
        [
            Took(a_cell(device="cuda"), 30.0, 20.0),
            Took(a_cell(model="sleep"), 30.0, 20.0),
            Took(a_cell(batch_size=64), 3.0, None),
        ],
        ids=["another device", "another kind of step", "one that came to no end"],
    )
    def test_is_not_taken_from_what_is_not_alike(self, other: Took) -> None:
        assert Forecast([other]).seconds(SIXTEEN) is None


class TestTheLeastTime:
    def test_is_rest_and_the_time_that_was_asked_for(self) -> None:
        assert at_least_s(a_cell(idle_seconds=5.0, min_seconds=10.0)) == 15.0
        assert at_least_s(a_cell(min_seconds=0.0)) == 0.0

    def test_is_that_of_its_steps_where_they_are_known(self) -> None:
        assert at_least_s(a_cell(model="sleep", sleep_ms=500.0, steps=8, warmup=2)) == 5.0

    def test_is_never_above_its_limit(self) -> None:
        assert at_least_s(a_cell(model="sleep", sleep_ms=500.0, steps=8, max_seconds=1.0)) == 1.0


class TestWhatARunTook:
    def test_is_the_whole_and_the_steps_of_it(self) -> None:
        assert took_by(a_run()) == Took(SIXTEEN, 30.0, 22.0)

    @pytest.mark.parametrize("status", ["oom", "timeout", "swapping", "unavailable", "failed"])
    def test_is_the_whole_alone_where_it_was_ended_early(self, status: Status) -> None:
        assert took_by(a_run(status=status)) == Took(SIXTEEN, 30.0, None)

    @pytest.mark.parametrize("status", ["running", "interrupted"])
    def test_is_nothing_where_it_was_cut_off(self, status: Status) -> None:
        assert took_by(a_run(status=status)) is None

    def test_is_nothing_of_a_recording_or_without_an_end(self) -> None:
        assert took_by(a_record(cell=None)) is None
        assert took_by(a_record(clock=Clock(boot_id=None, start_monotonic_ns=0, start_unix_ns=0))) is None


def test_the_runs_of_this_machine_are_found_in_sweeps_too_the_newest_first(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    write_run(tmp_path / "1", a_run(whole_s=31))
    write_run(tmp_path / "sweep/2", a_run(whole_s=32))
    write_run(tmp_path / "3", a_run(whole_s=33))
    write_run(tmp_path / "4", a_record(environment={"host": "another"}))
    write_run(tmp_path / "5", a_record(status="running", supervisor=NOBODY))
    (tmp_path / "6").mkdir()
    (tmp_path / "6/run.json").write_text("{")
    (tmp_path / "latest").symlink_to("3")
    (tmp_path / "sweep/latest").symlink_to("2")

    assert [took.whole_s for took in runs_in(tmp_path)] == [33.0, 32.0, 31.0]
    assert list(runs_in(tmp_path / "nowhere")) == []
