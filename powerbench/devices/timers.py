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
    """One device event a boundary, so that nothing stalls; the fences tie the device's clock to ours.

        event     ●────●─────●────●────●     neighbours' differences, summed
        clock     ●────────────────────●     a fence: synchronize, then stamp
                  origin          last boundary

    Between two fences the events say where the edges lie, and the clock says how long it all took. The two never
    agree: a stamp is late by what `synchronize` takes to return (at both ends, so most of that cancels), and the
    device's oscillator runs at its own rate (tens of ppm: a second in ten hours). `anchor_error_ns` is what the clock
    saw more than the events, in the stretch between fences where that was largest; None before the first.

    It is spread over the stretch in proportion to time. The energy curves are on our clock, so both ends must lie on
    it; left alone, the rate would move the last edges by whole steps against the joules, and all of it would end up
    in one step. A common factor changes no step against another, so it can neither make a trend nor hide one.

    The events of boundaries that have been read are used again: their number is that of the steps in flight since
    `settle` was last called. None are made ahead, since the driver makes its own at the first `record`.
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
        self._fenced_at = 0  # what `_at` was at the last fence
        self._last = 0
        self._spare: list[Event] = []
        self._unread: deque[Event] = deque()
        self._anchors: deque[tuple[int, int]] = deque()  # fenced boundaries not yet read: place, stamp in ns
        self._read: Event | None = None  # the newest event that was read
        self._read_at = -2  # its place
        self._stretch_at = 0  # the place of the fence that the current stretch of events starts from,
        self._stretch_ns = 0  # its stamp,
        self._elapsed_ns = 0.0  # and the time from there to the newest event read; a sum rounds by 0.004 ns in 10 h

    def mark(self) -> int:
        """Stamp the submission and enqueue an event; ns. The first one, the origin, is fenced."""
        at = self._at
        event = self._spare.pop() if self._spare else self._new_event()
        self._marks[at] = now = self._clock()
        event.record()
        self._unread.append(event)
        self._at = at + 2
        return now if at else self.fence()

    def fence(self) -> int:
        """Wait for the device and give the last boundary its edge on the clock; ns. No event is read meanwhile."""
        if self._fenced_at != self._at:
            self._synchronize()
            self._last = self._marks[self._at - 1] = self._clock()
            self._anchors.append((self._at - 2, self._last))
            self._fenced_at = self._at
        return self._last

    def settle(self) -> None:
        """Give their edges to the boundaries that the device has passed, without waiting for it.

        For about once a second in the loop, so that a killed run has lost little and events do not pile up. An edge
        is provisional until the next fence: it moves by its part of the anchor error then.
        """
        self._close_stretch()  # the last boundary may have been fenced after it was read
        while self._unread and self._unread[0].query():
            self._read_event(self._unread.popleft())
            self._close_stretch()

    def finish(self) -> None:
        """Read what is left; after the last fence that is everything."""
        self.settle()

    def _read_event(self, event: Event) -> None:
        # elapsed_time is float32 ms, 24 bits: 8 ns in 100 ms, but 4 ms in ten hours. So only neighbours are compared.
        if self._read is not None:
            self._elapsed_ns += self._read.elapsed_time(event) * 1e6
            self._spare.append(self._read)
        self._read = event
        self._read_at += 2
        self._marks[self._read_at + 1] = self._stretch_ns + round(self._elapsed_ns)

    def _close_stretch(self) -> None:
        """Where the newest event read was fenced, make the edges up to it final and start the next stretch there."""
        if not self._anchors or self._anchors[0][0] != self._read_at:
            return
        at, stamp_ns = self._anchors.popleft()
        if at > 0:
            self._spread(at, stamp_ns)
        self._marks[at + 1] = stamp_ns
        self._stretch_at, self._stretch_ns, self._elapsed_ns = at, stamp_ns, 0.0

    def _spread(self, at: int, stamp_ns: int) -> None:
        start_ns, span_ns = self._stretch_ns, stamp_ns - self._stretch_ns
        error_ns = span_ns - round(self._elapsed_ns)
        if self.anchor_error_ns is None or abs(error_ns) > abs(self.anchor_error_ns):
            self.anchor_error_ns = error_ns
        # Events that are all at one moment (no work between them) leave nothing to stretch.
        factor = span_ns / self._elapsed_ns if self._elapsed_ns > 0 else 1.0
        for place in range(self._stretch_at + 3, at, 2):
            self._marks[place] = start_ns + round((self._marks[place] - start_ns) * factor)
