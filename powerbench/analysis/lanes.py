"""What was recorded beside the steps that can speak of their latency: power, clock, memory, load, each as one row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from powerbench.analysis.alignment import line_of
from powerbench.analysis.counted import counted_rails, scope_in_words
from powerbench.analysis.recorded import Recorded
from powerbench.records import EnergyCurve, RunRecord

Unit = Literal["W", "MHz", "°C", "bytes", "cores"]
Samples = Sequence[tuple[int, float]]

# What the device's allocator held; the first that was recorded. On mps that is what Metal holds for the process.
HELD = ("reserved", "driver", "allocated")
NOTABLE_SWAP_BYTES = 1e6


@dataclass(frozen=True)
class Lane:
    """One quantity over the run: at `time_ns[i]` it was `values[i]`. `subject` is whose it is."""

    name: str
    subject: str
    unit: Unit
    time_ns: list[int]
    values: list[float]

    def over(self, edge_ns: Sequence[int]) -> list[float | None]:
        """The mean in each stretch between neighbouring edges; between two samples they are joined by a line.

        None where nothing was recorded that early, or that late.
        """
        import numpy as np

        times, values = np.asarray(self.time_ns, dtype=np.float64), np.asarray(self.values, dtype=np.float64)
        edges = np.asarray(edge_ns, dtype=np.float64)
        at = np.searchsorted(times, edges)
        sums = np.concatenate([[0.0], np.cumsum(values)])
        counts = np.diff(at)
        middles = (edges[:-1] + edges[1:]) / 2
        joined = np.interp(middles, times, values, left=np.nan, right=np.nan)
        means = np.where(counts > 0, np.diff(sums[at]) / np.maximum(counts, 1), joined)
        return [None if np.isnan(mean) else float(mean) for mean in means]


def lanes_of(recorded: Recorded) -> list[Lane]:
    """What was recorded, those first that speak of the latency most often; what was not is absent.

    Raises PowerbenchError for a recording of power, which has no device.
    """
    record, gauges = recorded.record, recorded.gauges
    found = (
        _power(record, recorded.curves),
        _of_device(recorded, "clock", "clock_mhz", "MHz"),
        _memory(recorded),
        _others(recorded),
        _swap(record, gauges),
        _of_device(recorded, "temperature", "temperature_c", "°C"),
    )
    return [lane for lane in found if lane is not None and lane.time_ns]


def _power(record: RunRecord, curves: Mapping[str, EnergyCurve]) -> Lane | None:
    """The power of the counted rails together, between the readings of the slowest of them."""
    import numpy as np

    counted = [rail for rail in counted_rails(record) if len(curves.get(rail, EnergyCurve()).time_ns) > 1]
    lines = [line_of(curves[rail], record.rails[rail], window=record.windows.get("measured")) for rail in counted]
    lines = [line for line in lines if len(line.time_ns) > 1]
    if not lines:
        return None
    times = min(lines, key=lambda line: len(line.time_ns)).time_ns
    first, last = max(line.time_ns[0] for line in lines), min(line.time_ns[-1] for line in lines)
    times = times[(times >= first) & (times <= last)]
    energy_j = sum(np.interp(times, line.time_ns, line.energy_j) for line in lines)
    middles = (times[:-1] + times[1:]) / 2
    powers_w = np.diff(energy_j) / (np.diff(times) / 1e9)
    return Lane("power", scope_in_words(record, counted), "W", [int(each) for each in middles], powers_w.tolist())


def _of_device(recorded: Recorded, name: str, quantity: str, unit: Unit) -> Lane | None:
    """A gauge of the device that the steps ran on; none where it is open which of several that is.

    Of the devices of several ranks it is that of the rank that is looked at.
    """
    record, gauges = recorded.record, recorded.gauges
    kind, uuid = record.the_cell.device, recorded.device.uuid if recorded.device else None
    rails = sorted(counted_rails(record), key=lambda rail: record.rails[rail].uuid != uuid)
    own = ["cpu"] if kind == "cpu" else [*rails, "gpu"]
    candidates = [f"{subject}.{quantity}" for subject in own if f"{subject}.{quantity}" in gauges]
    if not candidates and kind != "cpu":
        others = [name for name in gauges if name.endswith(f".{quantity}") and not name.startswith("cpu.")]
        candidates = others if len(others) == 1 else []
    if not candidates:
        return None
    return _lane(name, candidates[0].rpartition(".")[0], unit, gauges[candidates[0]])


def _memory(recorded: Recorded) -> Lane | None:
    """What the device's allocator holds; else, as on the cpu, the worker's resident memory."""
    for held in HELD:
        samples = recorded.memory(held)
        if samples:
            return _lane("memory", held, "bytes", samples)
    return _lane("memory", "worker", "bytes", recorded.of_worker("rss_bytes"))


def _others(recorded: Recorded) -> Lane | None:
    """How many cores were busy with anything but the workers on this machine."""
    import numpy as np

    machine, workers = recorded.gauges.get("system.cpu_ratio", ()), recorded.of_workers("cpu_cores")
    cores = recorded.record.environment.get("logical_cores")
    if not machine or not workers or not cores:
        return None
    times, ratios = np.asarray(machine, dtype=np.float64).T
    columns = [np.asarray(worker, dtype=np.float64).T for worker in workers]
    first, last = max(its[0] for its, _ in columns), min(its[-1] for its, _ in columns)
    inside = (times >= first) & (times <= last)
    own = sum(np.interp(times, its, values) for its, values in columns)
    others = np.maximum(0.0, ratios * cores - own)[inside]
    return Lane("others", "cores busy with anything else", "cores", times[inside].astype(int).tolist(), others.tolist())


def _swap(record: RunRecord, gauges: Mapping[str, Samples]) -> Lane | None:
    """Swap in use, where that changed while the steps were measured."""
    window, samples = record.windows.get("measured"), gauges.get("system.swap_used_bytes", ())
    inside = [value for time_ns, value in samples if window is None or window.start_ns <= time_ns <= window.end_ns]
    if not inside or max(inside) - min(inside) < NOTABLE_SWAP_BYTES:
        return None
    return _lane("swap", "machine", "bytes", samples)


def _lane(name: str, subject: str, unit: Unit, samples: Samples) -> Lane | None:
    return Lane(name, subject, unit, *_columns(samples)) if samples else None


def _columns(samples: Samples) -> Iterator[list[Any]]:
    yield [time_ns for time_ns, _ in samples]
    yield [value for _, value in samples]
