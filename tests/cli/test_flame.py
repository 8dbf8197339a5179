"""`powerbench flame` as typed: what it refuses, and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from powerbench.cli.app import main
from tests.rundir import GOLDEN

RUN = str(GOLDEN / "schema-1")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((RUN,), 1, "holds no stacks: it was measured without --py-spy. Measure again with `powerbench run --py-spy`."),
        ((RUN, "--format", "png"), 2, "There is no format called 'png' here; choose one of terminal, speedscope, svg,"),
        ((RUN, "--format", "html"), 2, "html is not printed but written to a file: name it with --output FILE."),
        ((RUN, "--json", "--format", "svg"), 2, "--json and --format svg are two formats; leave one out."),
        ((RUN, "--window", "idle"), 2, "There is no window called 'idle'; choose one of measured, all."),
        (("nowhere",), 1, "There is no run in nowhere"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    arguments: tuple[str, ...], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["flame", *arguments]) == status

    assert said in capsys.readouterr().err


def test_of_a_folder_of_runs_one_must_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")

    assert main(["flame", str(tmp_path)]) == 1

    assert f"There are 2 runs in {tmp_path}: name the one to look into." in capsys.readouterr().err


def test_against_another_interpreter_there_is_no_py_spy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--model", "sleep", "--py-spy", "--against", "python3"]) == 2

    assert "--against compares what steps cost, and --py-spy changes that: leave one out." in capsys.readouterr().err
