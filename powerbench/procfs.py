"""Linux's counters of machine and processes, in files that stay open.

The kernel makes such a file anew at each look. Where a measured process fills the caches, opening one and letting go of
it again costs two to four times what the look itself does, and it is the measured machine that pays.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

# man 5 proc, of the first line of /proc/stat; older kernels end sooner.
SPENT = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")
PAGE_BYTES = os.sysconf("SC_PAGESIZE")
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
# What is looked for stands in the first lines; the kernel gives no more than a page at once.
LOOK_BYTES = 4096


class OpenFile:
    """A file that the kernel makes anew at each look; it is let go of with this object. Raises OSError."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._fd)

    def look(self) -> bytes:
        """How it begins now. Raises OSError, of which ProcessLookupError says that its process is gone."""
        return os.pread(self._fd, LOOK_BYTES, 0)


def if_there(path: str) -> OpenFile | None:
    """The file, or None where the kernel was built without it, or a sandbox shows none (gVisor has no vmstat)."""
    with suppress(OSError):
        return OpenFile(path)
    return None


class CoreTimes:
    """What the time of all cores has gone to. Raises OSError."""

    def __init__(self) -> None:
        self._stat = OpenFile("/proc/stat")

    def look(self) -> Mapping[str, int]:
        """The ticks so far, by what they went to."""
        _, *spent = self._stat.look().partition(b"\n")[0].split()
        return dict(zip(SPENT, map(int, spent), strict=False))


class MemoryUse(NamedTuple):
    """What is left of the machine's memory, and what has gone through its swap since it started.

    What is unknown is None. On macOS the bytes in and out count pages of files too.
    """

    available_bytes: int | None
    swap_used_bytes: int | None
    in_bytes: int | None
    out_bytes: int | None


class MemoryFiles:
    """The memory of the machine, as far as there are files that tell."""

    def __init__(self, meminfo: str = "/proc/meminfo", vmstat: str = "/proc/vmstat") -> None:
        self._meminfo, self._vmstat = if_there(meminfo), if_there(vmstat)

    def look(self) -> MemoryUse:
        """What it holds now. Raises OSError."""
        sizes = b"" if self._meminfo is None else self._meminfo.look()
        counts = b"" if self._vmstat is None else self._vmstat.look()
        available_kb = number_of(b"MemAvailable:", sizes)
        swap_kb, free_kb = number_of(b"SwapTotal:", sizes), number_of(b"SwapFree:", sizes)
        pages_in, pages_out = number_of(b"pswpin", counts), number_of(b"pswpout", counts)
        return MemoryUse(
            available_bytes=None if available_kb is None else available_kb * 1024,
            swap_used_bytes=None if swap_kb is None or free_kb is None else (swap_kb - free_kb) * 1024,
            in_bytes=None if pages_in is None else pages_in * PAGE_BYTES,
            out_bytes=None if pages_out is None else pages_out * PAGE_BYTES,
        )


def number_of(name: bytes, lines: bytes) -> int | None:
    """The number beside `name` in lines of `name number [unit]`, or None where it has none."""
    _, found, rest = lines.partition(b"\n" + name + b" ")
    return int(rest.split(None, 1)[0]) if found else None


class Usage(NamedTuple):
    """What a process holds, and what it has used since it began.

    `page_ins` are pages that were read back from disk; None where the system does not say. `waited_s` is how long its
    first thread, which makes the steps, could have run and had no core; None where the system does not count that, or
    the thread has had no turn.
    """

    rss_bytes: int
    busy_s: float
    page_ins: int | None
    waited_s: float | None


class ProcessFiles:
    """A process, from outside. Raises OSError where there is none."""

    def __init__(self, pid: int) -> None:
        self._stat = OpenFile(f"/proc/{pid}/stat")
        self._statm = OpenFile(f"/proc/{pid}/statm")
        self._schedstat = if_there(f"/proc/{pid}/schedstat")

    def look(self) -> Usage:
        """What it has used by now. Raises OSError once the process is gone."""
        # man 5 proc: the name, field 2, may hold anything but ends with the last parenthesis. majflt is field 12,
        # utime and stime are 14 and 15. The rss in field 24 may lag behind that in statm.
        fields = self._stat.look().rpartition(b")")[2].split(None, 14)
        return Usage(
            rss_bytes=int(self._statm.look().split(None, 2)[1]) * PAGE_BYTES,
            busy_s=(int(fields[11]) + int(fields[12])) / TICKS_A_SECOND,
            page_ins=int(fields[9]),
            waited_s=None if self._schedstat is None else waited_s(self._schedstat.look()),
        )


def waited_s(schedstat: bytes) -> float | None:
    """The wait in a thread's schedstat."""
    fields = schedstat.split()
    # Documentation/scheduler/sched-stats: time on a core, time waiting for one (ns), turns; zeros where it is off.
    return int(fields[1]) / 1e9 if len(fields) == 3 and int(fields[2]) else None
