"""A fresh interpreter that imports torch and says what it makes of a device: only `doctor` starts it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any, Literal

import msgspec

from powerbench.devices import DEVICES, Device

PROBE = (sys.executable, "-P", "-m", "powerbench.probe")
TIMEOUT_S = 120.0
FENCES = 101


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What torch says: `complaint` is None where the device can be used; `device` is then its name."""

    complaint: str | None
    device: str | None = None
    threads: int | None = None
    fence_us: float | None = None
    settings: dict[str, bool | int | str | None] = {}


def probe(device: str, *, command: Sequence[str] = PROBE, timeout_s: float = TIMEOUT_S) -> Probe:
    """Ask torch, in a process of its own, for the device called `device`."""
    try:
        done = subprocess.run([*command, device], capture_output=True, text=True, timeout=timeout_s, check=False)
        # Only the last line is the probe's: a torch may print as it is imported.
        return msgspec.json.decode((done.stdout.splitlines() or [""])[-1], type=Probe)
    except subprocess.TimeoutExpired:
        return Probe(
            complaint=f"torch did not answer within {timeout_s:g} s: see whether `python -c 'import torch'` ends."
        )
    except msgspec.DecodeError:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return Probe(complaint=f"torch cannot be used here ({last}): install it anew.")


def fence_us(device: Device) -> float:
    """What waiting for the device costs where it has nothing to do: the median of many, in microseconds."""
    device.synchronize()
    costs_ns = []
    for _ in range(FENCES):
        begun_ns = time.perf_counter_ns()
        device.synchronize()
        costs_ns.append(time.perf_counter_ns() - begun_ns)
    return median(costs_ns) / 1000


def main(arguments: list[str]) -> Literal[0]:
    """`python -m powerbench.probe NAME`: print the answer as JSON."""
    import torch

    device = DEVICES[arguments[0]]
    answer: dict[str, Any] = {"complaint": device.confirm()}
    if answer["complaint"] is None:
        answer |= {"device": device.describe().name, "threads": torch.get_num_threads(), "settings": device.settings()}
        answer["fence_us"] = fence_us(device)
    sys.stdout.write(f"{json.dumps(answer)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
