"""A comparison names what it compares, leaves out and cannot judge; a gate passes nothing that it has not seen."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import msgspec
import pytest

from powerbench.analysis.compare import Ratio
from powerbench.analysis.comparison import Compared, Comparison, NotCompared, compare_runs
from powerbench.analysis.gate import judge
from powerbench.errors import PowerbenchError
from powerbench.records import Clock, EnergyCurve, LoopCell, StepTrace, WorkloadRecord
from powerbench.rundir.load import Run
from powerbench.rundir.many import Runs
from tests.rundir import MS, START, a_cell, a_rail, a_record, steps_lasting

KEYS = ["a", "b", "threshold", "cells", "geometric_mean", "differs", "not_compared", "notes", "gate"]


def run(name: str, *milliseconds: float, **changes: Any) -> Run:
    """A run of steps of these lengths, with a clock of its own."""
    clock = Clock(boot_id=name, start_monotonic_ns=1, start_unix_ns=2)
    steps = steps_lasting(*milliseconds) if milliseconds else StepTrace()
    return Run(Path(name), a_record(**{"clock": clock} | changes), [steps])


class Metered(Run):
    """A run beside which twenty watts were drawn, from before its first step to behind its last."""

    def curves(self) -> dict[str, EnergyCurve]:
        times = [START + at * 100 * MS for at in range(-20, 60)]
        return {name: EnergyCurve(times, [2.0 * at for at in range(len(times))]) for name in self.record.rails}


def metered(name: str, **changes: Any) -> Run:
    """The same with joules: 0.4 in each of its steps of 20 ms."""
    rails = {"gpu": a_rail(source="ioreport", part="gpu", state="estimated", method="interval average")}
    plain = run(name, *[20] * 200, **{"rails": rails} | changes)
    return Metered(plain.path, plain.record, plain.steps)


def repeats(side: str, *means_ms: float, **changes: Any) -> list[Run]:
    return [run(f"{side}{at}", *[mean] * 100, **changes) for at, mean in enumerate(means_ms)]


def compared(a: list[Run], b: list[Run]) -> Comparison:
    return compare_runs(a, b, names=("before", "after"), threshold=0.05)


def oom(name: str, **changes: Any) -> Run:
    return run(name, status="oom", reason="the device ran out of memory.", **changes)


class TestAComparison:
    def test_has_its_keys_in_their_order(self) -> None:
        comparison = compared(repeats("a", 20, 20), repeats("b", 30, 30))

        assert list(msgspec.to_builtins(comparison)) == KEYS

    def test_holds_each_cell_with_its_runs_and_ratios(self) -> None:
        [cell] = compared(repeats("a", 20, 20, 20), repeats("b", 30, 30)).cells

        assert cell.latency_ms is not None
        assert (cell.title, cell.processes) == ("bert-tiny, inference, batch 16 x sequence 128", (3, 2))
        assert cell.latency_ms.ratio == pytest.approx(1.5)
        assert cell.latency_ms.verdict == "slower"
        assert (cell.j_per_step, cell.is_metered) == (None, False)
        assert cell.energy_reason == "A has no figure: no meter was recorded with this run"

    def test_leaves_out_what_py_spy_stopped_and_refuses_where_there_is_nothing_else(self) -> None:
        looked_at = run("spied", *[20] * 100, cell=a_cell(py_spy=True))

        comparison = compared(repeats("a", 20, 20), [*repeats("b", 30, 30), looked_at])

        assert comparison.cells[0].processes == (2, 2)
        [missing] = comparison.not_compared
        assert (missing.side, missing.runs, missing.is_gap) == ("B", ["spied"], False)
        assert "py-spy stopped the worker at each look" in missing.reason
        with pytest.raises(PowerbenchError, match="after cannot be compared: py-spy stopped the worker"):
            compared(repeats("a", 20, 20), [looked_at])

    def test_takes_a_run_that_py_spy_could_not_look_at(self) -> None:
        spared = run("spared", *[20] * 100, cell=a_cell(py_spy=True), unsampled="py-spy may not look here")

        assert compared(repeats("a", 20, 20), [spared]).cells[0].processes == (2, 1)

    def test_of_several_cells_has_their_geometric_mean(self) -> None:
        large = {"cell": a_cell(batch_size=64)}
        a = [*repeats("a", 20, 20), *repeats("c", 50, 50, **large)]
        b = [*repeats("b", 40, 40), *repeats("d", 25, 25, **large)]

        comparison = compared(a, b)

        assert [cell.cell["batch_size"] for cell in comparison.cells] == [16, 64]
        assert comparison.geometric_mean is not None
        assert comparison.geometric_mean.latency_ms is not None
        assert comparison.geometric_mean.latency_ms.ratio == pytest.approx(1.0)

    def test_leaves_out_what_was_not_completed_and_says_so(self) -> None:
        b = [*repeats("b", 30, 30), run("late", 30, status="timeout", reason="max_seconds was over")]

        comparison = compared(repeats("a", 30, 30), b)

        assert comparison.cells[0].processes == (2, 2)
        [missing] = comparison.not_compared
        assert (missing.side, missing.runs, missing.is_gap) == ("B", ["late"], False)
        assert missing.reason == "out of time: max_seconds was over"

    def test_of_the_same_run_is_refused(self) -> None:
        a = repeats("a", 20, 20)

        with pytest.raises(PowerbenchError, match=r"before and after hold the same run \(.*a1\)"):
            compared(a, [*repeats("b", 20), a[1]])

    def test_of_a_recording_of_power_is_refused(self) -> None:
        with pytest.raises(PowerbenchError, match="after is a recording of power alone and has no steps"):
            compared(repeats("a", 20), [run("power", cell=None)])


def test_runs_are_read_when_they_are_come_to_and_let_go_of() -> None:
    """Twice each at most, and never more than two of them in memory, the last and the next."""
    alive: list[weakref.ref[Run]] = []
    most = 0

    def load(path: Path) -> Run:
        nonlocal most
        loaded = run(str(path), *[20] * 30)
        alive.append(weakref.ref(loaded))
        most = max(most, sum(one() is not None for one in alive))
        return loaded

    sides = [Runs([Path(f"{name}{at}") for at in range(10)], load=load) for name in "ab"]

    comparison = compare_runs(*sides, names=("before", "after"), threshold=0.05)

    assert comparison.cells[0].processes == (10, 10)
    assert len(alive) <= 2 * 20
    assert most <= 2


class TestNotes:
    def test_say_that_one_process_a_side_says_little(self) -> None:
        [note] = compared(repeats("a", 20, 20, 20), repeats("b", 20)).notes

        assert note.startswith("One process on a side: the interval is from blocks of its steps, ")

    def test_say_of_loops_of_ones_own_what_nobody_told(self) -> None:
        cell = LoopCell(device="cpu", model="mine", mode="training", batch_size=4, warmup=0, sync_every=1)
        of_loops: dict[str, Any] = {"cell": cell, "loop": True}
        of_a = run("a", *[20] * 100, **of_loops, workload=WorkloadRecord(samples_per_step=4, parameters=1000))
        of_b = run("b", *[20] * 100, **of_loops, workload=WorkloadRecord(samples_per_step=4, parameters=2000))

        comparison = compared([of_a], [of_b])

        assert comparison.differs["parameters"] == (["1000"], ["2000"])
        assert (
            "The program did not tell the sequence_length and dtype of its steps: that those of A and of B are alike "
            "is taken from the name of the loop alone."
        ) in comparison.notes
        assert not [note for note in comparison.notes if "--" in note]  # no option of ours repeats a program

    def test_say_that_runs_were_short(self) -> None:
        short = [run("b", *[20] * 5), run("c", *[20] * 100)]

        assert compared(repeats("a", 20, 20), short).notes == [
            "B has runs of only 5 steps: too short to be sure of their typical step."
        ]

    def test_say_that_apples_estimates_are_not_for_comparing_devices(self) -> None:
        here = [metered(f"a{at}") for at in range(2)]
        there = [metered(f"b{at}", environment={"host": "another Mac"}) for at in range(2)]
        again = [metered(f"c{at}") for at in range(2)]

        comparison = compared(here, there)

        assert comparison.cells[0].j_per_step is not None
        assert comparison.cells[0].j_per_step.ratio == pytest.approx(1.0)
        assert [note.partition(",")[0] for note in comparison.notes] == ["These joules are Apple's estimates"]
        assert compared(here, again).notes == []

    def test_say_that_some_runs_have_no_joules(self) -> None:
        notes = compared([metered("a0"), metered("a1"), metered("a2", rails={})], [metered("b0"), metered("b1")]).notes

        assert notes == ["Only 2 of 3 runs of A have joules."]

    def test_say_that_runs_have_no_steady_state(self) -> None:
        rising = [run(f"b{at}", *[20 + 0.2 * step for step in range(100)]) for at in range(2)]

        assert compared(repeats("a", 20, 20), rising).notes == [
            "2 runs of B found no steady state (slowdown), so the ratio depends on how long one measures; "
            "`powerbench trace` says more."
        ]

    def test_do_not_say_twice_that_there_is_no_steady_state(self) -> None:
        rising = run("b0", *[20 + 0.2 * step for step in range(100)])
        there_and_back = [run(f"b{at}", *[20] * 60, *[30] * 60, *[20] * 60) for at in (1, 2)]

        [note] = compared(repeats("a", 20, 20), there_and_back).notes
        assert note.startswith("2 runs of B found no steady state, so the ratio ")
        [note] = compared(repeats("a", 20, 20), [rising, *there_and_back]).notes
        assert note.startswith("3 runs of B found no steady state (1 slowdown), so the ratio ")

    @pytest.mark.parametrize(
        ("starts_a", "starts_b", "first"), [((1, 2), (3, 4), "A"), ((3, 4), (1, 2), "B"), ((1, 3), (2, 4), None)]
    )
    def test_say_that_one_side_was_measured_first(
        self, starts_a: tuple[int, int], starts_b: tuple[int, int], first: str | None
    ) -> None:
        sides = []
        for name, starts in (("a", starts_a), ("b", starts_b)):
            clocks = [Clock(boot_id="one", start_monotonic_ns=at, start_unix_ns=at) for at in starts]
            sides.append([run(f"{name}{at}", *[20] * 100, clock=clock) for at, clock in enumerate(clocks)])

        notes = compared(*sides).notes

        assert [note.partition(" was measured first")[0] for note in notes] == ([f"All of {first}"] if first else [])


def ratio(value: float, verdict: Any, low: float, high: float, of: Any = "processes") -> Ratio:
    return Ratio(a=1.0, b=value, ratio=value, ci95=(low, high), interval_of=of, verdict=verdict)


SAME = ratio(1.0, "indistinguishable", 0.98, 1.02)
SLOWER = ratio(1.2, "slower", 1.1, 1.3)
OPEN = ratio(1.04, "inconclusive", 0.98, 1.1)
BETTER_BUT_HOW_MUCH = ratio(0.97, "inconclusive", 0.92, 1.02)


def a_comparison(latency: Ratio | None = SAME, missing: list[NotCompared] | None = None, **changes: Any) -> Comparison:
    cell = Compared(
        cell={"model": "bert-tiny"},
        title="bert-tiny",
        processes=(3, 3),
        is_metered=False,
        latency_ms=latency,
        samples_per_s=latency,
        j_per_step=None,
        energy_reason="A has no figure: no meter",
    )
    return Comparison(
        a="a",
        b="b",
        threshold=0.05,
        cells=[msgspec.structs.replace(cell, **changes)],
        geometric_mean=None,
        differs={},
        not_compared=missing or [],
        notes=[],
    )


class TestAGate:
    def of(self, comparison: Comparison) -> tuple[str, list[str]]:
        gate = judge(comparison)
        return gate.outcome, gate.reasons

    def test_passes_what_surely_costs_no_more(self) -> None:
        assert self.of(a_comparison(SAME))[0] == "passed"
        assert self.of(a_comparison(BETTER_BUT_HOW_MUCH))[0] == "passed"

    def test_trips_on_what_is_slower(self) -> None:
        assert self.of(a_comparison(SLOWER)) == (
            "regressed",
            ["latency is 1.200 times that of A", "throughput is 1.200 times that of A"],
        )

    def test_trips_on_throughput_alone_but_does_not_ask_it_to_be_sure(self) -> None:
        assert self.of(a_comparison(samples_per_s=SLOWER))[0] == "regressed"
        assert self.of(a_comparison(samples_per_s=OPEN))[0] == "passed"

    def test_trips_on_joules(self) -> None:
        more = msgspec.structs.replace(SLOWER, verdict="more")

        assert self.of(a_comparison(j_per_step=more, is_metered=True)) == (
            "regressed",
            ["energy is 1.200 times that of A"],
        )

    def test_cannot_decide_what_is_open(self) -> None:
        assert self.of(a_comparison(OPEN)) == ("inconclusive", ["latency is 1.040 times that of A"])

    @pytest.mark.parametrize("value", [0.5, 1.0, 2.0])
    def test_cannot_decide_on_one_process_a_side(self, value: float) -> None:
        alone = ratio(value, "inconclusive", value * 0.99, value * 1.01, of="blocks")

        assert self.of(a_comparison(alone))[0] == "inconclusive"

    def test_has_not_measured_what_lacks_a_figure(self) -> None:
        assert self.of(a_comparison(None, samples_per_s=None)) == (
            "could not measure",
            ["no step was measured to its end"],
        )

    def test_has_not_measured_joules_that_one_side_has(self) -> None:
        lost = a_comparison(is_metered=True, energy_reason="B has no figure: the meter was lost before the end")

        assert self.of(lost) == ("could not measure", ["energy: B has no figure: the meter was lost before the end"])

    def test_prefers_what_is_worst(self) -> None:
        missing = NotCompared(cell={}, title="x", side="B", runs=[], reason="oom", is_gap=True)

        assert self.of(a_comparison(SLOWER, [missing]))[0] == "regressed"
        assert self.of(a_comparison(OPEN, [missing])) == ("could not measure", ["x: oom (B)"])


class TestAGateOverRuns:
    def of(self, a: list[Run], b: list[Run]) -> tuple[str, list[str]]:
        gate = judge(compared(a, b))
        return gate.outcome, gate.reasons

    def test_has_not_measured_a_cell_that_ran_out_of_memory_in_b_alone(self) -> None:
        said = "bert-tiny, inference, batch 16 x sequence 128: out of memory: the device ran out of memory (B)"

        assert self.of(repeats("a", 20, 20), [oom("b")]) == ("could not measure", [said])

    def test_lets_a_cell_pass_that_runs_out_of_memory_on_both_sides(self) -> None:
        large = {"cell": a_cell(batch_size=64)}

        gate = self.of([*repeats("a", 20, 20), oom("c", **large)], [*repeats("b", 20, 20), oom("d", **large)])

        assert gate == ("passed", ["latency is 1.000 times that of A"])

    def test_passes_nothing_where_nothing_was_measured(self) -> None:
        assert self.of([oom("a")], [oom("b")])[0] == "could not measure"

    def test_misses_a_cell_that_b_lacks_and_not_one_that_it_has_in_addition(self) -> None:
        both, more = repeats("a", 20, 20), repeats("c", 20, 20, cell=a_cell(batch_size=64))

        assert self.of([*both, *more], repeats("b", 20, 20))[0] == "could not measure"
        assert self.of(both, [*repeats("b", 20, 20), *more])[0] == "passed"
