"""The library on devices that work beside Python, driven through fakes: steps end when the device says so."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from powerbench.analysis.summary import summarize
from powerbench.devices import Device
from powerbench.devices.cuda import Cuda
from powerbench.devices.mps import Mps
from powerbench.loop.order import Order
from powerbench.loop.recording import Recording
from powerbench.records import LoopCell, WorkloadRecord
from powerbench.rundir.load import Run, load_run
from tests.devices.fake import MS, FakeDevice, RealTime
from tests.devices.test_cuda import Gpus
from tests.devices.test_mps import a_torch

STEP_NS, PAUSE_NS = 20 * MS, 200 * MS


class AMac(Mps):
    """The GPU of a Mac that this machine is not."""

    def why_unavailable(self) -> str | None:
        return None


class AGpu(Cuda):
    """A GPU that this machine has not."""

    def why_unavailable(self) -> str | None:
        return None

    def settings(self) -> Mapping[str, bool | int | str | None]:
        return {}


def recorded(device: Device, work: FakeDevice, path: Path) -> Run:
    """Four steps that the device works on for 20 ms each, and in the middle 200 ms of something else."""
    sync_every = device.default_sync_every
    cell = LoopCell(device=device.name, model="mine", warmup=0, power="none", idle_seconds=0.0, sync_every=sync_every)
    order = Order(path=str(path), cell=cell, program="train.py")
    with Recording(order, device, WorkloadRecord(samples_per_step=None), quiet=True) as run:
        for step in range(4):
            work.submit(STEP_NS)
            run.step()
            if step == 1:
                with run.pause():
                    work.submit(PAUSE_NS)
    return load_run(path)


@pytest.mark.parametrize("kind", ["mps", "cuda"])
def test_edges_are_when_the_device_was_done_and_a_pause_is_none_of_the_steps(tmp_path: Path, kind: str) -> None:
    gpus = Gpus()
    if kind == "mps":
        work = FakeDevice(RealTime())
        torch: dict[str, object] = {
            "mps.synchronize": work.synchronize,
            "mps.current_allocated_memory": lambda: 1,
            "mps.driver_allocated_memory": lambda: 2,
            "mps.recommended_max_memory": lambda: 3,
        }
        device: Device = AMac(a_torch(torch))
    else:
        work = gpus.device
        device = AGpu(gpus.torch)

    run = recorded(device, work, tmp_path / "mine")

    assert run.record.status == "complete"
    assert run.record.notes == []
    assert run.steps[0].stage == ["step", "step", "pause", "step", "step"]
    edges = [run.steps[0].start_ns[0], *(end or 0 for end in run.steps[0].end_ns)]
    lasted = [after - before for before, after in pairwise(edges)]
    assert all(ns >= STEP_NS * 0.99 for ns in lasted)
    assert lasted[2] >= PAUSE_NS * 0.99
    assert summarize("mine", run.record, run.steps[0]).wall_s == pytest.approx((edges[-1] - edges[0] - lasted[2]) / 1e9)
