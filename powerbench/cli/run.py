"""`powerbench run`: measure a cell and print what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from powerbench.cli import options
from powerbench.cli.output import print_result, say

if TYPE_CHECKING:
    from powerbench.records import Cell, Status
    from powerbench.rundir.load import Run

EXIT_STATUS: dict[Status, int] = {"complete": 0, "interrupted": 130, "unavailable": 3}
REFRESH_S = 0.25


def run(
    profile: options.ProfileName = None,
    device: options.Device = None,
    mode: options.Mode = None,
    model: options.Model = None,
    batch_size: options.BatchSize = None,
    sequence_length: options.SequenceLength = None,
    dtype: options.Dtype = None,
    attention: options.Attention = None,
    compile_: options.Compile = None,
    steps: options.Steps = None,
    warmup: options.Warmup = None,
    min_seconds: options.MinSeconds = None,
    max_seconds: options.MaxSeconds = None,
    threads: options.Threads = None,
    copy: options.Copy = None,
    sync_every: options.SyncEvery = None,
    trace: options.Trace = None,
    power: options.Power = None,
    power_from: options.PowerFrom = None,
    idle: options.Idle = None,
    require_power: options.RequirePower = None,
    set_: options.Set = None,
    output: options.Output = Path("runs"),
    json: options.Json = False,
) -> int:
    """Measure what a step costs on this machine.

    Without PROFILE and options: bert-base-cased, training, batch 32, sequence 128, 100 steps, the best device here.

    Example: powerbench run --mode inference --batch-size 16 --trace
    """
    given = {
        "device": device,
        "mode": mode,
        "model": model,
        "batch_size": batch_size,
        "sequence_length": sequence_length,
        "dtype": dtype,
        "attention": attention,
        "compile": compile_,
        "steps": steps,
        "warmup": warmup,
        "min_seconds": min_seconds,
        "max_seconds": max_seconds,
        "threads": threads,
        "copy": copy,
        "sync_every": sync_every,
        "trace": trace,
        "power": power,
        "power_from": power_from,
        "idle_seconds": idle,
        "require_power": require_power,
    }
    cell = cell_asked_for(profile, set_ or [], {key: value for key, value in given.items() if value is not None})
    measured = measure(cell, output)
    show(measured, json=json)
    status = EXIT_STATUS.get(measured.record.status, 1)
    return status or require_energy(measured)


def cell_asked_for(profile: str | None, sets: list[str], given: dict[str, Any]) -> Cell:
    """The cell that the command line asks for, checked, with its choices made."""
    from powerbench.errors import Unavailable, UsageError
    from powerbench.metering import choose_for
    from powerbench.profile import assignment, find_profile, load_profile, make_cell, resolve

    assigned = dict(map(assignment, sets))
    if len(assigned) < len(sets):
        raise UsageError("A key is given twice with --set; leave one out.")
    loaded = load_profile(find_profile(profile)) if profile is not None else None
    cell = make_cell(profile=loaded, sets=assigned, options=given)
    sources, _ = choose_for(cell)
    if cell.require_power and not sources:
        why = "--power is none." if cell.power == "none" else "see `powerbench doctor` for why, source by source."
        raise Unavailable(f"Energy is required (--require-power), but there is no meter to open: {why}")
    return resolve(cell, metered=bool(sources))


def measure(cell: Cell, output: Path) -> Run:
    """Measure with progress on stderr."""
    from powerbench.cli.progress import ProgressLine
    from powerbench.session import record_run

    with ProgressLine(cell) as line:
        return record_run(cell, parent=output, on_progress=line.show, progress_period_s=REFRESH_S)


def require_energy(measured: Run) -> int:
    """0 where the energy is whole or was not required; else 1, with a word on what is missing."""
    from powerbench.analysis.energy import find_energy

    if not measured.record.the_cell.require_power:
        return 0
    energy, reason, _ = find_energy(measured.record, measured.steps[0], measured.curves())
    if energy is not None and not energy.partial:
        return 0
    say(f"powerbench: Energy was required (--require-power): {reason or 'the meter was lost before the end'}.")
    return 1


def show(measured: Run, *, json: bool) -> None:
    """The result on stdout; on stderr how it ended if not well, where it lies, and what to type next."""
    from powerbench.reports.json import as_json
    from powerbench.reports.terminal import as_terminal

    record = measured.record
    try:
        if json or record.windows.get("measured"):
            print_result(as_json([measured]) if json else as_terminal([measured]))
            say()
    finally:
        if record.status != "complete":
            reason = (record.reason or "no reason was recorded").rstrip(".")
            say(f"powerbench: The run was not completed ({record.status}): {reason}.")
        say(f"Recorded in {measured.path}")
        say(f"See it again with: powerbench report {measured.path}")
