"""What a stepping process says of itself between two steps: its memory, and garbage collections that a step notices."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from powerbench.devices import Device, Stopwatch
from powerbench.rundir.lines import EventWriter
from powerbench.units import NS_PER_MS, NS_PER_S

REPORT_EVERY_NS = NS_PER_S
FULL_COLLECTION = 2
# Of the young generations' collections, which come all the time, those that a step can notice.
LONG_COLLECTION_NS = NS_PER_MS


class Reporter:
    """Writes memory gauges, and garbage collections that are full or long, as events; at most once a second.

    A rank among several has a `watch`, whose readings are then written too.
    """

    def __init__(
        self,
        events: EventWriter,
        device: Device,
        watch: Stopwatch | None = None,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._events = events
        self._device = device
        self._watch = watch
        self._clock_ns = clock_ns
        self._collections: list[tuple[int, int, int]] = []
        self._started_ns = 0

    def __enter__(self) -> Reporter:
        gc.callbacks.append(self.collected)
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self.collected)
        self._write_collections()
        self._settle()

    def __call__(self, now_ns: int) -> int:
        """Report, and say when to come again (ns)."""
        memory = self._device.memory()
        if memory:
            self._events.write("memory", time_ns=now_ns, **memory)
        self._write_collections()
        self._settle()
        return now_ns + REPORT_EVERY_NS

    def collected(self, phase: str, info: dict[str, int]) -> None:
        """Take note of a collection that begins or ends, as the interpreter tells it (gc.callbacks)."""
        now, generation = self._clock_ns(), info["generation"]
        if phase == "start":
            self._started_ns = now
        elif generation == FULL_COLLECTION or now - self._started_ns >= LONG_COLLECTION_NS:
            self._collections.append((self._started_ns, now, generation))

    def _settle(self) -> None:
        if self._watch is not None:
            self._watch.settle()

    def _write_collections(self) -> None:
        for start, end, generation in self._collections:
            self._events.write("gc", time_ns=start, end_ns=end, generation=generation)
        self._collections.clear()
