"""Runs that become slower for a known reason, recorded for real: it is named first, and flat runs have none."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

from powerbench.analysis.causes import Cause, find_causes, recorded_of
from powerbench.analysis.slowdown import Slowdown, find_slowdown
from powerbench.power import Meter
from powerbench.records import Cell, Gauge, RailRecord, Reading
from powerbench.rundir.load import Run
from powerbench.session import record_run
from tests.e2e.workers.slowing import CHANGED, FAST, NAME, SLOW, UUID

S = 1_000_000_000
RAIL = RailRecord(
    source="nvml", method="counter", state="measured", scope="GPU board", part="gpu", period_s=0.05, uuid=UUID
)


class Simulation:
    """What the steps' slowing has in common with meters and gauges: the moment of it, and the folder that tells it."""

    def __init__(self) -> None:
        self.folder: Path | None = None

    @property
    def changed(self) -> bool:
        return self.folder is not None and (self.folder / CHANGED).exists()


class Watts:
    """A meter of a GPU that draws so much before the change, and so much after it."""

    def __init__(self, simulation: Simulation, *, before: float, after: float) -> None:
        self.name = "fake"
        self._simulation = simulation
        self._watts = before, after
        self._closed = Event()
        self._last_ns, self._energy_j = time.monotonic_ns(), 0.0

    def why_unavailable(self) -> str | None:
        return None

    def set_up(self) -> list[str]:
        return []

    def open(self, *, period_s: float) -> Meter:
        return self

    def read(self) -> list[Reading | Gauge]:
        if self._closed.wait(RAIL.period_s):
            return []
        now_ns, watts = time.monotonic_ns(), self._watts[self._simulation.changed]
        self._energy_j += watts * (now_ns - self._last_ns) / S
        self._last_ns = now_ns
        return [Reading(now_ns, "gpu0", self._energy_j), Gauge(now_ns, "gpu0.power_w", watts)]

    def rails(self) -> Mapping[str, RailRecord]:
        return {"gpu0": RAIL}

    def notes(self) -> list[str]:
        return []

    def close(self) -> None:
        self._closed.set()


class Machine:
    """Gauges of a machine that is quiet, and has these levels after the change; counters rise by theirs each time."""

    def __init__(self, simulation: Simulation, after: Mapping[str, float]) -> None:
        self._simulation = simulation
        self._levels = QUIET, QUIET | {**after}
        self._counted: dict[str, float] = {}

    def read(self) -> list[Gauge]:
        now_ns, levels = time.monotonic_ns(), self._levels[self._simulation.changed]
        for name in COUNTERS:
            self._counted[name] = self._counted.get(name, 0.0) + levels[name]
        return [Gauge(now_ns, name, value) for name, value in (levels | self._counted).items()]


# The steps go by a plan, whatever else runs here; that the worker waits for a core meanwhile would be of this machine.
OF_THIS_MACHINE = ("worker0.waited_s", "worker0.cpu_cores")
COUNTERS = ("system.swap_in_bytes", "system.swap_out_bytes")
QUIET = {
    **{"system.cpu_ratio": 0.1, "system.steal_ratio": 0.0, "cpu.clock_mhz": 3000.0},
    **{"system.swap_in_bytes": 0.0, "system.swap_out_bytes": 0.0, "system.memory_available_bytes": 16e9},
}


def record(
    parent: Path,
    way: str,
    *,
    after: Mapping[str, float] | None = None,
    watts: tuple[float, float] = (100.0, 100.0),
    **cell: Any,
) -> Run:
    """Record steps that go this way, beside gauges and watts that change with them."""
    simulation = Simulation()
    settings: dict[str, Any] = {
        **{"device": NAME, "model": "sleep", "sleep_ms": 1.0, "steps": FAST + SLOW, "warmup": 0, "sync_every": 1},
        **{"copy": "blocking", "min_seconds": 0.0, "idle_seconds": 0.0, "trace": True},
    }
    return record_run(
        Cell(**settings | cell),
        parent=parent,
        command=(sys.executable, "-m", "tests.e2e.workers.slowing", way),
        machine=Machine(simulation, after or {}),
        sources={"fake": Watts(simulation, before=watts[0], after=watts[1])},
        on_start=lambda rundir: setattr(simulation, "folder", rundir.path),
    )


def checked(run: Run) -> tuple[Slowdown, list[Cause]]:
    """The verdict on a run, and its causes."""
    assert (run.record.status, run.record.reason) == ("complete", None)
    spans = run.steps[0].spans("step")
    slowdown = find_slowdown([(end - start) / S / count for start, end, count in spans])
    recorded = recorded_of(run)
    gauges = {name: series for name, series in recorded.gauges.items() if name not in OF_THIS_MACHINE}
    return slowdown, find_causes(replace(recorded, gauges=gauges), slowdown)


def the_causes(run: Run) -> list[Cause]:
    """The causes of a run that became slower, and stayed so."""
    slowdown, causes = checked(run)
    assert slowdown.verdict == "slowdown", slowdown
    return causes


def test_a_device_that_is_throttled_has_that_cause_alone(tmp_path: Path) -> None:
    (cause,) = the_causes(record(tmp_path, "slows", watts=(100.0, 55.0)))

    assert cause.cause == "throttling"
    assert cause.evidence.startswith("The power of gpu0 fell from 100 W to ")


def test_a_swap_storm_has_that_cause_alone_though_the_waiting_device_draws_less(tmp_path: Path) -> None:
    storm = {"system.swap_out_bytes": 8e6, "system.swap_in_bytes": 6e6, "system.memory_available_bytes": 1e8}

    (cause,) = the_causes(record(tmp_path, "slows", after=storm, watts=(100.0, 55.0)))

    assert cause.cause == "memory pressure"
    assert " a second were written to swap, before " in cause.evidence
    assert "the power of gpu0 fell from 100 W to " in cause.evidence


def test_tensors_that_are_kept_have_that_cause_alone(tmp_path: Path) -> None:
    (cause,) = the_causes(record(tmp_path, "leaks", steps=2 * FAST))

    assert cause.cause == "tensor leak"


def test_pauses_of_the_collector_are_the_first_cause(tmp_path: Path) -> None:
    slowdown, (first, *others) = checked(record(tmp_path, "collects"))

    assert slowdown.verdict in ("slowdown", "no steady state")  # their length is real, and that of a busy machine
    assert first.cause == "garbage collection"
    assert {cause.cause for cause in others} <= {"host-bound", "other load"}  # the collector needs a core, too


def test_a_noisy_neighbour_in_a_virtual_machine_has_that_cause_alone(tmp_path: Path) -> None:
    (cause,) = the_causes(record(tmp_path, "slows", after={"system.steal_ratio": 0.4}))

    assert cause.cause == "other load"
    assert cause.evidence.startswith("The hypervisor gave 40% of the cores' time to other guests, before 0%")


def test_a_slowdown_beside_which_nothing_changed_has_no_cause(tmp_path: Path) -> None:
    assert the_causes(record(tmp_path, "slows")) == []


def test_an_unsynchronized_device_has_an_artefact_alone(tmp_path: Path) -> None:
    run = record(tmp_path, "copies", steps=60, sync_every=0)

    _, (cause,) = checked(run)

    assert cause.cause == "not synchronized"
    assert "the first step returned after " in cause.evidence


def test_a_flat_run_has_no_cause_whatever_else_changes(tmp_path: Path) -> None:
    storm = {"system.swap_out_bytes": 8e6, "system.cpu_ratio": 1.0, "system.steal_ratio": 0.4}
    run = record(tmp_path, "stays", after=storm, watts=(100.0, 55.0))

    slowdown, causes = checked(run)

    assert slowdown.verdict == "flat"
    assert causes == []
