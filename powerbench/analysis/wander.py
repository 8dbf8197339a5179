"""How far noise with memory moves means: the interval of a level, and of the ratio of a trace's ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from powerbench.analysis.drift import Noise
from powerbench.analysis.shapes import MEMORIES
from powerbench.analysis.trimming import Blocks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CONFIDENCE = 0.99
TENTH = 10
FEWEST_STEPS = 8
BISECTIONS = 60


class Level(NamedTuple):
    """A logarithm, and the half-width of its interval."""

    log: float
    half: float


def tenth(blocks: Blocks) -> int:
    """How many blocks the first and the last tenth have: those of eight steps at least, but a third at most."""
    count = len(blocks.mean)
    return min(max(count // TENTH, -(-FEWEST_STEPS // blocks.per_block)), count // 3)


def level_of(blocks: Blocks, noise: Noise) -> Level:
    """The mean of all blocks."""
    import numpy as np

    count = len(blocks.mean)
    spread = np.array([_spread_of_mean(memory, count) for memory in MEMORIES])
    return Level(float(blocks.mean.mean()), _half(noise, spread, count))


def end_over_start(blocks: Blocks, noise: Noise) -> Level:
    """The mean of the last tenth less that of the first."""
    length = tenth(blocks)
    size = float(blocks.mean[-length:].mean() - blocks.mean[:length].mean())
    return Level(size, half_of_ratio(noise, len(blocks.mean), length))


def half_of_ratio(noise: Noise, count: int, length: int, memories: Floats | None = None) -> float:
    """The half-width of the ratio of means over `length` blocks at either end of `count`."""
    import numpy as np

    known = np.array(MEMORIES) if memories is None else memories
    spread = [_spread_of_difference(float(memory), count, length) for memory in known]
    return _half(noise, np.array(spread), count)


def _half(noise: Noise, spread: Floats, count: int) -> float:
    """From each memory's standard deviation, in innovations: the quantile of their mixture, a little widened."""
    from scipy.special import stdtr

    scale = noise.sigma * spread * (1 + 4 / count)
    low, high = 0.0, float(scale.max()) * 1e3
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        outside = float(noise.weight @ stdtr(noise.freedom, -middle / scale))
        low, high = (middle, high) if outside > (1 - CONFIDENCE) / 2 else (low, middle)
    return high


def _spread_of_mean(memory: float, length: int) -> float:
    return float(_variance_of_mean(memory, length) ** 0.5)


def _spread_of_difference(memory: float, count: int, length: int) -> float:
    """Of two means of `length` values, one at either end of `count`, from the noise's covariance."""
    shared = memory ** (count - 2 * length + 1) * ((1 - memory**length) / (1 - memory)) ** 2 / length**2
    variance = 2 * _variance_of_mean(memory, length) - 2 * shared / (1 - memory**2)
    return float(variance**0.5)


def _variance_of_mean(memory: float, length: int) -> float:
    """Of values whose innovations have variance 1: `(1 - m^2)^-1` times the mean of `m^|i-j|`."""
    together = length * (1 + memory) / (1 - memory) - 2 * memory * (1 - memory**length) / (1 - memory) ** 2
    return together / length**2 / (1 - memory**2)
