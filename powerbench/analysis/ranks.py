"""The ranks of a run side by side: what each took, and which of them the others wait for, by how much, since when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from powerbench.analysis.drift import fit
from powerbench.analysis.latencies import latency
from powerbench.analysis.slowdown import FEWEST, find_slowdown
from powerbench.analysis.trimming import blocks_of, cut_spikes
from powerbench.analysis.wander import level_of
from powerbench.records import DeviceRecord, LoopCell, StepTrace
from powerbench.units import NS_PER_MS, counted, milliseconds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# A rank is called a straggler where its own work takes so much longer than that of the others, and that is sure.
SLOWER = 1.05
# So much slower in this share of the steps, of which there are 20 at least, noise hardly makes a rank, with a memory or
# not: of 20 steps with a memory of .9, 4 runs in 100 (tests/benchmarks/bench_stragglers.py).
MUCH_SLOWER, NEARLY_ALL = 1.5, 0.95
# Only ranks that are so much slower than the middle of all, in some third of the run, are looked at closely.
WORTH_A_LOOK = 1.02
# Into so many groups of neighbouring steps they are put where noise hides what becomes of single ones.
GROUPS = (60, 25)


@dataclass(frozen=True)
class Rank:
    """One rank's steps, and how long (ns) it worked itself in each, by step; `host` and `node` say where it ran."""

    number: int
    node: int
    host: str | None
    device: DeviceRecord | None
    steps: StepTrace
    work_ns: Mapping[int, int]


class RankFigures(Struct, frozen=True, kw_only=True):
    """One rank of `per_rank` in a summary. `own_work_ms` is its median, `own_work_share` that of its median step."""

    rank: int
    node: int
    device: str | None
    uuid: str | None
    latency_mean_ms: float | None
    latency_median_ms: float | None
    own_work_ms: float | None
    own_work_share: float | None


class Straggler(Struct, frozen=True, kw_only=True):
    """A rank whose own work takes longer than that of the others; medians over the steps in which it does.

    Those are from `since_step` on, counted from the first measured step, which is 0, and before `until_step`, where it
    did not stay so. `behind_ms` is what is added to a step, as far as no other rank is slower still.
    """

    rank: int
    node: int
    host: str | None
    device: str | None
    uuid: str | None
    ratio: float
    own_work_ms: float
    others_ms: float
    behind_ms: float
    since_step: int
    until_step: int | None


class Stretch(NamedTuple):
    """Steps from `first` on, and before `end`, None being the last."""

    first: int
    end: int | None


@dataclass(frozen=True)
class Ranks:
    """All ranks of a run of several that are here. `stragglers` is None where too little was recorded to tell."""

    ranks: Sequence[Rank]
    stragglers: list[Straggler] | None

    @property
    def closest(self) -> int:
        """The number of the one to look at closely: the slowest straggler, or else the first."""
        return self.stragglers[0].rank if self.stragglers else self.ranks[0].number

    def figures(self) -> list[RankFigures]:
        """Each rank's own."""
        return [figures_of(rank) for rank in self.ranks]


def beside(ranks: Sequence[Rank], together: StepTrace, *, is_instrumented: bool = False) -> Ranks:
    """The ranks with the stragglers among them; `together` are the steps of the whole.

    Where some were stopped again and again to be looked at, how fast they are tells nothing.
    """
    return Ranks(ranks, None if is_instrumented else find_stragglers(ranks, together))


def figures_of(rank: Rank) -> RankFigures:
    """What a rank took by itself."""
    import numpy as np

    its_latency = latency(rank.steps.spans("step"))
    median_ms = its_latency.median if its_latency else None
    own = [ns for step, ns in rank.work_ns.items() if rank.steps.stage[step : step + 1] == ["step"]]
    own_ms = float(np.median(own)) / NS_PER_MS if own else None
    return RankFigures(
        rank=rank.number,
        node=rank.node,
        device=rank.device.name if rank.device else None,
        uuid=rank.device.uuid if rank.device else None,
        latency_mean_ms=its_latency.mean if its_latency else None,
        latency_median_ms=median_ms,
        own_work_ms=own_ms,
        own_work_share=own_ms / median_ms if own_ms is not None and median_ms else None,
    )


def find_stragglers(ranks: Sequence[Rank], together: StepTrace) -> list[Straggler] | None:
    """The ranks that keep the others waiting, the slowest first; None where too few steps tell.

    In data-parallel training all ranks' steps take the same time, since each waits for the slowest: so it is the own
    work of each that is held against that of the others, step by step.
    """
    import numpy as np

    measured = [step for step, stage in enumerate(together.stage) if stage == "step"]
    known = [step for step in measured if all(step in rank.work_ns for rank in ranks)]
    if len(ranks) < 2 or len(known) < FEWEST:
        return None
    work = np.array([[rank.work_ns[step] for step in known] for rank in ranks]) / NS_PER_MS
    middle = np.median(work, axis=0)
    numbers = [step - measured[0] for step in known]
    found = []
    for at, rank in enumerate(ranks):
        if _is_worth_a_look(work[at] / middle):
            others = np.median(np.delete(work, at, axis=0), axis=0)
            stretch = slow_stretch(work[at] / others)
            if stretch is not None:
                found.append(_straggler(rank, work[at], others, stretch, numbers))
    return sorted(found, key=lambda it: it.ratio, reverse=True)


def _is_worth_a_look(ratio: Floats) -> bool:
    import numpy as np

    return max(float(np.median(third)) for third in np.array_split(ratio, 3)) >= WORTH_A_LOOK


def slow_stretch(ratio: Floats) -> Stretch | None:
    """Where a rank surely took longer than the others, by this ratio at each step; None where it did not.

    A rise of the ratio says since when, a fall until when. What noise hides step by step may show in the medians of
    several steps. Without either, nearly every step must be much slower, or the level of the whole must lie above 1
    with all of its interval (99%).
    """
    import numpy as np

    for size in dict.fromkeys((1, *(max(1, len(ratio) // groups) for groups in GROUPS))):
        groups = np.median(ratio[: len(ratio) // size * size].reshape(-1, size), axis=1)
        found = find_slowdown(groups.tolist())
        if found.verdict in ("slowdown", "speedup"):
            return _on_either_side(ratio, (found.from_step or 0) * size, (found.to_step or 0) * size)
        if found.verdict in ("flat", "warmup"):
            break
    is_sure = _is_slow_throughout(ratio) or (_is_slow(ratio) and _is_above_one(ratio))
    return Stretch(0, None) if is_sure else None


def _on_either_side(ratio: Floats, begin: int, end: int) -> Stretch | None:
    """Of a ratio that changes there, the side, or both, on which the rank is slow."""
    was, is_now = _is_slow(ratio[:begin]), _is_slow(ratio[end:])
    if was:
        return Stretch(0, None if is_now else end)
    return Stretch(begin, None) if is_now else None


def _is_above_one(ratio: Floats) -> bool:
    """Whether noise, which may have a memory, can hardly have lifted the ratio above 1."""
    blocks = blocks_of(cut_spikes(ratio).log)
    level = level_of(blocks, fit(blocks).constant)
    return level.log > level.half


def _is_slow_throughout(ratio: Floats) -> bool:
    """Whether the rank was much slower in nearly every step, by however much each time."""
    import numpy as np

    return float(np.mean(ratio >= MUCH_SLOWER)) >= NEARLY_ALL


def _is_slow(ratio: Floats) -> bool:
    import numpy as np

    return len(ratio) > 0 and float(np.median(ratio)) >= SLOWER


def _straggler(rank: Rank, own: Floats, others: Floats, stretch: Stretch, numbers: Sequence[int]) -> Straggler:
    import numpy as np

    its = slice(stretch.first, stretch.end)
    own_ms, others_ms = float(np.median(own[its])), float(np.median(others[its]))
    return Straggler(
        rank=rank.number,
        node=rank.node,
        host=rank.host,
        device=rank.device.name if rank.device else None,
        uuid=rank.device.uuid if rank.device else None,
        ratio=own_ms / others_ms,
        own_work_ms=own_ms,
        others_ms=others_ms,
        behind_ms=own_ms - others_ms,
        since_step=numbers[stretch.first],
        until_step=None if stretch.end is None else numbers[stretch.end],
    )


def sentences(stragglers: Sequence[Straggler], cell: LoopCell) -> list[str]:
    """Each straggler in a sentence; of more than three, how many more there are."""
    told = [_sentence(it, cell, is_slowest=at == 0) for at, it in enumerate(stragglers[:3])]
    more = len(stragglers) - len(told)
    return [*told, f"{counted(more, 'rank')} more {'is' if more == 1 else 'are'} behind the others."] if more else told


def _sentence(it: Straggler, cell: LoopCell, *, is_slowest: bool) -> str:
    when = f" from step {it.since_step:,} on" if it.since_step else ""
    until = "" if it.until_step is None else f" up to step {it.until_step:,}"
    where = _place(it.device, it.uuid, it.node, it.host, cell)
    text = (
        f"Rank {it.rank}{where} is a straggler{when}{until}: it works {milliseconds(it.own_work_ms)} in a step, the "
        f"others {milliseconds(it.others_ms)} ({it.ratio:.2f} times)"
    )
    if not is_slowest:
        return f"{text}."
    # Only gradients are waited for; without them each goes its own way, and the whole is as fast as the slowest.
    if cell.mode == "training" and cell.model != "sleep":
        return f"{text}, and they wait {milliseconds(it.behind_ms)} a step for it."
    return f"{text}, and a step of the whole takes {milliseconds(it.behind_ms)} longer for it."


def place(rank: Rank, cell: LoopCell) -> str:
    """Where a rank ran: ` (NVIDIA H100, GPU-b)`, on several machines with its machine; nothing where not known."""
    device = rank.device
    return _place(device.name if device else None, device.uuid if device else None, rank.node, rank.host, cell)


def _place(device: str | None, uuid: str | None, node: int, host: str | None, cell: LoopCell) -> str:
    on_host = f" on {host}" if host else ""
    words = [word for word in (device, uuid, f"node {node}{on_host}" if cell.nnodes > 1 else None) if word]
    return f" ({', '.join(words)})" if words else ""


def on_ranks(cell: LoopCell) -> str:
    """What stands behind the batch of a run of several ranks: ` on each of 2 ranks (batch 64 a step)`; else nothing."""
    ranks = cell.ranks * cell.nnodes
    if ranks == 1:
        return ""
    a_step = "" if cell.model == "sleep" or cell.batch_size is None else f" (batch {cell.batch_size * ranks:,} a step)"
    return f" on each of {ranks:,} ranks{a_step}"
