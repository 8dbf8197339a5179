"""The figures of a run as it lies on disk, from all of its ranks and machines."""

from __future__ import annotations

from powerbench.analysis.recorded import hosts_of, ranks_of
from powerbench.analysis.summary import Summary, summarize
from powerbench.rundir.load import Run


def summarize_run(run: Run) -> Summary:
    """The figures of a run, without a verdict."""
    ranks = ranks_of(run)
    return summarize(
        str(run.path),
        run.record,
        run.together,
        run.curves(),
        run.phases(None if ranks is None else ranks.closest),
        ranks=ranks,
        hosts=hosts_of(run),
    )
