"""What wakes the supervisor: duties that come round by the clock, and signals as messages."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType
from typing import Literal

Message = Literal["interrupt", "workers ended"]


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


class _Note:
    """A handler that turns a signal into a message, and tells whoever listened before."""

    def __init__(self, inbox: SimpleQueue[Message], before: object) -> None:
        self._inbox = inbox
        self._before = before

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._inbox.put("interrupt")
        if isinstance(self._before, _Note):
            self._before(number, frame)


@contextmanager
def signals_to(inbox: SimpleQueue[Message]) -> Iterator[None]:
    """While inside, Ctrl-C, SIGTERM and SIGHUP are messages: a signal never tears the record in the middle.

    Inside another such stretch (a run in a sweep) both hear of it.
    """
    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # What is ignored stays so: nohup, and a shell that starts a job in the background, mean it.
    heard = [number for number in watched if signal.getsignal(number) is not signal.SIG_IGN]
    before = [signal.getsignal(number) for number in heard]
    for number, handler in zip(heard, before, strict=True):
        signal.signal(number, _Note(inbox, handler))
    try:
        yield
    finally:
        for number, handler in zip(heard, before, strict=True):
            signal.signal(number, handler)
