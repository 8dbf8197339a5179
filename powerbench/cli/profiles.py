"""`powerbench profiles`: the YAML experiments that come with the tool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from powerbench.cli import options
from powerbench.cli.output import print_result
from powerbench.units import counted

if TYPE_CHECKING:
    from powerbench.profile import Plan

ProfileToShow = Annotated[
    str | None, typer.Argument(metavar="NAME", help="The profile to print; without it, all are listed.")
]


def profiles(name: ProfileToShow = None, json: options.Json = False) -> int:
    """List the profiles, or print one.

    Example: powerbench profiles quick > mine.yaml; powerbench run ./mine.yaml
    """
    from powerbench.profile import find_profile, load_profile, make_plan, shipped_profiles

    paths = shipped_profiles() if name is None else {name: find_profile(name)}
    loaded = {key: load_profile(path) for key, path in paths.items()}
    if json:
        import msgspec

        told = [
            {
                "name": key,
                "description": it.description,
                "settings": it.settings,
                "exclude": it.exclude,
                "cells": len(make_plan(profile=it).cells),
            }
            for key, it in loaded.items()
        ]
        encoded = msgspec.json.encode(told if name is None else told[0])
        print_result(msgspec.json.format(encoded).decode())
    elif name is None:
        sizes = {key: in_words(make_plan(profile=it)) for key, it in loaded.items()}
        width, size_width = max(map(len, loaded)), max(map(len, sizes.values()))
        lines = (f"{key:<{width}}  {sizes[key]:<{size_width}}  {it.description}" for key, it in loaded.items())
        print_result("\n".join(lines))
    else:
        print_result(paths[name].read_text("utf-8").rstrip("\n"))
    return 0


def in_words(plan: Plan) -> str:
    """`1 cell`, `12 cells`, `4 cells x 3`."""
    return counted(len(plan.cells), "cell") + (f" x {plan.repeats}" if plan.repeats > 1 else "")
