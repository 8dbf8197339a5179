"""A checked trace as a person reads it: the verdict, the chart, the likely causes, and what to type next."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Sequence

from powerbench.analysis.causes import Cause
from powerbench.analysis.checked import Checked, Explained
from powerbench.analysis.slowdown import Slowdown, Spikes, sentence
from powerbench.records import RunRecord
from powerbench.reports.chart import Size, chart
from powerbench.reports.command import command_for
from powerbench.reports.terminal import headline, machine_line, rows
from powerbench.units import counted, milliseconds

# A chart much wider than this says no more, and lines of text are hard to read.
WIDEST, WIDEST_TEXT = 160, 100
NOT_JUDGED = (
    "No verdict: the device was waited for at both ends only, so what the single steps took is not known. "
    "Below is what a script that never waits for the device sees, which is when its steps were submitted."
)
NO_CAUSE = "not recorded; nothing that stands beside the steps speaks for one."
# Numbers of steps that make a trace: a slow rise of a few percent is found in so many.
ENOUGH_STEPS = 300


def in_terminal(traces: Sequence[Checked], together: Sequence[str] = (), *, width: int) -> str:
    """The traces one below the other, several each under its name, and what they say together; for so many columns."""
    titled = len(traces) > 1
    parts = ["\n".join([*([f"{it.name}:"] if titled else []), *describe(it, width=width)]) for it in traces]
    parts += ["\n".join(textwrap.wrap(sentence, min(width, WIDEST_TEXT))) for sentence in together]
    return "\n\n".join(parts)


def describe(checked: Checked, *, width: int) -> list[str]:
    """The lines about one trace."""
    width = min(width, WIDEST)
    text = min(width, WIDEST_TEXT)
    return [
        *_heading(checked.record, text),
        *textwrap.wrap(verdict(checked), text),
        "",
        *chart(checked, Size(width)),
        "",
        *rows(figures(checked), text),
        *causes(checked.slowdown, text),
    ]


def _heading(record: RunRecord | None, width: int) -> Iterator[str]:
    if record is not None:
        yield from textwrap.wrap(headline(record), width)
        yield from textwrap.wrap(machine_line(record), width)
        yield ""


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
        yield "Set aside", f"the first {counted(found.warmup_steps, 'step')}, which were slower (warm-up)"
    if found.spikes is not None and found.spikes.count:
        yield "Spikes", spikes_in_words(found.spikes)
    if found.unusable:
        yield "Left out", f"{found.unusable:,} latencies that are no measurements (not above zero)"
    coarsest = max(checked.latencies.steps, default=1)
    if checked.is_judged and coarsest > 1:
        yield "Blocks", f"the device was waited for at each {coarsest}th step, so latencies are means of so many"


def steady_state(found: Slowdown) -> Iterator[tuple[str, str]]:
    """The latency of the steady state with its interval, or that there is none, and what it was at both ends."""
    if found.steady_s is not None and found.steady_ci99_s is not None:
        low, high = (milliseconds(each * 1000) for each in found.steady_ci99_s)
        yield "Steady state", f"{milliseconds(found.steady_s * 1000)} a step (99% CI {low} to {high})"
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


def causes(found: Explained, width: int) -> Iterator[str]:
    """The causes that the record speaks for, each with what speaks for and against it; or that it speaks for none."""
    for at, cause in enumerate(found.causes):
        yield ""
        yield from textwrap.wrap(f"{'Likely' if at == 0 else 'Less likely'} cause: {cause.cause}", width)
        yield from rows(arguments(cause), width)
    if not found.causes and is_to_explain(found):
        yield ""
        yield from textwrap.wrap(
            "Cause: not recorded. Nothing that was recorded beside the steps speaks for one.", width
        )


def arguments(cause: Cause) -> Iterator[tuple[str, str]]:
    """Label and text of what is to be said of a cause."""
    yield "For it", cause.evidence
    if cause.counter_evidence is not None:
        yield "Against it", cause.counter_evidence
    if cause.not_recorded is not None:
        yield "Not recorded", cause.not_recorded
    yield "To confirm", cause.experiment


def is_to_explain(found: Slowdown) -> bool:
    """Whether the verdict is one that has a cause."""
    return found.verdict in ("slowdown", "speedup", "no steady state")


def next_command(checked: Checked) -> str:
    """What to type next, with a word on why."""
    found, record, name = checked.slowdown, checked.record, shlex.quote(checked.name)
    if record is None:
        return "What a list of latencies cannot show (power, clocks, memory), a trace records: powerbench run --trace"
    if not checked.is_judged:
        return f"For a verdict, wait at each step: {command_for(record, sync_every=1)}"
    if found.verdict == "insufficient":
        return f"For a verdict, measure more steps: {command_for(record, steps=ENOUGH_STEPS, trace=True)}"
    if found.verdict == "inconclusive":
        steps = sum(checked.latencies.steps) + (found.more_steps or sum(checked.latencies.steps))
        return f"To settle it, measure longer: {command_for(record, steps=steps, trace=True)}"
    if is_to_explain(found):
        return f"For a bug report: powerbench trace {name} --format markdown --plot slowdown.png"
    return f"Its other figures: powerbench report {name}"


def gate_status(slowdowns: Sequence[Slowdown]) -> int:
    """The exit status of `--fail-on slowdown`: 4 where one is, else 5 where one could not be decided, else 0."""
    verdicts = {found.verdict for found in slowdowns}
    if "slowdown" in verdicts:
        return 4
    return 5 if verdicts & {"no steady state", "inconclusive", "insufficient"} else 0
