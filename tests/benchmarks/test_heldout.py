"""The functions on which no default was chosen: their minima, and that they are others."""

import math

import pytest
import torch
from torch import Tensor

from gpbo import problems
from gpbo.backend import DTYPE
from gpbo.problems import Problem
from gpbo_benchmarks import suites
from gpbo_benchmarks.heldout import LOGARITHMS, LOWERED
from gpbo_benchmarks.suites import Case

SUITE = suites.get("heldout")


def _points(problem: Problem) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.rand(1009, problem.dim, dtype=DTYPE, generator=generator)


@pytest.mark.parametrize("case", SUITE.cases, ids=lambda case: case.name)
def test_the_minimum_is_where_it_is_stated_and_nothing_is_less(case: Case) -> None:
    problem = case.of([3, 5])
    at = problem(problem.minimizers)
    torch.testing.assert_close(at, torch.full_like(at, problem.optimum), atol=1e-9, rtol=0)
    cube = torch.quasirandom.SobolEngine(problem.dim, scramble=True, seed=0).draw(4001, dtype=DTYPE)
    near = (problem.minimizers + 1e-3 * torch.randn(2, 101, problem.dim, dtype=DTYPE)).clamp(0, 1)
    assert (problem(cube.expand(2, -1, -1)) > problem.optimum).all()
    assert (problem(near) >= problem.optimum - 1e-9).all()


def test_no_function_is_one_of_the_other_suites() -> None:
    assert not {case.problem.name for case in SUITE.cases} & set(problems.names())


def test_lowered_values_have_their_median_near_zero_and_the_same_minimum() -> None:
    for problem, case in zip(LOWERED, SUITE.cases, strict=True):
        x = _points(problem)
        plain, low = case.problem(x), problem(x)
        by = case.problem.optimum - problem.optimum
        torch.testing.assert_close(low, plain - by)
        assert 0.4 < float((low < 0).double().mean()) < 0.6


def test_logarithms_are_those_of_the_values_and_finite_at_the_minimum() -> None:
    for problem, case in zip(LOGARITHMS, SUITE.cases, strict=True):
        x = _points(problem)
        torch.testing.assert_close(10 ** problem(x), case.problem(x), atol=2e-9, rtol=1e-7)
        least = max(case.problem.optimum, 1e-9)
        assert problem.optimum == pytest.approx(math.log10(least), abs=1e-9)
        at = problem(problem.minimizers)
        torch.testing.assert_close(at, torch.full_like(at, problem.optimum), atol=0.01, rtol=0)
