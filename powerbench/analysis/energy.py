"""A run in joules: the energy of its measured steps, how far sampling may have put it off, and what it covers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from powerbench.analysis.alignment import line_of
from powerbench.analysis.counted import counted_rails, scope_in_words, unmetered_gpus
from powerbench.analysis.curves import Line, common, duration_s, within
from powerbench.analysis.latencies import lasted_ns
from powerbench.analysis.sampling import Sampling, pause_error, sampling_error
from powerbench.records import EnergyCurve, RailRecord, RunRecord, StepTrace, Window
from powerbench.units import counted as number_of
from powerbench.units import duration, seconds_from_ns, significant

if TYPE_CHECKING:
    from collections.abc import Sequence

FEWEST_READINGS = 3
FEW_READINGS = 10
# Above this relative half-width no figure is given.
WIDEST = 0.10
# Yang, Adamek and Armour (SC'24, arXiv:2312.02741): below five seconds a GPU's sensor may be off by most of it.
SHORTEST_GPU_S = 5.0
# A suspend shorter than this is the jitter between two clocks.
NOTABLE_SLEEP_NS = 100_000_000
# Rest that draws as much as the steps is a control's; noticeably more is somebody else's.
WARMER_AT_REST = 0.97
NEVER_MOVED = "{} is not counted: its counter never moved, and memory always draws something."
NO_RAIL = "none of the rails that were metered ({}) is the device's own; name their source with --power to count it"


class RailEnergy(Struct, frozen=True, kw_only=True):
    """One rail in the measured window. `counted`: whether it is in the headline."""

    source: str
    method: str
    counted: bool
    j_per_step: float | None
    mean_w: float | None


class Energy(Struct, frozen=True, kw_only=True):
    """The `energy` of a summary, keys in its order: gross joules of the counted rails over the measured steps.

    Of a recording of power, over all of it, and nothing is said of steps.
    """

    total_j: float
    total_j_sampling_ci95: tuple[float, float]
    j_per_step: float | None
    j_per_step_sampling_ci95: tuple[float, float] | None
    sensor_accuracy: float | None
    j_per_sample: float | None
    mean_w: float
    peak_w: float | None
    net_j_per_step: float | None
    idle_w: float | None
    partial: bool
    readings: int
    scope: str
    rails: dict[str, RailEnergy]


class EnergyFindings(NamedTuple):
    """What a run's energy is, or why there is no figure (a clause without a full stop); and notes on it."""

    energy: Energy | None
    reason: str | None
    notes: list[str]


def find_energy(record: RunRecord, steps: StepTrace, curves: Mapping[str, EnergyCurve]) -> EnergyFindings:
    """The energy of a run. `curves` are on the machine's clock: offsets have been added."""
    if record.cell is None:
        window, spans = record.windows.get("measured"), []
    else:
        window, spans = steps.window("step"), steps.spans("step")
    dead = [name for name, curve in curves.items() if _never_moved(record.rails.get(name), curve)]
    counted = [name for name in counted_rails(record) if name not in dead]
    reason = _why_none(record, window, counted)
    if reason is not None or window is None:
        return EnergyFindings(None, reason, [])
    lines = {name: line_of(curves.get(name, EnergyCurve()), rail, window=window) for name, rail in record.rails.items()}
    covered = [lines[name].covered(window) for name in counted]
    part = common([it for it in covered if it is not None]) if None not in covered else None
    if part is None:
        during = "recording" if record.cell is None else "measured steps"
        return EnergyFindings(None, f"the meter gave nothing during the {during} ({_lost(record, counted)})", [])
    measured = _Measured(record, curves, lines, counted, part, spans)
    reason = measured.why_untrusted()
    notes = [*_notes(record, counted, measured, window), *(NEVER_MOVED.format(name) for name in dead)]
    return (
        EnergyFindings(None, reason, notes)
        if reason is not None
        else EnergyFindings(measured.energy(window), None, notes)
    )


def _pauses(spans: Sequence[tuple[int, int, int]]) -> list[Window]:
    """What lies between measured steps and is none."""
    return [Window(end, start) for (_, end, _), (start, _, _) in pairwise(spans) if start > end]


def _never_moved(rail: RailRecord | None, curve: EnergyCurve) -> bool:
    """Whether a counter of memory stood still from beginning to end: refresh alone draws something."""
    return rail is not None and rail.part == "dram" and len(curve.energy_j) > 1 and curve.energy_j[-1] <= 0


def _why_none(record: RunRecord, window: Window | None, counted: list[str]) -> str | None:
    if not record.rails:
        return _why_no_rail(record)
    if window is None:
        return "nothing was recorded" if record.cell is None else "no step was measured to its end"
    if (record.clock.suspended_ns or 0) > NOTABLE_SLEEP_NS:
        slept_s = seconds_from_ns(record.clock.suspended_ns or 0)
        return f"the machine slept for {duration(slept_s)} during the run; measure again and keep it awake"
    if unmetered := unmetered_gpus(record):
        return f"ranks stepped on {number_of(len(unmetered), 'GPU')} that no meter saw ({', '.join(unmetered)})"
    return None if counted else NO_RAIL.format(", ".join(record.rails))


def _why_no_rail(record: RunRecord) -> str:
    power = "auto" if record.cell is None else record.cell.power
    if power == "none":
        return f"no meter was asked for ({'power=' if record.loop else '--power '}none)"
    tried = record.unmetered if power != "auto" else record.tried
    if tried:
        return "; ".join(f"{name} gave no reading: {record.unmetered[name].rstrip('.')}" for name in tried)
    if record.unmetered:
        return "no meter could be opened on this machine; `powerbench doctor` says why, source by source"
    return "no meter was recorded with this run"


class _Measured:
    """The counted rails over the part of the measured window that all of their curves cover, without its pauses."""

    def __init__(
        self,
        record: RunRecord,
        curves: Mapping[str, EnergyCurve],
        lines: Mapping[str, Line],
        counted: list[str],
        part: Window,
        spans: Sequence[tuple[int, int, int]],
    ) -> None:
        self.record, self.curves, self.lines, self.counted, self.part = record, curves, lines, counted, part
        self.pauses = within(_pauses(spans), part)
        self.lasted_s = duration_s(part) - sum(map(duration_s, self.pauses))
        self.step_s: float | None = None
        if spans:
            self.step_s = seconds_from_ns(lasted_ns(spans)) / sum(count for _, _, count in spans)
        self.total_j = sum(self.joules(name) or 0.0 for name in counted)
        self.readings = min(min(self._readings(name), self._looks(name)) for name in counted)
        self.idle_w = self._rest_w(counted, record.windows.get("idle"))
        errors = self._sampling(spans) if self.readings >= FEWEST_READINGS else [Sampling(math.inf)]
        self.half_j = sum(error.half_j for error in errors)
        self.unseen = max(error.unseen for error in errors)

    def joules(self, name: str) -> float | None:
        """A rail's joules in the part; None where its curve does not reach over it."""
        in_all = self.lines[name].energy_in(self.part)
        in_pauses = [self.lines[name].energy_in(pause) for pause in self.pauses]
        return None if in_all is None else in_all - sum(joules for joules in in_pauses if joules is not None)

    def _readings(self, name: str) -> int:
        line = self.lines[name]
        return line.readings_in(self.part) - sum(line.readings_in(pause) for pause in self.pauses)

    def why_untrusted(self) -> str | None:
        """Why no figure is given, and how long to run for one."""
        lasted_s = self.lasted_s
        on_gpu = any(self.record.rails[name].part in ("gpu", "module") for name in self.counted)
        of_nvml = any(self.record.rails[name].source in ("nvml", "hwmon") for name in self.counted)
        if on_gpu and of_nvml and lasted_s < SHORTEST_GPU_S:
            needed = f"{SHORTEST_GPU_S:g} s"
            return f"a GPU's meter needs {needed} and had {duration(lasted_s)}; {self._take(needed)}"
        if self.readings < FEWEST_READINGS:
            needed_s = math.ceil(FEW_READINGS * max(self.record.rails[name].period_s for name in self.counted))
            few = f"only {number_of(self.readings, 'reading')}" if self.readings else "no reading"
            return f"{few} of the meter fell into the {self._what}; {self._take(f'{needed_s} s')}"
        if self.total_j <= 0:
            return f"the meter counted no energy at all during the {self._what}, so it is not to be believed"
        if self.half_j > WIDEST * self.total_j and self.unseen > 0:
            return (
                f"the steps keep time with the sensor, which never saw {self.unseen:.0%} of each; running longer does "
                "not help, so change --batch-size or --sequence-length a little"
            )
        if self.half_j > WIDEST * self.total_j:
            needed_s = math.ceil(lasted_s * self.half_j / (WIDEST * self.total_j))
            return (
                f"sampling leaves it open by {self.half_j / self.total_j:.0%} either way; "
                f"{self._take(f'about {duration(needed_s)}')}"
            )
        return None

    @property
    def _what(self) -> str:
        return "steps" if self.step_s is not None else "recording"

    def _take(self, time: str) -> str:
        if self.record.loop:
            return f"record {time} of steps"
        if self.record.command is not None:
            return f"run what lasts {time}"
        return f"measure {time} with --min-seconds" if self.step_s is not None else f"record {time}"

    def energy(self, window: Window) -> Energy:
        """The figures; per step by the mean power, so that a part speaks for steps that it does not cover."""
        lasted_s = self.lasted_s
        mean_w, half_w = self.total_j / lasted_s, self.half_j / lasted_s
        low_w, high_w = max(0.0, mean_w - half_w), mean_w + half_w
        samples = self.record.workload.samples_per_step if self.record.workload else None
        step_s = self.step_s
        return Energy(
            total_j=self.total_j,
            total_j_sampling_ci95=(low_w * lasted_s, high_w * lasted_s),
            j_per_step=None if step_s is None else mean_w * step_s,
            j_per_step_sampling_ci95=None if step_s is None else (low_w * step_s, high_w * step_s),
            sensor_accuracy=self._accuracy(),
            j_per_sample=mean_w * step_s / samples if samples and step_s is not None else None,
            mean_w=mean_w,
            peak_w=self._peak_w(),
            net_j_per_step=None if self.idle_w is None or step_s is None else (mean_w - self.idle_w) * step_s,
            idle_w=self.idle_w,
            partial=self.part != window,
            readings=self.readings,
            scope=scope_in_words(self.record, self.counted),
            rails={name: self._rail(name, rail) for name, rail in self.record.rails.items()},
        )

    def _rail(self, name: str, rail: RailRecord) -> RailEnergy:
        is_dead = _never_moved(rail, self.curves.get(name, EnergyCurve()))
        joules = None if is_dead else self.joules(name)
        mean_w = None if joules is None else joules / self.lasted_s
        return RailEnergy(
            source=rail.source,
            method=rail.method,
            counted=name in self.counted,
            j_per_step=None if mean_w is None or self.step_s is None else mean_w * self.step_s,
            mean_w=mean_w,
        )

    def _sampling(self, spans: Sequence[tuple[int, int, int]]) -> list[Sampling]:
        """Of each counted rail: their half-widths are added, as if all erred the same way."""
        rails, idle = self.record.rails, self.record.windows.get("idle")
        errors = [
            sampling_error(self.lines[name], rails[name], self.part, spans, floor_w=self._rest_w([name], idle) or 0.0)
            for name in self.counted
        ]
        of_pauses = [
            Sampling(pause_error(self.lines[name], rails[name], self.part, pause))
            for name in self.counted
            for pause in self.pauses
        ]
        return errors + of_pauses

    def _accuracy(self) -> float | None:
        """The worst published accuracy of the counted rails; None where one has none."""
        published = [self.record.rails[name].accuracy for name in self.counted]
        return None if None in published else max(accuracy for accuracy in published if accuracy is not None)

    def _rest_w(self, names: Sequence[str], idle: Window | None) -> float | None:
        """The power of these rails before the worker began; None where one of them was not metered then."""
        if idle is None:
            return None
        # Lines of their own: those of the steps have had readings moved. From reading to reading inside the rest, of
        # which every part is as good: an interval across its end would let the worker's start in.
        lines = [line_of(self.curves.get(name, EnergyCurve()), self.record.rails[name], window=idle) for name in names]
        inside = [line.between_readings(idle) for line in lines]
        rest = common([it for it in inside if it is not None]) if None not in inside else None
        if rest is None:
            return None
        used = [line.energy_in(rest) for line in lines]
        return sum(joules for joules in used if joules is not None) / duration_s(rest)

    def _looks(self, name: str) -> int:
        """How often the sensor itself can have looked: asked more often, it answers the same again."""
        period_s = self.record.rails[name].period_s
        return math.ceil(self.lasted_s / period_s) + 1 if period_s > 0 else self._readings(name)

    def _peak_w(self) -> float | None:
        """The largest mean power of the counted rails together over one period of the slowest of them."""
        import numpy as np

        period_s = max(self.record.rails[name].period_s for name in self.counted)
        count = int(duration_s(self.part) / period_s)
        if count < 1:
            return None
        edges = np.linspace(self.part.start_ns, self.part.end_ns, count + 1)
        used = sum(
            np.diff(np.interp(edges, self.lines[name].time_ns, self.lines[name].energy_j)) for name in self.counted
        )
        stepped = np.ones(count, dtype=bool)
        for pause in self.pauses:
            stepped &= (edges[1:] <= pause.start_ns) | (edges[:-1] >= pause.end_ns)
        return float(np.max((used / (np.diff(edges) / 1e9))[stepped])) if stepped.any() else None


def _notes(record: RunRecord, counted: list[str], measured: _Measured, window: Window) -> list[str]:
    told = " ".join(record.notes)
    lost: dict[str, list[str]] = {}
    for name, rail in record.rails.items():
        if rail.lost is not None and rail.lost not in told:
            lost.setdefault(rail.lost, []).append(name)
    notes = [
        f"The {'curve' if len(names) == 1 else 'curves'} of {', '.join(names)} "
        f"{'ends' if len(names) == 1 else 'end'} early: {reason}."
        for reason, names in lost.items()
    ]
    if measured.part != window:
        notes.append(_partial(record, measured.part, window))
    if FEWEST_READINGS <= measured.readings < FEW_READINGS:
        fell_into = "recording" if record.cell is None else "measured steps"
        notes.append(f"Only {number_of(measured.readings, 'reading')} of the meter fell into the {fell_into}.")
    if any(record.rails[name].source in ("powermetrics", "ioreport") for name in counted):
        notes.append(
            "These joules are Apple's estimates: good for one machine against itself, and by Apple's own words not for "
            "comparing devices."
        )
    if measured.idle_w is not None and measured.total_j < WARMER_AT_REST * measured.idle_w * measured.lasted_s:
        notes.append(
            f"The machine drew more at rest ({significant(measured.idle_w)} W) than while it stepped: something else "
            "was running then."
        )
    return notes


def _partial(record: RunRecord, part: Window, window: Window) -> str:
    missing = [
        word
        for word, is_missing in (("before", part.start_ns > window.start_ns), ("after", part.end_ns < window.end_ns))
        if is_missing
    ]
    what = f"The energy is partial: the meter covers {duration(duration_s(part))} of {duration(duration_s(window))}"
    by = "" if record.cell is None else "; the figures a step are by the mean power of that part"
    return f"{what} and gave nothing {' and '.join(missing)} that{by}."


def _lost(record: RunRecord, counted: list[str]) -> str:
    reasons = [rail.lost for name in counted if (rail := record.rails[name]).lost is not None]
    return "; ".join(reasons) or "its curve has no reading there"
