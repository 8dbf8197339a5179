"""The ranks of a run as one group of torch.distributed: how they meet, what they agree on, and how one is missed."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from powerbench.devices import Device
from powerbench.errors import PowerbenchError, Unavailable
from powerbench.records import Cell, RunRecord
from powerbench.units import NS_PER_S

if TYPE_CHECKING:
    import torch.distributed as dist

# For all to come, and for each of their exchanges: within it lie what the slowest takes to load and to compile.
PATIENCE = timedelta(minutes=10)

# What may differ from machine to machine: where its joules come from, when it gives up, and where its files lie.
OF_A_MACHINE = (
    *("power", "power_from", "idle_seconds", "require_power", "min_seconds", "max_seconds", "limits", "threads"),
    "dataset",
)

# gloo's words for a rank that is gone (gloo/transport/tcp/pair.cc), and NCCL's (ncclRemoteError, and what its watchdog
# says of the others).
PEER_LOST = (
    *("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo/transport"),
    *("remote process exited", "NCCL communicator was aborted", "ncclRemoteError"),
)

# What stands around them: a place in gloo's source, and advice that does not apply here.
AROUND_PEER_LOST = re.compile(r"^.*?gloo/transport/[\w/]+\.cc:\d+\] |\. This is typically caused by .*$")


def rank_of(arguments: list[str], variables: Mapping[str, str]) -> int:
    """The rank given as an argument, or by torch's launcher."""
    return int(arguments[1] if len(arguments) > 1 else variables["RANK"])


def speak_into(log: Path) -> None:
    """Send stdout and stderr of this process, also those of native code, to the end of a file."""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    for stream in (1, 2):
        os.dup2(fd, stream)
    os.close(fd)


class Ranks:
    """This process among those that make each step together. `group` exchanges on the processor; None of one alone."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group = group

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """Of each number the largest that any rank gives; returns when all have given theirs."""
        if self._group is None:
            return list(numbers)
        import torch
        import torch.distributed as dist

        given = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(given, op=dist.ReduceOp.MAX, group=self._group)
        found: list[int] = given.tolist()
        return found

    def meet(self) -> None:
        """Return when all ranks have come here."""
        self.largest([0])

    def as_long_on_all(self, record: RunRecord) -> RunRecord:
        """`record` with the longest tail and least duration of any machine: some have slower meters, or none.

        All ranks step as long as one another.
        """
        if record.ranks == 1:
            return record
        cell = record.the_cell
        lasts_s = (record.tail_s, cell.min_seconds or 0)
        tail_ns, least_ns = self.largest([round(seconds * NS_PER_S) for seconds in lasts_s])
        cell = msgspec.structs.replace(cell, min_seconds=least_ns / NS_PER_S)
        return msgspec.structs.replace(record, cell=cell, tail_s=tail_ns / NS_PER_S)

    def confirm_equal(self, cell: Cell) -> None:
        """Raise PowerbenchError where another rank measures another cell: they would wait for each other for ever."""
        number = number_of(cell)
        high, low = self.largest([number, -number])
        if high != -low:
            raise PowerbenchError(
                "The ranks do not measure the same: give the same command on each machine, but for --node-rank and "
                "what is about its meters."
            )


@contextmanager
def joined(cell: Cell, device: Device, rank: int) -> Iterator[Ranks]:
    """Among all ranks of the cell, as this one; they part when all are through. Raises PowerbenchError, Unavailable.

    Where they meet is in the environment, as torch's launchers leave it (MASTER_ADDR, MASTER_PORT). A rank that fails
    does not part: it ends.
    """
    world = cell.ranks * cell.nnodes
    if world == 1:
        yield Ranks()
        return
    if device.backend is None:
        raise Unavailable(f"Several ranks cannot train together on {device.name}: leave --ranks out.")
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_backend_available(device.backend):
        raise Unavailable(
            f"This torch was built without {device.backend}, by which ranks on {device.name} exchange "
            "gradients: install one that has it, or leave --ranks out."
        )
    try:
        dist.init_process_group(device.backend, rank=rank, world_size=world, timeout=PATIENCE)
        group = dist.new_group(backend="gloo", timeout=PATIENCE)
    except RuntimeError as error:  # torch's own are such, and gloo's that find no way to one another
        raise PowerbenchError(
            f"The {world} ranks did not come together ({first_line(error)}): see the logs of the others, and between "
            "machines name the network in GLOO_SOCKET_IFNAME (and NCCL_SOCKET_IFNAME)."
        ) from error
    ranks = Ranks(group)
    ranks.confirm_equal(cell)
    yield ranks
    ranks.meet()
    dist.destroy_process_group()


def shared_settings(cell: Cell) -> dict[str, Any]:
    """The settings that must be the same on every machine of a run."""
    settings: dict[str, Any] = msgspec.to_builtins(cell)
    return {name: value for name, value in settings.items() if name not in OF_A_MACHINE}


def number_of(cell: Cell) -> int:
    """A number that is equal for equal cells, but for what may differ from machine to machine."""
    return int.from_bytes(hashlib.sha256(msgspec.json.encode(shared_settings(cell))).digest()[:7], "big")


def is_peer_loss(error: BaseException) -> bool:
    """Whether an error only says that another rank is gone."""
    return any(words in str(error) for words in PEER_LOST)


def peer_loss_in_words(said: str) -> str:
    """The line of an error that says so, without what stands around it."""
    return AROUND_PEER_LOST.sub("", said)


def first_line(error: BaseException) -> str:
    """What an error says, without the stack that torch appends."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
