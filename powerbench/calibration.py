"""What a meter is like on this machine, found out by watching it at rest: its pace, its grain and its noise."""

from __future__ import annotations

import time
from itertools import pairwise
from statistics import fmean, median, pstdev

from msgspec import Struct

from powerbench.errors import MeterLost
from powerbench.power import Source
from powerbench.records import Reading
from powerbench.units import NS_PER_MS, seconds_from_ns

PERIOD_S = 0.1
WATCH_S = 5.0


class Calibration(Struct, frozen=True, kw_only=True):
    """One rail at rest: the median time between readings, the least energy between two, mean power and its spread.

    None where too few readings came to tell.
    """

    rail: str
    readings: int
    period_ms: float | None
    quantum_j: float | None
    idle_w: float | None
    noise_w: float | None


def calibrate(source: Source, *, seconds: float = WATCH_S) -> list[Calibration]:
    """Watch every rail of a source for so long. Raises MeterLost."""
    meter = source.open(period_s=PERIOD_S)
    readings: list[Reading] = []
    try:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s and (points := meter.read()):
            readings += [point for point in points if isinstance(point, Reading)]
    except MeterLost:
        if not readings:
            raise
    finally:
        meter.close()
    rails = dict.fromkeys(reading.rail for reading in readings)
    return [of_rail(rail, [reading for reading in readings if reading.rail == rail]) for rail in rails]


def of_rail(rail: str, readings: list[Reading]) -> Calibration:
    """What these readings of one rail tell."""
    pairs = list(pairwise(readings))
    gaps_ns = [later.time_ns - earlier.time_ns for earlier, later in pairs]
    used_j = [later.energy_j - earlier.energy_j for earlier, later in pairs]
    powers_w = [joules / seconds_from_ns(gap_ns) for joules, gap_ns in zip(used_j, gaps_ns, strict=True) if gap_ns]
    return Calibration(
        rail=rail,
        readings=len(readings),
        period_ms=median(gaps_ns) / NS_PER_MS if gaps_ns else None,
        quantum_j=min((joules for joules in used_j if joules > 0), default=None),
        idle_w=fmean(powers_w) if powers_w else None,
        noise_w=pstdev(powers_w) if len(powers_w) > 1 else None,
    )
