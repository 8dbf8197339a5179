"""Summaries as JSON: an object for one run, a list for several."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from powerbench.reports.checking import summary_of
from powerbench.rundir.load import Run


def as_json(runs: Sequence[Run]) -> str:
    """The summary of one run, or of each in a list."""
    summaries = [summary_of(run) for run in runs]
    return msgspec.json.format(msgspec.json.encode(summaries[0] if len(summaries) == 1 else summaries)).decode()
