"""What the tests of reports share: runs of bert-base-cased on machines that there are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from powerbench.records import DeviceRecord, EnergyCurve, PhaseSpan, StepTrace, WorkloadRecord
from powerbench.rundir.load import Run
from tests.rundir import MS, START, a_cell, a_rail, a_record, steps_lasting

ABACUS = {"processor": "Abacus 3000", "memory_bytes": 24 * 2**30, "host": "alpha", "torch": "2.13.0+cpu", "threads": 2}
EDGES = {
    "cpu": DeviceRecord(kind="cpu", name="Abacus 3000", timer="clock"),
    "mps": DeviceRecord(kind="mps", name="Apple M1 Max", timer="clock after torch.mps.synchronize"),
    "cuda": DeviceRecord(kind="cuda", name="NVIDIA H100 80GB HBM3", timer="events"),
}


class MeteredRun(Run):
    """A run whose one rail used a constant power from a second before its steps to a second behind them."""

    watts: float

    def curves(self) -> dict[str, EnergyCurve]:
        """Ten readings a second."""
        end_ns = next((end for end in reversed(self.steps[0].end_ns) if end is not None), START)
        times = range(START - 1000 * MS, end_ns + 1000 * MS, 100 * MS)
        watts = float(self.record.environment["watts"])
        return {"package-0": EnergyCurve(list(times), [watts * (time - times[0]) / 1e9 for time in times])}


class PhasedRun(MeteredRun):
    """Such a run that was stopped after two fifths of each step."""

    def phases(self, rank: int | None = None) -> list[PhaseSpan]:
        """The forward pass takes two fifths of a step, the backward pass the rest."""
        spans = []
        steps = self.steps[rank or 0]
        for step, (start, end) in enumerate(zip(steps.start_ns, steps.end_ns, strict=True)):
            if end is not None:
                stop = start + 2 * (end - start) // 5
                spans += [PhaseSpan(step, "forward", start, stop), PhaseSpan(step, "backward", stop, end)]
        return spans


def a_phased_run(batch: int, step_ms: float, *, watts: float) -> Run:
    """A run that was stopped within its steps."""
    run = a_run(batch, 128, step_ms, watts=watts, settings={"phases": True})
    return PhasedRun(run.path, run.record, run.steps)


def a_run(
    batch: int = 16,
    sequence: int = 128,
    step_ms: float | None = 1490,
    *,
    steps: int = 100,
    watts: float | None = None,
    facts: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    state: str = "measured",
    **changes: Any,
) -> Run:
    """A run of steps of one length (none at all where that is None), metered where it has watts."""
    cell = a_cell(
        **{"model": "bert-base-cased", "mode": "training", "dropout": False, "steps": steps}
        | {"batch_size": batch, "sequence_length": sequence}
        | (settings or {})
    )
    record = a_record(
        cell=cell,
        environment=ABACUS | {"watts": watts} | (facts or {}),
        device=EDGES[cell.device],
        workload=WorkloadRecord(samples_per_step=batch),
        rails={} if watts is None else {"package-0": a_rail(part="package", state=state)},
    )
    trace = StepTrace() if step_ms is None else steps_lasting(*[step_ms] * steps)
    kind = Run if watts is None else MeteredRun
    return kind(Path("runs/one"), msgspec.structs.replace(record, **changes), [trace])


def renamed(run: Run, path: str) -> Run:
    """The same run in another folder."""
    return replace(run, path=Path(path))
