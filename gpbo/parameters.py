"""The parameters of a search space, and where their values lie in the unit cube.

A `Real` and an `Integer` take one cube column each; `gpbo.choices` has the parameters whose values
are listed. A discrete parameter divides its columns into cells: a cube point means the value
whose cell it lies in, and each value is encoded as one point inside its cell. On a linear scale,
and for ordinals, the cells are equally wide, so uniform points give all values equal shares.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpbo.backend import DTYPE
from gpbo.checks import finite, is_among
from gpbo.errors import InvalidParams, SpaceError

Kind = Literal["continuous", "ordered", "categorical"]

# A field that its class checks itself: a static type checker sees the type, while a run-time
# checker of annotations does not raise before our own errors.
T = TypeVar("T")
if TYPE_CHECKING:
    Given = Annotated[T, "checked by its class"]
else:

    class Given:
        """Any value: ``Given[T]``."""

        def __class_getitem__(cls, item: object) -> object:
            return Any


#: Integers up to this size survive the round trip through a cube coordinate in double precision,
#: on the logarithmic scale too.
LARGEST_INTEGER = 2**40
#: An ordered parameter with at most this many values has all of them as neighbours.
FEW_VALUES = 8


class Parameter(ABC):
    """One parameter of a space: its legal values, and where they lie in the unit cube."""

    name: str
    #: The kind of its cube columns.
    kind: ClassVar[Kind]

    @property
    def columns(self) -> int:
        """How many cube columns it takes."""
        return 1

    @property
    @abstractmethod
    def size(self) -> int | None:
        """The number of values; None for a real parameter."""

    @abstractmethod
    def validate(self, value: Any) -> Any:
        """The value as a canonical Python value.

        Raises:
            InvalidParams: the value is not legal.
        """

    @abstractmethod
    def key(self, value: Any) -> float | int:
        """A number that tells two canonical values apart."""

    @abstractmethod
    def to_cube(self, values: Sequence[Any]) -> Float[Tensor, "n c"]:
        """Canonical values to cube columns, on the CPU."""

    @abstractmethod
    def from_cube(self, x: Float[Tensor, "n c"]) -> list[Any]:
        """Columns of points in the cube to canonical values."""

    @abstractmethod
    def grid(self, points: int) -> list[Any]:
        """Its values in a full-factorial design with ``points`` per continuous parameter."""

    def _undefined(self, what: str) -> SpaceError:
        return SpaceError(f"{type(self).__name__}({self.name!r}): {what}")

    def _refused(self, value: Any, allowed: str) -> InvalidParams:
        return InvalidParams(f"{self.name}={value!r}: expected {allowed}")

    def _check_name(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise self._undefined("the name must be a non-empty string")


class Discrete(Parameter):
    """A parameter with finitely many values, numbered 0 .. size - 1."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many values it has."""

    @abstractmethod
    def index(self, x: Float[Tensor, "*batch c"]) -> Int[Tensor, "*batch"]:
        """The number of the value whose cell contains the point; legal even for NaN."""

    @abstractmethod
    def place(self, index: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch c"]:
        """The cube columns that stand for a value."""

    @abstractmethod
    def value(self, index: int) -> Any:
        """The value with this number."""

    @abstractmethod
    def key(self, value: Any) -> int:
        """The number of a canonical value."""

    def to_cube(self, values: Sequence[Any]) -> Float[Tensor, "n c"]:
        """Canonical values to cube columns, on the CPU."""
        numbers = [self.key(value) for value in values]
        return self.place(torch.tensor(numbers, dtype=torch.long, device="cpu"))

    def from_cube(self, x: Float[Tensor, "n c"]) -> list[Any]:
        """Columns of points in the cube to canonical values."""
        return [self.value(index) for index in self.index(x).tolist()]

    def grid(self, points: int) -> list[Any]:
        """All its values."""
        return [self.value(index) for index in range(self.size)]

    def others(self, index: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch j"]:
        """The numbers of the neighbouring values: always ``j``, distinct, never the value itself.

        All other values if they are few or have no order; else one step down and one up, at an
        end of the range the next two values, so that ``j`` is the same everywhere.
        """
        last = self.size - 1
        if self.kind == "categorical" or self.size <= FEW_VALUES:
            step = torch.arange(1, self.size, device=index.device)
            return (index.unsqueeze(-1) + step) % self.size
        lower = torch.where(index == 0, 2, index - 1)
        upper = torch.where(index == last, last - 2, index + 1)
        return torch.stack([lower, upper], dim=-1)


@dataclass(frozen=True)
class Real(Parameter):
    """A real number in [low, high].

    Args:
        name: Its key in a configuration.
        low, high: The bounds, in user units.
        scale: ``"linear"``; ``"log"`` (low > 0): equal steps in log(value); ``"reverse_log"``
            (0 <= low, high < 1): equal steps in log(1 - value), fine near 1.

    Raises:
        SpaceError: the definition is not a range of finite numbers that the scale allows.
    """

    name: Given[str]
    low: Given[float]
    high: Given[float]
    scale: Given[Literal["linear", "log", "reverse_log"]] = "linear"
    kind: ClassVar[Kind] = "continuous"

    def __post_init__(self) -> None:
        self._check_name()
        for bound in ("low", "high"):
            value = getattr(self, bound)
            number = finite(value)
            if number is None:
                raise self._undefined(f"{bound}={value!r}: expected a finite number")
            object.__setattr__(self, bound, number)
        if not is_among(self.scale, ("linear", "log", "reverse_log")):
            raise self._undefined(
                f"scale={self.scale!r}: expected 'linear', 'log' or 'reverse_log'"
            )
        if not self.low < self.high:
            raise self._undefined(f"low={self.low!r}, high={self.high!r}: expected low < high")
        if self.scale == "log" and self.low <= 0:
            raise self._undefined(f"low={self.low!r}: scale='log' needs low > 0")
        if self.scale == "reverse_log" and not (self.low >= 0 and self.high < 1):
            raise self._undefined(
                f"low={self.low!r}, high={self.high!r}: scale='reverse_log' needs "
                "0 <= low and high < 1"
            )
        if not 0 < self._span < math.inf:
            raise self._undefined(
                f"low={self.low!r}, high={self.high!r}: the range is too narrow or too wide "
                "for double precision"
            )

    @property
    def size(self) -> None:
        """A continuum."""
        return None

    def validate(self, value: Any) -> float:
        """The value as a float.

        Raises:
            InvalidParams: not a real number in [low, high].
        """
        number = finite(value)
        if number is None or not self.low <= number <= self.high:
            raise self._refused(value, f"a real number from {self.low!r} to {self.high!r}")
        return number

    def key(self, value: float) -> float:
        """The value itself."""
        return value

    def to_cube(self, values: Sequence[Any]) -> Float[Tensor, "n 1"]:
        """Values to one cube column: 0 at low, 1 at high."""
        start = self._forward(self.low)
        cube = [(self._forward(value) - start) / self._span for value in values]
        return torch.tensor(cube, dtype=DTYPE, device="cpu").clamp(0, 1).unsqueeze(-1)

    def from_cube(self, x: Float[Tensor, "n 1"]) -> list[float]:
        """One cube column to values; the bounds are exact."""
        return [self._from_coordinate(coordinate) for coordinate in x.squeeze(-1).tolist()]

    def grid(self, points: int) -> list[float]:
        """Values at equally spaced cube points, both bounds included."""
        return [self._from_coordinate(step / (points - 1)) for step in range(points)]

    def _from_coordinate(self, coordinate: float) -> float:
        if coordinate in (0.0, 1.0):  # the formula below may miss a bound by a rounding error
            return self.high if coordinate else self.low
        value = self._backward(self._forward(self.low) + coordinate * self._span)
        return min(max(value, self.low), self.high)

    @property
    def _span(self) -> float:
        return self._forward(self.high) - self._forward(self.low)

    def _forward(self, value: float) -> float:
        if self.scale == "log":
            return math.log(value)
        return value if self.scale == "linear" else -math.log1p(-value)

    def _backward(self, transformed: float) -> float:
        if self.scale == "log":
            return math.exp(transformed)
        return transformed if self.scale == "linear" else -math.expm1(-transformed)


@dataclass(frozen=True)
class Integer(Discrete):
    """An integer in low .. high, both included.

    On the linear scale there are ``high - low + 1`` equally wide cells, and the integer ``v`` is
    encoded as the centre of its cell. On the log scale (low >= 1) its cell is
    [log(v - 1/2), log(v + 1/2)] and it is encoded as log(v). For larger steps use `Ordinal`:
    ``Ordinal("width", range(8, 65, 8))``.

    Args:
        name: Its key in a configuration.
        low, high: The bounds, from -2**40 to 2**40.
        scale: ``"linear"`` or ``"log"`` (low >= 1).

    Raises:
        SpaceError: the definition is not a range of integers that the scale allows.
    """

    name: Given[str]
    low: Given[int]
    high: Given[int]
    scale: Given[Literal["linear", "log"]] = "linear"
    kind: ClassVar[Kind] = "ordered"

    def __post_init__(self) -> None:
        self._check_name()
        for bound in ("low", "high"):
            value = getattr(self, bound)
            number = _integer(value)
            if number is None or abs(number) > LARGEST_INTEGER:
                raise self._undefined(
                    f"{bound}={value!r}: expected an integer from -2**40 to 2**40 "
                    "(for larger ones, use Real and round)"
                )
            object.__setattr__(self, bound, number)
        if not is_among(self.scale, ("linear", "log")):
            raise self._undefined(f"scale={self.scale!r}: expected 'linear' or 'log'")
        if self.low > self.high:
            raise self._undefined(f"low={self.low!r}, high={self.high!r}: expected low <= high")
        if self.scale == "log" and self.low < 1:
            raise self._undefined(f"low={self.low!r}: scale='log' needs low >= 1")

    @property
    def size(self) -> int:
        """How many integers there are."""
        return self.high - self.low + 1

    def validate(self, value: Any) -> int:
        """The value as an int; a float is accepted if it is a whole number, a bool never.

        Raises:
            InvalidParams: not an integer from low to high.
        """
        number = _integer(value)
        if number is None or not self.low <= number <= self.high:
            raise self._refused(value, f"an integer from {self.low} to {self.high}")
        return number

    def key(self, value: int) -> int:
        """How far above ``low`` the value is."""
        return value - self.low

    def value(self, index: int) -> int:
        """The integer that is ``index`` above ``low``."""
        return self.low + index

    def index(self, x: Float[Tensor, "*batch 1"]) -> Int[Tensor, "*batch"]:
        """How far above ``low`` the integer lies whose cell contains the coordinate."""
        coordinate = x.squeeze(-1)
        if self.scale == "linear":
            return equal_cell(coordinate, self.size)
        start, span = self._log_range
        above = (torch.exp(start + coordinate * span) + 0.5).floor() - self.low
        return above.nan_to_num(0.0).clamp(0, self.size - 1).long()

    def place(self, index: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch 1"]:
        """The coordinate of an integer."""
        if self.scale == "linear":
            return equal_cell_centre(index, self.size).unsqueeze(-1)
        start, span = self._log_range
        return ((torch.log(index.to(DTYPE) + self.low) - start) / span).unsqueeze(-1)

    def grid(self, points: int) -> list[int]:
        """All integers, or ``points`` distinct ones equally spaced on the scale, ends included."""
        if self.size <= points:
            return list(range(self.low, self.high + 1))
        thinned: list[int] = []
        for step in range(points):
            share = step / (points - 1)
            if self.scale == "linear":
                ideal = round(self.low + share * (self.high - self.low))
            else:
                ideal = round(self.low * (self.high / self.low) ** share)
            # On a log scale the first ideal values are less than 1 apart. The distances grow and
            # are more than 1 on average, so there is room for those that follow.
            thinned.append(max(ideal, thinned[-1] + 1 if thinned else self.low))
        return thinned

    @property
    def _log_range(self) -> tuple[float, float]:
        start = math.log(self.low - 0.5)
        return start, math.log(self.high + 0.5) - start


def equal_cell(coordinate: Float[Tensor, "*batch"], count: int) -> Int[Tensor, "*batch"]:
    """Which of ``count`` equally wide cells of [0, 1] contains the coordinate; NaN counts as 0."""
    return (coordinate * count).floor().nan_to_num(0.0).clamp(0, count - 1).long()


def equal_cell_centre(index: Int[Tensor, "*batch"], count: int) -> Float[Tensor, "*batch"]:
    """The coordinate in the middle of a cell."""
    return (index.to(DTYPE) + 0.5) / count


def _integer(value: Any) -> int | None:
    """The value as an int; None if it is not a whole number (a bool is not one)."""
    number = finite(value)
    if number is None or not number.is_integer():
        return None
    return int(value)
