"""Joules of several ranks and machines: sums, each machine cut at its own ranks' edges, each GPU once."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerbench.analysis.counted import counted_rails
from powerbench.analysis.energy import Energy
from powerbench.analysis.recorded import hosts_of
from powerbench.analysis.summary import Summary
from powerbench.records import Clock, DeviceRecord, RunRecord
from powerbench.reports.summaries import summarize_run
from powerbench.rundir.load import Run, load_run
from powerbench.rundir.many import Runs, find_readable
from tests.ranked import (
    a_cpu,
    a_gpu,
    a_gpu_rail,
    a_package,
    machine_record,
    trace_of,
    two_machines,
    two_ranks,
    write_ranks,
)
from tests.rundir import START

LASTING_6_S = [60.0] * 100


def the_run(*named: Path) -> Run:
    (run,) = Runs(find_readable(named).items)
    return run


def figures(*named: Path) -> Summary:
    return summarize_run(the_run(*named))


def energy(*named: Path) -> Energy:
    found = figures(*named).energy
    assert found is not None
    return found


class TestOfOneMachine:
    def test_a_package_is_counted_once_whoever_shares_it(self, tmp_path: Path) -> None:
        """50 W for 2 s are 100 J: 1 J a step of two batches of 16."""
        found = energy(two_ranks(tmp_path / "run", watts=50))

        assert (found.total_j, found.j_per_step, found.j_per_sample) == pytest.approx((100, 1, 1 / 32))
        assert (found.mean_w, found.peak_w) == pytest.approx((50, 50))
        assert found.scope == "package-0"

    def test_they_are_cut_where_the_last_rank_has_ended(self, tmp_path: Path) -> None:
        record = machine_record(rails={"package-0": a_package()})
        steps = [trace_of([20] * 100), trace_of([25] * 100)]
        found = energy(write_ranks(tmp_path / "run", record, steps, watts={"package-0": 50}))

        assert (found.total_j, found.j_per_step) == pytest.approx((125, 1.25))


class TestOfGpus:
    def a_run(self, folder: Path, *uuids: str | None, metered: str = "abc", share: int = 1) -> Path:
        """Ranks on these GPUs; those called `metered` have a meter, and draw 100 W, 200 W, 300 W."""
        devices = [a_gpu(uuid) for uuid in uuids]
        record = machine_record(
            ranks=len(devices),
            settings={"device": "cuda"},
            device=devices[0],
            devices=devices,
            rails={f"gpu{at}": a_gpu_rail(uuid) for at, uuid in enumerate(metered)},
        )
        watts = {f"gpu{at}": 100.0 * (at + 1) for at in range(len(metered))}
        return write_ranks(folder / "run", record, [trace_of(LASTING_6_S)] * len(devices), watts=watts)

    def test_those_that_ranks_used_are_counted_and_one_that_none_used_is_shown(self, tmp_path: Path) -> None:
        found = energy(self.a_run(tmp_path, "a", "c"))

        assert found.mean_w == pytest.approx(400)
        assert found.scope == "gpu0 + gpu2"
        assert {name: rail.counted for name, rail in found.rails.items()} == {"gpu0": True, "gpu1": False, "gpu2": True}
        assert found.rails["gpu1"].mean_w == pytest.approx(200)

    def test_one_that_two_ranks_share_is_counted_once(self, tmp_path: Path) -> None:
        found = energy(self.a_run(tmp_path, "b", "b"))

        assert found.mean_w == pytest.approx(200)
        assert found.scope == "gpu1"

    def test_where_one_of_them_has_no_meter_there_is_no_sum(self, tmp_path: Path) -> None:
        summary = figures(self.a_run(tmp_path, "a", "b", metered="a"))

        assert summary.energy is None
        assert summary.energy_reason == "ranks stepped on 1 GPU that no meter saw (b)"

    def test_where_it_is_not_known_which_one_a_rank_used_there_is_no_sum(self, tmp_path: Path) -> None:
        summary = figures(self.a_run(tmp_path, "a", None, metered="a"))

        assert summary.energy is None
        assert "device's own" in str(summary.energy_reason)


class TestOfTwoMachines:
    def test_joules_are_summed(self, tmp_path: Path) -> None:
        """50 W and 70 W for 2 s are 240 J: 2.4 J for each of 100 steps of 64 samples."""
        two_machines(tmp_path, watts=(50, 70))
        found = energy(tmp_path)

        assert (found.total_j, found.j_per_step, found.j_per_sample) == pytest.approx((240, 2.4, 2.4 / 64))
        assert found.mean_w == pytest.approx(120)
        assert (found.peak_w, found.readings) == (None, 21)
        assert found.scope == "package-0 on each of 2 machines"
        assert {name: rail.j_per_step for name, rail in found.rails.items()} == pytest.approx(
            {"node0.package-0": 1.0, "node1.package-0": 1.4}
        )

    def test_half_widths_are_added(self, tmp_path: Path) -> None:
        paths = two_machines(tmp_path)
        whole, each = energy(tmp_path), [energy(path) for path in paths]

        half = sum(it.total_j_sampling_ci95[1] - it.total_j for it in each)
        assert whole.total_j_sampling_ci95 == pytest.approx((whole.total_j - half, whole.total_j + half))

    def test_each_is_cut_at_its_own_edges(self, tmp_path: Path) -> None:
        """One machine was at it for 2 s, the other for 2.5 s: 100 J and 175 J; a step takes as long as the slower."""
        two_machines(tmp_path, watts=(50, 70), lengths=([20] * 100, [25] * 100))
        summary = figures(tmp_path)

        assert summary.energy is not None
        assert (summary.energy.total_j, summary.energy.j_per_step) == pytest.approx((275, 2.75))
        assert (summary.wall_s, summary.samples_per_s) == (2.5, 64 * 100 / 2.5)

    def test_of_one_that_got_further_only_the_steps_that_all_reached_count(self, tmp_path: Path) -> None:
        """A kill leaves 120 steps here and 100 there: 100 J and 140 J for 100 steps of the whole."""
        two_machines(tmp_path, watts=(50, 70), lengths=([20] * 120, [20] * 100))
        summary = figures(tmp_path)

        assert summary.energy is not None
        assert summary.steps == 100
        assert (summary.energy.total_j, summary.energy.j_per_step) == pytest.approx((240, 2.4))

    def test_one_without_a_meter_leaves_the_whole_without_joules_and_is_named(self, tmp_path: Path) -> None:
        two_machines(tmp_path, watts=(50, None))
        summary = figures(tmp_path)

        assert (summary.energy, summary.energy_reason) == (None, "node 1: no meter was recorded with this run")

    def test_one_that_is_missing_leaves_those_of_the_other_named_so(self, tmp_path: Path) -> None:
        one, _ = two_machines(tmp_path)
        summary = figures(one)

        assert summary.energy is not None
        assert summary.energy.total_j == pytest.approx(100)
        assert summary.energy.j_per_sample is None
        assert (summary.energy.scope, [*summary.energy.rails]) == ("package-0 of node 0 alone", ["package-0"])
        assert summary.notes[0].startswith("Only node 0 of 2 is here: ")

    def test_one_that_never_met_the_others_misses_none_of_their_directories(self, tmp_path: Path) -> None:
        record = machine_record(nnodes=2, met=None, status="failed", reason="nobody else joined")
        summary = figures(write_ranks(tmp_path / "run", record, [trace_of([])] * 2))

        assert not [note for note in summary.notes if "missing" in note]

    def test_what_differs_between_them_is_told_apart(self, tmp_path: Path) -> None:
        paths = two_machines(tmp_path, changes=({}, {"notes": ["It rained."]}))
        record = load_run(paths[1]).record
        rails = {"package-1": record.rails["package-0"]}
        write_ranks(
            paths[1],
            msgspec.structs.replace(record, rails=rails),
            [trace_of([20] * 100, start_ns=START + 10**15)] * 2,
            watts={"package-1": 70},
        )
        summary = figures(tmp_path)

        assert summary.energy is not None
        assert summary.energy.scope == "package-0 of node 0 and package-1 of node 1"
        assert "On node 1: It rained." in summary.notes

    def test_two_directories_of_one_machine_are_noted(self, tmp_path: Path) -> None:
        clock = Clock(boot_id="one", start_monotonic_ns=1, start_unix_ns=2)
        two_machines(tmp_path, changes=({"clock": clock}, {"clock": clock}))

        (note,) = [note for note in figures(tmp_path).notes if "one machine" in note]
        assert note.startswith("Nodes 0 and 1 are one machine: ")

    def test_a_gpu_that_both_name_is_counted_once(self, tmp_path: Path) -> None:
        for node in range(2):
            devices: list[DeviceRecord] = [a_gpu("a"), a_gpu("a")]
            record = machine_record(
                nnodes=2,
                node=node,
                settings={"device": "cuda"},
                device=devices[0],
                devices=devices,
                rails={"gpu0": a_gpu_rail("a")},
            )
            write_ranks(tmp_path / f"{node}", record, [trace_of(LASTING_6_S)] * 2, watts={"gpu0": 100})

        assert energy(tmp_path).total_j == pytest.approx(600)
        assert counted_rails(the_run(tmp_path).record) == ["node0.gpu0"]

    def test_rails_of_the_joined_record_are_counted_machine_by_machine(self, tmp_path: Path) -> None:
        """A part of one machine's rail, and a source that comes second there, say nothing of the other machine."""
        of_each: list[RunRecord] = [
            machine_record(nnodes=2, node=0, rails={"package-0": a_package(contains=["dram"])}),
            machine_record(
                nnodes=2, node=1, rails={"dram-0": a_package(part="dram"), "apu": a_package(source="hwmon")}
            ),
        ]
        for record in of_each:
            node = 0 if record.node is None else record.node.rank
            write_ranks(tmp_path / f"{node}", record, [trace_of([20])] * 2, watts=dict.fromkeys(record.rails, 1.0))
        run = the_run(tmp_path)

        assert counted_rails(run.record) == ["node0.package-0", "node1.dram-0", "node1.apu"]
        assert [counted_rails(host.record) for host in hosts_of(run)] == [["package-0"], ["dram-0", "apu"]]


@settings(max_examples=15, deadline=None)
@given(
    watts=st.tuples(st.floats(1, 500), st.floats(1, 500)),
    lengths=st.lists(st.integers(15, 60), min_size=60, max_size=60),
    ahead_ns=st.integers(-(10**12), 10**17),
)
def test_joining_conserves_joules(watts: tuple[float, float], lengths: list[int], ahead_ns: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = two_machines(Path(folder), watts=watts, ahead_ns=ahead_ns, lengths=(lengths, lengths[::-1]))
        alone, whole = [energy(path) for path in paths], energy(Path(folder))

    assert whole.total_j == pytest.approx(sum(it.total_j for it in alone))
    assert whole.total_j == pytest.approx(sum(watts) * sum(lengths) / 1000, rel=1e-3)
    assert whole.mean_w == pytest.approx(sum(it.mean_w for it in alone))


class TestTheMostThatDevicesCanDo:
    """The clock did not wait for a device that seems to do more than it can."""

    def noted(self, folder: Path, devices: list[DeviceRecord], *, flop: float) -> bool:
        """Whether it is noted of a run of 50 steps a second."""
        record = machine_record(ranks=len(devices), device=devices[0], devices=devices)
        assert record.workload is not None
        work = msgspec.structs.replace(record.workload, flop_per_step=flop)
        record = msgspec.structs.replace(record, workload=work)
        path = write_ranks(folder / "run", record, [trace_of([20] * 100)] * len(devices))
        return any("more than these devices together can do" in note for note in figures(path).notes)

    def test_is_the_sum_over_those_that_ranks_used(self, tmp_path: Path) -> None:
        devices = [a_gpu("a", plausible_tflop_per_s=1.0), a_gpu("b", plausible_tflop_per_s=2.0)]

        assert not self.noted(tmp_path, devices, flop=2.9e12 / 50)
        assert self.noted(tmp_path, devices, flop=3.1e12 / 50)

    def test_counts_one_that_ranks_share_once(self, tmp_path: Path) -> None:
        for at, device in enumerate((a_gpu("a", plausible_tflop_per_s=1.0), a_cpu(plausible_tflop_per_s=1.0))):
            assert not self.noted(tmp_path / f"{at}", [device] * 2, flop=0.9e12 / 50)
            assert self.noted(tmp_path / f"{at}-more", [device] * 2, flop=1.1e12 / 50)

    def test_is_not_known_where_it_is_not_known_of_one(self, tmp_path: Path) -> None:
        assert not self.noted(tmp_path, [a_gpu("a", plausible_tflop_per_s=1.0), a_gpu("b")], flop=9e12)
