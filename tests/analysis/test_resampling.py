"""Intervals of ratios: exact where nothing is left to chance, alike from both sides, and as wide as they must be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerbench.analysis.resampling import (
    Estimate,
    Repeat,
    Side,
    block_length,
    estimate,
    mean_estimate,
    means_of_blocks,
    medians_of_blocks,
    satterthwaite,
    student,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

values = st.lists(st.floats(0.001, 1000), min_size=2, max_size=6)


def row(*each: float) -> NDArray[np.float64]:
    import numpy as np

    return np.asarray(each, dtype=np.float64)


def repeats(*each: float) -> list[Repeat]:
    """Processes of which only the figure is known."""
    return [Repeat(value, row()) for value in each]


def interval(of: Estimate) -> tuple[float, float]:
    found = of.interval(0.95)
    assert found is not None
    return found


class TestRatio:
    def test_of_processes_that_agree_is_exact(self) -> None:
        found = estimate(repeats(2.0, 2.0, 2.0), repeats(3.0, 3.0, 3.0))

        assert math.exp(found.log_ratio) == pytest.approx(1.5)
        assert interval(found) == pytest.approx((1.5, 1.5))

    def test_is_that_of_geometric_means(self) -> None:
        found = estimate(repeats(1.0, 4.0), repeats(8.0, 2.0))

        assert math.exp(found.log_ratio) == pytest.approx(2.0)

    def test_has_the_interval_of_welch_where_only_processes_are_known(self) -> None:
        import numpy as np
        from scipy import stats

        a, b = [1.00, 1.02, 0.99, 1.01, 0.98], [1.10, 1.14, 1.09, 1.12]
        welch = stats.ttest_ind(np.log(b), np.log(a), equal_var=False).confidence_interval(0.95)

        low, high = interval(estimate(repeats(*a), repeats(*b)))

        assert math.log(low) == pytest.approx(welch.low, abs=0.002)  # as far as so many draws go
        assert math.log(high) == pytest.approx(welch.high, abs=0.002)

    def test_of_a_process_alone_is_from_blocks_and_says_so(self) -> None:
        alone = [Repeat(1.0, row(0.9, 1.1, 1.0, 0.9, 1.1))]

        found = estimate(alone, [Repeat(2.0, row(*[2.0] * 5))] * 3)

        assert found.of == "blocks"
        low, high = interval(found)
        assert 1.7 < low < 2.0 < high < 2.4

    def test_of_a_process_alone_without_blocks_has_no_interval(self) -> None:
        assert estimate(repeats(1.0), repeats(2.0)).interval(0.95) is None

    def test_of_processes_that_agree_by_luck_is_no_surer_than_their_steps(self) -> None:
        noisy = [Repeat(1.0, row(0.8, 1.2, 0.9, 1.1, 1.0, 0.7, 1.3))] * 3

        low, high = interval(estimate(noisy, noisy))

        assert low < 0.9
        assert high > 1.1

    def test_is_the_same_each_time(self) -> None:
        a, b = repeats(1.0, 1.1, 1.3), repeats(1.2, 1.4, 1.1)

        assert estimate(a, b) == estimate(a, b)

    @settings(deadline=None, max_examples=30)
    @given(values, values)
    def test_is_inverted_where_the_sides_are_swapped(self, a: list[float], b: list[float]) -> None:
        there, back = estimate(repeats(*a), repeats(*b)), estimate(repeats(*b), repeats(*a))

        assert there.log_ratio == pytest.approx(-back.log_ratio)
        assert there.error == pytest.approx(back.error)
        assert there.freedom == pytest.approx(back.freedom)

    @settings(deadline=None, max_examples=30)
    @given(values, values, st.floats(1e-3, 1e3))
    def test_knows_no_unit(self, a: list[float], b: list[float], unit: float) -> None:
        scaled = estimate(repeats(*(unit * it for it in a)), repeats(*(unit * it for it in b)))

        plain = estimate(repeats(*a), repeats(*b))
        assert scaled.log_ratio == pytest.approx(plain.log_ratio, abs=1e-9)
        assert scaled.error == pytest.approx(plain.error, abs=1e-9)

    @settings(deadline=None, max_examples=30)
    @given(values, values)
    def test_lies_in_its_interval(self, a: list[float], b: list[float]) -> None:
        found = estimate(repeats(*a), repeats(*b))

        narrow, wide = interval(found), found.interval(0.98)
        assert wide is not None
        ratio = math.exp(found.log_ratio)
        assert wide[0] <= narrow[0] <= ratio * (1 + 1e-9)
        assert ratio * (1 - 1e-9) <= narrow[1] <= wide[1]


class TestGeometricMean:
    def test_of_double_and_half_is_one(self) -> None:
        doubled = estimate(repeats(1.0, 1.0), repeats(2.0, 2.0))
        halved = estimate(repeats(2.0, 2.0), repeats(1.0, 1.0))

        assert math.exp(mean_estimate([doubled, halved]).log_ratio) == pytest.approx(1.0)

    def test_is_surer_than_one_cell(self) -> None:
        one = Estimate(0.1, 0.02, 4.0, "processes")

        mean = mean_estimate([one] * 4)

        assert (mean.log_ratio, mean.error) == pytest.approx((0.1, 0.01))
        assert mean.freedom == pytest.approx(16.0)

    def test_of_a_cell_of_unknown_spread_has_none(self) -> None:
        known, unknown = Estimate(0.1, 0.02, 4.0, "processes"), Estimate(0.1, None, 1.0, "blocks")

        mean = mean_estimate([known, unknown])

        assert (mean.error, mean.of) == (None, "blocks")


class TestDegreesOfFreedom:
    def test_of_two_equal_variances_add_up(self) -> None:
        assert satterthwaite([Side(0, 2.0, 4), Side(0, 2.0, 4)]) == pytest.approx(8)

    def test_are_those_of_the_side_that_varies(self) -> None:
        assert satterthwaite([Side(0, 2.0, 4), Side(0, 0.0, 9)]) == pytest.approx(4)

    def test_of_nothing_that_varies_are_all(self) -> None:
        assert satterthwaite([Side(0, 0.0, 4), Side(0, 0.0, 9)]) == 13

    @pytest.mark.parametrize(("freedom", "quantile"), [(2, 4.303), (4, 2.776), (8, 2.306), (1e6, 1.960)])
    def test_give_the_width_of_students_table(self, freedom: float, quantile: float) -> None:
        assert student(0.975, freedom) == pytest.approx(quantile, abs=0.001)


def alike(count: int, correlation: float) -> NDArray[np.float64]:
    """Steps of which each resembles the one before."""
    import numpy as np
    from scipy.signal import lfilter

    shocks = np.random.default_rng(3).standard_normal(count)
    return np.asarray(lfilter([1.0], [1.0, -correlation], shocks))


class TestBlocks:
    def test_of_steps_that_resemble_each_other_are_longer(self) -> None:
        apart, together = (block_length(alike(300, phi), shortest=1) for phi in (0.0, 0.95))

        assert apart == 15  # the length that leaves twenty blocks
        assert together > 30

    def test_leave_five_at_least(self) -> None:
        assert len(means_of_blocks(alike(40, 0.99))) >= 5

    def test_of_five_steps_are_the_steps(self) -> None:
        assert means_of_blocks(row(1.0, 2.0, 3.0, 4.0, 5.0)).tolist() == [1, 2, 3, 4, 5]

    def test_hide_a_slow_step_behind_the_median(self) -> None:
        each = row(*[1.0] * 60)
        each[[7, 33]] = 9.0

        assert medians_of_blocks(each).tolist() == [1.0] * 10

    @pytest.mark.parametrize("count", [0, 1, 2])
    def test_of_next_to_no_steps_are_what_there_is(self, count: int) -> None:
        assert len(medians_of_blocks(row(*[1.0] * count))) == count
