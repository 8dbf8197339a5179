"""The forms in which runs are shown: each format is a function from runs to text, or to the bytes of a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from powerbench.reports.csv import as_csv
from powerbench.reports.html import as_html
from powerbench.reports.json import as_json, as_json_list
from powerbench.reports.markdown import as_markdown
from powerbench.reports.parquet import as_parquet
from powerbench.reports.perfetto import as_perfetto
from powerbench.reports.terminal import as_terminal
from powerbench.rundir.load import Run

Show = Callable[[Sequence[Run]], str | bytes]


@dataclass(frozen=True)
class Format:
    """How runs are shown.

    `show` asks no more of the runs than one pass, since they may be read from disk as they are come to. `of_several` is
    for runs that were named as a sweep, a folder or a list, even where there is only one; None: in the same way.
    `needs_file`: it is for other programs, and never printed.
    """

    show: Show
    of_several: Show | None = None
    needs_file: bool = False


FORMATS: dict[str, Format] = {
    "terminal": Format(as_terminal),
    "markdown": Format(as_markdown),
    "csv": Format(as_csv),
    "json": Format(as_json, of_several=as_json_list),
    "html": Format(as_html, needs_file=True),
    "parquet": Format(as_parquet, needs_file=True),
    "perfetto": Format(as_perfetto, needs_file=True),
}
