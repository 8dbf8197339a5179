"""The view of meters at work: lines rewritten twice a second on a terminal, a plain one now and then elsewhere."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from powerbench.reports.chart import bars
from powerbench.units import duration, significant

if TYPE_CHECKING:
    from powerbench.recorder import Watched

PLAIN_PERIOD_S = 5.0
LONGEST_HISTORY = 120
NARROW = 40
HISTORY = ("history, each bar against the rail's peak", "history", "")
UP = "\x1b[{}A"
CLEAR_TO_END_OF_LINE = "\x1b[K"
CLEAR_BELOW = "\x1b[J"


class View:
    """Shows moments; keeps of each rail its last reading and a little history of power."""

    def __init__(self, *, rewrites: bool, is_quiet: bool) -> None:
        self._rewrites = rewrites
        self._is_quiet = is_quiet
        self._lines = 0
        self._next_plain_s = PLAIN_PERIOD_S
        self._before: dict[str, tuple[int, float]] = {}
        self._power_w: dict[str, float] = {}
        self._history: dict[str, deque[float]] = {}

    def show(self, watched: Watched) -> None:
        """Show this moment."""
        if self._is_quiet:
            return
        self._update(watched)
        if self._rewrites:
            width, height = _size()
            self._rewrite(self.screen(watched, width=width)[: height - 1])
        elif watched.elapsed_s >= self._next_plain_s:
            self._next_plain_s += PLAIN_PERIOD_S
            self._write(f"{self.plain(watched)}\n")

    def screen(self, watched: Watched, *, width: int) -> list[str]:
        """The lines for a terminal so wide."""
        name_width = max((len(name) for name in watched.rails), default=0)
        head = f"{duration(watched.elapsed_s)}  (Ctrl-C ends the recording)"
        titles = f"  {'':<{name_width}}  {'power':>9}  {'energy':>11}  "
        history = [words for words in HISTORY if width > NARROW and len(titles + words) < width]
        titles = f"{titles}{history[0] if history else ''}".rstrip()
        lines = [head, "", titles]
        for name, rail in watched.rails.items():
            lines.append(self._rail_line(name, rail.lost, name_width, watched, width))
        others = list(_others(watched))
        return [line[: width - 1] for line in [*lines, *([""] if others else []), *_wrapped(others, width)]]

    def plain(self, watched: Watched) -> str:
        """One line that holds everything."""
        rails = [f"{name} {self._watts(name)}, {_joules(watched, name)}" for name in watched.rails]
        return "  ".join([duration(watched.elapsed_s), *rails, *_others(watched)])

    def close(self) -> None:
        """Leave the last state on the screen, and go on below it."""
        if self._lines:
            self._write("\n")

    def _rail_line(self, name: str, lost: str | None, name_width: int, watched: Watched, width: int) -> str:
        if lost is not None:
            return f"  {name:<{name_width}}  ended: {lost}"
        left = f"  {name:<{name_width}}  {self._watts(name):>9}  {_joules(watched, name):>11}  "
        room = min(LONGEST_HISTORY, width - 1 - len(left))
        return left + (bars(list(self._history.get(name, ()))[-room:]) if room > 0 and width > NARROW else "")

    def _update(self, watched: Watched) -> None:
        for name, reading in watched.latest.items():
            time_ns, energy_j = self._before.get(name, (reading.time_ns, reading.energy_j))
            if reading.time_ns > time_ns:
                self._power_w[name] = (reading.energy_j - energy_j) / ((reading.time_ns - time_ns) / 1e9)
                self._history.setdefault(name, deque(maxlen=LONGEST_HISTORY)).append(self._power_w[name])
            self._before[name] = (reading.time_ns, reading.energy_j)

    def _watts(self, name: str) -> str:
        power_w = self._power_w.get(name)
        return "- W" if power_w is None else f"{significant(power_w)} W"

    def _rewrite(self, lines: list[str]) -> None:
        up = UP.format(self._lines) if self._lines else ""
        body = "".join(f"{line}{CLEAR_TO_END_OF_LINE}\n" for line in lines)
        self._write(f"{up}\r{body}{CLEAR_BELOW}")
        self._lines = len(lines)

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            self._is_quiet = True  # a terminal that was closed ends no recording


@contextmanager
def view(*, is_quiet: bool) -> Iterator[View]:
    """A view on stderr."""
    shown = View(rewrites=sys.stderr.isatty(), is_quiet=is_quiet)
    try:
        yield shown
    finally:
        shown.close()


def _joules(watched: Watched, name: str) -> str:
    reading = watched.latest.get(name)
    return "- J" if reading is None else f"{significant(reading.energy_j)} J"


def _others(watched: Watched) -> Iterator[str]:
    """Temperatures, clocks, thermal pressure and the load, as far as they are told."""
    for name, value in watched.gauges.items():
        subject, _, quantity = name.rpartition(".")
        if quantity == "temperature_c":
            yield f"{subject} {value:.0f} °C"
        elif quantity == "clock_mhz":
            yield f"{subject} {value:,.0f} MHz"
    if "thermal_pressure" in watched.words:
        yield f"thermal pressure {watched.words['thermal_pressure'].lower()}"
    load = watched.gauges.get("system.cpu_ratio")
    if load is not None:
        yield f"processor {load:.0%} busy"


def _wrapped(items: list[str], width: int) -> Iterator[str]:
    line = ""
    for item in items:
        longer = f"{line}   {item}" if line else f"  {item}"
        if line and len(longer) >= width:
            yield line
            longer = f"  {item}"
        line = longer
    if line:
        yield line


def _size() -> tuple[int, int]:
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except OSError:
        return 80, 24
    return size.columns or 80, size.lines or 24
