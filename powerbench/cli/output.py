"""Where words go: results to stdout, talk to stderr, and what becomes of them when nobody can take them."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress

from powerbench.errors import PowerbenchError


class NobodyReads(PowerbenchError):
    """Whoever read our stdout has gone (`| head`): no error worth a word."""


def print_result(text: str) -> None:
    """Print to stdout, at once. Raises PowerbenchError where it cannot be written."""
    try:
        sys.stdout.write(f"{in_their_letters(text, sys.stdout.encoding)}\n")
        sys.stdout.flush()
    except OSError as error:
        _let_go_of_stdout()
        if isinstance(error, BrokenPipeError):
            raise NobodyReads from error
        raise PowerbenchError(f"Cannot write the result to stdout: {error.strerror}; send it elsewhere.") from error


def say(text: str = "") -> None:
    """Print talk to stderr; where that cannot be written there is nobody to tell."""
    with suppress(OSError):
        sys.stderr.write(f"{in_their_letters(text, sys.stderr.encoding)}\n")
        sys.stderr.flush()


def in_their_letters(text: str, encoding: str | None) -> str:
    """`text` with a question mark for each letter that cannot be written there: a poor chart is better than none."""
    return text if encoding is None else text.encode(encoding, errors="replace").decode(encoding)


def columns() -> int:
    """How wide the terminal is to which results go; 80 where they go elsewhere."""
    return shutil.get_terminal_size((80, 24)).columns


def _let_go_of_stdout() -> None:
    # What is still buffered would fail again when Python ends.
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
