"""`powerbench report`: the figures of a recorded run, from what is on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from powerbench.cli import options
from powerbench.cli.output import print_result

Runs = Annotated[
    list[Path], typer.Argument(metavar="RUN...", help="Run directories; also of a running or a killed run.")
]


def report(runs: Runs, power_from: options.PowerFrom = None, json: options.Json = False) -> int:
    """Print the figures of recorded runs.

    Example: powerbench report runs/latest
    """
    from powerbench.reports import FORMATS
    from powerbench.rundir.load import joined, load_run

    loaded = [load_run(path.resolve() if path.is_symlink() else path) for path in runs]
    if power_from is not None:
        recording = load_run(Path(power_from).resolve())
        loaded = [joined(run, recording) for run in loaded]
    print_result(FORMATS["json" if json else "terminal"](loaded))
    return 0
