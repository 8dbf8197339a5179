"""Settings and their values: what there is to set, and how a value is read and checked, whoever gives it."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, get_args

import msgspec
import yaml
from msgspec import inspect as types

from powerbench.errors import PowerbenchError
from powerbench.records import Cell, Count, Limits, Seconds

OF_A_CELL: dict[str, Any] = {
    **{field.name: field.type for field in msgspec.structs.fields(Cell) if field.name != "limits"},
    **{f"limits.{field.name}": field.type for field in msgspec.structs.fields(Limits)},
}
OF_A_SWEEP: dict[str, Any] = {"repeats": Count, "cooldown_seconds": Seconds}
TYPES = OF_A_CELL | OF_A_SWEEP
OPTIONS = {"idle_seconds": "--idle", "cooldown_seconds": "--cooldown"}

Settings = dict[str, Any]
"""Checked values by setting; a list holds several, each of which makes cells of its own."""


def value_of(cell: Cell, key: str) -> Any:
    """The value that a cell has for a setting."""
    return getattr(cell.limits if "." in key else cell, key.removeprefix("limits."))


def option_name(key: str) -> str:
    """The option that gives a setting."""
    return OPTIONS.get(key, f"--{key.replace('_', '-')}")


def each_checked(key: object, value: object, where: str, *, shown: str | None = None) -> Any:
    """`value`, or each of a list of them, as the type of the setting `key`. Raises PowerbenchError."""
    if not isinstance(value, list):
        return checked(key, value, where, shown=shown)
    each = [checked(key, one, where, shown=shown) for one in value]
    name = shown or key
    if key in OF_A_SWEEP:
        raise PowerbenchError(f"{where}{name} is one for the whole sweep: give one value.")
    if not each:
        raise PowerbenchError(f"{where}{name} is an empty list: give values, or leave it out.")
    if any(one in each[:at] for at, one in enumerate(each)):
        raise PowerbenchError(f"{where}{name} names a value twice; to measure a cell again, use --repeats.")
    return each


def checked(key: object, value: object, where: str, *, shown: str | None = None) -> Any:
    """`value` as the type of the setting `key`. Raises PowerbenchError that says what was expected."""
    if not isinstance(key, str) or key not in TYPES:
        close = get_close_matches(key, TYPES, n=1, cutoff=0.5) if isinstance(key, str) else []
        hint = f"did you mean {close[0]}?" if close else f"the settings are {', '.join(TYPES)}."
        raise PowerbenchError(f"{where}{written(key)} is not a setting; {hint}")
    name = shown or str(key)
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
        if shown is not None and isinstance(value, str) and "," in value:
            hint = f"; for several, give {shown} once for each."
        raise PowerbenchError(f"{where}{name} must be {wanted}, not {written(value)}{hint}") from None


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


def parsed(text: str) -> Any:
    """What a text in YAML stands for. Raises yaml.YAMLError, RecursionError."""
    return yaml.load(text, Loader=_StrictLoader)  # a SafeLoader: it makes nothing but plain values


def typed(value: object, expected: Any) -> object:
    """An option's text as the number that it is to be."""
    if not isinstance(value, str) or not {int, float} & {expected, *_members(expected)}:
        return value
    try:
        return parsed(value)
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


def written(value: object) -> str:
    """A value as its writer may recognize it, briefly."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    if isinstance(value, int) and abs(value) >= 10**18:  # of 4,300 digits and more, Python makes no text
        return "a number that large"
    if isinstance(value, dict):
        return "settings of its own"
    text = repr(value) if isinstance(value, str | int | float) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def one_line(error: yaml.YAMLError | RecursionError) -> str:
    """What is wrong with a text that is no YAML."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        return f"{said} (line {mark.line + 1}, column {mark.column + 1})"
    return " ".join(str(error).split())
