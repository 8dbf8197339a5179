"""What a reader must know to read the figures of a run right: of its steps, and of the machine that took them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from powerbench.analysis.counted import distinct_devices, used_devices
from powerbench.analysis.hosts import Host
from powerbench.analysis.latencies import from_submissions, lasted_ns
from powerbench.environment import SLOW_MODES
from powerbench.records import RunRecord, StepTrace
from powerbench.rundir.joining import said_by
from powerbench.units import NS_PER_MS, counted, duration, seconds_from_ns, significant

TABLE_STEPS = 100
TRACE_STEPS = 100
SLOW_FIRST = 1.5
FEWEST_SUBMITS = 3
# Quartz oscillators agree to some ten parts in a million; a hundred times that is something else.
NOTABLE_CLOCK_ERROR = 1e-3
BUSY_LOAD_PER_CORE = 0.5


def unsynchronized(record: RunRecord, steps: StepTrace) -> list[str]:
    """What a script that never waits for the device would have printed, where the run was one (`sync_every` 0).

    A timer with events sees every step all the same, and has edges: then there is nothing to say.
    """
    if record.the_cell.sync_every != 0 or len(steps.spans("step")) != 1:
        return []
    first, *later = (seconds * 1000 for seconds in from_submissions(steps).seconds())
    if len(later) + 1 < FEWEST_SUBMITS:
        return []
    return [
        f"Unsynchronized: a script that never waits for the device sees {significant(first)} ms for the first step and "
        f"{significant(median(later))} ms for later ones (median), which is when they were submitted and not what they "
        "took."
    ]


def notes_on_steps(record: RunRecord, spans: Sequence[tuple[int, int, int]], tflop_per_s: float | None) -> list[str]:
    """What a reader must know of the steps to read the figures right."""
    found = [
        _extrapolated(spans),
        _paused(spans),
        _few_for_a_trace(record, spans),
        _coarse_edges(record, spans),
        _too_short(record, spans),
        _slow_first(record, spans),
        _two_clocks(record, spans),
        _instrumented(record),
        _impossible(record, tflop_per_s),
    ]
    return [note for note in found if note is not None]


def notes_on_machines(record: RunRecord, hosts: Sequence[Host]) -> list[str]:
    """The notes on the machine of the run; on each of several."""
    return said_by({host.node: notes_on_machine(host.record) for host in hosts}) if hosts else notes_on_machine(record)


def notes_on_machine(record: RunRecord) -> list[str]:
    """What a reader must know of the machine to read any figure of it right."""
    found = (_busy_machine(record), _on_battery(record), _slow_mode(record), _virtual(record))
    return [note for note in found if note is not None]


def _extrapolated(spans: Sequence[tuple[int, int, int]]) -> str | None:
    steps = sum(count for _, _, count in spans)
    return f"The time for {TABLE_STEPS} steps is extrapolated from {steps}." if 0 < steps < TABLE_STEPS else None


def _paused(spans: Sequence[tuple[int, int, int]]) -> str | None:
    gaps = [start - end for (_, end, _), (start, _, _) in pairwise(spans) if start > end]
    if not gaps:
        return None
    pauses, lasted = counted(len(gaps), "pause"), duration(seconds_from_ns(sum(gaps)))
    return f"Between the steps the loop made {pauses}, {lasted} in all, which no figure of the steps contains."


def _few_for_a_trace(record: RunRecord, spans: Sequence[tuple[int, int, int]]) -> str | None:
    steps = sum(count for _, _, count in spans)
    if record.the_cell.trace and steps < TRACE_STEPS:
        how = "" if record.loop else " with --steps"
        return (
            f"{counted(steps, 'step')} {'is' if steps == 1 else 'are'} few for a slowdown trace: "
            f"only large changes show. Measure {TRACE_STEPS} or more{how}."
        )
    return None


def _coarse_edges(record: RunRecord, spans: Sequence[tuple[int, int, int]]) -> str | None:
    coarsest = max((count for _, _, count in spans), default=1)
    if coarsest == 1:
        return None
    if len(spans) == 1:
        return "The device was waited for at both ends only, so there is a mean latency and nothing else."
    return (
        f"Latencies are means of blocks of up to {coarsest} steps: the device was waited for at each block's end only."
    )


def _too_short(record: RunRecord, spans: Sequence[tuple[int, int, int]]) -> str | None:
    wanted_s = record.the_cell.min_seconds
    if record.status != "complete" or not wanted_s or not spans:
        return None
    lasted_s = seconds_from_ns(lasted_ns(spans))
    if lasted_s >= wanted_s * (1 - NOTABLE_CLOCK_ERROR):
        return None
    return (
        f"The measured steps lasted {duration(lasted_s)}, not the {duration(wanted_s)} of min_seconds: "
        "there was no room to record more of such short steps. Take a larger batch."
    )


def _slow_first(record: RunRecord, spans: Sequence[tuple[int, int, int]]) -> str | None:
    if len(spans) < 3:
        return None
    each = [(end - start) / count for start, end, count in spans]
    usual = median(each)
    if not usual or each[0] < SLOW_FIRST * usual:
        return None
    warmup = "record(warmup=...)" if record.loop else "--warmup"
    remedy = f"Add steps to {warmup}" if record.the_cell.warmup else f"Leave first steps out with {warmup}"
    first = "step" if spans[0][2] == 1 else f"block of {spans[0][2]} steps"
    return f"The first measured {first} took {significant(each[0] / usual)} times the median. {remedy} to keep it out."


def _busy_machine(record: RunRecord) -> str | None:
    load, cores = record.environment.get("load_1min"), record.environment.get("logical_cores")
    if load is None or not cores or load < BUSY_LOAD_PER_CORE * cores:
        return None
    return (
        f"The machine was busy before the run began (load {load:.1f} on {counted(cores, 'core')}), "
        "if only with the run before it."
    )


def _on_battery(record: RunRecord) -> str | None:
    return "The machine ran on its battery, which may slow it down." if record.environment.get("on_battery") else None


def _slow_mode(record: RunRecord) -> str | None:
    mode = record.environment.get("power_mode")
    return f"The machine ran in its {mode} mode, which slows it down." if mode in SLOW_MODES else None


def _virtual(record: RunRecord) -> str | None:
    if not record.environment.get("virtual_machine"):
        return None
    return "This is a virtual machine: others may use the same cores, and two of its runs may differ for that alone."


def _two_clocks(record: RunRecord, spans: Sequence[tuple[int, int, int]]) -> str | None:
    error_ns = record.device.anchor_error_ns if record.device else None
    window_ns = spans[-1][1] - spans[0][0] if spans else 0
    if error_ns is None or not window_ns:
        return None
    share = error_ns / window_ns
    if abs(share) < NOTABLE_CLOCK_ERROR:
        return None
    return (
        f"The device's own events and the machine's clock differ by {abs(share):.2%} over the run "
        f"({significant(error_ns / NS_PER_MS)} ms): the times may be wrong by as much."
    )


def _impossible(record: RunRecord, tflop_per_s: float | None) -> str | None:
    bound = _plausible(record)
    if bound is None or tflop_per_s is None or tflop_per_s <= bound:
        return None
    device = "this device" if record.ranks == 1 else "these devices together"
    return (
        f"{significant(tflop_per_s)} TFLOP/s is more than {device} can do (at most {significant(bound)}): "
        "the clock did not wait for it, and the times are wrong."
    )


def _plausible(record: RunRecord) -> float | None:
    """The most that the devices can do together, each counted once: ranks of one machine share its processor.

    Where only some of the ranks are here, theirs stand for the others too. None where it is not known of one of them.
    """
    bounds = [device.plausible_tflop_per_s for device in distinct_devices(record)]
    known = [bound for bound in bounds if bound is not None]
    return sum(known) * record.ranks / len(used_devices(record)) if known and len(known) == len(bounds) else None


def _instrumented(record: RunRecord) -> str | None:
    if record.unsampled is not None:
        return f"There are no stacks: {record.unsampled.rstrip('.')}."
    if not record.is_instrumented:
        return None
    lost = record.stacks.lost if record.stacks is not None else None
    told = "" if lost is None else f" And there are no stacks: {lost.rstrip('.')}."
    option = "py_spy" if record.loop else "--py-spy"
    return (
        f"This run was instrumented: py-spy stopped {_looked_at(record)} about {record.the_cell.py_spy_rate} times a "
        f"second to look at it ({option}), so take latency and joules a step from a run without.{told}"
    )


def _looked_at(record: RunRecord) -> str:
    """The process at which py-spy looked."""
    if record.ranks == 1:
        return "the program" if record.loop else "the worker"
    return "rank 0" if record.node is None else "the first rank of each machine"
