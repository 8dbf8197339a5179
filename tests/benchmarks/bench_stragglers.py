"""How often a straggler is found, and how often a rank is named that is none: simulated own work with noise.

    .venv/bin/python tests/benchmarks/bench_stragglers.py     (some three minutes)

Prints for numbers of ranks and steps, spreads of the noise and its memory: the share of runs in which a rank was named
where none is slower; in which one that is 10 % slower all the time was found; and in which one that is 20 % slower from
the middle on was found, with how many steps its beginning was off (median).
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from powerbench.analysis.ranks import Rank, Straggler, find_stragglers
from powerbench.records import StepTrace
from powerbench.units import NS_PER_MS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RUNS = 100
RANKS, STEPS, SPREADS, MEMORIES = (2, 6), (20, 60, 300), (0.02, 0.1, 0.3), (0.0, 0.9)
USUAL_MS = 20.0
SLOW = 1  # the number of the rank that is slower


class Tally(NamedTuple):
    """Of simulated runs: the share in which any rank was named, in which the slow one was, and how far off it began."""

    named: float
    found: float
    steps_off: float | None


def main() -> None:
    """Print the table."""
    import numpy as np

    print("                          |  none is slower |  +10% always |   +20% from the middle on")
    print("ranks steps spread memory |           named |        found |          found, steps off")
    random = np.random.default_rng(7)
    for ranks in RANKS:
        for steps in STEPS:
            for spread in SPREADS:
                for memory in MEMORIES:
                    none, always, later = (
                        tally(random, ranks, steps, spread, memory, slower=slower, since=since)
                        for slower, since in ((1.0, 0), (1.1, 0), (1.2, steps // 2))
                    )
                    off = "" if later.steps_off is None else f"{later.steps_off:.0f}"
                    print(
                        f"{ranks:5} {steps:5} {spread:6.0%} {memory:6} | {none.named:15.0%} "
                        f"| {always.found:12.0%} | {later.found:14.0%} {off:>10}",
                        flush=True,
                    )


def tally(
    random: np.random.Generator, ranks: int, steps: int, spread: float, memory: float, *, slower: float, since: int
) -> Tally:
    """Simulated runs in which one rank is `slower` times as slow from step `since` on."""
    import numpy as np

    named = found = 0
    off: list[int] = []
    for _ in range(RUNS):
        work = [USUAL_MS * np.exp(noise(random, steps, spread, memory)) for _ in range(ranks)]
        work[SLOW][since:] *= slower
        since_step = {it.rank: it.since_step for it in stragglers(work)}
        named += bool(since_step)
        if SLOW in since_step:
            found += 1
            off.append(abs(since_step[SLOW] - since))
    return Tally(named / RUNS, found / RUNS, median(off) if off else None)


def noise(random: np.random.Generator, steps: int, spread: float, memory: float) -> Floats:
    """Autoregressive noise of this standard deviation."""
    import numpy as np

    innovations = random.normal(0, spread * (1 - memory**2) ** 0.5, steps)
    values = np.empty(steps)
    last = random.normal(0, spread)
    for at in range(steps):
        values[at] = last = memory * last + innovations[at]
    return values


def stragglers(work_ms: list[Floats]) -> list[Straggler]:
    """What is said of ranks that worked so long."""
    trace = StepTrace()
    for step in range(len(work_ms[0])):
        trace.append("step", step, step + 1, step + 1)
    own = [{step: round(ms * NS_PER_MS) for step, ms in enumerate(its)} for its in work_ms]
    return find_stragglers([Rank(at, 0, None, None, trace, its) for at, its in enumerate(own)], trace) or []


if __name__ == "__main__":
    main()
