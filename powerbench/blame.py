"""Which of many ranks ended a run: the cause before its consequences, with the rank's name and log."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from powerbench.endings import SMALLER, Ended, in_words, last_words
from powerbench.records import RunRecord
from powerbench.rundir import RunDir
from powerbench.rundir.lines import LineTail, read_events

# What torch's launcher sends to the other ranks when one has failed.
BY_THE_LAUNCHER = -signal.SIGTERM
NO_FAULT = ("complete", "interrupted")


class RankEnd(NamedTuple):
    """What is left of a rank. `end` is its own last event; that and the exit status are None where there is none."""

    rank: int
    device: str
    end: Mapping[str, Any] | None
    exit_status: int | None
    log: str
    log_path: Path

    @property
    def name(self) -> str:
        """As a sentence calls it."""
        return f"rank {self.rank} ({self.device})"

    @property
    def failed(self) -> bool:
        """Whether it came to no end of its own choosing."""
        return self.exit_status not in (0, None) and not self.is_through

    @property
    def is_through(self) -> bool:
        """Whether it has said that it came to a good end."""
        return self.end is not None and self.end["outcome"] in NO_FAULT

    def ended(self, how: str) -> str:
        """`how` it ended, with its name and log."""
        return f"{self.name} {how} (its log is {self.log_path})"


def first_cause(ranks: Sequence[RankEnd], *, evidence: str | None = None) -> Ended | None:
    """How the run ended by one of these ranks; None where none failed, or all only because of others.

    `evidence` is why the system may have killed for memory. A rank that lost its connection to another is a
    consequence, and so is one that the launcher ended.
    """
    return _killed(ranks, evidence) or _said(ranks) or _raised(ranks)


def consequence(ranks: Sequence[RankEnd]) -> Ended | None:
    """The same where no cause was found: by what is left of it; None where no rank failed."""
    lost = [rank for rank in ranks if rank.end is not None and rank.end.get("peer")]
    if lost:
        said = (lost[0].end or {}).get("message") or "it does not say how"
        return Ended("failed", lost[0].ended(f"lost its connection to the others: {said.rstrip('.')}"))
    ended = [rank for rank in ranks if rank.failed]
    return Ended("failed", ended[0].ended(in_words(ended[0].exit_status))) if ended else None


def terminated(ranks: Sequence[RankEnd]) -> Ended | None:
    """The end of a rank that a SIGTERM from elsewhere killed, as earlyoom does; None where it may be the launcher's.

    `ranks` are all of the run: the launcher ends a rank when another has failed; here all others only lost this one.
    """
    silent = [rank for rank in ranks if rank.end is None]
    others_lost_it = all(rank.end.get("peer") for rank in ranks if rank.end is not None)
    if len(silent) != 1 or len(ranks) == 1 or not others_lost_it or silent[0].exit_status != BY_THE_LAUNCHER:
        return None
    return Ended("failed", silent[0].ended(in_words(silent[0].exit_status)))


def _killed(ranks: Sequence[RankEnd], evidence: str | None) -> Ended | None:
    for rank in ranks:
        # One that has told its end may crash after it, as gloo does without its peers: that is no cause.
        if rank.end is None and (rank.exit_status or 0) < 0 and rank.exit_status != BY_THE_LAUNCHER:
            how = in_words(rank.exit_status)
            if rank.exit_status == -signal.SIGKILL and evidence is not None:
                return Ended("oom", f"{rank.ended(how)}: {evidence}; {SMALLER}")
            words = last_words(rank.log)
            return Ended("failed", rank.ended(f"{how}: {words}" if words.startswith("Fatal") else how))
    return None


def _said(ranks: Sequence[RankEnd]) -> Ended | None:
    ends = [(rank.end["time_ns"], rank.end, rank) for rank in ranks if rank.end is not None]
    own = [(time, end, rank) for time, end, rank in ends if end["outcome"] not in NO_FAULT and not end.get("peer")]
    if not own:
        return None
    _, end, rank = min(own, key=lambda each: each[0])
    said = f"{rank.name}: {(end['message'] or end['outcome']).rstrip('.')} (its log is {rank.log_path})"
    return Ended(end["outcome"], f"{said}; {SMALLER}" if end["outcome"] == "oom" else said)


def _raised(ranks: Sequence[RankEnd]) -> Ended | None:
    for rank in ranks:
        if rank.end is None and (rank.exit_status or 0) > 0:
            words = last_words(rank.log)
            how = in_words(rank.exit_status)
            return Ended("failed", rank.ended(f"{how}: {words}" if words else how))
    return None


def rank_ends(rundir: RunDir, record: RunRecord, exits: Mapping[int, int]) -> list[RankEnd]:
    """What is left of each rank, from its files."""
    ends = []
    for local, rank in enumerate(record.own_ranks):
        events = list(read_events(LineTail(rundir.events(rank)).read()))
        log = rundir.log(rank)
        ends.append(
            RankEnd(
                rank=rank,
                device=device_of(events, record, local),
                end=next((event for event in events if event["event"] == "end"), None),
                exit_status=exits.get(rank),
                log=log.read_text("utf-8", errors="replace") if log.exists() else "",
                log_path=log,
            )
        )
    return ends


def device_of(events: Sequence[Mapping[str, Any]], record: RunRecord, local: int) -> str:
    """What a rank stepped on, by its number where there are several on the machine, each with its identifier."""
    ready = next((event for event in events if event["event"] == "ready"), None)
    if ready is None:
        return record.the_cell.device
    kind: str = ready["device"]["kind"]
    return kind if ready["device"].get("uuid") is None else f"{kind}:{local}"
