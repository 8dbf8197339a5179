"""The line on stderr that shows a run at work: rewritten on a terminal, one plain line a stage anywhere else."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from powerbench.units import duration, significant

if TYPE_CHECKING:
    from powerbench.pace import Progress
    from powerbench.records import Cell
    from powerbench.sweep import Standing

TO_START_OF_LINE = "\r"
CLEAR_TO_END_OF_LINE = "\x1b[K"


class ProgressLine:
    """Shows where a run stands.

    In a sweep, `standing` says where that stands, and the line has the time left for the whole in front.

    Written by hand: a live display of a library costs a core a percent of its time, and the steps run on that core.
    """

    def __init__(self, cell: Cell, standing: Standing | None = None) -> None:
        self._what = f"{cell.device} sleep" if cell.model == "sleep" else f"{cell.device} {cell.model} {cell.mode}"
        self._standing = standing
        self._begun_s = time.monotonic()
        self._rewrites = sys.stderr.isatty()
        self._is_heard = True
        self._stage = ""

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._rewrites:
            self._write(TO_START_OF_LINE + CLEAR_TO_END_OF_LINE)

    def show(self, progress: Progress) -> None:
        """Show this state."""
        if self._rewrites:
            width = _columns() - 1
            text = f"{self._subject(progress)} {in_words(progress)}"[:width]
            self._write(TO_START_OF_LINE + text + CLEAR_TO_END_OF_LINE)
        elif progress.stage != self._stage:
            self._write(f"{self._what}: {progress.stage}\n")
        self._stage = progress.stage

    def _subject(self, progress: Progress) -> str:
        """What is measured; in a sweep, which has said it, the number and what is left of the whole."""
        if self._standing is None:
            return f"{self._what}:"
        left_s = whole_left_s(self._standing, progress.left_s, elapsed_s=time.monotonic() - self._begun_s)
        return f"[{self._standing.number} of {self._standing.total}{left_in_words(left_s)}]"

    def _write(self, text: str) -> None:
        if not self._is_heard:
            return
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            self._is_heard = False  # a terminal that was closed ends no measurement


def whole_left_s(standing: Standing, left_s: float | None, *, elapsed_s: float) -> float | None:
    """What is left of a sweep: of the run at work what it says itself, else what was expected, and all after it."""
    if left_s is None and standing.this_s is not None:
        left_s = max(0.0, standing.this_s - elapsed_s)
    return None if left_s is None or standing.after_s is None else left_s + standing.after_s


def left_in_words(left_s: float | None) -> str:
    """`, 12m 05s left`, as it stands behind a number; empty where it is not known."""
    if left_s is None:
        return ""
    return f", {duration(left_s) if left_s >= 9.995 else f'{left_s:.0f}s'} left"


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80


def in_words(progress: Progress) -> str:
    """`measuring step 40 of 100, 812 ms/step, 48s left`: with its device and model it fits into 80 columns."""
    if progress.stage == "idle":
        return "measuring the power of the idle machine"
    node = progress.record.node
    if progress.stage == "starting" and node is not None and node.id is None:
        return f"waiting for the other machines at {node.rendezvous}"
    if progress.stage == "starting":
        is_control = progress.record.the_cell.model == "sleep"
        return "starting" if is_control else "starting (loading torch, building the model)"
    if progress.stage == "stopping":
        return "stopping after the step in flight (Ctrl-C again to stop now)"
    parts = [f"{progress.stage} step {progress.done} of {progress.total}"]
    if progress.step_s is not None:
        parts.append(f"{significant(progress.step_s * 1000)} ms/step")
    if progress.left_s is not None:
        left = duration(progress.left_s) if progress.left_s >= 9.995 else f"{progress.left_s:.0f}s"
        parts.append(f"{left} left")
    return ", ".join(parts)
