"""Sessions of tests that share a machine: one thread of torch and a recorder each, and some tests alone."""

from __future__ import annotations

import ctypes
import fcntl
import os
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The threads of OpenMP spin while they wait for one another, so that with more of them than cores all wait for long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# sched.h and sys/mount.h
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18


def pytest_configure() -> None:
    """See to it that no run attaches to a recorder of the other session's tests: it is announced in the user's home."""
    if sys.platform != "linux" or os.getuid() != 0:
        return
    state = Path(pwd.getpwuid(0).pw_dir) / ".local/state/powerbench"
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    libc = ctypes.CDLL(None, use_errno=True)
    # In a container this may be refused; then two recorders may meet, which they seldom do.
    if libc.unshare(CLONE_NEWNS) == 0 and libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0:
        libc.mount(b"tmpfs", os.fsencode(state), b"tmpfs", 0, b"mode=0700")


@pytest.fixture(autouse=True)
def _room(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is marked `alone` runs while no other test does: it is about how busy the machine is."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    kind = fcntl.LOCK_SH if request.node.get_closest_marker("alone") is None else fcntl.LOCK_EX
    with (folder / "door").open("w") as door, (folder / "room").open("w") as room:
        fcntl.flock(door, fcntl.LOCK_EX)  # who waits to be alone is passed by nobody
        fcntl.flock(room, kind)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield
