"""The journals of all ranks of a machine, kept as one."""

from __future__ import annotations

from powerbench.records import RunRecord, phases_of
from powerbench.rundir import RunDir
from powerbench.rundir.completed import Told
from powerbench.rundir.journal import Journal


class Journals:
    """Follows every rank whose files are in a run's directory."""

    def __init__(self, rundir: RunDir, record: RunRecord) -> None:
        cell = record.the_cell
        self.of = {
            rank: Journal(rundir, rank=rank, warmup=cell.warmup, phases=phases_of(cell)) for rank in record.own_ranks
        }

    def update(self) -> None:
        """Fold the steps that are decided by now. Raises OSError where they cannot be written."""
        for journal in self.of.values():
            journal.update()

    def finish(self) -> None:
        """Fold everything, and only then let go of the marks. The workers must be gone."""
        for journal in self.of.values():
            journal.finish()

    def look(self) -> Journal:
        """See how far each rank has come by now; the journal of the one that has come least far."""
        return min(self.of.values(), key=lambda journal: journal.marks.look())

    def told(self) -> list[Told]:
        """What each rank did, and what it said of itself, in their order."""
        return [(journal.trace, journal.events) for journal in self.of.values()]
