"""Words that nobody can take: a full disk behind stdout is a sentence, a reader who has gone is none, talk is lost."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest

from powerbench.cli.output import NobodyReads, print_result, say, text_width
from powerbench.cli.progress import ProgressLine
from powerbench.errors import PowerbenchError
from powerbench.pace import Progress, Stage
from powerbench.records import Cell
from tests.rundir import a_record

FULL = Path("/dev/full")

needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
Screen = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
STAGES: tuple[Stage, ...] = ("starting", "measuring", "measuring", "stopping")


def standing(stage: Stage) -> Progress:
    return Progress(a_record(), stage, 1, 100, None, None)


@contextmanager
def full() -> Iterator[TextIO]:
    """A file on a disk without room. What is still in its buffer must not be an error when it is closed."""
    with FULL.open("w") as file:
        yield file


@contextmanager
def closed_pipe() -> Iterator[TextIO]:
    """A pipe whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as file:
        yield file


@pytest.mark.parametrize(("columns", "width"), [("200", 78), ("80", 78), ("60", 60), ("7", 40)])
def test_text_is_no_wider_than_the_terminal_and_than_is_easy_to_read(
    monkeypatch: Patch, columns: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)

    assert text_width() == width


class TestAResult:
    def test_is_a_line_on_stdout(self, capsys: Screen) -> None:
        print_result("one\ntwo")

        assert capsys.readouterr() == ("one\ntwo\n", "")

    @needs_full
    def test_that_finds_no_room_is_an_error_with_what_to_do(self, monkeypatch: Patch) -> None:
        with full() as file:
            monkeypatch.setattr(sys, "stdout", file)
            with pytest.raises(PowerbenchError) as caught:
                print_result("42")

        assert type(caught.value) is PowerbenchError
        assert str(caught.value) == ("Cannot write the result to stdout: No space left on device; send it elsewhere.")

    def test_that_nobody_reads_is_an_error_without_a_word(self, monkeypatch: Patch) -> None:
        with closed_pipe() as file:
            monkeypatch.setattr(sys, "stdout", file)
            with pytest.raises(NobodyReads) as caught:
                print_result("42")

        assert (str(caught.value), caught.value.exit_status) == ("", 1)


class TestTalk:
    def test_is_a_line_on_stderr(self, capsys: Screen) -> None:
        say("Recorded in runs/one")
        say()

        assert capsys.readouterr() == ("", "Recorded in runs/one\n\n")

    @needs_full
    def test_that_finds_no_room_is_lost(self, monkeypatch: Patch) -> None:
        file = FULL.open("w")
        monkeypatch.setattr(sys, "stderr", file)

        say("Recorded in runs/one")

        with pytest.raises(OSError, match="No space left"):
            file.close()  # it was tried

    def test_that_nobody_hears_is_lost(self, monkeypatch: Patch) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        file = os.fdopen(writing, "w")
        monkeypatch.setattr(sys, "stderr", file)

        say("Recorded in runs/one")

        with pytest.raises(BrokenPipeError):
            file.close()


class TestTheProgressLine:
    def test_is_a_plain_line_a_stage_off_a_terminal(self, capsys: Screen) -> None:
        with ProgressLine(Cell(device="cpu", model="sleep")) as line:
            for stage in STAGES:
                line.show(standing(stage))

        assert capsys.readouterr().err == "cpu sleep: starting\ncpu sleep: measuring\ncpu sleep: stopping\n"

    def test_that_nobody_sees_any_more_is_not_shown_and_ends_nothing(self, monkeypatch: Patch) -> None:
        reading, writing = os.pipe()
        file = os.fdopen(writing, "w")
        monkeypatch.setattr(sys, "stderr", file)

        with ProgressLine(Cell(device="cpu", model="sleep")) as line:
            line.show(standing("starting"))
            assert os.read(reading, 100) == b"cpu sleep: starting\n"
            os.close(reading)
            line.show(standing("measuring"))
            line.show(standing("stopping"))

        with pytest.raises(BrokenPipeError):
            file.close()
