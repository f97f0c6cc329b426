"""Prior densities against torch, scipy and 60-digit arithmetic; draws against the densities."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.integrate import quad
from torch import Tensor
from torch import distributions as td

from gpbo.backend import DTYPE, Streams
from gpbo.errors import InvalidOption
from gpbo.priors import (
    Fixed,
    Gamma,
    HalfCauchy,
    Horseshoe,
    LogNormal,
    Normal,
    Prior,
    Saas,
    Uniform,
)

K, J, D = 3, 5, 7
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A prior and what is known of it from elsewhere.

    Attributes:
        prior: Ours.
        natural: Natural value at ``u``.
        log_density: Log density of the natural value.
        log_jacobian: Of ``natural``, at ``u``.
        cdf: Distribution function of the natural value.
    """

    prior: Prior
    natural: Callable[[Tensor], Tensor]
    log_density: Callable[[Tensor], Tensor]
    log_jacobian: Callable[[Tensor], Tensor]
    cdf: Callable[[Floats], Floats]


def _exponential(
    prior: Prior, density: Callable[[Tensor], Tensor], cdf: Callable[[Floats], Floats]
) -> Case:
    return Case(prior, torch.exp, density, lambda u: u, cdf)


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=DTYPE)


def _horseshoe_cdf(scale: float) -> Callable[[Floats], Floats]:
    """The integral of log(1 + (scale/v)^2) / (pi scale), by parts."""

    def cdf(v: Floats) -> Floats:
        log = np.log1p((scale / v) ** 2)
        result: Floats = (v * log + 2 * scale * np.arctan(v / scale)) / (math.pi * scale)
        return result

    return cdf


def _uniform(low: float, high: float) -> Case:
    width = high - low
    sigmoid = torch.nn.functional.logsigmoid
    return Case(
        Uniform(low, high),
        lambda u: low + width * torch.sigmoid(u),
        lambda v: torch.full_like(v, -math.log(width)),
        lambda u: math.log(width) + sigmoid(u) + sigmoid(-u),
        stats.uniform(low, width).cdf,
    )


CASES: dict[str, Case] = {
    "normal": Case(
        Normal(0.7, 1.3),
        lambda u: u,
        td.Normal(_number(0.7), _number(1.3)).log_prob,
        torch.zeros_like,
        stats.norm(0.7, 1.3).cdf,
    ),
    "log-normal": _exponential(
        LogNormal(-4.0, 0.6),
        td.LogNormal(_number(-4.0), _number(0.6)).log_prob,
        stats.lognorm(0.6, scale=math.exp(-4.0)).cdf,
    ),
    "dimension-scaled": _exponential(
        LogNormal(math.sqrt(2), math.sqrt(3), scaled_by_dim=True).at(D),
        td.LogNormal(_number(math.sqrt(2) + math.log(D) / 2), _number(math.sqrt(3))).log_prob,
        stats.lognorm(math.sqrt(3), scale=math.exp(math.sqrt(2)) * math.sqrt(D)).cdf,
    ),
    "gamma": _exponential(
        Gamma(2.0, 0.15),
        td.Gamma(_number(2.0), _number(0.15)).log_prob,
        stats.gamma(2.0, scale=1 / 0.15).cdf,
    ),
    "gamma at 0": _exponential(
        Gamma(0.05, 10.0),
        td.Gamma(_number(0.05), _number(10.0)).log_prob,
        stats.gamma(0.05, scale=0.1).cdf,
    ),
    "gamma far out": _exponential(
        Gamma(30000.0, 0.5),
        td.Gamma(_number(30000.0), _number(0.5)).log_prob,
        stats.gamma(30000.0, scale=2.0).cdf,
    ),
    "half-cauchy": _exponential(
        HalfCauchy(0.1), td.HalfCauchy(_number(0.1)).log_prob, stats.halfcauchy(scale=0.1).cdf
    ),
    "horseshoe": _exponential(
        Horseshoe(0.1),
        lambda v: torch.log(torch.log1p((0.1 / v) ** 2)) - math.log(0.1 * math.pi),
        _horseshoe_cdf(0.1),
    ),
    "uniform": _uniform(0.0, 2.0),
    "uniform off 0": _uniform(0.5, 3.0),
}
# The coordinates about which a prior has its mass.
CENTRE = {"log-normal": -4.0, "gamma far out": 11.0, "gamma at 0": -20.0}


def around(name: str, seed: int = 0, spread: float = 1.5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(K, J, generator=generator, dtype=DTYPE)
    return CENTRE.get(name, 0.0) + spread * noise


# --- densities


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_densities_and_gradients_are_those_of_the_natural_value(name: str, seed: int) -> None:
    case, u = CASES[name], around(name, seed).requires_grad_()
    each = case.log_density(case.natural(u)) + case.log_jacobian(u)
    (expected,) = torch.autograd.grad(each.sum(), u)
    value, gradient = case.prior.log_density(u.detach())
    assert value.shape == (K,)
    assert gradient.shape == (K, J)
    # Terms of either sign as great as e^u may cancel; rounding is relative to them.
    size = max(1.0, float(each.detach().abs().max()), float(u.detach().exp().max()))
    torch.testing.assert_close(value, each.sum(-1).detach(), rtol=1e-12, atol=1e-13 * size)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-13 * size)


@pytest.mark.parametrize("name", CASES)
def test_a_density_integrates_to_one(name: str) -> None:
    prior, centre = CASES[name].prior, CENTRE.get(name, 0.0)

    def density(u: float) -> float:
        return float(prior.log_density(torch.tensor([[u]], dtype=DTYPE))[0].exp())

    breaks = [centre - 200, centre - 20, centre - 3, centre - 0.3, centre + 0.3]
    breaks += [centre + 3, centre + 20, centre + 200]
    total = sum(quad(density, *ends, epsabs=1e-10, limit=200)[0] for ends in pairwise(breaks))
    left_out = math.exp(-200 * 0.05) if name == "gamma at 0" else 0.0
    assert total == pytest.approx(1.0, abs=1e-7 + 2 * left_out)


@pytest.mark.parametrize("name", CASES)
def test_natural_values_are_those_of_the_transform(name: str) -> None:
    case, u = CASES[name], around(name)
    torch.testing.assert_close(case.prior.constrain(u), case.natural(u), rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_pulled_back_from_the_log_natural_value(name: str) -> None:
    case, u = CASES[name], around(name).requires_grad_()
    target = case.natural(u).log() if case.prior.positive else case.natural(u)
    weight = around("normal", seed=1)
    (expected,) = torch.autograd.grad((weight * target).sum(), u)
    pulled = case.prior.pull_back(u.detach(), weight)
    torch.testing.assert_close(pulled, expected, rtol=1e-13, atol=1e-15)


# --- far out


EXTREMES = [-800.0, -700.0, -400.0, -343.0, -40.0, -20.1, -19.9, -12.5]
EXTREMES += [19.9, 20.1, 37.0, 343.0, 400.0, 700.0]


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_nan_far_out(name: str) -> None:
    prior, u = CASES[name].prior, torch.tensor([EXTREMES], dtype=DTYPE).T
    value, gradient = prior.log_density(u)
    assert not bool(value.isnan().any())
    assert not bool(gradient.isnan().any())
    assert bool(gradient[value.isfinite()].isfinite().all())
    pulled = prior.pull_back(u, torch.ones_like(u))
    assert bool(pulled.isfinite().all())
    assert bool(prior.constrain(u).isfinite().all())


@pytest.mark.parametrize("u", EXTREMES)
@pytest.mark.parametrize("name", ["half-cauchy", "horseshoe"])
def test_heavy_tails_are_right_to_the_last_digit_far_out(name: str, u: float) -> None:
    with mpmath.workdps(60):
        scale = mpmath.mpf(0.1)

        def log_density(at: Any) -> Any:
            square = (scale / mpmath.exp(at)) ** 2
            if name == "horseshoe":
                return mpmath.log(mpmath.log1p(square)) - mpmath.log(mpmath.pi * scale) + at
            return mpmath.log(2 / (mpmath.pi * scale) / (1 + 1 / square)) + at

        expected, slope = float(log_density(mpmath.mpf(u))), float(mpmath.diff(log_density, u))
    point = torch.tensor([[u]], dtype=DTYPE)
    value, gradient = CASES[name].prior.log_density(point)
    assert float(value) == pytest.approx(expected, rel=1e-14, abs=1e-14)
    assert float(gradient) == pytest.approx(slope, rel=1e-12, abs=1e-15)


# --- draws


@pytest.mark.parametrize("name", CASES)
def test_draws_have_the_density(name: str) -> None:
    case = CASES[name]
    u = case.prior.sample(Streams.named(5, "draws", runs=2), 401, J)
    assert u.shape == (2, 401, J)
    assert u.dtype == DTYPE
    assert bool(u.isfinite().all())
    natural = case.prior.constrain(u.flatten()[:, None])
    assert stats.kstest(natural.flatten().numpy(), case.cdf).pvalue > 1e-3


@pytest.mark.parametrize("lowest", [0, 1])
@pytest.mark.parametrize("name", CASES)
def test_a_uniform_number_of_0_is_a_finite_draw(
    name: str, lowest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of 2^53 is, the first or the second that is asked for."""
    numbers = [torch.full((1, K, J), 0.5, dtype=DTYPE) for _ in range(3)]
    numbers[lowest] = torch.zeros_like(numbers[lowest])
    monkeypatch.setattr(Streams, "uniform", lambda streams, *shape: numbers.pop(0))
    u = CASES[name].prior.sample(Streams.named(5, "draws"), K, J)
    assert bool(u.isfinite().all())


@pytest.mark.parametrize("name", [*CASES, "saas", "fixed"])
def test_a_run_draws_what_it_draws_alone(name: str) -> None:
    named: dict[str, Prior] = {"saas": Saas(), "fixed": Fixed(0.5)}
    prior = named[name] if name in named else CASES[name].prior
    size = prior.size(J)
    batch = prior.sample(Streams.named(5, "law", runs=3), 11, size)
    alone = prior.sample(Streams.named(5, "law"), 11, size)
    assert batch.shape == (3, 11, size)
    torch.testing.assert_close(batch[:1], alone, rtol=1e-14, atol=1e-14)
    if size:
        assert not bool((batch[0] == batch[1]).any())


# --- the structured ones


def saas_point(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(K, D + 1, generator=generator, dtype=DTYPE)


def test_saas_is_a_global_and_local_half_cauchy_inverse_square_scales() -> None:
    u = saas_point().requires_grad_()
    tau, rho = u[:, :1].exp(), u[:, 1:].exp()
    value = td.HalfCauchy(_number(0.1)).log_prob(tau).sum(-1)
    value = value + td.HalfCauchy(_number(1.0)).log_prob(rho).sum(-1) + u.sum(-1)
    (expected,) = torch.autograd.grad(value.sum(), u)
    ours, gradient = Saas(0.1).log_density(u.detach())
    torch.testing.assert_close(ours, value.detach(), rtol=1e-13, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)
    lengthscale = Saas(0.1).constrain(u.detach())
    torch.testing.assert_close(lengthscale, (tau * rho).detach().rsqrt(), rtol=1e-14, atol=0)


def test_saas_pulls_gradients_back_to_the_global_scale_too() -> None:
    u, prior = saas_point().requires_grad_(), Saas(0.1)
    weight = saas_point(seed=1)[:, 1:]
    (expected,) = torch.autograd.grad((weight * prior.constrain(u).log()).sum(), u)
    torch.testing.assert_close(prior.pull_back(u.detach(), weight), expected, rtol=1e-13, atol=0)


def test_saas_draws_have_the_density() -> None:
    u = Saas(0.1).sample(Streams.named(0, "saas", runs=2), 503, D + 1)
    tau, rho = u[..., 0].exp().flatten(), u[..., 1:].exp().flatten()
    assert stats.kstest(tau.numpy(), stats.halfcauchy(scale=0.1).cdf).pvalue > 1e-3
    assert stats.kstest(rho.numpy(), stats.halfcauchy().cdf).pvalue > 1e-3
    joint = torch.corrcoef(torch.stack([u[..., 0].flatten(), u[..., 1].flatten()]))
    assert abs(float(joint[0, 1])) < 0.15


def test_saas_is_finite_far_out() -> None:
    u = torch.full((2, D + 1), 300.0, dtype=DTYPE)
    u[1] = -u[1]
    value, gradient = Saas().log_density(u)
    assert bool(value.isfinite().all())
    assert bool(gradient.isfinite().all())


def test_a_fixed_value_has_no_coordinate_and_no_density() -> None:
    prior, nothing = Fixed(0.3), torch.zeros(K, 0, dtype=DTYPE)
    assert prior.size(1) == prior.size(D) == 0
    assert prior.constrain(nothing).tolist() == [[0.3]] * K
    value, gradient = prior.log_density(nothing)
    assert value.tolist() == [0.0] * K
    assert gradient.shape == (K, 0)


@pytest.mark.parametrize("name", CASES)
def test_a_gaussian_says_so_and_no_other_does(name: str) -> None:
    known = CASES[name].prior.gaussian()
    expected = {
        "normal": (0.7, 1.3),
        "log-normal": (-4.0, 0.6),
        "dimension-scaled": (math.sqrt(2) + math.log(D) / 2, math.sqrt(3)),
    }
    assert known == (pytest.approx(expected[name], rel=1e-15) if name in expected else None)


# --- options


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: Normal(math.nan, 1.0), "Normal: loc=nan"),
        (lambda: Normal(0.0, 0.0), "Normal: scale=0.0"),
        (lambda: LogNormal(0.0, -1.0), "LogNormal: scale=-1.0"),
        (lambda: LogNormal(0.0, 1e-160), "LogNormal: scale=1e-160"),
        (lambda: LogNormal(math.inf, 1.0), "LogNormal: loc=inf"),
        (lambda: Gamma(0.0, 1.0), "Gamma: concentration=0.0"),
        (lambda: Gamma(1.0, math.inf), "Gamma: rate=inf"),
        (lambda: HalfCauchy(-1.0), "HalfCauchy: scale=-1.0"),
        (lambda: Horseshoe(math.nan), "Horseshoe: scale=nan"),
        (lambda: Uniform(-0.1, 1.0), "Uniform: low=-0.1"),
        (lambda: Uniform(1.0, 1.0), "Uniform: high=1.0"),
        (lambda: Uniform(0.0, math.inf), "Uniform: high=inf"),
        (lambda: Fixed(math.nan), "Fixed: value=nan"),
        (lambda: Saas(0.0), "Saas: scale=0.0"),
    ],
)
def test_a_value_out_of_range_is_an_error_that_names_it(
    make: Callable[[], Prior], names: str
) -> None:
    with pytest.raises(InvalidOption, match=names):
        make()
