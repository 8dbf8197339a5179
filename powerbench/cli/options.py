"""The options, each written once: its name, its unit, its help; what is a list may be given again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

WHAT = "What to measure (an option given again adds cells)"
DATA = "Real text"
HOW = "How to measure it"
MANY = "Many ranks, many machines"
SWEEP = "Several cells"
POWER = "Energy"
RESULT = "Where the result goes"

ProfileName = Annotated[
    str | None,
    typer.Argument(metavar="PROFILE", help="A shipped profile (see `powerbench profiles`) or a path to a YAML file."),
]
Device = Annotated[
    list[str] | None,
    typer.Option(
        "--device", metavar="NAME", help="auto (the best one here), mps, cuda, cpu or xpu.", rich_help_panel=WHAT
    ),
]
Model = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="bert-base-cased, bert-tiny, ..., a folder, or a name on the hub; sleep is the control.",
        rich_help_panel=WHAT,
    ),
]
Weights = Annotated[
    list[str] | None,
    typer.Option("--weights", metavar="KIND", help="random, or pretrained: the model's own.", rich_help_panel=WHAT),
]
Optimizer = Annotated[
    list[str] | None,
    typer.Option("--optimizer", metavar="NAME", help="adam, adamw or sgd.", rich_help_panel=WHAT),
]
Dataset = Annotated[
    list[str] | None,
    typer.Option(
        "--dataset",
        metavar="NAME",
        help="synthetic, a csv, jsonl, parquet or txt file, or a name on the hub.",
        rich_help_panel=DATA,
    ),
]
TextColumn = Annotated[
    list[str] | None,
    typer.Option("--text-column", metavar="NAME", help="The column that holds the text.", rich_help_panel=DATA),
]
LabelColumn = Annotated[
    list[str] | None,
    typer.Option("--label-column", metavar="NAME", help="The column that holds the label.", rich_help_panel=DATA),
]
Split = Annotated[
    list[str] | None,
    typer.Option("--split", metavar="NAME", help="Of a data set on the hub: train, test, ...", rich_help_panel=DATA),
]
Pad = Annotated[
    list[str] | None,
    typer.Option(
        "--pad", metavar="HOW", help="max_length, or longest: each batch to its longest text.", rich_help_panel=DATA
    ),
]
IncludeData = Annotated[
    bool | None,
    typer.Option("--include-data", help="Read and tokenize inside the step, told apart.", rich_help_panel=DATA),
]
Phases = Annotated[
    bool | None,
    typer.Option("--phases", help="Time and joules of copy, forward, backward, optimizer.", rich_help_panel=HOW),
]
Mode = Annotated[
    list[str] | None, typer.Option("--mode", metavar="MODE", help="training or inference.", rich_help_panel=WHAT)
]
BatchSize = Annotated[
    list[str] | None, typer.Option("--batch-size", metavar="N", help="Samples a step.", rich_help_panel=WHAT)
]
SequenceLength = Annotated[
    list[str] | None, typer.Option("--sequence-length", metavar="N", help="Tokens a sample.", rich_help_panel=WHAT)
]
Dtype = Annotated[
    list[str] | None,
    typer.Option("--dtype", metavar="TYPE", help="float32, bfloat16 or float16 (autocast).", rich_help_panel=WHAT),
]
Attention = Annotated[
    list[str] | None, typer.Option("--attention", metavar="KIND", help="sdpa or eager.", rich_help_panel=WHAT)
]
Steps = Annotated[
    list[str] | None, typer.Option("--steps", metavar="N", help="Measured steps, at least.", rich_help_panel=HOW)
]
Warmup = Annotated[
    list[str] | None, typer.Option("--warmup", metavar="N", help="Steps before the measured ones.", rich_help_panel=HOW)
]
MinSeconds = Annotated[
    list[str] | None,
    typer.Option(
        "--min-seconds", metavar="S", help="Go on for at least so long (10 with a meter).", rich_help_panel=HOW
    ),
]
MaxSeconds = Annotated[
    list[str] | None,
    typer.Option("--max-seconds", metavar="S", help="End the run after so long, finished or not.", rich_help_panel=HOW),
]
Ranks = Annotated[
    list[str] | None,
    typer.Option(
        "--ranks", metavar="N", help="Processes on this machine, each with --batch-size.", rich_help_panel=MANY
    ),
]
Nnodes = Annotated[
    str | None,
    typer.Option("--nnodes", metavar="N", help="Machines, each with --ranks.", rich_help_panel=MANY),
]
NodeRank = Annotated[
    str | None,
    typer.Option("--node-rank", metavar="K", help="Which of them this is, from 0.", rich_help_panel=MANY),
]
Rendezvous = Annotated[
    str | None,
    typer.Option(
        "--rendezvous",
        metavar="HOST:PORT",
        help="Where they meet: an address of machine 0 and a free port there.",
        rich_help_panel=MANY,
    ),
]
Threads = Annotated[
    list[str] | None, typer.Option("--threads", metavar="N", help="torch's threads on the cpu.", rich_help_panel=HOW)
]
Copy = Annotated[
    list[str] | None,
    typer.Option(
        "--copy", metavar="HOW", help="Batches to the device: async, blocking or resident.", rich_help_panel=HOW
    ),
]
SyncEvery = Annotated[
    list[str] | None,
    typer.Option(
        "--sync-every", metavar="K", help="Wait for the device at each K-th step; 0: at both ends.", rich_help_panel=HOW
    ),
]
Compile = Annotated[
    bool | None,
    typer.Option("--compile", help="torch.compile the model; what that takes is shown apart.", rich_help_panel=WHAT),
]
Trace = Annotated[
    bool | None,
    typer.Option("--trace", help="Make it a slowdown trace: gauges at 10 Hz, and a verdict.", rich_help_panel=HOW),
]
Power = Annotated[
    str | None,
    typer.Option(
        "--power",
        metavar="SOURCE,...",
        help="auto (every meter here), none, or names: powermetrics, ioreport, nvml, rapl, hwmon.",
        rich_help_panel=POWER,
    ),
]
PowerFrom = Annotated[
    str | None,
    typer.Option("--power-from", metavar="DIR", help="Take the joules from this recording.", rich_help_panel=POWER),
]
Idle = Annotated[
    list[str] | None,
    typer.Option(
        "--idle",
        "--idle-seconds",
        metavar="S",
        help="Measure the idle machine for so long first (5 with a meter).",
        rich_help_panel=POWER,
    ),
]
RequirePower = Annotated[
    bool | None,
    typer.Option("--require-power", help="Fail where energy cannot be measured, or is lost.", rich_help_panel=POWER),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting of a profile, e.g. seed=1.", rich_help_panel=HOW),
]
Repeats = Annotated[
    str | None,
    typer.Option("--repeats", metavar="N", help="Each cell so many times, in turns.", rich_help_panel=SWEEP),
]
Against = Annotated[
    str | None,
    typer.Option(
        "--against",
        metavar="PYTHON",
        help="Measure each cell in this interpreter too, in turns, three times each, and compare.",
        rich_help_panel=SWEEP,
    ),
]
Cooldown = Annotated[
    str | None,
    typer.Option(
        "--cooldown",
        metavar="S",
        help="Wait between cells until the machine is cool again, for at most so long.",
        rich_help_panel=SWEEP,
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on with the newest sweep of these very cells.", rich_help_panel=SWEEP),
]
Retry = Annotated[
    str | None,
    typer.Option(
        "--retry",
        metavar="STATUS,...",
        help="Go on, and measure again what ended so: failed, oom, timeout, ...",
        rich_help_panel=SWEEP,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="List the cells and how long they take; measure nothing.", rich_help_panel=SWEEP),
]
Output = Annotated[
    Path,
    typer.Option("--output", metavar="DIR", help="The folder in which runs are kept.", rich_help_panel=RESULT),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.", rich_help_panel=RESULT)]
