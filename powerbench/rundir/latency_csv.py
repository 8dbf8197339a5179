"""A CSV of latencies from any tool: one numeric column, whose name may say its unit."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from powerbench.errors import PowerbenchError
from powerbench.rundir import RECORD

PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
UNITS = {"s": "s", "sec": "s", "seconds": "s", "ms": "ms", "us": "us", "µs": "us", "ns": "ns"}
# `latency_ms`, `Latency (ms)`, `time [us]`, `ms`: a unit that is overlooked makes all a thousand times too long.
UNIT = re.compile(rf"(?:^|[\s_(\[.-])({'|'.join(UNITS)})[)\]]?$", re.IGNORECASE)
LATENCY = re.compile(r"latency(?![a-z])", re.IGNORECASE)
DELIMITERS = ",;\t"
# No step took thirty years; what is larger has another unit, or none.
LARGEST_S = 1e9


class ForeignLatencies(NamedTuple):
    """Seconds a step, in order; `unit` is the one they were read in, and `is_named` whether the column names it."""

    seconds: list[float]
    unit: str
    is_named: bool


def read_latencies(path: Path) -> ForeignLatencies:
    """The latencies in a CSV, with a header or without.

    A column called `latency_s`, `_ms`, `_us` or `_ns` is in that unit, any other in seconds. Columns of text may stand
    beside it, and of numbers where it is the one called latency. Raises PowerbenchError that says what is wrong, and
    where.
    """
    rows = _rows(path)
    if not rows:
        raise PowerbenchError(f"{path} is empty: give a CSV with one latency a line.")
    width = len(rows[0][1])
    for line, row in rows:
        if len(row) != width:
            raise _no_csv(path, f"line {line} has {len(row)} columns, and the first {width}")
    header, body = _split(rows)
    at = _numeric_column(path, header, body)
    unit = UNIT.search(header[at].strip()) if header else None
    name = UNITS[unit[1].lower()] if unit else "s"
    seconds = [_latency(path, line, row[at], PER_SECOND[name]) for line, row in body]
    return ForeignLatencies(seconds, name, unit is not None)


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """The rows that are not blank, with their line numbers."""
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _no_csv(path, "it is no text in UTF-8") from error
    except OSError as error:
        raise PowerbenchError(f"Cannot read {path}: {error.strerror}; check the path.") from error
    if "\0" in text:
        raise _no_csv(path, "it is no text")
    lines = text.splitlines()
    first = next((line for line in lines if line.strip()), "")
    delimiter = next((each for each in DELIMITERS if each in first), ",")
    try:
        reader = csv.reader(lines, delimiter=delimiter)
        return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise _no_csv(path, str(error)) from error


def _no_csv(path: Path, why: str) -> PowerbenchError:
    return PowerbenchError(f"{path} is not a CSV of latencies: {why}; give one latency a line.")


def _split(rows: Sequence[tuple[int, list[str]]]) -> tuple[list[str], Sequence[tuple[int, list[str]]]]:
    """The header, empty where there is none, and the rows behind it: a first row with a number in it is no header."""
    _, first = rows[0]
    return ([], rows) if any(_number(cell) is not None for cell in first) else (first, rows[1:])


def _numeric_column(path: Path, header: Sequence[str], body: Sequence[tuple[int, list[str]]]) -> int:
    """The one column that begins with a number."""
    if not body:
        raise PowerbenchError(f"{path} holds no latency but only the header: give one latency a line.")
    line, first = body[0]
    numeric = [at for at, cell in enumerate(first) if _number(cell) is not None]
    called = [at for at in numeric if header and LATENCY.match(header[at].strip())]
    if len(called) == 1:
        return called[0]
    if len(numeric) > 1:
        names = " and ".join(header[at].strip() if header else f"column {at + 1}" for at in numeric[:2])
        part = f" (it is part of a run: name its folder, {path.parent})" if (path.parent / RECORD).exists() else ""
        raise PowerbenchError(
            f"{path} has {len(numeric)} numeric columns ({names}{', ...' if len(numeric) > 2 else ''}){part}; "
            "leave only the one with the latencies."
        )
    if not numeric:
        raise _no_csv(path, f"line {line} holds no number")
    return numeric[0]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _latency(path: Path, line: int, cell: str, per_second: float) -> float:
    """In seconds, of a number that counts so many a second."""
    value = _number(cell)
    if value is None:
        shown = repr(cell.strip()) if cell.strip() else "nothing"
        raise _no_csv(path, f"line {line} holds {shown} where the latencies are")
    if not math.isfinite(value) or not 0 <= value <= LARGEST_S * per_second:
        raise PowerbenchError(
            f"{path} holds {cell.strip()} in line {line}, which is no latency: mend the line or take it out."
        )
    return value / per_second
