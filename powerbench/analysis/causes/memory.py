"""Whether memory is behind it: the machine swaps, tensors are kept, torch's cache grows, or something else does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from powerbench.analysis.causes.cause import (
    Cause,
    Finding,
    Kind,
    Sign,
    Strength,
    evidence,
    missing,
    sentence,
    strongest,
)
from powerbench.analysis.causes.stretches import (
    Change,
    Growth,
    Level,
    Series,
    goes_along,
    growth_of,
    level_of,
    rate_of,
    values_in,
)
from powerbench.analysis.pool import first_seen_shapes, new_measured_shapes
from powerbench.analysis.recorded import Recorded
from powerbench.units import byte_size, counted

# A machine that has swapped at some time moves a little now and then; a disk that holds steps up moves megabytes.
SWAPPED_BYTES_PER_S = 1e6
# A page from a fast SSD takes 0.1 ms or more: below this rate that is half a percent of the time.
PAGE_INS_PER_S = 50.0
MORE_THAN_BEFORE = 3.0
# Of what grew, what another counter must have grown by to be the same growth.
SAME_GROWTH = 0.5
LITTLE_LEFT = 0.1
# Of causes that are seen with it: the disk and a device that is held back say more of time than memory that grows, and
# that says more than a part of the delay that went into waiting for a core.
SLOW_DISK, GOES_ALONG = 8.0, 5.0


class Traffic(NamedTuple):
    """A counter of the traffic with the disk, and what to call it."""

    gauge: str
    words: str


SWAP = (
    Traffic("system.swap_out_bytes", "written to swap"),
    Traffic("system.swap_in_bytes", "read back from swap"),
)


def memory_pressure(recorded: Recorded, change: Change, *, power: str | None) -> Finding | None:
    """The machine moves memory to and from the disk; `power` says that the device drew less meanwhile, or None."""
    signs = list(_signs_of_pressure(recorded, change))
    strength = strongest(signs)
    if strength is None:
        return None
    waits = [] if power is None else [f"{power}, as that of a device that waits does"]
    batch = recorded.record.the_cell.batch_size
    half = "" if batch is None else f" (`--batch-size {max(1, batch // 2)}`)"
    cause = Cause(
        cause="memory pressure",
        evidence=evidence([*(sign.text for sign in signs), *waits], pace=str(change)),
        counter_evidence=None,
        not_recorded=missing(["which process's memory was swapped"], so="it need not have been the worker's alone"),
        experiment=f"Take half the batch{half}, or end what else holds "
        "memory: without swapping, the steps stay as fast as the first.",
    )
    return Finding(strength, cause, weight=SLOW_DISK)


def _signs_of_pressure(recorded: Recorded, change: Change) -> Iterator[Sign]:
    for gauge, words in SWAP:
        rate = rate_of(recorded.gauges.get(gauge, ()), change)
        if rate is not None and _rose(rate, SWAPPED_BYTES_PER_S):
            text = f"{byte_size(rate.after)} a second were {words}, before {byte_size(rate.before)}"
            yield Sign(Strength.SEEN_WITH_IT, text)
    page_ins = rate_of(recorded.of_worker("page_ins"), change)
    if page_ins is not None and _rose(page_ins, PAGE_INS_PER_S):
        text = (
            f"the worker had to wait for the disk for {page_ins.after:,.0f} pages of its memory a second, before "
            f"{page_ins.before:,.0f}"
        )
        yield Sign(Strength.SEEN_WITH_IT, text)
    if "system.swap_out_bytes" not in recorded.gauges:  # macOS tells how much is swapped, not how much was written
        used = growth_of(recorded.gauges.get("system.swap_used_bytes", ()), change)
        if used is not None:
            yield Sign(Strength.SEEN_WITH_IT, f"swap in use grew {used}")
    yield from _supporting(recorded, change)


def _supporting(recorded: Recorded, change: Change) -> Iterator[Sign]:
    total = recorded.record.environment.get("memory_bytes")
    left = level_of(recorded.gauges.get("system.memory_available_bytes", ()), change)
    if left is not None and total and left.after < LITTLE_LEFT * total:
        yield Sign(None, f"{byte_size(left.after)} of memory were left of {byte_size(total)}")
    held, limit = (values_in(recorded.memory(name), change.after) for name in ("driver", "recommended"))
    if held and limit and held[-1] > limit[-1]:
        yield Sign(
            Strength.GROWS_TOO, f"Metal held {byte_size(held[-1])}, more than the {byte_size(limit[-1])} it recommends"
        )


def _rose(rate: Level, least: float) -> bool:
    return rate.after >= max(least, MORE_THAN_BEFORE * rate.before)


def memory_growth(recorded: Recorded, change: Change, *, pressure: Finding | None) -> Finding | None:
    """What of the worker's memory grew all the time: tensors, the allocator's cache, or something outside of both.

    Where the machine is short of memory for it (`pressure`), that is how the growth came to cost time.
    """
    finding = _what_grew(recorded, change)
    if finding is None or pressure is None:
        return finding
    cause = msgspec.structs.replace(finding.cause, counter_evidence=None)
    if not _brought_pressure(recorded, change):
        return finding._replace(cause=cause)
    brought = sentence(
        [cause.evidence.removesuffix("."), *(sign.text for sign in _signs_of_pressure(recorded, change))]
    )
    cause = msgspec.structs.replace(cause, evidence=brought or cause.evidence)
    return Finding(pressure.strength, cause, pressure.weight + 1)


def _what_grew(recorded: Recorded, change: Change) -> Finding | None:
    allocated, held = recorded.memory("allocated"), _held(recorded)
    tensors, cache = growth_of(allocated, change), growth_of(_gap(held, allocated), change)
    resident = growth_of(_resident(recorded), change)
    if tensors is not None and not _is_small(tensors, cache):
        return _growing(recorded, change, "tensor leak", f"torch's tensors grew {tensors}")
    if cache is not None:
        stayed = f"the tensors stayed at {byte_size(values_in(allocated, change.measured)[-1])}"
        beyond = f"what torch's allocator holds beyond its tensors grew {cache}"
        return _growing(recorded, change, "allocator cache", beyond, stayed)
    if resident is None:
        return None
    text = f"the worker's resident memory grew {resident}"
    if not allocated:
        return _growing(recorded, change, "memory growth", text)
    outside = "torch's own counters did not grow with it"
    return _growing(recorded, change, "memory outside torch", text, outside, *_new_shapes(recorded))


def _brought_pressure(recorded: Recorded, change: Change) -> bool:
    """Whether what grew is as much as was swapped; without swap, pages of files make room for it."""
    resident = growth_of(_resident(recorded), change)
    grown = [found for found in (resident, growth_of(_held(recorded), change)) if found is not None]
    # macOS tells how much is swapped, not how much was written in all
    gauges = recorded.gauges.get("system.swap_out_bytes", recorded.gauges.get("system.swap_used_bytes", ()))
    swapped = values_in(gauges, change.measured)
    return bool(grown and swapped) and max(g.bytes for g in grown) >= SAME_GROWTH * (swapped[-1] - swapped[0])


def _held(recorded: Recorded) -> list[tuple[int, float]]:
    """What torch's allocator holds of the device's memory, caches included: `reserved`, and on mps `driver`."""
    return recorded.memory("reserved") or recorded.memory("driver")


def _resident(recorded: Recorded) -> Series:
    return recorded.of_worker("rss_bytes")


def _gap(held: list[tuple[int, float]], allocated: list[tuple[int, float]]) -> list[tuple[int, float]]:
    tensors = dict(allocated)
    return [(time, value - tensors[time]) for time, value in held if time in tensors]


def _is_small(growth: Growth, beside: Growth | None) -> bool:
    return beside is not None and growth.bytes < SAME_GROWTH * beside.bytes


EXPERIMENTS: dict[Kind, str] = {
    "tensor leak": "Repeat with twice the `--steps`: a leak grows twice as far, and a new process starts small and "
    "fast. `gc.get_objects()` in the step's code tells which tensors are kept: losses that are added up, or lists of "
    "outputs.",
    "allocator cache": "Empty the cache between steps (`torch.cuda.empty_cache()`, `torch.mps.empty_cache()`), or set "
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True; on mps lower both PYTORCH_MPS_HIGH_WATERMARK_RATIO and "
    "PYTORCH_MPS_LOW_WATERMARK_RATIO. If the cache is the cause, the steps stay fast.",
    "memory outside torch": "Repeat with twice the `--steps`: if it grows twice as far, look at the worker from "
    "outside while it runs: `vmmap --summary PID`, `leaks PID` and `heap PID` on macOS, `pmap -x PID` on Linux.",
    "memory growth": "Repeat with twice the `--steps`: if it grows twice as far, it is a leak. A new process then "
    "starts small and fast, which a machine that is hot would not.",
}
NOT_RECORDED: dict[Kind, tuple[str, str]] = {
    "tensor leak": ("which tensors are kept", "only the code can tell"),
    "allocator cache": ("how fragmented the cache is", "`torch.cuda.memory_summary()` would tell on cuda"),
    "memory outside torch": ("what holds the memory", "graphs, command buffers and libraries are not told apart"),
    "memory growth": ("tensors, which torch does not count on the cpu", "they are not told from other memory"),
}


def _growing(recorded: Recorded, change: Change, kind: Kind, *texts: str) -> Finding:
    what, so = NOT_RECORDED[kind]
    cause = Cause(
        cause=kind,
        evidence=evidence(texts, pace=str(change)),
        counter_evidence=sentence(_against_growth(recorded, change, kind)),
        not_recorded=missing([what], so=so),
        experiment=EXPERIMENTS[kind],
    )
    along = any(goes_along(series, recorded.steps, change) for series in (_held(recorded), _resident(recorded)))
    return Finding(Strength.SEEN_WITH_IT if along else Strength.GROWS_TOO, cause, weight=GOES_ALONG)


def _new_shapes(recorded: Recorded) -> Iterator[str]:
    for event in recorded.events:
        if event["event"] == "window" and event.get("recompiled"):
            yield f"torch.compile made {counted(event['recompiled'], 'graph')} more meanwhile"
    steps = new_measured_shapes(recorded.record, recorded.steps)
    if steps:
        yield (
            f"{counted(len(steps), 'step')} had batches of a length that none before had, the last of them step "
            f"{steps[-1]:,}, and for each a graph may be made and kept"
        )


def _against_growth(recorded: Recorded, change: Change, kind: Kind) -> Iterator[str]:
    if kind == "memory outside torch" and not list(_new_shapes(recorded)):
        varied = bool(first_seen_shapes(recorded.record, recorded.steps))
        shapes = "no measured step had a new shape" if varied else "all steps had the same shapes"
        yield f"{shapes}, so no new graph should have been made and kept"
    swapped = rate_of(recorded.gauges.get("system.swap_out_bytes", ()), change)
    if swapped is not None and not _rose(swapped, SWAPPED_BYTES_PER_S):
        yield "nothing was swapped, so the growth alone need not have cost time"
