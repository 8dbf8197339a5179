"""Launchers that meet: they hear of each other's end and of silence, and refuse to begin what cannot go well."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

import msgspec
import pytest

from powerbench.endings import Ended
from powerbench.errors import PowerbenchError
from powerbench.meeting import Hello, Meeting, meet, open_store, split_address
from powerbench.ranks import shared_settings
from powerbench.records import Limits, Node
from tests.rundir import a_cell

HOSTS = ("alpha", "beta", "gamma")
BAD = Ended("failed", "rank 5 (cpu) was killed by SIGKILL (its log is worker-5.log)")
CELL = a_cell(nnodes=2)
FIRST = Node(rank=0, rendezvous="alpha:29500")


@dataclass
class FakeStore:
    """As torch's TCPStore in one process; `gone` once its server is."""

    values: dict[str, str] = field(default_factory=dict)
    gone: bool = False

    def set(self, key: str, value: str) -> None:
        self._ask()
        self.values[key] = value

    def get(self, key: str) -> bytes:
        self._ask()
        return self.values[key].encode()

    def check(self, keys: list[str]) -> bool:
        self._ask()
        return all(key in self.values for key in keys)

    def _ask(self) -> None:
        if self.gone:
            raise RuntimeError("Broken pipe")


@dataclass
class Clock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def store() -> FakeStore:
    return FakeStore({f"beat/{node}": "[0,{}]" for node in range(len(HOSTS))})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def machines(store: FakeStore, clock: Clock) -> list[Meeting]:
    return [Meeting(store, own=own, hosts=HOSTS, id="x", clock_s=clock) for own in range(len(HOSTS))]


class TestMachinesThatHaveMet:
    def test_hear_nothing_while_all_give_signs_of_life(self, machines: list[Meeting], clock: Clock) -> None:
        for _ in range(60):
            clock.now_s += 1
            assert [machine.hear() for machine in machines] == [None, None, None]

    def test_miss_one_that_has_been_silent_for_more_than_ten_seconds(
        self, machines: list[Meeting], clock: Clock
    ) -> None:
        alpha, beta, _ = machines
        for _ in range(11):
            assert (alpha.hear(), beta.hear()) == (None, None)
            clock.now_s += 1

        found = alpha.hear()

        assert found is not None
        assert (found.node, found.ended.status) == (2, "failed")
        assert found.ended.reason == "gamma (node 2) was lost: nothing was heard of its launcher for 10 s"

    def test_know_that_the_first_is_gone_when_its_store_is(self, machines: list[Meeting], store: FakeStore) -> None:
        store.gone = True

        found = machines[1].hear()

        assert found is not None
        assert found.ended == Ended("failed", "alpha (node 0) was lost: its launcher is gone")

    def test_hear_at_once_of_a_bad_end_with_the_machine_s_name(self, machines: list[Meeting]) -> None:
        alpha, beta, gamma = machines

        gamma.tell(BAD)

        for found in (alpha.hear(), beta.hear()):
            assert found is not None
            assert found.node == 2
            assert found.ended == Ended("failed", f"on gamma (node 2), {BAD.reason}")

    def test_wait_with_the_store_until_the_others_have_heard(self, machines: list[Meeting], store: FakeStore) -> None:
        for machine in machines[1:]:
            machine.part()

        machines[0].tell(BAD)  # would take five seconds of a clock that stands still

        assert store.values["end/0"] == msgspec.json.encode(BAD).decode()

    def test_do_not_wait_with_the_store_for_one_that_is_lost(self, machines: list[Meeting], clock: Clock) -> None:
        alpha, beta, _ = machines
        for _ in range(12):
            beta.hear()
            alpha.hear()
            clock.now_s += 1
        beta.part()

        alpha.part()  # would never return: its clock stands still, and gamma never goes


class TestRanksThatWait:
    def test_know_who_keeps_them_waiting_on_which_machine(self, store: FakeStore, clock: Clock) -> None:
        done = [{0: 8, 1: 8}, {2: 8, 3: 7}, {4: 8, 5: 8}]
        machines = [
            Meeting(store, own=own, hosts=HOSTS, id="x", done=done[own].copy, clock_s=clock)
            for own in range(len(HOSTS))
        ]
        for _ in range(2):
            for machine in machines:
                machine.hear()

        assert machines[0].behind() is None  # they have come so far just now
        clock.now_s += 3

        assert {machine.behind() for machine in machines} == {"rank 3 on beta (node 1) has not done step 7"}

    def test_all_alike_keep_nobody(self, machines: list[Meeting], clock: Clock) -> None:
        clock.now_s += 3

        assert machines[0].behind() is None


class TestMeeting:
    def test_all_know_the_run_by_the_name_that_the_first_has_given_it(self, store: FakeStore) -> None:
        say_hello(store, 1)

        met = meet(FIRST, CELL, store=store, timeout_s=5)
        other = meet(Node(rank=1, rendezvous="alpha:29500"), CELL, store=store, timeout_s=5)

        assert met.id == other.id
        assert len(met.id) == 32

    def test_of_which_nobody_else_comes_is_given_up(self, store: FakeStore) -> None:
        with pytest.raises(PowerbenchError) as told:
            meet(FIRST, CELL, store=store, timeout_s=0.1)

        assert str(told.value) == (
            "Nobody else joined at alpha:29500 within 0.1 s (limits.rendezvous_seconds): start the same command with "
            "--node-rank 1 on the other machine of 2, and let the port be reached from there."
        )

    def test_to_which_some_come_names_those_that_did_not(self, store: FakeStore) -> None:
        say_hello(store, 1)
        cell = msgspec.structs.replace(CELL, nnodes=4)

        with pytest.raises(PowerbenchError, match=r"^Only 1 other machine joined .* with --node-rank 2, 3 on the"):
            meet(FIRST, cell, store=store, timeout_s=0.1)

    def test_refuses_machines_that_were_asked_for_different_steps(self, store: FakeStore) -> None:
        say_hello(store, 1, batch_size=8)

        with pytest.raises(PowerbenchError) as told:
            meet(FIRST, CELL, store=store, timeout_s=5)

        assert str(told.value).startswith(
            "The machines were asked for different steps: batch_size is 8 on beta (node 1)"
        )

    def test_lets_each_machine_have_its_own_meters_and_limits(self, store: FakeStore) -> None:
        say_hello(store, 1, power="none", threads=3, limits=Limits(swap_out_mb=1.0))

        assert meet(FIRST, CELL, store=store, timeout_s=5).hosts[1] == "beta"


def say_hello(store: FakeStore, node: int, **changes: object) -> None:
    hello = Hello(HOSTS[node], shared_settings(msgspec.structs.replace(CELL, **changes)))
    store.values[f"hello/{node}"] = msgspec.json.encode(hello).decode()


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("node0:29500", ("node0", 29500)),
        ("10.0.0.1:1", ("10.0.0.1", 1)),
        ("[fd00::1]:65535", ("fd00::1", 65535)),
    ],
)
def test_an_address_is_a_host_and_a_port(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["node0", "node0:", ":29500", "node0:0", "node0:65536", "fd00::1:29500", "a:٣"])
def test_what_is_no_such_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=address[:2]):
        split_address(address)


def test_what_answers_at_the_rendezvous_and_is_no_store_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        node = Node(rank=1, rendezvous=f"127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(PowerbenchError, match=r"^Nobody answered at 127\.0\.0\.1:\d+ within 0\.1 s"):
            open_store(node, timeout_s=0.1)
