"""How long `powerbench report` takes over very many run directories, and how much memory.

Usage: bench_report.py [RUNS]   (10,000 without RUNS)

They are copies of a recorded run of 25 steps with a few settings changed, some with the joules of a meter. The limits
on two cores are 20 s and 500 MB for each format, and for JSON, which holds the verdict on each run's steps, 60 s.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from powerbench.records import RailRecord
from powerbench.rundir import RunDir
from powerbench.rundir.lines import ENERGY_HEADER
from powerbench.rundir.load import read_record

GOLDEN = Path(__file__).parents[1] / "golden" / "schema-1"
FILES = ("steps-0.csv", "telemetry.csv", "worker-0.jsonl", "worker-0.log")
METERED_ONE_IN = 4
PERIOD_NS = 10_000_000
MOST_S = {"terminal": 20.0, "markdown": 20.0, "csv": 20.0, "parquet": 20.0, "json": 60.0}
MOST_MB = 500.0


def main(runs: int) -> int:
    """Make the runs, report them in every form of table, and print what it took."""
    with tempfile.TemporaryDirectory() as folder:
        make_runs(Path(folder), runs)
        took = {name: measured(Path(folder), name) for name in MOST_S}
    return 0 if all(seconds <= MOST_S[name] and mb <= MOST_MB for name, (seconds, mb) in took.items()) else 1


def make_runs(folder: Path, runs: int) -> None:
    """So many run directories: three models, two modes, some forty cells, a quarter of them with joules."""
    record = read_record(RunDir(GOLDEN))
    assert record.cell is not None
    start_ns = record.windows["warmup"].start_ns
    curve = energy_csv(start_ns - 100 * PERIOD_NS)
    rail = RailRecord(
        source="rapl", method="counter", state="measured", scope="package", part="package", period_s=PERIOD_NS / 1e9
    )
    data = {name: (GOLDEN / name).read_bytes() for name in FILES}
    for number in range(runs):
        cell = msgspec.structs.replace(
            record.cell,
            model=("bert-tiny", "bert-mini", "bert-base-cased")[number % 3],
            mode=("training", "inference")[number // 3 % 2],
            batch_size=1 << (number // 6 % 6),
            sequence_length=(128, 512)[number // 36 % 2],
        )
        path = folder / f"{number:05d}"
        path.mkdir()
        metered = number % METERED_ONE_IN == 0
        written = msgspec.structs.replace(record, cell=cell, rails={"package-0": rail} if metered else {})
        RunDir(path).record.write_bytes(msgspec.json.format(msgspec.json.encode(written), indent=1))
        for name, content in data.items():
            (path / name).write_bytes(content)
        if metered:
            (path / "energy.csv").write_text(curve)


def energy_csv(start_ns: int) -> str:
    """Twenty watts, read every ten milliseconds for some seconds."""
    rows = (f"{start_ns + at * PERIOD_NS},package-0,{20e-9 * at * PERIOD_NS:.6f}" for at in range(400))
    return "\n".join([ENERGY_HEADER, *rows, ""])


def measured(folder: Path, name: str) -> tuple[float, float]:
    """Seconds and megabytes of one report, as a process of its own."""
    command = [*(sys.executable, "-m", "powerbench", "report", str(folder)), "--format", name]
    began_s = time.monotonic()
    process = subprocess.Popen([*command, "--output", str(folder / f"it.{name}")], stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)  # its own peak, not that of the largest child so far
    took_s = time.monotonic() - began_s
    megabytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    assert status == 0
    cpu_s = usage.ru_utime + usage.ru_stime
    print(f"{name:<9} {took_s:5.1f} s ({cpu_s:.1f} s of a core), {megabytes:.0f} MB", flush=True)
    return took_s, megabytes


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
