"""What being watched costs: steps with the supervisor at work against steps with it stopped, in alternating blocks.

python tests/benchmarks/bench_observer.py [BLOCKS] [--meters]

With `--meters` it reads two of them at 10 Hz as well: counters in a tree of files, and the driver's library that the
tests build with gcc.
"""

from __future__ import annotations

import argparse
import bisect
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import psutil

from powerbench.rundir.load import load_run

LIMIT = 1.01
SHARE_LIMIT = 0.03
FEED_S = 0.02
BLOCK_S = 1.0
SETTLE_S = 0.1
START_UP_LIMIT_S = 120


def main() -> int:
    """Print the median ratio of neighbouring blocks and the supervisor's share of a core; 1 if a limit is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("blocks", type=int, nargs="?", default=60)
    parser.add_argument("--meters", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, two_meters(Path(folder), asked.meters) as variables:
        command = [str(Path(sys.executable).with_name("powerbench")), "run", "--trace", "--output", f"{folder}/runs"]
        cell = ["--model", "bert-tiny", "--mode", "inference", "--batch-size", "16", "--sequence-length", "128"]
        lasting = ["--min-seconds", str(4 * asked.blocks * BLOCK_S + 60), "--device", "cpu"]  # until it is told to end
        power = ["--power", "rapl,nvml", "--idle", "1", "--require-power"] if asked.meters else ["--power", "none"]
        supervisor = subprocess.Popen(
            [*command, *cell, *lasting, *power],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | variables,
        )
        try:
            wait_for_steps(Path(folder) / "runs", supervisor)
            used_s = seconds_of_cpu(supervisor)
            switches = alternate(supervisor, asked.blocks)
            share = (seconds_of_cpu(supervisor) - used_s) / (asked.blocks * BLOCK_S)
            supervisor.send_signal(signal.SIGINT)
            supervisor.wait()
        finally:
            supervisor.kill()
        ratios = ratios_of_blocks(Path(folder) / "runs/latest", switches)
    if len(ratios) < 2:
        raise SystemExit(f"in no two pairs of blocks did a whole step end within {BLOCK_S:g} s: try on a quiet machine")
    median = statistics.median(ratios)
    quarters = statistics.quantiles(ratios, n=4)
    print(
        f"steps while watched / steps while the supervisor is stopped: {median:.4f} "
        f"(quartiles {quarters[0]:.3f} to {quarters[2]:.3f}, {len(ratios)} pairs of {BLOCK_S:g} s; limit {LIMIT})"
    )
    if left_out := asked.blocks - len(ratios):
        print(f"left out, for other load let no whole step end in one of their blocks: {left_out} pairs")
    print(f"the supervisor's share of a core while it watches: {share:.2%} (limit {SHARE_LIMIT:.0%})")
    return 0 if median <= LIMIT and share <= SHARE_LIMIT else 1


@contextmanager
def two_meters(folder: Path, wanted: bool) -> Iterator[dict[str, str]]:
    """Counters that rise all the while, and the library of a driver; the variables by which they are found."""
    if not wanted:
        yield {}
        return
    source = Path(__file__).parents[1] / "power" / "fake_nvml.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", source, "-lm"], check=True)
    zone = folder / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text(f"{10**15}\n")
    (zone / "energy_uj").write_text(f"{0:020}\n")
    done = threading.Event()
    feeder = threading.Thread(target=feed, args=(zone / "energy_uj", done))
    feeder.start()
    try:
        gpu = {"FAKE_NVML_UUIDS": "GPU-a", "FAKE_NVML_WATTS": "300"}
        yield gpu | {"POWERBENCH_SYSFS": str(folder / "sys"), "LD_LIBRARY_PATH": str(folder)}
    finally:
        done.set()
        feeder.join()


def feed(counter: Path, done: threading.Event) -> None:
    """Let 40 W rise in `counter`; it goes on while the supervisor is stopped, and so is no part of the difference."""
    file = os.open(counter, os.O_WRONLY)
    began_s = time.monotonic()
    while not done.wait(FEED_S):
        os.pwrite(file, b"%020d\n" % int((time.monotonic() - began_s) * 40e6), 0)
    os.close(file)


def seconds_of_cpu(process: subprocess.Popen[bytes]) -> float:
    """What all its threads have used so far."""
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system


def wait_for_steps(folder: Path, supervisor: subprocess.Popen[bytes]) -> None:
    """Until a measured step has been written down; those of the warm-up are in no block."""
    give_up_s = time.monotonic() + START_UP_LIMIT_S
    steps = folder / "latest" / "steps-0.csv"
    while not steps.exists() or ",step," not in steps.read_text("ascii"):
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
    """For each stopped block and the watched one behind it: mean step time watched over mean step time stopped.

    Where other load let no whole step end in one of the two, there is none.
    """
    spans = load_run(run.resolve()).steps[0].spans("step")
    starts = [start for start, _, _ in spans]
    ends = [end for _, end, _ in spans]
    settle_ns = round(SETTLE_S * 1e9)  # what piled up while it was stopped is done at once, and is not the usual cost

    def mean_ns(begin: int, finish: int) -> float | None:
        first, last = bisect.bisect_left(starts, begin + settle_ns), bisect.bisect_right(ends, finish)
        return (ends[last - 1] - starts[first]) / (last - first) if last > first else None

    means = [mean_ns(begin, finish) for begin, finish in pairwise(switches)]
    pairs = zip(means[::2], means[1::2], strict=True)
    return [watched / stopped for stopped, watched in pairs if watched is not None and stopped is not None]


if __name__ == "__main__":
    raise SystemExit(main())
