"""A powermetrics that runs: its bytes as they come, its last words, and its end, even where it is root's."""

from __future__ import annotations

import os
import re
import selectors
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from powerbench.errors import MeterLost
from powerbench.power.powermetrics.child import Child

LAST_WORDS_S = 0.5
ALREADY_WRITTEN_S = 0.02
CHUNK_BYTES = 1 << 16
STDERR_BYTES = 1 << 13


class LastWords(NamedTuple):
    """How a process ended and what it said on stderr."""

    exit_status: int | None
    lines: list[str]

    @property
    def ending(self) -> str:
        """` (exit status 1): what it said last`."""
        how = "" if self.exit_status is None else f" (exit status {self.exit_status})"
        # These two come with every sample on some machines and mean nothing for the energies (GMT filters them).
        telling = [line for line in self.lines if not line.startswith(("proc_pid", "Second underflow occured"))]
        return f"{how}: {telling[-1]}" if telling else how

    def unrecognized_sampler(self) -> str | None:
        """The sampler that it refused, if it did (asitop#53)."""
        found = [re.search(r"unrecognized sampler: *(\S+)", line) for line in self.lines]
        return next((match[1] for match in found if match), None)

    def from_sudo(self) -> bool:
        """Whether it was sudo that spoke."""
        return any(line.startswith(("sudo:", "Sorry, ")) for line in self.lines)


class Process:
    """A powermetrics whose stdout we read, until it ends or is ended."""

    def __init__(self, child: Child, *, wake_fd: int) -> None:
        self._child = child
        self._wake_fd = wake_fd
        self._stdout, self._stderr = child.stdout, child.stderr
        self._said = b""
        self._selector = selectors.PollSelector()
        for fd in (wake_fd, self._stdout, self._stderr):
            self._selector.register(fd, selectors.EVENT_READ)

    def receive(self, *, patience_s: float) -> bytes | None:
        """What comes next on stdout, `b""` at its end; None where it was woken. Raises MeterLost if nothing comes."""
        deadline_s = time.monotonic() + patience_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            ready = self._ready(left_s)
            if self._wake_fd in ready:
                return None
            if self._stdout in ready:
                return os.read(self._stdout, CHUNK_BYTES)
        raise MeterLost(f"powermetrics has given nothing for {patience_s:g} s")

    def last_words(self) -> LastWords:
        """How it ended, once its stdout has; waits a moment for it to be gone."""
        self._selector.unregister(self._stdout)
        self._hear_out()
        self._child.wait(LAST_WORDS_S)
        torn = len(self._said) == STDERR_BYTES  # only the end was kept
        lines = self._said.decode("utf-8", errors="replace").splitlines()[torn:]
        return LastWords(self._child.exit_status, [line.strip() for line in lines if line.strip()])

    def end(self, *, take: Callable[[bytes], None], grace_s: float) -> str | None:
        """Make it end, handing on what it still says; a note where it did not end as it should."""
        if self._selector.get_map() is None:  # it has been ended
            return None
        self._selector.unregister(self._wake_fd)
        try:
            if not self._child.signal(signal.SIGTERM):
                return self._hang_up(take, patience_s=1.5 * grace_s)
            if self._drained(take, grace_s) and self._child.wait(LAST_WORDS_S):
                return None
            self._child.signal(signal.SIGKILL)
            self._child.wait(grace_s)
            return "powermetrics did not end when asked to and was killed."
        finally:
            self._let_go()

    def _ready(self, timeout_s: float) -> set[int]:
        ready = {key.fd for key, _ in self._selector.select(timeout_s)}
        if self._stderr in ready:
            self._hear()
        return ready

    def _hear(self) -> None:
        said = os.read(self._stderr, CHUNK_BYTES)
        if not said:
            self._selector.unregister(self._stderr)
        self._said = (self._said + said)[-STDERR_BYTES:]

    def _hear_out(self) -> None:
        deadline_s = time.monotonic() + LAST_WORDS_S
        while self._stderr in self._selector.get_map() and (left_s := deadline_s - time.monotonic()) > 0:
            if self._wake_fd in self._ready(left_s):
                return

    def _drained(self, take: Callable[[bytes], None], timeout_s: float) -> bool:
        """Hand on all of stdout; whether its end was reached in time."""
        deadline_s = time.monotonic() + timeout_s
        while self._stdout in self._selector.get_map():
            if (left_s := deadline_s - time.monotonic()) <= 0:
                return False
            if self._stdout in self._ready(left_s) and not self._hand_on(take):
                self._selector.unregister(self._stdout)
        return True

    def _hand_on(self, take: Callable[[bytes], None]) -> bool:
        data = os.read(self._stdout, CHUNK_BYTES)
        with suppress(MeterLost):  # a flood; it is ending anyway
            take(data)
        return bool(data)

    def _hang_up(self, take: Callable[[bytes], None], *, patience_s: float) -> str | None:
        """Root's child cannot be signalled (EPERM): with its pipe closed, SIGPIPE ends it at its next write."""
        self._drained(take, ALREADY_WRITTEN_S)
        self._let_go()
        if self._child.wait(patience_s):
            return None
        self._child.leave()
        return "powermetrics runs as root and could not be ended; it ends by itself when it next writes."

    def _let_go(self) -> None:
        self._selector.close()
        self._child.close()
