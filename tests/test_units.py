"""Numbers as a person reads them: the forms are exact, and nothing is lost but what rounding loses."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerbench.units import (
    byte_size,
    counted,
    duration,
    milliseconds,
    milliseconds_in,
    seconds_from_ns,
    significant,
    whole_seconds,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.000412, "0.412 ms"),
        (0.0199, "19.9 ms"),
        (0.99, "990 ms"),
        (1, "1.00s"),
        (9.994, "9.99s"),
        (9.995, "10s"),
        (43.4, "43s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (149, "2m 29s"),
        (3599.4, "59m 59s"),
        (3599.6, "1h 00m"),
        (7199, "2h 00m"),
        (12_360, "3h 26m"),
        (360_000, "100h 00m"),
    ],
)
def test_a_duration_is_written_as_in_the_published_tables(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@settings(deadline=None)
@given(st.floats(1, 1e7))
def test_a_duration_reads_back_to_half_its_last_place_and_never_shows_sixty(seconds: float) -> None:
    text = duration(seconds)

    found = re.fullmatch(r"(\d\.\d\d)s|(?:(\d+)h )?(?:(\d+)m)?(?: ?(\d+)s)?", text)
    assert found is not None
    short, hours, minutes, whole = found.groups()
    if short is not None:
        assert float(short) == pytest.approx(seconds, abs=0.005 + 1e-9)
        return
    assert int(whole or 0) < 60
    assert int(minutes or 0) < 60
    read = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(whole or 0)
    assert read == pytest.approx(seconds, abs=30 if hours is not None else 0.5)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.01, "0.0100"),
        (0.0412, "0.0412"),
        (0.412, "0.412"),
        (0.9994, "0.999"),
        (0.9996, "1.00"),
        (2.28, "2.28"),
        (9.996, "10.0"),
        (19.94, "19.9"),
        (99.94, "99.9"),
        (99.96, "100"),
        (812.4, "812"),
        (1_632.4, "1,632"),
        (1_000_000, "1,000,000"),
        (-19.94, "-19.9"),
    ],
)
def test_a_number_has_three_significant_digits(value: float, text: str) -> None:
    assert significant(value) == text


@settings(deadline=None)
@given(st.floats(1e-12, 1e12))
def test_three_digits_are_within_half_a_percent_and_are_three(value: float) -> None:
    text = significant(value)

    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.005 + 1e-9)
    digits = text.replace(".", "").lstrip("0")
    assert len(digits) == 3 if value < 999.5 else digits == f"{value:,.0f}"


@pytest.mark.parametrize(("value", "text"), [(0.00512, "0.00512"), (0.0000786, "0.0000786")])
def test_a_small_number_has_three_digits_and_no_exponent_too(value: float, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize(("ms", "text"), [(0.412, "0.412 ms"), (19.9, "19.9 ms"), (1632, "1,632 ms")])
def test_milliseconds_carry_their_unit(ms: float, text: str) -> None:
    assert milliseconds(ms) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.00 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (512_000_000, "512 MB"),
        (2_770_000_000, "2.77 GB"),
        (1_500_000_000_000, "1.50 TB"),
    ],
)
def test_bytes_are_written_in_decimal_units(count: int, text: str) -> None:
    assert byte_size(count) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 steps"), (1, "1 step"), (2, "2 steps"), (1000, "1,000 steps")])
def test_things_are_counted_in_the_plural_but_for_one(number: int, text: str) -> None:
    assert counted(number, "step") == text


def test_nanoseconds_become_seconds() -> None:
    assert seconds_from_ns(2_500_000_000) == 2.5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (12, "12s"),
        (59.6, "1m"),
        (63, "1m 3s"),
        (120, "2m"),
        (149, "2m 29s"),
        (3600, "1h"),
        (3605, "1h 0m 5s"),
        (6549, "1h 49m 9s"),
        (360_000, "100h"),
    ],
)
def test_whole_seconds_are_written_as_the_published_tables_write_them(seconds: float, text: str) -> None:
    assert whole_seconds(seconds) == text


@settings(deadline=None)
@given(st.integers(0, 10_000_000))
def test_whole_seconds_read_back_exactly(seconds: int) -> None:
    found = re.fullmatch(r"(?:(\d+)h)? ?(?:(\d+)m)? ?(?:(\d+)s)?", whole_seconds(seconds))

    assert found is not None
    hours, minutes, rest = (int(part or 0) for part in found.groups())
    assert max(minutes, rest) < 60
    assert hours * 3600 + minutes * 60 + rest == seconds


def test_an_interval_has_the_digits_that_tell_its_ends_apart() -> None:
    assert milliseconds_in(100.2, 99.4, 101.3) == ("100 ms", "99.4 ms", "101 ms")
    assert milliseconds_in(58.162, 58.158, 58.171) == ("58.16 ms", "58.16 ms", "58.17 ms")
    assert milliseconds_in(5.09, 5.09, 5.09) == ("5.09000 ms", "5.09000 ms", "5.09000 ms")
