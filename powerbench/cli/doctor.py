"""`powerbench doctor`: what can be measured here, how well, and how to get the rest."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from powerbench.cli import options
from powerbench.cli.output import print_result, text_width

if TYPE_CHECKING:
    from powerbench.checkup import Check

TITLES = {"device": "Devices", "meter": "Power meters", "software": "Software", "machine": "This machine"}


Calibrate = Annotated[
    bool,
    typer.Option("--calibrate", help="Watch each meter at rest for five seconds, and time a fence of each device."),
]


def doctor(calibrate: Calibrate = False, json: options.Json = False) -> int:
    """Say what can be measured on this machine, and what to do about the rest.

    Example: powerbench doctor --calibrate
    """
    from powerbench.checkup import can_measure, check_up

    checks = check_up(calibrated=calibrate)
    if json:
        import msgspec

        print_result(msgspec.json.format(msgspec.json.encode(checks)).decode())
    else:
        print_result("\n".join(in_words(checks, text_width())).rstrip())
    return 0 if can_measure(checks) else 1


def in_words(checks: list[Check], columns: int) -> Iterator[str]:
    """The checks under a title for each subject: state, name, finding, and the advice below it."""
    width = max(len(check.name) for check in checks)
    for subject, of_subject in groupby(checks, key=lambda check: check.subject):
        yield TITLES[subject]
        for check in of_subject:
            label = f"  {check.state:<7}  {check.name:<{width}}  "
            indent = " " * len(label)
            text = check.finding if check.advice is None else f"{check.finding}. {check.advice}"
            yield from textwrap.wrap(
                text, columns, initial_indent=label, subsequent_indent=indent, break_on_hyphens=False
            )
            yield from (f"{indent}  {command}" for command in check.commands)
        yield ""
