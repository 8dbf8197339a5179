"""How long a rank works itself in a step that it shares with others: by the clock, or by device events."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic_ns

from powerbench.devices.timers import Event


class ClockStopwatch:
    """Work is done when Python is past it, as on the processor.

    Writes int64 pairs (arrived_ns, work_ns), one a step: the moment at which its own part was done, and how long that
    took since the step began.
    """

    def __init__(self, work: memoryview, *, clock: Callable[[], int] = monotonic_ns) -> None:
        """Write into `work`; `clock` in ns."""
        self._work = work
        self._clock = clock
        self._at: int | None = None
        self._start_ns = 0

    def begin(self, index: int) -> None:
        """Here begins step `index`."""
        self._at = 2 * index
        self._start_ns = self._clock()

    def arrive(self) -> None:
        """Here ends what the step takes of this rank alone; of several in one step, the first counts."""
        if self._at is not None:
            now = self._clock()
            self._work[self._at + 1], self._work[self._at] = now - self._start_ns, now
            self._at = None

    def settle(self) -> None:
        """Nothing waits to be read."""


class EventStopwatch:
    """A pair of device events a step, which stall nothing, and are read once the device has passed them.

    The moment of arrival is Python's: it tells who has submitted its part of a step and who hangs before that.
    """

    def __init__(
        self, work: memoryview, *, new_event: Callable[[], Event], clock: Callable[[], int] = monotonic_ns
    ) -> None:
        """Write into `work`; `clock` in ns."""
        self._work = work
        self._new_event = new_event
        self._clock = clock
        self._at: int | None = None
        self._begun: Event | None = None
        self._spare: list[Event] = []
        self._unread: deque[tuple[int, Event, Event]] = deque()

    def begin(self, index: int) -> None:
        """Here begins step `index`: what is submitted from now on is its work."""
        self._at = 2 * index
        self._begun = self._recorded()

    def arrive(self) -> None:
        """Here ends what the step takes of this rank alone; of several in one step, the first counts."""
        if self._at is not None and self._begun is not None:
            self._unread.append((self._at, self._begun, self._recorded()))
            self._work[self._at] = self._clock()
            self._at = None

    def settle(self) -> None:
        """Write down the work of the steps that the device has passed, without waiting for it."""
        while self._unread and self._unread[0][2].query():
            at, begun, done = self._unread.popleft()
            self._work[at + 1] = round(begun.elapsed_time(done) * 1e6)  # float32 ms: 8 ns in 100 ms
            self._spare += [begun, done]

    def _recorded(self) -> Event:
        event = self._spare.pop() if self._spare else self._new_event()
        event.record()
        return event
