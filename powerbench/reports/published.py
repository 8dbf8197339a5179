"""The published tables as runs, so that every format can set them beside our own."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from powerbench.records import Cell, Clock, DeviceRecord, Mode, RunRecord, StepTrace, Supervisor, WorkloadRecord
from powerbench.rundir.load import Run
from powerbench.units import NS_PER_S

FILE = Path(__file__).with_name("published.yaml")
STEPS = 100
OUT_OF_MEMORY = "the published table has - here, which means that memory ran out"


class Result(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cell of a published table: seconds for 100 steps, or that memory ran out."""

    machine: str
    mode: Mode
    batch_size: int
    sequence_length: int
    wall_s_100_steps: int | None = None
    outcome: Literal["oom"] | None = None
    note: str | None = None


class Vintage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tables as they stood in a month. `torch` is of all machines, or of those that are named."""

    name: str
    torch: str | dict[str, str]
    peak_power_w: dict[str, float]
    results: list[Result]

    @property
    def machines(self) -> list[str]:
        """The machines in the order of the tables, which is that of their fullest row."""
        of_row: dict[tuple[str, int, int], list[str]] = {}
        for it in self.results:
            of_row.setdefault((it.mode, it.batch_size, it.sequence_length), []).append(it.machine)
        return max(of_row.values(), key=len)

    def torch_of(self, machine: str) -> str | None:
        """The torch that a machine was measured with; None where that was not published."""
        return self.torch if isinstance(self.torch, str) else self.torch.get(machine)


class Published(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is shipped: where it comes from, and its vintages, the older first."""

    url: str
    source: str
    vintages: list[Vintage]


@cache
def published() -> Published:
    """The shipped file."""
    import yaml

    return msgspec.convert(yaml.safe_load(FILE.read_text("utf-8")), Published)


def published_runs() -> list[Run]:
    """A run of each published cell: its hundred steps between two edges, and nothing that was not published."""
    return [
        _as_run(vintage, result)
        for vintage in published().vintages
        for result in sorted(vintage.results, key=lambda it: vintage.machines.index(it.machine))
    ]


def _as_run(vintage: Vintage, result: Result) -> Run:
    kind = _kind(result.machine)
    # Dropout was off (the script never calls model.train()) and the copy a blocking one inside the step; no warm-up.
    cell = Cell(
        device=kind,
        mode=result.mode,
        batch_size=result.batch_size,
        sequence_length=result.sequence_length,
        steps=STEPS,
        warmup=0,
        dropout=False,
        copy="blocking",
    )
    record = RunRecord(
        id=f"published-{vintage.name}",
        status="oom" if result.outcome == "oom" else "complete",
        reason=OUT_OF_MEMORY if result.outcome == "oom" else None,
        cell=cell,
        clock=Clock(boot_id=None, start_monotonic_ns=0, start_unix_ns=0),
        environment={
            "published": vintage.name,
            "torch": vintage.torch_of(result.machine),
            "peak_w": vintage.peak_power_w.get(result.machine),
        },
        device=DeviceRecord(kind=kind, name=result.machine, timer="clock"),
        workload=WorkloadRecord(samples_per_step=result.batch_size),
        supervisor=Supervisor(0, 0.0),
        notes=[result.note] if result.note else [],
    )
    return Run(Path(f"published {vintage.name}"), record, [_hundred_steps(result.wall_s_100_steps)])


def _hundred_steps(wall_s: int | None) -> StepTrace:
    """Steps of which only the first edge and the last are known."""
    if wall_s is None:
        return StepTrace()
    end_ns = wall_s * NS_PER_S
    return StepTrace(["step"] * STEPS, [0] * STEPS, [0] * STEPS, [*[None] * (STEPS - 1), end_ns])


def _kind(machine: str) -> str:
    if "CPU" in machine:
        return "cpu"
    # The M1 Ultra's row says neither; its figures are those of a GPU of 48 cores.
    return "mps" if machine.startswith("M") else "cuda"
