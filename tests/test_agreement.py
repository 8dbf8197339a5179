"""How ranks come to equal numbers of steps: on clocks of their own, of any speed, and whoever is asked to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from powerbench.agreement import AgreedSteps
from tests.devices.fake import MS, S

PATIENCE_S = 30.0


class Meeting:
    """Where ranks in threads exchange numbers. One that does not come breaks it, for all."""

    def __init__(self, ranks: int) -> None:
        self.exchanges = 0
        self._barrier = Barrier(ranks)
        self._given: list[Sequence[int]] = []

    def largest(self, numbers: Sequence[int]) -> list[int]:
        self._given.append(numbers)
        self._barrier.wait(PATIENCE_S)
        found = [max(each) for each in zip(*self._given, strict=True)]
        if self._barrier.wait(PATIENCE_S) == 0:
            self._given = []
            self.exchanges += 1
        self._barrier.wait(PATIENCE_S)
        return found


class Rank:
    """A rank with a clock that moves only in its steps; it is its own step loop and timer."""

    anchor_error_ns: int | None = None

    def __init__(self, meeting: Meeting, *, step_ns: int = 10 * MS, asked_in_step: int | None = None) -> None:
        self.timer = self
        self.now_ns = 5 * S
        self.calls: list[str] = []
        self.stopped: list[int] = []
        self._asked: list[int] = []
        self._asked_in_step = asked_in_step
        self._step_ns = step_ns
        self._meeting = meeting
        self.agreed = AgreedSteps(
            self, largest=self._exchange, asked_to_stop=self._asked, stopped=self.stopped, clock=lambda: self.now_ns
        )

    def _exchange(self, numbers: Sequence[int]) -> list[int]:
        self.calls.append("exchange")
        return self._meeting.largest(numbers)

    def run(self, first: int, *, least: int, until_ns: int = 0, most: int = 0) -> int:
        for index in range(first, least):
            self.calls.append(f"step {index}")
            self.now_ns += self._step_ns
            if index == self._asked_in_step:
                self._asked.append(2)
        return least

    def mark(self) -> int:
        return self.now_ns

    def fence(self) -> int:
        self.calls.append("fence")
        return self.now_ns

    def settle(self) -> None:
        """Nothing waits."""

    def finish(self) -> None:
        """Nothing is left."""


def together(meeting: Meeting, *ranks: Rank, of: Callable[[Rank], int]) -> list[int]:
    """What each of the ranks comes to, all at once."""
    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(of, ranks))


def two(*step_ns: int, **changes: Any) -> tuple[Meeting, Rank, Rank]:
    """Two ranks, of which the second is asked to stop, if any is."""
    meeting = Meeting(2)
    one, other = step_ns or (10 * MS, 10 * MS)
    return meeting, Rank(meeting, step_ns=one), Rank(meeting, step_ns=other, **changes)


class TestACount:
    def test_of_steps_is_taken_by_all_and_agreed_on_about_once_a_second(self) -> None:
        meeting, *ranks = two()

        assert together(meeting, *ranks, of=lambda rank: rank.agreed.run(3, least=603)) == [603, 603]
        assert [rank.now_ns for rank in ranks] == [11 * S, 11 * S]
        # One step, to learn how long they take, and then a hundred at a time.
        at = [place for place, call in enumerate(ranks[0].calls) if call == "exchange"]
        assert [ranks[0].calls[place + 1] for place in at] == [
            f"step {step}" for step in (3, 4, 104, 204, 304, 404, 504)
        ]
        assert meeting.exchanges == 7

    def test_that_is_nought_needs_no_agreement(self) -> None:
        meeting, *ranks = two()

        assert together(meeting, *ranks, of=lambda rank: rank.agreed.run(7, least=7)) == [7, 7]
        assert meeting.exchanges == 0


class TestADuration:
    def test_ends_when_the_slowest_clock_has_come_to_its_end_and_the_timer_is_fenced_before_that_is_said(self) -> None:
        meeting, quick, slow = two(10 * MS, 25 * MS)

        reached = together(meeting, quick, slow, of=lambda rank: rank.agreed.run(0, least=2, until_ns=7 * S, most=9999))

        assert reached[0] == reached[1]
        assert [rank.now_ns >= 7 * S for rank in (quick, slow)] == [True, True]
        assert quick.calls[-2:] == slow.calls[-2:] == ["fence", "exchange"]

    @settings(deadline=None, max_examples=40)
    @given(
        step_ns=st.lists(st.integers(MS // 10, 300 * MS), min_size=2, max_size=3),
        least=st.integers(0, 30),
        lasts_ns=st.integers(0, 4 * S),
        most=st.integers(0, 200),
    )
    def test_of_ranks_of_any_speed_ends_at_one_step_and_never_beyond_the_room(
        self, step_ns: list[int], least: int, lasts_ns: int, most: int
    ) -> None:
        meeting = Meeting(len(step_ns))
        ranks = [Rank(meeting, step_ns=each) for each in step_ns]
        most += least

        reached = together(
            meeting,
            *ranks,
            of=lambda rank: rank.agreed.run(0, least=least, until_ns=rank.now_ns + lasts_ns, most=most),
        )

        assert len(set(reached)) == 1
        assert least <= reached[0] <= most
        if reached[0] < most:
            assert all(rank.now_ns >= 5 * S + lasts_ns for rank in ranks)


class TestStopping:
    def test_ends_all_at_one_step_whoever_is_asked(self) -> None:
        meeting, *ranks = two(asked_in_step=150)

        reached = together(meeting, *ranks, of=lambda rank: rank.agreed.run(0, least=10_000))

        assert reached == [201, 201]  # the agreement that follows
        assert [rank.stopped for rank in ranks] == [[1], [1]]

    def test_ends_what_would_come_after_without_another_word(self) -> None:
        meeting, *ranks = two(asked_in_step=0)
        together(meeting, *ranks, of=lambda rank: rank.agreed.run(0, least=9))
        before = meeting.exchanges

        assert together(meeting, *ranks, of=lambda rank: rank.agreed.run(1, least=99, until_ns=99 * S)) == [1, 1]
        assert meeting.exchanges == before

    def test_that_is_asked_for_in_the_last_steps_leaves_them_complete(self) -> None:
        meeting, *ranks = two(asked_in_step=8)

        assert together(meeting, *ranks, of=lambda rank: rank.agreed.run(0, least=9)) == [9, 9]
        assert [rank.stopped for rank in ranks] == [[], []]
