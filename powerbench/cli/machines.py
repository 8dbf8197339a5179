"""Which of the machines of a run this one is: by the options, or under SLURM by its variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from powerbench.cli.output import say
from powerbench.errors import UsageError

if TYPE_CHECKING:
    from powerbench.profile import Plan
    from powerbench.records import Node

# Below the ports that Linux gives to whoever asks for any (32768 and up), and above those of services.
FIRST_PORT, PORTS = 20_000, 10_000


class Machines(NamedTuple):
    """What the options say of the machines of a run; None where they do not."""

    nnodes: str | None
    node_rank: str | None
    rendezvous: str | None


def with_slurm(asked: Machines, variables: Mapping[str, str]) -> Machines:
    """`asked`, with what SLURM says of the machines of a job step where that has several, which is said on stderr.

    Raises UsageError where SLURM has started several of us on one machine.
    """
    count = variables.get("SLURM_STEP_NUM_NODES", variables.get("SLURM_NNODES", "1"))
    node_list = variables.get("SLURM_STEP_NODELIST", variables.get("SLURM_JOB_NODELIST", ""))
    if asked.nnodes is not None or not count.isdigit() or int(count) < 2 or not node_list:
        return asked
    if variables.get("SLURM_LOCALID", "0") != "0":
        raise UsageError(
            "SLURM has started several powerbench on this machine: start one on each (srun --ntasks-per-node=1), which "
            "starts the ranks there (--ranks)."
        )
    found = Machines(
        nnodes=count,
        node_rank=asked.node_rank or variables.get("SLURM_NODEID"),
        rendezvous=asked.rendezvous or f"{first_host(node_list)}:{port_of(variables)}",
    )
    say(
        f"powerbench: By SLURM's variables this is --nnodes {found.nnodes} --node-rank {found.node_rank} "
        f"--rendezvous {found.rendezvous} (--nnodes 1 measures on this machine alone)."
    )
    return found


def first_host(node_list: str) -> str:
    """The first machine of a list as SLURM writes it: `node01` of `node[01-03,07],gpu5`."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", node_list)
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0] if first else node_list)


def port_of(variables: Mapping[str, str]) -> int:
    """A port that every machine of a job step finds by itself, and most other steps do not."""
    numbers = [variables.get(name, "0") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID")]
    return FIRST_PORT + sum(int(number) if number.isdigit() else 0 for number in numbers) % PORTS


def node_of(asked: Machines, plan: Plan) -> Node | None:
    """Which machine of the plan's run this is; None where that has one. Raises UsageError."""
    several = max(cell.nnodes for cell in plan.cells)
    if several == 1:
        if asked.rendezvous is not None or asked.node_rank not in (None, "0"):
            raise UsageError("--node-rank and --rendezvous are for several machines: say how many with --nnodes.")
        return None
    from powerbench.records import Node

    if plan.is_sweep or len(plan.cells) > 1:
        raise UsageError(
            f"On {several} machines a command measures one cell: type one for each (`powerbench run --dry-run --json` "
            "lists them), the same on every machine."
        )
    if asked.node_rank is None or asked.rendezvous is None:
        raise UsageError(
            f"--nnodes {several} needs --node-rank, which of them this is (0 to {several - 1}), and --rendezvous, an "
            "address of machine 0 with a free port, such as node0:29500."
        )
    _check_address(asked.rendezvous)
    return Node(rank=_checked_rank(asked.node_rank, several), rendezvous=asked.rendezvous)


def options_of(asked: Machines) -> dict[str, Any]:
    """What of it is a setting of the cell."""
    return {"nnodes": asked.nnodes}


def _checked_rank(node_rank: str, nnodes: int) -> int:
    if not (node_rank.isascii() and node_rank.isdigit() and int(node_rank) < nnodes):
        raise UsageError(f"--node-rank is {node_rank}, and {nnodes} machines are numbered from 0 to {nnodes - 1}.")
    return int(node_rank)


def _check_address(rendezvous: str) -> None:
    from powerbench.meeting import split_address

    try:
        split_address(rendezvous)
    except ValueError:
        raise UsageError(
            f"--rendezvous is {rendezvous!r}, and must be HOST:PORT, such as node0:29500 or [fd00::1]:29500."
        ) from None
