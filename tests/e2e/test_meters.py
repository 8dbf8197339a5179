"""The real command beside meters whose joules are known: they come out true, and trouble with a meter spoils no run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from powerbench.analysis.energy import find_energy
from powerbench.power import Meter
from powerbench.power.polling import PolledMeter, Schedule
from powerbench.profile import make_cell, resolve
from powerbench.records import EnergyCurve, Gauge, RailRecord, Reading, StepTrace, Window
from powerbench.session import record_run
from powerbench.units import duration
from tests.e2e.commands import (
    SLEEP,
    Done,
    ended,
    kill,
    marked_ns,
    nobody_is_left,
    powerbench,
    processes_of,
    record_of,
    report,
    rows_of,
    running_in,
    start,
    stepping_in,
    swept,
    the_run,
    told,
    wait_for,
    worker_of,
)
from tests.power.fake_nvml import COMPILER, build
from tests.power.fake_powermetrics import install
from tests.rundir import START, a_record

S = 1_000_000_000


def asking(*, steps: int = 20, warmup: int = 5) -> tuple[str, ...]:
    """The beginning of a run's command line; what stands there must not be given again."""
    return ("run", *SLEEP, "--warmup", str(warmup), "--steps", str(steps), "--idle", "0.5")


RUN = asking()
BY_RAPL = ("--power", "rapl")
BY_POWERMETRICS = ("--power", "powermetrics")
MAX_UJ = 262_143_328_850
FULL = 0.005
"""How far a figure may be from the truth where power is steady (design, "Accuracy")."""

# Writes what each zone has drawn, about each millisecond. `WATTS zone=w ...` changes what they draw, `RESET` sets the
# counters back to 0; a word back says that it is done. The end of its input is its own.
COUNTERS = """
import contextlib, os, select, sys, time
files = {zone: os.open(f"{zone}/energy_uj", os.O_WRONLY) for zone in sys.argv[1:]}
watts, counted = dict.fromkeys(files, 0.0), dict.fromkeys(files, 100e9)
with contextlib.suppress(PermissionError):
    os.setpriority(os.PRIO_PROCESS, 0, -15)  # what is late is a tremor in the truth
then = time.monotonic()
while True:
    ready = select.select([0], [], [], 0.001)[0]
    now = time.monotonic()
    for zone, file in files.items():
        counted[zone] += watts[zone] * (now - then) * 1e6
        os.pwrite(file, b"%020d\\n" % int(counted[zone]), 0)
    then = now
    if ready:
        words = os.read(0, 4096).split()
        if not words:
            break
        if words[0] == b"RESET":
            counted = dict.fromkeys(files, 0.0)
        for zone, power in (word.decode().split("=") for word in words[1:]):
            watts[zone] = float(power)
        os.write(1, b"done\\n")
"""


class Counters:
    """A RAPL tree whose counters rise at known watts, and the process that moves them."""

    def __init__(self, root: Path, zones: Mapping[str, str]) -> None:
        self.root = root
        self.variables = {"POWERBENCH_SYSFS": str(root)}
        folder = root / "class/powercap"
        for zone, name in zones.items():
            (folder / zone).mkdir(parents=True)
            (folder / zone / "name").write_text(f"{name}\n")
            (folder / zone / "energy_uj").write_text(f"{100_000_000_000:020}\n")
            (folder / zone / "max_energy_range_uj").write_text(f"{MAX_UJ}\n")
        self._process = subprocess.Popen(
            [sys.executable, "-IS", "-c", COUNTERS, *zones],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def draw(self, watts: Mapping[str, float]) -> None:
        """From now on each zone draws so much."""
        self._tell(" ".join(["WATTS", *(f"{zone}={power}" for zone, power in watts.items())]))

    def go_back(self) -> None:
        """Set every counter back to 0."""
        self._tell("RESET")

    def end(self) -> None:
        self._process.communicate()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"


SOCKET = {"intel-rapl:0": "package-0"}


@contextmanager
def a_socket(root: Path, power_w: float = 40) -> Iterator[Counters]:
    """One package that draws so much."""
    with counters(root, SOCKET) as socket:
        socket.draw({"intel-rapl:0": power_w})
        yield socket


@contextmanager
def counters(root: Path, zones: Mapping[str, str]) -> Iterator[Counters]:
    moving = Counters(root, zones)
    try:
        yield moving
    finally:
        moving.end()


class Measured(NamedTuple):
    """How a run ended, what it printed as JSON, and where it lies."""

    done: Done
    summary: dict[str, Any]
    path: Path

    @property
    def energy(self) -> dict[str, Any]:
        energy: dict[str, Any] | None = self.summary["energy"]
        assert energy is not None, self.summary["energy_reason"]
        return energy

    @property
    def told(self) -> str:
        """Everything that a reader is told about the energy."""
        return " ".join([self.summary["energy_reason"] or "", *self.summary["notes"]])


def measured(done: Done) -> Measured:
    assert "Traceback" not in done.stderr, done.stderr
    summary = json.loads(done.stdout)
    return Measured(done, summary, Path(summary["run"]))


def run(*arguments: str | Path, env: Mapping[str, str], output: Path, asked: Sequence[str] = RUN) -> Measured:
    """Run to the end."""
    return measured(powerbench(*asked, *arguments, "--output", output, "--json", env=dict(env)))


def begin(
    *arguments: str | Path, env: Mapping[str, str], output: Path, asked: Sequence[str] = RUN
) -> subprocess.Popen[str]:
    """Start a run, to be troubled on its way."""
    return start(*asked, *arguments, "--output", output, "--json", env=dict(env))


def truly(power_w: float, *, rel: float = FULL) -> Any:
    return pytest.approx(power_w, rel=rel)


def latency_is_whole(measured: Measured, *, seconds: float) -> None:
    """The run is complete, and none of its steps is missing."""
    summary, rows = measured.summary, rows_of(measured.path)
    steps = [row for row in rows if row.stage == "step"]
    assert (summary["status"], summary["reason"]) == ("complete", None)
    assert (summary["steps"], summary["warmup_steps"]) == (len(steps), 5)
    assert steps[-1].end_ns is not None
    assert steps[-1].end_ns - steps[0].start_ns >= seconds * S
    assert [row.step for row in rows] == list(range(len(rows)))
    assert summary["latency_ms"]["min"] >= 5
    assert summary["wall_s"] == pytest.approx((steps[-1].end_ns - steps[0].start_ns) / S)


def powermetrics_of(folder: Path) -> psutil.Process:
    """The powermetrics in `folder` at work."""
    (process,) = wait_for(lambda: processes_of(folder), f"a powermetrics of {folder}")
    return process


def readings_of(run: Path) -> list[tuple[int, str, float]]:
    """The lines of energy.csv, read by hand."""
    header, *lines = (run / "energy.csv").read_text("ascii").splitlines()
    assert header == "time_ns,rail,energy_j"
    return [(int(time_ns), rail, float(energy_j)) for time_ns, rail, energy_j in (line.split(",") for line in lines)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder whose processes do not outlive the test."""
    with swept(tmp_path):
        yield tmp_path


@pytest.fixture
def runs(folder: Path) -> Path:
    return folder / "runs"


SERVER = {
    "intel-rapl:0": "package-0",
    "intel-rapl:0:0": "core",
    "intel-rapl:0:1": "dram",
    "intel-rapl:1": "psys",
    "intel-rapl-mmio:0": "package-0",
}
SERVER_W = {
    "intel-rapl:0": 40,
    "intel-rapl:0:0": 30,
    "intel-rapl:0:1": 5,
    "intel-rapl:1": 90,
    "intel-rapl-mmio:0": 40,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("server")
    with counters(folder / "sys", SERVER) as machine:
        machine.draw(SERVER_W)
        return run(*BY_RAPL, "--require-power", "--min-seconds", "3", env=machine.variables, output=folder)


class TestASteadyServer:
    """A package at 40 W and its memory at 5 W, with cores, psys and the MMIO twin around, for three seconds."""

    def test_costs_what_it_draws(self, server: Measured) -> None:
        energy, summary = server.energy, server.summary

        assert server.done.status == 0
        latency_is_whole(server, seconds=3)
        assert energy["mean_w"] == truly(45)
        assert energy["total_j"] == truly(45 * summary["wall_s"])
        assert energy["j_per_step"] == truly(45 * summary["wall_s"] / summary["steps"])
        assert energy["idle_w"] == truly(45, rel=0.1)  # half a second of rest
        assert energy["net_j_per_step"] == pytest.approx(0, abs=0.1 * energy["j_per_step"])
        assert (energy["partial"], summary["energy_reason"]) == (False, None)
        assert energy["sensor_accuracy"] is None
        assert energy["readings"] in range(27, 33)

    def test_counts_packages_and_memory_and_nothing_twice(self, server: Measured) -> None:
        energy, step_s = server.energy, server.summary["wall_s"] / server.summary["steps"]

        assert energy["scope"] == "package-0 + dram-0"
        assert energy["rails"] == {
            rail: {
                "source": "rapl",
                "method": "counter",
                "counted": True,
                "j_per_step": truly(power_w * step_s, rel=0.01),
                "mean_w": truly(power_w, rel=0.01),
            }
            for rail, power_w in (("package-0", 40), ("dram-0", 5))
        }

    def test_is_metered_before_it_rests_and_rests_before_it_works(self, server: Measured) -> None:
        windows = record_of(server.path)["windows"]
        idle, steps = windows["idle"], windows["measured"]
        events = map(json.loads, (server.path / "worker-0.jsonl").read_text().splitlines())
        ready_ns = next(event["time_ns"] for event in events if event["event"] == "ready")

        first_ns, last_ns = readings_of(server.path)[0][0], readings_of(server.path)[-1][0]
        assert first_ns < idle["start_ns"] < idle["end_ns"] < ready_ns < steps["start_ns"] < steps["end_ns"] < last_ns
        assert idle["end_ns"] - idle["start_ns"] >= 0.5 * S

    def test_works_on_behind_the_last_edge_for_two_periods_of_its_meter(self, server: Measured) -> None:
        record, rows = record_of(server.path), rows_of(server.path)
        tail = [row for row in rows if row.stage == "tail"]

        assert record["tail_s"] == 0.2
        assert tail[-1].end_ns is not None
        assert tail[-1].end_ns - tail[0].start_ns >= 0.2 * S
        assert tail[0].start_ns == record["windows"]["measured"]["end_ns"]
        assert readings_of(server.path)[-1][0] > tail[0].start_ns + 0.1 * S

    def test_is_reported_alike_later(self, server: Measured) -> None:
        assert report(server.path) == server.summary


@pytest.fixture(scope="module")
def woken(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("woken")
    with swept(folder), a_socket(folder / "sys", power_w=10) as machine:
        # it wakes up behind a reading that closes the rest, and another has seen it awake before the worker, which is
        # held in its start or its warm-up, goes on to the measured steps
        asked, env = (*BY_RAPL, "--min-seconds", "2"), machine.variables
        working = begin(*asked, env=env, output=folder / "runs", asked=asking(warmup=WARM_UP_TO_BE_HELD_IN))
        path = running_in(folder / "runs")
        worker = worker_of(path)
        worker.suspend()
        assert len(marked_ns(path)) < WARM_UP_TO_BE_HELD_IN
        wait_for_reading_after(record_of(path)["windows"]["idle"]["end_ns"], path)
        machine.draw({"intel-rapl:0": 50})
        wait_for_reading_after(time.monotonic_ns(), path)
        worker.resume()
        return measured(ended(working))


def wait_for_reading_after(moment_ns: int, run: Path) -> None:
    wait_for(lambda: readings_of(run)[-1][0] > moment_ns, "a reading")


WARM_UP_TO_BE_HELD_IN = 200
"""Steps of 5 ms: a second, in which the worker must be found."""


class TestASocketThatWakesUp:
    """10 W at rest, 50 W at work."""

    def test_is_charged_for_its_work_without_the_rest(self, woken: Measured) -> None:
        energy, summary = woken.energy, woken.summary

        assert energy["mean_w"] == truly(50)
        assert energy["idle_w"] == pytest.approx(10, abs=4.2)  # an edge: half of 40 W times 0.1 s
        assert energy["peak_w"] >= energy["mean_w"]
        step_s = summary["wall_s"] / summary["steps"]
        assert energy["net_j_per_step"] == pytest.approx((energy["mean_w"] - energy["idle_w"]) * step_s)

    def test_rests_at_what_it_drew_at_rest(self) -> None:
        """10 W until 0.62 s, then 50 W, read each 100 ms from a counter that is late by 0 to 2 ms; rest until 0.5 s."""
        late_ms = map(int, "0012002012020001100021020022202210")
        at_s = [tenth / 10 for tenth in range(34)]
        shown_s = [s - late / 1000 for s, late in zip(at_s, late_ms, strict=True)]
        joules = [10 * s + 40 * max(0.0, s - 0.62) for s in shown_s]
        curve = EnergyCurve([START + round(s * S) for s in at_s], joules)
        edges = [START + round((1.0133 + step / 100) * S) for step in range(181)]
        steps = StepTrace(["step"] * 180, edges[:-1], edges[1:], [*edges[1:]])
        rail = RailRecord(source="rapl", method="counter", state="measured", scope="", part="package", period_s=0.1)
        record = a_record(rails={"package-0": rail}, windows={"idle": Window(START, START + S // 2)})

        energy, _, _ = find_energy(record, steps, {"package-0": curve})
        assert energy is not None
        assert (energy.mean_w, energy.idle_w) == (truly(50), truly(10, rel=0.01))


def test_a_mac_is_counted_as_a_whole_and_the_rest_of_it_is_shown(folder: Path, runs: Path) -> None:
    program = install(folder, watts={"cpu": 10, "gpu": 5, "ane": 1})
    with a_socket(folder / "sys") as machine:
        variables = {**machine.variables, "POWERBENCH_POWERMETRICS": str(program)}
        mac = run("--power", "auto", "--min-seconds", "2.5", env=variables, output=runs)

    energy, step_s = mac.energy, mac.summary["wall_s"] / mac.summary["steps"]
    latency_is_whole(mac, seconds=2.5)
    assert energy["scope"] == "SoC (cpu + gpu + ane)"
    assert (energy["mean_w"], energy["j_per_step"]) == (truly(16), truly(16 * step_s))
    assert energy["total_j"] == truly(16 * mac.summary["wall_s"])
    assert energy["idle_w"] == truly(16)
    assert (energy["partial"], energy["sensor_accuracy"]) == (False, None)
    shown = {rail: (it["counted"], it["mean_w"]) for rail, it in energy["rails"].items()}
    assert shown == {
        "cpu": (True, truly(10)),
        "gpu": (True, truly(5)),
        "ane": (True, truly(1)),
        "package-0": (False, truly(40)),
    }
    assert "Apple's estimates" in mac.told
    nobody_is_left(folder)


@pytest.mark.skipif(COMPILER is None, reason="no C compiler to build libnvidia-ml.so.1")
class TestNvidia:
    @pytest.fixture
    def variables(self, folder: Path) -> dict[str, str]:
        library = build(folder / "driver")
        return {"LD_LIBRARY_PATH": str(library), "FAKE_NVML_UUIDS": "GPU-b,GPU-a", "FAKE_NVML_WATTS": "300;20"}

    def test_gpus_asked_for_by_name_cost_what_they_draw(self, variables: dict[str, str], runs: Path) -> None:
        gpus = run("--power", "nvml", "--min-seconds", "5.2", env=variables, output=runs)

        energy = gpus.energy
        latency_is_whole(gpus, seconds=5.2)
        assert (energy["mean_w"], energy["total_j"]) == (truly(320), truly(320 * gpus.summary["wall_s"]))
        assert (energy["scope"], energy["partial"]) == ("gpu0 + gpu1", False)
        assert [rail["mean_w"] for rail in energy["rails"].values()] == [truly(300), truly(20)]
        assert [rail["method"] for rail in energy["rails"].values()] == ["counter", "counter"]

    def test_below_five_seconds_there_is_no_figure(self, variables: dict[str, str], runs: Path) -> None:
        gpus = run("--power", "nvml", "--min-seconds", "1", env=variables, output=runs)

        assert gpus.done.status == 0
        assert gpus.summary["energy"] is None
        had = duration(gpus.summary["wall_s"])
        assert gpus.summary["energy_reason"] == (
            f"a GPU's meter needs 5 s and had {had}; measure 5 s with --min-seconds"
        )


class TestTroubleWithPowermetrics:
    """10 W and 5 W until something happens: the run ends complete, with every step."""

    def begin(self, folder: Path, *arguments: str, **settings: Any) -> subprocess.Popen[str]:
        program = install(folder, **settings)
        variables = {"POWERBENCH_POWERMETRICS": str(program)}
        return begin(*BY_POWERMETRICS, *arguments, env=variables, output=folder.parent / "runs")

    @pytest.fixture
    def meter(self, folder: Path) -> Path:
        """Where powermetrics lies; nothing else runs there."""
        (folder / "meter").mkdir()
        return folder / "meter"

    def test_that_ends_before_the_first_step(self, meter: Path) -> None:
        mac = measured(ended(self.begin(meter, "--min-seconds", "1", documents=3, status=7, last_words="no more")))

        assert mac.done.status == 0
        latency_is_whole(mac, seconds=1)
        assert mac.summary["energy"] is None
        assert mac.summary["energy_reason"].startswith("the meter gave nothing during the measured steps (")
        assert "powermetrics ended after 3 samples (exit status 7): no more" in mac.summary["energy_reason"]

    def test_that_is_killed_in_the_middle(self, meter: Path, runs: Path) -> None:
        running = self.begin(meter, "--min-seconds", "3")
        stepping_in(runs, steps=120)
        kill(powermetrics_of(meter))
        mac = measured(ended(running))

        assert mac.done.status == 0
        latency_is_whole(mac, seconds=3)
        assert mac.energy["partial"] is True
        assert mac.energy["mean_w"] == pytest.approx(15, rel=0.01)
        assert mac.energy["total_j"] < 15 * mac.summary["wall_s"]
        assert mac.energy["j_per_step"] == pytest.approx(15 * mac.summary["wall_s"] / mac.summary["steps"], rel=0.01)
        assert "powermetrics ended after" in mac.told
        assert "The energy is partial: the meter covers" in mac.told

    def test_that_hangs_in_the_middle_and_does_not_end_when_asked_to(self, meter: Path, runs: Path) -> None:
        running = self.begin(meter, "--min-seconds", "3")
        stepping_in(runs, steps=120)
        powermetrics_of(meter).suspend()
        mac = measured(ended(running))

        assert mac.done.status == 0
        latency_is_whole(mac, seconds=3)
        assert mac.energy["partial"] is True
        assert mac.energy["mean_w"] == pytest.approx(15, rel=0.01)
        assert "powermetrics did not end when asked to and was killed." in mac.told
        nobody_is_left(meter)

    def test_that_hangs_before_the_first_step(self, meter: Path) -> None:
        mac = measured(ended(self.begin(meter, "--min-seconds", "1", hang_at=3)))

        assert mac.done.status == 0
        latency_is_whole(mac, seconds=1)
        assert mac.summary["energy"] is None
        assert mac.summary["energy_reason"] == (
            "the meter gave nothing during the measured steps (its curve has no reading there)"
        )

    def test_that_says_nonsense_before_the_first_step(self, meter: Path) -> None:
        mac = measured(ended(self.begin(meter, "--min-seconds", "1", not_a_number={"cpu": ["nan", 3]})))

        assert mac.done.status == 0
        latency_is_whole(mac, seconds=1)
        assert mac.summary["energy"] is None
        assert mac.summary["energy_reason"] == (
            "the meter gave nothing during the measured steps (powermetrics gave nan mJ)"
        )

    def test_that_stalls_in_the_middle(self, meter: Path, runs: Path) -> None:
        dead = meter / "dead"
        running = self.begin(meter, "--min-seconds", "4.5", dead_once={"cpu": str(dead)})
        stepping_in(runs, steps=200)
        dead.touch()
        mac = measured(ended(running))

        assert mac.done.status == 0
        latency_is_whole(mac, seconds=4.5)
        assert "The curve of cpu ends early: it stalled: powermetrics gave no energy for" in mac.told
        assert mac.energy["partial"] is True
        assert mac.energy["mean_w"] == truly(15, rel=0.01)

    @pytest.mark.parametrize(
        ("settings", "why"),
        [
            ({"flood": True}, "powermetrics wrote 8 MB that are no document"),
            ({"documents": 0, "status": 9}, "powermetrics ended before its first sample (exit status 9)"),
        ],
    )
    def test_that_never_gives_a_reading(self, meter: Path, settings: dict[str, Any], why: str) -> None:
        mac = measured(ended(self.begin(meter, "--min-seconds", "0.5", **settings)))

        assert mac.done.status == 0
        latency_is_whole(mac, seconds=0.5)
        assert mac.summary["energy"] is None
        assert mac.summary["energy_reason"].startswith(f"powermetrics gave no reading: {why}")
        assert record_of(mac.path)["unmetered"]["powermetrics"].startswith(why)
        nobody_is_left(meter)

    def test_that_never_gives_a_reading_ends_a_run_that_requires_energy(self, meter: Path, runs: Path) -> None:
        done = ended(self.begin(meter, "--min-seconds", "0.5", "--require-power", flood=True))

        path = the_run(runs)
        assert (done.status, path and record_of(path)["status"]) == (3, "unavailable")


class TestTroubleWithRapl:
    def test_a_counter_that_goes_back_ends_the_curve_and_not_the_run(self, folder: Path, runs: Path) -> None:
        with a_socket(folder / "sys") as machine:
            running = begin(*BY_RAPL, "--require-power", "--min-seconds", "3", env=machine.variables, output=runs)
            stepping_in(runs, steps=120)
            machine.go_back()
            server = measured(ended(running))

        assert server.done.status == 1
        latency_is_whole(server, seconds=3)
        assert server.energy["partial"] is True
        assert server.energy["mean_w"] == pytest.approx(40, rel=0.01)
        assert "The curve of package-0 ends early: its counter in µJ went back from" in server.told
        assert told(server.done) == "Energy was required (--require-power): the meter was lost before the end."

    def test_a_counter_that_stands_still_ends_the_curve_and_is_not_taken_for_no_energy(
        self, folder: Path, runs: Path
    ) -> None:
        with a_socket(folder / "sys") as machine:
            running = begin(*BY_RAPL, "--min-seconds", "5.5", env=machine.variables, output=runs)
            stepping_in(runs, steps=250)
            machine.draw({"intel-rapl:0": 0})
            server = measured(ended(running))

        assert server.done.status == 0
        latency_is_whole(server, seconds=5.5)
        assert server.energy["partial"] is True
        # the last interval that it rose in may have been cut short
        assert server.energy["mean_w"] == pytest.approx(40, rel=0.09)
        assert "The curve of package-0 ends early: it stalled: its counter did not move for 2." in server.told

    def test_steps_that_are_over_between_two_readings_have_no_figure(self, folder: Path, runs: Path) -> None:
        with a_socket(folder / "sys") as machine:
            quick = run(*BY_RAPL, "--min-seconds", "0", env=machine.variables, output=runs, asked=asking(steps=2))

        assert quick.done.status == 0
        latency_is_whole(quick, seconds=0.01)
        assert quick.summary["energy"] is None
        few, how_long = quick.summary["energy_reason"].split("; ")
        fell = ("no reading", "only 1 reading", "only 2 readings")
        assert few in (f"{readings} of the meter fell into the steps" for readings in fell)
        assert how_long == "measure 1 s with --min-seconds"


class TestWhatIsAskedFor:
    def test_no_meter_is_opened_where_none_is_wanted(self, folder: Path, runs: Path) -> None:
        with a_socket(folder / "sys") as machine:
            bare = run("--power", "none", "--min-seconds", "0", env=machine.variables, output=runs)

        record = record_of(bare.path)
        assert (bare.done.status, bare.summary["status"], bare.summary["steps"]) == (0, "complete", 20)
        assert bare.summary["energy"] is None
        assert bare.summary["energy_reason"] == "no meter was asked for (--power none)"
        assert (record["rails"], record["unmetered"], record["tail_s"]) == ({}, {}, 0)
        assert "idle" not in record["windows"]
        assert {row.stage for row in rows_of(bare.path)} == {"warmup", "step"}

    def test_an_unknown_meter_is_wrong_usage(self, runs: Path) -> None:
        done = powerbench(*RUN, "--power", "rapll", "--output", runs)

        assert done.status == 2
        assert told(done) == "There is no power source called 'rapll'; did you mean rapl?"
        assert not runs.exists()

    @pytest.mark.parametrize("required", [(), ("--require-power",)])
    def test_a_meter_that_is_not_here_is_not_replaced(self, folder: Path, runs: Path, required: Sequence[str]) -> None:
        done = powerbench(*RUN, *BY_RAPL, *required, "--output", runs, env={"POWERBENCH_SYSFS": str(folder)})

        assert done.status == 3
        assert told(done).startswith(f"--power rapl: {folder}/class/powercap has no RAPL counters")
        assert not runs.exists()

    def test_energy_that_is_required_needs_a_meter(self, runs: Path) -> None:
        done = powerbench(*RUN, "--power", "none", "--require-power", "--output", runs)

        assert done.status == 3
        assert told(done) == "Energy is required (--require-power), but there is no meter to open: --power is none."
        assert not runs.exists()


def test_a_killed_supervisor_leaves_the_energy_until_then_and_nobody_at_work(folder: Path, runs: Path) -> None:
    (folder / "meter").mkdir()
    program = install(folder / "meter", watts={"cpu": 10, "gpu": 5, "ane": 1})
    variables = {"POWERBENCH_POWERMETRICS": str(program)}
    running = begin(*BY_POWERMETRICS, env=variables, output=runs, asked=asking(steps=1_000_000))
    path = stepping_in(runs, steps=300)
    powermetrics_of(folder / "meter")
    kill(running)
    running.communicate()

    nobody_is_left(folder)
    summary = report(path)
    assert summary["status"] == "interrupted"
    assert summary["steps"] >= 250
    assert summary["energy"]["mean_w"] == pytest.approx(16, rel=0.01)
    assert summary["energy"]["idle_w"] == pytest.approx(16, rel=0.01)
    assert summary["energy"]["j_per_step"] == pytest.approx(16 * summary["wall_s"] / summary["steps"], rel=0.01)


class Steady:
    """A source of one rail called `cpu` that draws so much."""

    def __init__(self, name: str, power_w: float) -> None:
        self.name = name
        self._power_w = power_w

    def why_unavailable(self) -> str | None:
        return None

    def set_up(self) -> Sequence[str]:
        return ()

    def open(self, *, period_s: float) -> Meter:
        return SteadyMeter(self.name, self._power_w, period_s)


class SteadyMeter(PolledMeter):
    def __init__(self, source: str, power_w: float, period_s: float) -> None:
        rail = RailRecord(
            source=source, method="counter", state="measured", scope="", part="package", period_s=period_s
        )
        super().__init__(Schedule(period_s), {"cpu": rail})
        self._power_w = power_w
        self._opened_ns = time.monotonic_ns()

    def _poll(self) -> list[Reading | Gauge]:
        now_ns = time.monotonic_ns()
        return [Reading(now_ns, "cpu", self._power_w * (now_ns - self._opened_ns) / S)]

    def _let_go(self) -> None:
        pass


def test_two_meters_with_one_name_for_a_rail_are_told_apart_and_counted_once(tmp_path: Path) -> None:
    settings = {"model": "sleep", "device": "cpu", "idle_seconds": 0.0, "min_seconds": 1.0, "steps": 20}
    cell = resolve(make_cell(options=settings), metered=True)
    sources = {"first": Steady("first", 10), "other": Steady("other", 7)}
    run = record_run(cell, parent=tmp_path, sources=sources)

    energy, _, _ = find_energy(run.record, run.steps[0], run.curves())
    assert energy is not None
    assert (energy.scope, energy.mean_w) == ("cpu", truly(10))
    assert {rail: (it.counted, it.mean_w) for rail, it in energy.rails.items()} == {
        "cpu": (True, truly(10)),
        "other.cpu": (False, truly(7)),
    }


class TestDoctor:
    def test_says_what_a_meter_would_measure_and_what_it_is_like_at_rest(self, folder: Path) -> None:
        with a_socket(folder / "sys") as machine:
            done = powerbench("doctor", "--calibrate", "--json", env=machine.variables)
        checks = [check for check in json.loads(done.stdout) if check["subject"] == "meter"]
        able, at_rest = (check for check in checks if check["name"] == "rapl")
        (missing,) = (check for check in checks if check["name"] == "hwmon")

        assert (done.status, done.stderr) == (0, "")
        assert (missing["state"], missing["finding"].split(" in ")[0]) == ("missing", "No power sensor")
        assert (able["state"], able["commands"]) == ("ok", [])
        assert able["finding"] == "package-0: package, measured (counter, each 100 ms; no accuracy published)"
        assert at_rest["finding"].startswith("package-0 at rest: ")
        power, detail = at_rest["finding"].removeprefix("package-0 at rest: ").split(" W, give or take ")
        assert float(power) == pytest.approx(40, rel=0.01)
        noise, readings = detail.split("; ")
        assert 0 <= float(noise) < 40
        many, often, quantum = readings.split(", ")
        assert int(many.removesuffix(" readings")) in range(45, 53)
        assert float(often.removeprefix("one each ").removesuffix(" ms")) == pytest.approx(100, rel=0.05)
        assert quantum.startswith("the smallest step was ")
