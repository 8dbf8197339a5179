"""`powerbench.record`: what it refuses, where it records, and that trouble never reaches the loop."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest

import powerbench
from powerbench.devices.cpu import Cpu
from powerbench.devices.timers import InstantTimer
from powerbench.errors import PowerbenchError, Unavailable, UsageError
from powerbench.loop.order import Order
from powerbench.loop.program import shown
from powerbench.loop.ranks import Rank
from powerbench.loop.recording import Recording
from powerbench.records import LoopCell, WorkloadRecord
from powerbench.rundir.load import Run, load_run


def a_recording(path: Path, **options: Any) -> Recording:
    """One without a meter, all of whose steps are measured, unless `options` say otherwise."""
    all_options: dict[str, Any] = {"device": "cpu", "power": "none", "warmup": 0, "quiet": True} | options
    return powerbench.record(path, **all_options)


def recorded(path: Path, count: int, **options: Any) -> Run:
    """The run of so many steps."""
    with a_recording(path, **options) as run:
        for _ in range(count):
            run.step()
    assert run.path is not None
    return load_run(run.path)


def test_what_there_is_shows_before_it_is_imported() -> None:
    assert {"record", "Recording", "PowerbenchCallback", "PowerbenchError"} <= set(dir(powerbench))
    assert powerbench.PowerbenchError is PowerbenchError


class TestWhatItRefuses:
    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"device": "gpu"}, "There is no device called 'gpu'"),
            ({"batch_size": 0}, "In record(), batch_size must be a whole number from 1 to 10,000,000, not 0."),
            ({"warmup": -1}, "In record(), warmup must be a whole number from 0 to 10,000,000, not -1."),
            ({"warmup": None}, "In record(), warmup must be a whole number from 0 to 10,000,000, not nothing."),
            ({"power": None}, "In record(), power must be a name, not nothing."),
            ({"trace": "yes"}, "In record(), trace must be true or false, not 'yes'."),
            ({"parameters": 1.5}, "In record(), parameters must be a whole number, 0 or more, not 1.5."),
            ({"notes": [1]}, "In record(), notes must be sentences, not [1]."),
            ({"name": ""}, "In record(), name must be a name, not ''."),
            (
                {"device": "cuda:x"},
                "There is no device called 'cuda:x'; write cuda, or cuda:0 for the first of several.",
            ),
            ({"mode": "sleeping"}, "In record(), mode must be one of inference, training, not 'sleeping'."),
            ({"name": "sleep"}, "In record(), the name sleep is that of the built-in control: choose another."),
        ],
    )
    def test_is_said_at_once(self, tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
        with pytest.raises(UsageError) as caught:
            a_recording(tmp_path / "mine", **options)

        assert str(caught.value).startswith(sentence.removesuffix("."))
        assert list(tmp_path.iterdir()) == []

    def test_a_path_that_no_system_takes_is_said_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"File name too long; name another path\.$"):
            a_recording(tmp_path / ("x" * 300))

    def test_a_path_below_a_file_is_said_in_words_of_a_program(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")

        with pytest.raises(PowerbenchError, match=r"File exists\. Record to another path\.$"):
            a_recording(tmp_path / "file" / "mine").start()

    def test_a_meter_that_is_not_there_is_said_before_the_loop(self, tmp_path: Path) -> None:
        with pytest.raises(
            PowerbenchError, match="There is no power source called 'rappl'; did you mean rapl"
        ) as caught:
            a_recording(tmp_path / "mine", power="rappl").start()

        assert caught.value.exit_status == UsageError.exit_status
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.skipif(sys.platform != "linux", reason="a Mac has it")
    def test_a_device_that_is_not_there_is_said_before_the_loop(self, tmp_path: Path) -> None:
        with pytest.raises(Unavailable, match="mps is the GPU of a Mac and this is linux"):
            a_recording(tmp_path / "mine", device="mps").start()

        assert list(tmp_path.iterdir()) == []

    def test_a_step_before_the_start(self, tmp_path: Path) -> None:
        with pytest.raises(PowerbenchError, match="This recording has not been started: write `with"):
            a_recording(tmp_path / "mine").step()

    def test_a_second_start(self, tmp_path: Path) -> None:
        with a_recording(tmp_path / "mine") as run, pytest.raises(PowerbenchError, match="was started already, into"):
            run.start()


class TestWhere:
    def test_is_the_path_itself(self, tmp_path: Path) -> None:
        assert recorded(tmp_path / "runs" / "mine", 3).path == tmp_path / "runs" / "mine"
        assert (tmp_path / "runs" / "latest").resolve() == tmp_path / "runs" / "mine"

    def test_is_another_one_where_a_run_lies_there(self, tmp_path: Path) -> None:
        recorded(tmp_path / "mine", 1)

        assert recorded(tmp_path / "mine", 1).path == tmp_path / "mine-2"

    def test_is_inside_a_folder_that_is_no_run(self, tmp_path: Path) -> None:
        path = recorded(tmp_path, 1, name="My Loop").path

        assert path.parent == tmp_path
        assert path.name.endswith("Z-cpu-my-loop")

    def test_is_below_runs_where_nothing_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with powerbench.record(device="cpu", power="none", quiet=True) as run:
            run.step()

        assert run.path is not None
        assert run.path.parent == tmp_path / "runs"


class TestWhatItTakes:
    def test_a_number_of_numpy_is_one(self, tmp_path: Path) -> None:
        import numpy as np

        of_numpy = {"batch_size": np.int64(4), "parameters": np.int64(17), "idle_seconds": np.float32(0.5)}
        run = recorded(tmp_path / "mine", 1, **of_numpy)

        assert run.record.workload is not None
        assert (run.record.workload.samples_per_step, run.record.workload.parameters) == (4, 17)
        assert run.record.the_cell.idle_seconds == 0.5

    def test_a_note_alone_is_one_note(self, tmp_path: Path) -> None:
        assert recorded(tmp_path / "mine", 1, notes="The fan was off.").record.notes == ["The fan was off."]

    def test_a_path_in_the_home_is_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))

        assert recorded(Path("~/mine"), 1).path == tmp_path / "mine"

    def test_a_path_is_said_as_a_shell_takes_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

        assert shown(tmp_path / "my run") == "'my run'"
        assert shown(tmp_path / "-mine") == "./-mine"
        assert shown(tmp_path / "runs" / "mine") == "runs/mine"


class TestRanks:
    VARIABLES: ClassVar = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}

    def test_are_as_torchrun_tells(self) -> None:
        assert Rank.of(self.VARIABLES) == Rank(rank=3, world=4, local_rank=1)
        assert Rank.of({}) == Rank.of({"RANK": "3"}) == Rank(rank=0, world=1, local_rank=0)

    def test_record_beside_one_another(self) -> None:
        assert Rank.of(self.VARIABLES).place(Path("runs/mine")) == Path("runs/mine-rank3")
        assert Rank().place(Path("runs/mine")) == Path("runs/mine")

    def test_leave_the_meters_to_the_first_of_a_machine(self) -> None:
        assert [Rank(rank, 4, rank % 2).power("auto") for rank in range(4)] == ["auto", "none", "auto", "none"]


class Breaking(InstantTimer):
    """A timer of a device that fails at a boundary, as torch reports it."""

    def __init__(self, marks: memoryview, *, fails_at: int) -> None:
        super().__init__(marks)
        self._fails_at = fails_at

    def mark(self) -> int:
        self._fails_at -= 1
        if self._fails_at < 0:
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA_DSA")
        return super().mark()


class BreakingDevice(Cpu):
    def timer(self, marks: memoryview, *, sync_every: int) -> InstantTimer:
        return Breaking(marks, fails_at=4)

    def peak_memory(self) -> tuple[int | None, str]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def on(device: Cpu, path: Path) -> Recording:
    cell = LoopCell(device="cpu", model="mine", warmup=0, power="none", idle_seconds=0.0, sync_every=1)
    order = Order(path=str(path), cell=cell, program="train.py")
    return Recording(order, device, WorkloadRecord(samples_per_step=None), quiet=False)


class TestTrouble:
    def test_of_the_device_becomes_a_note_and_the_steps_before_it_stay(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with on(BreakingDevice(), tmp_path / "mine") as run:
            for _ in range(9):
                run.step()

        note = "Steps were no longer marked after an error: CUDA error: an illegal memory access was encountered."
        done = load_run(tmp_path / "mine")
        assert done.record.notes == [note]
        assert done.record.status == "complete"
        assert len(done.steps[0]) == 3
        assert capsys.readouterr().err.count(note) == 1

    def test_with_a_forgotten_resume_is_a_note(self, tmp_path: Path) -> None:
        with a_recording(tmp_path / "mine") as run:
            run.step()
            run.pause()
            run.step()
            run.step()

        done = load_run(tmp_path / "mine")
        assert done.steps[0].stage == ["step", "pause", "step"]
        assert done.record.notes == ["A step ended in a pause; it ended the pause, and is not counted."]

    def test_of_a_pause_in_the_middle_of_a_step_is_a_note(self, tmp_path: Path) -> None:
        with a_recording(tmp_path / "mine") as run:
            run.step()
            time.sleep(0.02)
            with run.pause():
                pass
            run.step()

        (note,) = load_run(tmp_path / "mine").record.notes
        assert note.startswith("A pause began long after the last step(), in the middle of a step")

    def test_with_steps_of_one_other_thread_is_none(self, tmp_path: Path) -> None:
        with a_recording(tmp_path / "mine") as run:
            thread = Thread(target=run.step)
            thread.start()
            thread.join()

        assert load_run(tmp_path / "mine").record.notes == []

    def test_with_a_closed_stderr_is_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for stderr in (None, closed()):
            monkeypatch.setattr(sys, "stderr", stderr)
            with on(Cpu(), tmp_path / "mine") as run:
                run.step()

        assert load_run(tmp_path / "mine-2").record.status == "complete"

    def test_steps_behind_the_end_are_passed_over(self, tmp_path: Path) -> None:
        with a_recording(tmp_path / "mine") as run:
            run.step()
        calls: list[Callable[[], object]] = [run.step, run.pause, run.resume, run.stop]
        for call in calls:
            call()

        assert len(load_run(tmp_path / "mine").steps[0]) == 1


def closed() -> Any:
    with Path("/dev/null").open("w") as stream:
        return stream


def test_more_steps_than_there_was_room_for_at_first_are_all_there(tmp_path: Path) -> None:
    run = recorded(tmp_path / "mine", 300_000)

    assert run.record.notes == []
    assert len(run.steps[0]) == 300_000
    assert run.steps[0].end_ns == sorted(end for end in run.steps[0].end_ns if end is not None)
