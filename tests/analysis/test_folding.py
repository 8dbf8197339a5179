"""Stacks as a reader wants them: without plumbing, from the step on, in plain names."""

from __future__ import annotations

import pytest

from powerbench.analysis.folding import from_the_step_on, is_resting, plain_name, step_of, without_waits
from powerbench.rundir.stacks import Frame
from tests.rundir.stacks import LOOP, STEP, a_frame

MARK = Frame("FencedTimer.mark", "/src/powerbench/devices/timers.py", 90)
WAIT = Frame("synchronize", "/lib/python3.11/site-packages/torch/mps/__init__.py", 30)
CALL = Frame("Module._call_impl", "/lib/python3.11/site-packages/torch/nn/modules/module.py", 1787)
LIBRARY = "/lib/python3.11/site-packages/torch/lib/libtorch_cpu.so"
PLAIN_STEP = STEP._replace(line=0)


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("forward", "forward"),
        ("training_step.<locals>.step", "training_step.<locals>.step"),
        ("at::native::(anonymous namespace)::mul_kernel(at::TensorIteratorBase&)", "at::native::mul_kernel"),
        ("at::native::add_kernel<float>::{lambda(float, float)#1}::operator()() const", "at::native::add_kernel"),
        (
            "c10::function_ref<void (char**, long const*)>::callback_fn<at::Vec<float> >",
            "c10::function_ref::callback_fn",
        ),
        ("torch::autograd::Engine::execute(std::vector<int> const&) const", "torch::autograd::Engine::execute"),
        ("sgemm_", "sgemm_"),
    ],
)
def test_names_of_c_plus_plus_lose_their_types(written: str, plain: str) -> None:
    assert plain_name(written) == plain


def test_a_path_begins_behind_the_loop_and_passes_over_what_only_passes_on() -> None:
    stack = [a_frame("main"), LOOP, STEP, CALL, a_frame("forward", 7), Frame("at::_ops::addmm::call", LIBRARY, 0)]

    assert from_the_step_on(stack, by_line=False) == (PLAIN_STEP, a_frame("forward", 0))
    assert from_the_step_on(stack, by_line=True) == (STEP, a_frame("forward", 7))


def test_the_loop_itself_is_a_path_where_it_called_nothing() -> None:
    assert from_the_step_on([a_frame("main"), LOOP], by_line=True) == (LOOP,)


def test_outside_of_the_loop_the_rest_is_kept() -> None:
    stack = [
        Frame("main", "/src/powerbench/worker.py", 57),
        Frame("run_windows", "/src/powerbench/worker.py", 190),
        WAIT,
    ]

    assert [frame.name for frame in from_the_step_on(stack, by_line=False)] == ["run_windows", "synchronize"]


def test_a_program_of_somebody_elses_keeps_its_own_main() -> None:
    script = [Frame("<module>", "/home/me/train.py", 9), a_frame("main"), a_frame("train")]

    assert [frame.name for frame in from_the_step_on(script, by_line=False)] == ["<module>", "main", "train"]


def test_where_a_programs_loop_says_that_a_step_is_over_it_waits_for_the_step() -> None:
    said = Frame("Recording.step", "/lib/python3.11/site-packages/powerbench/loop/recording.py", 140)
    step = Frame("step", "", 0)

    assert without_waits((a_frame("train"), said, MARK, WAIT), step) == (step,)


def test_the_step_is_what_the_loop_calls_and_no_wait() -> None:
    assert step_of([[LOOP], [LOOP, MARK], [LOOP, STEP, WAIT]], by_line=False) == PLAIN_STEP
    assert step_of([[LOOP], [LOOP, MARK]], by_line=False) is None


def test_the_step_of_a_rank_among_several_is_the_same() -> None:
    watched = Frame("watched.<locals>.watched_step", "/src/powerbench/workloads/share.py", 57)

    assert step_of([[LOOP, watched, STEP, WAIT]], by_line=False) == PLAIN_STEP
    assert from_the_step_on([LOOP, watched, STEP], by_line=False) == (PLAIN_STEP,)


def test_a_wait_is_the_callers_and_one_outside_of_the_step_the_steps() -> None:
    assert without_waits((PLAIN_STEP, a_frame("backward"), WAIT), PLAIN_STEP) == (PLAIN_STEP, a_frame("backward"))
    assert without_waits((MARK, WAIT), PLAIN_STEP) == (PLAIN_STEP,)
    assert without_waits((LOOP,), PLAIN_STEP) == (PLAIN_STEP,)


def test_a_thread_that_waits_for_work_rests() -> None:
    assert is_resting([a_frame("run"), Frame("Condition.wait", "/lib/python3.11/threading.py", 327)])
    assert is_resting([a_frame("end_with_supervisor"), Frame("read", "/lib/libc.so.6", 0)])
    assert not is_resting([a_frame("run"), a_frame("load_batch")])


def test_a_thread_rests_also_where_the_wait_itself_has_no_name() -> None:
    libc = "/usr/lib/x86_64-linux-gnu/libc.so.6"

    assert is_resting([a_frame("run"), Frame("pthread_cond_timedwait", libc, 0), Frame("0x7efe1c6a3f16", libc, 0)])
    assert not is_resting([a_frame("load_batch"), Frame("0x7efe1c6a3f16", libc, 0)])
