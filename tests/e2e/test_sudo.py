"""Recording as root for a user: root for the meter and for nothing else. On Linux, as root, with a user made for it."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from powerbench.rundir.live import PLACE
from tests.e2e.commands import SLEEP, Done, ended, kill, record_of, start, swept, the_run, wait_for
from tests.power.fake_powermetrics import install

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("useradd") is None,
    reason="needs root and a user to drop to",
)

WORKERS = Path(__file__).with_name("workers")
PROJECT = Path(__file__).parents[2]
TRUTH_W = 15.0
"""What the fake powermetrics draws: 10 W of cpu and 5 W of gpu."""


def python_for(uid: int, folder: Path) -> str | None:
    """A Python that this user may run, with this installation in it: ours may lie in root's home."""
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, system):
        try:
            subprocess.run([python, "-c", ""], user=uid, cwd="/", check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        if python == sys.executable:
            return python
        subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "installation.pth").write_text(f"{sysconfig.get_path('purelib')}\n{PROJECT}\n")
        return str(folder / "bin/python")
    return None


class Invoker:
    """A user of this machine, made for the test."""

    def __init__(self, name: str, folder: Path) -> None:
        subprocess.run(["useradd", "--create-home", "--user-group", name], check=True)
        entry = pwd.getpwnam(name)
        self.python = python_for(entry.pw_uid, folder)
        self.name, self.uid, self.gid, self.home = name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir)
        self.live = self.home / PLACE
        self.runs = self.home / "runs"

    def start(self, *command: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start a command as this user, without any right of ours."""
        us = {"user": self.uid, "group": self.gid, "extra_groups": [], "cwd": self.home}
        return start(command=[str(word) for word in command], env={"HOME": "/nowhere"}, **us | options)

    def powerbench(self, *arguments: str | Path) -> Done:
        """Run `powerbench` as this user, to its end."""
        assert self.python is not None
        return ended(self.start(self.python, "-m", "powerbench", *arguments))


@pytest.fixture(scope="module")
def user(worker_id: str) -> Iterator[Invoker]:
    name = f"pbtest-{worker_id}"
    subprocess.run(["userdel", "--remove", name], capture_output=True)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        invoker = Invoker(name, Path(folder) / "python")
        try:
            if invoker.python is None:
                pytest.skip("there is no Python here that another user may run")
            yield invoker
        finally:
            subprocess.run(["userdel", "--force", "--remove", name], capture_output=True)


class Machine:
    """A fake powermetrics, counters that root alone may read, and the keeper that records them for the user."""

    def __init__(self, folder: Path, user: Invoker) -> None:
        self.folder, self.user = folder, user
        zone = folder / "sys/class/powercap/intel-rapl:0"
        zone.mkdir(parents=True)
        (zone / "name").write_text("package-0\n")
        (zone / "max_energy_range_uj").write_text("1000000000\n")
        (zone / "energy_uj").write_text("5\n")
        (zone / "energy_uj").chmod(0o400)
        self.install(lag_ms=0)

    def install(self, **settings: Any) -> None:
        self.program = install(self.folder, **settings)
        self.program.chmod(0o755)

    def command(self, **asked: Any) -> list[str]:
        """What runs as root."""
        settings = {"output": str(self.user.runs), "program": str(self.program), "tree": str(self.folder / "sys")}
        recorder = [self.user.python, "-B", "-I", WORKERS / "recorder.py"]
        keeper = [self.user.python, "-B", "-I", WORKERS / "keeper.py", self.user.name, self.program]
        powercap = self.folder / "sys/class/powercap"
        command = [*keeper, powercap, *recorder, json.dumps({"power": "powermetrics"} | settings | asked)]
        return [str(word) for word in command]

    def start(self, *, env: dict[str, str] | None = None, **asked: Any) -> subprocess.Popen[str]:
        """Start the keeper as sudo would, in the user's home."""
        return start(
            command=self.command(**asked),
            env={"SUDO_UID": str(self.user.uid), "SUDO_GID": str(self.user.gid), **(env or {})},
            cwd=self.user.home,
        )

    @contextmanager
    def at_ten_watts(self) -> Iterator[None]:
        """The counters count meanwhile."""
        counter = self.folder / "sys/class/powercap/intel-rapl:0/energy_uj"
        over = threading.Event()

        def count() -> None:
            with counter.open("r+") as file:  # in place: never empty
                while not over.wait(0.02):
                    file.seek(0)
                    file.write(f"{time.monotonic_ns() // 100 % 1_000_000_000:010}\n")
                    file.flush()

        counting = threading.Thread(target=count)
        counting.start()
        try:
            yield
        finally:
            over.set()
            counting.join()

    def processes(self) -> dict[str, psutil.Process]:
        """The keeper, the recorder and the powermetrics that live."""
        found = {}
        for process in psutil.process_iter():
            try:
                words = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if str(self.folder) in words:
                kind = next((name for name in ("keeper.py", "recorder.py") if name in words), "powermetrics")
                found[kind.removesuffix(".py")] = process
        return found

    def at_work(self) -> dict[str, Any]:
        """What the recorder announces, once it does."""

        def announced() -> dict[str, Any] | None:
            try:
                said: dict[str, Any] = json.loads(self.user.live.read_text())
            except (OSError, json.JSONDecodeError):
                return None
            return said

        return wait_for(announced, "an announcement")

    def nobody_is_left(self, *, within_s: float = 5.0) -> None:
        wait_for(lambda: not self.processes(), "the end of all", within_s=within_s, every_s=0.02)


@pytest.fixture
def machine(user: Invoker) -> Iterator[Machine]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with swept(Path(folder)):
            yield Machine(Path(folder), user)
    for path in (user.runs, user.home / ".local"):
        shutil.rmtree(path, ignore_errors=True)


def a_powermetrics(program: Path) -> subprocess.Popen[bytes]:
    """Somebody else's."""
    return subprocess.Popen([program, "-i", "100", "--samplers", "cpu_power"], stdout=subprocess.DEVNULL)


def owners(folder: Path) -> set[int]:
    """Who owns what lies below `folder`, links themselves and not what they point to."""
    return {path.lstat().st_uid for path in folder.rglob("*")}


class TestRights:
    def test_every_file_is_the_user_s(self, machine: Machine, user: Invoker) -> None:
        done = ended(machine.start(seconds=0.5))

        assert done.status == 0, done.stderr
        assert len(list(user.runs.rglob("*"))) >= 5
        assert owners(user.runs) == owners(user.home / ".local") == {user.uid}
        record = record_of(user.runs / "latest")
        assert set(record["rails"]) == {"cpu", "gpu", "ane"}
        assert record["status"] == "complete"

    def test_the_recorder_has_no_way_back_to_root(self, machine: Machine, user: Invoker) -> None:
        process = machine.start()
        recorder = psutil.Process(machine.at_work()["pid"])
        status = Path(f"/proc/{recorder.pid}/status").read_text()
        facts = dict(re.findall(r"^(\w+):\s*(.*?)\s*$", status, re.MULTILINE))

        # real, effective, saved and for files
        assert facts["Uid"].split() == [str(user.uid)] * 4
        assert facts["Gid"].split() == [str(user.gid)] * 4
        assert facts["Groups"].split() == [str(user.gid)]
        assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == 0
        assert machine.processes()["powermetrics"].uids().real == 0
        process.send_signal(signal.SIGTERM)
        assert ended(process).status == 0

    def test_counters_that_are_root_s_alone_are_opened_by_the_keeper(self, machine: Machine, user: Invoker) -> None:
        ended(machine.start(seconds=0.5, power="rapl"))

        record = record_of(user.runs / "latest")
        assert record["rails"]["package-0"]["source"] == "rapl"
        direct = user.start("cat", machine.folder / "sys/class/powercap/intel-rapl:0/energy_uj")
        assert ended(direct).status == 1

    def test_the_environment_names_no_program(self, machine: Machine, user: Invoker) -> None:
        planted = machine.folder / "planted"
        planted.write_text(f"#!/bin/sh\ntouch {machine.folder}/planted-ran\n")
        planted.chmod(0o755)
        done = ended(machine.start(seconds=0.3, env={"POWERBENCH_POWERMETRICS": str(planted), "PATH": f"{planted}"}))

        assert done.status == 0, done.stderr
        assert not (machine.folder / "planted-ran").exists()

    def test_links_that_somebody_planted_are_not_followed(self, machine: Machine, user: Invoker) -> None:
        precious = user.home / "precious"
        precious.write_text("precious")
        user.runs.mkdir()
        user.live.parent.mkdir(parents=True)
        for path in (user.live, user.runs / "latest"):
            path.symlink_to(precious)
        for path in (precious, user.runs, *user.live.parents[:3]):
            os.chown(path, user.uid, user.gid)
        done = ended(machine.start(seconds=0.3))

        assert done.status == 0, done.stderr
        assert precious.read_text() == "precious"
        assert "Runs cannot find this recording by themselves" in done.stderr
        assert (user.runs / "latest").is_dir()
        precious.unlink()

    def test_a_command_is_the_user_s_too(self, machine: Machine, user: Invoker) -> None:
        done = ended(machine.start(command=["sh", "-c", "id -u; id -G; echo $HOME; exit 5"]))

        assert done.status == 5
        assert done.stdout.splitlines()[:3] == [str(user.uid), str(user.gid), str(user.home)]


class TestEnd:
    def test_the_user_s_signal_ends_root_s_child(self, machine: Machine, user: Invoker) -> None:
        machine.install(ignores_sigterm=True)
        process = machine.start()
        pid = machine.at_work()["pid"]
        before_s = time.monotonic()
        assert ended(user.start("kill", str(pid))).status == 0
        wait_for(lambda: "powermetrics" not in machine.processes(), "its end", within_s=3.0, every_s=0.02)

        assert time.monotonic() - before_s < 3.0
        assert ended(process).status == 0
        machine.nobody_is_left()
        assert not user.live.exists()

    @pytest.mark.parametrize("victim", ["keeper", "recorder", "powermetrics"])
    def test_of_one_that_is_killed_none_is_left_behind(self, machine: Machine, user: Invoker, victim: str) -> None:
        machine.install(ignores_sigterm=True)
        somebody_else_s = a_powermetrics(install(user.home))
        process = machine.start()
        machine.at_work()
        kill(machine.processes()[victim])
        done = ended(process)
        machine.nobody_is_left()

        assert done.status not in (0, None)
        assert somebody_else_s.poll() is None
        somebody_else_s.kill()
        somebody_else_s.wait()
        run = the_run(user.runs)
        assert run is not None
        assert len((run / "energy.csv").read_text().splitlines()) > 3

    def test_the_end_that_sudo_hands_on_is_a_good_one(self, machine: Machine, user: Invoker) -> None:
        process = machine.start()
        machine.at_work()
        process.send_signal(signal.SIGINT)

        assert ended(process).status == 0
        assert record_of(user.runs / "latest")["status"] == "complete"
        machine.nobody_is_left()


class TestAttach:
    def test_a_run_without_rights_has_the_recorder_s_joules(self, machine: Machine, user: Invoker) -> None:
        recorder = machine.start()
        announced = machine.at_work()
        arguments = ("run", *SLEEP, "--steps", "100", "--min-seconds", "3", "--idle", "1", "--output", "mine", "--json")
        done = user.powerbench(*arguments)
        recorder.send_signal(signal.SIGTERM)
        ended(recorder)
        shutil.rmtree(announced["run"])

        assert done.status == 0, done.stderr
        summary = json.loads(done.stdout)
        energy = summary["energy"]
        assert energy["mean_w"] == pytest.approx(TRUTH_W, rel=0.005)
        assert energy["total_j"] == pytest.approx(TRUTH_W * summary["wall_s"], rel=0.005)
        assert energy["idle_w"] == pytest.approx(TRUTH_W, rel=0.005)
        assert (energy["partial"], energy["scope"]) == (False, "SoC (cpu + gpu + ane)")
        mine = next((user.home / "mine").glob("2*"))
        again = json.loads(user.powerbench("report", mine, "--json").stdout)
        assert again["energy"] == energy
        assert owners(user.home / "mine") == {user.uid}
        shutil.rmtree(user.home / "mine")

    def test_one_of_another_user_is_not_believed(self, machine: Machine, user: Invoker) -> None:
        recorder = machine.start()
        machine.at_work()
        os.chown(user.live, 0, 0)
        user.live.chmod(0o644)
        done = user.powerbench("run", *SLEEP, "--steps", "20", "--output", "mine", "--power", "recorder")
        recorder.send_signal(signal.SIGTERM)
        ended(recorder)

        assert done.status == 3
        assert "may have been written by another user and is not believed" in done.stderr
        shutil.rmtree(user.home / "mine", ignore_errors=True)

    def test_a_second_recorder_says_that_runs_attach_to_the_first(self, machine: Machine, user: Invoker) -> None:
        first = machine.start()
        announced = machine.at_work()
        second = ended(machine.start(seconds=0.5))

        assert second.status == 0
        assert "Another `powerbench power` of yours is recording" in second.stderr
        assert machine.at_work()["pid"] == announced["pid"]
        first.send_signal(signal.SIGTERM)
        assert ended(first).status == 0

    def test_one_that_was_killed_is_named(self, machine: Machine, user: Invoker) -> None:
        recorder = machine.start()
        announced = machine.at_work()
        kill(machine.processes()["recorder"])
        ended(recorder)
        done = user.powerbench("run", *SLEEP, "--steps", "20", "--output", "mine", "--power", "recorder")

        assert done.status == 3
        assert f"The recorder (pid {announced['pid']}) is gone without a word" in done.stderr


class TestCommandLine:
    @pytest.fixture
    def installed(self, user: Invoker) -> Iterator[Path]:
        """A virtual environment of the user's with powerbench in it, and with a module that Python imports at once."""
        folder = Path(tempfile.mkdtemp())
        subprocess.run([str(user.python), "-m", "venv", "--without-pip", folder], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
        shutil.copytree(PROJECT / "powerbench", site / "powerbench", ignore=shutil.ignore_patterns("__pycache__"))
        (site / "at_once.py").write_text("")
        (site / "at_once.pth").write_text(f"{sysconfig.get_path('purelib')}\nimport at_once\n")
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, user.uid, user.gid, follow_symlinks=False)
        yield folder
        shutil.rmtree(folder)

    def as_root(self, installed: Path, user: Invoker, *arguments: str, cwd: Path) -> Done:
        env = {"SUDO_UID": str(user.uid), "POWERBENCH_SYSFS": "/nonexistent"}
        return ended(start(*arguments, command=[str(installed / "bin/python"), "-m", "powerbench"], env=env, cwd=cwd))

    def test_is_restarted_isolated_and_leaves_no_bytecode(self, tmp_path: Path, installed: Path, user: Invoker) -> None:
        # typer here is not typer: with -I the current folder is not searched
        (tmp_path / "typer.py").write_text("raise SystemExit('imported from the current folder')\n")
        done = self.as_root(installed, user, "power", "--power", "rapl", cwd=tmp_path)

        assert done.status == 3, done.stderr
        assert "/sys/class/powercap has no RAPL counters" in done.stderr
        assert owners(installed) == {user.uid}
        assert list(installed.rglob("*.pyc")) == []

    @pytest.mark.parametrize("arguments", [["--", "power"], ["doctor"], ["report", "runs/latest"], ["run", "quick"]])
    def test_nothing_else_is_done_and_no_bytecode_is_left(
        self, tmp_path: Path, installed: Path, user: Invoker, arguments: list[str]
    ) -> None:
        done = self.as_root(installed, user, *arguments, cwd=tmp_path)

        assert (done.status, done.stdout) == (1, "")
        assert done.stderr.startswith("powerbench: Run this without sudo: only `power` needs root")
        assert owners(installed) == {user.uid}
        assert list(installed.rglob("*.pyc")) == []
        assert list(tmp_path.iterdir()) == []

    def test_an_unknown_user_is_a_sentence(self) -> None:
        done = ended(start("power", env={"SUDO_UID": "4000123"}))

        assert (done.status, done.stdout) == (1, "")
        assert done.stderr.startswith("powerbench: sudo does not say for whom it runs")


@contextmanager
def allowed(user: Invoker, program: str) -> Iterator[None]:
    """While inside, sudo lets the user run this program as root without a password."""
    line = Path(f"/etc/sudoers.d/{user.name}")
    line.write_text(f"{user.name} ALL=(root) NOPASSWD: {program}\n")
    line.chmod(0o440)
    try:
        yield
    finally:
        line.unlink()


@pytest.mark.skipif(shutil.which("sudo") is None, reason="no sudo here")
class TestUnderTheRealSudo:
    def test_without_a_meter_each_source_says_why(self, user: Invoker) -> None:
        command = [str(user.python), "-B", "-I", "-m", "powerbench", "power"]
        with allowed(user, " ".join(command)):
            done = ended(user.start("sudo", "-n", *command))

        assert done.status == 3, done.stderr
        assert "There is no meter to open on this machine" in done.stderr
        assert not user.runs.exists()

    def test_what_is_recorded_is_the_user_s(self, machine: Machine, user: Invoker) -> None:
        with allowed(user, str(user.python)):
            done = ended(user.start("sudo", "-n", *machine.command(seconds=1.0)))

        assert done.status == 0, done.stderr
        assert owners(user.runs) == {user.uid}
        assert record_of(user.runs / "latest")["rails"].keys() == {"cpu", "gpu", "ane"}
        machine.nobody_is_left()

    def test_of_a_sudo_that_is_killed_nobody_is_left_behind(self, machine: Machine, user: Invoker) -> None:
        with allowed(user, str(user.python)):
            sudo = user.start("sudo", "-n", *machine.command())
            machine.at_work()
            kill(sudo)
            sudo.wait()
            machine.nobody_is_left(within_s=15.0)

        assert owners(user.runs) == {user.uid}

    def test_a_killed_sudo_ends_a_recording_of_counters_too(self, machine: Machine, user: Invoker) -> None:
        with allowed(user, str(user.python)), machine.at_ten_watts():
            sudo = user.start("sudo", "-n", *machine.command(power="rapl"))
            machine.at_work()
            kill(sudo)
            sudo.wait()
            machine.nobody_is_left(within_s=15.0)
