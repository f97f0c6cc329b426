"""Limits and ticks of axes, for any plotting library."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

#: Labels that an axis has room for.
MOST_LABELS = 8
#: Larger numbers are drawn as this one: the limits of an axis and its ticks, which on a log axis go
#: many decades beyond the numbers, would overflow.
LARGEST_DRAWN = 1e200
#: A positive quantity that spans this factor is drawn on a log axis.
_LOG_SPAN = 1e3
#: The length of an axis in characters, and the share that the label of its lower end takes.
_CHARACTERS, _LABEL_OF_LOW = 34, 0.15


def drawable(values: Sequence[Any]) -> Float[np.ndarray, "..."]:
    """The values, clipped to what can be drawn."""
    return np.clip(values, -LARGEST_DRAWN, LARGEST_DRAWN)


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, with 2 and 5 times them if they are few; no more than are readable."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    powers = list(range(first, last + 1))
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    step = -(-len(powers) // MOST_LABELS)
    candidates = [float(f"{factor}e{power}") for power in powers[::step] for factor in factors]
    ticks = [tick for tick in candidates if low <= tick <= high]
    return ticks if len(ticks) > 1 else sorted({low, high})


def reverse_log_ticks(low: float, high: float) -> list[float]:
    """The lower end, and as many of 0.9, 0.99, ... above it as are readable, evenly spaced."""
    first, last = (-math.log10(1 - end) for end in (low, high))
    length = last - first
    nines = [1 - 10.0**-power for power in range(1, 16) if power > first + _LABEL_OF_LOW * length]
    # A label has two characters more than nines, and there is one between labels.
    step = max(1, math.ceil(length * (last + 3) / _CHARACTERS))
    ticks = [low, *(tick for tick in nines[::step] if low < tick <= high)]
    return ticks if len(ticks) > 1 else sorted({low, high})


def value_limits(values: Sequence[float], keep: Sequence[float]) -> tuple[float, float, bool]:
    """Limits that show the bulk of the values and all of ``keep``, whatever the outliers; and
    whether the axis is logarithmic."""
    quantiles = np.quantile(drawable(values), [0.05, 0.95])
    shown = [*quantiles, *drawable(keep)]
    low, high = float(min(shown)), float(max(shown))
    if low > 0 and high / low >= _LOG_SPAN:
        return low / 1.5, high * 1.5, True
    # Limits that differ only by rounding are one value to matplotlib.
    flat = high - low <= 1e-9 * max(abs(low), abs(high))
    margin = (0.05 * abs(high) or 0.5) if flat else 0.06 * (high - low)
    return low - margin, high + margin, False
