"""The two bounds of a record: what is known before anything runs, and the clock when all is over."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import psutil

from powerbench.environment import boot_id, describe_environment, suspended_ns
from powerbench.records import Clock, RunRecord, Supervisor


def first_record(id: str, **facts: Any) -> RunRecord:
    """The record of a run that this process begins now, with what is known of it."""
    me = psutil.Process()
    return RunRecord(
        id=id,
        status="running",
        clock=Clock(boot_id=boot_id(), start_monotonic_ns=time.monotonic_ns(), start_unix_ns=time.time_ns()),
        environment=describe_environment(),
        supervisor=Supervisor(me.pid, me.create_time()),
        **facts,
    )


class Suspended:
    """How long the machine has slept since this was made."""

    def __init__(self) -> None:
        self._before_ns = suspended_ns()

    def ended(self, clock: Clock) -> Clock:
        """The clock of a run that ends now."""
        now_ns, before_ns = suspended_ns(), self._before_ns
        return msgspec.structs.replace(
            clock,
            end_monotonic_ns=time.monotonic_ns(),
            end_unix_ns=time.time_ns(),
            suspended_ns=None if now_ns is None or before_ns is None else now_ns - before_ns,
        )
