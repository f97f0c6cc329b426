"""Parameters whose values are listed one by one: `Categorical` and `Ordinal`."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from gpbo.backend import DTYPE
from gpbo.checks import is_bool
from gpbo.parameters import Discrete, Given, Kind, equal_cell, equal_cell_centre


class Listed(Discrete):
    """A discrete parameter whose values are listed one by one."""

    @property
    @abstractmethod
    def listed(self) -> tuple[Any, ...]:
        """The values, in order."""

    @property
    def size(self) -> int:
        """How many values are listed."""
        return len(self.listed)

    def validate(self, value: Any) -> Any:
        """The listed value that equals ``value``; True and False equal no number.

        NaN, which pandas makes of None in a table, means None where None is listed.

        Raises:
            InvalidParams: no listed value equals it.
        """
        if isinstance(value, float) and math.isnan(value) and None in self._numbers:
            value = None
        index = self._numbers.get(value) if _can_be_key(value) else None
        if index is None or is_bool(value) != is_bool(self.listed[index]):
            raise self._refused(value, f"one of {', '.join(map(repr, self.listed))}")
        return self.listed[index]

    def key(self, value: Any) -> int:
        """Where the value stands in the list."""
        return self._numbers[value]

    def value(self, index: int) -> Any:
        """The value at this place in the list."""
        return self.listed[index]

    @cached_property
    def _numbers(self) -> dict[Any, int]:
        return {value: index for index, value in enumerate(self.listed)}

    def _checked(self, field: str, values: Any) -> tuple[Any, ...]:
        """The values as a tuple of plain Python values, if they can be told apart."""
        if not isinstance(values, Sequence) or isinstance(values, str | bytes):
            raise self._undefined(f"{field}={values!r}: expected a list or a tuple")
        plain = tuple(value.item() if isinstance(value, np.generic) else value for value in values)
        if not plain:
            raise self._undefined(f"{field}={values!r}: expected at least one value")
        seen: dict[Any, Any] = {}
        for value in plain:
            if not _can_be_key(value):
                raise self._undefined(
                    f"{field} has {value!r}, which is not hashable or cannot be compared: expected "
                    "plain values such as strings and numbers"
                )
            if value != value:
                raise self._undefined(
                    f"{field} has {value!r}, which does not equal itself; use None instead"
                )
            if value in seen:
                raise self._undefined(
                    f"{field} has {seen[value]!r} and {value!r}, which are equal: "
                    "expected distinct values"
                )
            seen[value] = value
        return plain


@dataclass(frozen=True)
class Categorical(Listed):
    """One of several choices without an order, one-hot encoded: a cube column per choice.

    A cube point means the choice of its largest column, the first in a tie.

    Args:
        name: Its key in a configuration.
        choices: Distinct hashable values, one or more.

    Raises:
        SpaceError: the choices are not a list of distinct hashable values.
    """

    name: Given[str]
    choices: Given[Sequence[Any]]
    kind: ClassVar[Kind] = "categorical"

    def __post_init__(self) -> None:
        self._check_name()
        object.__setattr__(self, "choices", self._checked("choices", self.choices))

    @property
    def listed(self) -> tuple[Any, ...]:
        """The choices."""
        return tuple(self.choices)

    @property
    def columns(self) -> int:
        """A cube column per choice."""
        return self.size

    def index(self, x: Float[Tensor, "*batch c"]) -> Int[Tensor, "*batch"]:
        """The number of the largest column."""
        return x.argmax(dim=-1)

    def place(self, index: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch c"]:
        """1 in the column of the choice, 0 in the others."""
        return one_hot(index, self.size).to(DTYPE)


@dataclass(frozen=True)
class Ordinal(Listed):
    """One of several values in the given order, at equal steps, e.g. ``(16, 32, 64, 128)``.

    Args:
        name: Its key in a configuration.
        values: Distinct hashable values, one or more.

    Raises:
        SpaceError: the values are not a list of distinct hashable values.
    """

    name: Given[str]
    values: Given[Sequence[Any]]
    kind: ClassVar[Kind] = "ordered"

    def __post_init__(self) -> None:
        self._check_name()
        object.__setattr__(self, "values", self._checked("values", self.values))

    @property
    def listed(self) -> tuple[Any, ...]:
        """The values, in order."""
        return tuple(self.values)

    def index(self, x: Float[Tensor, "*batch 1"]) -> Int[Tensor, "*batch"]:
        """The number of the cell, of equal width, that the coordinate lies in."""
        return equal_cell(x.squeeze(-1), self.size)

    def place(self, index: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch 1"]:
        """The centre of the cell."""
        return equal_cell_centre(index, self.size).unsqueeze(-1)


def _can_be_key(value: Any) -> bool:
    try:
        hash(value), bool(value == value)
    except (TypeError, ValueError, RuntimeError):  # tensors compare elementwise
        return False
    return True
