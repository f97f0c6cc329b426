"""Building blocks of the catalogue of problems: families, and functions of BoTorch."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gpbo.backend import DTYPE
from gpbo.problems.problem import Function, Problem

with warnings.catch_warnings():
    # From 2.14 on, torch deprecates something that gpytorch does on import, which does not concern
    # a user of a problem.
    warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)
    from botorch.test_functions import synthetic

__all__ = ["Family", "FromBotorch", "fixed", "problem_of", "scalable", "synthetic"]


@dataclass(frozen=True)
class Family:
    """A function in every dimension that it is defined in.

    Args:
        build: Makes the problem of a given dimension.
        dims: The dimensions in which it is defined.
        usual_dim: The dimension if none is given.
    """

    build: Callable[[int], Problem]
    dims: range
    usual_dim: int

    def dims_in_words(self) -> str:
        """The dimensions in which it is defined, for an error message."""
        if len(self.dims) == 1:
            return str(self.dims[0])
        return f"{self.dims[0]}, {self.dims[1]}, {self.dims[2]}, ..."


@dataclass(frozen=True)
class FromBotorch:
    """BoTorch's function, with its constants in double precision.

    BoTorch keeps the constants of Hartmann and Shekel, all of which have at most two decimals,
    in single precision (0.05 is 0.0500000007), which moves the seventh digit of the minimum.
    """

    module: Any

    def __post_init__(self) -> None:
        for name, constants in list(self.module.named_buffers()):
            if constants.dtype == torch.float32:
                setattr(self.module, name, constants.to(DTYPE).round(decimals=2))

    def __call__(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """The values, without noise."""
        return self.module.to(x.device).evaluate_true(x)


def problem_of(
    name: str,
    function: Function,
    bounds: Sequence[tuple[float, float]],
    optimum: float,
    minimizers: Sequence[Sequence[float]],
    citation: str,
    constraints: tuple[Function, ...] = (),
) -> Problem:
    """A problem of as many dimensions as there are bounds."""
    return Problem(
        name=name,
        dim=len(bounds),
        bounds=torch.tensor(bounds, dtype=DTYPE).T,
        optimum=optimum,
        unshifted_minimizers=torch.tensor(minimizers, dtype=DTYPE),
        citation=citation,
        function=function,
        constraints=constraints,
    )


def fixed(build: Callable[[int], Problem], dim: int) -> Family:
    """A function that is defined in one dimension only."""
    return Family(build, range(dim, dim + 1), dim)


def scalable(
    build: Callable[[int], Problem], usual_dim: int, smallest: int = 1, step: int = 1
) -> Family:
    """A function of any dimension from the smallest on."""
    return Family(build, range(smallest, 10**6 + 1, step), usual_dim)
