"""The energy of a run on several machines: the sum of what each used, cut at the edges of its own ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from powerbench.analysis.counted import counted_rails
from powerbench.analysis.energy import Energy, EnergyFindings, find_energy
from powerbench.records import EnergyCurve, RunRecord, StepTrace
from powerbench.rundir.joining import of_machine, said_by
from powerbench.units import enumerated

Interval = tuple[float, float]


@dataclass(frozen=True)
class Host:
    """One machine of a run: its record, the steps of its own ranks together, its joules, all on its own clock."""

    node: int
    record: RunRecord
    steps: StepTrace
    curves: Mapping[str, EnergyCurve]


def energy_of_all(hosts: Sequence[Host]) -> EnergyFindings:
    """The energy of these machines together; none where one of them has none, with the reason.

    A GPU that two of them name (two directories may be of one machine) is counted once.
    """
    found: dict[int, EnergyFindings] = {}
    seen: set[str] = set()
    for host in hosts:
        record = _without(host.record, seen)
        counted = counted_rails(record)
        if not counted and counted_rails(host.record):  # all of it was counted on another
            continue
        found[host.node] = find_energy(record, host.steps, host.curves)
        seen |= {uuid for name in counted if (uuid := record.rails[name].uuid) is not None}
    notes = [*said_by({node: its.notes for node, its in found.items()}), *_counted_twice(hosts)]
    reasons = {node: str(its.reason) for node, its in found.items() if its.energy is None}
    if reasons:
        return EnergyFindings(None, _why(reasons, len(found)), notes)
    of_node = {node: its.energy for node, its in found.items() if its.energy is not None}
    return EnergyFindings(_sum(of_node, hosts), None, notes)


def _why(reasons: Mapping[int, str], machines: int) -> str:
    """One reason of all machines is said once."""
    if len(reasons) == machines and len(set(reasons.values())) == 1:
        return next(iter(reasons.values()))
    return "; ".join(f"node {node}: {reason}" for node, reason in reasons.items())


def _without(record: RunRecord, seen: set[str]) -> RunRecord:
    rails = {name: rail for name, rail in record.rails.items() if rail.uuid not in seen}
    return msgspec.structs.replace(record, rails=rails)


def _counted_twice(hosts: Sequence[Host]) -> list[str]:
    """A note where two directories are of one machine, and meters that have no identifier were read for both."""
    metered = [host for host in hosts if any(it.uuid is None for it in host.record.rails.values())]
    boots = Counter(host.record.clock.boot_id for host in metered)
    twice = [str(it.node) for it in metered if it.record.clock.boot_id and boots[it.record.clock.boot_id] > 1]
    if not twice:
        return []
    return [f"Nodes {enumerated(twice)} are one machine: what one meter told both of them is in these joules twice."]


def _sum(of_node: Mapping[int, Energy], hosts: Sequence[Host]) -> Energy:
    """Sums; half-widths are added, as if all erred the same way, and of readings the fewest count.

    When each machine was at its peak is not known of all at once, so there is no peak. Joules a sample would be those
    of a part, where a machine is missing.
    """
    each, record = list(of_node.values()), hosts[0].record
    total_j, total_ci95 = _added([(it.total_j, it.total_j_sampling_ci95) for it in each])
    step_j, step_ci95 = _added_steps(each)
    accuracies = [it.sensor_accuracy for it in each]
    samples = record.workload.samples_per_step if record.workload else None
    is_whole = len(hosts) == record.the_cell.nnodes
    return Energy(
        total_j=total_j,
        total_j_sampling_ci95=total_ci95,
        j_per_step=step_j,
        j_per_step_sampling_ci95=step_ci95,
        sensor_accuracy=None if None in accuracies else max(it for it in accuracies if it is not None),
        j_per_sample=step_j / samples if is_whole and samples and step_j is not None else None,
        mean_w=sum(it.mean_w for it in each),
        peak_w=each[0].peak_w if len(each) == 1 else None,
        net_j_per_step=_sum_of_known([it.net_j_per_step for it in each]),
        idle_w=_sum_of_known([it.idle_w for it in each]),
        partial=any(it.partial for it in each),
        readings=min(it.readings for it in each),
        scope=_scope({node: it.scope for node, it in of_node.items()}, record.the_cell.nnodes),
        rails={
            name if len(hosts) == 1 else f"{of_machine(node)}{name}": rail
            for node, it in of_node.items()
            for name, rail in it.rails.items()
        },
    )


def _added(figures: Sequence[tuple[float, Interval]]) -> tuple[float, Interval]:
    total = sum(value for value, _ in figures)
    half = sum(high - value for value, (_, high) in figures)
    return total, (max(0.0, total - half), total + half)


def _added_steps(each: Sequence[Energy]) -> tuple[float | None, Interval | None]:
    of_steps = [
        (it.j_per_step, it.j_per_step_sampling_ci95)
        for it in each
        if it.j_per_step is not None and it.j_per_step_sampling_ci95 is not None
    ]
    return _added(of_steps) if len(of_steps) == len(each) else (None, None)


def _sum_of_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _scope(scopes: Mapping[int, str], nnodes: int) -> str:
    """`package-0 on each of 2 machines`, `gpu0 of node 0 and gpu0 + gpu1 of node 1`, `package-0 of node 0 alone`."""
    if len(scopes) > 1 and len(set(scopes.values())) == 1:
        told = f"{next(iter(scopes.values()))} on each of {len(scopes)} machines"
        return told if len(scopes) == nnodes else f"{told} of {nnodes}"
    told = enumerated([f"{scope} of node {node}" for node, scope in scopes.items()])
    return told if len(scopes) == nnodes else f"{told} alone"


def missing_machines(record: RunRecord, hosts: Sequence[Host]) -> list[str]:
    """A note where directories of other machines of the run are not here; of one that never met any there are none."""
    if record.node is None or record.node.id is None:
        return []
    here = {host.node for host in hosts}
    if len(here) == record.the_cell.nnodes:
        return []
    some = sorted(here)
    nodes = f"node {some[0]}" if len(some) == 1 else f"nodes {enumerated([str(node) for node in some])}"
    return [
        f"Only {nodes} of {record.the_cell.nnodes} {'is' if len(some) == 1 else 'are'} here: ranks and joules are "
        f"{'its' if len(some) == 1 else 'their'} own. Name the directories of all machines together, or a folder that "
        "holds them."
    ]
