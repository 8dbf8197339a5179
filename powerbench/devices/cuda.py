"""NVIDIA's GPUs, and AMD's through ROCm, which torch calls by the same name: steps are seen by events on the device."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from powerbench.devices.stopwatches import EventStopwatch
from powerbench.devices.timers import Event, EventTimer, FencedTimer
from powerbench.environment import torch_facts
from powerbench.errors import Unavailable
from powerbench.records import DeviceRecord
from powerbench.units import counted

if TYPE_CHECKING:
    from powerbench.devices import Copy

# Above what any GPU does dense in any of our dtypes. B200: 2,250 TFLOP/s in bfloat16 from 148 multiprocessors at
# about 1.9 GHz is 8,192 operations a cycle each: twice an H100's, and no AMD compute unit does more. Taken at 3 GHz.
PLAUSIBLE_TFLOP_PER_S_PER_MULTIPROCESSOR = 8192 * 3e9 / 1e12

# Libraries that count NVIDIA GPUs: name, and its functions to start, count and stop. NVML first, as torch does where it
# can (torch/cuda/__init__.py): it only asks the driver, where cuInit readies every GPU and reserves address space for
# it, and that in the supervisor, which is to weigh nothing while it meters. Neither makes a CUDA context. Older Jetsons
# have libcuda alone.
COUNTERS = (
    ("libnvidia-ml.so.1", "nvmlInit_v2", "nvmlDeviceGetCount_v2", "nvmlShutdown"),
    ("libcuda.so.1", "cuInit", "cuDeviceGetCount", None),
)
EVENTS = "torch.cuda.Event a step, anchored to the clock"
FENCES = "clock after torch.cuda.synchronize"
KFD = Path("/dev/kfd")  # where the amdgpu driver serves ROCm


class Cuda:
    """One GPU: that of this rank (`LOCAL_RANK`), or the first."""

    name = "cuda"
    default_copy: Copy = "async"
    default_sync_every = 0
    pins_memory = True
    backend: str | None = "nccl"  # torch's name for RCCL too

    def __init__(self, torch: Any = None, *, index: int | None = None) -> None:
        """`torch` stands in for the module; None imports the real one when it is first needed, in the worker.

        `index` is a GPU of a program that has chosen for itself which one is the current; None is this rank's.
        """
        self._given = torch
        self._timer = EVENTS
        self._chosen = index

    def _index(self) -> int:
        return local_rank() if self._chosen is None else self._chosen

    def why_unavailable(self) -> str | None:
        """By the platform, what torch was built for, and the number of GPUs that the driver counts."""
        return why_no_cuda(
            system=sys.platform, torch=torch_facts(), variables=os.environ, load_library=ctypes.CDLL, kfd=KFD
        )

    def check_ranks(self, ranks: int) -> None:
        """A GPU for each, as far as the driver and CUDA_VISIBLE_DEVICES tell. Raises Unavailable."""
        count = visible_gpus(torch=torch_facts(), variables=os.environ, load_library=ctypes.CDLL)
        if count and ranks > count:  # of no GPU at all there is another sentence
            raise Unavailable(
                f"{ranks} ranks need a GPU each, and here {'is' if count == 1 else 'are'} {counted(count, 'GPU')} (by "
                f"the driver and CUDA_VISIBLE_DEVICES): take --ranks {count}, and more machines for more."
            )

    def confirm(self) -> str | None:
        """Ask torch for this rank's GPU, and make it the current one."""
        torch = self._torch()
        if not torch.cuda.is_available():
            return (
                f"torch {torch.__version__} finds no GPU that it can use: see whether `nvidia-smi` (`rocm-smi`) lists "
                "one, and whether the driver is new enough for the version that this torch was built for."
            )
        count, index = torch.cuda.device_count(), self._index()
        if index >= count and self._chosen is not None:
            return f"There is no cuda:{index}, torch sees {counted(count, 'GPU')} and counts from 0: name another."
        if index >= count:
            return f"Rank {index} has no GPU of its own, torch sees {count}: start at most {count} ranks here."
        if self._chosen is None:
            torch.cuda.set_device(index)
        return None

    def torch_device(self) -> str:
        """torch's name for this rank's GPU."""
        return f"cuda:{self._index()}"

    def describe(self) -> DeviceRecord:
        """The GPU's name, the timer last made, and the identifier by which NVML, and so a rail, knows the GPU."""
        torch = self._torch()
        properties = torch.cuda.get_device_properties(self._index())
        # torch gives NVIDIA's UUID without NVML's prefix (PR #125083). ROCm's is no UUID that a meter knows.
        uuid = f"GPU-{properties.uuid}" if torch.version.hip is None else str(properties.uuid)
        return DeviceRecord(
            kind="cuda",
            name=properties.name,
            timer=self._timer,
            uuid=uuid,
            plausible_tflop_per_s=PLAUSIBLE_TFLOP_PER_S_PER_MULTIPROCESSOR * properties.multi_processor_count,
        )

    def settings(self) -> Mapping[str, bool | int | str | None]:
        """What changes the arithmetic of `float32` and the choice of kernels, as it stands now.

        With TF32 a float32 product has ten bits of mantissa and takes a fraction of the time and energy.
        """
        torch = self._torch()
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        return {
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "matmul_allow_tf32": matmul.allow_tf32,
            "matmul_fp32_precision": getattr(matmul, "fp32_precision", None),  # torch 2.6 has none
            "cudnn_allow_tf32": cudnn.allow_tf32,
            "cudnn_enabled": cudnn.enabled,
            "cudnn_benchmark": cudnn.benchmark,
            "cudnn_deterministic": cudnn.deterministic,
            "cudnn_version": cudnn.version(),
        }

    def synchronize(self) -> None:
        """Wait for all streams of this rank's GPU."""
        self._torch().cuda.synchronize(self._index())

    def timer(self, marks: memoryview, *, sync_every: int) -> EventTimer | FencedTimer:
        """With 0 an event a boundary and no stall; above 0 the clock, after waiting at each `sync_every`-th.

        Not both: whoever asks for fences wants to see what a script with them sees, and once the device has been
        waited for, an event beside the stamp would tell the same moment again by a clock that runs at another rate.
        """
        cuda, index = self._torch().cuda, self._index()
        self._timer = FENCES if sync_every > 0 else EVENTS
        if sync_every > 0:
            return FencedTimer(marks, synchronize=lambda: cuda.synchronize(index), sync_every=sync_every)
        return EventTimer(
            marks,
            synchronize=lambda: cuda.synchronize(index),
            new_event=self._new_event,
        )

    def stopwatch(self, work: memoryview) -> EventStopwatch:
        """Events on the stream on which the step is submitted."""
        return EventStopwatch(work, new_event=self._new_event)

    def _new_event(self) -> Event:
        cuda = self._torch().cuda
        event: Event = cuda.Event(enable_timing=True)
        return event if self._chosen is None else _EventOn(event, lambda: cuda.current_stream(self._chosen))

    def memory(self) -> Mapping[str, int | None]:
        """Bytes in tensors, and bytes that torch's allocator holds, caches included."""
        cuda, index = self._torch().cuda, self._index()
        return {"allocated": cuda.memory_allocated(index), "reserved": cuda.memory_reserved(index)}

    def peak_memory(self) -> tuple[int | None, str]:
        """torch's own peak since the worker started; None where nothing has run, which torch would answer with 0."""
        cuda = self._torch().cuda
        peak = cuda.max_memory_allocated(self._index()) if cuda.is_initialized() else None
        return peak, "torch's tensors on the GPU"

    def _torch(self) -> Any:
        if self._given is not None:
            return self._given
        import torch

        return torch


class _EventOn:
    """An event of a GPU that need not be the program's current one, on which torch would record it."""

    def __init__(self, event: Any, stream: Callable[[], Any]) -> None:
        self._event = event
        self._stream = stream

    def record(self) -> None:
        """Enqueue it on that GPU's current stream."""
        self._event.record(self._stream())

    def query(self) -> bool:
        """Whether the GPU has passed it."""
        return bool(self._event.query())

    def elapsed_time(self, end_event: _EventOn, /) -> float:
        """Milliseconds to a later one of the same GPU."""
        return float(self._event.elapsed_time(end_event._event))


def local_rank() -> int:
    """Which of this machine's workers this is, as torchrun numbers them; 0 without it."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def why_no_cuda(
    *,
    system: str,
    torch: Mapping[str, str | None],
    variables: Mapping[str, str],
    load_library: Callable[[str], Any],
    kfd: Path,
) -> str | None:
    """One sentence with the remedy, or None: `torch` as in `torch_facts`, `variables` those of the environment."""
    if system != "linux":
        return f"cuda needs Linux and this is {system}: take --device mps or --device cpu."
    if not torch:
        return "torch is not installed: install a build for your GPU as https://pytorch.org/get-started shows."
    rocm = torch.get("hip") is not None
    if torch.get("cuda") is None and not rocm:
        return (
            f"torch {torch.get('__version__')} was built without CUDA: install a CUDA (or ROCm) build as "
            "https://pytorch.org/get-started shows, or take --device cpu."
        )
    for variable in ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES") if rocm else ("CUDA_VISIBLE_DEVICES",):
        if hides_all(variables.get(variable)):
            return f"{variable}={variables[variable]!r} hides every GPU: unset it, or name a GPU in it."
    return _why_no_amd(kfd) if rocm else _why_no_nvidia(load_library)


def hides_all(visible: str | None) -> bool:
    """Whether a list of visible devices shows none: it counts up to its first entry that names no device."""
    if visible is None:
        return False
    first = visible.split(",")[0].strip()
    return first == "" or first.startswith("-")


def visible_gpus(
    *, torch: Mapping[str, str | None], variables: Mapping[str, str], load_library: Callable[[str], Any]
) -> int | None:
    """How many GPUs torch will find, without it; None where nobody counts them (ROCm)."""
    if torch.get("hip") is not None:
        return None
    for name, start, count, stop in COUNTERS:
        try:
            library = load_library(name)
        except OSError:
            continue
        status, number = _counted(library, start, count, stop)
        if status != 0:
            return None
        named = [each.strip() for each in variables.get("CUDA_VISIBLE_DEVICES", "").split(",")]
        first_none = next((at for at, each in enumerate(named) if hides_all(each)), len(named))
        return min(number, first_none) if "CUDA_VISIBLE_DEVICES" in variables else number
    return None


def _why_no_amd(kfd: Path) -> str | None:
    if kfd.exists():
        return None
    return f"{kfd} does not exist: load the amdgpu driver, or start the container with --device={kfd}."


def _why_no_nvidia(load_library: Callable[[str], Any]) -> str | None:
    for name, start, count, stop in COUNTERS:
        try:
            library = load_library(name)
        except OSError:
            continue
        return _why_none_counted(name, *_counted(library, start, count, stop))
    return (
        f"No NVIDIA driver was found ({COUNTERS[0][0]} does not load): install it, or start the container with "
        "--gpus all."
    )


def _counted(library: Any, start: str, count: str, stop: str | None) -> tuple[int, int]:
    """The driver's status, 0 where all is well, and how many GPUs it counts."""
    number = ctypes.c_int(0)
    # cuInit takes flags, which must be 0; nvmlInit_v2 takes nothing, and C lets it ignore them.
    status = getattr(library, start)(0) or getattr(library, count)(ctypes.byref(number))
    if stop is not None:
        getattr(library, stop)()
    return status, number.value


def _why_none_counted(name: str, status: int, number: int) -> str | None:
    if status != 0:
        return (
            f"The NVIDIA driver does not answer ({name}: status {status}): see what `nvidia-smi` says, and restart "
            "the machine if the driver was updated."
        )
    if number == 0:
        return "The NVIDIA driver counts no GPU: see whether `nvidia-smi -L` lists one."
    return None
