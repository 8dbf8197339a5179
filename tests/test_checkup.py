"""The checks of `doctor`, each on a machine made up for it: what was found, and what to do about it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from powerbench.checkup import Check, can_measure, check_up, devices, machine, software
from powerbench.devices import DEVICES
from powerbench.environment import describe_environment
from powerbench.probe import Probe, main, probe

GB = 1_000_000_000


def an_environment(**facts: Any) -> dict[str, Any]:
    """A quiet machine with a torch, but for these facts."""
    quiet: dict[str, Any] = {
        **{"torch": "2.13.0+cpu", "python": "3.11.9", "variables": {}, "system": "Linux 6.18"},
        **{"load_1min": 0.1, "logical_cores": 8, "memory_bytes": 32 * GB, "memory_available_bytes": 24 * GB},
        **{"swap_bytes": 8 * GB, "swap_used_bytes": 0, "on_battery": None, "power_mode": None},
    }
    return quiet | facts


def of(name: str, **facts: Any) -> tuple[str, str, str | None]:
    """State, finding and advice of the check called `name`."""
    environment = an_environment(**facts)
    (check,) = (check for check in [*software(environment), *machine(environment)] if check.name == name)
    return check.state, check.finding, check.advice


def test_the_facts_made_up_here_are_those_that_the_environment_has() -> None:
    assert an_environment().keys() <= describe_environment().keys()


def test_a_quiet_machine_is_well_in_all_respects() -> None:
    environment = an_environment()
    checks = [*software(environment), *machine(environment)]

    assert [(check.subject, check.name, check.finding) for check in checks] == [
        ("software", "torch", "2.13.0+cpu, Python 3.11.9"),
        ("software", "variables", "none set that changes results"),
        ("machine", "load", "0.10 on 8 cores"),
        ("machine", "memory", "24.0 GB of 32.0 GB free"),
        ("machine", "swap", "0 B of 8.00 GB used"),
        ("machine", "power", "no battery seen"),
    ]
    assert {(check.state, check.advice) for check in checks} == {("ok", None)}


class TestSoftware:
    def test_without_torch_is_told_where_to_get_it(self) -> None:
        assert of("torch", torch=None) == (
            "missing",
            "not installed",
            "Install it as https://pytorch.org/get-started shows.",
        )

    def test_names_the_variables_that_change_results(self) -> None:
        variables = {"OMP_NUM_THREADS": "1", "PYTORCH_ENABLE_MPS_FALLBACK": "1"}

        assert of("variables", variables=variables) == (
            "note",
            "OMP_NUM_THREADS=1, PYTORCH_ENABLE_MPS_FALLBACK=1",
            "These change results and are recorded with each run; unset what you do not mean to measure.",
        )


class TestLoad:
    def test_up_to_a_quarter_of_the_cores_is_quiet(self) -> None:
        assert of("load", load_1min=2.0) == ("ok", "2.00 on 8 cores", None)

    def test_above_it_is_busy(self) -> None:
        assert of("load", load_1min=2.01) == (
            "note",
            "2.01 on 8 cores",
            "Something else is running: close it, or wait, before you measure.",
        )

    def test_of_a_machine_that_does_not_count_its_cores_is_that_of_one(self) -> None:
        assert of("load", load_1min=0.26, logical_cores=None)[:2] == ("note", "0.26 on 1 core")


class TestMemory:
    def test_is_enough_from_a_quarter_on(self) -> None:
        assert of("memory", memory_available_bytes=8 * GB) == ("ok", "8.00 GB of 32.0 GB free", None)

    def test_is_little_below_it(self) -> None:
        assert of("memory", memory_available_bytes=7.9 * GB) == (
            "note",
            "7.90 GB of 32.0 GB free",
            "Little is free: close what you do not need, or the run will swap.",
        )


class TestSwap:
    def test_that_there_is_none_is_told_with_what_it_means(self) -> None:
        assert of("swap", swap_bytes=0) == ("ok", "none: a run too large is killed, not slowed", None)

    def test_that_there_is_none_yet_on_a_mac_does_not_mean_that(self) -> None:
        none_yet = ("ok", "none so far; macOS makes it as needed", None)

        assert of("swap", swap_bytes=0, system="macOS 15.5") == none_yet

    def test_in_use_slows_the_first_steps(self) -> None:
        assert of("swap", swap_used_bytes=0.5 * GB) == (
            "note",
            "500 MB of 8.00 GB used",
            "Pages that come back from swap slow the first steps; a restart clears it.",
        )


class TestPower:
    @pytest.mark.parametrize(
        ("on_battery", "power_mode", "finding"),
        [
            (None, None, "no battery seen"),
            (False, None, "on mains"),
            (False, "normal", "on mains, power mode normal"),
            (None, "performance", "no battery seen, power mode performance"),
            # intel_pstate's normal governor, not a slow mode
            (False, "powersave", "on mains, power mode powersave"),
        ],
    )
    def test_on_mains_in_a_normal_mode_is_well(
        self, on_battery: bool | None, power_mode: str | None, finding: str
    ) -> None:
        assert of("power", on_battery=on_battery, power_mode=power_mode) == ("ok", finding, None)

    def test_on_battery_is_better_changed(self) -> None:
        assert of("power", on_battery=True) == (
            "note",
            "on battery",
            "Plug the machine in: on battery it may run slower.",
        )

    @pytest.mark.parametrize("mode", ["low power", "low-power", "quiet", "cool"])
    def test_in_a_slow_mode_is_better_changed(self, mode: str) -> None:
        assert of("power", on_battery=False, power_mode=mode) == (
            "note",
            f"on mains, power mode {mode}",
            "Switch to a normal or a performance mode, unless this one is what you mean to measure.",
        )

    def test_on_battery_and_in_a_slow_mode_is_both(self) -> None:
        assert of("power", on_battery=True, power_mode="low power") == (
            "note",
            "on battery, power mode low power",
            "Plug the machine in: on battery it may run slower. "
            "Switch to a normal or a performance mode, unless this one is what you mean to measure.",
        )


class Torch:
    """Answers for torch, and keeps who was asked for."""

    def __init__(self, **answers: Probe) -> None:
        self.asked: list[str] = []
        self._answers = answers

    def __call__(self, name: str) -> Probe:
        self.asked.append(name)
        return self._answers[name]


HERE = [name for name, device in DEVICES.items() if device.why_unavailable() is None]
WELL = Probe(complaint=None, device="Abacus 3000", threads=2)


class TestDevices:
    def test_that_are_not_here_say_why_and_torch_is_not_asked(self) -> None:
        torch = Torch(**dict.fromkeys(HERE, WELL))

        found = {check.name: check for check in devices(torch)}

        assert list(found) == list(DEVICES)
        assert torch.asked == HERE
        for name, device in DEVICES.items():
            if name not in HERE:
                assert (found[name].state, found[name].finding) == ("missing", device.why_unavailable())

    def test_that_torch_can_use_are_named_with_threads_and_settings(self) -> None:
        answer = Probe(
            complaint=None, device="Abacus 3000", threads=2, settings={"matmul_allow_tf32": False, "version": None}
        )
        found = {check.name: check for check in devices(Torch(**dict.fromkeys(HERE, answer)))}

        assert found["cpu"] == Check(
            subject="device", name="cpu", state="ok", finding="Abacus 3000, 2 threads, matmul_allow_tf32 False"
        )

    def test_that_torch_cannot_use_are_missing_with_its_complaint(self) -> None:
        complaint = "torch finds no GPU that it can use: see whether `nvidia-smi` lists one."
        checks = list(devices(Torch(**dict.fromkeys(HERE, Probe(complaint=complaint)))))

        assert {check.state for check in checks} == {"missing"}
        assert next(check for check in checks if check.name == "cpu").finding == complaint
        assert not can_measure(checks)


def test_something_can_be_measured_where_a_device_is_well() -> None:
    missing = Check(subject="device", name="mps", state="missing", finding="no Mac")
    well = Check(subject="device", name="cpu", state="ok", finding="Abacus 3000")
    not_a_device = Check(subject="machine", name="load", state="ok", finding="0.1")

    assert can_measure([missing, well])
    assert not can_measure([missing, not_a_device])


def test_a_check_up_looks_at_devices_then_software_then_the_machine() -> None:
    checks = check_up(Torch(**dict.fromkeys(HERE, WELL)))

    subjects = [check.subject for check in checks if check.subject != "meter"]
    assert subjects == ["device"] * len(DEVICES) + ["software"] * 2 + ["machine"] * 4


class TestTheProbe:
    def test_asks_the_real_torch_in_a_process_of_its_own(self) -> None:
        answer = probe("cpu")

        assert answer.complaint is None
        assert answer.device == DEVICES["cpu"].describe().name
        assert answer.threads is not None
        assert answer.threads >= 1

    def test_passes_on_what_torch_says_of_a_device(self, capsys: pytest.CaptureFixture[str]) -> None:
        if DEVICES["cuda"].why_unavailable() is None:
            pytest.skip("this machine has cuda")

        assert main(["cuda"]) == 0

        said = json.loads(capsys.readouterr().out)
        assert said.keys() == {"complaint"}
        assert "finds no GPU that it can use" in said["complaint"]

    def test_of_a_broken_torch_gives_its_last_line_and_the_remedy(self, tmp_path: Path) -> None:
        broken = with_torch(tmp_path, "raise ImportError('libcudart.so.12: cannot open shared object file')")

        assert probe("cpu", command=broken) == Probe(
            complaint="torch cannot be used here "
            "(ImportError: libcudart.so.12: cannot open shared object file): install it anew."
        )

    def test_of_a_torch_that_dies_without_a_word_says_so(self, tmp_path: Path) -> None:
        silent = with_torch(tmp_path, "import os; os._exit(1)")

        assert probe("cpu", command=silent).complaint == (
            "torch cannot be used here (it said nothing): install it anew."
        )

    def test_hears_the_answer_of_a_torch_that_prints(self, tmp_path: Path) -> None:
        answer = probe("cpu", command=with_torch(tmp_path, "print('welcome'); get_num_threads = lambda: 2"))

        assert (answer.complaint, answer.threads) == (None, 2)

    def test_does_not_wait_for_ever(self, tmp_path: Path) -> None:
        endless = with_torch(tmp_path, "import time; time.sleep(600)")

        assert probe("cpu", command=endless, timeout_s=0.5).complaint == (
            "torch did not answer within 0.5 s: see whether `python -c 'import torch'` ends."
        )


PROBE_WITH_A_TORCH_OF_OURS = """
import sys
sys.path.insert(0, sys.argv[1])
from powerbench.probe import main
main(sys.argv[2:])
"""


def with_torch(folder: Path, source: str) -> list[str]:
    """The probe, with a torch that is this source in front of the real one."""
    (folder / "torch").mkdir()
    (folder / "torch/__init__.py").write_text(f"{source}\n")
    return [sys.executable, "-c", PROBE_WITH_A_TORCH_OF_OURS, str(folder)]
