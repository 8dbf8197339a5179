"""Stamps of the phases within a step: when each began and ended, in a run that is measured for them."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns


class Laps:
    """Writes int64 pairs (start_ns, end_ns), `width` of them a row; what comes after the last row is not kept.

    row 0: │copy│forward│backward│optimizer│  row 1: ...
    """

    def __init__(
        self,
        view: memoryview,
        *,
        width: int,
        synchronize: Callable[[], object] = lambda: None,
        clock: Callable[[], int] = monotonic_ns,
    ) -> None:
        """Write into `view`, whose last row is scrap; `synchronize` waits for the device at the end of each phase."""
        self._view = view
        self._ints = 2 * width
        self._last_row = len(view) // self._ints - 1
        self._synchronize = synchronize
        self._clock = clock
        self._at = 0
        self._start = 0

    def begin(self, row: int) -> None:
        """Here begins the first phase of this row."""
        self._at = min(row, self._last_row) * self._ints
        self._start = self._clock()

    def lap(self) -> None:
        """Here ends a phase, and the next begins."""
        self._synchronize()
        at = self._at
        self._view[at], self._view[at + 1] = self._start, self._clock()
        self._start = self._view[at + 1]
        self._at = at + 2
