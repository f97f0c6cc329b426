"""Draws are of the posterior: hyperparameters from the prior, data given them, and back.

Two tests that need no other sampler. Simulation-based calibration (Talts et al. 2018): the
hyperparameters that made the data rank uniformly among draws of their posterior. Invariance: a
transition leaves the posterior as it is, so from hyperparameters of the prior, with data made from
them, it leads to hyperparameters of the prior, after one step or a hundred. Both are for many runs
in one batch, and both must fail where the density is wrong.
"""

import math
from dataclasses import dataclass

import gpytorch.priors
import pytest
import torch
from scipy import stats
from torch import Tensor

from gpbo.backend import DTYPE, Streams
from gpbo.data import Observations
from gpbo.evidence import LogPosterior
from gpbo.fitting import Sampling, fit
from gpbo.hyperparameters import (
    HyperparameterPrior,
    Hyperparameters,
    Parametrization,
    resolve_prior,
)
from gpbo.inference import draw, schedule_for
from gpbo.mcmc.sampling import Kernel, Schedule, Warmth, sample
from gpbo.priors import LogNormal, Normal
from gpbo.units import Units
from tests.monte_carlo import COLD_NUTS, in_units, random_normal, random_uniform, unchecked_shapes


class Tilted(LogPosterior):
    """A density with a factor ``exp(tilt u_j)`` too many: what a forgotten Jacobian does.

    Its gradient is right for its value, so the sampler is content.
    """

    def tilt(self, coordinate: int, by: float) -> "Tilted":
        self.slope = torch.zeros(self.parametrization.size, dtype=DTYPE)
        self.slope[coordinate] = by
        return self

    def parts(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        prior, prior_slope, likelihood, slope = super().parts(u)
        return prior + u @ self.slope, prior_slope + self.slope, likelihood, slope


@dataclass(frozen=True)
class Simulated:
    """Hyperparameters of every run from the prior, and data that they made."""

    truth: Tensor  # [r,p]
    x: Tensor
    y: Tensor
    mask: Tensor
    prior: HyperparameterPrior

    @property
    def parametrization(self) -> Parametrization:
        return Parametrization(self.prior, self.x.shape[-1])

    def posterior(self) -> LogPosterior:
        return LogPosterior(self.x, self.y, self.mask, self.prior)

    def tilted(self, coordinate: int, by: float) -> Tilted:
        return Tilted(self.x, self.y, self.mask, self.prior).tilt(coordinate, by)


def _covariance(x: Tensor, natural: Hyperparameters) -> Tensor:
    """Matern-5/2 with noise, the plain way."""
    difference = (x[:, :, None] - x[:, None]) / natural.lengthscale[:, None, None]
    distance = math.sqrt(5) * difference.norm(dim=-1)
    correlation = (1 + distance + distance**2 / 3) * torch.exp(-distance)
    noise = natural.noise_variance[:, None, None] * torch.eye(x.shape[1], dtype=DTYPE)
    return natural.outputscale[:, None, None] * correlation + noise


def _simulate(
    prior: str | HyperparameterPrior, runs: int, n: int, dim: int, seed: int = 0
) -> Simulated:
    """Runs have from ``n - 3`` to ``n`` points; what is masked is not even a number."""
    resolved = resolve_prior(prior)
    parametrization = Parametrization(resolved, dim)
    truth = parametrization.sample(Streams.named(seed, "truth", runs=runs), 1)[:, 0]
    natural = parametrization.constrain(truth)
    x = random_uniform(seed, runs, n, dim)
    factor = torch.linalg.cholesky(_covariance(x, natural))
    y = natural.mean[:, None] + (factor @ random_normal(seed + 1, runs, n, 1))[..., 0]
    counts = n - torch.arange(runs) % 4
    mask = torch.arange(n) < counts[:, None]
    return Simulated(truth, x, y.masked_fill(~mask, torch.nan), mask, resolved)


def _p_values_of_ranks(ranks: Tensor, draws: int) -> list[float]:
    """Chi-squared test of uniformity of the ranks ``[r,p]`` in ``0 .. draws``, per coordinate."""
    return [
        float(stats.chisquare(torch.bincount(column, minlength=draws + 1).numpy()).pvalue)
        for column in ranks.T
    ]


# Simulation-based calibration.

SHORT = Schedule(windows=(8, 10, 14), settle=6, draws=8, kernel="nuts", max_depth=5)
DEFAULT = schedule_for(None, 8, cold=True)


def _calibration(data: Simulated, density: LogPosterior, chains: int, schedule: Schedule) -> float:
    """Least p-value over the hyperparameters, of the truth's rank among each chain's last draw."""
    streams = Streams.named(7, "nuts", runs=len(data.truth))
    last = draw(density, streams, schedule, chains=chains, warmth=None).warmth.position
    ranks = (last < data.truth[:, None]).sum(1)
    return min(_p_values_of_ranks(ranks, chains))


def _significance(data: Simulated) -> float:
    return 0.01 / data.truth.shape[1]


@pytest.mark.parametrize("schedule", [SHORT, DEFAULT], ids=["nuts", "hmc"])
@unchecked_shapes()
def test_the_truth_ranks_uniformly_among_draws_of_its_posterior(schedule: Schedule) -> None:
    data = _simulate("dimension-scaled", runs=300, n=8, dim=2, seed=1)
    assert _calibration(data, data.posterior(), 4, schedule) > _significance(data)


def _after_one_at_a_time(data: Simulated, sampling: Sampling) -> Tensor:
    """Ranks ``[r,p]`` of the truth among the chains of warm fits, a result more each."""
    warm, runs = None, len(data.truth)
    plain = Units.affine(torch.zeros(runs, dtype=DTYPE), torch.ones(runs, dtype=DTYPE))
    for count in range(4, data.x.shape[1] + 1):
        seen = data.mask[:, :count]
        points = data.x[:, :count].masked_fill(~seen[..., None], 0.5)
        values = data.y[:, :count].masked_fill(~seen, 0.0)
        observed = Observations(
            points,
            values,
            seen,
            pending=points[:, :0],
            pending_mask=seen[:, :0],
            eligible=seen,
        )
        observed = in_units(observed, plain)
        streams = Streams.named(5, "fit", count, runs=runs)
        warm = fit(observed, sampling=sampling, warm=warm, streams=streams).warm
    assert warm is not None
    return (warm.warmth.position < data.truth[:, None]).sum(1)


@pytest.mark.parametrize("many", [200, 4])
@unchecked_shapes()
def test_the_truth_ranks_uniformly_after_results_came_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    """Weighted, drawn anew, started afresh, moved: what warm fits do, over and over; and with more
    and more results moved every second and third time only."""
    monkeypatch.setattr("gpbo.warm_start.MANY", many)
    data = _simulate("dimension-scaled", runs=200, n=12, dim=2, seed=3)
    sampling = Sampling(chains=8, draws=4, warm_draws=1, kept=8)
    ranks = _after_one_at_a_time(data, sampling)
    assert min(_p_values_of_ranks(ranks, 8)) > _significance(data)


@pytest.mark.parametrize(
    ("runs", "dim", "n"),
    [(60, 2, 8)]
    + [pytest.param(*case, marks=pytest.mark.long) for case in ((3000, 2, 12), (600, 6, 20))],
)
@unchecked_shapes()
def test_the_truth_is_beyond_all_chains_no_more_often_than_one_more_chain_would_be(
    runs: int, dim: int, n: int
) -> None:
    """What a sampler lets pass unnoticed that is fitted to its own draws, or slow in the tails."""
    data, sampling = _simulate("dimension-scaled", runs=runs, n=n, dim=dim, seed=21), Sampling()
    ranks, chains = _after_one_at_a_time(data, sampling), sampling.chains
    beyond = ((ranks == 0) | (ranks == chains)).double()
    # Of ranks 0 to c, each as likely as any other, the variance is c (c + 2) / 12.
    variance = (ranks - chains / 2).square() / (chains * (chains + 2) / 12)
    for statistic, expected in ((beyond, 2 / (chains + 1)), (variance, 1.0)):
        of_runs = statistic.mean(1)
        assert abs(float(of_runs.mean()) - expected) < 4 * float(of_runs.std()) / math.sqrt(runs)


@pytest.mark.parametrize("by", [-1.0, pytest.param(1.0, marks=pytest.mark.long)])
@pytest.mark.parametrize("schedule", [SHORT, DEFAULT], ids=["nuts", "hmc"])
@unchecked_shapes()
def test_calibration_notices_a_jacobian_of_the_noise_variance_too_many_or_few(
    by: float, schedule: Schedule
) -> None:
    data = _simulate("dimension-scaled", runs=100, n=8, dim=2)
    tilted = data.tilted(coordinate=3, by=by)
    assert _calibration(data, tilted, 4, schedule) < _significance(data)


@pytest.mark.long
@pytest.mark.parametrize("schedule", [COLD_NUTS, DEFAULT], ids=["nuts", "hmc"])
@pytest.mark.parametrize(("n", "dim", "chains"), [(8, 1, 7), (12, 2, 7), (15, 3, 5)])
@unchecked_shapes()
def test_calibration_at_full_size(n: int, dim: int, chains: int, schedule: Schedule) -> None:
    data = _simulate("dimension-scaled", runs=500, n=n, dim=dim, seed=11)
    assert _calibration(data, data.posterior(), chains, schedule) > _significance(data)


@pytest.mark.long
@pytest.mark.parametrize("prior", ["botorch", "saas", "spearmint"])
@unchecked_shapes()
def test_calibration_at_full_size_with_other_priors(prior: str) -> None:
    data = _simulate(prior, runs=300, n=10, dim=2, seed=12)
    assert _calibration(data, data.posterior(), 7, COLD_NUTS) > _significance(data)


# Invariance.


def _users() -> HyperparameterPrior:
    return HyperparameterPrior(
        lengthscale=gpytorch.priors.GammaPrior(3.0, 6.0),
        outputscale=torch.distributions.HalfNormal(2.0),
        noise_variance=LogNormal(-3.0, 1.0),
        mean=Normal(0.0, 1.0),
    )


def _invariance(
    data: Simulated, density: LogPosterior, transitions: int, kernel: Kernel = "nuts"
) -> float:
    """Least p-value of the quantiles, within the prior, of where transitions led from the truth."""
    runs, size = data.truth.shape
    start = Warmth(
        position=data.truth[:, None],
        value=torch.zeros(runs, 1, dtype=DTYPE),
        step_size=torch.full((runs,), 0.3, dtype=DTYPE),
        scale=torch.eye(size, dtype=DTYPE).expand(runs, -1, -1),
    )
    schedule = Schedule(windows=(), settle=0, draws=transitions, kernel=kernel, max_depth=4)
    found = sample(density, start, schedule, Streams.named(8, "nuts", runs=runs))
    moved = (found.position[:, 0, -1] != data.truth).any(-1)
    assert moved.double().mean() > 0.9
    prior = data.parametrization.sample(Streams.named(9, "prior"), 20_000)[0]
    return min(
        float(stats.ks_2samp(ours.numpy(), theirs.numpy()).pvalue)
        for ours, theirs in zip(found.position[:, 0, -1].T, prior.T, strict=True)
    )


@pytest.mark.parametrize("prior", ["dimension-scaled", "botorch", "saas", "spearmint", "users"])
@pytest.mark.parametrize("kernel", ["nuts", "hmc"])
@unchecked_shapes()
def test_transitions_from_the_truth_lead_to_the_prior(prior: str, kernel: Kernel) -> None:
    data = _simulate(_users() if prior == "users" else prior, runs=600, n=8, dim=2, seed=13)
    assert _invariance(data, data.posterior(), 2, kernel) > _significance(data)


@pytest.mark.parametrize(("coordinate", "by"), [(0, 1.0), (2, 1.0), (3, -1.0), (4, 1.0)])
@pytest.mark.parametrize("kernel", ["nuts", "hmc"])
@unchecked_shapes()
def test_transitions_notice_a_jacobian_too_many_or_few(
    coordinate: int, by: float, kernel: Kernel
) -> None:
    data = _simulate("dimension-scaled", runs=600, n=8, dim=2, seed=13)
    assert _invariance(data, data.tilted(coordinate, by), 2, kernel) < _significance(data)


@pytest.mark.long
@pytest.mark.parametrize("prior", ["dimension-scaled", "botorch", "saas", "spearmint", "users"])
@pytest.mark.parametrize("transitions", [1, 3])
@unchecked_shapes()
def test_invariance_at_full_size(prior: str, transitions: int) -> None:
    data = _simulate(_users() if prior == "users" else prior, runs=6000, n=10, dim=3, seed=14)
    assert _invariance(data, data.posterior(), transitions) > _significance(data)
