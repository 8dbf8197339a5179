"""What the library costs a loop: one `run.step()`, and a recorded loop against a bare one, in alternating blocks.

python tests/benchmarks/bench_library.py [BLOCKS]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import powerbench

STEP_LIMIT_US = 3.0
LOOP_LIMIT = 1.01
STEPS_A_BLOCK = 20
CALLS_A_BLOCK = 2_000


def main() -> int:
    """Print the cost of a call and the ratio of the loops; 1 if one is over its limit."""
    blocks = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    train = a_training()
    with (
        tempfile.TemporaryDirectory() as folder,
        powerbench.record(Path(folder) / "run", device="cpu", power="none", quiet=True) as run,
    ):
        calls_us = [one_call_us(run.step) for _ in range(blocks)]
        ratios = [recorded_against_bare(train, run.step, first=block % 2 == 0) for block in range(blocks)]
    call_us, ratio = statistics.median(calls_us), statistics.median(ratios)
    print(f"one step(): {call_us:.2f} us, the slowest block {max(calls_us):.2f} (limit {STEP_LIMIT_US})")
    pairs = f"{blocks} pairs of blocks of {STEPS_A_BLOCK} steps"
    print(f"recorded loop / bare loop: {ratio:.4f} ({pairs}; limit {LOOP_LIMIT})")
    return 0 if call_us <= STEP_LIMIT_US and ratio <= LOOP_LIMIT else 1


def one_call_us(call: Callable[[], object]) -> float:
    """The mean cost of a call, the loop around it taken off, in microseconds."""
    begun_ns = time.monotonic_ns()
    for _ in range(CALLS_A_BLOCK):
        call()
    called_ns = time.monotonic_ns()
    for _ in range(CALLS_A_BLOCK):
        pass
    return (2 * called_ns - begun_ns - time.monotonic_ns()) / CALLS_A_BLOCK / 1e3


def a_training() -> Callable[[], Any]:
    """A training step of some milliseconds, by torch's own means."""
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(256, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 256))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    inputs = torch.randn(64, 256)

    def train() -> None:
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()

    return train


def recorded_against_bare(train: Callable[[], Any], step: Callable[[], None], *, first: bool) -> float:
    """The time of a block with `step` behind each training step, over that of one without; that first, or last."""
    recorded, bare = (timed(train, step), timed(train)) if first else reversed((timed(train), timed(train, step)))
    return recorded / bare


def timed(*calls: Callable[[], Any]) -> float:
    """Seconds for a block of these calls."""
    begun = time.perf_counter()
    for _ in range(STEPS_A_BLOCK):
        for call in calls:
            call()
    return time.perf_counter() - begun


if __name__ == "__main__":
    raise SystemExit(main())
