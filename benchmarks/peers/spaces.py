"""From a `gpbo.Space` to the numbers that peers search, and back.

Peers support different parameters, so what crosses to them is what all support: reals on a linear
or a logarithmic scale, integers likewise, and listed values by their number. Every adapter
translates these for its peer. None has a reverse-log scale: such a real ``v`` crosses as the linear
real ``-log(1 - v)``, in which equal steps are the steps that the scale means. A parameter of one
value does not cross.
"""

import math
from collections.abc import Mapping
from typing import Any

from gpbo.choices import Categorical, Ordinal
from gpbo.errors import InvalidParams
from gpbo.parameters import Discrete, Integer, Real
from gpbo.parameters import Parameter as OfSpace
from gpbo.space import Space

from .adapters.space import Kind, Parameter
from .failure import PeerFailure

#: How far beyond a bound, as a share of the range, a peer's rounding may put a value.
_ROUNDING = 1e-5


class SearchedSpace:
    """The parameters of a space that have more than one value, named ``p0``, ``p1``, ... ...

    Raises:
        PeerFailure: There is only one configuration.
    """

    def __init__(self, space: Space) -> None:
        self._names = {
            f"p{index}": parameter
            for index, parameter in enumerate(space.parameters)
            if parameter.size != 1
        }
        self._fixed = {
            parameter.name: parameter.value(0)
            for parameter in space.parameters
            if isinstance(parameter, Discrete) and parameter.size == 1
        }
        self._space = space
        if not self._names:
            raise PeerFailure("the space has one configuration only: there is nothing to search")
        self.parameters = tuple(_crossing(name, p) for name, p in self._names.items())

    def encode(self, params: Mapping[str, Any]) -> dict[str, float]:
        """A configuration as a point of the peer.

        Raises:
            InvalidParams: Not a configuration of the space.
        """
        valid = self._space.validate(params)
        return {name: _forward(p, valid[p.name]) for name, p in self._names.items()}

    def decode(self, point: object) -> dict[str, Any]:
        """A peer's point as a configuration.

        Raises:
            PeerFailure: It is outside the space by more than a rounding.
        """
        if not isinstance(point, Mapping) or set(point) != set(self._names):
            raise PeerFailure(f"proposed {point!r}: expected the names {', '.join(self._names)}")
        try:
            chosen = {
                parameter.name: _backward(parameter, crossing, point[crossing.name])
                for parameter, crossing in zip(self._names.values(), self.parameters, strict=True)
            }
            return self._space.validate(chosen | self._fixed)
        except (InvalidParams, TypeError, ValueError, OverflowError) as error:
            raise PeerFailure(f"proposed {point!r}: {error}") from error


def _crossing(name: str, parameter: OfSpace) -> Parameter:
    """The parameter as it crosses to the peer."""
    if isinstance(parameter, Real):
        low, high = (_forward(parameter, bound) for bound in (parameter.low, parameter.high))
        return Parameter(name, "real", low, high, log=parameter.scale == "log")
    if isinstance(parameter, Integer):
        return Parameter(
            name, "integer", parameter.low, parameter.high, log=parameter.scale == "log"
        )
    if isinstance(parameter, Ordinal | Categorical):
        kind: Kind = "ordinal" if isinstance(parameter, Ordinal) else "categorical"
        return Parameter(name, kind, 0, parameter.size - 1)
    raise PeerFailure(f"{parameter!r}: peers have no such parameter")


def _forward(parameter: OfSpace, value: Any) -> float:
    """A canonical value as the number that crosses."""
    if isinstance(parameter, Real):
        return -math.log1p(-value) if parameter.scale == "reverse_log" else float(value)
    if isinstance(parameter, Integer):
        return int(value)
    return int(parameter.key(value))


def _backward(parameter: OfSpace, crossing: Parameter, number: float) -> Any:
    """The value of a number; one that is beyond a bound by a rounding is at the bound."""
    margin = _ROUNDING * (crossing.high - crossing.low)
    if not crossing.low - margin <= number <= crossing.high + margin:
        raise PeerFailure(f"{parameter.name}: {number!r}: out of range of {parameter!r}")
    inside = min(max(number, crossing.low), crossing.high)
    if isinstance(parameter, Real):
        value = -math.expm1(-inside) if parameter.scale == "reverse_log" else inside
        return min(max(value, parameter.low), parameter.high)
    if inside != round(inside):
        raise PeerFailure(f"{parameter.name}: {number!r}: expected a whole number")
    assert isinstance(parameter, Discrete)  # _crossing lets no other through
    return round(inside) if isinstance(parameter, Integer) else parameter.value(round(inside))
