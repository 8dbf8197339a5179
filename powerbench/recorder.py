"""The story of a recording of power: open the meters, watch until it is over, write down how; no step is made."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from types import FrameType
from typing import NamedTuple

import msgspec

from powerbench.bounds import Suspended, first_record
from powerbench.duties import Duty, Message, signals_to
from powerbench.environment import boot_id
from powerbench.errors import PowerbenchError
from powerbench.gauges import MachineGauges
from powerbench.keeper import SOCKET_VARIABLE, terminal_is_ours
from powerbench.launch import kept_awake
from powerbench.metering import Metering, Telemetry
from powerbench.power import SOURCES, Source
from powerbench.power.kept import Keeper, our_keeper
from powerbench.records import RailRecord, Reading, RunRecord, Status, Window
from powerbench.rundir import RunDir, create_recording_dir
from powerbench.rundir.live import AlreadyLive, Live, Publisher, moved_sensors
from powerbench.rundir.load import Run, load_run

GAUGE_PERIOD_S = 1.0
ANNOUNCE_PERIOD_S = 1.0
HEALTH_PERIOD_S = 0.5
# Handed on to the command; those that are typed at a terminal reach all of its foreground.
TYPED = (signal.SIGINT, signal.SIGQUIT)
HANDED_ON = (*TYPED, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


# As a shell has it.
CANNOT_EXECUTE = 126


class CannotExecute(Exception):
    """The system refuses to run the command."""


class Watched(NamedTuple):
    """The moment as the meters have it: `rails` by name, their last readings, and the last gauges and words."""

    elapsed_s: float
    rails: Mapping[str, RailRecord]
    latest: Mapping[str, Reading]
    gauges: Mapping[str, float]
    words: Mapping[str, str]


class Ended(NamedTuple):
    """How a recording ended, and why if not as it should."""

    status: Status
    reason: str | None = None


def record_power(
    names: Sequence[str],
    *,
    parent: Path,
    unmetered: Mapping[str, str],
    command: Sequence[str] | None = None,
    command_stdout: int | None = None,
    seconds: float | None = None,
    announce_at: Path | None = None,
    on_start: Callable[[RunDir], object] = lambda rundir: None,
    on_watch: Callable[[Watched], object] = lambda watched: None,
    watch_period_s: float = 0.5,
    say: Callable[[str], object] = lambda sentence: None,
    sources: Mapping[str, Source] = SOURCES,
    keeper: Callable[[], Keeper | None] = our_keeper,
) -> Run:
    """Record the sources `names` in a new directory below `parent`: while `command` runs, or for `seconds`, or until
    Ctrl-C; the recording as it then lies on disk.

    `announce_at` is where runs may find it. Raises PowerbenchError where it cannot be written; what was recorded stays.
    """
    rundir = create_recording_dir(parent, command)
    named = None if command is None else list(command)
    record = first_record(rundir.path.name, command=named, unmetered=dict(unmetered), ranks=0)
    try:
        rundir.write_record(record)
        rundir.link_latest()
        on_start(rundir)
        with Recording(rundir, record, sources=sources, keeper=keeper(), say=say) as recording:
            recording.watch(on_watch, watch_period_s)
            ended = recording.attend(names, seconds, announce_at, command, command_stdout)
            rundir.write_record(recording.last_record(ended))
    except OSError as error:
        raise PowerbenchError(
            f"Cannot go on recording in {rundir.path}: {error.strerror}. What was recorded so far is kept there."
        ) from error
    return load_run(rundir.path)


class Recording:
    """Meters at work, and all that is written down of them."""

    def __init__(
        self,
        rundir: RunDir,
        record: RunRecord,
        *,
        sources: Mapping[str, Source],
        keeper: Keeper | None,
        say: Callable[[str], object],
    ) -> None:
        self._rundir = rundir
        self._record = record
        self._sources = sources
        self._keeper = keeper
        self._say = say
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._duties: list[Duty] = []
        self._interrupts = 0
        self._broken: str | None = None
        self._start_ns = time.monotonic_ns()
        self._suspended = Suspended()

    def __enter__(self) -> Recording:
        with ExitStack() as stack:
            self._telemetry = Telemetry(self._rundir, MachineGauges())
            stack.callback(self._telemetry.close)
            self._metering = Metering(self._rundir, self._telemetry, self._sources)
            stack.callback(self._metering.close)
            stack.enter_context(signals_to(self._inbox))
            stack.enter_context(kept_awake())
            self._duties = [Duty(GAUGE_PERIOD_S, self._telemetry.sample), Duty(HEALTH_PERIOD_S, self._look_for_trouble)]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def watch(self, on_watch: Callable[[Watched], object], period_s: float) -> None:
        """Show the moment once in so long, from the first readings on."""
        self._on_watch, self._watch_period_s = on_watch, period_s

    def attend(
        self,
        names: Sequence[str],
        seconds: float | None,
        announce_at: Path | None,
        command: Sequence[str] | None,
        command_stdout: int | None,
    ) -> Ended:
        """Meters, announcement, the command or the time, and a little longer: how it ended."""
        self._open(names)
        if not self._record.rails or self._interrupts:
            return self._without_a_start()
        with self._announced(announce_at):
            self._start_ns = time.monotonic_ns()
            self._begin_window()
            self._duties.append(Duty(self._watch_period_s, lambda: self._on_watch(self._watched())))
            if command is None:
                self._serve(math.inf if seconds is None else time.monotonic() + seconds)
            else:
                self._run(command, command_stdout)
            window = Window(self._start_ns, time.monotonic_ns())
            self._record = msgspec.structs.replace(self._record, windows={"measured": window})
            ended = self._ending(seconds)
            # Two periods of the slowest meter more: its readings pass the end. Asked twice, not even that.
            self._pause(2 * self._metering.slowest_period_s)
        self._metering.close()
        return ended

    def last_record(self, ended: Ended) -> RunRecord:
        """The record of the ended recording."""
        return msgspec.structs.replace(
            self._record,
            status=ended.status,
            reason=ended.reason,
            clock=self._suspended.ended(self._record.clock),
            rails=self._metering.rails(),
            notes=self._metering.notes(),
        )

    def _open(self, names: Sequence[str]) -> None:
        self._metering.start(names, self._record.unmetered, pause=self._pause)
        self._record = msgspec.structs.replace(
            self._record,
            rails=self._metering.rails(),
            unmetered=self._metering.unmetered,
            tried=self._metering.tried,
        )
        self._rundir.write_record(self._record)  # of a recording that is killed, its rails are known

    def _begin_window(self) -> None:
        """Of a recording that is read while it runs, or was killed, the beginning is known; its curves have the end."""
        window = Window(self._start_ns, self._start_ns)
        self._record = msgspec.structs.replace(self._record, windows={"measured": window})
        self._rundir.write_record(self._record)

    def _without_a_start(self) -> Ended:
        if self._interrupts:
            return Ended("interrupted", self._broken or "stopped before the first reading")
        reasons = "; ".join(f"{name}: {self._metering.unmetered[name]}" for name in self._metering.tried)
        return Ended("unavailable", f"no meter gave a reading ({reasons})")

    @contextmanager
    def _announced(self, path: Path | None) -> Iterator[None]:
        """While inside, runs of this user find the recording."""
        publisher = None if path is None else self._publisher(path)
        if publisher is None:
            yield
            return
        duty = Duty(ANNOUNCE_PERIOD_S, lambda: publisher.say(self._announcement()))
        duty.do_if_due()
        self._duties.append(duty)
        try:
            yield
        finally:
            self._duties.remove(duty)
            publisher.close()

    def _publisher(self, path: Path) -> Publisher | None:
        try:
            return Publisher(path)
        except AlreadyLive as error:
            self._say(str(error))
        except OSError as error:
            self._say(f"Runs cannot find this recording by themselves: {path} cannot be written ({error.strerror}).")
        return None

    def _announcement(self) -> Live:
        rails = self._metering.rails()
        run = str(self._rundir.path.resolve())
        return Live(pid=os.getpid(), boot_id=boot_id(), run=run, rails=rails, moved=moved_sensors())

    def _watched(self) -> Watched:
        return Watched(
            elapsed_s=(time.monotonic_ns() - self._start_ns) / 1e9,
            rails=self._metering.rails(),
            latest=dict(self._metering.latest),
            gauges=dict(self._telemetry.latest),  # other threads add to them
            words=dict(self._telemetry.latest_words),
        )

    def _run(self, command: Sequence[str], stdout: int | None) -> None:
        """Run the command to its end, whatever becomes of the meters."""
        variables = {name: value for name, value in os.environ.items() if name != SOCKET_VARIABLE}
        process = CommandProcess(command, stdout, variables, lambda: self._inbox.put("workers ended"))
        try:
            with process:
                while process.exit_status is None:
                    self._serve(math.inf)
        except CannotExecute as error:
            self._broken = str(error)
            process.exit_status = CANNOT_EXECUTE
        self._record = msgspec.structs.replace(self._record, exit_status=process.exit_status)

    def _ending(self, seconds: float | None) -> Ended:
        if self._broken is not None:
            return Ended("failed", self._broken)
        if self._interrupts and seconds is not None:
            return Ended("interrupted", "stopped by Ctrl-C or a signal")
        return Ended("complete")

    def _look_for_trouble(self) -> None:
        if self._broken is not None:
            return
        if self._keeper is not None and self._keeper.is_gone():
            self._broken = "the keeper, which runs as root and holds the meters, is gone"
        elif self._record.rails and (lost := self._metering.lost()) is not None:
            self._broken = f"no meter is left ({lost})"
        if self._broken is not None:
            self._inbox.put("interrupt")

    def _pause(self, seconds: float) -> bool:
        """Do the duties for so long; whether the recording is to end."""
        before = self._interrupts
        self._serve(time.monotonic() + seconds)
        return self._interrupts > before

    def _serve(self, until_s: float) -> None:
        """Do the duties until then, an interrupt, or the command's end."""
        while (now_s := time.monotonic()) < until_s:
            due_s = min(until_s, *(duty.due_s for duty in self._duties))
            try:
                message = self._inbox.get(timeout=max(0.0, due_s - now_s))
            except Empty:
                for duty in list(self._duties):
                    duty.do_if_due()
            else:
                self._interrupts += message == "interrupt"
                return


class CommandProcess:
    """A command of the user's, in our own process group: while it runs, what would end us is for it to obey."""

    def __init__(
        self,
        command: Sequence[str],
        stdout: int | None,
        variables: Mapping[str, str],
        when_ended: Callable[[], object],
    ) -> None:
        self.exit_status: int | None = None
        self._command, self._stdout, self._variables = command, stdout, variables
        self._when_ended = when_ended

    def __enter__(self) -> CommandProcess:
        heard = [number for number in HANDED_ON if signal.getsignal(number) is not signal.SIG_IGN]
        self._early: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._before = {number: signal.signal(number, self._hand_on) for number in heard}
        try:
            self._process = subprocess.Popen(self._command, stdout=self._stdout, env=self._variables)
        except OSError as error:
            self.__exit__()
            raise CannotExecute(
                f"{self._command[0]} cannot be executed ({error.strerror}); is it a program?"
            ) from error
        except BaseException:
            self.__exit__()
            raise
        for number in self._early:
            self._process.send_signal(number)
        Thread(target=self._wait, args=(self._process,), name="wait-command", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        self.exit_status = process.wait()
        self._when_ended()

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        if number in TYPED and terminal_is_ours():
            return  # it has reached the command by itself
        if self._process is None:
            self._early.append(number)
        else:
            self._process.send_signal(number)
