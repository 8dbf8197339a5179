"""What marking costs: one mark, and a marked loop against a bare one, in alternating blocks of one process.

python tests/benchmarks/bench_marks.py [BLOCKS]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from powerbench.devices import DEVICES, Timer
from powerbench.profile import make_cell, resolve
from powerbench.reporter import Reporter
from powerbench.rundir import RunDir
from powerbench.rundir.lines import EventWriter
from powerbench.rundir.marks import MarksWriter
from powerbench.worker import Loop
from powerbench.workloads import workload_of

MARK_LIMIT_US = 5.0
LOOP_LIMIT = 1.01
STEPS_A_BLOCK = 20
MARKS = 100_000


def main() -> int:
    """Print the cost of a mark and the ratio of the loops; 1 if one is over its limit."""
    blocks = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    cell = resolve(
        make_cell(options={"device": "cpu", "model": "bert-tiny", "mode": "inference", "batch_size": 16}), metered=False
    )
    device = DEVICES[cell.device]
    with tempfile.TemporaryDirectory() as folder:
        rundir = RunDir(Path(folder))
        timer = device.timer(MarksWriter(rundir.marks(0), capacity=MARKS + blocks * STEPS_A_BLOCK).view, sync_every=1)
        mark_us = one_mark_us(timer)
        step, _ = workload_of(cell.model).build(cell, device)
        with Reporter(EventWriter(rundir.events(0)), device) as report:
            ratios = marked_against_bare(step, Loop(step, timer, report, []), blocks)
    median = statistics.median(ratios)
    print(f"one mark: {mark_us:.2f} us (limit {MARK_LIMIT_US})")
    print(
        f"marked loop / bare loop: {median:.4f} ({blocks} pairs of blocks of {STEPS_A_BLOCK} steps; limit {LOOP_LIMIT})"
    )
    return 0 if mark_us <= MARK_LIMIT_US and median <= LOOP_LIMIT else 1


def one_mark_us(timer: Timer) -> float:
    """The mean cost of a mark, in microseconds."""
    begun_ns = time.monotonic_ns()
    for _ in range(MARKS // 2):
        timer.mark()
    return (time.monotonic_ns() - begun_ns) / (MARKS // 2) / 1e3


def marked_against_bare(step: Callable[[int], None], loop: Loop, blocks: int) -> list[float]:
    """The ratio of a marked block to the bare one beside it, which of the two comes first alternating."""

    def marked() -> None:
        loop.run(0, least=STEPS_A_BLOCK)

    def bare() -> None:
        for index in range(STEPS_A_BLOCK):
            step(index)

    marked()
    bare()
    ratios = []
    for block in range(blocks):
        if block % 2:
            marked_ns = spent_ns(marked)
            ratios.append(marked_ns / spent_ns(bare))
        else:
            bare_ns = spent_ns(bare)
            ratios.append(spent_ns(marked) / bare_ns)
    return ratios


def spent_ns(work: Callable[[], None]) -> int:
    """How long `work` takes."""
    begun_ns = time.monotonic_ns()
    work()
    return time.monotonic_ns() - begun_ns


if __name__ == "__main__":
    raise SystemExit(main())
