"""Runs as a Chrome trace: every event keeps the format's rules, and stands where the run recorded it."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from powerbench.records import StepTrace, Window
from powerbench.reports.perfetto import as_perfetto
from powerbench.rundir.load import Run, load_run
from tests.rundir import GOLDEN, MS, START, a_cell, a_record, rows_of, steps_lasting, write_run
from tests.traced import S, at_half, write_trace, write_unsynchronized

Event = dict[str, Any]

# "Trace Event Format", Google 2016: what each kind of event must have; and what ui.perfetto.dev draws of ours.
REQUIRED = {
    "M": {"name", "pid", "tid", "args"},
    "X": {"name", "pid", "tid", "ts", "dur", "args"},
    "C": {"name", "pid", "tid", "ts", "args"},
    "i": {"name", "pid", "tid", "ts", "s", "args"},
}
METADATA = {
    "process_name": ("name", str),
    "process_labels": ("labels", str),
    "process_sort_index": ("sort_index", int),
    "thread_name": ("name", str),
    "thread_sort_index": ("sort_index", int),
}


def events_of(*runs: Run) -> list[Event]:
    """The events of a trace that keeps the rules."""
    told = json.loads(as_perfetto(runs), parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    assert (set(told), told["displayTimeUnit"]) == ({"traceEvents", "displayTimeUnit", "otherData"}, "ms")
    events: list[Event] = told["traceEvents"]
    for event in events:
        assert set(event) == REQUIRED[event["ph"]] | {"ph"}, event
        assert type(event["name"]) is str
        assert event["name"]
        assert (type(event["pid"]), type(event["tid"])) == (int, int)
        assert event.get("ts", 0) >= 0
        assert event.get("dur", 0) >= 0
        check_arguments(event)
    check_nesting(events)
    return events


def check_arguments(event: Event) -> None:
    """Metadata have the argument of their name, counters a number; an instant says how far it reaches."""
    if event["ph"] == "M":
        key, kind = METADATA[event["name"]]
        assert [key] == list(event["args"])
        assert type(event["args"][key]) is kind
    elif event["ph"] == "C":
        assert [type(value) for value in event["args"].values()] in ([int], [float])
    elif event["ph"] == "i":
        assert event["s"] in ("t", "p", "g")


def check_nesting(events: list[Event]) -> None:
    """Spans of one track lie one behind the other: they may not overlap in part."""
    tracks = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            tracks[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for spans in tracks.values():
        for (_, end), (start, _) in zip(sorted(spans), sorted(spans)[1:], strict=False):
            assert start >= end - 1e-6
    named = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"}
    assert set(tracks) <= named


def spans(events: list[Event], track: str) -> list[tuple[str, float, float, dict[str, Any]]]:
    """Name, begin and length in milliseconds, and arguments of the spans on the track of that name."""
    (tid,) = {it["tid"] for it in events if it["name"] == "thread_name" and track in it["args"]["name"]}
    return [
        (it["name"], it["ts"] / 1000, it["dur"] / 1000, it["args"])
        for it in events
        if it["ph"] == "X" and it["tid"] == tid
    ]


def counters(events: list[Event]) -> dict[str, list[tuple[float, float]]]:
    """The values of each counter by milliseconds."""
    found = defaultdict(list)
    for event in events:
        if event["ph"] == "C":
            found[event["name"]].append((event["ts"] / 1000, event["args"]["value"]))
    return dict(found)


def a_run(tmp_path: Path, steps: StepTrace, events: list[Event] | None = None, **changes: Any) -> Run:
    record = a_record(**changes)
    write_run(tmp_path / "run", record, rows=rows_of(steps), events=events or [])
    return load_run(tmp_path / "run")


def started_before(ns: int) -> dict[str, Any]:
    clock = a_record().clock
    return {"clock": type(clock)(boot_id="b", start_monotonic_ns=START - ns, start_unix_ns=0)}


def test_steps_are_spans_with_their_stage_from_the_start_of_the_run(tmp_path: Path) -> None:
    steps = steps_lasting(20, 30, after=steps_lasting(100, stage="warmup"))
    steps = steps_lasting(40, stage="tail", after=steps)

    events = events_of(a_run(tmp_path, steps, **started_before(500 * MS)))

    assert spans(events, "from edge to edge") == [
        ("warm-up step", 500.0, 100.0, {"stage": "warmup", "step": 0, "steps": 1}),
        ("step", 600.0, 20.0, {"stage": "step", "step": 1, "steps": 1}),
        ("step", 620.0, 30.0, {"stage": "step", "step": 2, "steps": 1}),
        ("tail step", 650.0, 40.0, {"stage": "tail", "step": 3, "steps": 1}),
    ]


def test_submissions_have_a_track_of_their_own(tmp_path: Path) -> None:
    steps = StepTrace()
    steps.append("step", START, START + 5 * MS, START + 20 * MS)
    steps.append("step", START + 20 * MS, START + 26 * MS, START + 40 * MS)

    events = events_of(a_run(tmp_path, steps, **started_before(0)))

    assert [(start, length) for _, start, length, _ in spans(events, "submits")] == [(0.0, 5.0), (20.0, 6.0)]


def test_python_that_is_ahead_of_the_device_overlaps_nothing(tmp_path: Path) -> None:
    steps = StepTrace()
    for at in range(5):  # events of the device: Python has submitted all before the first is done
        steps.append("step", START + 20 * at * MS, START + at * MS, START + 20 * (at + 1) * MS)

    events = events_of(a_run(tmp_path, steps, cell=a_cell(sync_every=0), **started_before(0)))

    assert [(start, length) for _, start, length, _ in spans(events, "submits")] == [
        *[(0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (3.0, 1.0)]
    ]


def test_steps_without_edges_are_one_span_and_each_is_seen_where_it_was_submitted(tmp_path: Path) -> None:
    events = events_of(load_run(write_unsynchronized(tmp_path / "run", [1.0, 2.0, 3.0])))

    measured = [it for it in spans(events, "from edge to edge") if it[3]["stage"] == "step"]
    assert [(name, args["steps"]) for name, _, _, args in measured] == [("3 steps", 3)]
    assert [length for _, _, length, args in spans(events, "submits") if args["stage"] == "step"] == [1.0, 2.0, 3.0]


def test_power_is_a_counter_from_each_reading_to_the_next(tmp_path: Path) -> None:
    run = load_run(write_trace(tmp_path / "run", [100.0] * 20, watts=at_half(300.0, 200.0), mhz=at_half(1400, 1000)))

    found = counters(events_of(run))

    watts = [round(value) for _, value in found["gpu0.metered_w"]]
    assert (watts[1], watts[-1], set(watts)) == (300, 200, {300, 200})
    assert found["gpu0.clock_mhz"][0] == (800.0, 1400.0)


def test_what_the_worker_holds_and_collects_is_shown(tmp_path: Path) -> None:
    said = [
        {"event": "memory", "time_ns": START + MS, "allocated": 5, "reserved": 9, "driver": None},
        {"event": "gc", "time_ns": START + 2 * MS, "end_ns": START + 5 * MS, "generation": 2},
    ]

    events = events_of(a_run(tmp_path, steps_lasting(20), said, **started_before(0)))

    assert counters(events) == {"worker0.allocated_bytes": [(1.0, 5)], "worker0.reserved_bytes": [(1.0, 9)]}
    (collection,) = [it for it in events if it["ph"] == "i" and it["name"] == "garbage collection"]
    assert (collection["name"], collection["ts"]) == ("garbage collection", 2000.0)
    assert collection["args"] == {"lasted_ms": 3.0, "generation": 2}


def test_notes_are_instants_at_the_first_measured_step(tmp_path: Path) -> None:
    window = {"measured": Window(START, START + 20 * MS), "idle": Window(START - 10 * MS, START - 5 * MS)}

    events = events_of(a_run(tmp_path, steps_lasting(20), notes=["It was warm."], windows=window, **started_before(S)))

    assert [(it["name"], it["ts"]) for it in events if it["ph"] == "i"] == [
        ("It was warm.", 1e6),
        ("The time for 100 steps is extrapolated from 1.", 1e6),
    ]
    assert [(name, length) for name, _, length, _ in spans(events, "stretches")] == [("measured", 20.0), ("idle", 5.0)]


def test_what_was_read_before_the_start_or_is_no_number_is_left_out(tmp_path: Path) -> None:
    run = a_run(tmp_path, steps_lasting(20), **started_before(0))
    (run.path / "telemetry.csv").write_text(f"time_ns,name,value\n{START - 1},x,1\n{START},x,nan\n{START + MS},x,2\n")

    assert counters(events_of(run)) == {"x": [(1.0, 2.0)]}


def test_each_run_is_a_process_of_its_own() -> None:
    run = load_run(GOLDEN / "schema-1")

    events = events_of(run, run)

    names = [(it["pid"], it["args"]["name"]) for it in events if it["name"] == "process_name"]
    assert names == [(1, run.record.id), (2, run.record.id)]
    first, second = ([it for it in events if it["pid"] == pid and it["ph"] != "M"] for pid in (1, 2))
    assert second == [{**it, "pid": 2} for it in first]


def test_a_recording_of_power_has_no_steps(tmp_path: Path) -> None:
    record = a_record(cell=None, command=["make"], windows={"measured": Window(START, START + S)}, **started_before(0))
    write_run(tmp_path / "power", record)

    events = events_of(load_run(tmp_path / "power"))

    assert [it["name"] for it in events if it["ph"] == "X"] == ["measured"]
    assert "power while this ran: make" in [it["args"].get("labels") for it in events]
