"""Draws with the right moments, from every run as if it were alone, in the numbers asked for."""

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from gpbo.backend import DTYPE, Streams
from gpbo.errors import InvalidOption
from gpbo.mcmc import sampling
from gpbo.mcmc.adaptation import TARGET, fisher_scale, refreshed_scale
from gpbo.mcmc.diagnostics import rank_rhat
from gpbo.mcmc.leapfrog import LogDensity
from gpbo.mcmc.nuts import Noise, Trajectory, Transition, tick
from gpbo.mcmc.sampling import Draws, Kernel, Schedule, Warmth, sample
from tests.monte_carlo import (
    COLD_NUTS,
    chain_means,
    covariance_with_condition,
    elliptical,
    quartic,
    random_normal,
    unchecked_shapes,
)

RUNS, CHAINS, DIM = 3, 7, 5
FIXED = Schedule(windows=(), settle=0, draws=9, kernel="nuts", max_depth=6)
FULL_SIZE = pytest.mark.long


def _warmth(seed: int, runs: int = RUNS, chains: int = CHAINS, dim: int = DIM) -> Warmth:
    return Warmth(
        position=2.0 * random_normal(seed, runs, chains, dim),
        value=torch.zeros(runs, chains, dtype=DTYPE),
        step_size=0.3 * (1 + torch.arange(runs, dtype=DTYPE)) / runs,
        scale=torch.eye(dim, dtype=DTYPE).expand(runs, -1, -1),
    )


def _streams(runs: int = RUNS, seed: int = 0) -> Streams:
    return Streams.named(seed, "test", runs=runs)


def _only(start: Warmth, run: int) -> Warmth:
    own = slice(run, run + 1)
    return Warmth(start.position[own], start.value[own], start.step_size[own], start.scale[own])


def _targets(runs: int = RUNS, dim: int = DIM, condition: float = 100.0) -> tuple[Tensor, Tensor]:
    return 3 * random_normal(1, runs, dim), covariance_with_condition(2, runs, dim, condition)


# The right distribution.


def _moment_errors(draws: Draws, location: Tensor, scale: Tensor, dof: float) -> tuple[Tensor, ...]:
    """Deviations of means, products and quantiles of the draws, and their standard errors.

    In coordinates where the density is spherical, so that a wrong correlation shows; then the
    quantiles also in the coordinates that were sampled.
    """
    offset = draws.position - location[:, None, None]
    white = torch.linalg.solve(torch.linalg.cholesky(scale)[:, None], offset.mT).mT
    spread = scale.diagonal(dim1=1, dim2=2).sqrt()[:, None, None]
    law = stats.norm() if math.isinf(dof) else stats.t(dof)
    products = white[..., :, None] * white[..., None, :]
    variance = float(law.var()) * torch.eye(white.shape[-1], dtype=DTYPE)
    checks = [(white, torch.zeros_like(white[:1, 0, 0])), (products.flatten(3), variance.flatten())]
    for probability in (0.05, 0.25, 0.5, 0.95):
        for coordinates in (white, offset / spread):
            below = (coordinates < float(law.ppf(probability))).to(DTYPE)
            checks.append((below, torch.tensor([probability], dtype=DTYPE)))
    means, errors = zip(*(chain_means(statistic) for statistic, _ in checks), strict=True)
    deviations = [mean - expected for mean, (_, expected) in zip(means, checks, strict=True)]
    return torch.cat(deviations, dim=-1), torch.cat(errors, dim=-1)


@pytest.mark.parametrize("draws", [60, pytest.param(1000, marks=FULL_SIZE)])
@pytest.mark.parametrize("kernel", ["nuts", "hmc"])
@unchecked_shapes()
def test_a_correlated_gaussian_has_its_moments_and_quantiles_from_a_cold_start(
    draws: int, kernel: Kernel
) -> None:
    """Condition 100 in random directions; three runs with targets of their own."""
    location, covariance = _targets()
    start = _warmth(3, chains=64)
    found = sample(
        elliptical(location, covariance),
        start,
        replace(COLD_NUTS, draws=draws, kernel=kernel),
        _streams(),
    )
    deviation, error = _moment_errors(found, location, covariance, math.inf)
    assert (deviation / error).abs().max() < 4
    # Trajectories of a given length do not reach across a density of condition 100.
    largest_error, largest_rhat = {"nuts": (0.04, 1.03), "hmc": (0.06, 1.07)}[kernel]
    assert error.max() < largest_error * math.sqrt(60 / draws)
    assert rank_rhat(found.position.permute(0, 3, 1, 2)).max() < largest_rhat
    assert found.diverged.sum() == 0


@pytest.mark.parametrize("draws", [60, pytest.param(1000, marks=FULL_SIZE)])
@pytest.mark.parametrize("kernel", ["nuts", "hmc"])
@unchecked_shapes()
def test_student_t_with_five_degrees_of_freedom_has_its_moments_and_quantiles(
    draws: int, kernel: Kernel
) -> None:
    location, scale = _targets(2, 3, condition=10.0)
    start = _warmth(4, runs=2, chains=64, dim=3)
    found = sample(
        elliptical(location, scale, 5.0),
        start,
        replace(COLD_NUTS, draws=draws, kernel=kernel),
        _streams(2),
    )
    deviation, error = _moment_errors(found, location, scale, 5.0)
    assert (deviation / error).abs().max() < 4
    assert error.median() < 0.02 * math.sqrt(60 / draws)


@unchecked_shapes()
def test_the_moments_test_notices_a_density_that_is_a_little_off() -> None:
    """The covariance 15 % too large: this test can fail."""
    location, covariance = _targets()
    start, schedule = _warmth(5, chains=64), replace(COLD_NUTS, draws=40)
    found = sample(elliptical(location, 1.15 * covariance), start, schedule, _streams())
    deviation, error = _moment_errors(found, location, covariance, math.inf)
    assert (deviation / error).abs().max() > 4


@unchecked_shapes()
def test_warm_up_finds_the_covariance_and_the_acceptance_asked_for() -> None:
    location, covariance = _targets()
    start, schedule = _warmth(6, chains=32), replace(COLD_NUTS, draws=20)
    found = sample(elliptical(location, covariance), start, schedule, _streams())
    learned = torch.linalg.solve(torch.linalg.cholesky(covariance), found.warmth.scale)
    singular = torch.linalg.svdvals(learned)
    assert singular.min() > 0.6
    assert singular.max() < 1.6
    assert ((found.acceptance.mean((1, 2)) - 0.8).abs() < 0.15).all()


# Every run and every chain for itself.


def _assert_run_alone_is_the_same(schedule: Schedule) -> None:
    location, covariance = _targets(condition=10.0)
    start = _warmth(7)
    together = sample(elliptical(location, covariance), start, schedule, _streams())
    for run in (0, RUNS - 1):
        own = slice(run, run + 1)
        alone = sample(
            elliptical(location[own], covariance[own]),
            _only(start, run),
            schedule,
            _streams().select([run]),
        )
        for name in ("position", "value", "acceptance", "steps", "diverged", "saturated"):
            ours, batched = getattr(alone, name)[0], getattr(together, name)[run]
            torch.testing.assert_close(ours, batched, rtol=1e-9, atol=1e-9)
        for name in ("step_size", "scale"):
            ours, batched = getattr(alone.warmth, name)[0], getattr(together.warmth, name)[run]
            torch.testing.assert_close(ours, batched, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel", ["nuts", "hmc"])
@unchecked_shapes()
def test_a_run_alone_draws_what_it_draws_in_a_batch(kernel: Kernel) -> None:
    _assert_run_alone_is_the_same(replace(FIXED, kernel=kernel))


@pytest.mark.parametrize("kernel", ["nuts", "hmc"])
@unchecked_shapes()
def test_a_run_alone_warms_up_as_it_does_in_a_batch(kernel: Kernel) -> None:
    """However long the others take: neither the step size nor the random numbers may notice."""
    _assert_run_alone_is_the_same(Schedule(windows=(6, 8), settle=4, draws=9, kernel=kernel))


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@unchecked_shapes()
def test_a_run_with_a_region_without_density_stays_out_of_it_and_harms_no_other(
    value: float,
) -> None:
    start = _warmth(8)
    start.position[1, :, 0] = -start.position[1, :, 0].abs() - 0.1
    rows = torch.arange(RUNS * CHAINS) // CHAINS

    def walled(u: Tensor) -> tuple[Tensor, Tensor]:
        density, gradient = quartic(u)
        outside = (u[:, 0] > 0.0) & (rows == 1)
        return density.masked_fill(outside, value), gradient.masked_fill(outside[:, None], value)

    found = sample(walled, start, FIXED, _streams())
    expected = sample(quartic, start, FIXED, _streams())
    for field in ("position", "value", "acceptance", "steps", "diverged"):
        ours, clean = getattr(found, field), getattr(expected, field)
        assert torch.equal(ours[[0, 2]], clean[[0, 2]])
    assert torch.isfinite(found.position).all()
    assert torch.isfinite(found.value).all()
    assert (found.position[1, ..., 0] <= 0).all()
    assert 0 < found.diverged[1].sum() < found.diverged[1].numel()
    assert (found.position[1].std(dim=1) > 0).all(-1).sum() >= CHAINS - 2


@unchecked_shapes()
def test_a_normal_cut_off_by_a_wall_has_the_mean_of_a_truncated_normal() -> None:
    """``-phi(0.7) / Phi(0.7)``: a rejection leaves the rest of the distribution as it was."""

    def walled(u: Tensor) -> tuple[Tensor, Tensor]:
        beyond = u[:, 0] > 0.7
        value = -0.5 * u.square().sum(-1)
        return value.masked_fill(beyond, torch.nan), -u.masked_fill(beyond[:, None], torch.nan)

    start = _warmth(16, chains=64, dim=2)
    start.position[..., 0] = -start.position[..., 0].abs()
    schedule = Schedule(windows=(), settle=0, draws=40, kernel="nuts")
    found = sample(walled, start, schedule, _streams())
    mean, error = chain_means(found.position[:, :, 10:, 0])
    expected = -stats.norm.pdf(0.7) / stats.norm.cdf(0.7)
    assert ((mean - expected) / error).abs().max() < 4
    assert error.max() < 0.05
    assert found.diverged.sum() > 0


@unchecked_shapes()
def test_a_chain_that_starts_without_a_density_stays_there_and_says_so() -> None:
    start = _warmth(9)
    start.position[1, 2] = 50.0
    start.position[2, 4] = torch.nan

    def bounded(u: Tensor) -> tuple[Tensor, Tensor]:
        density, gradient = quartic(u)
        return density.masked_fill(u.abs().amax(-1) > 20, -math.inf), gradient

    found = sample(bounded, start, FIXED, _streams())
    assert (found.position[1, 2] == 50.0).all()
    assert found.diverged[1, 2].all()
    assert found.diverged[2, 4].all()
    others = torch.ones(RUNS, CHAINS, dtype=torch.bool)
    others[1, 2] = others[2, 4] = False
    clean = sample(bounded, _warmth(9), FIXED, _streams())
    assert torch.equal(found.position[others], clean.position[others])


# The numbers asked for.


@unchecked_shapes()
def test_every_chain_keeps_its_first_transitions_however_long_others_take() -> None:
    """Keeping whatever is finished at some tick would favour short trajectories."""
    location, covariance = _targets()
    density, start = elliptical(location, covariance), _warmth(10)
    many = sample(density, start, replace(FIXED, draws=13), _streams())
    few = sample(density, start, replace(FIXED, draws=2), _streams())
    assert many.position.shape == (RUNS, CHAINS, 13, DIM)
    assert few.position.shape == (RUNS, CHAINS, 2, DIM)
    assert torch.equal(many.position[:, :, :2], few.position)
    assert torch.equal(many.steps[:, :, :2], few.steps)
    by_chain = many.steps.sum(-1)
    assert by_chain.max() > 1.3 * by_chain.min()


@unchecked_shapes()
def test_what_is_recorded_belongs_to_the_draws() -> None:
    schedule = Schedule(windows=(4, 6), settle=3, draws=9, kernel="nuts", max_depth=4)
    found = sample(quartic, _warmth(11), schedule, _streams())
    value, _ = quartic(found.position.reshape(-1, DIM))
    torch.testing.assert_close(found.value.flatten(), value, rtol=1e-12, atol=1e-12)
    assert ((found.acceptance >= 0) & (found.acceptance <= 1)).all()
    assert ((found.steps >= 1) & (found.steps <= 15)).all()
    assert (found.steps[found.saturated == 1] == 15).all()
    assert torch.equal(found.warmth.position, found.position[:, :, -1])
    # 13 transitions of warm-up, each of at least one step.
    assert ((found.warmup_steps >= 13) & (found.warmup_steps <= 13 * 15)).all()
    for part in (found, found.warmth):
        for field in fields(part):
            tensor = getattr(part, field.name)
            assert not (isinstance(tensor, Tensor) and tensor.is_inference())


@unchecked_shapes()
def test_without_a_warm_up_step_size_and_mass_matrix_are_brought_up_to_date_at_the_end() -> None:
    start = _warmth(12)
    found = sample(quartic, start, FIXED, _streams())
    corrected = start.step_size * (found.acceptance.mean((1, 2)) - TARGET).exp()
    torch.testing.assert_close(found.warmth.step_size, corrected, rtol=1e-12, atol=0)
    assert (found.warmup_steps == 0).all()
    gradient = quartic(found.position.flatten(0, 2))[1].reshape(found.position.shape)
    expected = refreshed_scale(start.scale, found.position, gradient)
    torch.testing.assert_close(found.warmth.scale, expected, rtol=1e-12, atol=1e-12)


@unchecked_shapes()
def test_a_mass_matrix_is_that_of_the_second_half_of_its_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Tensor] = []

    def recording(draws: Tensor, gradients: Tensor) -> Tensor:
        seen.append(draws)
        return fisher_scale(draws, gradients)

    monkeypatch.setattr(sampling, "fisher_scale", recording)
    schedule = Schedule((5, 8), settle=0, draws=1, kernel="hmc")
    sample(quartic, _warmth(13), schedule, _streams())
    assert [draws.shape[2] for draws in seen] == [3, 4]


@unchecked_shapes()
def test_the_step_size_never_changes_within_a_trajectory(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Tensor] = []
    steps: list[Tensor] = []

    def recording(
        log_density: LogDensity, state: Trajectory, step: Tensor, scale: Tensor, noise: Noise
    ) -> tuple[Trajectory, Transition]:
        begun.append(state.steps == 0)
        steps.append(step.clone())
        return tick(log_density, state, step, scale, noise)

    monkeypatch.setattr(sampling, "tick", recording)
    location, covariance = _targets()
    density = elliptical(location, covariance)
    sample(density, _warmth(13), Schedule((6,), settle=4, draws=5, kernel="nuts"), _streams())
    changed = torch.stack(steps)[1:] != torch.stack(steps)[:-1]
    assert not changed[~torch.stack(begun)[1:]].any()
    assert changed.sum() > 5 * RUNS * CHAINS


@unchecked_shapes()
def test_the_same_streams_give_the_same_draws_and_others_do_not() -> None:
    state = torch.get_rng_state()
    schedule = Schedule(windows=(4,), settle=2, draws=3, kernel="nuts")
    first, again, other = (
        sample(quartic, _warmth(14), schedule, _streams(seed=seed)).position for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.isclose(first, other).any()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 0}, "draws=0"),
        ({"settle": -1}, "settle=-1"),
        ({"windows": (8, 1)}, "windows=1"),
        ({"max_depth": 0}, "max_depth=0"),
        ({"max_depth": 13}, "max_depth=13"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        replace(COLD_NUTS, **options)
