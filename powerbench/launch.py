"""The worker as a process: a fresh interpreter in a group of its own, told when to stop and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Thread

from powerbench.rundir import RunDir

# -P: nothing is imported from the current folder. faulthandler: a crash in native code leaves its stack in the log.
FLAGS = ("-P", "-X", "faulthandler")
WORKER = (sys.executable, *FLAGS, "-m", "powerbench.worker")


class WorkerProcess:
    """One rank's process. Its stdin is a pipe of which we hold the other end: when we are gone, it ends itself."""

    def __init__(
        self, rundir: RunDir, *, rank: int, when_ended: Callable[[], object], command: Sequence[str] = WORKER
    ) -> None:
        with rundir.log(rank).open("ab") as log:
            self._process = subprocess.Popen(
                [*command, str(rundir.path), str(rank)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        self.pid = self._process.pid
        # Popen.wait with a timeout polls; a thread blocked in waitpid costs the measured machine nothing.
        self._waiter = Thread(target=self._wait, args=(when_ended,), name=f"wait-{rank}", daemon=True)
        self._waiter.start()

    @property
    def exit_status(self) -> int | None:
        """As subprocess has it: negative for a signal; None while the process runs."""
        return self._process.returncode

    def stop(self) -> None:
        """Ask it to end after the step in flight."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """End it now, with everything that it started."""
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """Kill what is left of its group and wait until the process is gone."""
        self.kill()
        self._waiter.join()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):  # already gone, or (macOS) only a zombie is left of it
            os.killpg(self.pid, number)

    def _wait(self, when_ended: Callable[[], object]) -> None:
        self._process.wait()
        when_ended()


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
