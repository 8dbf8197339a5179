"""The operators of a step in every form: exact tables, joules where there are any, and names that stay text."""

from __future__ import annotations

import json

import pytest

from powerbench.reports.html import as_html
from powerbench.reports.json import as_json
from powerbench.reports.markdown import as_markdown
from powerbench.reports.terminal import as_terminal
from powerbench.rundir.load import Run
from tests.reports import a_phased_run, a_profiled_run
from tests.reports.test_html import Page


def by_operator(run: Run, width: int = 78) -> list[str]:
    """The lines about operators."""
    lines = as_terminal([run], width=width).splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("  By operator:"))
    return [line for line in lines[first:] if not line.startswith(("  Note:", "        "))]


def test_a_terminal_shows_what_each_takes_and_uses_and_what_that_means() -> None:
    assert by_operator(a_profiled_run(watts=20)) == [
        "  By operator: 3 steps of 10.0 ms, made under torch.profiler after the",
        "  measured ones. ms: on the cpu, in the operator itself, without those that it",
        "  calls. J: the joules of a measured step by these shares, which is an",
        "  attribution by time, not a reading.",
        "",
        "  operator                   calls     ms  of the step       J",
        "  aten::addmm                   12   6.00        60.0%   0.120",
        "  aten::bmm                      4   2.00        20.0%  0.0400",
        "  aten::a|b<i>                 0.3  0.500         5.0%  0.0100",
        "  Python, between operators          1.50        15.0%  0.0300",
    ]


def test_without_a_meter_there_is_no_column_of_joules() -> None:
    lines = by_operator(a_profiled_run(watts=None))

    assert "J:" not in " ".join(lines)
    assert "  operator                   calls     ms  of the step" in lines
    assert "  aten::addmm                   12   6.00        60.0%" in lines


def test_of_many_the_longest_are_shown_and_the_others_together() -> None:
    lines = by_operator(a_profiled_run(watts=20, short_ones=20))

    assert len([line for line in lines if "short_" in line]) == 9
    figures = [line.split() for line in lines[-2:]]
    assert figures == [
        ["11", "others", "110", "0.550", "5.5%", "0.0110"],
        ["Python,", "between", "operators", "0.500", "5.0%", "0.0100"],
    ]


@pytest.mark.parametrize("width", [40, 60])
def test_in_a_narrow_terminal_names_are_cut_and_no_figure_is(width: int) -> None:
    lines = by_operator(a_profiled_run(watts=20), width)

    table = lines[lines.index("") + 1 :]
    assert max(map(len, table)) <= max(width, 57)
    assert any(line.startswith("  Python,") and line.endswith("1.50        15.0%  0.0300") for line in table)
    assert len({len(line) for line in table}) == 1


def test_markdown_has_a_table_in_which_names_are_text() -> None:
    lines = as_markdown([a_profiled_run(watts=20)]).splitlines()

    first = lines.index("### Operators of a step")
    assert lines[first + 2].startswith("3 steps of 10.0 ms, made under torch.profiler after the measured ones. ")
    assert lines[first + 4 : first + 10] == [
        "| Operator | calls | ms | of the step | J |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| aten::addmm | 12 | 6.00 | 60.0% | 0.120 |",
        "| aten::bmm | 4 | 2.00 | 20.0% | 0.0400 |",
        r"| aten::a\|b\<i\> | 0.3 | 0.500 | 5.0% | 0.0100 |",
        "| Python, between operators |  | 1.50 | 15.0% | 0.0300 |",
    ]


def test_of_several_runs_markdown_says_whose_operators_these_are() -> None:
    runs = [a_profiled_run(watts=20), a_profiled_run(watts=40), a_phased_run(16, 1000, watts=20)]

    titles = [line for line in as_markdown(runs).splitlines() if line.startswith("### Operators")]

    assert len(titles) == 2
    assert all(title.startswith("### Operators of a step, ") for title in titles)


def test_a_page_has_a_table_in_which_names_are_text() -> None:
    page = Page(as_html([a_profiled_run(watts=20)]))

    assert "Operators of a step run 1 : 3 steps of 10.0 ms, made under torch.profiler" in page.text
    assert "operator calls ms of the step J aten::addmm 12 6.00 60.0% 0.120 aten::bmm 4" in page.text
    assert "aten::a|b<i> 0.3 0.500" in page.text


def test_json_holds_them_all_as_numbers() -> None:
    told = json.loads(as_json([a_profiled_run(watts=20, short_ones=20)]))["operators"]

    assert (told["steps"], told["step_ms"], told["times_of"], len(told["each"])) == (3, 10.0, "cpu", 23)
    first = told["each"][0]
    assert (first["name"], first["calls"], first["ms"], first["share"]) == ("aten::addmm", 12.0, 6.0, 0.6)
    assert first["j"] == pytest.approx(0.12, rel=1e-3)
    assert told["outside"] == {
        "name": "Python, between operators",
        "calls": None,
        "ms": pytest.approx(0.5),
        "share": pytest.approx(0.05),
        "j": pytest.approx(0.01, rel=1e-3),
    }
