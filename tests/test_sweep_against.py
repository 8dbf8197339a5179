"""A sweep of two interpreters takes turns, and is another sweep than that of one."""

from __future__ import annotations

from powerbench.rundir.sweeps import Measurement, SweepRecord
from powerbench.sweep import measurements_of
from tests.rundir import a_cell

SMALL, LARGE = a_cell(batch_size=1), a_cell(batch_size=64)


def record(measurements: list[Measurement]) -> SweepRecord:
    return SweepRecord(id="one", profile="cells", host="here", measurements=measurements)


def test_each_cell_is_measured_in_both_and_the_other_way_round_each_second_time() -> None:
    turns = measurements_of([SMALL, LARGE], repeats=3, against="/other/python")

    sides = ["A" if one.interpreter is None else "B" for one in turns]
    assert ["".join(sides[at : at + 4]) for at in (0, 4, 8)] == ["ABAB", "BABA", "ABAB"]
    assert [one.cell for one in turns[:4]] == [SMALL, SMALL, LARGE, LARGE]
    assert [one.repeat for one in turns] == [1] * 4 + [2] * 4 + [3] * 4


def test_without_another_interpreter_each_cell_is_measured_once_a_repeat() -> None:
    assert [(one.cell, one.repeat) for one in measurements_of([SMALL, LARGE], repeats=2)] == [
        *((SMALL, 1), (LARGE, 1), (SMALL, 2), (LARGE, 2))
    ]


def test_a_sweep_of_another_interpreter_is_not_gone_on_with() -> None:
    alone, one, other = (measurements_of([SMALL], repeats=2, against=path) for path in (None, "/a", "/b"))

    assert record(one).asks_for_the_same(one)
    assert not record(one).asks_for_the_same(other)
    assert not record(one).asks_for_the_same(alone)


def test_a_sweep_knows_what_it_is_against() -> None:
    assert record(measurements_of([SMALL], repeats=1, against="/other/python")).against == "/other/python"
    assert record(measurements_of([SMALL], repeats=1)).against is None
