"""Linux's counters say the same at the second look as a fresh reader, and nothing of a process that is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from powerbench.gauges import PortableProcess, memory_by_psutil
from powerbench.procfs import PAGE_BYTES, CoreTimes, MemoryFiles, OpenFile, ProcessFiles, number_of, waited_s

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these files")

BUSY_FOR_A_WHILE = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """One that has used a core, and waits."""
    with subprocess.Popen(
        [sys.executable, "-c", BUSY_FOR_A_WHILE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as busy:
        assert busy.stdout is not None
        busy.stdout.readline()
        yield busy
        busy.kill()


def test_a_file_shows_what_it_holds_at_each_look(tmp_path: Path) -> None:
    path = tmp_path / "counter"
    path.write_text("1")
    file = OpenFile(str(path))

    assert file.look() == b"1"
    path.write_text("22")
    assert file.look() == b"22"


def test_a_file_is_let_go_of_with_its_object(tmp_path: Path) -> None:
    path = tmp_path / "counter"
    path.touch()

    def held() -> int:
        return sum(fd.exists() and fd.samefile(path) for fd in Path("/proc/self/fd").iterdir())

    file = OpenFile(str(path))
    assert held() == 1
    del file
    assert held() == 0


def test_the_cores_have_spent_what_psutil_says() -> None:
    before, look, after = psutil.cpu_times(), CoreTimes().look(), psutil.cpu_times()
    ticks = os.sysconf("SC_CLK_TCK")

    assert set(before._fields) == look.keys()
    for what in ("user", "system", "idle"):
        assert getattr(before, what) <= look[what] / ticks <= getattr(after, what)


def test_the_memory_is_what_psutil_says() -> None:
    ours, psutil_s = MemoryFiles().look(), memory_by_psutil()

    assert ours.available_bytes == pytest.approx(psutil_s.available_bytes, rel=0.2)
    assert ours.swap_used_bytes == pytest.approx(psutil_s.swap_used_bytes, rel=0.2, abs=100e6)
    assert isinstance(ours.in_bytes, int)
    assert isinstance(ours.out_bytes, int)


def test_what_no_file_tells_of_the_memory_is_unknown_and_not_zero(tmp_path: Path) -> None:
    meminfo, vmstat = tmp_path / "meminfo", tmp_path / "vmstat"
    meminfo.write_text("MemTotal:  100 kB\nMemFree:  50 kB\nSwapTotal:  20 kB\n")

    assert MemoryFiles(str(meminfo), str(vmstat)).look() == (None, None, None, None)
    meminfo.write_text("MemTotal:  100 kB\nMemAvailable:  60 kB\nSwapTotal:  20 kB\nSwapFree:  5 kB\n")
    assert MemoryFiles(str(meminfo), str(vmstat)).look() == (60 * 1024, 15 * 1024, None, None)
    vmstat.write_text("nr_free_pages 7\npswpin 2\npswpout 3\n")
    assert MemoryFiles(str(meminfo), str(vmstat)).look()[2:] == (2 * PAGE_BYTES, 3 * PAGE_BYTES)


def test_a_number_stands_beside_its_whole_name() -> None:
    lines = b"MemTotal:  100 kB\nXSwapFree:  1 kB\nSwapFree:    20 kB\npswpin 3\n"

    assert number_of(b"SwapFree:", lines) == 20
    assert number_of(b"pswpin", lines) == 3
    assert number_of(b"pswp", lines) is None


def test_a_process_has_used_what_psutil_says(process: subprocess.Popen[bytes]) -> None:
    ours, psutil_s = ProcessFiles(process.pid), PortableProcess(process.pid)

    for _ in range(2):  # also at the second look through the same files
        mine, theirs = ours.look(), psutil_s.look()
        assert mine.busy_s == pytest.approx(theirs.busy_s, abs=0.05)
        assert mine.busy_s > 0.2
        assert mine.rss_bytes == pytest.approx(theirs.rss_bytes, rel=0.1)
        assert isinstance(mine.page_ins, int)


def test_a_name_with_parentheses_and_spaces_confuses_nobody() -> None:
    ours = ProcessFiles(os.getpid())
    name = Path("/proc/self/comm")
    was = name.read_text()
    busy_s = ours.look().busy_s
    name.write_text("a) 1 2 (3")
    try:
        assert busy_s <= ours.look().busy_s < busy_s + 60
    finally:
        name.write_text(was)


def test_a_process_that_is_gone_cannot_be_looked_at(process: subprocess.Popen[bytes]) -> None:
    ours = ProcessFiles(process.pid)
    ours.look()

    process.kill()
    process.wait()
    with pytest.raises(ProcessLookupError):
        ours.look()
    with pytest.raises(FileNotFoundError):
        ProcessFiles(process.pid)


def test_a_thread_s_wait_is_none_where_the_kernel_does_not_count_it() -> None:
    assert waited_s(b"5000000000 1500000000 20\n") == 1.5
    assert waited_s(b"0 0 0\n") is None
    assert waited_s(b"") is None
