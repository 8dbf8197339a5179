"""`powerbench power`: the meters alone, live, for some seconds, or around a command."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from powerbench.cli import options
from powerbench.cli.output import print_result, say
from powerbench.errors import PowerbenchError, Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from powerbench.power import Source
    from powerbench.records import Status
    from powerbench.rundir.load import Run

EXIT_STATUS: dict[Status, int] = {"complete": 0, "interrupted": 130, "unavailable": 3}

Command = Annotated[
    list[str] | None,
    typer.Argument(metavar="-- COMMAND", help="Record while this runs, and pass its exit status on."),
]
Seconds = Annotated[
    float | None, typer.Option("--seconds", metavar="S", min=0.1, help="Record for so long (until Ctrl-C).")
]


class NoSuchCommand(PowerbenchError):
    """What should be measured cannot be run; the statuses are those of a shell."""

    def __init__(self, sentence: str, *, exit_status: int) -> None:
        super().__init__(sentence)
        self.exit_status = exit_status


def power(
    command: Command = None,
    seconds: Seconds = None,
    power_: options.Power = None,
    output: options.Output = Path("runs"),
    json: options.Json = False,
) -> int:
    """Record what this machine draws: live, for some seconds, or while a command runs.

    Example: powerbench power -- python train.py
    """
    from powerbench.power import SOURCES

    if command and seconds is not None:
        raise UsageError("--seconds and a command exclude each other: the command says how long it takes.")
    return record(
        command or None,
        seconds=seconds,
        power="auto" if power_ is None else power_,
        output=output,
        json=json,
        sources=SOURCES,
    )


def record(
    command: Sequence[str] | None,
    *,
    seconds: float | None,
    power: str,
    output: Path,
    json: bool,
    sources: Mapping[str, Source],
) -> int:
    """Record these sources, show the result, and return the exit status."""
    from powerbench.cli.watch import view
    from powerbench.metering import choose_sources
    from powerbench.recorder import record_power
    from powerbench.rundir.live import live_path

    names, unmetered = choose_sources(power, sources)
    if not names:
        raise nothing_to_open(power, unmetered)
    if command is not None:
        demand(command[0])
    with view(is_quiet=command is not None) as shown:
        run = record_power(
            names,
            parent=output,
            unmetered=unmetered,
            command=command,
            command_stdout=sys.stderr.fileno() if json else None,
            seconds=seconds,
            announce_at=live_path(),
            on_watch=shown.show,
            say=say,
            sources=sources,
        )
    show(run, json=json)
    if run.record.exit_status is not None:  # whatever became of the meters
        return as_shell_has_it(run.record.exit_status)
    return EXIT_STATUS.get(run.record.status, 1)


def nothing_to_open(power: str, unmetered: Mapping[str, str]) -> PowerbenchError:
    """The error of a machine without a meter: for each source why, and what to do."""
    if power == "none":
        return UsageError("--power none leaves nothing to record: leave it out, or name sources.")
    reasons = "\n".join(f"  {name}: {reason}" for name, reason in unmetered.items())
    return Unavailable(f"There is no meter to open on this machine:\n{reasons}")


def demand(program: str) -> None:
    """Raises NoSuchCommand where it cannot be run, before anything is recorded."""
    if shutil.which(program) is not None:
        return
    if os.path.exists(program):  # noqa: PTH110 - as the shell sees it, relative to here
        raise NoSuchCommand(f"{program} cannot be executed: see to its permissions.", exit_status=126)
    raise NoSuchCommand(f"There is no program called {program}: see to its spelling, or to PATH.", exit_status=127)


def as_shell_has_it(status: int) -> int:
    """128 and the number of the signal that ended it."""
    return 128 - status if status < 0 else status


def show(run: Run, *, json: bool) -> None:
    """The result on stdout; on stderr how it ended if not well, and where it lies."""
    from powerbench.reports.json import as_json
    from powerbench.reports.terminal import as_terminal

    record = run.record
    try:
        if json or record.windows.get("measured"):
            print_result(as_json([run]) if json else as_terminal([run]))
            say()
    finally:
        if record.status != "complete":
            reason = (record.reason or "no reason was recorded").rstrip(".")
            say(f"powerbench: The recording was not completed ({record.status}): {reason}.")
        say(f"Recorded in {run.path}")
        say(f"See it again with: powerbench report {run.path}")
