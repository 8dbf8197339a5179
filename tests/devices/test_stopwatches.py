"""A rank's own work: from where its step begins to where it only waits, by the clock or by the device's events."""

from __future__ import annotations

from fractions import Fraction

from powerbench.devices.cpu import Cpu
from powerbench.devices.cuda import Cuda
from powerbench.devices.stopwatches import ClockStopwatch, EventStopwatch
from tests.devices.fake import MS, FakeDevice, FakeEvent, S, VirtualTime, fake_torch, marks_for


def on_a_device(*, clock_rate: Fraction = Fraction(1)) -> tuple[EventStopwatch, FakeDevice, memoryview]:
    time = VirtualTime(3 * S)
    device, work = FakeDevice(time, clock_rate=clock_rate), marks_for(9)
    return EventStopwatch(work, new_event=lambda: FakeEvent(device), clock=time.now_ns), device, work


class TestTheClock:
    def test_stamps_when_the_rank_s_own_part_was_done_and_how_long_it_took(self) -> None:
        time, work = VirtualTime(3 * S), marks_for(3)
        watch = ClockStopwatch(work, clock=time.now_ns)

        for step, (own, wait, rest) in enumerate([(4, 6, 0), (9, 1, 5)]):
            watch.begin(step)
            time.wait_until(time.now_ns() + own * MS)
            watch.arrive()
            time.wait_until(time.now_ns() + wait * MS)
            watch.resume()  # the optimizer
            time.wait_until(time.now_ns() + rest * MS)
            watch.end()
        watch.settle()

        assert work.tolist() == [3 * S + 4 * MS, 4 * MS, 3 * S + 19 * MS, 14 * MS, 0, 0]

    def test_of_a_step_without_waiting_is_all_of_it(self) -> None:
        time, work = VirtualTime(3 * S), marks_for(1)
        watch = ClockStopwatch(work, clock=time.now_ns)

        watch.begin(0)
        time.wait_until(time.now_ns() + 4 * MS)
        watch.end()

        assert work.tolist() == [3 * S + 4 * MS, 4 * MS]

    def test_waits_to_the_end_where_nothing_comes_behind_it(self) -> None:
        time, work = VirtualTime(3 * S), marks_for(1)
        watch = ClockStopwatch(work, clock=time.now_ns)

        watch.begin(0)
        time.wait_until(time.now_ns() + 4 * MS)
        watch.arrive()
        time.wait_until(time.now_ns() + 6 * MS)
        assert work.tolist() == [3 * S + 4 * MS, 0]  # it waits
        watch.end()

        assert work.tolist() == [3 * S + 4 * MS, 4 * MS]

    def test_takes_no_notice_of_gradients_before_the_first_step(self) -> None:
        work = marks_for(1)

        ClockStopwatch(work).arrive()

        assert work.tolist() == [0, 0]

    def test_is_what_the_processor_has(self) -> None:
        assert isinstance(Cpu().stopwatch(marks_for(1)), ClockStopwatch)


class TestEvents:
    def test_measure_the_device_and_not_the_python_that_went_ahead(self) -> None:
        watch, device, work = on_a_device()

        for step in range(2):
            watch.begin(step)
            device.submit(40 * MS, enqueue_ns=MS)
            watch.arrive()
            device.submit(60 * MS)  # the others' gradients
            watch.resume()
            device.submit(5 * MS)
            watch.end()
        device.synchronize()
        watch.settle()

        assert work.tolist()[1:4:2] == [46 * MS, 45 * MS]  # the first waited for Python
        assert work.tolist()[0:4:2] == [3 * S + MS, 3 * S + 2 * MS]

    def test_never_wait_for_the_device(self) -> None:
        watch, device, work = on_a_device()

        watch.begin(0)
        device.submit(40 * MS)
        watch.end()
        watch.settle()

        assert "synchronize" not in device.calls
        assert device.time.now_ns() == 3 * S
        assert work.tolist()[:2] == [3 * S, 0]  # arrived; for how long is not known yet

    def test_are_used_again_once_they_are_read(self) -> None:
        made: list[FakeEvent] = []
        device = FakeDevice(VirtualTime())

        def new_event() -> FakeEvent:
            made.append(FakeEvent(device))
            return made[-1]

        watch = EventStopwatch(marks_for(9), new_event=new_event, clock=device.time.now_ns)
        for step in range(9):
            watch.begin(step)
            device.submit(MS)
            watch.arrive()
            watch.resume()
            watch.end()
            device.synchronize()
            watch.settle()

        assert len(made) == 4

    def test_are_what_a_gpu_has(self) -> None:
        device = FakeDevice(VirtualTime(3 * S))

        class Timed(FakeEvent):
            def __init__(self, enable_timing: bool = False) -> None:
                assert enable_timing
                super().__init__(device)

        work = marks_for(1)
        watch = Cuda(fake_torch({"cuda.Event": Timed})).stopwatch(work)
        watch.begin(0)
        device.submit(7 * MS)
        watch.end()
        device.synchronize()
        watch.settle()

        assert work.tolist()[1] == 7 * MS
