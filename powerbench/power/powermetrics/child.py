"""Whose child a powermetrics is: our own, or that of the keeper, which runs as root and hands us its pipes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from threading import Event, Thread
from typing import Protocol

from powerbench.errors import MeterLost
from powerbench.power.kept import Keeper


class Child(Protocol):
    """A process that was started with pipes as its stdout and stderr."""

    stdout: int
    stderr: int

    @property
    def exit_status(self) -> int | None:
        """As subprocess has it: negative for a signal; None while it runs, or where that is not known."""

    def signal(self, number: signal.Signals) -> bool:
        """Whether it could be signalled, or is gone anyway."""

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; whether that came in time."""

    def leave(self) -> None:
        """Let it end when it will, without a zombie of it."""

    def close(self) -> None:
        """Let go of its pipes."""


class OwnChild:
    """A process of ours, in a group of its own: a Ctrl-C at the terminal is not for it."""

    def __init__(self, command: Sequence[str], *, signal_group: Callable[[int, int], None] = os.killpg) -> None:
        self._signal_group = signal_group
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                process_group=0,
                env={**os.environ, "LC_ALL": "C"},  # its messages are read
            )
        except OSError as error:
            raise MeterLost(f"cannot start {command[0]}: {error.strerror}") from error
        assert self._child.stdout is not None
        assert self._child.stderr is not None
        self.stdout, self.stderr = self._child.stdout.fileno(), self._child.stderr.fileno()

    @property
    def exit_status(self) -> int | None:
        """See Child."""
        return self._child.returncode

    def signal(self, number: signal.Signals) -> bool:
        """See Child. False where it is root's."""
        if self._child.poll() is not None:
            return True
        try:
            self._signal_group(self._child.pid, number)
        except ProcessLookupError:
            return True
        except PermissionError:  # root's; or on macOS a zombie, which answers the same
            return self._child.poll() is not None
        return True

    def wait(self, timeout_s: float) -> bool:
        """See Child."""
        try:
            self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def leave(self) -> None:
        """See Child."""
        Thread(target=self._child.wait, name="wait-powermetrics", daemon=True).start()

    def close(self) -> None:
        """See Child."""
        for stream in (self._child.stdout, self._child.stderr):
            if stream is not None:
                stream.close()


class KeptChild:
    """A process of the keeper's, which asks it to end, waits and kills by itself when it is told to end it."""

    def __init__(self, keeper: Keeper, *, period_ms: int, samplers: Sequence[str]) -> None:
        self._keeper = keeper
        self.exit_status: int | None = None
        self._gone = Event()
        self._ending: Thread | None = None
        self.stdout, self.stderr = keeper.start_powermetrics(period_ms=period_ms, samplers=samplers)

    def signal(self, number: signal.Signals) -> bool:
        """See Child. False where the keeper is gone; then its pipe ends it."""
        if self._keeper.is_gone():
            return False
        self._have_it_ended()
        return True

    def wait(self, timeout_s: float) -> bool:
        """See Child."""
        self._have_it_ended()
        return self._gone.wait(timeout_s)

    def leave(self) -> None:
        """See Child: it is not ours to wait for."""

    def close(self) -> None:
        """See Child."""
        for fd in (self.stdout, self.stderr):
            os.close(fd)

    def _have_it_ended(self) -> None:
        if self._ending is None:
            self._ending = Thread(target=self._end, name="end-powermetrics", daemon=True)
            self._ending.start()

    def _end(self) -> None:
        self.exit_status = self._keeper.end()
        self._gone.set()
