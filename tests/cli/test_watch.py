"""The view of meters at work: the same moment at 80 and at 40 columns, and as a plain line."""

from __future__ import annotations

import pytest

from powerbench.cli.watch import View
from powerbench.recorder import Watched
from powerbench.records import RailRecord, Reading
from tests.rundir import a_rail

S = 1_000_000_000


def at(second: float, *, lost: str | None = None, **joules: float) -> Watched:
    """The moment, so many seconds after the meters were opened."""
    rails: dict[str, RailRecord] = {name: a_rail() for name in joules}
    if lost is not None:
        rails["gpu"] = a_rail(lost=lost)
    return Watched(
        elapsed_s=second,
        rails=rails,
        latest={name: Reading(round(second * S), name, energy_j) for name, energy_j in joules.items()},
        gauges={"gpu.clock_mhz": 1398.0, "gpu.temperature_c": 61.4, "system.cpu_ratio": 0.25, "cpu.power_w": 1.0},
        words={"thermal_pressure": "Nominal"},
    )


@pytest.fixture
def view() -> View:
    """After two seconds: the cpu drew 10 W, then 20; the gpu 5 W all the while."""
    view = View(rewrites=True, is_quiet=True)
    for watched in (at(0, cpu=0, gpu=0), at(1, cpu=10, gpu=5), at(2, cpu=30, gpu=10)):
        view._update(watched)
    return view


def test_at_80_columns(view: View) -> None:
    assert view.screen(at(2, cpu=30, gpu=10), width=80) == [
        "2.00s  (Ctrl-C ends the recording)",
        "",
        "           power       energy  history, each bar against the rail's peak",
        "  cpu     20.0 W       30.0 J  ▄█",
        "  gpu     5.00 W       10.0 J  ██",
        "",
        "  gpu 1,398 MHz   gpu 61 °C   thermal pressure nominal   processor 25% busy",
    ]


def test_at_40_columns(view: View) -> None:
    lines = view.screen(at(2, cpu=30, gpu=10), width=40)

    assert lines[3] == "  cpu     20.0 W       30.0 J  "
    assert max(map(len, lines)) < 40
    assert lines[-3:] == ["  gpu 1,398 MHz   gpu 61 °C", "  thermal pressure nominal", "  processor 25% busy"]


def test_the_history_never_makes_a_line_too_long(view: View) -> None:
    for second in range(3, 300):
        view._update(at(second, cpu=20 * second, gpu=5 * second))

    assert {len(line) for line in view.screen(at(300, cpu=1, gpu=1), width=80) if "█" in line} == {79}


def test_a_rail_that_has_ended_says_why(view: View) -> None:
    assert "  gpu  ended: it stalled" in view.screen(at(2, cpu=30, lost="it stalled"), width=80)


def test_a_rail_without_a_second_reading_has_no_power() -> None:
    view = View(rewrites=True, is_quiet=True)
    view._update(at(0, cpu=0))

    assert "  cpu        - W          0 J  " in view.screen(at(0, cpu=0), width=80)


def test_a_plain_line_holds_everything(view: View) -> None:
    assert view.plain(at(2, cpu=30, gpu=10)) == (
        "2.00s  cpu 20.0 W, 30.0 J  gpu 5.00 W, 10.0 J  gpu 1,398 MHz  gpu 61 °C  thermal pressure nominal  "
        "processor 25% busy"
    )


def test_nothing_drawn_has_the_smallest_bar() -> None:
    view = View(rewrites=True, is_quiet=True)
    for watched in (at(0, ane=0), at(1, ane=0)):
        view._update(watched)

    assert "  ane        0 W          0 J  ▁" in view.screen(at(1, ane=0), width=80)


def test_on_a_terminal_what_was_shown_is_written_over(capsys: pytest.CaptureFixture[str]) -> None:
    view = View(rewrites=True, is_quiet=False)
    view.show(at(0, cpu=0))
    first = capsys.readouterr().err
    view.show(at(1, cpu=10))
    second = capsys.readouterr().err

    assert first.startswith("\r0 ms")
    assert second.startswith(f"\x1b[{first.count(chr(10))}A\r1.00s")
    assert first.endswith("\x1b[J")
    assert second.count("\n") == first.count("\n")


def test_off_a_terminal_there_is_a_line_each_five_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    view = View(rewrites=False, is_quiet=False)
    for half in range(31):
        view.show(at(half / 2, cpu=half))

    assert [line.partition(" ")[0] for line in capsys.readouterr().err.splitlines()] == ["5.00s", "10s", "15s"]


def test_around_a_command_it_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    View(rewrites=True, is_quiet=True).show(at(6, cpu=1))

    assert capsys.readouterr().err == ""
