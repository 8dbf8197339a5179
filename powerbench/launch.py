"""A worker, or the launcher of several, as a process: a fresh interpreter, told when to stop and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import NamedTuple

# -P: nothing is imported from the current folder. faulthandler: a crash in native code leaves its stack in the log.
FLAGS = ("-P", "-X", "faulthandler")
WORKER = (sys.executable, *FLAGS, "-m", "powerbench.worker")
LAUNCHER = (sys.executable, *FLAGS, "-m", "powerbench.launcher")


class Commands(NamedTuple):
    """What starts a worker, and what starts the launcher of several."""

    worker: Sequence[str] = WORKER
    launcher: Sequence[str] = LAUNCHER


class WatchedProcess:
    """A process in a group of its own. Its stdin is a pipe of which we hold the other end: when we are gone, it ends.

    Raises OSError where it, or its log, cannot be begun.
    """

    def __init__(self, command: Sequence[str], *, log: Path, when_ended: Callable[[], object]) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        self.pid = self._process.pid
        # Popen.wait with a timeout polls; a thread blocked in waitpid costs the measured machine nothing.
        self._waiter = Thread(target=self._wait, args=(when_ended,), name=f"wait-{self.pid}", daemon=True)
        self._waiter.start()

    @property
    def exit_status(self) -> int | None:
        """As subprocess has it: negative for a signal; None while the process runs."""
        return self._process.returncode

    def stop(self) -> None:
        """Ask it to end; a worker does after the step in flight."""
        signal_group(self.pid, signal.SIGINT)

    def kill(self) -> None:
        """End it now, with everything in its group."""
        signal_group(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill what is left of its group and wait until the process is gone."""
        self.kill()
        self._waiter.join()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _wait(self, when_ended: Callable[[], object]) -> None:
        self._process.wait()
        when_ended()


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to the whole group of a process that leads one."""
    with suppress(ProcessLookupError, PermissionError):  # already gone, or (macOS) only a zombie is left of it
        os.killpg(pid, number)


@contextmanager
def kept_awake() -> Iterator[None]:
    """While inside, a Mac does not go to sleep for want of a user; elsewhere nothing is done."""
    if sys.platform != "darwin":
        yield
        return
    # -w: it ends with us, however we end.
    keeper = subprocess.Popen(["/usr/bin/caffeinate", "-i", "-w", str(os.getpid())], stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        keeper.terminate()
        keeper.wait()
