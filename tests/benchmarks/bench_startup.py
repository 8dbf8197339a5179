"""How long until the tool answers, and until the first step is done, against the bare thing.

python tests/benchmarks/bench_startup.py [PAIRS]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HELP_LIMIT = 1.3
FIRST_STEP_LIMIT = 1.15
MODEL, BATCH, SEQUENCE = "bert-base-cased", 2, 64

EMPTY_APP = """
import typer
app = typer.Typer()
@app.command()
def one(): pass
@app.command()
def two(): pass
app()
"""

BARE_STEP = f"""
import time
import torch
from transformers import BertConfig, BertForSequenceClassification
model = BertForSequenceClassification(BertConfig(vocab_size=28996)).train()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
inputs = torch.randint(28996, ({BATCH}, {SEQUENCE}))
labels = torch.randint(2, ({BATCH},))
model(input_ids=inputs, labels=labels).loss.backward()
optimizer.step()
print(time.monotonic_ns())
"""


def main() -> int:
    """Print both ratios; 1 if one is over its limit."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    helps = [
        help_s(powerbench("--help")) / help_s([sys.executable, "-c", EMPTY_APP, "--help"]) for _ in range(3 * pairs)
    ]
    steps = [our_first_step_s() / bare_first_step_s() for _ in range(pairs)]
    good = report("powerbench --help / empty Typer app", helps, HELP_LIMIT)
    return 0 if report("start to first step / bare script", steps, FIRST_STEP_LIMIT) and good else 1


def report(what: str, ratios: list[float], limit: float) -> bool:
    """One line with the median and the extremes; whether the median is within the limit."""
    median = statistics.median(ratios)
    print(f"{what}: {median:.3f} (from {min(ratios):.3f} to {max(ratios):.3f}, {len(ratios)} pairs; limit {limit})")
    return median <= limit


def powerbench(*arguments: str) -> list[str]:
    """The command as it was installed."""
    return [str(Path(sys.executable).with_name("powerbench")), *arguments]


def help_s(command: list[str]) -> float:
    """Seconds until the command has printed its help."""
    begun = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - begun


def our_first_step_s() -> float:
    """Seconds from the start of `powerbench run` to the end of its first step."""
    with tempfile.TemporaryDirectory() as folder:
        shape = ("--batch-size", str(BATCH), "--sequence-length", str(SEQUENCE), "--steps", "1", "--warmup", "0")
        begun_ns = time.monotonic_ns()
        subprocess.run(
            powerbench("run", "--model", MODEL, *shape, "--output", folder),
            env=os.environ | {"COLUMNS": "100"},
            capture_output=True,
            check=True,
        )
        row = (Path(folder) / "latest" / "steps-0.csv").read_text("utf-8").splitlines()[1]
        return (int(row.split(",")[4]) - begun_ns) / 1e9


def bare_first_step_s() -> float:
    """Seconds from the start of a bare script to the end of its first step."""
    begun_ns = time.monotonic_ns()
    done = subprocess.run([sys.executable, "-c", BARE_STEP], capture_output=True, text=True, check=True)
    return (int(done.stdout) - begun_ns) / 1e9


if __name__ == "__main__":
    raise SystemExit(main())
