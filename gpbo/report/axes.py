"""Where a parameter's values lie on a plot, and its ticks: plotly lacks some of our scales.

A number on a log scale lies at its decimal logarithm, on a reverse-log scale at minus that of its
distance from 1; a listed value lies at its place in the list.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import MaxNLocator

from gpbo.choices import Listed
from gpbo.parameters import Integer, Parameter, Real
from gpbo.text import cut_within
from gpbo.ticks import log_ticks, reverse_log_ticks, value_limits

#: The most listed values, and the most steps between whole numbers, that an axis labels.
_VALUES, _WHOLE = 25, 6
#: Longer labels are cut.
_LABEL = 24


@dataclass(frozen=True)
class Axis:
    """A parameter's axis.

    Attributes:
        name: The parameter.
        low, high: Positions of its ends, with room beside listed values.
        ticks: Positions and their labels; empty for an ordinary linear axis, which may have ticks
            between whole numbers.
    """

    name: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]


def axis(parameter: Parameter) -> Axis:
    """The axis of a parameter."""
    if isinstance(parameter, Listed):
        labels = [cut_within(str(value), _LABEL) for value in parameter.listed]
        shown = tuple((float(i), label) for i, label in enumerate(labels))[
            :: -(-len(labels) // _VALUES)
        ]
        return Axis(parameter.name, -0.5, len(labels) - 0.5, shown)
    assert isinstance(parameter, Real | Integer)
    low, high = (position(parameter, end) for end in (parameter.low, parameter.high))
    if low == high:
        low, high = low - 0.5, high + 0.5
    ticks: list[float] = []
    if parameter.scale == "log":
        ticks = log_ticks(float(parameter.low), float(parameter.high))
    elif parameter.scale == "reverse_log":
        ticks = reverse_log_ticks(parameter.low, parameter.high)
    elif isinstance(parameter, Integer):
        found = MaxNLocator(_WHOLE, integer=True, min_n_ticks=1).tick_values(low, high)
        ticks = [float(tick) for tick in found if low <= tick <= high]
    placed = tuple((position(parameter, tick), f"{tick:.15g}") for tick in ticks)
    return Axis(parameter.name, low, high, placed)


def position(parameter: Parameter, value: Any) -> float:
    """Where a value of the parameter lies on its axis."""
    if isinstance(parameter, Listed):
        return float(parameter.key(value))
    assert isinstance(parameter, Real | Integer)
    if parameter.scale == "log":
        return math.log10(value)
    return -math.log10(1 - value) if parameter.scale == "reverse_log" else float(value)


def value_axis(values: Sequence[float], keep: Sequence[float] = ()) -> tuple[Axis, bool]:
    """An axis that shows most of the values and all of ``keep``, and whether it is logarithmic.

    If so, positions are decimal logarithms.
    """
    if not values:
        return Axis("value", 0.0, 1.0, ()), False
    low, high, is_log = value_limits(values, keep)
    if not is_log:
        return Axis("value", low, high, ()), False
    ticks = tuple((math.log10(tick), f"{tick:.15g}") for tick in log_ticks(low, high))
    return Axis("value", math.log10(low), math.log10(high), ticks), True
