"""How true joules by function are: real py-spy, and a RAPL tree whose watts the worker itself turns up and down.

`python tests/benchmarks/bench_flame.py [SECONDS ...]`: two functions take turns of so many seconds each, one at 20 W,
the other at 60 W. Beside the error of each stands what attribution by time alone would say.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from powerbench.records import Cell
from powerbench.rundir.load import load_run
from tests.e2e.commands import the_run
from tests.e2e.test_meters import COUNTERS, MAX_UJ
from tests.e2e.workers import two_functions

ZONE = "intel-rapl:0"
WATTS = {"cold": 20.0, "hot": 60.0}
SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)
LOOKS = (100, 400)
LASTING_S = 12.0


def measure(turn_s: float, rate_hz: int, folder: Path) -> Path:
    """A run of turns of that length, looked at so often, its meter in step with it."""
    zone = folder / "sys/class/powercap" / ZONE
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0\n")
    (zone / "energy_uj").write_text(f"{100_000_000_000:020}\n")
    (zone / "max_energy_range_uj").write_text(f"{MAX_UJ}\n")
    words = folder / "words"
    os.mkfifo(words)
    moved = [sys.executable, "-IS", "-c", COUNTERS, ZONE]
    held = os.open(words, os.O_RDWR)  # so that neither side waits for the other to open it
    with words.open("rb") as heard:
        counters = subprocess.Popen(moved, cwd=zone.parent, stdin=heard, stdout=subprocess.DEVNULL)
    steps = max(4, round(LASTING_S / (2 * turn_s)))
    how = {"min_seconds": 0.0, "idle_seconds": 0.0, "power": "rapl", "py_spy": True, "py_spy_rate": rate_hz}
    cell = msgspec.convert({"device": "cpu", "model": "sleep", "steps": steps, **how}, Cell)
    supervise = [sys.executable, "-m", "tests.e2e.workers.supervise", str(folder / "runs")]
    worker = [sys.executable, "-m", "tests.e2e.workers.two_functions", str(turn_s), str(words)]
    told = msgspec.json.encode(cell).decode()
    variables = {**os.environ, "POWERBENCH_SYSFS": str(folder / "sys")}
    subprocess.run([*supervise, told, *worker], check=True, stdout=subprocess.DEVNULL, env=variables)
    os.close(held)
    counters.kill()
    counters.wait()
    run = the_run(folder / "runs")
    assert run is not None
    return run


def main(turns_s: list[float]) -> None:
    print("turn, s   looks/s   function     joules, true   by frame   by time alone   clock within, ms")
    for turn_s in turns_s:
        for rate_hz in LOOKS:
            with tempfile.TemporaryDirectory() as folder:
                show(turn_s, rate_hz, measure(turn_s, rate_hz, Path(folder)))


def show(turn_s: float, rate_hz: int, run: Path) -> None:
    """A line a function."""
    command = [sys.executable, "-m", "powerbench", "flame", str(run), "--json"]
    flame = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    record = load_run(run).record
    window = record.windows["measured"]
    for name, watts in WATTS.items():
        rows = (line.split(",") for line in (run / two_functions.STAMPS).read_text("ascii").splitlines())
        calls = [(int(start), int(end)) for its, start, end in rows if its == name]
        true_j = watts * sum(end - start for start, end in calls if window.start_ns <= start < window.end_ns) / 1e9
        frame = next(it for it in flame["frames"] if it["name"] == name)
        by_time_j = frame["total_s"] / flame["total_s"] * flame["total_j"]
        error, naive = frame["total_j"] / true_j - 1, by_time_j / true_j - 1
        assert record.stacks is not None
        within_ms = (record.stacks.time_uncertainty_ns or 0) / 1e6
        print(f"{turn_s:7.2f}   {rate_hz:>7}   {name:<8} {true_j:16.1f} {error:10.1%} {naive:15.0%} {within_ms:18.2f}")


if __name__ == "__main__":
    main([float(it) for it in sys.argv[1:]] or [*SECONDS])
