"""A run on the screen: exact text, nothing wider than a terminal, and words where a figure is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from powerbench.records import RunRecord, StepTrace, WorkloadRecord
from powerbench.reports.terminal import as_terminal
from powerbench.rundir.load import Run
from tests.rundir import a_cell, a_record, steps_lasting


def a_run(steps: StepTrace | None = None, **changes: Any) -> Run:
    record: RunRecord = a_record(peak_memory_bytes=512_000_000, peak_memory_of="the worker's resident memory")
    return Run(Path("runs/one"), msgspec.structs.replace(record, **changes), [steps or steps_lasting(*[20] * 100)])


def line(run: Run, label: str) -> str:
    """The text behind a label, unwrapped; empty where there is no such line."""
    lines = iter(as_terminal([run]).splitlines())
    text = next((it for it in lines if it.startswith(f"  {label}")), "").removeprefix(f"  {label}")
    for it in lines:
        if not it.startswith(" " * 15):
            break
        text += f" {it.strip()}"
    return text.strip()


def test_a_run_is_shown_in_a_few_lines() -> None:
    assert as_terminal([a_run()]) == (
        "bert-tiny, inference, batch 16 x sequence 128, float32\n"
        "cpu: Abacus 3000, torch 2.13.0, Linux 6\n"
        "\n"
        "  Wall time    2.00s for 100 steps\n"
        "  Latency      20.0 ms a step on average, median 20.0 (P5 20.0 to P95 20.0)\n"
        "  Throughput   800 samples/s, 0.0500 TFLOP/s\n"
        "  Peak memory  512 MB (the worker's resident memory)\n"
        "  Energy       no figure: no meter was recorded with this run"
    )


def test_notes_stand_below_wrapped_under_their_beginning() -> None:
    text = as_terminal([a_run(notes=["word " * 30])])

    shown = text.partition("recorded with this run\n\n")[2].splitlines()
    assert shown[0].startswith("  Note: word word")
    assert all(it.startswith("        word") for it in shown[1:])


def test_no_line_is_wider_than_a_terminal_but_for_a_word_that_is() -> None:
    run = a_run(status="failed", reason="it broke " * 30 + "/" + "a" * 120, notes=["note " * 60])

    wide = [it for it in as_terminal([run]).splitlines() if len(it) > 80]
    assert [it.strip() for it in wide] == ["/" + "a" * 120]


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        (steps_lasting(*[1490] * 100), "2m 29s for 100 steps"),
        (steps_lasting(*[1490] * 50), "1m 14s for 50 steps (2m 29s for 100)"),
        (steps_lasting(2), "2.00 ms for 1 step (200 ms for 100)"),
        (StepTrace(), "no step was measured to its end"),
        (steps_lasting(None), "no step was measured to its end"),
    ],
)
def test_wall_time_is_in_the_form_of_the_published_tables(steps: StepTrace, text: str) -> None:
    run = Run(Path("runs/one"), a_record(), [steps])

    assert line(run, "Wall time") == text


def test_latency_without_an_edge_at_each_step_is_a_mean() -> None:
    assert line(a_run(steps_lasting(*[None] * 99, 2000)), "Latency") == "20.0 ms a step on average"


@pytest.mark.parametrize(
    ("status", "reason", "text"),
    [
        ("complete", None, ""),
        ("running", None, "running"),
        ("timeout", "it took too long", "timeout: it took too long"),
    ],
)
def test_a_status_is_shown_where_it_is_not_complete(status: str, reason: str | None, text: str) -> None:
    assert line(a_run(status=status, reason=reason), "Status") == text


def test_the_control_has_no_throughput_and_no_torch() -> None:
    cell = a_cell(model="sleep", sleep_ms=2.5)

    text = as_terminal([a_run(cell=cell)])

    assert text.startswith("sleep, 2.50 ms a step (the control)\ncpu: Abacus 3000, Linux 6\n")
    assert "samples/s" not in text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"dataset": "data/rows.csv"}, "text of data/rows.csv"),
        ({"optimizer": "sgd"}, "sgd"),
        ({"optimizer": "adamw", "fused": True}, "fused adamw"),
        ({"weights": "pretrained"}, "pretrained weights"),
    ],
)
def test_what_makes_a_step_another_is_told_above(changes: dict[str, Any], told: str) -> None:
    cell = a_cell(**{"mode": "training"} | changes)

    assert as_terminal([a_run(cell=cell)]).startswith(
        f"bert-tiny, training, batch 16 x sequence 128, float32, {told}\n"
    )


def test_padding_to_the_longest_is_told_and_tokens_are_counted() -> None:
    work = WorkloadRecord(samples_per_step=16, flop_per_step=1e9, tokens_per_step=400.0)
    run = a_run(cell=a_cell(dataset="rows.csv", pad="longest"), workload=work)

    assert "sequence 128, float32, text of rows.csv, padded to the longest\n" in as_terminal([run]).replace(",\n", ", ")
    assert line(run, "Throughput") == "800 samples/s, 20,000 tokens/s, 0.0500 TFLOP/s"


def test_operations_that_are_not_known_are_said_to_be() -> None:
    assert line(a_run(workload=WorkloadRecord(samples_per_step=16)), "Throughput") == "800 samples/s, TFLOP/s unknown"


def test_what_is_not_known_is_not_shown() -> None:
    run = a_run(device=None, workload=None, environment={}, peak_memory_bytes=None, peak_memory_of=None)

    assert as_terminal([run]).splitlines()[1] == "cpu"
    assert (line(run, "Throughput"), line(run, "Peak memory")) == ("", "")


def test_threads_are_shown_on_the_cpu() -> None:
    facts = {"threads": 2, "torch": "2.13.0", "system": "Linux 6"}

    assert "\ncpu: Abacus 3000, 2 threads, torch 2.13.0, Linux 6\n" in as_terminal([a_run(environment=facts)])
