"""What the cells of a sweep are called beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from powerbench.records import Cell
    from powerbench.rundir.sweeps import Measurement

USUAL = ("device", "model", "mode", "batch_size", "sequence_length")


class Names:
    """Names by the usual settings, and by whatever else differs among these measurements."""

    def __init__(self, measurements: Sequence[Measurement]) -> None:
        from powerbench.settings import OF_A_CELL, value_of

        cells = [one.cell for one in measurements]
        self._has_two_interpreters = any(one.interpreter is not None for one in measurements)
        self._has_repeats = any(one.repeat > 1 for one in measurements)
        self._varying = [
            key
            for key in OF_A_CELL
            if key not in USUAL and any(value_of(cell, key) != value_of(cells[0], key) for cell in cells)
        ]

    def of(self, cell: Cell, repeat: int, interpreter: str | None = None) -> str:
        """`cpu bert-tiny training, batch 16 x sequence 128, threads 2, repeat 3, in A`.

        A is our own interpreter, B the other one, where there are two.
        """
        from powerbench.settings import value_of

        device = "" if cell.device == "auto" else f"{cell.device} "
        parts = [f"{device}{cell.model} {cell.mode}", f"batch {cell.batch_size:,} x sequence {cell.sequence_length}"]
        parts += [f"{key.replace('_', ' ')} {_told(value_of(cell, key))}" for key in self._varying]
        parts += [f"repeat {repeat}"] if self._has_repeats else []
        parts += [f"in {'A' if interpreter is None else 'B'}"] if self._has_two_interpreters else []
        return ", ".join(parts)


def _told(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "unset", True: "on", False: "off"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
