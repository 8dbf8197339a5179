"""What makes a step of one cell another than that of the next, in words that all reports share."""

from __future__ import annotations

from powerbench.records import SYNTHETIC, LoopCell


def optimizer_of(cell: LoopCell) -> str:
    """`adam`, `fused adamw`, `unfused sgd`."""
    fused = {None: "", True: "fused ", False: "unfused "}[cell.fused]
    return f"{fused}{cell.optimizer}"


def data_of(cell: LoopCell) -> str:
    """`synthetic`, or `text of rows.csv`, and how it is read and padded where that is not as usual."""
    if cell.dataset == SYNTHETIC:
        return SYNTHETIC
    padded = ", padded to the longest" if cell.pad == "longest" else ""
    read = ", read in the step" if cell.include_data else ""
    return f"text of {cell.dataset}{padded}{read}"
