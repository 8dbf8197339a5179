"""Every single rise that a trace may hold: jumps anywhere, ramps from anywhere to anywhere, rises at the start."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Kind = Literal["jump", "ramp", "start", "quick", "drift"]

# Memory of the noise from block to block. The largest reaches over 66 blocks, a third of the run: that keeps a slow
# wander from being called a rise; with .995 slow ramps would be lost, with .98 there are more false alarms.
MEMORIES = (0.0, 0.2, 0.4, 0.6, 0.75, 0.85, 0.9, 0.93, 0.955, 0.97, 0.985)
RAMP_GRID = 20
SHORTEST_RAMP = 3
EARLY = 0.2
# The time constants of quick starts, as shares of the trace: 37 % of the way is still to go then, and 5 % after three
# of them. A start with a time constant of fewer steps is hidden by the slow first ones, or no more than a few of noise.
QUICK, QUICKEST_STEPS, OVER = (0.02, 0.03, 0.05), 5, 3
# Steps, and share of the blocks, that a jump must leave on either side.
SIDE_STEPS, SIDE_SHARE = 5, 0.03


@dataclass(frozen=True)
class Shapes:
    """The rises that a trace of so many blocks may hold, one a column: `height` is 0 before and 1 after.

    `begin` and `end` are shares of the trace, as is the time constant of a quick start (infinite for all others). With
    the noise whitened under memory m, `norm[m, j]` is what is left of shape j without its mean, `mean[m, j]` that mean
    (both in terms of a constant 1), `norm_of_one[m]` the length of a constant 1.
    """

    height: Floats
    kind: list[Kind]
    begin: Floats
    end: Floats
    time_constant: Floats
    norm: Floats
    mean: Floats
    norm_of_one: Floats


def whitened(columns: Floats, memory: float) -> Floats:
    """Noise with this memory from row to row, made white and of the innovations' size."""
    import numpy as np

    white = columns.copy()
    white[0] *= np.sqrt(1 - memory**2)
    white[1:] -= memory * columns[:-1]
    return white


@lru_cache(maxsize=32)
def shapes_for(count: int, per_block: int) -> Shapes:
    """The shapes for `count` blocks of `per_block` steps: about 600 for 200 blocks, a megabyte."""
    import numpy as np

    side = max(-(-SIDE_STEPS // per_block), int(np.ceil(SIDE_SHARE * count)))
    found = [*_jumps(count, side, halves=per_block > 1), *_ramps(count, side), *_quick_starts(count, per_block)]
    height = np.column_stack([each[0] for each in found])
    norm, mean, norm_of_one = _norms(height)
    return Shapes(
        height=height,
        kind=[each[1] for each in found],
        begin=np.array([each[2] for each in found]),
        end=np.array([each[3] for each in found]),
        time_constant=np.array([each[3] / OVER if each[1] == "quick" else np.inf for each in found]),
        norm=norm,
        mean=mean,
        norm_of_one=norm_of_one,
    )


def _jumps(count: int, side: int, *, halves: bool) -> list[tuple[Floats, Kind, float, float]]:
    """At each edge between blocks, and with `halves` inside of each block too."""
    import numpy as np

    place = np.arange(count)
    found: list[tuple[Floats, Kind, float, float]] = []
    for at in range(side, count - side + 1):
        found.append(((place >= at).astype(float), "jump", at / count, at / count))
        if halves and at < count - side:
            found.append((np.clip(place - at + 0.5, 0, 1), "jump", at / count, (at + 1) / count))
    return found


def _ramps(count: int, side: int) -> list[tuple[Floats, Kind, float, float]]:
    """On a grid of twentieths. Those that rise with the run and soon level off, or never do, are kinds of their own."""
    import numpy as np

    middle = (np.arange(count) + 0.5) / count
    found: list[tuple[Floats, Kind, float, float]] = []
    for first in range(RAMP_GRID):
        for last in range(first + 1, RAMP_GRID + 1):
            begin, end = first / RAMP_GRID, last / RAMP_GRID
            if (end - begin) * count < SHORTEST_RAMP or end * count < side or (1 - begin) * count < side:
                continue
            height = np.clip((middle - begin) / (end - begin), 0, 1)
            found.append((height, _kind(begin, end), begin, end))
    return found


def _quick_starts(count: int, per_block: int) -> list[tuple[Floats, Kind, float, float]]:
    """Rises from the first step on that are ever slower, as a device has them that was cold."""
    import numpy as np

    middle = (np.arange(count) + 0.5) / count
    shares = [share for share in QUICK if share * count * per_block >= QUICKEST_STEPS]
    return [(1 - np.exp(-middle / share), "quick", 0.0, OVER * share) for share in shares]


def _kind(begin: float, end: float) -> Kind:
    if begin == 0 and end == 1:
        return "drift"
    return "start" if begin == 0 and end <= EARLY else "ramp"


def _norms(height: Floats) -> tuple[Floats, Floats, Floats]:
    import numpy as np

    norm, mean, norm_of_one = [], [], []
    for memory in MEMORIES:
        one, white = whitened(np.ones(len(height)), memory), whitened(height, memory)
        length = float(np.linalg.norm(one))
        share = one @ white / length**2
        norm.append(np.linalg.norm(white - np.outer(one, share), axis=0))
        mean.append(share)
        norm_of_one.append(length)
    return np.array(norm), np.array(mean), np.array(norm_of_one)
