"""When a run is stopped: it lives too long, a step does, or the machine swaps instead of computing."""

from __future__ import annotations

from collections.abc import Mapping

from powerbench.endings import Ended
from powerbench.records import LoopCell
from powerbench.units import NS_PER_S, seconds_from_ns


class LimitsGuard:
    """Holds a run against the limits of its cell."""

    def __init__(self, cell: LoopCell, *, start_ns: int) -> None:
        self._cell = cell
        self._start_ns = start_ns
        self._swapped_before: float | None = None

    def over(
        self, *, now_ns: int, last_step_ns: int | None, open_steps: int = 1, gauges: Mapping[str, float]
    ) -> Ended | None:
        """How the run must end now; None where it may go on.

        `last_step_ns` is when the last boundary was reached, None until stepping begins; `open_steps` is how many steps
        have been submitted and not yet been seen to end, each of which has its time.
        """
        limit_s = self._cell.max_seconds
        if limit_s is not None and seconds_from_ns(now_ns - self._start_ns) > limit_s:
            return Ended(
                "timeout", f"it was still running after {limit_s:g} s (max_seconds); allow more or measure less"
            )
        if last_step_ns is None:
            return None
        # macOS tells how much is swapped, not how much was written to swap in all.
        swapped = gauges.get("system.swap_out_bytes", gauges.get("system.swap_used_bytes"))
        reason = self._step_too_long((now_ns - last_step_ns) / max(1, open_steps)) or self._swapping(swapped)
        return None if reason is None else Ended("swapping", reason)

    def _step_too_long(self, step_ns: float) -> str | None:
        limit_s = self._cell.limits.step_seconds
        if limit_s is None or step_ns / NS_PER_S <= limit_s:
            return None
        return f"a step was not over after {limit_s:g} s (limits.step_seconds); take a smaller batch or allow more"

    def _swapping(self, swapped_bytes: float | None) -> str | None:
        limit_mb = self._cell.limits.swap_out_mb
        if swapped_bytes is None or limit_mb is None:
            return None
        if self._swapped_before is None:
            self._swapped_before = swapped_bytes
        out_mb = (swapped_bytes - self._swapped_before) / 1e6
        if out_mb <= limit_mb:
            return None
        return (
            f"the machine wrote {out_mb:,.0f} MB to swap since the first step (limits.swap_out_mb is {limit_mb:g}), "
            "so it was the disk that was measured; take a smaller batch"
        )
