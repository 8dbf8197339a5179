"""The ranks behind one face: whoever is left of them is ended, nobody else is, and the ending names its cause."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from threading import Event
from typing import Any

import psutil

from powerbench.endings import Ended
from powerbench.environment import boot_id
from powerbench.launch import Commands
from powerbench.records import Clock, Node, RunRecord
from powerbench.rundir import RunDir
from powerbench.rundir.journals import Journals
from powerbench.rundir.lines import EventWriter
from powerbench.workers import Circumstances, LaunchedWorkers
from tests.e2e.commands import wait_for
from tests.rundir import a_cell, a_record

# Starts a rank as torch does, in a session of its own; that one hears neither of the end of its stdin nor SIGTERM.
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
LAUNCHER = f"""
import json, subprocess, sys, time, psutil
rank = subprocess.Popen([sys.executable, "-c", {DEAF!r}], start_new_session=True)
started = {{"event": "started", "time_ns": 1, "pid": rank.pid, "create_time_s": psutil.Process(rank.pid).create_time()}}
with open(sys.argv[1] + "/worker-0.jsonl", "a") as events:
    events.write(json.dumps(started) + "\\n")
time.sleep(600)
"""
NOTHING_ELSE = Circumstances(stopped=None, evidence=None, disk_full=False)
REFUSED = {"event": "end", "time_ns": 1, "outcome": "unavailable", "message": "torch has no groups."}


def a_group(*, node: Node | None = None) -> RunRecord:
    clock = Clock(boot_id=boot_id(), start_monotonic_ns=1, start_unix_ns=2)
    return a_record(cell=a_cell(ranks=2, nnodes=1 if node is None else 2), ranks=2, node=node, clock=clock)


class Group:
    """Two ranks whose launcher is a program of the test's."""

    def __init__(self, folder: Path, program: str, record: RunRecord) -> None:
        self.rundir = RunDir(folder)
        self.ended = Event()
        self.journals = Journals(self.rundir, record)
        self.workers = LaunchedWorkers(
            self.rundir,
            record,
            self.journals,
            commands=Commands(worker=(), launcher=(sys.executable, "-c", program)),
            when_ended=self.ended.set,
        )

    def rank(self) -> psutil.Process:
        """The first rank, once it has said that it has started."""

        def started() -> psutil.Process | None:
            self.journals.update()
            pid = self.workers.pids().get("worker0")
            return None if pid is None else psutil.Process(pid)

        return wait_for(started, "a rank")

    def over(
        self,
        *events: dict[str, Any],
        ends: tuple[dict[str, Any] | None, ...] = (),
        seen: Circumstances = NOTHING_ELSE,
    ) -> Ended:
        """How it ended, where the launcher and the ranks have left these events."""
        assert self.ended.wait(60)
        self.workers.close()
        for event in events:
            with self.rundir.launcher_events.open("a") as file:
                file.write(json.dumps(event) + "\n")
        for rank, end in enumerate(ends):
            if end is not None:
                EventWriter(self.rundir.events(rank)).write("end", time_ns=1, message=None, **end)
        self.journals.update()
        return self.workers.ending(seen)


class TestNobodyIsLeft:
    def test_of_ranks_that_hear_of_nothing_after_their_launcher_was_killed(self, tmp_path: Path) -> None:
        group = Group(tmp_path, LAUNCHER, a_group())
        rank = group.rank()

        psutil.Process(rank.ppid()).kill()
        assert group.ended.wait(60)
        assert rank.is_running()
        group.workers.close()

        assert is_gone(rank)

    def test_of_all_that_are_killed_with_it(self, tmp_path: Path) -> None:
        group = Group(tmp_path, LAUNCHER, a_group())
        rank = group.rank()

        group.workers.kill()

        assert group.ended.wait(60)
        wait_for(lambda: is_gone(rank), "the end of a rank")
        group.workers.close()

    def test_and_a_stranger_that_has_a_rank_s_old_number_lives(self, tmp_path: Path) -> None:
        stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        try:
            facts = {"pid": stranger.pid, "create_time_s": psutil.Process(stranger.pid).create_time() - 3600}
            EventWriter(RunDir(tmp_path).events(0)).write("started", time_ns=1, **facts)
            group = Group(tmp_path, "", a_group())
            group.workers.stop()
            group.workers.kill()
            group.workers.close()

            assert stranger.poll() is None
        finally:
            stranger.kill()
            stranger.wait()


def is_gone(process: psutil.Process) -> bool:
    """Whether it is no more, or only waits for whoever has inherited it to ask for its exit status."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


COMPLETE, INTERRUPTED = {"outcome": "complete"}, {"outcome": "interrupted"}


class TestTheEnding:
    def test_is_complete_where_every_rank_says_so(self, tmp_path: Path) -> None:
        assert Group(tmp_path, "", a_group()).over(ends=(COMPLETE, COMPLETE)) == Ended("complete", None)

    def test_is_what_the_launcher_says_before_there_are_ranks(self, tmp_path: Path) -> None:
        assert Group(tmp_path, "", a_group()).over(REFUSED) == Ended("unavailable", "torch has no groups.")

    def test_is_that_of_another_machine_where_no_rank_here_has_failed_by_itself(self, tmp_path: Path) -> None:
        lost = {"outcome": "failed", "peer": True}
        heard = {"event": "elsewhere", "outcome": "oom", "message": "on beta (node 1), rank 1 (cpu): out of memory"}

        ended = Group(tmp_path, "", a_group()).over(heard, ends=(lost, None))

        assert ended == Ended("oom", "on beta (node 1), rank 1 (cpu): out of memory")

    def test_is_that_of_ranks_that_were_told_to_stop_and_not_by_us(self, tmp_path: Path) -> None:
        node = Node(rank=0, rendezvous="alpha:1")
        ended = Group(tmp_path, "", a_group(node=node)).over(ends=(INTERRUPTED, INTERRUPTED))

        assert ended == Ended(
            "interrupted", "the ranks were told to stop on another machine, by Ctrl-C, a signal or a limit"
        )

    def test_is_what_we_ended_it_for_with_who_kept_it_waiting_elsewhere(self, tmp_path: Path) -> None:
        hung = Circumstances(stopped=Ended("failed", "no step ended for 10 s"), evidence=None, disk_full=False)
        behind = {"event": "behind", "message": "rank 3 on beta (node 1) has not done step 7"}

        assert Group(tmp_path, "", a_group()).over(behind, seen=hung) == Ended(
            "failed", "no step ended for 10 s: rank 3 on beta (node 1) has not done step 7"
        )

    def test_is_the_launcher_s_where_nothing_else_is_known(self, tmp_path: Path) -> None:
        dies = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"

        ended = Group(tmp_path, dies, a_group()).over()

        assert ended == Ended(
            "failed", f"the launcher of the ranks was killed by SIGKILL (its log is {tmp_path}/launcher.log)"
        )

    def test_has_the_name_that_the_machines_have_given_their_run(self, tmp_path: Path) -> None:
        group = Group(tmp_path, "", a_group())
        assert group.workers.run_id() is None

        group.over({"event": "met", "time_ns": 1, "id": "abc", "hosts": ["alpha"]})

        assert group.workers.run_id() == "abc"
