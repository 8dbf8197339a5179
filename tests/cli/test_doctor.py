"""`powerbench doctor` says what can be measured here, in words or as JSON, and imports no torch itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from powerbench.checkup import Check
from powerbench.cli.app import main
from powerbench.cli.doctor import in_words
from powerbench.devices import DEVICES
from powerbench.reports.lines import WIDTH
from tests.e2e.commands import powerbench

Screen = pytest.CaptureFixture[str]

DOCTOR_AND_WHAT_IT_IMPORTED = """
import sys
from powerbench.cli.app import main
status = main(["doctor", "--json"])
heavy = sorted({"torch", "transformers", "numpy"} & set(sys.modules))
sys.stderr.write(f"{status} {heavy}")
"""


def test_this_machine_can_measure_on_its_processor(capsys: Screen) -> None:
    assert main(["doctor"]) == 0

    lines = capsys.readouterr().out.splitlines()
    titles = [line for line in lines if line and not line.startswith(" ")]
    assert titles[0] == "Devices"
    assert titles[-2:] == ["Software", "This machine"]
    (cpu,) = (line for line in lines if line.split()[1:2] == ["cpu"])
    assert cpu.split()[0] == "ok"
    assert DEVICES["cpu"].describe().name.split()[0] in cpu
    assert len(cpu) <= WIDTH


@pytest.fixture(scope="module")
def asked() -> subprocess.CompletedProcess[str]:
    """`doctor --json` under a variable that changes results; torch is slow to start, so it is asked once for all."""
    return subprocess.run(
        [sys.executable, "-c", DOCTOR_AND_WHAT_IT_IMPORTED],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_as_json_it_is_a_list_and_the_doctor_itself_imports_no_torch(asked: subprocess.CompletedProcess[str]) -> None:
    assert asked.stderr == "0 []"
    checks = json.loads(asked.stdout)
    assert isinstance(checks, list)
    assert all(check.keys() >= {"subject", "name", "state", "finding", "advice"} for check in checks)
    assert [check["name"] for check in checks if check["subject"] == "device"] == list(DEVICES)
    (cpu,) = (check for check in checks if check["name"] == "cpu")
    assert (cpu["state"], cpu["advice"]) == ("ok", None)


def test_every_device_that_is_missing_says_what_to_do(asked: subprocess.CompletedProcess[str]) -> None:
    missing = [
        check for check in json.loads(asked.stdout) if (check["subject"], check["state"]) == ("device", "missing")
    ]
    assert missing
    for check in missing:
        what, _, remedy = check["finding"].partition(": ")
        assert what
        assert remedy.endswith("."), check


def test_where_torch_is_broken_nothing_can_be_measured_and_that_is_status_1(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("raise ImportError('libtorch_cpu.so: file too short')\n")

    done = powerbench("doctor", env={"PYTHONPATH": str(tmp_path)})

    assert (done.status, done.stderr) == (1, "")
    said = " ".join(done.stdout.split())
    assert (
        "missing cpu torch cannot be used here (ImportError: libtorch_cpu.so: file too short): install it anew." in said
    )


def test_a_variable_that_changes_results_is_named(asked: subprocess.CompletedProcess[str]) -> None:
    (variables,) = (check for check in json.loads(asked.stdout) if check["name"] == "variables")
    assert variables["state"] == "note"
    assert "OMP_NUM_THREADS=1" in variables["finding"]
    (cpu,) = (check for check in json.loads(asked.stdout) if check["name"] == "cpu")
    assert ", 1 thread" in cpu["finding"]


def test_words_stand_in_columns_with_the_advice_below_the_finding() -> None:
    checks = [
        Check(subject="device", name="mps", state="missing", finding="mps is the GPU of a Mac and this is linux: no."),
        Check(subject="device", name="cpu", state="ok", finding="Abacus 3000, 2 threads"),
        Check(
            subject="machine",
            name="memory",
            state="note",
            finding="7.90 GB of 32.0 GB free",
            advice="Little is free: close what you do not need, or the run will swap.",
        ),
    ]

    assert "\n".join(in_words(checks, WIDTH)).rstrip() == (
        "Devices\n"
        "  missing  mps     mps is the GPU of a Mac and this is linux: no.\n"
        "  ok       cpu     Abacus 3000, 2 threads\n"
        "\n"
        "This machine\n"
        "  note     memory  7.90 GB of 32.0 GB free. Little is free: close what you do\n"
        "                   not need, or the run will swap."
    )
