"""Summaries as JSON: an object for one run, a list for several."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from powerbench.analysis.summary import Summary
from powerbench.reports.checking import summary_of
from powerbench.rundir.load import Run


def as_json(runs: Sequence[Run]) -> str:
    """The summary of one run, or of each in a list."""
    return _encoded(summary_of(runs[0])) if len(runs) == 1 else as_json_list(runs)


def as_json_list(runs: Sequence[Run]) -> str:
    """The summaries in a list, also of one run or of none."""
    return _encoded([summary_of(run) for run in runs])


def _encoded(value: Summary | list[Summary]) -> str:
    return msgspec.json.format(msgspec.json.encode(value)).decode()
