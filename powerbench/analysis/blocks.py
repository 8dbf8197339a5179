"""Joules of single steps where the meter is far faster than they are, and else of blocks of steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from powerbench.analysis.curves import Line
from powerbench.records import RailRecord, Window
from powerbench.units import NS_PER_S

# Over so many of the meter's periods an interval average is off by (swing/mean)/10 at most (sampling.py).
BLOCK_PERIODS = 5

Spans = Sequence[tuple[int, int, int]]


class Block(NamedTuple):
    """A stretch of neighbouring steps and its joules; None where it was not metered from edge to edge."""

    start_ns: int
    end_ns: int
    steps: int
    energy_j: float | None


def block_energies(line: Line, rail: RailRecord, spans: Spans) -> list[Block]:
    """The joules of `spans` (start_ns, end_ns, steps), each in one block, in their order.

    `line` is the rail's curve from `line_of`. A block is as long as the meter needs, and a single step only where that
    is long enough; what is left at the end joins the block before it. No block reaches over a pause, before which what
    is left joins likewise, or is too short to be told.
    """
    shortest_ns = BLOCK_PERIODS * rail.period_s * NS_PER_S
    blocks: list[list[tuple[int, int, int]]] = []
    for span in spans:
        follows = bool(blocks) and blocks[-1][-1][1] == span[0]
        if blocks and not follows:
            _close(blocks, shortest_ns)
        if not follows or _length_ns(blocks[-1]) >= shortest_ns:
            blocks.append([])
        blocks[-1].append(span)
    _close(blocks, shortest_ns)
    return [_block(line, block) for block in blocks]


def _close(blocks: list[list[tuple[int, int, int]]], shortest_ns: float) -> None:
    """Let the last block, where it is too short, join the one before it, unless a pause lies between the two."""
    if len(blocks) > 1 and _length_ns(blocks[-1]) < shortest_ns:
        rest = blocks.pop()
        if blocks[-1][-1][1] == rest[0][0]:
            blocks[-1] += rest


def _length_ns(spans: Spans) -> int:
    return spans[-1][1] - spans[0][0]


def _block(line: Line, spans: Spans) -> Block:
    window = Window(spans[0][0], spans[-1][1])
    return Block(window.start_ns, window.end_ns, sum(count for _, _, count in spans), line.energy_in(window))
