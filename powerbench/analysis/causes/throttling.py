"""Whether heat, a power limit or a slow mode held the device back: power and clock fall as the steps grow longer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from powerbench.analysis.causes.cause import Cause, Finding, Sign, Strength, evidence, missing, sentence, strongest
from powerbench.analysis.causes.stretches import Change, Level, level_of, power_of, values_in
from powerbench.analysis.counted import counted_rails
from powerbench.analysis.recorded import Recorded
from powerbench.power.nvml import REASONS
from powerbench.records import Window
from powerbench.units import significant

# Power and clock wander by some percent; and a device that is held back loses about as much of its clock as of its
# speed, and more of its power: half as much is asked for.
LEAST_FALL, FITTING_SHARE = 0.05, 0.5
# NVML names a reason at each look; one that was there before as often explains no change.
MORE_OFTEN = 0.25
WARMER_C = 3.0
HELD_BACK = 7.0
LESS_BUSY = 0.1
# The kernel counts a process's time in hundredths of a second: below this there is little to compare.
MEANINGFUL_CORES = 0.5
# Apple's words (NSProcessInfo.thermalState and powermetrics have two sets), from cool to hot.
PRESSURES = ("nominal", "moderate", "fair", "heavy", "serious", "trapping", "critical", "sleeping")
# powermetrics has shown an unchanged clock while the GPU was held back (feedback-assistant/reports#830).
ITS_CLOCK_IS_NO_WITNESS = "powermetrics"


def throttling(recorded: Recorded, change: Change, *, waits_for: str | None) -> Finding | None:
    """Throttling, with its evidence; `waits_for` is what else is known to have kept the device waiting.

    A device that waits for something else draws less, too: then a fall of power alone says nothing.
    """
    signs = [*_direct_signs(recorded, change), *_fallen(recorded, change)]
    idle = _less_busy(recorded, change)
    direct = strongest(signs) is Strength.ACCOUNTS_FOR_IT
    if strongest(signs) is None or (not direct and waits_for is not None):
        return None
    if not direct and idle is not None and not _clock_fell(recorded, change):
        return None
    supporting = [text for text in (_warmer(recorded, change),) if text is not None]
    against = [*_unchanged(recorded, change), *([idle] if idle is not None else [])]
    cause = Cause(
        cause="throttling",
        evidence=evidence([*(sign.text for sign in signs), *supporting], pace=str(change)),
        counter_evidence=sentence(against),
        not_recorded=missing(_not_recorded(recorded, change), so="that would tell heat from a limit or a slow mode"),
        experiment="Let the machine cool for ten minutes and repeat the command (with a meter, `--idle 600` waits and "
        "measures the rest). If heat is the cause, the first steps are fast again and slow down as before; a pause of "
        "seconds, or a new process, does not help.",
    )
    return Finding(strongest(signs) or Strength.GROWS_TOO, cause, weight=HELD_BACK)


def power_fell(recorded: Recorded, change: Change) -> str | None:
    """That the device drew less, in words; None where it did not or was not metered."""
    falls = [
        f"the power of {_the(rail)} fell from {significant(power.before)} W to {significant(power.after)} W"
        for rail, power in _powers(recorded, change)
        if _fits(power, change)
    ]
    return falls[0] if falls else None


def _direct_signs(recorded: Recorded, change: Change) -> Iterator[Sign]:
    for name in _meters(recorded):
        # A driver also names its power limit where another program's work comes on top of ours (seen on an H200: the
        # clock lost 6 %, the steps took 2.4 times as long). What is held back loses clock as it loses speed.
        is_clocked = f"{name}.clock_mhz" in recorded.gauges
        reasons = () if is_clocked and not _clock_fell(recorded, change) else _reasons(recorded, name)
        for bit, reason in REASONS.items():
            before, after = (_share_with(bit, values_in(reasons, part)) for part in (change.before, change.after))
            if before is not None and after is not None and after - before >= MORE_OFTEN:
                yield Sign(
                    Strength.ACCOUNTS_FOR_IT,
                    f"in {after:.0%} of looks, before in {before:.0%}, {name} was held back by {reason}",
                )
        limit = level_of(recorded.gauges.get(f"{name}.power_limit_w", ()), change)
        if limit is not None and limit.apart and limit.ratio <= 1 - LEAST_FALL:
            yield Sign(
                Strength.ACCOUNTS_FOR_IT,
                f"the power limit of {name} was lowered from {significant(limit.before)} W to "
                f"{significant(limit.after)} W",
            )
    cool, hot = (_pressure(recorded, part) for part in (change.before, change.after))
    if cool is not None and hot is not None and _heat(hot) > _heat(cool):
        yield Sign(Strength.ACCOUNTS_FOR_IT, f"thermal pressure went from {cool} to {hot}")


def _reasons(recorded: Recorded, name: str) -> Sequence[tuple[int, float]]:
    return recorded.gauges.get(f"{name}.throttle_reasons", ())


def _fallen(recorded: Recorded, change: Change) -> Iterator[Sign]:
    text = power_fell(recorded, change)
    if text is not None:
        yield Sign(Strength.SEEN_WITH_IT, text)
    for clock, level in _clocks(recorded, change):
        if _fits(level, change):
            yield Sign(
                Strength.SEEN_WITH_IT,
                f"the clock of {_the(clock)} fell from {significant(level.before)} MHz to "
                f"{significant(level.after)} MHz",
            )


def _unchanged(recorded: Recorded, change: Change) -> Iterator[str]:
    powers, clocks = _powers(recorded, change), _clocks(recorded, change)
    if powers and not any(_fits(level, change) for _, level in powers):
        rail, level = powers[0]
        watts = f"{significant(level.before)} W, then {significant(level.after)} W"
        yield f"the power of {_the(rail)} did not fall with it ({watts})"
    if clocks and not _clock_fell(recorded, change):
        name, level = clocks[0]
        sources = {rail.source for rail in recorded.record.rails.values()}
        doubt = ", but it has been seen to stay in what powermetrics shows while the GPU was held back"
        fell = level.apart and level.ratio <= 1 - LEAST_FALL
        megahertz = f"{significant(level.before)} MHz, then " if fell else ""
        yield (
            f"the clock of {_the(name)} {'hardly fell' if fell else 'did not fall'} "
            f"({megahertz}{significant(level.after)} MHz)"
            + (doubt if ITS_CLOCK_IS_NO_WITNESS in sources and name == "gpu" else "")
        )
    pressure = _pressure(recorded, change.after)
    if pressure is not None and _heat(pressure) == 0:
        yield f"thermal pressure stayed {pressure}, which Macs have been seen to say while they throttled"


def _not_recorded(recorded: Recorded, change: Change) -> Iterator[str]:
    if not _powers(recorded, change):
        yield "the power of the device"
    if not _clocks(recorded, change):
        yield "its clock"
    if not any(f"{name}.temperature_c" in recorded.gauges for name in _meters(recorded)):
        yield "its temperature"


def _powers(recorded: Recorded, change: Change) -> list[tuple[str, Level]]:
    """Mean watts by rail, of the rails that are the device's own."""
    found = ((rail, power_of(recorded.curves[rail], change)) for rail in _meters(recorded) if rail in recorded.curves)
    return [(rail, power) for rail, power in found if power is not None]


def _meters(recorded: Recorded) -> list[str]:
    """The rails of the device itself; of a whole SoC the part that steps, since the others may do as they like."""
    counted = counted_rails(recorded.record)
    parts = ("cpu", "package") if _kind(recorded) == "cpu" else ("gpu",)
    own = [name for name in counted if recorded.record.rails[name].part in parts]
    return own or counted


def _clocks(recorded: Recorded, change: Change) -> list[tuple[str, Level]]:
    names = ["cpu"] if _kind(recorded) == "cpu" else list(dict.fromkeys([*_meters(recorded), "gpu"]))
    found = ((name, level_of(recorded.gauges.get(f"{name}.clock_mhz", ()), change)) for name in names)
    return [(name, level) for name, level in found if level is not None]


def _clock_fell(recorded: Recorded, change: Change) -> bool:
    return any(_fits(level, change) for _, level in _clocks(recorded, change))


def _fits(level: Level, change: Change) -> bool:
    """Whether it fell by as much as the loop lost speed, about."""
    return level.apart and 1 - level.ratio >= max(LEAST_FALL, FITTING_SHARE * change.lost_speed)


def _kind(recorded: Recorded) -> str:
    device = recorded.record.device
    return device.kind if device is not None else recorded.record.the_cell.device


def _less_busy(recorded: Recorded, change: Change) -> str | None:
    """That the device (on the cpu, the worker) had less to do, as one that waits has and one that is slow has not."""
    if _kind(recorded) == "cpu":
        own = level_of(recorded.of_worker("cpu_cores"), change)
        if own is None or not own.apart or own.before < MEANINGFUL_CORES or own.ratio > 1 - LESS_BUSY:
            return None
        return f"the worker kept {significant(own.after)} cores busy, before {significant(own.before)}"
    names = [*(f"{name}.utilization" for name in _meters(recorded)), "gpu.busy_ratio"]
    for level in (level_of(recorded.gauges.get(name, ()), change) for name in names):
        if level is not None and level.apart and level.before - level.after >= LESS_BUSY:
            return f"the device was busy for {level.after:.0%} of the time, before for {level.before:.0%}"
    return None


def _warmer(recorded: Recorded, change: Change) -> str | None:
    for name in _meters(recorded):
        level = level_of(recorded.gauges.get(f"{name}.temperature_c", ()), change)
        if level is not None and level.after - level.before >= WARMER_C:
            return f"its temperature rose from {level.before:.0f} to {level.after:.0f} degrees"
    return None


def _share_with(bit: int, values: list[float]) -> float | None:
    return sum(bool(int(value) & bit) for value in values) / len(values) if values else None


def _pressure(recorded: Recorded, window: Window) -> str | None:
    """The word that stood for most of the stretch; of two as frequent the hotter one."""
    words = [word for time, word in recorded.words.get("thermal_pressure", ()) if _is_in(time, window)]
    return max(words, key=lambda word: (words.count(word), _heat(word)), default=None)


def _is_in(time_ns: int, window: Window) -> bool:
    return window.start_ns <= time_ns <= window.end_ns


def _heat(word: str) -> int:
    return PRESSURES.index(word.lower()) if word.lower() in PRESSURES else 0


def _the(name: str) -> str:
    """`the gpu`, `the cpu`; a rail with a number is a name."""
    return name if name[-1].isdigit() else f"the {name}"
