"""A stack as a reader wants it: from the step on, without plumbing, and no further down than what is known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from powerbench.rundir.stacks import Frame

FramePath = tuple[Frame, ...]
"""Frames from the outermost in."""

LOOP = ("Loop.run", "run"), "powerbench/worker.py"
"""The frame that calls the steps, with its class or (before py-spy 0.4) without, and its file."""
OURS_ABOVE_THE_LOOP = ("_run_module_as_main", "_run_code", "<module>", "main", "measure")
# A program's own loop is told by this that a step is over, and may wait for the device there.
STEP_IS_OVER = "/powerbench/loop/recording.py"
# Where the device is waited for. What it does meanwhile, no line of Python does.
WAITING_FILES = ("/powerbench/devices/", "/powerbench/workloads/laps.py")
# Where a thread that has nothing to do stands, by the innermost name: in the interpreter's library, ours, and libc.
RESTING = {
    *("end_with_supervisor", "Condition.wait", "wait", "Event.wait", "_worker", "_recv", "_wait_for_tstate_lock"),
    *(
        "SelectSelector.select",
        "PollSelector.select",
        "EpollSelector.select",
        "KqueueSelector.select",
        "select",
        "poll",
    ),
    *("read", "readv", "recv", "recvfrom", "recvmsg", "accept", "accept4", "epoll_wait", "poll", "ppoll", "pselect"),
    *("nanosleep", "clock_nanosleep", "pthread_cond_wait", "pthread_cond_timedwait", "sem_wait", "futex_wait"),
    *("__futex_abstimed_wait_common", "__futex_abstimed_wait_cancelable64", "sigwait", "wait4", "waitpid", "__psynch"),
}
# A function that a library keeps to itself, and that has no name: the C library's own wait below `pthread_cond_wait`.
NAMELESS = re.compile(r"0x[0-9a-f]+$")
# Calls that only pass a call on: torch's wrappers around each module and optimizer, and its C++ dispatcher; ours around
# the step of a rank.
PASSES_ON = re.compile(
    r"""
    (Module\.)?_(wrapped_)?call_impl$ | .*\.<locals>\.forward_with_checkpointing$
    | .*\.<locals>\.(wrapper|wrapped_func|maybe_fallback|decorate_context|_use_grad|_fn|watched_step)$
    | GOMP_ | __kmp | at::internal:: | at::TensorIteratorBase::
    | 0x[0-9a-f]+$ | _Py | Py[A-Z] | cfunction_ | method_vectorcall | _run_(module_as_main|code)$
    | c10::(impl|Dispatcher|KernelFunction|BoxedKernel|function_ref|OperatorHandle|TypedOperatorHandle) | at::_ops::
    | torch::autograd::(THPVariable_|VariableType::) | torch::ADInplaceOrView:: | std::
    | at::\(anonymous\ namespace\)::(\(anonymous\ namespace\)::)?(wrapper_|structured_)
    """,
    re.VERBOSE,
)
# What is left of a lambda, `kernel()::{lambda()#1}::operator()() const`, and of a method that is const.
OPERATOR = re.compile(r"(::operator)?( const)?$")
BRACKETS = {"<": ">", "(": ")", "{": "}"}


def is_resting(stack: Sequence[Frame]) -> bool:
    """Whether a thread other than that of the steps, with this stack, waits for something to do."""
    named = next((frame.name for frame in reversed(stack) if not NAMELESS.match(frame.name)), None)
    return named is None or named in RESTING


def from_the_step_on(stack: Sequence[Frame], *, by_line: bool) -> FramePath:
    """What the loop has called, or of a stack without the loop all but what our worker is made of."""
    at = next((at for at, frame in enumerate(stack) if is_loop(frame)), None)
    if at is None:
        own = [frame for frame in stack if not _is_ours_above_the_loop(frame)]
        return simple(own, by_line=by_line) or simple(stack[-1:], by_line=by_line) or tuple(stack[-1:])
    return simple(stack[at + 1 :], by_line=by_line) or simple(stack[at : at + 1], by_line=by_line)


def _is_ours_above_the_loop(frame: Frame) -> bool:
    """Whether it is our worker's, or the interpreter's that started it; a program's own `main` is not."""
    is_ours = frame.file.endswith(LOOP[1]) or frame.file.startswith("<")
    return is_ours and frame.name in OURS_ABOVE_THE_LOOP


def is_loop(frame: Frame) -> bool:
    """Whether it is the loop of the worker."""
    return frame.name in LOOP[0] and frame.file.endswith(LOOP[1])


def simple(stack: Iterable[Frame], *, by_line: bool) -> FramePath:
    """The frames without those that only pass a call on: theirs is the caller's. Unless by line, none has a line."""
    frames = [
        Frame(plain_name(frame.name), frame.file, frame.line if by_line else 0)
        for frame in stack
        if not PASSES_ON.match(frame.name)
    ]
    return tuple(frames)


def plain_name(name: str) -> str:
    """A name without the parameters and the types that C++ writes behind it: `at::native::mul_kernel`."""
    if "::" not in name:
        return name
    kept, closing = "", ""
    for at, letter in enumerate(name):
        if not closing and name.startswith("(anonymous namespace)", at):
            kept += "(anonymous namespace)"
        if closing:
            if letter == closing[-1]:
                closing = closing[:-1]
            elif letter in BRACKETS:
                closing += BRACKETS[letter]
        elif letter in BRACKETS:
            closing += BRACKETS[letter]
        else:
            kept += letter
    parts = [part for part in kept.replace("(anonymous namespace)", "").split("::") if part]
    return OPERATOR.sub("", "::".join(parts)) or name


def step_of(stacks: Iterable[Sequence[Frame]], *, by_line: bool) -> Frame | None:
    """The function that is the step: what the loop calls and is no wait. None where it was never seen."""
    for stack in stacks:
        at = next((at for at, frame in enumerate(stack) if is_loop(frame)), None)
        if at is None or at + 1 == len(stack) or is_wait(stack[at + 1]) or is_loop(stack[at + 1]):
            continue
        own = [frame for frame in stack[at + 1 :] if not PASSES_ON.match(frame.name)]
        if own and "/powerbench/workloads/" in own[0].file:
            return Frame(plain_name(own[0].name), own[0].file, 0)
    return None


def is_wait(frame: Frame) -> bool:
    """Whether the device is waited for here."""
    return frame.name.rpartition(".")[2] == "synchronize" or any(part in frame.file for part in WAITING_FILES)


def without_waits(path: FramePath, step: Frame) -> FramePath:
    """The path down to where the device is waited for; at the loop itself, or outside of the step, the step."""
    if any(frame.file.endswith(STEP_IS_OVER) for frame in path):
        return (step,)
    at = next((at for at, frame in enumerate(path) if is_wait(frame)), len(path))
    return path[:at] if path[:at] and not is_loop(path[0]) else (step,)
