"""Made-up slowdown traces on disk: a GPU that throttles, one that stays as it is, and scripts that never wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from powerbench.records import Clock, DeviceRecord, StepTrace
from powerbench.rundir.completed import windows_of
from tests.rundir import START, a_cell, a_rail, a_record, rows_of, steps_lasting, write_run

S = 1_000_000_000
TENTH_NS = S // 10
WARMUP_MS = (300.0, 140.0, 100.0)
GPU = "GPU-abacus"
FACTS = {
    **{"load_1min": 0.1, "logical_cores": 8, "on_battery": None, "torch": "2.13.0+cu128", "python": "3.11.7"},
    **{"system": "Linux 6", "machine": "x86_64", "processor": "Abacus 9", "memory_bytes": 25_000_000_000},
    **{"swap_bytes": 0, "host": "secret", "variables": {"OMP_NUM_THREADS": "8"}},
}

OverTime = Callable[[float], float]
"""A quantity by the share of the run that is over, from 0 to 1."""


def write_trace(
    folder: Path,
    milliseconds: Sequence[float],
    *,
    watts: OverTime | None = None,
    mhz: OverTime | None = None,
    **changes: Any,
) -> Path:
    """A slowdown trace of bert-tiny on a GPU, whose steps took so long, and what stood beside them at 10 Hz."""
    steps = steps_lasting(*milliseconds, after=steps_lasting(*WARMUP_MS, stage="warmup"))
    return write(folder, steps, watts=watts, mhz=mhz, **changes)


def write_unsynchronized(folder: Path, milliseconds: Sequence[float], **changes: Any) -> Path:
    """A trace with edges at both ends only, whose steps were submitted so long one after the other."""
    steps = steps_lasting(*WARMUP_MS, stage="warmup")
    edge_ns = steps.end_ns[-1] or 0
    submit_ns = edge_ns
    for at, each in enumerate(milliseconds, start=1):
        submit_ns += round(each * 1e6)
        steps.append("step", edge_ns, submit_ns, submit_ns + 1000 if at == len(milliseconds) else None)
    return write(folder, steps, **{"sync_every": 0, **changes})


def write(
    folder: Path, steps: StepTrace, *, watts: OverTime | None = None, mhz: OverTime | None = None, **changes: Any
) -> Path:
    """The run of these steps; `changes` are to its cell, but for `record`, which are to its record."""
    record = changes.pop("record", {})
    cell = {"device": "cuda", "warmup": len(WARMUP_MS), "steps": steps.stage.count("step"), "trace": True}
    facts: dict[str, Any] = {
        "cell": a_cell(**cell | {"copy": "async", "min_seconds": 10.0, "idle_seconds": 5.0} | changes),
        "windows": windows_of(steps),
        "clock": Clock(boot_id="b", start_monotonic_ns=START - S, start_unix_ns=1_795_468_889 * S),
        "device": DeviceRecord(kind="cuda", name="Abacus 3000", timer="events", uuid=GPU),
        "environment": FACTS,
        "rails": {} if watts is None else {"gpu0": a_rail(source="nvml", part="gpu", uuid=GPU)},
    }
    rundir = write_run(folder, a_record(**facts | record), rows=rows_of(steps))
    end_ns = steps.end_ns[-1] or steps.submit_ns[-1]
    moments = range(START - 2 * TENTH_NS, end_ns + S, TENTH_NS)
    shares = [min(1.0, max(0.0, (time - START) / (end_ns - START))) for time in moments]
    if watts is not None:
        energy_j, lines = 0.0, ["time_ns,rail,energy_j"]
        for time, share in zip(moments, shares, strict=True):
            energy_j += watts(share) / 10
            lines.append(f"{time},gpu0,{energy_j:.6f}")
        rundir.energy.write_text("\n".join(lines) + "\n")
    if mhz is not None:
        rows = [f"{time},gpu0.clock_mhz,{mhz(share):.0f}" for time, share in zip(moments, shares, strict=True)]
        rundir.telemetry.write_text("\n".join(["time_ns,name,value", *rows]) + "\n")
    return folder


def at_half(before: float, after: float) -> OverTime:
    """One value in the first half of a run, another in the second."""
    return lambda share: before if share < 0.5 else after
