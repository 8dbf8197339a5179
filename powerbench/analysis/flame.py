"""Where the time and the joules of a run went, by frame: each stack for as long as it stood, at the power of then.

      power    ▁▁▁▁▁█████▁▁▁▁▁█████        joules between two looks, from the curves of the counted rails
      stack    │ a  │ b  │ a  │ b  │       are those of the stack that stood meanwhile

Where several threads were busy at once, each has an equal share of the moment: of its time, and of its joules. On a
device that works while Python goes on, the joules of what is not the processor belong to the step as a whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

from powerbench.analysis.alignment import line_of
from powerbench.analysis.counted import counted_rails, scope_in_words
from powerbench.analysis.curves import Line, common, duration_s, within
from powerbench.analysis.energy import find_energy
from powerbench.analysis.folding import FramePath, from_the_step_on, simple, step_of, without_waits
from powerbench.analysis.standing import Spent, spend
from powerbench.errors import PowerbenchError
from powerbench.records import EnergyCurve, RailRecord, RunRecord, StepTrace, Window
from powerbench.rundir.stacks import Frame, Stacks

WindowName = Literal["measured", "all"]
WINDOWS: tuple[WindowName, ...] = get_args(WindowName)
# A counter that is published so much more often than it is read shows what is true at the moment.
FRESH = 0.1
AN_ECHO = 0.97
ROUNDING = 1e-9
# Rails of what runs Python's own lines. What else is counted belongs to the device, except where the processor is that.
PROCESSOR_PARTS = ("cpu", "package")


class Cost(NamedTuple):
    """Seconds, and the joules of them; 0 J where none are known is told by whoever holds it."""

    seconds: float
    joules: float

    def plus(self, other: Cost) -> Cost:
        """Both together."""
        return Cost(self.seconds + other.seconds, self.joules + other.joules)


NO_COST = Cost(0.0, 0.0)


@dataclass(frozen=True)
class Flame:
    """`costs`: what each path of frames cost itself, without what it called.

    `whole` is the window, and what is in no path of it could not be attributed. `joules_reason` says why no joules are
    known; None where they are. `step`: the frame to which the device's own joules were given (`device_j`); None on the
    cpu. `shared_s`: how long several threads were busy at once. `notes`: of the energy.
    """

    window: WindowName
    steps: int
    costs: dict[FramePath, Cost]
    whole: Cost
    joules_reason: str | None
    scope: str | None = None
    slowest_period_s: float | None = None
    step: Frame | None = None
    device_j: float = 0.0
    shared_s: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def attributed(self) -> Cost:
        """All paths together."""
        return sum_of(self.costs.values())

    @property
    def unattributed(self) -> Cost:
        """What no stack was known for; what rounding leaves is nothing."""
        found, whole = self.attributed, self.whole
        seconds, joules = whole.seconds - found.seconds, whole.joules - found.joules
        return Cost(
            seconds if seconds > ROUNDING * whole.seconds else 0.0, joules if joules > ROUNDING * whole.joules else 0.0
        )


def sum_of(costs: Iterable[Cost]) -> Cost:
    """The sum of costs."""
    total = NO_COST
    for cost in costs:
        total = total.plus(cost)
    return total


def find_flame(
    record: RunRecord,
    steps: StepTrace,
    curves: Mapping[str, EnergyCurve],
    stacks: Stacks,
    *,
    window: WindowName = "measured",
    by_line: bool = False,
) -> Flame:
    """The time and joules of a run by path. Raises PowerbenchError where the window is empty."""
    stretches, count = _stretches(steps, window)
    stretch = Window(stretches[0].start_ns, stretches[-1].end_ns)
    found = find_energy(record, steps, curves)
    rails = counted_rails(record) if found.energy is not None else []
    lines = {name: _line(curves.get(name, EnergyCurve()), record.rails[name], stretch) for name in rails}
    covered = [lines[name].covered(stretch) for name in rails]
    part = common([it for it in covered if it is not None]) if rails and None not in covered else None
    reason = found.reason if part is not None or not rails else "the meter gave nothing in this window"
    if part is None:
        lines = {}
    else:
        stretches = within(stretches, part)
    on_cpu = record.the_cell.device == "cpu"
    own = [line for name, line in lines.items() if on_cpu or record.rails[name].part in PROCESSOR_PARTS]
    of_device = [line for name, line in lines.items() if not (on_cpu or record.rails[name].part in PROCESSOR_PARTS)]
    spent = [spend(stacks, it, own, of_device) for it in stretches]
    folding = _Folding(stacks, on_cpu=on_cpu, by_line=by_line)
    return Flame(
        window=window,
        steps=count,
        costs=folding.costs(each for it in spent for each in it.each),
        whole=Cost(
            sum(map(duration_s, stretches)),
            sum(line.energy_in(it) or 0.0 for line in lines.values() for it in stretches),
        ),
        joules_reason=reason,
        scope=scope_in_words(record, rails) if lines else None,
        slowest_period_s=max((record.rails[name].period_s for name in lines), default=None),
        step=None if on_cpu else folding.step,
        device_j=sum(each.device_j for it in spent for each in it.each),
        shared_s=sum(it.shared_s for it in spent),
        notes=found.notes if lines else [],
    )


def _line(curve: EnergyCurve, rail: RailRecord, window: Window) -> Line:
    """The rail's curve in time.

    A counter that moves all the while is right as it was read. To look for the moments of its publications, as one must
    for slower ones, may move it by half the time between two readings, which is nothing to a whole run, but much here.
    """
    import numpy as np

    if rail.method == "counter" and rail.published_s is not None and rail.published_s <= FRESH * rail.period_s:
        return Line(np.asarray(curve.time_ns, dtype=np.float64), np.asarray(curve.energy_j, dtype=np.float64))
    return line_of(curve, rail, window=window)


def _stretches(steps: StepTrace, window: WindowName) -> tuple[list[Window], int]:
    """The window on the clock, of which pauses between measured steps are no part; and the number of steps in it."""
    if window == "measured":
        found, count = steps.stretches("step"), sum(number for _, _, number in steps.spans("step"))
    else:
        ends = [end for end in steps.end_ns if end is not None]
        found, count = [Window(steps.start_ns[0], ends[-1])] if ends else [], len(steps) - steps.stage.count("pause")
    if not found:
        raise PowerbenchError("No step was measured to its end, so there is nothing to attribute: measure longer.")
    return found, count


class _Folding:
    """Stacks as paths, each folded once."""

    def __init__(self, stacks: Stacks, *, on_cpu: bool, by_line: bool) -> None:
        self._stacks = stacks
        self._by_line = by_line
        self.step = None if on_cpu else step_of(map(self._frames, range(len(stacks.stacks))), by_line=by_line)
        self._step = self.step or Frame("step", "", 0)
        self._on_cpu = on_cpu

    def costs(self, spent: Iterable[Spent]) -> dict[FramePath, Cost]:
        """What each path cost itself."""
        costs: dict[FramePath, Cost] = defaultdict(lambda: NO_COST)
        for it in spent:
            for path, cost in self._shares(it):
                costs[path] = costs[path].plus(cost)
        return dict(costs)

    def _shares(self, it: Spent) -> Iterator[tuple[FramePath, Cost]]:
        frames = self._frames(it.stack)
        if not it.thread.steps:
            yield (
                (Frame(f"thread {it.thread.name}", "", 0), *simple(frames, by_line=self._by_line)),
                Cost(it.seconds, it.own_j + it.device_j),
            )
            return
        path = from_the_step_on(frames, by_line=self._by_line)
        yield path if self._on_cpu else without_waits(path, self._step), Cost(it.seconds, it.own_j)
        if it.device_j:
            yield (self._step,), Cost(0.0, it.device_j)

    def _frames(self, stack: int) -> list[Frame]:
        return [self._stacks.frames[at] for at in self._stacks.stacks[stack]]


class Row(NamedTuple):
    """A function, or a line of one: what it cost itself, and with all that it called."""

    frame: Frame
    own: Cost
    total: Cost


def rows_of(flame: Flame) -> list[Row]:
    """All frames; the dearest in themselves first."""
    own: dict[Frame, Cost] = defaultdict(lambda: NO_COST)
    total: dict[Frame, Cost] = defaultdict(lambda: NO_COST)
    for path, cost in flame.costs.items():
        if path:
            own[path[-1]] = own[path[-1]].plus(cost)
        for frame in dict.fromkeys(path):  # one that calls itself counts once
            total[frame] = total[frame].plus(cost)
    rows = [Row(frame, own[frame], cost) for frame, cost in total.items()]
    return sorted(rows, key=lambda row: (row.own.joules, row.own.seconds), reverse=True)


def echoes(flame: Flame) -> set[Frame]:
    """The frames that only one other calls, and that have nearly all of what that one has: they tell nothing new."""
    callers: dict[Frame, set[Frame]] = defaultdict(set)
    for path in flame.costs:
        for caller, frame in pairwise(path):
            callers[frame].add(caller)
    totals = {row.frame: row.total for row in rows_of(flame)}
    return {
        frame
        for frame, its in callers.items()
        if len(its) == 1 and totals[frame].seconds >= AN_ECHO * totals[next(iter(its))].seconds
    }


@dataclass
class Box:
    """A frame in the tree: what it and all below it cost."""

    frame: Frame
    cost: Cost = NO_COST
    below: dict[Frame, Box] = field(default_factory=dict)


def tree_of(flame: Flame) -> Box:
    """The paths as a tree below one frame for all."""
    root = Box(Frame("all", "", 0))
    for path, cost in flame.costs.items():
        box = root
        box.cost = box.cost.plus(cost)
        for frame in path:
            box = box.below.setdefault(frame, Box(frame))
            box.cost = box.cost.plus(cost)
    return root
