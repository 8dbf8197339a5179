"""The recorder's end of the line to the keeper: what only root may start or open is started and opened there."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from threading import Lock

from powerbench.errors import MeterLost
from powerbench.keeper import SOCKET_VARIABLE

# The keeper waits for 2 s before it kills what it started.
ANSWER_S = 5.0
LONGEST_ANSWER = 4096
MOST_FILES = 2


class Keeper:
    """Asks the keeper. Any thread may: one question at a time."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._line.settimeout(ANSWER_S)
        self._asking = Lock()

    def start_powermetrics(self, *, period_ms: int, samplers: Sequence[str]) -> tuple[int, int]:
        """The stdout and stderr of a powermetrics that root has started. Raises MeterLost."""
        stdout, stderr = self._ask(f"powermetrics {period_ms} {','.join(samplers)}", files=2)
        return stdout, stderr

    def open_counter(self, zone: str) -> int:
        """The energy counter of a powercap zone (`intel-rapl:0`), open for reading. Raises MeterLost."""
        return self._ask(f"counter {zone}", files=1)[0]

    def end(self) -> int | None:
        """End what was started; its exit status, negative for a signal, or None where nothing is known of it."""
        with self._asking:
            try:
                self._line.send(b"end\n")
                answer, _ = self._answer()
            except OSError:
                return None
        status = answer.removeprefix("ended").strip()
        return int(status) if status else None

    def is_gone(self) -> bool:
        """Whether the keeper has ended, and with it what this recorder was started for."""
        with self._asking:
            try:
                return bool(select.select([self._line], [], [], 0)[0]) and not self._line.recv(1, socket.MSG_PEEK)
            except OSError:
                return True

    def _ask(self, request: str, *, files: int) -> list[int]:
        with self._asking:
            try:
                self._line.send(f"{request}\n".encode())
                answer, fds = self._answer()
            except OSError as error:
                raise MeterLost(f"the keeper, which runs as root, does not answer ({error})") from error
        if answer != "ok" or len(fds) != files:
            raise MeterLost(f"the keeper, which runs as root, says {answer or 'nothing'}")
        return fds

    def _answer(self) -> tuple[str, list[int]]:
        data, fds, _, _ = socket.recv_fds(self._line, LONGEST_ANSWER, MOST_FILES)
        for fd in fds:
            os.set_inheritable(fd, False)
        return data.decode("ascii", errors="replace").strip(), fds


@cache
def our_keeper() -> Keeper | None:
    """The keeper that has started this process; None where there is none."""
    return keeper_of(os.environ)


def keeper_of(variables: Mapping[str, str]) -> Keeper | None:
    """The keeper at the end of the socket that was passed to us; None without one."""
    number = variables.get(SOCKET_VARIABLE, "")
    if not number.isdecimal():
        return None
    with suppress(OSError):
        os.set_inheritable(int(number), False)
        return Keeper(socket.socket(fileno=int(number)))
    return None
