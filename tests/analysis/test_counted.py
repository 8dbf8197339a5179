"""Which rails make the headline, machine by machine: the device's own energy, and no joule of it twice."""

from __future__ import annotations

from typing import Any

import pytest

from powerbench.analysis.counted import counted_rails, scope_in_words
from powerbench.records import DeviceRecord, RailRecord, RunRecord
from tests.rundir import a_cell, a_record

SOC = ["cpu", "gpu", "ane", "dram"]


def rail(source: str, part: Any, *, contains: list[str] | None = None, uuid: str | None = None) -> RailRecord:
    return RailRecord(
        source=source,
        method="counter",
        state="measured",
        scope=part,
        part=part,
        contains=contains or [],
        period_s=0.1,
        uuid=uuid,
    )


def a_run(
    rails: dict[str, RailRecord], *, device: str = "cpu", uuid: str | None = None, power: str = "auto"
) -> RunRecord:
    """A run on `device` beside which these rails were metered, in this order."""
    return a_record(
        cell=a_cell(device=device, power=power),
        device=DeviceRecord(kind=device, name="", timer="clock", uuid=uuid),
        rails=rails,
    )


def counted(rails: dict[str, RailRecord], **run: Any) -> list[str]:
    return counted_rails(a_run(rails, **run))


def gpus(*uuids: str) -> dict[str, RailRecord]:
    return {f"gpu{index}": rail("nvml", "gpu", uuid=uuid) for index, uuid in enumerate(uuids)}


def powermetrics(*parts: str) -> dict[str, RailRecord]:
    return {part: rail("powermetrics", part) for part in parts}


def ioreport(*parts: str, prefix: str = "") -> dict[str, RailRecord]:
    return {f"{prefix}{part}": rail("ioreport", part) for part in parts}


SERVER = {
    "package-0": rail("rapl", "package", contains=["cpu"]),
    "dram-0": rail("rapl", "dram"),
    "package-1": rail("rapl", "package", contains=["cpu"]),
    "dram-1": rail("rapl", "dram"),
}
MACOS_12 = {**powermetrics(*SOC), "package": rail("powermetrics", "package", contains=SOC)}
INTEL_MAC = {"package": rail("powermetrics", "package", contains=["cpu", "gpu"])}
APU = {"amdapu0": rail("hwmon", "soc", contains=["cpu", "gpu", "package"])}
CARD = {"amdgpu0": rail("hwmon", "gpu", uuid="GPU-amd")}
BATTERY = {"battery": rail("hwmon", "system", contains=["cpu", "gpu", "ane", "dram", "package", "soc", "module"])}


class TestOnCuda:
    def test_the_gpu_of_the_worker_is_counted_by_its_identifier(self) -> None:
        assert counted(gpus("GPU-b", "GPU-a"), device="cuda", uuid="GPU-a") == ["gpu1"]

    def test_a_gpu_that_no_rank_used_is_shown_and_not_counted(self) -> None:
        record = a_run(gpus("GPU-a", "GPU-idle"), device="cuda", uuid="GPU-a")

        assert counted_rails(record) == ["gpu0"]
        assert list(record.rails) == ["gpu0", "gpu1"]

    def test_packages_and_memory_beside_it_are_not_counted(self) -> None:
        assert counted({**gpus("GPU-a"), **SERVER}, device="cuda", uuid="GPU-a") == ["gpu0"]

    def test_nothing_is_counted_of_a_gpu_that_has_no_meter(self) -> None:
        assert counted(gpus("GPU-a"), device="cuda", uuid="GPU-z") == []

    def test_an_unknown_identifier_is_not_that_of_a_rail_without_one(self) -> None:
        assert counted({"gpu0": rail("nvml", "gpu")}, device="cuda", uuid=None) == []

    def test_nvml_asked_for_by_name_still_counts_only_the_gpu_of_the_worker(self) -> None:
        assert counted(gpus("GPU-a", "GPU-idle"), device="cuda", uuid="GPU-a", power="nvml") == ["gpu0"]

    def test_packages_asked_for_by_name_are_counted_beside_the_gpu(self) -> None:
        rails = {**gpus("GPU-a"), "package-0": SERVER["package-0"]}

        assert counted(rails, device="cuda", uuid="GPU-a", power="rapl") == ["gpu0", "package-0"]

    def test_a_run_that_never_got_to_its_device_has_none(self) -> None:
        record = a_record(cell=a_cell(device="cuda"), device=None, rails=gpus("GPU-a"))

        assert counted_rails(record) == []


@pytest.mark.parametrize("device", ["cpu", "mps"])
class TestOnAMac:
    """The chip is one and shared, so a step on the cpu and one on mps are counted alike."""

    def test_the_whole_chip_is_counted(self, device: str) -> None:
        assert counted(powermetrics("cpu", "gpu", "ane"), device=device) == ["cpu", "gpu", "ane"]

    def test_with_its_memory_where_that_is_metered(self, device: str) -> None:
        assert counted(ioreport(*SOC), device=device) == SOC

    def test_of_two_sources_that_see_the_same_the_first_is_counted(self, device: str) -> None:
        rails = {**powermetrics("cpu", "gpu"), **ioreport("cpu", "gpu", prefix="ioreport.")}

        assert counted(rails, device=device) == ["cpu", "gpu"]

    def test_of_two_sources_the_one_that_sees_more_is_counted(self, device: str) -> None:
        rails = {**powermetrics("cpu", "gpu", "ane"), **ioreport(*SOC, prefix="ioreport.")}

        assert counted(rails, device=device) == ["ioreport.cpu", "ioreport.gpu", "ioreport.ane", "ioreport.dram"]

    @pytest.mark.parametrize("power", ["powermetrics,ioreport", "powermetrics, ioreport"])
    def test_two_sources_asked_for_by_name_count_no_part_twice(self, device: str, power: str) -> None:
        rails = {**powermetrics("cpu", "gpu", "ane"), **ioreport(*SOC, prefix="ioreport.")}

        assert counted(rails, device=device, power=power) == ["cpu", "gpu", "ane", "ioreport.dram"]

    def test_the_package_of_macos_12_is_not_added_to_what_it_contains(self, device: str) -> None:
        assert counted(MACOS_12, device=device) == SOC

    def test_the_package_of_macos_12_asked_for_by_name_stands_for_all_that_it_contains(self, device: str) -> None:
        assert counted(MACOS_12, device=device, power="powermetrics") == ["package"]

    def test_an_intel_mac_has_a_package_instead(self, device: str) -> None:
        assert counted(INTEL_MAC, device=device) == ["package"]


class TestOnTheCpu:
    def test_packages_and_their_memory_are_counted_on_every_socket(self) -> None:
        assert counted(SERVER) == ["package-0", "dram-0", "package-1", "dram-1"]

    def test_the_gpus_beside_them_are_not(self) -> None:
        assert counted({**gpus("GPU-a"), **CARD, **SERVER}) == ["package-0", "dram-0", "package-1", "dram-1"]

    def test_a_device_whose_meter_we_do_not_know_counts_nothing(self) -> None:
        assert counted(SERVER, device="xpu") == []

    def test_an_apu_that_contains_the_package_is_not_added_to_it(self) -> None:
        assert counted({**SERVER, **APU}) == ["package-0", "dram-0", "package-1", "dram-1"]

    def test_an_apu_asked_for_by_name_stands_for_the_package_inside_it(self) -> None:
        laptop = {"package-0": SERVER["package-0"], **APU}

        assert counted(laptop, power="hwmon") == ["amdapu0"]
        assert counted(laptop, power="rapl,hwmon") == ["amdapu0"]

    def test_memory_beside_an_apu_is_counted_with_it(self) -> None:
        assert counted({**SERVER, **APU}, power="rapl,hwmon") == ["dram-0", "dram-1", "amdapu0"]

    def test_the_battery_is_shown_and_not_counted(self) -> None:
        assert counted({**SERVER, **BATTERY}) == ["package-0", "dram-0", "package-1", "dram-1"]

    def test_the_battery_asked_for_by_name_contains_everything(self) -> None:
        rails = {**gpus("GPU-a"), **SERVER, **APU, **BATTERY}

        assert counted(rails, power="nvml,rapl,hwmon") == ["battery"]
        assert counted(rails, power="hwmon") == ["battery"]

    def test_of_two_sources_of_one_package_the_first_is_counted(self) -> None:
        rails = {"package-0": SERVER["package-0"], "socket-0": rail("hwmon", "package", contains=["cpu"])}

        assert counted(rails, power="rapl,hwmon") == ["package-0"]

    def test_all_gpus_are_counted_where_their_source_was_asked_for(self) -> None:
        assert counted({**gpus("GPU-a", "GPU-b"), "package-0": SERVER["package-0"]}, power="nvml") == [
            "gpu0",
            "gpu1",
            "package-0",
        ]

    def test_a_machine_without_a_rail_counts_none(self) -> None:
        assert counted({}) == []


class TestScope:
    def test_of_a_chip_is_named_with_its_parts(self) -> None:
        record = a_run(powermetrics("cpu", "gpu", "ane"), device="mps")

        assert scope_in_words(record, ["cpu", "gpu", "ane"]) == "SoC (cpu + gpu + ane)"

    def test_of_two_sources_of_a_chip_is_still_the_chip(self) -> None:
        record = a_run({**powermetrics("cpu"), **ioreport("dram", prefix="ioreport.")})

        assert scope_in_words(record, ["cpu", "ioreport.dram"]) == "SoC (cpu + ioreport.dram)"

    def test_of_one_gpu_is_its_name(self) -> None:
        assert scope_in_words(a_run(gpus("GPU-a")), ["gpu0"]) == "gpu0"

    def test_of_packages_and_memory_names_them_all(self) -> None:
        assert scope_in_words(a_run(SERVER), list(SERVER)) == "package-0 + dram-0 + package-1 + dram-1"

    def test_of_a_chip_and_a_card_is_not_the_chip_s(self) -> None:
        record = a_run({**powermetrics("cpu"), **CARD})

        assert scope_in_words(record, ["cpu", "amdgpu0"]) == "cpu + amdgpu0"
