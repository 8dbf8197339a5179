"""Where a step's time and joules go: exact where the meter is fast enough, and no figure where it is not."""

from __future__ import annotations

from typing import Any

from powerbench.analysis.phases import Phase, find_phases
from powerbench.records import EnergyCurve, PhaseSpan, RunRecord, StepTrace
from tests.rundir import MS, START, a_cell, a_rail, a_record, steps_lasting

STEP_MS = 1000


def a_run(period_s: float = 0.01, **changes: Any) -> RunRecord:
    rail = a_rail(part="package", period_s=period_s)
    return a_record(rails={"package-0": rail}, cell=a_cell(phases=True, mode="training", **changes))


def spans(*phases: tuple[str, float], steps: int = 4, first: int = 0) -> list[PhaseSpan]:
    """These phases (name, ms) from the beginning of each step on."""
    found = []
    for step in range(first, first + steps):
        at = START + step * STEP_MS * MS
        for name, length in phases:
            found.append(PhaseSpan(step, name, at, at + round(length * MS)))
            at += round(length * MS)
    return found


def steps(count: int = 4) -> StepTrace:
    return steps_lasting(*[STEP_MS] * count)


def power(*parts: tuple[float, float], seconds: int = 6, every_ms: int = 10) -> dict[str, EnergyCurve]:
    """A rail that draws watts for so many ms of each step, in turn, read every so often."""
    curve, energy_j = EnergyCurve(), 0.0
    for at in range(-STEP_MS, seconds * STEP_MS, every_ms):
        curve.time_ns.append(START + at * MS)
        curve.energy_j.append(energy_j)
        within = at % STEP_MS
        for watts, until in parts:
            if within < until:
                energy_j += watts * every_ms / 1000
                break
    return {"package-0": curve}


FORWARD_40_W_THEN_20_W = power((40.0, 400), (20.0, 1000))


class TestTime:
    def test_is_the_mean_of_the_measured_steps(self) -> None:
        warm = steps_lasting(STEP_MS, stage="warmup")
        of_warmup = spans(("forward", 999), steps=1)

        found = find_phases(
            a_run(),
            steps_lasting(STEP_MS, STEP_MS, after=warm),
            of_warmup + spans(("forward", 400), ("backward", 600), steps=2, first=1),
            {},
        )

        assert found.phases == {"forward": Phase(ms=400.0, j=None), "backward": Phase(ms=600.0, j=None)}

    def test_of_several_batches_a_step_is_added_up(self) -> None:
        phases = [("forward", 100.0), ("backward", 200.0)] * 2 + [("optimizer", 50.0)]

        found = find_phases(a_run(accumulation=2), steps(), spans(*phases), {})

        assert found.phases is not None
        assert {name: phase.ms for name, phase in found.phases.items()} == {
            **{"forward": 200.0, "backward": 400.0, "optimizer": 50.0}
        }

    def test_of_an_ordinary_run_is_none(self) -> None:
        assert find_phases(a_record(), steps(), [], FORWARD_40_W_THEN_20_W) == (None, [])


class TestJoules:
    def test_are_those_of_the_meter_where_it_is_fast_enough(self) -> None:
        found = find_phases(a_run(), steps(), spans(("forward", 400), ("backward", 600)), FORWARD_40_W_THEN_20_W)

        assert found.phases is not None
        assert {name: round(phase.j or 0.0, 6) for name, phase in found.phases.items()} == {
            "forward": 16.0,
            "backward": 12.0,
        }
        assert [note.partition(":")[0] for note in found.notes] == ["This run was instrumented"]

    def test_of_a_phase_that_is_short_against_the_meter_are_none_with_the_reason(self) -> None:
        found = find_phases(
            a_run(period_s=0.1),
            steps(),
            spans(("copy", 10), ("forward", 390), ("backward", 600)),
            FORWARD_40_W_THEN_20_W,
        )

        assert found.phases is not None
        assert {name: phase.j is None for name, phase in found.phases.items()} == {
            **{"copy": True, "forward": True, "backward": False}
        }
        assert found.notes[1] == (
            "No joules for copy, forward: a phase must last 500 ms at a time for this meter to tell it from the next. "
            "Larger batches make phases longer."
        )

    def test_of_what_the_meter_did_not_cover_are_none(self) -> None:
        found = find_phases(a_run(), steps(), spans(("forward", 400)), power((40.0, 1000), seconds=2))

        assert found.phases == {"forward": Phase(ms=400.0, j=None)}
        assert found.notes[1:] == ["No joules for forward: the meter did not cover all steps from end to end."]

    def test_without_a_meter_are_none_and_nothing_is_said_of_it(self) -> None:
        run = a_record(cell=a_cell(phases=True))

        found = find_phases(run, steps(), spans(("forward", 400)), {})

        assert (found.phases, len(found.notes)) == ({"forward": Phase(ms=400.0, j=None)}, 1)

    def test_of_reading_alone_are_not_asked_for(self) -> None:
        """The device goes on with the step before meanwhile."""
        run = a_run()
        run = a_record(rails=run.rails, cell=a_cell(include_data=True))

        found = find_phases(run, steps(), spans(("data", 400)), FORWARD_40_W_THEN_20_W)

        assert found == ({"data": Phase(ms=400.0, j=None)}, [])
