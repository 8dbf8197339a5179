"""One run as a comparison takes it: the time and the joules of its steps, and of blocks of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from powerbench.analysis.alignment import line_of
from powerbench.analysis.blocks import block_energies
from powerbench.analysis.counted import counted_rails
from powerbench.analysis.energy import find_energy
from powerbench.analysis.hosts import Host, energy_of_all, missing_machines
from powerbench.analysis.latencies import lasted_ns
from powerbench.analysis.resampling import Repeat, means_of_blocks, medians_of_blocks
from powerbench.analysis.slowdown import FEWEST, UNSTEADY, find_slowdown
from powerbench.records import EnergyCurve, RunRecord, StepTrace, Window
from powerbench.units import NS_PER_S

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Process(NamedTuple):
    """One complete run as the comparison takes it; None where it has no such figure.

    `latency` is its median step, `step` all of its time over its steps (both seconds), `energy` joules a step.
    `unsteady`: what the slowdown verdict calls it, where it has no steady state. `is_whole`: whether the directories of
    all its machines are here.
    """

    latency: Repeat | None
    step: Repeat | None
    energy: Repeat | None
    energy_reason: str | None
    scope: str | None
    is_estimated: bool
    steps: int
    samples_per_step: int | None
    unsteady: str | None = None
    is_whole: bool = True


def process_of(
    record: RunRecord, steps: StepTrace, curves: Mapping[str, EnergyCurve], hosts: Sequence[Host] = ()
) -> Process:
    """The figures of one run. `curves` are its joules by rail; `hosts` are given of a run on several machines."""
    spans = steps.spans("step")
    found = energy_of_all(hosts) if hosts else find_energy(record, steps, curves)
    energy, reason = found.energy, found.reason
    if energy is not None and energy.partial:
        energy, reason = None, "the meter was lost before the end"
    joules = None
    if energy is not None and energy.j_per_step is not None and energy.j_per_step > 0:
        joules = Repeat(energy.j_per_step, _energy_blocks(record, spans, curves))
    return Process(
        latency=_latency(spans),
        step=_step(spans),
        energy=joules,
        energy_reason=reason,
        scope=energy.scope if energy is not None else None,
        is_estimated=any(record.rails[name].state == "estimated" for name in counted_rails(record)),
        steps=sum(count for _, _, count in spans),
        samples_per_step=record.workload.samples_per_step if record.workload else None,
        unsteady=_unsteady(spans),
        is_whole=not missing_machines(record, hosts),
    )


def _unsteady(spans: Sequence[tuple[int, int, int]]) -> str | None:
    if len(spans) < FEWEST:
        return None
    verdict = find_slowdown(_each_s(spans).tolist()).verdict
    return verdict if verdict in UNSTEADY else None


def _each_s(spans: Sequence[tuple[int, int, int]]) -> Floats:
    import numpy as np

    start, end, count = np.asarray(spans, dtype=np.int64).T
    return np.asarray((end - start) / count / NS_PER_S)


def _latency(spans: Sequence[tuple[int, int, int]]) -> Repeat | None:
    import numpy as np

    each = _each_s(spans) if spans else None
    if each is None or (middle := float(np.median(each))) <= 0:
        return None
    return Repeat(middle, medians_of_blocks(each))


def _step(spans: Sequence[tuple[int, int, int]]) -> Repeat | None:
    wall_ns = lasted_ns(spans)
    if wall_ns <= 0:
        return None
    return Repeat(wall_ns / NS_PER_S / sum(count for _, _, count in spans), means_of_blocks(_each_s(spans)))


def _energy_blocks(
    record: RunRecord, spans: Sequence[tuple[int, int, int]], curves: Mapping[str, EnergyCurve]
) -> Floats:
    """Joules a step over blocks of steps, long enough for the slowest of the counted meters."""
    import numpy as np

    names, window = counted_rails(record), Window(spans[0][0], spans[-1][1])
    lines = {name: line_of(curves.get(name, EnergyCurve()), record.rails[name], window=window) for name in names}
    slowest = max(names, key=lambda name: record.rails[name].period_s)
    found = []
    for block in block_energies(lines[slowest], record.rails[slowest], spans):
        stretch = Window(block.start_ns, block.end_ns)
        used = [lines[name].energy_in(stretch) for name in names]
        if None in used:
            return np.empty(0)
        found.append(math.fsum(joules for joules in used if joules is not None) / block.steps)
    return means_of_blocks(np.asarray(found))
