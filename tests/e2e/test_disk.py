"""Where the disk is full, or may not be written, the command says so in a line, and what was recorded reads back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.e2e.commands import (
    ENDLESS,
    SLEEP,
    ended,
    marked_ns,
    nobody_is_left,
    powerbench,
    report,
    running_in,
    start,
    stepping_in,
    swept,
    told,
    wait_for,
)

FULL = Path("/dev/full")
BLOCK = 4096

Mount = Callable[..., Path]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mount]:
    """Makes small file systems in memory, with options of mount(8); all are gone after the test."""
    with ExitStack() as stack:

        def mount(*options: str) -> Path:
            folder = tmp_path / "disk"
            folder.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "powerbench-test", str(folder)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            except FileNotFoundError:
                pytest.skip("there is no mount here")
            if done.returncode:
                pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
            stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
            stack.enter_context(swept(folder))
            return folder

        yield mount


def fill(disk: Path) -> None:
    """Take what room there is, to the last byte."""
    for size in (BLOCK, 1):
        with suppress(OSError), (disk / "filling").open("ab", buffering=0) as file:
            while file.write(bytes(size)):
                pass
    assert os.statvfs(disk).f_bavail == 0


class TestAFolderThatCannotBeWritten:
    def test_below_a_file_is_a_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()

        done = powerbench("run", *SLEEP, "--output", tmp_path / "file" / "runs")

        assert (done.status, done.stdout) == (1, "")
        assert told(done) == (
            f"Cannot make a run directory in {tmp_path}/file/runs: Not a directory. "
            "Choose another folder with --output."
        )

    def test_that_is_a_file_is_a_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()

        done = powerbench("run", *SLEEP, "--output", tmp_path / "file")

        assert (done.status, done.stdout) == (1, "")
        assert told(done).startswith(f"Cannot make a run directory in {tmp_path}/file: File exists.")

    def test_read_only_is_a_sentence(self, mounted: Mount) -> None:
        disk = mounted("size=1m")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

        done = powerbench("run", *SLEEP, "--output", disk / "runs")

        assert (done.status, done.stdout) == (1, "")
        assert told(done) == (
            f"Cannot make a run directory in {disk}/runs: Read-only file system. Choose another folder with --output."
        )


class TestAFullDisk:
    def test_without_room_for_a_directory_is_a_sentence(self, mounted: Mount) -> None:
        disk = mounted("size=64k", "nr_inodes=2")
        (disk / "filling").touch()

        done = powerbench("run", *SLEEP, "--output", disk / "runs")

        assert (done.status, done.stdout) == (1, "")
        assert told(done) == (
            f"Cannot make a run directory in {disk}/runs: No space left on device. Choose another folder with --output."
        )

    def test_without_room_for_the_record_is_a_sentence(self, mounted: Mount) -> None:
        disk = mounted("size=64k")
        fill(disk)

        done = powerbench("run", *SLEEP, "--output", disk)

        assert (done.status, done.stdout) == (1, "")
        assert told(done) == (
            f"Cannot write a run into {disk}: No space left on device. "
            "Make room, or choose another folder with --output."
        )
        assert [path.name for path in disk.iterdir()] == ["filling"]  # nothing that looks like a run is left

    def test_without_room_for_the_marks_is_a_sentence(self, mounted: Mount) -> None:
        """A minute of the shortest steps is ten megabytes of marks; these are asked for before the first step."""
        disk = mounted("size=512k")

        done = powerbench("run", *SLEEP, "--min-seconds", "60", "--output", disk)

        assert (done.status, done.stdout) == (1, "")
        assert told(done) == (
            "The run was not completed (failed): the worker ended with exit status 1 with the disk full; "
            "make room, or choose another folder with --output."
        )
        summary = report(running_in(disk))
        assert (summary["status"], summary["steps"], summary["latency_ms"]) == ("failed", 0, None)
        nobody_is_left(disk)

    def test_that_fills_up_in_the_middle_of_a_run_keeps_what_was_measured(self, mounted: Mount) -> None:
        disk = mounted("size=768k")
        process = start("run", *SLEEP, "--steps", "20000", "--output", disk)
        run = stepping_in(disk)

        fill(disk)
        seen = len(marked_ns(run)) - 1
        done = ended(process)

        assert (done.status, done.stdout) == (1, "")
        assert told(done) == (
            f"Cannot go on recording in {run}: No space left on device. What was measured so far is kept there; "
            f"make room, and read it with `powerbench report {run}`."
        )
        nobody_is_left(disk)
        summary = report(run)
        assert summary["status"] == "interrupted"
        assert summary["warmup_steps"] + summary["steps"] >= seen
        assert summary["steps"] > seen, "the rows that found no room are read from the marks"


LOOP = """
import sys, time
import powerbench
with powerbench.record(sys.argv[1], device="cpu", power="none", warmup=0) as run:
    for step in range(int(sys.argv[2])):
        if step == 100:
            sys.stdin.readline()
        time.sleep(0.001)
        run.step()
"""


class TestAProgramsOwnLoop:
    def test_is_not_begun_where_there_is_no_room_for_its_marks(self, mounted: Mount, tmp_path: Path) -> None:
        disk = mounted("size=1m")

        done = ended(start("-c", LOOP, disk / "mine", "5", command=(sys.executable,)))

        assert done.status == 1
        said = f"Cannot record in {disk}/mine: No space left on device; make room there."
        assert done.stderr.splitlines()[-1] == f"powerbench.errors.PowerbenchError: {said}"
        nobody_is_left(disk)

    def test_goes_on_to_its_own_end_when_the_disk_fills_up(self, mounted: Mount) -> None:
        disk = mounted("size=5m")
        path = disk / "mine"
        process = start("-c", LOOP, path, "3000", command=(sys.executable,), stdin=subprocess.PIPE)
        assert process.stdin is not None
        wait_for(lambda: len(marked_ns(path)) > 100, "the hundredth step")

        fill(disk)
        process.stdin.write("\n")
        done = ended(process)

        assert done.status == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.count("The process that records is gone") == 1
        nobody_is_left(disk)
        summary = report(path)
        assert (summary["status"], summary["steps"]) == ("interrupted", 3000)


class TestOutputsThatCannotBeWritten:
    @pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
    def test_a_full_stdout_is_a_sentence_and_costs_nothing_of_the_record(self, tmp_path: Path) -> None:
        with FULL.open("w") as full:
            done = powerbench("run", *SLEEP, "--steps", "5", "--output", tmp_path, stdout=full)
            again = powerbench("report", running_in(tmp_path), stdout=full)

        no_room = "Cannot write the result to stdout: No space left on device; send it elsewhere."
        run = running_in(tmp_path)
        assert (done.status, told(done)) == (1, no_room)
        assert (again.status, again.stderr) == (1, f"powerbench: {no_room}\n")
        assert f"Recorded in {run}\n" in done.stderr
        assert report(run)["status"] == "complete"

    def test_a_full_stderr_does_not_end_the_run(self, tmp_path: Path) -> None:
        with swept(tmp_path), FULL.open("w") as full:
            done = powerbench("run", *SLEEP, "--steps", "100", "--json", "--output", tmp_path, stderr=full)

        assert report(running_in(tmp_path))["status"] == "complete"
        assert '"status": "complete"' in done.stdout

    def test_a_reader_of_stderr_that_has_enough_does_not_end_the_run(self, tmp_path: Path) -> None:
        """`powerbench run 2>&1 >result.txt | head -1`, or a terminal that was closed."""
        reading, writing = os.pipe()
        with swept(tmp_path):
            process = start("run", *SLEEP, "--steps", "200", "--json", "--output", tmp_path, stderr=writing)
            os.close(writing)
            os.read(reading, 1)
            os.close(reading)
            done = ended(process)

        assert report(running_in(tmp_path))["status"] == "complete"
        assert '"status": "complete"' in done.stdout

    def test_a_reader_of_stdout_that_has_enough_gets_no_traceback(self, tmp_path: Path) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        done = powerbench("run", *SLEEP, "--steps", "5", "--output", tmp_path, stdout=writing)
        os.close(writing)

        run = running_in(tmp_path)
        assert done.status == 1
        assert done.stderr.endswith(f"Recorded in {run}\nSee it again with: powerbench report {run}\n")
        assert not {"Traceback", "powerbench:"} & set(done.stderr.split())
        assert report(run)["status"] == "complete"


def test_a_record_that_vanishes_below_a_run_is_a_sentence(tmp_path: Path) -> None:
    """Somebody cleans up while the run is on."""
    with swept(tmp_path):
        process = start("run", *SLEEP, *ENDLESS, "--output", tmp_path)
        run = stepping_in(tmp_path)
        for path in run.iterdir():
            path.unlink()
        run.rmdir()
        process.terminate()
        done = ended(process)

    assert done.status == 1
    assert "No such file or directory" in told(done)
    nobody_is_left(tmp_path)


if sys.platform != "linux":
    pytestmark = pytest.mark.skip(reason="tmpfs and /dev/full are Linux's")


class TestASweepOnAFullDisk:
    SWEEP = (*SLEEP, "--power", "none", "--steps", "300", "--set", "seed=[1, 2]")

    def test_stops_with_a_sentence_and_goes_on_when_there_is_room(self, mounted: Mount) -> None:
        disk = mounted("size=2m")
        process = start("run", *self.SWEEP, "--output", disk / "runs")
        sweep = wait_for(lambda: next((disk / "runs").glob("2*/sweep.json"), None), "sweep.json").parent
        stepping_in(sweep)

        fill(disk)
        done = ended(process)

        assert (done.status, done.stdout) == (1, "")
        assert "No space left on device" in told(done)
        assert told(done).endswith("The sweep stops here; mend that, and the same command with --resume goes on.")

        (disk / "filling").unlink()
        again = powerbench("run", *self.SWEEP, "--resume", "--json", "--output", disk / "runs")
        assert (again.status, [run["status"] for run in json.loads(again.stdout)]) == (0, ["complete"] * 2)
        nobody_is_left(disk)

    def test_without_room_for_its_file_is_a_sentence_and_no_folder(self, mounted: Mount) -> None:
        disk = mounted("size=64k")
        (disk / "runs").mkdir()
        fill(disk)

        done = powerbench("run", *self.SWEEP, "--output", disk / "runs")

        assert (done.status, done.stdout) == (1, "")
        assert told(done).endswith("No space left on device. Make room, or choose another folder with --output.")
        assert list((disk / "runs").iterdir()) == []
