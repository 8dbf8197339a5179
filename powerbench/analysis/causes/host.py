"""Whether Python was the limit: it takes longer to submit a step, and the device waits for it."""

from __future__ import annotations

from statistics import median

from powerbench.analysis.causes.cause import Cause, Finding, Strength, missing, sentence
from powerbench.analysis.causes.load import MOST_OF_IT
from powerbench.analysis.causes.stretches import Change
from powerbench.analysis.recorded import Recorded
from powerbench.records import Window
from powerbench.units import NS_PER_S, milliseconds, significant

# The device ends a step so soon behind Python, in steps, that it must have been waiting for Python.
CLOSE_BEHIND = 0.25


def host_bound(recorded: Recorded, change: Change, *, waits_for: str | None) -> Finding | None:
    """Python took longer to submit a step; `waits_for` is why, where that is known. Never on the cpu, which is both."""
    text = _submission(recorded, change) if recorded.record.the_cell.sync_every == 1 else _lead(recorded, change)
    if text is None:
        return None
    batch = recorded.record.the_cell.batch_size
    twice = "" if batch is None else f" (`--batch-size {2 * batch}`)"
    why = [] if waits_for is None else [f"the record has a reason for it: {waits_for}"]
    cause = Cause(
        cause="host-bound",
        evidence=sentence([f"{text}; what became slower is Python or the processor, and not the device"]) or "",
        counter_evidence=sentence(why),
        not_recorded=missing(["what Python did"], so="a profile would tell"),
        experiment=f"Take a batch twice as large{twice}: where "
        "Python is the limit, a step hardly takes longer. `py-spy record`, on a run of its own, shows where the time "
        "goes.",
    )
    return Finding(Strength.SEEN_WITH_IT if waits_for is None else Strength.GROWS_TOO, cause)


def _submission(recorded: Recorded, change: Change) -> str | None:
    """Where each step is waited for: what of the longer step was its submission."""
    before, after = (_edges(recorded, window) for window in (change.before, change.after))
    if not before or not after:
        return None
    before_s, after_s = (median(submit - start for start, submit, _ in part) / NS_PER_S for part in (before, after))
    if change.extra_s <= 0 or (after_s - before_s) / change.extra_s < MOST_OF_IT:
        return None
    return (
        f"submitting a step took {milliseconds(after_s * 1e3)} of {milliseconds(change.after_s * 1e3)}, before "
        f"{milliseconds(before_s * 1e3)} of {milliseconds(change.before_s * 1e3)}"
    )


def _lead(recorded: Recorded, change: Change) -> str | None:
    """Where nobody waits for the device: how many steps Python was ahead of it."""
    before, after = (_edges(recorded, window) for window in (change.before, change.after))
    if not before or not after:
        return None
    ahead, ahead_after = (
        median(end - submit for _, submit, end in part) / max(1, median(end - start for start, _, end in part))
        for part in (before, after)
    )
    if ahead_after > CLOSE_BEHIND:
        return None
    if ahead <= CLOSE_BEHIND:
        return (
            f"Python was hardly ahead of the device ({significant(ahead_after)} steps, before {significant(ahead)}), "
            f"{change}, so the device waited for it all the time"
        )
    return (
        f"Python was {significant(ahead_after)} steps ahead of the device, before {significant(ahead)}, {change}, so "
        "the device had to wait for it"
    )


def _edges(recorded: Recorded, window: Window) -> list[tuple[int, int, int]]:
    """(start, submit, end) of the steps in the window; none where a step is submitted when it is done."""
    steps = recorded.steps
    found = [
        (start, submit, end)
        for stage, start, submit, end in zip(steps.stage, steps.start_ns, steps.submit_ns, steps.end_ns, strict=True)
        if stage == "step" and end is not None and window.start_ns <= start and end <= window.end_ns
    ]
    return found if any(submit != end for _, submit, end in found) else []
