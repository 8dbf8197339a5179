"""Two sets of runs compared as a whole: cell by cell, what differs, and what was left out and why."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from msgspec import Struct

from powerbench.analysis.comparable import Unmatched, in_words, is_one_device, key_of, match, untold, what_differs
from powerbench.analysis.compare import (
    Ratio,
    Ratios,
    compare_processes,
    geometric_mean,
    has_any_energy,
)
from powerbench.analysis.process import Process, process_of
from powerbench.analysis.recorded import hosts_of
from powerbench.analysis.slowdown import FEWEST
from powerbench.errors import PowerbenchError
from powerbench.records import IN_WORDS, RunRecord, Status
from powerbench.rundir.load import Run
from powerbench.units import counted, enumerated

# What a cell can come to on both sides alike: no figure, and none to be had.
SAME_ENDINGS: tuple[Status, ...] = ("oom", "swapping", "timeout", "unavailable")

INSTRUMENTED = (
    "py-spy stopped the worker at each look (--py-spy), so these are not the latency and the joules of the cell; "
    "measure it without"
)

TAKING_TURNS = "Cells of one sweep, and the two interpreters of `powerbench run --against`, are measured in turns."

Outcome = Literal["passed", "regressed", "inconclusive", "could not measure"]


class Compared(Struct, frozen=True, kw_only=True):
    """One cell on both sides; `cell` holds the settings that are equal, `processes` the number of runs in A and B.

    `is_metered`: whether a run of either side has joules.
    """

    cell: dict[str, Any]
    title: str
    processes: tuple[int, int]
    is_metered: bool
    latency_ms: Ratio | None
    samples_per_s: Ratio | None
    j_per_step: Ratio | None
    energy_reason: str | None


class NotCompared(Struct, frozen=True, kw_only=True):
    """Runs of a cell that are in no ratio: of side A, B or both, and why.

    `is_gap`: A gate misses them. No gap: a cell that is new in B, one that both sides found beyond them in the same
    way, and a run beside others of its cell that are complete.
    """

    cell: dict[str, Any]
    title: str
    side: Literal["A", "B", "both"]
    runs: list[str]
    reason: str
    is_gap: bool


class Gate(Struct, frozen=True, kw_only=True):
    """What `--fail-above` comes to; `reasons` name the cells, the worst first."""

    fail_above: float
    outcome: Outcome
    reasons: list[str]


class Comparison(Struct, frozen=True, kw_only=True):
    """The object that `compare --json` prints, keys in its order. Ratios are B over A."""

    a: str
    b: str
    threshold: float
    cells: list[Compared]
    geometric_mean: Ratios | None
    differs: dict[str, tuple[list[str], list[str]]]
    not_compared: list[NotCompared]
    notes: list[str]
    gate: Gate | None = None


class _Kept(NamedTuple):
    """What is kept of a run of steps: where it stands in what was given, and all but its steps and curves."""

    at: int
    path: Path
    record: RunRecord


class _Side(NamedTuple):
    """One side: its runs, read when they are come to, since ten thousand would fill the memory."""

    name: str
    runs: Sequence[Run]
    kept: list[_Kept]
    instrumented: list[_Kept]

    def records(self) -> list[RunRecord]:
        return [it.record for it in self.kept]

    def processes(self, of: Iterable[_Kept]) -> list[Process]:
        runs = (self.runs[it.at] for it in of)
        return [process_of(run.record, run.together, run.curves(), hosts_of(run)) for run in runs]


class _Cell(NamedTuple):
    """A cell that both sides have measured."""

    compared: Compared
    records: tuple[list[RunRecord], list[RunRecord]]
    processes: tuple[list[Process], list[Process]]


def compare_runs(a: Sequence[Run], b: Sequence[Run], *, names: tuple[str, str], threshold: float) -> Comparison:
    """B against A. Raises PowerbenchError, which names the keys, where they have no cell in common.

    Each run is asked for twice at most, and the steps of one alone are in memory.
    """
    side_a, side_b = (_side(name, runs) for name, runs in zip(names, (a, b), strict=True))
    _refuse_the_same(side_a, side_b)
    pairs, unmatched = match(side_a.records(), side_b.records())
    cells: list[_Cell] = []
    missing = [*_instrumented("A", side_a), *_instrumented("B", side_b)]
    missing += [_left_alone(one, side_a if one.side == "A" else side_b) for one in unmatched]
    for pair in pairs:
        of_a, of_b = ([side.kept[at] for at in found] for side, found in ((side_a, pair.a), (side_b, pair.b)))
        missing += _left_out(pair.key, of_a, of_b)
        of_a, of_b = ([it for it in kept if it.record.status == "complete"] for kept in (of_a, of_b))
        if of_a and of_b:
            records = [it.record for it in of_a], [it.record for it in of_b]
            processes = side_a.processes(of_a), side_b.processes(of_b)
            cells.append(_Cell(_compared(dict(pair.key), records[0][0], processes, threshold), records, processes))
    return Comparison(
        a=names[0],
        b=names[1],
        threshold=threshold,
        cells=[cell.compared for cell in cells],
        geometric_mean=geometric_mean([cell.processes for cell in cells], threshold=threshold)
        if len(cells) > 1
        else None,
        differs=_merged(what_differs(*cell.records) for cell in cells),
        not_compared=missing,
        notes=[*dict.fromkeys(itertools.chain.from_iterable(_notes(cell) for cell in cells))],
    )


def _side(name: str, runs: Sequence[Run]) -> _Side:
    kept = [_Kept(at, run.path, run.record) for at, run in enumerate(runs) if run.record.cell is not None]
    if not kept:
        raise PowerbenchError(f"{name} is a recording of power alone and has no steps: name runs.")
    plain = [it for it in kept if not it.record.is_instrumented]
    if not plain:
        raise PowerbenchError(f"{name} cannot be compared: {INSTRUMENTED}.")
    return _Side(name, runs, plain, [it for it in kept if it.record.is_instrumented])


def _instrumented(name: Literal["A", "B"], side: _Side) -> Iterator[NotCompared]:
    """The runs of a side beside which py-spy was at work."""
    for run in side.instrumented:
        yield NotCompared(
            cell=dict(key_of(run.record)),
            title=_title([run]),
            side=name,
            runs=[str(run.path)],
            reason=INSTRUMENTED,
            is_gap=False,
        )


def _refuse_the_same(a: _Side, b: _Side) -> None:
    both = {it.path.resolve() for it in a.kept} & {it.path.resolve() for it in b.kept}
    if both:
        raise PowerbenchError(
            f"{a.name} and {b.name} hold the same run ({min(both)}): name two folders that have none in common."
        )
    ids_a, ids_b = ({it.record.node.id for it in side.kept if it.record.node is not None} for side in (a, b))
    if (ids_a & ids_b) - {None}:
        raise PowerbenchError(
            f"{a.name} and {b.name} hold machines of one and the same run: put the directories of all its machines "
            "into one folder, and compare that with another run."
        )


def _compared(
    key: dict[str, Any], record: RunRecord, processes: tuple[list[Process], list[Process]], threshold: float
) -> Compared:
    of_a, of_b = processes
    ratios = compare_processes(of_a, of_b, threshold=threshold)
    return Compared(
        cell=key,
        title=in_words(record.the_cell),
        processes=(len(of_a), len(of_b)),
        is_metered=has_any_energy(of_a, of_b),
        latency_ms=ratios.latency_ms,
        samples_per_s=ratios.samples_per_s,
        j_per_step=ratios.j_per_step,
        energy_reason=ratios.energy_reason,
    )


def _left_alone(one: Unmatched, side: _Side) -> NotCompared:
    runs = [side.kept[at] for at in one.runs]
    return NotCompared(
        cell=dict(one.key),
        title=_title(runs),
        side=one.side,
        runs=[str(run.path) for run in runs],
        reason=one.reason,
        is_gap=one.side == "A",
    )


def _left_out(key: Sequence[tuple[str, Any]], a: Sequence[_Kept], b: Sequence[_Kept]) -> Iterator[NotCompared]:
    """The runs of a cell that are not complete; once for both sides where neither has one that is, for one reason."""
    endings = [{run.record.status for run in side} for side in (a, b)]
    if endings[0] == endings[1] and len(endings[0]) == 1 and endings[0] <= {*SAME_ENDINGS}:
        yield _incomplete(key, "both", [*a, *b], is_gap=False)
        return
    is_gap = any("complete" not in ending for ending in endings)
    sides: tuple[tuple[Literal["A", "B"], Sequence[_Kept]], ...] = (("A", a), ("B", b))
    for name, side in sides:
        for run in side:
            if run.record.status != "complete":
                yield _incomplete(key, name, [run], is_gap=is_gap)


def _incomplete(
    key: Sequence[tuple[str, Any]], side: Literal["A", "B", "both"], runs: Sequence[_Kept], *, is_gap: bool
) -> NotCompared:
    record = runs[0].record
    words = IN_WORDS[record.status]
    reason = f"{words}: {record.reason.rstrip('.')}" if record.reason else words
    paths = [str(run.path) for run in runs]
    return NotCompared(cell=dict(key), title=_title(runs), side=side, runs=paths, reason=reason, is_gap=is_gap)


def _title(runs: Sequence[_Kept]) -> str:
    return in_words(runs[0].record.the_cell)


def _merged(
    tables: Iterable[dict[str, tuple[list[str], list[str]]]],
) -> dict[str, tuple[list[str], list[str]]]:
    merged: dict[str, tuple[list[str], list[str]]] = {}
    for table in tables:
        for name, (of_a, of_b) in table.items():
            old_a, old_b = merged.get(name, ([], []))
            merged[name] = ([*dict.fromkeys([*old_a, *of_a])], [*dict.fromkeys([*old_b, *of_b])])
    return merged


def _notes(cell: _Cell) -> Iterator[str]:
    """What a reader must know to read the ratios right."""
    is_own = cell.records[0][0].loop
    if min(cell.compared.processes) == 1:
        how = (
            "Run the program three or more times a side" if is_own else "Measure three or more a side with --repeats 3"
        )
        yield (
            "One process on a side: the interval is from blocks of its steps, and says nothing of how two processes of "
            f"one program differ. {how}; ten tell more."
        )
    unknown = untold(cell.records[0][0].the_cell)
    if unknown:
        yield (
            f"The program did not tell the {enumerated(unknown)} of its steps: that those of A and of B are alike is "
            "taken from the name of the loop alone."
        )
    for name, processes in zip("AB", cell.processes, strict=True):
        parts = sum(not one.is_whole for one in processes)
        if parts:
            yield (
                f"{counted(parts, 'run')} of {name} {_has(parts)} machines whose directories are not here, and the "
                "others alone are compared: name a folder that holds those of all machines."
            )
        few = [one.steps for one in processes if one.steps < FEWEST]
        if few:
            yield f"{name} has runs of only {counted(min(few), 'step')}: too short to be sure of their typical step."
        metered = sum(one.energy is not None for one in processes)
        if cell.compared.j_per_step is not None and metered < len(processes):
            yield f"Only {metered} of {counted(len(processes), 'run')} of {name} {_has(metered)} joules."
        unsteady = [one.unsteady for one in processes if one.unsteady is not None]
        if unsteady:
            yield (
                f"{counted(len(unsteady), 'run')} of {name} found no steady state{_instead(unsteady)}, so the ratio "
                "depends on how long one measures; `powerbench trace` says more."
            )
    if cell.compared.j_per_step is not None and not is_one_device(*cell.records) and _any_estimated(cell):
        yield (
            "These joules are Apple's estimates, which by Apple's own words must not be used to compare devices: take "
            "their ratio for a hint."
        )
    before = _measured_before(*cell.records)
    if before is not None:
        in_turns = "Run A and B in turns." if is_own else TAKING_TURNS
        yield f"All of {before} was measured first: what drifted in between is in the ratio. {in_turns}"


def _instead(verdicts: Sequence[str]) -> str:
    """` (slowdown)`, and ` (1 slowdown)` where that is not true of all; nothing where there is no more to say."""
    counts = {name: verdicts.count(name) for name in dict.fromkeys(verdicts) if name != "no steady state"}
    told = [name if number == len(verdicts) else f"{number} {name}" for name, number in counts.items()]
    return f" ({', '.join(told)})" if told else ""


def _has(number: int) -> str:
    return "has" if number == 1 else "have"


def _any_estimated(cell: _Cell) -> bool:
    return any(one.is_estimated for side in cell.processes for one in side)


def _measured_before(a: Sequence[RunRecord], b: Sequence[RunRecord]) -> str | None:
    """The side that was over before the other began, on one boot of one machine; None where they took turns."""
    boots = {record.clock.boot_id for record in (*a, *b)}
    if len(boots) > 1 or None in boots:
        return None
    begun_a, begun_b = ([record.clock.start_monotonic_ns for record in side] for side in (a, b))
    if max(begun_a) < min(begun_b):
        return "A"
    return "B" if max(begun_b) < min(begun_a) else None
