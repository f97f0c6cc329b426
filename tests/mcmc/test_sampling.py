"""Moments of densities that are known, judged in Monte-Carlo errors."""

import pytest
import torch
from scipy import stats

from gpbo.backend import DTYPE, Streams
from gpbo.errors import InvalidOption
from gpbo.mcmc.diagnostics import bulk_ess, rank_rhat
from gpbo.mcmc.leapfrog import LogDensity
from gpbo.mcmc.sampling import Draws, Schedule, Warmth, sample


def cold(density: LogDensity, dim: int, draws: int, runs: int = 2, chains: int = 7) -> Draws:
    start = Warmth(
        position=3 * Streams.named(1, "start", runs=runs).normal(chains, dim),
        step_size=torch.full((runs,), 0.2, dtype=DTYPE),
        scale=torch.eye(dim, dtype=DTYPE).expand(runs, dim, dim),
    )
    return sample(density, start, Schedule(draws=draws), Streams.named(2, "nuts", runs=runs))


def largest_z(values: torch.Tensor, expected: torch.Tensor) -> float:
    """Of means over chains ``c`` and draws ``t`` of ``values[r,c,t,j]``."""
    by_row = values.permute(0, 3, 1, 2)
    error = by_row.flatten(2).std(-1) / bulk_ess(by_row).clamp_max(by_row[0, 0].numel()).sqrt()
    return float(((by_row.flatten(2).mean(-1) - expected) / error).abs().max())


def test_a_correlated_gaussian_of_condition_100() -> None:
    rotation = torch.linalg.qr(Streams([5]).normal(5, 5)[0]).Q
    variances = torch.logspace(-1, 1, 5, dtype=DTYPE)
    covariance = rotation @ torch.diag(variances) @ rotation.T
    precision = torch.linalg.inv(covariance)

    def gaussian(u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        slope = -u @ precision
        return 0.5 * (u * slope).sum(-1), slope

    draws = cold(gaussian, 5, 250)
    assert float(rank_rhat(draws.position.permute(0, 3, 1, 2)).max()) < 1.03
    assert largest_z(draws.position, torch.zeros(5, dtype=DTYPE)) < 4
    assert largest_z(draws.position.square(), covariance.diagonal()) < 4
    product = draws.position[..., :1] * draws.position[..., 1:2]
    assert largest_z(product, covariance[0, 1]) < 4
    assert float(draws.diverged.sum()) == 0


def test_a_student_t_with_five_degrees_of_freedom() -> None:
    freedom = 5.0

    def student(u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inside = 1 + u.square() / freedom
        slope = -(freedom + 1) / freedom * u / inside
        return -0.5 * (freedom + 1) * inside.log().sum(-1), slope

    draws = cold(student, 3, 250)
    assert largest_z(draws.position, torch.zeros(3, dtype=DTYPE)) < 4
    for probability in (0.1, 0.25, 0.75, 0.9):
        below = (draws.position < float(stats.t.ppf(probability, freedom))).to(DTYPE)
        assert largest_z(below, torch.tensor(probability, dtype=DTYPE)) < 4


@pytest.mark.parametrize(
    "options",
    [{"draws": 0}, {"settle": -1}, {"windows": (1,)}, {"max_depth": 0}, {"target": 1.0}],
)
def test_a_schedule_out_of_range_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(options))):
        Schedule(**options)  # type: ignore[arg-type]
