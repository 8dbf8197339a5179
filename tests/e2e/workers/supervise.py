"""`supervise.py PARENT SETTINGS COMMAND...`: a run with COMMAND as its worker, each report a line of JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import msgspec

from powerbench.pace import Progress
from powerbench.records import Cell
from powerbench.session import record_run


def tell(progress: Progress) -> None:
    print(json.dumps({"at_ns": time.monotonic_ns(), "stage": progress.stage, "done": progress.done}), flush=True)


def main(parent: str, settings: str, *command: str) -> None:
    cell = msgspec.json.decode(settings, type=Cell)
    run = record_run(cell, parent=Path(parent), command=command, on_progress=tell, progress_period_s=0.1)
    print(json.dumps({"status": run.record.status, "reason": run.record.reason, "run": str(run.path)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
