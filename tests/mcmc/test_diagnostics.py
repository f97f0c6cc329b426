"""R-hat and effective sample sizes against arviz-stats, and row by row."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from gpbo.backend import DTYPE
from gpbo.mcmc.diagnostics import bulk_ess, rank_rhat, tail_ess
from tests.monte_carlo import random_normal

Diagnostic = Callable[[Tensor], Tensor]


def _arviz(draws: Tensor) -> tuple[float, float, float]:
    """R-hat, bulk and tail effective sample size of draws ``[c,t]``; no R-hat of one chain."""
    axes = {"chain_axis": 0, "draw_axis": 1}
    values = draws.numpy()
    return (
        float(array_stats.rhat(values, **axes)),
        float(array_stats.ess(values, method="bulk", **axes)),
        float(array_stats.ess(values, method="tail", prob=(0.05, 0.95), **axes)),
    )


def _ours(draws: Tensor) -> tuple[float, float, float]:
    return float(rank_rhat(draws)), float(bulk_ess(draws)), float(tail_ess(draws))


def _autoregressive(seed: int, correlation: float, *shape: int) -> Tensor:
    """Stationary chains with a known autocorrelation ``correlation^lag``."""
    noise = random_normal(seed, *shape)
    values = [noise[..., 0]]
    for each in noise[..., 1:].unbind(-1):
        values.append(correlation * values[-1] + math.sqrt(1 - correlation**2) * each)
    return torch.stack(values, dim=-1)


@pytest.mark.parametrize("correlation", [-0.7, 0.0, 0.4, 0.9, 0.99])
@pytest.mark.parametrize("shape", [(1, 100), (3, 7), (5, 33), (16, 24), (3, 250), (2, 1001)])
def test_chains_of_any_autocorrelation_get_the_numbers_of_arviz(
    correlation: float, shape: tuple[int, int]
) -> None:
    for seed in range(4):
        draws = _autoregressive(seed, correlation, *shape)
        skipped = 1 if shape[0] == 1 else 0
        assert _ours(draws)[skipped:] == pytest.approx(_arviz(draws)[skipped:], rel=1e-6)


def test_short_chains_get_the_numbers_of_arviz() -> None:
    for shape in ((2, 6), (4, 16)):
        for correlation in (-0.7, 0.0, 0.4, 0.9):
            for seed in range(4):
                draws = _autoregressive(seed, correlation, *shape)
                assert _ours(draws) == pytest.approx(_arviz(draws), rel=1e-6)


def test_one_chain_is_judged_by_its_halves() -> None:
    assert float(rank_rhat(_autoregressive(9, 0.3, 1, 400))) == pytest.approx(1.0, abs=0.02)
    drifting = _autoregressive(9, 0.3, 1, 400) + torch.linspace(0, 4, 400, dtype=DTYPE)
    assert float(rank_rhat(drifting)) > 1.3


def test_chains_at_different_places_get_the_numbers_of_arviz() -> None:
    draws = _autoregressive(10, 0.5, 4, 60)
    draws[1] += 3.0
    draws[2, 30:] += 2.0
    draws[3] *= 4.0
    assert _ours(draws) == pytest.approx(_arviz(draws), rel=1e-6)
    assert _ours(draws)[0] > 1.3
    wide = _autoregressive(10, 0.0, 5, 50)
    wide[0] *= 20.0
    assert _ours(wide)[0] > 1.2, "a difference of spread shows in the folded R-hat"


def test_heavy_tails_get_the_numbers_of_arviz() -> None:
    draws = random_normal(11, 4, 90) / random_normal(12, 4, 90) * 1e6
    assert _ours(draws) == pytest.approx(_arviz(draws), rel=1e-6)


@example(chains=2, length=18, levels=3, seed=1119)
@given(
    chains=st.integers(1, 5),
    length=st.integers(6, 40),
    levels=st.integers(2, 6),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=40, deadline=None)
def test_ties_get_the_numbers_of_arviz(chains: int, length: int, levels: int, seed: int) -> None:
    """Rejected transitions repeat a draw; here nearly all draws are repeated."""
    draws = (_autoregressive(seed, 0.6, chains, length) * levels / 4).round()
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = _arviz(draws)
    # Where there are two values, they are equally far from the median: no folded R-hat, or 1.
    for found, reference in zip(_ours(draws), expected, strict=True):
        agrees = max(found, 1.0) == pytest.approx(max(reference, 1.0), rel=1e-6)
        assert agrees or not math.isfinite(reference)


def test_constant_draws_have_nothing_left_to_converge() -> None:
    same = torch.full((3, 2, 4, 30), 7.0, dtype=DTYPE)
    assert torch.equal(rank_rhat(same), torch.ones(3, 2, dtype=DTYPE))
    assert torch.equal(bulk_ess(same), torch.full((3, 2), 120.0, dtype=DTYPE))
    assert torch.equal(tail_ess(same), torch.full((3, 2), 120.0, dtype=DTYPE))


def test_chains_that_each_stand_still_elsewhere_have_not_converged() -> None:
    draws = torch.arange(4.0, dtype=DTYPE)[:, None].expand(4, 20).clone()
    assert float(rank_rhat(draws)) > 10
    assert float(bulk_ess(draws)) < 10


def test_one_chain_that_stands_still_gets_the_numbers_of_arviz() -> None:
    draws = random_normal(13, 4, 50)
    draws[2] = 0.4
    assert _ours(draws) == pytest.approx(_arviz(draws), rel=1e-6)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_chains_too_short_to_be_split_have_no_rhat(length: int) -> None:
    assert bool(rank_rhat(random_normal(14, 2, 3, length)).isnan().all())
    assert bool(bulk_ess(random_normal(14, 2, 3, length)).isnan().all())
    assert bool(tail_ess(random_normal(14, 2, 3, length)).isnan().all())


def test_four_draws_are_enough_for_an_rhat() -> None:
    assert bool(rank_rhat(random_normal(14, 2, 3, 4)).isfinite().all())


@pytest.mark.parametrize("diagnostic", [rank_rhat, bulk_ess, tail_ess])
def test_every_row_of_a_batch_gets_its_own_number(diagnostic: Diagnostic) -> None:
    draws = _autoregressive(15, 0.6, 3, 2, 5, 37)
    together = diagnostic(draws)
    assert together.shape == (3, 2)
    for run in range(3):
        for coordinate in range(2):
            alone = diagnostic(draws[run, coordinate])
            torch.testing.assert_close(together[run, coordinate], alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize("diagnostic", [rank_rhat, bulk_ess, tail_ess])
def test_a_row_that_is_not_finite_harms_no_other(diagnostic: Diagnostic) -> None:
    draws = _autoregressive(16, 0.6, 3, 5, 37)
    expected = diagnostic(draws)
    draws[1, 2, 3] = torch.nan
    found = diagnostic(draws)
    torch.testing.assert_close(found[[0, 2]], expected[[0, 2]], rtol=1e-12, atol=0)


@pytest.mark.parametrize("diagnostic", [rank_rhat, bulk_ess])
def test_monotone_transforms_of_the_draws_change_nothing(diagnostic: Diagnostic) -> None:
    """Ranks are all that counts. (R-hat also looks at distances from the median: a shift.)"""
    draws = _autoregressive(17, 0.3, 4, 80)
    torch.testing.assert_close(diagnostic(3 * draws + 5), diagnostic(draws), rtol=1e-9, atol=0)
    torch.testing.assert_close(bulk_ess(draws.exp()), bulk_ess(draws), rtol=1e-9, atol=0)


def test_independent_draws_count_fully_and_correlated_ones_as_theory_says() -> None:
    """An AR(1) chain's mean is worth ``(1 - phi) / (1 + phi)`` of its length."""
    independent = float(bulk_ess(random_normal(18, 8, 2000)))
    correlated = float(bulk_ess(_autoregressive(19, 0.8, 8, 2000)))
    assert independent == pytest.approx(16000, rel=0.1)
    assert correlated == pytest.approx(16000 / 9, rel=0.2)
