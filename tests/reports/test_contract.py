"""What every format keeps: it shows any run, alone and among others, in one pass, and never a `nan`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from powerbench.records import RunRecord, StepTrace
from powerbench.reports import FORMATS, Format
from powerbench.rundir.load import Run
from tests.rundir import a_record, steps_lasting


def a_run(steps: StepTrace | None = None, **changes: Any) -> Run:
    record: RunRecord = a_record(peak_memory_bytes=512_000_000, peak_memory_of="the worker's resident memory")
    return Run(Path("runs/one"), msgspec.structs.replace(record, **changes), [steps or steps_lasting(*[20] * 100)])


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(
    "runs",
    [
        [a_run()],
        [a_run(), a_run()],
        [a_run(StepTrace(), device=None, workload=None, environment={}, status="failed")],
        [a_run(steps_lasting(None, None))],
        [a_run(steps_lasting(*[None] * 9, 100), status="running")],
    ],
    ids=["one", "two", "nothing", "no edge", "one edge"],
)
def test_every_format_shows_every_run(form: Format, runs: list[Run]) -> None:
    for show in (form.show, form.of_several or form.show):
        shown = show(runs)

        data = shown.encode() if isinstance(shown, str) else shown
        assert b"bert-tiny" in data
        assert isinstance(shown, bytes) or "nan" not in shown


class OnePass(Sequence[Run]):
    """Runs that can be gone through once."""

    def __init__(self, *runs: Run) -> None:
        self._runs, self._begun = runs, False

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        assert not self._begun, "a second pass reads ten thousand runs from disk again"
        self._begun = True
        return iter(self._runs)

    def __getitem__(self, at: Any) -> Any:
        raise AssertionError("one pass is enough")


@pytest.mark.parametrize("name", ["terminal", "json", "markdown", "csv", "html", "parquet"])
def test_tables_of_many_runs_take_one_pass(name: str) -> None:
    form = FORMATS[name]

    assert (form.of_several or form.show)(OnePass(a_run(), a_run()))
