"""Pictures of traces: of the kind that the name says, the same each time, and of any trace at all."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from powerbench.reports.checking import check, check_latencies
from powerbench.reports.trace_plot import plot_trace
from powerbench.rundir.load import load_run
from tests.traced import at_half, write_trace, write_unsynchronized

PNG = b"\x89PNG\r\n\x1a\n"


def words(svg: Path) -> str:
    """What stands in a picture: matplotlib names each text in a comment."""
    return " ".join(re.findall(r"<!-- (.*?) -->", svg.read_text("utf-8"), re.DOTALL))


def test_a_throttled_run_has_its_lanes_and_the_step_at_which_it_became_slower(tmp_path: Path) -> None:
    slow = [100.0] * 100 + [150.0] * 99 + [900.0]
    write_trace(tmp_path / "run", slow, watts=at_half(300, 200), mhz=at_half(1400, 900))

    plot_trace(check(load_run(tmp_path / "run")), tmp_path / "slow.svg")

    ElementTree.parse(tmp_path / "slow.svg")
    shown = words(tmp_path / "slow.svg")
    for text in ("Slowdown: ", "slower from here (step 100)", "power W", "clock MHz", "gpu0"):
        assert text in " ".join(shown.split())
    assert "1 step above the axis, the slowest 900 ms" in shown


def test_batches_of_new_lengths_are_marked(tmp_path: Path) -> None:
    checked = replace(check_latencies("times.csv", [0.1] * 30), new_shapes=[0, 7])

    plot_trace(checked, tmp_path / "shapes.svg")

    assert "◆ batches of a length that none before had" in words(tmp_path / "shapes.svg")


def test_the_axis_of_steps_has_no_step_that_there_is_not(tmp_path: Path) -> None:
    write_trace(tmp_path / "run", [58.0] * 208)

    plot_trace(check(load_run(tmp_path / "run")), tmp_path / "flat.svg")

    shown = words(tmp_path / "flat.svg").split()
    assert "200" in shown
    assert "225" not in shown


def test_the_numbers_of_steps_that_are_over_at_once_do_not_overlap(tmp_path: Path) -> None:
    plot_trace(check_latencies("times.csv", [0.2] * 6 + [0.001] * 594 + [0.2] * 8), tmp_path / "quick.svg")

    shown = words(tmp_path / "quick.svg").split()
    assert [number for number in ("300", "400", "500", "600") if number in shown] == ["300", "500"]


def test_a_picture_is_the_same_each_time(tmp_path: Path) -> None:
    checked = check_latencies("times.csv", [0.1] * 30)

    for name in ("one.svg", "two.svg", "one.png", "two.png"):
        plot_trace(checked, tmp_path / name)

    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "one.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("seconds", [[], [0.0], [0.1], [0.0, 0.0], [0.1] * 5000], ids=len)
def test_any_number_of_latencies_can_be_drawn(tmp_path: Path, seconds: list[float]) -> None:
    plot_trace(check_latencies("times.csv", seconds), tmp_path / "any.png")

    assert (tmp_path / "any.png").read_bytes().startswith(PNG)


def test_submissions_are_called_so(tmp_path: Path) -> None:
    write_unsynchronized(tmp_path / "run", [1.0, *[20.0] * 30])

    plot_trace(check(load_run(tmp_path / "run")), tmp_path / "free.svg")

    assert "ms between submissions" in " ".join(words(tmp_path / "free.svg").split())


def test_a_file_that_cannot_be_written_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        plot_trace(check_latencies("times.csv", [0.1] * 3), tmp_path / "missing" / "it.png")
