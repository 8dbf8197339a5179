"""Runs as CSV: a header, and a row a run; a value that is not known is an empty field."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import datetime

from powerbench.reports.tidy import Value, kinds, rows_of
from powerbench.rundir.load import Run


def as_csv(runs: Sequence[Run]) -> str:
    """The table of `tidy` as text, without an end of line behind the last row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(kinds())
    writer.writerows(map(_written, row.values()) for row in rows_of(runs))
    return text.getvalue().removesuffix("\n")


def _written(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, datetime) else str(value)
