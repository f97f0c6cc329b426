"""Particles from prior to posterior: the mass of every mode, and every run by itself."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gpbo.backend import DTYPE, Streams
from gpbo.mcmc import annealing
from gpbo.mcmc.adaptation import TARGET
from gpbo.mcmc.annealing import (
    _PACE,
    _rise,
    _Tempered,
    anneal,
    effective_sample_size,
    resampled,
)
from gpbo.mcmc.nuts import Point
from tests.monte_carlo import random_normal, random_uniform, unchecked_shapes

DIM, SPREAD = 3, 3.0


class TwoModes:
    """A normal prior and a likelihood with two modes, along the first axis, of given masses."""

    def __init__(self, share: Tensor, width: float = 0.3, nowhere: Tensor | None = None) -> None:
        self.share, self.width = share, width
        self.nowhere = torch.zeros_like(share, dtype=torch.bool) if nowhere is None else nowhere

    def parts(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        prior, prior_slope = -0.5 * (u / SPREAD).square().sum(-1), -u / SPREAD**2
        chains = len(u) // len(self.share)
        share = self.share.repeat_interleave(chains)[:, None]
        centers = torch.tensor([[-2.0], [2.0]], dtype=DTYPE) * torch.eye(DIM, dtype=DTYPE)[0]
        offset = u[:, None] - centers
        height = -0.5 * (offset / self.width).square().sum(-1)
        height = height + torch.cat([share, 1 - share], -1).log()
        weight = torch.softmax(height, -1)[..., None]
        slope = -(weight * offset).sum(1) / self.width**2
        likelihood = torch.logsumexp(height, -1)
        nowhere = self.nowhere.repeat_interleave(chains)
        return (
            prior,
            prior_slope,
            likelihood.masked_fill(nowhere, -torch.inf),
            slope.masked_fill(nowhere[:, None], 0.0),
        )


def _prior(runs: int, count: int) -> Tensor:
    return SPREAD * random_normal(3, runs, count, DIM)


def _streams(runs: int) -> Streams:
    return Streams.named(0, "anneal", runs=runs)


@pytest.mark.parametrize("share", [0.5, 0.85])
@unchecked_shapes()
def test_modes_hold_particles_in_proportion_to_their_mass(share: float) -> None:
    runs, count = 150, 32
    density = TwoModes(torch.full((runs,), share, dtype=DTYPE))
    found, steps = anneal(density, _prior(runs, count), _streams(runs))
    left = (found.position[..., 0] < 0).double().mean(1)
    assert float(left.std()) < 0.3
    error = float(left.std()) / math.sqrt(runs)
    assert abs(float(left.mean()) - share) < 4 * error
    # Within a mode they are spread as the posterior is.
    precision = 1 / 0.3**2 + 1 / SPREAD**2
    across = found.position[..., 1:].flatten()
    assert float(across.std()) == pytest.approx(precision**-0.5, rel=0.05)
    prior, _, likelihood, _ = density.parts(found.position.flatten(0, 1))
    torch.testing.assert_close(found.value.flatten(), prior + likelihood)
    assert (steps > 15).all()


@unchecked_shapes()
def test_a_run_alone_ends_where_it_does_in_a_batch() -> None:
    """Others need another number of steps."""
    share = torch.tensor([0.5, 0.7, 0.2], dtype=DTYPE)
    prior = _prior(3, 16)
    prior[1] *= 0.2
    together, steps = anneal(TwoModes(share), prior, _streams(3))
    assert len(set(steps.tolist())) > 1
    for run in range(3):
        own = slice(run, run + 1)
        alone, taken = anneal(TwoModes(share[own]), prior[own], _streams(3).select([run]))
        assert taken[0] == steps[run]
        for name in ("position", "value", "step_size", "scale"):
            ours, batched = getattr(alone, name)[0], getattr(together, name)[run]
            torch.testing.assert_close(ours, batched, rtol=1e-8, atol=1e-8)


@unchecked_shapes()
def test_a_run_without_a_likelihood_keeps_its_particles_and_harms_no_other() -> None:
    share, prior = torch.full((3,), 0.5, dtype=DTYPE), _prior(3, 16)
    nowhere = torch.tensor([False, True, False])
    found, _ = anneal(TwoModes(share, nowhere=nowhere), prior, _streams(3))
    clean, _ = anneal(TwoModes(share), prior, _streams(3))
    assert torch.isfinite(found.position).all()
    assert torch.equal(found.position[1], prior[1])
    assert torch.isneginf(found.value[1]).all()
    for run in (0, 2):
        torch.testing.assert_close(found.position[run], clean.position[run], rtol=1e-8, atol=1e-8)


@unchecked_shapes()
def test_at_a_temperature_of_0_there_is_no_density_where_there_is_no_likelihood() -> None:
    """A first step may be too small to tell from 0; elsewhere the density is the prior's."""
    density = TwoModes(torch.full((2,), 0.5, dtype=DTYPE), nowhere=torch.tensor([True, False]))
    u = _prior(2, 7).flatten(0, 1)
    value, gradient = _Tempered(density, torch.zeros(2, dtype=DTYPE))(u)
    prior, prior_slope, _, _ = density.parts(u)
    assert torch.isneginf(value[:7]).all()
    assert torch.equal(value[7:], prior[7:])
    assert torch.equal(gradient, prior_slope)


@unchecked_shapes()
def test_the_streams_move_on_by_as_much_however_many_steps_a_batch_needs() -> None:
    share = torch.tensor([0.5, 0.7, 0.2], dtype=DTYPE)
    prior = _prior(3, 16)
    prior[1] *= 0.2
    streams = _streams(3)
    anneal(TwoModes(share), prior, streams)
    together = streams.uniform(7)
    for run in range(3):
        own, alone = slice(run, run + 1), _streams(3).select([run])
        anneal(TwoModes(share[own]), prior[own], alone)
        assert torch.equal(alone.uniform(7)[0], together[run])


class Sheared(TwoModes):
    """The same modes, in coordinates of which each is a sum."""

    shear = torch.eye(DIM, dtype=DTYPE) + torch.ones(DIM, DIM, dtype=DTYPE).tril(-1)

    def parts(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        prior, prior_slope, likelihood, slope = super().parts(u @ self.shear)
        return prior, prior_slope @ self.shear.mT, likelihood, slope @ self.shear.mT


@unchecked_shapes()
def test_a_trajectory_starts_with_the_value_and_the_whitened_gradient_of_its_temperature(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    move, moves = annealing._move, 0

    def checked(
        state: tuple[Point, Tensor], density: _Tempered, scale: Tensor, *others: Any
    ) -> Any:
        nonlocal moves
        moves += 1
        point, value, gradient = state[0], *density(state[0].position)
        whitened = (gradient.view(2, -1, DIM) @ scale).flatten(0, 1)
        torch.testing.assert_close(point.value, value)
        torch.testing.assert_close(point.gradient, whitened)
        return move(state, density, scale, *others)

    monkeypatch.setattr(annealing, "_move", checked)
    anneal(Sheared(torch.tensor([0.5, 0.3], dtype=DTYPE)), _prior(2, 17), _streams(2))
    assert moves > 3


@unchecked_shapes()
def test_a_step_size_grows_where_more_is_accepted_than_it_should_and_else_shrinks() -> None:
    count, first = 17, torch.tensor([1e-9, 1e9], dtype=DTYPE)
    density = _Tempered(TwoModes(torch.full((2,), 0.5, dtype=DTYPE)), torch.ones(2, dtype=DTYPE))
    position, scale = _prior(2, count).flatten(0, 1), torch.eye(DIM, dtype=DTYPE).expand(2, -1, -1)
    value, gradient = density(position)
    momentum, log_uniform = random_normal(11, 2 * count, DIM), random_uniform(12, 2 * count).log()
    state = Point(position, gradient, value), first
    (_, after), _ = annealing._move(state, density, scale, momentum, log_uniform, 5)
    acceptance = torch.tensor([1.0, 0.0], dtype=DTYPE)
    torch.testing.assert_close(after, first * (_PACE * (acceptance - TARGET)).exp())


class OneMode(TwoModes):
    """Likelihood is nowhere to the right of the middle."""

    def parts(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        prior, prior_slope, likelihood, slope = super().parts(u)
        nowhere = u[:, 0] > 0
        return (
            prior,
            prior_slope,
            likelihood.masked_fill(nowhere, -torch.inf),
            slope.masked_fill(nowhere[:, None], 0.0),
        )


@unchecked_shapes()
def test_particles_without_a_likelihood_give_way_to_the_others_by_the_same_degrees() -> None:
    runs, count = 7, 64
    density = OneMode(torch.full((runs,), 0.5, dtype=DTYPE))
    found, steps = anneal(density, _prior(runs, count), _streams(runs))
    assert (found.position[..., 0] < 0).all()
    precision = 1 / 0.3**2 + 1 / SPREAD**2
    offset = found.position - torch.tensor([-2.0 / 0.3**2 / precision, 0.0, 0.0], dtype=DTYPE)
    assert float(offset.mean((0, 1)).abs().max()) < 0.05
    assert float(offset.std()) == pytest.approx(precision**-0.5, rel=0.1)
    assert (steps > 15).all()


def test_particles_without_a_likelihood_do_not_hold_back_the_temperature() -> None:
    likelihood, temperature = 7 * random_normal(9, 3, 11), torch.tensor([0.0, 0.1, 0.4])
    every = torch.ones(3, 11, dtype=torch.bool)
    expected = _rise(likelihood, every, temperature.to(DTYPE))
    assert ((expected > 0) & (expected < 1 - temperature)).all()
    padded = torch.cat([likelihood, torch.full((3, 19), -torch.inf, dtype=DTYPE)], 1)
    found = _rise(padded, torch.isfinite(padded), temperature.to(DTYPE))
    torch.testing.assert_close(found, expected)


@unchecked_shapes()
def test_a_likelihood_as_narrow_as_a_needle_is_reached_in_a_bounded_number_of_steps() -> None:
    density = TwoModes(torch.full((2,), 0.5, dtype=DTYPE), width=1e-6)
    found, steps = anneal(density, _prior(2, 16), _streams(2))
    assert torch.isfinite(found.position).all()
    assert (steps <= 40 * 15).all()


@unchecked_shapes()
def test_the_last_of_the_steps_goes_all_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    advanced, temperatures = annealing._advanced, []

    def watched(*args: Any, **options: Any) -> Any:
        particles = advanced(*args, **options)
        temperatures.append(particles.temperature.tolist())
        return particles

    monkeypatch.setattr(annealing, "_advanced", watched)
    monkeypatch.setattr(annealing, "_MOST_STEPS", 3)
    anneal(TwoModes(torch.full((2,), 0.5, dtype=DTYPE), width=1e-6), _prior(2, 17), _streams(2))
    assert max(temperatures[1]) < 1
    assert temperatures[2:] == [[1.0, 1.0]]


def test_resampling_gives_every_particle_its_expected_number_of_descendants() -> None:
    log_weight = 2 * random_normal(5, 1, 7).expand(4000, -1)
    ancestors = resampled(log_weight, random_uniform(6, 4000))
    counts = torch.stack([(ancestors == own).sum(-1) for own in range(7)], -1).double()
    expected = 7 * torch.softmax(log_weight[0], -1)
    assert ((counts - expected).abs() < 1).all()
    error = counts.std(0) / math.sqrt(4000) + 1e-12
    assert ((counts.mean(0) - expected).abs() < 4 * error + 1e-9).all()


def test_even_weights_change_nothing_and_are_worth_their_number() -> None:
    even = torch.full((3, 5), -7.0, dtype=DTYPE)
    assert torch.equal(resampled(even, random_uniform(7, 3)), torch.arange(5).expand(3, -1))
    torch.testing.assert_close(effective_sample_size(even), torch.full((3,), 5.0, dtype=DTYPE))
    one = torch.full((1, 5), -torch.inf, dtype=DTYPE)
    one[0, 2] = 0.0
    assert torch.equal(resampled(one, random_uniform(8, 1)), torch.full((1, 5), 2))
    assert float(effective_sample_size(one)) == 1.0


def test_weights_that_add_up_to_less_than_the_last_place_choose_an_ancestor_all_the_same() -> None:
    """By a rounding; and systematic resampling may be asked for the very last place."""
    log_weight = random_normal(10, 211, 7)
    almost_one = torch.full((211,), 1 - 2.0**-53, dtype=DTYPE)
    places = (6 + almost_one) / 7
    assert (torch.softmax(log_weight, -1).cumsum(-1)[:, -1] < places).any()
    assert int(resampled(log_weight, almost_one).max()) == 6
