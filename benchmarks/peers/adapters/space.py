"""A parameter as a peer sees it: four kinds, numbers only, on a linear or a logarithmic scale."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["real", "integer", "ordinal", "categorical"]

#: A configuration: a number for every name; for a listed parameter, the number in the list.
Point = Mapping[str, float]


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Attributes:
        name: A plain name, ``p0``, ``p1``, ...: peers need not take any text for a name.
        kind: ``"ordinal"`` and ``"categorical"`` are numbered 0 .. high.
        low, high: Both included, ``low < high``.
        log: Whether equal steps are steps of the logarithm.
    """

    name: str
    kind: Kind
    low: float
    high: float
    log: bool = False

    @property
    def size(self) -> int:
        """How many values the parameter has, if it is not real."""
        return int(self.high - self.low) + 1

    def cell(self) -> tuple[float, float]:
        """The ends of its coordinate: a discrete value is the middle of its cell."""
        half = 0.0 if self.kind == "real" else 0.5
        return self.low - half, self.high + half

    def to_unit(self, value: float) -> float:
        """The value's coordinate in [0, 1]; that of a discrete value lies inside its cell."""
        low, high = self.cell()
        if self.log:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    def from_unit(self, coordinate: float) -> float:
        """The value at the coordinate; for a discrete parameter, the one whose cell contains it."""
        low, high = self.cell()
        inside = min(max(coordinate, 0.0), 1.0)
        value = low * (high / low) ** inside if self.log else low + inside * (high - low)
        if self.kind != "real":
            value = math.floor(value + 0.5)
        return min(max(value, self.low), self.high)

    def typed(self, value: float) -> float:
        """The number as peers want it: an ``int`` unless the parameter is real."""
        return float(value) if self.kind == "real" else int(value)

    def values(self) -> list[int]:
        """All values of the parameter, if it is not real."""
        return list(range(int(self.low), int(self.high) + 1))
