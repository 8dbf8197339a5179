"""What wakes the supervisor: duties that come round by the clock, and signals as messages."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType
from typing import Literal

Message = Literal["interrupt", "worker ended"]


class Duty:
    """Something to do once a period: late is done once, not made up for."""

    def __init__(self, period_s: float, do: Callable[[], object]) -> None:
        self._period_s = period_s
        self._do = do
        self.due_s = time.monotonic()

    def do_if_due(self) -> None:
        """Do it where its time has come."""
        now_s = time.monotonic()
        if now_s >= self.due_s:
            self._do()
            self.due_s = max(self.due_s + self._period_s, now_s + self._period_s / 2)


@contextmanager
def signals_to(inbox: SimpleQueue[Message]) -> Iterator[None]:
    """While inside, Ctrl-C, SIGTERM and SIGHUP are messages: a signal never tears the record in the middle."""

    def note(number: int, frame: FrameType | None) -> None:
        inbox.put("interrupt")

    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # What is ignored stays so: nohup, and a shell that starts a job in the background, mean it.
    heard = [number for number in watched if signal.getsignal(number) is not signal.SIG_IGN]
    before = [signal.signal(number, note) for number in heard]
    try:
        yield
    finally:
        for number, handler in zip(heard, before, strict=True):
            signal.signal(number, handler)
