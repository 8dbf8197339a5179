"""A run with meters: the idle machine, then the steps, then a tail under load, all on one clock with the joules."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from powerbench.errors import MeterLost
from powerbench.pace import Progress
from powerbench.power import Source
from powerbench.records import Cell, Gauge, RailRecord, Reading
from powerbench.rundir import RunDir
from powerbench.rundir.load import Run, load_run
from powerbench.session import record_run

WATTS = 10.0
PERIOD_S = 0.05
NS = 1_000_000_000
RAIL = RailRecord(
    source="fake", method="counter", state="measured", scope="a fake", part="package", contains=[], period_s=PERIOD_S
)


class TenWatts:
    """A meter of something that always takes ten watts, in real time."""

    def __init__(self, *, period_s: float, lost_after: int | None) -> None:
        self._period_s = period_s
        self._left = lost_after
        self._closed = Event()
        self._start_ns = time.monotonic_ns()

    def read(self) -> list[Reading | Gauge]:
        if self._closed.is_set():
            return []
        self._closed.wait(self._period_s)
        if self._left == 0:
            raise MeterLost("the meter was unplugged")
        self._left = None if self._left is None else self._left - 1
        now_ns = time.monotonic_ns()
        return [
            Reading(now_ns, "package-0", WATTS * (now_ns - self._start_ns) / NS),
            Gauge(now_ns, "package-0.power_w", WATTS),
        ]

    def rails(self) -> Mapping[str, RailRecord]:
        return {"package-0": RAIL}

    def notes(self) -> list[str]:
        return ["The joules are made up."]

    def close(self) -> None:
        self._closed.set()


class Fake:
    """A source of ten watts; `reason` and `fails` are why it is unavailable or does not start."""

    def __init__(self, *, reason: str | None = None, fails: str | None = None, lost_after: int | None = None) -> None:
        self.name = "fake"
        self._reason = reason
        self._fails = fails
        self._lost_after = lost_after

    def why_unavailable(self) -> str | None:
        return self._reason

    def set_up(self) -> Sequence[str]:
        return ()

    def open(self, *, period_s: float) -> TenWatts:
        if self._fails is not None:
            raise MeterLost(self._fails)
        return TenWatts(period_s=PERIOD_S, lost_after=self._lost_after)


class NoGauges:
    def read(self) -> list[Gauge]:
        return []


def a_cell(**changes: Any) -> Cell:
    settings: dict[str, Any] = {
        **{"device": "cpu", "model": "sleep", "sleep_ms": 5.0, "steps": 40, "warmup": 2, "sync_every": 1},
        **{"copy": "blocking", "min_seconds": 0.0, "idle_seconds": 0.15},
    }
    return Cell(**settings | changes)


def record(parent: Path, sources: Mapping[str, Source], *, told: list[Progress] | None = None, **cell: Any) -> Run:
    told = [] if told is None else told
    return record_run(
        a_cell(**cell),
        parent=parent,
        sources=sources,
        machine=NoGauges(),
        on_progress=told.append,
        progress_period_s=0.02,
    )


def curve(run: Run) -> list[tuple[int, float]]:
    header, *rows = RunDir(run.path).energy.read_text().splitlines()
    assert header == "time_ns,rail,energy_j"
    assert {row.split(",")[1] for row in rows} == {"package-0"}
    return [(int(row.split(",")[0]), float(row.split(",")[2])) for row in rows]


def joules_by(time_ns: int, points: list[tuple[int, float]]) -> float:
    """The curve between the two readings around this moment; an error where it does not reach so far."""
    return next(
        before_j + (after_j - before_j) * (time_ns - before_ns) / (after_ns - before_ns)
        for (before_ns, before_j), (after_ns, after_j) in pairwise(points)
        if before_ns <= time_ns <= after_ns
    )


@pytest.fixture(scope="module")
def told() -> list[Progress]:
    """What the run tells of its progress."""
    return []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, told: list[Progress]) -> Run:
    """A run with one meter that works, one source that is unavailable, and one that does not start."""
    sources = {"fake": Fake(), "gone": Fake(reason="it is not plugged in."), "broken": Fake(fails="it smokes")}
    return record(tmp_path_factory.mktemp("runs"), sources, told=told)


class TestAMeteredRun:
    def test_is_complete_and_reads_back_as_it_was_returned(self, run: Run) -> None:
        assert (run.record.status, run.record.reason) == ("complete", None)
        assert load_run(run.path) == run

    def test_names_its_rails_its_notes_and_what_was_not_metered_and_why(self, run: Run) -> None:
        assert run.record.rails == {"package-0": RAIL}
        assert run.record.unmetered == {"gone": "it is not plugged in.", "broken": "it smokes"}
        assert run.record.notes == ["The joules are made up."]

    def test_measures_the_idle_machine_before_any_worker_exists(self, run: Run) -> None:
        windows = run.record.windows

        assert list(windows) == ["idle", "warmup", "measured", "tail"]
        assert windows["idle"].end_ns - windows["idle"].start_ns >= 0.15 * NS
        assert windows["idle"].end_ns < windows["warmup"].start_ns
        assert windows["warmup"].end_ns == windows["measured"].start_ns

    def test_steps_on_for_two_periods_of_the_meter(self, run: Run) -> None:
        steps, tail = run.steps[0], run.record.windows["tail"]

        assert run.record.tail_s == 2 * PERIOD_S
        assert tail.start_ns == run.record.windows["measured"].end_ns
        assert tail.end_ns - tail.start_ns >= 2 * PERIOD_S * NS
        assert steps.stage[:42] == ["warmup"] * 2 + ["step"] * 40
        assert set(steps.stage[42:]) == {"tail"}

    def test_has_joules_from_before_the_idle_window_to_behind_the_last_measured_step(self, run: Run) -> None:
        points, windows = curve(run), run.record.windows

        assert points == sorted(points)
        assert points[0][0] <= windows["idle"].start_ns
        assert points[-1][0] >= windows["measured"].end_ns

    @pytest.mark.parametrize("window", ["idle", "warmup", "measured"])
    def test_of_ten_watts_has_ten_joules_a_second_in_each_window(self, run: Run, window: str) -> None:
        points, (start_ns, end_ns) = curve(run), edges(run, window)

        joules = joules_by(end_ns, points) - joules_by(start_ns, points)
        assert joules == pytest.approx(WATTS * (end_ns - start_ns) / NS, abs=3e-6)  # rows are to the microjoule

    def test_has_the_meter_s_gauges_in_its_telemetry(self, run: Run) -> None:
        rows = RunDir(run.path).telemetry.read_text().splitlines()

        assert len([row for row in rows if row.endswith(",package-0.power_w,10")]) == len(curve(run))

    def test_tells_that_it_measures_the_idle_machine_before_it_starts_the_worker(
        self, run: Run, told: list[Progress]
    ) -> None:
        stages = [progress.stage for progress in told]

        assert stages[0] == "idle"
        assert "starting" in stages
        assert stages == sorted(stages, key=["idle", "starting", "warm-up", "measuring", "tail"].index)


def edges(run: Run, window: str) -> tuple[int, int]:
    it = run.record.windows[window]
    return it.start_ns, it.end_ns


def test_a_meter_that_is_lost_ends_its_curve_and_not_the_run(tmp_path: Path) -> None:
    run = record(tmp_path, {"fake": Fake(lost_after=2)})

    assert run.record.status == "complete"
    assert run.record.rails["package-0"].lost == "the meter was unplugged"
    assert len(curve(run)) == 2


@pytest.mark.parametrize("case", ["no source", "power: none", "none that starts"])
def test_without_a_meter_there_is_no_rest_and_no_tail(tmp_path: Path, case: str) -> None:
    sources: dict[str, Source] = {"fake": Fake(fails="it smokes" if case == "none that starts" else None)}
    run = record(
        tmp_path,
        {} if case == "no source" else sources,
        power="none" if case == "power: none" else "auto",
        idle_seconds=60.0,
        steps=3,
    )

    assert (run.record.status, run.record.rails, run.record.tail_s) == ("complete", {}, 0.0)
    assert run.steps[0].stage == ["warmup"] * 2 + ["step"] * 3
    assert list(run.record.windows) == ["warmup", "measured"]
    assert curve_is_empty(run)
    assert run.record.unmetered == ({"fake": "it smokes"} if case == "none that starts" else {})


def curve_is_empty(run: Run) -> bool:
    return RunDir(run.path).energy.read_text() == "time_ns,rail,energy_j\n"


def test_the_tail_is_told_as_such(tmp_path: Path) -> None:
    told: list[Progress] = []
    slow: dict[str, Source] = {"fake": Slow()}
    record(tmp_path, slow, told=told, steps=3, warmup=0, idle_seconds=0.0)

    assert told[-1].stage == "tail"


class Slow(Fake):
    """A source with a long period: its tail outlasts the journal's second."""

    def open(self, *, period_s: float) -> TenWatts:
        meter = super().open(period_s=period_s)
        meter.rails = lambda: {"package-0": SLOW_RAIL}  # type: ignore[method-assign]
        return meter


SLOW_RAIL = RailRecord(
    source="fake", method="counter", state="measured", scope="a fake", part="package", contains=[], period_s=0.75
)
