"""The steps of several ranks as those of the whole: a step takes as long as its slowest rank."""

from __future__ import annotations

from collections.abc import Sequence

from powerbench.records import STAGES, Stage, StepTrace


def combined(traces: Sequence[StepTrace]) -> StepTrace:
    """The steps that all ranks reached, of traces on one clock.

        rank 0   |-----|   |-----|          A step is over when the last rank has ended it, and the next one begins
        rank 1   |---------|---------|      there; the first begins with the first rank. There is an edge where every
        whole    |---------|---------|      rank has one, and a step is submitted when the last rank has submitted it.

    A rank that was killed before it could say where its tail begins is told by the others. Raises ValueError for no
    trace at all.
    """
    if len(traces) == 1:
        return traces[0]
    whole = StepTrace()
    edge_ns = min((trace.start_ns[0] for trace in traces if len(trace)), default=0)
    for at in range(min(map(len, traces))):
        ends = [trace.end_ns[at] for trace in traces]
        known = [end_ns for end_ns in ends if end_ns is not None]
        end_ns = max(known) if len(known) == len(ends) else None
        whole.append(_latest([trace.stage[at] for trace in traces]), edge_ns, _submitted(traces, at), end_ns)
        edge_ns = edge_ns if end_ns is None else end_ns
    return whole


def _latest(stages: Sequence[Stage]) -> Stage:
    return max(stages, key=STAGES.index)


def _submitted(traces: Sequence[StepTrace], at: int) -> int:
    return max(trace.submit_ns[at] for trace in traces)


def of_the_whole(trace: StepTrace, whole: StepTrace) -> StepTrace:
    """A trace as far as the whole of which it is a part has come: the same steps, in the same stages."""
    rows = slice(len(whole))
    return StepTrace(whole.stage, trace.start_ns[rows], trace.submit_ns[rows], trace.end_ns[rows])


def shifted(trace: StepTrace, by_ns: int) -> StepTrace:
    """The same steps on a clock that is ahead by so much."""
    return StepTrace(
        stage=trace.stage,
        start_ns=[time_ns + by_ns for time_ns in trace.start_ns],
        submit_ns=[time_ns + by_ns for time_ns in trace.submit_ns],
        end_ns=[None if time_ns is None else time_ns + by_ns for time_ns in trace.end_ns],
    )
