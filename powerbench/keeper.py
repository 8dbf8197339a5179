"""What runs as root under sudo, and all that does: starts powermetrics, opens energy counters, ends what it started.

    keeper (root)  <--- one socket --->  recorder (the user)
                        powermetrics 100 cpu_power,gpu_power    ok, and its stdout and stderr
                        counter intel-rapl:0                    ok, and the open file
                        end                                     ended -15

The recorder is a new process that has become the invoking user before Python starts in it. It can ask for nothing but
the above; when its end of the socket closes, what was started is ended. Only the standard library is imported here, so
that whoever has to allow it can read all of it.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple

POWERMETRICS = "/usr/bin/powermetrics"
POWERCAP = Path("/sys/class/powercap")
SOCKET_VARIABLE = "POWERBENCH_KEEPER"
SAMPLERS = ("cpu_power", "gpu_power", "ane_power", "thermal")
# The smallest interval in any recording; the quantum of 1 mJ is then 10 mW.
SHORTEST_PERIOD_MS = 100
# How long powermetrics may take to end after SIGTERM. Half as much again after its pipe is closed, where it is root's.
GRACE_S = 2.0
LONGEST_REQUEST = 4096
# How often the keeper looks whether the sudo that started it is still there.
LOOK_S = 1.0
# -I: nothing from the current folder, no variable of Python's. -B: no bytecode is written.
ISOLATED = ("-B", "-I", "-m", "powerbench")
# setgroups takes no more on macOS (NGROUPS_MAX).
MOST_GROUPS = 16


class User(NamedTuple):
    """Whom the password database knows."""

    name: str
    uid: int
    gid: int
    home: str


def is_for_another(variables: Mapping[str, str], *, effective_uid: int) -> bool:
    """Whether this is root on behalf of somebody else."""
    return effective_uid == 0 and variables.get("SUDO_UID", "0") != "0"


def main(arguments: Sequence[str]) -> int:
    """`powerbench power` under sudo; returns its exit status. Of anything else it refuses to do a thing as root."""
    isolated = sys.flags.isolated and sys.flags.dont_write_bytecode
    if not isolated:
        forget_bytecode()
    if list(arguments[:1]) != ["power"]:
        sys.stderr.write(
            "powerbench: Run this without sudo: only `power` needs root, for meters that are root's. Leave "
            f"`{recorder_command()}` running in another terminal; a run finds it by itself.\n"
        )
        return 1
    if not isolated:
        os.execv(sys.executable, [sys.executable, *ISOLATED, *arguments])
    try:
        user = invoking_user(os.environ)
    except (KeyError, ValueError):
        sys.stderr.write("powerbench: sudo does not say for whom it runs (SUDO_UID): log in as that user and retry.\n")
        return 1
    return keep([sys.executable, *ISOLATED, *arguments], user)


def invoking_user(variables: Mapping[str, str]) -> User:
    """For whom sudo runs us. Raises KeyError, ValueError."""
    entry = pwd.getpwuid(int(variables["SUDO_UID"]))
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)


def keep(recorder: Sequence[str], user: User, *, program: str = POWERMETRICS, powercap: Path = POWERCAP) -> int:
    """Run `recorder` as `user` and do what it asks until it is gone; returns its exit status as a shell has it."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            try:
                child = start_as(user, recorder, theirs)
            except PermissionError:
                sys.stderr.write(
                    f"powerbench: {user.name} may not run {recorder[0]}: install powerbench where that user can read "
                    "it, in a virtual environment of their own.\n"
                )
                return 1
        pass_signals_to(child)
        with Kept(program, powercap) as kept:
            serve(ours, kept)
    status = child.wait()  # our end is closed: the recorder ends if it has not
    return 128 - status if status < 0 else status


def start_as(user: User, command: Sequence[str], theirs: socket.socket) -> subprocess.Popen[bytes]:
    """Start `command` as `user`: groups, group and user are set for good before it is executed."""
    return subprocess.Popen(
        command,
        user=user.uid,
        group=user.gid,
        extra_groups=os.getgrouplist(user.name, user.gid)[:MOST_GROUPS],
        pass_fds=[theirs.fileno()],
        env={
            **os.environ,
            SOCKET_VARIABLE: str(theirs.fileno()),
            "HOME": user.home,
            "USER": user.name,
            "LOGNAME": user.name,
        },
    )


def pass_signals_to(child: subprocess.Popen[bytes]) -> None:
    """What ends us is for the recorder to obey; a Ctrl-C at the terminal has reached it by itself."""

    def hand_on(number: int, frame: FrameType | None) -> None:
        if not (number == signal.SIGINT and terminal_is_ours()):
            child.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, hand_on)


def terminal_is_ours() -> bool:
    """Whether what is typed at the terminal signals our whole process group, and not us alone."""
    try:
        terminal = os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def serve(ours: socket.socket, kept: Kept) -> None:
    """Answer each request, a line, until there are no more, or the sudo that started us was killed."""
    waiting = b""
    sudo = parent_if_sudo()
    while data := receive(ours, sudo):
        *requests, waiting = (waiting + data).split(b"\n")
        if len(waiting) > LONGEST_REQUEST:
            return
        for request in requests:
            answer, fds = kept.answer(request.decode("ascii", errors="replace").split())
            with suppress(OSError):  # it has gone; the next look says so
                socket.send_fds(ours, [f"{answer}\n".encode()], fds)
            kept.hand_over()


def receive(ours: socket.socket, sudo: int | None) -> bytes:
    """What comes next; nothing at the end."""
    ours.settimeout(LOOK_S)
    while sudo is None or os.getppid() == sudo:
        try:
            return ours.recv(LONGEST_REQUEST)
        except TimeoutError:
            continue
        except OSError:
            return b""
    return b""


def parent_if_sudo() -> int | None:
    """The process that started us, where it is sudo; a shell that ends under `nohup` is no reason to end.

    sudo hands signals on, but SIGKILL cannot be handed on.
    """
    parent = os.getppid()
    try:
        name = Path(f"/proc/{parent}/comm").read_text("utf-8", errors="replace")
    except OSError:  # macOS
        ps = ["/bin/ps", "-o", "comm=", "-p", str(parent)]
        try:
            name = subprocess.run(ps, capture_output=True, text=True, errors="replace", timeout=LOOK_S).stdout
        except (OSError, subprocess.TimeoutExpired):
            return None
    return parent if name.strip().rpartition("/")[2] == "sudo" else None


class Kept:
    """What was started or opened for the recorder: at most one powermetrics at a time, ended with us."""

    def __init__(self, program: str, powercap: Path) -> None:
        self._program = program
        self._powercap = powercap
        self._child: subprocess.Popen[bytes] | None = None
        self._lent: list[int] = []

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def answer(self, request: Sequence[str]) -> tuple[str, list[int]]:
        """The answer to a request in words, and the files that go with it."""
        match request:
            case ["powermetrics", period_ms, samplers]:
                return self.start(period_ms, samplers.split(","))
            case ["counter", zone]:
                return self.open_counter(zone)
            case ["end"]:
                return self.end(), []
        return "no: unknown request", []

    def start(self, period_ms: str, samplers: Sequence[str]) -> tuple[str, list[int]]:
        """Start powermetrics, with numbers and names that are known to be harmless."""
        if not re.fullmatch(r"\d{3,7}", period_ms) or int(period_ms) < SHORTEST_PERIOD_MS:
            return "no: not a period", []
        if not samplers or not set(samplers) <= set(SAMPLERS):
            return "no: not a sampler", []
        self.end()
        try:
            self._child = subprocess.Popen(
                powermetrics_command(self._program, period_ms=int(period_ms), samplers=samplers),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,  # a Ctrl-C at the terminal is not for it
                cwd="/",
                env={"LC_ALL": "C", "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
            )
        except OSError as error:
            return f"no: {error.strerror}", []
        assert self._child.stdout is not None
        assert self._child.stderr is not None
        self._lent = [os.dup(self._child.stdout.fileno()), os.dup(self._child.stderr.fileno())]
        self._child.stdout.close()
        self._child.stderr.close()
        return "ok", self._lent

    def open_counter(self, zone: str) -> tuple[str, list[int]]:
        """Open the energy counter of a zone of the kernel's, to read and for nothing else."""
        if not re.fullmatch(r"intel-rapl(-mmio)?:\d{1,3}(:\d{1,3})?", zone):
            return "no: not a zone", []
        try:
            self._lent = [os.open(self._powercap / zone / "energy_uj", os.O_RDONLY | os.O_CLOEXEC)]
        except OSError as error:
            return f"no: {error.strerror}", []
        return "ok", self._lent

    def hand_over(self) -> None:
        """The recorder has them now: a pipe that it closes must end its writer."""
        for fd in self._lent:
            os.close(fd)
        self._lent = []

    def end(self) -> str:
        """End powermetrics and nobody else's: ask, wait, kill."""
        child = self._child
        if child is None:
            return "ended"
        if child.poll() is None:  # while it has not been waited for, its number is no one else's
            child.terminate()
            try:
                child.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        return f"ended {child.returncode}"


def powermetrics_command(program: str, *, period_ms: int, samplers: Sequence[str]) -> list[str]:
    """The whole command. stdout is a pipe: the short option of the output file changed its meaning."""
    options = ["-f", "plist", "-i", str(period_ms), "-b", "0", "--show-usage-summary"]
    return [program, *options, "--samplers", ",".join(samplers)]


def recorder_command() -> str:
    """What to type for a recorder with root's meters."""
    return shlex.join(["sudo", sys.executable, *ISOLATED, "power"])


def forget_bytecode() -> None:
    """Remove what Python compiled as root before it could be told not to, out of folders that are not root's."""
    for module in list(sys.modules.values()):
        cached = getattr(module, "__cached__", None)
        if isinstance(cached, str):
            with suppress(OSError):
                _remove_roots(Path(cached))


def _remove_roots(cached: Path) -> None:
    """Remove the file, and its `__pycache__`, where they are root's in another's folder. No link is followed there."""
    folder = os.open(cached.parent.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.fstat(folder).st_uid == 0:
            return
        caches = os.open(cached.parent.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            if os.stat(cached.name, dir_fd=caches, follow_symlinks=False).st_uid == 0:
                os.unlink(cached.name, dir_fd=caches)
            is_roots = os.fstat(caches).st_uid == 0
        finally:
            os.close(caches)
        if is_roots:
            os.rmdir(cached.parent.name, dir_fd=folder)  # if it is empty
    finally:
        os.close(folder)
