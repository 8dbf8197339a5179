"""The application: its commands, and what becomes of their errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import typer
from typer.core import TyperCommand

from powerbench.cli.compare import compare
from powerbench.cli.doctor import doctor
from powerbench.cli.flame import flame
from powerbench.cli.output import NobodyReads, say
from powerbench.cli.power import power
from powerbench.cli.profiles import profiles
from powerbench.cli.report import report
from powerbench.cli.run import run
from powerbench.cli.trace import trace
from powerbench.errors import PowerbenchError, UsageError

INTERRUPTED = 130
COMMANDS = (run, power, trace, report, compare, flame, doctor, profiles)

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
        app.command(cls=OnceEach)(with_errors_told(command))
    app.callback()(common)
    return app


class OnceEach(TyperCommand):
    """A command that refuses a value given twice where it has use for one: else the last one would win unheard."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Count what is typed, and go on."""
        typed = self.make_parser(ctx).parse_args(args=list(args))[2]
        for option in typed:
            if typed.count(option) > 1 and not (option.multiple or getattr(option, "is_flag", False)):
                say(f"powerbench: {option.opts[0]} is given twice, and there is room for one: leave one out.")
                raise typer.Exit(UsageError.exit_status)
        return super().parse_args(ctx, args)


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
