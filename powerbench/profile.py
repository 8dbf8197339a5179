"""Profiles: YAML experiments, read strictly, laid under the options of the command, and made into a cell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import msgspec
import yaml
from msgspec import inspect as types

import powerbench
from powerbench.devices import DEVICES, choose_device
from powerbench.errors import PowerbenchError, Unavailable, UsageError
from powerbench.records import Cell, Limits
from powerbench.workloads import workload_of

# With a meter: ten seconds are long against any meter's period, and five of rest enough to know the idle power.
METERED_S = 10.0
IDLE_S = 5.0
SUFFIXES = (".yaml", ".yml")
TYPES: dict[str, Any] = {
    **{field.name: field.type for field in msgspec.structs.fields(Cell) if field.name != "limits"},
    **{f"limits.{field.name}": field.type for field in msgspec.structs.fields(Limits)},
}


@dataclass(frozen=True)
class Profile:
    """A profile as it was read: `settings` holds the keys that it gives, checked."""

    path: Path
    description: str
    settings: dict[str, Any]


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
        content = _parsed(path.read_text("utf-8"))
    except OSError as error:
        hint = f"the shipped one is `{path.stem}`" if path.stem in shipped_profiles() else "check the path"
        raise PowerbenchError(f"Cannot read the profile {path}: {error.strerror}; {hint}.") from error
    except UnicodeDecodeError as error:
        raise PowerbenchError(f"The profile {path} is not text in UTF-8; save it as such.") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise PowerbenchError(f"The profile {path} is no YAML: {_one_line(error)}; mend it there.") from error
    if not isinstance(content, dict):
        shape = {list: "a list", type(None): "nothing"}.get(type(content), "a single value")
        raise PowerbenchError(f"The profile {path} holds {shape}; write settings, one `key: value` a line.")
    description = content.pop("description", "")
    if not isinstance(description, str):
        raise PowerbenchError(f"In the profile {path}, description must be text, not {_written(description)}.")
    where = f"In the profile {path}, "
    return Profile(path, description, {key: checked(key, value, where) for key, value in _flat(content, where)})


def assignment(text: str) -> tuple[str, Any]:
    """The key and value of `--set key=value`; the value is read as YAML, as in a profile. Raises UsageError."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text} has no value; write --set key=value.")
    try:
        parsed = _parsed(value)
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"--set {text}: the value is no YAML: {_one_line(error)}.") from error
    return key.strip(), parsed


def make_cell(
    *, profile: Profile | None = None, sets: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None
) -> Cell:
    """The cell that a command asks for: options before --set before the profile before the defaults."""
    settings = dict(profile.settings) if profile else {}
    try:
        settings |= {key: checked(key, value, "In --set, ") for key, value in (sets or {}).items()}
        for key, value in (options or {}).items():
            settings[key] = checked(key, _typed(value, TYPES[key]), "", shown=f"--{key.replace('_', '-')}")
    except PowerbenchError as error:
        raise UsageError(str(error)) from error
    limits = Limits(**{key.removeprefix("limits."): settings.pop(key) for key in list(settings) if "." in key})
    return Cell(**settings, limits=limits)


def resolve(cell: Cell, *, metered: bool) -> Cell:
    """`cell` with every choice made that it leaves open, and checked against its device and workload.

    Raises UsageError where it makes no sense, Unavailable where its device is not here.
    """
    workload = workload_of(cell.model)
    workload.check(cell)
    asked = workload.only_device if cell.device == "auto" else cell.device
    device = DEVICES[choose_device(asked or "auto")]
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


def checked(key: object, value: object, where: str, *, shown: str | None = None) -> Any:
    """`value` as the type of the setting `key`. Raises PowerbenchError that says what was expected."""
    if not isinstance(key, str) or key not in TYPES:
        close = get_close_matches(key, TYPES, n=1, cutoff=0.5) if isinstance(key, str) else []
        hint = f"did you mean {close[0]}?" if close else f"the settings are {', '.join(TYPES)}."
        raise PowerbenchError(f"{where}{_written(key)} is not a setting; {hint}")
    name = shown or str(key)
    if isinstance(value, list):
        raise PowerbenchError(
            f"{where}{name} is a list, but a run measures one cell: give one value, and run once for each."
        )
    expected = TYPES[str(key)]
    try:
        return msgspec.convert(_number_if_float(value, expected), expected)
    except msgspec.ValidationError:
        kind = types.type_info(expected)
        wanted = _wanted(kind)
        if shown is not None:  # an option cannot be given as null
            wanted = wanted.removesuffix(", or null")
        close = get_close_matches(value, _choices(kind), n=1) if isinstance(value, str) else []
        hint = f"; did you mean {close[0]}?" if close else "."
        raise PowerbenchError(f"{where}{name} must be {wanted}, not {_written(value)}{hint}") from None


def _flat(content: Mapping[Any, Any], where: str) -> Iterator[tuple[Any, Any]]:
    """`limits: {step_seconds: 1}` as `limits.step_seconds: 1`, which is what the settings are called."""
    for key, value in content.items():
        if key != "limits":
            yield key, value
        elif not isinstance(value, dict):
            raise PowerbenchError(f"{where}limits must be settings of their own, `key: value`, not {_written(value)}.")
        else:
            for inner, of_inner in value.items():
                if f"limits.{inner}" in content:
                    raise PowerbenchError(f"{where}limits.{inner} is given twice; leave one out.")
                yield f"limits.{inner}", of_inner


class _StrictLoader(yaml.SafeLoader):
    """YAML as `safe_load` reads it, but a key given twice is an error and not the last one's silent victory."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """What the node stands for; a value that its type cannot hold (a 45th of May) is an error of its place."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise yaml.constructor.ConstructorError(None, None, "a value of no known form", node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node, each of its keys given once."""
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(None, None, "a mapping that is none", node.start_mark)
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", key_node.start_mark)
            seen.add(str(key))
        return super().construct_mapping(node, deep)


def _parsed(text: str) -> Any:
    return yaml.load(text, Loader=_StrictLoader)  # a SafeLoader: it makes nothing but plain values


def _typed(value: object, expected: Any) -> object:
    """An option's text as the number that it is to be; several with commas between are a list."""
    if not isinstance(value, str) or not {int, float} & {expected, *_members(expected)}:
        return value
    try:
        return [_parsed(part) for part in value.split(",")] if "," in value else _parsed(value)
    except (yaml.YAMLError, RecursionError):
        return value


def _number_if_float(value: object, expected: Any) -> object:
    # YAML 1.1 reads 1e-4, without a dot, as text.
    if isinstance(value, str) and float in (expected, *_members(expected)):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _members(annotation: Any) -> list[Any]:
    members = get_args(annotation)
    return [*members, *(inner for member in members for inner in _members(member))]


def _wanted(kind: types.Type) -> str:
    if isinstance(kind, types.Metadata):
        return str((kind.extra_json_schema or {})["description"])
    if isinstance(kind, types.UnionType):
        return ", or ".join(_wanted(member) for member in kind.types)
    if isinstance(kind, types.LiteralType):
        return f"one of {', '.join(map(str, kind.values))}"
    return {types.BoolType: "true or false", types.NoneType: "null"}[type(kind)]


def _choices(kind: types.Type) -> list[str]:
    if isinstance(kind, types.UnionType):
        return [choice for member in kind.types for choice in _choices(member)]
    return list(map(str, kind.values)) if isinstance(kind, types.LiteralType) else []


def _written(value: object) -> str:
    """A value as its writer may recognize it, briefly."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    if isinstance(value, int) and abs(value) >= 10**18:  # of 4,300 digits and more, Python makes no text
        return "a number that large"
    if isinstance(value, dict):
        return "settings of its own"
    text = repr(value) if isinstance(value, str | int | float) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _one_line(error: yaml.YAMLError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        return f"{said} (line {mark.line + 1}, column {mark.column + 1})"
    return " ".join(str(error).split())
