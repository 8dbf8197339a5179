"""The counters of processors, in a tree of our own that looks like the kernel's, on a clock of our own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerbench.errors import MeterLost
from powerbench.power import Meter
from powerbench.power.rapl import UDEV_COMMANDS, UDEV_RULE, Rapl, Zone, ZoneCounter
from powerbench.records import Gauge, Reading

S = 1_000_000_000
MAX_UJ = 262_143_328_850


class Machine:
    """A tree of zones whose counters rise with the watts that are set, while a clock is moved."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "class/powercap"
        self.now_ns = 500 * S
        self.periods_s: list[float] = []
        self.variables = {"POWERBENCH_SYSFS": str(root)}

    def zone(self, entry: str, name: str, *, energy_uj: int | str = 0, max_uj: int | None = MAX_UJ) -> Path:
        """Add a zone, or set its counter."""
        path = self.folder / entry
        path.mkdir(parents=True, exist_ok=True)
        (path / "name").write_text(name + "\n")
        (path / "energy_uj").write_text(f"{energy_uj}\n")
        if max_uj is not None:
            (path / "max_energy_range_uj").write_text(f"{max_uj}\n")
        return path

    def draw(self, watts: dict[str, float], seconds: float) -> None:
        """Let each zone draw its watts for so long."""
        self.now_ns += round(seconds * S)
        for entry, power_w in watts.items():
            counter = self.folder / entry / "energy_uj"
            maximum = int((self.folder / entry / "max_energy_range_uj").read_text())
            counter.write_text(f"{(int(counter.read_text()) + round(power_w * seconds * 1e6)) % (maximum + 1)}\n")

    def source(self) -> Rapl:
        return Rapl(variables=self.variables, schedule=self.schedule, clock_ns=lambda: self.now_ns)

    def open(self, period_s: float = 0.1) -> Meter:
        return self.source().open(period_s=period_s)

    def schedule(self, period_s: float) -> Machine:
        self.periods_s.append(period_s)
        return self

    def wait(self) -> bool:
        return True

    def close(self) -> None:
        pass


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One socket."""
    machine = Machine(tmp_path)
    machine.zone("intel-rapl:0", "package-0", energy_uj=1_000_000)
    return machine


@pytest.fixture
def server(machine: Machine) -> Machine:
    """Two sockets with memory and cores, psys around them, the first once more by MMIO, and the control types."""
    machine.zone("intel-rapl:0:0", "core")
    machine.zone("intel-rapl:0:1", "dram")
    machine.zone("intel-rapl:1", "package-1")
    machine.zone("intel-rapl:1:0", "dram")
    machine.zone("intel-rapl:2", "psys")
    machine.zone("intel-rapl-mmio:0", "package-0")
    for control in ("intel-rapl", "intel-rapl-mmio"):
        (machine.folder / control).mkdir()
    return machine


def joules(given: list[Reading | Gauge]) -> dict[str, float]:
    return {item.rail: item.energy_j for item in given if isinstance(item, Reading)}


def gauges(given: list[Reading | Gauge]) -> dict[str, float | str]:
    return {item.name: item.value for item in given if isinstance(item, Gauge)}


class TestRails:
    def test_ten_watts_for_a_tenth_of_a_second_is_one_joule(self, machine: Machine) -> None:
        meter = machine.open()
        assert meter.read() == [Reading(500 * S, "package-0", 0.0)]
        machine.draw({"intel-rapl:0": 10.0}, seconds=0.1)

        assert meter.read() == [Reading(500 * S + S // 10, "package-0", 1.0)]

    def test_packages_and_their_memory_are_counted_and_nothing_else(self, server: Machine) -> None:
        rails = server.open().rails()

        assert {rail: (record.part, record.contains) for rail, record in rails.items()} == {
            "package-0": ("package", ["cpu"]),
            "dram-0": ("dram", []),
            "package-1": ("package", ["cpu"]),
            "dram-1": ("dram", []),
        }
        assert {record.state for record in rails.values()} == {"measured"}
        assert {record.accuracy for record in rails.values()} == {None}
        assert all(record.accuracy_source for record in rails.values())

    def test_each_socket_has_its_own_joules(self, server: Machine) -> None:
        meter = server.open()
        meter.read()
        watts = {"intel-rapl:0": 100, "intel-rapl:0:1": 20, "intel-rapl:1": 50, "intel-rapl:1:0": 10}
        server.draw({**watts, "intel-rapl-mmio:0": 100, "intel-rapl:2": 200}, seconds=2)

        assert joules(meter.read()) == {"package-0": 200.0, "dram-0": 40.0, "package-1": 100.0, "dram-1": 20.0}

    def test_cores_psys_and_the_twin_by_mmio_are_shown_in_watts(self, server: Machine) -> None:
        meter = server.open()
        assert gauges(meter.read()) == {}
        server.draw({"intel-rapl:0:0": 60, "intel-rapl:2": 200, "intel-rapl-mmio:0": 100}, seconds=0.5)

        assert gauges(meter.read()) == {
            "package-0.core.power_w": 60.0,
            "psys.power_w": 200.0,
            "mmio.package-0.power_w": 100.0,
        }

    def test_a_package_of_several_dies_has_a_rail_each(self, tmp_path: Path) -> None:
        machine = Machine(tmp_path)
        machine.zone("intel-rapl:0", "package-0-die-0")
        machine.zone("intel-rapl:1", "package-0-die-1")
        machine.zone("intel-rapl:1:0", "dram")

        assert list(machine.open().rails()) == ["package-0-die-0", "package-0-die-1", "dram-0-die-1"]

    def test_a_name_that_comes_twice_is_counted_once(self, machine: Machine) -> None:
        machine.zone("intel-rapl:1", "package-0")

        assert list(machine.open().rails()) == ["package-0"]
        assert len(machine.open().read()) == 1


class TestWraps:
    def test_past_its_end_a_counter_goes_on(self, machine: Machine) -> None:
        machine.zone("intel-rapl:0", "package-0", energy_uj=MAX_UJ - 400_000)
        meter = machine.open()
        meter.read()
        machine.draw({"intel-rapl:0": 10.0}, seconds=0.1)

        assert joules(meter.read()) == {"package-0": 1.0}
        assert int((machine.folder / "intel-rapl:0/energy_uj").read_text()) < 1_000_000

    def test_without_a_known_end_going_back_ends_the_curve(self, tmp_path: Path) -> None:
        machine = Machine(tmp_path)
        path = machine.zone("intel-rapl:0", "package-0", energy_uj=5_000, max_uj=None)
        machine.zone("intel-rapl:1", "package-1")
        meter = machine.open()
        meter.read()
        (path / "energy_uj").write_text("10")
        machine.draw({"intel-rapl:1": 3.0}, seconds=1)

        assert joules(meter.read()) == {"package-1": 3.0}
        assert meter.rails()["package-0"].lost == (
            "its counter in µJ went back from 5,000 to 10, and that was no wrap: it was reset, as by a suspend"
        )

    def test_a_reset_is_not_taken_for_a_wrap(self, machine: Machine) -> None:
        machine.zone("intel-rapl:0", "package-0", energy_uj=9_000_000_000)
        meter = machine.open()
        meter.read()
        machine.zone("intel-rapl:0", "package-0", energy_uj=1_000_000)
        machine.now_ns += S // 10
        with pytest.raises(MeterLost, match="package-0: its counter in µJ went back from 9,000,000,000 to 1,000,000"):
            meter.read()

    @pytest.mark.parametrize(("asked_s", "looked_s"), [(0.1, 0.1), (600, 32.768)])
    def test_it_is_looked_at_often_enough_to_miss_no_wrap(
        self, machine: Machine, asked_s: float, looked_s: float
    ) -> None:
        machine.zone("intel-rapl:0", "package-0", max_uj=65_536_000_000)
        meter = machine.open(period_s=asked_s)

        assert machine.periods_s == [looked_s]
        assert meter.rails()["package-0"].period_s == looked_s

    @given(data=st.data())
    def test_any_cut_of_the_energy_adds_up(self, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
        machine = Machine(tmp_path_factory.mktemp("cut"))
        maximum = data.draw(st.integers(1_000_000, MAX_UJ))
        path = machine.zone("intel-rapl:0", "package-0", energy_uj=data.draw(st.integers(0, maximum)), max_uj=maximum)
        steps = data.draw(st.lists(st.integers(0, maximum), max_size=12))
        counter, energy_j = ZoneCounter(Zone(path, "package-0", "package", "")), 0.0
        counter.read_j(lambda: machine.now_ns)
        for step in steps:
            machine.draw({"intel-rapl:0": step / 1e6 / 3600}, seconds=3600)
            _, energy_j = counter.read_j(lambda: machine.now_ns)
        counter.close()

        assert energy_j == pytest.approx(sum(steps) / 1e6)


class TestLoss:
    def test_a_counter_that_gives_no_number_ends_its_rail(self, server: Machine) -> None:
        meter = server.open()
        meter.read()
        (server.folder / "intel-rapl:1/energy_uj").write_text("")
        server.draw({"intel-rapl:0": 1.0}, seconds=1)

        assert set(joules(meter.read())) == {"package-0", "dram-0", "dram-1"}
        assert str(meter.rails()["package-1"].lost).startswith("its counter gave no number")

    def test_a_package_that_stands_still_for_long_ends_where_it_last_rose(self, server: Machine) -> None:
        meter = server.open()
        meter.read()
        rail_readings = []
        for _ in range(25):
            server.draw({"intel-rapl:1": 5.0}, seconds=0.1)
            rail_readings.append(joules(meter.read()).get("package-0"))

        assert set(rail_readings) == {None}  # none that would count as no energy
        assert meter.rails()["package-0"].lost == "it stalled: its counter did not move for 2.1 s"
        assert meter.rails()["package-1"].lost is None

    def test_one_that_catches_up_in_time_has_lost_nothing(self, server: Machine) -> None:
        meter = server.open()
        meter.read()
        for _ in range(15):
            server.draw({"intel-rapl:1": 5.0}, seconds=0.1)
            assert "package-0" not in joules(meter.read())
        server.draw({"intel-rapl:0": 160.0, "intel-rapl:1": 5.0}, seconds=0.1)

        assert joules(meter.read())["package-0"] == 16.0
        assert meter.rails()["package-0"].lost is None

    def test_files_are_let_go_of_once(self, server: Machine) -> None:
        before = len(list(Path("/dev/fd").iterdir()))
        meter = server.open()
        assert len(list(Path("/dev/fd").iterdir())) == before + 7
        meter.close()
        meter.close()

        assert len(list(Path("/dev/fd").iterdir())) == before


class TestWhyUnavailable:
    def test_a_readable_counter_is_all_it_takes(self, machine: Machine) -> None:
        assert machine.source().why_unavailable() is None

    def test_virtual_machines_and_containers_show_none(self, tmp_path: Path) -> None:
        why = Machine(tmp_path).source().why_unavailable()

        assert why is not None
        assert "has no RAPL counters: virtual machines, cloud instances and containers hide them" in why
        with pytest.raises(MeterLost, match="hide them"):
            Machine(tmp_path).open()

    def test_psys_and_twins_alone_are_no_reason_to_open(self, tmp_path: Path) -> None:
        machine = Machine(tmp_path)
        machine.zone("intel-rapl:0", "psys")
        machine.zone("intel-rapl-mmio:0", "package-0")

        assert "has no RAPL counters" in str(machine.source().why_unavailable())

    def test_a_counter_that_does_not_work_is_named(self, machine: Machine) -> None:
        make_unreadable(machine.folder / "intel-rapl:0/energy_uj")

        assert "intel-rapl:0/energy_uj gives no number" in str(machine.source().why_unavailable())

    def test_one_that_cannot_be_read_is_noted_where_others_can(self, server: Machine) -> None:
        make_unreadable(server.folder / "intel-rapl:1/energy_uj")
        meter = server.open()

        assert server.source().why_unavailable() is None
        assert "package-1" not in meter.rails()
        assert meter.notes() == ["package-1 is not metered: its counter cannot be read."]

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user; others are one already")
    def test_another_user_than_root_is_told_what_to_do(self, machine: Machine) -> None:
        said = as_nobody(machine, lambda path: path.chmod(0o400))

        assert said == (
            f"Only root may read {machine.folder}/intel-rapl:0/energy_uj (CVE-2020-8694): let your user read it too, "
            "with the commands that `powerbench doctor` prints, or leave `sudo powerbench power` running in another "
            "terminal."
        )

    def test_the_tree_cannot_be_moved_under_sudo(self, machine: Machine) -> None:
        machine.variables["SUDO_UID"] = "1000"

        why = machine.source().why_unavailable()
        assert why is None or str(machine.root) not in why


class TestUdevRule:
    def test_it_opens_the_counters_of_one_control_type_to_a_group(self) -> None:
        assert UDEV_RULE == (
            'ACTION=="add|change", SUBSYSTEM=="powercap", KERNEL=="intel-rapl:*", '
            'RUN+="/bin/chgrp powerbench %S%p/energy_uj", RUN+="/bin/chmod g+r %S%p/energy_uj"'
        )

    def test_it_is_installed_and_applied_by_the_commands(self) -> None:
        assert sum(UDEV_RULE in command for command in UDEV_COMMANDS) == 1
        assert UDEV_COMMANDS[-2] == "sudo udevadm trigger --action=add --subsystem-match=powercap"


def make_unreadable(counter: Path) -> None:
    """Even for root: a folder in place of the file."""
    counter.unlink()
    counter.mkdir()


def as_nobody(machine: Machine, spoil: Callable[[Path], None]) -> str:
    """Why it is unavailable to a user without rights."""
    for path in (machine.root, *machine.root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    spoil(machine.folder / "intel-rapl:0/energy_uj")
    script = (
        "import os, sys; from powerbench.power.rapl import Rapl\n"
        # the folders above the tree are their owner's alone: it is entered while that is still allowed
        f"os.chdir({str(machine.folder)!r}); os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print(Rapl(variables={'POWERBENCH_SYSFS': '../..'}).why_unavailable())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.strip().replace("../../class/powercap", str(machine.folder))
