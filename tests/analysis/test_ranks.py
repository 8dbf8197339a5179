"""Which rank the others wait for, by how much and since when; and that nobody is named without need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from powerbench.analysis.causes import Cause, find_causes
from powerbench.analysis.checked import verdict_on
from powerbench.analysis.lanes import lanes_of
from powerbench.analysis.latencies import from_edges
from powerbench.analysis.ranks import Rank, Straggler, figures_of, find_stragglers, on_ranks, sentences
from powerbench.analysis.recorded import Recorded, ranks_of, recorded_of
from powerbench.records import Cell, Gauge, PhaseSpan, StepTrace
from powerbench.reports.summaries import summarize_run
from powerbench.rundir import RunDir
from powerbench.rundir.lines import TELEMETRY_HEADER, LineWriter, gauge_line
from powerbench.rundir.load import load_run
from powerbench.rundir.many import Runs, find_readable
from powerbench.rundir.phases import PHASES_HEADER, phase_line
from tests.ranked import (
    a_cpu,
    a_gpu,
    a_gpu_rail,
    machine_record,
    trace_of,
    two_machines,
    two_ranks,
    with_straggler,
    write_ranks,
)
from tests.rundir import MS, START, a_cell

TRAINING = a_cell(model="bert-base-cased", mode="training", ranks=4)


def noise(share: float, steps: int, *, seed: int) -> list[float]:
    import numpy as np

    values: list[float] = np.exp(np.random.default_rng(seed).normal(0, share, steps)).tolist()
    return values


def ranks_working(*work_ms: Sequence[float], warmup: int = 0) -> tuple[list[Rank], StepTrace]:
    """Ranks with so much own work in each step after the warm-up, and the steps of the whole."""
    steps = len(work_ms[0]) + warmup
    trace = trace_of([100] * steps)
    trace.stage[:warmup] = ["warmup"] * warmup
    ranks = [
        Rank(at, 0, None, a_cpu(), trace, {step: round(ms * MS) for step, ms in enumerate(its, warmup)})
        for at, its in enumerate(work_ms)
    ]
    return ranks, trace


def stragglers(*work_ms: Sequence[float], warmup: int = 0) -> list[tuple[int, int, int | None]] | None:
    """Each as its rank, the step from which on, and the one up to which."""
    found = find_stragglers(*ranks_working(*work_ms, warmup=warmup))
    return None if found is None else [(it.rank, it.since_step, it.until_step) for it in found]


class TestAStraggler:
    def test_from_the_first_step_on(self) -> None:
        (found,) = find_stragglers(*ranks_working([20] * 50, [30] * 50, [20] * 50)) or []

        assert (found.rank, found.since_step, found.until_step) == (1, 0, None)
        assert (found.ratio, found.own_work_ms, found.others_ms, found.behind_ms) == (1.5, 30.0, 20.0, 10.0)

    def test_from_step_60_on_has_the_figures_of_the_steps_from_there(self) -> None:
        (found,) = find_stragglers(*ranks_working([20] * 120, [20] * 60 + [30] * 60)) or []

        assert (found.since_step, found.until_step) == (60, None)
        assert (found.ratio, found.own_work_ms, found.others_ms, found.behind_ms) == (1.5, 30.0, 20.0, 10.0)

    def test_is_found_in_noise_at_the_step_where_it_began(self) -> None:
        quiet, other = noise(0.03, 200, seed=1), noise(0.03, 200, seed=2)
        slow = [ms * (1.2 if at >= 80 else 1.0) for at, ms in enumerate(other)]
        (found,) = find_stragglers(*ranks_working(quiet, slow)) or []

        assert (found.rank, found.until_step) == (1, None)
        assert found.since_step == pytest.approx(80, abs=3)
        assert found.ratio == pytest.approx(1.2, abs=0.02)

    def test_that_recovered_is_one_up_to_that_step(self) -> None:
        assert stragglers([20] * 120, [30] * 70 + [20] * 50) == [(1, 0, 70)]

    def test_steps_are_counted_from_the_first_measured_one(self) -> None:
        assert stragglers([20] * 120, [20] * 60 + [30] * 60, warmup=5) == [(1, 60, None)]

    def test_the_slowest_is_named_first(self) -> None:
        assert stragglers([20] * 30, [24] * 30, [20] * 30, [26] * 30, [20] * 30) == [(3, 0, None), (1, 0, None)]

    def test_half_of_the_ranks_may_be_stragglers(self) -> None:
        assert stragglers([20] * 30, [20] * 30, [25] * 30, [25] * 30) == [(2, 0, None), (3, 0, None)]

    def test_that_was_slow_already_and_became_slower_was_one_from_the_start(self) -> None:
        assert stragglers([20] * 120, [24] * 60 + [30] * 60) == [(1, 0, None)]

    def test_whose_work_wanders_is_one_where_it_is_slower_all_the_time(self) -> None:
        wave = [1.3 + 0.2 * ((at // 6) % 2) for at in range(120)]

        assert stragglers([20] * 120, [20 * ratio for ratio in wave]) == [(1, 0, None)]

    def test_is_sure_where_it_is_much_slower_each_time_by_however_much(self) -> None:
        """As it was measured on two cores that others were using: no interval of its mean is narrow enough."""
        measured = (
            *(3.8, 6.2, 3.1, 3.1, 3.5, 4.5, 5.4, 3.4, 3.2, 3.0, 3.2, 4.1, 3.5, 3.6, 3.5),
            *(4.0, 15.0, 5.8, 5.2, 11.1, 12.7, 4.4, 4.0, 4.7, 4.2, 6.8, 3.5, 4.7, 8.2, 6.7),
        )

        assert stragglers([20] * 30, [20 * ratio for ratio in measured]) == [(1, 0, None)]


class TestNobody:
    def test_is_named_where_all_work_alike(self) -> None:
        assert stragglers([20] * 50, [20] * 50) == []

    def test_is_named_for_less_than_five_percent(self) -> None:
        assert stragglers([20] * 50, [20.9] * 50) == []
        assert stragglers([20] * 50, [21.1] * 50) == [(1, 0, None)]

    @pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
    def test_is_named_for_noise(self, share: float) -> None:
        for seed in range(0, 24, 4):
            assert stragglers(*(noise(share, 60, seed=seed + rank) for rank in range(4))) == []

    def test_is_named_for_single_slow_steps(self) -> None:
        assert stragglers([20] * 100, [60 if at % 10 == 0 else 20 for at in range(100)]) == []

    def test_can_be_told_of_few_steps(self) -> None:
        assert stragglers([20] * 19, [40] * 19) is None
        assert stragglers([20] * 20, [40] * 20) == [(1, 0, None)]

    def test_can_be_told_where_the_work_of_one_was_not_recorded(self) -> None:
        assert stragglers([20] * 50, []) is None

    def test_can_be_told_of_one_rank(self) -> None:
        assert stragglers([20] * 50) is None


def straggler(rank: int = 3, **changes: object) -> Straggler:
    facts: dict[str, object] = {
        **{"rank": rank, "node": 1, "host": "beta", "device": "NVIDIA H100", "uuid": "GPU-b"},
        **{"ratio": 1.5, "own_work_ms": 30.0, "others_ms": 20.0, "behind_ms": 10.0, "since_step": 60},
        "until_step": None,
    }
    return Straggler(**facts | changes)  # type: ignore[arg-type]  # values of several types by name


class TestInWords:
    def told(self, cell: Cell, *found: Straggler) -> list[str]:
        return sentences(found, cell)

    def test_it_is_named_with_its_place_its_work_and_since_when(self) -> None:
        cell = a_cell(model="bert-base-cased", mode="training", ranks=2, nnodes=2)

        assert self.told(cell, straggler()) == [
            "Rank 3 (NVIDIA H100, GPU-b, node 1 on beta) is a straggler from step 60 on: it works 30.0 ms in a step, "
            "the others 20.0 ms (1.50 times), and they wait 10.0 ms a step for it."
        ]

    def test_one_machine_needs_no_name(self) -> None:
        (told,) = self.told(TRAINING, straggler(since_step=0, uuid=None, device="AMD EPYC", until_step=70))

        assert told.startswith("Rank 3 (AMD EPYC) is a straggler up to step 70: ")

    def test_where_nobody_waits_the_whole_takes_longer(self) -> None:
        (told,) = self.told(a_cell(model="sleep", ranks=2), straggler())

        assert told.endswith("(1.50 times), and a step of the whole takes 10.0 ms longer for it.")

    def test_the_others_wait_for_the_slowest_alone_and_of_many_three_are_named(self) -> None:
        told = self.told(TRAINING, *(straggler(rank) for rank in range(5)))

        assert len(told) == 4
        assert [("wait" in sentence) for sentence in told] == [True, False, False, False]
        assert told[-1] == "2 ranks more are behind the others."

    @pytest.mark.parametrize(
        ("cell", "words"),
        [
            (a_cell(), ""),
            (a_cell(ranks=2, batch_size=32), " on each of 2 ranks (batch 64 a step)"),
            (a_cell(ranks=8, nnodes=2, batch_size=32), " on each of 16 ranks (batch 512 a step)"),
            (a_cell(ranks=2, model="sleep"), " on each of 2 ranks"),
        ],
    )
    def test_a_batch_is_told_with_that_of_all_ranks(self, cell: Cell, words: str) -> None:
        assert on_ranks(cell) == words


class TestOfARun:
    def test_each_rank_has_its_own_figures(self, tmp_path: Path) -> None:
        per_rank = summarize_run(load_run(with_straggler(tmp_path / "run"))).per_rank

        assert per_rank is not None
        assert [(it.rank, it.node, it.device, it.uuid) for it in per_rank] == [
            (0, 0, "Abacus 3000", None),
            (1, 0, "Abacus 3000", None),
        ]
        assert [(it.latency_mean_ms, it.latency_median_ms) for it in per_rank] == [(25.0, 25.0)] * 2
        assert [(it.own_work_ms, it.own_work_share) for it in per_rank] == [(18.0, 0.72), (23.0, 0.92)]

    def test_the_straggler_is_named_in_the_notes(self, tmp_path: Path) -> None:
        summary = summarize_run(load_run(with_straggler(tmp_path / "run")))

        assert [(it.rank, it.since_step) for it in summary.stragglers or []] == [(1, 60)]
        assert summary.notes[0].startswith("Rank 1 (Abacus 3000) is a straggler from step 60 on: ")

    def test_py_spy_looks_at_one_of_them(self, tmp_path: Path) -> None:
        settings = {"py_spy": True}
        alone = summarize_run(load_run(two_ranks(tmp_path / "run", settings=settings)))
        two_machines(tmp_path / "two", changes=({"settings": settings}, {"settings": settings}))
        (joined,) = map(summarize_run, Runs(find_readable([tmp_path / "two"]).items))

        assert any("py-spy stopped rank 0 about 100 times a second" in note for note in alone.notes)
        assert any("py-spy stopped the first rank of each machine about 100" in note for note in joined.notes)

    def test_of_one_rank_there_is_nobody_to_wait_for(self, tmp_path: Path) -> None:
        record = machine_record(ranks=1)
        run = load_run(write_ranks(tmp_path / "run", record, [trace_of([20] * 50)]))
        summary = summarize_run(run)

        assert (ranks_of(run), summary.stragglers, summary.per_rank) == (None, None, None)
        assert (summary.ranks, summary.global_batch_size) == (1, 16)

    def test_throughput_is_that_of_the_global_batch(self, tmp_path: Path) -> None:
        summary = summarize_run(load_run(two_ranks(tmp_path / "run")))

        assert (summary.ranks, summary.batch_size, summary.global_batch_size) == (2, 16, 32)
        assert (summary.wall_s, summary.samples_per_s) == (2.0, 1600.0)

    def test_a_rank_without_own_work_and_without_device_has_none(self) -> None:
        found = figures_of(Rank(1, 0, None, None, StepTrace(), {}))

        assert (found.device, found.latency_mean_ms, found.own_work_ms, found.own_work_share) == (None,) * 4

    def test_of_a_run_that_slowed_down_the_straggler_is_looked_at(self, tmp_path: Path) -> None:
        recorded = recorded_of(load_run(with_straggler(tmp_path / "run")))

        assert (recorded.rank, [*recorded.neighbours]) == (1, [0, 1])
        assert recorded_of(load_run(two_ranks(tmp_path / "other"))).rank == 0

    def test_so_is_its_device_among_those_of_all_ranks(self, tmp_path: Path) -> None:
        devices, rails = [a_gpu("a"), a_gpu("b")], {"gpu0": a_gpu_rail("a"), "gpu1": a_gpu_rail("b")}
        settings = {"settings": {"device": "cuda"}, "device": devices[0], "devices": devices, "rails": rails}
        path = with_straggler(tmp_path / "run", **settings)
        clocks = [Gauge(START + at * MS, f"gpu{at % 2}.clock_mhz", 1000 + at % 2) for at in range(10)]
        writer = LineWriter(RunDir(path).telemetry, header=TELEMETRY_HEADER)
        writer.write(map(gauge_line, clocks))
        writer.close()

        lane = next(lane for lane in lanes_of(recorded_of(load_run(path))) if lane.name == "clock")
        assert (lane.subject, set(lane.values)) == ("gpu1", {1001})

    def test_phases_are_those_of_the_rank_that_is_looked_at(self, tmp_path: Path) -> None:
        path = with_straggler(tmp_path / "run", settings={"phases": True})
        for rank, copy_ms in enumerate((1, 5)):
            rows = LineWriter(RunDir(path).phases(rank), header=PHASES_HEADER)
            rows.write(phase_line(PhaseSpan(step, "copy", START, START + copy_ms * MS)) for step in range(120))
            rows.close()
        summary = summarize_run(load_run(path))

        assert summary.phases is not None
        assert summary.phases["copy"].ms == 5.0
        assert "The phases are those of rank 1." in summary.notes

    def test_on_several_machines_its_machine_is_looked_at(self, tmp_path: Path) -> None:
        one, other = two_machines(tmp_path)
        record = machine_record(nnodes=2, node=1)
        steps = load_run(other).steps
        write_ranks(tmp_path / "slow", record, steps, work_ms=[[18] * 100, [36] * 100])
        (run,) = Runs(find_readable([one, tmp_path / "slow"]).items)
        recorded = recorded_of(run)

        assert (recorded.rank, [*recorded.neighbours]) == (3, [2, 3])
        assert recorded.ranks is not None
        assert [(it.rank, it.host) for it in recorded.ranks.stragglers or []] == [(3, "beta")]


class TestWhyTheWholeBecameSlower:
    def causes(self, recorded: Recorded) -> list[Cause]:
        return find_causes(recorded, verdict_on(from_edges(recorded.steps)))

    def test_is_told_by_the_rank_that_alone_became_slower(self, tmp_path: Path) -> None:
        (found,) = self.causes(recorded_of(load_run(with_straggler(tmp_path / "run"))))

        assert found.cause == "straggler"
        assert found.evidence == (
            "Rank 1 (Abacus 3000) works 28.0 ms in a step, before 18.0 ms, while a step went from 20.0 ms to 30.0 ms; "
            "the others 18.0 ms, before 18.0 ms."
        )
        assert found.counter_evidence is None

    def test_is_not_told_by_ranks_that_became_slower_together(self, tmp_path: Path) -> None:
        steps = [trace_of([20] * 60 + [30] * 60)] * 2
        work = [[18] * 60 + [28] * 60] * 2
        run = load_run(write_ranks(tmp_path / "run", machine_record(), steps, work_ms=work))

        assert self.causes(recorded_of(run)) == []

    def test_others_that_became_somewhat_slower_speak_against_it(self, tmp_path: Path) -> None:
        steps = [trace_of([20] * 60 + [32] * 60)] * 2
        work = [[18] * 60 + [20] * 60, [18] * 60 + [30] * 60]
        (found,) = self.causes(
            recorded_of(load_run(write_ranks(tmp_path / "run", machine_record(), steps, work_ms=work)))
        )

        assert found.counter_evidence == "The others became slower too, by 11%."

    def test_other_load_is_what_no_worker_of_the_machine_used(self) -> None:
        """Two workers that keep 2 and 3 of 8 busy cores leave 3 to others."""
        times = [0, 10**9, 2 * 10**9]
        gauges = {
            "system.cpu_ratio": [(time, 1.0) for time in times],
            "worker0.cpu_cores": [(time, 2.0) for time in times],
            "worker1.cpu_cores": [(time, 3.0) for time in times],
        }
        recorded = Recorded(machine_record(), trace_of([20] * 9), gauges, neighbours=[0, 1])

        (lane,) = [lane for lane in lanes_of(recorded) if lane.name == "others"]
        assert lane.values == [3.0] * 3
        assert recorded.of_workers("rss_bytes") == []


def test_a_rank_that_was_stopped_to_be_looked_at_is_no_straggler(tmp_path: Path) -> None:
    run = load_run(with_straggler(tmp_path / "run"))
    named = ranks_of(run)
    assert named is not None
    assert named.stragglers

    looked_at = replace(run.record, cell=replace(run.record.built_in, py_spy=True))
    RunDir(run.path).write_record(looked_at)

    unnamed = ranks_of(load_run(run.path))
    assert unnamed is not None
    assert unnamed.stragglers is None
