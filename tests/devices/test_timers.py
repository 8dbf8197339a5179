"""What each timer writes, to the nanosecond, on a device whose work takes known times."""

from __future__ import annotations

import threading
import time
from fractions import Fraction

import pytest

from powerbench.devices.timers import EventTimer, FencedTimer, InstantTimer
from tests.devices.fake import (
    MS,
    FakeDevice,
    FakeEvent,
    RealTime,
    S,
    VirtualTime,
    ends,
    gaps,
    marks_for,
    sleep_holding_the_gil,
    submits,
)

START = 5 * S


def at(*milliseconds: float) -> list[int]:
    """Moments after the start of the virtual clock; -1 for a boundary not reached."""
    return [0 if ms < 0 else START + round(ms * MS) for ms in milliseconds]


def a_device(**how: object) -> FakeDevice:
    return FakeDevice(VirtualTime(START), **how)  # type: ignore[arg-type]


def fenced(device: FakeDevice, marks: memoryview, *, sync_every: int) -> FencedTimer:
    return FencedTimer(marks, synchronize=device.synchronize, sync_every=sync_every, clock=device.time.now_ns)


def by_events(device: FakeDevice, marks: memoryview) -> EventTimer:
    return EventTimer(
        marks, synchronize=device.synchronize, new_event=lambda: FakeEvent(device), clock=device.time.now_ns
    )


def test_on_the_processor_each_boundary_is_submitted_and_over_at_once() -> None:
    clock, marks = iter([10, 25, 40]), marks_for(3)
    timer = InstantTimer(marks, clock=lambda: next(clock))

    assert [timer.mark(), timer.mark(), timer.mark(), timer.fence()] == [10, 25, 40, 40]

    timer.settle()
    timer.finish()
    assert submits(marks) == ends(marks) == [10, 25, 40]


class TestFencedTimer:
    def test_with_1_each_step_is_submitted_then_waited_for_then_stamped(self) -> None:
        device, marks = a_device(), marks_for(4)
        timer = fenced(device, marks, sync_every=1)

        timer.mark()
        for work_ms in (20, 30, 40):
            device.submit(work_ms * MS, enqueue_ns=2 * MS)
            timer.mark()

        assert submits(marks) == at(0, 2, 24, 56)
        assert ends(marks) == at(0, 22, 54, 96)
        assert device.calls == ["synchronize", *["submit", "synchronize"] * 3]

    def test_with_5_each_fifth_step_is_an_edge_and_so_is_the_last(self) -> None:
        device, marks = a_device(), marks_for(8)
        timer = fenced(device, marks, sync_every=5)

        timer.mark()
        for _ in range(7):
            device.submit(10 * MS, enqueue_ns=1 * MS)
            timer.mark()
        timer.fence()

        assert submits(marks) == at(0, 1, 2, 3, 4, 5, 52, 53)
        assert ends(marks) == at(0, -1, -1, -1, -1, 51, -1, 72)
        assert device.calls.count("synchronize") == 3

    def test_with_0_only_the_origin_and_the_last_boundary_are_edges(self) -> None:
        device, marks = a_device(), marks_for(4)
        timer = fenced(device, marks, sync_every=0)

        timer.mark()
        for _ in range(3):
            device.submit(10 * MS, enqueue_ns=1 * MS)
            timer.mark()

        assert timer.fence() == START + 31 * MS
        assert submits(marks) == at(0, 1, 2, 3)
        assert ends(marks) == at(0, -1, -1, 31)

    def test_a_mark_returns_the_edge_where_there_is_one_and_else_the_submission(self) -> None:
        device = a_device()
        timer = fenced(device, marks_for(3), sync_every=2)

        returned = [timer.mark()]
        for _ in range(2):
            device.submit(10 * MS, enqueue_ns=1 * MS)
            returned.append(timer.mark())

        assert returned == at(0, 1, 21)

    def test_a_boundary_that_is_an_edge_already_is_not_fenced_again(self) -> None:
        device = a_device()
        timer = fenced(device, marks_for(1), sync_every=0)

        assert [timer.mark(), timer.fence(), timer.fence()] == [START] * 3
        assert device.calls == ["synchronize"]

    def test_a_step_that_is_waited_for_has_its_submission_on_record_already(self) -> None:
        """So a worker killed while the device hangs has said which step it was."""
        device, marks, seen = a_device(), marks_for(2), []
        timer = FencedTimer(
            marks, synchronize=lambda: seen.append(marks.tolist()), sync_every=1, clock=device.time.now_ns
        )

        timer.mark()
        timer.mark()

        assert seen == [[START, 0, 0, 0], [START, START, START, 0]]


class TestTheSeedsLoop:
    """Each step starts with a blocking copy, which waits for the step before (benchmark-method.md 2.1)."""

    works_ms = (10, 20, 30, 40)

    def steps(self, *, sync_every: int) -> memoryview:
        device, marks = a_device(), marks_for(5)
        timer = fenced(device, marks, sync_every=sync_every)
        timer.mark()
        for work_ms in self.works_ms:
            device.blocking_copy()
            device.submit(work_ms * MS, enqueue_ns=3 * MS)
            timer.mark()
        timer.fence()
        return marks

    def test_unsynchronized_the_first_step_is_submission_only_and_each_other_shows_the_one_before(self) -> None:
        moments = submits(self.steps(sync_every=0))

        seen = gaps(moments)
        assert seen == [3 * MS, 10 * MS + 3 * MS, 20 * MS + 3 * MS, 30 * MS + 3 * MS]

    def test_unsynchronized_only_the_fence_sees_the_last_step(self) -> None:
        marks = self.steps(sync_every=0)

        assert ends(marks)[-1] - submits(marks)[-1] == 40 * MS

    def test_with_a_fence_at_each_step_each_shows_its_own(self) -> None:
        moments = ends(self.steps(sync_every=1))

        seen = gaps(moments)
        assert seen == [3 * MS + work_ms * MS for work_ms in self.works_ms]

    def test_both_take_equally_long_in_all(self) -> None:
        assert ends(self.steps(sync_every=0))[-1] == ends(self.steps(sync_every=1))[-1]


def test_no_thread_of_the_worker_runs_while_a_fence_holds_the_gil() -> None:
    """Which is why the marks are in mapped memory and nothing in the worker writes them to a file meanwhile."""
    held_s, moments, running, stop = [], [time.monotonic_ns()], threading.Event(), threading.Event()

    def sleep(seconds: float) -> None:
        held_s.append(seconds)
        sleep_holding_the_gil(seconds)

    def stamp() -> None:
        while not stop.is_set():
            moments.append(time.monotonic_ns())
            running.set()

    device, marks = FakeDevice(RealTime(sleep)), marks_for(1)
    timer = FencedTimer(marks, synchronize=device.synchronize, sync_every=1)
    thread = threading.Thread(target=stamp)
    thread.start()
    running.wait()
    device.submit(50 * MS)
    timer.mark()
    stop.set()
    thread.join()
    moments.append(time.monotonic_ns())

    silences = gaps(moments)
    assert max(silences) >= max(held_s) * S - 1_000  # usleep counts whole microseconds
    assert ends(marks)[0] - submits(marks)[0] >= max(held_s) * S - 1_000


class TestEventTimer:
    def test_edges_come_from_the_device_while_python_runs_ahead(self) -> None:
        device, marks = a_device(), marks_for(4)
        timer = by_events(device, marks)

        timer.mark()
        for work_ms in (20, 30, 40):
            device.submit(work_ms * MS, enqueue_ns=1 * MS)
            timer.mark()
        timer.fence()
        timer.finish()

        assert submits(marks) == at(0, 1, 2, 3)
        assert ends(marks) == at(0, 21, 51, 91)
        assert timer.anchor_error_ns == 0

    def test_nothing_is_waited_for_but_the_origin_and_the_fence(self) -> None:
        device = a_device()
        timer = by_events(device, marks_for(3))

        timer.mark()
        for _ in range(2):
            device.submit(10 * MS)
            timer.mark()
        timer.fence()
        timer.finish()

        assert device.calls == ["record", "synchronize", *["submit", "record"] * 2, "synchronize"]

    def test_settle_gives_edges_to_the_steps_that_are_over_and_waits_for_none(self) -> None:
        device, marks = a_device(), marks_for(4)
        timer = by_events(device, marks)
        timer.mark()
        for _ in range(3):
            device.submit(10 * MS)
            timer.mark()

        timer.settle()
        assert ends(marks) == at(0, -1, -1, -1)

        device.time.wait_until(START + 20 * MS)
        timer.settle()
        assert ends(marks) == at(0, 10, 20, -1)
        assert device.time.now_ns() == START + 20 * MS

    def test_an_edge_once_written_stays_and_none_is_written_before_an_earlier_one(self) -> None:
        """The journal folds a step when its edge or a later one is there, and never looks at it again."""
        device, marks = a_device(synchronize_ns=1 * MS, clock_rate=Fraction(101, 100)), marks_for(6)
        timer = by_events(device, marks)
        timer.mark()
        written = []
        for settled in (False, True, False, True, False):
            device.submit(10 * MS)
            timer.mark()
            timer.fence()
            if settled:
                timer.settle()
            written.append([end for end in ends(marks) if end])
        timer.finish()

        assert [len(edges) for edges in written] == [1, 3, 3, 5, 5]
        assert all(edges == ends(marks)[: len(edges)] for edges in written)

    def test_steps_that_are_settled_once_a_second_need_no_more_events_than_a_second_has_steps(self) -> None:
        device, made, steps = a_device(), 0, 5_000

        def new_event() -> FakeEvent:
            nonlocal made
            made += 1
            return FakeEvent(device)

        timer = EventTimer(
            marks_for(steps + 1), synchronize=device.synchronize, new_event=new_event, clock=device.time.now_ns
        )
        timer.mark()
        for step in range(steps):
            device.submit(2 * MS, enqueue_ns=2 * MS)
            timer.mark()
            if step % 500 == 499:
                timer.settle()

        assert made == 1 + 500 + 1  # the origin's, a second's, and the one in flight

    def test_ten_hours_of_float32_milliseconds_do_not_drift(self) -> None:
        """999 ms is a float32 exactly; ten hours, told from the origin, would be off by up to 2 ms."""
        device, steps = a_device(), 36_037
        marks = marks_for(steps + 1)
        timer = by_events(device, marks)

        timer.mark()
        for _ in range(steps):
            device.submit(999 * MS)
            timer.mark()
        timer.fence()
        timer.finish()

        assert ends(marks) == [START + boundary * 999 * MS for boundary in range(steps + 1)]
        assert timer.anchor_error_ns == 0

    def test_each_step_adds_at_most_the_rounding_of_its_own_duration(self) -> None:
        """100.3 ms lies between two float32 that are 2**-17 ms (7.6 ns) apart."""
        device, steps = a_device(), 1_000
        marks = marks_for(steps + 1)
        timer = by_events(device, marks)

        timer.mark()
        for _ in range(steps):
            device.submit(100_300_000)
            timer.mark()
        timer.fence()
        timer.finish()

        half_a_float32_ns = 2**-18 * MS
        assert all(
            abs(end - (START + boundary * 100_300_000)) <= boundary * half_a_float32_ns + 1
            for boundary, end in enumerate(ends(marks))
        )

    @pytest.mark.parametrize("ppm", [-50, 0, 20])
    def test_a_clock_at_another_rate_is_stated_and_moves_no_step_against_another(self, ppm: int) -> None:
        device, steps = a_device(clock_rate=1 + Fraction(ppm, 1_000_000)), 600
        marks = marks_for(steps + 1)
        timer = by_events(device, marks)

        timer.mark()
        for _ in range(steps):
            device.submit(1 * S)
            timer.mark()
        timer.fence()
        timer.finish()

        ten_minutes_ns = 600 * S
        assert timer.anchor_error_ns == pytest.approx(-ppm * ten_minutes_ns / 1_000_000, abs=600 * 31)  # float32 at 1 s
        edges = ends(marks)
        assert len(set(gaps(edges))) <= 2  # 1 ns of rounding

    def test_what_synchronize_takes_to_return_shifts_all_edges_alike(self) -> None:
        device, marks = a_device(synchronize_ns=30_000), marks_for(3)
        timer = by_events(device, marks)

        timer.mark()
        for _ in range(2):
            device.submit(10 * MS)
            timer.mark()
        timer.fence()
        timer.finish()

        assert ends(marks) == at(0.03, 10.06, 20.06)  # the first step starts when the origin's fence has returned
        assert timer.anchor_error_ns == 0

    def test_without_a_last_fence_the_anchor_error_is_unknown(self) -> None:
        device, marks = a_device(), marks_for(2)
        timer = by_events(device, marks)
        timer.mark()
        device.submit(10 * MS)
        timer.mark()

        timer.finish()

        assert timer.anchor_error_ns is None
        assert ends(marks) == at(0, -1)


class TestAPause:
    """It is closed by a boundary with a negative submit, and the next step begins at its end."""

    def test_on_the_processor_is_over_at_once(self) -> None:
        clock, marks = iter([10, 25, 400, 440]), marks_for(4)
        timer = InstantTimer(marks, clock=lambda: next(clock))

        assert [timer.mark(), timer.mark(), timer.resume(), timer.mark(), timer.fence()] == [10, 25, 400, 440, 440]

        assert submits(marks) == [10, 25, -400, 440]
        assert ends(marks) == [10, 25, 400, 440]

    def test_with_fences_is_over_when_the_device_has_done_what_was_submitted_in_it(self) -> None:
        device, marks = a_device(), marks_for(4)
        timer = fenced(device, marks, sync_every=1)
        timer.mark()
        device.submit(20 * MS)
        timer.mark()
        device.submit(100 * MS)
        timer.resume()
        device.submit(30 * MS)
        timer.mark()

        assert ends(marks) == at(0, 20, 120, 150)
        assert [submit < 0 for submit in submits(marks)] == [False, False, True, False]

    def test_closes_no_block_of_steps(self) -> None:
        device, marks = a_device(), marks_for(6)
        timer = fenced(device, marks, sync_every=2)
        timer.mark()
        for _ in range(2):
            device.submit(10 * MS)
            timer.mark()
        timer.resume()
        for _ in range(2):
            device.submit(10 * MS)
            timer.mark()

        assert ends(marks) == at(0, -1, 20, 20, -1, 40)

    def test_with_events_stalls_nothing_and_is_over_when_the_device_comes_to_it(self) -> None:
        device, marks = a_device(), marks_for(4)
        timer = by_events(device, marks)
        timer.mark()
        device.submit(20 * MS)
        timer.mark()
        device.submit(100 * MS)
        timer.resume()
        device.submit(30 * MS)
        timer.mark()
        before = list(device.calls)
        timer.fence()
        timer.finish()

        assert before.count("synchronize") == 1  # that of the origin
        assert ends(marks) == at(0, 20, 120, 150)
        assert [submit < 0 for submit in submits(marks)] == [False, False, True, False]


def test_a_longer_mapping_is_gone_on_in_where_the_old_one_was_left() -> None:
    device, marks, longer = a_device(), marks_for(2), marks_for(3)
    for timer in (InstantTimer(marks, clock=device.time.now_ns), fenced(device, marks, sync_every=1)):
        timer.mark()
        timer.mark()
        timer.go_on_in(longer)
        timer.mark()
        assert submits(longer)[2] > 0
        longer[4] = 0
