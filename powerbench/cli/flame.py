"""`powerbench flame`: where the joules of a run went, by function or by line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from powerbench.cli import options
from powerbench.cli.formats import format_asked_for
from powerbench.cli.output import columns, print_result, say
from powerbench.cli.report import write
from powerbench.errors import PowerbenchError, UsageError

if TYPE_CHECKING:
    from powerbench.analysis.flame import WindowName

Named = Annotated[Path, typer.Argument(metavar="RUN", help="A run that was measured with --py-spy.")]
FormatName = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="terminal, svg (a flame graph), html, speedscope or json.",
        rich_help_panel=options.RESULT,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FILE",
        help="Write to this file (html needs one); without --format, in that of its ending.",
        rich_help_panel=options.RESULT,
    ),
]
Stretch = Annotated[str, typer.Option("--window", metavar="NAME", help="measured, or all: warm-up, pauses, tail too.")]
Lines = Annotated[bool, typer.Option("--lines", help="By line instead of by function.")]


def flame(
    run: Named,
    window: Stretch = "measured",
    lines: Lines = False,
    format_: FormatName = None,
    output: Output = None,
    json: options.Json = False,
) -> int:
    """Say where the joules of a run went, by function or by line.

    Example: powerbench flame runs/latest --format svg --output flame.svg
    """
    from powerbench.reports.flame import FLAME_FORMATS

    form = format_asked_for(FLAME_FORMATS, format_, json=json, output=output)
    stretch = window_asked_for(window)
    from powerbench.reports.flame.burnt import burn
    from powerbench.reports.flame.terminal import as_terminal
    from powerbench.rundir.load import load_run

    burnt = burn(load_run(the_run(run)), window=stretch, by_line=lines)
    if output is not None:
        write(output, form.show(burnt))
    elif form.show is as_terminal:
        print_result(as_terminal(burnt, width=columns() - 2))
        say()
        say(f"As a picture: powerbench flame {run} --format svg --output flame.svg")
    else:
        print_result(form.show(burnt))
    return 0


def window_asked_for(name: str) -> WindowName:
    """The window of that name. Raises UsageError."""
    from powerbench.analysis.flame import WINDOWS

    found = next((window for window in WINDOWS if window == name), None)
    if found is None:
        raise UsageError(f"There is no window called {name!r}; choose one of {', '.join(WINDOWS)}.")
    return found


def the_run(folder: Path) -> Path:
    """The one run in what was named. Raises PowerbenchError where there are several, or none."""
    from powerbench.rundir.load import find_runs

    found = find_runs(folder)
    if len(found) > 1:
        raise PowerbenchError(f"There are {len(found)} runs in {folder}: name the one to look into.")
    return found[0]
