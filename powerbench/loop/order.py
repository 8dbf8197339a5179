"""What a program and the process beside it tell each other, one JSON object a line: an order, and its answer."""

from __future__ import annotations

from msgspec import Struct

from powerbench.records import LoopCell

OVER = b"over\n"
"""The program's last word, behind its last event. A pipe that closes without it closed because the program is gone."""


class Order(Struct, frozen=True, kw_only=True):
    """What is to be recorded. `path` is where (absolute), `program` what the program is called, `notes` its user's."""

    path: str
    cell: LoopCell
    program: str
    notes: list[str] = []


class Answer(Struct, frozen=True, kw_only=True):
    """The run's directory, once its meters are open and rest has been measured; or why there is none."""

    run: str | None = None
    error: str | None = None
    exit_status: int = 0
