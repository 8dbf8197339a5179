"""CUDA's GPUs, driven through a fake torch and fake libraries: none of this has run on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from powerbench.devices.cuda import Cuda, visible_gpus, why_no_cuda
from powerbench.devices.timers import EventTimer, FencedTimer
from powerbench.records import DeviceRecord
from tests.devices.fake import (
    MS,
    FakeDevice,
    FakeEvent,
    RealTime,
    as_strict_as,
    ends,
    fake_torch,
    gaps,
    marks_for,
    submits,
)

BUILT_FOR_CUDA = {"__version__": "2.13.0+cu130", "cuda": "13.0", "hip": None}
BUILT_FOR_ROCM = {"__version__": "2.13.0+rocm7.1", "cuda": None, "hip": "7.1"}
BUILT_FOR_NEITHER = {"__version__": "2.13.0+cpu", "cuda": None, "hip": None}
UUID = "ffc79498-8ff3-c2dc-3b0d-fafd804516ae"


class FakeLibrary:
    """A driver's library that counts `count` GPUs, or answers each call with `status`."""

    def __init__(self, *, count: int = 0, status: int = 0) -> None:
        self.calls: list[str] = []
        self._count = count
        self._status = status

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(argument: Any = None) -> int:
            self.calls.append(name)
            if name in ("nvmlDeviceGetCount_v2", "cuDeviceGetCount"):
                argument._obj.value = self._count
            return self._status

        return call


def loader(**libraries: FakeLibrary) -> Callable[[str], FakeLibrary]:
    """Loads `nvidia_ml` and `cuda` where they are given, and is otherwise as ctypes without a driver."""
    names = {"libnvidia-ml.so.1": "nvidia_ml", "libcuda.so.1": "cuda"}

    def load(name: str) -> FakeLibrary:
        if names[name] not in libraries:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return libraries[names[name]]

    return load


def a_machine(**different: Any) -> str | None:
    """Why a Linux machine with one NVIDIA GPU has no cuda, but for what is different about it."""
    here: dict[str, Any] = {
        "system": "linux",
        "torch": BUILT_FOR_CUDA,
        "variables": {},
        "load_library": loader(nvidia_ml=FakeLibrary(count=1)),
        "kfd": Path("/nowhere/kfd"),
    }
    return why_no_cuda(**here | different)


class TestWhyUnavailable:
    def test_nothing_is_missing_where_the_driver_counts_a_gpu(self) -> None:
        assert a_machine() is None

    @pytest.mark.parametrize(
        ("different", "says"),
        [
            ({"system": "darwin"}, "cuda needs Linux and this is darwin: take --device mps"),
            ({"torch": {}}, "torch is not installed: install"),
            ({"torch": BUILT_FOR_NEITHER}, "torch 2.13.0+cpu was built without CUDA: install a CUDA (or ROCm) build"),
            ({"variables": {"CUDA_VISIBLE_DEVICES": ""}}, "CUDA_VISIBLE_DEVICES='' hides every GPU: unset it"),
            ({"variables": {"CUDA_VISIBLE_DEVICES": "-1"}}, "CUDA_VISIBLE_DEVICES='-1' hides every GPU"),
            ({"load_library": loader()}, "libnvidia-ml.so.1 does not load): install it"),
            ({"load_library": loader(nvidia_ml=FakeLibrary())}, "counts no GPU: see whether `nvidia-smi -L`"),
            ({"load_library": loader(nvidia_ml=FakeLibrary(status=18))}, "libnvidia-ml.so.1: status 18): see what"),
            ({"torch": BUILT_FOR_ROCM}, "/nowhere/kfd does not exist: load the amdgpu driver"),
            ({"torch": BUILT_FOR_ROCM, "variables": {"HIP_VISIBLE_DEVICES": "-1"}}, "HIP_VISIBLE_DEVICES='-1' hides"),
        ],
    )
    def test_what_is_missing_is_said_with_its_remedy(self, different: dict[str, Any], says: str) -> None:
        reason = a_machine(**different)

        assert reason is not None
        assert says in reason

    @pytest.mark.parametrize("visible", ["0", "1,0", "0,-1", f"GPU-{UUID}", "MIG-4/1/0"])
    def test_a_list_of_visible_devices_that_begins_with_one_hides_not_all(self, visible: str) -> None:
        assert a_machine(variables={"CUDA_VISIBLE_DEVICES": visible}) is None

    def test_only_nvml_is_asked_where_it_loads_and_it_is_closed_again(self) -> None:
        nvml, driver = FakeLibrary(count=1), FakeLibrary(count=1)

        assert a_machine(load_library=loader(nvidia_ml=nvml, cuda=driver)) is None
        assert nvml.calls == ["nvmlInit_v2", "nvmlDeviceGetCount_v2", "nvmlShutdown"]
        assert driver.calls == []

    def test_the_driver_itself_is_asked_where_nvml_is_missing(self) -> None:
        driver = FakeLibrary(count=1)

        assert a_machine(load_library=loader(cuda=driver)) is None
        assert driver.calls == ["cuInit", "cuDeviceGetCount"]

    def test_a_rocm_build_counts_as_cuda_where_the_kernel_serves_it(self, tmp_path: Path) -> None:
        kfd = tmp_path / "kfd"
        kfd.touch()

        assert a_machine(torch=BUILT_FOR_ROCM, kfd=kfd, load_library=loader()) is None


class Gpus:
    """A torch that sees `count` GPUs, `but` for what is said of it."""

    def __init__(self, count: int = 1, *, but: Mapping[str, object] | None = None) -> None:
        self.current: int | None = None
        self.device = FakeDevice(RealTime())
        self.synchronized: list[int] = []
        properties = SimpleNamespace(name="NVIDIA V100", uuid=UUID, multi_processor_count=80)
        self.torch = fake_torch(
            {
                "__version__": "2.13.0+cu130",
                "version.hip": None,
                "cuda.is_available": lambda: count > 0,
                "cuda.device_count": lambda: count,
                "cuda.set_device": self._set_device,
                "cuda.get_device_properties": lambda index: properties,
                "cuda.synchronize": self._synchronize,
                "cuda.Event": lambda *, enable_timing: FakeEvent(self.device),
                "cuda.memory_allocated": lambda index: 100 + index,
                "cuda.memory_reserved": lambda index: 200 + index,
                "cuda.max_memory_allocated": lambda index: 300 + index,
                "cuda.is_initialized": lambda: True,
            }
            | dict(but or {})
        )

    def _set_device(self, index: int) -> None:
        self.current = index

    def _synchronize(self, index: int) -> None:
        self.synchronized.append(index)
        self.device.synchronize()


class TestOfAProgram:
    """A program has set up its GPUs by itself: which one is current is not ours to change."""

    def test_the_gpu_that_is_named_is_the_one_and_the_current_one_stays(self) -> None:
        gpus = Gpus(2)
        cuda = Cuda(gpus.torch, index=1)

        assert cuda.confirm() is None
        cuda.synchronize()

        assert (gpus.current, gpus.synchronized, cuda.torch_device()) == (None, [1], "cuda:1")

    def test_one_that_is_not_there_is_said(self) -> None:
        said = Cuda(Gpus(2).torch, index=2).confirm()

        assert said == "There is no cuda:2, torch sees 2 GPUs and counts from 0: name another."

    def test_events_are_recorded_on_its_stream_and_not_on_that_of_the_current_one(self) -> None:
        gpus = Gpus(2)
        streams: list[object] = []

        class Event(FakeEvent):
            def record(self, stream: object = None) -> None:
                streams.append(stream)
                super().record()

        new_event = {"cuda.Event": lambda *, enable_timing: Event(gpus.device)}
        fakes = Gpus(2, but=new_event | {"cuda.current_stream": lambda index: f"the stream of {index}"})
        marks = marks_for(3)
        timer = Cuda(fakes.torch, index=1).timer(marks, sync_every=0)

        timer.mark()
        for work_ms in (20, 30):
            gpus.device.submit(work_ms * MS)
            timer.mark()
        gpus.device.synchronize()
        timer.finish()

        assert streams == ["the stream of 1"] * 3
        assert all(gap >= work * MS for gap, work in zip(gaps(ends(marks)), (20, 30), strict=True))


@pytest.fixture
def second_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")


class TestConfirm:
    def test_the_first_gpu_is_made_current_without_torchrun(self) -> None:
        gpus = Gpus()

        assert Cuda(gpus.torch).confirm() is None
        assert gpus.current == 0
        assert Cuda(gpus.torch).torch_device() == "cuda:0"

    @pytest.mark.usefixtures("second_rank")
    def test_each_rank_takes_its_own_gpu(self) -> None:
        gpus = Gpus(2)
        cuda = Cuda(gpus.torch)

        assert cuda.confirm() is None
        cuda.synchronize()

        assert (gpus.current, gpus.synchronized, cuda.torch_device()) == (1, [1], "cuda:1")
        assert cuda.memory() == {"allocated": 101, "reserved": 201}

    @pytest.mark.usefixtures("second_rank")
    def test_a_rank_too_many_is_said(self) -> None:
        assert Cuda(Gpus(1).torch).confirm() == (
            "Rank 1 has no GPU of its own, torch sees 1: start at most 1 ranks here."
        )

    def test_no_usable_gpu_is_said(self) -> None:
        assert "finds no GPU that it can use" in (Cuda(Gpus(0).torch).confirm() or "")


class TestTimer:
    def test_by_default_steps_are_seen_by_events_and_python_runs_ahead(self) -> None:
        gpus, marks = Gpus(), marks_for(4)
        cuda = Cuda(gpus.torch)
        timer = cuda.timer(marks, sync_every=cuda.default_sync_every)

        timer.mark()
        for _ in range(3):
            gpus.device.submit(4 * MS)
            timer.mark()
        timer.fence()
        timer.finish()

        assert isinstance(timer, EventTimer)
        assert gpus.device.calls == ["record", "synchronize", *["submit", "record"] * 3, "synchronize"]
        lasted = gaps(ends(marks))
        assert all(step >= 4 * MS - 1 for step in lasted)
        assert timer.anchor_error_ns is not None
        assert cuda.describe().timer == "torch.cuda.Event a step, anchored to the clock"

    def test_asked_for_fences_it_waits_and_reads_the_clock(self) -> None:
        gpus, marks = Gpus(), marks_for(3)
        cuda = Cuda(gpus.torch)
        timer = cuda.timer(marks, sync_every=2)

        timer.mark()
        for _ in range(2):
            gpus.device.submit(4 * MS)
            timer.mark()

        assert isinstance(timer, FencedTimer)
        assert gpus.device.calls == ["synchronize", "submit", "submit", "synchronize"]
        assert ends(marks)[1] == 0
        assert ends(marks)[2] - submits(marks)[0] >= 8 * MS
        assert cuda.describe().timer == "clock after torch.cuda.synchronize"

    @pytest.mark.parametrize("method", ["record", "query", "elapsed_time"])
    def test_the_fake_event_takes_what_the_real_one_takes(self, method: str) -> None:
        import torch

        event, other = (FakeEvent(FakeDevice(RealTime())) for _ in range(2))
        event.record()
        other.record()
        arguments = (event, other) if method == "elapsed_time" else (event,)

        as_strict_as(getattr(torch.cuda.Event, method), getattr(FakeEvent, method))(*arguments)


def test_it_is_described_by_name_and_by_the_identifier_that_nvml_uses() -> None:
    assert Cuda(Gpus().torch).describe() == DeviceRecord(
        kind="cuda",
        name="NVIDIA V100",
        timer="torch.cuda.Event a step, anchored to the clock",
        uuid=f"GPU-{UUID}",
        plausible_tflop_per_s=1966.08,  # a V100 does 125 in float16
    )


def test_an_amd_gpu_keeps_its_own_identifier() -> None:
    assert Cuda(Gpus(but={"version.hip": "7.1"}).torch).describe().uuid == UUID


def test_peak_memory_is_that_of_torch() -> None:
    assert Cuda(Gpus().torch).peak_memory() == (300, "torch's tensors on the GPU")


def test_peak_memory_is_unknown_and_not_zero_where_nothing_ran() -> None:
    assert Cuda(Gpus(but={"cuda.is_initialized": lambda: False}).torch).peak_memory()[0] is None


def test_the_installed_torch_tells_each_setting() -> None:
    assert dict(Cuda().settings()).keys() == {
        "float32_matmul_precision",
        "matmul_allow_tf32",
        "matmul_fp32_precision",
        "cudnn_allow_tf32",
        "cudnn_enabled",
        "cudnn_benchmark",
        "cudnn_deterministic",
        "cudnn_version",
    }
    assert Cuda().settings()["float32_matmul_precision"] in ("highest", "high", "medium")


def test_an_older_torch_without_a_setting_leaves_it_unknown() -> None:
    old = fake_torch(
        {
            "get_float32_matmul_precision": lambda: "highest",
            "backends.cuda.matmul.allow_tf32": False,
            "backends.cudnn.allow_tf32": True,
            "backends.cudnn.enabled": True,
            "backends.cudnn.benchmark": False,
            "backends.cudnn.deterministic": False,
            "backends.cudnn.version": lambda: 90100,
        }
    )

    assert Cuda(old).settings()["matmul_fp32_precision"] is None
    assert Cuda(old).settings()["cudnn_version"] == 90100


class TestHowManyGpusThereAre:
    @pytest.mark.parametrize(
        ("visible", "count"),
        [(None, 8), ("0,1", 2), ("3", 1), ("0,1,-1,2", 2), ("GPU-aa,GPU-bb,GPU-cc", 3), ("", 0)],
    )
    def test_is_what_the_driver_counts_and_what_is_not_hidden(self, visible: str | None, count: int) -> None:
        variables = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
        eight = loader(nvidia_ml=FakeLibrary(count=8))

        assert visible_gpus(torch=BUILT_FOR_CUDA, variables=variables, load_library=eight) == count

    def test_is_unknown_where_nobody_counts_them(self) -> None:
        silent = loader(nvidia_ml=FakeLibrary(count=8, status=18))

        assert visible_gpus(torch=BUILT_FOR_CUDA, variables={}, load_library=silent) is None
        assert visible_gpus(torch=BUILT_FOR_CUDA, variables={}, load_library=loader()) is None
        assert visible_gpus(torch=BUILT_FOR_ROCM, variables={}, load_library=loader()) is None
