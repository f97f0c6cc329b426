"""The search space: configurations in user units, and their points in the unit cube.

`Space.snap` and `Space.decode` share the code that decides *which* value a cube point means, so
that a point and its snapped point always decode to the same configuration.
"""

import itertools
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gpbo.backend import DTYPE
from gpbo.checks import as_mapping, check_tensor, each_of, whole_number
from gpbo.choices import Categorical, Ordinal
from gpbo.errors import InvalidData, InvalidParams, SpaceError
from gpbo.parameters import Discrete, Integer, Kind, Parameter, Real

__all__ = ["Categorical", "Integer", "Kind", "Ordinal", "Parameter", "Real", "Space"]


@dataclass(frozen=True, init=False, repr=False)
class Space:
    """Named parameters, and the unit cube with ``d`` columns in which gpbo searches them.

    Example: ``Space(Real("rate", 1e-5, 1, "log"), Integer("depth", 1, 9))``, or a list of them.

    Raises:
        SpaceError: no parameters, something that is not a parameter, or two of the same name.
    """

    parameters: tuple[Parameter, ...]

    @overload
    def __init__(self, *parameters: Parameter) -> None: ...
    @overload
    def __init__(self, parameters: Iterable[Parameter], /) -> None: ...
    def __init__(self, *parameters: object) -> None:
        given = parameters
        if len(given) == 1 and isinstance(given[0], Iterable):
            given = tuple(given[0])
        if not given:
            raise SpaceError("Space(): expected at least one parameter")
        seen: set[str] = set()
        for parameter in given:
            if not isinstance(parameter, Parameter):
                raise SpaceError(
                    f"Space: {parameter!r} is not a parameter: "
                    "expected Real, Integer, Ordinal or Categorical"
                )
            if parameter.name in seen:
                raise SpaceError(
                    f"Space: two parameters have the name {parameter.name!r}: "
                    "expected distinct names"
                )
            seen.add(parameter.name)
        object.__setattr__(self, "parameters", given)

    def __repr__(self) -> str:
        return f"Space({', '.join(map(repr, self.parameters))})"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters, in order."""
        return tuple(parameter.name for parameter in self.parameters)

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """The cube columns of each parameter."""
        ends = itertools.accumulate(parameter.columns for parameter in self.parameters)
        return tuple(
            slice(end - parameter.columns, end)
            for end, parameter in zip(ends, self.parameters, strict=True)
        )

    @cached_property
    def dim(self) -> int:
        """The number of cube columns, ``d``."""
        return sum(parameter.columns for parameter in self.parameters)

    @cached_property
    def size(self) -> int | None:
        """The number of configurations; None if there is a real parameter."""
        size = 1
        for parameter in self.parameters:
            if parameter.size is None:
                return None
            size *= parameter.size
        return size

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """The kind of each cube column."""
        return tuple(kind for p in self.parameters for kind in [p.kind] * p.columns)

    @property
    def continuous(self) -> Bool[Tensor, "d"]:
        """Which cube columns belong to a `Real`; on the CPU."""
        return torch.tensor([kind == "continuous" for kind in self.kinds], device="cpu")

    @property
    def movable(self) -> Bool[Tensor, "d"]:
        """Which columns may move: not those of a `Categorical` or a single value; on the CPU."""
        several = [p.size != 1 for p in self.parameters for _ in range(p.columns)]
        in_order = [kind != "categorical" for kind in self.kinds]
        return torch.tensor(in_order, device="cpu") & torch.tensor(several, device="cpu")

    def validate(self, params: Any, *, whole: bool = True) -> dict[str, Any]:
        """The configuration with canonical Python values.

        Args:
            params: A mapping from names to values, or what `dict` makes one of, such as a row of a
                pandas table.
            whole: Whether every name is needed, or at least one.

        Raises:
            InvalidParams: not a mapping, a name is missing or unknown, or a value is not legal.
        """
        params = as_mapping(params)
        if not isinstance(params, Mapping):
            raise InvalidParams(
                f"params={params!r}: expected a mapping with the names {', '.join(self.names)}"
            )
        needed, known = self.names if whole or not params else (), {*self.names}
        for problem, names in (
            ("missing", [name for name in needed if name not in params]),
            ("unknown", [name for name in params if name not in known]),
        ):
            if names:
                raise InvalidParams(
                    f"params: {problem} {', '.join(map(repr, names))}: "
                    f"expected the names {', '.join(map(repr, self.names))}"
                )
        given = (p for p in self.parameters if p.name in params)
        return {p.name: p.validate(params[p.name]) for p in given}

    def key(self, params: Mapping[str, Any]) -> Hashable:
        """Equal for two configurations if and only if they are the same in user units.

        Raises:
            InvalidParams: not a configuration of this space.
        """
        valid = self.validate(params)
        return tuple(p.key(valid[p.name]) for p in self.parameters)

    def encode(self, configurations: Sequence[Mapping[str, Any]]) -> Float[Tensor, "n d"]:
        """Configurations to points of the cube, on the CPU.

        Raises:
            InvalidParams: not a list, or one of them is not a configuration of this space.
        """
        if isinstance(configurations, Mapping) or not isinstance(configurations, Iterable):
            raise InvalidParams(f"configurations={configurations!r}: expected a list of mappings")
        configurations = list(configurations)
        if any(isinstance(params, str) for params in configurations):  # such as a pandas table's
            raise InvalidParams(
                f"configurations={configurations!r}: expected a list of mappings, not of names "
                "(of a pandas table, give table.to_dict('records'))"
            )
        valid = each_of("configurations", configurations, self.validate)
        return torch.cat(
            [p.to_cube([params[p.name] for params in valid]) for p in self.parameters], dim=-1
        )

    def decode(self, x: Float[Tensor, "n d"]) -> list[dict[str, Any]]:
        """Points to configurations; a point outside the cube counts as the nearest one in it.

        Raises:
            InvalidData: not a tensor, a coordinate is NaN or infinite, or there are not ``d`` of
                them.
        """
        check_tensor("x", x)
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise InvalidData(f"x has shape {tuple(x.shape)}: expected (n, {self.dim})")
        if not bool(x.isfinite().all()):
            raise InvalidData("x: expected finite cube coordinates")
        inside = x.to(DTYPE).clamp(0, 1)
        values = [
            parameter.from_cube(inside[..., columns])
            for parameter, columns in zip(self.parameters, self.slices, strict=True)
        ]
        return [dict(zip(self.names, row, strict=True)) for row in zip(*values, strict=True)]

    def round_trip(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration encoded and decoded: the same, except for rounding of reals."""
        return self.decode(self.encode([params]))[0]

    def snap(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Each point moved to the cube point that stands for its configuration.

        Snapping twice is the same as snapping once. A NaN affects its own parameter only: a `Real`
        keeps it, and a discrete parameter gets a legal value.

        Raises:
            InvalidData: not a tensor, or the number of coordinates is not ``d``.
        """
        check_tensor("x", x)
        if x.shape[-1:] != (self.dim,):
            raise InvalidData(f"x has shape {tuple(x.shape)}: expected (..., {self.dim})")
        snapped = x.to(DTYPE).clamp(0, 1)
        for parameter, columns in self._discrete:
            snapped[..., columns] = parameter.place(parameter.index(snapped[..., columns]))
        return snapped

    def neighbours(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch j d"]:
        """Snapped points that differ from the snapped ``x`` in exactly one discrete parameter.

        A categorical takes every other choice, an ordered parameter with few values
        (`gpbo.parameters.FEW_VALUES`) every other value; other ordered parameters go one step down
        and one up, at an end of the range to the next two values. So ``j`` depends on the space
        only; it is 0 if all parameters are real.
        """
        here = self.snap(x)
        blocks = [here.new_empty((*here.shape[:-1], 0, self.dim))]
        for parameter, columns in self._discrete:
            others = parameter.place(parameter.others(parameter.index(here[..., columns])))
            block = here.unsqueeze(-2).expand(*others.shape[:-1], self.dim).clone()
            block[..., columns] = others
            blocks.append(block)
        return torch.cat(blocks, dim=-2)

    def grid(self, points_per_real: int) -> Iterator[dict[str, Any]]:
        """The full-factorial design; the last parameter varies fastest.

        A `Real` has ``points_per_real`` values at equally spaced cube points, bounds included. An
        `Integer` has all its values if they are no more than that, else as many distinct ones,
        equally spaced on its scale. An `Ordinal` and a `Categorical` have all their values.

        Raises:
            InvalidOption: ``points_per_real`` is not a whole number, 2 or more.
        """
        points_per_real = whole_number("points_per_real", points_per_real, least=2)
        values = [parameter.grid(points_per_real) for parameter in self.parameters]
        return (dict(zip(self.names, row, strict=True)) for row in itertools.product(*values))

    @cached_property
    def _discrete(self) -> tuple[tuple[Discrete, slice], ...]:
        return tuple(
            (parameter, columns)
            for parameter, columns in zip(self.parameters, self.slices, strict=True)
            if isinstance(parameter, Discrete)
        )
