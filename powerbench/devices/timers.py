"""The timers: how the boundary between two steps gets its moments on the clock, by waiting or by device events."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic_ns
from typing import Any, Protocol


class Event(Protocol):
    """The part of `torch.cuda.Event` that a timer needs."""

    def record(self) -> object:
        """Enqueue the event behind the work submitted so far."""

    def query(self) -> bool:
        """Whether the device has passed it; does not wait."""

    # Any: the other event is of the same class, which a protocol cannot say without making every user generic.
    def elapsed_time(self, end_event: Any, /) -> float:
        """From this event to a later one: milliseconds, rounded to float32."""


class InstantTimer:
    """Each boundary is an edge at once: when Python is past the step, the device is too."""

    anchor_error_ns: int | None = None

    def __init__(self, marks: memoryview, *, clock: Callable[[], int] = monotonic_ns) -> None:
        """Write into `marks`; `clock` in ns."""
        self._marks = marks
        self._clock = clock
        self._at = 0
        self._last = 0

    def mark(self) -> int:
        """Stamp the boundary; ns."""
        at = self._at
        self._last = self._marks[at] = self._marks[at + 1] = now = self._clock()
        self._at = at + 2
        return now

    def resume(self) -> int:
        """Stamp the end of a pause; ns."""
        self._last = _close_pause(self._marks, self._at, self._clock())
        self._at += 2
        return self._last

    def go_on_in(self, marks: memoryview) -> None:
        """Write into `marks` from now on, a longer mapping of the same file."""
        self._marks = marks

    def fence(self) -> int:
        """The last edge, which stands already; ns."""
        return self._last

    def settle(self) -> None:
        """Nothing waits to be read."""

    def finish(self) -> None:
        """Nothing is left to read."""


class FencedTimer:
    """The origin and each `sync_every`-th boundary wait for the device and are edges; with 0, others by `fence` only.

    submit ─┐ step i enqueued           end ─┐ synchronize returned
    ────────●────────────────────────────────●──────> clock
    """

    anchor_error_ns: int | None = None

    def __init__(
        self,
        marks: memoryview,
        *,
        synchronize: Callable[[], object],
        sync_every: int,
        clock: Callable[[], int] = monotonic_ns,
    ) -> None:
        """Write into `marks`; `synchronize` returns when the device has finished; `clock` in ns."""
        self._marks = marks
        self._synchronize = synchronize
        self._every = sync_every
        self._clock = clock
        self._open = 0
        self._at = 0
        self._last = 0

    def mark(self) -> int:
        """Stamp the submission, and where a fence is due wait and stamp the edge; the later of the two in ns."""
        at = self._at
        self._marks[at] = now = self._clock()
        self._at = at + 2
        self._open += 1
        return self.fence() if self._open == self._every or at == 0 else now

    def resume(self) -> int:
        """Wait for the device and stamp the end of a pause; ns. Steps before it that have no edge get none."""
        self._synchronize()
        self._last = _close_pause(self._marks, self._at, self._clock())
        self._at += 2
        self._open = 0
        return self._last

    def go_on_in(self, marks: memoryview) -> None:
        """Write into `marks` from now on, a longer mapping of the same file."""
        self._marks = marks

    def fence(self) -> int:
        """Wait for the device and give the last boundary its edge; ns. Where it has one, nothing is waited for."""
        if self._open:
            self._synchronize()
            self._last = self._marks[self._at - 1] = self._clock()
            self._open = 0
        return self._last

    def settle(self) -> None:
        """Nothing waits to be read."""

    def finish(self) -> None:
        """Nothing is left to read."""


class EventTimer:
    """One device event a boundary, so that nothing stalls; the origin ties the device's clock to ours.

        events   ●────●─────●────●────●      edge = origin's stamp + differences of neighbours, summed
        clock    ●────────────────────●┄┤    a fence: synchronize, then stamp
                 origin              anchor_error_ns

    `finish` compares the edge of the last fenced boundary with the fence's stamp: `anchor_error_ns` is how much later
    the clock was; None before. In it are what `synchronize` took to return at the end more than at the origin, which
    is microseconds, and the rate of the device's oscillator against ours: at 20 ppm 12 ms in ten minutes.

    It is stated and left where it is. Spread over the edges it would change what the device measured, and rewrite edges
    that the journal has already folded; put on a fence's boundary it would make one step long. Left, each step lasts
    what the device says, an edge is final once written, and against the joules all edges shift by parts in a million.

    Edges are written in order, as the journal reads them, and not by `fence` but by `settle` or `finish`. The events of
    boundaries that have been read are used again, so there are as many as steps since the last `settle`, and those in
    flight. None are made ahead: the driver makes its own only at the first `record`.
    """

    def __init__(
        self,
        marks: memoryview,
        *,
        synchronize: Callable[[], object],
        new_event: Callable[[], Event],
        clock: Callable[[], int] = monotonic_ns,
    ) -> None:
        """Write into `marks`; `synchronize` returns when the device has finished; `clock` in ns."""
        self.anchor_error_ns: int | None = None
        self._marks = marks
        self._synchronize = synchronize
        self._new_event = new_event
        self._clock = clock
        self._at = 0  # the place in `marks` of the next boundary
        self._fenced_at = 0  # what `_at` was at the last fence, and its stamp
        self._fence_ns = 0
        self._spare: list[Event] = []
        self._unread: deque[Event] = deque()
        self._read: Event | None = None  # the newest event that was read, its place,
        self._read_at = 0
        self._elapsed_ns = 0.0  # and its time since the origin; a sum rounds by 0.004 ns at ten hours

    def mark(self) -> int:
        """Stamp the submission and enqueue an event; ns. The first one, the origin, is fenced and has its edge."""
        at = self._at
        event = self._spare.pop() if self._spare else self._new_event()
        self._marks[at] = now = self._clock()
        event.record()
        self._at = at + 2
        if at == 0:
            self._read = event
            self._marks[1] = now = self.fence()
        else:
            self._unread.append(event)
        return now

    def resume(self) -> int:
        """Enqueue the event that ends a pause, behind what was submitted in it; ns."""
        event = self._spare.pop() if self._spare else self._new_event()
        now = self._clock()
        event.record()
        self._marks[self._at] = -now
        self._at += 2
        self._unread.append(event)
        return now

    def go_on_in(self, marks: memoryview) -> None:
        """Write into `marks` from now on, a longer mapping of the same file."""
        self._marks = marks

    def fence(self) -> int:
        """Wait for the device; the clock then, in ns. No event is read here, which would delay the next step."""
        if self._fenced_at != self._at:
            self._synchronize()
            self._fence_ns = self._clock()
            self._fenced_at = self._at
        return self._fence_ns

    def settle(self) -> None:
        """Give their edges to the boundaries that the device has passed, without waiting for it.

        For about once a second in the loop, so that a killed run has lost little and events do not pile up.
        """
        while self._unread and self._unread[0].query():
            self._read_next(self._unread.popleft())

    def finish(self) -> None:
        """Read what is left (after a fence, that is everything) and say how far the two clocks are apart."""
        self.settle()
        if self._at and self._fenced_at == self._at and not self._unread:
            self.anchor_error_ns = self._fence_ns - self._marks[self._read_at + 1]

    def _read_next(self, event: Event) -> None:
        # elapsed_time is float32 ms, 24 bits: 8 ns in 100 ms, but 4 ms in ten hours. So only neighbours are compared.
        if self._read is not None:
            self._elapsed_ns += self._read.elapsed_time(event) * 1e6
            self._spare.append(self._read)
        self._read = event
        self._read_at += 2
        self._marks[self._read_at + 1] = self._marks[1] + round(self._elapsed_ns)


def _close_pause(marks: memoryview, at: int, now_ns: int) -> int:
    # A reader takes a boundary for reached by its submit, so that comes last.
    marks[at + 1] = now_ns
    marks[at] = -now_ns
    return now_ns
