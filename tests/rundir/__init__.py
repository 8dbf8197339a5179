"""What the tests of runs share: a record, steps of known lengths, and a run written as the program writes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from powerbench.records import (
    Cell,
    Clock,
    DeviceRecord,
    RailRecord,
    RunRecord,
    Stage,
    StepTrace,
    Supervisor,
    WorkloadRecord,
)
from powerbench.rundir import RunDir
from powerbench.rundir.lines import STEPS_HEADER, EventWriter, LineWriter
from powerbench.rundir.marks import MarksWriter

GOLDEN = Path(__file__).parents[1] / "golden"
MS = 1_000_000
START = 7_000_000_000_000
NOBODY = Supervisor(2**22 + 1, 0.0)  # beyond the largest pid of Linux and of macOS


def a_record(**changes: Any) -> RunRecord:
    """A complete run of bert-tiny on a quiet machine, but for `changes`."""
    record = RunRecord(
        id="20261123T173000Z-cpu-bert-tiny-inference-b16-s128",
        status="complete",
        cell=a_cell(),
        clock=Clock(boot_id="a boot long ago", start_monotonic_ns=1, start_unix_ns=2),
        environment={"load_1min": 0.1, "logical_cores": 8, "on_battery": None, "torch": "2.13.0", "system": "Linux 6"},
        device=DeviceRecord(kind="cpu", name="Abacus 3000", timer="clock", plausible_tflop_per_s=1.0),
        workload=WorkloadRecord(samples_per_step=16, parameters=1000, flop_per_step=1e9),
        supervisor=NOBODY,
    )
    return msgspec.structs.replace(record, **changes)


def a_cell(**changes: Any) -> Cell:
    """The cell of `a_record`, resolved, but for `changes`."""
    settings: dict[str, Any] = {
        **{"device": "cpu", "model": "bert-tiny", "mode": "inference", "batch_size": 16, "sequence_length": 128},
        **{"steps": 4, "warmup": 0, "min_seconds": 0.0, "copy": "blocking", "sync_every": 1},
    }
    return Cell(**settings | changes)


def a_rail(**changes: Any) -> RailRecord:
    """A processor's rail, but for `changes`."""
    settings: dict[str, Any] = {
        **{"source": "rapl", "method": "counter", "state": "measured", "scope": "a rail"},
        **{"part": "cpu", "period_s": 0.1},
    }
    return RailRecord(**settings | changes)


def steps_lasting(*milliseconds: float | None, stage: Stage = "step", after: StepTrace | None = None) -> StepTrace:
    """Steps one behind the other, of these lengths; behind one of None no edge was taken. Appended to `after`."""
    trace = after or StepTrace()
    edge = next((end for end in reversed(trace.end_ns) if end is not None), START)
    for length in milliseconds:
        end = None if length is None else edge + round(length * MS)
        trace.append(stage, edge, edge if end is None else end, end)
        edge = edge if end is None else end
    return trace


def rows_of(trace: StepTrace) -> list[str]:
    """The rows of steps.csv that stand for `trace`."""
    columns = zip(trace.stage, trace.start_ns, trace.submit_ns, trace.end_ns, strict=True)
    return [
        f"{step},{stage},{start},{submit},{'' if end is None else end}"
        for step, (stage, start, submit, end) in enumerate(columns)
    ]


def write_marks(rundir: RunDir, boundaries: Sequence[tuple[int, int]], *, room: int = 0) -> None:
    """A marks file with these (submit_ns, end_ns), and room for more."""
    view = MarksWriter(rundir.marks(0), capacity=len(boundaries) + room).view
    for at, (submit, end) in enumerate(boundaries):
        view[2 * at], view[2 * at + 1] = submit, end


def write_run(
    folder: Path, record: RunRecord, *, rows: Iterable[str] | None = None, events: Iterable[dict[str, Any]] = ()
) -> RunDir:
    """A run directory with this record, these rows of steps and these events."""
    rundir = RunDir(folder)
    folder.mkdir(exist_ok=True)
    rundir.write_record(record)
    if rows is not None:
        lines = LineWriter(rundir.steps(0), header=STEPS_HEADER)
        lines.write(rows)
        lines.close()
    writer = EventWriter(rundir.events(0))
    for event in events:
        writer.write(**event)
    return rundir
