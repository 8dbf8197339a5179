"""Joules by frame, exactly: what each stack cost in the time in which it stood, at the power of then."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from powerbench.analysis.flame import Cost, Flame, find_flame, rows_of, tree_of
from powerbench.errors import PowerbenchError
from powerbench.records import DeviceRecord, EnergyCurve, StepTrace
from powerbench.rundir.stacks import Frame, Stacks
from tests.rundir import MS, START, a_cell, a_rail, a_record, steps_lasting
from tests.rundir.stacks import LOOP, STEP, Stretch, a_frame, stacks_of

HOT, COLD = a_frame("hot"), a_frame("cold")
MARK = Frame("FencedTimer.mark", "/src/powerbench/devices/timers.py", 90)
S = 1_000_000_000
TEN_SECONDS = steps_lasting(*[1000.0] * 10)
RAPL = {"package-0": a_rail(part="package", published_s=0.001)}


def curve(*watts: float) -> EnergyCurve:
    """A rail that drew so much in each second from START on, around them as in the first and last; read at 10 Hz."""
    seconds = [*[watts[0]] * 2, *watts, *[watts[-1]] * 2]
    tenths = [each for each in seconds for _ in range(10)]
    joules = [0.0]
    for each in tenths:
        joules.append(joules[-1] + each / 10)
    return EnergyCurve([START - 2 * S + at * 100 * MS for at in range(len(joules))], joules)


def in_turns(*, begin: float = 0.0) -> list[Stretch]:
    """Two seconds of hot, two of cold, and so on."""
    return [(begin + 2 * at, (LOOP, STEP, HOT if at % 2 == 0 else COLD)) for at in range(6)]


HOT_AND_COLD = curve(50, 50, 10, 10, 50, 50, 10, 10, 50, 50)


def burn(
    stacks: Stacks, curves: dict[str, EnergyCurve] | None = None, steps: StepTrace = TEN_SECONDS, **how: Any
) -> Flame:
    record = a_record(**({"rails": RAPL} | how.pop("record", {})))
    return find_flame(record, steps, {"package-0": HOT_AND_COLD} if curves is None else curves, stacks, **how)


def rounded(cost: Cost) -> Cost:
    return Cost(round(cost.seconds, 6), round(cost.joules, 6))


def costs_of(flame: Flame) -> dict[str, tuple[float, float]]:
    """Seconds and joules of each function itself."""
    return {row.frame.name: (round(row.own.seconds, 6), round(row.own.joules, 6)) for row in rows_of(flame)}


def test_each_function_has_the_joules_of_its_own_moments() -> None:
    flame = burn(stacks_of(("steps", in_turns())))

    assert costs_of(flame) == {"hot": (6.0, 300.0), "cold": (4.0, 40.0), STEP.name: (0.0, 0.0)}
    assert rounded(flame.whole) == Cost(10.0, 340.0)
    assert rounded(flame.unattributed) == Cost(0.0, 0.0)
    total = {row.frame.name: row.total.joules for row in rows_of(flame)}
    assert total[STEP.name] == pytest.approx(340.0)


def test_what_is_before_and_behind_the_measured_steps_is_not_counted() -> None:
    steps = steps_lasting(*[1000.0] * 4, after=steps_lasting(2000.0, stage="warmup"))

    flame = burn(stacks_of(("steps", in_turns())), steps=steps)

    assert costs_of(flame) == {"cold": (2.0, 20.0), "hot": (2.0, 100.0), STEP.name: (0.0, 0.0)} | costs_of(flame)
    assert (flame.whole.seconds, flame.steps) == (4.0, 4)
    whole = burn(stacks_of(("steps", in_turns())), steps=steps, window="all")
    assert (whole.whole.seconds, whole.steps) == (6.0, 5)


def working(*frames: Frame, begin: float, end: float) -> list[Stretch]:
    """Between these seconds one frame behind the other, each for a twentieth of a second."""
    return [(begin + at / 20, (frames[at % len(frames)],)) for at in range(round(20 * (end - begin)))]


def test_pauses_between_measured_steps_are_not_counted() -> None:
    steps = steps_lasting(*[1000.0] * 2)
    steps.append("pause", START + 2 * S, START + 5 * S, START + 5 * S)
    paused = steps_lasting(*[1000.0] * 3, after=steps)

    flame = burn(stacks_of(("steps", in_turns())), steps=paused)

    assert costs_of(flame) == {"hot": (3.0, 150.0), "cold": (2.0, 20.0)} | {STEP.name: (0.0, 0.0)}
    assert (flame.whole.seconds, flame.steps) == (5.0, 5)
    whole = burn(stacks_of(("steps", in_turns())), steps=paused, window="all")
    assert (whole.whole.seconds, whole.steps) == (8.0, 5)


def test_threads_that_are_busy_at_once_have_equal_shares() -> None:
    reading, parsing, waiting = a_frame("read_file"), a_frame("parse"), (a_frame("wait"),)
    other = [(0.0, waiting), *working(reading, parsing, begin=4.0, end=6.0), (6.0, waiting)]

    flame = burn(stacks_of(("steps", in_turns()), ("loader", other)))

    assert costs_of(flame)["hot"] == (5.0, 250.0)
    assert costs_of(flame)["read_file"] == costs_of(flame)["parse"] == (0.5, 25.0)
    assert flame.shared_s == 2.0
    assert flame.attributed.joules == pytest.approx(340.0)
    assert {path[0].name for path in flame.costs} == {STEP.name, "thread loader"}


def test_a_thread_that_stands_still_from_end_to_end_is_not_busy() -> None:
    flame = burn(stacks_of(("steps", in_turns()), ("reader", [(0.0, (a_frame("read_from_a_pipe_of_mine"),))])))

    assert costs_of(flame)["hot"] == (6.0, 300.0)


def test_a_thread_that_was_seen_once_and_is_gone_is_not_busy_until_it_is_seen_again() -> None:
    calling, ending = a_frame("a_callback_of_torchs_own_thread"), a_frame("another_of_its_callbacks")

    flame = burn(stacks_of(("steps", in_turns()), ("15391", [(1.0, (calling,)), (5.0, (ending,)), (30.0, ())])))

    assert costs_of(flame)["hot"] == (6.0, 300.0)
    assert flame.shared_s == 0


def test_moments_without_a_stack_are_attributed_to_nothing() -> None:
    late = stacks_of(("steps", [(4.0, (LOOP, STEP, HOT)), (6.0, (LOOP, STEP, COLD)), (8.0, ())]))

    flame = burn(late)

    assert costs_of(flame) == {"hot": (2.0, 100.0), "cold": (2.0, 20.0), STEP.name: (0.0, 0.0)}
    assert rounded(flame.unattributed) == Cost(6.0, 220.0)


def test_without_power_there_is_time_and_a_reason() -> None:
    flame = burn(stacks_of(("steps", in_turns())), {}, record={"rails": {}, "cell": a_cell(power="none")})

    assert costs_of(flame) == {"hot": (6.0, 0.0), "cold": (4.0, 0.0), STEP.name: (0.0, 0.0)}
    assert flame.joules_reason == "no meter was asked for (--power none)"


def test_where_the_meter_covers_a_part_that_part_is_told() -> None:
    short = EnergyCurve(HOT_AND_COLD.time_ns[:81], HOT_AND_COLD.energy_j[:81])

    flame = burn(stacks_of(("steps", in_turns())), {"package-0": short})

    assert flame.whole.seconds == pytest.approx(6.0)
    assert costs_of(flame) == {"hot": (4.0, 200.0), "cold": (2.0, 20.0), STEP.name: (0.0, 0.0)}
    assert any(note.startswith("The energy is partial") for note in flame.notes)


def test_by_line_two_lines_of_one_function_are_two() -> None:
    lines = [(float(at), (LOOP, STEP, HOT._replace(line=1 + at % 2))) for at in range(10)]

    assert len(rows_of(burn(stacks_of(("steps", lines)), by_line=True))) == 3
    assert len(rows_of(burn(stacks_of(("steps", lines))))) == 2


def test_a_function_that_calls_itself_is_counted_once() -> None:
    flame = burn(stacks_of(("steps", [(0.0, (LOOP, STEP, HOT, HOT)), (9.99, (LOOP, STEP, HOT))])))

    assert {row.frame.name: round(row.total.seconds, 6) for row in rows_of(flame)} == {"hot": 10.0, STEP.name: 10.0}


def on_a_gpu(part: str, *, device: str) -> Flame:
    """Two seconds of submitting, two of waiting, in turns, on a device that draws 100 W all the while."""
    stacks = stacks_of(("steps", [(2.0 * at, (LOOP, STEP, HOT) if at % 2 == 0 else (LOOP, MARK)) for at in range(6)]))
    rails = {
        "gpu0": a_rail(
            part=part, uuid="GPU-1", method="interval average", source="powermetrics" if device == "mps" else "nvml"
        )
    }
    abacus = DeviceRecord(kind=device, name="Abacus", timer="clock", uuid="GPU-1")
    record = {"rails": rails, "cell": a_cell(device=device), "device": abacus}
    return burn(stacks, {"gpu0": curve(*[100] * 10)}, record=record)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_what_a_device_used_is_the_steps_and_not_the_line_that_waited(device: str) -> None:
    flame = on_a_gpu("gpu", device=device)

    assert costs_of(flame) == {STEP.name: (4.0, 1000.0), "hot": (6.0, 0.0)}
    assert flame.device_j == pytest.approx(1000.0)
    assert flame.step is not None
    assert flame.step.name == STEP.name


def test_on_a_mac_the_processors_own_joules_are_those_of_the_lines_that_it_ran() -> None:
    flame = on_a_gpu("cpu", device="mps")

    assert costs_of(flame) == {STEP.name: (4.0, 400.0), "hot": (6.0, 600.0)}
    assert flame.device_j == 0


def test_the_tree_adds_up() -> None:
    root = tree_of(burn(stacks_of(("steps", in_turns()))))

    step = root.below[STEP._replace(line=0)]
    assert root.cost.joules == pytest.approx(step.cost.joules) == pytest.approx(340.0)
    assert sorted(round(box.cost.joules, 6) for box in step.below.values()) == [40.0, 300.0]


def test_a_run_without_a_measured_step_is_refused() -> None:
    with pytest.raises(PowerbenchError, match="No step was measured to its end"):
        burn(stacks_of(("steps", in_turns())), steps=StepTrace())
    with pytest.raises(PowerbenchError, match="No step was measured to its end"):
        burn(stacks_of(("steps", in_turns())), steps=StepTrace(), window="all")


def test_the_readings_of_the_test_are_a_tenth_of_a_second_apart() -> None:
    assert {after - before for before, after in pairwise(HOT_AND_COLD.time_ns)} == {100 * MS}
