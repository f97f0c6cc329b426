"""R-hat and effective sample sizes against arviz-stats."""

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats

from gpbo.backend import DTYPE, Streams
from gpbo.mcmc.diagnostics import bulk_ess, rank_rhat, tail_ess


def autoregressive(chains: int, length: int, correlation: float, seed: int = 0) -> torch.Tensor:
    noise = Streams([seed]).normal(chains, length)[0]
    draws = [noise[:, 0]]
    for step in range(1, length):
        draws.append(correlation * draws[-1] + noise[:, step])
    return torch.stack(draws, dim=1)


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.95, -0.4])
@pytest.mark.parametrize(("chains", "length"), [(3, 101), (7, 24), (16, 25), (2, 500)])
def test_diagnostics_equal_those_of_arviz(chains: int, length: int, correlation: float) -> None:
    draws = autoregressive(chains, length, correlation).exp()
    array = np.asarray(draws)
    rhat = array_stats.rhat(array, chain_axis=0, draw_axis=1)
    bulk = array_stats.ess(array, chain_axis=0, draw_axis=1, method="bulk")
    tail = array_stats.ess(array, chain_axis=0, draw_axis=1, method="tail", prob=(0.05, 0.95))
    assert float(rank_rhat(draws)) == pytest.approx(float(rhat), rel=1e-3)
    assert float(bulk_ess(draws)) == pytest.approx(float(bulk), rel=1e-6)
    assert float(tail_ess(draws)) == pytest.approx(float(tail), rel=1e-6)


def test_a_batch_is_its_rows() -> None:
    rows = torch.stack([autoregressive(5, 37, 0.3, seed) for seed in range(3)])
    for diagnostic in (rank_rhat, bulk_ess, tail_ess):
        alone = torch.stack([diagnostic(row) for row in rows])
        torch.testing.assert_close(diagnostic(rows), alone, rtol=1e-12, atol=0)


def test_chains_that_disagree_have_a_large_rhat() -> None:
    draws = autoregressive(5, 50, 0.0)
    draws[0] += 5.0
    assert float(rank_rhat(draws)) > 1.3, "one chain of five is elsewhere"
    wide = autoregressive(5, 50, 0.0)
    wide[0] *= 20.0
    assert float(rank_rhat(wide)) > 1.2, "a difference of spread shows in the folded R-hat"


def test_constant_draws_have_converged_and_short_ones_cannot_tell() -> None:
    constant = torch.ones(3, 20, dtype=DTYPE)
    assert float(rank_rhat(constant)) == 1.0
    assert float(bulk_ess(constant)) == 60.0
    assert torch.isnan(rank_rhat(constant[:, :3]))
