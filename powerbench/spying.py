"""py-spy beside the worker: started when its steps are about to begin, over when it is, and what came of it."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Event, Thread
from typing import Any

import msgspec

from powerbench.records import LoopCell, RunRecord, StacksRecord
from powerbench.rundir import RunDir
from powerbench.rundir.lines import LineTail, read_events
from powerbench.rundir.stacks import Unplaced, fold

PROGRAM_VARIABLE = "POWERBENCH_PY_SPY"
# By then the symbols of torch's libraries have been read on any machine; the worker waits no longer (moments.WAIT_S).
ATTACH_S = 55.0
POLL_S = 0.02
# How long py-spy may take, behind the worker's end, to write what it has seen.
WRITING_S = 30.0
LOOKING = b"Sampling process"
REFUSED = ("permission denied", "operation not permitted", "requires root")
SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")
NATIVE_ON = ("x86_64", "aarch64")


# What helps on a Mac. The right that `sudo -v` gives is the terminal's, and does not reach another session.
BY_SUDO = "type `sudo -v` in this terminal and run again, and it is started by sudo without another question"
AS_ROOT = "start the program itself as root (`sudo -E ... python ...`)"


class Spy:
    """py-spy for one run; where none was asked for, nothing. Used as a context, in which it is ended at the latest."""

    def __init__(
        self,
        rundir: RunDir,
        cell: LoopCell,
        *,
        rank: int = 0,
        on_a_mac: str = BY_SUDO,
        variables: Mapping[str, str] = os.environ,
    ) -> None:
        self._rundir = rundir
        self._rate_hz = cell.py_spy_rate
        self._rank = rank
        self._on_a_mac = on_a_mac
        self._variables = variables
        self._native = has_native_stacks()
        self._process: subprocess.Popen[bytes] | None = None
        self._over = Event()
        self._unsampled: str | None = None
        self._stacks: StacksRecord | None = None
        self._thread = Thread(target=self._attend, name="py-spy", daemon=True) if cell.py_spy else None

    def __enter__(self) -> Spy:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._end(within_s=0.0)

    def finish(self) -> None:
        """Wait until py-spy has written what it saw, and fold that. The worker must be gone. Raises OSError."""
        if self._thread is None or self._over.is_set():
            return
        self._over.set()
        self._thread.join()
        self._end(within_s=WRITING_S)
        if self._unsampled is None:
            self._stacks = self._folded()
        for path in (self._rundir.py_spy_trace, self._rundir.py_spy_go, self._rundir.py_spy_log):
            path(self._rank).unlink(missing_ok=True)

    def stop(self) -> None:
        """Let py-spy end although what it looks at goes on."""
        if self._process is not None:
            send(signal.SIGINT, self._process)

    def told(self, record: RunRecord) -> RunRecord:
        """`record` with what came of it; final after `finish`."""
        return msgspec.structs.replace(record, stacks=self._stacks, unsampled=self._unsampled)

    def _attend(self) -> None:
        """Wait for the worker's word, let py-spy look, and tell the worker to go on, whatever came of it."""
        pid = self._awaited_pid()
        self._unsampled = "the run ended before its steps began" if pid is None else self._start(pid)
        self._rundir.py_spy_go(self._rank).touch()

    def _awaited_pid(self) -> int | None:
        tail = LineTail(self._rundir.events(self._rank))
        while not self._over.wait(POLL_S):
            for event in read_events(tail.read()):
                if event["event"] == "awaits_py_spy":
                    return int(event["pid"])
        return None

    def _start(self, pid: int) -> str | None:
        """Start py-spy on that process; why it does not look, or None."""
        program = find_program(self._variables)
        if program is None:
            return "py-spy is not installed beside this Python: install it with `pip install py-spy`, and run again"
        what = (*as_root(program), "record", "--pid", str(pid), "--output", str(self._rundir.py_spy_trace(self._rank)))
        how = ("--format", "chrometrace", "--rate", str(self._rate_hz), "--threads", "--idle", "--full-filenames")
        log = self._rundir.py_spy_log(self._rank)
        try:
            with log.open("wb") as file:
                self._process = subprocess.Popen(
                    [*what, *how, *(["--native"] if self._native else [])],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    process_group=0,  # a Ctrl-C is for us: py-spy ends with the worker
                )
        except OSError as error:
            return f"{program} cannot be started ({error.strerror}): install it anew with `pip install py-spy`"
        return self._why_blind(self._process, log, pid, program)

    def _why_blind(self, process: subprocess.Popen[bytes], log: Path, pid: int, program: Path) -> str | None:
        give_up_s = time.monotonic() + ATTACH_S
        has_ended = False
        while LOOKING not in (said := log.read_bytes()):
            if has_ended:
                return why_not(said.decode("utf-8", errors="replace"), program, on_a_mac=self._on_a_mac)
            has_ended = process.poll() is not None  # then its last words are read once more
            if not has_ended and (time.monotonic() > give_up_s or self._over.wait(POLL_S)):
                self._end(within_s=0.0)
                late = f"py-spy had not begun to look at process {pid} after {ATTACH_S:g} s; run again"
                return "the run ended before its steps began" if self._over.is_set() else late
        return None

    def _end(self, *, within_s: float) -> None:
        """Wait so long for its end, which comes with the worker's; then end it."""
        process = self._process
        if process is None:
            return
        for number, patience_s in ((None, within_s), (signal.SIGINT, min(within_s, 5.0)), (signal.SIGKILL, 5.0)):
            if number is not None:
                send(number, process)
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
                return

    def _folded(self) -> StacksRecord:
        """Fold what py-spy wrote into the file of stacks."""
        sampler = its_name()
        stacks = StacksRecord(rank=self._rank, sampler=sampler, rate_hz=self._rate_hz, native=self._native)
        try:
            folded = fold(self._written(), self._events(), sampler=sampler, rate_hz=self._rate_hz, native=self._native)
        except Unplaced as error:
            return msgspec.structs.replace(stacks, lost=str(error))
        self._rundir.stacks(self._rank).write_bytes(msgspec.json.encode(folded))
        return msgspec.structs.replace(stacks, time_uncertainty_ns=folded.time_uncertainty_ns)

    def _written(self) -> bytes:
        try:
            return self._rundir.py_spy_trace(self._rank).read_bytes()
        except OSError as error:
            log = self._rundir.py_spy_log(self._rank).read_text("utf-8", errors="replace").split("\n")
            said = next((line for line in reversed(log) if line.strip()), "it said nothing")
            raise Unplaced(f"py-spy wrote nothing ({error.strerror}; {said.strip()})") from error

    def _events(self) -> Iterable[dict[str, Any]]:
        return read_events(LineTail(self._rundir.events(self._rank)).read())


def send(number: signal.Signals, process: subprocess.Popen[bytes]) -> None:
    """Send a signal; to root's own, as py-spy is on a Mac, by sudo, which passes it on."""
    try:
        process.send_signal(number)
    except PermissionError:
        by_sudo = ("sudo", "-n", "kill", f"-{int(number)}", str(process.pid))
        subprocess.run(by_sudo, check=False, stdin=subprocess.DEVNULL, capture_output=True)


def has_native_stacks() -> bool:
    """Whether py-spy can see frames of C and C++ here: on Linux, on these processors."""
    return sys.platform == "linux" and platform.machine() in NATIVE_ON


def find_program(variables: Mapping[str, str]) -> Path | None:
    """py-spy as it was installed with this Python, or where the variable says; None where there is none."""
    named = variables.get(PROGRAM_VARIABLE)
    path = Path(named) if named else Path(sysconfig.get_path("scripts")) / "py-spy"
    return path if os.access(path, os.X_OK) else None


def its_name() -> str:
    """`py-spy 0.4.3`; without a version where it was not installed as a package."""
    try:
        return f"py-spy {version('py-spy')}"
    except PackageNotFoundError:
        return "py-spy"


def as_root(program: Path, *, system: str = sys.platform) -> Sequence[str]:
    """How it is started: on a Mac only root may look into another process, and sudo must not ask for a password."""
    return (str(program),) if system != "darwin" or os.geteuid() == 0 else ("sudo", "-n", str(program))


def why_not(
    said: str, program: Path, *, on_a_mac: str = BY_SUDO, system: str = sys.platform, scope: Path = SCOPE
) -> str:
    """Why py-spy did not look, from its last words, and what helps."""
    refused = any(word in said.lower() for word in REFUSED)
    if system == "darwin" and (refused or said.lstrip().startswith("sudo:")):
        return f"on a Mac py-spy needs root ({program}): {on_a_mac}"
    if not refused:
        words = [line.strip() for line in said.splitlines() if line.strip()]
        return f"py-spy ended at once: {(words or ['it said nothing'])[0].removeprefix('Error: ').rstrip('.')}"
    allowed = _scope(scope)
    if allowed == 3:
        return (
            "this kernel lets no process look into another (kernel.yama.ptrace_scope is 3), and only booting it with "
            "another setting changes that"
        )
    if allowed is not None and allowed > 0:
        return (
            f"this kernel does not let py-spy look into the worker (kernel.yama.ptrace_scope is {allowed}): type "
            "`sudo sysctl kernel.yama.ptrace_scope=0`, which holds until the next boot, and run again"
        )
    return (
        "py-spy may not look into the worker: in a container, start that with `--cap-add SYS_PTRACE`; elsewhere run as "
        "the same user, or as root"
    )


def _scope(path: Path) -> int | None:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None
