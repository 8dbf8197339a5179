"""A run is stopped when it outlives its time, a step does, or the machine swaps: each exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from powerbench.endings import Ended
from powerbench.limits import LimitsGuard
from powerbench.records import Cell, Limits

START = 5_000_000_000
S = 1_000_000_000
MB = 1_000_000


class Watched:
    """A guard, and a run that began at `START`; seconds are counted from there."""

    def __init__(self, *, max_seconds: float | None = None, **limits: Any) -> None:
        self._guard = LimitsGuard(Cell(max_seconds=max_seconds, limits=Limits(**limits)), start_ns=START)

    def at(
        self, s: float, *, step_s: float | None = None, swapped: float | None = None, open_steps: int = 1
    ) -> Ended | None:
        """What the guard says at `s`, the last step having ended at `step_s`, with so many bytes swapped out so far."""
        gauges = {} if swapped is None else {"system.swap_out_bytes": swapped, "system.swap_in_bytes": 1e15}
        return self._over(s, step_s=step_s, open_steps=open_steps, gauges=gauges)

    def on_a_mac_at(self, s: float, *, used: float) -> Ended | None:
        """What the guard says at `s` where the system only tells how much of the swap is in use; a step just ended."""
        return self._over(s, step_s=s, open_steps=1, gauges={"system.swap_used_bytes": used})

    def _over(self, s: float, *, step_s: float | None, open_steps: int, gauges: Mapping[str, float]) -> Ended | None:
        return self._guard.over(
            now_ns=START + round(s * S),
            last_step_ns=None if step_s is None else START + round(step_s * S),
            open_steps=open_steps,
            gauges=gauges,
        )


def timeout(limit: str) -> Ended:
    return Ended("timeout", f"it was still running after {limit} s (max_seconds); allow more or measure less")


def step_too_long(limit: str) -> Ended:
    return Ended(
        "swapping",
        f"a step was not over after {limit} s (limits.step_seconds); take a smaller batch or allow more",
    )


def swapped(mb: str, limit: str) -> Ended:
    return Ended(
        "swapping",
        f"the machine wrote {mb} MB to swap since the first step (limits.swap_out_mb is {limit}), "
        "so it was the disk that was measured; take a smaller batch",
    )


class TestTime:
    def test_that_is_not_limited_never_runs_out(self) -> None:
        assert Watched().at(1e9, step_s=1e9) is None

    def test_is_over_right_after_the_last_of_it(self) -> None:
        run = Watched(max_seconds=60)

        assert run.at(60) is None
        assert run.at(60.000000001) == timeout("60")

    def test_counts_from_the_start_of_the_run_while_the_model_is_still_being_built(self) -> None:
        assert Watched(max_seconds=0.5).at(0.75, step_s=None) == timeout("0.5")

    def test_goes_before_what_else_is_over(self) -> None:
        assert Watched(max_seconds=60, step_seconds=1).at(61, step_s=2) == timeout("60")


class TestAStep:
    def test_may_last_for_ever_where_nobody_limits_it(self) -> None:
        assert Watched().at(1e6, step_s=0) is None

    def test_is_too_long_right_after_the_limit(self) -> None:
        run = Watched(step_seconds=2.5)

        assert run.at(12.5, step_s=10) is None
        assert run.at(12.500000001, step_s=10) == step_too_long("2.5")

    def test_is_counted_from_the_boundary_before_it(self) -> None:
        run = Watched(step_seconds=2)

        assert [run.at(s, step_s=s - 1.9) for s in (2, 4, 6, 8)] == [None] * 4

    def test_has_not_begun_while_the_model_is_being_built(self) -> None:
        assert Watched(step_seconds=1).at(3600, step_s=None) is None

    def test_among_several_that_were_submitted_and_not_waited_for_has_its_own_time(self) -> None:
        """Five steps went to the device at 10; they may take five times as long as one."""
        run = Watched(step_seconds=2)

        assert run.at(20, step_s=10, open_steps=5) is None
        assert run.at(20.000000010, step_s=10, open_steps=5) == step_too_long("2")

    def test_is_one_while_none_is_known_to_be_under_way(self) -> None:
        run = Watched(step_seconds=2)

        assert run.at(12, step_s=10, open_steps=0) is None
        assert run.at(12.000000001, step_s=10, open_steps=0) == step_too_long("2")


class TestSwapping:
    def test_is_measured_against_what_was_swapped_when_the_first_step_began(self) -> None:
        run = Watched(swap_out_mb=500)

        assert run.at(1, step_s=None, swapped=7_000 * MB) is None
        assert run.at(2, step_s=None, swapped=9_000 * MB) is None
        assert run.at(3, step_s=3, swapped=9_000 * MB) is None
        assert run.at(4, step_s=4, swapped=9_500 * MB) is None
        assert run.at(5, step_s=5, swapped=9_501 * MB) == swapped("501", "500")

    def test_is_a_thousand_megabytes_where_nothing_else_is_asked_for(self) -> None:
        run = Watched()

        assert run.at(1, step_s=1, swapped=0) is None
        assert run.at(2, step_s=2, swapped=1_000 * MB) is None
        assert run.at(3, step_s=3, swapped=12_345 * MB) == swapped("12,345", "1000")

    def test_of_the_first_byte_can_be_forbidden(self) -> None:
        run = Watched(swap_out_mb=0)

        assert run.at(1, step_s=1, swapped=4096) is None
        assert run.at(2, step_s=2, swapped=8192) is not None

    def test_can_be_allowed(self) -> None:
        run = Watched(swap_out_mb=None)

        assert run.at(1, step_s=1, swapped=0) is None
        assert run.at(2, step_s=2, swapped=1e15) is None

    def test_is_not_known_where_the_system_does_not_count_it(self) -> None:
        run = Watched(swap_out_mb=0)

        assert run.at(1, step_s=1) is None
        assert run.at(2, step_s=2) is None

    def test_is_counted_from_the_first_figure_where_none_was_there_before(self) -> None:
        run = Watched(swap_out_mb=10)

        assert run.at(1, step_s=1) is None
        assert run.at(2, step_s=2, swapped=900 * MB) is None
        assert run.at(3, step_s=3, swapped=911 * MB) == swapped("11", "10")

    def test_that_falls_is_none(self) -> None:
        """The counters of a machine that has slept may start anew."""
        run = Watched(swap_out_mb=10)

        assert run.at(1, step_s=1, swapped=900 * MB) is None
        assert run.at(2, step_s=2, swapped=0) is None

    def test_is_judged_by_what_is_in_use_where_the_system_does_not_count_what_was_written(self) -> None:
        run = Watched(swap_out_mb=500)

        assert run.on_a_mac_at(1, used=2_000 * MB) is None
        assert run.on_a_mac_at(2, used=2_500 * MB) is None
        assert run.on_a_mac_at(3, used=2_501 * MB) == swapped("501", "500")
