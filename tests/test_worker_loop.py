"""The measured loop: the order of steps, marks and fences is exact, on a clock that moves only when a step is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerbench.devices.cpu import Cpu
from powerbench.devices.stopwatches import ClockStopwatch
from powerbench.records import Cell
from powerbench.reporter import LONG_COLLECTION_NS, REPORT_EVERY_NS, Reporter
from powerbench.rundir.lines import EventWriter, LineTail, read_events
from powerbench.worker import Loop, most_steps, run_windows, set_threads

MS = 1_000_000


class Bench:
    """A step, a timer and a report that write down when they are called; a step takes `step_ns`."""

    anchor_error_ns: int | None = None

    def __init__(self, folder: Path, *, step_ns: int = 10 * MS, stop_in_step: int | None = None) -> None:
        self.calls: list[str] = []
        self.marks = 0
        self.stopped: list[int] = []
        self._events = folder / "worker-0.jsonl"
        self._now_ns = 1_000 * MS
        self._step_ns = step_ns
        self._stop_in_step = stop_in_step

    def step(self, index: int, /) -> None:
        self.calls.append(f"step {index}")
        self._now_ns += self._step_ns
        if index == self._stop_in_step:
            self.stopped.append(2)

    def mark(self) -> int:
        self.calls.append("mark")
        self.marks += 1
        return self._now_ns

    def fence(self) -> int:
        self.calls.append("fence")
        return self._now_ns

    def settle(self) -> None:
        self.calls.append("settle")

    def finish(self) -> None:
        self.calls.append("finish")

    def report(self, now_ns: int) -> int:
        self.calls.append("report")
        return now_ns + REPORT_EVERY_NS

    def never(self, now_ns: int) -> int:
        return 2**62

    def run(
        self,
        *,
        tail_s: float = 0.0,
        report: Callable[[int], int] | None = None,
        graphs: Callable[[], int] = lambda: 0,
        **cell: Any,
    ) -> dict[str, Any]:
        """Run the windows of a cell; the event that the worker wrote."""
        loop = Loop(self.step, self, report or self.never, self.stopped)
        run_windows(Cell(**cell), tail_s, loop, EventWriter(self._events), graphs=graphs)
        (event,) = read_events(LineTail(self._events).read())
        return event

    def what(self, *left_out: str) -> list[str]:
        return [call for call in self.calls if call not in left_out]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def steps(first: int, last: int) -> list[str]:
    """The calls of steps `first` to `last`, `last` left out."""
    return [call for index in range(first, last) for call in (f"step {index}", "mark")]


def test_the_origin_is_marked_and_fenced_then_warmup_and_measured_steps_each_end_in_a_fence(bench: Bench) -> None:
    event = bench.run(warmup=2, steps=3)

    assert bench.what("settle") == ["mark", "fence", *steps(0, 2), "fence", *steps(2, 5), "fence"]
    assert (event["event"], event["first_step"], event["steps"]) == ("window", 2, 3)


def test_without_warmup_there_is_one_fence_less(bench: Bench) -> None:
    event = bench.run(warmup=0, steps=2)

    assert bench.what("settle") == ["mark", "fence", *steps(0, 2), "fence"]
    assert (event["first_step"], event["steps"]) == (0, 2)


def test_the_tail_goes_on_stepping_and_has_a_fence_of_its_own(bench: Bench) -> None:
    event = bench.run(warmup=1, steps=2, tail_s=0.03)

    assert bench.what("settle") == [
        "mark",
        "fence",
        *steps(0, 1),
        "fence",
        *steps(1, 3),
        "fence",
        *steps(3, 6),
        "fence",
    ]
    assert (event["first_step"], event["steps"]) == (1, 2)


@pytest.mark.parametrize(
    ("asked", "min_seconds", "measured"),
    [(3, None, 3), (3, 0.0, 3), (3, 0.1, 10), (3, 0.101, 11), (30, 0.1, 30)],
)
def test_steps_are_a_minimum_and_so_are_seconds(
    bench: Bench, asked: int, min_seconds: float | None, measured: int
) -> None:
    assert bench.run(warmup=2, steps=asked, min_seconds=min_seconds)["steps"] == measured


def test_the_seconds_begin_behind_the_warmup(tmp_path: Path) -> None:
    assert Bench(tmp_path).run(warmup=50, steps=1, min_seconds=0.1)["steps"] == 10


def test_graphs_made_in_the_measured_steps_are_counted_and_those_of_warmup_and_tail_are_not(bench: Bench) -> None:
    """torch.compile makes one in each step but the second."""
    made = {"step 0": 1, "step 2": 10, "step 3": 100, "step 4": 1000}

    event = bench.run(warmup=2, steps=2, tail_s=0.005, graphs=lambda: sum(made.get(call, 0) for call in bench.calls))

    assert bench.calls.count("step 4") == 1
    assert (event["steps"], event["recompiled"]) == (2, 110)


class TestStopping:
    def test_in_the_measured_steps_ends_behind_the_mark_of_the_step_in_flight(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, stop_in_step=4)

        event = bench.run(warmup=2, steps=50, min_seconds=60.0, tail_s=1.0)

        assert bench.what("settle") == ["mark", "fence", *steps(0, 2), "fence", *steps(2, 5), "fence", "fence"]
        assert (event["first_step"], event["steps"]) == (2, 3)

    def test_in_the_warmup_measures_nothing(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, stop_in_step=1)

        event = bench.run(warmup=5, steps=50)

        assert bench.what("settle") == ["mark", "fence", *steps(0, 2), "fence", "fence"]
        assert event["steps"] == 0

    def test_in_the_tail_keeps_all_measured_steps(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, stop_in_step=4)

        event = bench.run(warmup=1, steps=3, tail_s=10.0)

        assert bench.what("settle")[-3:] == ["step 4", "mark", "fence"]
        assert event["steps"] == 3

    def test_before_the_first_step_makes_none(self, bench: Bench) -> None:
        bench.stopped.append(2)

        assert bench.run(warmup=5, steps=50)["steps"] == 0
        assert bench.what("settle") == ["mark", "fence", "fence", "fence"]


class TestReporting:
    def test_comes_behind_the_first_mark_and_then_once_a_second(self, bench: Bench) -> None:
        bench.run(warmup=0, steps=250, report=bench.report)  # 2.5 seconds of 10 ms

        at = [place for place, call in enumerate(bench.calls) if call == "report"]
        assert [bench.calls[:place].count("mark") - 1 for place in at] == [1, 101, 201]  # - 1: the origin

    def test_stands_between_a_mark_and_the_next_step_and_the_timer_settles_before_it(self, bench: Bench) -> None:
        bench.run(warmup=0, steps=250, report=bench.report)

        settled = [place for place, call in enumerate(bench.calls) if call == "settle"]
        around = [bench.calls[place - 1 : place + 3] for place in settled]
        assert around == [["mark", "settle", "report", f"step {index}"] for index in (1, 101, 201)]

    def test_keeps_its_rhythm_from_window_to_window(self, bench: Bench) -> None:
        bench.run(warmup=50, steps=100, report=bench.report)

        assert bench.calls.count("report") == 2


class TestGarbageCollections:
    def written(self, folder: Path, *collections: tuple[int, int]) -> list[dict[str, Any]]:
        """The events of collections (generation, ns), of which the interpreter tells a reporter in this way."""
        now_ns = 0
        reporter = Reporter(EventWriter(folder / "worker-0.jsonl"), Cpu(), clock_ns=lambda: now_ns)
        for generation, lasts_ns in collections:
            reporter.collected("start", {"generation": generation})
            now_ns += lasts_ns
            reporter.collected("stop", {"generation": generation})
        reporter(now_ns)
        return list(read_events(LineTail(folder / "worker-0.jsonl").read()))

    def test_that_are_full_are_written_with_their_length(self, tmp_path: Path) -> None:
        assert self.written(tmp_path, (2, 100), (2, 30)) == [
            {"event": "gc", "time_ns": 0, "end_ns": 100, "generation": 2},
            {"event": "gc", "time_ns": 100, "end_ns": 130, "generation": 2},
        ]

    def test_of_young_generations_are_written_where_a_step_can_notice_them(self, tmp_path: Path) -> None:
        events = self.written(tmp_path, (0, LONG_COLLECTION_NS - 1), (1, LONG_COLLECTION_NS), (0, LONG_COLLECTION_NS))

        assert [event["generation"] for event in events] == [1, 0]


class TestRoom:
    @pytest.mark.parametrize(
        ("cell", "tail_s", "steps"),
        [
            (Cell(warmup=5, steps=100), 0.0, 105),
            (Cell(warmup=0, steps=1, min_seconds=2.0), 0.0, 20_001),
            (Cell(warmup=0, steps=1, min_seconds=2.0), 1.0, 30_001),
            (Cell(warmup=1, steps=2, min_seconds=1e8), 1.0, 4_010_003),  # that of the tail is apart
        ],
    )
    def test_is_made_for_all_steps_asked_for_and_what_the_durations_can_hold(
        self, cell: Cell, tail_s: float, steps: int
    ) -> None:
        assert most_steps(cell, tail_s) == steps

    @settings(deadline=None, max_examples=60)
    @given(
        warmup=st.integers(0, 20),
        asked=st.integers(1, 20),
        min_seconds=st.floats(0, 0.05),
        tail_s=st.floats(0, 0.05),
        step_ns=st.integers(1_000, 20 * MS),
        stop_in_step=st.one_of(st.none(), st.integers(0, 60)),
    )
    def test_is_never_exceeded_however_short_the_steps(
        self, warmup: int, asked: int, min_seconds: float, tail_s: float, step_ns: int, stop_in_step: int | None
    ) -> None:
        with TemporaryDirectory() as folder:
            bench = Bench(Path(folder), step_ns=step_ns, stop_in_step=stop_in_step)
            event = bench.run(warmup=warmup, steps=asked, min_seconds=min_seconds, tail_s=tail_s)

        assert bench.marks <= most_steps(Cell(warmup=warmup, steps=asked, min_seconds=min_seconds), tail_s) + 1
        assert event["first_step"] + event["steps"] <= bench.marks - 1
        if stop_in_step is None:
            assert (event["first_step"], event["steps"] >= asked) == (warmup, True)

    def test_is_left_for_the_tail_by_steps_that_fill_all_the_rest(self, tmp_path: Path) -> None:
        bench = Bench(tmp_path, step_ns=50_000)

        assert bench.run(warmup=0, steps=1, min_seconds=0.5, tail_s=0.01)["steps"] == 5001
        assert bench.marks == 1 + 5001 + 100

    def test_ends_a_duration_of_shorter_steps_than_there_may_be(self, tmp_path: Path) -> None:
        """The summary has a note of it: `min_seconds`."""
        bench = Bench(tmp_path, step_ns=50_000)

        assert bench.run(warmup=0, steps=1, min_seconds=0.5)["steps"] == 5001


class TestARankAmongSeveral:
    def test_has_its_readings_written_with_the_rest_and_at_the_end(self, tmp_path: Path) -> None:
        work = memoryview(bytearray(16)).cast("q")
        settled: list[int] = []

        class Watch(ClockStopwatch):
            def settle(self) -> None:
                settled.append(len(settled))

        with Reporter(EventWriter(tmp_path / "worker-0.jsonl"), Cpu(), Watch(work)) as reporter:
            reporter(0)

        assert settled == [0, 1]

    @pytest.mark.parametrize(("ranks", "threads"), [(1, 6), (2, 3), (4, 1), (99, 1)])
    def test_has_its_part_of_the_processor(self, ranks: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.threads_of(Cell(ranks=ranks), monkeypatch) == threads

    def test_has_the_threads_that_are_given_to_each(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.threads_of(Cell(ranks=2, threads=5), monkeypatch) == 5

    def test_has_those_of_the_environment_where_they_are_set_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OMP_NUM_THREADS", "6")

        assert self.threads_of(Cell(ranks=2), monkeypatch, unset=False) == 6

    def threads_of(self, cell: Cell, monkeypatch: pytest.MonkeyPatch, *, unset: bool = True) -> Any:
        """What a worker sets where torch would take six."""
        import torch

        if unset:
            monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        before = torch.get_num_threads()
        torch.set_num_threads(6)
        try:
            return set_threads(cell)["threads"]
        finally:
            torch.set_num_threads(before)
