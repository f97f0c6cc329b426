"""Benchmark problems: functions on a box with a known minimum, batched over runs and points.

Some have constraints (`Problem.constraints`): the minimum is the least value that meets them.

Everything is minimised: a function that its authors maximise appears here as its negative.

    problem = gpbo.problems.get("ackley", dim=5, shift_seed=[0, 1, 2])
    value = problem(x)                 # x[r,q,d] in the unit cube -> value[r,q], no noise
    regret = value - problem.optimum
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from gpbo.checks import whole_number
from gpbo.errors import InvalidOption
from gpbo.problems.catalogue import CATALOGUE
from gpbo.problems.constrained import CONSTRAINED
from gpbo.problems.problem import Problem

__all__ = ["Problem", "get", "names", "resolve"]

_FAMILIES = CATALOGUE | CONSTRAINED


def names() -> tuple[str, ...]:
    """The names that `get` knows."""
    return tuple(_FAMILIES)


def get(
    name: str,
    dim: int | None = None,
    *,
    shift_seed: int | Sequence[int] | None = None,
    noise: float = 0.0,
) -> Problem:
    """The problem with this name.

    Args:
        name: One of `names`.
        dim: Its dimension; None for the usual one.
        shift_seed: Moves the optimum (see `Problem.shifted`): a seed for all runs, or one per run.
        noise: Standard deviation of the Gaussian noise that `Problem.observe` adds.

    Raises:
        InvalidOption: an unknown name, a dimension that the problem does not have, a seed that is
            not a whole number, 0 or more, or noise that is negative or not finite.
    """
    _check_name("name", name)
    family = _FAMILIES[name]
    dim = family.usual_dim if dim is None else whole_number("dim", dim, least=0)
    if dim not in family.dims:
        raise InvalidOption(f"dim={dim!r}: expected {family.dims_in_words()} for {name!r}")
    with torch.device("cpu"):  # BoTorch would use the default device
        problem = replace(family.build(dim), noise=noise)
    if shift_seed is None:
        return problem
    # As objects: an array of numbers and strings would be one of strings.
    seeds = np.atleast_1d(np.asarray(shift_seed, dtype=object)).tolist()
    if not seeds:
        raise InvalidOption(f"shift_seed={shift_seed!r}: expected a seed, or one per run")
    return problem.shifted(*(whole_number("shift_seed", seed, least=0) for seed in seeds))


def resolve(problem: object, *, runs: int) -> Problem:
    """The problem of this name, or the problem itself, for this many runs.

    Raises:
        InvalidOption: it is neither, or has shifts for another number of runs.
    """
    if isinstance(problem, str):
        _check_name("problem", problem)
        problem = get(problem)
    if not isinstance(problem, Problem):
        raise InvalidOption(f"problem={problem!r}: expected a gpbo.problems.Problem or its name")
    if problem.shift is not None and problem.shift.shape[0] not in (1, runs):
        raise InvalidOption(
            f"runs={runs}: expected {problem.shift.shape[0]}, the number of runs that the problem "
            "has shifts for"
        )
    return problem


def _check_name(option: str, name: object) -> None:
    if not isinstance(name, str) or name not in _FAMILIES:
        raise InvalidOption(f"{option}={name!r}: expected one of {', '.join(names())}")
