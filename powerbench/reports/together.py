"""What several runs say together and none of them alone: whether repeats agree, and what not waiting has made."""

from __future__ import annotations

from collections.abc import Sequence

from powerbench.analysis.synchronized import Named, artefacts
from powerbench.rundir.load import Run


def together(runs: Sequence[Run]) -> list[str]:
    """A few sentences; none where the runs have nothing to do with each other."""
    named = [Named(str(run.path), run.record, run.steps[0]) for run in runs]
    return artefacts(named)
