"""powermetrics as a meter: exact joules from documents, bounded times, and a program that does not outlive us."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from powerbench.errors import MeterLost
from powerbench.power.powermetrics import Powermetrics
from powerbench.power.powermetrics.child import OwnChild
from powerbench.power.powermetrics.launch import Launch
from powerbench.power.powermetrics.meter import PowermetricsMeter
from powerbench.power.powermetrics.process import Process
from powerbench.power.powermetrics.recording import Arrival, Recording
from powerbench.records import Gauge, RailRecord, Reading
from tests.power.fake_powermetrics import document, install

MS = 1_000_000
S = 1000 * MS
# The calendar at the moment 0 of the monotonic clock.
UNIX_S = 1_800_000_000


def arrival(at_ns: int) -> Arrival:
    return Arrival(at_ns, UNIX_S * S + at_ns)


class Drawn:
    """What a recording drew of documents that arrived `lag` after their windows, the first of which began at 5 s."""

    def __init__(self) -> None:
        self.recording = Recording(started_ns=4 * S)
        self.points: list[Reading | Gauge] = []
        self.now_ns = 5 * S

    def add(self, *, elapsed_ns: int = 100 * MS, lag_ns: int = 0, label: str = "end", **given: Any) -> None:
        moment_ns = self.now_ns + (elapsed_ns if label == "end" else 0)
        self.now_ns += elapsed_ns
        text = document(elapsed_ns=elapsed_ns, unix_s=UNIX_S + moment_ns // S, **given)
        self.points += self.recording.add(text, arrival(self.now_ns + lag_ns))

    def curve(self, rail: str) -> list[tuple[float, float]]:
        """(seconds, joules) as a reader places them."""
        offset_ns = self.rail(rail).offset_ns
        readings = [point for point in self.points if isinstance(point, Reading) and point.rail == rail]
        return [((time_ns + offset_ns) / S, energy_j) for time_ns, _, energy_j in readings]

    def gauges(self, name: str) -> list[float | str]:
        return [point.value for point in self.points if isinstance(point, Gauge) and point.name == name]

    def rail(self, rail: str) -> RailRecord:
        return self.recording.rails()[rail]

    def end(self) -> list[str]:
        self.recording.expect_summary()
        self.recording.end()
        return self.recording.notes()


@pytest.fixture
def drawn() -> Drawn:
    return Drawn()


# --- energy


def test_ten_watts_for_a_tenth_of_a_second_are_one_joule(drawn: Drawn) -> None:
    drawn.add(energies_mj={"cpu": 1000, "gpu": 500, "ane": 0})

    assert drawn.curve("cpu") == [(5.0, 0.0), (5.1, 1.0)]
    assert drawn.curve("gpu") == [(5.0, 0.0), (5.1, 0.5)]
    assert drawn.curve("ane") == [(5.0, 0.0), (5.1, 0.0)]
    assert drawn.gauges("cpu.power_w") == [10.0]


def test_energy_is_summed_over_windows_as_long_as_they_were(drawn: Drawn) -> None:
    drawn.add(elapsed_ns=108 * MS, energies_mj={"cpu": 1080})
    drawn.add(elapsed_ns=104 * MS, energies_mj={"cpu": 1040})

    assert drawn.curve("cpu") == [(5.0, 0.0), (5.108, 1.08), (5.212, 2.12)]
    assert drawn.rail("cpu").period_s == pytest.approx(0.106)


def test_a_window_may_hold_more_than_sixteen_bits_of_millijoules(drawn: Drawn) -> None:
    drawn.add(elapsed_ns=S, energies_mj={"gpu": 93_642})

    assert drawn.curve("gpu")[-1] == (6.0, 93.642)


def test_the_gpu_section_with_its_own_window_is_not_used(drawn: Drawn) -> None:
    text = document(energies_mj={"gpu": 72_607})
    assert b"<key>gpu_energy</key><integer>72610</integer>" in text

    drawn.add(energies_mj={"gpu": 72_607})

    assert drawn.curve("gpu")[-1][1] == 72.607


@pytest.mark.parametrize("machine", ["m1", "m4", "ultra"])
def test_every_generation_of_clusters_has_the_same_rails(drawn: Drawn, machine: str) -> None:
    drawn.add(machine=machine)

    assert set(drawn.recording.rails()) == {"cpu", "gpu", "ane"}
    assert {record.state for record in drawn.recording.rails().values()} == {"estimated"}
    assert {record.accuracy for record in drawn.recording.rails().values()} == {None}


def test_the_package_of_macos_12_contains_the_other_rails(drawn: Drawn) -> None:
    drawn.add(machine="macos12", energies_mj={"cpu": 355, "gpu": 1, "ane": 0, "dram": 13, "package": 388})

    assert drawn.curve("dram")[-1][1] == 0.013
    assert drawn.curve("package")[-1][1] == 0.388
    assert drawn.rail("package").contains == ["cpu", "gpu", "ane", "dram"]
    assert drawn.rail("cpu").contains == []


def test_intel_gives_joules_of_the_package(drawn: Drawn) -> None:
    drawn.add(machine="intel", energies_mj={"package": 1500})

    assert drawn.curve("package") == [(5.0, 0.0), (5.1, 1.5)]
    assert drawn.rail("package").contains == ["cpu", "gpu"]


def test_a_virtual_machine_has_no_energy_to_give(drawn: Drawn) -> None:
    with pytest.raises(MeterLost, match="virtual machine"):
        drawn.add(machine="vm")


def test_the_energy_of_the_gpu_section_alone_is_refused(drawn: Drawn) -> None:
    with pytest.raises(MeterLost, match="a window of its own"):
        drawn.add(machine="gpu_only")


@pytest.mark.parametrize("value", ["nan", "inf", "-5"])
def test_a_rail_that_turns_impossible_ends_there_and_the_others_go_on(drawn: Drawn, value: str) -> None:
    drawn.add(energies_mj={"cpu": 1000, "gpu": 500})
    drawn.add(energies_mj={"cpu": value, "gpu": 500})
    drawn.add(energies_mj={"cpu": 1000, "gpu": 500})

    assert drawn.curve("cpu") == [(5.0, 0.0), (5.1, 1.0)]
    assert drawn.curve("gpu") == [(5.0, 0.0), (5.1, 0.5), (5.2, 1.0), (5.3, 1.5)]
    lost = drawn.rail("cpu").lost
    assert lost is not None
    assert value in lost
    assert drawn.rail("gpu").lost is None
    assert drawn.recording.notes() == [f"The curve of cpu ends early: {lost}."]


def test_a_rail_that_is_no_longer_given_ends_there(drawn: Drawn) -> None:
    drawn.add(energies_mj={"cpu": 1000, "ane": 10})
    drawn.add(energies_mj={"cpu": 1000})

    assert drawn.curve("ane") == [(5.0, 0.0), (5.1, 0.01)]
    assert drawn.rail("ane").lost == "powermetrics stopped giving it"


# --- counters that stand still


def test_energy_that_comes_in_lumps_is_spread_over_the_windows_without(drawn: Drawn) -> None:
    for _ in range(3):
        drawn.add(energies_mj={"cpu": 0, "gpu": 500})
        drawn.add(energies_mj={"cpu": 2000, "gpu": 500})

    assert drawn.curve("cpu") == [(5.0, 0.0), (5.2, 2.0), (5.4, 4.0), (5.6, 6.0)]
    assert drawn.gauges("cpu.power_w") == [10.0, 10.0, 10.0]
    assert drawn.rail("cpu").averaging_s == 0.2
    assert drawn.end() == [
        "The energy of cpu came in lumps of up to 0.2 s (3 times), so nothing shorter can be told of it."
    ]


def test_no_energy_while_idle_is_no_stall(drawn: Drawn) -> None:
    for _ in range(100):
        drawn.add(energies_mj={"gpu": 0, "ane": 0}, busy_ratio=0.01)

    assert drawn.curve("gpu")[-1] == (15.0, 0.0)
    assert drawn.rail("gpu").lost is None
    assert drawn.end() == []


@pytest.mark.parametrize("machine", ["m1", "m4", "ultra"])
def test_a_rail_without_energy_while_busy_is_lost_after_five_seconds(drawn: Drawn, machine: str) -> None:
    drawn.add(machine=machine, energies_mj={"cpu": 1000, "gpu": 500})
    for _ in range(50):
        drawn.add(machine=machine, energies_mj={"cpu": 0, "gpu": 500})
    drawn.add(machine=machine, energies_mj={"cpu": 51_000, "gpu": 500})

    assert drawn.curve("cpu") == [(5.0, 0.0), (5.1, 1.0)]
    assert drawn.rail("cpu").lost == "it stalled: powermetrics gave no energy for 5.0 s of it being busy"
    assert drawn.curve("gpu")[-1][1] == 26.0


def test_a_stall_that_the_recording_does_not_outlast_is_one(drawn: Drawn) -> None:
    for _ in range(15):
        drawn.add(energies_mj={"cpu": 0, "gpu": 500})
    drawn.end()

    assert drawn.curve("cpu") == [(5.0, 0.0)]
    assert drawn.rail("cpu").lost == "it stalled: powermetrics gave no energy for 1.5 s of it being busy"


# --- documents


def test_an_unreadable_document_is_missing_time_and_energy_and_is_said(drawn: Drawn) -> None:
    drawn.add()
    drawn.now_ns += 100 * MS
    drawn.recording.add(b"<plist>torn</plist>", arrival(drawn.now_ns))
    drawn.add()

    assert drawn.curve("cpu") == [(5.0, 0.0), (5.1, 1.0), (5.3, 2.0)]
    assert drawn.rail("cpu").coverage == pytest.approx(2 / 3)
    assert drawn.recording.notes() == ["1 document of powermetrics could not be read: the energy of 0.1 s is missing."]


def test_the_summary_is_never_a_sample(drawn: Drawn) -> None:
    drawn.add(energies_mj={"cpu": 1000})
    drawn.recording.expect_summary()
    drawn.recording.add(document(elapsed_ns=100 * MS, energies_mj={"cpu": 1000}, is_delta=False), arrival(6 * S))

    assert drawn.curve("cpu") == [(5.0, 0.0), (5.1, 1.0)]
    assert drawn.end() == []


def test_the_summary_is_known_by_its_length_too(drawn: Drawn) -> None:
    for _ in range(10):
        drawn.add(energies_mj={"cpu": 1000})
    drawn.recording.expect_summary()
    drawn.recording.add(document(elapsed_ns=S, energies_mj={"cpu": 10_000}), arrival(6 * S))

    assert drawn.curve("cpu")[-1] == (6.0, 10.0)


def test_a_long_window_while_recording_is_a_sample(drawn: Drawn) -> None:
    for _ in range(3):
        drawn.add(energies_mj={"cpu": 1000})
    drawn.add(elapsed_ns=300 * MS, energies_mj={"cpu": 3000})

    assert drawn.curve("cpu")[-1] == (5.6, 6.0)


@pytest.mark.parametrize(("summary_mj", "conserved"), [(10_000, True), (10_090, True), (10_200, False), (9_800, False)])
def test_a_sum_that_differs_from_the_summary_by_a_percent_is_noted(
    drawn: Drawn, summary_mj: int, conserved: bool
) -> None:
    for _ in range(10):
        drawn.add(energies_mj={"cpu": 1000})
    drawn.recording.add(document(elapsed_ns=S, energies_mj={"cpu": summary_mj}, is_delta=False), arrival(6 * S))

    notes = (
        []
        if conserved
        else [f"The samples of powermetrics add up to 10.000 J of cpu, its own summary has {summary_mj / 1000:.3f} J."]
    )
    assert drawn.end() == notes


def test_what_the_summary_has_beyond_the_last_sample_is_no_difference(drawn: Drawn) -> None:
    for _ in range(10):
        drawn.add(energies_mj={"cpu": 1000})
    drawn.recording.add(document(elapsed_ns=1_080 * MS, energies_mj={"cpu": 10_500}, is_delta=False), arrival(6 * S))

    assert drawn.end() == []


def test_gauges_tell_pressure_clock_and_load(drawn: Drawn) -> None:
    drawn.add(thermal_pressure="Heavy", busy_ratio=0.75)

    assert drawn.gauges("thermal_pressure") == ["Heavy"]
    assert drawn.gauges("gpu.clock_mhz") == [714.836]  # freq_hz holds MHz
    assert drawn.gauges("gpu.busy_ratio") == [0.75]


# --- time


def test_the_least_delayed_document_places_the_windows(drawn: Drawn) -> None:
    for lag_ms in (30, 2, 50, 40):
        drawn.add(lag_ns=lag_ms * MS)

    assert drawn.rail("cpu").offset_ns == -28 * MS
    assert drawn.curve("cpu")[0] == (5.002, 0.0)


@pytest.mark.parametrize("label", ["start", "end"])
def test_the_stated_uncertainty_holds_whichever_moment_the_label_is_of(drawn: Drawn, label: str) -> None:
    for _ in range(60):
        drawn.add(elapsed_ns=107 * MS, lag_ns=3 * MS, label=label)

    error_ns = round(drawn.curve("cpu")[0][0] * S) - 5 * S
    assert error_ns == 3 * MS
    assert error_ns <= drawn.rail("cpu").time_uncertainty_ns <= 120 * MS


def test_without_a_label_the_start_of_the_program_is_the_bound(drawn: Drawn) -> None:
    text = document().replace(b"<key>timestamp</key>", b"<key>moment</key>")
    drawn.recording.add(text, arrival(5_100 * MS))

    assert drawn.rail("cpu").time_uncertainty_ns == S  # it was started at 4 s, the window cannot begin after 5 s


def test_a_label_from_another_clock_is_left_aside(drawn: Drawn) -> None:
    drawn.recording.add(document(unix_s=UNIX_S + 7200), arrival(5_100 * MS))

    assert drawn.rail("cpu").time_uncertainty_ns == S


def test_windows_that_leave_gaps_are_noted_and_widen_the_uncertainty(drawn: Drawn) -> None:
    for _ in range(40):
        drawn.add()
        drawn.now_ns += 5 * MS

    assert drawn.rail("cpu").time_uncertainty_ns >= 145 * MS
    assert "add up to 145 ms less than they took" in drawn.end()[0]


# --- the program


class Opened:
    """Opens fakes and knows, afterwards, whether one is left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meters: list[PowermetricsMeter] = []

    def source(self, *, refuse_signals: bool = False, **settings: Any) -> Powermetrics:
        program = install(self.folder, **settings)
        return Powermetrics(
            environment={"POWERBENCH_POWERMETRICS": str(program)},
            signal_group=refuse if refuse_signals else os.killpg,
            grace_s=0.3 if refuse_signals or settings.get("ignores_sigterm") else 2.0,
        )

    def __call__(self, **settings: Any) -> PowermetricsMeter:
        meter = self.source(**settings).open(period_s=0.1)
        self.meters.append(meter)
        return meter


def refuse(group: int, number: int) -> None:
    raise PermissionError(1, "Operation not permitted")


@pytest.fixture
def open_fake(tmp_path: Path) -> Iterator[Opened]:
    opened = Opened(tmp_path)
    yield opened
    for meter in opened.meters:
        meter.close()
    assert children() == []


def children() -> list[str]:
    return [child.name() for child in psutil.Process().children(recursive=True)]


def read_until_lost(meter: PowermetricsMeter) -> tuple[list[Reading | Gauge], str]:
    points: list[Reading | Gauge] = []
    while True:
        try:
            points += meter.read()
        except MeterLost as lost:
            return points, str(lost)


def energies_j(points: list[Reading | Gauge], rail: str) -> list[float]:
    return [point.energy_j for point in points if isinstance(point, Reading) and point.rail == rail]


def notes_of(meter: PowermetricsMeter) -> list[str]:
    """Its notes, but for the one on late windows: a fake that keeps real time is late where this machine is busy."""
    return [note for note in meter.notes() if not note.endswith("(did the machine sleep?).")]


def test_the_first_read_gives_the_start_and_the_first_window(open_fake: Opened) -> None:
    meter = open_fake(watts={"cpu": 10, "gpu": 5, "ane": 0})
    points = meter.read()

    assert energies_j(points, "cpu") == [0.0, 1.08]
    assert energies_j(points, "gpu") == [0.0, 0.54]
    start, end = [point.time_ns for point in points if isinstance(point, Reading) and point.rail == "cpu"]
    assert end - start == 108 * MS
    assert meter.rails()["cpu"].source == "powermetrics"


def test_closing_ends_it_checks_its_sum_and_says_nothing(open_fake: Opened) -> None:
    meter = open_fake(speed=20)
    meter.read()
    meter.close()
    meter.close()

    assert children() == []
    assert meter.notes() == []
    while meter.read():  # what came while it ended
        pass


def test_a_summary_that_differs_is_noted(open_fake: Opened) -> None:
    meter = open_fake(speed=20, summary_factor=2)
    for _ in range(3):
        meter.read()
    meter.close()

    assert [note.split(" J of ")[1][:3] for note in meter.notes()] == ["cpu", "gpu"]


@pytest.mark.parametrize("how", [{"piece": 700}, {"batch": 5}, {"batch": 4, "piece": 3000}])
def test_documents_come_whole_however_they_are_written(open_fake: Opened, how: dict[str, int]) -> None:
    points, lost = read_until_lost(open_fake(speed=50, documents=10, **how))

    assert energies_j(points, "cpu") == pytest.approx([1.08 * number for number in range(11)])
    assert lost == "powermetrics ended after 10 samples (exit status 0)"


def test_a_slow_start_is_waited_for(open_fake: Opened) -> None:
    assert energies_j(open_fake(start_s=0.5).read(), "cpu") == [0.0, 1.08]


def test_a_crash_ends_the_curves_with_what_it_said_last(open_fake: Opened) -> None:
    meter = open_fake(
        speed=50, documents=3, status=3, cut_last=True, noise="Second underflow occured.", last_words="Assertion failed"
    )
    points, lost = read_until_lost(meter)
    meter.close()

    assert energies_j(points, "cpu")[-1] == pytest.approx(3.24)
    assert lost == "powermetrics ended after 3 samples (exit status 3): Assertion failed"
    assert meter.notes() == ["The last document of powermetrics was cut off, so its window is not counted."]


def test_noise_on_stderr_means_nothing(open_fake: Opened) -> None:
    _, lost = read_until_lost(open_fake(speed=50, documents=2, noise="proc_pid_rusage: no such process\n" * 300))

    assert lost == "powermetrics ended after 2 samples (exit status 0)"


def test_a_damaged_document_costs_its_window_only(open_fake: Opened) -> None:
    meter = open_fake(documents=4, damaged=[1])
    points, _ = read_until_lost(meter)

    assert energies_j(points, "cpu") == pytest.approx([0, 1.08, 2.16, 3.24])
    (note,) = notes_of(meter)
    # for how long is known from the arrivals alone, and held to above
    assert note.startswith("1 document of powermetrics could not be read: the energy of ")


def test_a_rail_that_gives_nan_is_lost_alone(open_fake: Opened) -> None:
    meter = open_fake(speed=50, documents=5, not_a_number={"gpu": ["nan", 2]})
    points, _ = read_until_lost(meter)

    assert energies_j(points, "gpu") == pytest.approx([0, 0.54, 1.08])
    assert energies_j(points, "cpu")[-1] == pytest.approx(5.4)
    assert meter.rails()["gpu"].lost == "powermetrics gave nan mJ"


def test_a_stalled_rail_is_made_up_for_by_its_spike(open_fake: Opened) -> None:
    points, _ = read_until_lost(open_fake(speed=50, documents=10, stalled={"cpu": [3, 6]}))

    assert energies_j(points, "cpu")[-1] == pytest.approx(10.8)
    assert len(energies_j(points, "cpu")) == 11 - 3


def test_a_sampler_that_it_does_not_know_is_dropped(open_fake: Opened) -> None:
    meter = open_fake(unknown=["thermal", "ane_power"])
    points = meter.read()

    assert energies_j(points, "cpu") == [0.0, 1.08]
    assert [note.split()[5].rstrip(",") for note in meter.notes()] == ["thermal", "ane_power"]


def test_without_the_sampler_of_the_energies_nothing_can_be_measured(open_fake: Opened) -> None:
    with pytest.raises(MeterLost, match="a window of its own"):
        open_fake(unknown=["cpu_power"]).read()


def test_a_sampler_is_dropped_once(open_fake: Opened) -> None:
    with pytest.raises(
        MeterLost, match=r"before its first sample \(exit status 1\): powermetrics: unrecognized sampler"
    ):
        open_fake(documents=0, status=1, last_words="powermetrics: unrecognized sampler: bandwidth").read()


def test_the_virtual_machine_is_told_by_its_first_document(open_fake: Opened) -> None:
    with pytest.raises(MeterLost, match="virtual machine"):
        open_fake(machine="vm").read()


def test_a_flood_loses_the_meter_and_not_the_memory(open_fake: Opened) -> None:
    with pytest.raises(MeterLost, match="8 MB that are no document"):
        open_fake(flood=True).read()


def test_closing_from_another_thread_wakes_a_blocked_read(open_fake: Opened) -> None:
    meter = open_fake(hang_at=0)
    given: list[list[Reading | Gauge]] = []
    reader = threading.Thread(target=lambda: given.append(meter.read()))
    reader.start()
    meter.close()
    reader.join(timeout=10)

    assert given == [[]]
    assert not reader.is_alive()
    assert meter.rails() == {}


def test_silence_loses_the_meter(tmp_path: Path) -> None:
    readable, writable = os.pipe()
    program = install(tmp_path, hang_at=0)
    command = Launch(sudo=(), program=str(program), period_ms=100).command()
    process = Process(OwnChild(command), wake_fd=readable)
    with pytest.raises(MeterLost, match=r"given nothing for 0\.05 s"):
        process.receive(patience_s=0.05)
    assert process.end(take=lambda data: None, grace_s=2.0) is None
    os.close(readable)
    os.close(writable)


def test_one_that_ignores_sigterm_is_killed(open_fake: Opened) -> None:
    meter = open_fake(ignores_sigterm=True)
    meter.read()
    meter.close()

    assert children() == []
    assert notes_of(meter) == ["powermetrics did not end when asked to and was killed."]


def test_one_that_is_roots_ends_when_its_pipe_is_closed(open_fake: Opened) -> None:
    meter = open_fake(refuse_signals=True, ignores_sigterm=True)
    meter.read()
    meter.close()

    assert children() == []
    assert notes_of(meter) == []


def test_one_that_is_roots_and_does_not_write_is_left_with_a_note(tmp_path: Path) -> None:
    readable, writable = os.pipe()
    child = Process(OwnChild(["/bin/sleep", "60"], signal_group=refuse), wake_fd=readable)
    note = child.end(take=lambda data: None, grace_s=0.01)
    (left,) = psutil.Process().children()
    left.kill()
    left.wait()
    os.close(readable)
    os.close(writable)

    assert note == "powermetrics runs as root and could not be ended; it ends by itself when it next writes."


def test_a_program_that_cannot_be_started_is_a_sentence(tmp_path: Path) -> None:
    source = Powermetrics(environment={"POWERBENCH_POWERMETRICS": str(tmp_path / "none")})

    assert source.why_unavailable() == (
        f"{tmp_path}/none is no program that can be run: correct or unset POWERBENCH_POWERMETRICS."
    )
    with pytest.raises(MeterLost, match=r"cannot start .*none: No such file"):
        source.open(period_s=0.1)


# --- who may run it


def fake_sudo(folder: Path, script: str) -> tuple[str, str]:
    program = folder / "sudo"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program), "-n"


def as_user(folder: Path, script: str, **settings: Any) -> Powermetrics:
    """A Mac whose user is not root, with that sudo."""
    return Powermetrics(
        environment={},
        platform="darwin",
        effective_uid=501,
        sudo=fake_sudo(folder, script),
        program=str(install(folder, **settings)),
    )


REFUSES = "echo 'sudo: a password is required' >&2; exit 1"
ALLOWS = 'shift; [ $1 = -l ] && exit 0; exec "$@"'


def test_where_sudo_asks_for_a_password_the_pinned_line_is_given(tmp_path: Path) -> None:
    why = as_user(tmp_path, REFUSES).why_unavailable()

    assert why is not None
    assert (
        f"ALL=(root) NOPASSWD: {tmp_path}/powermetrics -f plist -i 100 -b 0 --show-usage-summary "
        r"--samplers cpu_power\,gpu_power\,ane_power\,thermal`"
    ) in why
    assert "visudo" in why


def test_the_pinned_line_has_the_period_that_was_asked_for(tmp_path: Path) -> None:
    meter = as_user(tmp_path, REFUSES).open(period_s=0.25)
    with pytest.raises(MeterLost, match="powermetrics -f plist -i 250 -b 0"):
        meter.read()
    meter.close()


def test_where_sudo_allows_it_is_put_in_front(tmp_path: Path) -> None:
    source = as_user(tmp_path, ALLOWS)
    assert source.why_unavailable() is None
    meter = source.open(period_s=0.1)
    assert energies_j(meter.read(), "cpu") == [0.0, 1.08]
    meter.close()
    assert children() == []


def test_root_needs_no_sudo(tmp_path: Path) -> None:
    source = Powermetrics(
        environment={},
        platform="darwin",
        effective_uid=0,
        sudo=fake_sudo(tmp_path, REFUSES),
        program=str(install(tmp_path)),
    )

    assert source.why_unavailable() is None


def test_the_environment_does_not_choose_the_program_under_sudo(tmp_path: Path) -> None:
    source = Powermetrics(
        environment={"SUDO_UID": "501", "POWERBENCH_POWERMETRICS": str(install(tmp_path))}, platform="linux"
    )

    assert source.why_unavailable() == "powermetrics comes with macOS only: elsewhere take nvml, rapl or hwmon."


def test_the_line_for_sudoers_is_one_that_visudo_takes() -> None:
    launch = Launch(sudo=("/usr/bin/sudo", "-n"), program="/usr/bin/powermetrics", period_ms=100)

    assert launch.sudoers_line("ada") == (
        "ada ALL=(root) NOPASSWD: /usr/bin/powermetrics -f plist -i 100 -b 0 --show-usage-summary "
        r"--samplers cpu_power\,gpu_power\,ane_power\,thermal"
    )
    assert launch.command()[:3] == ["/usr/bin/sudo", "-n", "/usr/bin/powermetrics"]


def test_a_period_below_a_tenth_of_a_second_is_a_tenth(tmp_path: Path) -> None:
    shows = tmp_path / "shows"
    shows.write_text('#!/bin/sh\necho "$@" >&2; exit 1\n')
    shows.chmod(0o755)
    meter = Powermetrics(environment={"POWERBENCH_POWERMETRICS": str(shows)}).open(period_s=0.01)
    with pytest.raises(MeterLost, match="-f plist -i 100 -b 0 --show-usage-summary --samplers cpu_power,"):
        meter.read()
    meter.close()
