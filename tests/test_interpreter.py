"""Another Python is asked what it can before a worker runs in it, and finds our package and nothing beside it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import powerbench
from powerbench.errors import Unavailable
from powerbench.interpreter import BOOTSTRAP, NEEDED, find_interpreter
from powerbench.launch import FLAGS


def a_program(folder: Path, *says: str) -> Path:
    """A program that answers every question with these lines of shell."""
    path = folder / "python"
    path.write_text("\n".join(["#!/bin/sh", *says]) + "\n")
    path.chmod(0o755)
    return path


def refusal(path: Path | str) -> str:
    with pytest.raises(Unavailable) as refused:
        find_interpreter(str(path))
    return str(refused.value)


def test_our_own_python_can_step() -> None:
    found = find_interpreter(sys.executable)

    assert found.path == sys.executable
    assert found.worker[0] == sys.executable


def test_a_link_is_not_followed_since_it_makes_the_environment(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    link = tmp_path / "bin" / "python"
    link.symlink_to(a_program(tmp_path, """echo '{"version": [3, 12], "missing": []}'"""))

    assert find_interpreter(str(link)).path == str(link)


def test_what_is_not_there_is_named() -> None:
    assert refusal("no/such/python").startswith("There is no program no/such/python to compare with: ")


def test_what_is_too_old_is_refused_with_its_version(tmp_path: Path) -> None:
    old = a_program(tmp_path, """echo '{"version": [3, 9], "missing": ["torch"]}'""")

    assert refusal(old) == (
        f"{old} is Python 3.9, and steps need 3.11 or newer: make the environment with a newer one."
    )


def test_what_lacks_packages_is_refused_with_the_command_that_helps(tmp_path: Path) -> None:
    bare = a_program(tmp_path, """echo '{"version": [3, 12], "missing": ["torch", "msgspec"]}'""")

    assert refusal(bare) == (
        f"{bare} lacks torch, msgspec, without which there is no step: install with "
        f"`{bare} -m pip install torch msgspec`."
    )


def test_what_cannot_load_the_worker_is_refused_with_its_last_word(tmp_path: Path) -> None:
    broken = a_program(
        tmp_path,
        'if [ "$1" = "-c" ]; then',
        """  echo '{"version": [3, 12], "missing": []}'""",
        "else echo 'ImportError: msgspec is too old' >&2; exit 1; fi",
    )

    assert refusal(broken) == f"{broken} cannot load powerbench's worker: ImportError: msgspec is too old."


@pytest.mark.parametrize("says", ["echo hello", "exit 3", "echo '[]'"])
def test_what_answers_otherwise_is_no_python(tmp_path: Path, says: str) -> None:
    assert "does not answer as a Python does" in refusal(a_program(tmp_path, says))


def test_our_package_is_loaded_by_its_path_alone(tmp_path: Path) -> None:
    package = Path(shutil.copytree(Path(powerbench.__file__).parent, tmp_path / "beside" / "powerbench"))
    (tmp_path / "beside" / "colorsys.py").write_text("raise SystemExit('what lies beside it was found')")
    code = BOOTSTRAP.format(init=str(package / "__init__.py"), package=str(package))
    ask = "import colorsys, powerbench.records; print(powerbench.records.__file__)"

    told = subprocess.run(
        [sys.executable, *FLAGS, "-c", f"{code}\n{ask}"], capture_output=True, text=True, check=True, cwd=tmp_path
    )

    assert told.stdout.strip() == str(package / "records.py")


def test_all_that_a_worker_imports_from_outside_is_asked_for() -> None:
    ask = (
        "import json, sys; before = set(sys.modules); import powerbench.worker; "
        "print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})))"
    )
    loaded = json.loads(subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout)

    outside = {name for name in loaded if name not in sys.stdlib_module_names}
    assert outside - {"powerbench", "typing_extensions"} <= {*NEEDED}
