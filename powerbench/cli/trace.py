"""`powerbench trace`: whether the steps of recorded runs became slower, how sure that is, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from powerbench.cli import options
from powerbench.cli.output import columns, print_result, say
from powerbench.errors import PowerbenchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from powerbench.analysis.checked import Checked
    from powerbench.rundir.load import Run

FORMATS = ("terminal", "markdown", "json")
PICTURES = (".png", ".svg")

Named = Annotated[
    list[Path],
    typer.Argument(metavar="RUN...", help="Runs, sweeps or folders of them; or CSV files with one latency a line."),
]
Plot = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="Draw it into this .png or .svg.", rich_help_panel=options.RESULT),
]
FormatName = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="terminal, markdown (for a bug report) or json.",
        rich_help_panel=options.RESULT,
    ),
]
FailOn = Annotated[
    str | None,
    typer.Option(
        "--fail-on",
        metavar="VERDICT",
        help="slowdown: exit with 4 on one, and with 5 where it cannot be told.",
        rich_help_panel=options.RESULT,
    ),
]


class Subject(NamedTuple):
    """What is shown of one trace; `run` is None for a CSV."""

    checked: Checked
    run: Run | None


def trace(
    runs: Named,
    plot: Plot = None,
    format_: FormatName = None,
    fail_on: FailOn = None,
    json: options.Json = False,
) -> int:
    """Check runs for slowdown: the verdict, a chart, and the likely causes.

    Example: powerbench trace runs/latest --plot slowdown.png
    """
    from powerbench.reports.trace import gate_status

    form = format_asked_for(format_, json=json)
    demand(plot=plot, fail_on=fail_on)
    subjects = list(read(runs))
    together = taken_together(subjects)
    if plot is not None:
        draw(subjects, plot)
    show(subjects, together, form, plot=plot, is_list=len(runs) > 1 or is_folder_of_runs(runs[0]))
    if form != "json":
        advise(subjects, plot)
    return 0 if fail_on is None else gate_status([subject.checked.slowdown for subject in subjects])


def format_asked_for(name: str | None, *, json: bool) -> str:
    """The name of the format. Raises UsageError."""
    if json and name not in (None, "json"):
        raise UsageError(f"--json and --format {name} are two formats; leave one out.")
    name = "json" if json else name or "terminal"
    if name not in FORMATS:
        raise UsageError(f"There is no format called {name!r} here; choose one of {', '.join(FORMATS)}.")
    return name


def demand(*, plot: Path | None, fail_on: str | None) -> None:
    """Raises UsageError where these cannot be done, before anything is read."""
    if fail_on not in (None, "slowdown"):
        raise UsageError(f"--fail-on knows only `slowdown`, not {fail_on!r}.")
    if plot is not None and plot.suffix.lower() not in PICTURES:
        raise UsageError(f"--plot {plot}: the file's name must end in .png or .svg, which says what to draw.")


def is_folder_of_runs(path: Path) -> bool:
    """Whether this is a sweep or another folder, and not itself a run or a file."""
    from powerbench.rundir import RECORD

    return path.is_dir() and not (path / RECORD).exists()


def read(named: Sequence[Path]) -> Iterator[Subject]:
    """All traces in what was named, checked. Raises PowerbenchError where there is none in one of them."""
    from powerbench.rundir.many import with_their_machines

    seen: set[Path] = set()
    for path in named:
        if path.suffix.lower() == ".csv" or (path.exists() and not path.is_dir()):
            yield from_csv(path)
            continue
        yield from from_folders(with_their_machines(path, named), seen)


def from_csv(path: Path) -> Subject:
    """The latencies of another tool, checked."""
    from powerbench.reports.checking import check_latencies
    from powerbench.rundir.latency_csv import read_latencies

    latencies = read_latencies(path)
    if not latencies.is_named:
        say(f"{path} names no unit: its latencies are read as seconds.")
    return Subject(check_latencies(str(path), latencies.seconds), None)


def from_folders(folders: Sequence[Path], seen: set[Path]) -> Iterator[Subject]:
    """The runs in folders, checked, without attempts of a sweep that were made again; of what cannot be, a word.

    Those in `seen` are passed over, and the others become part of it.
    """
    from powerbench.reports.checking import check
    from powerbench.rundir.many import Runs, find_readable

    readable = find_readable(folders)
    for sentence in readable.unreadable:
        say(f"powerbench: Left out: {sentence}")
    found, runs = 0, Runs(readable.on_disk)
    for at in range(len(runs)):
        try:
            run = runs[at]
            if run.path.resolve() in seen:
                found += 1
                continue
            checked = check(run)
        except PowerbenchError as error:
            if len(runs) == 1:
                raise
            say(f"powerbench: Left out: {error}")
        else:
            found += 1
            seen.add(run.path.resolve())
            yield Subject(checked, run)
    if not found:
        raise PowerbenchError(f"None of the {len(runs)} runs in {folders[0]} can be checked: name another folder.")


def taken_together(subjects: Sequence[Subject]) -> list[str]:
    """What only several runs can say: whether repeats agree, and whether a slowdown was made by not waiting."""
    from powerbench.reports.together import together

    return together([(run, checked.slowdown) for checked, run in subjects if run is not None])


def show(subjects: Sequence[Subject], together: Sequence[str], form: str, *, plot: Path | None, is_list: bool) -> None:
    """The result on stdout."""
    from powerbench.reports.trace import in_terminal
    from powerbench.reports.trace_markdown import as_trace_markdown

    if form == "json":
        print_result(as_json(subjects, together, is_list=is_list))
    elif form == "markdown":
        print_result(as_trace_markdown([subject.checked for subject in subjects], together, picture=plot))
    else:
        print_result(in_terminal([subject.checked for subject in subjects], together, width=columns() - 2))


def as_json(subjects: Sequence[Subject], together: Sequence[str], *, is_list: bool) -> str:
    """The summary of each run, with what several say together among its notes; of a CSV what there is."""
    import msgspec

    from powerbench.reports.checking import summary_of

    told: list[object] = []
    for checked, run in subjects:
        if run is None:
            told.append({"trace": checked.name, "steps": len(checked.latencies), "slowdown": checked.slowdown})
        else:
            summary = summary_of(run)
            told.append(msgspec.structs.replace(summary, notes=[*summary.notes, *together]))
    return msgspec.json.format(msgspec.json.encode(told if is_list else told[0])).decode()


def draw(subjects: Sequence[Subject], path: Path) -> None:
    """The picture. Raises PowerbenchError where it cannot be written, UsageError for several runs."""
    from powerbench.reports.trace_plot import plot_trace

    if len(subjects) > 1:
        raise UsageError(f"--plot draws one run, and {len(subjects)} were found: name one of them.")
    try:
        plot_trace(subjects[0].checked, path)
    except OSError as error:
        raise PowerbenchError(f"Cannot write {path}: {error.strerror}; choose another file with --plot.") from error
    say(f"Drawn into {path}")


def advise(subjects: Sequence[Subject], plot: Path | None) -> None:
    """What to type next, of one trace, on stderr."""
    from powerbench.reports.trace import next_command

    if len(subjects) == 1 and plot is None:
        say()
        say(next_command(subjects[0].checked))
