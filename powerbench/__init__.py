"""What a step of BERT costs on this machine, in seconds and in joules, and whether that stays the same."""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers know it; typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from powerbench.errors import PowerbenchError as PowerbenchError
    from powerbench.loop import Recording as Recording
    from powerbench.loop import record as record
    from powerbench.loop.trainer import PowerbenchCallback as PowerbenchCallback

__version__ = "0.1.0"

# The library, by the module of each name: imported when it is asked for, since the commands need none of it.
_LIBRARY = {
    "record": "powerbench.loop",
    "Recording": "powerbench.loop",
    "PowerbenchCallback": "powerbench.loop.trainer",
    "PowerbenchError": "powerbench.errors",
}


def __getattr__(name: str) -> object:
    """What the library offers (PEP 562); only `PowerbenchCallback` needs transformers."""
    if name not in _LIBRARY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LIBRARY[name]), name)


def __dir__() -> list[str]:
    """What a prompt completes: the library too, before it is imported."""
    return sorted({*globals(), *_LIBRARY})
