"""Latency traces whose truth is known: a shape, noise with memory, spikes, slow first steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Draw = np.random.Generator
    Shape = Callable[[int, Draw], Floats]

NoiseKind = Literal["normal", "heavy tails", "skewed", "half white"]
BASE_S = 0.1
SLOW_FIRST = (8.0, 2.0)
SPIKE_SHARE, LEAST_SPIKE, LARGEST_SPIKE = 0.01, 1.5, 5.0


@dataclass(frozen=True)
class Trace:
    """Latencies, and what they would be without noise, spikes and slow first steps."""

    latency_s: Floats
    truth_s: Floats


@dataclass(frozen=True)
class Noise:
    """Relative noise: `cv` is its standard deviation, `memory` its correlation from step to step (AR(1))."""

    memory: float = 0.0
    cv: float = 0.02
    kind: NoiseKind = "normal"
    spikes: float = SPIKE_SHARE
    slow_first: bool = True


def trace(shape: Shape, n: int, noise: Noise, seed: int) -> Trace:
    """A trace of `n` steps of 100 ms times `shape`, always the same for the same arguments."""
    import numpy as np

    draw = np.random.default_rng(seed)
    truth_s = BASE_S * shape(n, draw)
    latency_s = truth_s * np.exp(noise.cv * wander(n, noise, draw))
    is_spike = draw.random(n) < noise.spikes
    latency_s[is_spike] *= draw.uniform(LEAST_SPIKE, LARGEST_SPIKE, int(is_spike.sum()))
    if noise.slow_first:
        latency_s[: len(SLOW_FIRST)] *= SLOW_FIRST
    return Trace(latency_s, truth_s)


def wander(n: int, noise: Noise, draw: Draw) -> Floats:
    """Noise of variance 1: normal, with the heavy tails of Student's t with 5 degrees, skewed as waiting times are, or
    half of it without memory."""
    import numpy as np
    from scipy.special import log_ndtr

    if noise.kind == "heavy tails":
        return _remembered(draw.standard_t(5, n) / np.sqrt(5 / 3), noise.memory)
    normal = _remembered(draw.standard_normal(n), noise.memory)
    if noise.kind == "skewed":
        return np.asarray(-log_ndtr(-normal) - 1)
    if noise.kind == "half white":
        return np.asarray((normal + draw.standard_normal(n)) / np.sqrt(2))
    return normal


def _remembered(innovations: Floats, memory: float) -> Floats:
    import numpy as np
    from scipy.signal import lfilter

    scaled = innovations * np.sqrt(1 - memory**2)
    scaled[0] = innovations[0]
    return np.asarray(lfilter([1.0], [1.0, -memory], scaled))


# --- shapes: what the latency would be, in multiples of the base --------------------------------------------------


def flat(n: int, draw: Draw) -> Floats:
    import numpy as np

    return np.ones(n)


def jump(height: float, *, at: float | None = None) -> Shape:
    """To 1 + `height`, at this share of the run, or anywhere from a tenth to nine tenths."""
    import numpy as np

    def shape(n: int, draw: Draw) -> Floats:
        place = draw.uniform(0.1, 0.9) if at is None else at
        return np.where(np.arange(n) >= round(place * n), 1 + height, 1.0)

    return shape


def ramp(height: float, *, begin: float = 0.0, end: float = 1.0) -> Shape:
    """From 1 to 1 + `height`, between these shares of the run."""
    import numpy as np

    def shape(n: int, draw: Draw) -> Floats:
        return np.asarray(1 + height * np.clip((np.arange(n) / max(n - 1, 1) - begin) / (end - begin), 0, 1))

    return shape


def saturating(height: float, tau: float) -> Shape:
    """To 1 + `height`, ever slower: all but 37 % of it is done after a share `tau` of the run."""
    import numpy as np

    def shape(n: int, draw: Draw) -> Floats:
        return np.asarray(1 + height * (1 - np.exp(-np.arange(n) / (tau * n))))

    return shape


def sawtooth(depth: float, *, periods: float = 20, falling: bool = False) -> Shape:
    """Between 1 - `depth` and 1 + `depth`, so many times."""
    import numpy as np

    def shape(n: int, draw: Draw) -> Floats:
        phase = (np.arange(n) * periods / n + draw.random()) % 1.0
        return np.asarray(1 + depth * (2 * phase - 1) * (-1 if falling else 1))

    return shape


def flicker(height: float, *, dwells: float = 20) -> Shape:
    """Between two levels, changed at random, about so many times in the run."""
    import numpy as np

    def shape(n: int, draw: Draw) -> Floats:
        changes = np.cumsum(draw.random(n) < dwells / n) + draw.integers(2)
        return np.where(changes % 2, 1 + height, 1.0)

    return shape


def bump(height: float, *, begin: float = 0.3, end: float = 0.6) -> Shape:
    """Up, and down again."""
    import numpy as np

    def shape(n: int, draw: Draw) -> Floats:
        place = np.arange(n) / n
        return np.where((place >= begin) & (place < end), 1 + height, 1.0)

    return shape


def last_steps(factor: float, *, count: int = 3) -> Shape:
    """A few slow steps at the very end."""
    import numpy as np

    def shape(n: int, draw: Draw) -> Floats:
        return np.where(np.arange(n) >= n - count, factor, 1.0)

    return shape


def warmup_then(height: float, *, at: float = 0.6) -> Shape:
    """A long warm-up (40 % slower at first, over after a tenth), and a jump later."""
    import numpy as np

    def shape(n: int, draw: Draw) -> Floats:
        place = np.arange(n) / n
        return np.asarray((1 + 0.4 * np.exp(-place / 0.03)) * np.where(place >= at, 1 + height, 1.0))

    return shape
