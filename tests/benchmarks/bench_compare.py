"""How often `compare` is right: simulated pairs of known difference, and pairs of real runs; exits 1 beyond a limit.

    .venv/bin/python tests/benchmarks/bench_compare.py [TRIALS]     # simulated pairs, so many of each kind
    .venv/bin/python tests/benchmarks/bench_compare.py --real       # three repeats of a cell twice, two threads and one

A process is a row of steps whose noise resembles its neighbour (AR(1)), and processes of one program differ by a
factor of their own. The verdicts are counted as a gate sees them: `slower` if latency or throughput is.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from powerbench.analysis.compare import compare_processes
from powerbench.analysis.process import Process
from powerbench.analysis.resampling import Repeat, means_of_blocks, medians_of_blocks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TRIALS = 200
PROCESSES = (3, 5, 7, 10)
DIFFERENCES = (0.0, 0.02, 0.05, 0.10)
SPREADS = (0.005, 0.01, 0.02)
# Processes that differ by the threshold and more, where the interval alone keeps the gate from tripping by chance.
LOUD_SPREADS = (0.05, 0.10)
MOST_FALSE = 0.01
MOST_FALSE_LOUD = 0.02
LEAST_FOUND = 0.95
LEAST_COVERED = 0.93
STEP_S = 0.1
# A spike is a step that takes so many times as long; some rows have one in a hundred of them.
SPIKES = (1.5, 5.0)


class Noise(NamedTuple):
    """Steps of a process, their standard deviation, how much each is like the one before, and the share of spikes."""

    steps: int
    deviation: float
    alike: float
    spikes: float


NOISES = (Noise(30, 0.02, 0.5, 0.0), Noise(100, 0.03, 0.9, 0.0), Noise(300, 0.03, 0.9, 0.01))


class Kind(NamedTuple):
    """Pairs of one kind."""

    noise: Noise
    spread: float
    processes: int
    difference: float


class Counts(NamedTuple):
    """Of so many pairs, how many were called slower, faster or indistinguishable, and had the truth in the interval."""

    pairs: int
    slower: int
    faster: int
    indistinguishable: int
    covered: int


def row(rng: np.random.Generator, noise: Noise, factor: float) -> NDArray[np.float64]:
    """The seconds of a process's steps."""
    import numpy as np
    from scipy.signal import lfilter

    shocks = rng.standard_normal(noise.steps) * noise.deviation * math.sqrt(1 - noise.alike**2)
    shocks[0] /= math.sqrt(1 - noise.alike**2)
    each = STEP_S * factor * np.exp(lfilter([1.0], [1.0, -noise.alike], shocks))
    is_spike = rng.random(noise.steps) < noise.spikes
    return np.asarray(np.where(is_spike, each * rng.uniform(*SPIKES, noise.steps), each))


def process(each_s: NDArray[np.float64]) -> Process:
    import numpy as np

    return Process(
        latency=Repeat(float(np.median(each_s)), medians_of_blocks(each_s)),
        step=Repeat(float(each_s.mean()), means_of_blocks(each_s)),
        energy=None,
        energy_reason="no meter",
        scope=None,
        is_estimated=False,
        steps=len(each_s),
        samples_per_step=1,
    )


def side(rng: np.random.Generator, kind: Kind, factor: float) -> list[Process]:
    factors = [factor * math.exp(kind.spread * rng.standard_normal()) for _ in range(kind.processes)]
    return [process(row(rng, kind.noise, it)) for it in factors]


def count(kind: Kind, trials: int) -> Counts:
    """Compare so many pairs of a kind."""
    import numpy as np

    seed = [PROCESSES.index(kind.processes), DIFFERENCES.index(kind.difference), 7]
    if kind.spread in LOUD_SPREADS:  # rare trips are counted over pairs that have nothing in common
        seed += [round(kind.spread * 1000), kind.noise.steps]
    rng = np.random.default_rng(seed)
    each = []
    for _ in range(trials):
        ratios = compare_processes(side(rng, kind, 1.0), side(rng, kind, 1.0 + kind.difference))
        latency, throughput = ratios.latency_ms, ratios.samples_per_s
        assert latency is not None
        assert throughput is not None
        assert latency.ci95 is not None
        low, high = latency.ci95
        verdicts = {latency.verdict, throughput.verdict}
        same, is_covered = latency.verdict == "indistinguishable", low <= 1 + kind.difference <= high
        each.append(Counts(1, "slower" in verdicts, "faster" in verdicts, same, is_covered))
    return total(each)


def simulate(trials: int) -> bool:
    """Print what was counted, by difference, number of processes and spread; whether all limits were kept."""
    kinds = [Kind(*it) for it in itertools.product(NOISES, SPREADS, PROCESSES, DIFFERENCES)]
    with ProcessPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        results = dict(zip(kinds, pool.map(count, kinds, itertools.repeat(trials), chunksize=4), strict=True))
        loud = [Kind(*it, difference=0.0) for it in itertools.product(NOISES, LOUD_SPREADS, PROCESSES)]
        by_chance = dict(zip(loud, pool.map(count, loud, itertools.repeat(trials), chunksize=4), strict=True))
    print(f"{len(NOISES) * trials} pairs a line, over {len(NOISES)} kinds of noise; threshold 5%")
    print("difference  processes  spread   slower   faster  indistinguishable  covered")
    broken: list[str] = []
    for difference, processes in itertools.product(DIFFERENCES, PROCESSES):
        these = {
            kind: it for kind, it in results.items() if (kind.difference, kind.processes) == (difference, processes)
        }
        for spread in SPREADS:
            print(line(difference, processes, spread, total(it for kind, it in these.items() if kind.spread == spread)))
        broken += beyond(difference, processes, total(these.values()))
    summarize(results)
    broken += [*too_often(by_chance)]
    for it in broken:
        print(f"BEYOND A LIMIT: {it}")
    return not broken


def total(counts: Iterable[Counts]) -> Counts:
    return Counts(*map(sum, zip(*counts, strict=True)))


def line(difference: float, processes: int, spread: float, it: Counts) -> str:
    slower, faster, same, covered = (of / it.pairs for of in it[1:])
    return (
        f"{difference:>10.0%}  {processes:>9}  {spread:>6.1%}  {slower:>7.1%}  {faster:>7.1%}  {same:>17.1%}  "
        f"{covered:>7.1%}"
    )


def beyond(difference: float, processes: int, it: Counts) -> Iterator[str]:
    """Which limits this many processes miss, over all noises and spreads."""
    if difference == 0 and max(it.slower, it.faster) > MOST_FALSE * it.pairs:
        yield f"of {processes} processes a difference where there is none in {max(it.slower, it.faster) / it.pairs:.1%}"
    if difference == 0.10 and processes >= 5 and it.slower < LEAST_FOUND * it.pairs:
        yield f"of {processes} processes 10% found in {it.slower / it.pairs:.1%} only"
    if it.covered < LEAST_COVERED * it.pairs:
        yield f"of {processes} processes, difference {difference:.0%}, coverage {it.covered / it.pairs:.1%}"


def summarize(results: Mapping[Kind, Counts]) -> None:
    none = total(it for kind, it in results.items() if kind.difference == 0)
    found = total(it for kind, it in results.items() if kind.difference == 0.10 and kind.processes == 5)
    every = total(results.values())
    print(f"no difference, called slower: {none.slower / none.pairs:.2%} of {none.pairs:,} (limit {MOST_FALSE:.0%})")
    print(f"10%, five processes a side, called slower: {found.slower / found.pairs:.1%} (limit {LEAST_FOUND:.0%})")
    print(
        f"truth in the 95% interval: {every.covered / every.pairs:.1%} of {every.pairs:,} (limit {LEAST_COVERED:.0%})"
    )


def too_often(results: Mapping[Kind, Counts]) -> Iterator[str]:
    """Print how often a gate trips by chance where processes differ much; yields what is beyond the limit."""
    for processes in PROCESSES:
        it = total(it for kind, it in results.items() if kind.processes == processes)
        spreads = " or ".join(f"{spread:.0%}" for spread in LOUD_SPREADS)
        share = it.slower / it.pairs
        print(
            f"no difference, {processes} processes that differ by {spreads}, called slower: "
            f"{share:.2%} of {it.pairs:,} (limit {MOST_FALSE_LOUD:.0%})"
        )
        if share > MOST_FALSE_LOUD:
            yield f"of {processes} processes that differ by {spreads} a difference where there is none in {share:.1%}"


CELL = ("--model", "bert-mini", "--mode", "inference", "--batch-size", "16", "--steps", "60", "--power", "none")


def run(folder: Path, *options: str) -> None:
    command = [sys.executable, "-m", "powerbench", "run", *CELL, *options, "--output", str(folder), "--json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def compare(a: Path, b: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "powerbench", "compare", str(a), str(b), "--json"]
    latency: dict[str, Any] = json.loads(subprocess.check_output(command))["cells"][0]["latency_ms"]
    return latency


def real() -> bool:
    """Three repeats in turns: of one thread twice, and of two threads; whether the verdicts are right."""
    if (os.cpu_count() or 1) < 2:
        print("two threads need two cores")
        return True
    with tempfile.TemporaryDirectory() as folder:
        one, again, two = (Path(folder) / name for name in ("one", "again", "two"))
        for _ in range(3):
            run(one, "--threads", "1")
            run(again, "--threads", "1")
            run(two, "--threads", "2")
        results = {"one thread twice": compare(one, again), "two threads against one": compare(one, two)}
    for name, latency in results.items():
        low, high = latency["ci95"]
        print(f"{name}: {latency['ratio']:.3f} ({low:.3f} to {high:.3f}), {latency['verdict']}")
    same, other = (results[name]["verdict"] for name in results)
    return same in ("indistinguishable", "inconclusive") and other in ("faster", "slower")


if __name__ == "__main__":
    asked = sys.argv[1:]
    kept = real() if asked == ["--real"] else simulate(int(asked[0]) if asked else TRIALS)
    sys.exit(0 if kept else 1)
