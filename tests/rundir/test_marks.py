"""Marks become steps: each once, in order, however often somebody looks and whatever became of the writer."""

from __future__ import annotations

import mmap
import signal
import subprocess
import sys
from pathlib import Path, PosixPath
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powerbench.records import Stage, StepTrace
from powerbench.rundir.marks import BYTES_A_MARK, FIRST_ROOM, GrowingMarks, MarksReader, MarksWriter, Room, stage_of
from tests.rundir import rows_of

KILLED_IN_THE_FOURTH_STEP = """
import os, signal, sys
from pathlib import Path
from powerbench.rundir.marks import MarksWriter
view = MarksWriter(Path(sys.argv[1]), capacity=9).view
for boundary in range(4):
    view[2 * boundary] = 10 * boundary + 1
    view[2 * boundary + 1] = 10 * boundary + 2
os.kill(os.getpid(), signal.SIGKILL)
"""


WRITES_BEYOND_ITS_LIMIT = """
import resource, sys
from pathlib import Path
from powerbench.rundir.marks import MarksWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    MarksWriter(Path(sys.argv[1]), capacity=1000)
except OSError:
    print("no room")
"""


GROWS_BEYOND_ITS_LIMIT = """
import resource, signal, sys
from pathlib import Path
from powerbench.rundir.marks import BYTES_A_MARK, FIRST_ROOM, GrowingMarks, Room
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
growing, room = GrowingMarks(path), Room(path)
limit = FIRST_ROOM * BYTES_A_MARK
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
room.keep_ahead(FIRST_ROOM)
print(growing.has_grown(), len(growing.view), room.lack, room.is_used_up(FIRST_ROOM))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "marks-0.bin"


def marks(path: Path, *pairs: tuple[int, int], capacity: int = 10) -> memoryview:
    view = MarksWriter(path, capacity=capacity).view
    put(view, 0, *pairs)
    return view


def put(view: memoryview, first: int, *pairs: tuple[int, int]) -> None:
    for at, (submit, end) in enumerate(pairs, first):
        view[2 * at], view[2 * at + 1] = submit, end


def steps(reader: MarksReader, *, measured: int | None = None, final: bool = False) -> list[str]:
    reader.look()
    return rows_of(reader.steps(measured=measured, final=final))


class TestTheFile:
    def test_holds_a_pair_of_little_endian_int64_a_boundary_one_more_than_there_are_steps(self, path: Path) -> None:
        marks(path, (1, 2), (3, 256), capacity=2)

        data = path.read_bytes()
        assert data[:8] + data[24:32] == b"\x01\0\0\0\0\0\0\0" + b"\0\x01\0\0\0\0\0\0"
        assert data[32:] == bytes(16)

    def test_is_allocated_in_full_so_that_no_mark_meets_a_full_disk(self, path: Path) -> None:
        marks(path, capacity=100_000)

        assert path.stat().st_size == 100_001 * 16
        assert path.stat().st_blocks * 512 >= 100_001 * 16

    def test_of_another_run_is_never_overwritten(self, path: Path) -> None:
        path.write_bytes(b"precious")

        with pytest.raises(FileExistsError):
            MarksWriter(path, capacity=1)
        assert {it.name: it.read_bytes() for it in path.parent.iterdir()} == {path.name: b"precious"}

    def test_gets_its_name_once_it_is_whole_so_that_no_reader_maps_a_part_of_it(self, path: Path) -> None:
        seen = []

        class Watched(PosixPath):
            def rename(self, target: Any) -> Any:
                seen.append((self.stat().st_size, self.stat().st_blocks * 512 >= self.stat().st_size, path.exists()))
                return super().rename(target)

        MarksWriter(Watched(path), capacity=1000)

        assert seen == [(1001 * 16, True, False)]
        assert [it.name for it in path.parent.iterdir()] == [path.name]

    def test_takes_the_place_of_one_that_a_killed_writer_left_aside(self, path: Path) -> None:
        path.with_suffix(".new").write_bytes(b"\xff" * 100)

        marks(path, capacity=1)

        assert path.read_bytes() == bytes(32)
        assert [it.name for it in path.parent.iterdir()] == [path.name]

    def test_for_which_there_is_no_room_is_an_error_and_leaves_nothing(self, path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-c", WRITES_BEYOND_ITS_LIMIT, str(path)], capture_output=True, text=True, check=False
        )

        assert (done.returncode, done.stdout, done.stderr) == (0, "no room\n", "")
        assert list(path.parent.iterdir()) == []

    def test_outlives_a_writer_that_is_killed(self, path: Path) -> None:
        done = subprocess.run([sys.executable, "-c", KILLED_IN_THE_FOURTH_STEP, str(path)], check=False)

        assert done.returncode == -signal.SIGKILL
        assert steps(MarksReader(path, warmup=1), final=True) == [
            "0,warmup,2,11,12",
            "1,step,12,21,22",
            "2,step,22,31,32",
        ]


class TestLooking:
    def test_finds_nothing_before_the_file_is_there_or_while_it_is_empty(self, path: Path) -> None:
        reader = MarksReader(path, warmup=0)
        assert (reader.look(), reader.last_ns(), steps(reader)) == (0, None, [])

        path.touch()
        assert (reader.look(), reader.last_ns(), steps(reader)) == (0, None, [])

    def test_counts_boundaries_and_tells_when_the_last_was_reached(self, path: Path) -> None:
        view, reader = marks(path, (100, 110)), MarksReader(path, warmup=0)
        assert (reader.look(), reader.last_ns()) == (1, 110)

        put(view, 1, (150, 0))
        assert (reader.look(), reader.last_ns()) == (2, 150)

    def test_stops_at_the_end_of_a_file_that_is_full(self, path: Path) -> None:
        marks(path, (1, 1), (2, 2), (3, 3), capacity=2)

        assert MarksReader(path, warmup=0).look() == 3

    def test_ignores_half_a_boundary_at_the_end_of_a_file_cut_short(self, path: Path) -> None:
        marks(path, (1, 1), (2, 2), (3, 3), capacity=2)
        path.write_bytes(path.read_bytes()[:40])

        assert MarksReader(path, warmup=0).look() == 2

    def test_fixes_what_the_next_steps_are_so_that_no_tail_is_taken_for_a_measured_step(self, path: Path) -> None:
        view, reader = marks(path, (10, 10), (20, 20)), MarksReader(path, warmup=0)
        reader.look()
        put(view, 2, (30, 30))

        assert rows_of(reader.steps(measured=None)) == ["0,step,10,20,20"]


class TestSteps:
    def test_start_at_the_edge_before_and_end_at_their_own(self, path: Path) -> None:
        marks(path, (8, 10), (18, 20), (28, 31))

        assert steps(MarksReader(path, warmup=0)) == ["0,step,10,18,20", "1,step,20,28,31"]

    def test_are_returned_once(self, path: Path) -> None:
        view, reader = marks(path, (10, 10), (20, 20)), MarksReader(path, warmup=0)

        assert steps(reader) == ["0,step,10,20,20"]
        assert steps(reader) == []
        put(view, 2, (30, 30))
        assert steps(reader) == ["0,step,20,30,30"]

    def test_wait_for_an_edge_of_their_own_or_a_later_one(self, path: Path) -> None:
        view, reader = marks(path, (10, 10), (20, 0), (30, 0)), MarksReader(path, warmup=0)
        assert steps(reader) == []

        put(view, 3, (40, 45))
        assert steps(reader) == ["0,step,10,20,", "1,step,10,30,", "2,step,10,40,45"]

    def test_without_an_edge_come_at_the_very_end(self, path: Path) -> None:
        marks(path, (10, 10), (20, 20), (30, 0))

        assert steps(MarksReader(path, warmup=0), final=True) == ["0,step,10,20,20", "1,step,20,30,"]

    @pytest.mark.parametrize("edges_a_look", [1, 3, 50])
    @pytest.mark.parametrize("after_looks", [0, 1, 5, 20])
    @pytest.mark.parametrize("final", [False, True])
    def test_keep_their_edges_however_many_are_written_while_they_are_read(
        self, path: Path, after_looks: int, edges_a_look: int, final: bool
    ) -> None:
        """A device that reads its events late writes many edges in a row, from the first to the last."""
        view = marks(path, (10, 10), *[(10 * at, 0) for at in range(2, 42)], capacity=40)
        reader, trace = MarksReader(path, warmup=0), StepTrace()
        reader.look()
        reader._map = Settling(path, view, after_looks, edges_a_look)

        extend(trace, reader.steps(measured=None))
        assert trace.end_ns == [10 * (step + 2) for step in range(len(trace))]
        if final:
            put(view, 1, *[(10 * at, 10 * at) for at in range(2, 42)])
            extend(trace, reader.steps(measured=None, final=True))
            assert trace.end_ns == [10 * (step + 2) for step in range(40)]

    def test_are_none_while_the_origin_has_no_edge(self, path: Path) -> None:
        marks(path, (10, 0))

        assert steps(MarksReader(path, warmup=0), final=True) == []

    def test_are_warmup_then_measured_then_tail(self, path: Path) -> None:
        marks(path, (10, 10), (20, 20), (30, 30), (40, 40))

        rows = steps(MarksReader(path, warmup=1), measured=1)

        assert [row.split(",")[1] for row in rows] == ["warmup", "step", "tail"]


class Settling(mmap.mmap):
    """The marks in `view`, whose next edges are written, in order, behind each look at one boundary after the first."""

    def __new__(cls, path: Path, view: memoryview, after_looks: int, edges_a_look: int) -> Settling:
        with path.open("rb") as file:
            return super().__new__(cls, file.fileno(), 0, access=mmap.ACCESS_READ)

    def __init__(self, path: Path, view: memoryview, after_looks: int, edges_a_look: int) -> None:
        self._view = view
        self._quiet = after_looks
        self._edges_a_look = edges_a_look
        self._next = 1

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        if self._quiet:
            self._quiet -= 1
            return found
        for boundary in range(self._next, min(self._next + self._edges_a_look, len(self._view) // 2)):
            self._view[2 * boundary + 1] = self._view[2 * boundary]
        self._next += self._edges_a_look
        return found


@pytest.mark.parametrize(
    ("step", "measured", "stage"),
    [
        (0, 3, "warmup"),
        (1, 3, "warmup"),
        (2, 3, "step"),
        (4, 3, "step"),
        (5, 3, "tail"),
        (99, None, "step"),
        (2, 0, "tail"),
    ],
)
def test_the_stage_of_a_step_follows_from_its_number(step: int, measured: int | None, stage: Stage) -> None:
    assert stage_of(step, warmup=2, measured=measured) == stage


Plan = tuple[list[tuple[int, int]], list[tuple[int, int]]]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Boundaries (submit, end), and at each visit how many were submitted and how many may show their edge.

    As a device writes them: the origin is an edge, moments do not go back, edges are written in order.
    """
    gaps = draw(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.booleans()), min_size=1, max_size=25))
    now, boundaries = 1, []
    for at, (to_submit, to_end, is_edge) in enumerate(gaps):
        submit = now + to_submit
        now = submit + to_end if is_edge or at == 0 else submit
        boundaries.append((submit, now if is_edge or at == 0 else 0))
    visits = draw(st.lists(st.tuples(*[st.integers(0, len(boundaries))] * 2), max_size=8))
    submitted = sorted(max(visit) for visit in visits)
    edges = sorted(min(visit) for visit in visits)
    return boundaries, list(zip(submitted, edges, strict=True))


@settings(deadline=None)
@given(plans(), st.integers(0, 4), st.integers(0, 6))
def test_steps_folded_in_any_number_of_instalments_are_those_folded_at_once(
    plan: Plan, warmup: int, measured: int
) -> None:
    boundaries, visits = plan
    with TemporaryDirectory() as folder:
        path = Path(folder) / "marks-0.bin"
        view = marks(path, capacity=len(boundaries))
        reader, trace = MarksReader(path, warmup=warmup), StepTrace()
        for submitted, edges in [*visits, (len(boundaries), len(boundaries))]:
            shown = [(submit, end if at < edges else 0) for at, (submit, end) in enumerate(boundaries[:submitted])]
            put(view, 0, *shown)
            final = submitted == edges == len(boundaries)
            reader.look()
            extend(trace, reader.steps(measured=measured, final=final))

        at_once = MarksReader(path, warmup=warmup)
        at_once.look()
        assert trace == at_once.steps(measured=measured, final=True)
        assert len(trace) == len(boundaries) - 1


def extend(trace: StepTrace, more: StepTrace) -> None:
    for row in zip(more.stage, more.start_ns, more.submit_ns, more.end_ns, strict=True):
        trace.append(*row)


class TestOpenSteps:
    """Those that were submitted and not yet seen to end, so that each can be given its time."""

    def test_are_none_before_the_first(self, path: Path) -> None:
        reader = MarksReader(path, warmup=0)
        assert reader.open_steps == 0

        marks(path, (10, 11))
        reader.look()
        assert reader.open_steps == 0

    def test_are_those_without_an_edge_at_or_behind_them(self, path: Path) -> None:
        marks(path, (10, 11), (20, 21), (30, 0), (40, 0), (50, 0))
        reader = MarksReader(path, warmup=0)

        reader.look()
        assert reader.open_steps == 4
        steps(reader)
        assert reader.open_steps == 3
        steps(reader, final=True)
        assert reader.open_steps == 0


class TestAPause:
    """A boundary with a negative submit: what lies before it is no step."""

    def test_is_a_row_of_its_own_between_two_steps(self, path: Path) -> None:
        marks(path, (10, 10), (20, 20), (-50, 50), (60, 60))

        assert steps(MarksReader(path, warmup=0)) == [
            "0,step,10,20,20",
            "1,pause,20,50,50",
            "2,step,50,60,60",
        ]

    def test_counts_for_no_step_of_the_warm_up(self, path: Path) -> None:
        marks(path, (10, 10), (-50, 50), (60, 60), (70, 70))

        assert steps(MarksReader(path, warmup=1)) == [
            "0,pause,10,50,50",
            "1,warmup,50,60,60",
            "2,step,60,70,70",
        ]

    def test_is_told_alike_however_often_somebody_looks(self, path: Path) -> None:
        view = marks(path, (10, 10), (20, 20))
        reader = MarksReader(path, warmup=0)
        first = steps(reader)
        put(view, 2, (-50, 50))
        put(view, 3, (60, 60))

        assert first == ["0,step,10,20,20"]
        assert steps(reader) == ["0,pause,20,50,50", "1,step,50,60,60"]
        assert reader.last_ns() == 60


class TestGrowingMarks:
    """The steps of a loop that nobody has counted: the file is made longer while it is written and read."""

    def test_begin_with_room_that_is_all_there(self, path: Path) -> None:
        growing = GrowingMarks(path)

        assert len(growing.view) == 2 * FIRST_ROOM
        assert path.stat().st_blocks * 512 >= FIRST_ROOM * BYTES_A_MARK

    def test_get_room_from_the_other_process_before_half_of_it_is_marked(self, path: Path) -> None:
        growing, room = GrowingMarks(path), Room(path)

        room.keep_ahead(FIRST_ROOM // 2)
        before = path.stat().st_size
        room.keep_ahead(FIRST_ROOM // 2 + 1)

        assert (before, path.stat().st_size) == (FIRST_ROOM * BYTES_A_MARK, 2 * FIRST_ROOM * BYTES_A_MARK)
        assert path.stat().st_blocks * 512 >= 2 * FIRST_ROOM * BYTES_A_MARK
        assert growing.has_grown()
        assert len(growing.view) == 4 * FIRST_ROOM

    def test_keep_what_was_marked_and_are_read_on(self, path: Path) -> None:
        growing, room, reader = GrowingMarks(path), Room(path), MarksReader(path, warmup=0)
        put(growing.view, 0, *((at + 1, at + 1) for at in range(FIRST_ROOM)))
        assert reader.look() == FIRST_ROOM

        room.keep_ahead(reader.reached)
        growing.has_grown()
        put(growing.view, FIRST_ROOM, (FIRST_ROOM + 1, FIRST_ROOM + 1))

        assert growing.view[0] == 1
        assert reader.look() == FIRST_ROOM + 1

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only one process may add room")
    def test_make_room_themselves_where_the_other_process_is_late(self, path: Path) -> None:
        growing = GrowingMarks(path)

        assert growing.has_grown()
        assert len(growing.view) == 4 * FIRST_ROOM

    def test_say_so_where_there_is_no_room_left(self, path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-c", GROWS_BEYOND_ITS_LIMIT, path], capture_output=True, text=True, check=True
        )

        assert done.stdout == f"False {2 * FIRST_ROOM} File too large True\n"
