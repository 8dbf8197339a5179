"""A run in figures: what a step costs, computed from its edges each time it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median

from msgspec import Struct

from powerbench.analysis.checked import Explained
from powerbench.analysis.energy import Energy, find_energy
from powerbench.analysis.latencies import from_submissions, lasted_ns
from powerbench.analysis.phases import Phase, find_phases
from powerbench.analysis.pool import flop_per_step, tokens_per_step
from powerbench.environment import SLOW_MODES
from powerbench.records import EnergyCurve, PhaseSpan, RunRecord, Status, StepTrace
from powerbench.units import NS_PER_MS, counted, duration, seconds_from_ns, significant

TABLE_STEPS = 100
TRACE_STEPS = 100
SLOW_FIRST = 1.5
FEWEST_SUBMITS = 3
# Quartz oscillators agree to some ten parts in a million; a hundred times that is something else.
NOTABLE_CLOCK_ERROR = 1e-3
BUSY_LOAD_PER_CORE = 0.5


class Latency(Struct, frozen=True, kw_only=True):
    """Milliseconds a step. All but the mean are None where edges were taken at both ends only."""

    mean: float
    median: float | None = None
    p5: float | None = None
    p95: float | None = None
    min: float | None = None
    max: float | None = None


class Summary(Struct, frozen=True, kw_only=True):
    """The object that `--json` prints, keys in its order. None: not recorded, or without meaning."""

    run: str
    status: Status
    reason: str | None
    device: str | None
    timer: str | None
    model: str | None
    mode: str | None
    batch_size: int | None
    sequence_length: int | None
    dtype: str | None
    steps: int | None
    warmup_steps: int | None
    wall_s: float | None
    wall_s_100_steps: float | None
    latency_ms: Latency | None
    samples_per_s: float | None
    tokens_per_s: float | None
    tflop_per_s: float | None
    peak_memory_bytes: int | None
    energy: Energy | None
    energy_reason: str | None
    slowdown: Explained | None
    phases: dict[str, Phase] | None
    notes: list[str]


class RecordingSummary(Summary, frozen=True, kw_only=True):
    """The same of a recording of power: what is told of steps is None. `exit_status` is negative for a signal."""

    command: list[str] | None
    exit_status: int | None


def summarize(
    run: str,
    record: RunRecord,
    steps: StepTrace,
    curves: Mapping[str, EnergyCurve] | None = None,
    phases: Sequence[PhaseSpan] = (),
    *,
    slowdown: Explained | None = None,
) -> Summary:
    """The figures of a run, named by the path `run`; `curves` are its joules by rail, `phases` those of its steps.

    `slowdown` is its verdict, where somebody has asked for one: it costs more than all the other figures, and a table
    of many runs has no room for it.
    """
    if record.cell is None:
        return _of_recording(run, record, steps, curves or {})
    cell = record.cell
    spans = steps.spans("step")
    done = sum(count for _, _, count in spans)
    wall_s = seconds_from_ns(lasted_ns(spans)) if spans else None
    rate = done / wall_s if wall_s else None
    first = steps.stage.index("step") if spans else 0
    flop, tokens = flop_per_step(record, first, done), tokens_per_step(record, first, done)
    samples = record.workload.samples_per_step if record.workload else None
    tflop_per_s = rate * flop / 1e12 if rate and flop is not None else None
    found = find_energy(record, steps, curves or {})
    phased = find_phases(record, steps, phases, curves or {} if found.energy is not None else {})
    return Summary(
        run=run,
        status=record.status,
        reason=record.reason,
        device=cell.device,
        timer=record.device.timer if record.device else None,
        model=cell.model,
        mode=cell.mode,
        batch_size=cell.batch_size,
        sequence_length=cell.sequence_length,
        dtype=cell.dtype,
        steps=done,
        warmup_steps=steps.stage.count("warmup"),
        wall_s=wall_s,
        wall_s_100_steps=TABLE_STEPS / rate if rate else None,
        latency_ms=latency(spans),
        samples_per_s=rate * samples if rate and samples is not None else None,
        tokens_per_s=rate * tokens if rate and tokens is not None else None,
        tflop_per_s=tflop_per_s,
        peak_memory_bytes=record.peak_memory_bytes,
        energy=found.energy,
        energy_reason=found.reason,
        slowdown=slowdown,
        phases=phased.phases,
        notes=[
            *record.notes,
            *found.notes,
            *phased.notes,
            *notes(record, spans, tflop_per_s),
            *unsynchronized(record, steps),
        ],
    )


def _of_recording(run: str, record: RunRecord, steps: StepTrace, curves: Mapping[str, EnergyCurve]) -> RecordingSummary:
    window = record.windows.get("measured")
    found = find_energy(record, steps, curves)
    return RecordingSummary(
        run=run,
        status=record.status,
        reason=record.reason,
        device=None,
        timer=None,
        model=None,
        mode=None,
        batch_size=None,
        sequence_length=None,
        dtype=None,
        steps=None,
        warmup_steps=None,
        wall_s=None if window is None else seconds_from_ns(window.end_ns - window.start_ns),
        wall_s_100_steps=None,
        latency_ms=None,
        samples_per_s=None,
        tokens_per_s=None,
        tflop_per_s=None,
        peak_memory_bytes=None,
        energy=found.energy,
        energy_reason=found.reason,
        slowdown=None,
        phases=None,
        notes=[*record.notes, *found.notes, *notes_on_machine(record)],
        command=record.command,
        exit_status=record.exit_status,
    )


def latency(spans: Sequence[tuple[int, int, int]]) -> Latency | None:
    """Milliseconds a step over stretches (start_ns, end_ns, steps); percentiles between neighbours are interpolated."""
    if not spans:
        return None
    import numpy as np

    start, end, count = np.asarray(spans, dtype=np.int64).T
    mean = float((end - start).sum() / count.sum() / NS_PER_MS)
    if len(spans) == 1 and count[0] > 1:
        return Latency(mean=mean)
    each = (end - start) / count / NS_PER_MS
    p5, middle, p95 = (float(value) for value in np.percentile(each, (5, 50, 95)))
    return Latency(mean=mean, median=middle, p5=p5, p95=p95, min=float(each.min()), max=float(each.max()))


def submission_ms(record: RunRecord, steps: StepTrace) -> float | None:
    """How long Python took to submit a step, on average, where each step was waited for; None elsewhere.

    Meanwhile the device has nothing to do, so this is the most that waiting at each step can cost.
    """
    waited = [
        (start, submit, end)
        for stage, start, submit, end in zip(steps.stage, steps.start_ns, steps.submit_ns, steps.end_ns, strict=True)
        if stage == "step" and end is not None and end > submit
    ]
    if record.the_cell.sync_every != 1 or not waited:
        return None
    return sum(submit - start for start, submit, _ in waited) / len(waited) / NS_PER_MS


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


def notes(record: RunRecord, spans: Sequence[tuple[int, int, int]], tflop_per_s: float | None) -> list[str]:
    """What a reader must know to read the figures right."""
    found = [
        _extrapolated(spans),
        _paused(spans),
        _few_for_a_trace(record, spans),
        _coarse_edges(record, spans),
        _too_short(record, spans),
        _slow_first(record, spans),
        _two_clocks(record, spans),
        _impossible(record, tflop_per_s),
    ]
    return [*(note for note in found if note is not None), *notes_on_machine(record)]


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
    bound = record.device.plausible_tflop_per_s if record.device else None
    if bound is None or tflop_per_s is None or tflop_per_s <= bound:
        return None
    return (
        f"{significant(tflop_per_s)} TFLOP/s is more than this device can do (at most {significant(bound)}): "
        "the clock did not wait for it, and the times are wrong."
    )
