"""What every source of power owes to those who open it, checked on each in the table, on whatever machine this is."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from powerbench.errors import MeterLost
from powerbench.power import SOURCES

HEAVY = ("torch", "numpy", "pynvml")
# nvml's library is what tells whether there is a driver; nobody else needs a heavy package to answer.
NEEDED = {"nvml": {"pynvml"}}
ASK = """
import sys
from powerbench.power import SOURCES
SOURCES[sys.argv[1]].why_unavailable()
print(*(name for name in sys.argv[2:] if name in sys.modules))
"""


@pytest.fixture(params=SOURCES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_source_is_called_what_the_table_calls_it(name: str) -> None:
    assert SOURCES[name].name == name


def test_a_name_can_stand_in_a_list_on_the_command_line(name: str) -> None:
    assert re.fullmatch("[a-z]+", name)
    assert name not in ("auto", "none")


def test_a_source_is_available_or_says_in_a_sentence_why_not(name: str) -> None:
    why = SOURCES[name].why_unavailable()

    assert why is None or re.fullmatch(r"\S.*\S\.", why)


def test_the_answer_costs_no_package_that_it_does_not_need(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", ASK, name, *HEAVY], capture_output=True, text=True, check=True)

    assert set(done.stdout.split()) <= NEEDED.get(name, set())


def test_an_unavailable_source_cannot_be_opened(name: str) -> None:
    source = SOURCES[name]
    if source.why_unavailable() is None:
        pytest.skip(f"{name} is available here")

    with pytest.raises(MeterLost, match=r"\w"):
        source.open(period_s=0.1)


def test_an_available_source_can_be_closed_twice(name: str) -> None:
    source = SOURCES[name]
    why = source.why_unavailable()
    if why is not None:
        pytest.skip(why)
    meter = source.open(period_s=0.1)

    meter.close()
    meter.close()


def test_what_an_administrator_is_to_type_are_whole_commands(name: str) -> None:
    commands = SOURCES[name].set_up()

    assert not isinstance(commands, str)
    assert all(isinstance(command, str) and command.strip() == command != "" for command in commands)
