"""Where a run stands: stage, steps, pace and time left, from the marks as they come."""

from __future__ import annotations

from typing import Literal, NamedTuple

from powerbench.records import RunRecord
from powerbench.rundir.journal import Journal
from powerbench.units import seconds_from_ns


class Progress(NamedTuple):
    """Where a run stands. `step_s` is the pace since the last report; None while there is none."""

    record: RunRecord
    stage: Literal["idle", "starting", "warm-up", "measuring", "tail"]
    done: int
    total: int
    step_s: float | None
    left_s: float | None


class Pace:
    """How fast the steps come and how long the rest will take, from the marks as they stand."""

    def __init__(self, record: RunRecord) -> None:
        self._record = record
        self._seen = (0, 0)
        self._step_s: float | None = None
        self._window_ns: int | None = None

    def progress(self, journal: Journal, *, started: bool) -> Progress:
        """Where the run stands now; `started` says whether there is a worker yet."""
        cell = self._record.cell
        if not started:
            return Progress(self._record, "idle", 0, cell.steps, None, None)
        done = max(0, journal.marks.look() - 1)
        last_ns = journal.marks.last_ns()
        if last_ns is None:
            return Progress(self._record, "starting", 0, cell.steps, None, None)
        self._update(done, last_ns)
        if done < cell.warmup:
            return self._at("warm-up", done, cell.warmup, cell.warmup - done + cell.steps)
        self._window_ns = self._window_ns or last_ns
        if journal.measured is not None and self._record.tail_s:
            return self._at("tail", journal.measured, journal.measured, 0)
        measured = done - cell.warmup
        return self._at("measuring", measured, max(cell.steps, measured), max(0, cell.steps - measured))

    def _update(self, done: int, now_ns: int) -> None:
        steps, since_ns = done - self._seen[0], now_ns - self._seen[1]
        if steps > 0:
            if self._seen[1]:
                self._step_s = seconds_from_ns(since_ns) / steps
            self._seen = (done, now_ns)

    def _at(self, stage: Literal["warm-up", "measuring", "tail"], done: int, total: int, left: int) -> Progress:
        left_s = None if self._step_s is None else left * self._step_s
        if left_s is not None and stage == "measuring" and self._window_ns is not None:
            spent_s = seconds_from_ns(self._seen[1] - self._window_ns)
            left_s = max(left_s, (self._record.cell.min_seconds or 0) - spent_s)
        return Progress(self._record, stage, done, total, self._step_s, left_s)
