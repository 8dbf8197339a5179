"""The control: it lasts at least as long as it says, needs no torch, and stays on the processor."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from powerbench.devices import DEVICES
from powerbench.errors import UsageError
from powerbench.records import Cell, WorkloadRecord
from powerbench.workloads.sleep import Sleep

SLEEPS_WITHOUT_TORCH = """
import sys
from powerbench.devices import DEVICES
from powerbench.records import Cell
from powerbench.workloads import workload_of
step, _ = workload_of("sleep").build(Cell(model="sleep", sleep_ms=1), DEVICES["cpu"])
step(0)
print(sorted({"torch", "transformers", "numpy"} & sys.modules.keys()))
"""


def test_a_step_is_never_shorter_than_it_says() -> None:
    step, what = Sleep().build(Cell(model="sleep", sleep_ms=2.0, batch_size=4), DEVICES["cpu"])

    begun_ns = time.monotonic_ns()
    step(0)

    assert time.monotonic_ns() - begun_ns >= 2_000_000
    assert what == WorkloadRecord(samples_per_step=None)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_another_device_is_refused_with_the_remedy(device: str) -> None:
    with pytest.raises(UsageError, match=f"The model sleep runs on the cpu, not on {device}[;:] leave --device out"):
        Sleep().check(Cell(model="sleep", device=device))


@pytest.mark.parametrize("asked", ["phases", "include_data"])
def test_phases_are_refused_since_it_has_none(asked: str) -> None:
    with pytest.raises(UsageError, match="has no phases and reads nothing: leave --phases and --include-data out"):
        Sleep().check(Cell(model="sleep", **{asked: True}))  # type: ignore[arg-type]


def test_operators_are_refused_since_it_runs_without_torch() -> None:
    with pytest.raises(UsageError, match="sleep runs without torch, so it has no operators: leave --torch-profiler ou"):
        Sleep().check(Cell(model="sleep", torch_profiler=True))


def test_no_torch_is_needed() -> None:
    done = subprocess.run([sys.executable, "-c", SLEEPS_WITHOUT_TORCH], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
