"""What a latency trace comes to: the verdict with its figures, and what repeats of it come to together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Literal

from msgspec import Struct

Verdict = Literal["flat", "warmup", "slowdown", "speedup", "no steady state", "inconclusive", "insufficient"]
Shape = Literal["step", "ramp", "saturating", "cyclic"]

# With a larger share of latencies that are no measurements, the rest does not stand for the run.
MOST_UNUSABLE = 0.1


class Spikes(Struct, frozen=True, kw_only=True):
    """Isolated slow steps, counted and not hidden; the verdict and its ratio are about all the other steps.

    `share_of_time` is how much of the whole time they took; `first_third` and `last_third` are shares of the steps
    there. None where there is no trace to speak of.
    """

    count: int
    share_of_time: float | None
    first_third: float | None
    last_third: float | None


class Slowdown(Struct, frozen=True, kw_only=True):
    """The verdict on a trace of `n` latencies, with the effect and its interval. None: not found, or not to be said.

    `ratio` is the typical latency of the last tenth over that of the first tenth (`last_s` over `first_s`), slow first
    steps set aside and spikes cut back. `change` is the rise or fall that was found, as a share (+0.21, -0.15), and
    `from_step` to `to_step` is where it happens, counted from the first measured step, which is 0: the two differ from
    `ratio` on purpose, since a jump may be certain where the ends of the run are too short to tell. `warmup_steps` are
    those set aside. `steady_s` stands where there is a steady state: for `flat` and `warmup`. `more_steps` is about how
    many more would settle an `inconclusive` trace, None where that is unknown or beyond reason. `unusable` latencies
    (not finite, or not above zero) are no measurements: they are left out of everything but `n` and step numbers, and
    where they are more than a tenth, the verdict is `inconclusive`.
    """

    verdict: Verdict
    ratio: float | None = None
    ci99: tuple[float, float] | None = None
    shape: Shape | None = None
    still_rising: bool = False
    change: float | None = None
    from_step: int | None = None
    to_step: int | None = None
    warmup_steps: int = 0
    steady_s: float | None = None
    steady_ci99_s: tuple[float, float] | None = None
    first_s: float | None = None
    last_s: float | None = None
    spikes: Spikes | None = None
    more_steps: int | None = None
    n: int
    unusable: int = 0

    @property
    def too_many_unusable(self) -> bool:
        """Whether the latencies that are measurements do not stand for the run."""
        return self.unusable > MOST_UNUSABLE * self.n


class Repeats(Struct, frozen=True, kw_only=True):
    """What several traces of the same cell, each from a process of its own, come to together.

    `verdict` is theirs where they agree. Flat and warmup agree: the steps are steady in the end. An `inconclusive` or
    `insufficient` trace contradicts none, but more than half must be decided. `ratio` is the median, None where no
    trace has one.
    """

    verdict: Verdict | Literal["inconsistent"]
    counts: dict[Verdict, int]
    ratio: float | None
    lowest_ratio: float | None
    highest_ratio: float | None


def across(repeats: Sequence[Slowdown]) -> Repeats:
    """The verdict on repeats of one cell in separate processes; `insufficient` where there are none."""
    counts = Counter(each.verdict for each in repeats)
    ratios = [each.ratio for each in repeats if each.ratio is not None]
    return Repeats(
        verdict=_agreed(counts),
        counts=dict(counts),
        ratio=median(ratios) if ratios else None,
        lowest_ratio=min(ratios, default=None),
        highest_ratio=max(ratios, default=None),
    )


def _agreed(counts: Counter[Verdict]) -> Verdict | Literal["inconsistent"]:
    if counts["insufficient"] == counts.total():
        return "insufficient"
    decided = [verdict for verdict in counts if verdict not in ("inconclusive", "insufficient")]
    if set(decided) == {"flat", "warmup"}:
        decided = ["warmup"]
    if len(decided) > 1:
        return "inconsistent"
    undecided = counts["inconclusive"] + counts["insufficient"]
    return decided[0] if 2 * undecided < counts.total() else "inconclusive"
