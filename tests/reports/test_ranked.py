"""Runs of several ranks and machines in each format: the global batch stated, every rank there, stragglers named."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from powerbench.reports.csv import as_csv
from powerbench.reports.html import as_html
from powerbench.reports.json import as_json
from powerbench.reports.markdown import as_markdown
from powerbench.reports.perfetto import as_perfetto
from powerbench.reports.terminal import as_terminal
from powerbench.rundir.load import Run, load_run
from powerbench.rundir.many import Runs, find_readable
from tests.ranked import a_gpu, machine_record, trace_of, two_machines, two_ranks, with_straggler, write_ranks

ON_TWO = "on each of 2 ranks"


def runs_in(*named: Path) -> list[Run]:
    return list(Runs(find_readable(named).items))


def told(runs: list[Run]) -> list[str]:
    return as_terminal(runs).splitlines()


class TestTerminal:
    def test_tells_the_global_batch_and_each_ranks_own_work(self, tmp_path: Path) -> None:
        lines = told([load_run(with_straggler(tmp_path / "run"))])

        assert lines[:3] == [
            "bert-base-cased, training, batch 16 x sequence 128 on each of 2 ranks (batch",
            "32 a step), float32",
            "cpu: Abacus 3000, 1 thread a rank, torch 2.13.0",
        ]
        assert "  Own work     rank 0  18.0 ms (median)   72% of its step" in lines
        assert "               rank 1  23.0 ms (median)   92% of its step" in lines
        assert "  Throughput   1,280 samples/s, TFLOP/s unknown" in lines
        assert "  Note: Rank 1 (Abacus 3000) is a straggler from step 60 on: it works 28.0 ms" in lines

    def test_names_the_machines(self, tmp_path: Path) -> None:
        two_machines(tmp_path)
        lines = told(runs_in(tmp_path))

        assert "cpu: 2 x Abacus 3000, 2 machines (alpha, beta), 1 thread a rank, torch 2.13.0" in lines
        assert "  Energy       2.40 J a step (sampling: 2.40 to 2.40), 0.0375 J a sample;" in lines
        assert "               covers package-0 on each of 2 machines" in lines

    def test_counts_a_gpu_that_ranks_share_once(self, tmp_path: Path) -> None:
        devices = [a_gpu("a"), a_gpu("a"), a_gpu("b")]
        record = machine_record(ranks=3, settings={"device": "cuda"}, device=devices[0], devices=devices)
        lines = told([load_run(write_ranks(tmp_path / "run", record, [trace_of([20] * 9)] * 3))])

        assert "cuda: 2 x NVIDIA H100 80GB HBM3, torch 2.13.0" in lines

    def test_of_many_ranks_shows_the_ends(self, tmp_path: Path) -> None:
        record = machine_record(ranks=12, devices=[])
        work = [[10 + rank] * 9 for rank in range(12)]
        lines = told([load_run(write_ranks(tmp_path / "run", record, [trace_of([25] * 9)] * 12, work_ms=work))])

        assert [line for line in lines if "of its step" in line] == [
            "  Own work     rank 0   10.0 ms (median)   40% of its step",
            "               rank 11  21.0 ms (median)   84% of its step",
        ]

    def test_a_sleep_has_ranks_too(self, tmp_path: Path) -> None:
        record = machine_record(settings={"model": "sleep", "mode": "inference"})
        lines = told([load_run(write_ranks(tmp_path / "run", record, [trace_of([20] * 9)] * 2))])

        assert lines[0] == "sleep, 10.0 ms a step on each of 2 ranks (the control)"

    def test_a_table_says_whose_a_batch_is(self, tmp_path: Path) -> None:
        with_straggler(tmp_path / "one")
        two_ranks(tmp_path / "two")
        text = " ".join(as_terminal(runs_in(tmp_path)).split())

        assert "dropout on, 2 ranks" in text
        assert "A batch is that of each rank: a step of 2 ranks takes as many batches." in text
        assert "Rank 1 (Abacus 3000) is a straggler from step 60 on" in text


def test_markdown_says_whose_a_batch_is(tmp_path: Path) -> None:
    text = as_markdown([load_run(two_ranks(tmp_path / "run"))])

    assert "2 ranks" in text
    assert "A batch is that of each rank: a step of 2 ranks takes as many batches." in text


def test_json_has_the_ranks_and_the_stragglers_with_the_verdict_on_the_whole(tmp_path: Path) -> None:
    found: dict[str, Any] = json.loads(as_json([load_run(with_straggler(tmp_path / "run"))]))

    assert (found["ranks"], found["batch_size"], found["global_batch_size"]) == (2, 16, 32)
    assert found["stragglers"] == [
        {
            **{"rank": 1, "node": 0, "host": "alpha", "device": "Abacus 3000", "uuid": None, "ratio": 28 / 18},
            **{"own_work_ms": 28.0, "others_ms": 18.0, "behind_ms": 10.0, "since_step": 60, "until_step": None},
        }
    ]
    assert [list(rank) for rank in found["per_rank"]] == [
        [
            *("rank", "node", "device", "uuid", "latency_mean_ms", "latency_median_ms"),
            *("own_work_ms", "own_work_share"),
        ]
    ] * 2
    assert (found["slowdown"]["verdict"], found["slowdown"]["from_step"]) == ("slowdown", 60)


def test_csv_has_a_column_for_the_global_batch_and_the_stragglers(tmp_path: Path) -> None:
    with_straggler(tmp_path / "one")
    two_machines(tmp_path / "two")
    one, two = csv.DictReader(io.StringIO(as_csv(runs_in(tmp_path))))

    names = ("ranks", "nnodes", "global_batch_size", "stragglers")
    assert [one[name] for name in names] == ["2", "1", "32", "1"]
    assert [two[name] for name in names] == ["4", "2", "64", ""]


def test_html_states_the_global_batch_and_names_stragglers(tmp_path: Path) -> None:
    page = as_html([load_run(with_straggler(tmp_path / "run"))])

    assert "A step of several ranks is over when the last of them has ended it." in page
    assert ON_TWO in page
    assert "batch of all ranks together" in page
    assert "is a straggler from step 60 on" in page


class TestPerfetto:
    def events(self, *named: Path) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(as_perfetto(runs_in(*named)))["traceEvents"]
        return found

    @pytest.mark.parametrize("machine", [0, 1])
    def test_each_rank_has_its_tracks_by_its_number_in_the_whole_run(self, tmp_path: Path, machine: int) -> None:
        events = self.events(two_machines(tmp_path)[machine])
        tracks = [event["args"]["name"] for event in events if event["name"] == "thread_name"]

        assert [name for name in tracks if name.startswith("rank")] == [
            f"rank {rank}: {what}"
            for rank in (2 * machine, 2 * machine + 1)
            for what in ("steps, from edge to edge", "Python submits")
        ]

    def test_all_machines_are_on_one_time_line(self, tmp_path: Path) -> None:
        two_machines(tmp_path)
        steps = [event for event in self.events(tmp_path) if event["ph"] == "X" and event["name"] == "step"]

        assert len(steps) == 400
        assert {event["tid"] for event in steps} == {2, 4, 6, 8}
        assert len({event["ts"] for event in steps}) == 100

    def test_a_step_tells_how_long_its_rank_worked_itself(self, tmp_path: Path) -> None:
        steps = [event for event in self.events(with_straggler(tmp_path / "run")) if event["name"] == "step"]

        assert [event["args"]["own_work_ms"] for event in steps[119:121]] == [18.0, 18.0]
        assert steps[-1]["args"] == {"stage": "step", "step": 119, "steps": 1, "own_work_ms": 28.0}

    def test_the_straggler_is_noted_where_the_steps_begin(self, tmp_path: Path) -> None:
        events = self.events(with_straggler(tmp_path / "run"))

        assert any(event["ph"] == "i" and event["name"].startswith("Rank 1 (") for event in events)
