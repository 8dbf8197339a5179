"""The keeper: it does three things, with harmless arguments only, and ends what it started."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from powerbench.errors import MeterLost
from powerbench.keeper import ISOLATED, Kept, invoking_user, is_for_another, main, recorder_command, serve
from powerbench.power.kept import Keeper, keeper_of
from tests.power.fake_powermetrics import install

SECONDS = 10


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    zone = tmp_path / "powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "energy_uj").write_text("123\n")
    (tmp_path / "powercap/energy_uj").write_text("the wrong one\n")
    return zone.parent


class AtWork:
    """A keeper that serves on a thread, and the recorder's end of its line."""

    def __init__(self, program: Path, powercap: Path) -> None:
        self._ours, self.line = socket.socketpair()
        self.keeper = Keeper(self.line)
        self.kept = Kept(str(program), powercap)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self._ours, self.kept:
            serve(self._ours, self.kept)

    def hang_up(self) -> None:
        """The recorder is gone."""
        self.line.close()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()


@pytest.fixture
def at_work(tmp_path: Path, powercap: Path) -> Iterator[AtWork]:
    program = install(tmp_path, ignores_sigterm=True)
    keeper = AtWork(program, powercap)
    yield keeper
    keeper.hang_up()


def children_of(program: str) -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            found += [child] if any(program in word for word in child.cmdline()) else []
    return found


class TestKeeper:
    def test_starts_powermetrics_and_hands_over_its_pipes(self, at_work: AtWork) -> None:
        stdout, stderr = at_work.keeper.start_powermetrics(period_ms=100, samplers=["cpu_power", "thermal"])
        (child,) = children_of("powermetrics")
        told = child.cmdline()
        assert told[-2:] == ["--samplers", "cpu_power,thermal"]
        assert told[told.index("-i") + 1] == "100"
        assert select.select([stdout], [], [], SECONDS)[0]
        assert os.read(stdout, 1 << 16).startswith(b"<?xml")
        os.close(stdout)
        os.close(stderr)

    def test_ends_one_that_ignores_sigterm_and_says_how(self, at_work: AtWork) -> None:
        fds = at_work.keeper.start_powermetrics(period_ms=100, samplers=["cpu_power"])
        select.select([fds[0]], [], [], SECONDS)  # by its first words it ignores the signal
        assert at_work.keeper.end() == -9
        assert children_of("powermetrics") == []
        for fd in fds:
            os.close(fd)

    def test_ends_what_it_started_when_the_recorder_is_gone_and_nobody_else_s(
        self, tmp_path: Path, powercap: Path
    ) -> None:
        program = install(tmp_path)
        somebody_else_s = subprocess.Popen([program, "-i", "100", "--samplers", "cpu_power"], stdout=subprocess.DEVNULL)
        keeper = AtWork(program, powercap)
        fds = keeper.keeper.start_powermetrics(period_ms=100, samplers=["cpu_power"])
        assert len(children_of("powermetrics")) == 2
        keeper.hang_up()

        assert [child.pid for child in children_of("powermetrics")] == [somebody_else_s.pid]
        assert somebody_else_s.poll() is None
        somebody_else_s.kill()
        somebody_else_s.wait()
        for fd in fds:
            os.close(fd)

    def test_opens_a_counter_for_reading_only(self, at_work: AtWork) -> None:
        file = at_work.keeper.open_counter("intel-rapl:0")
        assert os.pread(file, 64, 0) == b"123\n"
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(file, b"0", 0)
        assert not os.get_inheritable(file)
        os.close(file)

    @pytest.mark.parametrize("zone", ["..", "intel-rapl:0/..", ".", "intel-rapl:0/../intel-rapl:0", "psys", "/etc"])
    def test_opens_nothing_that_is_no_zone(self, at_work: AtWork, zone: str) -> None:
        with pytest.raises(MeterLost, match="says no: not a zone"):
            at_work.keeper.open_counter(zone)

    def test_says_why_a_counter_cannot_be_opened(self, at_work: AtWork) -> None:
        with pytest.raises(MeterLost, match="says no: No such file or directory"):
            at_work.keeper.open_counter("intel-rapl:7")

    @pytest.mark.parametrize(
        ("period_ms", "samplers", "why"),
        [
            (10, ["cpu_power"], "not a period"),
            (-100, ["cpu_power"], "not a period"),
            (100, ["cpu_power", "--output-file=/etc/passwd"], "not a sampler"),
            (100, ["cpu_power", ""], "not a sampler"),
        ],
    )
    def test_starts_nothing_with_other_arguments(
        self, at_work: AtWork, period_ms: int, samplers: list[str], why: str
    ) -> None:
        with pytest.raises(MeterLost, match=f"says no: {why}"):
            at_work.keeper.start_powermetrics(period_ms=period_ms, samplers=samplers)
        assert children_of("powermetrics") == []

    @pytest.mark.parametrize("request_", [b"\n", b"sh -c id\n", b"\xff\xfe\n", b"powermetrics\n", b"counter a b\n"])
    def test_refuses_what_it_does_not_know(self, at_work: AtWork, request_: bytes) -> None:
        at_work.line.send(request_)
        assert at_work.line.recv(100) == b"no: unknown request\n"

    def test_hears_no_end_of_a_request_that_never_ends(self, tmp_path: Path, powercap: Path) -> None:
        keeper = AtWork(install(tmp_path), powercap)
        with suppress(OSError):
            for _ in range(10):
                keeper.line.send(b"x" * 4096)
        keeper.hang_up()

    def test_is_seen_to_be_gone(self, powercap: Path) -> None:
        ours, theirs = socket.socketpair()
        keeper = Keeper(theirs)
        assert not keeper.is_gone()
        ours.close()
        assert keeper.is_gone()
        assert keeper.end() is None
        theirs.close()


class TestWhoKeeps:
    @pytest.mark.parametrize(
        ("variables", "uid", "kept"),
        [
            ({"SUDO_UID": "1000"}, 0, True),
            ({"SUDO_UID": "1000"}, 1000, False),
            ({"SUDO_UID": "0"}, 0, False),
            ({}, 0, False),
        ],
    )
    def test_is_root_for_another(self, variables: dict[str, str], uid: int, kept: bool) -> None:
        assert is_for_another(variables, effective_uid=uid) is kept

    @pytest.mark.parametrize("arguments", [["--", "power"], ["run", "quick"], ["doctor"], ["report", "x"], ["-h"], []])
    def test_of_anything_but_power_nothing_is_done(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(arguments) == 1
        assert capsys.readouterr().err.startswith("powerbench: Run this without sudo: only `power` needs root")

    def test_the_user_is_the_password_database_s(self) -> None:
        user = invoking_user({"SUDO_UID": "0", "SUDO_GID": "12345", "HOME": "/elsewhere"})
        assert (user.name, user.uid, user.gid, user.home) == ("root", 0, 0, "/root")

    @pytest.mark.parametrize("variables", [{"SUDO_UID": "x"}, {"SUDO_UID": "-5"}, {}])
    def test_an_unknown_user_is_an_error(self, variables: dict[str, str]) -> None:
        with pytest.raises((KeyError, ValueError, OverflowError)):
            invoking_user(variables)

    def test_imports_nothing_but_the_standard_library(self) -> None:
        code = "import sys; before = set(sys.modules); import powerbench.keeper; print(*set(sys.modules) - before)"
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
        foreign = {name.partition(".")[0] for name in done.stdout.split()} - sys.stdlib_module_names
        assert foreign == {"powerbench"}
        assert {name for name in done.stdout.split() if name.startswith("powerbench")} == {
            "powerbench",
            "powerbench.keeper",
        }

    def test_the_command_is_isolated(self) -> None:
        assert recorder_command() == " ".join(["sudo", sys.executable, *ISOLATED, "power"])

    def test_no_keeper_without_its_socket(self) -> None:
        assert keeper_of({}) is None
        assert keeper_of({"POWERBENCH_KEEPER": "no number"}) is None
        assert keeper_of({"POWERBENCH_KEEPER": "987654"}) is None
