"""The README is true: what it tells a reader to type are commands, options and profiles that there are."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import powerbench
from powerbench.settings import TYPES
from tests.e2e.commands import SLEEP
from tests.e2e.commands import powerbench as run_powerbench

README = Path(powerbench.__file__).parents[1] / "README.md"
NAMES = ("powerbench", ".venv/bin/powerbench")
SEPARATORS = re.compile(r"&&|\|\|?|;")
PLAIN = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


def code_lines(markdown: str) -> Iterator[str]:
    """The lines of the fenced and of the indented code blocks, without their indent."""
    fence = ""
    for line in markdown.splitlines():
        mark = re.match(r" {0,3}(```+|~~~+)", line)
        if mark is not None and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        elif fence or line.startswith(("    ", "\t")):
            yield line.strip()


def commands_in(markdown: str) -> list[list[str]]:
    """What is typed after the name of our command, wherever a code line holds it; comments and prompts left out."""
    found = []
    for line in code_lines(markdown):
        for part in SEPARATORS.split(re.sub(r"(^|\s)#.*", "", line.removeprefix("$ "))):
            ours = re.sub(r" -- .*", "", part).strip().removeprefix("sudo ")  # what comes after -- is not for us
            first, *arguments = re.sub(r"[\[\]]", "", ours).split(maxsplit=1) or [""]
            if first in NAMES:
                found.append(shlex.split(" ".join(arguments)))
    return found


@cache
def help_of(*command: str) -> str:
    done = run_powerbench(*command, "--help", env=PLAIN)
    assert (done.status, done.stderr) == (0, ""), f"there is no `powerbench {' '.join(command)}`: {done.stderr}"
    return done.stdout


def options_in(arguments: list[str]) -> list[str]:
    return [argument.partition("=")[0] for argument in arguments if argument.startswith("-") and argument != "-"]


def test_the_commands_in_code_are_found() -> None:
    markdown = """
Talk of `powerbench run` is no command.

    python3 -m venv .venv && .venv/bin/powerbench run quick  # a comment with powerbench report
    powerbench: a message

```console
$ powerbench report RUN [--json] | less
$ sudo powerbench power --json -- tar -c . | less
```

Not powerbench trace.
"""

    assert commands_in(markdown) == [["run", "quick"], ["report", "RUN", "--json"], ["power", "--json"]]


COMMANDS = commands_in(README.read_text("utf-8"))


def test_the_readme_has_the_first_command_of_a_newcomer() -> None:
    assert ["run", "quick"] in COMMANDS


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_command_of_the_readme_is_one_that_there_is(arguments: list[str]) -> None:
    named = arguments[:1] if arguments and not arguments[0].startswith("-") else []

    text = help_of(*named)

    for option in options_in(arguments):
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), f"{option} is no option of {named}"
    for key in re.findall(r"--set[ =]([\w.]+)=", " ".join(arguments)):
        assert key in TYPES


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_profile_that_the_readme_names_is_shipped(arguments: list[str]) -> None:
    name = next(iter(arguments[1:2]), "")
    if arguments[:1] not in (["run"], ["profiles"]) or not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
        pytest.skip("it names none")

    assert run_powerbench("profiles", name).status == 0


GATE = commands_in(README.read_text("utf-8").partition("### A gate in CI")[2].partition("\n### ")[0])


class TestTheGateOfTheReadme:
    """Its own commands, of the control and in a folder of their own, since what they need is in no checkout."""

    def measured(self, folder: Path, arguments: list[str]) -> None:
        known = {"change/.venv/bin/python": sys.executable, "/tmp/gate": str(folder)}
        for name, ours in known.items():
            arguments = [argument.replace(name, ours) for argument in arguments]
        done = run_powerbench(*arguments, *SLEEP, "--power", "none", cwd=folder)
        assert done.status == 0, done.stderr

    def judged(self, folder: Path, arguments: list[str]) -> tuple[list[int], list[str]]:
        """How many runs there are on both sides, and what is noted of them but for how steady they were."""
        arguments = [argument.replace("/tmp/gate", str(folder)) for argument in arguments]
        assert arguments[-2:] == ["--fail-above", "5%"]
        done = run_powerbench(*arguments, "--json", cwd=folder)
        assert done.status in (0, 4, 5), done.stderr
        [cell] = json.loads(done.stdout)["cells"]
        return cell["processes"], [note for note in json.loads(done.stdout)["notes"] if "no steady state" not in note]

    def test_of_two_environments_finds_what_it_compares_and_has_nothing_against_it(self, tmp_path: Path) -> None:
        run, compare = GATE[:2]

        self.measured(tmp_path, run)

        assert self.judged(tmp_path, compare) == ([5, 5], [])

    def test_of_two_folders_finds_what_it_compares_and_has_nothing_against_it(self, tmp_path: Path) -> None:
        *runs, compare = GATE[2:]

        for _ in range(2):  # five times in the README
            for run in runs:
                self.measured(tmp_path, run)

        assert self.judged(tmp_path, compare) == ([2, 2], [])
