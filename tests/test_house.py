"""The rules of the house that a machine can check: what is imported, from where, and that every file says why."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "transformers", "numpy", "scipy", "matplotlib", "datasets"}


@pytest.mark.parametrize(
    "module",
    [
        *("powerbench.__main__", "powerbench.cli.app", "powerbench.session", "powerbench.environment"),
        *("powerbench.profile", "powerbench.loop", "powerbench.loop.supervisor"),
    ],
)
def test_the_supervisor_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, json, {module}; print(json.dumps([name for name in sys.modules]))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("module", ["powerbench.worker", "powerbench.workloads", "powerbench.devices"])
def test_the_worker_needs_no_torch_until_its_workload_does(module: str) -> None:
    code = f"import sys, json, {module}; print('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_package_itself_imports_next_to_nothing() -> None:
    code = "import sys, powerbench; print(sorted(name for name in sys.modules if name.startswith('powerbench')))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "['powerbench']\n"


def test_every_file_opens_with_a_sentence_that_says_what_it_is_for() -> None:
    silent = []
    for path in sorted((ROOT / "powerbench").rglob("*.py")):
        first, *_ = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").splitlines() or [""]
        if not first.endswith((".", "?")):
            silent.append(str(path.relative_to(ROOT)))
    assert silent == []


def test_imports_run_down_only() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")

    done = subprocess.run([lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
