"""Where the joules went as a file for speedscope.app: one profile in seconds, and one in joules where they are known.

The format: <https://www.speedscope.app/file-format-schema.json>. It knows no joules, so that their unit is `none` and
stands in the profile's name.
"""

from __future__ import annotations

from typing import Any

import msgspec

import powerbench
from powerbench.analysis.flame import Cost
from powerbench.analysis.folding import FramePath
from powerbench.reports.flame.burnt import Burnt, lead
from powerbench.rundir.stacks import Frame

SCHEMA = "https://www.speedscope.app/file-format-schema.json"
NOT_ATTRIBUTED = (Frame("not attributed: no stack was seen", "", 0),)


def as_speedscope(burnt: Burnt) -> str:
    """The file. The dearest stacks come first: that they followed one another so is not meant."""
    flame = burnt.flame
    costs: dict[FramePath, Cost] = {path: cost for path, cost in flame.costs.items() if path}
    costs[NOT_ATTRIBUTED] = flame.unattributed
    numbers: dict[Frame, int] = {}
    for path in costs:
        for frame in path:
            numbers.setdefault(frame, len(numbers))
    profiles = [profile("seconds", "seconds", {path: cost.seconds for path, cost in costs.items()}, numbers)]
    if flame.joules_reason is None:
        profiles.insert(0, profile("joules", "none", {path: cost.joules for path, cost in costs.items()}, numbers))
    told = {
        "$schema": SCHEMA,
        "name": f"{burnt.run.path.name}: {lead(burnt)}",
        "exporter": f"powerbench@{powerbench.__version__}",
        "activeProfileIndex": 0,
        "shared": {"frames": [described(frame) for frame in numbers]},
        "profiles": profiles,
    }
    return msgspec.json.encode(told).decode()


def profile(name: str, unit: str, weights: dict[FramePath, float], numbers: dict[Frame, int]) -> dict[str, Any]:
    """One profile, of the stacks that have a weight in it."""
    heavy = sorted(((path, weight) for path, weight in weights.items() if weight > 0), key=lambda it: -it[1])
    return {
        "type": "sampled",
        "name": name,
        "unit": unit,
        "startValue": 0,
        "endValue": sum(weight for _, weight in heavy),
        "samples": [[numbers[frame] for frame in path] for path, _ in heavy],
        "weights": [weight for _, weight in heavy],
    }


def described(frame: Frame) -> dict[str, Any]:
    """A frame with what is known of it."""
    return {
        "name": frame.name,
        **({"file": frame.file} if frame.file else {}),
        **({"line": frame.line} if frame.line else {}),
    }
