"""The facts about a machine: true where it tells them, None where it does not, and no secret among them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import powerbench
from powerbench.environment import (
    boot_id,
    describe_environment,
    is_virtual_machine,
    on_battery,
    package_version,
    processor_name,
    suspended_ns,
    system_name,
    telling_variables,
    torch_facts,
    torch_version,
    usable_cores,
)


def test_the_facts_are_those_that_a_reader_needs_to_repeat_a_number() -> None:
    facts = describe_environment()

    assert facts["powerbench"] == powerbench.__version__
    assert facts["python"] == platform.python_version()
    assert facts["memory_bytes"] == psutil.virtual_memory().total
    assert facts["logical_cores"] == os.cpu_count()
    assert 0 < facts["memory_available_bytes"] < facts["memory_bytes"]
    assert facts.keys() >= {
        *("torch", "transformers", "numpy", "system", "machine", "host", "processor", "cores", "usable_cores"),
        *("swap_bytes", "load_1min", "on_battery", "variables"),
    }


def test_torch_s_version_is_read_without_importing_it() -> None:
    import torch

    asked = (
        "from powerbench.environment import torch_version; import sys; print(torch_version(), 'torch' in sys.modules)"
    )

    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout.split()

    assert told == [torch.__version__, "False"]
    assert (torch_version(), torch_facts()["cuda"]) == (torch.__version__, torch.version.cuda)


def test_variables_that_change_results_are_recorded_and_no_others() -> None:
    told = telling_variables(
        {
            "OMP_NUM_THREADS": "2",
            "PYTORCH_MPS_HIGH_WATERMARK_RATIO": "0.0",
            "CUDA_VISIBLE_DEVICES": "",
            "LD_PRELOAD": "libjemalloc.so",
            "NVIDIA_REQUIRE_CUDA": "cuda>=13.0 brand=tesla,driver>=550,driver<551",
            "CUDA_HOME": "/usr/local/cuda",
            "HOME": "/home/somebody",
            "PATH": "/bin",
        }
    )

    assert told == {
        "CUDA_VISIBLE_DEVICES": "",
        "LD_PRELOAD": "libjemalloc.so",
        "OMP_NUM_THREADS": "2",
        "PYTORCH_MPS_HIGH_WATERMARK_RATIO": "0.0",
    }


@pytest.mark.parametrize("name", ["NVIDIA_API_KEY", "TORCH_HUB_TOKEN", "CUDA_SECRET", "TORCH_PASSWORD"])
def test_no_secret_is_recorded(name: str) -> None:
    assert telling_variables({name: "hush"}) == {}


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert package_version("no-such-package-anywhere") is None
    assert package_version("pytest") == pytest.__version__


def test_linux_tells_its_boot_its_cores_and_its_processor() -> None:
    if sys.platform != "linux":
        pytest.skip("names and files of Linux")
    assert boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    assert usable_cores() == len(os.sched_getaffinity(0))
    assert system_name() == f"Linux {platform.release()}"
    assert processor_name()


def test_a_battery_is_used_or_not_or_not_known() -> None:
    assert on_battery() in (True, False, None)


@pytest.mark.parametrize(
    ("cpuinfo", "answer"),
    [("flags\t\t: fpu hypervisor lm\n", True), ("flags\t\t: fpu lm\n", False), ("Features\t: fp asimd\n", None)],
)
def test_a_virtual_machine_is_told_by_its_processor_s_flags(tmp_path: Path, cpuinfo: str, answer: bool | None) -> None:
    if sys.platform != "linux":
        pytest.skip("a file of Linux")
    (tmp_path / "cpuinfo").write_text(cpuinfo)

    assert is_virtual_machine(str(tmp_path / "cpuinfo")) is answer


def test_time_asleep_grows_by_nothing_while_we_are_awake() -> None:
    before, after = suspended_ns(), suspended_ns()

    if sys.platform in ("linux", "darwin"):
        assert before is not None
        assert after is not None
        assert abs(after - before) < 50_000_000  # between two readings of two clocks
    else:
        assert (before, after) == (None, None)
