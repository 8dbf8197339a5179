"""How sure a ratio of two groups of processes is: resample the processes, then the blocks of steps within each.

Two runs of one program differ by more than their steps do (memory layout, clocks, neighbours), so the process is what
is repeated, and the steps inside it only add to what is known of that process (Kalibera and Jones, ISMM 2013,
doi 10.1145/2464157.2464160). Neighbouring steps resemble each other; blocks of them, longer than that resemblance,
hardly do.

         A                            B               ratio   geometric mean of B's processes over that of A's
    |...|....|..|                |....|...|           spread  of the resampled logarithms, on either side
     process of blocks                                        stretched by Student's t (Welch and Satterthwaite)

Percentiles of resampled means are too narrow for three to ten processes: a plain bootstrap of three covers some 80 %
where it promises 95 %. So resampling gives the standard error, corrected for its own shrinkage (Davison and Hinkley,
Bootstrap Methods, 1997, section 3.8), and Student's t the width that so few processes ask for (Hesterberg, The American
Statistician 69, 2015). `tests/benchmarks/bench_compare.py` prints what that comes to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

DRAWS = 4000
SEED = 20220519
# Fewer blocks than this say too little of a process; more than that add nothing but work.
FEWEST_BLOCKS = 5
MOST_BLOCKS = 20
# In blocks of so many steps a slow one does not move the median.
STEPS_OF_A_MEDIAN = 6


class Repeat(NamedTuple):
    """One process: a quantity above 0 for a step of it, and the same over its blocks of steps, in their order.

    Blocks may be fewer than `FEWEST_BLOCKS`, or none, where its edges give no more.
    """

    value: float
    blocks: Floats


class Estimate(NamedTuple):
    """A logarithm of a ratio, its standard error and degrees of freedom, and what these are from.

    `error` is None where nothing is known of the spread.
    """

    log_ratio: float
    error: float | None
    freedom: float
    of: Literal["processes", "blocks"]

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """The two-sided interval of the ratio; None where it is unknown."""
        if self.error is None:
            return None
        half = student(1 - (1 - confidence) / 2, self.freedom) * self.error if self.error else 0.0
        return math.exp(self.log_ratio - half), math.exp(self.log_ratio + half)


class Side(NamedTuple):
    """One side: the mean logarithm of its processes, the variance of that, and its degrees of freedom."""

    log_mean: float
    variance: float | None
    freedom: float


def estimate(a: Sequence[Repeat], b: Sequence[Repeat]) -> Estimate:
    """The ratio of B to A. Where a side has one process only, the spread is that of blocks on both sides."""
    by: Literal["processes", "blocks"] = "processes" if min(len(a), len(b)) > 1 else "blocks"
    of_a, of_b = (_of_processes(side) if by == "processes" else _of_blocks(side) for side in (a, b))
    log_ratio = of_b.log_mean - of_a.log_mean
    if of_a.variance is None or of_b.variance is None:
        return Estimate(log_ratio, None, 1.0, by)
    variance = of_a.variance + of_b.variance
    return Estimate(log_ratio, math.sqrt(variance), satterthwaite((of_a, of_b)), by)


def mean_estimate(estimates: Sequence[Estimate]) -> Estimate:
    """The geometric mean of the ratios of several cells, which were measured apart from each other."""
    count = len(estimates)
    log_ratio = math.fsum(one.log_ratio for one in estimates) / count
    by: Literal["processes", "blocks"] = "processes" if all(one.of == "processes" for one in estimates) else "blocks"
    sides = [Side(0.0, None if one.error is None else (one.error / count) ** 2, one.freedom) for one in estimates]
    if any(side.variance is None for side in sides):
        return Estimate(log_ratio, None, 1.0, by)
    variance = math.fsum(side.variance or 0.0 for side in sides)
    return Estimate(log_ratio, math.sqrt(variance), satterthwaite(sides), by)


def satterthwaite(sides: Sequence[Side]) -> float:
    """The degrees of freedom of a sum of variances, each with its own (Welch, Biometrika 34, 1947)."""
    variances = [side.variance or 0.0 for side in sides]
    total = math.fsum(variances)
    if not total:
        return math.fsum(side.freedom for side in sides)
    # As shares: the square of a tiny variance is no longer a number.
    return 1 / math.fsum((one / total) ** 2 / side.freedom for one, side in zip(variances, sides, strict=True))


def student(probability: float, freedom: float) -> float:
    """The quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


def _of_processes(repeats: Sequence[Repeat]) -> Side:
    """Both levels resampled; the spread of processes holds that of their steps already, and counts it once.

    So a process's deviation is shrunk by as much as its blocks will spread it again, at most to nothing. Then three
    processes that agree by luck are not taken to agree better than their own steps allow.
    """
    import numpy as np

    logs = np.log([repeat.value for repeat in repeats])
    count = len(logs)
    between = float(logs.var(ddof=1))
    rng = np.random.default_rng(SEED)
    draws = _draws(rng, [_log_blocks(repeat) for repeat in repeats])
    within = float(draws.var(axis=0).mean())
    shrink = math.sqrt(max(0.0, between - within) / between * count / (count - 1)) if between else 0.0
    chosen = rng.integers(0, count, (DRAWS, count), dtype=np.int32)
    noise = draws[rng.integers(0, DRAWS, (DRAWS, count), dtype=np.int32), chosen]
    resampled = (shrink * (logs - logs.mean())[chosen] + noise).mean(axis=1)
    return Side(float(logs.mean()), float(resampled.var()), count - 1)


def _of_blocks(repeats: Sequence[Repeat]) -> Side:
    """The blocks alone resampled: how steady these very processes were, and nothing about the next one."""
    import numpy as np

    log_mean = float(np.log([repeat.value for repeat in repeats]).mean())
    parts = [_log_blocks(repeat) for repeat in repeats]
    if any(len(part) < FEWEST_BLOCKS for part in parts):
        return Side(log_mean, None, 1.0)
    resampled = _draws(np.random.default_rng(SEED), parts).mean(axis=1)
    return Side(log_mean, float(resampled.var()), sum(len(part) - 1 for part in parts))


def _log_blocks(repeat: Repeat) -> Floats:
    """The blocks' deviations from their mean, as logarithms; none where they are too few or not above 0."""
    import numpy as np

    if len(repeat.blocks) < FEWEST_BLOCKS or repeat.blocks.min() <= 0:
        return np.empty(0)
    logs = np.log(repeat.blocks)
    return np.asarray(logs - logs.mean())


def _draws(rng: np.random.Generator, parts: Sequence[Floats]) -> Floats:
    """(DRAWS, processes): each process's deviation when its blocks are drawn anew; 0 where it has none.

    Drawn means of m blocks have (m-1)/m of the variance that they should, which is put right.
    """
    import numpy as np

    drawn = np.zeros((DRAWS, len(parts)))
    for at, part in enumerate(parts):
        count = len(part)
        if count:
            drawn[:, at] = part[rng.integers(0, count, (DRAWS, count), dtype=np.int32)].mean(axis=1)
            drawn[:, at] *= math.sqrt(count / (count - 1))
    return drawn


def medians_of_blocks(values: Floats) -> Floats:
    """The median of each block of neighbouring steps; none where they are too few."""
    import numpy as np

    length = block_length(values, shortest=STEPS_OF_A_MEDIAN)
    return np.asarray(np.median(_cut(values, length), axis=1))


def means_of_blocks(values: Floats) -> Floats:
    """The mean of each block of neighbouring steps; none where they are too few."""
    import numpy as np

    return np.asarray(_cut(values, block_length(values, shortest=1)).mean(axis=1))


def block_length(values: Floats, *, shortest: int) -> int:
    """How many neighbouring steps to take together: more, the more each resembles the one before.

    Carlstein's length for an autoregressive row (The Annals of Statistics 14, 1986), from the correlation of neighbours
    with slow steps clipped; never so long that fewer than `FEWEST_BLOCKS` are left, where there are so many steps.
    """
    import numpy as np

    count = len(values)
    longest = max(1, count // FEWEST_BLOCKS)
    for_most = math.ceil(count / MOST_BLOCKS)
    middle = float(np.median(values)) if count else 0.0
    spread = 1.4826 * float(np.median(np.abs(values - middle))) if count else 0.0
    if not spread:
        return min(longest, max(shortest, for_most))
    clipped = np.clip(values, middle - 3 * spread, middle + 3 * spread)
    clipped = clipped - clipped.mean()
    power = float(clipped @ clipped)
    alike = min(0.99, max(0.0, float(clipped[1:] @ clipped[:-1]) / power)) if power else 0.0
    wanted = float((2 * alike / (1 - alike**2)) ** (2 / 3) * count ** (1 / 3))
    return min(longest, max(shortest, math.ceil(wanted), for_most))


def _cut(values: Floats, length: int) -> Floats:
    """(blocks, length), from the first step on; what is left at the end is left out."""
    count = len(values) // length if length else 0
    return values[: count * length].reshape(count, length)
