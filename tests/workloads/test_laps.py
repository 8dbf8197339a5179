"""Stamps of the phases within a step: in their places, and at their moments."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from powerbench.workloads.laps import Laps


def room(pairs: int) -> memoryview:
    return memoryview(bytearray(16 * pairs)).cast("q")


def clock_of(*moments: int) -> Iterator[int]:
    return iter(moments)


def test_each_phase_begins_where_the_one_before_it_ended() -> None:
    view = room(6)
    moments = clock_of(10, 13, 20, 30, 34, 40)
    laps = Laps(view, width=2, clock=lambda: next(moments))

    for row in (0, 1):
        laps.begin(row)
        laps.lap()
        laps.lap()

    assert view.tolist() == [10, 13, 13, 20, 30, 34, 34, 40, 0, 0, 0, 0]


def test_a_phase_ends_when_the_device_has_finished() -> None:
    view, now = room(2), count(10)
    waited: list[int] = []
    laps = Laps(view, width=1, synchronize=lambda: waited.append(next(now)), clock=lambda: next(now))

    laps.begin(0)
    laps.lap()

    assert (view.tolist()[:2], waited) == ([10, 12], [11])


def test_what_has_no_room_is_not_kept_and_harms_nothing() -> None:
    view, now = room(2), count(1)
    laps = Laps(view, width=1, clock=lambda: next(now))

    for row in range(100):
        laps.begin(row)
        laps.lap()

    assert view.tolist() == [1, 2, 199, 200]  # the last row is scrap
