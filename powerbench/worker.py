"""The measured process: builds the workload, steps, marks each boundary, and says what happened."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import psutil

from powerbench.agreement import AgreedSteps, Steps
from powerbench.devices import DEVICES, Device, Stopwatch, Timer
from powerbench.endings import in_one_line, is_out_of_memory
from powerbench.environment import describe_software
from powerbench.errors import PowerbenchError, Unavailable
from powerbench.loading import collections_put_off
from powerbench.moments import be_looked_at, is_looked_at
from powerbench.ranks import Ranks, is_peer_loss, joined, peer_loss_in_words, rank_of, speak_into
from powerbench.records import Cell, RunRecord, phases_of
from powerbench.reporter import Reporter
from powerbench.rundir import RunDir
from powerbench.rundir.lines import EventWriter
from powerbench.rundir.load import read_record
from powerbench.rundir.marks import MarksWriter
from powerbench.rundir.phases import new_phases_file
from powerbench.rundir.work import new_work_file
from powerbench.torch_profiler import record_operators
from powerbench.units import NS_PER_S
from powerbench.workloads import workload_of
from powerbench.workloads.laps import Laps
from powerbench.workloads.share import WHOLE, Share, watched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from powerbench.workloads import Step

# Room for steps that a minimum duration adds: no step of ours is shorter than 0.1 ms, and 64 MB of marks is enough.
SHORTEST_STEP_S = 1e-4
MOST_TIMED_STEPS = 4_000_000


class Measured(NamedTuple):
    """How the measuring ended, why where not well, and the step while it can go on; None where it cannot."""

    outcome: str
    message: str | None = None
    step: Step | None = None


def main(arguments: list[str]) -> int:
    """`python -m powerbench.worker RUN_DIR [RANK]`: measure the cell in RUN_DIR/run.json; returns the exit status.

    Without RANK it is one of several, which torch's launcher has started and numbered (`RANK` in the environment).
    """
    rundir, rank = RunDir(Path(arguments[0])), rank_of(arguments, os.environ)
    Thread(target=end_with_supervisor, name="supervisor", daemon=True).start()
    events = EventWriter(rundir.events(rank))
    record = read_record(rundir)
    if record.ranks > 1:
        speak_into(rundir.log(rank))
        started = psutil.Process().create_time()
        events.write("started", time_ns=time.monotonic_ns(), pid=os.getpid(), create_time_s=started)
    device = DEVICES[record.built_in.device]
    facts: dict[str, Any] = {}
    try:
        measured = measure(record, device, rundir, rank, events)
    except Unavailable as error:
        measured = Measured("unavailable", str(error))
    except PowerbenchError as error:
        measured = Measured("failed", str(error))
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError, and mps has a plain one
        if record.ranks > 1 and is_peer_loss(error):
            measured, facts = Measured("failed", peer_loss_in_words(in_one_line(error))), {"peer": True}
        elif is_out_of_memory(error):
            measured = Measured("oom", in_one_line(error))
        else:
            raise
    peak, covers = device.peak_memory()
    events.write(
        "end",
        time_ns=time.monotonic_ns(),
        outcome=measured.outcome,
        message=measured.message,
        peak_memory_bytes=peak,
        peak_memory_of=covers,
        **facts,
    )
    if "peer" in facts:
        os._exit(1)  # all is written; gloo, taken down without its peer, aborts the process now and then
    if record.built_in.torch_profiler and measured.step is not None:
        go_on_under_profiler(record, measured.step, device, rundir, events)
    return 0 if measured.outcome in ("complete", "interrupted") else 1


def end_with_supervisor() -> None:
    """Wait for the supervisor's end of our stdin to close, which happens when it ends however it ends; then end."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    group = os.getpgrp()
    os.kill(-group if group == os.getpid() else os.getpid(), signal.SIGKILL)


def go_on_under_profiler(record: RunRecord, step: Step, device: Device, rundir: RunDir, events: EventWriter) -> None:
    """A few steps more, beyond all for which there are marks."""
    with stop_on_sigint() as stopped:
        first = most_steps(record.built_in, record.tail_s)
        record_operators(step, first=first, device=device, rundir=rundir, events=events, stopped=stopped)


def measure(record: RunRecord, device: Device, rundir: RunDir, rank: int, events: EventWriter) -> Measured:
    """Build the cell and step through it to the end, or until SIGINT interrupts it."""
    with collections_put_off():  # torch comes in here
        complaint = device.confirm()
        if complaint is not None:
            raise Unavailable(complaint)
        software = describe_software() | set_threads(record.built_in)
    with joined(record.built_in, device, rank) as ranks:
        record = ranks.as_long_on_all(record)
        cell = record.built_in
        watch = new_stopwatch(record, device, rundir, rank)
        share = WHOLE if watch is None else Share(rank, record.ranks, watch.arrive, watch.resume)
        step, what = workload_of(cell.model).build(cell, device, new_laps(record, device, rundir, rank), share)
        marks = MarksWriter(rundir.marks(rank), capacity=most_steps(cell, record.tail_s))
        timer = device.timer(marks.view, sync_every=cell.sync_every or 0)
        described = {"device": msgspec.to_builtins(device.describe()), "workload": msgspec.to_builtins(what)}
        events.write("ready", time_ns=time.monotonic_ns(), **described, environment=software | {**device.settings()})
        if is_looked_at(cell, rank):
            be_looked_at(rundir, events, rank=rank, supervisor=record.supervisor.pid, rate_hz=cell.py_spy_rate)
        return take_steps(record, device, events, step=step, timer=timer, ranks=ranks, watch=watch)


def take_steps(
    record: RunRecord,
    device: Device,
    events: EventWriter,
    *,
    step: Step,
    timer: Timer,
    ranks: Ranks,
    watch: Stopwatch | None,
) -> Measured:
    """Step through the windows of the cell, as far as SIGINT lets us."""
    cell = record.built_in
    with stop_on_sigint() as asked_to_stop, Reporter(events, device, watch) as reporter:
        # Of several ranks none stops by itself: the others would wait for it.
        stopped = asked_to_stop if watch is None else []
        loop: Steps = Loop(step if watch is None else watched(step, watch), timer, reporter, stopped)
        if watch is not None:
            loop = AgreedSteps(loop, largest=ranks.largest, asked_to_stop=asked_to_stop, stopped=stopped)
        ranks.meet()
        device.synchronize()
        try:
            graphs = compiled_graphs if cell.compile else lambda: 0
            run_windows(cell, record.tail_s, loop, events, graphs=graphs)
        finally:  # also where a step ran out of memory: the edges before it can be read
            timer.finish()
    if timer.anchor_error_ns is not None:
        events.write("anchor", time_ns=time.monotonic_ns(), error_ns=timer.anchor_error_ns)
    return Measured("interrupted") if stopped else Measured("complete", step=step)


def new_stopwatch(record: RunRecord, device: Device, rundir: RunDir, rank: int) -> Stopwatch | None:
    """What tells this rank's own work from its waiting for the others; None where there are none."""
    if record.ranks == 1:
        return None
    return device.stopwatch(new_work_file(rundir.work_marks(rank), steps=most_steps(record.built_in, record.tail_s)))


def new_laps(record: RunRecord, device: Device, rundir: RunDir, rank: int) -> Laps | None:
    """Room for the stamps of phases within steps; None where the cell asks for none."""
    cell = record.built_in
    names = phases_of(cell)
    if not names:
        return None
    view = new_phases_file(rundir.phase_marks(rank), names, steps=most_steps(cell, record.tail_s))
    # Reading alone is the processor's work, and waiting for the device would stop what goes on beside it.
    return Laps(view, width=len(names), synchronize=device.synchronize) if cell.phases else Laps(view, width=1)


def set_threads(cell: Cell) -> dict[str, Any]:
    """Give torch the threads that the cell asks for, if the cell needs torch; what it then says of itself.

    Where ranks share a machine, its processor is divided among them, unless a number for each is given.
    """
    if cell.model == "sleep":
        return {}
    import torch

    if cell.threads is not None:
        torch.set_num_threads(cell.threads)
    elif cell.ranks > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // cell.ranks))
    return {
        "torch": str(torch.__version__),
        "torch_git": torch.version.git_version,
        "threads": torch.get_num_threads(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }


def compiled_graphs() -> int:
    """How many graphs torch.compile has made so far in this process."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def most_steps(cell: Cell, tail_s: float) -> int:
    """Room for marks: all steps asked for, and as many as the durations asked for can hold."""
    timed = math.ceil((cell.min_seconds or 0) / SHORTEST_STEP_S)
    return cell.warmup + cell.steps + min(timed, MOST_TIMED_STEPS) + tail_steps(tail_s)


def tail_steps(tail_s: float) -> int:
    """Room for the tail: it is kept free for it, however short the steps are."""
    return min(math.ceil(tail_s / SHORTEST_STEP_S), MOST_TIMED_STEPS)


class Loop:
    """The step loop of one run: the same code for warm-up, measured steps and tail."""

    def __init__(self, step: Step, timer: Timer, report: Callable[[int], int], stopped: list[int]) -> None:
        self.timer = timer
        self._step = step
        self._report = report
        self._stopped = stopped
        self._report_ns = 0

    def run(self, first: int, *, least: int, until_ns: int = 0, most: int = 0) -> int:
        """Step from `first` to `least`, and on until the clock reads `until_ns` or step `most`; the next step.

        Nothing but steps and marks, and at most once a second, right behind a mark, the report.
        """
        step, mark, stopped, report_ns = self._step, self.timer.mark, self._stopped, self._report_ns
        index, now = first, 0
        while (index < least or (now < until_ns and index < most)) and not stopped:
            step(index)
            now = mark()
            index += 1
            if now >= report_ns:
                self.timer.settle()
                report_ns = self._report(now)
        self._report_ns = report_ns
        return index


def run_windows(
    cell: Cell, tail_s: float, loop: Steps, events: EventWriter, *, graphs: Callable[[], int] = lambda: 0
) -> None:
    """Warm-up, measured steps, tail: one unbroken row of steps, with a fence where one ends and the next begins.

    `graphs` counts what torch.compile has made so far: what it makes in the measured steps is in their time.
    """
    timer, most = loop.timer, most_steps(cell, tail_s)
    start_ns = timer.mark()
    timer.fence()
    first = loop.run(0, least=cell.warmup)
    if cell.warmup:
        start_ns = timer.fence()
    compiled = graphs()
    until_ns = start_ns + round(cell.min_seconds * NS_PER_S) if cell.min_seconds else 0
    last = loop.run(first, least=first + cell.steps, until_ns=until_ns, most=most - tail_steps(tail_s))
    end_ns = timer.fence()
    recompiled = graphs() - compiled
    events.write("window", time_ns=time.monotonic_ns(), first_step=first, steps=last - first, recompiled=recompiled)
    if tail_s:
        loop.run(last, least=last, until_ns=end_ns + round(tail_s * NS_PER_S), most=most)
        timer.fence()


@contextmanager
def stop_on_sigint() -> Iterator[list[int]]:
    """A list that is empty until SIGINT arrives: the loop then ends at a step's boundary, so that its edge is true."""
    stopped: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        stopped.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
