"""The posterior against gpytorch and autograd; fantasies against conditioning and prediction."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import gpytorch
import pytest
import torch
from botorch.acquisition.analytic import (
    LogExpectedImprovement,
    LogNoisyExpectedImprovement,
    PosteriorMean,
)
from botorch.acquisition.logei import qLogExpectedImprovement, qLogNoisyExpectedImprovement
from botorch.acquisition.objective import ScalarizedPosteriorTransform
from botorch.models import SingleTaskGP
from botorch.optim import optimize_acqf
from botorch.sampling import SobolQMCNormalSampler
from botorch.utils.sampling import manual_seed
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gpbo.acquisition import LogExpectedImprovement as OwnLogExpectedImprovement
from gpbo.backend import DTYPE, Streams
from gpbo.errors import InvalidData, InvalidOption
from gpbo.linalg import cholesky
from gpbo.surrogate import Surrogate
from tests.monte_carlo import random_uniform, unchecked_shapes

R, S, N, D, Q, M = 2, 3, 11, 5, 7, 4
NUS = (0.5, 1.5, 2.5)


@dataclass(frozen=True)
class Problem:
    """What a surrogate is conditioned on."""

    x: Tensor
    y: Tensor
    mask: Tensor
    lengthscale: Tensor
    outputscale: Tensor
    noise_variance: Tensor
    mean: Tensor

    def condition(self, nu: float = 2.5) -> Surrogate:
        return Surrogate.condition(**self.arguments(), nu=nu)

    def arguments(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def rows(self, rows: slice) -> "Problem":
        return Problem(**{name: value[rows] for name, value in self.arguments().items()})

    def draws(self, rows: slice) -> "Problem":
        own = ("lengthscale", "outputscale", "noise_variance", "mean")
        return replace(self, **{name: getattr(self, name)[:, rows] for name in own})


def problem(
    r: int = R, s: int = S, n: int = N, d: int = D, seed: int = 0, masked: int = 0
) -> Problem:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=DTYPE)

    x = draw(r, n, d)
    mask = torch.ones(r, n, dtype=torch.bool)
    # Another number of observations in every run, and gaps anywhere.
    for run in range(r):
        mask[run, torch.randperm(n, generator=generator)[: max(masked - run, 0)]] = False
    return Problem(
        x=x,
        y=torch.sin(7.0 * x.sum(-1)) + 0.3 * draw(r, n),
        mask=mask,
        lengthscale=0.3 + 2 * draw(r, s, d),
        outputscale=0.5 + draw(r, s),
        noise_variance=1e-4 + 0.1 * draw(r, s),
        mean=draw(r, s) - 0.5,
    )


def points(r: int = R, q: int = Q, d: int = D, seed: int = 1) -> Tensor:
    return random_uniform(seed, r, q, d)


class _ExactGP(gpytorch.models.ExactGP):
    """gpytorch's exact Gaussian process with the hyperparameters of one draw."""

    def __init__(self, given: Problem, run: int, draw: int, nu: float) -> None:
        kept = given.mask[run]
        likelihood = gpytorch.likelihoods.GaussianLikelihood(
            noise_constraint=gpytorch.constraints.GreaterThan(1e-8)
        ).double()
        likelihood.noise = given.noise_variance[run, draw]
        super().__init__(given.x[run][kept], given.y[run][kept], likelihood)
        self.mean_module = gpytorch.means.ConstantMean().double()
        self.mean_module.constant.data = given.mean[run, draw]
        dim = given.x.shape[-1]
        self.covar_module = gpytorch.kernels.ScaleKernel(
            gpytorch.kernels.MaternKernel(nu, ard_num_dims=dim)
        ).double()
        self.covar_module.outputscale = given.outputscale[run, draw]
        self.covar_module.base_kernel.lengthscale = given.lengthscale[run, draw]
        self.eval()
        likelihood.eval()

    def forward(self, x: Tensor) -> Any:
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


def gpytorch_moments(given: Problem, candidates: Tensor, nu: float) -> tuple[Tensor, Tensor]:
    runs, draws = given.mean.shape
    mean = torch.empty(runs, draws, candidates.shape[1], dtype=DTYPE)
    variance = torch.empty_like(mean)
    for run in range(runs):
        for draw in range(draws):
            # With gradients off, gpytorch knows that a point is at distance 0 from itself.
            with torch.no_grad():
                posterior = _ExactGP(given, run, draw, nu)(candidates[run])
                mean[run, draw], variance[run, draw] = posterior.mean, posterior.variance
    return mean, variance


# --- moments


@pytest.mark.parametrize("nu", NUS)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32), masked=st.sampled_from([0, 4]))
def test_mean_and_variance_are_gpytorch_s(nu: float, seed: int, masked: int) -> None:
    given_, candidates = problem(seed=seed, masked=masked), points(seed=seed + 1)
    mean, variance = given_.condition(nu).moments(candidates)
    expected_mean, expected_variance = gpytorch_moments(given_, candidates, nu)
    assert mean.shape == variance.shape == (R, S, Q)
    torch.testing.assert_close(mean, expected_mean, rtol=0, atol=1e-11)
    torch.testing.assert_close(variance, expected_variance, rtol=0, atol=1e-11)


def test_the_posterior_of_one_observation_is_the_formula() -> None:
    # At the observation: mean m + a (y - m) / (a + v), variance a v / (a + v).
    one = torch.ones(1, 1, dtype=DTYPE)
    given_ = Problem(
        x=0.3 * one[None],
        y=2.0 * one,
        mask=one.bool(),
        lengthscale=one[None],
        outputscale=3.0 * one,
        noise_variance=1.0 * one,
        mean=-2.0 * one,
    )
    mean, variance = given_.condition().moments(0.3 * one[None])
    assert float(mean) == pytest.approx(-2 + 3 * 4 / 4, rel=1e-14)
    assert float(variance) == pytest.approx(3 * 1 / 4, rel=1e-14)


def test_far_from_everything_the_posterior_is_the_prior() -> None:
    given_ = replace(problem(), lengthscale=1e-3 * torch.ones(R, S, D, dtype=DTYPE))
    mean, variance = given_.condition().moments(points())
    torch.testing.assert_close(mean, given_.mean[..., None].expand(R, S, Q), rtol=0, atol=1e-12)
    expected = given_.outputscale[..., None].expand(R, S, Q)
    torch.testing.assert_close(variance, expected, rtol=1e-12, atol=0)


def test_without_an_observation_the_posterior_is_the_prior() -> None:
    given_ = problem()
    given_ = replace(given_, mask=torch.zeros_like(given_.mask))
    surrogate = given_.condition()
    mean, variance = surrogate.moments(points())
    torch.testing.assert_close(mean, given_.mean[..., None].expand(R, S, Q), rtol=0, atol=1e-15)
    expected = given_.outputscale[..., None].expand(R, S, Q)
    torch.testing.assert_close(variance, expected, rtol=1e-14, atol=0)
    assert torch.equal(surrogate.incumbent, given_.mean)
    assert torch.equal(surrogate.least_observed, given_.mean)


@pytest.mark.parametrize("nu", NUS)
def test_the_variance_is_positive_even_at_noiseless_observations(nu: float) -> None:
    given_ = problem()
    given_ = replace(given_, noise_variance=torch.full_like(given_.noise_variance, 1e-30))
    mean, variance, _, variance_gradient = given_.condition(nu).moments_and_gradients(given_.x)
    floor = 1e-14 * given_.outputscale[..., None].expand_as(variance)
    # What is left is rounding of either sign: it is not below the floor, and has no slope there.
    at_floor = variance == floor
    assert bool(at_floor.any())
    assert bool((variance >= floor).all())
    assert not bool(variance_gradient[at_floor].any())
    torch.testing.assert_close(mean, given_.y[:, None].expand_as(mean), rtol=0, atol=1e-9)


# --- gradients


@pytest.mark.parametrize("nu", NUS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32), masked=st.sampled_from([0, 4]))
def test_gradients_in_closed_form_are_those_of_autograd(nu: float, seed: int, masked: int) -> None:
    surrogate = problem(seed=seed, masked=masked).condition(nu)
    candidates = points(seed=seed + 1).requires_grad_()
    mean, variance = surrogate.moments(candidates)
    closed = surrogate.moments_and_gradients(candidates.detach())
    assert closed[2].shape == closed[3].shape == (R, S, Q, D)
    torch.testing.assert_close(closed[0], mean.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(closed[1], variance.detach(), rtol=1e-12, atol=1e-12)
    for draw in range(S):
        for moment, gradient in ((mean, closed[2]), (variance, closed[3])):
            (expected,) = torch.autograd.grad(moment[:, draw].sum(), candidates, retain_graph=True)
            torch.testing.assert_close(gradient[:, draw], expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("nu", NUS)
def test_gradients_at_observations_are_finite(nu: float) -> None:
    given_ = problem()
    for moment in given_.condition(nu).moments_and_gradients(given_.x):
        assert bool(moment.isfinite().all())
    candidates = given_.x.clone().requires_grad_()
    mean, variance = given_.condition(nu).moments(candidates)
    (gradient,) = torch.autograd.grad((mean + variance).sum(), candidates)
    assert bool(gradient.isfinite().all())


# --- the incumbent


@pytest.mark.parametrize("nu", NUS)
@pytest.mark.parametrize("masked", [0, 4])
def test_the_incumbent_is_the_least_posterior_mean_where_there_are_observations(
    nu: float, masked: int
) -> None:
    given_ = problem(masked=masked)
    surrogate = given_.condition(nu)
    mean, _ = surrogate.moments(given_.x)
    least = torch.where(given_.mask[:, None], mean, torch.inf).amin(-1)
    torch.testing.assert_close(surrogate.incumbent, least, rtol=0, atol=1e-10)
    seen = given_.mask[:, None].expand_as(mean)
    torch.testing.assert_close(surrogate.fitted[seen], mean[seen], rtol=0, atol=1e-10)
    assert float((least - given_.y.amin(-1)[:, None]).abs().max()) > 1e-3
    observed = torch.where(given_.mask, given_.y, torch.inf).amin(-1)
    assert torch.equal(surrogate.least_observed, observed[:, None].expand_as(least))


# --- rows, draws and padding


def assert_same(left: Surrogate, right: Surrogate, candidates: Tensor, atol: float = 1e-11) -> None:
    ours, theirs = left.moments_and_gradients(candidates), right.moments_and_gradients(candidates)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=atol)
    torch.testing.assert_close(left.incumbent, right.incumbent, rtol=0, atol=atol)


@pytest.mark.parametrize("nu", NUS)
def test_a_run_in_a_batch_is_the_run_alone(nu: float) -> None:
    given_, candidates = problem(r=3, masked=4), points(r=3)
    whole = given_.condition(nu).moments_and_gradients(candidates)
    for run in range(3):
        one = slice(run, run + 1)
        alone = given_.rows(one).condition(nu).moments_and_gradients(candidates[one])
        for batch, single in zip(whole, alone, strict=True):
            torch.testing.assert_close(batch[one], single, rtol=0, atol=1e-11)


@pytest.mark.parametrize("nu", NUS)
def test_a_draw_in_a_batch_is_the_draw_alone(nu: float) -> None:
    given_, candidates = problem(masked=4), points()
    whole = given_.condition(nu).moments_and_gradients(candidates)
    alone = given_.draws(slice(1, 2)).condition(nu).moments_and_gradients(candidates)
    for batch, single in zip(whole, alone, strict=True):
        torch.testing.assert_close(batch[:, 1:2], single, rtol=0, atol=1e-11)


def padded(given_: Problem, filling: float) -> Problem:
    """The same with 6 absent points among the observations."""
    place = torch.tensor([0, 1, 4, 5, 6, 8, 9, 12, 13, 15, 16])
    x = torch.full((R, 17, D), filling, dtype=DTYPE)
    y, mask = x[..., 0].clone(), torch.zeros(R, 17, dtype=torch.bool)
    x[:, place], y[:, place], mask[:, place] = given_.x, given_.y, True
    return replace(given_, x=x, y=y, mask=mask)


@pytest.mark.parametrize("nu", NUS)
@pytest.mark.parametrize("filling", [0.0, 1e300, math.nan, -math.inf])
def test_padding_changes_nothing(nu: float, filling: float) -> None:
    given_ = problem()
    assert_same(padded(given_, filling).condition(nu), given_.condition(nu), points())


@pytest.mark.parametrize("outputscale", [1e-6, 1.0, 1e6])
def test_padding_changes_nothing_where_a_jitter_is_needed(outputscale: float) -> None:
    given_ = problem()
    x = given_.x[:, :1].expand(R, N, D).clone()
    scale = torch.full_like(given_.outputscale, outputscale)
    noise = 1e-18 * scale
    given_ = replace(given_, x=x, outputscale=scale, noise_variance=noise)
    without = given_.condition()
    assert bool((without.noise_variance > 1e-13 * scale).all())
    with_padding = padded(given_, 0.0).condition()
    torch.testing.assert_close(
        with_padding.noise_variance, without.noise_variance, rtol=1e-12, atol=0
    )


# --- failures and degenerate data


def broken(given_: Problem, where: str, value: float) -> Problem:
    """The same with one hyperparameter of run 1, draw 2 spoilt."""
    spoilt = getattr(given_, where).clone()
    spoilt[1, 2] = value
    return replace(given_, **{where: spoilt})


@pytest.mark.parametrize("where", ["noise_variance", "mean"])
def test_a_draw_that_is_not_finite_fails_without_an_observation_too(where: str) -> None:
    given_ = problem()
    given_ = replace(given_, x=given_.x[:, :0], y=given_.y[:, :0], mask=given_.mask[:, :0])
    assert given_.condition().succeeded.all()
    bad = broken(given_, where, math.nan).condition()
    assert torch.nonzero(~bad.succeeded).tolist() == [[1, 2]]
    assert float(getattr(bad, where)[1, 2]) == {"noise_variance": 1.0, "mean": 0.0}[where]


@pytest.mark.parametrize("nu", NUS)
@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("lengthscale", math.nan),
        ("lengthscale", 0.0),
        ("outputscale", math.nan),
        ("outputscale", math.inf),
        ("noise_variance", math.nan),
        ("noise_variance", math.inf),
        ("noise_variance", -10.0),
        ("mean", math.nan),
        ("mean", math.inf),
    ],
)
def test_a_draw_without_a_factor_answers_with_its_prior_and_touches_no_other(
    where: str, value: float, nu: float
) -> None:
    given_, candidates = problem(masked=4), points()
    good = given_.condition(nu)
    bad = broken(given_, where, value).condition(nu)
    for surrogate in (bad, bad.fantasize(points(q=M), torch.ones(R, M).bool(), streams())):
        for each in (*surrogate.moments_and_gradients(candidates), surrogate.incumbent):
            assert bool(each.isfinite().all())
        assert bool((surrogate.moments(candidates)[1] > 0).all())
    mean, variance = bad.moments(candidates)
    prior_mean = 0.0 if where == "mean" else float(given_.mean[1, 2])
    prior_variance = 1.0 if where == "outputscale" else float(given_.outputscale[1, 2])
    assert not bool(bad.succeeded[1, 2])
    assert mean[1, 2].tolist() == pytest.approx([prior_mean] * Q, rel=1e-14)
    assert variance[1, 2].tolist() == pytest.approx([prior_variance] * Q, rel=1e-14)
    assert float(bad.incumbent[1, 2]) == prior_mean
    others = torch.ones(R, S, dtype=torch.bool)
    others[1, 2] = False
    assert bool(bad.succeeded[others].all())
    for ours, theirs in zip((mean, variance), good.moments(candidates), strict=True):
        torch.testing.assert_close(ours[others], theirs[others], rtol=0, atol=1e-12)


DEGENERATE: dict[str, Callable[[], Problem]] = {
    "one observation": lambda: problem(n=1),
    "no noise to speak of": lambda: replace(
        problem(), noise_variance=1e-9 * torch.ones(R, S).to(DTYPE)
    ),
    "constant values": lambda: replace(problem(), y=torch.zeros(R, N, dtype=DTYPE)),
    "one point again and again": lambda: replace(problem(), x=torch.full((R, N, D), 0.3).to(DTYPE)),
    "points a rounding apart": lambda: replace(
        problem(), x=0.5 + 1e-15 * random_uniform(0, R, N, D)
    ),
    "an outlier": lambda: replace(problem(), y=problem().y + 1e6 * torch.eye(R, N, dtype=DTYPE)),
    "one dimension": lambda: problem(d=1),
    "sixty dimensions": lambda: problem(d=60),
    "tiny lengthscales": lambda: replace(
        problem(), lengthscale=1e-8 * torch.ones(R, S, D).to(DTYPE)
    ),
    "huge lengthscales": lambda: replace(
        problem(), lengthscale=1e8 * torch.ones(R, S, D).to(DTYPE)
    ),
    "huge outputscales": lambda: replace(problem(), outputscale=1e12 * torch.ones(R, S).to(DTYPE)),
}


@pytest.mark.parametrize("nu", NUS)
@pytest.mark.parametrize("kind", DEGENERATE)
def test_degenerate_data_give_finite_moments(kind: str, nu: float) -> None:
    given_ = DEGENERATE[kind]()
    surrogate = given_.condition(nu)
    dim = given_.x.shape[-1]
    pending = torch.cat([given_.x[:, :1], points(q=M - 1, d=dim)], dim=1)
    fantasised = surrogate.fantasize(pending, torch.ones(R, M).bool(), streams())
    assert bool(surrogate.succeeded.all())
    for each in (surrogate, fantasised):
        for candidates in (points(d=dim), given_.x):
            for moment in each.moments_and_gradients(candidates):
                assert bool(moment.isfinite().all())
            assert bool((each.moments(candidates)[1] > 0).all())
        assert bool(each.incumbent.isfinite().all())
        assert bool(each.y.isfinite().all())


# --- fantasies


def streams(runs: int = R) -> Streams:
    return Streams.named(0, "fantasy", runs=runs)


def some_pending(r: int = R) -> tuple[Tensor, Tensor]:
    """Four pending points; one is absent in run 0, and one more in every later run."""
    mask = torch.ones(r, M, dtype=torch.bool)
    for run in range(r):
        mask[run, 1 : 2 + run] = False
    return points(r=r, q=M, seed=3), mask


def given_values(given_: Problem, fantasised: Surrogate, draw: int) -> Surrogate:
    """The posterior of one draw, given observations and its fantasised values."""
    x, mask, y = fantasised.x, fantasised.mask, fantasised.y[:, draw]
    one = given_.draws(slice(draw, draw + 1))
    return replace(one, x=x, y=y, mask=mask).condition(fantasised.nu)


@pytest.mark.parametrize("nu", NUS)
@pytest.mark.parametrize("masked", [0, 4])
def test_a_fantasy_is_the_posterior_given_the_values_it_made_up(nu: float, masked: int) -> None:
    given_, candidates = problem(masked=masked), points()
    fantasised = given_.condition(nu).fantasize(*some_pending(), streams())
    assert fantasised.x.shape == (R, N + M, D)
    # And fantasies upon fantasies.
    further = fantasised.fantasize(points(q=2, seed=9), torch.ones(R, 2).bool(), streams())
    for surrogate in (fantasised, further):
        whole = (*surrogate.moments_and_gradients(candidates), surrogate.incumbent)
        for draw in range(S):
            one = given_values(given_, surrogate, draw)
            alone = (*one.moments_and_gradients(candidates), one.incumbent)
            for ours, theirs in zip(whole, alone, strict=True):
                torch.testing.assert_close(ours[:, draw], theirs[:, 0], rtol=0, atol=1e-11)


@pytest.mark.parametrize("nu", NUS)
def test_what_is_hallucinated_is_what_is_expected(nu: float) -> None:
    surrogate, (pending, there) = problem(masked=4).condition(nu), some_pending()
    expected, spread = surrogate.moments(pending)
    hallucinated = surrogate.hallucinate(pending, there)
    present = there[:, None].expand_as(expected)
    found = hallucinated.y[..., N:]
    torch.testing.assert_close(found[present], expected[present], rtol=0, atol=1e-10)
    assert not found[~present].any()
    mean, variance = hallucinated.moments(points())
    before, wide = surrogate.moments(points())
    torch.testing.assert_close(mean, before, rtol=0, atol=1e-10)
    assert (variance <= wide + 1e-12).all()
    narrow = hallucinated.moments(pending)[1]
    assert (narrow < torch.minimum(spread, surrogate.noise_variance[..., None]))[present].all()


def test_absent_points_have_no_value_and_no_weight() -> None:
    surrogate = problem(masked=4).condition()
    for each in (surrogate, surrogate.fantasize(*some_pending(), streams())):
        absent = ~each.mask[:, None].expand_as(each.y)
        assert bool(absent.any())
        assert not bool(each.y[absent].any())
        assert not bool(each.weights[absent].any())


def test_what_was_observed_is_kept_as_it_is() -> None:
    given_ = problem(masked=4)
    surrogate = given_.condition()
    fantasised = surrogate.fantasize(*some_pending(), streams())
    assert torch.equal(fantasised.y[..., :N], surrogate.y)
    assert torch.equal(fantasised.x[:, :N], surrogate.x)
    assert torch.equal(fantasised.mask[:, :N], surrogate.mask)
    assert not torch.equal(fantasised.y[:, 0, N:], fantasised.y[:, 1, N:])


def assert_normal(values: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """Rows of values are independent samples of this normal distribution."""
    count = len(values)
    z = (values.mean(0) - mean) / (covariance.diagonal() / count).sqrt()
    assert float(z.abs().max()) < 4
    # The variance of a product of two normal variables, for the error of a covariance.
    deviation = covariance.diagonal().outer(covariance.diagonal()) + covariance.square()
    z = (torch.cov(values.T) - covariance) / (deviation / count).sqrt()
    assert float(z.abs().max()) < 4


def assert_averages_to(known: Surrogate, many: Surrogate) -> Tensor:
    """Averaged over the draws of many, which were made up from one draw of one run, means are as
    before, and variances are by the same spread less. Returns the variances of each draw.
    """
    candidates, count = points(r=1, d=2), many.draws
    before_mean, before_variance = known.moments(candidates)
    after_mean, after_variance = many.moments(candidates)
    spread = after_mean[0].var(0)
    z = (after_mean[0].mean(0) - before_mean[0, 0]) / (spread / count).sqrt()
    assert float(z.abs().max()) < 4
    total = after_variance[0, 0] + spread
    z = (total - before_variance[0, 0]) / (spread * math.sqrt(2 / count))
    assert float(z.abs().max()) < 4
    return after_variance


@pytest.mark.parametrize("nu", NUS)
def test_fantasised_values_have_the_posterior_predictive_distribution(nu: float) -> None:
    # One set of hyperparameters as 4001 draws: the fantasies are independent samples.
    count = 4001
    one = problem(r=1, s=1, n=5, d=2, masked=1)
    many = replace(
        one,
        **{
            name: getattr(one, name).expand(-1, count, *getattr(one, name).shape[2:])
            for name in ("lengthscale", "outputscale", "noise_variance", "mean")
        },
    )
    pending = points(r=1, q=3, d=2, seed=4)
    pending[:, 1] = pending[:, 0] + 0.05
    fantasised = many.condition(nu).fantasize(pending, torch.ones(1, 3).bool(), streams(1))
    values = fantasised.y[0, :, -3:]

    with torch.no_grad():
        posterior = _ExactGP(one, 0, 0, nu)(pending[0])
        mean, covariance = posterior.mean, posterior.covariance_matrix
    covariance = covariance + one.noise_variance[0, 0] * torch.eye(3, dtype=DTYPE)
    assert_normal(values, mean, covariance)

    after_variance = assert_averages_to(one.condition(nu), fantasised)
    # Every fantasy leaves the same variance.
    torch.testing.assert_close(after_variance[0, 0], after_variance[0, -1], rtol=0, atol=1e-12)


def test_sampled_values_have_the_posterior_distribution_of_the_function_itself() -> None:
    count = 4001
    one = problem(r=1, s=1, n=5, d=2, masked=1)
    known = replace(one, noise_variance=0.2 + one.noise_variance).condition()
    many = known.sampled(streams(1), times=count)
    there = one.mask[0]
    values = many.y[0][:, there]
    mean, covariance = (each[0, 0] for each in known.joint(one.x[:, there]))
    assert_normal(values, mean, covariance)
    assert_averages_to(known, many)


@pytest.mark.parametrize("nu", NUS)
@pytest.mark.parametrize("masked", [0, 4])
def test_a_sampled_posterior_is_that_of_the_sampled_values(nu: float, masked: int) -> None:
    given_, candidates = problem(masked=masked), points()
    known = given_.condition(nu)
    sampled = known.sampled(streams())
    assert not sampled.y[~sampled.mask[:, None].expand_as(sampled.y)].any()
    assert (sampled.y != known.y)[sampled.mask[:, None].expand_as(sampled.y)].all()
    least = 1e-6 * known.outputscale
    torch.testing.assert_close(sampled.noise_variance, least)
    one = replace(given_, noise_variance=least)
    for draw in range(S):
        alone = given_values(one, sampled, draw).moments_and_gradients(candidates)
        for ours, theirs in zip(sampled.moments_and_gradients(candidates), alone, strict=True):
            torch.testing.assert_close(ours[:, draw], theirs[:, 0], rtol=1e-7, atol=1e-7)


def test_samples_of_a_draw_are_those_of_as_many_equal_draws() -> None:
    """Which share its factor."""
    known, candidates = problem(s=1, masked=4).condition(), points()
    many = known.sampled(streams(), times=S)
    apart = known.of_draws(torch.zeros(S, dtype=torch.long)).sampled(streams())
    assert many.draws == apart.draws == S
    assert many.inverse_factor.shape[1] == 1
    torch.testing.assert_close(many.y, apart.y, rtol=0, atol=1e-10)
    pending, pending_mask = points(q=3, seed=4), torch.ones(R, 3, dtype=torch.bool)
    for ours, theirs in (
        (many, apart),
        *((each.hallucinate(pending, pending_mask) for each in (many, apart)),),
    ):
        for one, other in zip(
            ours.moments_and_gradients(candidates),
            theirs.moments_and_gradients(candidates),
            strict=True,
        ):
            torch.testing.assert_close(one.expand_as(other), other, rtol=0, atol=1e-8)
        for one, other in zip(ours.moments(candidates), theirs.moments(candidates), strict=True):
            torch.testing.assert_close(one.expand_as(other), other, rtol=0, atol=1e-8)
        for name in ("expected", "incumbent", "least_observed", "fitted"):
            torch.testing.assert_close(
                getattr(ours, name), getattr(theirs, name), rtol=0, atol=1e-8
            )


def test_samples_of_a_draw_are_told_by_number() -> None:
    known, candidates = problem(s=1, masked=4).condition(), points()
    many = known.sampled(streams(), times=S)
    means = many.means(candidates)
    for draws in (torch.tensor([S - 1, 1]), slice(1, S, 2)):
        some = many.of_draws(draws)
        assert some.draws == means[:, draws].shape[1]
        torch.testing.assert_close(some.means(candidates), means[:, draws], rtol=0, atol=1e-10)


def test_a_single_draw_has_samples_in_the_runs_where_it_is_noisy_enough() -> None:
    noise = torch.tensor([[0.9], [1.1]], dtype=DTYPE).square() * 0.0025
    known = replace(problem(s=1, masked=4), noise_variance=noise).condition()
    some, every = (known.sampled(streams(), times=S, noisy=each) for each in (0.05, 0.0))
    for part in ("y", "weights"):
        ours, drawn, kept = (getattr(each, part) for each in (some, every, known))
        torch.testing.assert_close(ours[0], kept[0].expand_as(ours[0]), rtol=0, atol=1e-9)
        assert torch.equal(ours[1], drawn[1])


def test_without_noise_there_is_nothing_to_sample() -> None:
    given_ = replace(problem(masked=4), noise_variance=torch.full((R, S), 1e-9, dtype=DTYPE))
    known = given_.condition()
    sampled = known.sampled(streams())
    assert torch.equal(sampled.y, known.y)
    assert_same(sampled, known, points(), atol=1e-9)


def test_a_default_device_of_the_caller_changes_no_sample() -> None:
    for draws, times in ((S, 1), (1, S)):
        known = problem(s=draws, masked=4).condition()
        expected = known.sampled(streams(), times=times)
        with torch.device("meta"):
            found = known.sampled(streams(), times=times)
        assert torch.equal(found.y, expected.y)


def test_draws_of_less_noise_than_is_asked_for_stay_what_they_are() -> None:
    """The others are what they are where no least noise is asked for."""
    noise = torch.tensor([[0.9, 1.1, 0.1], [0.2, 3.0, 1.1]], dtype=DTYPE).square() * 0.0025
    known = replace(problem(masked=4), noise_variance=noise).condition()
    some, every = (known.sampled(streams(), noisy=each) for each in (0.05, 0.0))
    few = torch.tensor([[True, False, True], [True, False, False]])
    candidates = points()
    for ours, kept, drawn in (
        (some.noise_variance, known.noise_variance, every.noise_variance),
        (some.y, known.y, every.y),
        *zip(*(each.moments(candidates) for each in (some, known, every)), strict=True),
    ):
        torch.testing.assert_close(ours[few], kept[few], rtol=0, atol=1e-9)
        torch.testing.assert_close(ours[~few], drawn[~few], rtol=0, atol=1e-9)


def test_padding_does_not_change_what_is_sampled() -> None:
    given_ = problem()
    room = torch.nn.functional.pad
    with_room = replace(
        given_,
        x=room(given_.x, (0, 0, 0, 6)),
        y=room(given_.y, (0, 6)),
        mask=room(given_.mask, (0, 6)),
    )
    without, padded_ = (each.condition().sampled(streams()) for each in (given_, with_room))
    torch.testing.assert_close(padded_.y[..., :N], without.y, rtol=0, atol=1e-10)
    assert_same(padded_, without, points(), atol=1e-8)


def test_samples_do_not_depend_on_where_trials_without_a_value_lie() -> None:
    given_ = problem(masked=0)
    hole = torch.cat([torch.arange(3), torch.tensor([0, 0]), torch.arange(3, N)])
    there = torch.ones(N + 2, dtype=torch.bool)
    there[3:5] = False
    with_holes = replace(given_, x=given_.x[:, hole], y=given_.y[:, hole], mask=there.expand(R, -1))
    without, holed = (each.condition().sampled(streams()) for each in (given_, with_holes))
    torch.testing.assert_close(holed.y[..., there], without.y, rtol=0, atol=1e-10)
    assert_same(holed, without, points(), atol=1e-8)


def test_points_of_a_batch_share_what_their_samples_need(monkeypatch: pytest.MonkeyPatch) -> None:
    known, calls = problem(masked=4).condition(), []

    def counting(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(matrix.shape)
        return cholesky(matrix)

    monkeypatch.setattr("gpbo.surrogate.cholesky", counting)
    first, second = (known.sampled(Streams.named(seed, "samples", runs=R)) for seed in (1, 2))
    assert not torch.equal(first.y, second.y)
    assert len(calls) == 1


def test_a_run_has_the_samples_it_has_alone() -> None:
    given_ = problem(r=3, masked=4)
    whole = given_.condition().sampled(streams(3))
    alone = given_.rows(slice(0, 1)).condition().sampled(streams(1))
    torch.testing.assert_close(whole.y[:1], alone.y, rtol=0, atol=1e-10)


def test_a_draw_that_failed_has_no_samples_and_touches_no_other() -> None:
    given_, candidates = problem(), points()
    good = given_.condition().sampled(streams())
    bad = broken(given_, "lengthscale", math.nan).condition().sampled(streams())
    assert torch.nonzero(~bad.succeeded).tolist() == [[1, 2]]
    for ours, theirs in zip(
        bad.moments_and_gradients(candidates), good.moments_and_gradients(candidates), strict=True
    ):
        assert ours.isfinite().all()
        others = bad.succeeded
        assert torch.equal(ours[others], theirs[others])
    mean, variance = bad.moments(candidates)
    torch.testing.assert_close(mean[1, 2], bad.mean[1, 2].expand(Q))
    torch.testing.assert_close(variance[1, 2], bad.outputscale[1, 2].expand(Q))


def test_a_draw_that_cannot_be_factorised_with_less_noise_stays_what_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = problem(masked=4).condition().sampled(streams())
    known, candidates = problem(masked=4).condition(), points()

    def failing(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        factor, succeeded = cholesky(matrix)
        factor[1, 2], succeeded[1, 2] = math.nan, False
        return factor, succeeded

    monkeypatch.setattr("gpbo.surrogate.cholesky", failing)
    some = known.sampled(streams())
    assert some.succeeded.all()
    failed = torch.zeros(R, S, dtype=torch.bool)
    failed[1, 2] = True
    for ours, kept, drawn in (
        (some.noise_variance, known.noise_variance, whole.noise_variance),
        (some.y, known.y, whole.y),
        *zip(*(each.moments(candidates) for each in (some, known, whole)), strict=True),
    ):
        torch.testing.assert_close(ours[failed], kept[failed], rtol=0, atol=1e-12)
        assert torch.equal(ours[~failed], drawn[~failed])


def test_improvement_on_samples_is_botorch_s_noisy_expected_improvement() -> None:
    """Analytic given each sample, of which theirs are quasi-random and ours are not."""
    one = problem(r=1, s=1, n=7, d=2)
    one = replace(one, noise_variance=0.05 + one.noise_variance)
    known, count, fantasies = one.condition(), 4001, 2048
    many = known.sampled(streams(1), times=count)
    candidates = points(r=1, d=2)
    mean, variance = many.moments(candidates)
    deviation = variance.sqrt()
    u = (many.incumbent[..., None] - mean) / deviation
    normal = torch.distributions.Normal(0.0, 1.0)
    each = (deviation * (u * normal.cdf(u) + normal.log_prob(u).exp()))[0]
    own = OwnLogExpectedImprovement(many, many.incumbent)(candidates)[0].exp()
    torch.testing.assert_close(own, each.mean(0))
    kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.MaternKernel(2.5, ard_num_dims=2))
    kernel = kernel.double()
    kernel.outputscale = one.outputscale[0]
    kernel.base_kernel.lengthscale = one.lengthscale[0]
    x, y = one.x[0], one.y[0, :, None]
    noise = one.noise_variance[0].expand_as(y)
    model = SingleTaskGP(x, y, noise, covar_module=kernel, outcome_transform=None)
    model.mean_module.constant.data.copy_(one.mean[0, 0])
    with manual_seed(5), torch.no_grad():
        noisy = LogNoisyExpectedImprovement(model.eval(), x, fantasies, maximize=False)
        theirs = noisy(candidates[0][:, None]).exp()
    z = (own - theirs) / (each.std(0) * math.sqrt(1 / count + 1 / fantasies))
    assert float(z.abs().max()) < 4


@pytest.mark.parametrize("filling", [0.3, math.nan, 1e300])
def test_an_absent_pending_point_changes_nothing(filling: float) -> None:
    surrogate = problem(masked=4).condition()
    pending, none = torch.full((R, M, D), filling, dtype=DTYPE), torch.zeros(R, M).bool()
    assert_same(surrogate.fantasize(pending, none, streams()), surrogate, points())


def test_present_pending_points_are_not_changed_by_absent_ones() -> None:
    surrogate = problem().condition()
    pending = points(q=M, seed=3)
    some = torch.tensor([True, True, False, False]).expand(R, M)
    fantasised = surrogate.fantasize(pending, some, streams())
    # Another place of the absent point.
    moved = pending.clone()
    moved[:, 2:] = 0.123
    assert_same(surrogate.fantasize(moved, some, streams()), fantasised, points(), atol=0.0)


def test_pending_points_have_room_as_results_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, where the points of a batch would be a shape each."""
    surrogate, (pending, mask) = problem(masked=4).condition(), some_pending(R)
    exact = surrogate.fantasize(pending, mask, streams())
    monkeypatch.setattr("gpbo.data.capacity", lambda count, device: count + 3)
    roomy = surrogate.fantasize(pending, mask, streams())
    assert roomy.x.shape[1] == exact.x.shape[1] + 3
    assert not roomy.mask[:, -3:].any()
    assert_same(roomy, exact, points(), atol=1e-12)


def test_no_pending_point_is_no_fantasy() -> None:
    surrogate = problem().condition()
    none = torch.zeros(R, 0, D, dtype=DTYPE)
    assert surrogate.fantasize(none, torch.zeros(R, 0).bool(), streams()) is surrogate


def test_a_run_has_the_fantasies_it_has_alone() -> None:
    given_, (pending, mask) = problem(r=3, masked=4), some_pending(3)
    whole = given_.condition().fantasize(pending, mask, streams(3))
    alone = given_.rows(slice(0, 1)).condition().fantasize(pending[:1], mask[:1], streams(1))
    torch.testing.assert_close(whole.y[:1], alone.y, rtol=0, atol=1e-12)
    for ours, theirs in zip(whole.moments(points(3)), alone.moments(points(3)[:1]), strict=True):
        torch.testing.assert_close(ours[:1], theirs, rtol=0, atol=1e-11)


def test_the_incumbent_counts_fantasies() -> None:
    surrogate = problem().condition()
    before = surrogate.incumbent
    fantasised = surrogate.fantasize(points(q=M, seed=3), torch.ones(R, M).bool(), streams())
    mean, _ = fantasised.moments(fantasised.x)
    torch.testing.assert_close(fantasised.incumbent, mean.amin(-1), rtol=0, atol=1e-10)
    assert not torch.equal(fantasised.incumbent, before)


# --- as a BoTorch model


@pytest.mark.parametrize("nu", NUS)
@pytest.mark.parametrize("run", [0, 1])
def test_the_botorch_model_has_the_same_posterior(nu: float, run: int) -> None:
    given_, candidates = problem(masked=4), points()
    surrogate = given_.condition(nu)
    for each in (surrogate, surrogate.fantasize(*some_pending(), streams())):
        model = each.to_botorch(run)
        assert model.batch_shape == torch.Size([S])
        with torch.no_grad():
            posterior = model.posterior(candidates[run].expand(S, Q, D))
            moments = (posterior.mean[..., 0], posterior.variance[..., 0])
        for theirs, ours in zip(moments, each.moments(candidates), strict=True):
            torch.testing.assert_close(theirs, ours[run], rtol=0, atol=1e-8)


@pytest.mark.parametrize("nu", NUS)
def test_the_joint_covariance_is_that_of_the_botorch_model(nu: float) -> None:
    surrogate, candidates = problem().condition(nu), points()
    mean, covariance = surrogate.joint(candidates)
    for run in range(R):
        posterior = surrogate.to_botorch(run).posterior(candidates[run])
        torch.testing.assert_close(mean[run], posterior.mean[..., 0], rtol=0, atol=1e-8)
        expected = posterior.distribution.covariance_matrix
        # There a point is 1e-8 away from itself, which the kernel of nu = 1/2 tells.
        torch.testing.assert_close(covariance[run], expected, rtol=0, atol=1e-7)
    alone, variance = surrogate.moments(candidates)
    assert torch.equal(mean, alone)
    own = covariance.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(own, variance, rtol=1e-10, atol=1e-12)


def test_a_botorch_acquisition_works_on_the_model() -> None:
    surrogate, candidates = problem().condition(), points()
    acquisition = PosteriorMean(surrogate.to_botorch(), maximize=False)
    # q=1 candidates, with the axis of draws before the last two.
    value = acquisition(candidates[0, :, None, None, :].expand(Q, S, 1, D))
    expected = -surrogate.moments(candidates)[0][0].T
    torch.testing.assert_close(value.detach(), expected, rtol=0, atol=1e-8)


# --- shapes, options and bad data


def test_a_surrogate_tells_its_sizes() -> None:
    surrogate = problem().condition()
    assert (surrogate.runs, surrogate.draws, surrogate.dim) == (R, S, D)
    assert surrogate.inverse_factor.shape == (R, S, N, N)
    assert surrogate.weights.shape == surrogate.y.shape == (R, S, N)


def test_another_smoothness_is_an_error() -> None:
    with pytest.raises(InvalidOption, match=r"nu=2\.0: expected one of"):
        problem().condition(2.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["x", "y"])
def test_observations_that_are_not_finite_are_an_error(where: str, bad: float) -> None:
    given_ = problem()
    spoilt = getattr(given_, where).clone()
    spoilt[1, 3] = bad
    given_ = replace(given_, **{where: spoilt})
    with pytest.raises(InvalidData, match="x and y must be finite wherever mask is True"):
        given_.condition()
    mask = given_.mask.clone()
    mask[1, 3] = False
    replace(given_, mask=mask).condition()


def test_conditioning_leaves_its_arguments_alone() -> None:
    given_ = problem(masked=4)
    before = {name: value.clone() for name, value in given_.arguments().items()}
    surrogate = given_.condition()
    surrogate.moments_and_gradients(points())
    surrogate.fantasize(*some_pending(), streams())
    for name, value in given_.arguments().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("nu", NUS)
def test_the_mean_of_a_draw_is_that_of_the_moments(nu: float) -> None:
    surrogate, candidates = problem(masked=4).condition(nu), points()
    draw = torch.tensor([2, 1])
    expected = surrogate.moments(candidates)[0][torch.arange(R), draw]
    torch.testing.assert_close(surrogate.mean_of_draw(draw, candidates), expected)


def test_what_is_hallucinated_is_nothing_to_improve_on() -> None:
    surrogate = problem(masked=4).condition()
    pending, mask = some_pending()
    sure = surrogate.hallucinate(pending, mask)
    torch.testing.assert_close(sure.incumbent, surrogate.incumbent, rtol=0, atol=1e-10)
    assert torch.equal(sure.least_observed, surrogate.least_observed)
    assert torch.equal(sure.recommended, surrogate.recommended)
    assert (sure.expected[:, N:] == math.inf).all()
    assert torch.equal(sure.mask[:, N : N + mask.shape[1]], mask)


def test_a_draw_that_failed_has_no_say_in_what_is_expected() -> None:
    good = problem()
    bad = broken(good, "mean", math.nan).condition()
    others = [draw for draw in range(S) if draw != 2]
    expected = good.condition().fitted[1, others].mean(0)
    torch.testing.assert_close(bad.expected[1], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(bad.expected[0], good.condition().expected[0], rtol=0, atol=0)


def test_without_any_column_the_incumbent_is_the_mean() -> None:
    given_ = problem(n=0)
    surrogate = given_.condition()
    assert torch.equal(surrogate.incumbent, given_.mean)
    assert torch.equal(surrogate.least_observed, given_.mean)


def test_botorch_s_acquisition_is_taken_draw_by_draw() -> None:
    surrogate, x = problem().condition(), points(r=1)[0]
    theirs = LogExpectedImprovement(
        surrogate.to_botorch(1), best_f=surrogate.incumbent[1][:, None], maximize=False
    )(x[:, None, None])
    assert theirs.shape == (Q, S)
    own = OwnLogExpectedImprovement(surrogate, best=surrogate.incumbent)(x.expand(R, -1, -1))
    torch.testing.assert_close(theirs.logsumexp(-1) - math.log(S), own[1], rtol=1e-6, atol=1e-6)
    for wrong in (R, -1):
        with pytest.raises(InvalidOption, match=f"run={wrong}: expected a"):
            surrogate.to_botorch(wrong)


def test_botorch_averages_over_the_draws_of_an_ensemble() -> None:
    surrogate, x = problem(masked=4).condition(), points(r=1)[0]
    model = surrogate.to_botorch(1, ensemble=True)
    best = surrogate.incumbent[1][:, None]
    theirs = LogExpectedImprovement(model, best_f=best, maximize=False)
    own = OwnLogExpectedImprovement(surrogate, best=surrogate.incumbent)
    expected = own(x.expand(R, -1, -1))[1]
    torch.testing.assert_close(theirs(x[:, None]), expected, rtol=1e-6, atol=1e-6)
    cube = torch.stack([torch.zeros(D), torch.ones(D)]).to(x)
    with manual_seed(0):
        found, value = optimize_acqf(theirs, cube, q=1, num_restarts=2, raw_samples=16)
    torch.testing.assert_close(value, own(found.expand(R, -1, -1))[1, 0], rtol=1e-6, atol=1e-6)
    assert value >= expected.max()
    with unchecked_shapes(), pytest.raises(InvalidOption, match="ensemble=1: expected True or"):
        surrogate.to_botorch(ensemble=1)  # type: ignore[arg-type]


def test_botorch_s_monte_carlo_acquisitions_average_over_the_draws_of_an_ensemble() -> None:
    """The log of 2^12 quasi-random improvements, of points at which they are not rare."""
    surrogate, x = problem(masked=4).condition(), points(r=1)[0]
    theirs = qLogExpectedImprovement(
        surrogate.to_botorch(1, ensemble=True),
        best_f=-surrogate.incumbent[1],
        sampler=SobolQMCNormalSampler(torch.Size([1 << 12]), seed=0),
        posterior_transform=ScalarizedPosteriorTransform(surrogate.y.new_tensor([-1.0])),
    )
    own = OwnLogExpectedImprovement(surrogate, best=surrogate.incumbent)(x.expand(R, -1, -1))[1]
    assert bool((own > -5.0).any())
    likely = own > -5.0
    torch.testing.assert_close(theirs(x[:, None])[likely], own[likely], rtol=0, atol=0.01)
    pairs = points(q=2 * Q)[1].view(Q, 2, D)
    assert theirs(pairs).shape == (Q,)


def test_a_batch_of_an_ensemble_is_chosen_by_botorch_for_noise() -> None:
    surrogate = problem(masked=4).condition()
    acquisition = qLogNoisyExpectedImprovement(
        surrogate.to_botorch(1, ensemble=True),
        X_baseline=surrogate.x[1, surrogate.mask[1]],
        posterior_transform=ScalarizedPosteriorTransform(surrogate.y.new_tensor([-1.0])),
    )
    batches = points(q=2 * Q)[1].view(Q, 2, D)
    together, alone = acquisition(batches), acquisition(batches[:, :1])
    assert together.shape == (Q,)
    assert bool((together > alone).all())
