"""A steady schedule, counters that wrap, joules under samples of power, and a meter that loses its rails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerbench.errors import MeterLost
from powerbench.power.polling import (
    Counter,
    PolledMeter,
    PowerIntegral,
    Schedule,
    WentBack,
    sysfs_root,
    why_no_sysfs,
)
from powerbench.records import Gauge, RailRecord, Reading

S = 1_000_000_000
A_RAIL = RailRecord(source="test", method="counter", state="measured", scope="a rail", part="cpu", period_s=0.1)


class TestSchedule:
    def test_the_first_moment_is_now_and_the_others_follow_at_one_period(self) -> None:
        schedule, moments = Schedule(0.02), []
        for _ in range(4):
            assert schedule.wait()
            moments.append(time.monotonic())

        for number, moment in enumerate(moments):
            assert moment - moments[0] >= number * 0.02 - 0.001

    def test_moments_that_were_missed_are_skipped_and_the_rhythm_is_kept(self) -> None:
        clock = iter([0, int(3.4 * S), int(4.0 * S), int(4.1 * S), int(5.0 * S)])
        schedule = Schedule(1.0, clock_ns=lambda: next(clock))

        assert schedule.wait()  # at 0; then busy until 3.4
        assert schedule.wait()  # 1, 2 and 3 are past: at 4.0
        assert schedule.wait()  # asked for at 4.1: at 5.0
        assert list(clock) == []

    def test_one_who_is_on_time_misses_nothing(self) -> None:
        clock = iter([0, 1 * S, 1 * S, 2 * S, 2 * S])
        schedule = Schedule(1.0, clock_ns=lambda: next(clock))

        assert [schedule.wait() for _ in range(3)] == [True] * 3
        assert list(clock) == []

    def test_closing_ends_a_wait_at_once(self) -> None:
        schedule = Schedule(60.0)
        assert schedule.wait()
        answers: list[bool] = []
        waiting = threading.Thread(target=lambda: answers.append(schedule.wait()))
        waiting.start()
        schedule.close()
        waiting.join(timeout=10)

        assert answers == [False]

    def test_every_wait_ends_however_often_it_is_closed(self) -> None:
        schedule = Schedule(60.0)
        assert schedule.wait()
        answers: list[bool] = []
        waiting = [threading.Thread(target=lambda: answers.append(schedule.wait())) for _ in range(3)]
        for thread in waiting:
            thread.start()
        for _ in range(3):
            schedule.close()
        for thread in waiting:
            thread.join(timeout=10)

        assert answers == [False] * 3

    def test_after_closing_no_moment_comes(self) -> None:
        schedule = Schedule(0.001)
        schedule.close()

        assert [schedule.wait(), schedule.wait()] == [False, False]

    def test_waiting_costs_no_processor_time(self) -> None:
        schedule = Schedule(0.2)
        schedule.wait()
        before_s = time.thread_time()
        schedule.wait()

        assert time.thread_time() - before_s < 0.05


class TestPowerIntegral:
    def test_ten_watts_for_a_tenth_of_a_second_is_one_joule(self) -> None:
        integral = PowerIntegral()

        assert integral.add(7 * S, 10.0) == 0.0
        assert integral.add(7 * S + S // 10, 10.0) == pytest.approx(1.0)

    def test_a_constant_300_watts_for_ten_seconds_is_3000_joules(self) -> None:
        integral = PowerIntegral()
        for tenth in range(101):
            energy_j = integral.add(tenth * S // 10, 300.0)

        assert energy_j == pytest.approx(3000.0)

    def test_power_that_falls_steadily_counts_with_its_mean(self) -> None:
        integral = PowerIntegral()
        integral.add(0, 300.0)

        assert integral.add(10 * S, 60.0) == pytest.approx(1800.0)

    @given(
        knots=st.lists(st.tuples(st.integers(1, 10 * S), st.floats(0, 1000)), min_size=2, max_size=8),
        cuts=st.lists(st.floats(0, 1), max_size=20),
    )
    def test_looking_more_often_at_the_same_power_changes_nothing(
        self, knots: list[tuple[int, float]], cuts: list[float]
    ) -> None:
        line = [(sum(gap for gap, _ in knots[: i + 1]), power_w) for i, (_, power_w) in enumerate(knots)]
        end_ns = line[-1][0]
        moments = sorted(
            {moment for moment, _ in line} | {line[0][0] + int(cut * (end_ns - line[0][0])) for cut in cuts}
        )

        sparse, dense = PowerIntegral(), PowerIntegral()
        for moment, power_w in line:
            sparse.add(moment, power_w)
        for moment in moments:
            dense.add(moment, on_line(line, moment))

        assert dense.energy_j == pytest.approx(sparse.energy_j, rel=1e-9, abs=1e-9)


def on_line(line: list[tuple[int, float]], moment: int) -> float:
    """The value at a moment of a line through points."""
    for (start, low), (end, high) in pairwise(line):
        if start <= moment <= end:
            return low + (high - low) * (moment - start) / (end - start)
    raise AssertionError("the moment is on the line")


class TestCounter:
    def test_it_starts_from_nothing_whatever_the_first_value(self) -> None:
        counter = Counter()

        assert [counter.add(value) for value in (500, 500, 730)] == [0, 0, 230]

    def test_past_its_greatest_value_it_starts_anew(self) -> None:
        counter = Counter(maximum=999)

        assert [counter.add(value) for value in (990, 999, 0, 5)] == [0, 9, 10, 15]

    def test_without_a_known_end_showing_less_is_an_error(self) -> None:
        counter = Counter()
        counter.add(1_000)

        with pytest.raises(WentBack, match=r"went back from 1,000 to 3"):
            counter.add(3)

    def test_a_way_round_that_is_too_far_is_no_wrap(self) -> None:
        counter = Counter(maximum=999)
        counter.add(100)

        with pytest.raises(WentBack):
            counter.add(50, at_most=900)
        assert counter.add(900, at_most=900) == 800

    @given(
        start=st.integers(0, 2**32),
        steps=st.lists(st.integers(0, 2**32), max_size=30),
        maximum=st.integers(2**32, 2**40),
    )
    def test_steps_of_at_most_one_round_add_up_over_any_number_of_wraps(
        self, start: int, steps: list[int], maximum: int
    ) -> None:
        counter, truth = Counter(maximum), start
        counter.add(start)
        for step in steps:
            truth += step
            counter.add(truth % (maximum + 1))

        assert counter.total == sum(steps)


class ByTurns:
    """A schedule whose moments come at once, so many of them."""

    def __init__(self, moments: int) -> None:
        self.left = moments

    def wait(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def close(self) -> None:
        self.left = 0


class AMeter(PolledMeter):
    """Does at each moment what it is told."""

    def __init__(self, schedule: ByTurns | Schedule, *deeds: Callable[[AMeter], list[Reading | Gauge]]) -> None:
        super().__init__(schedule, {"a": A_RAIL, "b": A_RAIL})
        self.deeds = list(deeds)
        self.closings = 0

    def _poll(self) -> list[Reading | Gauge]:
        return self.deeds.pop(0)(self)

    def _let_go(self) -> None:
        self.closings += 1

    def lose(self, rail: str, why: str) -> list[Reading | Gauge]:
        self._end(rail, why)
        return []


class TestPolledMeter:
    def test_a_moment_without_news_is_not_the_end(self) -> None:
        news: list[Reading | Gauge] = [Reading(1, "a", 1.0)]
        meter = AMeter(ByTurns(3), lambda _: [], lambda _: news)

        assert meter.read() == news

    def test_after_closing_there_is_nothing_to_read(self) -> None:
        meter = AMeter(ByTurns(3))
        meter.close()
        meter.close()

        assert meter.read() == []
        assert meter.closings == 1

    def test_a_rail_that_ends_says_why_and_the_others_go_on(self) -> None:
        news: list[Reading | Gauge] = [Reading(1, "b", 1.0)]
        meter = AMeter(
            ByTurns(9), lambda it: it.lose("a", "it broke"), lambda it: it.lose("a", "again"), lambda _: news
        )

        assert meter.read() == news
        assert [record.lost for record in meter.rails().values()] == ["it broke", None]

    def test_the_meter_is_lost_with_its_last_rail(self) -> None:
        meter = AMeter(ByTurns(9), lambda it: it.lose("a", "it broke") + it.lose("b", "it melted"))

        with pytest.raises(MeterLost, match="a: it broke; b: it melted"):
            meter.read()

    def test_closing_from_another_thread_ends_a_read(self) -> None:
        meter = AMeter(Schedule(60.0), lambda _: [Reading(1, "a", 0.0)])
        meter.read()
        answers: list[object] = []
        reading = threading.Thread(target=lambda: answers.append(meter.read()))
        reading.start()
        meter.close()
        reading.join(timeout=10)

        assert answers == [[]]
        assert meter.closings == 1

    def test_a_poll_in_progress_is_waited_for_before_anything_is_let_go(self) -> None:
        inside, may_end = threading.Event(), threading.Event()

        def slow(meter: AMeter) -> list[Reading | Gauge]:
            inside.set()
            may_end.wait(10)
            assert meter.closings == 0
            return [Reading(1, "a", 0.0)]

        meter = AMeter(Schedule(60.0), slow)
        reading, closing = threading.Thread(target=meter.read), threading.Thread(target=meter.close)
        reading.start()
        assert inside.wait(10)
        closing.start()
        may_end.set()
        reading.join(timeout=10)
        closing.join(timeout=10)

        assert meter.closings == 1


class TestSysfs:
    def test_the_root_can_be_moved_but_not_under_sudo(self) -> None:
        assert str(sysfs_root({})) == "/sys"
        assert str(sysfs_root({"POWERBENCH_SYSFS": "/tree"})) == "/tree"
        assert str(sysfs_root({"POWERBENCH_SYSFS": "/tree", "SUDO_UID": "1000"})) == "/sys"

    def test_only_linux_has_one_unless_it_was_moved(self) -> None:
        assert why_no_sysfs("rapl", {}, "linux") is None
        assert why_no_sysfs("rapl", {"POWERBENCH_SYSFS": "/tree"}, "darwin") is None
        assert why_no_sysfs("rapl", {}, "darwin") == (
            "rapl needs Linux and this is darwin: take ioreport or powermetrics on a Mac."
        )
