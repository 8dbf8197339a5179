"""One rail's rising curve of joules: the energy between two moments, and the power between two readings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from powerbench.records import Window
from powerbench.units import NS_PER_S, seconds_from_ns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """A rising curve: at `time_ns[i]`, `energy_j[i]` had been used. Between two readings power counts as constant.

    `late_s` is by how much it is known to lag behind the power, where that could not be put right.
    """

    time_ns: Floats
    energy_j: Floats
    late_s: float = 0.0

    def covers(self, window: Window) -> bool:
        """Whether there are readings on both sides of the window, or at its edges."""
        return len(self.time_ns) >= 2 and bool(self.time_ns[0] <= window.start_ns and window.end_ns <= self.time_ns[-1])

    def covered(self, window: Window) -> Window | None:
        """The part of the window that lies between the first reading and the last, or None."""
        if len(self.time_ns) < 2:
            return None
        start_ns = max(window.start_ns, int(self.time_ns[0]))
        end_ns = min(window.end_ns, int(self.time_ns[-1]))
        return Window(start_ns, end_ns) if start_ns < end_ns else None

    def between_readings(self, window: Window) -> Window | None:
        """From the first to the last reading inside the window, or None where there are not two."""
        inside = self.time_ns[(self.time_ns >= window.start_ns) & (self.time_ns <= window.end_ns)]
        return Window(int(inside[0]), int(inside[-1])) if len(inside) >= 2 else None

    def energy_in(self, window: Window) -> float | None:
        """Joules from edge to edge, interpolated at both; None where the curve does not reach over the window."""
        if not self.covers(window):
            return None
        import numpy as np

        start_j, end_j = np.interp([window.start_ns, window.end_ns], self.time_ns, self.energy_j)
        return float(end_j - start_j)

    def readings_in(self, window: Window) -> int:
        """How many readings lie in the window, edges included."""
        import numpy as np

        first = np.searchsorted(self.time_ns, window.start_ns, side="left")
        return int(np.searchsorted(self.time_ns, window.end_ns, side="right") - first)

    def around(self, window: Window) -> Line:
        """The stretch from the reading before the window to the one behind it."""
        import numpy as np

        first = max(0, int(np.searchsorted(self.time_ns, window.start_ns, side="right")) - 1)
        last = int(np.searchsorted(self.time_ns, window.end_ns, side="left"))
        return replace(self, time_ns=self.time_ns[first : last + 1], energy_j=self.energy_j[first : last + 1])

    def gaps_s(self) -> Floats:
        """Seconds between neighbouring readings."""
        import numpy as np

        return np.asarray(np.diff(self.time_ns) / NS_PER_S)

    def powers_w(self) -> Floats:
        """The mean power between neighbouring readings."""
        import numpy as np

        return np.asarray(np.diff(self.energy_j) / self.gaps_s())

    def samples_w(self) -> Floats:
        """The samples of power that lie under a curve that was made of them by the trapezoid rule, one a reading.

        The joules tell the sum of each two neighbours, so that all is known but an amount that is added and taken
        away in turn; the least jumpy row is taken.
        """
        import numpy as np

        powers = self.powers_w()
        sign = 1 - 2 * (np.arange(len(powers) + 1) % 2)
        row = sign * np.concatenate([[0.0], np.cumsum(-2 * sign[:-1] * powers)])
        swap = -float(np.mean(sign[1:] * np.diff(row))) / 2
        return np.asarray(np.maximum(row + sign * swap, 0.0))


def within(windows: Sequence[Window], whole: Window) -> list[Window]:
    """What of each of the windows lies in `whole`; those that do not touch it are left out."""
    cut = [common([window, whole]) for window in windows]
    return [window for window in cut if window is not None]


def duration_s(window: Window) -> float:
    """How long the window is."""
    return seconds_from_ns(window.end_ns - window.start_ns)


def common(windows: Sequence[Window]) -> Window | None:
    """Where all of the windows overlap, or None."""
    start_ns = max(window.start_ns for window in windows)
    end_ns = min(window.end_ns for window in windows)
    return Window(start_ns, end_ns) if start_ns < end_ns else None
