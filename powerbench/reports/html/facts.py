"""Settings and surroundings of several runs: what is the same in all said once, what differs said with its runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from powerbench.records import RunRecord
from powerbench.units import byte_size, significant

FEW_VALUES = 8
# They move from one minute to the next, so that a difference in them is no finding.
RESTLESS = ("load_1min", "memory_available_bytes", "swap_used_bytes")
LABELS = {
    "batch_size": "batch",
    "ranks": "ranks on each machine",
    "nnodes": "machines",
    "global_batch": "batch of all ranks together",
    "sequence_length": "sequence",
    "min_seconds": "least time, s",
    "max_seconds": "time limit, s",
    "idle_seconds": "rest before the steps, s",
    "sync_every": "steps from wait to wait",
    "sleep_ms": "sleep, ms",
    "load_1min": "load before the run",
    "memory_bytes": "memory",
    "memory_available_bytes": "free memory",
    "swap_bytes": "swap",
    "swap_used_bytes": "used swap",
    "on_battery": "on battery",
    "uuid": "identifier",
    "kind": "device",
    "name": "device's name",
    "anchor_error_ns": "clocks apart at the end, ns",
}
_UNSAID = ("power_from", "device")
# A longer value, such as what a container requires of its driver, would push all that follows out of sight.
LONGEST = 160


@dataclass(frozen=True)
class Difference:
    """A fact in which the runs differ: each value with the numbers of its runs, or what the values range over."""

    label: str
    values: list[tuple[str, list[int]]]
    range: str | None
    restless: bool


@dataclass(frozen=True)
class Facts:
    """What the runs have in common, as (label, value), and what not."""

    same: list[tuple[str, str]]
    differences: list[Difference]


def settings_of(record: RunRecord) -> dict[str, Any]:
    """The settings of the cell, none for a recording of power. Those of None were left to torch, or are no limit."""
    if record.cell is None:
        return {}
    told = msgspec.to_builtins(record.cell)
    limits = told.pop("limits")
    told |= {f"limit of {key.replace('_', ' ')}": value for key, value in limits.items()}
    if record.cell.model != "sleep":
        told.pop("sleep_ms")
    if record.ranks > 1 and record.cell.batch_size is not None:
        told["global_batch"] = record.cell.batch_size * record.ranks
    return {key: value for key, value in told.items() if value is not None and key not in _UNSAID}


def surroundings_of(record: RunRecord) -> dict[str, Any]:
    """Machine, software and device; what the system did not tell is left out."""
    facts = dict(record.environment)
    variables = facts.pop("variables", None) or {}
    told = {**facts, **{f"variable {name}": value for name, value in variables.items()}}
    if record.device is not None:
        told |= {"device": record.device.kind, "name": record.device.name, "timer": record.device.timer}
        told |= {"uuid": record.device.uuid}
    return {key: value for key, value in told.items() if value is not None and value != {} and value != ""}


def compare(facts: Sequence[Mapping[str, Any]], *, missing: Sequence[str | None]) -> Facts:
    """What is the same in all of them and what differs; run number 1 is the first.

    `missing` is what is said of each run that lacks a fact which another has; None: nothing, since it can have none.
    """
    keys = dict.fromkeys(key for its in facts for key in its)
    same: list[tuple[str, str]] = []
    differences: list[Difference] = []
    for key in keys:
        values = _by_value(key, facts, missing)
        if len(values) == 1:
            same.append((label(key), next(iter(values))))
        else:
            differences.append(_difference(key, values, [its[key] for its in facts if key in its]))
    return Facts(same, sorted(differences, key=lambda it: it.restless))


def _by_value(key: str, facts: Iterable[Mapping[str, Any]], missing: Iterable[str | None]) -> dict[str, list[int]]:
    values: dict[str, list[int]] = {}
    for number, (its, without) in enumerate(zip(facts, missing, strict=True), start=1):
        told = in_words(key, its[key]) if key in its else without
        if told is not None:
            values.setdefault(told, []).append(number)
    return values


def _difference(key: str, values: Mapping[str, list[int]], given: Sequence[Any]) -> Difference:
    numbers = [it for it in given if isinstance(it, int | float) and not isinstance(it, bool)]
    many = len(values) > FEW_VALUES or key in RESTLESS
    its_range = None
    if many and len(numbers) == len(given):
        its_range = f"{in_words(key, min(numbers))} to {in_words(key, max(numbers))}"
    elif many:
        its_range = f"{len(values)} different values"
    return Difference(label(key), [] if many else list(values.items()), its_range, key in RESTLESS)


def label(key: str) -> str:
    """A fact's name as a reader would say it."""
    return key if key.startswith("variable ") else LABELS.get(key, key.replace("_", " "))


def in_words(key: str, value: Any) -> str:
    """A fact's value as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "sync_every" and value == 0:
        return "all of them"
    if key.endswith("_bytes") and isinstance(value, int | float):
        return byte_size(value)
    if isinstance(value, float):
        if key in RESTLESS:
            return significant(value)
        return f"{value:,.6g}" if 1e-3 <= abs(value) < 1e6 else f"{value:g}"
    if isinstance(value, int):
        return f"{value:,}"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    rest = len(text) - LONGEST
    return text if rest <= 0 else f"{text[:LONGEST]}\N{HORIZONTAL ELLIPSIS} (and {rest:,} more letters)"


def numbers_in_words(numbers: Sequence[int]) -> str:
    """`1 to 4, 7`: numbers that rise, neighbours drawn together."""
    stretches: list[list[int]] = []
    for number in numbers:
        if stretches and number == stretches[-1][1] + 1:
            stretches[-1][1] = number
        else:
            stretches.append([number, number])
    told = (str(a) if a == b else f"{a}, {b}" if b == a + 1 else f"{a} to {b}" for a, b in stretches)
    return ", ".join(told)
