"""A space in which some parameters are held at a value: a slice of the whole one.

It has the cube of the whole space, so the model of all results applies; snapping a proposed point
moves it into the slice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpbo.checks import as_mapping
from gpbo.errors import InvalidParams
from gpbo.parameters import Discrete, Kind, Parameter
from gpbo.space import Space
from gpbo.surrogate import Surrogate


@dataclass(frozen=True)
class Held(Discrete):
    """A parameter held at one of its values."""

    name: str
    parameter: Parameter
    held: Any
    kind: ClassVar[Kind] = "ordered"

    @property
    def columns(self) -> int:
        """As many as the parameter has."""
        return self.parameter.columns

    @property
    def size(self) -> int:
        """One value."""
        return 1

    def validate(self, value: Any) -> Any:
        """The value, if it is the one held.

        Raises:
            InvalidParams: it is another.
        """
        valid = self.parameter.validate(value)
        if valid != self.held:
            raise self._refused(value, repr(self.held))
        return valid

    def key(self, value: Any) -> int:
        """The only number."""
        return 0

    def value(self, index: int) -> Any:
        """The only value."""
        return self.held

    def index(self, x: Float[Tensor, "*batch c"]) -> Int[Tensor, "*batch"]:
        """0: every point means the only value."""
        return torch.zeros(x.shape[:-1], dtype=torch.long, device=x.device)

    def place(self, index: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch c"]:
        """The point of the only value."""
        point = self.parameter.to_cube([self.held])[0].to(index.device)
        return point.expand(*index.shape, -1)


def with_fixed(space: Space, fixed: Any) -> Space:
    """The slice of the space where these parameters have these values.

    Raises:
        InvalidParams: not a mapping, a name that is not a parameter of the space, or a value that
            the parameter does not have.
    """
    fixed = as_mapping(fixed)
    if not isinstance(fixed, Mapping):
        raise InvalidParams(f"fixed={fixed!r}: expected a mapping from names to values")
    for name in fixed:
        if name not in space.names:
            raise InvalidParams(
                f"fixed: unknown {name!r}: expected some of {', '.join(map(repr, space.names))}"
            )
    return Space(
        Held(each.name, each, each.validate(fixed[each.name])) if each.name in fixed else each
        for each in space.parameters
    )


def holds(space: Space, params: Mapping[str, Any]) -> bool:
    """Whether a configuration of the whole space lies in the slice."""
    held = (each for each in space.parameters if isinstance(each, Held))
    return all(params[each.name] == each.held for each in held)


def lie_within(space: Space, x: Float[Tensor, "*batch d"]) -> Bool[Tensor, "*batch"]:
    """Which points, encoded in the whole space, lie in the slice.

    The other parameters are not compared: a GPU may snap what was encoded on the CPU to an adjacent
    number.
    """
    held = torch.zeros(space.dim, dtype=torch.bool, device=x.device)
    for parameter, columns in zip(space.parameters, space.slices, strict=True):
        held[columns] = isinstance(parameter, Held)
    return ((x == space.snap(x)) | ~held).all(-1)


def is_slice(space: Space) -> bool:
    """Whether some of its parameters are held."""
    return any(isinstance(each, Held) for each in space.parameters)


def means_within(surrogate: Surrogate, space: Space) -> Float[Tensor, "r s n"]:
    """The posterior mean at the surrogate's points, each moved into the slice."""
    return surrogate.means(space.snap(surrogate.x)) if is_slice(space) else surrogate.fitted


def expected_within(surrogate: Surrogate, space: Space) -> Float[Tensor, "r n"]:
    """These means averaged over the draws, like `Surrogate.expected`; infinite without a value."""
    return surrogate.averaged(means_within(surrogate, space))
