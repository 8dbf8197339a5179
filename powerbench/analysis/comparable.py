"""What may be compared with what: the settings that make a step the same step, and those that may differ and are shown.

A ratio of two different steps means nothing, so it is not computed; a difference in the machine, in torch or in how
the step was run is what one compares for.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from powerbench.analysis.ranks import on_ranks
from powerbench.errors import PowerbenchError
from powerbench.records import Cell, LoopCell, RunRecord
from powerbench.units import byte_size, enumerated, shape

# What says of a loop of one's own which steps it makes.
TOLD = ("mode", "batch_size", "sequence_length", "dtype")
# Equal on both sides, or there is no comparison.
DATA = ("dataset", "text_column", "split", "pad", "include_data")
SAME = ("model", "mode", "weights", "batch_size", "sequence_length", "accumulation", *DATA, "copy", "phases", "ranks")
SAME_IN_TRAINING = ("dropout", "optimizer")
SAME_IN_SLEEP = ("model", "sleep_ms", "ranks")
# Where one side holds several of these, each is compared with its own like.
VARIANTS = ("device", "dtype", "threads", "attention", "compile", "fused", "sync_every")
SHOWN_SETTINGS = (*VARIANTS, "nnodes", "steps", "warmup", "min_seconds", "trace", "batches", "seed", "learning_rate")
# Not how the machine is, but how it stood at the moment.
PASSING = ("load_1min", "memory_available_bytes", "swap_used_bytes")
FIRST_SHOWN = ("device", "device_name", "timer", "processor", "host", "torch", "interpreter", "system", "power_mode")

Key = tuple[tuple[str, Hashable], ...]


class Pair(NamedTuple):
    """The runs of one cell on both sides, by their positions in what was given."""

    key: Key
    a: list[int]
    b: list[int]


class Unmatched(NamedTuple):
    """Runs of one side, by their positions, that have no counterpart on the other, and why."""

    key: Key
    side: Literal["A", "B"]
    runs: list[int]
    reason: str


def key_of(record: RunRecord) -> Key:
    """The settings in which two runs must agree."""
    cell = record.the_cell
    names = SAME_IN_SLEEP if cell.model == "sleep" else SAME
    if cell.mode == "training" and cell.model != "sleep":
        names = (*names, *SAME_IN_TRAINING)
    settings = msgspec.structs.asdict(cell) | {"ranks": record.ranks}
    return tuple((name, settings[name]) for name in names if name in settings)


def match(a: Sequence[RunRecord], b: Sequence[RunRecord]) -> tuple[list[Pair], list[Unmatched]]:
    """The cells that both sides hold, in A's order, and what only one of them holds.

    Raises PowerbenchError where there is no common cell; it names the keys in which the nearest two differ.
    """
    groups_a, groups_b = _grouped(a), _grouped(b)
    pairs: list[Pair] = []
    unmatched: list[Unmatched] = []
    for key, variants_a in groups_a.items():
        variants_b = groups_b.get(key, {})
        if len(variants_a) == 1 and len(variants_b) == 1:  # in what they differ is what is compared
            pairs.append(Pair(key, *variants_a.values(), *variants_b.values()))
            continue
        pairs += [Pair(key, runs, variants_b[variant]) for variant, runs in variants_a.items() if variant in variants_b]
        unmatched += _alone(key, "A", variants_a, variants_b)
        unmatched += _alone(key, "B", variants_b, variants_a)
    for key in groups_b.keys() - groups_a.keys():
        unmatched += _alone(key, "B", groups_b[key], {})
    if not pairs:
        raise PowerbenchError(_why_nothing_matches(groups_a, groups_b))
    return pairs, unmatched


def _grouped(records: Sequence[RunRecord]) -> dict[Key, dict[Key, list[int]]]:
    """Positions by key, and within it by variant."""
    groups: dict[Key, dict[Key, list[int]]] = {}
    for at, record in enumerate(records):
        variant = tuple((name, getattr(record.the_cell, name)) for name in VARIANTS)
        groups.setdefault(key_of(record), {}).setdefault(variant, []).append(at)
    return groups


def _alone(
    key: Key, side: Literal["A", "B"], these: Mapping[Key, list[int]], those: Mapping[Key, list[int]]
) -> Iterator[Unmatched]:
    other = "B" if side == "A" else "A"
    for variant, runs in these.items():
        if variant not in those:
            nearest = min((differing(variant, theirs) for theirs in those), key=len, default=[])
            why = (
                f"there is none in {other}" if not nearest else f"{other} has it only with other {enumerated(nearest)}"
            )
            yield Unmatched(key, side, runs, why)


def _why_nothing_matches(a: Mapping[Key, Mapping[Key, list[int]]], b: Mapping[Key, Mapping[Key, list[int]]]) -> str:
    both = [key for key in a if key in b]
    if both:
        names = differing(*(_merged(side[both[0]]) for side in (a, b)))
        return (
            f"A and B hold the same cell several times over, with different {enumerated(names)}, and it is open which "
            "to compare with which: name folders that hold one of them."
        )
    key_a, key_b = min(((x, y) for x in a for y in b), key=lambda keys: len(differing(*keys)))
    of_a, of_b = dict(key_a), dict(key_b)
    told = ", ".join(
        f"{name} is {_written(of_a.get(name))} in A and {_written(of_b.get(name))} in B"
        for name in differing(key_a, key_b)
    )
    return f"A and B cannot be compared: {told}. Measure both alike in this; a ratio of different steps means nothing."


def _merged(variants: Mapping[Key, list[int]]) -> Key:
    return tuple((name, tuple(dict.fromkeys(dict(variant)[name] for variant in variants))) for name in VARIANTS)


def differing(a: Key, b: Key) -> list[str]:
    """The names that have not the same value in both."""
    of_a, of_b = dict(a), dict(b)
    return [name for name in dict.fromkeys([*of_a, *of_b]) if of_a.get(name) != of_b.get(name)]


def what_differs(a: Sequence[RunRecord], b: Sequence[RunRecord]) -> dict[str, tuple[list[str], list[str]]]:
    """The facts that are not one and the same in all runs: what they are in A, and what in B."""
    facts_a, facts_b = [facts(record) for record in a], [facts(record) for record in b]
    names = dict.fromkeys([*FIRST_SHOWN, *(name for each in (*facts_a, *facts_b) for name in sorted(each))])
    differs = {}
    for name in names:
        of_a, of_b = ([*dict.fromkeys(each.get(name, "unknown") for each in side)] for side in (facts_a, facts_b))
        if len({*of_a, *of_b}) > 1:
            differs[name] = (of_a, of_b)
    if "torch" in differs:
        differs.pop("torch_git", None)
    return differs


def facts(record: RunRecord) -> dict[str, str]:
    """What a run's figures may depend on beside the key, each as a person reads it."""
    found: dict[str, Any] = {name: getattr(record.the_cell, name) for name in SHOWN_SETTINGS}
    found["threads"] = None  # what torch took stands in the environment
    environment = {name: value for name, value in record.environment.items() if name not in PASSING}
    variables = environment.pop("variables", None) or {}
    found |= environment
    found |= variables
    for name in ("memory_bytes", "swap_bytes"):
        if found.get(name) is not None:
            found[name] = byte_size(found[name])
    if record.loop and record.workload is not None:  # of the built-in one they follow from the key
        found["parameters"] = record.workload.parameters
    if record.device is not None:
        found |= {"device_name": record.device.name, "timer": record.device.timer}
    found["meters"] = ", ".join(sorted({rail.source for rail in record.rails.values()})) or "none"
    return {name: _written(value) for name, value in found.items() if value is not None}


def is_one_device(a: Sequence[RunRecord], b: Sequence[RunRecord]) -> bool:
    """Whether all of these ran on one and the same device, as far as the records tell."""
    return len({_device(record) for record in (*a, *b)}) == 1


def _device(record: RunRecord) -> tuple[Any, ...]:
    device = record.device
    known = (device.kind, device.name, device.uuid) if device else (record.the_cell.device,)
    return (*known, record.environment.get("processor"), record.environment.get("host"))


def in_words(cell: LoopCell) -> str:
    """`bert-tiny, inference, batch 2 x sequence 16`."""
    if cell.model == "sleep":
        return f"sleep, {cell.sleep_ms:g} ms a step{on_ranks(cell)}"
    return ", ".join(filter(None, (cell.model, cell.mode, shape(cell.batch_size, cell.sequence_length)))) + on_ranks(
        cell
    )


def untold(cell: LoopCell) -> list[str]:
    """What a program did not tell of its steps; of the built-in loop all is known."""
    return [] if isinstance(cell, Cell) else [name for name in TOLD if getattr(cell, name) is None]


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "not set" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
