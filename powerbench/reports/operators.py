"""The operators of a step in words: the longest ones, the others together, and how to read them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from powerbench.analysis.operators import Operator, Operators
from powerbench.reports.layout import GAP, widths_of
from powerbench.units import counted, milliseconds, significant

MOST = 12
SHORTENED = "..."


class OperatorRow(NamedTuple):
    """An operator in a table; what is not known, or has no meaning, is empty."""

    name: str
    calls: str
    ms: str
    share: str
    joules: str


def headings(operators: Operators) -> OperatorRow:
    """What stands above the columns; above that of the joules nothing where there are none."""
    known = any(it.j is not None for it in operators.each)
    return OperatorRow("operator", "calls", "ms", "of the step", "J" if known else "")


def operator_rows(operators: Operators) -> list[OperatorRow]:
    """The longest operators, the others together, and what was outside of all."""
    first, others = operators.each[:MOST], operators.each[MOST:]
    together = [_together(others)] if others else []
    outside = [] if operators.outside is None else [operators.outside]
    return [_row(it) for it in (*first, *together, *outside)]


def _together(others: Sequence[Operator]) -> Operator:
    joules = [it.j for it in others if it.j is not None]
    return Operator(
        name=counted(len(others), "other"),
        calls=sum(it.calls or 0 for it in others),
        ms=sum(it.ms for it in others),
        share=sum(it.share for it in others),
        j=sum(joules) if len(joules) == len(others) else None,
    )


def _row(it: Operator) -> OperatorRow:
    return OperatorRow(
        name=" ".join(it.name.split()),
        calls="" if it.calls is None else f"{it.calls:,.0f}" if it.calls == round(it.calls) else f"{it.calls:,.1f}",
        ms=significant(it.ms),
        share=f"{it.share:.1%}",
        joules="" if it.j is None else significant(it.j),
    )


def operators_explained(operators: Operators) -> str:
    """What the table shows and how far it goes, in sentences."""
    text = (
        f"{counted(operators.steps, 'step')} of {milliseconds(operators.step_ms)}, made under torch.profiler after the "
        "measured ones. "
        f"ms: on the {operators.times_of}, in the operator itself, without those that it calls."
    )
    if not any(it.j is not None for it in operators.each):
        return text
    return f"{text} J: the joules of a measured step by these shares, which is an attribution by time, not a reading."


def operator_lines(operators: Operators, width: int) -> Iterable[str]:
    """The table for a terminal of so many columns, below its sentences; names that are too long are cut."""
    yield from textwrap.wrap(
        f"By operator: {operators_explained(operators)}",
        width,
        initial_indent=GAP,
        subsequent_indent=GAP,
        break_on_hyphens=False,
    )
    yield ""
    table = [headings(operators), *operator_rows(operators)]
    columns = [at for at, heading in enumerate(table[0]) if heading]
    figures = widths_of([row[1:] for row in table])
    room = max(20, width - len(GAP) - sum(len(GAP) + figures[at - 1] for at in columns[1:]))
    names = min(room, max(len(row.name) for row in table))
    for row in table:
        texts = [row[at].rjust(figures[at - 1]) for at in columns[1:]]
        yield (GAP + GAP.join([_cut(row.name, names).ljust(names), *texts])).rstrip()


def _cut(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - len(SHORTENED)] + SHORTENED
