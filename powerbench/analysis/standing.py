"""Which stack of which thread stood at each moment of a window, and what the moments of each cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from powerbench.analysis.curves import Line
from powerbench.analysis.folding import is_resting
from powerbench.records import Window
from powerbench.rundir.stacks import NOTHING, NS_PER_US, Stacks, ThreadStacks
from powerbench.units import NS_PER_S

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


# py-spy does not tell that a thread has ended, nor that it left Python for good (torch's own threads are in it for a
# moment at a time): its last stack then stands until it is seen again. In so many looks one that works has moved on.
LONGEST_LOOKS = 10


class Spent(NamedTuple):
    """What one stack of one thread took: `own_j` at its own moments, `device_j` of the device meanwhile."""

    thread: ThreadStacks
    stack: int
    seconds: float
    own_j: float
    device_j: float


class SpentAll(NamedTuple):
    """All of them, and how long several threads were busy at once."""

    each: list[Spent]
    shared_s: float


def spend(stacks: Stacks, window: Window, own: Sequence[Line], of_device: Sequence[Line]) -> SpentAll:
    """The time and joules of the window on the stacks that stood at each moment of it."""
    import numpy as np

    resting = np.array([is_resting([stacks.frames[at] for at in stack]) for stack in stacks.stacks] or [True])
    rows = [_Row(stacks, thread, window) for thread in stacks.threads]
    rows = [row for row in rows if row.is_busy_ever(resting)]
    ends = np.array([window.start_ns, window.end_ns])
    edges = np.unique(np.concatenate([ends, *(row.inside for row in rows)]))
    standing = [row.at(edges[:-1]) for row in rows]
    busy = [row.is_busy(edges[:-1], resting) for row in rows]
    number = sum((mask.astype(np.int64) for mask in busy), start=np.zeros(len(edges) - 1, dtype=np.int64))
    share = 1.0 / np.maximum(number, 1)
    seconds = np.diff(edges) / NS_PER_S
    amounts = [seconds * share, *(_joules(lines, edges) * share for lines in (own, of_device))]
    each = [
        Spent(row.thread, int(stack), *(float(sums[stack]) for sums in by_stack))
        for row, stood, mask in zip(rows, standing, busy, strict=True)
        for by_stack in [[np.bincount(stood[mask], weights=amount[mask]) for amount in amounts]]
        for stack in np.unique(stood[mask])
    ]
    return SpentAll(each, float(seconds[number > 1].sum()))


def _joules(lines: Sequence[Line], edges: Ints) -> Floats:
    """The joules of these rails together between each two neighbouring edges."""
    import numpy as np

    used = np.zeros(len(edges) - 1)
    for line in lines:
        used += np.diff(np.interp(edges, line.time_ns, line.energy_j))
    return used


class _Row:
    """One thread's stacks in a window, each from where it probably began.

    Looks come at random (py-spy draws the time between two from an exponential distribution, so as not to keep time
    with the program), so that a change lies one mean period before the look that saw it, on average.
    """

    def __init__(self, stacks: Stacks, thread: ThreadStacks, window: Window) -> None:
        import numpy as np

        late_ns = NS_PER_S // stacks.rate_hz
        self.thread = thread
        self._time_ns = stacks.start_ns + np.asarray(thread.time_us, dtype=np.int64) * NS_PER_US - late_ns
        self._stack = np.asarray([NOTHING, *thread.stack], dtype=np.int64)
        is_short = np.diff(self._time_ns) <= LONGEST_LOOKS * late_ns
        self._moves = np.array([False, *is_short, False])
        is_inside = (self._time_ns > window.start_ns) & (self._time_ns < window.end_ns)
        self.inside: Ints = self._time_ns[is_inside]
        self._seen = np.concatenate([[window.start_ns], self.inside])

    def at(self, moments_ns: Ints) -> Ints:
        """The stack at each of these moments."""
        import numpy as np

        return np.asarray(self._stack[self._stretch(moments_ns)])

    def _stretch(self, moments_ns: Ints) -> Ints:
        """The number of the stretch, from one change to the next, in which each of these moments lies."""
        import numpy as np

        return np.asarray(np.searchsorted(self._time_ns, moments_ns, side="right"))

    def is_busy(self, moments_ns: Ints, resting: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """At which of these moments it is: the thread of the steps at all, whatever it waits for is the step's.

        Another is where it moves, and waits for nothing.
        """
        stretch = self._stretch(moments_ns)
        stood = self._stack[stretch]
        there: NDArray[np.bool_] = stood != NOTHING
        return there if self.thread.steps else there & self._moves[stretch] & ~resting[stood]

    def is_busy_ever(self, resting: NDArray[np.bool_]) -> bool:
        """Whether it counts at all in this window."""
        return self.thread.steps or bool(self.is_busy(self._seen, resting).any())
