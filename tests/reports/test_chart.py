"""Charts of plain characters: exact pictures, at any width, in which noise looks like noise and gaps are gaps."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerbench.analysis.checked import Checked
from powerbench.analysis.lanes import Lane
from powerbench.analysis.latencies import Latencies
from powerbench.reports.chart import Size, axis_for, bars, chart
from powerbench.reports.checking import check_latencies

S = 1_000_000_000
# Wide enough for twenty columns: what stands left of them takes 14, and the names then stand above.
TWENTY = Size(width=34, height=4, lane_height=2)


def checked(milliseconds: Sequence[float], lanes: Sequence[Lane] = ()) -> Checked:
    found = check_latencies("times.csv", [each / 1000 for each in milliseconds])
    return Checked(**vars(found) | {"lanes": lanes})


def drawn(milliseconds: Sequence[float], lanes: Sequence[Lane] = (), size: Size = TWENTY) -> str:
    return "\n".join(chart(checked(milliseconds, lanes), size))


def test_a_jump_with_power_that_falls_is_seen_at_once() -> None:
    watts = [300.0 if at < 10 else 200.0 for at in range(33)]
    power = Lane("power", "gpu0", "W", [at * S // 2 for at in range(33)], watts)

    assert drawn([100.0] * 50 + [200.0] * 50, [power]) == (
        "  latency\n"
        "      200 ms ┤          ██████████\n"
        "             ┤          ██████████\n"
        "             ┤████████████████████\n"
        "        0 ms ┤████████████████████\n"
        "             └┬─────────┬─────────\n"
        "        step  0         50\n"
        "                        ▲ step 50\n"
        "  power\n"
        "       300 W ┤██████████\n"
        "       100 W ┤████████████████████\n"
        "\n"
        "  100 steps in 15s. A column is up\n"
        "  to 5 steps: the bar is their\n"
        "  median, · the slowest of them, ^\n"
        "  one beyond the axis."
    )


def test_batches_of_new_lengths_are_marked_under_their_steps() -> None:
    found = Checked(**vars(checked([100.0] * 20)) | {"new_shapes": [0, 7, 50]})

    lines = chart(found, TWENTY)

    assert lines[7:9] == ["              ◆      ◆", ""]
    assert " ".join(" ".join(lines[9:]).split()) == "20 steps in 2.00s. ◆ batches of a length that none before had."


def test_labels_stand_beside_the_chart_where_there_is_room() -> None:
    assert drawn([100.0] * 40, size=Size(width=78, height=2)) == (
        "  latency     100 ms ┤████████████████████████████████████████\n"
        "             70.0 ms ┤████████████████████████████████████████\n"
        "                     └┬─────────┬─────────┬─────────┬─────────\n"
        "                step  0         10        20        30\n"
        "\n"
        "  40 steps in 4.00s."
    )


def test_a_spike_stands_above_its_column_and_far_ones_at_the_edge() -> None:
    milliseconds = [100.0] * 100
    milliseconds[2], milliseconds[52] = 124.0, 900.0

    lines = drawn([*milliseconds, *[120.0] * 100], size=Size(width=34, height=4, lane_height=1)).splitlines()

    assert [line.partition("┤")[2] for line in lines[1:5]] == [
        "·    ^    ██████████",
        "          ██████████",
        "████████████████████",
        "████████████████████",
    ]


def test_a_single_step_a_column_that_is_far_slower_is_cut_at_the_edge() -> None:
    milliseconds = [100.0] * 20
    milliseconds[7] = 900.0

    lines = drawn(milliseconds).splitlines()

    assert lines[1].partition("┤")[2] == "███████^████████████"


def test_noise_of_a_percent_looks_like_a_percent() -> None:
    lines = drawn([100.0, 99.0] * 10).splitlines()

    assert lines[1].partition("┤")[2] == "█▇" * 10


def test_where_nothing_was_recorded_there_is_no_bar() -> None:
    late = Lane("clock", "gpu0", "MHz", [S, 3 * S // 2], [1000.0, 1000.0])

    lines = drawn([100.0] * 20, [late]).splitlines()

    assert [line.partition("┤")[2] for line in lines[8:10]] == ["          ██████", "          ██████"]


def test_a_lane_of_one_line_begins_at_zero() -> None:
    falling = Lane("clock", "gpu0", "MHz", [at * S // 10 for at in range(21)], [1000.0] * 10 + [900.0] * 11)

    text = drawn([100.0] * 20, [falling], Size(width=34, height=2, lane_height=1))

    assert "   1,000 MHz ┤██████████▇▇▇▇▇▇▇▇▇▇" in text.splitlines()


@pytest.mark.parametrize(
    ("milliseconds", "marks"),
    [
        ([200.0] * 20 + [100.0] * 180, ["              ▲ warmed up (step 20)"]),
        ([100.0] * 20 + [130.0] * 180, ["                ▲ slower from here (step 20)"]),
        ([130.0] * 100 + [100.0] * 100, ["▲ step 100"]),
    ],
)
def test_what_the_verdict_found_is_marked_under_its_step(milliseconds: list[float], marks: list[str]) -> None:
    lines = chart(checked(milliseconds), Size(width=48, height=2))

    found = [line for line in lines if "▲" in line]
    assert [line.strip() for line in found] == [mark.strip() for mark in marks]
    columns = 48 - 14
    step = next(int(word.strip("()")) for word in found[0].split() if word.strip("()").isdigit())
    assert found[0].index("▲") - 14 == pytest.approx(step / 200 * columns, abs=1)


def test_submissions_are_called_so() -> None:
    latencies = Latencies([0, S, 2 * S, 3 * S], [1, 1, 1], "submissions")
    found = Checked(**vars(checked([1000.0] * 3)) | {"latencies": latencies})

    assert chart(found, TWENTY)[0] == "  submits"


def test_without_a_step_there_is_no_chart() -> None:
    found = Checked(**vars(checked([1.0])) | {"latencies": Latencies([], [], "edges")})

    assert chart(found, TWENTY) == []


def in_thousandths(value: float) -> float:
    return round(value, 3)


@given(
    milliseconds=st.lists(st.floats(0, 1e7).map(in_thousandths), min_size=1, max_size=300),
    lanes=st.lists(st.lists(st.floats(0, 1e5).map(in_thousandths), min_size=1, max_size=20), max_size=5),
    width=st.integers(20, 200),
    heights=st.tuples(st.integers(1, 9), st.integers(1, 3)),
)
def test_whatever_was_recorded_the_chart_fits(
    milliseconds: list[float], lanes: list[list[float]], width: int, heights: tuple[int, int]
) -> None:
    beside = [Lane("power", "gpu0", "W", list(range(len(values))), values) for values in lanes]

    lines = chart(checked(milliseconds, beside), Size(width, *heights))

    assert max(map(len, lines)) <= max(width, 24)
    assert all(line == line.rstrip() for line in lines)


@given(values=st.lists(st.floats(0, 1e9), min_size=1, max_size=20))
def test_an_axis_holds_its_values_and_no_less_than_a_share_of_them(values: list[float]) -> None:
    base, top = axis_for(values)

    assert 0 <= base <= min(values)
    assert top == max(values)
    assert top - base >= 0.29 * top


@pytest.mark.parametrize(
    ("values", "text"),
    [([], ""), ([0.0, 0.0], "▁▁"), ([1, 2, 4, 8, 8], "▁▂▄██"), ([0, 100], "▁█")],
)
def test_bars_go_from_nothing_to_the_largest(values: list[float], text: str) -> None:
    assert bars(values) == text


def test_of_many_steps_a_column_spikes_do_not_stretch_the_axis() -> None:
    milliseconds = [900.0 if at % 50 == 7 else 100.0 for at in range(1000)]

    text = drawn(milliseconds)

    assert "      100 ms ┤████████████████████\n" in text
    assert "what 19 of 20 of them are below" in " ".join(text.split())
