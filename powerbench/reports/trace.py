"""A checked trace as a person reads it: the verdict, the chart, the likely causes, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from powerbench.analysis.checked import Checked
from powerbench.analysis.slowdown import Slowdown
from powerbench.records import RunRecord
from powerbench.reports.chart import Size, chart
from powerbench.reports.command import command_for
from powerbench.reports.lines import notes, rows, wrapped
from powerbench.reports.terminal import headline, machine_line
from powerbench.reports.verdict import causes, figures, is_slower, verdict

# A chart much wider than this says no more, and lines of text are hard to read.
WIDEST, WIDEST_TEXT = 160, 100
# Numbers of steps that make a trace: a slow rise of a few percent is found in so many.
ENOUGH_STEPS = 300
# The same command again would end the same way.
STOPPED_BY_ITSELF = ("oom", "swapping", "unavailable", "failed")


def in_terminal(traces: Sequence[Checked], together: Sequence[str] = (), *, width: int) -> str:
    """The traces one below the other, several each under its name, and what they say together; for so many columns."""
    titled = len(traces) > 1
    parts = ["\n".join([*([f"{it.name}:"] if titled else []), *describe(it, width=width)]) for it in traces]
    parts += ["\n".join(wrapped(sentence, min(width, WIDEST_TEXT))) for sentence in together]
    return "\n\n".join(parts)


def describe(checked: Checked, *, width: int) -> list[str]:
    """The lines about one trace."""
    width = min(width, WIDEST)
    text = min(width, WIDEST_TEXT)
    return [
        *_heading(checked.record, text),
        *wrapped(verdict(checked), text),
        *(["", *drawn] if (drawn := chart(checked, Size(width))) else []),
        *(["", *shown] if (shown := list(rows(figures(checked), text))) else []),
        *causes(checked, text),
        *notes(checked.notes, text),
    ]


def _heading(record: RunRecord | None, width: int) -> Iterator[str]:
    if record is not None:
        yield from wrapped(headline(record), width)
        yield from wrapped(machine_line(record), width)
        yield ""


def next_command(checked: Checked) -> str:
    """What to type next, with a word on why."""
    found, record, name = checked.slowdown, checked.record, shlex.quote(checked.name)
    if record is None:
        return "What a list of latencies cannot show (power, clocks, memory), a trace records: powerbench run --trace"
    if record.loop:
        return _next_of_loop(checked, record, name)
    if not checked.is_judged:
        return f"For a verdict, wait at each step: {command_for(record, sync_every=1)}"
    if found.verdict == "insufficient" and record.status in STOPPED_BY_ITSELF:
        return f"What ended it, and its other figures: powerbench report {name}"
    if found.verdict == "insufficient":
        return f"For a verdict, measure more steps: {command_for(record, steps=ENOUGH_STEPS, trace=True)}"
    if found.verdict == "inconclusive":
        steps = sum(checked.latencies.steps) + (found.more_steps or sum(checked.latencies.steps))
        return f"To settle it, measure longer: {command_for(record, steps=steps, trace=True)}"
    if is_slower(found):
        return f"For a bug report: powerbench trace {name} --format markdown --plot slowdown.png"
    return f"Its other figures: powerbench report {name}"


def _next_of_loop(checked: Checked, record: RunRecord, name: str) -> str:
    """The same for a program's own loop, which no command of ours can run again."""
    found = checked.slowdown
    if not checked.is_judged:
        return "For a verdict, wait at each step: record(sync_every=1)"
    if found.verdict in ("insufficient", "inconclusive") and record.status not in STOPPED_BY_ITSELF:
        return f"For a verdict, record more steps; its other figures: powerbench report {name}"
    if is_slower(found):
        return f"For a bug report: powerbench trace {name} --format markdown --plot slowdown.png"
    return f"Its other figures: powerbench report {name}"


def gate_status(slowdowns: Sequence[Slowdown]) -> int:
    """The exit status of `--fail-on slowdown`: 4 where one is, else 5 where one could not be decided, else 0."""
    verdicts = {found.verdict for found in slowdowns}
    if "slowdown" in verdicts:
        return 4
    return 5 if verdicts & {"no steady state", "inconclusive", "insufficient"} else 0
