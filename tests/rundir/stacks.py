"""What the tests of stacks share: stacks of a thread whose steps call functions of known lengths."""

from __future__ import annotations

from collections.abc import Sequence

from powerbench.rundir.stacks import Frame, Stacks, ThreadStacks
from tests.rundir import START

LOOP = Frame("Loop.run", "/src/powerbench/worker.py", 148)
STEP = Frame("training_step.<locals>.step", "/src/powerbench/workloads/steps.py", 80)
RATE_HZ = 100
LATE_NS = 10_000_000
"""One period: by so much a change lies before the look that saw it."""


def a_frame(name: str, line: int = 1, file: str = "/home/me/train.py") -> Frame:
    return Frame(name, file, line)


Stretch = tuple[float, Sequence[Frame]]


def stacks_of(*threads: tuple[str, Sequence[Stretch]]) -> Stacks:
    """Threads by name, each with stretches: from so many seconds behind START on, this stack (none: it is gone).

    The thread `steps` is that of the steps. All are looked at as late as looks come on average.
    """
    frames: dict[Frame, int] = {}
    stacks: dict[tuple[int, ...], int] = {}
    found = []
    for name, stretches in threads:
        numbers = []
        for _, stack in stretches:
            key = tuple(frames.setdefault(frame, len(frames)) for frame in stack)
            numbers.append(stacks.setdefault(key, len(stacks)) if stack else -1)
        times = [round(seconds * 1e6) for seconds, _ in stretches]
        found.append(ThreadStacks(name=name, steps=name == "steps", time_us=times, stack=numbers))
    return Stacks(
        sampler="py-spy 0.4.3",
        rate_hz=RATE_HZ,
        native=False,
        start_ns=START + LATE_NS,
        time_uncertainty_ns=200_000,
        frames=[*frames],
        stacks=[[*stack] for stack in stacks],
        threads=found,
    )
