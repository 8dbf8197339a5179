"""The command line as a whole: its help, its version, its exit statuses, and where a run's result goes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import powerbench
from powerbench.cli.app import COMMANDS, main, with_errors_told
from powerbench.cli.output import NobodyReads
from powerbench.cli.run import EXIT_STATUS, show
from powerbench.errors import PowerbenchError, Unavailable, UsageError
from powerbench.records import RunRecord, StepTrace, Window
from powerbench.rundir.load import Run
from tests.rundir import START, a_record, steps_lasting

Screen = pytest.CaptureFixture[str]


@pytest.mark.parametrize("asked", ["--help", "-h"])
def test_help_names_every_command(capsys: Screen, asked: str) -> None:
    assert main([asked]) == 0

    told = capsys.readouterr().out
    assert all(f" {command.__name__} " in told for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_help_of_each_command_has_an_example(capsys: Screen, command: object) -> None:
    name = command.__name__  # type: ignore[attr-defined]
    assert main([name, "--help"]) == 0

    assert f"powerbench {name}" in capsys.readouterr().out.partition("Example:")[2]


def test_the_version_is_told(capsys: Screen) -> None:
    assert main(["--version"]) == 0

    assert capsys.readouterr() == (f"powerbench {powerbench.__version__}\n", "")


@pytest.mark.parametrize("typed", [["nonsense"], ["--nonsense"], ["run", "--nonsense"]])
def test_what_there_is_not_is_wrong_usage(capsys: Screen, typed: list[str]) -> None:
    assert main(typed) == 2

    assert "Usage: powerbench" in capsys.readouterr().err


def test_python_m_powerbench_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "powerbench", "profiles", "nonsense"], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("powerbench: There is no profile called 'nonsense'; ")


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "status"), [(PowerbenchError("So."), 1), (UsageError("So."), 2), (Unavailable("So."), 3)]
    )
    def test_that_a_user_can_mend_are_a_sentence_and_a_status(
        self, capsys: Screen, error: PowerbenchError, status: int
    ) -> None:
        def command() -> int:
            raise error

        with pytest.raises(typer.Exit) as caught:
            with_errors_told(command)()

        assert caught.value.exit_code == status
        assert capsys.readouterr() == ("", "powerbench: So.\n")

    def test_that_nobody_reads_the_result_any_more_is_not_worth_a_word(self, capsys: Screen) -> None:
        def command() -> int:
            raise NobodyReads

        with pytest.raises(typer.Exit) as caught:
            with_errors_told(command)()

        assert caught.value.exit_code == 1
        assert capsys.readouterr() == ("", "")

    def test_that_are_ours_rise(self) -> None:
        def command() -> int:
            raise KeyError("a bug")

        with pytest.raises(KeyError):
            with_errors_told(command)()

    def test_ctrl_c_is_130(self) -> None:
        def command() -> int:
            raise KeyboardInterrupt

        with pytest.raises(typer.Exit) as caught:
            with_errors_told(command)()

        assert caught.value.exit_code == 130


class TestTheResultOfARun:
    def test_goes_to_stdout_and_the_path_and_the_next_command_to_stderr(self, capsys: Screen) -> None:
        show(Run(Path("runs/one"), a_measured_record(), [steps_lasting(*[20] * 100)]), json=False)

        told = capsys.readouterr()
        assert told.out.startswith("bert-tiny, inference, batch 16 x sequence 128, float32\n")
        assert told.err.splitlines()[-2:] == ["Recorded in runs/one", "See it again with: powerbench report runs/one"]

    def test_as_json_is_all_that_is_on_stdout(self, capsys: Screen) -> None:
        show(Run(Path("runs/one"), a_measured_record(), [steps_lasting(20)]), json=True)

        assert json.loads(capsys.readouterr().out)["steps"] == 1

    def test_without_a_measured_step_is_only_how_it_ended(self, capsys: Screen) -> None:
        show(Run(Path("runs/one"), a_record(status="failed", reason="it rained"), [StepTrace()]), json=False)

        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith("powerbench: The run was not completed (failed): it rained.\n")

    def test_without_a_reason_says_none(self, capsys: Screen) -> None:
        show(Run(Path("runs/one"), a_record(status="interrupted", reason=None), [StepTrace()]), json=False)

        said = capsys.readouterr().err
        assert said.startswith("powerbench: The run was not completed (interrupted): no reason was recorded.\n")

    def test_has_one_full_stop_behind_the_reason(self, capsys: Screen) -> None:
        show(Run(Path("runs/one"), a_record(status="failed", reason="It rained."), [StepTrace()]), json=False)

        assert "(failed): It rained.\n" in capsys.readouterr().err

    def test_has_the_exit_status_of_the_design(self) -> None:
        assert EXIT_STATUS == {"complete": 0, "interrupted": 130, "unavailable": 3}


def a_measured_record() -> RunRecord:
    return a_record(windows={"measured": Window(START, START + 1)})
