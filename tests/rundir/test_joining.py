"""Directories of the machines of one run are one run, on the first one's clock, whatever clocks the others have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from powerbench.errors import PowerbenchError
from powerbench.records import Gauge, Stage, Status, StepTrace, Window
from powerbench.rundir import RunDir
from powerbench.rundir.joining import JoinedRun, join_machines, said_by
from powerbench.rundir.load import Run, load_run
from powerbench.rundir.many import Machines, Runs, find_readable
from tests.ranked import a_cpu, a_package, machine_record, trace_of, two_machines, two_ranks, write_ranks
from tests.rundir import MS, START, rows_of

AHEAD = 10**15


def joined(folder: Path, **settings: Any) -> Run:
    return join_machines([load_run(path) for path in two_machines(folder, **settings)])


class TestJoined:
    def test_ranks_and_devices_are_those_of_all_machines(self, tmp_path: Path) -> None:
        run = joined(tmp_path)

        assert (run.ranks, len(run.steps)) == ([0, 1, 2, 3], 4)
        assert run.record.devices == [a_cpu()] * 4
        assert run.record.environment["host"] == "alpha, beta"
        assert (run.path, run.record.id) == (tmp_path / "machine-0", "machine-0")

    def test_all_of_it_is_on_the_clock_of_the_first(self, tmp_path: Path) -> None:
        run = joined(tmp_path)

        assert {steps.start_ns[0] for steps in run.steps} == {START}
        assert {curve.time_ns[0] for curve in run.curves().values()} == {START - 1000 * MS}
        assert run.record.windows == {"measured": Window(START, START + 2000 * MS)}

    def test_a_step_is_over_when_the_slowest_machine_has_ended_it(self, tmp_path: Path) -> None:
        run = joined(tmp_path, lengths=([20, 20, 20], [25, 10, 20]))

        assert [end - start for start, end, _ in run.together.spans("step")] == [25 * MS, 15 * MS, 20 * MS]

    def test_rails_and_gauges_have_their_machine_before_their_name(self, tmp_path: Path) -> None:
        for node in range(2):
            record = machine_record(nnodes=2, node=node, rails={"package-0": a_package()})
            gauges = [
                Gauge(START + node * AHEAD, "system.cpu_ratio", 0.5),
                Gauge(START + node * AHEAD, f"worker{2 * node}.rss_bytes", 7),
                Gauge(START + node * AHEAD, "thermal_pressure", "nominal"),
            ]
            steps = [trace_of([20], start_ns=START + node * AHEAD)] * 2
            write_ranks(tmp_path / f"{node}", record, steps, gauges=gauges, watts={"package-0": 1})

        run = join_machines([load_run(tmp_path / "1"), load_run(tmp_path / "0")])

        assert list(run.record.rails) == list(run.curves()) == ["node0.package-0", "node1.package-0"]
        assert run.telemetry() == {
            "node0.system.cpu_ratio": [(START, 0.5)],
            "node1.system.cpu_ratio": [(START, 0.5)],
            "worker0.rss_bytes": [(START, 7.0)],
            "worker2.rss_bytes": [(START, 7.0)],
        }
        assert run.words()["node1.thermal_pressure"] == [(START, "nominal")]

    def test_what_a_rank_did_and_said_is_found_on_its_machine(self, tmp_path: Path) -> None:
        said = {"event": "gc", "time_ns": START + AHEAD + 5, "end_ns": START + AHEAD + 9, "pause_ns": 4}
        one, other = two_machines(tmp_path)
        RunDir(other).events(3).write_bytes(msgspec.json.encode(said) + b"\n")
        run = join_machines([load_run(one), load_run(other)])

        assert run.events(3) == [{"event": "gc", "time_ns": START + 5, "end_ns": START + 9, "pause_ns": 4}]
        assert run.events(2) == []
        assert run.work(3) == dict.fromkeys(range(100), 18 * MS)
        assert run.work(4) == {}

    def test_a_machine_without_a_step_leaves_the_whole_without_one(self, tmp_path: Path) -> None:
        one, _ = two_machines(tmp_path)
        record = machine_record(nnodes=2, node=1, status="failed", reason="it rained")
        other = write_ranks(tmp_path / "other", record, [trace_of([])] * 2)
        run = join_machines([load_run(one), load_run(other)])

        assert (len(run.together), run.record.windows) == (0, {})

    def test_where_one_was_killed_in_its_warmup_first_steps_are_one_moment(self, tmp_path: Path) -> None:
        runs = []
        of_each: list[list[Stage]] = [["warmup"], ["warmup", "step"]]
        for node, stages in enumerate(of_each):
            steps = trace_of([20] * len(stages), start_ns=START + node * AHEAD)
            steps = StepTrace(stages, steps.start_ns, steps.submit_ns, steps.end_ns)
            record = machine_record(nnodes=2, node=node, status="failed")
            runs.append(load_run(write_ranks(tmp_path / f"{node}", record, [steps] * 2)))

        assert join_machines(runs).together.spans("warmup") == [(START, START + 20 * MS, 1)]

    def test_one_directory_is_itself(self, tmp_path: Path) -> None:
        alone = load_run(two_ranks(tmp_path / "run"))

        assert join_machines([alone]) is alone

    @pytest.mark.parametrize(
        ("of_each", "status", "reason"),
        [
            ([("complete", None), ("complete", None)], "complete", None),
            ([("interrupted", "by Ctrl-C"), ("interrupted", "by Ctrl-C")], "interrupted", "by Ctrl-C"),
            (
                [("failed", "node 1 is gone"), ("oom", "rank 2 ran out of memory")],
                "oom",
                "node 1: rank 2 ran out of memory; node 0: node 1 is gone",
            ),
            (
                [("failed", "on beta (node 1), rank 2 was killed"), ("failed", "rank 2 was killed")],
                "failed",
                "node 1: rank 2 was killed",
            ),
            ([("running", None), ("complete", None)], "running", None),
        ],
    )
    def test_it_stands_as_the_machine_that_fared_worst(
        self, tmp_path: Path, of_each: list[tuple[Status, str | None]], status: Status, reason: str | None
    ) -> None:
        runs = []
        for path, (its, why) in zip(two_machines(tmp_path), of_each, strict=True):
            run = load_run(path)
            runs.append(Run(path, msgspec.structs.replace(run.record, status=its, reason=why), run.steps))
        record = join_machines(runs).record

        assert (record.status, record.reason) == (status, reason)

    def test_memory_is_that_of_the_largest_rank_of_all(self, tmp_path: Path) -> None:
        told: list[dict[str, Any]] = [
            {"peak_memory_bytes": size, "peak_memory_of": of} for size, of in ((100, "of rank 1"), (300, "of rank 2"))
        ]
        record = joined(tmp_path, changes=(told[0], told[1])).record

        assert (record.peak_memory_bytes, record.peak_memory_of) == (300, "of rank 2, on node 1")

    def test_what_all_machines_note_is_said_once(self) -> None:
        assert said_by({0: ["all", "one"], 1: ["all"]}) == ["all", "On node 0: one"]
        assert said_by({0: ["It rained."], 1: [], 2: ["It rained."]}) == ["On nodes 0 and 2: It rained."]


def test_directories_of_one_run_are_found_as_one_wherever_they_lie(tmp_path: Path) -> None:
    one, other = two_machines(tmp_path / "shared")
    alone = two_ranks(tmp_path / "alone")

    for named in ([tmp_path / "shared"], [one, other], [other, one]):
        assert find_readable(named).items == [Machines((one, other))]
    assert find_readable([other, alone, one]).items == [Machines((one, other)), alone]
    (run,) = Runs(find_readable([other, one]).items)
    assert isinstance(run, JoinedRun)
    assert run.ranks == [0, 1, 2, 3]


def test_a_directory_whose_partners_are_missing_is_a_run_alone(tmp_path: Path) -> None:
    _, other = two_machines(tmp_path)
    found = find_readable([other])
    (run,) = Runs(found.items)

    assert found.items == [other]
    assert (run.ranks, rows_of(run.together)[:1]) == ([2, 3], rows_of(trace_of([20], start_ns=START + AHEAD)))


def test_machines_that_never_met_are_runs_of_their_own(tmp_path: Path) -> None:
    records = [machine_record(nnodes=2, node=node, met=None) for node in range(2)]
    paths = [write_ranks(tmp_path / f"{at}", record, [trace_of([])] * 2) for at, record in enumerate(records)]

    assert find_readable([tmp_path]).items == paths


def test_a_copy_of_a_machines_directory_is_left_out(tmp_path: Path) -> None:
    one, other = two_machines(tmp_path)
    copied = (tmp_path / "machine-1").rename(tmp_path / "machine-1-copy")
    two_machines(tmp_path)
    found = find_readable([tmp_path])

    assert found.items == [Machines((one, other))]
    assert found.unreadable == [f"{copied} and {other} are of the same machine of one run."]


def test_a_damaged_partner_is_left_out_and_said(tmp_path: Path) -> None:
    one, other = two_machines(tmp_path)
    RunDir(other).record.write_text("{")
    found = find_readable([tmp_path])

    assert found.items == [one]
    assert len(found.unreadable) == 1
    with pytest.raises(PowerbenchError):
        find_readable([other])
