"""The GPU of Apple silicon, driven through a fake torch: none of this has run on a Mac."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from powerbench.devices.mps import Mps, why_no_mps
from powerbench.environment import processor_name
from powerbench.records import DeviceRecord
from tests.devices.fake import MS, FakeDevice, RealTime, ends, fake_torch, marks_for, submits


def a_torch(but: Mapping[str, object] | None = None) -> Any:
    """A torch with a GPU of 32 cores, `but` for what is said of it."""
    return fake_torch(
        {
            "backends.mps.is_built": lambda: True,
            "backends.mps.is_available": lambda: True,
            "backends.mps.get_core_count": lambda: 32,
        }
        | dict(but or {})
    )


def a_mac(**different: Any) -> str | None:
    return why_no_mps(
        **{"system": "darwin", "machine": "arm64", "macos": "15.5", "torch_version": "2.13.0"} | different
    )


@pytest.mark.parametrize(
    ("different", "says"),
    [
        ({"system": "linux"}, "this is linux: take --device cuda"),
        ({"machine": "x86_64"}, "install an arm64 Python"),
        ({"torch_version": None}, "install it with `pip install torch`"),
        ({"macos": "12.6.3", "torch_version": "2.6.0"}, "needs macOS 13.0 for mps and this is 12.6.3: update macOS"),
        ({"macos": "13.7.4", "torch_version": "2.10.0.dev20251008"}, "needs macOS 14.0 for mps and this is 13.7.4"),
    ],
)
def test_what_is_missing_is_said_with_its_remedy(different: dict[str, str | None], says: str) -> None:
    reason = a_mac(**different)

    assert reason is not None
    assert says in reason


@pytest.mark.parametrize(
    ("macos", "torch_version"), [("13.0", "2.8.0"), ("14.0", "2.13.0"), ("15", "2.9.1+local"), ("26.1", "2.13.0")]
)
def test_a_mac_that_torch_supports_seems_to_have_it(macos: str, torch_version: str) -> None:
    assert a_mac(macos=macos, torch_version=torch_version) is None


def test_the_worker_confirms_with_torch() -> None:
    assert Mps(a_torch()).confirm() is None


def test_a_torch_built_without_it_is_said() -> None:
    assert "built without MPS" in (Mps(a_torch({"backends.mps.is_built": lambda: False})).confirm() or "")


def test_a_torch_that_finds_no_gpu_is_said() -> None:
    assert "finds no Metal GPU" in (Mps(a_torch({"backends.mps.is_available": lambda: False})).confirm() or "")


def test_the_installed_torch_for_linux_has_none() -> None:
    import torch

    if torch.backends.mps.is_built():
        pytest.skip("this torch is built for a Mac")
    assert "built without MPS" in (Mps().confirm() or "")


def test_a_step_is_over_when_torch_mps_synchronize_returns() -> None:
    device, marks = FakeDevice(RealTime()), marks_for(2)
    timer = Mps(a_torch({"mps.synchronize": device.synchronize})).timer(marks, sync_every=1)

    timer.mark()
    device.submit(5 * MS)
    timer.mark()

    assert device.calls == ["synchronize", "submit", "synchronize"]
    assert ends(marks)[1] - submits(marks)[0] >= 5 * MS


def test_synchronize_asks_mps_and_no_other_device() -> None:
    device = FakeDevice(RealTime())

    Mps(a_torch({"mps.synchronize": device.synchronize})).synchronize()

    assert device.calls == ["synchronize"]


def test_it_is_described_by_its_chip_and_bounded_by_its_cores() -> None:
    assert Mps(a_torch()).describe() == DeviceRecord(
        kind="mps", name=processor_name(), timer="clock after torch.mps.synchronize", plausible_tflop_per_s=128.0
    )


def test_a_torch_that_counts_no_cores_bounds_it_by_the_largest_chip() -> None:
    torch = fake_torch({"backends.mps.is_built": lambda: True})

    assert Mps(torch).describe().plausible_tflop_per_s == 320.0


def test_peak_memory_is_the_most_that_was_read_and_none_before_that() -> None:
    driver = iter([300, 500, 400])
    torch = a_torch(
        {
            "mps.current_allocated_memory": lambda: 200,
            "mps.driver_allocated_memory": lambda: next(driver),
            "mps.recommended_max_memory": lambda: 1000,
        }
    )
    mps = Mps(torch)

    assert mps.peak_memory()[0] is None
    assert [mps.memory() for _ in range(3)] == [
        {"allocated": 200, "driver": held, "recommended": 1000} for held in (300, 500, 400)
    ]
    assert mps.peak_memory() == (500, "the most that Metal held for the worker whenever it was read, at steps' edges")
