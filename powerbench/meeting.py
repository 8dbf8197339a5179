"""How the launchers of several machines meet at one address, and hear from then on how the others fare."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from uuid import uuid4

import msgspec

from powerbench.endings import Ended
from powerbench.errors import PowerbenchError
from powerbench.ranks import shared_settings
from powerbench.records import Cell, Node
from powerbench.units import counted

if TYPE_CHECKING:
    from torch.distributed import TCPStore

BEAT_S = 1.0
SILENCE_S = 10.0
# For the others to hear of an end, before the store at which they could hear of it ends with us.
LAST_WORDS_S = 5.0
# For torch to say itself that nobody answered.
TO_SAY_SO_S = 2.0
# Ranks of which nobody has moved for so long are compared as they stand: signs of life are a second apart.
STILL_S = 2.5


class Store(Protocol):
    """What is used of torch's TCPStore; all of it raises RuntimeError where the store is gone."""

    def set(self, key: str, value: str, /) -> None:
        """Replace a value."""

    def get(self, key: str, /) -> bytes:
        """A value, once it is there."""

    def check(self, keys: list[str], /) -> bool:
        """Whether all of these are there."""


class Hello(NamedTuple):
    """What a launcher says of itself: its machine's name, and what it was asked for."""

    host: str
    cell: dict[str, Any]


class Elsewhere(NamedTuple):
    """A bad end on another machine: which, and how the run ended there."""

    node: int
    ended: Ended


class Beat(NamedTuple):
    """A sign of life: its number, and in how many steps each rank there has done its part."""

    number: int
    done: dict[int, int]


class Meeting:
    """The launchers of one run, seen from one of them."""

    def __init__(
        self,
        store: Store,
        *,
        own: int,
        hosts: Sequence[str],
        id: str,
        done: Callable[[], dict[int, int]] = dict,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`done` says in how many steps each of our own ranks has done its part."""
        self.id = id
        self.hosts = hosts
        self._store = store
        self._own = own
        self._done = done
        self._clock_s = clock_s
        self._beats = 0
        self._missed: set[int] = set()
        self._heard = {node: (Beat(0, {}), clock_s()) for node in range(len(hosts))}
        self._moved_s = clock_s()

    def hear(self) -> Elsewhere | None:
        """Give a sign of life, and hear whether the run ended badly elsewhere; about once a second."""
        try:
            self._beats += 1
            beat = Beat(self._beats, self._done())
            self._store.set(f"beat/{self._own}", msgspec.json.encode(beat).decode())
            self._note(self._own, beat)
            return next((found for node in self._others() if (found := self._hear_of(node)) is not None), None)
        except RuntimeError:  # torch.distributed.DistError: the store is where the launcher of the first machine is
            return self._lost(0, "its launcher is gone")

    def behind(self) -> str | None:
        """Who keeps all the others waiting, in words; None where somebody has moved of late, or all are alike."""
        done = {rank: (steps, node) for node, (beat, _) in self._heard.items() for rank, steps in beat.done.items()}
        most = max((steps for steps, _ in done.values()), default=0)
        late = [
            f"rank {rank} on {self._name(node)} has not done step {steps}"
            for rank, (steps, node) in sorted(done.items())
            if steps < most
        ]
        return None if not late or self._clock_s() - self._moved_s < STILL_S else ", ".join(late)

    def tell(self, ended: Ended) -> None:
        """Tell the others that the run ended badly here, and give them the time to hear of it."""
        with suppress(RuntimeError):
            self._store.set(f"end/{self._own}", msgspec.json.encode(ended).decode())
            self.part()

    def part(self) -> None:
        """Go; whoever holds the store waits until the others have gone, within reason, but for those that are lost."""
        awaited = [f"gone/{node}" for node in self._others() if node not in self._missed]
        with suppress(RuntimeError):
            self._store.set(f"gone/{self._own}", "")
            give_up_s = self._clock_s() + LAST_WORDS_S
            while self._own == 0 and self._clock_s() < give_up_s:
                if not awaited or self._store.check(awaited):
                    return
                time.sleep(0.05)

    def _others(self) -> Iterator[int]:
        return (node for node in range(len(self.hosts)) if node != self._own)

    def _hear_of(self, node: int) -> Elsewhere | None:
        if self._store.check([f"end/{node}"]):
            status, reason = msgspec.json.decode(self._store.get(f"end/{node}"), type=Ended)
            return Elsewhere(node, Ended(status, f"on {self._name(node)}, {reason}"))
        self._note(node, msgspec.json.decode(self._store.get(f"beat/{node}"), type=Beat))
        if self._clock_s() - self._heard[node][1] > SILENCE_S:
            return self._lost(node, f"nothing was heard of its launcher for {SILENCE_S:g} s")
        return None

    def _note(self, node: int, beat: Beat) -> None:
        before, _ = self._heard[node]
        if beat != before:
            self._heard[node] = beat, self._clock_s()
        if beat.done != before.done:
            self._moved_s = self._clock_s()

    def _lost(self, node: int, how: str) -> Elsewhere:
        self._missed.add(node)
        return Elsewhere(node, Ended("failed", f"{self._name(node)} was lost: {how}"))

    def _name(self, node: int) -> str:
        return f"{self.hosts[node]} (node {node})"


def open_store(node: Node, *, timeout_s: float) -> TCPStore:
    """The store at the rendezvous, which the first machine holds. Raises PowerbenchError."""
    port = split_address(node.rendezvous)[1]
    try:
        return _opened(node, timeout_s=timeout_s)
    except (RuntimeError, TimeoutError) as error:
        if node.rank == 0 and "failed to listen" in str(error):
            remedy = "it may be in use: choose another with --rendezvous, the same on every machine"
            raise PowerbenchError(f"Port {port} cannot be had on this machine, which is node 0; {remedy}.") from error
        remedy = (
            "name an address of this machine, which is node 0, with --rendezvous"
            if node.rank == 0
            else "start the same command with --node-rank 0 on the machine that has that address, and let its port be "
            "reached"
        )
        raise PowerbenchError(
            f"Nobody answered at {node.rendezvous} within {timeout_s:g} s (limits.rendezvous_seconds): {remedy}."
        ) from error


def _opened(node: Node, *, timeout_s: float) -> TCPStore:
    """Raises RuntimeError as torch does, and TimeoutError: torch waits for ever where what answers is no store."""
    from torch.distributed import TCPStore

    host, port = split_address(node.rendezvous)
    timeout = timedelta(seconds=timeout_s)
    found: SimpleQueue[TCPStore | RuntimeError] = SimpleQueue()

    def open_it() -> None:
        try:
            # multi_tenant: torch's agent will ask for the same port in this process, and gets the same store.
            found.put(TCPStore(host, port, None, node.rank == 0, timeout, wait_for_workers=False, multi_tenant=True))
        except RuntimeError as error:
            found.put(error)

    Thread(target=open_it, name="store", daemon=True).start()
    try:
        store = found.get(timeout=timeout_s + TO_SAY_SO_S)
    except Empty:
        raise TimeoutError from None
    if isinstance(store, RuntimeError):
        raise store
    return store


def meet(
    node: Node, cell: Cell, *, store: Store, timeout_s: float, done: Callable[[], dict[int, int]] = dict
) -> Meeting:
    """Wait for the launchers of all machines; `done` as in `Meeting`.

    Raises PowerbenchError where they do not come, or want something else.
    """
    store.set(f"beat/{node.rank}", msgspec.json.encode(Beat(0, {})).decode())
    store.set(f"hello/{node.rank}", msgspec.json.encode(Hello(platform.node(), shared_settings(cell))).decode())
    if node.rank == 0:
        store.set("id", uuid4().hex)
    give_up_s = time.monotonic() + timeout_s
    missing = list(range(cell.nnodes))
    while missing := [number for number in missing if not _is_there(store, f"hello/{number}", node)]:
        if time.monotonic() > give_up_s:
            raise PowerbenchError(_nobody_joined(node, cell, missing, timeout_s=timeout_s))
        time.sleep(0.05)
    hellos = [msgspec.json.decode(store.get(f"hello/{number}"), type=Hello) for number in range(cell.nnodes)]
    for number, hello in enumerate(hellos):
        _refuse_another(hellos[0], hello, number)
    hosts = [hello.host for hello in hellos]
    return Meeting(store, own=node.rank, hosts=hosts, id=store.get("id").decode(), done=done)


def split_address(address: str) -> tuple[str, int]:
    """The host and the port of HOST:PORT, where an IPv6 address stands in brackets. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(address)
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or (":" in bare) != host.startswith("["):
        raise ValueError(address)
    return bare, int(port)


def _is_there(store: Store, key: str, node: Node) -> bool:
    try:
        return store.check([key])
    except RuntimeError as error:
        raise PowerbenchError(
            f"Node 0 at {node.rendezvous} is gone before all had met: see what it says there."
        ) from error


def _nobody_joined(node: Node, cell: Cell, missing: Sequence[int], *, timeout_s: float) -> str:
    others = cell.nnodes - 1
    who = "nobody else" if len(missing) == others else f"only {counted(others - len(missing), 'other machine')}"
    which, where = ", ".join(map(str, missing)), "machine" if len(missing) == 1 else "machines"
    return (
        f"{who[0].upper()}{who[1:]} joined at {node.rendezvous} within {timeout_s:g} s (limits.rendezvous_seconds): "
        f"start the same command with --node-rank {which} on the other {where} of "
        f"{cell.nnodes}, and let the port be reached from there."
    )


def _refuse_another(first: Hello, other: Hello, number: int) -> None:
    ours: Mapping[str, Any] = first.cell
    for name, value in other.cell.items():
        if value != ours.get(name):
            raise PowerbenchError(
                f"The machines were asked for different steps: {name} is {value} on {other.host} (node {number}) and "
                f"{ours.get(name)} on {first.host} (node 0); give the same options on all of them."
            )
