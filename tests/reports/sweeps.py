"""A sweep as it lies on disk, made up: cells of BERT with a thousand steps each and the power beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from powerbench.records import Clock, DeviceRecord, RailRecord, Window, WorkloadRecord
from powerbench.rundir.lines import ENERGY_HEADER, LineWriter
from powerbench.rundir.load import Run, load_run
from tests.rundir import START, a_cell, a_record, rows_of, steps_lasting, write_run

MODES = ("training", "inference")
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SEQUENCES = (128, 512)
ENVIRONMENT = {
    **{"powerbench": "0.1.0", "python": "3.12.4", "torch": "2.13.0", "system": "Linux 6.1", "processor": "Abacus 3000"},
    **{"cores": 4, "logical_cores": 8, "memory_bytes": 32_000_000_000, "power_mode": "performance", "threads": 4},
}
PERIOD_NS = 100_000_000


def a_sweep(folder: Path, *, cells: int = 36, steps: int = 1000, model: str = "bert-base-cased") -> list[Run]:
    """So many runs of `model` in `folder`: training and inference by batch and sequence, metered at 10 Hz."""
    return [
        a_metered_run(folder / f"{at:02}", mode, batch, sequence, steps=steps, model=model, seed=at)
        for at, (mode, batch, sequence) in zip(range(cells), _cells(), strict=False)
    ]


def _cells() -> Iterator[tuple[str, int, int]]:
    for mode in MODES:
        for sequence in SEQUENCES:
            for batch in BATCHES:
                yield mode, batch, sequence


def a_metered_run(
    folder: Path, mode: str, batch: int, sequence: int, *, steps: int, model: str, seed: int, **changes: Any
) -> Run:
    """A run whose latency and power go with its size, uneven as real ones are."""
    random = Random(seed)
    step_ms = 6 + 0.0003 * batch * sequence * (3 if mode == "training" else 1)
    power_w = 20 + 40 * batch / (batch + 12)
    trace = steps_lasting(
        *(step_ms * math.exp(random.gauss(0, 0.015)) * (1.8 if random.random() < 0.004 else 1) for _ in range(steps))
    )
    end = trace.end_ns[-1] or START
    rail = RailRecord(
        source="rapl",
        method="counter",
        state="measured",
        scope="the whole package: cores, caches, memory controller",
        part="package",
        period_s=PERIOD_NS / 1e9,
    )
    record = a_record(
        **{
            "id": folder.name,
            "cell": a_cell(model=model, mode=mode, batch_size=batch, sequence_length=sequence, steps=steps),
            "clock": Clock(boot_id="a boot long ago", start_monotonic_ns=1, start_unix_ns=1_795_700_000_000_000_000),
            "environment": {**ENVIRONMENT, "load_1min": round(0.1 + seed / 10, 2)},
            "device": DeviceRecord(kind="cpu", name="Abacus 3000", timer="clock", plausible_tflop_per_s=100.0),
            "workload": WorkloadRecord(samples_per_step=batch, parameters=10**8, flop_per_step=2e7 * batch * sequence),
            "rails": {"package-0": rail},
            "windows": {"idle": Window(START - 5 * 10**9, START - 10**8), "measured": Window(START, end)},
            "peak_memory_bytes": 10**9 + batch * sequence * 10**5,
            "peak_memory_of": "the worker's resident memory",
            **changes,
        }
    )
    write_run(folder, record, rows=rows_of(trace))
    _write_energy(folder, random, end=end, power_w=power_w)
    return load_run(folder)


def _write_energy(folder: Path, random: Random, *, end: int, power_w: float) -> None:
    lines, energy_j = [], 0.0
    for time_ns in range(START - 6 * 10**9, end + 10**9, PERIOD_NS):
        lines.append(f"{time_ns},package-0,{energy_j:.6f}")
        now_w = (12 if time_ns < START else power_w) * random.uniform(0.95, 1.05)
        energy_j += now_w * PERIOD_NS / 1e9
    writer = LineWriter(folder / "energy.csv", header=ENERGY_HEADER)
    writer.write(lines)
    writer.close()
