"""Step sizes that reach their target, and scales pooled over the chains of a run."""

import pytest
import torch
from torch import Tensor

from gpbo.backend import DTYPE
from gpbo.mcmc.adaptation import (
    _GAMMA,
    _OFFSET,
    DualAveraging,
    fisher_scale,
    refreshed_scale,
)
from tests.monte_carlo import covariance_with_condition, random_normal, random_uniform

RUNS, CHAINS, DIM = 3, 5, 4


def _acceptance(step: Tensor, width: Tensor) -> Tensor:
    """Falls from 1 to 0 as the step size passes a width."""
    return torch.exp(-((step / width) ** 2))


def _adapt(
    width: Tensor, start: Tensor, rounds: int, seed: int = 0, chains: int = CHAINS
) -> DualAveraging:
    averaging = DualAveraging.start(start)
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


def test_at_the_target_the_step_is_twice_the_first_one_and_replaces_it_in_the_average() -> None:
    first = torch.tensor([0.03, 0.7, 20.0], dtype=DTYPE)
    everyone = torch.ones(RUNS * CHAINS, dtype=torch.bool)
    at_target = torch.full((RUNS * CHAINS,), 0.8, dtype=DTYPE)
    averaging = DualAveraging.start(first).update(everyone, at_target)
    torch.testing.assert_close(averaging.log_step.exp(), 2 * first)
    torch.testing.assert_close(averaging.log_average.exp(), 2 * first)


def test_a_constant_acceptance_takes_the_step_where_the_formula_says() -> None:
    """In however many parts: an excess ``e`` in ``n`` updates is an error of ``e n / (n + o)``."""
    first = torch.tensor([0.03, 0.7, 20.0], dtype=DTYPE)
    acceptance = torch.tensor([0.95, 0.6, 0.8], dtype=DTYPE)
    averaging = DualAveraging.start(first)
    for turn in range(11):
        done = random_uniform(turn, RUNS * CHAINS) < 0.4
        averaging = averaging.update(done, acceptance.repeat_interleave(CHAINS))
        n = averaging.count
        error = (0.8 - acceptance) * n / (n + _OFFSET)
        torch.testing.assert_close(averaging.error, error)
        torch.testing.assert_close(
            averaging.log_step, (2 * first).log() - n.sqrt() / _GAMMA * error
        )


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


def _draws(
    seed: int, covariance: Tensor, transitions: int, chains: int = CHAINS
) -> tuple[Tensor, Tensor]:
    """Draws from normal densities, and their gradients there."""
    factor = torch.linalg.cholesky(covariance)
    white = random_normal(seed, len(covariance), chains, transitions, DIM)
    draws = white @ factor.mT[:, None]
    gradients = -draws @ torch.linalg.inv(covariance)[:, None]
    return draws + 7.0, gradients


def test_the_scale_of_normal_densities_is_a_factor_of_their_covariance() -> None:
    covariance = covariance_with_condition(0, RUNS, DIM, 100.0)
    factor = fisher_scale(*_draws(1, covariance, 4000))
    whitened = torch.linalg.solve(torch.linalg.cholesky(covariance), factor)
    identity = torch.eye(DIM, dtype=DTYPE).expand(RUNS, -1, -1)
    # The noise of the draws and that of the gradients cancel: only the shrinkage is left.
    torch.testing.assert_close(whitened @ whitened.mT, identity, rtol=0, atol=0.01)
    assert torch.equal(factor, factor.tril())


def test_a_scale_is_the_geometric_mean_of_spread_and_inverse_steepness() -> None:
    """A long tail widens the draws, a steep side the gradients: neither decides alone."""
    draws, gradients = random_normal(1, 2, RUNS, CHAINS, 2000, DIM)
    wide = torch.tensor([1.0, 3.0, 10.0, 0.1], dtype=DTYPE)
    steep = torch.tensor([1.0, 0.5, 2.0, 7.0], dtype=DTYPE)
    factor = fisher_scale(wide * draws, steep * gradients)
    variance = (factor @ factor.mT).diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(variance, (wide / steep).expand(RUNS, -1), rtol=0.05, atol=0)


def test_all_chains_of_a_run_are_pooled_wherever_they_are() -> None:
    """The spread is that within chains: one that is still elsewhere does not widen the scale."""
    draws, gradients = _draws(2, covariance_with_condition(3, RUNS, DIM, 10.0), 6)
    expected = fisher_scale(draws, gradients)
    turned = fisher_scale(draws.flip(1), gradients.flip(1))
    torch.testing.assert_close(turned, expected, rtol=1e-9, atol=1e-9)
    elsewhere = draws.clone()
    elsewhere[:, 0] += 10.0
    found = fisher_scale(elsewhere, gradients)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    for chain in range(CHAINS):
        wider = draws.clone()
        wider[:, chain] *= 10.0
        larger = fisher_scale(wider, gradients).norm(dim=(1, 2))
        assert (larger > 1.2 * expected.norm(dim=(1, 2))).all()


def test_few_draws_tell_widths_but_no_correlation() -> None:
    """Two draws hardly tell a correlation: the shrunk matrix is well conditioned."""
    draws, gradients = _draws(4, covariance_with_condition(5, RUNS, DIM, 4.0), 2, chains=1)
    factor = fisher_scale(draws, gradients)
    covariance = factor @ factor.mT
    variance = covariance.diagonal(dim1=1, dim2=2)
    correlation = covariance / (variance[:, :, None] * variance[:, None, :]).sqrt()
    assert (correlation - torch.eye(DIM, dtype=DTYPE)).abs().max() < 0.6
    spread = (draws - draws.mean(2, keepdim=True)).square().sum(2)[:, 0]
    expected = (spread / gradients.square().mean(2)[:, 0]).sqrt()
    torch.testing.assert_close(variance, expected, rtol=0.05, atol=0)


def test_a_correlation_is_shrunk_by_five_draws_and_two_for_every_parameter() -> None:
    """Draws of this correlation, and gradients of the opposite one, agree on the scale."""
    draws = random_normal(17, RUNS, CHAINS, 7, 2)
    draws = draws - draws.mean(2, keepdim=True)
    draws = draws / draws.square().sum((1, 2), keepdim=True).sqrt()
    factor = fisher_scale(draws, draws * torch.tensor([1.0, -1.0], dtype=DTYPE))
    found, given = factor @ factor.mT, draws.flatten(1, 2).mT @ draws.flatten(1, 2)
    correlation, sampled = (
        each[:, 0, 1] / (each[:, 0, 0] * each[:, 1, 1]).sqrt() for each in (found, given)
    )
    count = CHAINS * (7 - 1)
    torch.testing.assert_close(correlation, sampled * count / (count + 5 + 2 * 2))


@pytest.mark.parametrize("chains", [1, CHAINS])
def test_draws_that_are_all_the_same_still_have_a_scale(chains: int) -> None:
    same = torch.full((RUNS, chains, 2, DIM), 3.0, dtype=DTYPE)
    factor = fisher_scale(same, torch.zeros_like(same))
    assert torch.isfinite(factor).all()
    assert (factor.diagonal(dim1=1, dim2=2) > 0).all()


def test_a_parameter_that_does_not_vary_leaves_the_scale_of_the_others() -> None:
    draws, gradients = _draws(15, covariance_with_condition(16, RUNS, DIM, 10.0), 1000)
    expected = fisher_scale(draws, gradients)
    still = torch.full_like(draws[..., :1], 3.0)
    found = fisher_scale(
        torch.cat([still, draws], -1), torch.cat([torch.zeros_like(still), gradients], -1)
    )
    torch.testing.assert_close(found[:, 1:, 1:], expected, rtol=0, atol=0.01)


def test_a_run_whose_covariance_overflows_harms_no_other() -> None:
    draws, gradients = _draws(6, covariance_with_condition(7, RUNS, DIM, 10.0), 8)
    expected = fisher_scale(draws, gradients)
    draws[1] *= 1e200
    found = fisher_scale(draws, gradients)
    others = torch.tensor([0, 2])
    assert torch.equal(found[others], expected[others])


def test_a_refreshed_scale_is_halfway_between_the_old_and_that_of_the_draws() -> None:
    draws = _draws(8, covariance_with_condition(9, RUNS, DIM, 10.0), 8)
    scale = torch.linalg.cholesky(covariance_with_condition(10, RUNS, DIM, 3.0))
    found, fresh = refreshed_scale(scale, *draws), fisher_scale(*draws)
    halfway = 0.5 * (scale @ scale.mT + fresh @ fresh.mT)
    torch.testing.assert_close(found @ found.mT, halfway, rtol=1e-12, atol=1e-12)


def test_a_single_draw_per_chain_leaves_the_scale_as_it_is() -> None:
    draws = _draws(14, covariance_with_condition(9, RUNS, DIM, 10.0), 1)
    scale = torch.linalg.cholesky(covariance_with_condition(10, RUNS, DIM, 3.0))
    assert torch.equal(refreshed_scale(scale, *draws), scale)


@pytest.mark.parametrize("which", [0, 1])
def test_draws_or_gradients_that_are_not_finite_leave_the_scale_of_their_run(which: int) -> None:
    both = _draws(11, covariance_with_condition(12, RUNS, DIM, 10.0), 8)
    scale = torch.linalg.cholesky(covariance_with_condition(13, RUNS, DIM, 3.0))
    expected = refreshed_scale(scale, *both)
    both[which][1, 2, 3] = torch.nan
    found = refreshed_scale(scale, *both)
    assert torch.equal(found[1], scale[1])
    assert torch.equal(found[[0, 2]], expected[[0, 2]])
