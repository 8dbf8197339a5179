"""py-spy beside the worker: what it is told, what it says, and what a reader is told of that."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from powerbench.rundir import RunDir
from powerbench.rundir.lines import EventWriter
from powerbench.spying import AS_ROOT, PROGRAM_VARIABLE, Spy, as_root, find_program, has_native_stacks, send, why_not
from tests.rundir import a_cell, a_record

PROGRAM = Path("/opt/bin/py-spy")
DENIED = "Permission Denied: Try running again with elevated permissions by going 'sudo env \"PATH=$PATH\" !!'\n"


def test_on_a_mac_the_note_names_the_command_that_helps() -> None:
    for words in ("This program requires root on OSX.\n", "sudo: a password is required\n"):
        said = why_not(words, PROGRAM, system="darwin")
        assert "type `sudo -v` in this terminal and run again" in said
    said = why_not("sudo: a password is required\n", PROGRAM, on_a_mac=AS_ROOT, system="darwin")
    assert "start the program itself as root" in said
    assert why_not("Error: no such process", PROGRAM, system="darwin") == "py-spy ended at once: no such process"


@pytest.mark.parametrize(
    ("scope", "helps"),
    [
        ("1", "`sudo sysctl kernel.yama.ptrace_scope=0`"),
        ("2", "`sudo sysctl kernel.yama.ptrace_scope=0`"),
        ("3", "only booting it with another setting changes that"),
        ("0", "`--cap-add SYS_PTRACE`"),
        (None, "`--cap-add SYS_PTRACE`"),
    ],
)
def test_on_linux_it_depends_on_what_the_kernel_allows(tmp_path: Path, scope: str | None, helps: str) -> None:
    file = tmp_path / "ptrace_scope"
    if scope is not None:
        file.write_text(f"{scope}\n")

    assert helps in why_not(DENIED, PROGRAM, system="linux", scope=file)


def test_other_words_of_its_own_are_passed_on() -> None:
    said = "Error: Failed to find python version from target process\nReason: Failed to find it.\n"

    assert why_not(said, PROGRAM, system="linux") == (
        "py-spy ended at once: Failed to find python version from target process"
    )
    assert why_not("", PROGRAM, system="linux") == "py-spy ended at once: it said nothing"


def test_only_on_a_mac_it_is_started_by_sudo_which_may_ask_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 501)
    assert as_root(PROGRAM, system="darwin") == ("sudo", "-n", str(PROGRAM))
    assert as_root(PROGRAM, system="linux") == (str(PROGRAM),)

    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert as_root(PROGRAM, system="darwin") == (str(PROGRAM),)


class RootsOwn(subprocess.Popen[bytes]):
    """A process that only root may send a signal."""

    def send_signal(self, sig: int) -> None:
        raise PermissionError


def test_a_signal_for_roots_own_is_sent_by_sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sudo").write_text(f'#!/bin/sh\nprintf "%s " "$@" > {tmp_path}/asked\n')
    (tmp_path / "sudo").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with RootsOwn([sys.executable, "-c", ""]) as process:
        send(signal.SIGINT, process)

    assert (tmp_path / "asked").read_text() == f"-n kill -2 {process.pid} "


def test_it_is_found_where_it_was_installed_with_this_python(tmp_path: Path) -> None:
    assert find_program({}) == Path(sys.executable).with_name("py-spy")
    assert find_program({PROGRAM_VARIABLE: str(tmp_path / "none")}) is None


def test_native_stacks_are_taken_on_linux_alone() -> None:
    assert not has_native_stacks() or sys.platform == "linux"


def test_a_run_without_it_starts_nothing_and_records_nothing(tmp_path: Path) -> None:
    with Spy(RunDir(tmp_path), a_cell()) as spy:
        spy.finish()

    assert [*tmp_path.iterdir()] == []
    assert spy.told(a_record()) == a_record()


def test_a_run_that_ends_before_its_steps_says_so(tmp_path: Path) -> None:
    with Spy(RunDir(tmp_path), a_cell(py_spy=True)) as spy:
        spy.finish()

    assert spy.told(a_record()).unsampled == "the run ended before its steps began"


@pytest.mark.parametrize(
    ("program", "lost"),
    [
        (
            "echo Sampling process 100 times a second",
            "py-spy wrote nothing (No such file or directory; Sampling process",
        ),
        ('echo Sampling process; echo "[]" > "$5"', "py-spy saw 0 of the moments"),
        ('echo Sampling process; echo "[{" > "$5"', "what py-spy wrote cannot be read"),
    ],
)
@pytest.mark.skipif(sys.platform == "darwin", reason="there it is started by sudo")
def test_what_it_leaves_unfinished_costs_the_stacks_and_nothing_else(tmp_path: Path, program: str, lost: str) -> None:
    file = tmp_path / "py-spy"
    file.write_text(f"#!/bin/sh\n{program}\n")
    file.chmod(0o755)
    rundir = RunDir(tmp_path / "run")
    rundir.path.mkdir()
    with Spy(rundir, a_cell(py_spy=True), variables={PROGRAM_VARIABLE: str(file)}) as spy:
        EventWriter(rundir.events(0)).write("awaits_py_spy", time_ns=1, pid=1)
        while not rundir.py_spy_go(0).exists():
            pass
        spy.finish()

    record = spy.told(a_record(cell=a_cell(py_spy=True)))
    assert record.is_instrumented
    assert record.stacks is not None
    assert record.stacks.lost is not None
    assert record.stacks.lost.startswith(lost)
    assert [path.name for path in rundir.path.iterdir()] == ["worker-0.jsonl"]


def test_where_it_is_not_installed_the_worker_is_told_to_go_on(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path)
    with Spy(rundir, a_cell(py_spy=True), variables={PROGRAM_VARIABLE: str(tmp_path / "none")}) as spy:
        EventWriter(rundir.events(0)).write("awaits_py_spy", time_ns=1, pid=1)
        while not rundir.py_spy_go(0).exists():
            pass
        spy.finish()

    unsampled = spy.told(a_record()).unsampled
    assert unsampled is not None
    assert "`pip install py-spy`" in unsampled
