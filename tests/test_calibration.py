"""The sampler and the posterior together: calibration, invariance, and Pyro's NUTS.

Hundreds of data sets go through one batched call. A posterior whose Jacobian is wrong must fail
the same checks, or they would prove nothing.
"""

import pytest
import torch
from scipy import stats

from gpbo.backend import DTYPE, Streams
from gpbo.evidence import LogPosterior, Model
from gpbo.inference import cold_start, draw, schedule_for
from gpbo.mcmc.diagnostics import bulk_ess
from gpbo.mcmc.leapfrog import LogDensity
from gpbo.mcmc.sampling import Schedule, Warmth, sample

COUNT, DIM = 9, 1


def simulated(runs: int) -> tuple[LogPosterior, torch.Tensor]:
    """Posteriors of data sets whose hyperparameters are ``u[r,p]``, drawn from the prior."""
    streams = Streams.named(11, "simulation", runs=runs)
    x = streams.uniform(COUNT, DIM)
    mask = torch.ones(runs, COUNT, dtype=torch.bool)
    parametrization = Model().log_posterior(x, torch.zeros_like(x[..., 0]), mask).parametrization
    u = parametrization.sample(streams, 1)[:, 0]
    natural = parametrization.constrain(u)
    distance = (x - x.mT).abs() / natural.lengthscale[:, :, None]
    scaled = 5**0.5 * distance
    kernel = (1 + scaled + scaled.square() / 3) * torch.exp(-scaled)
    covariance = natural.outputscale[:, None, None] * kernel
    covariance.diagonal(dim1=1, dim2=2).add_(natural.noise_variance[:, None])
    noise = streams.normal(COUNT)[..., None]
    y = natural.mean[:, None] + (torch.linalg.cholesky(covariance) @ noise)[..., 0]
    return Model().log_posterior(x, y, mask), u


def with_wrong_jacobian(density: LogDensity) -> LogDensity:
    """As if the Jacobians of the lengthscale and of the noise variance had been forgotten."""

    def wrong(u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, slope = density(u)
        slope = slope.clone()
        slope[:, [0, -2]] -= 1
        return value - u[:, 0] - u[:, -2], slope

    return wrong


def least_p_of_ranks(ranks: torch.Tensor, bins: int) -> float:
    """Of chi-squared tests that every column of ``ranks[r,p]`` in [0, 1) is uniform."""
    counts = [torch.histc(column, bins, 0.0, 1.0) for column in ranks.T]
    return min(float(stats.chisquare(column.numpy()).pvalue) for column in counts)


def calibration_p(runs: int, wrong: bool) -> float:
    posterior, truth = simulated(runs)
    streams = Streams.named(12, "calibration", runs=runs)
    start = cold_start(posterior, streams, 3)
    density = with_wrong_jacobian(posterior) if wrong else posterior
    draws = sample(density, start, Schedule(draws=15, max_depth=6), streams)
    thinned = draws.position[:, :, 2::6].flatten(1, 2)
    jitter = streams.uniform(truth.shape[1])
    below = (thinned < truth[:, None]).sum(1)
    return least_p_of_ranks((below + jitter) / (thinned.shape[1] + 1), 10)


def invariance_p(runs: int, wrong: bool) -> float:
    """Transitions from the truth leave the joint law, so its prior marginals, as they were."""
    posterior, truth = simulated(runs)
    parametrization = posterior.parametrization
    size = parametrization.size
    start = Warmth(
        position=truth[:, None],
        step_size=torch.full((runs,), 0.35, dtype=DTYPE),
        scale=torch.eye(size, dtype=DTYPE).expand(runs, size, size),
    )
    density = with_wrong_jacobian(posterior) if wrong else posterior
    schedule = Schedule(windows=(), settle=0, draws=3, max_depth=5)
    after = sample(density, start, schedule, Streams.named(13, "invariance", runs=runs))
    prior = parametrization.sample(Streams([14]), 20_000)[0]
    reached = after.position[:, 0, -1].T.contiguous()
    ranks = torch.searchsorted(prior.sort(0).values.T.contiguous(), reached)
    return least_p_of_ranks(ranks.T.to(DTYPE) / 20_001, 10)


def test_posterior_ranks_of_the_truth_are_uniform() -> None:
    assert calibration_p(200, wrong=False) > 0.01 / 4


def test_calibration_notices_a_wrong_jacobian() -> None:
    assert calibration_p(200, wrong=True) < 1e-3


def test_transitions_leave_the_posterior_invariant() -> None:
    assert invariance_p(600, wrong=False) > 0.01 / 4


def test_invariance_notices_a_wrong_jacobian() -> None:
    assert invariance_p(600, wrong=True) < 1e-3


@pytest.mark.long
def test_calibration_at_full_size() -> None:
    assert calibration_p(1000, wrong=False) > 0.01 / 4
    assert invariance_p(5000, wrong=False) > 0.01 / 4


@pytest.mark.parametrize(
    "draws", [250, pytest.param(1500, marks=pytest.mark.long)], ids=["short", "long"]
)
def test_moments_agree_with_pyros_nuts(draws: int) -> None:
    from gpbo.pyro_nuts import positions_with_pyro

    x = Streams([21]).uniform(8, 2)
    y = torch.sin(5 * x[..., 0]) + x[..., 1]
    y = (y - y.mean()) / y.std()
    posterior = Model().log_posterior(x, y, torch.ones(1, 8, dtype=torch.bool))
    streams = Streams([22])
    schedule = schedule_for(None, 4 * draws // 5, cold=True)
    ours = draw_positions(posterior, streams, schedule)
    theirs = positions_with_pyro(posterior, streams, warmup=200, draws=draws)
    for power in (1, 2):
        moments = [(values**power).permute(0, 3, 1, 2)[0] for values in (ours, theirs)]
        errors = [m.flatten(1).var(-1) / bulk_ess(m).clamp_max(m[0].numel()) for m in moments]
        difference = moments[0].flatten(1).mean(-1) - moments[1].flatten(1).mean(-1)
        assert float((difference / (errors[0] + errors[1]).sqrt()).abs().max()) < 4


def draw_positions(posterior: LogPosterior, streams: Streams, schedule: Schedule) -> torch.Tensor:
    return sample(posterior, cold_start(posterior, streams, 8), schedule, streams).position


def test_a_warm_start_agrees_with_a_cold_one() -> None:
    x = Streams([31]).uniform(13, 2)
    y = torch.sin(5 * x[..., 0]) + x[..., 1]
    y = (y - y.mean()) / y.std()
    mask = torch.ones(1, 13, dtype=torch.bool)
    before = Model().log_posterior(x[:, :12], y[:, :12], mask[:, :12])
    after = Model().log_posterior(x, y, mask)
    streams = Streams([32])
    warmth = draw(before, streams, schedule_for(None, 12, cold=True), chains=8, warmth=None).warmth
    warm = sample(after, warmth, Schedule(windows=(), settle=4, draws=120), streams).position
    cold = draw_positions(after, streams, Schedule(draws=120))
    moments = [values.permute(0, 3, 1, 2)[0] for values in (warm, cold)]
    errors = [m.flatten(1).var(-1) / bulk_ess(m).clamp_max(m[0].numel()) for m in moments]
    difference = moments[0].flatten(1).mean(-1) - moments[1].flatten(1).mean(-1)
    assert float((difference / (errors[0] + errors[1]).sqrt()).abs().max()) < 4
