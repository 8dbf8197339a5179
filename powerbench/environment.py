"""What the machine and its software are: the facts without which a number cannot be repeated."""

from __future__ import annotations

import ast
import os
import platform
import re
import subprocess
import sys
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

import powerbench

# Variables that change what a step costs, by prefix: torch and its allocators, thread pools, device visibility.
TELLING_VARIABLES = (
    *("PYTORCH_", "TORCH", "ATEN_", "CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_"),
    *("OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "VECLIB_", "DNNL_", "ONEDNN_"),
    *("HIP_", "ROCR_", "HSA_", "MIOPEN_", "GPU_DEVICE_ORDINAL", "ZE_", "SYCL_", "ONEAPI_"),
    *("MALLOC_", "LD_PRELOAD", "DYLD_INSERT_LIBRARIES"),
)
# What images and installers say of themselves there, at length, and no result depends on.
SILENT_VARIABLES = (
    *("CUDA_HOME", "CUDA_PATH", "CUDA_VERSION", "TORCH_HOME", "TORCH_CUDA_ARCH_LIST"),
    *("NVIDIA_REQUIRE_", "NVIDIA_PRODUCT_", "NVIDIA_DRIVER_CAPABILITIES"),
)
SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "KEY")
POWER_MODE_FILES = (
    "/sys/firmware/acpi/platform_profile",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
)
# Not powersave, which is the usual governor of intel_pstate.
SLOW_MODES = ("low power", "low-power", "quiet", "cool")
PACKAGES = ("transformers", "numpy", "datasets")


def describe_environment() -> dict[str, Any]:
    """Facts about this machine for `run.json`; None where the system does not tell. Imports no torch."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return {
        "powerbench": powerbench.__version__,
        **describe_software(),
        "system": system_name(),
        "machine": platform.machine(),
        "host": platform.node(),
        "processor": processor_name(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "swap_bytes": swap.total,
        "swap_used_bytes": swap.used,
        "load_1min": os.getloadavg()[0],
        "on_battery": on_battery(),
        "power_mode": power_mode(),
        "virtual_machine": is_virtual_machine(),
        "variables": telling_variables(os.environ),
    }


def describe_software() -> dict[str, str | None]:
    """The interpreter that this process runs in, and what it has installed: a worker may run in another than we."""
    return {
        "interpreter": sys.executable,
        "python": platform.python_version(),
        "torch": torch_version(),
        **{name: package_version(name) for name in PACKAGES},
    }


def telling_variables(environment: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """The variables that change results, without those that might hold a secret."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if name.startswith(TELLING_VARIABLES)
        and not name.startswith(SILENT_VARIABLES)
        and not any(word in name for word in SECRET_WORDS)
    }


def package_version(name: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def torch_version() -> str | None:
    """The installed torch's own version, read as text since importing it costs seconds; None without torch."""
    return torch_facts().get("__version__") or package_version("torch")


@cache
def torch_facts() -> dict[str, str | None]:
    """What `torch/version.py` assigns (`__version__`, `cuda`, `git_version`, ...), without running it."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return {}
    source = Path(spec.origin).with_name("version.py")
    if not source.is_file():
        return {}
    facts: dict[str, str | None] = {}
    for statement in ast.parse(source.read_text("utf-8")).body:
        if isinstance(statement, ast.Assign):
            targets, value = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets, value = [statement.target], statement.value
        else:
            continue
        if isinstance(value, ast.Constant) and (value.value is None or isinstance(value.value, str)):
            facts |= {target.id: value.value for target in targets if isinstance(target, ast.Name)}
    return facts


def system_name() -> str:
    """`macOS 15.5`, or the kernel's name and release."""
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}"
    return f"{platform.system()} {platform.release()}"


@cache
def processor_name() -> str:
    """The processor's marketing name (`Apple M1 Max`, `AMD EPYC`), or its architecture where that is all there is."""
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(names, None) or platform.machine()


def usable_cores() -> int | None:
    """How many logical cores this process may run on; None where the system has no affinity (macOS)."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return None


def on_battery() -> bool | None:
    """Whether the machine runs on its battery; None where it has none or the system does not tell."""
    battery = psutil.sensors_battery()
    if battery is None or battery.power_plugged is None:
        return None
    return not battery.power_plugged


def power_mode() -> str | None:
    """How the system trades speed for power; None where it does not tell.

    `low power` or `normal` on macOS; on Linux the firmware's profile, or else the governor of the clocks (`powersave`).
    """
    if sys.platform == "darwin":
        setting = re.search(r"lowpowermode\s+(\d)", _output("/usr/bin/pmset", "-g") or "")
        return None if setting is None else "low power" if setting[1] != "0" else "normal"
    for path in POWER_MODE_FILES:
        try:
            return Path(path).read_text("ascii").strip()
        except OSError:
            continue
    return None


def is_virtual_machine(cpuinfo: str = "/proc/cpuinfo") -> bool | None:
    """Whether a hypervisor runs this system; None where it does not tell (Linux on anything but x86)."""
    if sys.platform == "darwin":
        flag = _sysctl("kern.hv_vmm_present")
        return None if flag is None else flag == "1"
    try:
        text = Path(cpuinfo).read_text("utf-8", errors="replace")
    except OSError:
        return None
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return None if flags is None else "hypervisor" in flags[1].split()


def suspended_ns() -> int | None:
    """How long this boot has been suspended so far: a clock that goes on in sleep against one that does not."""
    if sys.platform == "linux":
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    if sys.platform == "darwin":
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) - time.clock_gettime_ns(time.CLOCK_UPTIME_RAW)
    return None


def boot_id() -> str | None:
    """Names this boot: two runs with the same one share a monotonic clock. None where the system does not tell."""
    if sys.platform == "darwin":
        return _sysctl("kern.bootsessionuuid")
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None


def _sysctl(name: str) -> str | None:
    return _output("/usr/sbin/sysctl", "-n", name)


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
