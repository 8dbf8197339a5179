"""What a gate makes of a comparison: surely worse, surely not, not to be told, or not measured at all."""

from __future__ import annotations

from collections.abc import Iterator

from powerbench.analysis.compare import Ratio
from powerbench.analysis.comparison import Compared, Comparison, Gate, Outcome


def judge(comparison: Comparison) -> Gate:
    """Whether B is worse than A by the threshold: surely, surely not, or not to be told.

    Latency and joules must be decided: their whole 95 % interval below 1 + threshold, or the verdict of worse.
    Throughput, which a few slow steps make uncertain, counts where it is surely worse.
    """
    found: dict[Outcome, list[str]] = {"regressed": [], "could not measure": [], "inconclusive": [], "passed": []}
    for cell in comparison.cells:
        for outcome, reason in _judged(cell, comparison.threshold):
            found[outcome].append(reason if len(comparison.cells) == 1 else f"{cell.title}: {reason}")
    found["could not measure"] += [
        f"{one.title}: {one.reason} ({'both sides' if one.side == 'both' else one.side})"
        for one in comparison.not_compared
        if one.is_gap or not comparison.cells
    ]
    outcome = next((name for name, reasons in found.items() if reasons), "could not measure")
    return Gate(fail_above=comparison.threshold, outcome=outcome, reasons=found[outcome])


def _judged(cell: Compared, threshold: float) -> Iterator[tuple[Outcome, str]]:
    if cell.latency_ms is None:
        yield "could not measure", "no step was measured to its end"
    else:
        yield _of_ratio(cell.latency_ms, threshold, "latency")
    if cell.samples_per_s is not None and cell.samples_per_s.verdict == "slower":
        yield "regressed", f"throughput is {cell.samples_per_s.ratio:.3f} times that of A"
    if cell.j_per_step is not None:
        yield _of_ratio(cell.j_per_step, threshold, "energy")
    elif cell.is_metered:
        yield "could not measure", f"energy: {cell.energy_reason}"


def _of_ratio(ratio: Ratio, threshold: float, what: str) -> tuple[Outcome, str]:
    text = f"{what} is {ratio.ratio:.3f} times that of A"
    if ratio.verdict in ("slower", "more"):
        return "regressed", text
    if ratio.interval_of == "processes" and ratio.ci95 is not None and ratio.ci95[1] < 1 + threshold:
        return "passed", text
    return "inconclusive", text
