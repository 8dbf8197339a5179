"""What a program tells of itself: its name and software, how its loop was left, and a path as one would type it."""

from __future__ import annotations

import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from powerbench.endings import Ended, in_one_line, is_out_of_memory
from powerbench.environment import describe_software


def name_of_program() -> str:
    """The script's name, or what stands for it in a notebook and at the prompt."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script is not None:
        return Path(script).name
    return "notebook" if "ipykernel" in sys.modules else "program"


def how_it_ended(error: BaseException | None) -> Ended:
    """The status of a loop that was left by this error; None is its own end."""
    # A generator that holds the loop is closed where who asks it for more steps has had enough: like a `break`.
    if error is None or isinstance(error, GeneratorExit) or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return Ended("complete", None)
    if isinstance(error, KeyboardInterrupt):
        return Ended("interrupted", "stopped by Ctrl-C")
    if isinstance(error, SystemExit):
        how = (
            f"with exit status {error.code}" if isinstance(error.code, int) else f"with the words: {in_one_line(error)}"
        )
        return Ended("failed", f"the program ended itself {how}")
    if is_out_of_memory(error):
        return Ended("oom", in_one_line(error))
    said = in_one_line(error)
    name = type(error).__name__
    return Ended("failed", f"an exception left the loop: {name if said == name else f'{name}: {said}'}")


def describe_program() -> dict[str, Any]:
    """The software of this process; torch only where the program has imported it."""
    facts: dict[str, Any] = {**describe_software(), "torch": None}
    torch = sys.modules.get("torch")
    if torch is not None:
        facts |= {
            "torch": str(torch.__version__),
            "torch_git": torch.version.git_version,
            "threads": torch.get_num_threads(),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
        }
    return facts


def shown(path: Path | None) -> str:
    """A path as one would type it in a shell here."""
    if path is None:
        return ""
    with suppress(ValueError, OSError):
        path = path.relative_to(Path.cwd())
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)
