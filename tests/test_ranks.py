"""The ranks of a run as a group: what must be equal, where it cannot be, and what a missing one sounds like."""

from __future__ import annotations

import socket
from typing import Any

import msgspec
import pytest

from powerbench.devices import DEVICES
from powerbench.errors import PowerbenchError, Unavailable
from powerbench.ranks import Ranks, is_peer_loss, joined, number_of, peer_loss_in_words, rank_of
from powerbench.records import Cell, Limits
from tests.rundir import a_cell, a_record

CELL = Cell(model="bert-tiny", device="cpu", ranks=2)


def changed(**changes: Any) -> Cell:
    return msgspec.structs.replace(CELL, **changes)


class TestOneAlone:
    def test_agrees_with_itself(self) -> None:
        with joined(changed(ranks=1), DEVICES["mps"], rank=0) as ranks:
            ranks.meet()
            assert ranks.largest([3, 0]) == [3, 0]
            ranks.confirm_equal(CELL)


class TestCells:
    @pytest.mark.parametrize(
        "changes",
        [
            {"power": "rapl", "idle_seconds": 9.0, "require_power": True, "min_seconds": 10.0},
            {"max_seconds": 60.0, "limits": Limits(swap_out_mb=None)},
            {"threads": 3, "dataset": "/elsewhere/rows.csv"},
        ],
    )
    def test_may_differ_in_what_is_of_a_machine(self, changes: dict[str, Any]) -> None:
        assert number_of(changed(**changes)) == number_of(CELL)

    @pytest.mark.parametrize(
        "changes",
        [{"batch_size": 1}, {"steps": 3}, {"warmup": 1}, {"nnodes": 2}, {"seed": 1}],
    )
    def test_may_not_differ_in_what_a_step_is_or_how_many_there_are(self, changes: dict[str, Any]) -> None:
        assert number_of(changed(**changes)) != number_of(CELL)

    def test_that_differ_are_a_sentence_on_every_rank(self) -> None:
        class BesideAnother(Ranks):
            def __init__(self, other: Cell) -> None:
                self._other = number_of(other)

            def largest(self, numbers: Any) -> list[int]:
                return [max(own, other) for own, other in zip(numbers, (self._other, -self._other), strict=True)]

        BesideAnother(CELL).confirm_equal(CELL)
        for one, other in [(CELL, changed(steps=7)), (changed(steps=7), CELL)]:
            with pytest.raises(PowerbenchError, match=r"^The ranks do not measure the same: give the same command"):
                BesideAnother(other).confirm_equal(one)


@pytest.mark.parametrize("name", ["mps", "xpu"])
def test_several_ranks_on_a_device_without_collectives_are_a_sentence(name: str) -> None:
    with (
        pytest.raises(Unavailable, match=rf"^Several ranks cannot train together on {name}: leave --ranks out\.$"),
        joined(CELL, DEVICES[name], rank=0),
    ):
        pass


def test_a_torch_without_nccl_is_a_sentence() -> None:
    import torch.distributed

    if torch.distributed.is_nccl_available():
        pytest.skip("this torch has it")
    with pytest.raises(Unavailable, match=r"^This torch was built without nccl"), joined(CELL, DEVICES["cuda"], rank=0):
        pass


def test_ranks_that_cannot_meet_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        with pytest.raises(PowerbenchError) as error, joined(CELL, DEVICES["cpu"], rank=0):
            pass

    assert str(error.value).startswith("The 2 ranks did not come together (")
    assert "address already in use" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        ("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:1", True),
        (
            "[../third_party/gloo/gloo/transport/tcp/pair.cc:553] Read error [::1]:1: Connection reset by peer",
            True,
        ),
        ("NCCL error in: NCCLUtils.hpp: ncclRemoteError: A call failed possibly due to a network error", True),
        ("NCCL communicator was aborted on rank 0.", True),
        ("CUDA out of memory. Tried to allocate 20.00 MiB", False),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_the_loss_of_another_is_told_from_a_rank_s_own_failure(said: str, lost: bool) -> None:
    assert is_peer_loss(RuntimeError(said)) is lost


def test_a_rank_is_numbered_by_its_argument_or_else_by_the_launcher() -> None:
    assert rank_of(["runs/one", "0"], {"RANK": "3"}) == 0
    assert rank_of(["runs/one"], {"RANK": "3", "LOCAL_RANK": "1"}) == 3


def test_ranks_on_machines_with_other_meters_step_as_long_as_the_one_that_needs_most() -> None:
    class Others(Ranks):
        """As if another machine had a meter of two seconds, and this one none."""

        def largest(self, numbers: Any) -> list[int]:
            return [max(own, other) for own, other in zip(numbers, (4_000_000_000, 10_000_000_000), strict=True)]

    record = a_record(cell=a_cell(nnodes=2, min_seconds=0.0), ranks=2, tail_s=0.0)

    agreed = Others().as_long_on_all(record)

    assert (agreed.tail_s, agreed.the_cell.min_seconds) == (4.0, 10.0)
    assert Others().as_long_on_all(a_record()) == a_record()


def test_a_lost_peer_is_told_without_gloo_s_source_and_advice() -> None:
    said = (
        "Got the following error when running the callback: RuntimeError: "
        "[/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer "
        "[127.0.0.1]:2954. This is typically caused by a remote worker crashing. Check the logs. GLHF!"
    )
    assert peer_loss_in_words(said) == "Connection closed by peer [127.0.0.1]:2954"
    assert peer_loss_in_words("Broken pipe") == "Broken pipe"
