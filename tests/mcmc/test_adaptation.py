"""Step sizes that reach their target, and scales pooled over the chains of a run."""

import pytest
import torch
from torch import Tensor

from gpbo.backend import DTYPE
from gpbo.mcmc.adaptation import DualAveraging, pooled_scale, refreshed_scale
from tests.monte_carlo import covariance_with_condition, random_normal, random_uniform

RUNS, CHAINS, DIM = 3, 5, 4


def _acceptance(step: Tensor, width: Tensor) -> Tensor:
    """Falls from 1 to 0 as the step size passes a width."""
    return torch.exp(-((step / width) ** 2))


def _adapt(
    width: Tensor, start: Tensor, rounds: int, seed: int = 0, chains: int = CHAINS
) -> DualAveraging:
    averaging = DualAveraging.start(start, target=0.8)
    runs = len(width)
    for turn in range(rounds):
        step = averaging.log_step.exp().repeat_interleave(chains)
        noise = 0.1 * random_normal(seed + turn, runs * chains)
        acceptance = (_acceptance(step, width.repeat_interleave(chains)) + noise).clamp(0, 1)
        done = random_uniform(1000 + seed + turn, runs * chains) < 0.5
        # What is not done says nothing, whatever is written there.
        averaging = averaging.update(done, acceptance.masked_fill(~done, torch.nan))
    return averaging


@pytest.mark.parametrize("start", [1e-3, 0.2, 50.0])
def test_the_averaged_step_size_reaches_the_target_acceptance(start: float) -> None:
    width = torch.tensor([0.03, 0.7, 20.0], dtype=DTYPE)
    first = torch.full((RUNS,), start, dtype=DTYPE)
    averaging = _adapt(width, first, 300)
    kept = averaging.log_average.exp()
    torch.testing.assert_close(
        _acceptance(kept, width), torch.full_like(width, 0.8), rtol=0, atol=0.06
    )


def test_a_short_adaptation_comes_near_from_a_tenth_and_from_tenfold() -> None:
    """Twelve transitions of every chain, as in the first window."""
    width = torch.tensor([0.7, 0.7, 0.7], dtype=DTYPE)
    right = width * (-torch.tensor(0.8, dtype=DTYPE).log()).sqrt()
    factors = torch.tensor([0.1, 1.0, 10.0], dtype=DTYPE)
    averaging = _adapt(width, right * factors, 24)
    assert ((averaging.log_average - right.log()).abs() < 0.5).all()


def test_a_transition_of_every_chain_counts_as_a_fixed_number_of_updates() -> None:
    start = torch.full((RUNS,), 0.3, dtype=DTYPE)
    averaging = DualAveraging.start(start)
    everyone = torch.ones(RUNS * CHAINS, dtype=torch.bool)
    at_target = torch.full((RUNS * CHAINS,), 0.8, dtype=DTYPE)
    assert averaging.update(everyone, at_target).count.tolist() == pytest.approx([2.0] * RUNS)
    one = torch.zeros(RUNS * CHAINS, dtype=torch.bool)
    one[CHAINS] = True
    expected = [0.0, 2.0 / CHAINS, 0.0]
    assert averaging.update(one, at_target).count.tolist() == pytest.approx(expected)


def test_no_finished_chain_changes_nothing() -> None:
    averaging = _adapt(torch.ones(RUNS, dtype=DTYPE), torch.ones(RUNS, dtype=DTYPE), 7)
    nobody = torch.zeros(RUNS * CHAINS, dtype=torch.bool)
    same = averaging.update(nobody, torch.full((RUNS * CHAINS,), torch.nan, dtype=DTYPE))
    for name in ("log_step", "log_average", "error", "count"):
        torch.testing.assert_close(
            getattr(same, name), getattr(averaging, name), rtol=1e-15, atol=0
        )


def test_steps_grow_where_too_much_is_accepted_and_shrink_where_too_little() -> None:
    averaging = DualAveraging.start(torch.full((2,), 0.3, dtype=DTYPE))
    everyone = torch.ones(2, dtype=torch.bool)
    for _ in range(5):
        averaging = averaging.update(everyone, torch.tensor([1.0, 0.1], dtype=DTYPE))
    large, small = averaging.log_step.exp().tolist()
    assert large > 0.6
    assert small < 0.3


def test_a_run_alone_adapts_as_in_the_batch() -> None:
    width = torch.tensor([0.03, 0.7, 20.0], dtype=DTYPE)
    averaging = DualAveraging.start(width)
    alone = [DualAveraging.start(width[[run]]) for run in range(RUNS)]
    for turn in range(20):
        done = random_uniform(turn, RUNS, CHAINS) < 0.4
        acceptance = random_uniform(100 + turn, RUNS, CHAINS)
        averaging = averaging.update(done.flatten(), acceptance.flatten())
        alone = [each.update(done[run], acceptance[run]) for run, each in enumerate(alone)]
    for name in ("log_step", "log_average", "error", "count"):
        together = getattr(averaging, name)
        separate = torch.cat([getattr(each, name) for each in alone])
        torch.testing.assert_close(together, separate, rtol=1e-14, atol=1e-14)


# The mass matrix.


def _draws(seed: int, covariance: Tensor, transitions: int, chains: int = CHAINS) -> Tensor:
    factor = torch.linalg.cholesky(covariance)
    white = random_normal(seed, len(covariance), chains, transitions, DIM)
    return white @ factor.mT[:, None] + 7.0


def test_the_pooled_scale_of_many_draws_is_a_factor_of_the_covariance() -> None:
    covariance = covariance_with_condition(0, RUNS, DIM, 100.0)
    factor = pooled_scale(_draws(1, covariance, 4000))
    whitened = torch.linalg.solve(torch.linalg.cholesky(covariance), factor)
    identity = torch.eye(DIM, dtype=DTYPE).expand(RUNS, -1, -1)
    # 20000 draws: an entry has a standard error of at most 1 %.
    torch.testing.assert_close(whitened @ whitened.mT, identity, rtol=0, atol=0.04)
    assert torch.equal(factor, factor.tril())


def test_all_chains_of_a_run_are_pooled_wherever_they_are() -> None:
    """The spread is that within chains: one that is still elsewhere does not widen the scale."""
    draws = _draws(2, covariance_with_condition(3, RUNS, DIM, 10.0), 6)
    expected = pooled_scale(draws)
    turned = pooled_scale(draws.flip(1))
    torch.testing.assert_close(turned, expected, rtol=1e-12, atol=1e-12)
    elsewhere = draws.clone()
    elsewhere[:, 0] += 10.0
    torch.testing.assert_close(pooled_scale(elsewhere), expected, rtol=1e-9, atol=1e-9)
    for chain in range(CHAINS):
        wider = draws.clone()
        wider[:, chain] *= 10.0
        larger = pooled_scale(wider).norm(dim=(1, 2))
        assert (larger > 1.5 * expected.norm(dim=(1, 2))).all()


def test_few_draws_keep_variances_but_no_correlation() -> None:
    """Two draws hardly tell a correlation: the shrunk matrix is well conditioned."""
    draws = _draws(4, covariance_with_condition(5, RUNS, DIM, 4.0), 2, chains=1)
    factor = pooled_scale(draws)
    covariance = factor @ factor.mT
    variance = covariance.diagonal(dim1=1, dim2=2)
    correlation = covariance / (variance[:, :, None] * variance[:, None, :]).sqrt()
    off_diagonal = correlation - torch.eye(DIM, dtype=DTYPE)
    assert off_diagonal.abs().max() < 0.6
    expected = (draws.var(dim=2)[:, 0] + 5e-3) / 6
    torch.testing.assert_close(variance, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("chains", [1, CHAINS])
def test_draws_that_are_all_the_same_still_have_a_scale(chains: int) -> None:
    same = torch.full((RUNS, chains, 1, DIM), 3.0, dtype=DTYPE)
    factor = pooled_scale(same)
    assert torch.isfinite(factor).all()
    assert (factor.diagonal(dim1=1, dim2=2) > 0).all()


def test_a_run_whose_covariance_overflows_harms_no_other() -> None:
    draws = _draws(6, covariance_with_condition(7, RUNS, DIM, 10.0), 8)
    expected = pooled_scale(draws)
    draws[1] *= 1e200
    found = pooled_scale(draws)
    others = torch.tensor([0, 2])
    assert torch.equal(found[others], expected[others])


def test_a_refreshed_scale_is_halfway_between_the_old_and_that_of_the_draws() -> None:
    draws = _draws(8, covariance_with_condition(9, RUNS, DIM, 10.0), 8)
    scale = torch.linalg.cholesky(covariance_with_condition(10, RUNS, DIM, 3.0))
    found, fresh = refreshed_scale(scale, draws), pooled_scale(draws)
    halfway = 0.5 * (scale @ scale.mT + fresh @ fresh.mT)
    torch.testing.assert_close(found @ found.mT, halfway, rtol=1e-12, atol=1e-12)


def test_draws_that_are_not_finite_leave_the_scale_of_their_run() -> None:
    draws = _draws(11, covariance_with_condition(12, RUNS, DIM, 10.0), 8)
    scale = torch.linalg.cholesky(covariance_with_condition(13, RUNS, DIM, 3.0))
    expected = refreshed_scale(scale, draws)
    draws[1, 2, 3] = torch.nan
    found = refreshed_scale(scale, draws)
    assert torch.equal(found[1], scale[1])
    assert torch.equal(found[[0, 2]], expected[[0, 2]])
