"""Profiles: YAML experiments, read strictly, laid under the options of the command, and made into cells."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import yaml

import powerbench
from powerbench.devices import DEVICES, choose_device
from powerbench.errors import PowerbenchError, Unavailable, UsageError
from powerbench.records import Cell, Limits
from powerbench.settings import (
    OF_A_SWEEP,
    TYPES,
    Settings,
    each_checked,
    one_line,
    option_name,
    parsed,
    typed,
    value_of,
    written,
)
from powerbench.workloads import workload_of

# With a meter: ten seconds are long against any meter's period, and five of rest enough to know the idle power.
METERED_S = 10.0
IDLE_S = 5.0
SUFFIXES = (".yaml", ".yml")
# Of more than this somebody has slipped: at a minute each they would take a week.
MOST_MEASUREMENTS = 10_000


@dataclass(frozen=True)
class Profile:
    """A profile as it was read: `settings` holds the keys that it gives, checked, `exclude` the cells it leaves out."""

    path: Path
    description: str
    settings: Settings
    exclude: Sequence[Settings] = ()


@dataclass(frozen=True)
class Plan:
    """What a command asks for: cells, each to be measured `repeats` times, with a rest of so long in between.

    `is_sweep`: a list or a number of repeats was asked for, even where one measurement comes of it. `idle_excludes`:
    what the profile excludes without leaving a cell out.
    """

    name: str
    cells: list[Cell]
    idle_excludes: Sequence[Settings] = ()
    repeats: int = 1
    cooldown_seconds: float = 0.0
    is_sweep: bool = False


def shipped_profiles() -> dict[str, Path]:
    """The profiles that come with powerbench, by name: inside the package, or (editable) in the checkout beside it."""
    package = Path(powerbench.__file__).parent
    for folder in (package / "profiles", package.parent / "profiles"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def find_profile(name: str) -> Path:
    """The file of a profile: a path where `name` has a slash or ends in .yaml, else a shipped one by its name."""
    if "/" in name or name.endswith(SUFFIXES):
        return Path(name)
    shipped = shipped_profiles()
    if name not in shipped:
        close = get_close_matches(name, shipped, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(shipped)}."
        raise PowerbenchError(
            f"There is no profile called {name!r}; {hint} A file of yours needs a path: ./{name}.yaml"
        )
    return shipped[name]


def load_profile(path: Path) -> Profile:
    """Read a profile. Raises PowerbenchError with the file's name, the key, and what was expected."""
    try:
        content = parsed(path.read_text("utf-8"))
    except OSError as error:
        hint = f"the shipped one is `{path.stem}`" if path.stem in shipped_profiles() else "check the path"
        raise PowerbenchError(f"Cannot read the profile {path}: {error.strerror}; {hint}.") from error
    except UnicodeDecodeError as error:
        raise PowerbenchError(f"The profile {path} is not text in UTF-8; save it as such.") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise PowerbenchError(f"The profile {path} is no YAML: {one_line(error)}; mend it there.") from error
    if not isinstance(content, dict):
        shape = {list: "a list", type(None): "nothing"}.get(type(content), "a single value")
        raise PowerbenchError(f"The profile {path} holds {shape}; write settings, one `key: value` a line.")
    description = content.pop("description", "")
    if not isinstance(description, str):
        raise PowerbenchError(f"In the profile {path}, description must be text, not {written(description)}.")
    where = f"In the profile {path}, "
    exclude = _excluded(content.pop("exclude", []), where)
    return Profile(path, description, _settings(content, where), exclude)


def _settings(content: Mapping[Any, Any], where: str) -> Settings:
    return {key: each_checked(key, value, where) for key, value in _flat(content, where)}


def _excluded(content: object, where: str) -> tuple[Settings, ...]:
    if not isinstance(content, list) or not all(isinstance(entry, dict) and entry for entry in content):
        raise PowerbenchError(
            f"{where}exclude must be a list of what to leave out, such as `- {{device: cpu, batch_size: 256}}`."
        )
    entries = tuple(_settings(entry, f"{where}exclude: ") for entry in content)
    for key in OF_A_SWEEP:
        if any(key in entry for entry in entries):
            raise PowerbenchError(f"{where}exclude: {key} is one for the whole sweep and leaves no cell out.")
    return entries


def assignment(text: str) -> tuple[str, Any]:
    """The key and value of `--set key=value`; the value is read as YAML, as in a profile. Raises UsageError."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text} has no value; write --set key=value.")
    try:
        assigned = parsed(value)
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"--set {text}: the value is no YAML: {one_line(error)}.") from error
    return key.strip(), assigned


def make_cell(
    *, profile: Profile | None = None, sets: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None
) -> Cell:
    """The one cell that these settings make. Raises UsageError where they make several."""
    cells = make_plan(profile=profile, sets=sets, options=options).cells
    if len(cells) > 1:
        raise UsageError(f"These settings make {len(cells):,} cells, and here is room for one: give one value each.")
    return cells[0]


def make_plan(
    *, profile: Profile | None = None, sets: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None
) -> Plan:
    """The cells that a command asks for: options before --set before the profile before the defaults.

    A list is an axis: the cells are all combinations, the last axis changing fastest, without those that the profile
    excludes. Raises UsageError.
    """
    settings = dict(profile.settings) if profile else {}
    try:
        settings |= {key: each_checked(key, value, "In --set, ") for key, value in (sets or {}).items()}
        settings |= {key: _of_option(key, value) for key, value in (options or {}).items()}
    except PowerbenchError as error:
        raise UsageError(str(error)) from error
    of_sweep = {key: settings.pop(key) for key in OF_A_SWEEP if key in settings}
    exclude = profile.exclude if profile else ()
    cells = _combined(settings, times=of_sweep.get("repeats", 1))
    kept = [cell for cell in cells if not any(_is_of(cell, entry) for entry in exclude)]
    if not kept:
        raise UsageError("The profile excludes every cell that is asked for: change its `exclude`, or the options.")
    idle = tuple(entry for entry in exclude if not any(_is_of(cell, entry) for cell in cells))
    is_sweep = "repeats" in of_sweep or any(isinstance(value, list) for value in settings.values())
    name = profile.path.stem if profile else "cells"
    return Plan(name, kept, idle_excludes=idle, is_sweep=is_sweep, **of_sweep)


def _of_option(key: str, value: object) -> Any:
    """What an option says, which is text unless it is a flag; given several times, a list."""
    if isinstance(value, list):
        values = [typed(each, TYPES[key]) for each in value]
        return each_checked(key, values[0] if len(values) == 1 else values, "", shown=option_name(key))
    return each_checked(key, typed(value, TYPES[key]), "", shown=option_name(key))


def _combined(settings: Settings, *, times: int) -> list[Cell]:
    axes = {key: value if isinstance(value, list) else [value] for key, value in settings.items()}
    count = math.prod(map(len, axes.values())) * times
    if count > MOST_MEASUREMENTS:
        raise UsageError(f"That makes {count:,} measurements; give fewer values, {MOST_MEASUREMENTS:,} at most in all.")
    return [_cell(dict(zip(axes, values, strict=True))) for values in product(*axes.values())]


def _cell(settings: Settings) -> Cell:
    limits = Limits(**{key.removeprefix("limits."): value for key, value in settings.items() if "." in key})
    return Cell(**{key: value for key, value in settings.items() if "." not in key}, limits=limits)


def _is_of(cell: Cell, entry: Settings) -> bool:
    """Whether the cell has the value, or one of the values, of each key of an exclusion."""
    return all(_value(cell, key) in (wanted if isinstance(wanted, list) else [wanted]) for key, wanted in entry.items())


def _value(cell: Cell, key: str) -> object:
    if key == "device" and cell.device == "auto":  # who excludes the cpu means it also where auto has chosen it
        return choose_device(workload_of(cell.model).only_device or "auto")
    return value_of(cell, key)


def resolve(cell: Cell, *, metered: bool) -> Cell:
    """`cell` with every choice made that it leaves open, and checked against its device and workload.

    Raises UsageError where it makes no sense, Unavailable where its device is not here.
    """
    workload = workload_of(cell.model)
    workload.check(cell)
    asked = workload.only_device if cell.device == "auto" else cell.device
    device = DEVICES[choose_device(asked or "auto")]
    device.check_ranks(cell.ranks)
    reason = device.why_unavailable()
    if reason is not None:
        raise Unavailable(reason)
    min_seconds = _min_seconds(cell, metered=metered)
    if cell.max_seconds is not None and cell.max_seconds <= min_seconds:
        raise UsageError(
            f"max_seconds is {cell.max_seconds:g} and min_seconds {min_seconds:g}: such a run always ends by its "
            "limit; allow more."
        )
    return msgspec.structs.replace(
        cell,
        device=device.name,
        copy=cell.copy or device.default_copy,
        sync_every=device.default_sync_every if cell.sync_every is None else cell.sync_every,
        min_seconds=min_seconds,
        idle_seconds=(IDLE_S if metered else 0.0) if cell.idle_seconds is None else cell.idle_seconds,
    )


def _min_seconds(cell: Cell, *, metered: bool) -> float:
    """What was asked for; else long enough for a meter, but never so long that max_seconds ends it."""
    if cell.min_seconds is not None:
        return cell.min_seconds
    return min(METERED_S, (cell.max_seconds or math.inf) / 2) if metered else 0.0


def _flat(content: Mapping[Any, Any], where: str) -> Iterator[tuple[Any, Any]]:
    """`limits: {step_seconds: 1}` as `limits.step_seconds: 1`, which is what the settings are called."""
    for key, value in content.items():
        if key != "limits":
            yield key, value
        elif not isinstance(value, dict):
            raise PowerbenchError(f"{where}limits must be settings of their own, `key: value`, not {written(value)}.")
        else:
            for inner, of_inner in value.items():
                if f"limits.{inner}" in content:
                    raise PowerbenchError(f"{where}limits.{inner} is given twice; leave one out.")
                yield f"limits.{inner}", of_inner
