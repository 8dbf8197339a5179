"""What a run is made of: the cell that was asked for, the edges and joules that were measured, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, get_args

from msgspec import Meta, Struct
from msgspec.structs import asdict, force_setattr

from powerbench.errors import PowerbenchError

# History of the run directory's format. Raise it with a line here and a folder tests/golden/schema-N.
#   1  the first
#   2  runs of a program's own loop, whose cell has settings that are null; steps.csv has the stage `pause`
SCHEMA = 2

SYNTHETIC = "synthetic"
"""The data set that is none: random tokens."""

Mode = Literal["training", "inference"]
Stage = Literal["warmup", "step", "tail", "pause"]
Status = Literal["running", "complete", "interrupted", "oom", "swapping", "timeout", "unavailable", "failed"]
STAGES: tuple[Stage, ...] = get_args(Stage)
IN_WORDS: dict[Status, str] = {
    "complete": "complete",
    "oom": "out of memory",
    "swapping": "swapping",
    "timeout": "out of time",
    "unavailable": "no such device",
    "failed": "failed",
    "interrupted": "interrupted",
    "running": "still running",
}
"""How a run stands, to a reader."""

# A setting's description completes the sentence "... must be ...".
# The upper ends are far beyond sense: they turn a slip of the keyboard, or .inf, into a sentence.
Count = Annotated[int, Meta(ge=1, le=10_000_000, description="a whole number from 1 to 10,000,000")]
CountOrZero = Annotated[int, Meta(ge=0, le=10_000_000, description="a whole number from 0 to 10,000,000")]
Processes = Annotated[int, Meta(ge=1, le=10_000, description="a whole number from 1 to 10,000")]
Threads = Annotated[int, Meta(ge=1, le=1024, description="a whole number from 1 to 1,024")]
Seconds = Annotated[float, Meta(ge=0, le=1e8, description="a number of seconds, 0 or more")]
SomeSeconds = Annotated[float, Meta(gt=0, le=1e8, description="a number of seconds above 0")]
Positive = Annotated[float, Meta(gt=0, le=1e8, description="a number above 0")]
Megabytes = Annotated[float, Meta(ge=0, le=1e8, description="a number of megabytes, 0 or more")]
Rate = Annotated[int, Meta(ge=10, le=1000, description="a whole number of looks a second, from 10 to 1,000")]
Name = Annotated[str, Meta(min_length=1, description="a name")]


class Limits(Struct, frozen=True, kw_only=True):
    """Where a run is stopped because it no longer measures the device: None is no limit.

    `swap_out_mb`: megabytes that the machine has written to swap since the first step. `step_seconds`: one step.
    `rendezvous_seconds`: until the machines of one run have met. `hang_seconds`: no step comes while ranks wait for
    one another; None is 10 s, or 20 of the usual steps where that is longer.
    """

    swap_out_mb: Megabytes | None = 1000.0
    step_seconds: SomeSeconds | None = None
    rendezvous_seconds: SomeSeconds = 120.0
    hang_seconds: SomeSeconds | None = None


class LoopCell(Struct, frozen=True, kw_only=True):
    """A step loop as it was measured: the built-in one (`Cell`), or that of a program of somebody's own.

    Of a program's own loop, `model` is what it calls itself, and a setting that nobody told is None: unknown.
    """

    device: Name
    model: Name
    mode: Mode | None = None
    batch_size: Count | None = None
    sequence_length: Count | None = None
    steps: Count | None = None
    warmup: CountOrZero
    min_seconds: Seconds | None = None
    max_seconds: SomeSeconds | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    attention: Literal["sdpa", "eager"] | None = None
    threads: Threads | None = None
    copy: Literal["async", "blocking", "resident"] | None = None
    sync_every: CountOrZero | None = None
    trace: bool = False
    phases: bool = False
    torch_profiler: bool = False
    py_spy: bool = False
    py_spy_rate: Rate = 100
    power: Name = "auto"
    power_from: Name | None = None
    idle_seconds: Seconds | None = None
    require_power: bool = False
    dropout: bool | None = None
    optimizer: Literal["adam", "adamw", "sgd"] | None = None
    fused: bool | None = None
    learning_rate: Positive | None = None
    weights: Literal["random", "pretrained"] | None = None
    dataset: Name | None = None
    text_column: Name | None = None
    label_column: Name | None = None
    split: Name | None = None
    pad: Literal["max_length", "longest"] | None = None
    include_data: bool | None = None
    batches: Count | None = None
    seed: CountOrZero | None = None
    accumulation: Count | None = None
    compile: bool | None = None
    ranks: Processes = 1
    nnodes: Processes = 1
    limits: Limits = Limits()
    sleep_ms: Positive | None = None


class Cell(LoopCell, frozen=True, kw_only=True):
    """One fully specified measurement of the built-in loop; the defaults are those of the published tables.

    `None` means "choose for me": the device's own default, or no limit. A recorded cell has had its choices made.

    `ranks` are the processes on each of `nnodes` machines; each has a batch of `batch_size` of its own.
    """

    device: Name = "auto"
    model: Name = "bert-base-cased"
    mode: Mode = "training"
    batch_size: Count = 32
    sequence_length: Count = 128
    steps: Count = 100
    warmup: CountOrZero = 5
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: Literal["sdpa", "eager"] = "sdpa"
    dropout: bool = True
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Positive = 1e-4
    weights: Literal["random", "pretrained"] = "random"
    dataset: Name = SYNTHETIC
    split: Name = "train"
    pad: Literal["max_length", "longest"] = "max_length"
    include_data: bool = False
    seed: CountOrZero = 0
    accumulation: Count = 1
    compile: bool = False
    sleep_ms: Positive = 10.0


def phases_of(cell: LoopCell) -> list[str]:
    """The stretches of a step that are stamped, in their order; none in an ordinary run."""
    if not isinstance(cell, Cell):
        return []
    a_round = ["data"] if cell.include_data else []
    if cell.phases:
        a_round += ["copy", "forward"] if cell.mode == "inference" else ["copy", "forward", "backward"]
    last = ["optimizer"] if cell.phases and cell.mode == "training" else []
    return a_round * cell.accumulation + last


class Supervisor(Struct, frozen=True):
    """The process that writes `run.json`; its start time (unix seconds) tells it from a later one of the same pid."""

    pid: int
    start_time_s: float


class Clock(Struct, frozen=True, kw_only=True):
    """Where the machine's monotonic clock stood against the calendar, at both ends of the run.

    `suspended_ns` is how long the machine slept in between; None where the system does not tell.
    """

    boot_id: str | None
    start_monotonic_ns: int
    start_unix_ns: int
    end_monotonic_ns: int | None = None
    end_unix_ns: int | None = None
    suspended_ns: int | None = None


class Node(Struct, frozen=True, kw_only=True):
    """Which of the machines of one run this directory is of.

    `id` is the same in the directories of all of them, and of no other run; None until they have met. `rendezvous` is
    the address at which they meet.
    """

    rank: int
    rendezvous: str
    id: str | None = None


class DeviceRecord(Struct, frozen=True, kw_only=True):
    """The device that a worker stepped on. `uuid` is None where the device has none.

    `anchor_error_ns` is by how much the clock was ahead of the device's own events at the end; None without events.
    """

    kind: str
    name: str
    timer: str
    uuid: str | None = None
    plausible_tflop_per_s: float | None = None
    anchor_error_ns: int | None = None


class WorkloadRecord(Struct, frozen=True, kw_only=True):
    """What a step was: samples, parameters, floating-point operations; None where unknown or without meaning.

    `compile_s` is what torch.compile took before the warm-up, its first step included; None without it. `architecture`
    is the model's class in transformers, `revision` the commit of a model that came from the hub.

    A pool of `batches` distinct ones comes round in turn. `tokens_per_step` is without padding, and like
    `flop_per_step` a mean over the pool. Where batches are of different lengths, `batch_lengths` (with padding),
    `batch_tokens` (without) and `batch_flop` are those of each.
    """

    samples_per_step: int | None
    parameters: int | None = None
    flop_per_step: float | None = None
    compile_s: float | None = None
    architecture: str | None = None
    revision: str | None = None
    batches: int | None = None
    tokens_per_step: float | None = None
    batch_lengths: list[int] | None = None
    batch_tokens: list[int] | None = None
    batch_flop: list[float] | None = None
    notes: list[str] = []


class RailRecord(Struct, frozen=True, kw_only=True):
    """One thing that a meter measures, and what a reader must know to read its curve right.

    `part` is what the rail covers in one word; `contains` names the parts that lie inside it, so that nothing is
    counted twice. `published_s` is the time between two moves of a counter. None means that the maker of the sensor
    does not say.
    """

    source: str
    method: Literal["counter", "interval average", "instant, integrated"]
    state: Literal["measured", "estimated"]
    scope: str
    part: Literal["cpu", "gpu", "ane", "dram", "package", "soc", "module", "system"]
    contains: list[str] = []
    period_s: float
    averaging_s: float | None = None
    published_s: float | None = None
    coverage: float = 1.0
    quantum_j: float | None = None
    accuracy: float | None = None
    accuracy_source: str | None = None
    uuid: str | None = None
    offset_ns: int = 0
    time_uncertainty_ns: int = 0
    lost: str | None = None


class Reading(NamedTuple):
    """A point of a rail's curve: joules since the meter was opened, at a moment of the monotonic clock."""

    time_ns: int
    rail: str
    energy_j: float


class PhaseSpan(NamedTuple):
    """A phase of a step, from moment to moment of the monotonic clock; one of several where batches are accumulated."""

    step: int
    phase: str
    start_ns: int
    end_ns: int


class OperatorTimes(NamedTuple):
    """What torch.profiler says of an operator, or of a device's kernel of that name: a step's mean, in microseconds.

    `on` is where it ran: `cpu` for an operator, which a device may have worked for, else the device. `self` is without
    what it called itself. The device's times are None where none were recorded.
    """

    name: str
    on: str
    calls: float
    cpu_self_us: float
    cpu_total_us: float
    device_self_us: float | None
    device_total_us: float | None


class Gauge(NamedTuple):
    """A value of the moment, for `telemetry.csv`: `gpu0.power_w`, `thermal_pressure`, `worker0.rss_bytes`."""

    time_ns: int
    name: str
    value: float | str


class Window(Struct, frozen=True):
    """A stretch of the monotonic clock, `[start_ns, end_ns]`."""

    start_ns: int
    end_ns: int


class ProfilerRecord(Struct, frozen=True, kw_only=True):
    """The steps that were made under torch.profiler when all others were measured, each from edge to edge.

    `device` is the kind of device whose own times were recorded with the processor's; None where there were only those.
    `monotonic_ns` and `unix_ns` are one moment, on the clock of the run and on that of torch's trace, read
    `anchor_width_ns` apart at most. `reason` says why there are no operators; None where there are.
    """

    steps: list[Window] = []
    device: str | None = None
    monotonic_ns: int = 0
    unix_ns: int = 0
    anchor_width_ns: int = 0
    reason: str | None = None


class StacksRecord(Struct, frozen=True, kw_only=True):
    """What py-spy saw of the threads of a rank, kept in `stacks-<rank>.json`.

    `native`: with the frames of C and C++. `time_uncertainty_ns` is by how far its clock may be off the
    machine's. `lost` is why there is no such file although it looked; None where there is one.
    """

    rank: int
    sampler: str
    rate_hz: int
    native: bool
    time_uncertainty_ns: int | None = None
    lost: str | None = None


class RunRecord(Struct, frozen=True, kw_only=True):
    """`run.json`: everything about a run but its curves. Of what is None, nothing was recorded.

    A recording of power alone has no `cell` and no ranks; `command` is what ran meanwhile, where something did, and
    `exit_status` how that ended (negative for a signal). Where `loop` is true, the steps are those of a program's own
    loop. `unmetered` says of sources why they were not read, `tried` which of them were opened and gave no reading.
    `stacks` is what py-spy saw, `unsampled` why it saw nothing.

    `ranks` are all of the run; where there are several, `devices` are those of this directory's, in their order.
    `node` is None unless the run is one of several machines, each of which has a directory.
    """

    schema: int = SCHEMA
    id: str
    status: Status
    reason: str | None = None
    cell: LoopCell | None = None
    loop: bool = False
    command: list[str] | None = None
    exit_status: int | None = None
    clock: Clock
    environment: dict[str, Any] = {}
    device: DeviceRecord | None = None
    devices: list[DeviceRecord] = []
    workload: WorkloadRecord | None = None
    rails: dict[str, RailRecord] = {}
    unmetered: dict[str, str] = {}
    tried: list[str] = []
    windows: dict[str, Window] = {}
    tail_s: float = 0.0
    profiler: ProfilerRecord | None = None
    peak_memory_bytes: int | None = None
    peak_memory_of: str | None = None
    stacks: StacksRecord | None = None
    unsampled: str | None = None
    ranks: int = 1
    node: Node | None = None
    supervisor: Supervisor
    notes: list[str] = []

    def __post_init__(self) -> None:
        # Read back, a cell is of the class that allows for the unknown. That of the built-in loop knows everything, and
        # a setting that an older version did not have was what is the default now.
        if not self.loop and self.cell is not None and not isinstance(self.cell, Cell):
            force_setattr(self, "cell", Cell(**{key: it for key, it in asdict(self.cell).items() if it is not None}))

    @property
    def machine(self) -> int:
        """The number of the machine that this directory is of, among those of the run."""
        return 0 if self.node is None else self.node.rank

    @property
    def own_ranks(self) -> range:
        """The ranks whose steps are in this directory, by their numbers in the whole run."""
        here = self.ranks if self.cell is None or self.node is None else self.cell.ranks
        first = self.machine * here
        return range(first, first + here)

    @property
    def the_cell(self) -> LoopCell:
        """The cell of a run of steps. Raises PowerbenchError for a recording of power, which has none."""
        if self.cell is None:
            raise PowerbenchError(f"{self.id} is a recording of power alone and has no steps: name a run.")
        return self.cell

    @property
    def is_instrumented(self) -> bool:
        """Whether py-spy stopped the worker again and again, or may have: its latencies are then not the cell's."""
        return self.cell is not None and self.cell.py_spy and self.unsampled is None

    @property
    def built_in(self) -> Cell:
        """The cell of a run of the built-in loop. Raises PowerbenchError for any other."""
        if not isinstance(self.the_cell, Cell):
            raise PowerbenchError(f"{self.id} is a run of a program's own loop: only that program can step through it.")
        return self.the_cell


@dataclass(frozen=True)
class EnergyCurve:
    """One rail's joules over the monotonic clock: by `time_ns[i]`, `energy_j[i]` had been used; both never fall."""

    time_ns: list[int] = field(default_factory=list)
    energy_j: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class StepTrace:
    """One rank's steps in order: row i is step i, times on the monotonic clock in ns.

    `start_ns` is the edge before the step. `submit_ns` is when Python had enqueued it. `end_ns` is None where no edge
    was taken; the next edge then closes all the steps since the one before. A row of the stage `pause` is no step: what
    a program did between two steps and does not count as either.
    """

    stage: list[Stage] = field(default_factory=list)
    start_ns: list[int] = field(default_factory=list)
    submit_ns: list[int] = field(default_factory=list)
    end_ns: list[int | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.start_ns)

    def append(self, stage: Stage, start_ns: int, submit_ns: int, end_ns: int | None) -> None:
        """Add the next step."""
        self.stage.append(stage)
        self.start_ns.append(start_ns)
        self.submit_ns.append(submit_ns)
        self.end_ns.append(end_ns)

    def spans(self, stage: Stage) -> list[tuple[int, int, int]]:
        """The stretches between neighbouring edges in `stage`: (start_ns, end_ns, number of steps)."""
        spans: list[tuple[int, int, int]] = []
        steps = 0
        for its_stage, start, end in zip(self.stage, self.start_ns, self.end_ns, strict=True):
            if its_stage != stage:
                steps = 0
                continue
            steps += 1
            if end is not None:
                spans.append((start, end, steps))
                steps = 0
        return spans

    def stretches(self, stage: Stage) -> list[Window]:
        """The stretches of the clock that steps of `stage` fill without a gap: one, unless there were pauses."""
        found: list[Window] = []
        for start, end, _ in self.spans(stage):
            if found and found[-1].end_ns == start:
                found[-1] = Window(found[-1].start_ns, end)
            else:
                found.append(Window(start, end))
        return found

    def window(self, stage: Stage) -> Window | None:
        """From the first to the last edge of `stage`, or None if it has not two."""
        spans = self.spans(stage)
        return Window(spans[0][0], spans[-1][1]) if spans else None
