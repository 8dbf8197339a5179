"""How an unprivileged run finds the recorder of power: one small file under the user's home, and a lock as its pulse.

The home is the password database's: the environment is asked on neither side, so that under sudo both mean the same.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from powerbench.environment import boot_id
from powerbench.errors import PowerbenchError
from powerbench.records import RailRecord

PLACE = ".local/state/powerbench/live.json"
# The file is rewritten in place, under its lock: whoever reads in between looks again.
LOOKS, LOOK_AGAIN_S = 5, 0.02
# They move where sensors are read from, for tests and containers; under sudo nobody looks at them.
MOVING = ("POWERBENCH_SYSFS", "POWERBENCH_POWERMETRICS")


class Live(Struct, frozen=True, kw_only=True):
    """What a recorder says of itself: where it writes, on which boot, what its rails are by now, and whose they are.

    `moved` is where its sensors are read from, if not from this machine's own places.
    """

    schema: int = 1
    pid: int
    boot_id: str | None
    run: str
    rails: dict[str, RailRecord]
    moved: dict[str, str] = {}


class Found(NamedTuple):
    """A recorder that lives, or the sentence that says why there is none to attach to."""

    live: Live | None
    why_not: str | None


class AlreadyLive(PowerbenchError):
    """Another recorder of this user is at work, and runs attach to that one."""


def live_path() -> Path:
    """Where this user's recorder is announced."""
    return Path(pwd.getpwuid(os.getuid()).pw_dir) / PLACE


def moved_sensors(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Where sensors are read from, if not from this machine's own places."""
    return {} if "SUDO_UID" in variables else {name: variables[name] for name in MOVING if variables.get(name)}


class Publisher:
    """Announces a recorder for as long as it is open. Raises AlreadyLive, OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = self._taken()
        while not self._is_at_its_place():  # the recorder before us was just removing it
            os.close(self._file)
            self._file = self._taken()

    def say(self, live: Live) -> None:
        """Say this from now on. Raises OSError."""
        data = msgspec.json.encode(live) + b"\n"
        os.pwrite(self._file, data, 0)
        os.ftruncate(self._file, len(data))

    def close(self) -> None:
        """Announce nothing any more; closing twice is no error."""
        if self._file >= 0:
            with suppress(OSError):
                self._path.unlink()
            os.close(self._file)
            self._file = -1

    def _taken(self) -> int:
        """The file, opened and locked. A link planted there is not followed."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(file).st_uid != os.getuid():
                raise PermissionError(errno.EPERM, "it belongs to another user", str(self._path))
            os.fchmod(file, 0o600)
            _lock(file)
        except BaseException:
            os.close(file)
            raise
        return file

    def _is_at_its_place(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), os.lstat(self._path))
        except FileNotFoundError:
            return False


def _lock(file: int) -> None:
    for _ in range(LOOKS):  # a reader tries the lock for a moment
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(LOOK_AGAIN_S)
    raise AlreadyLive(
        "Another `powerbench power` of yours is recording, and runs attach to that one; this recording is complete "
        "all the same."
    )


def find_live(path: Path | None = None, *, boot: Callable[[], str | None] = boot_id) -> Found:
    """The recorder that is announced at `path`, this user's own place by default."""
    try:
        path = path or live_path()
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError, KeyError):
        return Found(None, None)
    except OSError as error:
        return Found(None, f"{path} cannot be read ({error.strerror}): remove it and start the recorder again.")
    try:
        return _look(path, file, boot)
    finally:
        os.close(file)


def _look(path: Path, file: int, boot: Callable[[], str | None]) -> Found:
    state = os.fstat(file)
    if state.st_uid != os.getuid() or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return Found(None, f"{path} may have been written by another user and is not believed: remove it.")
    live, held = _read(file), _is_held(file)
    if live is None:
        gone = "another powerbench wrote it" if held else "a recorder that was killed left it"
        return Found(None, f"{path} says nothing that this powerbench understands ({gone}): remove it.")
    if live.boot_id != boot():
        return Found(None, f"{path} was left by a recorder before this boot: start `powerbench power` anew.")
    if held and live.moved != moved_sensors():
        return Found(None, f"The recorder at work (pid {live.pid}) reads other sensors ({' or '.join(MOVING)} differ).")
    if not held:
        return Found(None, f"The recorder (pid {live.pid}) is gone without a word: start `powerbench power` anew.")
    return Found(live, None)


def _read(file: int) -> Live | None:
    for _ in range(LOOKS):
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            live = msgspec.json.decode(os.pread(file, 1 << 20, 0), type=Live)
            return live if live.schema == 1 else None
        time.sleep(LOOK_AGAIN_S)
    return None


def _is_held(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False
