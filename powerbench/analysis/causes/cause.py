"""What a likely cause is, and how strongly the record speaks for one."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Literal, NamedTuple

from msgspec import Struct

from powerbench.units import enumerated

Kind = Literal[
    "throttling",
    "memory pressure",
    "tensor leak",
    "allocator cache",
    "memory outside torch",
    "memory growth",
    "garbage collection",
    "other load",
    "host-bound",
    "not synchronized",
    "straggler",
]


class Cause(Struct, frozen=True, kw_only=True):
    """A likely cause of a slowdown, each field in whole sentences.

    `counter_evidence` is what the record holds against it; `not_recorded` what would have settled it and is not there;
    None where there is nothing of that sort. `experiment` would confirm it.
    """

    cause: Kind
    evidence: str
    counter_evidence: str | None
    not_recorded: str | None
    experiment: str


class Strength(IntEnum):
    """How strongly the record speaks for a cause."""

    GROWS_TOO = 1
    """Something grew while the steps did; what that has to do with their time is not in the record."""
    SEEN_WITH_IT = 2
    """What this cause does was seen, where the steps became slower and to a fitting extent."""
    ACCOUNTS_FOR_IT = 3
    """The cause was recorded as such, or the seconds that it took are those that the steps became longer by."""


class Finding(NamedTuple):
    """A cause, and what is needed to rank it; of two of one strength the greater `weight` goes first."""

    strength: Strength
    cause: Cause
    weight: float = 0.0


class Sign(NamedTuple):
    """One thing that was seen, in words that begin small and end without a period."""

    strength: Strength | None
    text: str


def strongest(signs: Iterable[Sign]) -> Strength | None:
    """The strength of the strongest sign; None where there are only signs that say nothing alone."""
    return max((sign.strength for sign in signs if sign.strength is not None), default=None)


def sentence(parts: Iterable[str]) -> str | None:
    """The parts as one sentence; None where there is none."""
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else None


def evidence(parts: Iterable[str], *, pace: str) -> str:
    """The parts as one sentence, of which the first is set beside what became of a step meanwhile."""
    first, *others = parts
    comma = "," if ", " in first else ""
    return sentence([f"{first}{comma} {pace}", *others]) or ""


def missing(parts: Iterable[str], *, so: str) -> str | None:
    """`The clock and the temperature were not recorded, ` and what follows from that; None where nothing is missing."""
    names = list(parts)
    if not names:
        return None
    return sentence([f"not recorded: {enumerated(names)}; {so}"])
