"""The flame graph in a real browser: every label fits into its box, by day and by night, and nothing is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from powerbench.reports.flame import FLAME_FORMATS
from tests.reports.chromium import BROWSER, Tab, a_tab
from tests.reports.test_flame import ADDMM, LINEAR, burnt
from tests.rundir.stacks import LOOP, STEP, Stretch, a_frame, stacks_of

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")

TOO_WIDE = """
[...document.querySelectorAll("g")].filter(box => {
  const label = box.querySelector("text");
  return label && label.getBBox().width > box.querySelector("rect").getBBox().width;
}).map(box => box.querySelector("text").textContent)
"""
COLOUR = "getComputedStyle(document.querySelector('.page')).fill"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The picture and the page of ten seconds in many functions with names of all lengths."""
    folder = tmp_path_factory.mktemp("flame")
    turns: list[Stretch] = [
        (10 - 10 / (at + 1), (LOOP, STEP, a_frame("W" * (3 + 7 * at)), LINEAR, ADDMM)) for at in range(12)
    ]
    shown = burnt(stacks_of(("steps", turns)))
    for name in ("svg", "html"):
        (folder / f"flame.{name}").write_text(FLAME_FORMATS[name].show(shown), "utf-8")
    return folder


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with a_tab(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def test_every_label_of_the_picture_fits_into_its_box(tab: Tab, folder: Path) -> None:
    tab.open(folder / "flame.svg", width=1200)

    assert tab.value("document.querySelectorAll('g text').length") > 10
    assert tab.value(TOO_WIDE) == []


def test_it_is_dark_where_the_reader_is_in_the_dark(tab: Tab, folder: Path) -> None:
    tab.open(folder / "flame.svg", width=1200)
    day = tab.value(COLOUR)
    tab.open(folder / "flame.svg", width=1200, dark=True)

    assert (day, tab.value(COLOUR)) == ("rgb(255, 255, 255)", "rgb(20, 23, 26)")


@pytest.mark.parametrize("width", [1250, 400])
def test_the_page_is_no_wider_than_the_window_and_asks_for_nothing(tab: Tab, folder: Path, width: int) -> None:
    tab.asked.clear()
    tab.open(folder / "flame.html", width=width)

    assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.value(TOO_WIDE) == []
    assert [url for url in tab.asked if not url.startswith("file:")] == []
    assert tab.complaints == []
