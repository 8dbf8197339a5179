"""How a run ended is told from what is left of it: each sentence, and the evidence behind it, exact."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from powerbench.endings import (
    Ended,
    MetalFailure,
    evidence_of_kill,
    how_it_ended,
    in_one_line,
    is_out_of_memory,
    log_notes,
    metal_failure,
    out_of_memory_kills,
)

LOG = Path("runs/one/worker-0.log")
REMEDY = "take a smaller --batch-size or --sequence-length"
KILLED = -9
EVIDENCE = "the system killed it for memory (oom_kill in memory.events rose from 0 to 1)"

# As Metal prints it, over several lines and with the cause on one of its own (pytorch#125442, #123171).
METAL = """\
Error: command buffer exited with error status.
\tThe Metal Performance Shaders operations encoded on it may not have completed.
\tError: 
\t(null)
\t{cause}
\t<AGXG13XFamilyCommandBuffer: 0x3601ec380>
    label = <none> 
    device = <AGXG13XDevice: 0x11f3b5400>
        name = Apple M1 Pro 
    commandQueue = <AGXG13XFamilyCommandQueue: 0x11f3b8800>
        label = <none> 
        device = <AGXG13XDevice: 0x11f3b5400>
            name = Apple M1 Pro 
    retainedReferences = 1
"""  # noqa: W291 (the blanks at the ends of lines are Metal's)
METAL_MEMORY = METAL.format(cause="Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)")
METAL_INTERNAL = METAL.format(cause="Internal Error (0000000e:Internal Error)")
METAL_IN_ONE_LINE = (
    "[w] command buffer exited with error status 8: "
    "Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"
)
FALLBACK = (
    "/venv/torch/nn/functional.py:2: UserWarning: The operator '{}' is not currently supported on the MPS backend and "
    "will fall back to run on the CPU. This may have performance implications. (Triggered internally at "
    "/Users/runner/work/pytorch/pytorch/pytorch/aten/src/ATen/mps/MPSFallback.mm:14.)\n  return it\n"
)


def ended(**what_is_left: Any) -> Ended:
    """The ending of a run with an empty log of which nothing else is left, but for this."""
    nothing: dict[str, Any] = {"end": None, "stopped": None, "exit_status": 1, "log": "", "evidence": None}
    return how_it_ended(**nothing | {"log_path": LOG, "disk_full": False} | what_is_left)


def said(outcome: str, message: str | None = None) -> dict[str, Any]:
    """The worker's own last word."""
    return {"event": "end", "time_ns": 1, "outcome": outcome, "message": message}


class TestComplete:
    def test_is_what_the_worker_says(self) -> None:
        assert ended(end=said("complete"), exit_status=0) == Ended("complete", None)

    @pytest.mark.parametrize("exit_status", [KILLED, -11, 1])
    def test_is_a_run_whose_worker_died_after_saying_so(self, exit_status: int) -> None:
        assert ended(end=said("complete"), exit_status=exit_status, evidence=EVIDENCE) == Ended("complete", None)

    def test_is_a_run_that_was_asked_to_stop_too_late(self) -> None:
        assert ended(end=said("complete"), stopped=Ended("timeout", "too long")) == Ended("complete", None)

    @pytest.mark.parametrize("stopped", [None, Ended("timeout", "too long"), Ended("swapping", "too slow")])
    def test_is_a_run_that_only_has_no_operators(self, stopped: Ended | None) -> None:
        assert ended(end=said("complete"), stopped=stopped, without_operators=True).status == "complete"

    def test_is_never_one_that_metal_gave_up_on(self) -> None:
        for log in (METAL_MEMORY, METAL_INTERNAL, METAL_IN_ONE_LINE):
            assert ended(end=said("complete"), exit_status=0, log=log).status != "complete"


class TestStopped:
    @pytest.mark.parametrize(
        "asked", [Ended("interrupted", "Ctrl-C"), Ended("timeout", "too long"), Ended("swapping", "too slow")]
    )
    def test_is_a_run_that_was_asked_to_whatever_became_of_its_worker(self, asked: Ended) -> None:
        assert ended(stopped=asked, end=said("interrupted"), exit_status=1) == asked
        assert ended(stopped=asked, exit_status=KILLED) == asked
        assert ended(stopped=asked, exit_status=-2, log="KeyboardInterrupt") == asked
        assert ended(stopped=asked, exit_status=None) == asked

    def test_is_a_complete_run_too_whose_last_steps_ctrl_c_has_cut_since_what_comes_next_is_meant(self) -> None:
        asked = Ended("interrupted", "Ctrl-C")

        assert ended(stopped=asked, end=said("complete"), without_operators=True) == asked
        assert ended(stopped=asked, end=said("complete")) == Ended("complete", None)

    def test_is_not_out_of_memory_where_our_own_kill_met_somebody_else_s(self) -> None:
        assert ended(stopped=Ended("timeout", "too long"), exit_status=KILLED, evidence=EVIDENCE).status == "timeout"


class TestInterrupted:
    def test_by_a_signal_that_only_the_worker_got_says_so(self) -> None:
        assert ended(end=said("interrupted")) == Ended(
            "interrupted", "its worker was told to stop by a signal from elsewhere"
        )


class TestOutOfMemory:
    def test_by_torch_s_word_comes_with_the_remedy(self) -> None:
        message = "CUDA out of memory. Tried to allocate 20.00 GiB"

        assert ended(end=said("oom", message)) == Ended("oom", f"{message}; {REMEDY}")

    def test_by_the_system_s_kill_comes_with_evidence_and_remedy(self) -> None:
        assert ended(exit_status=KILLED, evidence=EVIDENCE) == Ended(
            "oom", f"the worker was killed by SIGKILL: {EVIDENCE}; {REMEDY}"
        )

    @pytest.mark.parametrize("exit_status", [-15, -11, -6, 1, 137])
    def test_is_no_other_death_at_the_same_time(self, exit_status: int) -> None:
        assert ended(exit_status=exit_status, evidence=EVIDENCE).status == "failed"

    def test_by_metal_s_word_where_that_is_one_line(self) -> None:
        status, reason = ended(end=said("complete"), exit_status=0, log=f"warming up\n{METAL_IN_ONE_LINE}\nand on\n")

        assert status == "oom"
        assert str(reason).startswith(f"Metal gave up on work of the run: {METAL_IN_ONE_LINE}")

    @pytest.mark.parametrize("last_word", [said("complete"), said("interrupted"), None])
    def test_by_metal_s_word_as_metal_prints_it(self, last_word: dict[str, Any] | None) -> None:
        assert ended(end=last_word, log=f"warming up\n{METAL_MEMORY}and on\n").status == "oom"

    def test_by_metal_s_word_comes_with_the_remedy(self) -> None:
        gave_up = f"Metal gave up on work of the run: {METAL_IN_ONE_LINE}"

        assert ended(log=METAL_IN_ONE_LINE) == Ended("oom", f"{gave_up}; {REMEDY}")


class TestUnavailable:
    def test_is_what_the_worker_says(self) -> None:
        assert ended(end=said("unavailable", "torch finds no GPU")) == Ended("unavailable", "torch finds no GPU")


class TestFailed:
    def test_has_the_last_line_of_the_log_and_its_path(self) -> None:
        log = "Traceback (most recent call last):\n  File x\nValueError: the abacus has lost a bead\n\n"

        assert ended(log=log) == Ended(
            "failed",
            "the worker ended with exit status 1: ValueError: the abacus has lost a bead "
            "(the whole story is in runs/one/worker-0.log)",
        )

    @pytest.mark.parametrize(
        ("exit_status", "how"),
        [
            (0, "the worker ended with exit status 0"),
            (3, "the worker ended with exit status 3"),
            (KILLED, "the worker was killed by SIGKILL"),
            (-11, "the worker was killed by SIGSEGV"),
            (-15, "the worker was killed by SIGTERM"),
            (-63, "the worker was killed by signal 63"),
        ],
    )
    def test_without_a_log_says_how_the_worker_ended(self, exit_status: int, how: str) -> None:
        assert ended(exit_status=exit_status, log=" \n") == Ended("failed", how)

    def test_by_a_kill_without_evidence_names_the_signal(self) -> None:
        assert ended(exit_status=KILLED, log="step 3\n") == Ended(
            "failed", "the worker was killed by SIGKILL: step 3 (the whole story is in runs/one/worker-0.log)"
        )

    def test_with_a_full_disk_says_what_to_do(self) -> None:
        assert ended(disk_full=True, log="OSError: [Errno 28] No space left on device") == Ended(
            "failed",
            "the worker ended with exit status 1 with the disk full; make room, or choose another folder with --output",
        )

    def test_by_its_own_word(self) -> None:
        assert ended(end=said("failed", "it cannot be")) == Ended("failed", "it cannot be")

    def test_by_metal_names_metal_s_line(self) -> None:
        status, reason = ended(end=said("complete"), exit_status=0, log=f"warming up\n{METAL_INTERNAL}")

        assert status == "failed"
        assert str(reason).startswith(
            "Metal gave up on work of the run: Error: command buffer exited with error status"
        )

    def test_by_a_crash_in_native_code_gives_the_line_that_says_what_happened(self) -> None:
        log = (
            "Fatal Python error: Segmentation fault\n\n"
            "Current thread 0x00007f7ac8c7c740 (most recent call first):\n"
            '  File "bert.py", line 5 in step\n\n'
            "Extension modules: msgspec._core, psutil._psutil_linux, numpy._core._multiarray_umath (total: 3)\n"
        )

        assert ended(exit_status=-11, log=log) == Ended(
            "failed",
            "the worker was killed by SIGSEGV: Fatal Python error: Segmentation fault "
            "(the whole story is in runs/one/worker-0.log)",
        )


class TestTorchSaysThatMemoryRanOut:
    @pytest.mark.parametrize(
        "text",
        [
            "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 15.77 GiB of which ...",
            "HIP out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.98 GiB",
            "XPU out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.11 GiB",
            "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call.",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            "MPS backend out of memory (MPS allocated: 8.89 GB, other allocations: 172.98 MB, max allowed: 9.07 GB). "
            "Tried to allocate 6.25 MB on private pool. Use PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable upper "
            "limit for memory allocations (may cause system failure).",
            "Invalid buffer size: 24.00 GB",
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
            "allocate 1073741824 bytes. Error code 12 (Cannot allocate memory)",
        ],
    )
    def test_in_each_of_its_ways(self, text: str) -> None:
        assert is_out_of_memory(RuntimeError(text))

    def test_and_python_does(self) -> None:
        assert is_out_of_memory(MemoryError())

    def test_by_the_class_that_it_has_for_it(self) -> None:
        import torch

        assert issubclass(torch.OutOfMemoryError, RuntimeError)  # which is what the worker catches
        assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))

    def test_of_the_processor_really(self) -> None:
        import torch

        with pytest.raises(RuntimeError) as caught:
            torch.empty(1 << 47, dtype=torch.uint8)  # all that a 64-bit processor gives a process

        assert is_out_of_memory(caught.value)
        assert in_one_line(caught.value).endswith(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 140737488355328 bytes. "
            "Error code 12 (Cannot allocate memory)"
        )

    def test_in_the_words_of_c_plus_plus(self) -> None:
        assert is_out_of_memory(RuntimeError("std::bad_alloc"))

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
            RuntimeError("CUDA error: an illegal memory access was encountered"),
            ValueError("batch_size is too small"),
        ],
    )
    def test_but_not_in_these(self, error: Exception) -> None:
        assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            RuntimeError(
                "CUDA out of memory. Tried to allocate 48.00 GiB. GPU 0 has a total capacity of 139.80 GiB of which "
                "27.61 GiB is free. Including non-PyTorch memory, this process has 112.18 GiB memory in use. Of the "
                "allocated memory 102.72 GiB is allocated by PyTorch."
            ),
            "CUDA out of memory. Tried to allocate 48.00 GiB. GPU 0 has a total capacity of 139.80 GiB of which "
            "27.61 GiB is free",
        ),
        (RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`."), "CUDA error: out of memory"),
        (RuntimeError("\n  Invalid buffer size: 24.00 GB.  \n"), "Invalid buffer size: 24.00 GB"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_an_error_is_told_by_its_first_line_without_a_full_stop(error: Exception, line: str) -> None:
    assert in_one_line(error) == line


class TestMetalFailure:
    @pytest.mark.parametrize("log", ["", "step 3\nerror status 5\n", "Insufficient Memory\n"])
    def test_is_none_where_metal_says_nothing(self, log: str) -> None:
        assert metal_failure(log) is None

    def test_is_the_first_of_several(self) -> None:
        failed = MetalFailure("Error: command buffer exited with error status.", memory=False)

        assert metal_failure(METAL_INTERNAL + METAL_MEMORY) == failed

    def test_has_the_cause_that_stands_below_it(self) -> None:
        assert metal_failure(f"step 3\n{METAL_MEMORY}step 4\n") == MetalFailure(
            "Error: command buffer exited with error status: "
            "Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
            memory=True,
        )

    def test_has_a_cause_in_its_own_line_once(self) -> None:
        assert metal_failure(f"step 3\n{METAL_IN_ONE_LINE}\n") == MetalFailure(METAL_IN_ONE_LINE, memory=True)

    def test_has_no_cause_that_stands_above_it_or_far_below(self) -> None:
        log = f"Insufficient Memory\n{METAL_INTERNAL}Insufficient Memory\n"

        assert metal_failure(log) == MetalFailure("Error: command buffer exited with error status.", memory=False)

    def test_is_found_in_the_middle_of_a_line_that_something_else_began(self) -> None:
        log = f"  2%|#         | 1/50 [00:33<27:16, 33.39s/it]{METAL_INTERNAL}"

        assert metal_failure(log) is not None


class TestNotes:
    def test_name_each_operator_that_fell_back_to_the_processor_once(self) -> None:
        log = FALLBACK.format("aten::linalg_svd") + "step 3\n" + FALLBACK.format("aten::histc") * 2

        assert log_notes(log) == [
            "These operators ran on the processor, not on the GPU (MPS fallback): aten::histc, aten::linalg_svd."
        ]

    def test_are_none_of_what_is_not_implemented_at_all(self) -> None:
        assert log_notes("NotImplementedError: The operator 'aten::_foo' is not currently implemented for MPS.") == []
        assert log_notes("") == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts its kills")
class TestKillsForMemory:
    def test_are_counted_for_the_machine_where_no_cgroup_counts_them(self, tmp_path: Path) -> None:
        system(tmp_path, vmstat=3, cgroups="4:memory:/gone\n0::/gone\n")

        assert out_of_memory_kills(tmp_path) == {"/proc/vmstat": 3}

    def test_are_counted_for_a_cgroup_of_version_1(self, tmp_path: Path) -> None:
        system(tmp_path, vmstat=3, cgroups="9:name=systemd:/\n4:memory:/docker/ab12\n1:cpu:/\n0::/\n")
        counter(tmp_path / "sys/fs/cgroup/memory/docker/ab12/memory.oom_control", "under_oom 0\n", 2)

        assert out_of_memory_kills(tmp_path) == {"memory.oom_control": 2}

    def test_are_counted_for_a_cgroup_of_version_2(self, tmp_path: Path) -> None:
        system(tmp_path, vmstat=0, cgroups="0::/user.slice/run-7.scope\n")
        counter(tmp_path / "sys/fs/cgroup/user.slice/run-7.scope/memory.events", "low 0\nhigh 4\nmax 9\noom 8\n", 1)

        assert out_of_memory_kills(tmp_path) == {"memory.events": 1}

    def test_are_counted_for_the_cgroup_that_a_container_sees_as_the_root(self, tmp_path: Path) -> None:
        system(tmp_path, cgroups="0::/\n")
        counter(tmp_path / "sys/fs/cgroup/memory.events", "oom 8\n", 5)

        assert out_of_memory_kills(tmp_path) == {"memory.events": 5}

    def test_of_a_cgroup_with_a_colon_in_its_name_are_counted(self, tmp_path: Path) -> None:
        system(tmp_path, cgroups="0::/a:b\n")
        counter(tmp_path / "sys/fs/cgroup/a:b/memory.events", "", 1)

        assert out_of_memory_kills(tmp_path) == {"memory.events": 1}

    def test_are_not_those_of_a_whole_group(self, tmp_path: Path) -> None:
        system(tmp_path, cgroups="0::/\n")
        counter(tmp_path / "sys/fs/cgroup/memory.events", "oom 8\noom_group_kill 6\n", 1)

        assert out_of_memory_kills(tmp_path) == {"memory.events": 1}

    def test_are_unknown_where_nothing_counts_them(self, tmp_path: Path) -> None:
        assert out_of_memory_kills(tmp_path) == {}

        system(tmp_path, cgroups="4:memory:/gone\n0::/gone\n")
        (tmp_path / "proc/vmstat").write_text("pgfault 7\n")
        assert out_of_memory_kills(tmp_path) == {}


class TestEvidence:
    def test_is_a_counter_that_rose(self) -> None:
        assert evidence_of_kill({"/proc/vmstat": 3}, {"/proc/vmstat": 4}, 0.5) == (
            "the system killed it for memory (oom_kill in /proc/vmstat rose from 3 to 4)"
        )
        assert evidence_of_kill({"memory.events": 0}, {"memory.events": 2}, None) == (
            "the system killed it for memory (oom_kill in memory.events rose from 0 to 2)"
        )

    def test_is_none_where_no_counter_rose(self) -> None:
        same = {"/proc/vmstat": 3, "memory.events": 1}

        assert evidence_of_kill(same, same, 0.5) is None
        assert evidence_of_kill({}, {}, 0.5) is None
        assert evidence_of_kill({}, {}, None) is None

    def test_is_not_a_counter_that_was_not_there_before(self) -> None:
        assert evidence_of_kill({}, {"/proc/vmstat": 9}, 0.5) is None

    def test_is_not_a_counter_that_is_gone(self) -> None:
        assert evidence_of_kill({"memory.events": 9}, {}, 0.5) is None

    def test_is_memory_of_which_hardly_any_was_free(self) -> None:
        assert evidence_of_kill({}, {}, 0.0123) == "it was killed when 1.2% of the memory was free"
        assert evidence_of_kill({}, {}, 0.03) is None

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts its kills")
    def test_is_not_the_death_of_somebody_else_on_the_machine(self, tmp_path: Path) -> None:
        """A kill is counted in the cgroup of the one who was killed, whoever had run out of memory (mm/oom_kill.c)."""
        system(tmp_path, vmstat=3, cgroups="0::/\n")
        counter(tmp_path / "sys/fs/cgroup/memory.events", "", 0)
        before = out_of_memory_kills(tmp_path)
        system(tmp_path, vmstat=4)

        assert evidence_of_kill(before, out_of_memory_kills(tmp_path), 0.5) is None


def system(root: Path, *, vmstat: int | None = None, cgroups: str | None = None) -> None:
    """A /proc with this count of kills, for a process in these cgroups."""
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    if vmstat is not None:
        counter(root / "proc/vmstat", "nr_free_pages 12345\npgmajfault 17\n", vmstat)
    if cgroups is not None:
        (root / "proc/self/cgroup").write_text(cgroups)


def counter(path: Path, lines: str, kills: int) -> None:
    """A file of the kernel with these lines, and a count of kills for memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{lines}oom_kill {kills}\n")
