"""The gauges say what the machine and its processes do, and nothing of a process that is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from powerbench.gauges import MachineGauges, ProcessGauges
from powerbench.records import Gauge

OF_THE_MACHINE = {
    "system.cpu_ratio",
    "system.steal_ratio",
    "system.load_1min",
    "system.memory_available_bytes",
    "system.swap_used_bytes",
    "cpu.clock_mhz",
    # On macOS psutil counts pages of files too, so there it is not called swap.
    *(f"system.{'page' if sys.platform == 'darwin' else 'swap'}_{way}_bytes" for way in ("in", "out")),
}
NOT_EVERYWHERE = {"system.cpu_ratio", "system.steal_ratio", "cpu.clock_mhz"}

WAITED = {"worker0.waited_s"}  # of a process that has had a turn; Linux


def by_name(gauges: list[Gauge]) -> dict[str, float | str]:
    return {gauge.name: gauge.value for gauge in gauges}


def test_the_machine_s_gauges_carry_the_moment_and_are_numbers() -> None:
    before_ns = time.monotonic_ns()
    gauges = MachineGauges().read()

    assert OF_THE_MACHINE - NOT_EVERYWHERE <= by_name(gauges).keys() <= OF_THE_MACHINE
    assert all(before_ns <= gauge.time_ns <= time.monotonic_ns() for gauge in gauges)
    assert all(isinstance(gauge.value, int | float) for gauge in gauges)


def test_what_is_costly_to_ask_comes_once_a_second() -> None:
    moments = iter([0, 100_000_000, 900_000_000, 1_000_000_000, 1_100_000_000])
    gauges = MachineGauges(clock_ns=lambda: next(moments))
    costly = OF_THE_MACHINE - NOT_EVERYWHERE

    assert [costly <= by_name(gauges.read()).keys() for _ in range(5)] == [True, False, False, True, False]


def test_the_busy_ratio_is_that_since_the_last_sample() -> None:
    gauges = MachineGauges()
    was = psutil.cpu_times()
    while psutil.cpu_times() == was:  # until the kernel has counted a tick
        pass

    found = by_name(gauges.read())
    ratio, stolen = found["system.cpu_ratio"], found.get("system.steal_ratio", 0.0)

    assert isinstance(ratio, float)
    assert isinstance(stolen, float)
    assert 0 <= stolen <= ratio <= 1
    assert ("system.steal_ratio" in found) == (sys.platform == "linux")


def test_a_process_has_memory_page_ins_and_from_the_second_sample_on_busy_cores() -> None:
    gauges = ProcessGauges(["worker0"], [os.getpid()])
    rss = psutil.Process().memory_info().rss

    first = by_name(gauges.read())
    second = by_name(gauges.read())

    assert first.keys() - WAITED == {"worker0.rss_bytes", "worker0.page_ins"}
    assert second.keys() - WAITED == {"worker0.rss_bytes", "worker0.page_ins", "worker0.cpu_cores"}
    memory = first["worker0.rss_bytes"]
    assert isinstance(memory, int)
    assert rss / 2 < memory < rss * 2


def test_a_process_that_shares_a_core_waits_for_it_and_one_that_sleeps_does_not() -> None:
    if sys.platform != "linux" or not Path("/proc/self/schedstat").exists():
        pytest.skip("the kernel counts no waits for a core")
    spin, sleep = "import sys; print(flush=True)\nwhile True: pass", "input()"
    core = {sorted(os.sched_getaffinity(0))[0]}
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen([sys.executable, "-c", code], **options) for code in (spin, spin, sleep)]
    try:
        for process in processes:
            os.sched_setaffinity(process.pid, core)
        gauges = ProcessGauges(["one", "other", "sleeper"], [process.pid for process in processes])
        give_up_s = time.monotonic() + 60
        while True:
            found = by_name(gauges.read())
            waited = [float(found.get(f"{name}.waited_s", 0.0)) for name in ("one", "other", "sleeper")]
            if min(waited[:2]) > 0.5 and waited[2] < min(waited[:2]) / 2:
                break
            assert time.monotonic() < give_up_s, waited
            time.sleep(0.02)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_each_process_has_its_own_name() -> None:
    gauges = ProcessGauges(["worker0", "worker1"], [os.getpid(), os.getppid()]).read()

    assert {gauge.name.partition(".")[0] for gauge in gauges} == {"worker0", "worker1"}


def test_a_process_that_has_ended_has_no_gauges() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    gauges = ProcessGauges(["worker0"], [process.pid])
    assert gauges.read()

    process.communicate()
    assert gauges.read() == []
    assert ProcessGauges(["worker0"], [process.pid]).read() == []
