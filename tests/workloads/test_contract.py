"""What every workload promises, whichever it is."""

from __future__ import annotations

import msgspec
import pytest

from powerbench.devices import DEVICES
from powerbench.records import Cell
from powerbench.workloads import WORKLOADS, workload_of

CELLS = {
    "bert": Cell(model="bert-tiny", device="cpu", batch_size=2, sequence_length=8, copy="blocking"),
    "sleep": Cell(model="sleep", device="cpu", batch_size=2, sleep_ms=0.1, copy="blocking"),
}


def test_each_workload_has_its_cell_here() -> None:
    assert CELLS.keys() == WORKLOADS.keys()


@pytest.mark.parametrize("name", WORKLOADS)
class TestEachWorkload:
    def test_runs_the_models_that_are_its_own(self, name: str) -> None:
        assert workload_of(CELLS[name].model) is WORKLOADS[name]

    def test_takes_its_cell_on_the_cpu_and_on_auto(self, name: str) -> None:
        WORKLOADS[name].check(CELLS[name])
        WORKLOADS[name].check(msgspec.structs.replace(CELLS[name], device="auto"))

    def test_needs_a_device_that_there_is_if_any(self, name: str) -> None:
        assert WORKLOADS[name].only_device in (None, *DEVICES)

    def test_builds_a_step_that_runs_again_and_again_and_says_what_it_is(self, name: str) -> None:
        step, what = WORKLOADS[name].build(CELLS[name], DEVICES["cpu"])

        assert [step(index) for index in range(3)] == [None, None, None]  # type: ignore[func-returns-value]
        assert what.samples_per_step in (2, None)
        assert what.flop_per_step is None or what.flop_per_step > 0


def test_any_other_model_is_a_classifier_s() -> None:
    assert workload_of("gpt-17") is WORKLOADS["bert"]
