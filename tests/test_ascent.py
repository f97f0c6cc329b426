"""The batched ascent against scipy, against hand-made optima, and against itself row by row."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from scipy.optimize import minimize as scipy_minimize
from torch import Tensor

from gpbo import ascent
from gpbo.ascent import Objective, maximize
from gpbo.backend import DTYPE


def _random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DTYPE)


def _quadratic(curvature: Float[Tensor, "k d d"], centre: Float[Tensor, "k d"]) -> Objective:
    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        offset = x - centre
        gradient = -(curvature @ offset.unsqueeze(-1)).squeeze(-1)
        return 0.5 * (offset * gradient).sum(-1), gradient

    return objective


def _rosenbrock(x: Tensor) -> tuple[Tensor, Tensor]:
    a, b = x[:, 1:] - x[:, :-1] ** 2, 1.0 - x[:, :-1]
    gradient = torch.zeros_like(x)
    gradient[:, 1:] -= 200.0 * a
    gradient[:, :-1] += 400.0 * a * x[:, :-1] + 2.0 * b
    return -(100.0 * a**2 + b**2).sum(-1), gradient


def _waves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Many hills, everywhere smooth; the same function for every row."""
    frequency = torch.arange(3.0, 3.0 + x.shape[-1], dtype=x.dtype)
    return torch.sin(frequency * x).sum(-1), frequency * torch.cos(frequency * x)


def _curvature(seed: int, k: int, d: int, ridge: float = 0.05) -> Tensor:
    root = _random(seed, k, d, d)
    return root @ root.mT + ridge * torch.eye(d, dtype=DTYPE)


def _scipy_best(objective: Objective, start: Tensor, low: float, high: float) -> float:
    def negated(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective(torch.as_tensor(x).unsqueeze(0))
        return -float(value), -gradient.squeeze(0).numpy()

    found = scipy_minimize(
        negated,
        start.numpy(),
        jac=True,
        method="L-BFGS-B",
        bounds=[(low, high)] * len(start),
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 2000},
    )
    return -float(found.fun)


@pytest.mark.parametrize("d", [1, 2, 7, 23])
def test_it_solves_quadratics_whose_solution_lies_on_faces_of_the_box(d: int) -> None:
    k = 13
    curvature, centre = _curvature(1, k, d), 2.0 * _random(2, k, d)
    start = torch.rand(k, d, generator=torch.Generator().manual_seed(3), dtype=DTYPE)
    result = maximize(
        _quadratic(curvature, centre), start, 0.0, 1.0, tolerance=1e-8, gain_tolerance=1e-12
    )
    for row in range(k):
        alone = _quadratic(curvature[row : row + 1], centre[row : row + 1])
        best = _scipy_best(alone, start[row], 0.0, 1.0)
        assert result.value[row] >= best - 1e-8 * max(1.0, abs(best))
    at_bound = (result.x == 0) | (result.x == 1)
    assert at_bound.any()
    assert result.converged.all()
    assert ((result.x >= 0) & (result.x <= 1)).all()


def test_it_finds_the_known_solution_of_a_separable_quadratic() -> None:
    centre = torch.tensor([[-0.7, 0.25, 1.9], [0.5, -3.0, 0.125]], dtype=DTYPE)
    curvature = torch.diag_embed(torch.tensor([[1.0, 10.0, 100.0]] * 2, dtype=DTYPE))
    result = maximize(_quadratic(curvature, centre), torch.full((2, 3), 0.9, dtype=DTYPE), 0.0, 1.0)
    torch.testing.assert_close(result.x, centre.clamp(0.0, 1.0), atol=1e-6, rtol=0.0)
    assert (result.gradient_norm <= 1e-5).all()


def test_it_climbs_rosenbrock_in_as_many_evaluations_as_scipy_does() -> None:
    start = 4.0 * torch.rand(11, 5, generator=torch.Generator().manual_seed(0), dtype=DTYPE) - 2.0
    evaluations = 0

    def counted(x: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal evaluations
        evaluations += 1
        return _rosenbrock(x)

    result = maximize(counted, start, -2.0, 2.0, iterations=150)
    assert result.converged.all()
    # Rosenbrock in five dimensions has a second local minimum, at a value of 3.93.
    assert ((result.value > -1e-8) | ((result.value + 3.930839).abs() < 1e-5)).all()
    assert evaluations == result.iterations + 1 <= 120


def test_unbounded_coordinates_are_free() -> None:
    centre = torch.tensor([[40.0, -30.0]], dtype=DTYPE)
    objective = _quadratic(_curvature(4, 1, 2), centre)
    result = maximize(objective, torch.zeros(1, 2, dtype=DTYPE), -torch.inf, torch.inf)
    torch.testing.assert_close(result.x, centre, atol=1e-4, rtol=0.0)


def test_a_row_of_a_batch_ends_where_it_ends_alone() -> None:
    start = torch.rand(21, 3, generator=torch.Generator().manual_seed(5), dtype=DTYPE)
    batch = maximize(_waves, start, 0.0, 1.0)
    for row in range(21):
        alone = maximize(_waves, start[row : row + 1], 0.0, 1.0)
        torch.testing.assert_close(batch.x[row], alone.x[0], atol=1e-9, rtol=0.0)
        torch.testing.assert_close(batch.value[row], alone.value[0], atol=1e-12, rtol=0.0)
        assert batch.converged[row] == alone.converged[0]


@pytest.mark.parametrize("runs", [1, 3, 7, 21])
def test_the_best_row_of_a_run_ends_where_it_ends_alone(runs: int) -> None:
    start = torch.rand(42, 3, generator=torch.Generator().manual_seed(5), dtype=DTYPE)
    every = maximize(_waves, start, 0.0, 1.0)
    best = maximize(_waves, start, 0.0, 1.0, runs=runs)
    rows = every.value.view(runs, -1).argmax(-1) + torch.arange(runs) * (42 // runs)
    torch.testing.assert_close(best.x[rows], every.x[rows], atol=1e-9, rtol=0.0)
    assert best.converged[rows].all()
    assert torch.equal(best.value.view(runs, -1).argmax(-1), every.value.view(runs, -1).argmax(-1))
    assert (best.value <= every.value + 1e-12).all()


def test_a_row_without_a_prospect_ends_and_one_of_another_run_goes_on() -> None:
    """The same slow climb to 0, in one run beside a row that is far higher already."""
    curvature = torch.tensor([1.0, 30.0, 900.0], dtype=DTYPE)

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        height = torch.where(x[:, :1] > 50.0, 1e6, 0.0)
        offset = torch.where(x > 50.0, x - 60.0, x)
        quartic = 0.25 * (curvature * offset**4).sum(-1, keepdim=True)
        return (height - quartic)[:, 0], -curvature * offset**3

    slow = torch.tensor([3.0, -2.0, 1.0], dtype=DTYPE)
    start = torch.stack([slow, torch.full((3,), 60.5, dtype=DTYPE), slow, slow])
    result = maximize(objective, start, -100.0, 100.0, runs=2)
    assert result.value[0] < -1e-3
    assert not result.converged[0]
    assert (result.value[2:] > -1e-6).all()
    assert result.converged[1:].all()


def test_a_row_without_a_prospect_ends_though_the_best_row_ended_before_it_and_is_gone() -> None:
    curvature = torch.tensor([1.0, 30.0, 900.0], dtype=DTYPE)
    widths = []

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        widths.append(len(x))
        height = torch.where(x[:, :1] > 50.0, 1e6, 0.0)
        offset = torch.where(x > 50.0, x - 60.0, x)
        quartic = 0.25 * (curvature * offset**4).sum(-1, keepdim=True)
        return (height - quartic)[:, 0], -curvature * offset**3

    slow = torch.tensor([3.0, -2.0, 1.0], dtype=DTYPE)
    start = torch.stack([torch.full((3,), 60.0, dtype=DTYPE), slow])
    result = maximize(objective, start, -100.0, 100.0, runs=1)
    assert widths[:2] == [2, 1]
    assert result.converged.tolist() == [True, False]
    assert result.value[1] < -1e-3


def _visited(slope: float, curvature: float) -> list[float]:
    """Where a row of one coordinate in the unit interval is evaluated, one after another."""
    seen: list[float] = []

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(float(x))
        return (slope * x - 0.5 * curvature * x**2)[:, 0], slope - curvature * x

    maximize(objective, torch.zeros(1, 1, dtype=DTYPE), 0.0, 1.0)
    return seen


@pytest.mark.parametrize("curvature", [0.0, 1e-9])
def test_steps_double_while_no_curvature_is_known(curvature: float) -> None:
    """One that is next to nothing beside the slope is a rounding, and not known."""
    assert _visited(7.0, curvature)[:5] == pytest.approx([0.0, 0.1, 0.3, 0.7, 1.0])


def test_a_steep_coordinate_at_its_bound_does_not_shorten_the_first_step() -> None:
    slope = torch.tensor([-1e3, 7.0], dtype=DTYPE)
    seen: list[Tensor] = []

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(x)
        return x @ slope, slope.expand_as(x)

    maximize(objective, torch.zeros(1, 2, dtype=DTYPE), 0.0, 1.0, iterations=1)
    torch.testing.assert_close(seen[1], torch.tensor([[0.0, 0.1]], dtype=DTYPE))


def test_a_row_of_unknown_curvature_is_not_given_up() -> None:
    """Far behind the other row of its run, and of no great slope, it ends far above it."""
    slope = torch.tensor([1.0, 1e3], dtype=DTYPE)

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        return x @ slope, slope.expand_as(x)

    start = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=DTYPE)
    upper = start + torch.tensor([[0.0, 0.0], [1e5, 0.0]], dtype=DTYPE)
    result = maximize(objective, start, start, upper, runs=1)
    assert result.value.tolist() == [1e3, 1e5]


def test_rows_that_jam_start_again_along_the_gradient() -> None:
    """In flat valleys that end at a face of the box one step in a thousand finds no gain."""
    rows, d = 2000, 3
    objective = _quadratic(_curvature(1, rows, d, ridge=1e-3), 0.5 + _random(100, rows, d))
    start = torch.rand(rows, d, generator=torch.Generator().manual_seed(5), dtype=DTYPE)
    result = maximize(objective, start, 0.0, 1.0, iterations=200)
    assert result.converged.all()
    assert (result.gradient_norm < 1e-3).all()


def test_a_step_too_long_shrinks_to_the_top_of_the_parabola() -> None:
    """The first step goes from 0 to 0.1; less than a tenth and more than half are cut off."""
    for top in (0.02, 0.03, 0.045):
        assert _visited(70.0 * top, 70.0)[:3] == pytest.approx([0.0, 0.1, top])
    assert _visited(70.0 * 0.003, 70.0)[:3] == pytest.approx([0.0, 0.1, 0.01])


@pytest.mark.parametrize(
    ("offset", "tolerance", "end"),
    [(0.0, 0.2, 0.1), (0.0, 0.01, 1.0), (-1e3, 2e-4, 0.1), (1e3, 1e-5, 1.0)],
)
def test_a_row_ends_where_gains_are_small_beside_its_value_or_beside_1(
    offset: float, tolerance: float, end: float
) -> None:
    """After the first step, of 0.1, it has gained 0.05, and the next one would gain 0.1."""

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        return offset + 0.5 * x[:, 0], torch.full_like(x, 0.5)

    start = torch.zeros(1, 1, dtype=DTYPE)
    result = maximize(objective, start, 0.0, 1.0, gain_tolerance=tolerance)
    assert float(result.x) == pytest.approx(end)
    assert result.converged.all()


def test_rows_that_ended_are_dropped_run_by_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ascent, "_REACH", torch.inf)  # all rows go on to their end
    runs, restarts, d = 2, 5, 3
    centre = _random(6, runs, d)
    widths = []

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        widths.append(x.shape[0])
        offset = x.view(runs, -1, d) - centre.unsqueeze(1)
        stretch = torch.tensor([1.0, 30.0, 900.0], dtype=DTYPE)
        value = -(stretch * offset.square()).sum(-1)
        return value.flatten(), -2.0 * (stretch * offset).view(-1, d)

    start = torch.rand(runs * restarts, d, generator=torch.Generator().manual_seed(7), dtype=DTYPE)
    start[3], start[5:9] = centre[0], centre[1]
    result = maximize(objective, start, -3.0, 3.0, runs=runs)
    expected = centre.repeat_interleave(restarts, dim=0)
    torch.testing.assert_close(result.x, expected, atol=1e-6, rtol=0.0)
    assert widths[0] == 10
    assert 8 in widths  # run 0 has four rows that did not start at the top
    assert widths == sorted(widths, reverse=True)
    assert result.converged.all()


def test_a_row_without_a_value_harms_no_other_and_keeps_its_start() -> None:
    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = _waves(x)
        value, gradient = value.clone(), gradient.clone()
        value[2], gradient[2] = torch.nan, torch.nan
        value[4] = -torch.inf
        gradient[5, 1] = torch.nan
        value[6] = torch.inf
        return value, gradient

    start = torch.rand(7, 3, generator=torch.Generator().manual_seed(8), dtype=DTYPE)
    result, clean = maximize(objective, start, 0.0, 1.0), maximize(_waves, start, 0.0, 1.0)
    for row in (0, 1, 3):
        assert torch.equal(result.x[row], clean.x[row])
    for row in (2, 4, 5, 6):
        assert torch.equal(result.x[row], start[row])
        assert not result.converged[row]


@pytest.mark.parametrize("broken", [torch.nan, -torch.inf, torch.inf])
@pytest.mark.parametrize("where", ["value", "gradient"])
def test_a_row_that_meets_a_broken_region_ends_with_its_best_finite_point(
    broken: float, where: str
) -> None:
    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = _rosenbrock(x)
        outside = (x > 0.5).any(-1)
        if where == "value":
            return torch.where(outside, broken, value), gradient
        return value, torch.where(outside.unsqueeze(-1), broken, gradient)

    start = torch.tensor([[-1.0, 0.3, 0.2], [0.1, 0.1, -0.7]], dtype=DTYPE)
    result = maximize(objective, start, -2.0, 2.0, iterations=200)
    assert torch.isfinite(result.value).all()
    assert (result.x <= 0.5).all()
    assert (result.value > _rosenbrock(start)[0] + 1.0).all()
    torch.testing.assert_close(result.value, _rosenbrock(result.x)[0], atol=0.0, rtol=0.0)


def test_equal_bounds_pin_a_coordinate_even_where_its_gradient_is_broken() -> None:
    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = _waves(x)
        gradient = gradient.clone()
        gradient[:, 1] = torch.nan
        return value, gradient

    start = torch.rand(5, 3, generator=torch.Generator().manual_seed(9), dtype=DTYPE)
    lower, upper = torch.zeros(5, 3, dtype=DTYPE), torch.ones(5, 3, dtype=DTYPE)
    lower[:, 1] = upper[:, 1] = start[:, 1]
    result = maximize(objective, start, lower, upper)
    assert torch.equal(result.x[:, 1], start[:, 1])
    assert result.converged.all()
    x, gradient = result.x[:, ::2], _waves(result.x)[1][:, ::2]
    torch.testing.assert_close((x + gradient).clamp(0.0, 1.0), x, atol=1e-4, rtol=0.0)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    d=st.integers(1, 6),
    iterations=st.integers(0, 9),
    log_scale=st.floats(-8.0, 8.0),
)
def test_it_never_ends_below_its_start_nor_outside_its_box(
    seed: int, d: int, iterations: int, log_scale: float
) -> None:
    scale = 10.0**log_scale

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = _waves(x)
        return scale * value, scale * gradient

    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(3, d, generator=generator, dtype=DTYPE)
    upper = 0.3 + torch.rand(d, generator=generator, dtype=DTYPE)
    result = maximize(objective, start, 0.2, upper, iterations=iterations)
    inside = start.clamp(min=0.2).minimum(upper)
    assert (result.value >= objective(inside)[0]).all()
    assert ((result.x >= 0.2) & (result.x <= upper)).all()
    assert result.iterations <= iterations


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6, 1e12])
def test_the_scale_of_the_objective_does_not_stop_it(scale: float) -> None:
    centre = torch.tensor([[0.3, 0.6]], dtype=DTYPE)
    curvature = scale * torch.tensor([[[3.0, 1.0], [1.0, 2.0]]], dtype=DTYPE)
    start = torch.tensor([[0.9, 0.1]], dtype=DTYPE)
    result = maximize(
        _quadratic(curvature, centre), start, 0.0, 1.0, tolerance=1e-9, gain_tolerance=0.0
    )
    torch.testing.assert_close(result.x, centre, atol=1e-6, rtol=0.0)


def test_a_flat_objective_converges_at_once() -> None:
    def flat(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones(x.shape[0], dtype=DTYPE), torch.zeros_like(x)

    result = maximize(flat, torch.full((3, 2), 0.5, dtype=DTYPE), 0.0, 1.0)
    assert result.converged.all()
    assert result.iterations == 0
    assert (result.x == 0.5).all()


def test_a_gradient_that_lies_ends_the_row_at_its_start() -> None:
    def downhill(x: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = _waves(x)
        return value, -gradient

    start = torch.tensor([[0.4, 0.6]], dtype=DTYPE)
    result = maximize(downhill, start, 0.0, 1.0)
    assert torch.equal(result.x, start)
    assert not result.converged.any()


def test_a_pair_that_lies_outside_of_the_free_coordinates_has_no_say() -> None:
    """What little is left of it there is a rounding, and would be scaled up to a curvature of 1."""
    step = torch.tensor([1.0, 1e-8, 0.0], dtype=DTYPE)
    pairs = torch.stack([step, step]).view(1, 2, 1, 3)
    gradient = torch.tensor([[5.0, 3.0, 2.0]], dtype=DTYPE)
    free = torch.tensor([[0.0, 1.0, 1.0]], dtype=DTYPE)
    scale = torch.full((1, 1), 0.25, dtype=DTYPE)
    assert torch.equal(ascent._quasi_newton(pairs, gradient, free, scale), scale * gradient)


def test_the_tape_of_the_start_is_left_alone() -> None:
    start = torch.full((2, 3), 0.5, dtype=DTYPE, requires_grad=True)
    assert not maximize(_waves, start, 0.0, 1.0).x.requires_grad


def test_history_of_one_pair_is_enough_to_work() -> None:
    start = torch.rand(3, 4, generator=torch.Generator().manual_seed(2), dtype=DTYPE)
    result = maximize(_waves, start, 0.0, 1.0, history=1)
    assert result.converged.all()
