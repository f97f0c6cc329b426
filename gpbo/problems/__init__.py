"""Benchmark problems: functions on a box with a known minimum, batched over runs and points.

Everything is minimised: a function that its authors maximise appears here as its negative.

    problem = gpbo.problems.get("ackley", dim=5, shift_seed=[0, 1, 2])
    value = problem(x)                 # x[r,q,d] in the unit cube -> value[r,q], no noise
    regret = value - problem.optimum
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from gpbo.errors import InvalidOption
from gpbo.problems.catalogue import CATALOGUE
from gpbo.problems.problem import Problem

__all__ = ["Problem", "get", "names"]


def names() -> tuple[str, ...]:
    """The names that `get` knows."""
    return tuple(CATALOGUE)


def get(
    name: str,
    dim: int | None = None,
    *,
    shift_seed: int | Sequence[int] | None = None,
    noise: float = 0.0,
) -> Problem:
    """The problem with this name.

    Args:
        dim: Its dimension; None for the one that it is usually run in.
        shift_seed: Moves the optimum (see `Problem.shifted`): a seed, or one per run.
        noise: Standard deviation of the Gaussian noise that `Problem.observe` adds.

    Raises:
        InvalidOption: an unknown name, a dimension that the problem does not have, or a noise
            that is no standard deviation.
    """
    if name not in CATALOGUE:
        raise InvalidOption(f"name={name!r}: expected one of {', '.join(names())}")
    family = CATALOGUE[name]
    dim = family.usual_dim if dim is None else dim
    if dim not in family.dims:
        raise InvalidOption(f"dim={dim!r}: expected {family.dims_in_words()} for {name!r}")
    if not 0 <= noise < math.inf:
        raise InvalidOption(f"noise={noise!r}: expected a standard deviation, 0 or more")
    problem = replace(family.build(dim), noise=noise)
    if shift_seed is None:
        return problem
    return problem.shifted(*([shift_seed] if isinstance(shift_seed, int) else shift_seed))
