"""Latencies made ready for a model: slow first steps set aside, spikes cut back, the rest averaged in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]
    Places = NDArray[np.intp]

MOST_BLOCKS = 200
# Beyond these no clock has been, and products and sums of them would be no numbers any more.
LEAST_S, LARGEST_S = 1e-100, 1e100
# 80 % of a normal distribution lie within 1.2816 standard deviations, 50 % within 1/1.4826. The wider quantile is
# taken for spikes because on a trace of two levels the narrower one collapses, and cutting turns a flicker into a step.
NORMAL_80, NORMAL_50 = 1.2816, 1 / 1.4826
SPIKE_WINDOW = 9
SPIKE_SIGMAS = 4.0
# A spike is counted as such from here on, however still the other steps are.
NOTABLE_SPIKE = 1.1
# Of these the running median sees one side only.
FIRST_STEPS = SPIKE_WINDOW // 2
LAST_STEPS, LAST_SPIKE = 4, 1.3
# Only jumps of the window need a new look; a start that needs more looks than this is a drift, and judged as one.
MOST_LOOKS = 100


class Blocks(NamedTuple):
    """Means of `per_block` neighbouring values each; what does not fill a block at the end is left out."""

    mean: Floats
    per_block: int


class Cut(NamedTuple):
    """Logarithms of latencies without their spikes, and which steps were slow ones."""

    log: Floats
    is_spike: Flags


def usable(latency_s: Sequence[float]) -> tuple[Floats, Places]:
    """The latencies that are measurements (finite, above zero), and the step that each belongs to."""
    import numpy as np

    every = np.asarray(latency_s, dtype=np.float64)
    steps = np.flatnonzero((every > LEAST_S) & (every < LARGEST_S))  # false for NaN
    return every[steps], steps


def slow_first_steps(latency_s: Floats) -> int:
    """How many steps at the beginning are far above those that follow: one to three as a rule, a quarter at most.

    A long warm-up is not found here: the steps that follow are then slow as well.
    """
    import numpy as np

    count, width = 0, max(10, len(latency_s) // 20)
    for _ in range(MOST_LOOKS):
        following = latency_s[count + 1 : count + 1 + width]
        if not len(following):
            break
        middle = float(np.median(following))
        sigma = float(np.median(np.abs(following - middle))) / NORMAL_50
        is_usual = latency_s[count : len(latency_s) // 4] <= 1.05 * middle + 5 * sigma
        slow = int(np.argmax(is_usual)) if is_usual.any() else len(is_usual)
        if not slow:
            break
        count += slow
    return count


def cut_spikes(latency_s: Floats) -> Cut:
    """Put the running median where a step leaves it by more than four standard deviations of its neighbours.

    At the end, where the running median sees one side only, the last few steps are held against the last nine. The same
    at the beginning would hide rises that are over within a few steps; there, what begins such a rise is left alone.
    """
    import numpy as np
    from scipy.ndimage import median_filter

    log = np.log(latency_s)
    usual = median_filter(log, SPIKE_WINDOW, mode="mirror")
    off = log - usual
    far = SPIKE_SIGMAS * float(np.quantile(np.abs(off), 0.8)) / NORMAL_80
    spikes = _without_beginnings(np.abs(off) > far, log, off, far)
    cut = np.where(spikes, usual, log)
    level = float(np.median(cut[-SPIKE_WINDOW:]))
    last = cut[-LAST_STEPS:]
    last[last > level + max(far, np.log(LAST_SPIKE))] = level
    return Cut(cut, log - cut > max(far, np.log(NOTABLE_SPIKE)))


def _without_beginnings(is_far: Flags, log: Floats, off: Floats, far: float) -> Flags:
    """Those far from the running median, but not the first steps of a rise: each is below it, and near one that stays.

    That one is one of the next two; a spike is alone, and so are two together.
    """
    import numpy as np

    spikes = is_far.copy()
    for at in reversed(range(FIRST_STEPS)):
        following = slice(at + 1, at + 3)
        is_near = (np.abs(log[following] - log[at]) <= far) & ~spikes[following]
        spikes[at] &= bool(off[at] >= 0 or not is_near.any())
    return spikes


def blocks_of(log: Floats) -> Blocks:
    """At most 200 blocks: means, because what they do to noise with memory is simple."""
    per_block = -(-len(log) // MOST_BLOCKS)
    count = len(log) // per_block
    return Blocks(log[: count * per_block].reshape(count, per_block).mean(axis=1), per_block)
