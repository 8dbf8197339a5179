"""Temporary stand-in: the type that a cause has."""

from __future__ import annotations

from msgspec import Struct


class Cause(Struct, frozen=True, kw_only=True):
    """A likely cause."""

    cause: str
    evidence: str
    counter_evidence: str | None
    not_recorded: str | None
    experiment: str


def find_causes(run: object, slowdown: object) -> list[Cause]:
    """None."""
    return []
