"""The worker's part in being looked at: it waits for py-spy, then shows it moments whose times are known.

py-spy counts time from a start of its own that it does not tell. So the worker stands for a while in functions of
different names and notes when it was in which: what py-spy saw in one of them, it saw between two known stamps.

    worker   │ moment_0 │ moment_1 │ moment_2 │ moment_3 │     from stamp to stamp
    py-spy        x                     x  x        x          each look lies in one of them
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path
from types import FunctionType

from powerbench.records import Cell
from powerbench.rundir import RunDir
from powerbench.rundir.lines import EventWriter

MOMENT = "powerbench_moment_"
MOMENTS = 64
# In looks: some twenty of the moments are seen, each narrow against the time between two looks.
MOMENT_LOOKS = 0.4
# py-spy reads the symbols of all of torch's libraries before its first look (seconds).
WAIT_S = 60.0
POLL_S = 0.01
# prctl(2), PR_SET_PTRACER: under Yama (ptrace_scope 1, Ubuntu's and Debian's default) a process may be looked into by
# its ancestors alone; py-spy is none, but a child of the supervisor, and who is named here may, with its children.
PR_SET_PTRACER = 0x59616D61


def is_looked_at(cell: Cell, rank: int) -> bool:
    """Whether py-spy is to look at this rank: at the first of each machine, whose work is that of all."""
    return cell.py_spy and rank % cell.ranks == 0


def be_looked_at(rundir: RunDir, events: EventWriter, *, rank: int, supervisor: int, rate_hz: int) -> None:
    """Say that the steps are about to begin, wait until py-spy looks or has given up, and show it the moments.

    `supervisor` is the process that starts py-spy.
    """
    let_be_traced(by=supervisor)
    events.write("awaits_py_spy", time_ns=time.monotonic_ns(), pid=os.getpid())
    await_file(rundir.py_spy_go(rank), within_s=WAIT_S)
    stamps = show_moments(MOMENT_LOOKS / rate_hz)
    events.write("moments", time_ns=time.monotonic_ns(), stamps=stamps)


def show_moments(seconds: float) -> list[tuple[int, int]]:
    """Stand in each of the moments for so long; when each began and ended (ns)."""
    moments = [named(f"{MOMENT}{number}") for number in range(MOMENTS)]
    stamps = []
    for moment in moments:
        start_ns = time.monotonic_ns()
        moment(seconds)
        stamps.append((start_ns, time.monotonic_ns()))
    return stamps


def named(name: str) -> FunctionType:
    """A function that does nothing for a while, under this name."""

    def moment(seconds: float) -> None:
        time.sleep(seconds)

    return FunctionType(moment.__code__.replace(co_name=name, co_qualname=name), globals(), name)


def await_file(path: Path, *, within_s: float) -> None:
    """Wait until the file is there, or so long."""
    give_up_s = time.monotonic() + within_s
    while not path.exists() and time.monotonic() < give_up_s:
        time.sleep(POLL_S)


def let_be_traced(*, by: int) -> None:
    """Let this process and its children look into us, where the kernel asks for that; elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(by), 0, 0, 0)
