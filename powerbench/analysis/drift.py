"""How probable each rise and fall of a trace is under noise with memory, and how sure the ratio of its ends is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from powerbench.analysis.shapes import MEMORIES, Kind, Shapes, shapes_for, whitened
from powerbench.analysis.trimming import Blocks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]

DELTA = 0.05
# A rise is said to be there if it is probably at least DELTA, and "there is none" is less probable than this. All of
# these were chosen on simulated traces (tests/benchmarks/bench_slowdown.py): jumps hardly ever give a false alarm,
# ramps are many and gave most of them, and there are but four starts and one drift. A quick start is held to have begun
# with the steps that were set aside, which hid a part of it, and for that is to be the surer.
SURE_OF_DELTA, SURE_OF_QUICK = 0.80, 0.85
LARGEST_P: dict[Kind, float] = {"jump": 5e-4, "ramp": 2e-5, "start": 0.02, "quick": 0.01, "drift": 0.02}
# Where the noise that a shape leaves has a larger standard deviation than this, the limit falls with its STRICTER-th
# power, to STRICTEST of itself: a wander of 5 % is then nothing special. It keeps false alarms rare at a CV of 5 %; a
# smaller limit for drifts would lose ramps to 1.15 at a CV of 2 % and a memory of .9.
QUIET: dict[Kind, float] = {"jump": 0.034, "ramp": 0.028, "start": 0.028, "quick": 0.028, "drift": 0.037}
STRICTER, STRICTEST = 8, 0.05
# A fall that is over by then may be a warm-up, and whatever comes of those few steps, the others are judged: no limit
# is lowered for it.
WARM_BY = 0.30
# What a clock resolves, and more: keeps a trace without any noise from being infinitely sure.
LEAST_SIGMA = 1e-4
# On either side of a rise, this share of at least so many blocks must lie on that side of its middle, and from side to
# side the medians must move by this share of it. A ramp's sides come close to its middle; of a jump's sides more is
# asked, which keeps a flicker between two levels from being called one.
STAYING: dict[Kind, float] = {"jump": 0.85, "ramp": 0.75, "start": 0.75, "quick": 0.75, "drift": 0.75}
FEWEST_TO_STAY, MOVED = 8, 0.4


class Noise(NamedTuple):
    """What is left of a trace beside its shape: for each memory how probable it is, and the size of its innovations."""

    weight: Floats
    sigma: Floats
    freedom: int


@dataclass(frozen=True)
class Change:
    """A rise or fall that was found: by `size` (a difference of logarithms) from `begin` to `end` (shares).

    `doubt` is the probability that there is none, as a share of the largest that is let pass.
    """

    kind: Kind
    begin: float
    end: float
    size: float
    level: float
    doubt: float
    noise: Noise

    def outweighs(self, other: Change) -> bool:
        """Whether it is by far the surer one: even the square of the other's doubt is more than its own."""
        return self.doubt < other.doubt**2

    def stays(self, mean: Floats) -> bool:
        """Whether the trace is on the old side before it and on the new side from then on."""
        import numpy as np

        middle = self.level + self.size / 2
        place = (np.arange(len(mean)) + 0.5) / len(mean)
        quarter = (self.end - self.begin) / 4
        is_before, is_after = place < self.begin + quarter, place > self.end - quarter
        is_new = (mean > middle) == (self.size > 0)
        sides = (~is_new[is_before], is_new[is_after])
        return all(self._mostly(side) for side in sides) and self._moved(mean[is_before], mean[is_after]) > MOVED

    def _moved(self, before: Floats, after: Floats) -> float:
        """By what share of its size the medians move. A quick start is at its old level for no block at all."""
        import numpy as np

        if not len(before):
            return 1.0
        old = self.level if self.kind == "quick" else float(np.median(before))
        return float((np.median(after) - old) / self.size)

    def _mostly(self, is_there: Flags) -> bool:
        return len(is_there) < FEWEST_TO_STAY or float(is_there.mean()) >= STAYING[self.kind]


@dataclass(frozen=True)
class Fit:
    """A trace of blocks against every shape and every memory of the noise.

    `hidden` is how long before it the run began, as a share of it.
    """

    shapes: Shapes
    blocks: int
    hidden: float
    constant: Noise
    weight: Floats
    size: Floats
    error: Floats
    sigma: Floats
    level: Floats

    def find(self, direction: Literal[1, -1]) -> Change | None:
        """The surest rise (1) or fall (-1), or None."""
        import numpy as np
        from scipy.special import stdtr

        shapes, freedom = self.shapes, self.blocks - 2
        largest_p = np.array([LARGEST_P[kind] for kind in shapes.kind])
        is_warmup = (shapes.end <= WARM_BY) & (direction < 0)
        largest_p *= np.where(is_warmup, 1.0, self._strictness())
        none = (self.weight * stdtr(freedom, -direction * self.size / self.error)).sum(axis=0)
        sure = np.array([SURE_OF_QUICK if kind == "quick" else SURE_OF_DELTA for kind in shapes.kind])
        candidates = np.flatnonzero(none < largest_p)
        least = np.log(1 + DELTA) if direction > 0 else -np.log(1 - DELTA)
        to_see = least * np.exp(-self.hidden / shapes.time_constant[candidates])
        beyond = (direction * self.size[:, candidates] - to_see) / self.error[:, candidates]
        is_large = (self.weight[:, candidates] * stdtr(freedom, beyond)).sum(axis=0) >= sure[candidates]
        candidates = candidates[is_large]
        if not len(candidates):
            return None
        # Without any noise several are surer than a number can say: then the one that leaves least.
        doubt = none[candidates] / largest_p[candidates]
        left_over = (self.weight[:, candidates] * self.sigma[:, candidates]).sum(axis=0)
        surest = int(np.lexsort((left_over, doubt))[0])
        return self._change(int(candidates[surest]), float(doubt[surest]))

    def _strictness(self) -> Floats:
        """By what factor each shape's limit is lowered, for the noise that it leaves."""
        import numpy as np

        spread = self.sigma / np.sqrt(1 - np.array(MEMORIES)[:, None] ** 2)
        excess = (self.weight * spread).sum(axis=0) / np.array([QUIET[kind] for kind in self.shapes.kind])
        return np.asarray(np.maximum(np.minimum(1, excess**-STRICTER), STRICTEST))

    def _change(self, best: int, doubt: float) -> Change:
        shapes, weight = self.shapes, self.weight[:, best]
        return Change(
            kind=shapes.kind[best],
            begin=float(shapes.begin[best]),
            end=float(shapes.end[best]),
            size=float(weight @ self.size[:, best]),
            level=float(weight @ self.level[:, best]),
            doubt=doubt,
            noise=Noise(weight, self.sigma[:, best], self.blocks - 2),
        )


def fit(blocks: Blocks, *, hidden_steps: int = 0) -> Fit:
    """Every shape under every memory: size, its error, and how well the two explain the trace.

    `hidden_steps` are those that the run had before it and that say nothing.

    The weights are those of the restricted likelihood, which does not take the memory for shorter than it is as plain
    maximum likelihood does, and are shared out among the memories of each shape.
    """
    import numpy as np

    count = len(blocks.mean)
    shapes = shapes_for(count, blocks.per_block)
    white, ones, back = [], [], []
    for memory in MEMORIES:
        one, seen = whitened(np.ones(count), memory), whitened(blocks.mean, memory)
        ones.append(one @ seen / (one @ one))
        left = seen - ones[-1] * one
        white.append(left @ left)
        back.append(_unwhitened(left, memory))
    along = np.array(back) @ shapes.height / shapes.norm
    square, floor = np.array(white)[:, None], count * LEAST_SIGMA**2
    left = np.maximum(square - along**2, 0) + floor
    size = along / shapes.norm
    sigma = np.sqrt(left / (count - 2))
    prior = 0.5 * np.log1p(-(np.array(MEMORIES) ** 2)) - np.log(shapes.norm_of_one)
    prior = prior[:, None]
    alone = square + floor
    return Fit(
        shapes=shapes,
        blocks=count,
        hidden=hidden_steps / (count * blocks.per_block),
        constant=Noise(
            weight=_shared(-(count - 1) / 2 * np.log(alone) + prior)[:, 0],
            sigma=np.sqrt(alone / (count - 1))[:, 0],
            freedom=count - 1,
        ),
        weight=_shared(-(count - 2) / 2 * np.log(left) + prior - np.log(shapes.norm)),
        size=size,
        error=sigma / shapes.norm,
        sigma=sigma,
        level=np.array(ones)[:, None] - size * shapes.mean,
    )


def _unwhitened(white: Floats, memory: float) -> Floats:
    """The transpose of whitening: the product of a whitened shape and `white` is that of the shape and this."""
    import numpy as np

    back = white.copy()
    back[0] *= np.sqrt(1 - memory**2)
    back[:-1] -= memory * white[1:]
    return back


def _shared(log_weight: Floats) -> Floats:
    import numpy as np

    weight = np.exp(log_weight - log_weight.max(axis=0))
    return np.asarray(weight / weight.sum(axis=0))
