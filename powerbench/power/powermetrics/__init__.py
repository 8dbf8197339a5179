"""The source that reads a Mac with its own tool, powermetrics: whether it can be started, and what opens it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from powerbench.keeper import GRACE_S, POWERMETRICS, SHORTEST_PERIOD_MS
from powerbench.power.kept import Keeper, our_keeper
from powerbench.power.powermetrics.child import Child, KeptChild, OwnChild
from powerbench.power.powermetrics.launch import Launch, needs_root, sudo_allows
from powerbench.power.powermetrics.meter import PowermetricsMeter

PROGRAM_VARIABLE = "POWERBENCH_POWERMETRICS"
SUDO = ("/usr/bin/sudo", "-n")


class Powermetrics:
    """Apple's energy model, read through powermetrics, which wants root.

    `POWERBENCH_POWERMETRICS` names another program, for tests and containers; it is run without sudo, so that the
    environment never chooses what root runs, and it is not looked at under sudo.
    """

    name = "powermetrics"

    def __init__(
        self,
        *,
        environment: Mapping[str, str] = os.environ,
        platform: str = sys.platform,
        effective_uid: int | None = None,
        sudo: Sequence[str] = SUDO,
        program: str = POWERMETRICS,
        signal_group: Callable[[int, int], None] = os.killpg,
        grace_s: float = GRACE_S,
        keeper: Callable[[], Keeper | None] = our_keeper,
    ) -> None:
        self._environment = environment
        self._platform = platform
        self._is_root = (os.geteuid() if effective_uid is None else effective_uid) == 0
        self._own_sudo = tuple(sudo)
        self._own_program = program
        self._signal_group = signal_group
        self._grace_s = grace_s
        self._keeper = keeper

    def why_unavailable(self) -> str | None:
        """One sentence with the remedy, or None where it can be started now. Starts no powermetrics."""
        launch = self._launch(SHORTEST_PERIOD_MS)
        if not self._moved() and self._platform != "darwin":
            return "powermetrics comes with macOS only: elsewhere take nvml, rapl or hwmon."
        if not os.access(launch.program, os.X_OK):
            remedy = (
                f"correct or unset {PROGRAM_VARIABLE}" if self._moved() else "take ioreport, which needs no program"
            )
            return f"{launch.program} is no program that can be run: {remedy}."
        if launch.sudo and not sudo_allows(launch):
            return needs_root(launch)
        return None

    def set_up(self) -> tuple[str, ...]:
        """None: the sentence says all."""
        return ()

    def open(self, *, period_s: float) -> PowermetricsMeter:
        """Start powermetrics with a document each `period_s`, 0.1 s at the least. Raises MeterLost."""
        return PowermetricsMeter(
            self._launch(max(SHORTEST_PERIOD_MS, round(period_s * 1000))),
            start=self._start,
            grace_s=self._grace_s,
        )

    def _start(self, launch: Launch) -> Child:
        keeper = self._keeper()
        if keeper is not None:
            return KeptChild(keeper, period_ms=launch.period_ms, samplers=launch.samplers)
        return OwnChild(launch.command(), signal_group=self._signal_group)

    def _moved(self) -> str | None:
        return None if "SUDO_UID" in self._environment else self._environment.get(PROGRAM_VARIABLE) or None

    def _launch(self, period_ms: int) -> Launch:
        moved = self._moved()
        sudo = () if self._is_root or moved or self._keeper() is not None else self._own_sudo
        return Launch(sudo=sudo, program=moved or self._own_program, period_ms=period_ms)
