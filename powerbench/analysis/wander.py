"""How far noise with memory moves means: the interval of a level, and of the ratio of a trace's ends."""

from __future__ import annotations

from math import ceil
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
SIGMAS = 2.0
LONGER, MOST_LONGER, PROBABLY = 1.1, 100.0, 0.75


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
    return Level(float(blocks.mean.mean()), _half(noise, noise.sigma * spread * (1 + 4 / count)))


def end_over_start(blocks: Blocks, noise: Noise) -> Level:
    """The mean of the last tenth less that of the first."""
    return Level(_end_less_start(blocks), _half(noise, _scale_of_ends(blocks, noise)))


def probability_beyond(low: float, high: float, blocks: Blocks, noise: Noise) -> float:
    """That the last tenth less the first, without its noise, is below `low` or above `high`."""
    from scipy.special import stdtr

    size, scale = _end_less_start(blocks), _scale_of_ends(blocks, noise)
    beyond = stdtr(noise.freedom, (low - size) / scale) + stdtr(noise.freedom, (size - high) / scale)
    return float(noise.weight @ beyond)


def steps_until(settled: float, blocks: Blocks, noise: Noise) -> int | None:
    """How many more steps would probably bring SIGMAS standard deviations of the ratio down to `settled`.

    None beyond reason.

    More steps also tell the memory. So it is taken for known, one memory after the other, and the answer is that of
    most of them by weight.
    """
    import numpy as np

    count, length = len(blocks.mean), tenth(blocks)
    longer = 1.0
    while longer < MOST_LONGER:
        longer *= LONGER
        then = round(count * longer)
        spread = [_spread_of_difference(memory, then, max(length, then // TENTH)) for memory in MEMORIES]
        is_enough = SIGMAS * noise.sigma * np.array(spread) * (1 + 4 / then) <= settled
        if float(noise.weight[is_enough].sum()) >= PROBABLY:
            return ceil((longer - 1) * count * blocks.per_block)
    return None


def _end_less_start(blocks: Blocks) -> float:
    length = tenth(blocks)
    return float(blocks.mean[-length:].mean() - blocks.mean[:length].mean())


def _scale_of_ends(blocks: Blocks, noise: Noise) -> Floats:
    """For each memory, the standard deviation of the difference of the ends."""
    import numpy as np

    count, length = len(blocks.mean), tenth(blocks)
    spread = np.array([_spread_of_difference(memory, count, length) for memory in MEMORIES])
    return np.asarray(noise.sigma * spread * (1 + 4 / count))


def _half(noise: Noise, scale: Floats) -> float:
    """The quantile of a mixture of Student's t, one for each memory."""
    from scipy.special import stdtr

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
