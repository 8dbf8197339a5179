"""The forms in which runs are shown: each format is a function from runs to text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from powerbench.reports.json import as_json
from powerbench.reports.terminal import as_terminal
from powerbench.rundir.load import Run

FORMATS: dict[str, Callable[[Sequence[Run]], str]] = {"terminal": as_terminal, "json": as_json}
