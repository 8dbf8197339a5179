"""The HTML page in a real Chromium: no complaint, no request, nothing wider than a desktop or a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from powerbench.reports.html import as_html
from powerbench.reports.published import published_runs
from powerbench.rundir.load import Run
from tests.reports import a_run
from tests.reports.chromium import BROWSER, Tab, a_tab
from tests.reports.sweeps import a_metered_run, a_sweep

pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine")

WIDTHS = (1280, 390)
SCRIPT = "<script>document.title = 'taken'; console.error('bert')</script>"
TOO_WIDE = """
[...document.querySelectorAll("body *")]
    .filter(it => !it.closest(".wide") && !it.closest(".hidden") && it.getBoundingClientRect().right > innerWidth + 1)
    .map(it => it.tagName + ": " + it.textContent.slice(0, 40))
"""
INK = "getComputedStyle(document.querySelector('#latencies ~ figure svg text')).fill"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with a_tab(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def runs_of_all_kinds(folder: Path) -> list[Run]:
    """A sweep, several machines, a name that is a script, long names and reasons, and the published tables."""
    long = "organisation/" + "a-very-long-name-of-a-model" * 6
    return [
        *a_sweep(folder, cells=3),
        a_metered_run(folder / "evil", "training", 8, 128, steps=200, model=SCRIPT, seed=1),
        a_metered_run(folder / "long", "inference", 8, 128, steps=50, model=long, seed=2),
        a_run(64, step_ms=None, status="oom", reason=f"no room for {'x' * 200}", settings={"device": "cuda"}),
        a_run(64, watts=250, settings={"device": "cuda"}, facts={"host": "beta", "variables": {"OMP_": "y" * 300}}),
        *published_runs(),
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    path = folder / "report.html"
    path.write_text(as_html(runs_of_all_kinds(folder)), "utf-8")
    return path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_opens_without_a_complaint_and_asks_for_nothing(tab: Tab, page: Path, width: int, dark: bool) -> None:
    tab.complaints.clear()
    tab.asked.clear()

    tab.open(page, width=width, dark=dark)

    assert tab.complaints == []
    assert tab.asked == [page.as_uri()]
    assert tab.value("document.title") != "taken"
    assert tab.value("document.scripts.length") == 0
    assert SCRIPT in tab.value("document.querySelector('#times').parentElement.textContent")
    assert tab.value("[...document.querySelectorAll('svg text')].some(it => it.textContent.includes('<script'))")


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_view(tab: Tab, page: Path, width: int) -> None:
    tab.open(page, width=width)

    assert tab.value("document.documentElement.clientWidth") == width
    assert tab.value("document.documentElement.scrollWidth") == width
    assert tab.value(TOO_WIDE) == []


def test_letters_in_charts_can_be_read_on_a_phone(tab: Tab, page: Path) -> None:
    tab.open(page, width=390)

    heights = tab.value("[...document.querySelectorAll('svg text')].map(it => it.getBoundingClientRect().height)")
    assert min(heights) >= 10


def test_the_page_and_its_charts_follow_into_the_dark(tab: Tab, page: Path) -> None:
    colours = []
    for dark in (False, True):
        tab.open(page, width=1280, dark=dark)
        colours.append((tab.value("getComputedStyle(document.body).backgroundColor"), tab.value(INK)))

    assert colours[0][0] == "rgb(255, 255, 255)"
    assert colours[1][0] == "rgb(20, 23, 26)"
    assert colours[0][1] != colours[1][1]


def test_the_page_can_be_printed(tab: Tab, page: Path) -> None:
    tab.open(page, width=1280, dark=True)

    assert tab.paper().startswith(b"%PDF")
