"""The published schema of speedscope's files, rule for rule: <https://www.speedscope.app/file-format-schema.json>."""

from __future__ import annotations

from typing import Any

UNITS = {"none", "nanoseconds", "microseconds", "milliseconds", "seconds", "bytes"}


def is_valid_speedscope(file: Any) -> bool:
    """Fails, with the rule, where a file breaks one."""
    assert file["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert {*file} <= {"$schema", "shared", "profiles", "name", "exporter", "activeProfileIndex"}
    assert all(isinstance(file[name], str) for name in ("name", "exporter") if name in file)
    assert {*file["shared"]} == {"frames"}
    for frame in file["shared"]["frames"]:
        assert {"name"} <= {*frame} <= {"name", "file", "line", "col"}
        assert isinstance(frame["name"], str)
        assert isinstance(frame.get("file", ""), str)
        assert is_number(frame.get("line", 0))
    assert isinstance(file["profiles"], list)
    for profile in file["profiles"]:
        is_valid_profile(profile, frames=len(file["shared"]["frames"]))
    assert 0 <= file.get("activeProfileIndex", 0) < len(file["profiles"])
    return True


def is_valid_profile(profile: Any, *, frames: int) -> None:
    """A profile of samples: their numbers point at frames, and each has a weight."""
    assert {*profile} == {"type", "name", "unit", "startValue", "endValue", "samples", "weights"}
    assert profile["type"] == "sampled"
    assert isinstance(profile["name"], str)
    assert profile["unit"] in UNITS
    assert is_number(profile["startValue"])
    assert is_number(profile["endValue"])
    assert len(profile["samples"]) == len(profile["weights"])
    assert all(is_number(weight) and weight >= 0 for weight in profile["weights"])
    for sample in profile["samples"]:
        assert all(isinstance(at, int) and not isinstance(at, bool) and 0 <= at < frames for at in sample)


def is_number(value: Any) -> bool:
    """As JSON has it: true is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
