"""Densities with known moments, differences in Monte-Carlo errors, observations in given units."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import jaxtyping
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from gpbo.backend import DTYPE
from gpbo.data import Observations
from gpbo.mcmc.leapfrog import LogDensity
from gpbo.mcmc.sampling import Schedule
from gpbo.units import Units

#: Enough for a cold start of NUTS from anywhere.
COLD_NUTS = Schedule(windows=(10, 14, 16), settle=8, draws=24, kernel="nuts")


@contextmanager
def unchecked_shapes() -> Iterator[None]:
    """No shape checks inside: they take twice the time of a tick of few chains."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def random_normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DTYPE)


def random_uniform(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=DTYPE)


def ragged(
    x: Sequence[Tensor], values: Sequence[Tensor], pending: Sequence[Tensor] | None = None
) -> Observations:
    """Observations of runs that hold different numbers of results: one entry per run."""

    def padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        together = pad_sequence([row.to(DTYPE) for row in rows], batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        return together, torch.arange(together.shape[1]) < lengths[:, None]

    waiting = padded([row[:0] for row in x] if pending is None else pending)
    (points, mask), (results, _) = padded(x), padded(values)
    return Observations.of(points, results, mask, *waiting)


def in_units(data: Observations, units: Units) -> Observations:
    """The same observations in these units, not in the most probable ones."""
    data = replace(data)
    vars(data)["_in_own_units"] = torch.where(data.mask, units(data.values), 0.0), units
    return data


def covariance_with_condition(seed: int, runs: int, dim: int, condition: float) -> Tensor:
    """Covariances with eigenvalues spread evenly in logarithms, in random directions."""
    directions = torch.linalg.qr(random_normal(seed, runs, dim, dim)).Q
    eigenvalues = torch.logspace(0, math.log10(condition), dim, dtype=DTYPE)
    return directions @ torch.diag(eigenvalues) @ directions.mT


def elliptical(
    location: Float[Tensor, "r p"], scale: Float[Tensor, "r p p"], dof: float = math.inf
) -> LogDensity:
    """A Gaussian of every run, or Student's t with ``dof`` degrees of freedom."""
    precision = torch.linalg.inv(scale)
    runs, dim = location.shape

    def log_density(u: Tensor) -> tuple[Tensor, Tensor]:
        offset = u.reshape(runs, -1, dim) - location[:, None]
        pull = offset @ precision
        distance = (offset * pull).sum(-1)
        if math.isinf(dof):
            value, weight = -0.5 * distance, torch.ones_like(distance)
        else:
            value = -0.5 * (dof + dim) * torch.log1p(distance / dof)
            weight = (dof + dim) / (dof + distance)
        return value.flatten(), -(weight[..., None] * pull).reshape(u.shape)

    return log_density


def quartic(u: Tensor) -> tuple[Tensor, Tensor]:
    """A smooth density with coupled, anharmonic coordinates: no trajectory is an ellipse."""
    neighbour = u.roll(1, -1)
    coupled = u - 0.5 * neighbour**2
    value = -0.5 * coupled.square().sum(-1) - 0.05 * (u**4).sum(-1)
    gradient = -coupled + (coupled * neighbour).roll(-1, -1) - 0.2 * u**3
    return value, gradient


def chain_means(statistic: Float[Tensor, "r c t *j"]) -> tuple[Tensor, Tensor]:
    """Mean ``[r,*j]`` and its standard error, from the spread of the means of the chains.

    Chains are independent, so this needs no estimate of an autocorrelation.
    """
    by_chain = statistic.mean(2)
    return by_chain.mean(1), by_chain.std(1) / math.sqrt(by_chain.shape[1])
