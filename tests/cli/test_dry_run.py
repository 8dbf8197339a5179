"""The list of a dry run: what each measurement takes in as many words as are known, and the sum."""

from __future__ import annotations

from typing import Any

import pytest

from powerbench.cli.dry_run import Planned, as_table
from powerbench.cli.names import Names
from powerbench.rundir.sweeps import Measurement
from tests.rundir import a_cell

CELL = a_cell()
NAME = "cpu bert-tiny inference, batch 16 x sequence 128"


def table(*rows: dict[str, Any], cooldown_seconds: float = 0.0) -> list[str]:
    facts: dict[str, Any] = {"repeat": 1, "command": "powerbench run", "cell": CELL}
    planned = [Planned(number=number, **facts, **row) for number, row in enumerate(rows, 1)]
    return as_table(planned, Names([Measurement(cell=CELL)]), cooldown_seconds=cooldown_seconds).splitlines()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"as_before_s": 43.0, "at_least_s": 15.0}, "about 43s"),
        ({"as_alike_s": 43.0, "at_least_s": 15.0}, "perhaps 43s"),
        ({"at_least_s": 15.0}, "at least 15s"),
        ({"at_least_s": 15.0, "at_most_s": 60.0}, "at least 15s, at most 1m 00s"),
        ({"at_most_s": 60.0}, "at most 1m 00s"),
        ({}, "not measured before"),
        ({"status": "oom", "reason": "memory ran out"}, "done: oom"),
        ({"reason": "there is no such device."}, "cannot be measured: there is no such device."),
    ],
)
def test_each_has_what_it_takes(row: dict[str, Any], words: str) -> None:
    assert table(row)[0] == f"1  {NAME}  {words}"


@pytest.mark.parametrize(
    ("rows", "cooldown_seconds", "said"),
    [
        ([{"as_before_s": 40.0}, {"as_before_s": 50.0}], 0.0, ["2 measurements: about 1m 30s."]),
        (
            [{"as_before_s": 40.0}, {"as_alike_s": 50.0}],
            0.0,
            [
                "2 measurements: perhaps 1m 30s.",
                "Perhaps: as long as a similar cell took on this machine, in proportion to the work.",
            ],
        ),
        ([{"as_before_s": 40.0}, {"at_least_s": 15.0}], 0.0, ["2 measurements: at least 55s."]),
        ([{"as_before_s": 40.0}, {}], 0.0, ["2 measurements: at least 40s."]),
        ([{}, {}], 0.0, ["2 measurements: how long that takes is not known yet."]),
        (
            [{"as_before_s": 40.0}] * 3,
            60.0,
            ["3 measurements: about 2m 00s, and 2 pauses of at most 1m 00s."],
        ),
        ([{"as_before_s": 40.0}, {"status": "complete"}], 60.0, ["1 measurement: about 40s."]),
        ([{"status": "complete"}, {"reason": "no such device"}], 60.0, ["Nothing is left to be measured."]),
    ],
)
def test_the_sum_is_as_good_as_what_is_known(
    rows: list[dict[str, Any]], cooldown_seconds: float, said: list[str]
) -> None:
    assert table(*rows, cooldown_seconds=cooldown_seconds)[len(rows) :] == ["", *said]


def test_numbers_and_times_stand_in_columns() -> None:
    lines = table(*[{"as_before_s": 40.0}] * 10)

    assert lines[0] == f" 1  {NAME}  about 40s"
    assert lines[9] == f"10  {NAME}  about 40s"


class TestNames:
    def test_tell_what_differs_beside_the_usual(self) -> None:
        cells = [a_cell(threads=None, dropout=False), a_cell(threads=2, sleep_ms=0.5)]
        names = Names([Measurement(cell=cell) for cell in cells])

        assert [names.of(cell, 1) for cell in cells] == [
            f"{NAME}, threads unset, dropout off, sleep ms 10",
            f"{NAME}, threads 2, dropout on, sleep ms 0.5",
        ]

    def test_tell_the_repeat_where_there_are_several(self) -> None:
        measurements = [Measurement(cell=CELL, repeat=repeat) for repeat in (1, 2)]

        assert Names(measurements).of(CELL, 2) == f"{NAME}, repeat 2"
        assert Names(measurements[:1]).of(CELL, 1) == NAME

    def test_leave_out_a_device_that_is_not_chosen_yet_and_mark_thousands(self) -> None:
        cell = a_cell(device="auto", batch_size=10_000)

        assert Names([Measurement(cell=cell)]).of(cell, 1) == "bert-tiny inference, batch 10,000 x sequence 128"
