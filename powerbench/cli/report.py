"""`powerbench report`: the figures of recorded runs, from what is on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from powerbench.cli import options
from powerbench.cli.formats import format_asked_for
from powerbench.cli.output import print_result, say, text_width

if TYPE_CHECKING:
    from collections.abc import Callable

    from powerbench.rundir.load import Run
    from powerbench.rundir.many import OnDisk, Runs

Named = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="RUN",
        help="Runs, sweeps, or folders of them; also of a running or a killed run.",
        show_default=False,
    ),
]
FormatName = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="terminal, markdown, csv, json, html, parquet or perfetto.",
        rich_help_panel=options.RESULT,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FILE",
        help="Write to this file (html, parquet, perfetto need one); without --format, in that of its ending.",
        rich_help_panel=options.RESULT,
    ),
]
Published = Annotated[
    bool,
    typer.Option(
        "--published",
        help="The published tables too; without RUN, those alone.",
        rich_help_panel=options.RESULT,
    ),
]


def report(
    runs: Named = None,
    format_: FormatName = None,
    output: Output = None,
    published: Published = False,
    power_from: options.PowerFrom = None,
    json: options.Json = False,
) -> int:
    """Print the figures of recorded runs: of one in full, of several in tables.

    Example: powerbench report runs --format markdown
    """
    from powerbench.reports import FORMATS

    form = format_asked_for(FORMATS, format_, json=json, output=output)
    chosen = runs_asked_for(runs or [], published=published, power_from=power_from)
    show = form.show if is_one_run(runs or []) and not published else form.of_several or form.show
    if output is None and form.in_lines is not None:
        print_result(form.in_lines(chosen, width=text_width()))
    elif output is not None:
        write(output, show(chosen))
    else:
        print_result(str(show(chosen)))
    return 0


def is_one_run(named: list[Path]) -> bool:
    """Whether one run itself was named, and not a sweep or a folder, which may hold one."""
    from powerbench.rundir import RECORD

    return len(named) == 1 and (named[0] / RECORD).exists()


def runs_asked_for(named: list[Path], *, published: bool, power_from: str | None) -> Runs:
    """The runs that were named; of those among them that are damaged, a line on stderr."""
    from powerbench.errors import UsageError
    from powerbench.reports.published import published_runs
    from powerbench.rundir.many import Runs

    if not named and not published:
        raise UsageError("Name a run, a sweep, or a folder of them: powerbench report RUN...")
    items = readable(named) if named else []
    if published:
        items += published_runs()
    return Runs(items) if power_from is None else Runs(items, load=with_power_from(Path(power_from)))


def readable(named: list[Path]) -> list[OnDisk | Run]:
    """What can be read in these folders; of the rest, a line each on stderr. Raises PowerbenchError."""
    from powerbench.rundir.many import find_readable

    found = find_readable(named)
    for sentence in found.unreadable:
        say(f"powerbench: Left out: {sentence}")
    return found.items


def with_power_from(folder: Path) -> Callable[[Path], Run]:
    """How a run is read that takes its joules from the recording in `folder`."""
    from powerbench.rundir.joining import joined
    from powerbench.rundir.load import load_run

    recording = load_run(folder.resolve())
    return lambda path: joined(load_run(path), recording)


def write(path: Path, shown: str | bytes) -> None:
    """Put it into the file, whole. Raises PowerbenchError where it cannot be written."""
    from powerbench.errors import PowerbenchError

    aside = path.with_name(f"{path.name}.new")
    try:
        aside.write_bytes(shown if isinstance(shown, bytes) else f"{shown}\n".encode())
        aside.replace(path)
    except OSError as error:
        raise PowerbenchError(f"Cannot write {path}: {error.strerror}; choose another file with --output.") from error
    say(f"Written to {path}")
