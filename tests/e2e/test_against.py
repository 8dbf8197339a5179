"""Two interpreters in turns: another environment's Python runs the workers, and the sweep ends in the comparison."""

from __future__ import annotations

import json
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.e2e.commands import SLEEP, powerbench, record_of, told

QUICK = (*SLEEP, "--steps", "30", "--power", "none")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The Python of a second environment, with this one's packages but another torch (which the control needs not)."""
    environment = tmp_path / "other"
    packages = environment / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    torch = packages / "torch"
    torch.mkdir(parents=True)
    (torch / "__init__.py").touch()
    (torch / "version.py").write_text("__version__ = '9.9.9+other'\n")
    (packages / "packages.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    (environment / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    (environment / "bin").mkdir()
    python = environment / "bin" / "python"
    python.symlink_to(base)
    return python


def test_each_cell_is_measured_in_both_in_turns_and_compared(tmp_path: Path, other: Path) -> None:
    parent = tmp_path / "runs"

    done = powerbench("run", *QUICK, "--repeats", "2", "--against", other, "--output", parent, "--json")

    assert done.status == 0, done.stderr
    [folder] = [path for path in parent.iterdir() if not path.is_symlink()]
    measurements = json.loads((folder / "sweep.json").read_text())["measurements"]
    assert [one.get("interpreter") for one in measurements] == [None, str(other), str(other), None]
    interpreters = [record_of(folder / one["attempts"][-1]["run"])["environment"] for one in measurements]
    assert [it["torch"] == "9.9.9+other" for it in interpreters] == [False, True, True, False]
    assert [it["interpreter"] == str(other) for it in interpreters] == [False, True, True, False]
    turns = [line.rpartition(", in ")[2] for line in done.stderr.splitlines() if line.startswith("[")]
    assert turns == ["A", "B", "B", "A"]
    assert done.stderr.splitlines()[1:3] == [f"A is {sys.executable}", f"B is {other}"]
    [cell] = json.loads(done.stdout)["cells"]
    assert cell["processes"] == [2, 2]
    assert cell["latency_ms"]["verdict"] in ("indistinguishable", "inconclusive")
    assert json.loads(done.stdout)["differs"]["torch"][1] == ["9.9.9+other"]
    assert not [note for note in json.loads(done.stdout)["notes"] if "was measured first" in note]

    again = powerbench("compare", folder, "--json")

    assert (again.status, again.stdout) == (0, done.stdout)


def test_without_a_number_there_are_three_repeats_in_each(tmp_path: Path, other: Path) -> None:
    done = powerbench("run", *QUICK, "--against", other, "--output", tmp_path / "runs", "--dry-run", "--json")

    planned = json.loads(done.stdout)
    assert [(one["repeat"], one["interpreter"] is None) for one in planned] == [
        *((1, True), (1, False), (2, False), (2, True), (3, True), (3, False))
    ]


def test_a_dry_run_says_which_python_is_which(tmp_path: Path, other: Path) -> None:
    done = powerbench("run", *QUICK, "--against", other, "--output", tmp_path / "runs", "--dry-run")

    assert done.stderr == f"A is {sys.executable}\nB is {other}\n"


def test_an_interpreter_that_lacks_what_a_step_needs_is_refused_before_anything_is_measured(
    tmp_path: Path, other: Path
) -> None:
    next(other.parents[1].glob("lib/*/site-packages/packages.pth")).unlink()

    done = powerbench("run", *QUICK, "--against", other, "--output", tmp_path / "runs")

    assert done.status == 3
    assert told(done) == (
        f"{other} lacks transformers, msgspec, psutil, numpy, without which there is no step: "
        f"install with `{other} -m pip install transformers msgspec psutil numpy`."
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("no/such/python", "There is no program no/such/python to compare with"),
        ("/bin/cat", "/bin/cat does not answer as a Python does: "),
    ],
)
def test_what_is_no_python_is_refused(tmp_path: Path, program: str, said: str) -> None:
    done = powerbench("run", *QUICK, "--against", program, "--output", tmp_path / "runs")

    assert done.status == 3
    assert told(done).startswith(said)


def test_a_sweep_of_one_interpreter_needs_something_to_be_compared_with(tmp_path: Path) -> None:
    powerbench("run", *QUICK, "--output", tmp_path / "runs")

    done = powerbench("compare", tmp_path / "runs")

    assert done.status == 2
    assert "one is enough for a sweep of `run --against`" in told(done)
