"""How figures and notes lie on the screen: labels in one column, long texts wrapped under their own beginning."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 78
"""How wide text is where there is room for it: much longer lines are hard to read."""
LABEL_WIDTH = 13


def wrapped(text: str, width: int = WIDTH) -> list[str]:
    """The lines of a paragraph; a path or a command that is longer than a line stays whole, to be copied."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def rows(figures: Iterable[tuple[str, str]], width: int = WIDTH) -> Iterable[str]:
    """Labels in one column, texts in another, long texts wrapped under their own beginning."""
    for label, text in figures:
        yield from textwrap.wrap(
            text,
            width,
            initial_indent=f"  {label:<{LABEL_WIDTH}}",
            subsequent_indent=" " * (LABEL_WIDTH + 2),
            break_long_words=False,
            break_on_hyphens=False,
        )


def notes(notes: Sequence[str], width: int = WIDTH) -> Iterable[str]:
    """The notes below the figures, each wrapped."""
    if notes:
        yield ""
    for note in notes:
        yield from textwrap.wrap(
            note,
            width,
            initial_indent="  Note: ",
            subsequent_indent="        ",
            break_long_words=False,
            break_on_hyphens=False,
        )
