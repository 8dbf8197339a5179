"""A run, what py-spy saw of it, and what that cost: what every form of it is made of, and the words they share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from powerbench.analysis.flame import Cost, Flame, WindowName, find_flame
from powerbench.reports.terminal import headline, machine_line
from powerbench.rundir.load import Run
from powerbench.rundir.stacks import Frame, Stacks
from powerbench.units import NS_PER_MS, NS_PER_S, counted, duration, milliseconds, significant

LIBRARY = re.compile(r".*/(?P<name>[^/]+?)(\.so|\.dylib)[^/]*$")
PACKAGED = re.compile(r".*/(site-packages|lib/python3\.\d+t?)/")
LOCALS = "<locals>."


class Burnt(NamedTuple):
    """A run and where its time and joules went."""

    run: Run
    stacks: Stacks
    flame: Flame

    @property
    def rank(self) -> int:
        """The rank at which py-spy looked: the first of this machine."""
        return self.run.ranks[0]


def burn(run: Run, *, window: WindowName, by_line: bool) -> Burnt:
    """Attribute what the run cost. Raises PowerbenchError where it holds no stacks, or no measured step."""
    run.record.the_cell  # noqa: B018  # of a recording of power, this says what to name instead
    stacks = run.stacks()
    return Burnt(
        run,
        stacks,
        find_flame(run.record, run.together, run.curves(), stacks, window=window, by_line=by_line),
    )


def of_what(burnt: Burnt) -> list[str]:
    """What was measured, and on which machine."""
    return [headline(burnt.run.record), machine_line(burnt.run.record)]


def lead(burnt: Burnt) -> str:
    """`100 measured steps: 812 J in 40.1s, 20.2 W on average; covers package-0.`"""
    flame = burnt.flame
    steps = f"{counted(flame.steps, 'step')}, warm-up included" if flame.window == "all" else measured(flame.steps)
    whole = flame.whole
    if flame.joules_reason is not None:
        return f"{steps}: {duration(whole.seconds)}. No joules: {flame.joules_reason.rstrip('.')}."
    return (
        f"{steps}: {significant(whole.joules)} J in {duration(whole.seconds)}, {watts(whole)} W on average; covers "
        f"{flame.scope}.{_of_ranks(burnt)}"
    )


def _of_ranks(burnt: Burnt) -> str:
    ranks = len(burnt.run.ranks)
    return f" Those of all {ranks} ranks, by the stacks of rank {burnt.rank}." if ranks > 1 else ""


def measured(steps: int) -> str:
    """`1 measured step`, `100 measured steps`."""
    return counted(steps, "measured step")


def watts(cost: Cost) -> str:
    """The mean power, or a dash of something that took no time of its own."""
    return significant(cost.joules / cost.seconds) if cost.seconds > 0 and cost.joules > 0 else "-"


def share(flame: Flame, cost: Cost) -> float:
    """The part of the whole: of its joules where they are known, else of its time."""
    part, whole = (
        (cost.seconds, flame.whole.seconds) if flame.joules_reason is not None else (cost.joules, flame.whole.joules)
    )
    return part / whole if whole > 0 else 0.0


def short_name(frame: Frame) -> str:
    """A function as its class writes it: `Linear.forward`, `training_step.step`."""
    return frame.name.replace(LOCALS, "")


def short_file(frame: Frame) -> str:
    """`torch/nn/modules/linear.py`, `libtorch_cpu`, `mine/train.py:12`: enough to know it by."""
    library = LIBRARY.fullmatch(frame.file)
    if library is not None:
        return library["name"]
    inside = PACKAGED.sub("", frame.file)
    name = "/".join(inside.split("/")[-2:]) if inside == frame.file else inside
    return f"{name}:{frame.line}" if frame.line and name else name


def sentences(burnt: Burnt) -> list[str]:
    """What must be known to read it right."""
    return [
        *_on_the_ranks(burnt),
        *_on_the_device(burnt),
        *_on_the_looks(burnt),
        *_on_the_meter(burnt),
        *burnt.flame.notes,
    ]


def _on_the_ranks(burnt: Burnt) -> Iterator[str]:
    ranks = len(burnt.run.ranks)
    if ranks == 1:
        return
    if burnt.flame.joules_reason is not None:
        yield f"The stacks are those of rank {burnt.rank} of the {ranks} on this machine."
        return
    yield (
        f"The stacks are those of rank {burnt.rank}, the joules those of all {ranks} ranks on this machine, each of "
        "which does the same with a batch of its own. A line that waits for another rank has the joules of its work."
    )


def _on_the_device(burnt: Burnt) -> Iterator[str]:
    flame = burnt.flame
    if burnt.run.record.the_cell.device == "cpu":
        return
    name = burnt.run.record.the_cell.device
    step = short_name(flame.step) if flame.step is not None else "step"
    given = f" ({significant(flame.device_j)} J)" if flame.device_j else ""
    yield (
        f"{name} works while Python goes on. What it used{given}, and the time in which it was waited for, is "
        f"attributed to the step as a whole (`{step}`), not to the line that happened to wait."
    )


def _on_the_looks(burnt: Burnt) -> Iterator[str]:
    stacks, flame = burnt.stacks, burnt.flame
    native = "with the frames of C and C++" if stacks.native else "Python's frames only"
    yield (
        f"{stacks.sampler} looked {stacks.rate_hz:,} times a second, {native}; its looks lie on the machine's clock to "
        f"within {milliseconds(max(stacks.time_uncertainty_ns, 1000) / NS_PER_MS, 2)}."
    )
    if stacks.time_uncertainty_ns > NS_PER_S / stacks.rate_hz:
        yield "That is more than the time between two looks: on a quieter machine it is less."
    if flame.shared_s:
        yield (
            f"For {duration(flame.shared_s)} several threads were busy at once. Each has an equal share of that time, "
            "and of its joules."
        )


def _on_the_meter(burnt: Burnt) -> Iterator[str]:
    period_s = burnt.flame.slowest_period_s
    if period_s is None:
        return
    yield (
        f"The meter is read each {milliseconds(period_s * 1000, 2)}: of functions that take turns within a few of its "
        "readings, some of the power of one is given to the other. All that it read is shared out, what py-spy itself "
        "used among it."
    )
