"""Whether ranks wait for one that does not come: no step ends any more, and nobody fails."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from powerbench.blame import device_of
from powerbench.endings import Ended
from powerbench.meeting import BEAT_S, SILENCE_S
from powerbench.records import LoopCell, RunRecord
from powerbench.rundir import RunDir
from powerbench.rundir.journal import Journal
from powerbench.rundir.journals import Journals
from powerbench.units import NS_PER_S, counted

# Before these the usual step is not known, and the first ones choose kernels and make buffers, which takes some
# ranks longer than others; with torch.compile minutes, and then it is torch that gives up, after ten.
FIRST_BOUNDARIES = 3
LEAST_FIRST_S = 60.0
LEAST_S = 10.0
# One rank may compile anew, for shapes that it is the first to meet, while the others wait.
LEAST_COMPILED_S = 120.0
# By then the launcher has said which machine was lost, if one was: that names the cause.
LOST_S = SILENCE_S + 5 * BEAT_S
USUAL_STEPS = 20
LATEST = 100


def hung(rundir: RunDir, record: RunRecord, journals: Journals, *, now_ns: int) -> Ended | None:
    """How a run must end in which nothing moves any more; None where it does, or where nobody waits for anybody.

    A rank alone waits for nobody, and ranks whose steps take long, all alike, hang as little.
    """
    if record.ranks == 1:
        return None
    working = {rank: journal for rank, journal in journals.of.items() if journal.event("end") is None}
    boundaries = [journal.marks.look() for journal in working.values()]
    if not working or not min(boundaries):
        return None
    silent_ns = now_ns - max(map(_last_sign_ns, working.values()))
    is_young = min(boundaries) <= FIRST_BOUNDARIES
    patience_s = limit_s(record.the_cell, next(iter(working.values())))
    if is_young:
        patience_s = math.inf if record.the_cell.compile else max(LEAST_FIRST_S, patience_s)
    if silent_ns <= patience_s * NS_PER_S:
        return None
    arrived = {rank: _arrived(journal) for rank, journal in working.items()}
    late = [rank for rank in arrived if arrived[rank] < max(arrived.values())]
    for_s = f"for {silent_ns / NS_PER_S:.0f} s"
    if late:
        ahead = [rank for rank in arrived if rank not in late]
        step = min(arrived[rank] for rank in late)
        return Ended(
            "failed",
            f"{_named(record, journals, late)} {'hangs' if len(late) == 1 else 'hang'}: step {step} was not done "
            f"{for_s}, while {_named(record, journals, ahead)} {'waits' if len(ahead) == 1 else 'wait'} "
            f"({_logs(rundir, late)})",
        )
    if is_young or (record.node is not None and silent_ns <= LOST_S * NS_PER_S):
        return None
    return _all_alike(rundir, record, working, for_s)


def limit_s(cell: LoopCell, journal: Journal) -> float:
    """How long nothing may come: as the cell has it, or by its usual step."""
    if cell.limits.hang_seconds is not None:
        return cell.limits.hang_seconds
    latest = zip(journal.trace.start_ns[-LATEST:], journal.trace.end_ns[-LATEST:], strict=True)
    steps_ns = [end - start for start, end in latest if end is not None]
    usual_s = median(steps_ns) / NS_PER_S if steps_ns else 0.0
    return max(LEAST_COMPILED_S if cell.compile else LEAST_S, USUAL_STEPS * usual_s)


def _all_alike(rundir: RunDir, record: RunRecord, working: dict[int, Journal], for_s: str) -> Ended | None:
    """All ranks here have come equally far: they wait for one another, or for others, or are at work."""
    cell, several = record.the_cell, len(working) > 1
    here, waits = (f"all {counted(len(working), 'rank')} here", "wait") if several else ("the rank here", "waits")
    for_whom = "ranks of other machines" if record.node is not None else "one another"
    reduces = cell.mode == "training" and cell.model != "sleep"
    if all(_arrived(journal) >= journal.marks.reached for journal in working.values()):
        return Ended("failed", f"{here} {waits} for {for_whom} {for_s} ({_logs(rundir, list(working))})")
    if record.node is not None and not reduces:
        return Ended("failed", f"no step ended {for_s}, and {here} {waits} for {for_whom}, or hangs")
    return None


def _arrived(journal: Journal) -> int:
    """In how many steps a rank has done its part: with the one that it waits in, where it waits in a step."""
    arrival = journal.work_marks.last_arrival()
    return journal.marks.reached - 1 if arrival is None else arrival.step + 1


def _last_sign_ns(journal: Journal) -> int:
    arrival = journal.work_marks.last_arrival()
    return max(journal.marks.last_ns() or 0, 0 if arrival is None else arrival.time_ns)


def _logs(rundir: RunDir, ranks: Sequence[int]) -> str:
    logs = ", ".join(str(rundir.log(rank)) for rank in ranks)
    return f"{'its log is' if len(ranks) == 1 else 'their logs are'} {logs}"


def _named(record: RunRecord, journals: Journals, ranks: Sequence[int]) -> str:
    first = record.own_ranks.start
    names = [f"{rank} ({device_of(journals.of[rank].events, record, rank - first)})" for rank in ranks]
    *others, last = names
    return f"rank {last}" if not others else f"ranks {', '.join(others)} and {last}"
