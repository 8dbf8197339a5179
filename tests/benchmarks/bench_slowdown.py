"""How often the slowdown verdict is right on traces whose truth is known, against the error rates it must keep.

python tests/benchmarks/bench_slowdown.py [RUNS]     (runs a cell, 200 by default: some minutes on two cores)
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import product
from multiprocessing import get_context
from time import perf_counter
from typing import NamedTuple

from powerbench.analysis.slowdown import find_slowdown
from powerbench.analysis.trimming import blocks_of
from powerbench.analysis.wander import tenth
from tests.analysis import traces
from tests.analysis.traces import Noise, NoiseKind, Trace

RUNS = 200
# Not those on which the constants were chosen.
FIRST_SEED = 1_200_000_000
MEMORIES = (0.0, 0.5, 0.9, 0.98)
LENGTHS = (30, 100, 300, 1_000, 10_000)
# So many of the runs a cell are made where a trace is long, and where the rate to show is small.
SHARE_OF_RUNS = {10_000: 0.25, 100_000: 0.1}
FLAT_RUNS = 2.5
# A cell counts as worse than its table where chance alone would hardly make it so (there are some 300 cells).
BY_CHANCE = 1e-3

SHAPES: dict[str, traces.Shape] = {
    "flat": traces.flat,
    "jump +10%": traces.jump(0.1),
    "jump +20%": traces.jump(0.2),
    "ramp to 1.1": traces.ramp(0.1),
    "ramp to 1.15": traces.ramp(0.15),
    "ramp to 1.5": traces.ramp(0.5),
    "ramp to 2": traces.ramp(1.0),
    "+20%, tau .05 n": traces.saturating(0.2, 0.05),
    "+20%, tau .1 n": traces.saturating(0.2, 0.1),
    "+15%, tau .05 n": traces.saturating(0.15, 0.05),
    "+15%, tau .03 n": traces.saturating(0.15, 0.03),
    "+15%, tau .02 n": traces.saturating(0.15, 0.02),
    "+15% by .05 n": traces.ramp(0.15, end=0.05),
    "+15% at .05 n": traces.jump(0.15, at=0.05),
    "+10%, tau .05 n": traces.saturating(0.1, 0.05),
    "+10%, tau .1 n": traces.saturating(0.1, 0.1),
    "speed-up -15%": traces.jump(-0.15),
    "sawtooth": traces.sawtooth(0.1),
    "falling sawtooth": traces.sawtooth(0.1, falling=True),
    "flicker": traces.flicker(0.1),
    "bump +15%": traces.bump(0.15),
    "3 slow at the end": traces.last_steps(2.0),
    "warm-up, jump": traces.warmup_then(0.1),
}
EARLY = (
    "+20%, tau .05 n",
    "+15%, tau .05 n",
    "+15%, tau .03 n",
    "+15%, tau .02 n",
    "+15% by .05 n",
    "+15% at .05 n",
)
RISES = [name for name in SHAPES if name.startswith(("jump", "ramp", "+"))]
# P(slowdown) by memory 0, .5, .9, .98, as a prototype had them, and of how many runs each (None: not measured).
Row = tuple[float | None, ...]
TABLE_RUNS = {30: 250, 100: 250, 300: 250, 1_000: 200, 10_000: 50}
FLAT_TABLE_RUNS = {30: 1_000, 100: 1_500, 300: 1_500, 1_000: 400, 10_000: 200}
ONE: Row = (1, 1, 1, 1)
NONE: Row = (0, 0, 0, 0)
TABLE: dict[str, dict[int, Row]] = {
    "flat": {
        30: (0, 0.001, 0.009, 0.002),
        100: (0, 0, 0.003, 0.013),
        300: (0, 0, 0.003, 0.006),
        1_000: (0, 0, 0, 0.005),
        10_000: NONE,
    },
    "jump +10%": {30: (0.85, 0.79, 0.84, 0.87), 100: ONE, 300: ONE, 1_000: ONE, 10_000: (1, 1, 1, 0.98)},
    "jump +20%": {30: (0.87, 0.85, 0.86, 0.89), 100: ONE, 300: ONE, 1_000: ONE, 10_000: ONE},
    "ramp to 1.1": {
        30: (0.88, 0.36, 0.72, 0.92),
        100: (1, 0.99, 0.67, 0.83),
        300: (1, 1, 0.80, 0.80),
        1_000: (1, 1, 0.99, 0.78),
        10_000: ONE,
    },
    "ramp to 1.15": {100: (None, 1, 0.97, 1), 300: (None, 0.99, 0.99, 1), 1_000: (None, 1, 1, 0.99)},
    "ramp to 1.5": {30: ONE, 100: ONE, 300: ONE, 1_000: ONE, 10_000: ONE},
    "ramp to 2": {30: ONE, 100: ONE, 300: ONE, 1_000: ONE, 10_000: ONE},
    "+20%, tau .05 n": {100: (1, 0.97, 0.82, 0.94), 300: ONE, 1_000: (1, 1, 0.99, 1), 10_000: ONE},
    "+20%, tau .1 n": {100: (1, 1, 0.99, 1), 300: ONE, 1_000: (1, 1, 0.99, 1), 10_000: ONE},
    "+15%, tau .05 n": {100: (None, 0.89, 0.59, 0.62), 300: (None, 1, 1, 1), 1_000: (None, 1, 1, 1)},
    "+10%, tau .05 n": {
        100: (0.52, 0.44, 0.37, 0.25),
        300: (1, 0.96, 0.76, 0.86),
        1_000: (1, 1, 0.93, 0.87),
        10_000: (1, 1, 1, 0.98),
    },
    "+10%, tau .1 n": {
        100: (0.96, 0.84, 0.62, 0.64),
        300: (1, 1, 0.83, 0.86),
        1_000: (1, 1, 0.96, 0.83),
        10_000: ONE,
    },
    "speed-up -15%": {30: NONE, 100: (0, 0, 0.005, 0.005), 300: NONE, 1_000: NONE, 10_000: NONE},
    "sawtooth": {30: NONE, 100: (0, 0, 0.005, 0), 300: (0.015, 0.03, 0.025, 0.025), 1_000: NONE, 10_000: NONE},
    "falling sawtooth": {30: NONE, 100: NONE, 300: NONE, 1_000: (0, 0, 0, 0.005), 10_000: NONE},
    "flicker": {
        30: (0, 0.01, 0.005, 0.005),
        100: (0.015, 0.015, 0.025, 0.01),
        300: (0.015, 0.025, 0.005, 0.015),
        1_000: (0.005, 0.01, 0.01, 0.015),
        10_000: NONE,
    },
    "bump +15%": {30: (0.005,) * 4, 100: NONE, 300: NONE, 1_000: NONE, 10_000: NONE},
    "3 slow at the end": {30: (0.005,) * 4, 100: (0.01,) * 4, 300: (0.015,) * 4, 1_000: (0.005,) * 4},
    "warm-up, jump": {100: (0.93, 0.83, 0.48, 0.20), 300: (0.79,) * 4, 1_000: (0.79,) * 4},
}
# Flat traces under other noise: the largest share of false slowdowns that the prototype had, by memory.
OTHER_NOISE: list[tuple[str, NoiseKind, float, float, Row]] = [
    ("heavy tails (t5)", "heavy tails", 0.02, 0.01, (0.015, 0.015, 0.015, 0.015)),
    ("skewed", "skewed", 0.02, 0.01, (0.01, 0.01, 0.01, 0.035)),
    ("half white", "half white", 0.02, 0.01, (0.005, 0.005, 0.005, 0.025)),
    ("5% spikes", "normal", 0.02, 0.05, (0.015, 0.015, 0.015, 0.015)),
    ("CV 1%", "normal", 0.01, 0.01, NONE),
    ("CV 5%", "normal", 0.05, 0.01, (0.035, 0.035, 0.075, 0.105)),
    ("CV 10%", "normal", 0.10, 0.01, (0.12, 0.12, 0.12, 0.12)),
]
OTHER_NOISE_RUNS = 150
LEAST_COVERED = 0.97
MOST_SECONDS, MOST_MB = 1.0, 300.0


class Cell(NamedTuple):
    """So many traces of a shape and a length under some noise."""

    shape: str
    n: int
    noise: Noise
    runs: int


class Seen(NamedTuple):
    """What came of a cell: verdicts, and in how many runs the interval held the true ratio."""

    verdicts: Counter[str]
    covered: int
    with_interval: int


def main(runs: int) -> int:
    cells = [*assumed_noise(runs), *other_noise(runs)]
    began = perf_counter()
    with get_context("spawn").Pool(os.cpu_count()) as pool:
        seen = dict(zip(cells, pool.imap(look, cells, chunksize=4), strict=True))
    print(f"{sum(cell.runs for cell in cells):,} traces in {perf_counter() - began:.0f} s\n")
    worse = [*confusion(seen), *under_other_noise(seen), *targets(seen), *coverage(seen), *cost()]
    print("\nWorse than it must be:" if worse else "\nNo cell is worse than its limit.")
    for line in worse:
        print(f"  {line}")
    return 1 if worse else 0


def assumed_noise(runs: int) -> Iterator[Cell]:
    for shape, n, memory in product(SHAPES, LENGTHS, MEMORIES):
        times = (FLAT_RUNS if shape == "flat" else 1.0) * SHARE_OF_RUNS.get(n, 1.0)
        yield Cell(shape, n, Noise(memory=memory), max(4, round(runs * times)))
    for memory in MEMORIES:
        yield Cell("flat", 100_000, Noise(memory=memory), max(4, round(runs * SHARE_OF_RUNS[100_000])))


def other_noise(runs: int) -> Iterator[Cell]:
    for (_, kind, cv, spikes, _), n, memory in product(OTHER_NOISE, LENGTHS[:-1], MEMORIES):
        yield Cell("flat", n, Noise(memory=memory, cv=cv, kind=kind, spikes=spikes), runs)


def look(cell: Cell) -> Seen:
    """Judge the traces of a cell, each by a seed of its own."""
    seen = Seen(Counter(), 0, 0)
    for run in range(cell.runs):
        trace = traces.trace(SHAPES[cell.shape], cell.n, cell.noise, FIRST_SEED + run)
        found = find_slowdown(trace.latency_s.tolist())
        seen.verdicts[found.verdict] += 1
        if found.ci99 is not None:
            truth = true_ratio(trace, found.warmup_steps)
            is_in = found.ci99[0] <= truth <= found.ci99[1]
            seen = seen._replace(covered=seen.covered + is_in, with_interval=seen.with_interval + 1)
    return seen


def true_ratio(trace: Trace, set_aside: int) -> float:
    """That of the same ends of the trace without noise and spikes."""
    import numpy as np

    blocks = blocks_of(np.log(trace.truth_s[set_aside:]))
    length = tenth(blocks)
    return float(np.exp(blocks.mean[-length:].mean() - blocks.mean[:length].mean()))


# --- what is printed, and what of it is worse than it must be ------------------------------------------------------


def confusion(seen: dict[Cell, Seen]) -> Iterator[str]:
    print("Share called slowdown, memory of the noise 0/.5/.9/.98; ! marks a cell worse than its table (CV 2%)\n")
    print(f"{'':<18}" + "".join(f"{f'n={n:,}':<20}" for n in LENGTHS))
    for shape in SHAPES:
        row = f"{shape:<18}"
        for n in LENGTHS:
            cells = [only(seen, shape, n, memory) for memory in MEMORIES]
            table = TABLE.get(shape, {}).get(n, (None,) * len(MEMORIES))
            runs = FLAT_TABLE_RUNS[n] if shape == "flat" else TABLE_RUNS[n]
            marks = [is_worse(shape, one, runs, wanted) for one, wanted in zip(cells, table, strict=True)]
            row += f"{'/'.join(rate(one) + '!' * mark for one, mark in zip(cells, marks, strict=True)):<20}"
            yield from (
                f"{shape}, n={n:,}, memory {memory}: {rate(one)}, the table has {wanted}"
                for memory, one, wanted, mark in zip(MEMORIES, cells, table, marks, strict=True)
                if mark
            )
        print(row)
    print(f"{'flat, n=100,000':<18}" + "/".join(rate(only(seen, "flat", 100_000, memory)) for memory in MEMORIES))
    others: dict[str, Counter[str]] = {}
    for cell, one in seen.items():
        if cell.noise.kind == "normal" and cell.noise == Noise(memory=cell.noise.memory) and cell.n >= 100:
            others.setdefault(cell.shape, Counter()).update(one.verdicts)
    print("\nAll verdicts, n >= 100, per mille of the traces (CV 2%)\n")
    names = ("flat", "warmup", "slowdown", "speedup", "no steady state", "inconclusive")
    print(f"{'':<18}" + "".join(f"{name:>17}" for name in names))
    for shape, verdicts in others.items():
        print(f"{shape:<18}" + "".join(f"{1000 * verdicts[name] / verdicts.total():>17.0f}" for name in names))


def under_other_noise(seen: dict[Cell, Seen]) -> Iterator[str]:
    print("\nFalse slowdowns of flat traces under other noise, memory 0/.5/.9/.98\n")
    print(f"{'':<18}" + "".join(f"{f'n={n:,}':<26}" for n in LENGTHS[:-1]) + "all n")
    for name, kind, cv, spikes, table in OTHER_NOISE:
        row, pooled = f"{name:<18}", [Seen(Counter(), 0, 0) for _ in MEMORIES]
        for n in LENGTHS[:-1]:
            cells = [
                one
                for memory in MEMORIES
                for cell, one in seen.items()
                if cell.n == n and cell.noise == Noise(memory=memory, cv=cv, kind=kind, spikes=spikes)
            ]
            for all_n, one in zip(pooled, cells, strict=True):
                all_n.verdicts.update(one.verdicts)
            row += f"{'/'.join(rate(one, 3) for one in cells):<26}"
            for memory, one, wanted in zip(MEMORIES, cells, table, strict=True):
                if is_worse("flat", one, OTHER_NOISE_RUNS, wanted):
                    yield f"flat, {name}, n={n:,}, memory {memory}: {rate(one, 3)}, the table has {wanted}"
        print(row + "/".join(rate(one, 3) for one in pooled))


def targets(seen: dict[Cell, Seen]) -> Iterator[str]:
    """What must hold whatever a prototype did; pooled, since a cell of some hundred runs cannot show one per cent."""
    assumed = {cell: one for cell, one in seen.items() if cell.noise == Noise(memory=cell.noise.memory)}
    flat = [(cell, one) for cell, one in assumed.items() if cell.shape == "flat"]
    short = [(cell, one) for cell, one in flat if cell.noise.memory <= 0.5 and cell.n >= 100]
    rises = ("jump", "ramp to 1.15", "ramp to 1.5", "ramp to 2")
    big = [(cell, one) for cell, one in assumed.items() if cell.shape.startswith(rises) and cell.n >= 100]
    early = [(cell, one) for cell, one in assumed.items() if cell.shape in EARLY and cell.n >= 300]
    apart = ("speed-up -15%", "sawtooth", "falling sawtooth", "flicker")
    print()
    yield from at_most("false slowdowns, memory up to .9", [p for p in flat if p[0].noise.memory <= 0.9], 0.01)
    yield from at_most("false slowdowns, memory .98", [p for p in flat if p[0].noise.memory > 0.9], 0.02)
    for shape in apart:
        pairs = [(cell, one) for cell, one in assumed.items() if cell.shape == shape]
        yield from at_most(f"{shape} called slowdown", pairs, 0.02)
    undecided = sum(one.verdicts.total() - one.verdicts["flat"] - one.verdicts["warmup"] for _, one in short)
    share = undecided / sum(one.verdicts.total() for _, one in short)
    print(f"flat with memory up to .5, n >= 100, called neither flat nor warmup: {share:.4f}")
    inconclusive = {
        n: "/".join(
            f"{verdicts_of(assumed, n, m)['inconclusive'] / verdicts_of(assumed, n, m).total():.2f}" for m in MEMORIES
        )
        for n in LENGTHS
    }
    print("flat called inconclusive: " + ", ".join(f"n={n:,} {rates}" for n, rates in inconclusive.items()))
    if share > 0.02:
        yield f"flat traces of short memory called neither flat nor warmup: {share:.3f}, at most 0.02"
    for cell, one in [*big, *early]:
        if is_below(one.verdicts["slowdown"], one.verdicts.total(), 0.95):
            yield f"{cell.shape}, n={cell.n:,}, memory {cell.noise.memory}: found in {rate(one)}, must be in 0.95"


def verdicts_of(seen: dict[Cell, Seen], n: int, memory: float) -> Counter[str]:
    return next(
        one.verdicts for cell, one in seen.items() if (cell.shape, cell.n, cell.noise.memory) == ("flat", n, memory)
    )


def at_most(what: str, pairs: list[tuple[Cell, Seen]], limit: float) -> Iterator[str]:
    found = sum(one.verdicts["slowdown"] for _, one in pairs)
    total = sum(one.verdicts.total() for _, one in pairs)
    print(f"{what}: {found} of {total:,} ({found / total:.2%}, at most {limit:.0%})")
    if is_above(found, total, limit):
        yield f"{what}: {found / total:.2%}, at most {limit:.0%}"


def coverage(seen: dict[Cell, Seen]) -> Iterator[str]:
    """Of the interval of the ratio, from n = 100, by shape."""
    print("\nTraces whose interval holds the true ratio, n >= 100; and the least of a cell\n")
    by_shape: dict[str, list[Seen]] = {}
    for cell, one in seen.items():
        if cell.n >= 100 and cell.noise == Noise(memory=cell.noise.memory):
            by_shape.setdefault(cell.shape, []).append(one)
            if cell.shape in ("flat", *RISES) and is_below(one.covered, one.with_interval, LEAST_COVERED):
                share = one.covered / one.with_interval
                yield f"coverage of {cell.shape}, n={cell.n:,}, memory {cell.noise.memory}: {share:.3f}"
    for shape, ones in by_shape.items():
        if shape == "3 slow at the end":
            continue  # spikes, which are not in the ratio
        share = sum(one.covered for one in ones) / sum(one.with_interval for one in ones)
        print(f"{shape:<18}{share:.4f}   {min(one.covered / one.with_interval for one in ones):.3f}")


def cost() -> Iterator[str]:
    """Seconds and memory in a fresh process, imports included."""
    print()
    for n in (100_000, 1_000_000):
        out = subprocess.run([sys.executable, __file__, "--cost", str(n)], capture_output=True, text=True, check=True)
        seconds, again, before_mb, most_mb = (float(word) for word in out.stdout.split())
        print(
            f"{n:,} steps: {seconds:.3f} s the first time (imports of scipy included), {again:.3f} s again; "
            f"{most_mb:.0f} MB at most, of which {before_mb:.0f} MB before the verdict (Python, numpy, the trace)"
        )
        if n == 100_000 and (seconds > MOST_SECONDS or most_mb > MOST_MB):
            yield f"{n:,} steps: {seconds:.2f} s, {most_mb:.0f} MB; at most {MOST_SECONDS} s and {MOST_MB:.0f} MB"


def print_cost(n: int) -> None:
    import numpy as np

    draw = np.random.default_rng(FIRST_SEED)
    latency_s = (0.1 * np.exp(0.02 * draw.standard_normal(n))).tolist()
    before_mb, began = peak_mb(), perf_counter()
    find_slowdown(latency_s)
    once = perf_counter()
    find_slowdown(latency_s)
    print(once - began, perf_counter() - once, before_mb, peak_mb())


def peak_mb() -> float:
    """The most memory that this process ever held; Linux counts in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e3 if sys.platform == "linux" else 1e6)


def only(seen: dict[Cell, Seen], shape: str, n: int, memory: float) -> Seen:
    return next(one for cell, one in seen.items() if cell[:3] == (shape, n, Noise(memory=memory)))


def rate(one: Seen, digits: int = 2) -> str:
    share = f"{one.verdicts['slowdown'] / one.verdicts.total():.{digits}f}"
    return share if share.startswith("1") else share[1:] if float(share) else "0"


def is_worse(shape: str, one: Seen, table_runs: int, wanted: float | None) -> bool:
    """Whether two samples, the table's and ours, hardly come from equal rates, ours being the worse."""
    from scipy.stats import fisher_exact

    if wanted is None:
        return False
    ours, total, theirs = one.verdicts["slowdown"], one.verdicts.total(), round(wanted * table_runs)
    side = "less" if shape in (*RISES, "warm-up, jump") else "greater"
    table = [[ours, total - ours], [theirs, table_runs - theirs]]
    return bool(fisher_exact(table, alternative=side).pvalue < BY_CHANCE)


def is_above(found: int, total: int, limit: float) -> bool:
    from scipy.stats import binomtest

    return bool(binomtest(found, total, limit, alternative="greater").pvalue < BY_CHANCE)


def is_below(found: int, total: int, limit: float) -> bool:
    from scipy.stats import binomtest

    return bool(binomtest(found, total, limit, alternative="less").pvalue < BY_CHANCE)


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the products are small, and the processes are many
    if sys.argv[1:2] == ["--cost"]:
        print_cost(int(sys.argv[2]))
    else:
        sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS))
