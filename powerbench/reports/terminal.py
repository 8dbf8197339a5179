"""A run as a person reads it: what was measured, what a step costs, and what to know about the figures."""

from __future__ import annotations

import shlex
import signal
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence

from powerbench.analysis.checked import verdict_on
from powerbench.analysis.counted import distinct_devices
from powerbench.analysis.energy import Energy
from powerbench.analysis.latencies import Latency, from_edges
from powerbench.analysis.ranks import on_ranks
from powerbench.analysis.slowdown import UNSTEADY, sentence
from powerbench.analysis.summary import Summary, submission_ms
from powerbench.records import SYNTHETIC, LoopCell, RunRecord
from powerbench.reports.cells import data_of, optimizer_of
from powerbench.reports.chart import Size, chart
from powerbench.reports.checking import check
from powerbench.reports.entries import entries_of
from powerbench.reports.figures import table_time
from powerbench.reports.lines import WIDTH, notes, rows
from powerbench.reports.operators import operator_lines
from powerbench.reports.summaries import summarize_run
from powerbench.reports.tables import tables
from powerbench.reports.verdict import causes, verdict
from powerbench.reports.verdict import figures as trace_figures
from powerbench.rundir.load import Run
from powerbench.units import byte_size, counted, duration, shape, significant

# Of fewer steps the 5th and the 95th percentile are hardly more than the extremes.
FEW_FOR_PERCENTILES = 20
# Of more ranks only the ends are shown: the JSON has all of them.
MOST_RANKS = 8
# Below the other figures the chart is an impression; `powerbench trace` shows a larger one.
SMALL = Size(height=4, lane_height=1)


def as_terminal(runs: Sequence[Run], *, width: int = WIDTH) -> str:
    """One run in full, or several in tables, as plain text in lines of so many characters; tables may need more."""
    return "\n".join(describe(runs[0], width)) if len(runs) == 1 else tables(entries_of(runs), width)


def describe(run: Run, width: int = WIDTH) -> list[str]:
    """The lines about one run."""
    summary = summarize_run(run)
    if run.record.cell is None:
        return [
            *textwrap.wrap(recording_headline(run.record), width),
            *textwrap.wrap(run.record.environment.get("processor") or "", width),
            "",
            *rows(recording_figures(summary, run.record), width),
            *notes(summary.notes, width),
        ]
    return [
        *textwrap.wrap(headline(run.record), width),
        *textwrap.wrap(machine_line(run.record), width),
        "",
        *rows(figures(summary, run), width),
        *by_operator(summary, width),
        *notes([*summary.notes, *unsteady(run)], width),
        *its_trace(run, width),
    ]


def by_operator(summary: Summary, width: int) -> Iterable[str]:
    """The operators of a step, where they were recorded."""
    if summary.operators is not None:
        yield ""
        yield from operator_lines(summary.operators, width)


def its_trace(run: Run, width: int) -> Iterable[str]:
    """The verdict on a slowdown trace, with a small chart and the likely causes; of other runs nothing."""
    if not run.record.the_cell.trace or not run.together.spans("step"):
        return
    checked = check(run)
    yield ""
    yield from textwrap.wrap(verdict(checked), width)
    yield ""
    yield from chart(checked, SMALL._replace(width=width))
    yield ""
    yield from rows(trace_figures(checked), width)
    yield from causes(checked, width)


def unsteady(run: Run) -> Iterable[str]:
    """A line on the steps of a run that was no slowdown trace, where they were not steady all the same."""
    if run.record.the_cell.trace:
        return
    slowdown = verdict_on(from_edges(run.together))
    if slowdown.verdict in UNSTEADY:
        yield f"{sentence(slowdown)} See it with: powerbench trace {shlex.quote(str(run.path))}"


def headline(record: RunRecord) -> str:
    """`bert-base-cased, training, batch 32 x sequence 128, float32`, and what else is not as usual."""
    cell = record.the_cell
    if cell.model == "sleep":
        return f"sleep, {significant(cell.sleep_ms or 0.0)} ms a step{on_ranks(cell)} (the control)"
    own = "a loop of its own" if record.loop else None
    batch = shape(cell.batch_size, cell.sequence_length)
    usual = (cell.model, own, cell.mode, batch and f"{batch}{on_ranks(cell)}", cell.dtype)
    return ", ".join([*filter(None, usual), *unusual(cell)])


def unusual(cell: LoopCell) -> Iterable[str]:
    """The settings that change what a step costs, are known, and are not the default, in words."""
    if cell.dataset not in (SYNTHETIC, None):
        yield data_of(cell)
    if cell.mode == "training" and cell.optimizer is not None and optimizer_of(cell) != "adam":
        yield optimizer_of(cell)
    if cell.weights not in ("random", None):
        yield f"{cell.weights} weights"
    if cell.attention not in ("sdpa", None):
        yield f"{cell.attention} attention"
    if cell.compile:
        yield "compiled"
    if (cell.accumulation or 1) > 1:
        yield f"{cell.accumulation} batches a step"
    if cell.mode == "training" and cell.dropout is False:
        yield "dropout off"


def machine_line(record: RunRecord) -> str:
    """`cpu: AMD EPYC, 2 threads, torch 2.13.0, Linux 6.1`; `cuda: 8 x NVIDIA H100, 2 machines (alpha, beta), ...`."""
    facts, cell = record.environment, record.the_cell
    threads = facts.get("threads")
    each = " a rank" if record.ranks > 1 else ""
    parts = [
        f"{cell.device}: {devices_in_words(record)}" if record.device else cell.device,
        f"{counted(cell.nnodes, 'machine')} ({facts.get('host') or 'unnamed'})" if cell.nnodes > 1 else None,
        f"{counted(threads, 'thread')}{each}" if threads is not None and cell.device == "cpu" else None,
        f"torch {facts['torch']}" if facts.get("torch") and record.the_cell.model != "sleep" else None,
        facts.get("system"),
    ]
    return ", ".join(part for part in parts if part)


def devices_in_words(record: RunRecord) -> str:
    """`8 x NVIDIA H100`; one that several ranks share is one."""
    names = Counter(device.name for device in distinct_devices(record))
    return ", ".join(name if number == 1 else f"{number} x {name}" for name, number in names.items())


def figures(summary: Summary, run: Run) -> Iterable[tuple[str, str]]:
    """Label and text of each line, from what there is."""
    record = run.record
    if summary.status != "complete":
        yield "Status", f"{summary.status}: {summary.reason}" if summary.reason else summary.status
    if summary.wall_s is None or summary.latency_ms is None or summary.steps is None:
        yield "Wall time", "no step was measured to its end"
    else:
        yield "Wall time", _wall(summary.steps, summary.wall_s, summary.wall_s_100_steps)
        yield "Latency", _latency(summary.latency_ms, summary.steps)
    submission = submission_ms(record, run.together)
    if submission is not None and summary.latency_ms is not None:
        share = submission / summary.latency_ms.mean
        yield (
            "Submission",
            f"{significant(submission)} ms a step ({share:.0%}), the most that waiting at each step costs",
        )
    if record.workload is not None and record.workload.compile_s is not None:
        yield "Compiling", f"{duration(record.workload.compile_s)}, before the warm-up"
    if summary.samples_per_s is not None and record.the_cell.model != "sleep":
        yield "Throughput", ", ".join(_throughput(summary))
    yield from rank_rows(summary)
    yield from phase_rows(summary)
    if summary.peak_memory_bytes is not None:
        yield "Peak memory", f"{byte_size(summary.peak_memory_bytes)} ({record.peak_memory_of})"
    if summary.energy is None:
        yield "Energy", f"no figure: {summary.energy_reason}"
    else:
        yield "Energy", _energy(summary.energy)
        yield "Power", _power(summary.energy)


def rank_rows(summary: Summary) -> Iterable[tuple[str, str]]:
    """What each rank worked itself in a step; of many ranks the least and the most."""
    known = [
        (it.rank, it.own_work_ms, it.own_work_share) for it in summary.per_rank or () if it.own_work_ms is not None
    ]
    if len(known) > MOST_RANKS:
        known = [min(known, key=lambda it: it[1]), max(known, key=lambda it: it[1])]
    names = max((len(str(rank)) for rank, *_ in known), default=0)
    times = max((len(significant(ms)) for _, ms, _ in known), default=0)
    for at, (rank, ms, share) in enumerate(known):
        of_step = "" if share is None else f"  {share:>4.0%} of its step"
        yield "" if at else "Own work", f"rank {rank:<{names}}  {significant(ms):>{times}} ms (median){of_step}"


def phase_rows(summary: Summary) -> Iterable[tuple[str, str]]:
    """A line for each phase of a step: its milliseconds, its share of the step, its joules where they are known."""
    phases, latency = summary.phases, summary.latency_ms
    if phases is None or latency is None:
        return
    if list(phases) == ["data"]:
        share = phases["data"].ms / latency.mean
        yield "Data", f"{significant(phases['data'].ms)} ms a step ({share:.0%}): reading and tokenizing, in the step"
        return
    names, times = max(map(len, phases)), max(len(significant(phase.ms)) for phase in phases.values())
    for number, (name, phase) in enumerate(phases.items()):
        text = f"{name:<{names}}  {significant(phase.ms):>{times}} ms  {phase.ms / latency.mean:>4.0%}"
        joules = "" if phase.j is None else f"  {significant(phase.j)} J"
        yield "" if number else "Phases", text + joules


def recording_headline(record: RunRecord) -> str:
    """`power while this ran: python train.py`, or what was watched."""
    if record.command is None:
        return "power of this machine"
    return f"power while this ran: {shlex.join(record.command)}"


def recording_figures(summary: Summary, record: RunRecord) -> Iterable[tuple[str, str]]:
    """Label and text of each line of a recording of power: the whole, and each rail."""
    if summary.status != "complete":
        yield "Status", f"{summary.status}: {summary.reason}" if summary.reason else summary.status
    if record.exit_status:
        yield "Command", _exit(record.exit_status)
    if summary.wall_s is not None:
        yield "Wall time", duration(summary.wall_s)
    if summary.energy is None:
        yield "Energy", f"no figure: {summary.energy_reason}"
        return
    yield "Energy", _whole_energy(summary.energy)
    yield "Power", _power(summary.energy)
    if len(summary.energy.rails) > 1:
        for name, rail in summary.energy.rails.items():
            mean = "no figure" if rail.mean_w is None else f"{significant(rail.mean_w)} W on average"
            yield name, f"{mean} ({rail.source}, {rail.method})" + ("" if rail.counted else ", not counted above")


def _exit(status: int) -> str:
    return f"exit status {status}" if status > 0 else f"ended by signal {-status} ({signal.Signals(-status).name})"


def _whole_energy(energy: Energy) -> str:
    low, high = energy.total_j_sampling_ci95
    part = f" in the {duration(energy.total_j / energy.mean_w)} that the meter covers" if _is_a_part(energy) else ""
    return (
        f"{significant(energy.total_j)} J{part} (sampling: {significant(low)} to {significant(high)}); "
        f"covers {energy.scope}{_accuracy(energy)}"
    )


def _is_a_part(energy: Energy) -> bool:
    return energy.partial and energy.mean_w > 0


def _wall(steps: int, wall_s: float, wall_s_100_steps: float | None) -> str:
    text = f"{duration(wall_s)} for {counted(steps, 'step')}"
    return text if steps == 100 or wall_s_100_steps is None else f"{text} ({table_time(wall_s_100_steps)} for 100)"


def _throughput(summary: Summary) -> Iterable[str]:
    if summary.samples_per_s is not None:
        yield f"{significant(summary.samples_per_s)} samples/s"
    if summary.tokens_per_s is not None:
        yield f"{significant(summary.tokens_per_s)} tokens/s"
    yield "TFLOP/s unknown" if summary.tflop_per_s is None else f"{significant(summary.tflop_per_s)} TFLOP/s"


def _energy(energy: Energy) -> str:
    if energy.j_per_step is None or energy.j_per_step_sampling_ci95 is None:
        return _whole_energy(energy)
    low, high = energy.j_per_step_sampling_ci95
    sample = "" if energy.j_per_sample is None else f", {significant(energy.j_per_sample)} J a sample"
    step = f"{significant(energy.j_per_step)} J a step (sampling: {significant(low)} to {significant(high)})"
    return f"{step}{sample}; covers {energy.scope}{_accuracy(energy)}"


def _accuracy(energy: Energy) -> str:
    return "" if energy.sensor_accuracy is None else f", from a sensor accurate to {energy.sensor_accuracy:.0%}"


def _power(energy: Energy) -> str:
    peak = "" if energy.peak_w is None else f", {significant(energy.peak_w)} W at the peak"
    text = f"{significant(energy.mean_w)} W on average{peak}"
    if energy.idle_w is None or energy.net_j_per_step is None:
        return text
    return f"{text}, {significant(energy.idle_w)} W at rest: {significant(energy.net_j_per_step)} J a step above that"


def _latency(latency: Latency, steps: int) -> str:
    mean = f"{significant(latency.mean)} ms a step on average"
    if latency.median is None or latency.p5 is None or latency.p95 is None:
        return mean
    middle = f"{mean}, median {significant(latency.median)}"
    if steps < FEW_FOR_PERCENTILES and latency.min is not None and latency.max is not None:
        return f"{middle} (all from {significant(latency.min)} to {significant(latency.max)})"
    return f"{middle} (P5 {significant(latency.p5)} to P95 {significant(latency.p95)})"
