"""A run in figures: what a step costs, computed from its edges each time it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from powerbench.analysis.checked import Explained
from powerbench.analysis.energy import Energy, find_energy
from powerbench.analysis.hosts import Host, energy_of_all, missing_machines
from powerbench.analysis.latencies import Latency, lasted_ns, latency
from powerbench.analysis.notes import (
    TABLE_STEPS,
    notes_on_machine,
    notes_on_machines,
    notes_on_steps,
    unsynchronized,
)
from powerbench.analysis.operators import Operators, find_operators
from powerbench.analysis.phases import Phase, find_phases
from powerbench.analysis.pool import flop_per_step, tokens_per_step
from powerbench.analysis.ranks import RankFigures, Ranks, Straggler, sentences
from powerbench.records import EnergyCurve, OperatorTimes, PhaseSpan, RunRecord, Status, StepTrace
from powerbench.units import NS_PER_MS, seconds_from_ns


class Summary(Struct, frozen=True, kw_only=True):
    """The object that `--json` prints, keys in its order. None: not recorded, or without meaning.

    `batch_size` is that of each of `ranks`, `global_batch_size` that of all. `per_rank` and `stragglers` are None of a
    run of one rank.
    """

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
    ranks: int | None
    global_batch_size: int | None
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
    operators: Operators | None
    stragglers: list[Straggler] | None
    per_rank: list[RankFigures] | None
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
    operators: Sequence[OperatorTimes] = (),
    slowdown: Explained | None = None,
    ranks: Ranks | None = None,
    hosts: Sequence[Host] = (),
) -> Summary:
    """The figures of a run, named by the path `run`; `curves` are its joules by rail, `phases` those of its steps.

    `operators` are those that torch.profiler saw, in a run that asked for it. Of a run of several ranks `steps` are
    those of the whole, `phases` those of `ranks.closest`; of one on several machines, `hosts` are those that are here.

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
    found = energy_of_all(hosts) if hosts else find_energy(record, steps, curves or {})
    phased = find_phases(record, steps, phases, curves or {} if found.energy is not None else {})
    its_latency = latency(spans)
    profiled = find_operators(
        record,
        operators,
        measured_ms=None if its_latency is None else its_latency.mean,
        j_per_step=None if found.energy is None else found.energy.j_per_step,
    )
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
        ranks=record.ranks,
        global_batch_size=None if cell.batch_size is None else cell.batch_size * record.ranks,
        steps=done,
        warmup_steps=steps.stage.count("warmup"),
        wall_s=wall_s,
        wall_s_100_steps=TABLE_STEPS / rate if rate else None,
        latency_ms=its_latency,
        samples_per_s=rate * samples if rate and samples is not None else None,
        tokens_per_s=rate * tokens if rate and tokens is not None else None,
        tflop_per_s=tflop_per_s,
        peak_memory_bytes=record.peak_memory_bytes,
        energy=found.energy,
        energy_reason=found.reason,
        slowdown=slowdown,
        phases=phased.phases,
        operators=profiled.operators,
        stragglers=None if ranks is None else ranks.stragglers,
        per_rank=None if ranks is None else ranks.figures(),
        notes=[
            *missing_machines(record, hosts),
            *(sentences(ranks.stragglers or [], cell) if ranks is not None else []),
            *record.notes,
            *found.notes,
            *phased.notes,
            *profiled.notes,
            *_whose_phases(phased.phases, ranks),
            *notes_on_steps(record, spans, tflop_per_s),
            *notes_on_machines(record, hosts),
            *unsynchronized(record, steps),
        ],
    )


def _whose_phases(phases: Mapping[str, Phase] | None, ranks: Ranks | None) -> list[str]:
    return [f"The phases are those of rank {ranks.closest}."] if phases is not None and ranks is not None else []


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
        ranks=None,
        global_batch_size=None,
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
        operators=None,
        stragglers=None,
        per_rank=None,
        notes=[*record.notes, *found.notes, *notes_on_machine(record)],
        command=record.command,
        exit_status=record.exit_status,
    )


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
