"""Measuring a cell from the command line: its choices made, progress on stderr, and whether its energy is whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from powerbench.cli.output import say
from powerbench.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from powerbench.interpreter import Interpreter
    from powerbench.records import Cell, Node
    from powerbench.rundir import RunDir
    from powerbench.rundir.load import Run
    from powerbench.sweep import Standing

REFRESH_S = 0.25


def resolved(cell: Cell) -> Cell:
    """`cell` with its choices made, for the meters that there are. Raises UsageError, Unavailable."""
    from powerbench.metering import choose_for
    from powerbench.profile import resolve

    sources, _ = choose_for(cell)
    if cell.require_power and not sources:
        why = "--power is none." if cell.power == "none" else "see `powerbench doctor` for why, source by source."
        raise Unavailable(f"Energy is required (--require-power), but there is no meter to open: {why}")
    return resolve(cell, metered=bool(sources))


def measure(
    cell: Cell,
    output: Path,
    on_start: Callable[[RunDir], object] = lambda rundir: None,
    standing: Standing | None = None,
    *,
    other: Interpreter | None = None,
    node: Node | None = None,
) -> Run:
    """Measure with progress on stderr; in a sweep, `standing` says where that stands.

    The workers run in the `other` interpreter where the measurement asks for one; of a run on several machines this
    one is `node`.
    """
    from powerbench.cli.progress import ProgressLine
    from powerbench.launch import LAUNCHER, WORKER
    from powerbench.session import record_run

    is_of_other = other is not None and standing is not None and standing.measurement.interpreter is not None
    with ProgressLine(cell, standing) as line:
        return record_run(
            cell,
            parent=output,
            node=node,
            command=other.worker if other is not None and is_of_other else WORKER,
            launcher=other.launcher if other is not None and is_of_other else LAUNCHER,
            on_start=on_start,
            on_progress=line.show,
            progress_period_s=REFRESH_S,
        )


def require_energy(measured: Run) -> int:
    """0 where the energy is whole or was not required; else 1, with a word on what is missing."""
    from powerbench.analysis.energy import find_energy

    if not measured.record.the_cell.require_power:
        return 0
    energy, reason, _ = find_energy(measured.record, measured.together, measured.curves())
    if energy is not None and not energy.partial:
        return 0
    say(f"powerbench: Energy was required (--require-power): {reason or 'the meter was lost before the end'}.")
    return 1
