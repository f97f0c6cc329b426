"""Draws of a GP's hyperparameters: against Pyro, warm against cold, alone against batched."""

import math
import random
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from pyro.infer.mcmc import MCMC
from scipy.optimize import minimize as scipy_minimize
from torch import Tensor

from gpbo import inference, pyro_nuts, sample_hyperparameters
from gpbo.ascent import Ascent, maximize
from gpbo.backend import DTYPE, Streams
from gpbo.errors import GpboError, InvalidData, InvalidOption
from gpbo.evidence import LogPosterior, Model
from gpbo.hyperparameters import HyperparameterPrior, Parametrization, resolve_prior
from gpbo.inference import (
    HyperparameterDraws,
    SamplerInfo,
    by_chain,
    cold_start,
    constrained,
    convergence,
    diagnosed,
    draw,
    mode,
    promising_starts,
    schedule_for,
)
from gpbo.mcmc.annealing import anneal
from gpbo.mcmc.diagnostics import bulk_ess, rank_rhat, tail_ess
from gpbo.mcmc.sampling import Schedule, Warmth, sample
from gpbo.priors import Fixed, LogNormal
from gpbo.pyro_nuts import draw_with_pyro
from gpbo.units import centred
from tests.monte_carlo import (
    COLD_NUTS,
    chain_means,
    random_normal,
    random_uniform,
    unchecked_shapes,
)

RUNS, DIM = 3, 2
FULL_SIZE = pytest.mark.long


def _data(seed: int, runs: int, n: int, dim: int) -> tuple[Tensor, Tensor]:
    """A wave along the first coordinate, of another frequency in every run, and noise."""
    x = random_uniform(seed, runs, n, dim)
    frequency = 3.0 + 2.0 * torch.arange(runs, dtype=DTYPE)[:, None]
    y = torch.sin(frequency * x[..., 0]) + 0.3 * x[..., -1] + 0.1 * random_normal(seed, runs, n)
    return x, (y - y.mean(-1, keepdim=True)) / y.std(-1, keepdim=True)


def _posterior(seed: int, runs: int, n: int, dim: int) -> LogPosterior:
    x, y = _data(seed, runs, n, dim)
    return Model().log_posterior(x, y, torch.ones_like(y, dtype=torch.bool))


def _statistics(draws: HyperparameterDraws) -> Tensor:
    """``[r,c,t,j]``: logarithms of the positive ones, the mean, and all their squares."""
    noise = (draws.noise_variance - resolve_prior("dimension-scaled").noise_floor).log()
    u = torch.cat(
        [
            draws.lengthscale.log(),
            draws.outputscale.log()[..., None],
            noise[..., None],
            draws.mean[..., None],
        ],
        dim=-1,
    )
    u = u.reshape(u.shape[0], draws.chains, -1, u.shape[-1])
    return torch.cat([u, u**2], dim=-1)


def _mean_of_one_chain(statistic: Tensor) -> tuple[Tensor, Tensor]:
    """Means ``[r,j]`` of ``[r,1,t,j]`` and standard errors from effective sample sizes."""
    ess = torch.tensor(
        [
            [
                float(array_stats.ess(column, method="mean", chain_axis=0, draw_axis=1))
                for column in run
            ]
            for run in statistic.permute(0, 3, 1, 2).numpy()
        ],
        dtype=DTYPE,
    )
    flat = statistic.flatten(1, 2)
    return flat.mean(1), flat.std(1) / ess.sqrt()


def _deviation(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> float:
    error = (first[1].square() + second[1].square()).sqrt()
    return float(((first[0] - second[0]) / error).abs().max())


# The right distribution.


@pytest.mark.parametrize(
    ("runs", "n", "dim", "pyro"),
    [(1, 8, 2, (60, 250)), pytest.param(3, 20, 3, (500, 4000), marks=FULL_SIZE)],
)
@unchecked_shapes()
def test_draws_agree_with_those_of_pyro(runs: int, n: int, dim: int, pyro: tuple[int, int]) -> None:
    posterior = _posterior(1, runs, n, dim)
    ours = draw(
        posterior,
        Streams.named(0, "ours", runs=runs),
        replace(COLD_NUTS, draws=24 if runs == 1 else 400),
        chains=64,
        warmth=None,
    )
    warmup, kept = pyro
    state = torch.get_rng_state()
    streams = Streams.named(0, "pyro", runs=runs)
    theirs = draw_with_pyro(posterior, streams, warmup=warmup, draws=kept)
    assert torch.equal(torch.get_rng_state(), state)
    assert theirs.mean.shape == (runs, kept)
    assert theirs.chains == 1
    found, reference = chain_means(_statistics(ours)), _mean_of_one_chain(_statistics(theirs))
    assert _deviation(found, reference) < 4
    # The comparison means something: the errors are small beside the spread.
    spread = _statistics(ours).flatten(1, 2).std(1)
    assert ((found[1].square() + reference[1].square()).sqrt() < 0.3 * spread).all()


@unchecked_shapes()
def test_draws_agree_with_weighted_draws_of_the_prior() -> None:
    """Without a Markov chain. Lengthscales of a step's posterior range from below the distance of
    its points, where anything may be between them, to a third of the cube."""
    runs, draws = 100, 400_000
    x = (torch.arange(11, dtype=DTYPE) / 10)[:, None].expand(runs, -1, -1)
    y = torch.where(x[..., 0] < 0.45, 1.0, -1.0)
    posterior = Model().log_posterior(x, y - 1 / 11, torch.ones_like(y, dtype=torch.bool))
    one = posterior.select(slice(1))
    u = one.parametrization.sample(Streams.named(0, "prior"), draws)[0]
    weight = torch.softmax(one.parts(u)[2], 0)
    statistics = torch.cat([u, u**2], 1)
    expected = weight @ statistics
    expected_error = (weight.square() @ (statistics - expected).square()).sqrt()
    ours = draw(
        posterior,
        Streams.named(1, "ours", runs=runs),
        schedule_for(8, 24, cold=True),
        chains=16,
        warmth=None,
    ).unconstrained
    # Runs are independent, as chains of one that have ancestors in common are not.
    found = chain_means(torch.cat([ours, ours**2], 2)[None])
    assert _deviation(found, (expected, expected_error)) < 4
    assert (found[1][0, : u.shape[1]] < 0.02 * ours.flatten(0, 1).std(0)).all()


@unchecked_shapes()
def test_pyro_leaves_the_random_numbers_of_the_user_alone() -> None:
    before = random.getstate(), repr(np.random.get_state())  # noqa: NPY002
    draw_with_pyro(_posterior(23, 1, 3, 1), Streams([0]), warmup=2, draws=4)
    assert (random.getstate(), repr(np.random.get_state())) == before  # noqa: NPY002


@unchecked_shapes()
def test_a_run_that_pyro_cannot_sample_leaves_the_others_alone_with_gradients_off() -> None:
    """Five results at one point, and no noise: no covariance of theirs can be factorised."""
    x, y = _data(24, 2, 7, 2)
    x[1, :5] = x[1, :1]
    prior = HyperparameterPrior(noise_variance=Fixed(0.0), noise_floor=1e-25)
    mask = torch.ones_like(y, dtype=torch.bool)
    both, good = (Model(prior=prior).log_posterior(x[:r], y[:r], mask[:r]) for r in (2, 1))
    options = {"warmup": 32, "draws": 5}
    with torch.no_grad():
        found = draw_with_pyro(both, Streams([0, 1]), **options)
        alone = draw_with_pyro(good, Streams([0]), **options)
    assert found.info.divergences.tolist() == [alone.info.divergences.item(), 5]
    assert torch.equal(found.unconstrained[0], alone.unconstrained[0])
    assert alone.unconstrained[0].unique(dim=0).shape[0] > 1
    going_on = draw(
        good, Streams([2]), schedule_for(4, 6, cold=False), chains=1, warmth=alone.warmth
    )
    assert going_on.unconstrained[0].unique(dim=0).shape[0] > 1


def test_divergences_of_pyro_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Diverging(MCMC):
        def diagnostics(self) -> Any:
            return {"divergences": {"chain 0": [0, 3]}}

    monkeypatch.setattr(pyro_nuts, "MCMC", Diverging)
    with unchecked_shapes():
        found = draw_with_pyro(_posterior(23, 2, 3, 1), Streams([0, 1]), warmup=2, draws=5)
    assert found.info.divergences.tolist() == [2, 2]


@pytest.fixture(scope="module")
def cold() -> HyperparameterDraws:
    """A long run on all twelve observations."""
    with unchecked_shapes():
        return sample_hyperparameters(*_data(2, RUNS, 12, DIM), chains=32, draws=40, seed=99)


@unchecked_shapes()
def test_a_warm_start_with_one_observation_more_agrees_with_a_long_cold_run(
    cold: HyperparameterDraws,
) -> None:
    """Three times in a row, so that what is wrong with one step has time to add up."""
    x, y = _data(2, RUNS, 12, DIM)
    warm = sample_hyperparameters(x[:, :9], y[:, :9], chains=32, draws=4, warmup=32, seed=0)
    for count, draws in ((10, 4), (11, 4), (12, 24)):
        warm = sample_hyperparameters(
            x[:, :count], y[:, :count], chains=32, draws=draws, start=warm, seed=count
        )
    assert warm.info.transitions == 24
    assert (warm.info.leapfrog_steps < cold.info.leapfrog_steps).all()
    assert _deviation(chain_means(_statistics(warm)), chain_means(_statistics(cold))) < 4


@unchecked_shapes()
def test_draws_that_go_on_again_and_again_have_random_numbers_of_their_own() -> None:
    """With those of the call before, draws of two calls would go hand in hand."""
    x, y = _data(2, RUNS, 12, DIM)
    drawn = [sample_hyperparameters(x, y, chains=16, draws=12)]
    for _ in range(2):
        drawn.append(sample_hyperparameters(x, y, chains=16, draws=12, start=drawn[-1]))
    assert [each.continuations for each in drawn] == [0, 1, 2]
    last, now = (each.unconstrained for each in drawn[1:])
    last, now = ((each - each.mean(1, True)) / each.std(1, keepdim=True) for each in (last, now))
    assert (last * now).mean(1).abs().max() < 0.35


@unchecked_shapes()
def test_the_comparison_notices_chains_that_are_still_where_they_began(
    cold: HyperparameterDraws,
) -> None:
    x, y = _data(2, RUNS, 12, DIM)
    far = replace(cold.warmth, position=cold.warmth.position + 1.5)
    stale = sample_hyperparameters(x, y, draws=2, warmup=0, start=replace(cold, warmth=far), seed=1)
    assert _deviation(chain_means(_statistics(stale)), chain_means(_statistics(cold))) > 4


def test_a_chain_that_got_stuck_goes_on_from_the_best_one_of_its_run() -> None:
    posterior = _posterior(5, runs=RUNS, n=11, dim=DIM)

    def going_on(warmth: Warmth, seed: int) -> HyperparameterDraws:
        streams = Streams.named(seed, "warm", runs=RUNS)
        schedule = schedule_for(4, 3, cold=False)
        return draw(posterior, streams, schedule, chains=5, warmth=warmth)

    streams = Streams.named(5, "cold", runs=RUNS)
    cold = draw(posterior, streams, schedule_for(64, 3, cold=True), chains=5, warmth=None)
    # The last coordinate is the mean of the process: the square of this one is infinite.
    lost = cold.warmth.position.clone()
    lost[1, 2, -1] = 1e200
    stuck = going_on(replace(cold.warmth, position=lost, gradient=None), 6)
    assert stuck.info.divergences.tolist() == [0, 3, 0]
    value = posterior(stuck.warmth.position.flatten(0, 1))[0].reshape(RUNS, 5)
    torch.testing.assert_close(value[1, 2], value[1].max(), rtol=1e-12, atol=0)
    for run in (0, 2):
        assert len(set(value[run].tolist())) == 5
    freed = going_on(stuck.warmth, 7)
    assert freed.info.divergences[1] == 0
    assert (freed.mean.abs() < 100).all()


@pytest.mark.parametrize("prior", ["botorch", "saas"])
@unchecked_shapes()
def test_other_named_priors_can_be_sampled(prior: str) -> None:
    x, y = _data(4, RUNS, 7, DIM)
    draws = sample_hyperparameters(x, y, chains=3, draws=3, warmup=8, model=Model(prior=prior))
    for name in ("lengthscale", "outputscale", "noise_variance"):
        values = getattr(draws, name)
        assert torch.isfinite(values).all()
        assert (values > 0).all()
    assert torch.isfinite(draws.mean).all()
    assert draws.info.divergences.sum() < 9


@unchecked_shapes()
def test_distributions_of_the_users_can_be_sampled() -> None:
    x, y = _data(5, RUNS, 7, DIM)
    prior = HyperparameterPrior(
        lengthscale=torch.distributions.Gamma(3.0, 6.0),
        outputscale=torch.distributions.HalfNormal(2.0),
        noise_variance=LogNormal(-4.0, 1.0),
        mean=torch.distributions.Normal(0.0, 1.0),
    )
    draws = sample_hyperparameters(x, y, chains=3, draws=3, warmup=8, model=Model(prior=prior))
    assert (draws.lengthscale > 0).all()
    assert draws.lengthscale.std(1).min() > 0


# Alone and in a batch.


@unchecked_shapes()
def test_a_run_alone_draws_what_it_draws_in_a_batch() -> None:
    """Warm-up included; one run has data that make its trajectories long."""
    x, y = _data(6, RUNS, 9, DIM)
    y[1] *= 30.0
    mask = torch.ones_like(y, dtype=torch.bool)
    schedule = Schedule(windows=(4, 4), settle=2, draws=3, kernel="nuts")
    posterior = Model().log_posterior(x, y, mask)
    streams = Streams.named(0, "batch", runs=RUNS)
    together = draw(posterior, streams, schedule, chains=4, warmth=None)
    for run in (0, RUNS - 1):
        own = slice(run, run + 1)
        alone = draw(
            Model().log_posterior(x[own], y[own], mask[own]),
            Streams.named(0, "batch", runs=RUNS).select([run]),
            schedule,
            chains=4,
            warmth=None,
        )
        for name in ("lengthscale", "outputscale", "noise_variance", "mean"):
            ours, batched = getattr(alone, name)[0], getattr(together, name)[run]
            torch.testing.assert_close(ours, batched, rtol=1e-6, atol=1e-9)


@unchecked_shapes()
def test_a_run_alone_starts_from_the_results_it_starts_from_in_a_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gpbo.inference.MANY", 7)
    x, y = _data(6, RUNS, 17, DIM)
    counts = (5, 11, 17)
    mask = torch.arange(17) < torch.tensor(counts)[:, None]
    streams = Streams.named(0, "batch", runs=RUNS)
    together, steps = cold_start(Model().log_posterior(x, y, mask), streams, 4)
    for run, count in enumerate(counts):
        own = slice(run, run + 1)
        posterior = Model().log_posterior(x[own, :count], y[own, :count], mask[own, :count])
        alone, taken = cold_start(posterior, Streams.named(0, "batch", runs=RUNS).select([run]), 4)
        torch.testing.assert_close(alone.position[0], together.position[run], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(alone.value[0], together.value[run], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(alone.scale[0], together.scale[run], rtol=1e-6, atol=1e-9)
        assert taken[0] == steps[run]


@unchecked_shapes()
def test_padding_changes_nothing_but_rounding() -> None:
    x, y = _data(7, RUNS, 9, DIM)
    junk_x = torch.cat([x, torch.full((RUNS, 4, DIM), torch.nan, dtype=DTYPE)], dim=1)
    junk_y = torch.cat([y, torch.full((RUNS, 4), torch.inf, dtype=DTYPE)], dim=1)
    mask = torch.isfinite(junk_y)
    plain = Model().log_posterior(x, y, torch.ones_like(y, dtype=torch.bool))
    padded = Model().log_posterior(junk_x, junk_y, mask)
    schedule = Schedule(windows=(), settle=0, draws=4, kernel="nuts")
    start, _ = cold_start(plain, Streams.named(1, "start", runs=RUNS), 5)
    results = [
        sample(density, start, schedule, Streams.named(1, "nuts", runs=RUNS))
        for density in (plain, padded)
    ]
    torch.testing.assert_close(results[0].position, results[1].position, rtol=1e-8, atol=1e-8)


@unchecked_shapes()
def test_one_run_without_an_axis_of_runs_is_the_first_of_a_batch_of_one() -> None:
    x, y = _data(8, 1, 6, DIM)
    mask = torch.arange(6) < 5
    options: dict[str, Any] = {"chains": 3, "draws": 2, "warmup": 8}
    single = sample_hyperparameters(x[0], y[0], mask=mask, **options)
    batched = sample_hyperparameters(x, y, mask=mask[None], **options)
    shorter = sample_hyperparameters(x[:, :5], y[:, :5], **options)
    assert single.lengthscale.shape == (1, 6, DIM)
    assert single.outputscale.shape == single.noise_variance.shape == single.mean.shape == (1, 6)
    assert torch.equal(single.lengthscale, batched.lengthscale)
    torch.testing.assert_close(single.lengthscale, shorter.lengthscale, rtol=1e-2, atol=1e-2)


@unchecked_shapes()
def test_a_seed_decides_the_draws() -> None:
    x, y = _data(9, 1, 6, DIM)
    first, again, other = (
        sample_hyperparameters(x, y, chains=2, draws=2, warmup=8, seed=seed).mean
        for seed in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.isclose(first, other).any()


@unchecked_shapes()
def test_every_split_run_is_the_density_of_that_run() -> None:
    posterior = _posterior(10, RUNS, 7, DIM)
    u = random_normal(11, RUNS * 2, DIM + 3)
    value, gradient = posterior(u)
    alone = [
        posterior.select(slice(run, run + 1))(u[2 * run : 2 * run + 2])
        for run in range(posterior.runs)
    ]
    torch.testing.assert_close(torch.cat([each for each, _ in alone]), value, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(
        torch.cat([each for _, each in alone]), gradient, rtol=1e-9, atol=1e-9
    )


# What comes with the draws.


@unchecked_shapes()
def test_diagnostics_are_the_worst_over_the_coordinates() -> None:
    posterior = _posterior(12, RUNS, 7, DIM)
    start, _ = cold_start(posterior, Streams.named(2, "start", runs=RUNS), 5)
    schedule = Schedule((4,), 2, 8, "nuts", max_depth=2)
    raw = sample(posterior, start, schedule, Streams.named(2, "nuts", runs=RUNS))
    assert 0 < raw.saturated.mean() < 1
    found, position = constrained(posterior, raw), raw.position
    assert found.info.rhat.isnan().all()
    assert torch.equal(by_chain(found), position)
    info = diagnosed(found, position).info
    for run in range(RUNS):
        columns = [position[run, :, :, coordinate] for coordinate in range(DIM + 3)]
        assert float(info.rhat[run]) == pytest.approx(max(float(rank_rhat(c)) for c in columns))
        assert float(info.ess_bulk[run]) == pytest.approx(min(float(bulk_ess(c)) for c in columns))
        assert float(info.ess_tail[run]) == pytest.approx(min(float(tail_ess(c)) for c in columns))
        assert float(info.divergences[run]) == float(raw.diverged[run].sum())
        assert float(info.depth_saturation[run]) == pytest.approx(float(raw.saturated[run].mean()))
        assert float(info.acceptance[run]) == pytest.approx(float(raw.acceptance[run].mean()))
    steps = raw.warmup_steps + raw.steps.sum(-1).mean(-1)
    torch.testing.assert_close(info.leapfrog_steps, steps)
    assert info.transitions == 8


def test_diagnostics_are_of_the_draws_since_the_last_that_is_not_of_the_posterior() -> None:
    """For each run on its own; of fewer than a dozen there are none."""
    position = random_normal(5, 6, 4, 24, DIM)
    lost = [0, 1, 12, 13, 24]  # how many of the first draws; one of the sixth run's is in between
    for run, count in enumerate(lost):
        position[run, :, :count] = torch.nan
    position[5, 2, 3, 1] = torch.inf
    found = torch.stack(convergence(position))
    for run, count in enumerate([*lost, 4]):
        if count > 12:
            assert found[:, run].isnan().all()
        else:
            own = torch.stack(convergence(position[run : run + 1, :, count:]))
            assert own.isfinite().all()
            torch.testing.assert_close(found[:, run : run + 1], own, rtol=1e-12, atol=0)
    position[0, 1, -1] = torch.nan
    assert torch.stack(convergence(position[:1])).isnan().all()


def test_chains_of_fewer_than_a_dozen_draws_in_all_have_diagnostics() -> None:
    assert torch.stack(convergence(random_normal(5, 2, 4, 8, DIM))).isfinite().all()


@unchecked_shapes()
def test_a_single_draw_per_chain_has_no_diagnostics_but_is_drawn() -> None:
    x, y = _data(13, RUNS, 5, DIM)
    draws = sample_hyperparameters(x, y, chains=4, draws=1, warmup=8)
    assert draws.mean.shape == (RUNS, 4)
    assert draws.info.rhat.isnan().all()


def _counted(chains: int, length: int) -> HyperparameterDraws:
    """Draw ``10 * chain + transition``."""
    number = (10.0 * torch.arange(chains)[:, None] + torch.arange(length)).flatten()
    number = number.to(DTYPE).expand(2, -1)
    nothing = torch.zeros(2, dtype=DTYPE)
    return HyperparameterDraws(
        lengthscale=number[..., None].expand(-1, -1, DIM),
        outputscale=number,
        noise_variance=number,
        mean=number,
        unconstrained=number[..., None],
        chains=chains,
        info=SamplerInfo(
            nothing, nothing, nothing, nothing, nothing, nothing, nothing, transitions=length
        ),
        warmth=Warmth(
            torch.zeros(2, chains, 1, dtype=DTYPE),
            torch.zeros(2, chains, dtype=DTYPE),
            nothing,
            torch.ones(2, 1, 1, dtype=DTYPE),
        ),
    )


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [3]),
        (3, [3, 13, 23]),
        (6, [1, 3, 11, 13, 21, 23]),
        (12, [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]),
    ],
)
def test_the_last_draws_are_taken_evenly_from_the_ends_of_all_chains(
    count: int, expected: list[int]
) -> None:
    kept = _counted(chains=3, length=4).last(count)
    assert kept.mean[1].tolist() == expected
    for name in ("outputscale", "noise_variance"):
        assert torch.equal(getattr(kept, name), kept.mean)
    assert torch.equal(kept.lengthscale[..., 1], kept.mean)


def test_the_last_of_the_last_draws_are_the_last_draws() -> None:
    kept = _counted(chains=3, length=4).last(6)
    assert kept.last(3).mean.tolist() == [[3, 13, 23]] * 2


def test_an_uneven_number_of_last_draws_misses_no_chain() -> None:
    kept = _counted(chains=3, length=4).last(5)
    assert len(set(kept.mean[0].tolist())) == 5
    assert {3.0, 13.0, 23.0} < set(kept.mean[0].tolist())
    assert (kept.chains, kept.last(2).chains) == (1, 1)
    assert _counted(chains=3, length=4).last(13).chains == 3


# Cold starts, modes, other standardisations.


@unchecked_shapes()
def test_a_cold_start_is_dispersed_and_likelier_than_the_prior() -> None:
    posterior = _posterior(14, RUNS, 9, DIM)
    start, steps = cold_start(posterior, Streams.named(3, "start", runs=RUNS), 40)
    value, _ = posterior(start.position.flatten(0, 1))
    torch.testing.assert_close(start.value.flatten(), value)
    assert (steps > 0).all()
    prior = posterior.parametrization.sample(Streams.named(4, "prior", runs=RUNS), 40)
    expected, _ = posterior(prior.flatten(0, 1))
    assert (
        value.reshape(RUNS, 40).median(1).values > expected.reshape(RUNS, 40).median(1).values
    ).all()
    assert (start.position.std(1) > 0.2 * prior.std(1)).all()


@unchecked_shapes()
def test_a_cold_start_on_some_of_many_results_is_one_in_the_posterior_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    posterior = _posterior(16, RUNS, 41, DIM)
    streams = Streams.named(3, "start", runs=RUNS)
    reference = draw(posterior, streams, schedule_for(8, 24, cold=True), chains=64, warmth=None)
    monkeypatch.setattr("gpbo.inference.MANY", 20)
    streams = Streams.named(4, "start", runs=RUNS)
    start, _ = cold_start(posterior, streams, 64)
    value, gradient = posterior(start.position.flatten(0, 1))
    assert start.gradient is not None
    torch.testing.assert_close(start.value.flatten(), value)
    torch.testing.assert_close(start.gradient.flatten(0, 1), gradient)
    # They begin where the posterior of twenty results is, and are soon where that of all is.
    lowest = reference.warmth.value.amin(1, keepdim=True)
    assert (start.value < lowest).any(1).all()
    found = draw(posterior, streams, schedule_for(24, 24, cold=False), chains=64, warmth=start)
    means = [chain_means(_statistics(draws)) for draws in (found, reference)]
    assert _deviation(*means) < 4


@unchecked_shapes()
def test_a_cold_start_is_on_a_quarter_of_the_results_at_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gpbo.inference.MANY", 3)
    posterior, streams = _posterior(17, RUNS, 41, DIM), Streams.named(5, "start", runs=RUNS)
    annealed: list[LogPosterior] = []

    def noted(density: LogPosterior, *rest: Any) -> Any:
        annealed.append(density)
        return anneal(density, *rest)

    monkeypatch.setattr("gpbo.inference.anneal", noted)
    cold_start(posterior, streams, 4)
    assert (annealed[0].counts - posterior.counts / 4).abs().max() <= 2


@unchecked_shapes()
def test_after_a_cold_start_on_few_of_the_results_chains_move_in_the_posterior_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mass matrix of a seventh of them would have none accepted."""
    monkeypatch.setattr("gpbo.inference.MANY", 13)
    monkeypatch.setattr("gpbo.inference._LEAST_SHARE", 0.0)
    posterior = _posterior(16, RUNS, 97, DIM)
    streams = Streams.named(4, "start", runs=RUNS)
    start, _ = cold_start(posterior, streams, 16)
    found = sample(posterior, start, schedule_for(0, 8, cold=False), streams)
    assert (found.acceptance.mean(1) > 0.5).all()
    # Begun hundreds below, in logarithms, they climb.
    assert (found.value[:, :, -1].mean(1) > start.value.mean(1) + 100).all()


@unchecked_shapes()
def test_promising_starts_are_each_the_likeliest_of_a_few_of_the_prior() -> None:
    posterior = _posterior(14, RUNS, 9, DIM)
    starts = promising_starts(posterior, Streams.named(3, "start", runs=RUNS), 5)
    prior = posterior.parametrization.sample(Streams.named(3, "start", runs=RUNS), 5 * 8)
    value, _ = posterior(prior.flatten(0, 1))
    found, _ = posterior(starts.flatten(0, 1))
    torch.testing.assert_close(found.view(RUNS, 5), value.view(RUNS, 5, 8).amax(-1))


@pytest.mark.parametrize("prior", ["dimension-scaled", "saas"])
@unchecked_shapes()
def test_the_mode_is_as_high_as_the_best_that_scipy_finds(prior: str) -> None:
    x, y = _data(15, RUNS, 9, DIM)
    posterior = Model(prior=prior).log_posterior(x, y, torch.ones_like(y, dtype=torch.bool))
    value, _ = posterior(mode(posterior, Streams.named(5, "mode", runs=RUNS)))
    starts = posterior.parametrization.sample(Streams.named(6, "scipy", runs=RUNS), 5)
    for run in range(posterior.runs):
        single = posterior.select(slice(run, run + 1))
        assert float(value[run]) > _best_of_scipy(single, starts[run]) - 1e-5


@unchecked_shapes()
def test_of_many_results_some_show_where_the_modes_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last run has few: what it has found stays."""
    monkeypatch.setattr(inference, "MANY", 13)
    x, y = _data(15, RUNS, 29, DIM)
    mask = torch.ones_like(y, dtype=torch.bool)
    mask[-1, 13:] = False
    posterior = Model().log_posterior(x, y, mask)
    climbs: list[tuple[float, Tensor, Tensor]] = []

    def noting(density: LogPosterior, start: Tensor, *args: Any, **options: Any) -> Ascent:
        found = maximize(density, start, *args, **options)
        shape = RUNS, 8, -1
        climbs.append((float(density.counts[0]), start.view(shape), found.x.view(shape)))
        return found

    monkeypatch.setattr(inference, "maximize", noting)
    found = mode(posterior, Streams.named(5, "mode", runs=RUNS))
    (few, starts, seen), (many, modes, _) = climbs
    assert 7 < few < 20 < many == 29
    assert starts.isfinite().all()
    assert (seen[-1] - found[-1]).abs().amax(-1).min() < 1e-5
    # What several climbs have found is gone on with once, from the best to the worst.
    ends, _ = posterior.thinned(13, 0.25)(modes.flatten(0, 1))
    for own in ends.view(RUNS, 8):
        heights = own[own.isfinite()]
        assert 0 < len(heights) < 8
        assert (heights.diff() < -1e-3).all()
    value, _ = posterior(found)
    prior = posterior.parametrization.sample(Streams.named(6, "scipy", runs=RUNS), 5)
    for run in range(RUNS - 1):
        single = posterior.select(slice(run, run + 1))
        assert float(value[run]) > _best_of_scipy(single, prior[run]) - 1e-5


def _best_of_scipy(posterior: LogPosterior, starts: Tensor) -> float:
    def negated(u: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = posterior(torch.as_tensor(u)[None])
        # Out there scipy's line search wants a number.
        return min(-float(value), 1e10), -gradient[0].numpy()

    bounds = [(-20.0, 20.0)] * starts.shape[1]
    found = [
        scipy_minimize(negated, start.numpy(), jac=True, method="L-BFGS-B", bounds=bounds)
        for start in starts
    ]
    return -min(float(each.fun) for each in found)


@pytest.mark.parametrize("prior", ["dimension-scaled", "spearmint"])
def test_rescaled_hyperparameters_give_rescaled_values_the_same_likelihood(prior: str) -> None:
    """``p((y - shift) / factor | u') = factor^n p(y | u)``, exactly but for the noise floor."""
    x, y = _data(16, RUNS, 7, DIM)
    mask = torch.ones_like(y, dtype=torch.bool)
    shift = torch.tensor([0.3, -2.0, 0.0], dtype=DTYPE)
    factor = torch.tensor([0.5, 7.0, 1.3], dtype=DTYPE)
    moved_y = (y - shift[:, None]) / factor[:, None]
    for floor, tolerance in ((1e-30, 1e-10), (1e-6, 1e-2)):
        resolved = replace(resolve_prior(prior), noise_floor=floor)
        before = LogPosterior(x, y, mask, resolved)
        after = LogPosterior(x, moved_y, mask, resolved)
        u = 0.7 * random_normal(17, RUNS, 4, DIM + 3)
        u[..., -2] -= 2.0  # noise
        moved = after.parametrization.rescaled(u, shift, factor)
        values = [
            density.log_likelihood(density.parametrization.constrain(point.flatten(0, 1)))[0]
            for density, point in ((before, u), (after, moved))
        ]
        gained = (7 * factor.log()).repeat_interleave(4)
        torch.testing.assert_close(values[1], values[0] + gained, rtol=0, atol=tolerance)


def test_rescaling_leaves_what_has_no_scale_or_is_known() -> None:
    """BoTorch's prior fixes the outputscale at 1: only noise and mean move."""
    parametrization = Parametrization(resolve_prior("botorch"), DIM)
    u = random_normal(18, 1, 5, DIM + 2)
    shift, factor = torch.ones(1, dtype=DTYPE), torch.full((1,), math.e, dtype=DTYPE)
    moved = parametrization.rescaled(u, shift, factor)
    assert torch.equal(moved[..., :DIM], u[..., :DIM])
    torch.testing.assert_close(moved[..., DIM], u[..., DIM] - 2)
    torch.testing.assert_close(moved[..., DIM + 1], (u[..., DIM + 1] - 1) / math.e)


# Schedules and bad input.


@pytest.mark.parametrize("warmup", [1, 8, 23, 24, 31, 48, 200])
def test_the_phases_of_a_warm_up_add_up(warmup: int) -> None:
    cold = schedule_for(warmup, 5, cold=True)
    assert sum(cold.windows) + cold.settle == warmup
    assert cold.windows == ((warmup // 3,) if warmup >= 24 else ())
    assert cold.settle >= 1
    assert cold.draws == 5
    warm = schedule_for(warmup, 5, cold=False)
    assert (warm.windows, warm.settle, warm.draws) == ((), warmup, 5)


def test_the_default_warm_ups_are_the_documented_ones() -> None:
    cold, warm = schedule_for(None, 5, cold=True), schedule_for(None, 5, cold=False)
    assert (cold.windows, cold.settle) == (warm.windows, warm.settle) == ((), 8)
    assert cold.kernel == warm.kernel == "hmc"


def _call(**changes: Any) -> HyperparameterDraws:
    x, y = _data(19, 2, 5, DIM)
    options: dict[str, Any] = {"x": x, "y": y, "chains": 2, "draws": 2, "warmup": 8} | changes
    return sample_hyperparameters(options.pop("x"), options.pop("y"), **options)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": torch.zeros(5, dtype=DTYPE)}, InvalidData, r"x\[5\]"),
        ({"x": torch.zeros(2, 2, 5, DIM, dtype=DTYPE)}, InvalidData, r"x\[2, 2, 5, 2\]"),
        ({"y": torch.zeros(2, 4, dtype=DTYPE)}, InvalidData, r"y\[2, 4\]"),
        ({"y": torch.zeros(5, dtype=DTYPE)}, InvalidData, r"y\[5\]"),
        ({"x": torch.zeros(5, DIM, dtype=DTYPE)}, InvalidData, r"y\[1, 2, 5\]"),
        ({"mask": torch.ones(5, dtype=torch.bool)}, InvalidData, r"mask\[5\]"),
        ({"y": torch.full((2, 5), math.nan, dtype=DTYPE)}, InvalidData, "finite"),
        ({"x": torch.full((2, 5, DIM), math.inf, dtype=DTYPE)}, InvalidData, "finite"),
        ({"x": [[0.0]]}, InvalidData, "x has type list: expected a tensor"),
        ({"y": np.zeros((2, 5))}, InvalidData, "y has type ndarray: expected a tensor"),
        ({"y": torch.zeros(2, 5) + 1j}, InvalidData, "y has dtype torch.complex64"),
        ({"mask": [True] * 5}, InvalidData, "mask has type list: expected a tensor"),
        ({"mask": torch.ones(2, 5)}, InvalidData, "mask has dtype torch.float32: expected"),
        ({"y": torch.zeros(2, 5, device="meta")}, InvalidData, "x is on cpu, y on meta"),
        ({"x": torch.zeros(0, 5, DIM), "y": torch.zeros(0, 5)}, InvalidData, r"x\[0, 5, 2\]"),
        (
            {"x": torch.full((2, 5, DIM), 1.5)},
            InvalidData,
            "coordinates from 1.5 to 1.5: expected 0",
        ),
        ({"x": torch.zeros(2, 5, 0)}, InvalidData, r"x\[2, 5, 0\].*: expected x\[r,n,d\]"),
        ({"chains": 0}, InvalidOption, "chains=0"),
        ({"chains": 1.5}, InvalidOption, "chains=1.5: expected a whole number"),
        ({"draws": 0}, InvalidOption, "draws=0"),
        ({"draws": "many"}, InvalidOption, "draws='many'"),
        ({"warmup": -1}, InvalidOption, "warmup=-1"),
        ({"seed": -1}, InvalidOption, "seed=-1"),
        ({"start": 3}, InvalidOption, "start=3: expected gpbo.HyperparameterDraws, or None"),
        ({"kernel": "gibbs"}, InvalidOption, "kernel='gibbs'"),
    ],
)
@unchecked_shapes()
def test_bad_input_is_refused_by_name(
    changes: dict[str, Any], error: type[GpboError], message: str
) -> None:
    with pytest.raises(error, match=message):
        _call(**changes)


@pytest.mark.parametrize("end", [0.0, 1.0])
@unchecked_shapes()
def test_a_point_may_lie_outside_the_cube_by_a_rounding_but_by_no_more(end: float) -> None:
    x, _ = _data(19, 2, 5, DIM)
    x[1, 3, 1] = end + math.copysign(1e-7, end - 0.5)
    assert _call(x=x).mean.isfinite().all()
    x[1, 3, 1] = end + math.copysign(1e-5, end - 0.5)
    with pytest.raises(InvalidData, match="expected 0 to 1"):
        _call(x=x)


@pytest.mark.parametrize("wrong", [lambda y: 1e4 * y, lambda y: y + 5.0, lambda y: 1e-3 * y])
def test_values_that_were_not_standardised_are_warned_of(wrong: Callable[[Tensor], Tensor]) -> None:
    _, y = _data(19, 2, 5, DIM)
    with pytest.warns(UserWarning, match="the priors are meant for values with a mean near 0"):
        _call(y=wrong(y))


def test_the_smallest_spread_is_warned_of_and_equal_values_have_none() -> None:
    x, y = _data(19, 3, 7, DIM)
    _, _, deviation = centred(y, torch.ones_like(y, dtype=torch.bool))
    y = y / deviation[:, None] * torch.tensor([[1.0], [0.02], [1.0]], dtype=DTYPE)
    y[2] = 0.1 + 0.2
    with pytest.warns(UserWarning, match="standard deviations from 0.02 to 1: the priors"):
        _call(x=x, y=y)
    with pytest.warns(UserWarning, match="means up to 5 and no spread: the priors"):
        _call(x=x, y=torch.full_like(y, 5.0))


@pytest.mark.parametrize("count", [0, 1, 7])
def test_equal_values_one_or_none_are_not_warned_of(count: int) -> None:
    x, y = random_uniform(3, 2, 7, DIM), torch.full((2, 7), 0.1 + 0.2, dtype=DTYPE)
    y[1] = 0.0
    _call(x=x, y=y, mask=torch.arange(7).expand(2, -1) < count)  # a warning is an error here


def test_draws_are_compared_as_objects_and_none_is_no_number_of_them() -> None:
    draws = _counted(chains=3, length=4)
    assert draws == draws
    assert draws != replace(draws)
    with pytest.raises(InvalidOption, match="count=0"):
        draws.last(0)


@unchecked_shapes()
def test_a_start_of_other_hyperparameters_or_runs_is_refused() -> None:
    draws = _counted(chains=2, length=2)
    position = torch.zeros(2, 2, DIM + 3, dtype=DTYPE)
    draws = replace(draws, warmth=replace(draws.warmth, position=position))
    x, y = _data(20, 2, 5, DIM + 1)
    with pytest.raises(InvalidOption, match="expected 2, 2 and 6"):
        _call(x=x, y=y, start=draws)
    x, y = _data(20, 3, 5, DIM)
    with pytest.raises(InvalidOption, match="start has 2 runs"):
        _call(x=x, y=y, start=draws)
    with pytest.raises(InvalidOption, match="2 chains and 5 coordinates: expected 2, 2 and 4"):
        _call(model=Model(prior="botorch"), start=draws)
    with pytest.raises(InvalidOption, match="2 chains and 5 coordinates: expected 2, 7 and 5"):
        _call(chains=7, start=draws)
    with pytest.raises(InvalidOption, match="warmup=-1"):
        _call(start=draws, warmup=-1)


@unchecked_shapes()
def test_nan_behind_the_mask_is_not_looked_at() -> None:
    x, y = _data(21, 2, 5, DIM)
    mask = torch.ones_like(y, dtype=torch.bool)
    mask[0, 2] = mask[1, 4] = False
    draws = _call(
        x=x.masked_fill(~mask[..., None], torch.nan), y=y.masked_fill(~mask, torch.inf), mask=mask
    )
    for field in fields(draws):
        value = getattr(draws, field.name)
        assert not isinstance(value, Tensor) or bool(torch.isfinite(value).all())
