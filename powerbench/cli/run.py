"""`powerbench run`: measure a cell, or each cell of a sweep, and print what it costs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from powerbench.cli import options
from powerbench.cli.machines import Machines, node_of, options_of, with_slurm
from powerbench.cli.measuring import measure, require_energy, resolved
from powerbench.cli.output import print_result, say, text_width
from powerbench.cli.sweep import asked_for, list_cells, repeated, statuses, sweep

if TYPE_CHECKING:
    from powerbench.records import Status
    from powerbench.rundir.load import Run

EXIT_STATUS: dict[Status, int] = {"complete": 0, "interrupted": 130, "unavailable": 3}


def run(
    context: typer.Context,
    profile: options.ProfileName = None,
    # Named as the settings that they give: what is typed is taken from the context by these names.
    device: options.Device = None,
    mode: options.Mode = None,
    model: options.Model = None,
    weights: options.Weights = None,
    optimizer: options.Optimizer = None,
    dataset: options.Dataset = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    split: options.Split = None,
    pad: options.Pad = None,
    include_data: options.IncludeData = None,
    batch_size: options.BatchSize = None,
    sequence_length: options.SequenceLength = None,
    dtype: options.Dtype = None,
    attention: options.Attention = None,
    compile: options.Compile = None,
    steps: options.Steps = None,
    warmup: options.Warmup = None,
    min_seconds: options.MinSeconds = None,
    max_seconds: options.MaxSeconds = None,
    ranks: options.Ranks = None,
    nnodes: options.Nnodes = None,
    node_rank: options.NodeRank = None,
    rendezvous: options.Rendezvous = None,
    threads: options.Threads = None,
    copy: options.Copy = None,
    sync_every: options.SyncEvery = None,
    phases: options.Phases = None,
    trace: options.Trace = None,
    power: options.Power = None,
    power_from: options.PowerFrom = None,
    idle_seconds: options.Idle = None,
    require_power: options.RequirePower = None,
    repeats: options.Repeats = None,
    cooldown_seconds: options.Cooldown = None,
    against: options.Against = None,
    resume: options.Resume = False,
    retry: options.Retry = None,
    dry_run: options.DryRun = False,
    set_: options.Set = None,
    output: options.Output = Path("runs"),
    json: options.Json = False,
) -> int:
    """Measure what a step costs on this machine.

    Without PROFILE and options: bert-base-cased, training, batch 32, sequence 128, 100 steps, the best device here.
    Lists in a profile and options given again make a sweep: every combination, each in a process of its own.

    Example: powerbench run --mode inference --batch-size 16 --batch-size 64 --trace
    """
    # Typer that stands on click (before 0.26) keeps what is given several times in tuples.
    typed = {name: list(value) if isinstance(value, tuple) else value for name, value in context.params.items()}
    machines = with_slurm(Machines(nnodes, node_rank, rendezvous), os.environ)
    plan = asked_for(profile, set_ or [], typed | options_of(machines))
    again = statuses(retry)
    resume = resume or bool(again)
    other = None
    if against is not None:
        from powerbench.interpreter import find_interpreter

        other = find_interpreter(against)
        plan = repeated(plan, is_asked=repeats is not None)
    if dry_run:
        list_cells(plan, output, other=other, resume=resume, retry=again, json=json)
        return 0
    several = resume or other is not None
    node = node_of(machines, replace(plan, is_sweep=plan.is_sweep or several))
    if plan.is_sweep or several:
        return sweep(plan, output, other=other, resume=resume, retry=again, json=json)
    measured = measure(resolved(plan.cells[0]), output, node=node)
    show(measured, json=json)
    status = EXIT_STATUS.get(measured.record.status, 1)
    return status or require_energy(measured)


def show(measured: Run, *, json: bool) -> None:
    """The result on stdout; on stderr how it ended if not well, where it lies, and what to type next."""
    from powerbench.reports.json import as_json
    from powerbench.reports.terminal import as_terminal

    record = measured.record
    try:
        if json or record.windows.get("measured"):
            print_result(as_json([measured]) if json else as_terminal([measured], width=text_width()))
            say()
    finally:
        if record.status != "complete":
            reason = (record.reason or "no reason was recorded").rstrip(".")
            say(f"powerbench: The run was not completed ({record.status}): {reason}.")
        say(f"Recorded in {measured.path}")
        say(f"See it again with: powerbench {'trace' if record.the_cell.trace else 'report'} {measured.path}")
