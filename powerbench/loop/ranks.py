"""Which of several processes of one training this is, as torchrun tells each: where it records, and what it meters."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Rank(NamedTuple):
    """One of `world` processes, number `rank` of all and `local_rank` of those on this machine; counted from 0."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @classmethod
    def of(cls, variables: Mapping[str, str] = os.environ) -> Rank:
        """By the variables that torchrun sets (torch/distributed/run.py); the only one where there are none."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        values = [variables.get(name, "") for name in names]
        return cls(*map(int, values)) if all(value.isdecimal() for value in values) else cls()

    def place(self, path: Path) -> Path:
        """Where this rank records: a folder of its own beside those of the others."""
        return path if self.world == 1 else path.with_name(f"{path.name}-rank{self.rank}")

    def power(self, asked: str) -> str:
        """The meters that this rank opens: those of the machine are read by one of its ranks."""
        return asked if self.local_rank == 0 else "none"

    def notes(self) -> list[str]:
        """What a reader must know of a run that is one of several."""
        if self.world == 1:
            return []
        which = f"This is rank {self.rank} of {self.world}, and its steps alone."
        if self.local_rank:
            return [f"{which} The meters of the machine were read by the first rank on it, whose run has the joules."]
        return [f"{which} Joules that are not of one GPU alone cover the work of all ranks on this machine."]
