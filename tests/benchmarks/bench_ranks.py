"""What it costs two ranks to be measured: their loop with stopwatch and agreements against a bare one of torch alone.

python tests/benchmarks/bench_ranks.py [BLOCKS]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from powerbench.agreement import AgreedSteps
from powerbench.devices import DEVICES
from powerbench.profile import make_cell, resolve
from powerbench.ranks import Ranks, joined
from powerbench.records import Cell
from powerbench.reporter import Reporter
from powerbench.rundir import RunDir
from powerbench.rundir.lines import EventWriter
from powerbench.rundir.marks import MarksWriter
from powerbench.rundir.work import new_work_file
from powerbench.worker import Loop
from powerbench.workloads import Step
from powerbench.workloads.batches import to_device
from powerbench.workloads.bert import Bert
from powerbench.workloads.inputs import fetched, random_inputs
from powerbench.workloads.models import load_config, load_model
from powerbench.workloads.share import Share, name_of_buffers, watched
from powerbench.workloads.steps import training_step

RANKS = 2
LIMIT = 1.02
STEPS_A_BLOCK = 5
EXCHANGES = 200
ROOM = 100_000
# A small step, which nothing of ours can hide behind.
SETTINGS = {"device": "cpu", "model": "bert-tiny", "batch_size": 8, "sequence_length": 64, "ranks": RANKS}
CPU = DEVICES["cpu"]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS))


def main() -> int:
    """Print the cost of an agreement and the ratio of the loops; 1 if that is over its limit."""
    blocks = sys.argv[1] if len(sys.argv) > 1 else "30"
    if "RANK" not in os.environ:
        done = subprocess.run([*TORCHRUN, __file__, blocks], check=False, capture_output=True, text=True)
        print(done.stdout or done.stderr, end="")  # torch's launcher tells at length that a limit was missed
        return done.returncode
    rank = int(os.environ["RANK"])
    cell = resolve(make_cell(options=SETTINGS), metered=False)
    with joined(cell, CPU, rank) as ranks, tempfile.TemporaryDirectory() as folder:
        agreement_us = one_agreement_us(ranks)
        spent = spent_by_both(cell, rank, ranks, RunDir(Path(folder)), int(blocks))
    if rank > 0:
        return 0
    print(f"one agreement, about once a second: {agreement_us:.0f} us")
    wall = told("by the clock", [one.wall_ns / other.wall_ns for one, other in spent])
    told("by the processor's time of a rank", [one.cpu_ns / other.cpu_ns for one, other in spent])
    return 0 if wall <= LIMIT else 1


def told(how: str, ratios: list[float]) -> float:
    """Print the median of the ratios with its quartiles."""
    low, median, high = statistics.quantiles(ratios, n=4)
    print(
        f"measured loop / bare loop, {how}: {median:.4f} (quartiles {low:.4f} to {high:.4f}; {len(ratios)} pairs of "
        f"blocks of {STEPS_A_BLOCK} steps; limit by the clock {LIMIT})"
    )
    return median


class Spent(NamedTuple):
    """What a block took."""

    wall_ns: int
    cpu_ns: int


def one_agreement_us(ranks: Ranks) -> float:
    """The mean cost of an agreement of ranks that come together, in microseconds."""
    ranks.meet()
    begun_ns = time.monotonic_ns()
    for _ in range(EXCHANGES):
        ranks.largest([0, 1])
    return (time.monotonic_ns() - begun_ns) / EXCHANGES / 1e3


def spent_by_both(cell: Cell, rank: int, ranks: Ranks, rundir: RunDir, blocks: int) -> list[tuple[Spent, Spent]]:
    """What each measured block took, and the bare one beside it, which of the two comes first alternating."""
    watch = CPU.stopwatch(new_work_file(rundir.work_marks(rank), steps=ROOM))
    step, _ = Bert().build(cell, CPU, share=Share(rank, RANKS, watch.arrive, watch.resume))
    timer = CPU.timer(MarksWriter(rundir.marks(rank), capacity=ROOM).view, sync_every=1)
    plain = bare_step(cell, Share(rank, RANKS))
    with Reporter(EventWriter(rundir.events(rank)), CPU, watch) as report:
        loop = Loop(watched(step, watch), timer, report, [])
        agreed = AgreedSteps(loop, largest=ranks.largest, asked_to_stop=[], stopped=[])

        def measured() -> None:
            agreed.run(0, least=STEPS_A_BLOCK)

        def bare() -> None:
            for index in range(STEPS_A_BLOCK):
                plain(index)

        measured()
        bare()
        pairs = []
        for block in range(blocks):
            first, second = (measured, bare) if block % 2 else (bare, measured)
            spent = {work: spent_by(work, ranks) for work in (first, second)}
            pairs.append((spent[measured], spent[bare]))
        return pairs


def bare_step(cell: Cell, share: Share) -> Step:
    """The same training by DistributedDataParallel without a hook of ours."""
    from torch.nn.parallel import DistributedDataParallel

    config = load_config(cell, labels=2)
    model = load_model(cell, config)
    fetch = fetched(cell, random_inputs(cell, config, share), CPU, None)
    copy = to_device(cell, CPU)
    shared = DistributedDataParallel(model, **{name_of_buffers(DistributedDataParallel): False})
    return training_step(cell, shared, lambda index: copy(fetch(index)), CPU)


def spent_by(work: Callable[[], None], ranks: Ranks) -> Spent:
    """How long `work` takes all ranks, from where all are ready, and this one's threads."""
    ranks.meet()
    wall_ns, cpu_ns = time.monotonic_ns(), time.process_time_ns()
    work()
    ranks.meet()
    return Spent(time.monotonic_ns() - wall_ns, time.process_time_ns() - cpu_ns)


if __name__ == "__main__":
    raise SystemExit(main())
