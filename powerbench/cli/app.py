"""The application: its commands, and what becomes of their errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec

import typer

from powerbench.cli.doctor import doctor
from powerbench.cli.output import NobodyReads, say
from powerbench.cli.power import power
from powerbench.cli.profiles import profiles
from powerbench.cli.report import report
from powerbench.cli.run import run
from powerbench.cli.trace import trace
from powerbench.errors import PowerbenchError

INTERRUPTED = 130
COMMANDS = (run, power, trace, report, doctor, profiles)

P = ParamSpec("P")


def main(arguments: Sequence[str]) -> int:
    """Run the command line `arguments`; returns the exit status."""
    try:
        build_app()(list(arguments), prog_name="powerbench")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def build_app() -> typer.Typer:
    """The application with every command."""
    app = typer.Typer(
        help="Say what a step of BERT costs on this machine, in seconds and in joules.",
        epilog="Begin with: powerbench run quick",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for command in COMMANDS:
        app.command()(with_errors_told(command))
    app.callback()(common)
    return app


def print_version(asked: bool) -> None:
    """Print the version and end, where that is asked."""
    if asked:
        import powerbench

        typer.echo(f"powerbench {powerbench.__version__}")
        raise typer.Exit


def common(
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", is_eager=True, callback=print_version
    ),
) -> None:
    """What holds for every command: nothing."""


def with_errors_told(command: Callable[P, int]) -> Callable[P, None]:
    """`command`, whose result is the exit status, with its errors as one sentence on stderr."""

    @wraps(command)
    def told(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            status = command(*args, **kwargs)
        except NobodyReads as error:
            status = error.exit_status
        except PowerbenchError as error:
            say(f"powerbench: {error}")
            status = error.exit_status
        except KeyboardInterrupt:
            status = INTERRUPTED
        raise typer.Exit(status)

    return told
