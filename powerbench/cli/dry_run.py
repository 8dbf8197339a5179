"""`powerbench run --dry-run`: the cells in the order in which they would be measured, and how long they take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from powerbench.cli.measuring import resolved
from powerbench.cli.names import Names
from powerbench.errors import Unavailable
from powerbench.records import Cell, Status
from powerbench.units import counted, duration

if TYPE_CHECKING:
    from powerbench.rundir.sweeps import Measurement


class Planned(Struct, frozen=True, kw_only=True):
    """A measurement to come, or one that has been made, which has a `status`, or cannot be, which has a `reason`.

    `command` measures this cell alone, here or on another machine.
    `as_before_s` is what this very cell took when it was last measured; None where it never was. `as_alike_s` is what
    the most similar cell took, in proportion to the work; None where there is none. `at_least_s` and `at_most_s` are
    what its settings say; None where they say nothing.
    """

    number: int
    repeat: int
    interpreter: str | None = None
    command: str
    cell: Cell
    status: Status | None = None
    reason: str | None = None
    as_before_s: float | None = None
    as_alike_s: float | None = None
    at_least_s: float | None = None
    at_most_s: float | None = None


def planned(measurements: Sequence[Measurement], output: Path, *, retry: Sequence[Status]) -> list[Planned]:
    """A row for each measurement. Raises UsageError for a cell that makes no sense."""
    import msgspec

    from powerbench.forecast import Forecast, at_least_s, runs_in
    from powerbench.reports.command import command_of
    from powerbench.sweep import pending

    forecast, to_do = Forecast(runs_in(output)), set(pending(measurements, retry=retry))
    rows = []
    for at, one in enumerate(measurements):
        row = Planned(
            number=at + 1,
            repeat=one.repeat,
            interpreter=one.interpreter,
            command=command_of(one.cell),
            cell=one.cell,
            status=one.status,
            reason=one.reason,
        )
        if at in to_do:
            try:
                cell = resolved(one.cell)
            except Unavailable as error:
                row = msgspec.structs.replace(row, status=None, reason=str(error))
            else:
                row = msgspec.structs.replace(
                    row,
                    cell=cell,
                    status=None,
                    reason=None,
                    as_before_s=forecast.seconds_as_before(cell),
                    as_alike_s=None if forecast.seconds_as_before(cell) is not None else forecast.seconds(cell),
                    at_least_s=at_least_s(cell) or None,
                    at_most_s=cell.max_seconds,
                )
        rows.append(row)
    return rows


def as_table(rows: Sequence[Planned], names: Names, *, cooldown_seconds: float) -> str:
    """A line for each, and the sum below."""
    called = [names.of(row.cell, row.repeat, row.interpreter) for row in rows]
    width, digits = max(map(len, called)), len(str(len(rows)))
    lines = [f"{row.number:>{digits}}  {name:<{width}}  {_takes(row)}" for row, name in zip(rows, called, strict=True)]
    return "\n".join([*lines, "", _sum([row for row in rows if _is_to_come(row)], cooldown_seconds)])


def _is_to_come(row: Planned) -> bool:
    return row.status is None and row.reason is None


def _takes(row: Planned) -> str:
    if row.status is not None:
        return f"done: {row.status}"
    if row.reason is not None:
        return f"cannot be measured: {row.reason}"
    if row.as_before_s is not None:
        return f"about {duration(row.as_before_s)}"
    if row.as_alike_s is not None:
        return f"perhaps {duration(row.as_alike_s)}"
    least = f"at least {duration(row.at_least_s)}" if row.at_least_s is not None else ""
    most = f"at most {duration(row.at_most_s)}" if row.at_most_s is not None else ""
    return ", ".join(part for part in (least, most) if part) or "not measured before"


def _sum(rows: Sequence[Planned], cooldown_seconds: float) -> str:
    if not rows:
        return "Nothing is left to be measured."
    text = f"{counted(len(rows), 'measurement')}: {_whole(rows)}"
    if cooldown_seconds and len(rows) > 1:
        text += f", and {counted(len(rows) - 1, 'pause')} of at most {duration(cooldown_seconds)}"
    if any(row.as_alike_s is not None for row in rows):
        text += ".\nPerhaps: as long as a similar cell took on this machine, in proportion to the work"
    return f"{text}."


def _whole(rows: Sequence[Planned]) -> str:
    """The sum of all, as well as it is known."""
    known_s = [row.as_alike_s if row.as_before_s is None else row.as_before_s for row in rows]
    seconds = sum((row.at_least_s or 0.0) if it is None else it for it, row in zip(known_s, rows, strict=True))
    if not seconds:
        return "how long that takes is not known yet"
    if None in known_s:
        return f"at least {duration(seconds)}"
    return f"{'about' if all(row.as_before_s is not None for row in rows) else 'perhaps'} {duration(seconds)}"
