"""Numbers with their units, written the way a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


def seconds_from_ns(ns: int) -> float:
    """Seconds in `ns` nanoseconds."""
    return ns / NS_PER_S


def duration(seconds: float) -> str:
    """A duration in the form of the published tables: `2m 29s`, `3h 26m`, `43s`; below ten seconds with decimals."""
    if seconds < 1:
        return milliseconds(seconds * 1000)
    if seconds < 9.995:
        return f"{seconds:.2f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60}h {minutes % 60:02d}m"


def milliseconds(ms: float, digits: int = 3) -> str:
    """Milliseconds with three significant digits, whole above a thousand: `0.412 ms`, `19.9 ms`, `1,632 ms`."""
    return f"{significant(ms, digits)} ms"


def milliseconds_in(ms: float, low_ms: float, high_ms: float) -> tuple[str, str, str]:
    """A value and the ends of its interval, with as many digits as tell the ends apart, six at most."""
    digits = next((some for some in range(3, 6) if significant(low_ms, some) != significant(high_ms, some)), 6)
    return milliseconds(ms, digits), milliseconds(low_ms, digits), milliseconds(high_ms, digits)


def significant(value: float, digits: int = 3) -> str:
    """`value` with so many significant digits and no exponent, thousands marked; never less than whole."""
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # after rounding to these digits
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def byte_size(count: float) -> str:
    """Bytes in decimal units: `512 MB`, `2.77 GB`."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size * 0.9995:
            return f"{significant(count / size)} {unit}"
    return f"{count:.0f} B"


def counted(number: int, noun: str) -> str:
    """`1 step`, `2 steps`, `1,000 steps`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def enumerated(words: Sequence[str]) -> str:
    """`dtype`, `dtype and copy`, `dtype, copy and dropout`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def whole_seconds(seconds: float) -> str:
    """A duration to the second as the published tables write it: `12s`, `2m`, `2m 29s`, `1h 49m 9s`."""
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "m"), (rest_s, "s")]
    while len(parts) > 1 and not parts[0][0]:
        parts.pop(0)
    while len(parts) > 1 and not parts[-1][0]:
        parts.pop()
    return " ".join(f"{number}{unit}" for number, unit in parts)


def shape(batch_size: int | None, sequence_length: int | None) -> str:
    """`batch 16 x sequence 128`, as much of it as is known."""
    sides = (("batch", batch_size), ("sequence", sequence_length))
    return " x ".join(f"{side} {length:,}" for side, length in sides if length is not None)
