"""The chance that a point gives a value, learned from those that did and did not."""

import math
from itertools import pairwise

import torch
from torch import Tensor

from gpbo.backend import DTYPE
from gpbo.candidates import Utility
from gpbo.data import Observations
from gpbo.feasibility import log_chance, log_chance_of_success, weighted
from gpbo.optimizer import Optimizer
from gpbo.space import Real, Space
from tests.monte_carlo import random_uniform

RUNS, RESULTS, FAILURES, POINTS, DIM = 2, 5, 3, 7, 11


def scene() -> tuple[Observations, Tensor, Tensor]:
    """Results in the upper half of the square, failures in the lower; run 1 has one failure."""
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(RUNS, RESULTS, DIM, dtype=DTYPE, generator=generator)
    failed = torch.rand(RUNS, FAILURES, DIM, dtype=DTYPE, generator=generator)
    x[..., 1] = 0.6 + 0.4 * x[..., 1]
    failed[..., 1] = 0.4 * failed[..., 1]
    mask = torch.ones(RUNS, FAILURES, dtype=torch.bool)
    mask[1, 1:] = False
    return Observations.of(x, x.sum(-1)), failed, mask


class Linear:
    """A utility with a gradient that is easy to know."""

    def __call__(self, x: Tensor) -> Tensor:
        return 3 * x[..., 0] - x[..., 1]

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        slope = torch.zeros_like(x)
        slope[..., 0], slope[..., 1] = 3.0, -1.0
        return self(x), slope


def weighed(utility: Utility, data: Observations, failed: Tensor, mask: Tensor) -> Utility:
    """The utility weighted by the chance of a value that follows from these."""
    return weighted(utility, log_chance(data, failed, mask), data.mask.any(-1))


def test_the_chance_is_low_at_failures_high_at_results_and_fair_where_nothing_is_known() -> None:
    data, failed, mask = scene()
    chance = log_chance_of_success(data, failed, mask)
    assert (chance(failed).exp()[mask] < 0.1).all()
    assert (chance(data.x).exp() > 0.95).all()
    far = Observations.of(torch.zeros(1, 1, 1, dtype=DTYPE), torch.zeros(1, 1, dtype=DTYPE))
    one = torch.ones(1, 1, 1, dtype=DTYPE)
    alone = log_chance_of_success(far, torch.zeros_like(one), torch.ones(1, 1, dtype=torch.bool))
    normal_at_one = 0.5 * math.erfc(-1 / math.sqrt(2))
    torch.testing.assert_close(
        alone(one).exp(), torch.full((1, 1), normal_at_one, dtype=DTYPE), rtol=0, atol=0.01
    )


def test_a_failure_reaches_as_far_along_the_diagonal_in_any_dimension() -> None:
    def chance(dim: int) -> Tensor:
        diagonal = torch.ones(1, 1, dim, dtype=DTYPE)
        data = Observations.of(0.1 * diagonal, torch.zeros(1, 1, dtype=DTYPE))
        mask = torch.ones(1, 1, dtype=torch.bool)
        return log_chance_of_success(data, 0.5 * diagonal, mask)(0.6 * diagonal)

    torch.testing.assert_close(chance(13), chance(1), rtol=1e-9, atol=0)


def test_more_failures_at_a_place_make_the_chance_fall_on() -> None:
    data, failed, _ = scene()
    once = torch.tensor([[True, False, False]]).expand(RUNS, -1)
    spot = failed[:, :1].expand(-1, FAILURES, -1)
    often = log_chance_of_success(data, spot, torch.ones(RUNS, FAILURES, dtype=torch.bool))
    seldom = log_chance_of_success(data, spot, once)
    assert (often(spot)[:, 0] < 2 * seldom(spot)[:, 0]).all()


def test_the_gradient_of_a_weighted_utility_is_that_of_autograd() -> None:
    data, failed, mask = scene()
    utility = weighed(Linear(), data, failed, mask)
    x = random_uniform(6, RUNS, POINTS, DIM).requires_grad_()
    value = utility(x)
    (expected,) = torch.autograd.grad(value.sum(), x)
    again, gradient = utility.value_and_gradient(x.detach())
    torch.testing.assert_close(again, value.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9)


def test_a_run_is_weighted_by_its_own_failures_only() -> None:
    data, failed, mask = scene()
    x = random_uniform(4, RUNS, POINTS, DIM)
    together = weighed(Linear(), data, failed, mask)(x)
    spoiled = torch.where(mask[..., None], failed, torch.nan)
    torch.testing.assert_close(weighed(Linear(), data, spoiled, mask)(x), together)
    alone = Observations.of(data.x[1:], data.x[1:].sum(-1))
    short = weighed(Linear(), alone, failed[1:, :1], mask[1:, :1])(x[1:])
    torch.testing.assert_close(together[1:], short, rtol=1e-12, atol=1e-12)


def test_runs_without_failures_keep_their_utility() -> None:
    data, failed, mask = scene()
    x = random_uniform(2, RUNS, POINTS, DIM)
    mask[0] = False
    half = weighed(Linear(), data, failed, mask)
    torch.testing.assert_close(half(x)[0], Linear()(x)[0], rtol=0, atol=0)
    value, gradient = half.value_and_gradient(x)
    torch.testing.assert_close(gradient[0], Linear().value_and_gradient(x)[1][0], rtol=0, atol=0)
    assert (value[1] < Linear()(x)[1]).all()
    nothing = Linear()
    assert weighed(nothing, data, failed[:, :0], mask[:, :0]) is nothing


def test_what_is_pending_counts_as_what_it_probably_is() -> None:
    """As a value where that is likely and as a failure where not; padding counts for nothing."""
    data, failed, mask = scene()
    middle = data.x.new_full((RUNS, 1, DIM), 0.5)
    good, bad = middle.clone(), middle.clone()
    good[..., 1], bad[..., 1] = 0.95, 0.05
    waiting = torch.tensor([[True, True, False], [True, True, True]])
    pending = torch.cat([good, bad, middle], 1)
    later = Observations.of(data.x, data.values, pending=pending, pending_mask=waiting)
    now, ahead = (log_chance(later, failed, mask, ahead=value) for value in (False, True))
    assert now is not None
    assert ahead is not None
    torch.testing.assert_close(now(pending), log_chance_of_success(data, failed, mask)(pending))
    assert (ahead(good) > now(good)).all()
    # Run 1 has one failure, and not there.
    assert ((ahead(bad) > now(bad))[:, 0] == torch.tensor([False, True])).all()
    x = torch.cat([data.x, good], 1)
    ended = log_chance_of_success(
        Observations.of(x, x.sum(-1)),
        torch.cat([failed, bad], 1),
        torch.cat([mask, torch.ones(RUNS, 1, dtype=torch.bool)], 1),
    )
    points = random_uniform(8, RUNS, POINTS, DIM)
    torch.testing.assert_close(ahead(points)[0], ended(points)[0], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(ahead(points)[1], ended(points)[1], rtol=1e-3)


def test_a_batch_does_not_walk_into_where_trials_fail() -> None:
    """No imagined value of a point that rather fails is to be improved on by the next."""
    optimizer = Optimizer(Space(Real("x", 0, 1)), "ei", seed=1, initial=4, inference="map")
    for number in range(11):
        x = number / 10
        optimizer.add({"x": x}, math.nan if number < 5 else (x - 0.1) ** 2)
    asked = sorted(trial.params["x"] for trial in optimizer.ask(8))
    assert 0.43 < asked[0] < 0.45
    assert min(b - a for a, b in pairwise(asked)) > 1e-4
