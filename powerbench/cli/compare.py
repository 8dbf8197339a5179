"""`powerbench compare`: two runs, sweeps or folders of repeats against each other, and a gate for CI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from powerbench.cli import options
from powerbench.cli.output import print_result, say
from powerbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from powerbench.analysis.comparison import Comparison, Outcome

EXIT_STATUS: dict[Outcome, int] = {"passed": 0, "regressed": 4, "inconclusive": 5, "could not measure": 5}
NOTHING_COMPARED = 1

Side = typer.Argument(metavar="A", help="What to compare with: a run, a sweep, or a folder of repeats.")
OtherSide = typer.Argument(metavar="B", help="What to compare: the same cells, measured otherwise.")
FailAbove = Annotated[
    str | None,
    typer.Option(
        "--fail-above",
        metavar="PERCENT",
        help="Exit 4 where B costs so much more, 5 where that cannot be told. The verdicts' threshold too (5%).",
    ),
]


def compare(
    a: Annotated[Path, Side],
    b: Annotated[Path, OtherSide],
    fail_above: FailAbove = None,
    json: options.Json = False,
) -> int:
    """Compare what a step costs in B with what it costs in A.

    Ratios are B over A: of time a step, throughput, and joules a step.

    Example: powerbench compare runs/before runs/after --fail-above 5%
    """
    from powerbench.rundir.load import find_runs

    paths = [find_runs(path) for path in (a, b)]
    return compare_paths(paths[0], paths[1], names=(str(a), str(b)), fail_above=share(fail_above), json=json)


def compare_paths(
    a: Sequence[Path], b: Sequence[Path], *, names: tuple[str, str], fail_above: float | None, json: bool
) -> int:
    """Compare these runs, print what that comes to, and return the exit status."""
    import msgspec

    from powerbench.analysis.compare import THRESHOLD
    from powerbench.analysis.comparison import compare_runs
    from powerbench.analysis.gate import judge
    from powerbench.reports.comparison import as_text
    from powerbench.rundir.load import load_run

    threshold = THRESHOLD if fail_above is None else fail_above
    comparison = compare_runs(*([load_run(path) for path in side] for side in (a, b)), names=names, threshold=threshold)
    if fail_above is not None:
        comparison = msgspec.structs.replace(comparison, gate=judge(comparison))
    print_result(msgspec.json.format(msgspec.json.encode(comparison)).decode() if json else as_text(comparison))
    return end(comparison)


def end(comparison: Comparison) -> int:
    """What the gate says, on stderr; the exit status."""
    from powerbench.reports.comparison import as_sentences

    if comparison.gate is None:
        return 0 if comparison.cells else NOTHING_COMPARED
    say()
    for line in as_sentences(comparison.gate):
        say(line)
    return EXIT_STATUS[comparison.gate.outcome]


def share(percent: str | None) -> float | None:
    """`5%` or `5` as 0.05. Raises UsageError."""
    if percent is None:
        return None
    try:
        value = float(percent.strip().removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if not 0 < value <= 10:
        raise UsageError(f"--fail-above must be a percentage above 0, such as 5%, not {percent!r}.")
    return value
