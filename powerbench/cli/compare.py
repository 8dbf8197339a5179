"""`powerbench compare`: two runs, sweeps or folders of repeats against each other, and a gate for CI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from powerbench.cli import options
from powerbench.cli.output import print_result, say
from powerbench.cli.report import readable
from powerbench.errors import PowerbenchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from powerbench.analysis.comparison import Comparison, Outcome
    from powerbench.rundir.many import OnDisk

# Noise is answered with more repeats, a measurement that is missing with whatever it is that keeps it from being made.
EXIT_STATUS: dict[Outcome, int] = {"passed": 0, "regressed": 4, "inconclusive": 5, "could not measure": 1}
NOTHING_COMPARED = 1
# No program is steady enough for a gate of a tenth of a percent: less is a share (0.05) that should be 5%.
LEAST_WITHOUT_SIGN = 0.001

Side = typer.Argument(metavar="A", help="What to compare with: a run, a sweep, or a folder of repeats.")
OtherSide = typer.Argument(
    metavar="[B]", help="The same cells, measured otherwise; none where A is of `run --against`.", show_default=False
)
FailAbove = Annotated[
    str | None,
    typer.Option(
        "--fail-above",
        metavar="PERCENT",
        help="Exit 4 where B costs so much more, 5 where noise hides that, 1 where it was not measured. "
        "The verdicts' threshold too (5%).",
    ),
]


def compare(
    a: Annotated[Path, Side],
    b: Annotated[Path | None, OtherSide] = None,
    fail_above: FailAbove = None,
    json: options.Json = False,
) -> int:
    """Compare what a step costs in B with what it costs in A.

    Ratios are B over A: of time a step, throughput, and joules a step.

    Example: powerbench compare runs/before runs/after --fail-above 5%
    """
    limit = share(fail_above)
    if b is None:
        return compare_interpreters(a, fail_above=limit, json=json)
    return compare_paths(recorded(a), recorded(b), names=(str(a), str(b)), fail_above=limit, json=json)


def recorded(folder: Path) -> list[OnDisk]:
    """The runs in a folder that count and can be read. Raises PowerbenchError where there is none.

    What a sweep has not begun is of no side; the other one's cell then has no counterpart, and that is said.
    """
    from powerbench.rundir.load import Run

    found = [item for item in readable([folder]) if not isinstance(item, Run)]
    if not found:
        raise PowerbenchError(f"Nothing was measured in {folder} yet: go on with --resume.")
    return found


def compare_interpreters(folder: Path, *, fail_above: float | None, json: bool) -> int:
    """Compare the two interpreters of a sweep that `run --against` made; the exit status. Raises PowerbenchError."""
    from powerbench.rundir.sweeps import SWEEP_FILE, read_sweep

    folder = folder.resolve() if folder.is_symlink() else folder
    sweep = read_sweep(folder) if (folder / SWEEP_FILE).exists() else None
    if sweep is None or sweep.against is None:
        raise UsageError(
            f"With what is {folder} to be compared? Name two folders; one is enough for a sweep of `run --against`."
        )
    at_hand = {path.name: path for path in recorded(folder) if isinstance(path, Path)}
    ours, others = (
        [at_hand[one.run] for one in sweep.measurements if one.run in at_hand and (one.interpreter is None) is is_ours]
        for is_ours in (True, False)
    )
    for name, side in (("this interpreter", ours), (sweep.against, others)):
        if not side:
            raise PowerbenchError(f"There is no run in {name} that can be read yet: go on with --resume.")
    names = (f"{folder} in {interpreter_of(ours[0])}", f"{folder} in {sweep.against}")
    return compare_paths(ours, others, names=names, fail_above=fail_above, json=json)


def interpreter_of(run: Path) -> str:
    """The Python in which a run's worker ran."""
    from powerbench.rundir import RunDir
    from powerbench.rundir.load import read_record

    return str(read_record(RunDir(run)).environment.get("interpreter") or "the Python of powerbench")


def compare_paths(
    a: Sequence[OnDisk], b: Sequence[OnDisk], *, names: tuple[str, str], fail_above: float | None, json: bool
) -> int:
    """Compare these runs, print what that comes to, and return the exit status."""
    import msgspec

    from powerbench.analysis.compare import THRESHOLD
    from powerbench.analysis.comparison import compare_runs
    from powerbench.analysis.gate import judge
    from powerbench.reports.comparison import as_text
    from powerbench.rundir.many import Runs

    threshold = THRESHOLD if fail_above is None else fail_above
    comparison = compare_runs(Runs(a), Runs(b), names=names, threshold=threshold)
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
    """`5%` or `5` as 0.05. Raises UsageError, also for `0.05`, by which most people mean 5%."""
    if percent is None:
        return None
    try:
        value = float(percent.strip().removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if not 0 < value <= 10:
        raise UsageError(f"--fail-above must be a percentage above 0, such as 5%, not {percent!r}.")
    if value < LEAST_WITHOUT_SIGN and "%" not in percent:
        raise UsageError(
            f"--fail-above {percent} is open to two readings: write {value * 10_000:g}% if it is a share, or "
            f"{value * 100:g}% if it is so few percent."
        )
    return value
