"""Several runs on the screen: exact tables, nothing wider than a terminal, and a reason for every gap."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from powerbench.records import LoopCell, StepTrace, WorkloadRecord
from powerbench.reports.published import published_runs
from powerbench.reports.terminal import as_terminal
from powerbench.rundir.load import Run
from powerbench.rundir.many import NOT_BEGUN
from tests.reports import a_phased_run, a_run, renamed
from tests.rundir import a_record


def shown(runs: Sequence[Run], *, under: str | None = None) -> list[str]:
    """The lines of the tables; `under` a title, those as far as the next empty line."""
    lines = as_terminal(runs).splitlines()
    if under is None:
        return lines
    rest = lines[lines.index(under) + 1 :]
    return rest[: rest.index("")] if "" in rest else rest


def test_a_sweep_is_a_row_a_cell_in_the_order_of_the_published_tables() -> None:
    runs = [
        a_run(16, 512, 6820, watts=20),
        a_run(64, 128, 5120, watts=20),
        a_run(16, 128, 1490, watts=20),
        a_run(16, 128, 520, watts=18, settings={"mode": "inference"}),
    ]

    assert shown(runs) == [
        "bert-base-cased",
        "Abacus 3000 CPU (24GB), torch 2.13.0+cpu, 2 threads, dropout off, joules of",
        "  package-0",
        "",
        "training",
        "  batch  seq  100 steps  ms/step  samples/s  J/step     W",
        "     16  128     2m 29s    1,490       10.7    29.8  20.0",
        "     64  128     8m 32s    5,120       12.5     102  20.0",
        "     16  512    11m 22s    6,820       2.35     136  20.0",
        "",
        "inference",
        "  batch  seq  100 steps  ms/step  samples/s  J/step     W",
        "     16  128        52s      520       30.8    9.36  18.0",
    ]


def test_what_has_no_figure_has_its_word_there_and_its_reason_below() -> None:
    runs = [
        a_run(16, 128, 20),
        a_run(256, 128, None, status="oom", reason="torch: out of memory, tried to allocate 9 GB"),
        a_run(16, 512, 30, steps=12, status="timeout", reason="max_seconds (90 s) was over"),
    ]

    assert shown(runs)[3:] == [
        "training",
        "  batch  seq  100 steps  ms/step  samples/s",
        "     16  128      2.00s     20.0        800",
        "    256  128  out of memory",
        "     16  512    ~3.00s*     30.0        533",
        "",
        "  ~: extrapolated from fewer than 100 steps",
        "  *: of a run that did not complete, see below",
        "",
        "  Not completed:",
        "  - training batch 256 x sequence 128: out of memory: torch: out of memory,",
        "    tried to allocate 9 GB",
        "  - training batch 16 x sequence 512: out of time: max_seconds (90 s) was over",
        "",
        "  No joules:",
        "  - no meter was recorded with this run",
    ]


def test_repeats_are_a_median_with_their_number_and_how_far_they_lie_apart() -> None:
    runs = [a_run(step_ms=step_ms) for step_ms in (20, 19.8, 20.6)]

    assert shown(runs)[3:7] == [
        "training",
        "  batch  seq  100 steps  ms/step  samples/s  runs  apart",
        "     16  128      2.00s     20.0        800     3   4.0%",
        "",
    ]
    assert "  runs: the figures are their medians; apart: from the fastest to the slowest" in shown(runs)


def test_a_repeat_that_failed_is_told_and_does_not_count() -> None:
    runs = [a_run(step_ms=20), a_run(step_ms=22), a_run(step_ms=None, status="failed", reason="it broke")]

    lines = shown(runs)

    assert "     16  128      2.10s     21.0        764     2   9.5%" in lines
    assert any(line.endswith("failed: it broke") for line in lines)


def test_a_run_that_ended_early_does_not_stand_beside_complete_ones() -> None:
    ended = a_run(step_ms=90, steps=3, status="interrupted", reason="Ctrl-C", settings={"steps": 100})
    runs = [a_run(step_ms=20), ended]

    assert "     16  128      2.00s     20.0        800" in shown(runs)


def test_a_cell_with_another_number_of_steps_is_no_repeat() -> None:
    """Else one that ran out of time would hide behind a shorter one that is complete."""
    ended = a_run(16, 128, 30, steps=400, status="timeout", reason="too long", settings={"steps": 1000})

    lines = shown([a_run(16, 128, 20), ended, a_run(64, 128, 40)])

    assert lines[3:8] == [
        "training",
        "  batch  seq  steps  100 steps  ms/step  samples/s",
        "     16  128    100      2.00s     20.0        800",
        "     16  128  1,000     3.00s*     30.0        533",
        "     64  128             4.00s     40.0      1,600",
    ]
    assert "  - training batch 16 x sequence 128, 1,000 steps: out of time: too long" in lines


def test_machines_and_settings_have_letters() -> None:
    runs = [
        a_run(step_ms=1490),
        a_run(step_ms=1500, facts={"host": "beta"}),
        a_run(step_ms=900, settings={"dtype": "bfloat16"}),
        a_run(step_ms=60, settings={"device": "cuda", "copy": "async"}, facts={"threads": None, "torch": "2.12.0"}),
    ]

    lines = shown(runs)

    assert lines[:10] == [
        "bert-base-cased",
        "  A  Abacus 3000 CPU (24GB) no. 1, torch 2.13.0+cpu, 2 threads, float32,",
        "     dropout off",
        "  B  Abacus 3000 CPU (24GB) no. 2, torch 2.13.0+cpu, 2 threads, float32,",
        "     dropout off",
        "  C  Abacus 3000 CPU (24GB) no. 1, bfloat16, torch 2.13.0+cpu, 2 threads,",
        "     dropout off",
        "  D  NVIDIA H100 80GB HBM3, torch 2.12.0, float32, dropout off, async copy",
        "",
        "training",
    ]
    assert [line[12:16].strip() for line in lines[11:15]] == ["A", "B", "C", "D"]


def test_what_one_run_recorded_and_another_did_not_tells_them_apart() -> None:
    runs = [a_run(), a_run(facts={"threads": None})]

    assert "  B  Abacus 3000 CPU (24GB), threads not recorded, torch 2.13.0+cpu, dropout" in shown(runs)


def test_what_a_loop_of_its_own_does_not_tell_is_never_that_of_another() -> None:
    told, untold = a_loop(mode="training", dtype="bfloat16"), a_loop(mode="training")

    both = shown([told, untold, a_loop()])  # the last is in a section of its own, in which no dtype is told
    apart = shown([told, a_loop()])

    assert both[1:3] == [
        "  A  Abacus 3000 CPU (24GB), torch 2.13.0+cpu, 2 threads, bfloat16",
        "  B  Abacus 3000 CPU (24GB), dtype not recorded, torch 2.13.0+cpu, 2 threads",
    ]
    assert apart[1:3] == [
        "Abacus 3000 CPU (24GB), torch 2.13.0+cpu, 2 threads, bfloat16, not all of it",
        "  recorded of every run",
    ]


def test_a_loop_of_its_own_of_which_nothing_is_known_is_named_by_its_name() -> None:
    runs = [renamed(a_loop(status="failed", reason="an exception left the loop: KeyError"), "a"), a_loop()]

    assert "  - mine: failed: an exception left the loop: KeyError" in shown([*runs, a_run()])


def a_loop(**options: Any) -> Run:
    """A run of a program's own loop that told no more than these `options`."""
    fields = ("status", "reason")
    record = {name: options.pop(name) for name in fields if name in options}
    cell = LoopCell(device="cpu", model="mine", warmup=0, sync_every=1, **options)
    return a_run(cell=cell, loop=True, workload=WorkloadRecord(samples_per_step=None), **record)


def test_a_column_has_one_letter_in_training_and_inference() -> None:
    runs = [
        a_run(settings={"mode": mode, "dtype": dtype})
        for mode in ("training", "inference")
        for dtype in ("bfloat16", "float32")
    ]

    rows = [line.split() for line in shown(runs) if line.startswith("     16  128")]

    assert [row[2] for row in rows] == ["A", "B", "A", "B"]


def not_begun(batch: int = 16) -> Run:
    return a_run(batch, step_ms=None, status="interrupted", reason=NOT_BEGUN)


def test_what_was_not_begun_is_counted_and_how_to_go_on_is_said() -> None:
    """Of the first cell it is a repeat, which no row tells of."""
    lines = shown([a_run(notes=["It rained."]), not_begun(), not_begun(64)])

    assert "     16  128     2m 29s    1,490       10.7" in lines
    assert "     64  128  not begun" in lines
    assert "  - 2 measurements not begun: the same sweep with --resume goes on." in lines
    assert "  - It rained." in lines


def test_a_repeat_that_was_not_begun_hides_not_how_the_other_ended() -> None:
    assert "     16  128  out of memory" in shown([a_run(step_ms=None, status="oom"), not_begun()])


def test_a_long_reason_is_cut_in_a_table() -> None:
    runs = [a_run(), a_run(64, step_ms=None, status="failed", reason="word " * 200)]

    told = " ".join(shown(runs, under="  Not completed:"))

    assert told.endswith("word ...")
    assert len(told) < 300


def test_thousands_are_marked() -> None:
    lines = shown([a_run(), a_run(10_000_000, 4096, step_ms=None, status="oom")])

    assert lines[4:7] == [
        "       batch    seq  100 steps  ms/step  samples/s",
        "          16    128     2m 29s    1,490       10.7",
        "  10,000,000  4,096  out of memory",
    ]
    assert "  - training batch 10,000,000 x sequence 4,096: out of memory: no step was" in lines


def test_what_must_not_be_compared_is_said() -> None:
    runs = [a_run(), a_run(settings={"dropout": True}), a_run(facts={"torch": "2.6.0"})]

    text = " ".join(as_terminal(runs).split())

    assert "The columns differ in dropout, which changes what a step does: times across that difference are not" in text
    assert "The columns differ in torch: what differs in their times may be that." in text


def test_two_builds_of_one_torch_are_no_difference() -> None:
    runs = [a_run(), a_run(facts={"host": "beta", "torch": "2.13.0+cu126"})]

    assert "differ in torch" not in as_terminal(runs)


def test_apples_estimates_are_not_for_comparing_devices() -> None:
    apple = a_run(
        watts=30,
        state="estimated",
        settings={"device": "mps", "power": "rapl"},
        facts={"processor": "Apple M1 Max", "host": "mac"},
    )

    text = " ".join(as_terminal([apple, a_run(watts=20)]).split())

    assert "joules of package-0, by Apple's estimate" in text
    assert "Apple's estimates of joules are, by Apple's own words, not for comparing devices." in text


def test_notes_that_differ_in_numbers_alone_are_told_once() -> None:
    busy = {"load_1min": 7.5, "logical_cores": 8}
    runs = [a_run(16, facts=busy), a_run(64, facts=busy | {"load_1min": 6.5}), a_run(256)]

    notes = shown(runs, under="  Notes:")

    assert notes == [
        "  - The machine was busy before the run began (load 7.5 on 8 cores), if only",
        "    with the run before it. (2 of 3 runs)",
    ]


def test_the_control_and_recordings_of_power_have_tables_of_their_own() -> None:
    control = a_run(step_ms=5, settings={"model": "sleep", "sleep_ms": 5.0})
    recording = Run(Path("runs/two"), a_record(cell=None, command=["make"]), [StepTrace()])

    lines = shown([control, control, recording])

    assert lines[:2] == ["sleep, 5.00 ms a step (the control)", "Abacus 3000 CPU (24GB), 2 threads"]
    assert lines[3:5] == [
        "  batch  seq  100 steps  ms/step  runs  apart",
        "     16  128     500 ms     5.00     2   0.0%",
    ]
    assert shown([control, control, recording], under="recordings of power") == [
        "  time  J  W  run",
        "              runs/two",
    ]


def test_recordings_of_power_alone_begin_with_their_title() -> None:
    recordings = [Run(Path(name), a_record(cell=None, command=["make"]), [StepTrace()]) for name in ("one", "two")]

    assert shown(recordings)[:2] == ["recordings of power", "  time  J  W  run"]


def test_a_run_that_ended_before_its_device_was_named_stands_with_its_machine() -> None:
    runs = [
        a_run(16, step_ms=60, settings={"device": "cuda"}, facts={"threads": None}),
        a_run(64, step_ms=None, settings={"device": "cuda"}, device=None, status="failed", reason="no kernel"),
    ]

    assert shown(runs)[:2] == [
        "bert-base-cased",
        "NVIDIA H100 80GB HBM3, torch 2.13.0+cpu, dropout off, blocking copy",
    ]


@pytest.mark.parametrize("published", [False, True])
def test_no_line_is_wider_than_a_terminal(published: bool) -> None:
    runs = [
        a_run(batch, sequence, 12345.6, watts=20, facts={"host": host}, settings={"dtype": dtype})
        for batch in (16, 1024)
        for sequence in (128, 512)
        for host in ("alpha", "beta")
        for dtype in ("float32", "bfloat16")
        for _ in range(2)
    ]
    runs.append(a_run(1, 1, None, status="failed", reason="word " * 60))

    wide = [line for line in shown([*runs, *(published_runs() if published else [])]) if len(line) > 78]

    assert wide == []


def test_on_a_narrow_terminal_words_are_folded_sooner() -> None:
    several = as_terminal(
        [a_run(), a_run(64, step_ms=None, status="failed", reason="a word " * 9), *published_runs()], width=50
    )
    one = as_terminal([a_run(watts=20, notes=["word " * 40])], width=50)

    assert max(len(line) for line in several.splitlines() if "https:" not in line) <= 50
    assert 40 < max(map(len, one.splitlines())) <= 50


def test_the_published_tables_stand_below_ours_folded_with_ours_in_the_first_column() -> None:
    lines = shown([a_run(16, 128, 1480), *published_runs()], under="bert-base-cased, training")

    assert lines == [
        "              Abacus     M1 Max     M1 Max                       M1 Max",
        "                3000        CPU        GPU     V100                 CPU",
        "                 CPU    (32GB),    (32GB),  (16GB),      T4,    (32GB),",
        "  batch  seq  (24GB)    2022-05    2022-05  2022-05  2022-05    2023-12",
        "     16  128  2m 28s     2m 29s        43s      12s      31s     2m 29s",
        "     64  128             8m 32s     1m 30s      41s       2m     8m 32s",
        "    256  128            50m 10s     18m 1s        -        -    50m 10s",
        "     16  512            11m 22s     2m 20s      47s   2m 25s    11m 22s",
        "     64  512          1h 21m 2s    26m 33s        -        -  1h 21m 2s",
        "    256  512          6h 33m 7s  2h 55m 4s        -        -  6h 33m 7s",
    ]


def test_a_run_that_ended_early_is_marked_beside_the_published_ones_too() -> None:
    ended = a_run(step_ms=30, steps=12, status="timeout", reason="max_seconds (90 s) was over")

    lines = shown([ended, *published_runs()], under="bert-base-cased, training")

    assert "16 128 ~3.00s* 2m 29s 43s 12s 31s 2m 29s" in [" ".join(line.split()) for line in lines]


def test_a_published_column_says_how_far_it_compares() -> None:
    like_theirs, unlike = a_run(16, 128), a_run(16, 128, settings={"dropout": True})

    exact = " ".join(as_terminal([like_theirs, *published_runs()]).split())
    similar = " ".join(as_terminal([unlike, *published_runs()]).split())

    assert "V100 (16GB), 2022-05: torch 1.12/1.13 nightly, May 2022, 310 W at the peak; comparability: exact" in exact
    assert "dropout on; comparability: similar (dropout on, theirs off)" in similar
    assert (
        "V100 (16GB), 2022-05: torch 1.12/1.13 nightly, May 2022, 310 W at the peak; comparability: similar" in similar
    )
    assert (
        "M1 Ultra 48-core (64GB), 2023-12: torch 1.13.0.dev20220604; comparability: no run of ours beside it" in exact
    )


def test_phases_stand_below_the_table_with_their_joules_where_the_meter_tells_them_apart() -> None:
    runs = [a_phased_run(16, 1000, watts=20), a_phased_run(16, 1200, watts=20), a_phased_run(64, 2000, watts=20)]

    assert shown(runs, under="  Phases of a step:") == [
        "  - training batch 16 x sequence 128: forward 440 ms, backward 660 ms (13.2 J)",
        "  - training batch 64 x sequence 128: forward 800 ms (16.0 J), backward 1,200",
        "    ms (24.0 J)",
    ]
    assert "  Phases of a step:" not in shown([a_run(16), a_run(64)])
