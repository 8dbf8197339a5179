"""A comparison as a person reads it: ratios with their intervals, what differs, and what to know of them."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from powerbench.analysis.compare import Ratio
from powerbench.analysis.comparison import Compared, Comparison, Gate, NotCompared
from powerbench.reports.lines import WIDTH
from powerbench.units import counted, significant

WIDEST_LABEL = 34
UNBROKEN = "\N{NO-BREAK SPACE}"
QUANTITIES = ("Median, ms", "Samples/s", "J a step")
TITLES = ("Latency, median step in ms", "Throughput, samples/s", "Energy, J a step")
HEADER = ("A", "B", "B / A", "95% interval")


def as_text(comparison: Comparison) -> str:
    """The comparison, in lines of a terminal's width."""
    cells = comparison.cells
    parts = [
        [*_sides(comparison)],
        [*(_one_cell(cells[0]) if len(cells) == 1 else _many_cells(comparison))],
        [*_energy(comparison)],
        [*_differences(comparison)],
        [*_not_compared(comparison.not_compared)],
        [line for note in comparison.notes for line in _wrapped(f"Note: {note}", indent=2, hanging=6)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def as_sentences(gate: Gate) -> Iterator[str]:
    """What the gate says, and of which cells."""
    limit = percent(gate.fail_above)
    said = {
        "passed": f"Passed: no cell costs {limit} more in B.",
        "regressed": f"Regressed: B costs at least {limit} more.",
        "inconclusive": f"Inconclusive: whether B costs {limit} more cannot be told. Measure more repeats a side.",
        "could not measure": "Could not measure: not everything that A has could be compared.",
    }
    yield from _wrapped(said[gate.outcome], indent=0, hanging=0)
    if gate.outcome != "passed":
        yield from (line for reason in gate.reasons for line in _wrapped(reason, indent=2, hanging=2))


def percent(share: float) -> str:
    """`5%`, `2.5%`."""
    return f"{share * 100:.6g}%"


def _sides(comparison: Comparison) -> Iterator[str]:
    for name, path in (("A", comparison.a), ("B", comparison.b)):
        numbers = sorted({cell.processes["AB".index(name)] for cell in comparison.cells})
        each = " a cell" if len(comparison.cells) > 1 else ""
        runs = "" if not numbers else " " + f"({_range(numbers)}{each})".replace(" ", UNBROKEN)
        yield from (line.replace(UNBROKEN, " ") for line in _wrapped(f"{name}  {path}{runs}", indent=0, hanging=3))


def _range(numbers: Sequence[int]) -> str:
    low, high = numbers[0], numbers[-1]
    return counted(low, "run") if low == high else f"{low} to {counted(high, 'run')}"


def _one_cell(cell: Compared) -> Iterator[str]:
    yield cell.title
    yield ""
    ratios = (cell.latency_ms, cell.samples_per_s, cell.j_per_step)
    labels = [of_what(label, [ratio]) for label, ratio in zip(QUANTITIES, ratios, strict=True)]
    rows = [(label, ratio) for label, ratio in zip(labels, ratios, strict=True) if ratio is not None]
    yield from _table("", rows)


def of_what(label: str, ratios: Sequence[Ratio | None]) -> str:
    """The label of these; where nobody told how many samples a step has, the rate is one of steps."""
    has_samples = any(ratio is not None and ratio.a is not None for ratio in ratios)
    return label if has_samples else label.replace("Samples", "Steps").replace("samples", "steps")


def _many_cells(comparison: Comparison) -> Iterator[str]:
    """A table for each quantity, a row for each cell, their geometric mean below."""
    if not comparison.cells:
        yield "No cell was completed on both sides."
        return
    common, labels = _labels(comparison.cells)
    if common:
        yield common
    first = not common
    for title, of in zip(TITLES, ("latency_ms", "samples_per_s", "j_per_step"), strict=True):
        rows = [(label, getattr(cell, of)) for label, cell in zip(labels, comparison.cells, strict=True)]
        rows = [(label, ratio) for label, ratio in rows if ratio is not None]
        if not rows:
            continue
        mean = getattr(comparison.geometric_mean, of) if comparison.geometric_mean is not None else None
        yield from [] if first else [""]
        first = False
        yield of_what(title, [ratio for _, ratio in rows])
        yield from _table("", [*rows, *([("geometric mean", mean)] if mean is not None else [])])


def _labels(cells: Sequence[Compared]) -> tuple[str, list[str]]:
    """What all the cells have in common, and what tells each from the others."""
    split = [cell.title.split(", ") for cell in cells]
    if len({len(parts) for parts in split}) > 1:
        return "", [cell.title for cell in cells]
    columns = [*zip(*split, strict=True)]
    is_same = [len({*column}) == 1 for column in columns]
    common = ", ".join(column[0] for column, same in zip(columns, is_same, strict=True) if same)
    differing = (" ".join(part for part, same in zip(parts, is_same, strict=True) if not same) for parts in split)
    labels = [label.replace("batch ", "").replace(" x sequence ", " x ") for label in differing]
    return common, labels


def _table(title: str, rows: Sequence[tuple[str, Ratio]]) -> Iterator[str]:
    lines = [(title, *HEADER, "")] + [(label, *_figures(ratio)) for label, ratio in rows]
    widths = [max(len(line[at]) for line in lines) for at in range(5)]
    is_wide = 2 + sum(widths) + 2 * 4 + 2 + max(len(line[5]) for line in lines) > WIDTH or widths[0] > WIDEST_LABEL
    for line in lines:
        figures = "  ".join(f"{text:>{width}}" for text, width in zip(line[1:5], widths[1:], strict=True))
        if is_wide and line[0]:
            yield f"  {line[0]}"
        label = f"  {'':<{4}}" if is_wide else f"  {line[0]:<{widths[0]}}"
        yield f"{label}  {figures}  {line[5]}".rstrip()


def _figures(ratio: Ratio) -> tuple[str, str, str, str, str]:
    a, b = ("" if value is None else significant(value) for value in (ratio.a, ratio.b))
    interval = "unknown" if ratio.ci95 is None else " to ".join(_ratio(end) for end in ratio.ci95)
    return a, b, _ratio(ratio.ratio), interval, ratio.verdict


def _ratio(value: float) -> str:
    """Three decimals near 1, three digits far from it."""
    if math.isinf(value) or value >= 1e6:
        return "very much"
    return f"{value:.3f}" if 0.01 <= value < 10 else significant(value)


def _energy(comparison: Comparison) -> Iterator[str]:
    """Why there is no ratio of joules, where there is none."""
    reasons = [cell.energy_reason for cell in comparison.cells if cell.energy_reason is not None]
    for reason in dict.fromkeys(reasons):
        few = sum(one == reason for one in reasons)
        where = "" if few == len(comparison.cells) else f" in {counted(few, 'cell')}"
        yield from _wrapped(f"Energy is not compared{where}: {reason}.", indent=2, hanging=2)


def _differences(comparison: Comparison) -> Iterator[str]:
    if not comparison.differs:
        if comparison.cells:
            yield "Nothing else that was recorded differs between A and B."
        return
    rows = [(name.replace("_", " "), ", ".join(a), ", ".join(b)) for name, (a, b) in comparison.differs.items()]
    label = min(24, max(len("What differs"), *(len(name) for name, _, _ in rows)))
    column = (WIDTH - 2 - label - 4) // 2
    yield from _row(("What differs", "A", "B"), label, column)
    for row in rows:
        yield from _row(row, label, column)


def _row(row: tuple[str, str, str], label: int, column: int) -> Iterator[str]:
    cells = [_folded(text, width) or [""] for text, width in zip(row, (label, column, column), strict=True)]
    for at in range(max(map(len, cells))):
        name, of_a, of_b = (cell[at] if at < len(cell) else "" for cell in cells)
        yield f"  {name:<{label}}  {of_a:<{column}}  {of_b}".rstrip()


def _folded(text: str, width: int) -> list[str]:
    """`text` in lines of this width, which end behind a space or a slash where they can."""
    lines = [""]
    for part in re.split(r"(?<=[/ ])", text):
        if len((lines[-1] + part).rstrip()) > width and lines[-1]:
            lines.append("")
        lines[-1] += part
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return [line.rstrip() for line in lines]


def _not_compared(missing: Sequence[NotCompared]) -> Iterator[str]:
    if not missing:
        return
    yield "Not compared"
    for one in missing:
        side = "A and B" if one.side == "both" else one.side
        yield from _wrapped(f"{side}: {one.title}: {one.reason}", indent=2, hanging=2)


def _wrapped(text: str, *, indent: int, hanging: int) -> Iterable[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hanging),
        break_long_words=False,
        break_on_hyphens=False,
    )
