"""Collections of garbage are put off while big packages are loaded, and no longer."""

from __future__ import annotations

import gc

import pytest

from powerbench.loading import collections_put_off


def test_nothing_is_collected_inside_and_what_came_to_be_is_old_behind() -> None:
    generations: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            generations.append(info["generation"])

    gc.callbacks.append(note)
    try:
        with collections_put_off():
            kept: list[list[int]] = [[] for _ in range(5000)]
            assert (len(kept), generations) == (5000, [])
        assert len(gc.get_objects(generation=0)) < 100
    finally:
        gc.callbacks.remove(note)
    assert gc.isenabled()


def test_an_error_puts_nothing_off_for_ever() -> None:
    with pytest.raises(ValueError, match="such"), collections_put_off():
        raise ValueError("no such model")

    assert gc.isenabled()
