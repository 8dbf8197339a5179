"""`powerbench profiles`: the YAML experiments that come with the tool."""

from __future__ import annotations

from typing import Annotated

import typer

from powerbench.cli import options
from powerbench.cli.output import print_result

ProfileToShow = Annotated[
    str | None, typer.Argument(metavar="NAME", help="The profile to print; without it, all are listed.")
]


def profiles(name: ProfileToShow = None, json: options.Json = False) -> int:
    """List the profiles, or print one.

    Example: powerbench profiles quick > mine.yaml; powerbench run ./mine.yaml
    """
    from powerbench.profile import find_profile, load_profile, shipped_profiles

    paths = shipped_profiles() if name is None else {name: find_profile(name)}
    loaded = {key: load_profile(path) for key, path in paths.items()}
    if json:
        import msgspec

        told = [{"name": key, "description": it.description, "settings": it.settings} for key, it in loaded.items()]
        encoded = msgspec.json.encode(told if name is None else told[0])
        print_result(msgspec.json.format(encoded).decode())
    elif name is None:
        width = max(map(len, loaded))
        print_result("\n".join(f"{key:<{width}}  {it.description}" for key, it in loaded.items()))
    else:
        print_result(paths[name].read_text("utf-8").rstrip("\n"))
    return 0
