"""What was found in a trace, in words: the verdict, its figures, and the likely causes with what speaks for them."""

from __future__ import annotations

from collections.abc import Iterator

from powerbench.analysis.causes import Cause
from powerbench.analysis.checked import Checked
from powerbench.analysis.sentences import set_aside, steady
from powerbench.analysis.slowdown import Slowdown, Spikes, sentence
from powerbench.reports.lines import rows, wrapped
from powerbench.units import counted, milliseconds

NOT_JUDGED = (
    "No verdict: the device was waited for at both ends only, so what the single steps took is not known. "
    "Below is what a script that never waits for the device sees, which is when its steps were submitted."
)


def verdict(checked: Checked) -> str:
    """The verdict in one sentence."""
    return sentence(checked.slowdown) if checked.is_judged else NOT_JUDGED


def figures(checked: Checked) -> Iterator[tuple[str, str]]:
    """Label and text of each line below the chart."""
    found, record = checked.slowdown, checked.record
    if record is not None and record.status != "complete":
        yield "Status", f"{record.status}: {record.reason}" if record.reason else record.status
    yield from steady_state(found)
    if found.warmup_steps:
        yield "Set aside", f"the {set_aside(found)} (warm-up)"
    if found.spikes is not None and found.spikes.count:
        yield "Spikes", spikes_in_words(found.spikes)
    if found.unusable:
        yield "Left out", f"{found.unusable:,} of {found.n:,} latencies, which are no measurements (not above zero)"
    coarsest = max(checked.latencies.steps, default=1)
    if checked.is_judged and coarsest > 1:
        yield "Blocks", f"the device was waited for at each {coarsest}th step, so latencies are means of so many"


def steady_state(found: Slowdown) -> Iterator[tuple[str, str]]:
    """The latency of the steady state with its interval, or that there is none, and what it was at both ends."""
    if (level := steady(found)) is not None:
        yield "Steady state", level
    elif found.first_s is not None and found.last_s is not None:
        first, last = milliseconds(found.first_s * 1000), milliseconds(found.last_s * 1000)
        no = "steady state not certain" if found.verdict == "inconclusive" else "no steady state"
        yield "Latency", f"{no}: first {first}, last {last} a step (tenths of the run)"


def spikes_in_words(spikes: Spikes) -> str:
    """`3 isolated slow steps, 1.2% of the time; ...`: counted, since the verdict is about all the other steps."""
    text = counted(spikes.count, "isolated slow step")
    if spikes.share_of_time is not None:
        text += f", {spikes.share_of_time:.1%} of the time"
    if spikes.first_third is not None and spikes.last_third is not None:
        text += f"; {spikes.first_third:.1%} of the steps of the first third, {spikes.last_third:.1%} of the last"
    return text


def causes(checked: Checked, width: int) -> Iterator[str]:
    """The causes that the record speaks for, each with what speaks for and against it; or that it speaks for none."""
    found = checked.slowdown
    for at, cause in enumerate(found.causes):
        yield ""
        yield f"{'Likely cause' if at == 0 else 'Less likely'}: {cause.cause}"
        yield from rows(arguments(cause), width)
    if not found.causes and is_slower(found):
        yield ""
        yield from wrapped(checked.unexplained, width)


def arguments(cause: Cause) -> Iterator[tuple[str, str]]:
    """Label and text of what is to be said of a cause."""
    yield "For it", cause.evidence
    if cause.counter_evidence is not None:
        yield "Against it", cause.counter_evidence
    if cause.not_recorded is not None:
        yield "Left open", cause.not_recorded
    yield "To confirm", cause.experiment


def is_slower(found: Slowdown) -> bool:
    """Whether the verdict is one that asks for a cause."""
    return found.verdict in ("slowdown", "no steady state")
