"""Another Python for the workers: whether it can step at all, and how it finds our code and nothing else of ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import powerbench
from powerbench.errors import Unavailable
from powerbench.launch import FLAGS

# What a worker imports beside the standard library, and what requires-python says.
NEEDED = ("torch", "transformers", "msgspec", "psutil", "numpy")
OLDEST = (3, 11)
PATIENCE_S = 60.0

ASK = """
import json, sys
from importlib.util import find_spec
missing = [name for name in sys.argv[1:] if find_spec(name) is None]
print(json.dumps({"version": sys.version_info[:2], "missing": missing}))
"""

# Our package by its path: PYTHONPATH would bring whatever lies beside it, our own torch among that.
BOOTSTRAP = """
import importlib.util, runpy, sys
spec = importlib.util.spec_from_file_location("powerbench", {init!r}, submodule_search_locations=[{package!r}])
module = sys.modules["powerbench"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
"""
RUN = BOOTSTRAP + 'runpy.run_module({module!r}, run_name="__main__", alter_sys=True)\n'
TRY = BOOTSTRAP + "import powerbench.worker, powerbench.launcher\n"


class Interpreter(NamedTuple):
    """A Python that can run workers: its path, not resolved, since a virtual environment's is a link."""

    path: str

    @property
    def worker(self) -> tuple[str, ...]:
        """The command that starts a worker in it."""
        return (self.path, *FLAGS, "-c", code_that_runs("powerbench.worker"))

    @property
    def launcher(self) -> tuple[str, ...]:
        """The command that starts several of them there."""
        return (self.path, *FLAGS, "-c", code_that_runs("powerbench.launcher"))


def find_interpreter(name: str) -> Interpreter:
    """The Python at a path, or on PATH. Raises Unavailable with what it lacks and how to get that."""
    found = shutil.which(name)
    if found is None:
        raise Unavailable(f"There is no program {name} to compare with: name the python of another environment.")
    path = os.path.abspath(found)  # noqa: PTH100 - Path.resolve would follow the link
    told = _asked(path, ("-c", ASK, *NEEDED))
    try:
        facts = json.loads(told.stdout)
        version, missing = tuple(facts["version"]), facts["missing"]
    except (ValueError, TypeError, KeyError):
        raise Unavailable(f"{path} does not answer as a Python does: {_last_line(told)}.") from None
    if version < OLDEST:
        raise Unavailable(
            f"{path} is Python {'.'.join(map(str, version))}, and steps need {'.'.join(map(str, OLDEST))} or newer: "
            "make the environment with a newer one."
        )
    if missing:
        raise Unavailable(
            f"{path} lacks {', '.join(missing)}, without which there is no step: install with "
            f"`{path} -m pip install {' '.join(missing)}`."
        )
    tried = _asked(path, (*FLAGS, "-c", _with_our_package(TRY)))
    if tried.returncode:
        raise Unavailable(f"{path} cannot load powerbench's worker: {_last_line(tried)}.")
    return Interpreter(path)


def code_that_runs(module: str) -> str:
    """What `python -c` needs to run a module of ours as a program, wherever our package lies."""
    return _with_our_package(RUN, module=module)


def _with_our_package(code: str, **names: str) -> str:
    package = Path(powerbench.__file__).parent
    return code.format(init=str(package / "__init__.py"), package=str(package), **names)


def _asked(path: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [path, *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, UnicodeDecodeError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{path} could not be run as a Python: {error}.") from error


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else f"exit status {done.returncode} and no word"
