"""`powerbench power` without root: for some seconds, until a signal, around a command; and runs that read along."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import (
    CTRL_C,
    SLEEP,
    Terminal,
    ended,
    kill,
    powerbench,
    record_of,
    report,
    running_in,
    start,
    swept,
    the_run,
    told,
    wait_for,
)
from tests.e2e.test_meters import Counters, a_socket
from tests.power.fake_powermetrics import install

BY_RAPL = ("--power", "rapl")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Counters]:
    """40 W of package-0."""
    with swept(tmp_path), a_socket(tmp_path / "sys") as counters:
        yield counters


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def readings_of(runs: Path) -> int:
    run = the_run(runs)
    return 0 if run is None or not (run / "energy.csv").exists() else len((run / "energy.csv").read_text().splitlines())


class TestForSomeSeconds:
    def test_the_joules_are_those_that_were_drawn(self, machine: Counters, runs: Path) -> None:
        done = powerbench("power", *BY_RAPL, "--seconds", "2", "--json", "--output", runs, env=machine.variables)

        assert done.status == 0, done.stderr
        summary = json.loads(done.stdout)
        assert summary["wall_s"] == pytest.approx(2, abs=0.3)
        assert summary["energy"]["total_j"] == pytest.approx(40 * summary["wall_s"], rel=0.01)
        low, high = summary["energy"]["total_j_sampling_ci95"]
        assert low <= 40 * summary["wall_s"] <= high
        assert summary["energy"]["partial"] is False
        of_steps = ("device", "model", "mode", "batch_size", "steps", "latency_ms", "samples_per_s", "slowdown")
        assert [summary[key] for key in of_steps] == [None] * len(of_steps)
        assert (summary["command"], summary["exit_status"]) == (None, None)
        assert report(runs / "latest") == summary | {"run": str((runs / "latest").resolve())}

    def test_prints_plain_lines_off_a_terminal(self, machine: Counters, runs: Path) -> None:
        done = powerbench("power", *BY_RAPL, "--seconds", "5.6", "--output", runs, env=machine.variables)

        (line,) = [line for line in done.stderr.splitlines() if "package-0" in line]
        assert line.startswith("5.")
        watts = re.search(r"package-0 ([0-9.]+) W, ", line)
        assert watts is not None
        assert float(watts[1]) == pytest.approx(40, rel=0.05)
        assert "\x1b" not in done.stderr + done.stdout
        assert "power of this machine" in done.stdout
        assert f"powerbench report {the_run(runs)}" in done.stderr

    def test_an_interrupt_before_the_time_is_130(self, machine: Counters, runs: Path) -> None:
        process = start("power", *BY_RAPL, "--seconds", "60", "--output", runs, env=machine.variables)
        wait_for(lambda: readings_of(runs) > 5, "readings")
        process.send_signal(signal.SIGINT)
        done = ended(process)

        assert done.status == 130
        assert "stopped by Ctrl-C" in told(done)
        assert report(runs / "latest")["energy"]["mean_w"] == pytest.approx(40, rel=0.02)


class TestUntilASignal:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_is_a_good_end(self, machine: Counters, runs: Path, number: signal.Signals) -> None:
        process = start("power", *BY_RAPL, "--output", runs, env=machine.variables)
        wait_for(lambda: readings_of(runs) > 5, "readings")
        process.send_signal(number)
        done = ended(process)

        assert done.status == 0, done.stderr
        assert record_of(runs / "latest")["status"] == "complete"
        mean_w = re.search(r"([0-9.]+) W on average", done.stdout)
        assert mean_w is not None
        assert float(mean_w[1]) == pytest.approx(40, rel=0.03)

    def test_of_one_that_is_killed_all_is_there(self, machine: Counters, runs: Path) -> None:
        process = start("power", *BY_RAPL, "--output", runs, env=machine.variables)
        wait_for(lambda: readings_of(runs) > 10, "readings")
        kill(process)
        ended(process)
        (summary,) = [report(runs / "latest")]

        assert summary["status"] == "interrupted"
        assert summary["energy"]["mean_w"] == pytest.approx(40, rel=0.1)
        assert summary["energy"]["partial"] is False
        assert summary["wall_s"] > 0.5

    def test_of_one_that_is_still_at_work_all_is_there(self, machine: Counters, runs: Path) -> None:
        process = start("power", *BY_RAPL, "--output", runs, env=machine.variables)
        wait_for(lambda: readings_of(runs) > 15, "readings")
        summary = report(runs / "latest")
        kill(process)
        ended(process)

        assert summary["status"] == "running"
        assert summary["energy"]["mean_w"] == pytest.approx(40, rel=0.1)

    def test_on_a_terminal_the_lines_are_rewritten_in_place(self, machine: Counters, runs: Path) -> None:
        os.environ |= machine.variables
        try:
            with Terminal("power", *BY_RAPL, "--output", runs, columns=60) as terminal:
                terminal.read(until=lambda: terminal.written.count(b"package-0") >= 4)
                terminal.type(CTRL_C)
                assert terminal.status() == 0
        finally:
            for name in machine.variables:
                del os.environ[name]
        view, _, _ = terminal.written.decode().partition("power of this machine")
        frames = view.split("\x1b[J")
        assert all(frame.count("\n") == frames[0].count("\n") for frame in frames[1:-1])
        lines = [line.replace("\x1b[K", "") for line in view.replace("\r", "").split("\n")]
        assert max(len(line) for line in lines if "\x1b" not in line) < 60
        assert any(re.search(r"package-0  +(39|40)\.\d W", line) for line in lines)


class TestCommand:
    def run(self, machine: Counters, runs: Path, *command: str, json_: bool = False) -> Any:
        options = ["--json"] if json_ else []
        return powerbench(
            "power", *BY_RAPL, "--output", runs, *options, "--", *command, env=machine.variables, stdin=subprocess.PIPE
        )

    def test_its_status_is_passed_on_and_its_joules_are_told(self, machine: Counters, runs: Path) -> None:
        done = self.run(machine, runs, "sh", "-c", "sleep 1; echo out; echo err >&2; exit 7")

        assert done.status == 7
        assert done.stdout.startswith("out\npower while this ran: sh -c ")
        assert "Command      exit status 7" in done.stdout
        assert "W on average" in done.stdout
        assert "W at the peak" in done.stdout
        assert "Wall time" in done.stdout
        assert done.stderr.startswith("err\n")

    def test_with_json_stdout_holds_nothing_else(self, machine: Counters, runs: Path) -> None:
        done = self.run(machine, runs, "sh", "-c", "sleep 1; echo out", json_=True)
        summary = json.loads(done.stdout)

        assert done.stderr.startswith("out\n")
        assert (summary["command"], summary["exit_status"]) == (["sh", "-c", "sleep 1; echo out"], 0)
        assert summary["energy"]["total_j"] == pytest.approx(40 * summary["wall_s"], rel=0.02)
        assert summary["wall_s"] == pytest.approx(1, abs=0.3)

    def test_one_that_a_signal_ends_has_the_status_of_a_shell(self, machine: Counters, runs: Path) -> None:
        done = self.run(machine, runs, "sh", "-c", "kill -9 $$")

        assert done.status == 128 + 9
        assert "ended by signal 9 (SIGKILL)" in done.stdout

    def test_its_status_is_passed_on_also_where_the_meter_is_lost(self, runs: Path, tmp_path: Path) -> None:
        program = install(tmp_path, documents=12)
        done = powerbench(
            *("power", "--power", "powermetrics", "--output", runs, "--", "sh", "-c", "sleep 3; exit 5"),
            env={"POWERBENCH_POWERMETRICS": str(program)},
        )

        assert done.status == 5
        assert re.search(r"Energy [\d.]+ J in the [\d.]+m?s that the meter covers", " ".join(done.stdout.split()))
        assert "no meter is left" in done.stderr

    def test_a_script_that_does_not_say_by_what_it_runs(self, machine: Counters, runs: Path, tmp_path: Path) -> None:
        script = tmp_path / "script"
        script.write_text("echo hello\n")
        script.chmod(0o755)
        done = self.run(machine, runs, str(script))

        assert done.status == 126
        assert f"{script} cannot be executed (Exec format error); is it a program?" in told(done)
        assert record_of(runs / "latest")["status"] == "failed"

    def test_one_too_short_to_measure_is_told_so(self, machine: Counters, runs: Path) -> None:
        done = self.run(machine, runs, "true")

        assert done.status == 0
        assert "no figure: " in done.stdout

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
    def test_signals_reach_it(self, machine: Counters, runs: Path, tmp_path: Path, number: signal.Signals) -> None:
        ready = tmp_path / "ready"
        code = (
            "import pathlib, signal, sys\n"
            "for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):\n"
            "    signal.signal(n, lambda number, frame: sys.exit(number))\n"
            f"pathlib.Path({str(ready)!r}).touch()\n"
            "while True: signal.pause()\n"
        )
        command = ("--", sys.executable, "-c", code)
        process = start("power", *BY_RAPL, "--output", runs, *command, env=machine.variables, start_new_session=True)
        wait_for(ready.exists, "the command")
        process.send_signal(number)

        assert ended(process).status == number
        assert record_of(runs / "latest")["status"] == "complete"

    def test_a_typed_ctrl_c_is_the_command_s_alone(self, machine: Counters, runs: Path, tmp_path: Path) -> None:
        ready = tmp_path / "ready"
        code = (
            "import pathlib, signal, sys, time\n"
            "heard = []\n"
            "signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))\n"
            f"pathlib.Path({str(ready)!r}).touch()\n"
            "signal.pause(); time.sleep(0.5); sys.exit(10 + len(heard))\n"
        )
        os.environ |= machine.variables
        try:
            with Terminal("power", *BY_RAPL, "--output", runs, "--", sys.executable, "-c", code) as terminal:
                terminal.read(until=ready.exists)
                terminal.type(CTRL_C)
                assert terminal.status() == 11
        finally:
            for name in machine.variables:
                del os.environ[name]

    @pytest.mark.parametrize(("program", "status", "why"), [("no-such-program", 127, "no program"), ("/etc", 126, "")])
    def test_one_that_cannot_be_run_is_told_before_anything_is_recorded(
        self, machine: Counters, runs: Path, program: str, status: int, why: str
    ) -> None:
        done = self.run(machine, runs, program)

        assert done.status == status
        assert why in told(done)
        assert not runs.exists()


class TestWithoutAMeter:
    def test_each_source_says_why_and_the_status_is_3(self, runs: Path, tmp_path: Path) -> None:
        done = powerbench("power", "--output", runs, env={"POWERBENCH_SYSFS": str(tmp_path / "empty")})

        assert (done.status, done.stdout) == (3, "")
        said = done.stderr.splitlines()
        assert said[0] == "powerbench: There is no meter to open on this machine:"
        names = ["powermetrics", "ioreport", "nvml", "rapl", "hwmon"]
        assert [line.partition(":")[0].strip() for line in said[1:]] == names
        assert not runs.exists()

    @pytest.mark.parametrize(
        ("arguments", "status", "why"),
        [
            (["--power", "none"], 2, "leaves nothing to record"),
            (["--power", "rapll"], 2, "did you mean rapl"),
            (["--power", "rapl"], 3, "rapl"),
            (["--seconds", "5", "--", "true"], 2, "exclude each other"),
        ],
    )
    def test_what_makes_no_sense_is_a_sentence(
        self, runs: Path, tmp_path: Path, arguments: list[str], status: int, why: str
    ) -> None:
        done = powerbench("power", "--output", runs, *arguments, env={"POWERBENCH_SYSFS": str(tmp_path / "empty")})

        assert done.status == status
        assert why in told(done)


class TestAttach:
    @pytest.fixture
    def recorder(self, machine: Counters, runs: Path) -> subprocess.Popen[str]:
        process = start("power", *BY_RAPL, "--output", runs, env=machine.variables)
        recording = running_in(runs)
        wait_for(lambda: record_of(recording)["rails"] and readings_of(runs) > 5, "readings")
        return process

    def test_power_from_reads_along_a_recording_that_is_named(
        self, recorder: subprocess.Popen[str], runs: Path, tmp_path: Path
    ) -> None:
        recording = the_run(runs)
        arguments = ("run", *SLEEP, "--steps", "20", "--min-seconds", "2", "--idle", "0.5", "--json")
        done = powerbench(*arguments, "--power-from", recording or "", "--output", tmp_path / "mine")

        assert done.status == 0, done.stderr
        energy = json.loads(done.stdout)["energy"]
        assert energy["mean_w"] == pytest.approx(40, rel=0.005)
        assert energy["partial"] is False
        assert any("recorded by `powerbench power`" in note for note in json.loads(done.stdout)["notes"])

    def test_a_recorder_that_ends_in_the_middle_leaves_the_energy_partial(
        self, recorder: subprocess.Popen[str], runs: Path, tmp_path: Path
    ) -> None:
        arguments = ("run", *SLEEP, "--min-seconds", "5", "--idle", "0", "--json", "--output", tmp_path / "mine")
        process = start(*arguments, "--power-from", the_run(runs) or "")
        wait_for(lambda: readings_of(tmp_path / "mine") > 15, "readings of the run")
        time.sleep(1.5)
        recorder.send_signal(signal.SIGTERM)
        ended(recorder)
        summary = json.loads(ended(process).stdout)

        assert summary["status"] == "complete"
        assert summary["energy"]["partial"] is True
        assert summary["energy"]["mean_w"] == pytest.approx(40, rel=0.01)
        assert any("the recorder has ended" in note for note in summary["notes"])

    def test_a_recording_that_has_ended_can_be_joined_afterwards(
        self, recorder: subprocess.Popen[str], runs: Path, tmp_path: Path
    ) -> None:
        mine = tmp_path / "mine"
        done = powerbench("run", *SLEEP, "--min-seconds", "2", "--power", "none", "--output", mine)
        assert done.status == 0, done.stderr
        time.sleep(0.3)
        recorder.send_signal(signal.SIGTERM)
        ended(recorder)
        recording, run = the_run(runs), the_run(mine)
        assert recording is not None
        assert run is not None
        joined = json.loads(powerbench("report", run, "--power-from", recording, "--json").stdout)

        assert report(run)["energy"] is None
        assert joined["energy"]["mean_w"] == pytest.approx(40, rel=0.005)
        refused = powerbench("run", *SLEEP, "--power-from", recording, "--output", mine)
        assert refused.status == 1
        assert told(refused).startswith(f"--power-from {recording}: The recording in")
        both = powerbench("run", *SLEEP, "--power-from", recording, "--power", "rapl", "--output", mine)
        assert both.status == 2
        assert "exclude each other" in told(both)
        other = powerbench("report", run, "--power-from", run)
        assert other.status == 1
        assert "is a run, not a recording" in told(other)
