"""The workers of a run behind one face: a process, or the ranks of this machine and the launcher that started them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import psutil

from powerbench.blame import NO_FAULT, RankEnd, consequence, first_cause, rank_ends, terminated
from powerbench.endings import Ended, how_it_ended, in_words, last_words, log_notes
from powerbench.launch import Commands, WatchedProcess, signal_group
from powerbench.records import RunRecord, Supervisor
from powerbench.rundir import RunDir
from powerbench.rundir.completed import is_without_operators
from powerbench.rundir.journals import Journals
from powerbench.rundir.lines import LineTail, read_events
from powerbench.rundir.load import is_alive

# A process that was killed is gone as soon as the kernel has let go of it; one that waits for a device may never be.
GONE_S = 5.0


class Circumstances(NamedTuple):
    """What else there is to see of an ending: who asked for it, signs of a kill for memory, a full disk."""

    stopped: Ended | None
    evidence: str | None
    disk_full: bool


class Workers(Protocol):
    """What steps. None of its methods waits for a step."""

    def pids(self) -> dict[str, int]:
        """The processes that are there by now, as telemetry calls them."""

    def run_id(self) -> str | None:
        """What the machines of a run have called it; None until they have met, and of one machine."""

    def stop(self) -> None:
        """Ask them to end after the step in flight."""

    def kill(self) -> None:
        """End them now, with everything that they started."""

    def close(self) -> None:
        """Leave nothing of them behind, and let go of what they were told by."""

    def notes(self) -> list[str]:
        """What their logs say that a reader of the figures must know."""

    def ending(self, seen: Circumstances) -> Ended:
        """How they ended, all of them being gone and their journals finished."""


def start_workers(
    rundir: RunDir, record: RunRecord, journals: Journals, *, commands: Commands, when_ended: Callable[[], object]
) -> Workers:
    """Start what makes the steps of this run on this machine. Raises OSError."""
    kind = OneWorker if record.ranks == 1 else LaunchedWorkers
    return kind(rundir, record, journals, commands=commands, when_ended=when_ended)


class NoWorkers:
    """None yet: before the steps, or where the run ended before them."""

    def pids(self) -> dict[str, int]:
        """Nobody."""
        return {}

    def run_id(self) -> None:
        """None: nobody has met."""

    def stop(self) -> None:
        """Nothing to do."""

    kill = close = stop

    def notes(self) -> list[str]:
        """Nobody has written."""
        return []

    def ending(self, seen: Circumstances) -> Ended:
        """Why it was ended: nothing else ends a run without workers."""
        return seen.stopped or Ended("failed", "it ended before its workers were started")


class OneWorker:
    """The only rank: a process of ours."""

    def __init__(
        self,
        rundir: RunDir,
        record: RunRecord,
        journals: Journals,
        *,
        commands: Commands,
        when_ended: Callable[[], object],
    ) -> None:
        (self._rank, self._journal) = next(iter(journals.of.items()))
        self._log = rundir.log(self._rank)
        self._process = WatchedProcess(
            [*commands.worker, str(rundir.path), str(self._rank)], log=self._log, when_ended=when_ended
        )
        self.stop, self.kill, self.close = self._process.stop, self._process.kill, self._process.close

    def pids(self) -> dict[str, int]:
        """Its process."""
        return {f"worker{self._rank}": self._process.pid}

    def run_id(self) -> None:
        """None: there is one machine."""

    def notes(self) -> list[str]:
        """What its log says."""
        return log_notes(self._said())

    def ending(self, seen: Circumstances) -> Ended:
        """How it ended."""
        return how_it_ended(
            end=self._journal.event("end"),
            without_operators=is_without_operators(self._journal.events),
            exit_status=self._process.exit_status,
            log=self._said(),
            log_path=self._log,
            **seen._asdict(),
        )

    def _said(self) -> str:
        return self._log.read_text("utf-8", errors="replace") if self._log.exists() else ""


class LaunchedWorkers:
    """The ranks of this machine, which torch's launcher started, each in a session of its own."""

    def __init__(
        self,
        rundir: RunDir,
        record: RunRecord,
        journals: Journals,
        *,
        commands: Commands,
        when_ended: Callable[[], object],
    ) -> None:
        self._rundir = rundir
        self._record = record
        self._journals = journals
        self._events: list[dict[str, Any]] = []
        self._tail = LineTail(rundir.launcher_events)
        self._killed_at_s: float | None = None
        self._launcher = WatchedProcess(
            [*commands.launcher, str(rundir.path), *commands.worker], log=rundir.launcher_log, when_ended=when_ended
        )

    def pids(self) -> dict[str, int]:
        """Those ranks that have said that they have started."""
        return {f"worker{rank}": process.pid for rank, process in self._started()}

    def run_id(self) -> str | None:
        """As the first machine has called it."""
        met = self._event("met")
        return None if met is None else str(met["id"])

    def stop(self) -> None:
        """Interrupt every rank; before all have started, the launcher, which ends those that have."""
        started = [process for _, process in self._started()]
        if len(started) < len(self._journals.of):
            self._launcher.stop()
        for process in started:
            self._signal(process, signal.SIGINT)

    def kill(self) -> None:
        """End every rank; the launcher ends by itself then, and first tells those of other machines."""
        self._killed_at_s = self._killed_at_s or time.monotonic()
        nobody_to_tell = self._record.node is None or not self.pids()
        self._kill_ranks()
        if nobody_to_tell or time.monotonic() - self._killed_at_s > 2 * GONE_S:
            self._launcher.kill()

    def close(self) -> None:
        """End what is left, and wait for it within reason."""
        self._kill_ranks()
        self._launcher.close()
        self._kill_ranks()  # what had just begun when the launcher ended has its end from the pipe, closed by now
        give_up_s = time.monotonic() + GONE_S
        while any(self._living()) and time.monotonic() < give_up_s:
            time.sleep(0.01)

    def notes(self) -> list[str]:
        """What the logs of all ranks say."""
        return log_notes("\n".join(rank.log for rank in self._ends()))

    def ending(self, seen: Circumstances) -> Ended:
        """The cause before its consequences: why we ended it, what a rank did, what other machines say of theirs."""
        ranks = self._ends()
        if all(rank.end is not None and rank.end["outcome"] == "complete" for rank in ranks):
            return Ended("complete", None)
        if seen.stopped is not None:
            return self._with_who_is_behind(seen.stopped)
        ended = self._told("end") or first_cause(ranks, evidence=seen.evidence)
        if seen.disk_full and (ended is None or ended.status == "failed"):
            return Ended("failed", "a rank ended with the disk full; make room, or choose another folder with --output")
        ended = ended or self._told("elsewhere") or self._interrupted(ranks)
        ended = ended or (terminated(ranks) if self._record.node is None else None)
        return ended or consequence(ranks) or self._of_launcher()

    def _ends(self) -> list[RankEnd]:
        exits = (self._event("ranks") or {"exits": {}})["exits"]
        return rank_ends(self._rundir, self._record, {int(rank): status for rank, status in exits.items()})

    def _with_who_is_behind(self, stopped: Ended) -> Ended:
        """Who has kept the others waiting on other machines is seen there, and told by the launchers."""
        event = self._event("behind")
        return stopped if event is None else Ended(stopped.status, f"{stopped.reason}: {event['message']}")

    def _interrupted(self, ranks: Sequence[RankEnd]) -> Ended | None:
        """The ending of ranks that were told to stop, and not by us."""
        outcomes = {rank.end["outcome"] for rank in ranks if rank.end is not None}
        if "interrupted" not in outcomes or not outcomes.issubset(NO_FAULT):
            return None
        by_whom = "by a signal" if self._record.node is None else "on another machine, by Ctrl-C, a signal or a limit"
        return Ended("interrupted", f"the ranks were told to stop {by_whom}")

    def _told(self, name: str) -> Ended | None:
        event = self._event(name)
        return None if event is None else Ended(event["outcome"], event["message"])

    def _of_launcher(self) -> Ended:
        path = self._rundir.launcher_log
        words = last_words(path.read_text("utf-8", errors="replace")) if path.exists() else ""
        how = in_words(self._launcher.exit_status)
        return Ended("failed", f"the launcher of the ranks {how}{f': {words}' if words else ''} (its log is {path})")

    def _event(self, name: str) -> dict[str, Any] | None:
        self._events += read_events(self._tail.read())
        return next((event for event in self._events if event["event"] == name), None)

    def _started(self) -> Iterator[tuple[int, Supervisor]]:
        for rank, journal in self._journals.of.items():
            started = journal.event("started")
            if started is not None:
                yield rank, Supervisor(started["pid"], started["create_time_s"])

    def _living(self) -> Iterator[Supervisor]:
        boot = self._record.clock.boot_id
        return (process for _, process in self._started() if is_alive(process, boot))

    def _signal(self, process: Supervisor, number: signal.Signals) -> None:
        if is_alive(process, self._record.clock.boot_id):  # its number may be that of another by now
            signal_group(process.pid, number)

    def _kill_ranks(self) -> None:
        with suppress(OSError):  # the disk may be what ends the run
            self._journals.update()
        for _, process in self._started():
            self._signal(process, signal.SIGKILL)
        if self._launcher.exit_status is None:  # else its number may be that of another by now
            with suppress(psutil.Error):
                for child in psutil.Process(self._launcher.pid).children():
                    signal_group(child.pid, signal.SIGKILL)
