"""What the live view of `powerbench power` costs: its share of a core, its growth, and what it writes, on a terminal.

python tests/benchmarks/bench_live.py [SECONDS] [COLUMNS]
"""

from __future__ import annotations

import argparse
import fcntl
import os
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import psutil

from tests.e2e.test_meters import a_socket

SHARE_LIMIT = 0.02
GROWTH_LIMIT_BYTES = 1_000_000
# Python's own start, and the first frames, which set up what later ones use again.
SETTLE_S = 5.0
CLEAR_SCREEN = (b"\x1b[2J", b"\x1b[H", b"\x1bc")


def main() -> int:
    """Print each figure beside its limit; 1 if one is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", type=float, nargs="?", default=60.0)
    parser.add_argument("columns", type=int, nargs="?", default=80)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, a_socket(Path(folder) / "sys") as counters:
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, asked.columns, 0, 0))
        process = subprocess.Popen(
            [sys.executable, "-m", "powerbench", "power", "--power", "rapl", "--output", f"{folder}/runs"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=os.environ | counters.variables,
        )
        os.close(theirs)
        read(ours, SETTLE_S)
        before_s, before_bytes = used(process)
        written = read(ours, asked.seconds)
        after_s, after_bytes = used(process)
        process.kill()
        process.wait()
    share, growth = (after_s - before_s) / asked.seconds, after_bytes - before_bytes
    clears = sum(written.count(code) for code in CLEAR_SCREEN)
    print(f"the live view's share of a core: {share:.2%} (limit {SHARE_LIMIT:.0%})")
    print(
        f"growth of its memory: {growth / 1000:,.0f} kB in {asked.seconds:g} s (limit {GROWTH_LIMIT_BYTES / 1000:,.0f})"
    )
    rate = len(written) / asked.seconds
    print(f"written to the terminal: {rate:,.0f} bytes a second, the screen cleared {clears} times")
    return 0 if share <= SHARE_LIMIT and growth <= GROWTH_LIMIT_BYTES and not clears and written else 1


def used(process: subprocess.Popen[bytes]) -> tuple[float, int]:
    """Seconds of processor so far, and resident bytes."""
    looked_at = psutil.Process(process.pid)
    times = looked_at.cpu_times()
    return times.user + times.system, looked_at.memory_info().rss


def read(terminal: int, seconds: float) -> bytes:
    """All that is written to the terminal in this time."""
    until_s, chunks = time.monotonic() + seconds, []
    while (left_s := until_s - time.monotonic()) > 0:
        if select.select([terminal], [], [], left_s)[0]:
            chunks.append(os.read(terminal, 65536))
    return b"".join(chunks)


if __name__ == "__main__":
    raise SystemExit(main())
