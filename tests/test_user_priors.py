"""Priors that users bring, from gpytorch, torch and pyro, as they are and cut off at 0."""

import copy
import math
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import pyro.distributions as pyrod
import pytest
import torch
from gpytorch import priors as gp
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from torch import distributions as td

from gpbo.backend import DTYPE, Streams
from gpbo.errors import InvalidOption
from gpbo.hyperparameters import HyperparameterPrior
from gpbo.user_priors import FromDistribution
from tests.monte_carlo import random_normal

K, J, D = 3, 5, 7
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A distribution, the interval of its natural values, and its distribution function."""

    distribution: td.Distribution
    bounds: tuple[float, float]
    cdf: Callable[[Floats], Floats] | None = None

    @property
    def positive(self) -> bool:
        return self.bounds[0] >= 0

    def natural(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The natural value and the log-Jacobian at ``u``, by hand."""
        low, high = self.bounds
        if math.isinf(low):
            return u, torch.zeros_like(u)
        if math.isinf(high):
            return u.exp(), u
        log_slope = torch.nn.functional.logsigmoid(u) + torch.nn.functional.logsigmoid(-u)
        return low + (high - low) * torch.sigmoid(u), math.log(high - low) + log_slope


REAL, HALF = (-math.inf, math.inf), (0.0, math.inf)


def _truncated(frozen: stats.rv_continuous) -> Callable[[Floats], Floats]:
    below = frozen.cdf(0.0)
    return lambda v: (frozen.cdf(v) - below) / (1 - below)


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=DTYPE)


def _gpytorch_cases() -> dict[str, Case]:
    one = torch.ones(1, dtype=DTYPE)
    box = gp.SmoothedBoxPrior(0.1 * one, 2.0, 0.3)
    return {
        "Gamma": Case(gp.GammaPrior(_number(3), 6), HALF, stats.gamma(3.0, scale=1 / 6).cdf),
        "LogNormal": Case(
            gp.LogNormalPrior(_number(0.5), 0.8), HALF, stats.lognorm(0.8, scale=math.exp(0.5)).cdf
        ),
        "HalfCauchy": Case(gp.HalfCauchyPrior(_number(0.5)), HALF, stats.halfcauchy(0, 0.5).cdf),
        "HalfNormal": Case(gp.HalfNormalPrior(_number(2)), HALF, stats.halfnorm(0, 2.0).cdf),
        "Uniform": Case(
            gp.UniformPrior(_number(0.25), 3), (0.25, 3.0), stats.uniform(0.25, 2.75).cdf
        ),
        "Uniform mean": Case(
            gp.UniformPrior(_number(-1), 2), (-1.0, 2.0), stats.uniform(-1.0, 3.0).cdf
        ),
        "Normal": Case(gp.NormalPrior(_number(0.3), 1.2), REAL, stats.norm(0.3, 1.2).cdf),
        "Normal cut off": Case(
            gp.NormalPrior(_number(0.5), 1), HALF, _truncated(stats.norm(0.5, 1.0))
        ),
        "SmoothedBox": Case(gp.SmoothedBoxPrior(-one, 1.0, 0.3), REAL),
        "SmoothedBox cut off": Case(box, HALF),
        "Horseshoe cut off": Case(gp.HorseshoePrior(_number(0.1)), HALF),
        "MultivariateNormal of one": Case(
            gp.MultivariateNormalPrior(0.5 * one, torch.eye(1, dtype=DTYPE)), REAL
        ),
    }


def _other_cases() -> dict[str, Case]:
    one = torch.ones(1, dtype=DTYPE)
    return {
        "torch Gamma of a batch of one": Case(td.Gamma(2 * one[None], 3 * one[None]), HALF),
        "torch Laplace": Case(
            td.Laplace(_number(0.2), _number(2)), REAL, stats.laplace(0.2, 2).cdf
        ),
        "torch Weibull": Case(
            td.Weibull(2 * one, 1.5 * one), HALF, stats.weibull_min(1.5, scale=2).cdf
        ),
        "pyro InverseGamma": Case(
            pyrod.InverseGamma(3 * one, 2 * one), HALF, stats.invgamma(3.0, scale=2.0).cdf
        ),
        "pyro Exponential": Case(pyrod.Exponential(_number(4)), HALF, stats.expon(scale=0.25).cdf),
        "pyro Beta": Case(pyrod.Beta(2 * one, 3 * one), (0.0, 1.0), stats.beta(2, 3).cdf),
        "pyro StudentT cut off": Case(pyrod.StudentT(4 * one), HALF, _truncated(stats.t(4.0))),
    }


CASES = {f"gpytorch {name}": case for name, case in _gpytorch_cases().items()} | _other_cases()


def prior_of(name: str) -> FromDistribution:
    return FromDistribution(CASES[name].distribution, positive=CASES[name].positive)


@pytest.mark.parametrize("shape", [(K, J), (K, 1), (1, J), (J, J)])
@pytest.mark.parametrize("name", CASES)
def test_densities_and_gradients_are_the_distribution_s(name: str, shape: tuple[int, int]) -> None:
    case, u = CASES[name], random_normal(0, *shape).requires_grad_()
    natural, log_jacobian = case.natural(u)
    # Value by value, so that no batch or event axis can be taken for another.
    single = (*case.distribution.batch_shape, *case.distribution.event_shape)
    each = [case.distribution.log_prob(value.reshape(single)) for value in natural.flatten()]
    density = torch.stack([value.reshape(()) for value in each]).reshape(shape)
    total = (density + log_jacobian).sum(-1)
    (expected,) = torch.autograd.grad(total.sum(), u)
    value, gradient = prior_of(name).log_density(u.detach())
    torch.testing.assert_close(value, total.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("single", "double", "parameters"),
    [
        (gp.GammaPrior(3.0, 0.15), td.Gamma, ("concentration", "rate")),
        (gp.LogNormalPrior(0.3, 0.7), td.LogNormal, ("loc", "scale")),
        (gp.HalfCauchyPrior(0.3), td.HalfCauchy, ("scale",)),
        (gp.UniformPrior(0.1, 2.3), td.Uniform, ("low", "high")),
        (td.Gamma(3.0, 0.15), td.Gamma, ("concentration", "rate")),
        (pyrod.LogNormal(0.3, 0.7), td.LogNormal, ("loc", "scale")),
    ],
)
def test_a_prior_made_from_python_numbers_is_evaluated_in_double_precision(
    single: td.Distribution, double: Callable[..., td.Distribution], parameters: tuple[str, ...]
) -> None:
    values = [getattr(single, name) for name in parameters]
    expected = FromDistribution(double(*(each.to(DTYPE) for each in values)), positive=True)
    prior = FromDistribution(single, positive=True)
    u = random_normal(0, K, J)
    for ours, theirs in zip(prior.log_density(u), expected.log_density(u), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(prior.constrain(u), expected.constrain(u), rtol=1e-15, atol=0)
    # The user's own is as it was.
    assert {getattr(single, name).dtype for name in parameters} == {torch.float32}


@pytest.mark.parametrize("name", CASES)
def test_natural_values_and_gradients_of_the_transform(name: str) -> None:
    case, prior, u = CASES[name], prior_of(name), random_normal(0, K, J).requires_grad_()
    natural, _ = case.natural(u)
    torch.testing.assert_close(prior.constrain(u.detach()), natural.detach())
    weight = random_normal(1, K, J)
    target = natural.log() if case.positive else natural
    (expected,) = torch.autograd.grad((weight * target).sum(), u)
    torch.testing.assert_close(prior.pull_back(u.detach(), weight), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("name", ["gpytorch Normal cut off", "gpytorch Uniform", "pyro Beta"])
def test_gradients_are_there_where_autograd_is_off(
    name: str, mode: Callable[[], AbstractContextManager[None]]
) -> None:
    # The sampler runs in inference mode, whose tensors autograd refuses.
    prior, u = prior_of(name), random_normal(0, K, J)
    expected = (*prior.log_density(u), prior.pull_back(u, torch.ones_like(u)))
    with mode():
        inside = 1.0 * u
        got = (*prior.log_density(inside), prior.pull_back(inside, torch.ones_like(inside)))
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
        assert not ours.requires_grad


@pytest.mark.parametrize("name", CASES)
def test_far_out_the_density_is_minus_infinity_and_nothing_raises(name: str) -> None:
    u = torch.tensor([[-1e4, -750.0, -90.0, 90.0, 720.0, torch.nan, 0.3]], dtype=DTYPE).T
    value, gradient = prior_of(name).log_density(u)
    assert not bool(value.isnan().any())
    assert float(value[5]) == -math.inf
    assert bool(gradient[value.isfinite()].isfinite().all())
    alone, alone_gradient = prior_of(name).log_density(u[6:])
    torch.testing.assert_close(value[6:], alone, rtol=1e-14, atol=0)
    torch.testing.assert_close(gradient[6:], alone_gradient, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_draws_are_in_the_support_and_have_the_density(name: str) -> None:
    case, prior = CASES[name], prior_of(name)
    u = prior.sample(Streams.named(2, "draws", runs=2), 211, J)
    assert u.shape == (2, 211, J)
    assert u.dtype == DTYPE
    assert bool(u.isfinite().all())
    assert len(u.unique()) == u.numel()
    natural = prior.constrain(u.reshape(-1, 1)).flatten().numpy()
    low, high = case.bounds
    assert low <= natural.min() < natural.max() <= high
    if case.cdf is not None:
        assert stats.kstest(natural, case.cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", ["gpytorch Gamma", "gpytorch Normal cut off"])
def test_a_run_draws_what_it_draws_alone_and_leaves_the_global_generator_alone(name: str) -> None:
    prior, before = prior_of(name), torch.get_rng_state()
    batch = prior.sample(Streams.named(2, "law", runs=3), 11, J)
    alone = prior.sample(Streams.named(2, "law"), 11, J)
    assert torch.equal(batch[:1], alone)
    assert not bool((batch[0] == batch[1]).any())
    assert torch.equal(torch.get_rng_state(), before)


def test_no_count_of_draws_is_no_draw() -> None:
    assert prior_of("gpytorch Gamma").sample(Streams.named(0, "none"), 0, J).shape == (1, 0, J)


def test_a_prior_cut_off_to_nothing_cannot_be_drawn_from() -> None:
    with pytest.raises(InvalidOption, match=r"NormalPrior.*hardly any of its draws"):
        FromDistribution(gp.NormalPrior(-5.0, 0.1), positive=True)
    with pytest.raises(InvalidOption, match=r"^outputscale=NormalPrior.*hardly any of its draws"):
        HyperparameterPrior(outputscale=gp.NormalPrior(-5.0, 0.1))


@pytest.mark.parametrize(
    ("distribution", "positive", "says"),
    [
        (gp.GammaPrior(torch.ones(2), torch.ones(2)), True, "expected a prior of a single number"),
        (
            gp.SmoothedBoxPrior(torch.zeros(2), torch.ones(2)),
            True,
            "expected a prior of a single number",
        ),
        (td.Dirichlet(torch.ones(1)), True, "expected a prior of a single number"),
        (td.Poisson(torch.tensor(3.0)), True, "a support that torch.distributions.biject_to"),
        (td.Categorical(torch.ones(3)), False, "a support that torch.distributions.biject_to"),
        (gp.UniformPrior(-1.0, 1.0), True, "a prior on positive numbers"),
        (
            pyrod.ImproperUniform(td.constraints.positive, torch.Size(), torch.Size()),
            True,
            "that can be sampled",
        ),
    ],
)
def test_a_distribution_that_cannot_serve_is_an_error(
    distribution: td.Distribution, positive: bool, says: str
) -> None:
    with pytest.raises(InvalidOption, match=says):
        FromDistribution(distribution, positive=positive)


@pytest.mark.parametrize(
    "distribution", [gp.GammaPrior(3.0, 6.0), gp.HalfCauchyPrior(0.5), td.Uniform(0.01, 2.0)]
)
def test_a_prior_first_met_within_a_sampler_serves_afterwards_too(
    distribution: td.Distribution,
) -> None:
    """Samplers run in inference mode, whose tensors cannot be differentiated."""
    u = torch.linspace(-1.0, 1.0, 6, dtype=DTYPE).view(3, 2)
    expected = FromDistribution(distribution, positive=True).log_density(u)
    with torch.inference_mode():
        prior = FromDistribution(copy.deepcopy(distribution), positive=True)
        within = prior.log_density(u)
    for found in (within, prior.log_density(u)):
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    fresh = FromDistribution(distribution, positive=True)
    fresh._copies.clear()  # as on a GPU, where nothing has been drawn
    with torch.inference_mode():
        assert fresh.log_density(u)[0].isfinite().all()
    assert fresh.log_density(u)[0].isfinite().all()


def test_a_prior_that_was_pickled_and_read_within_inference_mode_serves_afterwards_too() -> None:
    prior = FromDistribution(td.StudentT(4.0), positive=False)
    u = torch.linspace(-1.0, 1.0, 6, dtype=DTYPE).view(3, 2)
    with torch.inference_mode():
        again = pickle.loads(pickle.dumps(prior))
    for ours, theirs in zip(again.log_density(u), prior.log_density(u), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_distribution_that_states_more_support_than_it_has_is_minus_infinite_there() -> None:
    uniform = td.TransformedDistribution(td.Uniform(0.0, 1.0), [td.AffineTransform(0.1, 2.0)])
    prior = FromDistribution(uniform, positive=True)
    u = torch.tensor([[-5.0], [0.0], [5.0]], dtype=DTYPE)
    value, gradient = prior.log_density(u)
    assert value.isfinite().tolist() == [False, True, False]
    assert float(value[1]) == pytest.approx(-math.log(2.0))  # u = 0 is the value 1
    assert float(gradient[1]) == pytest.approx(1.0)
    drawn = prior.constrain(prior.sample(Streams.named(0, "shifted"), 101, 1)[0])
    assert 0.1 <= float(drawn.min()) < float(drawn.max()) <= 2.1


def test_a_density_that_is_nan_outside_of_the_support_is_minus_infinite_there() -> None:
    gamma = td.TransformedDistribution(td.Gamma(2.0, 1.0), [td.AffineTransform(0.5, 1.0)])
    prior = FromDistribution(gamma, positive=True)
    value, gradient = prior.log_density(torch.tensor([[-5.0], [0.0], [1.0]], dtype=DTYPE))
    assert float(value[0]) == -math.inf
    assert float(value[1]) == pytest.approx(math.log(0.5) - 0.5)  # u = 0 is the value 1
    assert float(gradient[1]) == pytest.approx(2.0)
    assert value[2].isfinite().all()


def test_draws_that_overflow_are_drawn_again() -> None:
    wide = FromDistribution(td.LogNormal(0.0, 500.0), positive=True)
    u = wide.sample(Streams.named(5, "overflow"), 211, 3)
    assert u.isfinite().all()
    assert 690 < float(u.max()) < math.log(torch.finfo(DTYPE).max)


def test_a_user_s_prior_shows_its_distribution() -> None:
    shown = repr(prior_of("pyro Exponential"))
    assert shown.startswith("FromDistribution(Exponential(rate")


@pytest.mark.parametrize(
    "distribution",
    [gp.GammaPrior(3.0, 6.0), gp.HalfCauchyPrior(0.5), gp.UniformPrior(0.1, 2.0), td.Chi2(3.0)],
)
def test_a_prior_follows_the_numbers_to_their_device(
    distribution: td.Distribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``meta`` stands in for a GPU: what is on it does not mix with what is on the CPU.

    Nothing there has a value to be validated.
    """
    monkeypatch.setattr(td.Distribution, "_validate_sample", lambda self, value: None)
    prior = FromDistribution(distribution, positive=True)
    u = torch.linspace(-1.0, 1.0, 6, dtype=DTYPE).view(3, 2)
    value, gradient = prior.log_density(u.to("meta"))
    assert value.device.type == gradient.device.type == "meta"
    assert prior.constrain(u.to("meta")).device.type == "meta"
    assert prior.log_density(u)[0].isfinite().all()


def test_drawing_leaves_the_generators_of_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch, "manual_seed", seeded.append)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    FromDistribution(gp.GammaPrior(3.0, 6.0), positive=True).sample(Streams([0, 1]), 5, 2)
    assert seeded == []


def test_chains_start_without_torch_s_global_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which an objective in another thread may be using."""
    prior = prior_of("gpytorch Gamma")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        again = prior_of("gpytorch Gamma")
    monkeypatch.setattr(gp.GammaPrior, "sample", None)
    monkeypatch.setattr(torch.random, "fork_rng", None)
    first, second = (each.sample(Streams.named(2, "law"), 11, J) for each in (prior, again))
    assert torch.equal(first, second)
