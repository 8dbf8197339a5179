"""Runs as JSON: an object for one, a list for several, and null for what is not known."""

from __future__ import annotations

import json
from pathlib import Path

from powerbench.records import StepTrace
from powerbench.reports.json import as_json
from powerbench.rundir.load import Run
from tests.rundir import a_record, steps_lasting


def a_run(*lengths: float) -> Run:
    return Run(Path("runs/one"), a_record(peak_memory_bytes=512_000_000), [steps_lasting(*lengths)])


def test_one_run_is_the_object_of_the_design() -> None:
    told = json.loads(as_json([a_run(*[20] * 200)]))

    found = told.pop("slowdown")
    assert list(found)[:5] == ["verdict", "ratio", "ci99", "shape", "still_rising"]
    assert (found["verdict"], found["ratio"], found["shape"], found["causes"]) == ("flat", 1.0, None, [])
    assert told == {
        **{"run": "runs/one", "status": "complete", "reason": None},
        **{"device": "cpu", "timer": "clock", "model": "bert-tiny", "mode": "inference"},
        **{"batch_size": 16, "sequence_length": 128, "dtype": "float32", "ranks": 1, "global_batch_size": 16},
        **{"steps": 200, "warmup_steps": 0, "wall_s": 4.0, "wall_s_100_steps": 2.0},
        "latency_ms": {"mean": 20.0, "median": 20.0, "p5": 20.0, "p95": 20.0, "min": 20.0, "max": 20.0},
        **{"samples_per_s": 800.0, "tokens_per_s": None, "tflop_per_s": 0.05, "peak_memory_bytes": 512_000_000},
        **{"energy": None, "energy_reason": "no meter was recorded with this run", "phases": None},
        **{"stragglers": None, "per_rank": None, "notes": []},
    }


def test_several_runs_are_a_list() -> None:
    assert [it["wall_s"] for it in json.loads(as_json([a_run(10), a_run(20)]))] == [0.01, 0.02]


def test_what_is_not_known_is_null_and_never_zero() -> None:
    told = json.loads(as_json([Run(Path("x"), a_record(device=None, workload=None), [StepTrace()])]))

    unknown = {key for key, value in told.items() if value is None}
    assert unknown == {
        *("reason", "timer", "wall_s", "wall_s_100_steps", "latency_ms"),
        *("samples_per_s", "tokens_per_s", "tflop_per_s"),
        *("peak_memory_bytes", "energy", "slowdown", "phases", "stragglers", "per_rank"),
    }


def test_a_latency_of_which_only_the_mean_is_known_says_so() -> None:
    run = Run(Path("x"), a_record(), [steps_lasting(None, 20)])

    latency = json.loads(as_json([run]))["latency_ms"]

    assert latency == {"mean": 10.0, "median": None, "p5": None, "p95": None, "min": None, "max": None}
