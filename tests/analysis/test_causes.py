"""A slowdown gets the cause that its record speaks for, in exact words, and none that it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerbench.analysis.causes import Cause, Recorded, find_causes, unexplained
from powerbench.analysis.latencies import from_submissions
from powerbench.analysis.slowdown import Slowdown, Spikes, Verdict, find_slowdown
from powerbench.records import DeviceRecord, EnergyCurve, RunRecord, StepTrace, WorkloadRecord
from tests.rundir import MS, START, a_cell, a_rail, a_record, steps_lasting

S = 1_000_000_000
STEPS = 100
FAST_MS, SLOW_MS = 160.0, 230.0
CHANGE_NS = START + round(STEPS * FAST_MS * MS)
END_NS = CHANGE_NS + round(STEPS * SLOW_MS * MS)
TENTH_NS = S // 10
MOMENTS = range(START, END_NS + TENTH_NS, TENTH_NS)
PACE = "while a step went from 160 ms to 230 ms"

Gauges = Mapping[str, Sequence[tuple[int, float]]]


def a_verdict(verdict: Verdict = "slowdown", **changes: Any) -> Slowdown:
    """A jump in the middle of two hundred steps, but for `changes`."""
    found: dict[str, Any] = {
        **{"verdict": verdict, "ratio": 1.44, "ci99": (1.4, 1.5), "shape": "step", "still_rising": False},
        **{"change": 0.44, "from_step": STEPS, "to_step": STEPS, "warmup_steps": 0, "n": 2 * STEPS},
        **{"steady_s": None, "steady_ci99_s": None, "first_s": 0.16, "last_s": 0.23, "more_steps": None},
        "spikes": Spikes(count=0, share_of_time=0.0, first_third=0.0, last_third=0.0),
    }
    return Slowdown(**found | changes)


def slower() -> StepTrace:
    return steps_lasting(*[FAST_MS] * STEPS, *[SLOW_MS] * STEPS)


def level(before: float, after: float, every_ns: int = TENTH_NS) -> list[tuple[int, float]]:
    """A gauge that changes with the steps."""
    return [(time, before if time <= CHANGE_NS else after) for time in range(START, END_NS + every_ns, every_ns)]


def counter(before: float, after: float) -> list[tuple[int, float]]:
    """A counter that rises so much a second before and after."""
    return [(time, rising(time, before, after)) for time in MOMENTS]


def rising(time_ns: int, before: float, after: float) -> float:
    return (before * (min(time_ns, CHANGE_NS) - START) + after * max(0, time_ns - CHANGE_NS)) / S


def growing(first: float, last: float, every_ns: int = TENTH_NS) -> list[tuple[int, float]]:
    """A gauge that rises evenly from the first step to the last."""
    return [
        (time, first + (last - first) * (time - START) / (END_NS - START))
        for time in range(START, END_NS + every_ns, every_ns)
    ]


def drawing(before_w: float, after_w: float) -> EnergyCurve:
    return EnergyCurve(list(MOMENTS), [rising(time, before_w, after_w) for time in MOMENTS])


def memory(**series: Sequence[tuple[int, float]]) -> list[dict[str, Any]]:
    """The worker's memory events, one a second; the series have the same moments."""
    names = list(series)
    return [
        {"event": "memory", "time_ns": values[0][0]}
        | {name: value for name, (_, value) in zip(names, values, strict=True)}
        for values in zip(*series.values(), strict=True)
    ]


def on_cpu(**changes: Any) -> RunRecord:
    environment = {"logical_cores": 8, "memory_bytes": 16e9}
    return a_record(**{"environment": environment, "rails": {"package-0": a_rail(part="package")}} | changes)


def on_cuda(**changes: Any) -> RunRecord:
    its: dict[str, Any] = {
        "cell": a_cell(device="cuda", batch_size=32),
        "device": DeviceRecord(kind="cuda", name="GPU", timer="events", uuid="GPU-1"),
        "rails": {"gpu0": a_rail(source="nvml", part="gpu", uuid="GPU-1")},
    }
    return on_cpu(**its | changes)


def on_mps(**changes: Any) -> RunRecord:
    rails = {part: a_rail(source="powermetrics", part=part, state="estimated") for part in ("cpu", "gpu", "ane")}
    its: dict[str, Any] = {
        "cell": a_cell(device="mps", batch_size=32),
        "device": DeviceRecord(kind="mps", name="M1 Max", timer="clock"),
        "rails": rails,
    }
    return on_cpu(**its | changes)


def causes(
    gauges: Gauges | None = None,
    *,
    record: RunRecord | None = None,
    steps: StepTrace | None = None,
    verdict: Slowdown | None = None,
    **recorded: Any,
) -> list[Cause]:
    found = Recorded(record or on_cpu(), steps or slower(), gauges=gauges or {}, **recorded)
    return find_causes(found, verdict or a_verdict())


def names(found: Sequence[Cause]) -> list[str]:
    return [cause.cause for cause in found]


# A machine that is as it should be: nothing here may ever be taken for a cause.
QUIET: Gauges = {
    "system.cpu_ratio": level(0.3, 0.3),
    "system.steal_ratio": level(0.0, 0.0),
    "worker0.cpu_cores": level(2.0, 2.0),
    "worker0.waited_s": counter(0.001, 0.001),
    "worker0.rss_bytes": level(1e9, 1e9),
    "worker0.page_ins": counter(0, 0),
    "system.swap_out_bytes": counter(0, 0),
    "system.swap_in_bytes": counter(0, 0),
    "system.memory_available_bytes": level(9e9, 9e9),
    "cpu.clock_mhz": level(3000, 3000),
}


def test_what_hardly_changed_is_not_explained_by_trifles() -> None:
    steps = steps_lasting(*[FAST_MS] * STEPS, *[FAST_MS + 0.1] * STEPS)
    gauges = {**QUIET, "worker0.waited_s": counter(0.001, 0.003)}

    assert causes(gauges, steps=steps, verdict=a_verdict("no steady state", from_step=None, to_step=None)) == []


class TestThrottling:
    def test_of_a_gpu_shows_in_its_power_its_clock_and_its_heat(self) -> None:
        gauges = {
            "gpu0.clock_mhz": level(1620, 1100),
            "gpu0.temperature_c": level(61, 84),
            "gpu0.throttle_reasons": level(0x0, 0x20),
            "gpu0.utilization": level(0.99, 0.99),
        }

        found = causes({**QUIET, **gauges}, record=on_cuda(), curves={"gpu0": drawing(300, 180)})

        assert found == [
            Cause(
                cause="throttling",
                evidence="In 100% of looks, before in 0%, gpu0 was held back by heat, by the driver, while a step went "
                "from 160 ms to 230 ms; the power of gpu0 fell from 300 W to 180 W; the clock of gpu0 fell from 1,620 "
                "MHz to 1,100 MHz; its temperature rose from 61 to 84 degrees.",
                counter_evidence=None,
                not_recorded=None,
                experiment=found[0].experiment,
            )
        ]

    def test_of_a_mac_shows_in_its_power_though_clock_and_pressure_deny_it(self) -> None:
        """feedback-assistant/reports#830, llama.cpp#10444."""
        words = {"thermal_pressure": [(time, "Nominal") for time in MOMENTS]}
        curves = {"gpu": drawing(46, 31), "cpu": drawing(2, 2), "ane": drawing(0, 0)}

        (found,) = causes({**QUIET, "gpu.clock_mhz": level(1620, 1620)}, record=on_mps(), words=words, curves=curves)

        assert found.evidence == f"The power of the gpu fell from 46.0 W to 31.0 W {PACE}."
        assert found.counter_evidence == (
            "The clock of the gpu did not fall (1,620 MHz), but it has been seen to stay in what powermetrics shows "
            "while the GPU was held back; thermal pressure stayed Nominal, which Macs have been seen to say while they "
            "throttled."
        )
        assert found.not_recorded == (
            "Not recorded: its temperature; that would tell heat from a limit or a slow mode."
        )

    def test_that_macos_admits_needs_no_power(self) -> None:
        pressure = [(time, "Nominal" if time <= CHANGE_NS else "Heavy") for time in MOMENTS]

        (found,) = causes(QUIET, record=on_mps(rails={}), words={"thermal_pressure": pressure})

        assert found.cause == "throttling"
        assert found.evidence == f"Thermal pressure went from Nominal to Heavy {PACE}."

    def test_of_a_processor_shows_in_its_clock(self) -> None:
        (found,) = causes({**QUIET, "cpu.clock_mhz": level(3000, 2000)})

        assert found.evidence == f"The clock of the cpu fell from 3,000 MHz to 2,000 MHz {PACE}."
        assert found.not_recorded == (
            "Not recorded: the power of the device and its temperature; that would tell heat from a limit or a slow "
            "mode."
        )

    def test_is_none_where_the_power_held(self) -> None:
        assert causes(QUIET, record=on_cuda(), curves={"gpu0": drawing(300, 297)}) == []

    def test_is_none_of_a_device_that_drew_less_because_it_was_not_busy(self) -> None:
        gauges = {"gpu0.utilization": level(0.98, 0.6), "gpu0.clock_mhz": level(1620, 1620)}

        assert causes({**QUIET, **gauges}, record=on_cuda(), curves={"gpu0": drawing(300, 180)}) == []

    def test_is_none_where_the_driver_names_its_limit_and_the_clock_hardly_fell(self) -> None:
        """Another program on the GPU: it draws more, and the steps wait for their turn."""
        gauges = {"gpu0.throttle_reasons": level(0x0, 0x4), "gpu0.clock_mhz": level(1980, 1860)}

        assert causes({**QUIET, **gauges}, record=on_cuda(), curves={"gpu0": drawing(627, 682)}) == []

    def test_is_what_the_driver_says_where_there_is_no_clock(self) -> None:
        (found,) = causes({**QUIET, "gpu0.throttle_reasons": level(0x0, 0x4)}, record=on_cuda())

        assert found.evidence == f"In 100% of looks, before in 0%, gpu0 was held back by its power limit, {PACE}."

    def test_is_none_where_a_power_limit_was_reached_all_the_time(self) -> None:
        assert causes({**QUIET, "gpu0.throttle_reasons": level(0x4, 0x4)}, record=on_cuda()) == []


STORM: Gauges = {
    **QUIET,
    "system.swap_out_bytes": counter(0, 80e6),
    "system.swap_in_bytes": counter(0, 60e6),
    "worker0.page_ins": counter(0, 900),
    "system.memory_available_bytes": level(9e9, 0.2e9),
}


class TestMemoryPressure:
    def test_shows_in_what_the_disk_takes_and_gives_and_explains_the_fall_of_power(self) -> None:
        (found,) = causes(STORM, record=on_mps(), curves={"gpu": drawing(46, 20)})

        assert found.cause == "memory pressure"
        assert found.evidence == (
            f"80.0 MB a second were written to swap, before 0 B, {PACE}; 60.0 MB a second were read back from swap, "
            "before 0 B; the worker had to wait for the disk for 900 pages of its memory a second, before 0; 200 MB of "
            "memory were left of 16.0 GB; the power of the gpu fell from 46.0 W to 20.0 W, as that of a device that "
            "waits does."
        )
        assert found.experiment.startswith("Take half the batch (`--batch-size 16`)")

    def test_on_a_mac_shows_in_the_swap_in_use(self) -> None:
        gauges = {name: series for name, series in QUIET.items() if "swap" not in name}

        (found,) = causes({**gauges, "system.swap_used_bytes": growing(1e9, 3e9)}, record=on_mps())

        assert found.evidence == f"Swap in use grew from 1.17 GB to 2.84 GB {PACE}."

    def test_of_old_times_is_none(self) -> None:
        assert causes({**QUIET, "system.swap_out_bytes": counter(5e6, 5e6)}) == []


class TestGrowth:
    GROWS = growing(1e9, 3e9, every_ns=S)
    STAYS = level(1e9, 1e9, every_ns=S)

    def test_of_tensors_is_a_leak(self) -> None:
        events = memory(allocated=self.GROWS, reserved=growing(1.2e9, 3.2e9, every_ns=S))

        (found,) = causes({**QUIET, "worker0.rss_bytes": growing(4e9, 6e9)}, record=on_cuda(), events=events)

        assert found.cause == "tensor leak"
        assert found.evidence == f"Torch's tensors grew from 1.18 GB to 2.85 GB {PACE}."
        assert found.counter_evidence == "Nothing was swapped, so the growth alone need not have cost time."

    def test_of_what_the_allocator_holds_beyond_tensors_is_its_cache(self) -> None:
        events = memory(allocated=self.STAYS, driver=growing(2e9, 5e9, every_ns=S))

        (found,) = causes({**QUIET, "worker0.rss_bytes": growing(3e9, 6e9)}, record=on_mps(), events=events)

        assert found.cause == "allocator cache"
        assert found.evidence == (
            f"What torch's allocator holds beyond its tensors grew from 1.27 GB to 3.77 GB {PACE}; the tensors stayed "
            "at 1.00 GB."
        )

    def test_outside_of_torch_s_counters_is_told_from_new_graphs_by_the_shapes(self) -> None:
        events = memory(allocated=self.STAYS, driver=self.STAYS)
        gauges = {**QUIET, "worker0.rss_bytes": growing(2e9, 9e9)}

        (found,) = causes(gauges, record=on_mps(), events=events)
        (compiled,) = causes(
            gauges,
            record=on_mps(),
            events=[*events, {"event": "window", "time_ns": END_NS, "steps": 200, "recompiled": 31}],
        )

        assert found.cause == compiled.cause == "memory outside torch"
        assert found.counter_evidence is not None
        assert "All steps had the same shapes, so no new graph should have been made and kept" in found.counter_evidence
        assert compiled.evidence.endswith("; torch.compile made 31 graphs more meanwhile.")
        assert compiled.counter_evidence == "Nothing was swapped, so the growth alone need not have cost time."

    def test_outside_of_torch_s_counters_where_new_shapes_kept_coming_names_them(self) -> None:
        events = memory(allocated=self.STAYS, driver=self.STAYS)
        gauges = {**QUIET, "worker0.rss_bytes": growing(2e9, 9e9)}
        settled, padded = (
            on_mps(workload=WorkloadRecord(samples_per_step=32, batch_lengths=[16, 24, *lengths]))
            for lengths in ([16] * 98, [16] * 48 + list(range(32, 82)))
        )

        (few,) = causes(gauges, record=settled, events=events)
        (many,) = causes(gauges, record=padded, events=events)

        assert "; 2 steps had batches of a length that none before had, the last of them step 1, and " in few.evidence
        assert "; 52 steps had batches of a length that none before had, the last of them step 99, " in many.evidence
        assert many.counter_evidence == "Nothing was swapped, so the growth alone need not have cost time."

    def test_of_a_worker_on_the_cpu_is_growth_and_no_more_is_known(self) -> None:
        (found,) = causes({**QUIET, "worker0.rss_bytes": growing(1e9, 2e9)})

        assert found.cause == "memory growth"
        assert found.not_recorded == (
            "Not recorded: tensors, which torch does not count on the cpu; they are not told from other memory."
        )

    def test_that_is_as_large_as_what_was_swapped_goes_before_the_swapping(self) -> None:
        gauges = {**STORM, "worker0.rss_bytes": growing(1e9, 4e9)}

        first, second = causes(gauges)
        assert names([first, second]) == ["memory growth", "memory pressure"]
        assert first.evidence.startswith("The worker's resident memory grew from ")
        assert f"{PACE}; 80.0 MB a second were written to swap, before 0 B; " in first.evidence
        small = {**STORM, "worker0.rss_bytes": growing(1e9, 1.4e9)}
        assert names(causes(small)) == ["memory pressure", "memory growth"]

    def test_in_proportion_with_the_steps_goes_before_a_part_of_their_delay(self) -> None:
        steps = steps_lasting(*[FAST_MS + (SLOW_MS - FAST_MS) * at / STEPS for at in range(2 * STEPS)])
        window = steps.spans("step")[0][0], steps.spans("step")[-1][1]
        grows = [(time, 1e9 + 1e9 * (time - window[0]) / S) for time in range(*window, TENTH_NS)]
        waits = [(time, 0.002 * ((time - window[0]) / S) ** 2) for time in range(*window, TENTH_NS)]
        gauges = {**QUIET, "worker0.rss_bytes": grows, "worker0.waited_s": waits}

        assert names(causes(gauges, steps=steps, verdict=a_verdict(from_step=0, to_step=2 * STEPS))) == [
            "memory growth",
            "other load",
        ]

    def test_that_happens_once_is_a_buffer(self) -> None:
        assert causes({**QUIET, "worker0.rss_bytes": level(1e9, 2e9)}) == []

    def test_by_a_few_megabytes_is_none(self) -> None:
        assert causes({**QUIET, "worker0.rss_bytes": growing(1e9, 1.04e9)}) == []


class TestGarbageCollection:
    def collections(self, *, each: int, lasting_ms: float) -> list[dict[str, Any]]:
        """One in each so-manieth step behind the change."""
        starts = [CHANGE_NS + round(at * SLOW_MS * MS) + MS for at in range(0, STEPS, each)]
        return [
            {"event": "gc", "time_ns": start, "end_ns": start + round(lasting_ms * MS), "generation": 2}
            for start in starts
        ]

    def test_that_takes_the_time_by_which_steps_grew_is_the_cause(self) -> None:
        (found,) = causes(QUIET, events=self.collections(each=1, lasting_ms=70))

        assert found.cause == "garbage collection"
        assert found.evidence == f"Garbage collections took 70.0 ms of a step on average, before 0 ms, {PACE}."

    def test_that_takes_a_small_part_of_it_is_none(self) -> None:
        assert causes(QUIET, events=self.collections(each=10, lasting_ms=70)) == []

    def test_in_single_steps_that_become_more_is_the_cause_also_of_a_flat_run(self) -> None:
        steps = steps_lasting(*[160] * 150, *[160, 160, 160, 160, 400] * 10)
        slow = [(start, end) for start, end, _ in steps.spans("step") if end - start > 300 * MS]
        events = [
            {"event": "gc", "time_ns": start, "end_ns": start + 240 * MS, "generation": 2} for start, _ in slow[:8]
        ]
        spikes = Spikes(count=10, share_of_time=0.1, first_third=0.0, last_third=0.15)
        verdict = a_verdict("flat", spikes=spikes, from_step=None, to_step=None, change=None)

        (found,) = causes(QUIET, steps=steps, verdict=verdict, events=events)

        assert found.evidence == "8 of the 10 slow steps held a garbage collection, and they became more frequent."

    def test_in_single_steps_as_often_as_ever_is_none(self) -> None:
        spikes = Spikes(count=10, share_of_time=0.1, first_third=0.05, last_third=0.06)

        assert (
            causes(QUIET, verdict=a_verdict("flat", spikes=spikes), events=self.collections(each=1, lasting_ms=70))
            == []
        )


BUSY: Gauges = {
    **QUIET,
    "system.cpu_ratio": level(0.26, 1.0),
    "worker0.cpu_cores": level(2.0, 1.3),
    "worker0.waited_s": counter(0.001, 0.35),
    "cpu.clock_mhz": level(3000, 2000),
}


class TestOtherLoad:
    def test_shows_in_the_worker_s_wait_for_a_core_and_explains_a_lower_clock(self) -> None:
        (found,) = causes(BUSY)

        assert found.cause == "other load"
        assert found.evidence == (
            f"The worker waited for a core for 35% of the time, before for 0%, {PACE}; other processes kept 6.70 cores "
            "busy, before 0.0800; the worker got 1.30 cores, before 2.00."
        )
        assert found.counter_evidence is None

    def test_without_the_kernel_s_count_of_waits_shows_in_the_cores(self) -> None:
        gauges = {name: series for name, series in BUSY.items() if name != "worker0.waited_s"}

        (found,) = causes(gauges)

        assert found.evidence == (
            f"Other processes kept 6.70 cores busy, before 0.0800, {PACE}; the worker got 1.30 cores, before 2.00."
        )

    def test_of_other_guests_shows_in_stolen_time(self) -> None:
        (found,) = causes({**QUIET, "system.steal_ratio": level(0.0, 0.3)})

        assert found.cause == "other load"
        assert found.evidence == f"The hypervisor gave 30% of the cores' time to other guests, before 0%, {PACE}."
        assert found.counter_evidence == (
            "70% of the cores' time was idle meanwhile; other processes kept hardly more cores busy (0.400, before "
            "0.400)."
        )

    def test_that_takes_the_same_share_of_longer_steps_is_none(self) -> None:
        assert causes({**QUIET, "worker0.waited_s": counter(0.6, 0.62)}) == []

    def test_that_takes_nothing_from_the_worker_is_none(self) -> None:
        assert causes({**QUIET, "system.cpu_ratio": level(0.3, 0.6)}) == []


class TestHostBound:
    def submitting(self, before_ms: float, after_ms: float) -> StepTrace:
        """Steps that Python submits in so much of their time."""
        steps = slower()
        for at, start in enumerate(steps.start_ns):
            steps.submit_ns[at] = start + round((before_ms if at < STEPS else after_ms) * MS)
        return steps

    def test_steps_are_those_whose_submission_grew_as_they_did(self) -> None:
        (found,) = causes(QUIET, record=on_mps(), steps=self.submitting(150, 220))

        assert found.cause == "host-bound"
        assert found.evidence == (
            "Submitting a step took 220 ms of 230 ms, before 150 ms of 160 ms; what became slower is Python or the "
            "processor, and not the device."
        )

    def test_steps_that_other_load_held_up_have_that_first(self) -> None:
        found = causes(BUSY, record=on_mps(), steps=self.submitting(150, 220))

        assert names(found) == ["other load", "host-bound"]
        assert found[1].counter_evidence == "The record has a reason for it: other load."

    def test_steps_leave_the_device_waiting_so_that_it_draws_less(self) -> None:
        curves = {"gpu": drawing(46, 31)}

        assert names(causes(QUIET, record=on_mps(), steps=self.submitting(150, 220), curves=curves)) == ["host-bound"]

    def test_steps_are_none_whose_device_became_slower(self) -> None:
        assert causes(QUIET, record=on_mps(), steps=self.submitting(20, 20)) == []

    def test_steps_timed_by_events_may_have_been_those_all_the_time(self) -> None:
        steps = slower()
        steps.submit_ns[:] = [end - 2 * MS for end in steps.end_ns if end is not None]

        (found,) = causes(QUIET, record=on_cuda(cell=a_cell(device="cuda", batch_size=1, sync_every=0)), steps=steps)

        assert found.evidence == (
            f"Python was hardly ahead of the device (0.00870 steps, before 0.0125), {PACE}, so the device waited for "
            "it all the time; what became slower is Python or the processor, and not the device."
        )

    def test_steps_timed_by_events_are_those_on_which_python_lost_its_lead(self) -> None:
        steps = slower()
        for at, (start, end) in enumerate(zip(steps.start_ns, list(steps.end_ns), strict=True)):
            assert end is not None
            steps.submit_ns[at] = start - 160 * MS if at < STEPS else end - 2 * MS
        cell = a_cell(device="cuda", batch_size=32, sync_every=0)

        (found,) = causes(QUIET, record=on_cuda(cell=cell), steps=steps)

        assert found.evidence == (
            f"Python was 0.00870 steps ahead of the device, before 2.00, {PACE}, so the device had to wait for it; "
            "what became slower is Python or the processor, and not the device."
        )


class TestAnUnsynchronizedRun:
    def seen(self, *milliseconds: float) -> StepTrace:
        """Edges at both ends, and submissions so long one behind the other."""
        steps = steps_lasting(*[None] * (len(milliseconds) - 1), sum(milliseconds))
        steps.submit_ns[:] = [START + round(sum(milliseconds[: at + 1]) * MS) for at in range(len(milliseconds))]
        return steps

    def causes(self, steps: StepTrace) -> list[Cause]:
        record = on_mps(cell=a_cell(device="mps", sync_every=0))
        return causes(QUIET, record=record, steps=steps, verdict=find_slowdown(from_submissions(steps).seconds()))

    def test_whose_first_step_is_submission_alone_shows_an_artefact(self) -> None:
        (found,) = self.causes(self.seen(3, *[160] * 49))

        assert found.cause == "not synchronized"
        assert found.evidence == (
            "Nobody waited for the device (`sync_every` 0): the first step returned after 3.00 ms, which is submission "
            "only, and each later one after 160 ms, since it waited for those before it. The steps need not have "
            "become slower."
        )

    def test_may_take_several_submissions_until_the_queue_is_full(self) -> None:
        (found,) = self.causes(self.seen(*[3] * 20, *[160] * 60))

        assert "the first 20 steps returned after 3.00 ms" in found.evidence

    def test_of_a_device_that_is_as_fast_as_python_shows_none(self) -> None:
        assert self.causes(self.seen(*[10] * 50)) == []


class TestWithoutACause:
    @pytest.mark.parametrize("verdict", ["flat", "warmup", "speedup", "inconclusive", "insufficient"])
    def test_is_a_run_that_became_no_slower_whatever_else_changed(self, verdict: Verdict) -> None:
        steps = steps_lasting(*[FAST_MS] * 2 * STEPS)
        gauges = {**STORM, **BUSY, "worker0.rss_bytes": growing(1e9, 4e9)}

        assert causes(gauges, steps=steps, verdict=a_verdict(verdict, from_step=None, to_step=None)) == []

    def test_is_a_slowdown_of_which_nothing_was_recorded(self) -> None:
        assert causes() == []
        assert unexplained(Recorded(on_mps(rails={}), slower())) == (
            "Cause not recorded: nothing that was recorded speaks for one. Not recorded, and so not ruled out: "
            "power, memory and swap, the load of the machine, the worker's memory, a clock, who else used the device "
            "(throttling, swapping, other processes, a leak, another program on it). `powerbench doctor` says what "
            "could be."
        )

    def test_is_a_slowdown_in_which_nothing_recorded_changed(self) -> None:
        assert causes(QUIET) == []
        assert unexplained(Recorded(on_cpu(), slower(), gauges=QUIET)) == (
            "Cause not recorded: nothing that was recorded speaks for one."
        )

    def test_is_a_run_without_steps(self) -> None:
        assert causes(QUIET, steps=StepTrace()) == []
        assert causes(QUIET, steps=steps_lasting(1, 2), verdict=a_verdict(from_step=1, to_step=1)) == []


class TestTheStretches:
    def test_of_a_ramp_over_the_whole_run_are_its_ends(self) -> None:
        ramp = steps_lasting(*[100 + at for at in range(200)])
        verdict = find_slowdown([(end - start) / S for start, end, _ in ramp.spans("step")])
        hot = EnergyCurve(list(MOMENTS), [0.1 * at * (50 - 10 * at / len(MOMENTS)) for at in range(len(MOMENTS))])

        (found,) = causes(QUIET, steps=ramp, verdict=verdict, curves={"package-0": hot})

        assert verdict.verdict == "slowdown"
        assert "while a step went from 120 ms to 294 ms" in found.evidence

    def test_of_blocks_of_steps_are_found_by_the_numbers_of_their_steps(self) -> None:
        blocks = steps_lasting(*[None, 2 * FAST_MS] * (STEPS // 2), *[None, 2 * SLOW_MS] * (STEPS // 2))

        (found,) = causes(STORM, steps=blocks)

        assert PACE in found.evidence

    def test_of_a_run_that_rose_and_fell_are_the_fifths_with_the_greatest_rise(self) -> None:
        hump = steps_lasting(*[100] * 80, *[200] * 80, *[100] * 80)
        start, end = START + 8 * S, START + 24 * S
        busy = [(time, 1.0 if start <= time <= end else 0.25) for time in range(START, END_NS, TENTH_NS)]
        own = [(time, 1.0 if start <= time <= end else 2.0) for time in range(START, END_NS, TENTH_NS)]

        (found,) = causes(
            {**QUIET, "system.cpu_ratio": busy, "worker0.cpu_cores": own},
            steps=hump,
            verdict=a_verdict("no steady state", from_step=None, to_step=None),
        )

        assert found.cause == "other load"
        assert "while a step went from 100 ms to 200 ms" in found.evidence


NUMBERS = st.one_of(st.floats(allow_nan=False, allow_infinity=False, width=32), st.just(0.0))
NAMES = st.sampled_from([*QUIET, "system.swap_used_bytes", "gpu.busy_ratio", "package-0.throttle_reasons"])


@settings(deadline=None, max_examples=100)
@given(
    gauges=st.dictionaries(NAMES, st.lists(st.tuples(st.integers(START, END_NS), NUMBERS)).map(sorted)),
    latencies_ms=st.lists(st.one_of(st.none(), st.floats(0, 500)), max_size=60),
    verdict=st.sampled_from(["slowdown", "no steady state", "flat", "insufficient"]),
    places=st.tuples(st.integers(0, 80), st.integers(0, 80)).map(sorted),
)
def test_whatever_was_recorded_there_is_an_answer_in_whole_sentences(
    gauges: Gauges, latencies_ms: list[float | None], verdict: Verdict, places: list[int]
) -> None:
    found = causes(
        gauges,
        steps=steps_lasting(*latencies_ms),
        verdict=a_verdict(verdict, from_step=places[0], to_step=places[1]),
        curves={"package-0": EnergyCurve([START, START, END_NS], [0.0, 0.0, 1.0])},
    )

    for cause in found:
        texts = [cause.evidence, cause.counter_evidence, cause.not_recorded, cause.experiment]
        assert all(text is None or (not text[0].islower() and text.endswith(".")) for text in texts), cause
        assert cause.evidence
