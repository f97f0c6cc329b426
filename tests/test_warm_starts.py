"""Thirty warm fits, one after another, against long cold ones: the averaged EI at fixed points."""

import math

import pytest
import torch
from torch import Tensor

from gpbo import problems
from gpbo.acquisition import log_h
from gpbo.backend import DTYPE, Streams
from gpbo.data import Observations
from gpbo.design import sobol
from gpbo.fitting import Fit, Sampling, WarmState, fit
from gpbo.surrogate import Surrogate
from tests.monte_carlo import random_normal, unchecked_shapes

FIRST, LAST, POINTS = 7, 37, 7
#: An improvement of less, in standard deviations of the values, is none to be had at a point.
NEGLIGIBLE = 1e-4
PROBLEM = problems.get("branin")


def sequences(runs: int) -> tuple[Tensor, Tensor]:
    """Points as an optimization makes them: spread out at first, then closer and closer to a
    minimum of Branin's, every fourth one somewhere else; values with a little noise."""
    spread_out = sobol(LAST, PROBLEM.dim, Streams.named(0, "sequence", runs=runs))
    minimum = torch.tensor([0.9616, 0.1650], dtype=DTYPE)
    number = torch.arange(LAST, dtype=DTYPE)[:, None]
    near = minimum + 0.3 * 0.93**number * random_normal(1, runs, LAST, PROBLEM.dim)
    seeking = ((number >= FIRST) & (number % 4 != 0)).expand(-1, PROBLEM.dim)
    x = torch.where(seeking, near.clamp(0, 1), spread_out)
    return x, PROBLEM(x) + 0.5 * random_normal(2, runs, LAST)


def improvements(surrogate: Surrogate, x: Tensor) -> Tensor:
    """The expected improvement ``[r,s,q]`` of every draw."""
    mean, variance = surrogate.moments(x)
    sd = variance.sqrt()
    return sd * log_h((surrogate.incumbent[..., None] - mean) / sd)[0].exp()


def of_all_draws(found: Fit, data: Observations) -> Surrogate:
    draws = found.draws
    assert draws is not None
    return Surrogate.condition(
        data.x,
        data.y,
        data.mask,
        draws.lengthscale,
        draws.outputscale,
        draws.noise_variance,
        draws.mean,
    )


@pytest.mark.parametrize(
    ("runs", "every", "chains", "draws", "share"),
    [(3, 10, 16, 24, 0.85), pytest.param(64, 3, 24, 50, 0.95, marks=pytest.mark.long)],
)
@unchecked_shapes()
def test_the_averaged_improvement_stays_that_of_long_cold_sampling(
    runs: int, every: int, chains: int, draws: int, share: float
) -> None:
    """Within two Monte-Carlo standard errors in 95 % of the comparisons.

    In the short form, where a few dozen comparisons are those of nine fits, less. The long form has
    2800, of 640 fits: from 160 fits the share is known to a hundredth and a half, and independent
    draws have 0.96.

    The error is that of as many independent draws of the posterior as a surrogate averages over,
    from their variance in the long sampling: a few draws often hold most of the improvement, and
    16 draws do not tell their own error.
    """
    x, values = sequences(runs)
    fixed = sobol(POINTS, PROBLEM.dim, Streams.named(3, "fixed"))
    warm: WarmState | None = None
    deviations = []
    for size in range(FIRST, LAST + 1):
        data = Observations.of(x[:, :size], values[:, :size])
        streams = Streams.named(4, "warm", size, runs=runs)
        found = fit(data, warm=warm, streams=streams)
        warm = found.warm
        if size == FIRST or (size - FIRST) % every:
            continue
        long = Sampling(chains=chains, draws=draws, kept=chains)
        streams = Streams.named(5, "cold", size, runs=runs)
        cold = fit(data, sampling=long, streams=streams)
        reference = improvements(of_all_draws(cold, data), fixed.expand(runs, -1, -1))
        by_chain = reference.unflatten(1, (chains, -1)).mean(2)
        ours = improvements(found.surrogate, fixed.expand(runs, -1, -1))
        variance = reference.var(1) / ours.shape[1] + by_chain.var(1) / chains
        deviation = (ours.mean(1) - reference.mean(1)) / variance.sqrt()
        deviations.append(deviation[reference.mean(1) > NEGLIGIBLE])
    z = torch.cat(deviations)
    assert len(z) > 3 * len(deviations)
    assert float((z.abs() <= 2).double().mean()) >= share
    # No bias either: what is of one fit and run may be one number, the rest is nearly independent.
    assert abs(float(z.mean())) < 4 / math.sqrt(runs * len(deviations))
