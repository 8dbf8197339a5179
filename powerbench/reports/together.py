"""What several runs say together and none of them alone: whether repeats agree, and what not waiting has made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from powerbench.analysis.slowdown import Slowdown, Verdict
from powerbench.analysis.synchronized import Named, artefacts
from powerbench.records import RunRecord
from powerbench.rundir.load import Run
from powerbench.units import counted, milliseconds

# Two that say the same of the steps that count: the one has slower first ones, the other has not.
STEADY: frozenset[Verdict] = frozenset({"flat", "warmup"})
SETTLED: frozenset[Verdict] = STEADY | {"slowdown", "speedup"}


def together(runs: Sequence[tuple[Run, Slowdown]]) -> list[str]:
    """A few sentences on runs with their verdicts; none where the runs have nothing to do with each other."""
    named = [Named(str(run.path), run.record, run.steps[0]) for run, _ in runs]
    return [*repeats(runs), *artefacts(named)]


def repeats(runs: Sequence[tuple[Run, Slowdown]]) -> Iterator[str]:
    """For each cell that was measured more than once on one device, whether its runs agree."""
    of_cells: dict[bytes, list[Slowdown]] = {}
    for run, found in runs:
        of_cells.setdefault(_what(run.record), []).append(found)
    for founds in of_cells.values():
        if len(founds) > 1:
            yield agreement(founds)


def _what(record: RunRecord) -> bytes:
    """What was measured, on which device of which machine."""
    device = (record.device.kind, record.device.name, record.device.uuid) if record.device else None
    return msgspec.json.encode([record.cell, device, record.environment.get("host")])


def agreement(founds: Sequence[Slowdown]) -> str:
    """In a sentence, whether repeats of one cell (each a process of its own) came to the same."""
    verdicts = Counter(found.verdict for found in founds)
    told = ", ".join(f"{count} x {verdict}" for verdict, count in verdicts.most_common())
    if set(verdicts) <= STEADY:
        steady = sorted(found.steady_s for found in founds if found.steady_s is not None)
        span = f"{milliseconds(steady[0] * 1000)} to {milliseconds(steady[-1] * 1000)} a step"
        return f"The {counted(len(founds), 'repeat')} agree: all reach a steady state ({told}), at {span}."
    if len(verdicts) == 1 and set(verdicts) <= SETTLED:
        ratios = sorted(found.ratio for found in founds if found.ratio is not None)
        return (
            f"The {counted(len(founds), 'repeat')} agree: {told}, the last tenth {ratios[0]:.2f}x to "
            f"{ratios[-1]:.2f}x the first."
        )
    if set(verdicts) <= SETTLED:
        return (
            f"The {counted(len(founds), 'repeat')} do not agree ({told}): what made the difference is no property of "
            "the cell, so look for what changed between the runs."
        )
    return f"Whether the {counted(len(founds), 'repeat')} agree is open: {told}."
