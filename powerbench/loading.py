"""Loading of big packages, which make a million objects that stay, without looking through these again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collections_put_off() -> Iterator[None]:
    """While inside, no garbage is collected, which is a quarter of the time that it takes to import transformers.

    What came to be is then counted as old, as it would be by then: the next young collections do not look through it.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
        gc.freeze()  # all that is, into the permanent generation,
        gc.unfreeze()  # and from there into the oldest
