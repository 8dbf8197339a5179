"""How a run ended, from what is left to see: an error's words, a worker's log, the system's counters of kills."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from powerbench.records import Status

# torch's words for it: CUDA, HIP, XPU and MPS say "out of memory" (torch.OutOfMemoryError, or a plain RuntimeError on
# mps); Metal refuses one huge buffer by its size; the processor's allocator names itself (c10/core/impl/alloc_cpu.cpp).
OUT_OF_MEMORY = (
    *("out of memory", "Invalid buffer size", "DefaultCPUAllocator: ", "std::bad_alloc"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
)

# Metal reports a failed command buffer on stderr and lets the program go on: what it computed after that is nothing.
METAL_FAILURE = "command buffer exited with error status"
METAL_LINES = 10
METAL_OUT_OF_MEMORY = ("Insufficient Memory", "OutOfMemory")

# torch's warning of PYTORCH_ENABLE_MPS_FALLBACK=1.
CPU_FALLBACK = re.compile(r"The operator '([^']+)' is not currently supported on the MPS backend and will fall back")

# From here on torch's words on memory are an account of it and advice on its allocator: the log has them whole.
MEMORY_ACCOUNT = re.compile(
    r"\. (?:Including non-PyTorch memory|Process \d+ has|Of the allocated memory|This process has)"
)

# Below this share of free memory the system is out of it (macOS has no counter of its kills).
NO_MEMORY_LEFT = 0.03


SMALLER = "take a smaller --batch-size or --sequence-length"


class Ended(NamedTuple):
    """How a run ended, and why where it was not complete: a clause without a full stop."""

    status: Status
    reason: str | None


def how_it_ended(
    *,
    end: Mapping[str, Any] | None,
    stopped: Ended | None,
    exit_status: int | None,
    log: str,
    log_path: Path,
    evidence: str | None,
    disk_full: bool,
) -> Ended:
    """The ending of a run whose worker is gone.

    `end` is the worker's own last event, `stopped` why the supervisor asked it to stop, `evidence` why the system
    may have killed it for memory; each None where there was none.
    """
    failure = metal_failure(log)
    if failure is not None:
        gave_up = f"Metal gave up on work of the run: {failure.said}"
        return Ended("oom", f"{gave_up}; {SMALLER}") if failure.memory else Ended("failed", gave_up)
    if end is not None and end["outcome"] == "complete":
        return Ended("complete", None)
    if stopped is not None:
        return stopped
    if end is not None:
        message = end["message"] or "its worker was told to stop by a signal from elsewhere"
        return Ended(end["outcome"], f"{message}; {SMALLER}" if end["outcome"] == "oom" else message)
    how = f"the worker {in_words(exit_status)}"
    if exit_status == -signal.SIGKILL and evidence is not None:
        return Ended("oom", f"{how}: {evidence}; {SMALLER}")
    if disk_full:
        return Ended("failed", f"{how} with the disk full; make room, or choose another folder with --output")
    words = last_words(log)
    return Ended("failed", f"{how}: {words} (the whole story is in {log_path})" if words else how)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory, on the device or on the machine."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def in_one_line(error: BaseException) -> str:
    """The first line of what an error says, which in torch's long ones is what happened, without its account."""
    lines = str(error).strip().splitlines()
    return MEMORY_ACCOUNT.split(lines[0].strip() if lines else type(error).__name__)[0].rstrip(".")


class MetalFailure(NamedTuple):
    """A command buffer that Metal did not complete: what it says of it, and whether memory was why."""

    said: str
    memory: bool


def metal_failure(log: str) -> MetalFailure | None:
    """The first such failure in a worker's log; None where it has none."""
    lines = [line.strip() for line in log.splitlines()]
    at = next((at for at, line in enumerate(lines) if METAL_FAILURE in line), None)
    if at is None:
        return None
    # The cause stands some lines below (pytorch#125442, pytorch#123171).
    cause = next((line for line in lines[at : at + METAL_LINES] if any(w in line for w in METAL_OUT_OF_MEMORY)), None)
    said = lines[at] if cause in (None, lines[at]) else f"{lines[at].rstrip('.')}: {cause}"
    return MetalFailure(said, memory=cause is not None)


def log_notes(log: str) -> list[str]:
    """What a worker's log says that a reader of the figures must know."""
    operators = sorted(set(CPU_FALLBACK.findall(log)))
    if not operators:
        return []
    return [f"These operators ran on the processor, not on the GPU (MPS fallback): {', '.join(operators)}."]


def out_of_memory_kills(root: Path = Path("/")) -> dict[str, int]:
    """How often the system has killed for memory so far, by counter; empty where it does not count (macOS).

    A kill is counted in its victim's own cgroup, so /proc/vmstat, which counts those of others too, is asked only where
    the cgroup has no counter.
    """
    if sys.platform != "linux":
        return {}
    counters = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        inside = path.lstrip("/")
        if controllers == "memory":
            counters["memory.oom_control"] = root / "sys/fs/cgroup/memory" / inside / "memory.oom_control"
        elif controllers == "":
            counters["memory.events"] = root / "sys/fs/cgroup" / inside / "memory.events"
    return _kills(counters) or _kills({"/proc/vmstat": root / "proc/vmstat"})


def _kills(counters: Mapping[str, Path]) -> dict[str, int]:
    found = {name: re.search(r"^oom_kill (\d+)$", _read(path), re.MULTILINE) for name, path in counters.items()}
    return {name: int(match[1]) for name, match in found.items() if match is not None}


def evidence_of_kill(before: Mapping[str, int], after: Mapping[str, int], free_ratio: float | None) -> str | None:
    """Why a SIGKILL that nobody here sent was the system's, for memory; None without evidence."""
    for name, count in after.items():
        if count > before.get(name, count):
            return f"the system killed it for memory (oom_kill in {name} rose from {before[name]} to {count})"
    if free_ratio is not None and free_ratio < NO_MEMORY_LEFT:
        return f"it was killed when {free_ratio:.1%} of the memory was free"
    return None


def last_words(log: str) -> str:
    """The line of a log that says why it ends: the last, unless faulthandler's stack of a crash is behind it."""
    lines = log.strip().splitlines()
    crashed = [line for line in lines if line.startswith("Fatal Python error")]
    return (crashed or lines or [""])[-1].strip()


def in_words(exit_status: int | None) -> str:
    """How a process ended, behind its name."""
    if exit_status is None or exit_status >= 0:
        return f"ended with exit status {exit_status}"
    try:
        return f"was killed by {signal.Signals(-exit_status).name}"
    except ValueError:
        return f"was killed by signal {-exit_status}"


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
