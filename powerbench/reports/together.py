"""What several runs say together and none of them alone: whether repeats agree, and what not waiting has made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from powerbench.analysis.slowdown import Slowdown, across, sentence_across
from powerbench.analysis.synchronized import Named, artefacts
from powerbench.records import RunRecord
from powerbench.reports.terminal import headline
from powerbench.rundir.load import Run


def together(runs: Sequence[tuple[Run, Slowdown]]) -> list[str]:
    """A few sentences on runs with their verdicts; none where the runs have nothing to do with each other."""
    named = [Named(str(run.path), run.record, run.together) for run, _ in runs]
    return [*repeats(runs), *artefacts(named)]


def repeats(runs: Sequence[tuple[Run, Slowdown]]) -> Iterator[str]:
    """For each cell that was measured more than once on one device, what its runs come to."""
    of_cells: dict[bytes, list[tuple[Run, Slowdown]]] = {}
    for run, found in runs:
        of_cells.setdefault(_what(run.record), []).append((run, found))
    for repeated in of_cells.values():
        if len(repeated) > 1:
            said = sentence_across(across([found for _, found in repeated]))
            yield f"{headline(repeated[0][0].record)}: {said}"


def _what(record: RunRecord) -> bytes:
    """What was measured, on which device of which machine."""
    device = (record.device.kind, record.device.name, record.device.uuid) if record.device else None
    return msgspec.json.encode([record.cell, device, record.environment.get("host")])
