"""The operators of a step on disk: a row each, as torch.profiler timed them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from powerbench.records import OperatorTimes


def write_operators(path: Path, times: Iterable[OperatorTimes]) -> None:
    """Write the whole file in one stroke. Raises OSError.

    A kernel's name is C++ and may hold commas and quotes, so this is CSV as the library writes it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(OperatorTimes._fields)
    writer.writerows(map(_written, it) for it in times)
    aside = path.with_name(f"{path.name}.new")
    aside.write_text(text.getvalue(), "utf-8")
    aside.replace(path)


def _written(value: str | float | None) -> str:
    return value if isinstance(value, str) else "" if value is None else format(value, ".9g")


def read_operators(path: Path) -> list[OperatorTimes]:
    """The operators of a step; none where there is no such file. Damaged rows are passed over."""
    try:
        text = path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    rows = csv.reader(io.StringIO(text, newline=""))
    return [times for row in rows if (times := _read(row)) is not None]


def _read(row: list[str]) -> OperatorTimes | None:
    try:
        name, on, calls, cpu_self, cpu_total, device_self, device_total = row
        return OperatorTimes(
            name,
            on,
            float(calls),
            float(cpu_self),
            float(cpu_total),
            float(device_self) if device_self else None,
            float(device_total) if device_total else None,
        )
    except ValueError:  # the header too
        return None
