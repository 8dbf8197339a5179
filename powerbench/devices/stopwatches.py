"""How long a rank works itself in a step that it shares with others: by the clock, or by device events."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic_ns

from powerbench.devices.timers import Event


class ClockStopwatch:
    """Work is done when Python is past it, as on the processor.

    Writes int64 pairs (arrived_ns, work_ns), one a step: the moment at which the rank first had to wait for the others,
    or else the end of the step; and, at its end, how long it worked in it.
    """

    def __init__(self, work: memoryview, *, clock: Callable[[], int] = monotonic_ns) -> None:
        """Write into `work`; `clock` in ns."""
        self._work = work
        self._clock = clock
        self._at: int | None = None
        self._since_ns: int | None = None
        self._own_ns = 0

    def begin(self, index: int) -> None:
        """Here begins step `index`."""
        self._at = 2 * index
        self._own_ns = 0
        self._since_ns = self._clock()

    def arrive(self) -> None:
        """Here begins waiting for others."""
        if self._at is not None and self._since_ns is not None:
            now = self._clock()
            self._own_ns += now - self._since_ns
            self._since_ns = None
            self._work[self._at] = self._work[self._at] or now

    def resume(self) -> None:
        """Here ends waiting for others, if it has begun."""
        if self._at is not None and self._since_ns is None:
            self._since_ns = self._clock()

    def end(self) -> None:
        """Here ends the step."""
        if self._at is not None:
            self.arrive()
            self._work[self._at + 1] = self._own_ns
            self._at = None

    def settle(self) -> None:
        """Nothing waits to be read."""


class EventStopwatch:
    """Device events around each stretch of work, which stall nothing, and are read once the device has passed them.

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
        self._since: Event | None = None
        self._stretches: list[tuple[Event, Event]] = []
        self._spare: list[Event] = []
        self._unread: deque[tuple[int, list[tuple[Event, Event]]]] = deque()

    def begin(self, index: int) -> None:
        """Here begins step `index`: what is submitted from now on is its work."""
        self._at = 2 * index
        self._stretches = []
        self._since = self._recorded()

    def arrive(self) -> None:
        """Here begins waiting for others."""
        if self._at is not None and self._since is not None:
            self._stretches.append((self._since, self._recorded()))
            self._since = None
            self._work[self._at] = self._work[self._at] or self._clock()

    def resume(self) -> None:
        """Here ends waiting for others, if it has begun."""
        if self._at is not None and self._since is None:
            self._since = self._recorded()

    def end(self) -> None:
        """Here ends the step."""
        if self._at is not None:
            self.arrive()
            self._unread.append((self._at, self._stretches))
            self._at = None

    def settle(self) -> None:
        """Write down the work of the steps that the device has passed, without waiting for it."""
        while self._unread and self._unread[0][1][-1][1].query():
            at, stretches = self._unread.popleft()
            own_ms = sum(begun.elapsed_time(done) for begun, done in stretches)
            self._work[at + 1] = round(own_ms * 1e6)  # float32 ms: 8 ns in 100 ms
            self._spare += [event for stretch in stretches for event in stretch]

    def _recorded(self) -> Event:
        event = self._spare.pop() if self._spare else self._new_event()
        event.record()
        return event
