"""torch's own trace on the clock of the run: exact to the nanosecond, beside power, and mixed up with no other run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from powerbench.records import Clock, EnergyCurve, ProfilerRecord, Window
from powerbench.reports.perfetto import as_perfetto
from powerbench.reports.torch_trace import Numbers, torch_events
from powerbench.rundir.load import Run, load_run
from tests.rundir import MS, START, a_cell, a_rail, a_record, rows_of, steps_lasting, write_run
from tests.traced import S

Event = dict[str, Any]

UNIX = 1_795_000_000 * S + 123
"""The calendar at START."""
BASE = 1_790_857_026 * S
PID = 4242


def at_us(ns_after_start: int) -> float:
    """torch's `ts` of a moment: microseconds of the calendar since the base."""
    return (UNIX + ns_after_start - BASE) / 1000


def torch_trace(*events: Event) -> Event:
    """A trace as kineto writes it."""
    names = [
        {"ph": "M", "name": "process_name", "ts": at_us(0), "pid": PID, "tid": 0, "args": {"name": "python"}},
        {"ph": "M", "name": "process_labels", "ts": at_us(0), "pid": PID, "tid": 0, "args": {"labels": "CPU"}},
        {"ph": "M", "name": "thread_name", "ts": at_us(0), "pid": PID, "tid": PID, "args": {"name": "thread 4242"}},
        {"ph": "M", "name": "process_sort_index", "ts": at_us(0), "pid": PID, "tid": 0, "args": {"sort_index": PID}},
    ]
    return {"schemaVersion": 1, "baseTimeNanoseconds": BASE, "traceEvents": [*names, *events]}


def span(name: str, begin_ns: int, lasting_ns: int, *, pid: Any = PID, tid: Any = PID) -> Event:
    return {
        **{"ph": "X", "cat": "cpu_op", "name": name, "pid": pid, "tid": tid},
        **{"ts": at_us(begin_ns), "dur": lasting_ns / 1000, "args": {"Ev Idx": 1}},
    }


def arrow(kind: str, number: int, at_ns: int) -> Event:
    at = {"ph": kind, "id": number, "pid": PID, "tid": PID, "ts": at_us(at_ns), "cat": "fwdbwd", "name": "fwdbwd"}
    return at | ({"bp": "e"} if kind == "f" else {})


def write_profiled(folder: Path, trace: Event | str) -> Run:
    """A run of two steps of 20 ms and two profiled ones of 10 ms, of which the clock and the calendar are known."""
    profiled = [Window(START + 50 * MS, START + 60 * MS), Window(START + 70 * MS, START + 80 * MS)]
    record = a_record(
        cell=a_cell(torch_profiler=True),
        # The anchor was taken an hour after START, on both clocks.
        profiler=ProfilerRecord(steps=profiled, monotonic_ns=START + 3600 * S, unix_ns=UNIX + 3600 * S),
        rails={"package-0": a_rail()},
        clock=Clock(boot_id="b", start_monotonic_ns=START - S, start_unix_ns=UNIX - S),
    )
    rundir = write_run(folder, record, rows=rows_of(steps_lasting(20, 20)))
    curve = EnergyCurve([START, START + 50 * MS, START + 80 * MS], [0.0, 1.0, 1.9])
    rows = [f"{time},package-0,{joules}" for time, joules in zip(curve.time_ns, curve.energy_j, strict=True)]
    rundir.energy.write_text("\n".join(["time_ns,rail,energy_j", *rows]) + "\n")
    rundir.torch_trace.write_text(trace if isinstance(trace, str) else json.dumps(trace))
    return load_run(folder)


def events_of(*runs: Run) -> list[Event]:
    events: list[Event] = json.loads(as_perfetto(runs))["traceEvents"]
    return events


def test_an_operator_lies_at_its_moment_of_the_clock_to_the_nanosecond(tmp_path: Path) -> None:
    run = write_profiled(tmp_path / "run", torch_trace(span("aten::mm", 51 * MS + 7, 2 * MS + 13)))

    (product,) = [it for it in events_of(run) if it["name"] == "aten::mm"]

    # The run began a second before START.
    assert (product["ts"], product["dur"]) == (1_051_000.007, 2000.013)


def test_a_name_with_a_control_character_which_torch_writes_as_it_is_costs_nothing(tmp_path: Path) -> None:
    trace = json.dumps(torch_trace(span("aten::mm", 51 * MS, MS), span("thread?", 51 * MS, MS)))

    events = events_of(write_profiled(tmp_path / "run", trace.replace("thread?", "thread\x01")))

    assert "aten::mm" in {it["name"] for it in events}


def test_power_and_the_edges_of_the_steps_stand_on_the_same_base(tmp_path: Path) -> None:
    within = [span("ProfilerStep#1", 50 * MS, 10 * MS), span("ProfilerStep#2", 70 * MS, 10 * MS)]

    events = events_of(write_profiled(tmp_path / "run", torch_trace(*within)))

    of_torch = [(it["ts"], it["dur"]) for it in events if it["name"].startswith("ProfilerStep#")]
    of_ours = [(it["ts"], it["dur"]) for it in events if it["name"] == "profiled step"]
    assert of_torch == of_ours == [(1_050_000.0, 10_000.0), (1_070_000.0, 10_000.0)]
    measured = [(it["ts"], it["dur"]) for it in events if it["name"] == "step"]
    assert measured == [(1_000_000.0, 20_000.0), (1_020_000.0, 20_000.0)]
    power = [(it["ts"], round(it["args"]["value"], 6)) for it in events if it["name"] == "package-0.metered_w"]
    assert power == [(1_000_000.0, 20.0), (1_050_000.0, 30.0)]


def test_torch_s_processes_are_told_from_ours_and_named_after_the_run(tmp_path: Path) -> None:
    gpu = span("sgemm", 52 * MS, MS, pid=0, tid=7)

    events = events_of(write_profiled(tmp_path / "run", torch_trace(span("aten::mm", 51 * MS, MS), gpu)))

    pids = {it["name"]: it["pid"] for it in events if it["name"] in ("step", "aten::mm", "sgemm")}
    assert len(set(pids.values())) == 3
    assert all(type(it[key]) is int for it in events for key in ("pid", "tid"))
    names = [it["args"]["name"] for it in events if it["name"] == "process_name" and it["pid"] == pids["aten::mm"]]
    assert names == ["torch.profiler, 20261123T173000Z-cpu-bert-tiny-inference-b16-s128"]


def test_arrows_of_two_runs_are_not_mixed_up(tmp_path: Path) -> None:
    trace = torch_trace(arrow("s", 5, MS), arrow("f", 5, 2 * MS), arrow("s", 6, MS), arrow("f", 6, 3 * MS))
    runs = [write_profiled(tmp_path / name, trace) for name in ("one", "two")]
    second = replace(runs[1], record=msgspec.structs.replace(runs[1].record, id="another"))

    ids = [it["id"] for it in events_of(runs[0], second) if it["ph"] in "sf"]

    assert len(set(ids)) == 4
    assert ids[0] == ids[1] != ids[2] == ids[3] != ids[4] == ids[5]


def test_what_is_no_process_or_of_no_known_kind_is_left_out() -> None:
    whole = {"ph": "X", "cat": "Trace", "name": "PyTorch Profiler (0)", "pid": "Spans", "tid": "PyTorch Profiler"}
    trace = torch_trace(
        whole | {"ts": at_us(0), "dur": 5.0, "args": {}}, {"ph": "P", "name": "?", "pid": PID, "tid": 1}
    )

    events = list(torch_events(trace, ProfilerRecord(), start_ns=0, run="a run", numbers=Numbers(first=2)))

    assert [it["name"] for it in events] == ["process_name", "process_labels", "thread_name"]
    assert all("ts" not in it for it in events)


@pytest.mark.parametrize("damaged", ["", '{"traceEvents": [', "[]"])
def test_a_damaged_trace_is_left_out_and_said(tmp_path: Path, damaged: str) -> None:
    events = events_of(write_profiled(tmp_path / "run", damaged))

    assert [it["name"] for it in events if it["name"] == "profiled step"] == ["profiled step"] * 2
    assert any("torch-trace.json is missing or damaged" in it["name"] for it in events if it["ph"] == "i")
