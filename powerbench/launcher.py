"""Starts the ranks of this machine with torch's elastic launcher, and answers for them to the launchers of others."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import psutil

from powerbench.blame import consequence, first_cause, rank_ends
from powerbench.endings import Ended
from powerbench.errors import PowerbenchError, Unavailable
from powerbench.launch import signal_group
from powerbench.meeting import BEAT_S, SILENCE_S, Elsewhere, Meeting, meet, open_store
from powerbench.records import Node, RunRecord
from powerbench.rundir import RunDir
from powerbench.rundir.lines import EventWriter
from powerbench.rundir.load import read_record
from powerbench.rundir.work import WorkReader

MONITOR_S = 0.25
LOOPBACK = "127.0.0.1"
# torch leaves a worker the launcher's outputs, and opens a file of its own twice where it is to take both: the shell
# that becomes the worker puts both at the end of one, in which then stands also why an interpreter did not start.
INTO_ITS_LOG = 'exec "$@" >>"$0-$RANK.log" 2>&1'

SIGNALLED = Ended("interrupted", "the launcher of the ranks was told to stop by a signal")


def main(arguments: Sequence[str]) -> int:
    """`python -m powerbench.launcher RUN_DIR WORKER...`: run the ranks of the run in RUN_DIR; the exit status."""
    rundir = RunDir(Path(arguments[0]))
    launcher = Launcher(rundir, read_record(rundir), worker=arguments[1:])
    Thread(target=launcher.end_with_supervisor, name="supervisor", daemon=True).start()
    try:
        return launcher.run()
    except PowerbenchError as error:
        launcher.say_end(Ended("unavailable" if isinstance(error, Unavailable) else "failed", str(error)))
        return 1


class Launcher:
    """The ranks of one machine: started together, ended together."""

    def __init__(self, rundir: RunDir, record: RunRecord, *, worker: Sequence[str]) -> None:
        self.events = EventWriter(rundir.launcher_events)
        self._rundir = rundir
        self._record = record
        self._worker = worker
        self._meeting: Meeting | None = None
        self._over = Lock()

    def run(self) -> int:
        """Meet the others, start the ranks, and see them to their end. Raises PowerbenchError."""
        refuse_without_groups()
        node = self._record.node
        timeout_s = self._record.the_cell.limits.rendezvous_seconds
        if node is None:
            store: Any = open_store_here()
            address, run_id = f"{LOOPBACK}:{store.port}", "powerbench"
        else:
            store = open_store(node, timeout_s=timeout_s)
            done = Done(self._rundir, self._record)
            self._meeting = meet(node, self._record.built_in, store=store, timeout_s=timeout_s, done=done)
            address, run_id = node.rendezvous, self._meeting.id
            self.events.write("met", time_ns=time.monotonic_ns(), id=run_id, hosts=self._meeting.hosts)
            Thread(target=self._hear, args=(self._meeting,), name="meeting", daemon=True).start()
        exits = launch(self._record, [*self._worker, str(self._rundir.path)], address=address, run_id=run_id)
        self._end_here()
        if exits:
            self.events.write("ranks", time_ns=time.monotonic_ns(), exits={str(rank): exits[rank] for rank in exits})
        else:
            self.say_end(SIGNALLED)
        if self._meeting is not None:
            self.answer_for(exits, self._meeting)
        return 0 if exits and not any(exits.values()) else 1

    def end_with_supervisor(self) -> None:
        """Wait until the supervisor is gone, which closes our stdin; then end, and the ranks with us."""
        while os.read(sys.stdin.fileno(), 1):
            pass
        self._end_here()
        end_ranks()
        if self._meeting is not None:
            self._meeting.tell(Ended("failed", "the process that supervised the ranks there is gone"))
        os._exit(1)

    def say_end(self, ended: Ended) -> None:
        """Write down how it ended, where no rank will say it."""
        self.events.write("end", time_ns=time.monotonic_ns(), outcome=ended.status, message=ended.reason)

    def answer_for(self, exits: Mapping[int, int], meeting: Meeting) -> None:
        """Tell the others of an end that began here; of one that did not, wait to hear where it began."""
        ranks = rank_ends(self._rundir, self._record, exits)
        if all(rank.end is not None and rank.end["outcome"] == "complete" for rank in ranks):
            return
        ended = self._ended_here(meeting) or (first_cause(ranks) if exits else SIGNALLED)
        give_up_s = time.monotonic() + SILENCE_S + BEAT_S
        while ended is None and time.monotonic() < give_up_s:
            if (found := meeting.hear()) is not None:
                self._note_behind(meeting)
                self.events.write("elsewhere", time_ns=time.monotonic_ns(), **as_facts(found))
                meeting.part()
                return
            time.sleep(BEAT_S / 4)
        if (ended := ended or consequence(ranks)) is not None:
            meeting.tell(ended)

    def _end_here(self) -> None:
        """Return to the first thread that has something to end; the others wait for the end."""
        self._over.acquire()

    def _hear(self, meeting: Meeting) -> None:
        """Hear of the others until the run has ended badly with one of them; then end it here."""
        while (found := meeting.hear()) is None:
            time.sleep(BEAT_S)
        if not psutil.Process().children():
            time.sleep(BEAT_S)  # if ours have ended badly, that is about to be told
        self._end_here()
        self._note_behind(meeting)
        if all(rank.is_through for rank in rank_ends(self._rundir, self._record, {})):
            os._exit(0)  # ours are through, and torch's agent would wait five minutes for the others to be
        self.events.write("elsewhere", time_ns=time.monotonic_ns(), **as_facts(found))
        end_ranks()
        meeting.part()
        os._exit(1)

    def _note_behind(self, meeting: Meeting) -> str | None:
        """Who keeps the others waiting, for the supervisor, which may have ended the ranks here for that."""
        behind = meeting.behind()
        if behind is not None:
            self.events.write("behind", time_ns=time.monotonic_ns(), message=behind)
        return behind

    def _ended_here(self, meeting: Meeting) -> Ended | None:
        """How the supervisor has ended them, and why; None where it has not."""
        record = read_record(self._rundir)
        if record.status == "running":
            return None
        behind = self._note_behind(meeting)
        return Ended(record.status, record.reason if behind is None else f"{record.reason}: {behind}")


class Done:
    """In how many steps each rank of this machine has done its part, whenever it is asked."""

    def __init__(self, rundir: RunDir, record: RunRecord) -> None:
        self._readers = {rank: WorkReader(rundir.work_marks(rank)) for rank in record.own_ranks}

    def __call__(self) -> dict[int, int]:
        """By rank."""
        arrivals = {rank: reader.last_arrival() for rank, reader in self._readers.items()}
        return {rank: 0 if arrival is None else arrival.step + 1 for rank, arrival in arrivals.items()}


def as_facts(found: Elsewhere) -> dict[str, Any]:
    """What was heard, for an event."""
    return {"node": found.node, "outcome": found.ended.status, "message": found.ended.reason}


def refuse_without_groups() -> None:
    """Raises Unavailable where torch has no process groups."""
    import torch.distributed

    if not torch.distributed.is_available():
        raise Unavailable(
            f"torch {torch.__version__} was built without torch.distributed, so it cannot run several ranks: install "
            "another build, or measure one."
        )


def open_store_here() -> Any:
    """A store at a free port, for the ranks of this machine alone."""
    from torch.distributed import TCPStore

    return TCPStore(LOOPBACK, 0, None, True, wait_for_workers=False, multi_tenant=True)


def launch(record: RunRecord, command: Sequence[str], *, address: str, run_id: str) -> dict[int, int]:
    """Run a process for each rank of this machine until all have ended or one has failed; exit status by rank.

    Empty where a signal has ended us, and them.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    cell, node = record.the_cell, record.node or Node(rank=0, rendezvous=address)
    config = LaunchConfig(
        min_nodes=cell.nnodes,
        max_nodes=cell.nnodes,
        nproc_per_node=cell.ranks,
        run_id=run_id,
        rdzv_backend="static",
        rdzv_endpoint=address,
        rdzv_configs={"rank": node.rank, "timeout": max(1, round(cell.limits.rendezvous_seconds))},
        max_restarts=0,
        monitor_interval=MONITOR_S,
        logs_specs=NoLogs(),
    )
    log = str(RunDir(Path(command[-1])).log(0)).removesuffix("-0.log")
    arguments = [plain.replace("$", "$$") for plain in ("-c", INTO_ITS_LOG, log, *command)]  # they are templates there
    exits = dict.fromkeys(record.own_ranks, 0)
    try:
        elastic_launch(config, "/bin/sh")(*arguments)
    except ChildFailedError as error:
        exits |= {rank: failure.exitcode for rank, failure in error.failures.items()}
    except SignalException:
        return {}
    return exits


class NoLogs:
    """Tells torch, in the place of its LogsSpecs, that the outputs of workers are none of its business."""

    root_log_dir = os.devnull

    def reify(self, envs: Mapping[int, Mapping[str, str]]) -> Any:
        """Outputs as they are inherited, and no file for errors."""
        from torch.distributed.elastic.multiprocessing.api import LogsDest

        inherited = dict.fromkeys(envs, "")
        return LogsDest(stdouts=inherited, stderrs=inherited, error_files=dict.fromkeys(envs, os.devnull))


def end_ranks() -> None:
    """Kill every process that was started here, with all that it started: each has a group of its own."""
    for child in psutil.Process().children():
        signal_group(child.pid, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
