"""Slowdowns made for real on this machine, measured and explained by the real commands: their cause comes first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from powerbench.records import Cell
from powerbench.rundir.load import Run
from powerbench.session import record_run
from tests.e2e.commands import ended, marked_ns, powerbench, start, stepping_in, swept

BERT = ("--model", "bert-tiny", "--mode", "inference", "--batch-size", "16", "--sequence-length", "64")
# One thread: several that wait for each other all stand still whenever one of them has no core, and on a machine that
# is busy with other tests as well their steps would take seconds.
THREADS = ("--device", "cpu", "--threads", "1")
QUIET_STEPS, BUSY_STEPS = 150, 50
# A disk that is slow or fast for reasons of its own spoils one of them now and then.
ATTEMPTS = ("first", "second", "third", "fourth")
PAGES = " pages of its memory a second, before "
LOOPS_PER_CORE = 3
# It ends by itself, whatever becomes of the test.
LOOP = "import time\nend = time.monotonic() + 120\nwhile time.monotonic() < end: pass"
GROUPS = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))


def explained(run: Path) -> tuple[str, list[dict[str, Any]]]:
    """What `powerbench trace` says of a run: the verdict and its causes."""
    done = powerbench("trace", run, "--json")
    assert done.status == 0, done.stderr
    slowdown = json.loads(done.stdout)["slowdown"]
    return slowdown["verdict"], slowdown["causes"]


@contextmanager
def competing(processes: int) -> Iterator[None]:
    """So many processes that want a core each."""
    loops = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(processes)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.alone
def test_processes_that_compete_for_the_cores_are_the_first_cause(tmp_path: Path) -> None:
    with swept(tmp_path):
        run = start(
            *("run", *BERT, *THREADS, "--steps", "3000", "--trace", "--power", "none"),
            *("--output", tmp_path),
        )
        folder = stepping_in(tmp_path, steps=QUIET_STEPS)
        with competing(LOOPS_PER_CORE * (psutil.cpu_count() or 1)):
            stepping_in(tmp_path, steps=len(marked_ns(folder)) + BUSY_STEPS)
            run.send_signal(signal.SIGINT)
            done = ended(run)
    assert done.status == 130, done.stderr

    verdict, (first, *_) = explained(folder)

    assert verdict in ("slowdown", "no steady state")
    assert first["cause"] == "other load"
    assert first["evidence"].startswith("The worker waited for a core for ")


def foremost(causes: list[dict[str, Any]]) -> dict[str, Any]:
    """The first cause but for other load, which there is as well where other tests use the same cores."""
    return next(cause for cause in causes if cause["cause"] != "other load")


def record_leak(parent: Path, *arguments: str, steps: int) -> Run:
    """The run of a worker that keeps memory in each step."""
    settings: dict[str, Any] = {
        **{"device": "cpu", "model": "sleep", "steps": steps, "warmup": 0, "sync_every": 1, "copy": "blocking"},
        **{"min_seconds": 0.0, "idle_seconds": 0.0, "trace": True, "power": "none"},
    }
    run = record_run(
        Cell(**settings), parent=parent, command=(sys.executable, "-m", "tests.e2e.workers.leaking", *arguments)
    )
    assert (run.record.status, run.record.reason) == ("complete", None)
    return run


@pytest.mark.alone
def test_memory_that_is_kept_and_walked_through_is_the_first_cause(tmp_path: Path) -> None:
    verdict, causes = explained(record_leak(tmp_path, steps=160).path)

    assert verdict in ("slowdown", "no steady state")
    first = foremost(causes)
    assert first["cause"] == "memory growth"
    assert first["evidence"].startswith("The worker's resident memory grew from ")


@contextmanager
def memory_group() -> Iterator[Path]:
    """A cgroup of our own in which memory can be limited; skips the test where there is none to be had."""
    for parent in GROUPS:
        group = parent / f"powerbench-test-{os.getpid()}"
        with suppress(OSError):
            group.mkdir()
            break
    else:
        pytest.skip("no cgroup can be made here")
    try:
        if not any((group / name).exists() for name in ("memory.limit_in_bytes", "memory.max")):
            pytest.skip("memory cannot be limited here")
        yield group
    finally:
        group.rmdir()


def is_in_memory(folder: Path) -> bool:
    """Whether files there are kept in memory, and so cannot make way for it."""
    mounts = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype in ("tmpfs", "ramfs")


def test_memory_that_is_kept_until_pages_come_from_the_disk_again_is_the_first_cause(tmp_path: Path) -> None:
    if is_in_memory(tmp_path):
        pytest.skip("files here are in memory")
    for attempt in ATTEMPTS:
        folder = tmp_path / attempt
        folder.mkdir()
        with memory_group() as group:
            run = record_leak(folder, "--within", str(group), str(folder / "pages"), steps=130)
        verdict, causes = explained(run.path)
        if any(PAGES in cause["evidence"] for cause in causes):
            break

    assert verdict in ("slowdown", "no steady state")
    first = foremost(causes)
    assert first["cause"] in ("memory pressure", "memory growth")
    assert PAGES in first["evidence"]
