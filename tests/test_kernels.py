"""Matern correlations against gpytorch, scipy's Bessel functions and autograd."""

import math
from collections.abc import Callable

import pytest
import torch
from gpytorch.kernels import MaternKernel
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gamma, kv
from torch import Tensor

from gpbo.backend import DTYPE
from gpbo.errors import InvalidOption
from gpbo.kernels import NUS, check_nu, matern, matern_and_slope, squared_distances
from tests.monte_carlo import random_uniform

R, S, N, M, D = 2, 3, 7, 5, 11


def pairwise(z: Tensor, w: Tensor) -> Tensor:
    """Squared distances by differences."""
    return (z[..., :, None, :] - w[..., None, :, :]).square().sum(-1)


# --- squared distances


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    scale=st.sampled_from([1e-150, 1e-3, 1.0, 1e4, 1e120]),
    dim=st.sampled_from([1, 2, 11]),
)
def test_squared_distances_are_those_by_differences(seed: int, scale: float, dim: int) -> None:
    z = scale * (random_uniform(seed, R, S, N, dim) - 0.5)
    w = scale * (random_uniform(seed + 1, R, S, M, dim) - 0.5)
    q = squared_distances(z, w)
    assert q.shape == (R, S, N, M)
    torch.testing.assert_close(q, pairwise(z, w), rtol=0, atol=1e-14 * dim * scale**2)


def test_points_that_coincide_have_distance_zero_exactly() -> None:
    z = 50 * (random_uniform(0, R, S, N, D) - 0.5)
    z[..., 3, :] = z[..., 0, :]
    q = squared_distances(z, z)
    assert not bool(q.diagonal(dim1=-2, dim2=-1).any())
    assert not bool(q[..., 0, 3].any())
    assert not bool(q[..., 3, 0].any())
    assert bool((q[..., 0, 1] > 0).all())


def test_distances_are_never_negative() -> None:
    z = 1e3 + 1e-6 * random_uniform(0, R, N, D)
    assert float(squared_distances(z, z).min()) >= 0


def test_points_a_millionth_apart_are_told_apart() -> None:
    z = torch.tensor([[[0.3, -0.2], [0.3 + 1e-6, -0.2]]], dtype=DTYPE)
    assert float(squared_distances(z, z)[0, 0, 1]) == pytest.approx(1e-12, rel=1e-3, abs=0)


# --- correlations


@pytest.mark.parametrize("nu", NUS)
def test_correlations_are_gpytorch_s(nu: float) -> None:
    x, w, lengthscale = (
        random_uniform(0, R, N, D),
        random_uniform(2, R, M, D),
        0.3 + random_uniform(1, R, 1, D),
    )
    kernel = MaternKernel(nu=nu, ard_num_dims=D, batch_shape=torch.Size([R])).double()
    kernel.lengthscale = lengthscale
    q = squared_distances((x - 0.5) / lengthscale, (w - 0.5) / lengthscale)
    expected = kernel(x, w).to_dense().detach()
    torch.testing.assert_close(matern(q, nu), expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(matern_and_slope(q, nu)[0], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("nu", NUS)
def test_correlations_are_the_general_formula_with_a_bessel_function(nu: float) -> None:
    distance = torch.logspace(-3, 2, 53, dtype=DTYPE)
    scaled = math.sqrt(2 * nu) * distance.numpy()
    expected = 2 ** (1 - nu) / gamma(nu) * scaled**nu * kv(nu, scaled)
    torch.testing.assert_close(
        matern(distance.square(), nu), torch.from_numpy(expected), rtol=1e-11, atol=1e-300
    )


@pytest.mark.parametrize("nu", NUS)
def test_correlation_is_one_at_no_distance_and_zero_far_away(nu: float) -> None:
    q = torch.tensor([0.0, 1e300], dtype=DTYPE)
    for correlation in (matern(q, nu), matern_and_slope(q, nu)[0]):
        assert correlation.tolist() == pytest.approx([1.0, 0.0], abs=2e-15)


@pytest.mark.parametrize("nu", NUS)
def test_correlation_decreases_with_distance(nu: float) -> None:
    correlation, slope = matern_and_slope(torch.logspace(-8, 4, 101, dtype=DTYPE), nu)
    assert bool((correlation.diff() <= 0).all())
    assert bool((slope >= 0).all())


# --- slopes


@pytest.mark.parametrize("nu", NUS)
@settings(max_examples=20, deadline=None)
@given(exponent=st.floats(-9, 5))
def test_correlation_and_slope_are_those_of_autograd(nu: float, exponent: float) -> None:
    q = torch.tensor([10.0**exponent, 1.0], dtype=DTYPE, requires_grad=True)
    reference = matern(q, nu)
    (gradient,) = torch.autograd.grad(reference.sum(), q)
    correlation, slope = matern_and_slope(q.detach(), nu)
    torch.testing.assert_close(correlation, reference.detach(), rtol=1e-14, atol=0)
    # Autograd of 1 + a + a^2/3 cancels close to q = 0; the closed form does not.
    cancellation = 1e-15 / math.sqrt(10.0**exponent)
    torch.testing.assert_close(slope, -gradient, rtol=1e-12, atol=10 * cancellation)


SLOPE_AT_ZERO = {0.5: 0.0, 1.5: 1.5, 2.5: 5 / 6}


@pytest.mark.parametrize("nu", NUS)
def test_the_slope_at_no_distance(nu: float) -> None:
    _, slope = matern_and_slope(torch.zeros(3, dtype=DTYPE), nu)
    assert slope.tolist() == pytest.approx([SLOPE_AT_ZERO[nu]] * 3, rel=1e-15)


@pytest.mark.parametrize("nu", NUS)
def test_autograd_through_points_that_coincide_is_finite(nu: float) -> None:
    w = random_uniform(0, R, N, D)
    w[:, 1] = w[:, 0]
    w[:, 2] = 0.0
    z = w.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(matern(squared_distances(z, w), nu).sum(), z)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("function", [matern, matern_and_slope])
def test_the_argument_is_left_alone(function: Callable[[Tensor, float], object]) -> None:
    for nu in NUS:
        q = random_uniform(0, N)
        before = q.clone()
        function(q, nu)
        assert torch.equal(q, before)


# --- options


@pytest.mark.parametrize("nu", [2.0, 0.0, -0.5, math.nan, math.inf, 3.5])
def test_another_smoothness_is_an_error(nu: float) -> None:
    with pytest.raises(InvalidOption, match=f"nu={nu}"):
        check_nu(nu)


@pytest.mark.parametrize("nu", NUS)
def test_the_three_closed_forms_are_allowed(nu: float) -> None:
    check_nu(nu)
