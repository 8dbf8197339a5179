"""What being watched costs: steps with the supervisor at work against steps with it stopped, in alternating blocks.

python tests/benchmarks/bench_observer.py [BLOCKS]
"""

from __future__ import annotations

import bisect
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from powerbench.rundir.load import load_run

LIMIT = 1.01
BLOCK_S = 1.0
SETTLE_S = 0.1
START_UP_LIMIT_S = 120


def main() -> int:
    """Print the median ratio of neighbouring blocks; 1 if it is over the limit."""
    blocks = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("powerbench")), "run", "--trace", "--output", folder]
        cell = ["--model", "bert-tiny", "--mode", "inference", "--batch-size", "16", "--sequence-length", "128"]
        lasting = ["--min-seconds", str(2 * blocks * BLOCK_S + 5), "--device", "cpu"]
        supervisor = subprocess.Popen([*command, *cell, *lasting], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_steps(Path(folder), supervisor)
        switches = alternate(supervisor, blocks)
        supervisor.wait()
        ratios = ratios_of_blocks(Path(folder) / "latest", switches)
    median = statistics.median(ratios)
    quarters = statistics.quantiles(ratios, n=4)
    print(
        f"steps while watched / steps while the supervisor is stopped: {median:.4f} "
        f"(quartiles {quarters[0]:.3f} to {quarters[2]:.3f}, {len(ratios)} pairs of {BLOCK_S:g} s; limit {LIMIT})"
    )
    return 0 if median <= LIMIT else 1


def wait_for_steps(folder: Path, supervisor: subprocess.Popen[bytes]) -> None:
    """Until the worker steps."""
    give_up_s = time.monotonic() + START_UP_LIMIT_S
    while not (folder / "latest" / "marks-0.bin").exists():
        if supervisor.poll() is not None or time.monotonic() > give_up_s:
            raise SystemExit("the run did not start")
        time.sleep(0.1)
    time.sleep(2)


def alternate(supervisor: subprocess.Popen[bytes], blocks: int) -> list[int]:
    """Stop and continue the supervisor in turn; when each state began (ns), stopped first, and when the last ended."""
    switches = []
    for _ in range(blocks):
        for number in (signal.SIGSTOP, signal.SIGCONT):
            supervisor.send_signal(number)
            switches.append(time.monotonic_ns())
            time.sleep(BLOCK_S)
    return [*switches, time.monotonic_ns()]


def ratios_of_blocks(run: Path, switches: list[int]) -> list[float]:
    """For each stopped block and the watched one behind it: mean step time watched over mean step time stopped."""
    spans = load_run(run.resolve()).steps[0].spans("step")
    starts = [start for start, _, _ in spans]
    ends = [end for _, end, _ in spans]
    settle_ns = round(SETTLE_S * 1e9)  # what piled up while it was stopped is done at once, and is not the usual cost

    def mean_ns(begin: int, finish: int) -> float:
        first, last = bisect.bisect_left(starts, begin + settle_ns), bisect.bisect_right(ends, finish)
        return (ends[last - 1] - starts[first]) / (last - first)

    means = [mean_ns(begin, finish) for begin, finish in pairwise(switches)]
    return [watched / stopped for stopped, watched in zip(means[::2], means[1::2], strict=True)]


if __name__ == "__main__":
    raise SystemExit(main())
