"""Every other accelerator, driven through a fake torch: none of this has run on one."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from powerbench.devices.accelerator import Accelerator, why_no_accelerator
from powerbench.records import DeviceRecord
from tests.devices.fake import MS, FakeDevice, RealTime, ends, fake_torch, marks_for, submits


def a_torch(
    kind: str | None = "xpu", *, device: FakeDevice | None = None, but: Mapping[str, object] | None = None
) -> Any:
    """A torch whose one accelerator is a `kind`, `but` for what is said of it."""
    on = device or FakeDevice(RealTime())
    return fake_torch(
        {
            "__version__": "2.13.0+xpu",
            "accelerator.current_accelerator": lambda: None if kind is None else SimpleNamespace(type=kind),
            "accelerator.device_count": lambda: 1,
            "accelerator.synchronize": lambda index: on.synchronize(),
            "get_device_module": lambda name: SimpleNamespace(get_device_name=lambda index: f"Intel Max {index}"),
            "get_float32_matmul_precision": lambda: "highest",
        }
        | dict(but or {})
    )


@pytest.mark.parametrize(
    ("name", "torch", "says"),
    [
        ("xpu", {}, "torch is not installed: install a build for it as https://pytorch.org/get-started"),
        ("xpu", {"__version__": "2.13.0+cpu", "xpu": None}, "torch 2.13.0+cpu was built without xpu: install a build"),
        ("npu", {"__version__": "2.13.0+cpu"}, "install the extension of torch that brings npu"),
    ],
)
def test_what_is_missing_is_said_with_its_remedy(name: str, torch: dict[str, str | None], says: str) -> None:
    reason = why_no_accelerator(name, torch=torch, extensions=[])

    assert reason is not None
    assert says in reason


def test_a_torch_built_for_it_seems_to_have_it() -> None:
    assert why_no_accelerator("xpu", torch={"__version__": "2.13.0+xpu", "xpu": "20250302"}, extensions=[]) is None


def test_an_extension_that_brings_it_seems_to_have_it() -> None:
    extensions = ["torch_npu torch_npu:_autoload"]

    assert why_no_accelerator("npu", torch={"__version__": "2.13.0+cpu"}, extensions=extensions) is None


def test_the_worker_confirms_with_torch() -> None:
    assert Accelerator("xpu", a_torch()).confirm() is None


@pytest.mark.parametrize(("kind", "says"), [(None, "is none, not xpu"), ("cuda", "is cuda, not xpu")])
def test_another_accelerator_than_the_one_asked_for_is_said(kind: str | None, says: str) -> None:
    assert says in (Accelerator("xpu", a_torch(kind)).confirm() or "")


def test_a_rank_too_many_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")

    assert "torch sees 1 xpu devices and this rank needs number 1" in (Accelerator("xpu", a_torch()).confirm() or "")


def test_the_installed_torch_for_the_processor_has_none() -> None:
    import torch

    if torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    xpu = Accelerator("xpu")
    assert "is none, not xpu" in (xpu.confirm() or "")
    assert xpu.memory() == {"allocated": None, "reserved": None}
    assert xpu.peak_memory()[0] is None


def test_a_step_is_over_when_torch_accelerator_synchronize_returns() -> None:
    device, marks = FakeDevice(RealTime()), marks_for(2)
    xpu = Accelerator("xpu", a_torch(device=device))
    timer = xpu.timer(marks, sync_every=xpu.default_sync_every)

    xpu.synchronize()
    timer.mark()
    device.submit(5 * MS)
    timer.mark()

    assert device.calls == ["synchronize", "synchronize", "submit", "synchronize"]
    assert ends(marks)[1] - submits(marks)[0] >= 5 * MS


def test_it_is_described_by_the_name_that_torch_knows() -> None:
    assert Accelerator("xpu", a_torch()).describe() == DeviceRecord(
        kind="xpu", name="Intel Max 0", timer="clock after torch.accelerator.synchronize"
    )


def test_a_device_that_torch_cannot_name_goes_by_its_kind() -> None:
    torch = a_torch("npu", but={"get_device_module": lambda name: SimpleNamespace()})

    assert Accelerator("npu", torch).describe().name == "npu"


def test_memory_is_what_torch_counts() -> None:
    counted = {
        "allocated_bytes.all.current": 10,
        "reserved_bytes.all.current": 20,
        "allocated_bytes.all.peak": 15,
    }
    xpu = Accelerator("xpu", a_torch(but={"accelerator.memory_stats": lambda index: counted}))

    assert xpu.memory() == {"allocated": 10, "reserved": 20}
    assert xpu.peak_memory() == (15, "torch's tensors on the xpu")


def refuse(index: int) -> None:
    raise RuntimeError("Allocator for npu is not a DeviceAllocator.")


@pytest.mark.parametrize(
    "but", [{}, {"accelerator.memory_stats": lambda index: {}}, {"accelerator.memory_stats": refuse}]
)
def test_memory_is_unknown_and_not_zero_where_torch_counts_none(but: dict[str, object]) -> None:
    assert Accelerator("npu", a_torch("npu", but=but)).memory() == {"allocated": None, "reserved": None}


def test_the_precision_of_float32_products_is_recorded() -> None:
    assert Accelerator("xpu", a_torch()).settings() == {"float32_matmul_precision": "highest"}
