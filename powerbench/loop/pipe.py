"""The process beside, as the program holds it: started with an order, told when it is over, not waited for long."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from powerbench.errors import PowerbenchError
from powerbench.interpreter import code_that_runs
from powerbench.loop.order import OVER, Answer, Order

# Meters are given ten seconds each to end; nothing else takes long.
PATIENCE_S = 60.0
SUPERVISOR = "powerbench.loop.supervisor"


class SupervisorPipe:
    """A process of its own session, so that no Ctrl-C and no closed terminal reaches it.

    It holds one end of a pipe whose other end is ours: when we are gone, however we went, it ends the record.
    """

    def __init__(self, order: Order) -> None:
        """Start it; the path is there for `ps`. Raises PowerbenchError where that fails."""
        try:
            self._process = subprocess.Popen(
                # -P: nothing is imported from the current folder.
                [sys.executable, "-P", "-c", code_that_runs(SUPERVISOR), order.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise PowerbenchError(
                f"The process that records cannot be started ({sys.executable or 'no interpreter'}: {error.strerror}); "
                "start the program with a Python of its own."
            ) from error

    def begin(self, order: Order) -> Path:
        """Give the order, and wait until the meters are open; the run's directory.

        Raises PowerbenchError, of the class that the other process had.
        """
        try:
            answer = self._ask(msgspec.json.encode(order) + b"\n")
        except BaseException:  # Ctrl-C, too: it must not go on without us
            self.close()
            raise
        if answer.run is None:
            self.close()
            error = PowerbenchError(answer.error or "")
            error.exit_status = answer.exit_status
            raise error
        return Path(answer.run)

    def _ask(self, line: bytes) -> Answer:
        said = b""
        with suppress(BrokenPipeError):
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(line)
            self._process.stdin.flush()
            said = self._process.stdout.readline()
        try:
            return msgspec.json.decode(said, type=Answer)
        except msgspec.DecodeError:
            how = "see what it wrote above, and whether `python -m powerbench doctor` works"
            return Answer(error=f"The process that records has ended before it began: {how}.", exit_status=1)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether the process is still there."""
        return self._process.poll() is None

    def end(self) -> bool:
        """Say that it is over, and wait for the record to be whole; whether it is."""
        # A program that has set SIGPIPE back to its default would not survive to write to nobody.
        if self._process.stdin is not None and self.is_alive():
            with suppress(OSError):
                os.write(self._process.stdin.fileno(), OVER)
        return self.close()

    def close(self) -> bool:
        """Let go of the process, which then ends; whether it has, within reason."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            return False
        return True

    def let_go(self) -> None:
        """In a forked child: close what it has inherited, and know that the process is no child of this one."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._process.returncode = 0
