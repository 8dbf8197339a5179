"""Hardware monitors and batteries, in a tree of our own that looks like the kernel's, on a clock of our own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerbench.errors import MeterLost
from powerbench.power import Meter
from powerbench.power.hwmon import Hwmon
from powerbench.records import Gauge, Reading

S = 1_000_000_000
W = 1_000_000  # in µW
V1_METRICS, V2_METRICS = b"\x78\x00\x01\x03", b"\x78\x00\x02\x02"


class Machine:
    """A tree of monitors and batteries, and a clock that is moved."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now_ns = 500 * S
        self.variables = {"POWERBENCH_SYSFS": str(root)}

    def monitor(self, number: int, driver: str, **files: object) -> Path:
        """Add hwmonN with these files in it."""
        return self.folder(f"class/hwmon/hwmon{number}", name=driver, **files)

    def battery(self, name: str = "BAT0", **files: object) -> Path:
        """Add a battery; files as in class/power_supply."""
        return self.folder(f"class/power_supply/{name}", type="Battery", **files)

    def mains(self, online: int) -> Path:
        """Add a charger, or plug it in."""
        return self.folder("class/power_supply/AC", type="Mains", online=online)

    def folder(self, path: str, **files: object) -> Path:
        folder = self.root / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            put(folder / name, content)
        return folder

    def source(self) -> Hwmon:
        return Hwmon(variables=self.variables, schedule=lambda period_s: self, clock_ns=lambda: self.now_ns)

    def open(self) -> Meter:
        return self.source().open(period_s=0.1)

    def wait(self) -> bool:
        return True

    def close(self) -> None:
        pass


def put(path: Path, content: object) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(f"{content}\n")


def device(hwmon: Path, **files: object) -> Path:
    """The device behind a monitor."""
    folder = hwmon / "device"
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        put(folder / name, content)
    return folder


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One without any sensor."""
    return Machine(tmp_path)


@pytest.fixture
def card(machine: Machine) -> Path:
    """A discrete AMD card that draws 100 W."""
    hwmon = machine.monitor(3, "amdgpu", power1_average=100 * W, power1_input=90 * W, power1_label="PPT")
    device(hwmon, board_info="type : cem", gpu_metrics=V1_METRICS, unique_id="5d3ff0a7c9b51e2b")
    return hwmon


def joules(given: list[Reading | Gauge]) -> dict[str, float]:
    return {item.rail: round(item.energy_j, 9) for item in given if isinstance(item, Reading)}


def gauges(given: list[Reading | Gauge]) -> dict[str, float | str]:
    return {item.name: item.value for item in given if isinstance(item, Gauge)}


class TestAmd:
    def test_a_hundred_watts_for_a_tenth_of_a_second_are_ten_joules(self, machine: Machine, card: Path) -> None:
        meter = machine.open()
        assert joules(meter.read()) == {"amdgpu0": 0.0}
        machine.now_ns += S // 10

        given = meter.read()
        assert joules(given) == {"amdgpu0": 10.0}
        assert gauges(given) == {"amdgpu0.power_w": 100.0}

    def test_a_discrete_card_is_a_gpu_by_its_own_identifier(self, machine: Machine, card: Path) -> None:
        rail = machine.open().rails()["amdgpu0"]

        assert (rail.part, rail.contains, rail.method) == ("gpu", [], "instant, integrated")
        assert rail.uuid == "GPU-5d3ff0a7c9b51e2b"
        assert rail.accuracy is None
        assert rail.accuracy_source is not None

    def test_older_kernels_tell_a_card_by_another_file(self, machine: Machine) -> None:
        device(machine.monitor(0, "amdgpu", power1_input=50 * W), pcie_bw="0 0 256")

        assert machine.open().rails()["amdgpu0"].part == "gpu"

    def test_on_an_apu_the_figure_is_the_whole_chips(self, machine: Machine) -> None:
        device(machine.monitor(0, "amdgpu", power1_average=15 * W, power1_label="PPT"), gpu_metrics=V2_METRICS)

        rail = machine.open().rails()["amdapu0"]
        assert (rail.part, rail.contains) == ("soc", ["cpu", "gpu", "package"])

    def test_of_two_figures_for_one_chip_one_is_counted(self, machine: Machine) -> None:
        files = {"power1_average": 9 * W, "power1_label": "slowPPT", "power2_average": 9 * W, "power2_label": "fastPPT"}
        device(machine.monitor(0, "amdgpu", **files), gpu_metrics=V2_METRICS)

        given = machine.open().read()
        assert joules(given) == {"amdapu0": 0.0}
        assert gauges(given)["hwmon.amdgpu.fastPPT.power_w"] == 9.0

    def test_a_chip_of_unknown_kind_is_shown_and_not_counted(self, machine: Machine, card: Path) -> None:
        device(machine.monitor(4, "amdgpu", power1_average=400 * W, power1_label="PPT"), gpu_metrics=V1_METRICS)

        given = machine.open().read()
        assert joules(given) == {"amdgpu0": 0.0}
        assert gauges(given)["hwmon.amdgpu.PPT.power_w"] == 400.0

    def test_cards_are_numbered_by_their_place_on_the_bus(self, machine: Machine) -> None:
        for number, address in ((7, "0000:03:00.0"), (2, "0000:83:00.0")):
            place = machine.folder(f"devices/{address}", board_info="type : oam", unique_id=f"at-{address}")
            (machine.monitor(number, "amdgpu", power1_average=W, power1_label="PPT") / "device").symlink_to(place)

        assert {rail: record.uuid for rail, record in machine.open().rails().items()} == {
            "amdgpu0": "GPU-at-0000:03:00.0",
            "amdgpu1": "GPU-at-0000:83:00.0",
        }

    def test_sockets_are_counted_where_rapl_cannot_be_read(self, machine: Machine) -> None:
        machine.monitor(
            1,
            "amd_energy",
            energy1_input=5,
            energy1_label="Ecore000",
            energy2_input=7_000_000,
            energy2_label="Esocket0",
        )
        meter = machine.open()
        meter.read()
        (machine.root / "class/hwmon/hwmon1/energy2_input").write_text("57000000")
        machine.now_ns += S

        assert joules(meter.read()) == {"socket-0": 50.0}
        assert meter.rails()["socket-0"].part == "package"
        assert meter.rails()["socket-0"].method == "counter"

    def test_and_not_where_rapl_counts_the_same(self, machine: Machine) -> None:
        machine.monitor(1, "amd_energy", energy1_input=7, energy1_label="Esocket0")
        machine.folder("class/powercap/intel-rapl:0", energy_uj=1)

        assert machine.source().why_unavailable() is not None


class TestIntel:
    def test_the_board_is_counted_and_the_chip_on_it_shown(self, machine: Machine) -> None:
        hwmon = machine.monitor(0, "xe", energy1_input=0, energy1_label="card", energy2_input=0, energy2_label="pkg")
        meter = machine.open()
        assert meter.rails()["xe0"].scope == "GPU board"
        meter.read()
        put(hwmon / "energy1_input", 190_000_000)
        put(hwmon / "energy2_input", 150_000_000)
        machine.now_ns += S

        given = meter.read()
        assert joules(given) == {"xe0": 190.0}
        assert gauges(given) == {"hwmon.xe.pkg.power_w": 150.0}

    @pytest.mark.parametrize(("driver", "rail"), [("xe", "xe0"), ("i915", "i915-0")])
    def test_where_only_one_counter_exists_it_is_counted(self, machine: Machine, driver: str, rail: str) -> None:
        machine.monitor(0, driver, energy1_input=12)

        assert list(machine.open().rails()) == [rail]

    def test_halves_of_a_card_are_not_counted(self, machine: Machine) -> None:
        machine.monitor(0, "i915", energy1_input=12)
        machine.monitor(1, "i915_gt0", energy1_input=12)

        assert list(machine.open().rails()) == ["i915-0"]

    def test_a_counter_that_goes_back_ends_the_curve(self, machine: Machine) -> None:
        hwmon = machine.monitor(0, "i915", energy1_input=1200)
        meter = machine.open()
        meter.read()
        put(hwmon / "energy1_input", 12)
        with pytest.raises(MeterLost, match="i915-0: its counter in µJ went back from 1,200 to 12: it was reset"):
            meter.read()


class TestBattery:
    def test_off_the_mains_the_battery_meters_the_whole_machine(self, machine: Machine) -> None:
        machine.battery(status="Discharging", power_now=20 * W)
        machine.mains(online=0)
        meter = machine.open()
        meter.read()
        machine.now_ns += 2 * S

        assert joules(meter.read()) == {"battery": 40.0}
        rail = meter.rails()["battery"]
        assert rail.part == "system"
        assert {"cpu", "gpu", "dram", "package"} <= set(rail.contains)
        assert rail.period_s == 1.0
        assert meter.notes() != []

    def test_current_times_voltage_will_do_and_a_minus_sign_does_no_harm(self, machine: Machine) -> None:
        machine.battery(status="Discharging", current_now=-1_500_000, voltage_now=12_000_000)

        assert gauges(machine.open().read()) == {"battery.power_w": pytest.approx(18.0)}

    def test_two_batteries_are_one(self, machine: Machine) -> None:
        machine.battery("BAT0", status="Not charging", power_now=0)
        machine.battery("BAT1", status="Discharging", power_now=9 * W)

        assert gauges(machine.open().read()) == {"battery.power_w": pytest.approx(9.0)}

    @pytest.mark.parametrize("status", ["Charging", "Full", "Not charging", "Unknown"])
    def test_a_battery_that_does_not_discharge_says_nothing(self, machine: Machine, status: str) -> None:
        machine.battery(status=status, power_now=20 * W)

        assert machine.source().why_unavailable() == (
            "No sensor but the battery knows this machine's power, and only off the mains: unplug the charger."
        )

    def test_nor_does_one_that_only_helps_a_weak_charger(self, machine: Machine) -> None:
        machine.battery(status="Discharging", power_now=20 * W)
        machine.mains(online=1)

        assert machine.source().why_unavailable() is not None

    def test_the_battery_of_a_mouse_is_not_the_machines(self, machine: Machine) -> None:
        machine.battery("hidpp_battery_0", status="Discharging", scope="Device", power_now=W)

        assert "No power sensor" in str(machine.source().why_unavailable())

    def test_plugging_the_charger_in_ends_the_curve(self, machine: Machine, card: Path) -> None:
        machine.battery(status="Discharging", power_now=20 * W)
        meter = machine.open()
        meter.read()
        machine.mains(online=1)
        machine.now_ns += S

        assert joules(meter.read()) == {"amdgpu0": 100.0}
        assert meter.rails()["battery"].lost == "the machine no longer ran on its battery alone"


class TestShown:
    def test_unlisted_sensors_are_shown_once_a_second_and_never_counted(self, machine: Machine, card: Path) -> None:
        machine.monitor(5, "xgene", power1_input=14 * W, power1_label="CPU power")
        machine.monitor(6, "corsairpsu", power1_input=300 * W, power1_label="power total")
        machine.monitor(7, "corsairpsu", power1_input=200 * W, power1_label="power total")
        meter = machine.open()
        names = [
            "hwmon.corsairpsu.power_total-2.power_w",
            "hwmon.corsairpsu.power_total.power_w",
            "hwmon.xgene.CPU_power.power_w",
        ]

        first = meter.read()
        assert joules(first) == {"amdgpu0": 0.0}
        assert sorted(set(gauges(first)) - {"amdgpu0.power_w"}) == names
        machine.now_ns += S // 10
        assert list(gauges(meter.read())) == ["amdgpu0.power_w"]
        machine.now_ns += S
        assert len(gauges(meter.read())) == 4

    def test_limits_are_no_sensors(self, machine: Machine, card: Path) -> None:
        put(card / "power1_cap", 250 * W)
        put(card / "power1_cap_max", 250 * W)

        assert list(gauges(machine.open().read())) == ["amdgpu0.power_w"]


class TestSilence:
    def test_a_card_that_wakes_up_is_waited_for(self, machine: Machine, card: Path) -> None:
        machine.monitor(0, "i915", energy1_input=0)
        meter = machine.open()
        meter.read()
        machine.now_ns += S
        put(card / "power1_average", "")
        assert joules(meter.read()) == {"i915-0": 0.0}
        machine.now_ns += S
        put(card / "power1_average", 100 * W)

        assert joules(meter.read()) == {"i915-0": 0.0, "amdgpu0": 200.0}

    def test_after_two_seconds_its_curve_has_ended(self, machine: Machine, card: Path) -> None:
        meter = machine.open()
        meter.read()
        (card / "power1_average").unlink()
        machine.now_ns += 3 * S

        with pytest.raises(MeterLost, match="amdgpu0: its sensor gave no reading for 2 s"):
            meter.read()


class TestIntegration:
    @given(cuts_ns=st.lists(st.integers(0, 10 * S), max_size=15))
    def test_however_often_it_is_looked_at_a_steady_draw_gives_the_same_joules(
        self, cuts_ns: list[int], tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        machine = Machine(tmp_path_factory.mktemp("cut"))
        device(machine.monitor(0, "amdgpu", power1_average=300 * W), board_info="type : cem")
        meter, start_ns = machine.open(), machine.now_ns
        meter.read()
        for cut_ns in [*sorted(cuts_ns), 10 * S]:
            machine.now_ns = start_ns + cut_ns
            given = meter.read()

        assert joules(given)["amdgpu0"] == pytest.approx(3000.0)


class TestWhyUnavailable:
    def test_a_listed_sensor_is_all_it_takes(self, machine: Machine, card: Path) -> None:
        assert machine.source().why_unavailable() is None

    def test_what_was_found_and_what_would_do_is_said(self, machine: Machine) -> None:
        machine.monitor(0, "coretemp", temp1_input=40_000)
        machine.monitor(1, "nvme", power1_input=W)

        assert machine.source().why_unavailable() == (
            f"No power sensor in {machine.root}/class/hwmon is one that powerbench knows (found: nvme): it reads there "
            "discrete GPUs of AMD (amdgpu) and Intel (xe, i915), whose drivers must be loaded."
        )
        with pytest.raises(MeterLost, match="found: nvme"):
            machine.open()

    def test_nothing_at_all_is_said_as_well(self, machine: Machine) -> None:
        assert "(found: none)" in str(machine.source().why_unavailable())
