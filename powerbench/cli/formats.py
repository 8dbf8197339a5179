"""Which format a result is shown in: the one that was named, or that of the file it goes to, or the terminal's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from powerbench.errors import UsageError


class Named(Protocol):
    """A format as its table has it."""

    @property
    def needs_file(self) -> bool:
        """Whether it is for other programs, and never printed."""


F = TypeVar("F", bound=Named)
ENDINGS = {"md": "markdown", "htm": "html"}
"""Endings of files that are no format's name."""


def format_asked_for(formats: Mapping[str, F], name: str | None, *, json: bool, output: Path | None) -> F:
    """The format of that name; without one, of the ending of `output`. Raises UsageError."""
    if json and name not in (None, "json"):
        raise UsageError(f"--json and --format {name} are two formats; leave one out.")
    name = "json" if json else name or _by_ending(output, formats)
    if name not in formats:
        raise UsageError(f"There is no format called {name!r} here; choose one of {', '.join(formats)}.")
    if formats[name].needs_file and output is None:
        raise UsageError(f"{name} is not printed but written to a file: name it with --output FILE.")
    return formats[name]


def _by_ending(output: Path | None, formats: Mapping[str, F]) -> str:
    ending = "" if output is None else output.suffix.lower().removeprefix(".")
    name = ENDINGS.get(ending, ending)
    return name if name in formats else "terminal"
