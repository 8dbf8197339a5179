"""Only equal steps are compared; what else differs is shown, and each of several variants meets its like."""

from __future__ import annotations

from typing import Any

import pytest

from powerbench.analysis.comparable import SAME, VARIANTS, facts, is_one_device, key_of, match, what_differs
from powerbench.errors import PowerbenchError
from powerbench.records import DeviceRecord, RunRecord
from tests.rundir import a_cell, a_rail, a_record


def a_run(**cell: Any) -> RunRecord:
    return a_record(cell=a_cell(**cell))


def refusal(a: list[RunRecord], b: list[RunRecord]) -> str:
    with pytest.raises(PowerbenchError) as refused:
        match(a, b)
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "a", "b"),
    [
        ("model", "bert-tiny", "bert-mini"),
        ("mode", "training", "inference"),
        ("batch_size", 16, 32),
        ("sequence_length", 128, 512),
        ("accumulation", 1, 4),
        ("copy", "async", "blocking"),
    ],
)
def test_what_a_step_is_must_be_equal_and_is_named(name: str, a: Any, b: Any) -> None:
    said = refusal([a_run(**{name: a})], [a_run(**{name: b})])

    assert said.startswith("A and B cannot be compared: ")
    assert f"{name} is {a} in A and {b} in B" in said


def test_the_number_of_ranks_must_be_equal() -> None:
    assert "ranks is 1 in A and 2 in B" in refusal([a_record()], [a_record(ranks=2)])


def test_dropout_must_be_equal_where_it_is_trained_and_is_nothing_in_inference() -> None:
    training = [a_run(mode="training", dropout=dropout) for dropout in (True, False)]

    assert "dropout is true in A and false in B" in refusal(training[:1], training[1:])
    assert key_of(a_run(dropout=True)) == key_of(a_run(dropout=False))


def test_of_the_control_only_its_length_matters() -> None:
    sleeps = [a_run(model="sleep", sleep_ms=5.0), a_run(model="sleep", sleep_ms=5.0, batch_size=2)]

    assert len(match(sleeps[:1], sleeps[1:])[0]) == 1
    assert "sleep_ms is 5 in A and 6 in B" in refusal(sleeps[:1], [a_run(model="sleep", sleep_ms=6.0)])


def test_of_many_cells_the_nearest_two_say_what_is_wrong() -> None:
    a = [a_run(batch_size=16, mode="training"), a_run(batch_size=16)]

    assert refusal(a, [a_run(batch_size=64)]).startswith(
        "A and B cannot be compared: batch_size is 16 in A and 64 in B. "
    )


@pytest.mark.parametrize(
    ("name", "a", "b"),
    [
        ("device", "cpu", "mps"),
        ("dtype", "float32", "bfloat16"),
        ("threads", 1, 2),
        ("attention", "sdpa", "eager"),
        ("compile", False, True),
        ("steps", 100, 200),
    ],
)
def test_how_a_step_is_run_may_differ(name: str, a: Any, b: Any) -> None:
    pairs, unmatched = match([a_run(**{name: a})], [a_run(**{name: b})])

    assert ([(pair.a, pair.b) for pair in pairs], unmatched) == ([([0], [0])], [])


def test_repeats_are_one_cell() -> None:
    pairs, _ = match([a_run(), a_run(steps=9)], [a_run(), a_run(), a_run()])

    assert [(pair.a, pair.b) for pair in pairs] == [([0, 1], [0, 1, 2])]


def test_several_variants_each_meet_their_like() -> None:
    a = [a_run(threads=1), a_run(threads=2), a_run(threads=4)]
    b = [a_run(threads=2), a_run(threads=1)]

    pairs, unmatched = match(a, b)

    assert [(pair.a, pair.b) for pair in pairs] == [([0], [1]), ([1], [0])]
    assert [(one.side, one.runs, one.reason) for one in unmatched] == [("A", [2], "B has it only with other threads")]


def test_variants_that_have_no_like_leave_it_open_which_to_compare() -> None:
    said = refusal([a_run(threads=1), a_run(threads=2)], [a_run(threads=4)])

    assert "with different threads, and it is open which to compare with which" in said


def test_cells_of_one_side_only_are_told() -> None:
    pairs, unmatched = match([a_run(), a_run(batch_size=64)], [a_run(), a_run(batch_size=256)])

    assert len(pairs) == 1
    assert [(one.side, dict(one.key)["batch_size"], one.reason) for one in unmatched] == [
        ("A", 64, "there is none in B"),
        ("B", 256, "there is none in A"),
    ]


def test_no_setting_is_both_fixed_and_free() -> None:
    assert not {*SAME} & {*VARIANTS}


class TestWhatDiffers:
    def test_is_nothing_between_like_runs_at_another_moment(self) -> None:
        busy = a_record(environment=a_record().environment | {"load_1min": 9.0})

        assert what_differs([a_record()], [busy]) == {}

    def test_is_told_of_machine_software_and_settings(self) -> None:
        a = a_record(environment={"torch": "2.12.0", "power_mode": "normal"})
        b = a_record(
            environment={"torch": "2.13.0", "power_mode": "low power", "variables": {"OMP_NUM_THREADS": "4"}},
            device=DeviceRecord(kind="mps", name="Apple M1", timer="clock after synchronize"),
            cell=a_cell(device="mps", dtype="bfloat16"),
            rails={"gpu": a_rail(source="ioreport")},
        )

        assert what_differs([a], [b]) == {
            "device": (["cpu"], ["mps"]),
            "device_name": (["Abacus 3000"], ["Apple M1"]),
            "timer": (["clock"], ["clock after synchronize"]),
            "torch": (["2.12.0"], ["2.13.0"]),
            "power_mode": (["normal"], ["low power"]),
            "OMP_NUM_THREADS": (["unknown"], ["4"]),
            "dtype": (["float32"], ["bfloat16"]),
            "meters": (["none"], ["ioreport"]),
        }

    def test_is_told_of_runs_of_one_side_too(self) -> None:
        runs = [a_run(steps=10), a_run(steps=20)]

        assert what_differs(runs, runs) == {"steps": (["10", "20"], ["10", "20"])}

    def test_holds_torchs_own_commit_where_its_version_is_the_same(self) -> None:
        a, b = ({"torch": "2.13.0", "torch_git": commit} for commit in ("abc", "def"))

        assert list(what_differs([a_record(environment=a)], [a_record(environment=b)])) == ["torch_git"]
        assert list(what_differs([a_record(environment=a)], [a_record(environment=b | {"torch": "3"})])) == ["torch"]

    def test_is_written_for_people(self) -> None:
        told = facts(a_record(environment={"memory_bytes": 16_000_000_000, "on_battery": False}))

        assert (told["memory_bytes"], told["on_battery"]) == ("16.0 GB", "false")


def test_two_machines_are_two_devices() -> None:
    there = a_record(environment={"host": "there"})

    assert is_one_device([a_record()], [a_record()])
    assert not is_one_device([a_record()], [there])
