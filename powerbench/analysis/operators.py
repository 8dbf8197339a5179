"""Where a step's time goes by operator, as torch.profiler saw it, and the joules that go by that share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from msgspec import Struct

from powerbench.records import OperatorTimes, ProfilerRecord, RunRecord
from powerbench.units import NS_PER_MS, duration, significant

# torch's own name for a whole step, which holds what lies between the operators.
WHOLE_STEP = "ProfilerStep*"
# Recording an operator costs about a microsecond; where operators are many and small it is what one would see.
NOTABLE_COST = 1.25
NOTABLE_ANCHOR_NS = NS_PER_MS


class Operator(Struct, frozen=True, kw_only=True):
    """An operator in a step: how often it was called, milliseconds in itself without what it called, share of the step.

    `j` are the joules of a step by that share: an attribution by time and no measurement. None where there are none to
    share out, or the times are not those of the device that was metered. What is no operator has no `calls`.
    """

    name: str
    calls: float | None
    ms: float
    share: float
    j: float | None


class Operators(Struct, frozen=True, kw_only=True):
    """The operators of a step, the longest first, and what was outside of all of them.

    `steps` were profiled, of `step_ms` on average. `times_of` names the device whose times these are: `cpu`, or the
    accelerator on which the operators' kernels ran. `outside` is None where operators ran side by side, so that their
    times add up to more than the step.
    """

    steps: int
    step_ms: float
    times_of: str
    each: list[Operator]
    outside: Operator | None


class OperatorFindings(NamedTuple):
    """The operators of a step; None where there are none. And notes on them."""

    operators: Operators | None
    notes: list[str]


def find_operators(
    record: RunRecord, times: Sequence[OperatorTimes], *, measured_ms: float | None, j_per_step: float | None
) -> OperatorFindings:
    """The operators of a run's step, by the `times` of its profiled ones.

    `measured_ms` is what the measured steps took on average, `j_per_step` what they used; None where it is not known.
    """
    profiler = record.profiler
    if not record.the_cell.torch_profiler:
        return OperatorFindings(None, [])
    if profiler is None or profiler.reason is not None or not times:
        return OperatorFindings(None, _why_none(record))
    step_ms = _mean_ms(profiler)
    times_of = profiler.device or "cpu"
    is_of_device = times_of == record.the_cell.device
    shared_j = j_per_step if is_of_device else None
    each = [_operator(it.name, it.calls, _self_ms(it, profiler), step_ms, shared_j) for it in _of_program(times)]
    each = sorted((it for it in each if it.ms > 0), key=lambda it: it.ms, reverse=True)
    outside_ms = step_ms - sum(it.ms for it in each)
    outside = None if outside_ms < 0 else _operator(_outside(times_of), None, outside_ms, step_ms, shared_j)
    found = Operators(steps=len(profiler.steps), step_ms=step_ms, times_of=times_of, each=each, outside=outside)
    return OperatorFindings(found, [*_blind(record, times_of), *_cost(step_ms, measured_ms), *_loose(profiler)])


def _mean_ms(profiler: ProfilerRecord) -> float:
    return sum(step.end_ns - step.start_ns for step in profiler.steps) / len(profiler.steps) / NS_PER_MS


def _of_program(times: Iterable[OperatorTimes]) -> list[OperatorTimes]:
    """What the program called. A device's kernels are left out: their times stand with the operators they ran for."""
    return [it for it in times if it.on == "cpu" and it.name != WHOLE_STEP]


def _self_ms(times: OperatorTimes, profiler: ProfilerRecord) -> float:
    self_us = times.cpu_self_us if profiler.device is None else times.device_self_us
    return (self_us or 0.0) / 1000


def _outside(times_of: str) -> str:
    return "Python, between operators" if times_of == "cpu" else f"{times_of} without an operator's work"


def _operator(name: str, calls: float | None, ms: float, step_ms: float, shared_j: float | None) -> Operator:
    share = ms / step_ms
    return Operator(name=name, calls=calls, ms=ms, share=share, j=None if shared_j is None else shared_j * share)


def _why_none(record: RunRecord) -> list[str]:
    if record.profiler is not None and record.profiler.reason is not None:
        return [f"There are no operators: {record.profiler.reason}."]
    if record.status != "complete":  # it may never have come to them
        return []
    return ["There are no operators: torch.profiler did not come to its end; worker-0.log may say why."]


def _blind(record: RunRecord, times_of: str) -> list[str]:
    device = record.the_cell.device
    if times_of == device:
        return []
    return [
        f"torch.profiler does not see into {device} here: the operators' times are the processor's, which mostly "
        "submits work and waits, so no joules are shared out by them."
    ]


def _cost(step_ms: float, measured_ms: float | None) -> list[str]:
    if not measured_ms:
        return []
    if measured_ms > NOTABLE_COST * step_ms:
        return [
            f"The measured steps took {significant(measured_ms / step_ms)} times what those under torch.profiler took: "
            "they were kept waiting by something that these were not, and their shares may be others."
        ]
    if step_ms < NOTABLE_COST * measured_ms:
        return []
    return [
        f"Under torch.profiler a step took {significant(step_ms / measured_ms)} times what the measured ones took: "
        "recording has its cost, and operators that are called often look longer than they are."
    ]


def _loose(profiler: ProfilerRecord) -> list[str]:
    if profiler.anchor_width_ns < NOTABLE_ANCHOR_NS:
        return []
    return [
        "The calendar was set while torch.profiler was at work: its trace may lie "
        f"{duration(profiler.anchor_width_ns / 1e9)} off the power."
    ]
