"""What the end-to-end tests share: the real command as a process, patience with a deadline, and who is still there."""

from __future__ import annotations

import fcntl
import io
import json
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psutil
import pytest

from powerbench.cli.app import main

POWERBENCH = (sys.executable, "-m", "powerbench")
SLEEP = ("--model", "sleep", "--set", "sleep_ms=5")
TINY = ("--model", "bert-tiny", "--mode", "inference", "--batch-size", "2", "--sequence-length", "16")
ENDLESS = ("--steps", "1000000")
PATIENCE_S = 90.0
POLL_S = 0.005
NS = 1_000_000_000

T = TypeVar("T")

started: list[subprocess.Popen[str]] = []
"""Commands that were started and not seen to their end."""


class Done(NamedTuple):
    """How a command ended, and what it said."""

    status: int
    stdout: str
    stderr: str


def powerbench(*arguments: str | Path, **options: Any) -> Done:
    """Run `powerbench` to its end; `options` are those of subprocess.Popen."""
    return ended(start(*arguments, **options))


def start(
    *arguments: str | Path, command: Sequence[str] = POWERBENCH, env: dict[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """Start `powerbench`, off a terminal; its outputs are kept unless `options` say otherwise."""
    outputs = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    process = subprocess.Popen([*command, *map(str, arguments)], text=True, env=os.environ | (env or {}), **outputs)
    started.append(process)
    return process


def ended(process: subprocess.Popen[str], *, within_s: float = PATIENCE_S) -> Done:
    """Wait for a started command; fails where it has not ended by then."""
    try:
        stdout, stderr = process.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"still running after {within_s:g} s: {process.args!r}") from None
    finally:
        let_go_of(process)
    return Done(process.returncode, stdout or "", stderr or "")


def let_go_of(process: subprocess.Popen[str]) -> None:
    """End a started command where it has not ended, and close its pipes: else whichever test is on is blamed later."""
    process.kill()
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    if process in started:
        started.remove(process)


def report(*runs: Path) -> Any:
    """What `powerbench report --json` says of `runs`; asked in this process, since it is asked often."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(["report", *map(str, runs), "--json"])
    assert (status, err.getvalue()) == (0, "")
    return json.loads(out.getvalue())


def wait_for(
    condition: Callable[[], T | None], what: str, *, within_s: float = PATIENCE_S, every_s: float = POLL_S
) -> T:
    """The first result of `condition` that is true; fails where none has come by then."""
    give_up_s = time.monotonic() + within_s
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < give_up_s, f"{what} within {within_s:g} s"
        time.sleep(every_s)


def the_run(parent: Path) -> Path | None:
    """The one run directory below `parent`; None while there is none."""
    return next((path for path in parent.glob("2*") if path.is_dir()), None) if parent.is_dir() else None


def running_in(parent: Path) -> Path:
    """The run directory below `parent`, once its record is there."""
    record = wait_for(lambda: next(parent.glob("2*/run.json"), None), f"a record in {parent}")
    return record.parent


def stepping_in(parent: Path, *, steps: int = 3, ranks: Sequence[int] = (0,)) -> Path:
    """The run directory below `parent`, once so many steps of each of these ranks have been marked."""
    run = running_in(parent)
    wait_for(
        lambda: all(len(marked_ns(run, rank)) > steps for rank in ranks) or record_of(run)["status"] != "running",
        f"{steps} marked steps in {run}",
    )
    assert record_of(run)["status"] == "running", f"ended without a step: {record_of(run)['reason']}"
    return run


def worker_of(run: Path) -> psutil.Process:
    """The worker's process, once it is there: its command line names the run, its supervisor's only the parent."""

    def worker() -> psutil.Process | None:
        found = processes_of(run)
        assert found or record_of(run)["status"] == "running", f"ended without a worker: {record_of(run)['reason']}"
        return next(iter(found), None)

    return wait_for(worker, f"a worker of {run}", every_s=0.02)


def processes_of(folder: Path) -> list[psutil.Process]:
    """The living processes whose command line holds the path of `folder`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(str(folder) in argument for argument in process.cmdline()):
                found.append(process)
    return found


def nobody_is_left(folder: Path, *, within_s: float = 3.0) -> None:
    """Fails where a process of `folder` outlives this by more than so long."""
    wait_for(lambda: not processes_of(folder), f"the end of all in {folder}", within_s=within_s, every_s=0.05)


@contextmanager
def swept(folder: Path) -> Iterator[None]:
    """Whatever a failed test has left at work in `folder` is ended afterwards."""
    try:
        yield
    finally:
        for process in processes_of(folder):
            with suppress(psutil.Error):
                process.kill()
        for command in list(started):
            let_go_of(command)


def marked_ns(run: Path, rank: int = 0) -> list[int]:
    """The boundaries in the marks as they lie in the file, by the moment of submission: a witness of its own."""
    try:
        data = (run / f"marks-{rank}.bin").read_bytes()
    except FileNotFoundError:
        return []
    submits = [submit for submit, _ in struct.iter_unpack("<qq", data)]
    return submits[: submits.index(0)] if 0 in submits else submits


class Row(NamedTuple):
    """A row of a steps.csv, read by hand."""

    step: int
    stage: str
    start_ns: int
    submit_ns: int
    end_ns: int | None


def rows_of(run: Path, rank: int = 0) -> list[Row]:
    """The rows of a rank's steps.csv."""
    header, *lines = (run / f"steps-{rank}.csv").read_text("ascii").splitlines()
    assert header == "step,stage,start_ns,submit_ns,end_ns"
    fields = [line.split(",") for line in lines]
    return [Row(int(a), b, int(c), int(d), int(e) if e else None) for a, b, c, d, e in fields]


def record_of(run: Path) -> dict[str, Any]:
    """`run.json` as it stands."""
    record: dict[str, Any] = json.loads((run / "run.json").read_text("utf-8"))
    return record


# setsid makes the slave of the pty, once opened, the terminal that controls the command, so that a typed Ctrl-C
# reaches its whole foreground group as from a keyboard.
ON_TERMINAL = """
import os, sys
os.setsid()
terminal = os.open(sys.argv[1], os.O_RDWR)
for fd in (0, 1, 2):
    os.dup2(terminal, fd)
os.execv(sys.argv[2], sys.argv[2:])
"""
CTRL_C = b"\x03"


class Terminal:
    """A command on a terminal of its own: what it writes there, and when."""

    def __init__(self, *arguments: str | Path, columns: int = 100) -> None:
        self.chunks: list[tuple[float, bytes]] = []
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        wrapped = [sys.executable, "-c", ON_TERMINAL, os.ttyname(slave), *POWERBENCH, *map(str, arguments)]
        self.process = subprocess.Popen(wrapped, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    @property
    def written(self) -> bytes:
        """All that was written so far."""
        return b"".join(chunk for _, chunk in self.chunks)

    def type(self, keys: bytes) -> None:
        """Type `keys`."""
        os.write(self._master, keys)

    def read(self, *, until: Callable[[], object] = lambda: None, within_s: float = PATIENCE_S) -> None:
        """Read until `until` is true or the command has closed the terminal; fails where neither comes."""
        give_up_s = time.monotonic() + within_s
        while not until():
            assert time.monotonic() < give_up_s, f"still at it after {within_s:g} s: {self.written!r}"
            if not select.select([self._master], [], [], 0.02)[0]:
                continue
            try:
                chunk = os.read(self._master, 65536)
            except OSError:  # Linux: EIO where the last one has closed the other side
                return
            if not chunk:
                return
            self.chunks.append((time.monotonic(), chunk))

    def status(self, *, within_s: float = PATIENCE_S) -> int:
        """The exit status, all output read."""
        self.read(within_s=within_s)
        return self.process.wait(timeout=within_s)


def told(done: Done) -> str:
    """The one line in which the command says what went wrong; fails where there is another, or a traceback."""
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("powerbench: ")]
    assert len(said) == 1, done.stderr
    return said[0].removeprefix("powerbench: ")


def kill(process: psutil.Process | subprocess.Popen[str]) -> int:
    """SIGKILL; the clock right before (ns)."""
    now_ns = time.monotonic_ns()
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    return now_ns


class Lease:
    """Holds up whoever opens a file next, in the middle of `open`, until let go (fcntl(2), "Leases"; Linux only).

    A race that is hard to hit becomes a place to stop at. The file must be open nowhere else.
    """

    def __init__(self, path: Path) -> None:
        self._before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # the kernel's word that someone waits
        self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            self.let_go()
            pytest.skip(f"no lease on {path}: {error.strerror}")

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()

    def is_waited_for(self) -> bool:
        """Whether someone stands in `open`."""
        return self._fd is not None and fcntl.fcntl(self._fd, fcntl.F_GETLEASE) != fcntl.F_WRLCK

    def let_go(self) -> None:
        """Let them pass."""
        if self._fd is not None:
            os.close(self._fd)  # the lease goes with the last descriptor
            self._fd = None
            signal.signal(signal.SIGIO, self._before)
