"""What the samples of powermetrics add up to: curves of joules, where they lie in time, and what to know of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from powerbench.errors import MeterLost
from powerbench.power.powermetrics.documents import Kind, Sample, is_finite, read_document
from powerbench.records import Gauge, RailRecord, Reading
from powerbench.units import NS_PER_MS, NS_PER_S, counted, milliseconds, seconds_from_ns

# Twice the longest batch on record (2.23 s on an M5 Max, lablup/all-smi#410): beyond that it is a stall.
STALL_NS = 5 * NS_PER_S
STALL_WINDOWS = 3
# A GPU that starts in the middle of a window looks like a lump or two.
FEW_LUMPS = 3
DRIFT_NS = 20 * NS_PER_MS

ACCURACY_SOURCE = (
    "none given: Apple's help text for powermetrics calls these powers estimates that may be inaccurate, of use for "
    "making one program efficient and not for comparing devices"
)


class Arrival(NamedTuple):
    """When a document came in: the monotonic clock, and the calendar at that moment."""

    monotonic_ns: int
    unix_ns: int


class Anchor:
    """Finds where the windows lie on the monotonic clock; powermetrics itself tells whole seconds only.

    The windows leave no gap, so one moment c, the start of the first, places them all:

        started   c                 end_1               end_2               end_3
           |------|=====window 1=====|=====window 2=====|=====window 3=====|
                                       ^ arrival 1        ^ arrival 2          ^ arrival 3

    A document arrives after its window's end: c <= arrival_k - (elapsed_1 + ... + elapsed_k), and the least of these
    is what we take. From below: c is not before powermetrics was started, and no window ends before the second that
    labels it, be that label of its start or of its end. The distance of the two bounds is the stated uncertainty; to
    it are added how far the later windows drift from c (were they not gapless), and the spread of the arrivals where
    a window was missed, whose length is known from arrivals only.
    """

    # A step of the calendar clock by more than this spoils the labels; NTP's slewing stays far below.
    CALENDAR_STEP_NS = 50 * NS_PER_MS

    def __init__(self, started_ns: int) -> None:
        self._started_ns = started_ns
        self._latest_starts_ns: list[int] = []
        self._label_starts_ns: list[int] = []
        self._calendar_ns: list[int] = []
        self._last_arrival_ns = 0
        self.covered_ns = 0
        self.missed_ns = 0

    def add(self, elapsed_ns: int, arrival: Arrival, *, label_unix_ns: int | None) -> None:
        """Append the window that this document is about."""
        self.covered_ns += elapsed_ns
        self._last_arrival_ns = arrival.monotonic_ns
        self._latest_starts_ns.append(arrival.monotonic_ns - self.covered_ns)
        calendar_ns = arrival.unix_ns - arrival.monotonic_ns
        self._calendar_ns.append(calendar_ns)
        if label_unix_ns is not None:
            self._label_starts_ns.append(label_unix_ns - calendar_ns - self.covered_ns)

    def skip(self, arrival: Arrival, *, elapsed_ns: int) -> None:
        """Leave out what was missed before a window of `elapsed_ns`, as long as the arrivals say it was."""
        if self._latest_starts_ns:
            missed_ns = max(0, arrival.monotonic_ns - self._last_arrival_ns - elapsed_ns)
            self.covered_ns += missed_ns
            self.missed_ns += missed_ns

    @property
    def provisional_ns(self) -> int:
        """Where the last window ends, as the first arrival has it."""
        return self._latest_starts_ns[0] + self.covered_ns

    @property
    def offset_ns(self) -> int:
        """What is to be added to provisional times."""
        return min(self._latest_starts_ns) - self._latest_starts_ns[0]

    @property
    def drift_ns(self) -> int:
        """How much later the last quarter of the windows ended than their lengths add up to."""
        return min(self._latest_starts_ns[-(len(self._latest_starts_ns) // 4 + 1) :]) - min(self._latest_starts_ns)

    @property
    def uncertainty_ns(self) -> int:
        """How far off the placed windows can be."""
        latest_ns = min(self._latest_starts_ns)
        spread_ns = max(self._latest_starts_ns) - latest_ns if self.missed_ns else 0
        return abs(latest_ns - self._earliest_start_ns(latest_ns)) + self.drift_ns + spread_ns

    def _earliest_start_ns(self, latest_ns: int) -> int:
        steady = max(self._calendar_ns) - min(self._calendar_ns) <= self.CALENDAR_STEP_NS
        label_start_ns = max(self._label_starts_ns, default=self._started_ns)
        # A label that contradicts the arrivals is not what we take it for, and is left aside.
        usable = steady and label_start_ns <= latest_ns
        return max(self._started_ns, label_start_ns) if usable else self._started_ns


@dataclass
class Curve:
    """One rail's joules so far, and whether they can still be believed.

    A window without energy while the rail is busy is not drawn: the counter may publish in lumps, and then the next
    point carries the energy of all the windows since the last one.
    """

    kind: Kind
    total_mj: float = 0
    peak_w: float = 0.0
    held_ns: int = 0
    held_windows: int = 0
    points: int = 0
    lumps: int = 0
    longest_lump_ns: int = 0
    lost: str | None = None

    def add(self, energy_mj: float | None, *, elapsed_ns: int, is_busy: bool) -> float | None:
        """The mean watts since the last point, or None where the curve gets no point at this window's end."""
        if self.lost is None and (energy_mj is None or not is_finite(energy_mj) or energy_mj < 0):
            self.lost = "powermetrics stopped giving it" if energy_mj is None else f"powermetrics gave {energy_mj} mJ"
        if self.lost is not None or energy_mj is None:
            return None
        if energy_mj == 0 and is_busy:
            self._hold(elapsed_ns)
            return None
        return self._draw(energy_mj, elapsed_ns)

    def end(self) -> None:
        """Nothing more comes: what is held back by now was no lump."""
        if self.lost is None and self.held_ns > max(NS_PER_S, 2 * self.longest_lump_ns):
            self._stall()

    @property
    def comes_in_lumps(self) -> bool:
        """Whether its counter is published less often than it is read; a load that starts in mid-window is no lump."""
        often = self.lumps >= FEW_LUMPS and 2 * self.lumps >= self.points
        return often or self.longest_lump_ns > NS_PER_S

    def _draw(self, energy_mj: float, elapsed_ns: int) -> float:
        since_ns = self.held_ns + elapsed_ns
        if self.held_ns:
            self.lumps += 1
            self.longest_lump_ns = max(self.longest_lump_ns, since_ns)
        self.points += 1
        self.held_ns = self.held_windows = 0
        self.total_mj += energy_mj
        power_w = energy_mj / 1000 / seconds_from_ns(since_ns)
        self.peak_w = max(self.peak_w, power_w)
        return power_w

    def _hold(self, elapsed_ns: int) -> None:
        self.held_ns += elapsed_ns
        self.held_windows += 1
        if self.held_ns >= STALL_NS and self.held_windows >= STALL_WINDOWS:
            self._stall()

    def _stall(self) -> None:
        self.lost = (
            f"it stalled: powermetrics gave no energy for {seconds_from_ns(self.held_ns):.1f} s of it being busy"
        )


class Recording:
    """The curves that documents draw; it is handed each document with its arrival and asks no clock of its own."""

    def __init__(self, *, started_ns: int) -> None:
        self.windows = 0
        self._anchor = Anchor(started_ns)
        self._curves: dict[str, Curve] = {}
        self._unreadable = 0
        self._missed = False
        self._stopping = False
        self._summary: Sample | None = None

    def add(self, document: bytes, arrival: Arrival) -> list[Reading | Gauge]:
        """The points and gauges of a document; none where it cannot be read. Raises MeterLost if it has no energies."""
        sample = read_document(document)
        if sample is None or (self._curves and not sample.energies_mj):
            self._unreadable += 1
            self._missed = True
            return []
        if self._is_summary(sample):
            self._summary = sample
            return []
        if not self._curves:
            self._begin(sample)
        return self._append(sample, arrival)

    def expect_summary(self) -> None:
        """powermetrics has been told to end: a window as long as all the others is its summary."""
        self._stopping = True

    def end(self) -> None:
        """Nothing more comes."""
        for curve in self._curves.values():
            curve.end()

    def rails(self) -> Mapping[str, RailRecord]:
        """What the curves are; empty before the first document."""
        return {rail: self._rail(curve) for rail, curve in self._curves.items()} if self.windows else {}

    def notes(self) -> list[str]:
        """What a reader must know of these curves."""
        return [*self._document_notes(), *self._curve_notes(), *self._conservation_notes()]

    def _is_summary(self, sample: Sample) -> bool:
        covers_all = self.windows >= 3 and 0.9 <= sample.elapsed_ns / self._anchor.covered_ns <= 1.5
        return not sample.is_delta or (self._stopping and covers_all)

    def _begin(self, sample: Sample) -> None:
        if (why := sample.why_useless()) is not None:
            raise MeterLost(why)
        self._curves = {kind.rail: Curve(kind) for kind in sample.kinds}

    def _append(self, sample: Sample, arrival: Arrival) -> list[Reading | Gauge]:
        if self._missed:
            self._anchor.skip(arrival, elapsed_ns=sample.elapsed_ns)
            self._missed = False
        self._anchor.add(sample.elapsed_ns, arrival, label_unix_ns=sample.label_unix_ns)
        self.windows += 1
        end_ns = self._anchor.provisional_ns
        start = [Reading(end_ns - sample.elapsed_ns, rail, 0.0) for rail in self._curves] if self.windows == 1 else []
        gauges = [Gauge(end_ns, name, value) for name, value in sample.gauges.items()]
        return [*start, *self._points(sample, end_ns), *gauges]

    def _points(self, sample: Sample, end_ns: int) -> Iterable[Reading | Gauge]:
        for rail, curve in self._curves.items():
            power_w = curve.add(
                sample.energies_mj.get(rail), elapsed_ns=sample.elapsed_ns, is_busy=sample.busy.get(rail, False)
            )
            if power_w is not None:
                yield Reading(end_ns, rail, curve.total_mj / 1000)
                yield Gauge(end_ns, f"{rail}.power_w", power_w)

    def _rail(self, curve: Curve) -> RailRecord:
        read_ns = self._anchor.covered_ns - self._anchor.missed_ns
        period_s = seconds_from_ns(read_ns) / self.windows
        return RailRecord(
            source="powermetrics",
            method="interval average",
            state="estimated",
            scope=curve.kind.scope,
            part=curve.kind.part,
            contains=list(curve.kind.contains),
            period_s=period_s,
            averaging_s=max(period_s, seconds_from_ns(curve.longest_lump_ns)) if curve.comes_in_lumps else period_s,
            coverage=read_ns / self._anchor.covered_ns,
            quantum_j=0.001 if curve.kind.mj == 1 else None,
            accuracy_source=ACCURACY_SOURCE,
            offset_ns=self._anchor.offset_ns,
            time_uncertainty_ns=self._anchor.uncertainty_ns,
            lost=curve.lost,
        )

    def _document_notes(self) -> Iterable[str]:
        if self._unreadable:
            missed = seconds_from_ns(self._anchor.missed_ns)
            missing = "no readable one came after" if self._missed else f"the energy of {missed:.1f} s is missing"
            yield f"{counted(self._unreadable, 'document')} of powermetrics could not be read: {missing}."
        if self.windows and self._anchor.drift_ns > DRIFT_NS:
            yield (
                f"The windows of powermetrics add up to {milliseconds(self._anchor.drift_ns / NS_PER_MS)} less than "
                "they took, so late ones are placed early by as much (did the machine sleep?)."
            )

    def _curve_notes(self) -> Iterable[str]:
        for rail, curve in self._curves.items():
            if curve.comes_in_lumps:
                longest_s = seconds_from_ns(curve.longest_lump_ns)
                yield (
                    f"The energy of {rail} came in lumps of up to {longest_s:.1f} s "
                    f"({counted(curve.lumps, 'time')}), so nothing shorter can be told of it."
                )
            if curve.lost is not None:
                yield f"The curve of {rail} ends early: {curve.lost}."

    def _conservation_notes(self) -> Iterable[str]:
        if self._summary is None:
            return
        beyond_ns = max(0, self._summary.elapsed_ns - self._anchor.covered_ns)
        for rail, curve in self._curves.items():
            whole_mj = self._summary.energies_mj.get(rail)
            if whole_mj is None or not is_finite(whole_mj) or curve.lost is not None:
                continue
            if self._is_conserved(curve, whole_mj, beyond_ns=beyond_ns):
                continue
            yield (
                f"The samples of powermetrics add up to {curve.total_mj / 1000:.3f} J of {rail}, "
                f"its own summary has {whole_mj / 1000:.3f} J."
            )

    def _is_conserved(self, curve: Curve, whole_mj: float, *, beyond_ns: int) -> bool:
        """Within 1 %, but for what the summary covers beyond the last sample, at no more than the peak power."""
        beyond_mj = curve.peak_w * seconds_from_ns(beyond_ns) * 1000
        rounding_mj = 0.5 * (self.windows + 1)
        tolerance_mj = max(0.01 * whole_mj, rounding_mj)
        return whole_mj - beyond_mj - tolerance_mj <= curve.total_mj <= whole_mj + tolerance_mj
