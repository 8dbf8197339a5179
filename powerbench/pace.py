"""Where a run stands: stage, steps, pace and time left, from the marks as they come."""

from __future__ import annotations

from typing import Literal, NamedTuple

from powerbench.records import RunRecord
from powerbench.rundir.journal import Journal
from powerbench.units import seconds_from_ns

Stage = Literal["idle", "starting", "warm-up", "measuring", "tail", "profiling", "stopping"]


class Progress(NamedTuple):
    """Where a run stands. `step_s` is the pace since the last report; None while there is none."""

    record: RunRecord
    stage: Stage
    done: int
    total: int
    step_s: float | None
    left_s: float | None


class Pace:
    """How fast the steps come and how long the rest will take, from the marks as they stand."""

    def __init__(self) -> None:
        self._seen: tuple[int, int] | None = None  # the steps of the last report that had news, and when it was
        self._step_s: float | None = None
        self._window_ns: int | None = None

    def progress(self, record: RunRecord, journal: Journal, *, started: bool, stopping: bool) -> Progress:
        """Where the run stands now: whether there is a worker yet, and whether it has been asked to stop."""
        cell = record.built_in
        done = max(0, journal.marks.look() - 1)
        last_ns = journal.marks.last_ns()
        if stopping or not started or last_ns is None:
            stage: Stage = "stopping" if stopping else "starting" if started else "idle"
            return Progress(record, stage, 0, cell.steps, None, None)
        self._update(done, last_ns)
        if done < cell.warmup:
            return self._at(record, "warm-up", done, cell.warmup, before=cell.warmup - done, left=cell.steps)
        if journal.event("profiler") is not None:
            return Progress(record, "profiling", done, done, None, None)
        self._window_ns = self._window_ns or last_ns
        if journal.measured is not None and record.tail_s:
            return self._at(record, "tail", journal.measured, journal.measured, left=0)
        measured = done - cell.warmup
        return self._at(record, "measuring", measured, max(cell.steps, measured), left=max(0, cell.steps - measured))

    def _update(self, done: int, now_ns: int) -> None:
        before, then_ns = self._seen or (0, 0)
        if self._seen is None or done > before:
            if self._seen is not None:
                self._step_s = seconds_from_ns(now_ns - then_ns) / (done - before)
            self._seen = done, now_ns

    def _at(self, record: RunRecord, stage: Stage, done: int, total: int, *, left: int, before: int = 0) -> Progress:
        """Progress with the time for `before` steps of warm-up, and `left` measured ones or what min_seconds asks."""
        left_s = None
        if self._step_s is not None and self._seen is not None:
            spent_s = seconds_from_ns(self._seen[1] - self._window_ns) if self._window_ns is not None else 0.0
            at_least_s = 0.0 if stage == "tail" else (record.the_cell.min_seconds or 0) - spent_s
            left_s = before * self._step_s + max(left * self._step_s, at_least_s)
        return Progress(record, stage, done, total, self._step_s, left_s)
