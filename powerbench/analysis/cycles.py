"""Whether latencies go up and down with a period: said beside the verdict, which does not rest on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FEWEST_STEPS, FEWEST_PERIODS = 40, 4
MOST_VALUES = 50_000
# Half of what varies comes back a period later. Noise with memory seems to do so now and then, but hardly so much.
ALIKE = 0.5
# A smaller swing, from the 5th to the 95th percentile, is not worth a word.
LEAST_SWING = 0.03


def is_cyclic(log: Floats) -> bool:
    """Whether logarithms of latencies, spikes cut back, repeat themselves at least four times, by 3 % or more."""
    import numpy as np

    if len(log) < FEWEST_STEPS:
        return False
    each = -(-len(log) // MOST_VALUES)
    count = len(log) // each
    values = log[: count * each].reshape(count, each).mean(axis=1)
    low, high = np.quantile(values, (0.05, 0.95))
    if high - low < LEAST_SWING:
        return False
    alike = _autocorrelation(values - values.mean())[: count // FEWEST_PERIODS + 1]
    below = np.flatnonzero(alike < 0)
    return bool(len(below)) and float(alike[below[0] :].max()) >= ALIKE


def _autocorrelation(values: Floats) -> Floats:
    """By lag, 1 at lag 0; each mean is over the pairs that there are."""
    import numpy as np
    from scipy.fft import irfft, next_fast_len, rfft

    count = len(values)
    spectrum = rfft(values, next_fast_len(2 * count, real=True))
    products = irfft(np.abs(spectrum) ** 2, next_fast_len(2 * count, real=True))[:count]
    return np.asarray(products / (count - np.arange(count)) / (products[0] / count))
