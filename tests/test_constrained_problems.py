"""Benchmark problems with constraints: the stated minimum is the least value that meets them."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from botorch.test_functions import synthetic
from scipy.optimize import minimize
from torch import Tensor

from gpbo import problems
from gpbo.backend import DTYPE, Streams
from gpbo.design import sobol
from gpbo.errors import InvalidData
from gpbo.problems import Problem
from tests.monte_carlo import random_uniform

#: By name, the dimension and the number of constraints.
SIZES = {"gardner": (2, 1), "gramacy": (2, 2), "hartmann6_ball": (6, 1), "speed_reducer": (7, 11)}
names = pytest.mark.parametrize("name", SIZES)


def points(problem: Problem, runs: int, count: int) -> Tensor:
    return sobol(count, problem.dim, Streams.named(7, "points", runs=runs))


def jacobian(problem: Problem, x: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the value, and of every excess, at a point: each at a copy of its own."""
    copies = x.repeat(1 + len(problem.constraints), 1).requires_grad_()
    found = problem(copies)[0] + problem.excess(copies)[1:].diagonal().sum()
    (gradient,) = torch.autograd.grad(found, copies)
    return gradient[0], gradient[1:]


def test_the_problems_with_constraints_are_all_there() -> None:
    constrained = {name for name in problems.names() if problems.get(name).constraints}
    assert constrained == set(SIZES)


@names
def test_a_problem_knows_its_size_and_source(name: str) -> None:
    problem = problems.get(name)
    assert (problem.name, problem.dim, len(problem.constraints)) == (name, *SIZES[name])
    assert problem.limits == [f"excess{i} <= 0" for i in range(1, 1 + SIZES[name][1])]
    assert "(19" in problem.citation or "(20" in problem.citation


@names
def test_the_minimizer_meets_the_constraints_and_attains_the_optimum(name: str) -> None:
    problem = problems.get(name).shifted(3, 1, 4)
    x = problem.minimizers
    rounding = 4e-15 * max(1.0, abs(problem.optimum))
    scale = problem.excess(points(problem, 3, 64)).abs().amax((0, 1))
    for shifted, at in ((problem, x), (problems.get(name), problems.get(name).minimizers)):
        assert bool(((shifted(at) - problem.optimum).abs() <= rounding).all())
        assert bool((shifted.excess(at) <= 1e-14 * scale).all())


@names
def test_no_step_within_the_constraints_leads_down_from_the_minimizer(name: str) -> None:
    """Karush, Kuhn and Tucker: what holds with equality pushes against the gradient, all of it."""
    problem = problems.get(name)
    x = problem.minimizers[0, 0]
    downhill, excess = jacobian(problem, x)
    scale = problem.excess(points(problem, 1, 64)).abs().amax((0, 1))
    tight = excess[problem.excess(x).abs() <= 1e-12 * scale]
    sides = torch.eye(problem.dim, dtype=DTYPE)
    normals = torch.cat([tight, -sides[x == 0], sides[x == 1]])
    assert len(normals)
    multipliers = torch.linalg.lstsq(normals.T, -downhill[:, None]).solution[:, 0]
    assert bool((multipliers >= -1e-9).all())
    assert multipliers.max() > 1e-3 * downhill.abs().max()
    left = downhill + normals.T @ multipliers
    assert float(left.abs().max()) <= 1e-9 * float(downhill.abs().max())


@names
def test_nothing_better_is_found_by_random_points_and_local_searches(name: str) -> None:
    problem = problems.get(name)
    x = points(problem, 1, 20_000)[0]
    value, excess = problem(x), problem.excess(x)
    scale = excess.abs().amax(0)
    met = (excess <= 0).all(-1)
    assert 0 < int(met.sum()) < len(x)
    assert float(value[met].min()) > problem.optimum
    unconstrained = float(value.min())
    assert unconstrained < problem.optimum, "the constraints cost something"
    best = x[met][value[met].argsort()[:3]]

    def slack(point: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
        return (-problem.excess(torch.from_numpy(point)) / scale).numpy()

    def slope(point: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
        return (-jacobian(problem, torch.from_numpy(point))[1] / scale[:, None]).numpy()

    size = max(1.0, abs(problem.optimum))
    lowest = np.inf
    for start in torch.cat([best, x[:3]]):
        found = minimize(
            lambda point: float(problem(torch.from_numpy(point))) / size,
            start.numpy(),
            jac=lambda point: jacobian(problem, torch.from_numpy(point))[0].numpy() / size,
            method="SLSQP",
            bounds=[(0, 1)] * problem.dim,
            constraints={"type": "ineq", "fun": slack, "jac": slope},
            options={"ftol": 1e-12, "maxiter": 200},
        )
        if (slack(found.x) >= -1e-9).all():
            lowest = min(lowest, float(found.fun) * size)
    # The searches are good enough to have found something better, had there been something.
    assert lowest == pytest.approx(problem.optimum, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "oracle"),
    [("gramacy", synthetic.ConstrainedGramacy()), ("speed_reducer", synthetic.SpeedReducer())],
)
def test_values_and_excesses_are_those_of_botorch(name: str, oracle: Any) -> None:
    problem = problems.get(name)
    x = points(problem, 3, 5)
    user = problem.bounds[0] + x * (problem.bounds[1] - problem.bounds[0])
    torch.testing.assert_close(problem(x), oracle(user))
    torch.testing.assert_close(problem.excess(x), -oracle.evaluate_slack(user))
    published = {"gramacy": 0.5998, "speed_reducer": 2996.3482}[name]
    assert problem.optimum == pytest.approx(published, abs=5e-5)


def test_gardner_and_the_ball_are_their_formulas() -> None:
    x = points(problems.get("gardner"), 3, 5)
    user = 6 * x
    expected = torch.sin(user[..., 0]) * torch.sin(user[..., 1]) + 0.95
    torch.testing.assert_close(problems.get("gardner").excess(x)[..., 0], expected)
    torch.testing.assert_close(problems.get("gardner")(x), user[..., 0].sin() + user[..., 1])
    ball, plain = problems.get("hartmann6_ball"), problems.get("hartmann6")
    x = points(ball, 3, 5)
    assert torch.equal(ball(x), plain(x))
    torch.testing.assert_close(ball.excess(x)[..., 0], x.square().sum(-1).sqrt() - 0.8)


@names
def test_excesses_are_batched_over_any_axes_and_shifted_with_the_values(name: str) -> None:
    problem, k = problems.get(name).shifted(11, 12, 13, 14, 15), SIZES[name][1]
    x = points(problem, 5, 7)
    excess = problem.excess(x)
    assert excess.shape == (5, 7, k)
    assert excess.dtype == DTYPE
    alone = problems.get(name).shifted(13)
    torch.testing.assert_close(excess[2], alone.excess(x[2]), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(excess[2, 3], alone.excess(x[2, 3]), rtol=1e-13, atol=1e-13)
    plain = problems.get("branin")
    assert plain.excess(random_uniform(1, 3, 5, 2)).shape == (3, 5, 0)
    assert plain.limits == []


@names
def test_a_configuration_has_the_value_and_the_excesses_of_its_point(name: str) -> None:
    problem = problems.get(name)
    x = points(problem, 1, 3)[0]
    for point, params in zip(x, problem.space.decode(x), strict=True):
        value, measured = problem.measure(params)
        assert value == pytest.approx(float(problem(point)))
        assert [f"{name} <= 0" for name in measured] == problem.limits
        assert list(measured.values()) == pytest.approx(problem.excess(point).tolist(), abs=1e-9)


@names
def test_a_problem_survives_pickling(name: str) -> None:
    problem = problems.get(name)
    x = points(problem, 2, 3)
    assert torch.equal(pickle.loads(pickle.dumps(problem)).excess(x), problem.excess(x))


def test_what_a_constraint_returns_is_checked() -> None:
    problem = Problem(
        "mine", 2, torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=DTYPE), 0.0,
        torch.zeros(1, 2, dtype=DTYPE), "mine", lambda x: x.sum(-1), constraints=(lambda x: x,),
    )  # fmt: skip
    with pytest.raises(InvalidData, match=r"mine returned has shape \(3, 2\): expected \(3,\)"):
        problem.excess(random_uniform(1, 3, 2))


@pytest.mark.gpu
@names
def test_excesses_are_computed_on_the_device_of_the_points(name: str) -> None:
    problem = problems.get(name)
    x = points(problem, 2, 3)
    excess = problem.excess(x.cuda())
    assert excess.is_cuda
    torch.testing.assert_close(excess.cpu(), problem.excess(x))
