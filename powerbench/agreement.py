"""How ranks come to take equal numbers of steps: about once a second they agree on how many more."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Protocol

from powerbench.devices import Timer
from powerbench.units import NS_PER_S

AGREE_EVERY_NS = NS_PER_S


class Steps(Protocol):
    """The step loop of one rank."""

    @property
    def timer(self) -> Timer:
        """What its marks are made by."""

    def run(self, first: int, *, least: int, until_ns: int = 0, most: int = 0) -> int:
        """Step from `first` to `least`, and on until the clock reads `until_ns` or step `most`; the next step."""


class AgreedSteps:
    """A rank's loop that all ranks leave at the same step: behind it stands the same code as for a rank alone.

    A rank that waits for the others' gradients must not be left by them: neither by a duration, which ends on each
    rank's own clock, nor by Ctrl-C, which reaches each at a moment of its own.

        rank 0  |-|-|-|?|-|-|-|-|-|?    ?: stop? how many steps until the next agreement?
        rank 1  |-|-|-|?|-|-|-|-|-|?       each the largest that any rank names; none: the end
    """

    def __init__(
        self,
        steps: Steps,
        *,
        largest: Callable[[Sequence[int]], list[int]],
        asked_to_stop: Sequence[int],
        stopped: list[int],
        clock: Callable[[], int] = monotonic_ns,
    ) -> None:
        """Of numbers that every rank gives, `largest` makes the largest each, when all have given theirs.

        `asked_to_stop` is empty until this rank is asked to. `stopped` is then filled on all of them; `steps` looks at
        it too.
        """
        self.timer = steps.timer
        self._steps = steps
        self._largest = largest
        self._asked_to_stop = asked_to_stop
        self._stopped = stopped
        self._clock = clock
        self._a_step_ns: int | None = None

    def run(self, first: int, *, least: int, until_ns: int = 0, most: int = 0) -> int:
        """As `Steps.run`, to the same step on all ranks, for which `least` and `most` are equal."""
        index = first
        while not self._stopped and (index < least or until_ns > 0):
            wanted = self._wanted(index, least=least, until_ns=until_ns, most=most)
            if not wanted:
                # So that a wait for the others is not taken for the device's: most likely this is the end.
                self.timer.fence()
            stop, wanted = self._largest([len(self._asked_to_stop), wanted])
            if stop:
                self._stopped.append(stop)
            elif wanted:
                index = self._take(index, wanted)
            else:
                break
        return index

    def _wanted(self, index: int, *, least: int, until_ns: int, most: int) -> int:
        """How many more steps this rank wants to take until the next agreement; 0 where it is done."""
        if index < least:
            return min(least - index, self._steps_in(AGREE_EVERY_NS))
        left_ns = until_ns - self._clock()
        return min(max(0, most - index), self._steps_in(min(left_ns, AGREE_EVERY_NS))) if left_ns > 0 else 0

    def _steps_in(self, stretch_ns: int) -> int:
        """How many steps a stretch takes, by the last ones; one where none has been taken."""
        return 1 if self._a_step_ns is None else max(1, math.ceil(stretch_ns / self._a_step_ns))

    def _take(self, index: int, steps: int) -> int:
        start_ns = self._clock()
        reached = self._steps.run(index, least=index + steps)
        self._a_step_ns = max(1, (self._clock() - start_ns) // steps)
        return reached
