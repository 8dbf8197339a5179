"""Where the joules went, in each form in which that is shown: a table, a picture, a page, and for other programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from powerbench.reports.flame.burnt import Burnt
from powerbench.reports.flame.html import as_html
from powerbench.reports.flame.json import as_json
from powerbench.reports.flame.speedscope import as_speedscope
from powerbench.reports.flame.svg import as_svg
from powerbench.reports.flame.terminal import as_terminal


@dataclass(frozen=True)
class FlameFormat:
    """How it is shown; `needs_file`: it is for other programs, and never printed."""

    show: Callable[[Burnt], str]
    needs_file: bool = False


FLAME_FORMATS: dict[str, FlameFormat] = {
    "terminal": FlameFormat(as_terminal),
    "speedscope": FlameFormat(as_speedscope),
    "svg": FlameFormat(as_svg),
    "html": FlameFormat(as_html, needs_file=True),
    "json": FlameFormat(as_json),
}
