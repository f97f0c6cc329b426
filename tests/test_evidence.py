"""The log posterior against autograd through dense linear algebra, and what must not change it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import gpytorch
import pyro.distributions as pyrod
import pytest
import torch
from gpytorch import priors as gp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch import distributions as td

from gpbo import memory
from gpbo.backend import DTYPE, Streams
from gpbo.errors import InvalidData, InvalidOption
from gpbo.evidence import LogPosterior, Model
from gpbo.hyperparameters import HyperparameterPrior, Hyperparameters, resolve_prior
from gpbo.priors import Fixed, Gamma, HalfCauchy, Horseshoe, LogNormal, Normal, Uniform
from tests.monte_carlo import random_normal, random_uniform, unchecked_shapes

R, C, N, D = 2, 3, 11, 5
NUS = (0.5, 1.5, 2.5)
ACCURACY = 1e-10


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=DTYPE)


# --- the oracle: natural values, Jacobians and priors by hand, a dense Gaussian by torch

Natural = tuple[Tensor, Tensor, Tensor, Tensor]
Unpack = Callable[[Tensor, int], tuple[Natural, Tensor]]


def _exp(distribution: td.Distribution, u: Tensor) -> tuple[Tensor, Tensor]:
    """Natural values exp(u), and the log density of u."""
    return u.exp(), (distribution.log_prob(u.exp()) + u).sum()


def _standard_mean(u: Tensor) -> Tensor:
    return td.Normal(number(0.0), number(1.0)).log_prob(u)


def _scaled_lengthscale(u: Tensor, dim: int, loc: float, scale: float) -> tuple[Tensor, Tensor]:
    return _exp(td.LogNormal(number(loc + 0.5 * math.log(dim)), number(scale)), u)


def _dimension_scaled(u: Tensor, dim: int) -> tuple[Natural, Tensor]:
    lengthscale, first = _scaled_lengthscale(u[:dim], dim, -1.0, 1.0)
    outputscale, second = _exp(td.LogNormal(number(0.0), number(1.0)), u[dim])
    noise, third = _exp(td.LogNormal(number(-8.0), number(2.0)), u[dim + 1])
    natural = (lengthscale, outputscale, noise + 1e-6, u[dim + 2])
    return natural, first + second + third + _standard_mean(u[dim + 2])


def _botorch(u: Tensor, dim: int) -> tuple[Natural, Tensor]:
    lengthscale, first = _scaled_lengthscale(u[:dim], dim, math.sqrt(2), math.sqrt(3))
    noise, second = _exp(td.Gamma(number(0.9), number(10.0)), u[dim])
    natural = (lengthscale, number(1.0), noise + 1e-4, u[dim + 1])
    return natural, first + second + _standard_mean(u[dim + 1])


def _saas(u: Tensor, dim: int) -> tuple[Natural, Tensor]:
    tau, first = _exp(td.HalfCauchy(number(0.1)), u[0])
    rho, second = _exp(td.HalfCauchy(number(1.0)), u[1 : dim + 1])
    outputscale, third = _exp(td.Gamma(number(2.0), number(0.15)), u[dim + 1])
    noise, fourth = _exp(td.Gamma(number(0.9), number(10.0)), u[dim + 2])
    natural = ((tau * rho) ** -0.5, outputscale, noise + 1e-4, u[dim + 3])
    return natural, first + second + third + fourth + _standard_mean(u[dim + 3])


def _spearmint(u: Tensor, dim: int) -> tuple[Natural, Tensor]:
    place = torch.sigmoid(u[:dim])
    first = (place * (1 - place)).log().sum()
    outputscale, second = _exp(td.LogNormal(number(4.0), number(2.0)), u[dim])
    noise = u[dim + 1].exp()
    third = torch.log(torch.log(1 + (0.1 / noise) ** 2) / (math.pi * 0.1)) + u[dim + 1]
    natural = (2 * place, outputscale, noise + 1e-6, u[dim + 2])
    return natural, first + second + third + _standard_mean(u[dim + 2])


NAMED: dict[str, Unpack] = {
    "dimension-scaled": _dimension_scaled,
    "botorch": _botorch,
    "saas": _saas,
    "spearmint": _spearmint,
}


@dataclass(frozen=True)
class UserPrior:
    """A distribution for all positive hyperparameters, with bounds, and one for the mean."""

    positive: td.Distribution
    mean: td.Distribution
    high: float = math.inf
    low: float = 0.0

    def _coordinate(self, u: Tensor) -> tuple[Tensor, Tensor]:
        if math.isinf(self.high):
            natural, log_jacobian = u.exp(), u
        else:
            place = torch.sigmoid(u)
            width = self.high - self.low
            natural = self.low + width * place
            log_jacobian = torch.log(width * place * (1 - place))
        event = self.positive.event_shape
        density = self.positive.log_prob(natural.reshape(-1, *event)).reshape(natural.shape)
        return natural, (density + log_jacobian).sum()

    def unpack(self, u: Tensor, dim: int) -> tuple[Natural, Tensor]:
        lengthscale, first = self._coordinate(u[:dim])
        outputscale, second = self._coordinate(u[dim])
        noise, third = self._coordinate(u[dim + 1])
        fourth = self.mean.log_prob(u[dim + 2 :].reshape(-1, *self.mean.event_shape)).sum()
        natural = (lengthscale, outputscale, noise + 1e-6, u[dim + 2])
        return natural, first + second + third + fourth

    @property
    def prior(self) -> HyperparameterPrior:
        return HyperparameterPrior(self.positive, self.positive, self.positive, self.mean)


ONE = torch.ones(1, dtype=DTYPE)
STANDARD = td.Normal(number(0.0), number(1.0))
USERS = {
    "gpytorch Gamma": UserPrior(gp.GammaPrior(number(3), 6), gp.NormalPrior(number(0.1), 2)),
    "gpytorch LogNormal": UserPrior(gp.LogNormalPrior(number(0), 1), STANDARD),
    "gpytorch Normal": UserPrior(
        gp.NormalPrior(number(1), 0.5), gp.SmoothedBoxPrior(-ONE, 1.0, 0.3)
    ),
    "gpytorch Uniform": UserPrior(gp.UniformPrior(number(0), 3), STANDARD, high=3.0),
    "gpytorch Uniform off 0": UserPrior(
        gp.UniformPrior(number(0.05), 3), STANDARD, high=3.0, low=0.05
    ),
    "gpytorch SmoothedBox": UserPrior(gp.SmoothedBoxPrior(0.1 * ONE, 2.0, 0.3), STANDARD),
    "gpytorch HalfCauchy": UserPrior(gp.HalfCauchyPrior(number(1)), td.StudentT(number(4))),
    "gpytorch HalfNormal": UserPrior(gp.HalfNormalPrior(number(2)), STANDARD),
    "gpytorch Horseshoe": UserPrior(gp.HorseshoePrior(number(0.1)), STANDARD),
    "torch Weibull": UserPrior(td.Weibull(2 * ONE, 1.5 * ONE), td.Laplace(ONE, ONE)),
    "pyro InverseGamma": UserPrior(pyrod.InverseGamma(3 * ONE, 2 * ONE), STANDARD),
    "pyro Beta": UserPrior(pyrod.Beta(2 * ONE, 3 * ONE), pyrod.Cauchy(ONE, ONE), high=1.0),
}


def correlation(q: Tensor, nu: float) -> Tensor:
    """The Matern correlation at squared distance q; 1, with slope 0, where q is 0."""
    same = q == 0
    a = (2 * nu * torch.where(same, 1.0, q)).sqrt()
    polynomial = {0.5: torch.ones_like(a), 1.5: 1 + a, 2.5: 1 + a + a**2 / 3}[nu]
    return torch.where(same, 1.0, polynomial * torch.exp(-a))


def oracle(
    u: Tensor, x: Tensor, y: Tensor, mask: Tensor, unpack: Unpack, nu: float
) -> tuple[Tensor, Tensor]:
    """Value and autograd gradient, chain by chain, of the points that are there."""
    chains = u.shape[0] // x.shape[0]
    values, gradients = [], []
    for chain, row in enumerate(u):
        run = chain // chains
        kept, leaf = mask[run], row.clone().requires_grad_()
        points, values_there = x[run][kept], y[run][kept]
        (lengthscale, outputscale, noise, mean), value = unpack(leaf, x.shape[-1])
        if len(points):
            z = points / lengthscale
            q = (z[:, None] - z[None]).square().sum(-1)
            covariance = outputscale * correlation(q, nu) + noise * torch.eye(
                len(points), dtype=DTYPE
            )
            gaussian = td.MultivariateNormal(mean.expand(len(points)), covariance)
            value = value + gaussian.log_prob(values_there)
        values.append(value.detach())
        gradients.append(torch.autograd.grad(value, leaf)[0])
    return torch.stack(values), torch.stack(gradients)


# --- data and hyperparameters


@cache
def data(
    r: int = R, n: int = N, d: int = D, seed: int = 0, repeat: bool = False, pad: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # A Latin hypercube: the distance of two points less than 1e-3 apart, from the expansion of
    # the squared norm, has not the ten digits that its square root needs for nu = 1/2.
    cell = torch.rand(r, n, d, generator=generator, dtype=DTYPE).argsort(1)
    x = (cell + 0.5 * torch.rand(r, n, d, generator=generator, dtype=DTYPE)) / n
    if repeat:
        x[:, n // 2 :] = x[:, : n - n // 2].clone()
    y = torch.sin(7.0 * x.sum(-1)) + 0.3 * random_normal(seed + 1, r, n)
    mask = torch.ones(r, n, dtype=torch.bool)
    if pad:
        mask = torch.rand(r, n, generator=generator) < 0.7
        x, y = x.clone(), y.clone()
        x[~mask], y[~mask] = torch.nan, torch.inf
    return x, y, mask


def coordinates(prior: HyperparameterPrior, d: int, k: int = R * C, seed: int = 2) -> Tensor:
    """Points that are not absurd: lengthscales and outputscale about 1, noise above e^-7."""
    size = LogPosterior(*data(1, 1, d), prior).parametrization.size
    u = 0.7 * random_normal(seed, k, size)
    if not isinstance(prior.noise_variance, Fixed):
        generator = torch.Generator().manual_seed(seed + 1)
        u[:, -2] = -7 + 6 * torch.rand(k, generator=generator, dtype=DTYPE)
    return u


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float(((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)).max())


SHAPES = st.fixed_dictionaries(
    {
        "n": st.sampled_from([1, 2, 7, 23]),
        "d": st.sampled_from([1, 2, 5]),
        "r": st.sampled_from([1, 2]),
        "seed": st.integers(0, 2**32),
        "repeat": st.booleans(),
        "pad": st.booleans(),
    }
)


# --- value and gradient


def check_against_oracle(
    prior: HyperparameterPrior, unpack: Unpack, nu: float, shape: dict[str, Any]
) -> None:
    x, y, mask = data(**shape)
    u = coordinates(prior, shape["d"], k=shape["r"] * C, seed=shape["seed"])
    value, gradient = LogPosterior(x, y, mask, prior, nu)(u)
    expected, slope = oracle(u, x, y, mask, unpack, nu)
    torch.testing.assert_close(value, expected, rtol=ACCURACY, atol=ACCURACY)
    assert relative_error(gradient, slope) <= ACCURACY


@pytest.mark.parametrize("nu", NUS)
@pytest.mark.parametrize("name", NAMED)
@settings(max_examples=8, deadline=None)
@given(shape=SHAPES)
def test_value_and_gradient_are_autograd_s_with_every_named_prior(
    name: str, nu: float, shape: dict[str, Any]
) -> None:
    check_against_oracle(resolve_prior(name), NAMED[name], nu, shape)


@pytest.mark.parametrize("nu", NUS)
@pytest.mark.parametrize("name", USERS)
@settings(max_examples=2, deadline=None)
@given(shape=SHAPES)
def test_value_and_gradient_are_autograd_s_with_priors_of_the_user(
    name: str, nu: float, shape: dict[str, Any]
) -> None:
    check_against_oracle(USERS[name].prior, USERS[name].unpack, nu, shape)


@pytest.mark.parametrize("nu", NUS)
@pytest.mark.parametrize("name", ["saas", "spearmint"])
@pytest.mark.parametrize(
    "shape",
    [
        {"n": 1},
        {"n": 1, "d": 1, "r": 1},
        {"n": 13, "repeat": True},
        {"n": 13, "pad": True},
        {"n": 13, "repeat": True, "pad": True, "r": 3},
        {"n": 2, "d": 1, "repeat": True},
        {"n": 41, "d": 60},
    ],
    ids=str,
)
def test_value_and_gradient_are_autograd_s_in_every_corner(
    name: str, nu: float, shape: dict[str, Any]
) -> None:
    whole = {"n": N, "d": D, "r": R, "seed": 3, "repeat": False, "pad": False} | shape
    check_against_oracle(resolve_prior(name), NAMED[name], nu, whole)


@pytest.mark.parametrize(
    "fixed", [("lengthscale",), ("outputscale", "noise_variance"), ("mean",), ("noise_variance",)]
)
def test_the_gradient_lacks_what_is_fixed_and_nothing_else(fixed: tuple[str, ...]) -> None:
    free: dict[str, Any] = {
        "lengthscale": Gamma(3.0, 6.0),
        "outputscale": HalfCauchy(1.0),
        "noise_variance": Horseshoe(0.1),
        "mean": Normal(),
    }
    values = {"lengthscale": 0.7, "outputscale": 1.3, "noise_variance": 0.01, "mean": -0.4}
    places = {"lengthscale": slice(0, D), "outputscale": slice(D, D + 1)}
    places |= {"noise_variance": slice(D + 1, D + 2), "mean": slice(D + 2, D + 3)}
    full_prior = HyperparameterPrior(**free)
    prior = HyperparameterPrior(**{**free, **{name: Fixed(values[name]) for name in fixed}})
    u = coordinates(full_prior, D)
    kept = torch.ones(D + 3, dtype=torch.bool)
    for name in fixed:
        u[:, places[name]] = values[name] if name == "mean" else math.log(values[name])
        kept[places[name]] = False
    likelihood, whole = LogPosterior(*data(), full_prior)(u)
    full_value, full_slope = LogPosterior(*data(), full_prior).parametrization.log_prior(u)
    reduced = LogPosterior(*data(), prior)
    value, gradient = reduced(u[:, kept])
    prior_value, prior_slope = reduced.parametrization.log_prior(u[:, kept])
    torch.testing.assert_close(value - prior_value, likelihood - full_value, rtol=1e-10, atol=1e-10)
    expected = (whole - full_slope)[:, kept]
    torch.testing.assert_close(gradient - prior_slope, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("nu", NUS)
def test_the_evidence_is_gpytorch_s(nu: float) -> None:
    x, y, mask = data(1)
    natural = Hyperparameters(
        lengthscale=(0.3 * random_normal(0, 1, D)).exp(),
        outputscale=ONE * 1.7,
        noise_variance=ONE * 0.03,
        mean=ONE * -0.2,
    )
    kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.MaternKernel(nu, ard_num_dims=D))
    likelihood = gpytorch.likelihoods.GaussianLikelihood()
    covariance = kernel.double()
    covariance.outputscale = natural.outputscale
    covariance.base_kernel.lengthscale = natural.lengthscale
    likelihood = likelihood.double()
    likelihood.noise = natural.noise_variance
    gaussian = gpytorch.distributions.MultivariateNormal(
        natural.mean.expand(N), covariance(x[0]).add_jitter(0.0)
    )
    expected = likelihood(gaussian).log_prob(y[0]).detach()
    value, _ = LogPosterior(x, y, mask, resolve_prior("botorch"), nu).log_likelihood(natural)
    # gpytorch rounds the distance of a point from itself for nu = 1/2.
    torch.testing.assert_close(value[0], expected, rtol=1e-6 if nu == 0.5 else 1e-11, atol=0)


# --- what changes nothing


@pytest.mark.parametrize("nu", NUS)
@pytest.mark.parametrize("name", NAMED)
def test_a_run_in_a_batch_has_the_density_it_has_alone(name: str, nu: float) -> None:
    prior = resolve_prior(name)
    x, y, mask = data(3, pad=True)
    u = coordinates(prior, D, k=3 * C)
    batch = LogPosterior(x, y, mask, prior, nu)
    value, gradient = batch(u)
    for run in range(3):
        rows, one = slice(run * C, (run + 1) * C), slice(run, run + 1)
        for alone in (LogPosterior(x[one], y[one], mask[one], prior, nu), batch.select(one)):
            assert alone.runs == 1
            alone_value, alone_gradient = alone(u[rows])
            torch.testing.assert_close(value[rows], alone_value, rtol=1e-11, atol=1e-11)
            torch.testing.assert_close(gradient[rows], alone_gradient, rtol=1e-11, atol=1e-10)


def test_chosen_runs_are_in_the_order_chosen() -> None:
    prior = resolve_prior("dimension-scaled")
    batch = LogPosterior(*data(3, pad=True), prior, 1.5)
    u = coordinates(prior, D, k=3)
    value, gradient = batch(u)
    order = torch.tensor([2, 0])
    chosen_value, chosen_gradient = batch.select(order)(u[order])
    torch.testing.assert_close(chosen_value, value[order], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(chosen_gradient, gradient[order], rtol=1e-11, atol=1e-11)


def test_a_chain_has_the_density_it_has_alone() -> None:
    prior = resolve_prior("saas")
    density = LogPosterior(*data(1), prior)
    u = coordinates(prior, D, k=7)
    value, gradient = density(u)
    alone_value, alone_gradient = density(u[4:5])
    torch.testing.assert_close(value[4:5], alone_value, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(gradient[4:5], alone_gradient, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("matrices", [2 * C, C - 1, 1])
@pytest.mark.parametrize("pad", [False, True])
def test_the_density_is_the_same_however_many_matrices_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch, matrices: int, pad: bool
) -> None:
    """Two runs at a time, a run in two unequal parts, a chain at a time."""
    prior = resolve_prior("dimension-scaled")
    density = LogPosterior(*data(3, pad=pad), prior)
    u = coordinates(prior, D, k=3 * C)
    value, gradient = density(u)
    monkeypatch.setattr(memory, "_CPU_BYTES", 8 * N**2 * matrices)
    value_in_parts, gradient_in_parts = density(u)
    torch.testing.assert_close(value_in_parts, value, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(gradient_in_parts, gradient, rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("nu", NUS)
@pytest.mark.parametrize("filling", [0.0, 1e300, math.nan, math.inf])
def test_padding_adds_exactly_nothing(nu: float, filling: float) -> None:
    x, y, mask = data()
    prior = resolve_prior("dimension-scaled")
    u = coordinates(prior, D)
    value, gradient = LogPosterior(x, y, mask, prior, nu)(u)
    # Not only at the end: the padding goes between the observations.
    place = torch.tensor([0, 1, 4, 5, 6, 8, 9, 12, 13, 15, 16])
    wide_x = torch.full((R, 17, D), filling, dtype=DTYPE)
    wide_y, wide_mask = wide_x[..., 0].clone(), torch.zeros(R, 17, dtype=torch.bool)
    wide_x[:, place], wide_y[:, place], wide_mask[:, place] = x, y, True
    padded_value, padded_gradient = LogPosterior(wide_x, wide_y, wide_mask, prior, nu)(u)
    torch.testing.assert_close(padded_value, value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(padded_gradient, gradient, rtol=1e-10, atol=1e-11)


def test_the_posterior_of_no_observation_is_the_prior() -> None:
    x, y, _ = data()
    prior = resolve_prior("spearmint")
    density = LogPosterior(x, y, torch.zeros(R, N, dtype=torch.bool), prior)
    u = coordinates(prior, D)
    value, gradient = density(u)
    expected, slope = density.parametrization.log_prior(u)
    torch.testing.assert_close(value, expected, rtol=1e-14, atol=1e-13)
    torch.testing.assert_close(gradient, slope, rtol=1e-14, atol=1e-13)


@pytest.mark.parametrize("nu", NUS)
def test_the_order_of_the_observations_does_not_matter(nu: float) -> None:
    x, y, mask = data(pad=True)
    prior = resolve_prior("dimension-scaled")
    u = coordinates(prior, D)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    value, gradient = LogPosterior(x, y, mask, prior, nu)(u)
    other = LogPosterior(x[:, order], y[:, order], mask[:, order], prior, nu)
    other_value, other_gradient = other(u)
    torch.testing.assert_close(value, other_value, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(gradient, other_gradient, rtol=1e-9, atol=1e-10)


def test_calling_changes_nothing_that_is_kept() -> None:
    x, y, mask = (each.clone() for each in data(pad=True))
    prior = resolve_prior("saas")
    density, u = LogPosterior(x, y, mask, prior), coordinates(prior, D)
    before = u.clone()
    first, first_gradient = density(u)
    again, again_gradient = density(u)
    assert torch.equal(u, before)
    assert torch.equal(first, again)
    assert torch.equal(first_gradient, again_gradient)
    for now, then in zip((x, y, mask), data(pad=True), strict=True):
        torch.testing.assert_close(now, then, equal_nan=True, rtol=0, atol=0)


# --- failures and degenerate data


def assert_only_the_third_is_rejected(
    found: tuple[Tensor, Tensor], good: tuple[Tensor, Tensor]
) -> None:
    value, gradient = found
    others = [0, 1, 3, 4, 5]
    assert float(value[2]) == -math.inf
    assert gradient[2].tolist() == [0.0] * (D + 3)
    torch.testing.assert_close(value[others], good[0][others], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient[others], good[1][others], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("nu", NUS)
@pytest.mark.parametrize("failure", ["nan", "infinite", "singular", "overflow"])
def test_a_chain_without_a_factor_is_rejected_alone(nu: float, failure: str) -> None:
    x, y, mask = data(repeat=True)
    prior = HyperparameterPrior(LogNormal(), LogNormal(), LogNormal(), Normal())
    density = LogPosterior(x, y, mask, prior, nu)
    u = coordinates(prior, D)
    good = density(u)
    broken = u.clone()
    if failure == "nan":
        broken[2] = torch.nan
    if failure == "infinite":
        broken[2, -1] = torch.inf
    if failure == "singular":
        # Repeated points, and a noise that is lost in rounding the outputscale.
        broken[2, :D], broken[2, D], broken[2, D + 1] = 0.0, 40.0, -40.0
    if failure == "overflow":
        broken[2, D] = 800.0
    assert_only_the_third_is_rejected(density(broken), good)


class Cusp(td.Normal):
    """A density with a peak that has no slope."""

    def log_prob(self, value: Tensor) -> Tensor:
        return -value.abs().sqrt()


def test_a_chain_with_a_value_but_no_gradient_is_rejected_alone() -> None:
    prior = HyperparameterPrior(LogNormal(), LogNormal(), LogNormal(), Cusp(0.0, 1.0))
    density = LogPosterior(*data(), prior)
    u = coordinates(prior, D)
    good = density(u)
    u[2, -1] = 0.0
    assert_only_the_third_is_rejected(density(u), good)


DEGENERATE: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "one observation": lambda: (data(1, 1)[0], random_normal(0, 1, 1)),
    "one observation of 0": lambda: (data(1, 1)[0], torch.zeros(1, 1, dtype=DTYPE)),
    "constant values": lambda: (data(1)[0], torch.zeros(1, N, dtype=DTYPE)),
    "one point again and again": lambda: (0.3 + 0.0 * data(1)[0], random_normal(0, 1, N)),
    "repeated points": lambda: data(1, repeat=True)[:2],
    "points at a corner": lambda: (torch.ones(1, N, D, dtype=DTYPE), random_normal(0, 1, N)),
    "points a billionth apart": lambda: (0.3 + 1e-9 * data(1)[0], random_normal(0, 1, N)),
    "points a rounding apart": lambda: (0.5 + 1e-15 * data(1)[0], random_normal(0, 1, N)),
    "an outlier": lambda: (data(1)[0], torch.eye(N, dtype=DTYPE)[:1] * 1e6),
    "huge values": lambda: (data(1)[0], 1e12 * random_normal(0, 1, N)),
    "one dimension": lambda: data(1, d=1)[:2],
    "sixty dimensions": lambda: data(1, d=60)[:2],
}


@pytest.mark.parametrize("nu", NUS)
@pytest.mark.parametrize("prior", [*NAMED, "bounded", "gpytorch Gamma", "pyro Beta"])
@pytest.mark.parametrize("kind", DEGENERATE)
def test_degenerate_data_give_finite_values_or_minus_infinity(
    kind: str, prior: str, nu: float
) -> None:
    x, y = DEGENERATE[kind]()
    bounded = HyperparameterPrior(Uniform(0.0, 2.0), Uniform(0.0, 9.0), Uniform(0.0, 1.0), Normal())
    chosen = USERS[prior].prior if prior in USERS else None
    chosen = chosen or (bounded if prior == "bounded" else resolve_prior(prior))
    density = LogPosterior(x, y, torch.ones_like(y, dtype=torch.bool), chosen, nu)
    space = density.parametrization
    drawn = space.sample(Streams.named(0, "degenerate"), 7)[0]
    signs = torch.ones(1, space.size, dtype=DTYPE)
    signs[:, ::2] = -1.0
    far = [scale * signs for scale in (-760.0, -700.0, -50.0, -9.0, 9.0, 50.0, 700.0, 760.0)]
    same = [scale * signs.abs() for scale in (-760.0, -300.0, -30.0, 0.0, 30.0, 300.0, 760.0)]
    value, gradient = density(torch.cat([drawn, *far, *same]))
    assert not bool(value.isnan().any())
    assert not bool((value == torch.inf).any())
    assert bool(gradient.isfinite().all())
    assert bool(value[:7].isfinite().any())


def test_a_draw_from_the_prior_always_has_a_finite_density() -> None:
    for name in NAMED:
        density = LogPosterior(*data(1, repeat=True), resolve_prior(name))
        drawn = density.parametrization.sample(Streams.named(1, "prior"), 101)[0]
        value, _ = density(drawn)
        assert float(value.isfinite().to(DTYPE).mean()) > 0.9


# --- options and bad data


def test_a_model_s_log_posterior_has_its_kernel_and_prior() -> None:
    u = coordinates(resolve_prior("saas"), D)
    value, gradient = Model(nu=1.5, prior="saas").log_posterior(*data())(u)
    expected, slope = LogPosterior(*data(), resolve_prior("saas"), 1.5)(u)
    assert torch.equal(value, expected)
    assert torch.equal(gradient, slope)


def test_a_model_is_matern_5_2_with_dimension_scaled_priors_unless_told() -> None:
    assert Model() == Model(nu=2.5, prior="dimension-scaled")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"nu": 2.0}, r"nu=2\.0: expected one of"),
        ({"nu": math.nan}, "nu=nan"),
        ({"prior": "flat"}, "prior='flat': expected one of"),
    ],
)
def test_a_model_that_is_not_offered_is_an_error(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidOption, match=says):
        Model(**options)


def test_another_smoothness_is_an_error() -> None:
    with pytest.raises(InvalidOption, match=r"nu=3\.5"):
        LogPosterior(*data(), resolve_prior("saas"), 3.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["x", "y"])
def test_data_that_are_not_finite_are_an_error(where: str, bad: float) -> None:
    x, y, mask = (each.clone() for each in data())
    if where == "x":
        x[1, 3, 2] = bad
    else:
        y[1, 3] = bad
    message = f"x and y must be finite wherever mask is True, and {where} is {bad} at result 3 of"
    with pytest.raises(InvalidData, match=f"{message} run 1"):
        LogPosterior(x, y, mask, resolve_prior("saas"))
    mask[1, 3] = False
    LogPosterior(x, y, mask, resolve_prior("saas"))


# --- some of the results


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_which_results_a_thinned_posterior_has_is_no_matter_of_the_caller_s_dtype(
    dtype: torch.dtype,
) -> None:
    x, y = random_uniform(1, 1, 997, D), random_uniform(2, 1, 997)
    posterior = LogPosterior(x, y, torch.ones(1, 997, dtype=torch.bool), HyperparameterPrior())
    expected = posterior.thinned(211)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        found = posterior.thinned(211)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(found.counts, expected.counts)
    u = expected.parametrization.sample(Streams.named(0, "thinned", runs=1), 3)[0]
    assert torch.equal(found(u)[0], expected(u)[0])


@pytest.mark.parametrize("share", [0.0, 0.55])
@unchecked_shapes()
def test_a_thinned_posterior_is_that_of_some_of_the_results_of_every_run(share: float) -> None:
    x, y, _ = data(3, 31, D)
    mask = torch.arange(31) < torch.tensor([5, 23, 31])[:, None]
    mask[2, ::7] = False  # of 31 results, 26 are there
    thinned = LogPosterior(x, y, mask, HyperparameterPrior()).thinned(13, share)
    u = random_normal(3, 3 * C, D + 3)
    value, gradient = thinned(u)
    for run, count in enumerate((5, 23, 26)):
        there = torch.nonzero(mask[run])[:, 0]
        most = max(13, share * count)
        kept = [int(there[i]) for i in range(count) if i * 0.6180339887498949 % 1 < most / count]
        assert (kept == there.tolist()) if count == 5 else most - 1 <= len(kept) <= most + 1
        own = LogPosterior(
            x[run : run + 1, kept],
            y[run : run + 1, kept],
            torch.ones(1, len(kept), dtype=torch.bool),
            HyperparameterPrior(),
        )
        expected = own(u[run * C : (run + 1) * C])
        torch.testing.assert_close(value[run * C : (run + 1) * C], expected[0])
        torch.testing.assert_close(gradient[run * C : (run + 1) * C], expected[1])


@unchecked_shapes()
def test_thinning_takes_nothing_away_where_there_is_nothing_to_take() -> None:
    posterior = LogPosterior(*data(R, N, D), HyperparameterPrior())
    assert posterior.thinned(N) is posterior
    nothing = LogPosterior(*data(R, N, D)[:2], torch.zeros(R, N).bool(), HyperparameterPrior())
    assert nothing.thinned(1) is nothing


@pytest.mark.parametrize("tasks", [2, 3, 4, 5, 8])
@unchecked_shapes()
def test_thinning_leaves_every_one_of_tasks_that_take_turns_its_share(tasks: int) -> None:
    task = torch.arange(240, dtype=DTYPE) % tasks
    posterior = LogPosterior(
        (task / tasks).view(1, -1, 1), task[None], torch.ones(1, 240).bool(), HyperparameterPrior()
    ).thinned(97)
    shares = torch.bincount(posterior._y[0][posterior._mask[0]].long(), minlength=tasks)
    assert int(shares.sum()) in (96, 97, 98)
    assert ((shares > 2 / 3 * 97 / tasks) & (shares < 4 / 3 * 97 / tasks)).all()
