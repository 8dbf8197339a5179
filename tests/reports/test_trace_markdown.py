"""A report for a bug tracker: all that somebody else needs to measure it again, and nothing private."""

from __future__ import annotations

from pathlib import Path

import pytest

from powerbench.reports.checking import check, check_latencies
from powerbench.reports.trace_markdown import as_trace_markdown
from powerbench.rundir.load import load_run
from tests.traced import at_half, write_trace


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("runs") / "slow"
    slow = [100.0] * 100 + [150.0] * 100
    write_trace(folder, slow, watts=at_half(300, 200), mhz=at_half(1400, 900), record={"notes": ["It was | warm."]})
    return as_trace_markdown([check(load_run(folder))], picture=Path("some/where/slow.png"))


def test_the_verdict_is_the_title(report: str) -> None:
    assert report.startswith("## Slowdown: ")


def test_what_it_was_measured_on_is_a_table(report: str) -> None:
    assert report.splitlines()[2:11] == [
        "| | |",
        "|---|---|",
        "| Workload | bert-tiny, inference, batch 16 x sequence 128, float32 |",
        "| Device | cuda: Abacus 3000, timed by events |",
        "| Software | torch 2.13.0+cu128, python 3.11.7 |",
        "| System | Linux 6 (x86_64), Abacus 9, 8 logical cores, 25.0 GB of memory, 0 B of swap |",
        "| Settings | `sync_every` 1, `copy` async, `attention` sdpa, `dropout` true, `compile` false |",
        "| Variables | `OMP_NUM_THREADS=8` |",
        "| Run | 20261123T173000Z-cpu-bert-tiny-inference-b16-s128, complete, begun 2026-11-23 21:21 UTC |",
    ]


def test_a_variable_of_two_thousand_letters_is_cut_short(tmp_path: Path) -> None:
    facts = {"variables": {"NVIDIA_REQUIRE_CUDA": "brand=tesla,driver>=535 " * 100}}
    write_trace(tmp_path / "run", [100.0] * 30, record={"environment": facts})

    told = as_trace_markdown([check(load_run(tmp_path / "run"))])

    (line,) = [line for line in told.splitlines() if line.startswith("| Variables |")]
    assert line.startswith("| Variables | `NVIDIA_REQUIRE_CUDA=brand=tesla,driver>=535 brand=tesla")
    assert line.endswith("...` |")
    assert len(line) < 140


def test_the_name_of_the_machine_is_its_owners(report: str) -> None:
    assert "secret" not in report


def test_the_command_stands_in_a_block_to_be_copied(report: str) -> None:
    command = (
        "powerbench run --device cuda --model bert-tiny --mode inference --batch-size 16 --steps 200 --warmup 3 "
        "--sync-every 1 --trace"
    )
    assert f"To measure it again:\n\n```\n{command}\n```" in report


def test_the_chart_is_a_code_block_with_its_lanes(report: str) -> None:
    block = report.partition("### Latency by step\n\n```\n")[2].partition("\n```")[0].splitlines()

    assert block[0].startswith("latency     150 ms ┤")
    assert {line.split()[0] for line in block if "┤" in line and line[0].isalpha()} == {"latency", "power", "clock"}
    assert max(map(len, block)) <= 88


def test_figures_causes_notes_and_picture_follow(report: str) -> None:
    rest = report.partition("axis.\n```\n")[2]

    assert "- Latency: no steady state: first 100 ms, last 150 ms a step (tenths of the run)\n" in rest
    assert "### Likely causes\n\n1. **throttling**\n   - For it: The " in rest
    assert "### Notes\n\n- It was | warm.\n" in rest
    assert rest.endswith("![Latency by step](slow.png)")


def test_a_csv_has_no_machine_and_no_cause() -> None:
    report = as_trace_markdown([check_latencies("times.csv", [0.1] * 50 + [0.2] * 50)], ["They agree."])

    assert "Latencies from `times.csv`." in report
    assert "| Device" not in report
    assert "Cause not recorded: the file holds latencies and nothing beside them." in report
    assert report.endswith("## Taken together\n\nThey agree.")
