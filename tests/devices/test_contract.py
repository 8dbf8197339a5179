"""What holds for every device."""

from __future__ import annotations

import subprocess
import sys

import pytest

from powerbench.devices import DEVICES as TABLE
from powerbench.devices import Device, device_of_program
from powerbench.devices.accelerator import Accelerator
from powerbench.devices.cpu import Cpu
from powerbench.devices.cuda import Cuda
from powerbench.devices.mps import Mps
from powerbench.errors import UsageError
from tests.devices.fake import fake_torch

DEVICES: list[Device] = [Cpu(), Mps(), Cuda(), Accelerator("xpu"), Accelerator("npu")]
every_device = pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)


@every_device
def test_the_name_is_the_one_that_torch_uses(device: Device) -> None:
    assert device.torch_device().split(":")[0] == device.name


@every_device
def test_the_default_copy_and_fences_are_settings_that_a_cell_can_hold(device: Device) -> None:
    assert device.default_copy in ("async", "blocking", "resident")
    assert device.default_sync_every >= 0


@every_device
def test_ranks_exchange_by_a_backend_that_torch_has_or_not_at_all(device: Device) -> None:
    from torch.distributed import Backend

    assert device.backend is None or device.backend in Backend.backend_list


@every_device
def test_the_stopwatch_is_silent_until_a_step_begins(device: Device) -> None:
    work = memoryview(bytearray(16)).cast("q")
    watch = device.stopwatch(work)
    watch.arrive()
    watch.resume()
    watch.end()
    watch.settle()

    assert work.tolist() == [0, 0]


@every_device
def test_why_it_is_unavailable_is_one_sentence_that_says_what_to_do(device: Device) -> None:
    reason = device.why_unavailable()

    if reason is not None:
        assert reason[-1] == "."
        assert ". " not in reason
        assert "\n" not in reason
        assert any(remedy in reason for remedy in ("install", "take --device", "update", "unset", "see what", "load"))


def test_no_device_imports_torch_to_say_why_it_is_unavailable() -> None:
    program = """
import sys
from powerbench.devices.accelerator import Accelerator
from powerbench.devices.cpu import Cpu
from powerbench.devices.cuda import Cuda
from powerbench.devices.mps import Mps
from powerbench.errors import UsageError
for device in (Cpu(), Mps(), Cuda(), Accelerator("xpu"), Accelerator("npu")):
    device.why_unavailable()
    device.torch_device()
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


class TestTheFakeTorch:
    """So that a device which calls what torch has not fails its tests."""

    def test_has_no_function_that_the_installed_torch_has_not(self) -> None:
        with pytest.raises(AttributeError):
            fake_torch({"mps.synchronise": lambda: None})

    def test_has_nothing_that_was_not_asked_for(self) -> None:
        with pytest.raises(AttributeError):
            Mps(fake_torch({"mps.current_allocated_memory": lambda: 0})).synchronize()

    def test_takes_no_argument_that_the_installed_torch_does_not_take(self) -> None:
        torch = fake_torch({"mps.synchronize": lambda *_: None})

        torch.mps.synchronize()
        with pytest.raises(TypeError):
            torch.mps.synchronize(0)

    @pytest.mark.parametrize(
        ("path", "arguments", "keywords"),
        [
            ("mps.synchronize", (), {}),
            ("mps.current_allocated_memory", (), {}),
            ("mps.driver_allocated_memory", (), {}),
            ("mps.recommended_max_memory", (), {}),
            ("backends.mps.is_built", (), {}),
            ("backends.mps.is_available", (), {}),
            ("backends.mps.get_core_count", (), {}),
            ("cuda.synchronize", (0,), {}),
            ("cuda.set_device", (0,), {}),
            ("cuda.is_available", (), {}),
            ("cuda.is_initialized", (), {}),
            ("cuda.device_count", (), {}),
            ("cuda.get_device_properties", (0,), {}),
            ("cuda.memory_allocated", (0,), {}),
            ("cuda.memory_reserved", (0,), {}),
            ("cuda.max_memory_allocated", (0,), {}),
            ("cuda.Event", (), {"enable_timing": True}),
            ("backends.cudnn.version", (), {}),
            ("get_float32_matmul_precision", (), {}),
            ("accelerator.current_accelerator", (), {}),
            ("accelerator.device_count", (), {}),
            ("accelerator.synchronize", (0,), {}),
            ("accelerator.memory_stats", (0,), {}),
            ("get_device_module", ("xpu",), {}),
            ("xpu.get_device_name", (0,), {}),
        ],
    )
    def test_every_call_that_the_devices_make_is_one_that_the_installed_torch_takes(
        self, path: str, arguments: tuple[object, ...], keywords: dict[str, object]
    ) -> None:
        torch = fake_torch({path: lambda *_, **__: "called"})
        function = torch
        for name in path.split("."):
            function = getattr(function, name)

        assert function(*arguments, **keywords) == "called"


class TestTheDeviceOfAProgram:
    def test_is_one_of_ours_by_its_name(self) -> None:
        assert device_of_program("cpu") is TABLE["cpu"]
        assert device_of_program("mps:0") is TABLE["mps"]

    @pytest.mark.parametrize(("name", "device"), [("cuda", "cuda:0"), ("cuda:3", "cuda:3")])
    def test_is_the_gpu_that_is_named(self, name: str, device: str) -> None:
        assert device_of_program(name).torch_device() == device

    def test_of_an_unknown_name_is_refused(self) -> None:
        with pytest.raises(UsageError, match="There is no device called 'gpu'"):
            device_of_program("gpu")
