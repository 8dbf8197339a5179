"""`training.py FOLDER CASE...`: as a rank among those that torch's launcher has started, train and save the parameters.

Each rank leaves FOLDER/CASE-RANK.pt; the same module gives what a process alone comes to.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from powerbench.devices import DEVICES
from powerbench.ranks import joined
from powerbench.records import Cell
from powerbench.workloads.bert import Bert
from powerbench.workloads.share import WHOLE, Share

RANKS, STEPS = 2, 3
CPU = DEVICES["cpu"]
# Adam divides each gradient by its size, so that one which is nothing but rounding (of a key's bias, which softmax
# takes no notice of) would move a parameter as far as any: it is compared in float64, where rounding is below its eps.
CASES: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.1},
    "sgd-accumulated": {"optimizer": "sgd", "learning_rate": 0.1, "accumulation": 2},
    "adam": {"optimizer": "adam", "learning_rate": 0.001},
}


def cell_of(case: str) -> Cell:
    """What each of the ranks trains."""
    settings: dict[str, Any] = {
        **{"model": "bert-tiny", "device": "cpu", "copy": "blocking", "batch_size": 2, "sequence_length": 8},
        **{"dropout": False, "batches": 4, "ranks": RANKS},
    }
    return Cell(**settings | CASES[case])


def alone(cell: Cell) -> Cell:
    """The cell of one process that does the work of all these ranks."""
    return msgspec.structs.replace(cell, batch_size=cell.batch_size * cell.ranks, ranks=1)


def trained(cell: Cell, share: Share = WHOLE, *, steps: int = STEPS) -> dict[str, Any]:
    """The parameters after so many steps, by number, as this rank has them."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    optimizers: list[Any] = []
    hook = register_optimizer_step_post_hook(lambda optimizer, args, kwargs: optimizers.append(optimizer))
    torch.set_default_dtype(torch.float64 if cell.optimizer.startswith("adam") else torch.float32)
    try:
        step, _ = Bert().build(cell, CPU, share=share)
        for index in range(steps):
            step(index)
    finally:
        hook.remove()
        torch.set_default_dtype(torch.float32)
    (group,) = optimizers[-1].param_groups
    return {str(number): parameter.detach().clone() for number, parameter in enumerate(group["params"])}


def main(folder: Path, cases: list[str]) -> None:
    """Train each case as this rank."""
    import torch

    rank = int(os.environ["RANK"])
    with joined(cell_of(cases[0]), CPU, rank):
        for case in cases:
            torch.save(trained(cell_of(case), Share(rank, RANKS)), folder / f"{case}-{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
