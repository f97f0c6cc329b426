"""Fits: reports, trouble and what is done about it, warm starts, degenerate data."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gpbo import fitting, pyro_nuts, rows, warm_start
from gpbo.backend import DTYPE, Streams
from gpbo.data import Observations
from gpbo.errors import InvalidData, InvalidOption
from gpbo.evidence import LogPosterior, Model
from gpbo.fitting import Fit, FitReport, Sampling, WarmState, fit
from gpbo.hyperparameters import HyperparameterPrior
from gpbo.inference import HyperparameterDraws, by_chain, draw, mode, sample_hyperparameters
from gpbo.mcmc.sampling import Kernel, Schedule, Warmth
from gpbo.priors import Fixed
from gpbo.units import Units
from tests.monte_carlo import (
    chain_means,
    in_units,
    random_normal,
    random_uniform,
    unchecked_shapes,
)

RUNS, COUNT, DIM = 3, 7, 2
#: As little as there can be, where a test is not about the draws.
BRIEF = Sampling(chains=4, warmup=8, draws=4, warm_draws=4, kept=8)


def _values(seed: int, runs: int, n: int, dim: int) -> tuple[Tensor, Tensor]:
    x = random_uniform(seed, runs, n, dim)
    values = torch.sin(5 * x[..., 0]) + x[..., -1] ** 2 + 0.1 * random_normal(seed + 1, runs, n)
    return x, 50.0 + 20.0 * values


def _data(seed: int = 0, runs: int = RUNS, n: int = COUNT, dim: int = DIM) -> Observations:
    return Observations.of(*_values(seed, runs, n, dim))


def _streams(seed: int = 0, runs: int = RUNS) -> Streams:
    return Streams.named(seed, "fit", runs=runs)


def _only(data: Observations, run: int) -> Observations:
    own = slice(run, run + 1)
    return Observations.of(data.x[own], data.y[own], data.mask[own])


def _warm(runs: int = RUNS) -> WarmState:
    """Chains in a likely place, for the data of these tests."""
    data = _data(runs=runs)
    likely = torch.tensor([1.0] * DIM + [0.0, -3.0, 0.0], dtype=DTYPE)
    position = likely + 0.5 * random_normal(60, runs, BRIEF.chains, DIM + 3)
    posterior = Model().log_posterior(data.x, data.y, data.mask)
    start = Warmth(
        position,
        posterior(position.flatten(0, 1))[0].reshape(runs, -1),
        torch.full((runs,), 0.5, dtype=DTYPE),
        torch.eye(DIM + 3, dtype=DTYPE).expand(runs, -1, -1),
    )
    return WarmState(
        start,
        torch.zeros_like(start.value),
        position[:, :, None],
        data.units,
        data.counts.to(DTYPE),
        data.counts.to(DTYPE),
    )


def _assert_finite(found: Fit, data: Observations) -> None:
    candidates = torch.cat([random_uniform(50, data.runs, 5, data.dim), data.x[:, :1]], dim=1)
    mean, variance = found.surrogate.moments(candidates)
    assert torch.isfinite(mean).all()
    assert torch.isfinite(variance).all()
    assert (variance > 0).all()
    assert torch.isfinite(data.units.back(mean)).all()
    assert found.surrogate.succeeded.all()


def _hyperparameters(found: Fit) -> tuple[Tensor, ...]:
    surrogate = found.surrogate
    return (
        surrogate.lengthscale,
        surrogate.outputscale,
        surrogate.noise_variance,
        surrogate.mean,
    )


@pytest.fixture(autouse=True)
def _unchecked() -> Iterator[None]:
    """Shapes are checked in ``tests/mcmc/test_shapes.py``."""
    with unchecked_shapes():
        yield


# What a fit returns.


@pytest.mark.parametrize("kernel", ["hmc", "nuts"])
def test_sampling_gives_a_surrogate_of_the_draws_kept_and_a_report_of_all(
    kernel: Kernel,
) -> None:
    data = _data()
    sampling = Sampling(chains=5, warmup=16, draws=8, kept=10)
    found = fit(data, sampling=sampling, inference=kernel, streams=_streams())
    report, surrogate = found.report, found.surrogate
    assert (surrogate.runs, surrogate.draws, surrogate.dim) == (RUNS, 10, DIM)
    assert surrogate.nu == 2.5
    assert torch.equal(surrogate.x, data.x)
    assert found.draws is not None
    assert found.draws.mean.shape == (RUNS, 40)
    # The surrogate's draws are the latest of every chain.
    latest = found.draws.mean.reshape(RUNS, 5, 8)[:, :, -1]
    assert (latest[:, :, None] == surrogate.mean[:, None]).any(-1).all()
    info = found.draws.info
    for name in ("rhat", "ess_bulk", "ess_tail", "divergences", "depth_saturation"):
        assert torch.equal(getattr(report, name), getattr(info, name))
        assert getattr(report, name).shape == (RUNS,)
    assert torch.equal(report.leapfrog_steps, info.leapfrog_steps)
    assert (report.inference, report.transitions, report.warm) == (kernel, 8, False)
    assert set(report.status) <= {"ok", "extended", "unconverged"}
    assert report.seconds > 0
    assert found.warm is not None
    assert found.warm.units.equals(data.units).all()
    assert torch.equal(found.warm.warmth.position, found.draws.warmth.position)
    _assert_finite(found, data)


def test_map_gives_one_draw_which_is_the_mode(caplog: pytest.LogCaptureFixture) -> None:
    data = _data()
    with caplog.at_level(logging.DEBUG, logger="gpbo"):
        found = fit(data, Model(nu=1.5), inference="map", streams=_streams())
    assert caplog.messages == [f"fit: {found.report.summary()}"]
    assert found.surrogate.draws == 1
    assert found.surrogate.nu == 1.5
    assert found.draws is None
    assert found.warm is None
    posterior = Model(nu=1.5).log_posterior(data.x, data.y, data.mask)
    points = mode(posterior, _streams())
    value = posterior(points)[0]
    natural = posterior.parametrization.constrain(points)
    assert torch.equal(found.surrogate.lengthscale[:, 0], natural.lengthscale)
    assert torch.equal(found.surrogate.noise_variance[:, 0], natural.noise_variance)
    assert (posterior(points + 0.05)[0] < value).all()
    assert (posterior(points - 0.05)[0] < value).all()
    report = found.report
    assert (report.inference, report.status, report.transitions) == ("map", ("map",) * RUNS, 0)
    for name in ("rhat", "ess_bulk", "ess_tail"):
        assert getattr(report, name).isnan().all()
    _assert_finite(found, data)


def _short_pyro(
    log_posterior: LogPosterior, streams: Streams, warmup: int = 4, draws: int = 16
) -> HyperparameterDraws:
    return pyro_nuts_draw(log_posterior, streams, warmup=warmup, draws=draws)


pyro_nuts_draw = pyro_nuts.draw_with_pyro


def test_pyro_gives_a_surrogate_and_a_report_of_its_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyro_nuts, "draw_with_pyro", _short_pyro)
    data = _data(runs=2)
    found = fit(data, inference="pyro", streams=_streams(runs=2))
    assert (found.surrogate.runs, found.surrogate.draws) == (2, 16)
    assert found.report.inference == "pyro"
    assert found.warm is None
    assert found.report.transitions == 16
    assert found.report.rhat.shape == (2,)
    assert "pyro" in found.report.summary()
    _assert_finite(found, data)


def test_a_chain_of_pyro_that_has_not_converged_is_not_called_ok(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pyro_nuts, "draw_with_pyro", _short_pyro)
    monkeypatch.setattr(fitting, "RHAT_LIMIT", 0.5)
    monkeypatch.setattr(fitting, "_BROKEN_DIVERGENCES", 1.0)
    found = fit(_data(runs=1), inference="pyro", streams=_streams(runs=1))
    assert found.report.status == ("unconverged",)


def test_a_run_alone_is_fitted_as_in_a_batch() -> None:
    data = _data()
    for inference in ("nuts", "map"):
        together = fit(data, inference=inference, sampling=BRIEF, streams=_streams())
        alone = fit(
            _only(data, 2), inference=inference, sampling=BRIEF, streams=_streams().select([2])
        )
        assert alone.report.status[0] == together.report.status[2]
        for ours, batched in zip(_hyperparameters(alone), _hyperparameters(together), strict=True):
            torch.testing.assert_close(ours[0], batched[2], rtol=1e-5, atol=1e-7)


# Reports.


def _report(**changes: object) -> FitReport:
    numbers = torch.tensor([1.05, 1.31], dtype=DTYPE)
    report = FitReport(
        "nuts",
        ("ok", "unconverged"),
        rhat=numbers,
        ess_bulk=100 * numbers,
        ess_tail=200 * numbers,
        divergences=torch.tensor([1.0, 2.0], dtype=DTYPE),
        depth_saturation=torch.tensor([0.25, math.nan], dtype=DTYPE),
        leapfrog_steps=300 * numbers,
        transitions=12,
        warm=False,
        seconds=1.234,
    )
    return replace(report, **changes)  # type: ignore[arg-type]


def test_a_summary_is_one_line_that_names_the_worst() -> None:
    assert _report().summary() == (
        "nuts (cold start): 1 ok, 1 unconverged, R-hat 1.310, bulk ESS 105, tail ESS 210"
        ", 3 divergences, 25 % at maximal depth, 1.23 s"
    )
    one = _report(status=("extended",), warm=True).summary()
    assert one.startswith("nuts (warm start): extended, R-hat")
    assert "\n" not in one
    assert _report(inference="map", seconds=0.5).summary() == "map, 0.50 s"


def test_a_summary_leaves_out_what_too_few_draws_do_not_tell() -> None:
    unknown = torch.full((2,), math.nan, dtype=DTYPE)
    none = _report(rhat=unknown, ess_bulk=unknown, ess_tail=unknown).summary()
    assert none.startswith("nuts (cold start): 1 ok, 1 unconverged, 3 divergences, 25 %")
    some = torch.tensor([1.05, math.nan], dtype=DTYPE)
    told = _report(rhat=some, ess_bulk=100 * some, ess_tail=200 * some).summary()
    assert ", R-hat 1.050, bulk ESS 105, tail ESS 210, 3 divergences" in told


# Trouble.


def _with_rhat(
    limits: list[list[float]], divergences: float = 0.0
) -> Callable[..., HyperparameterDraws]:
    """The sampler, with R-hats of the runs' own choosing in the first, the second ... call."""
    calls = iter(limits)

    def sampler(
        log_posterior: LogPosterior,
        streams: Streams,
        schedule: Schedule,
        *,
        chains: int,
        warmth: Warmth | None,
    ) -> HyperparameterDraws:
        found = draw(log_posterior, streams, schedule, chains=chains, warmth=warmth)
        rhat = torch.tensor(next(calls), dtype=DTYPE)
        broken = (rhat > 100).to(DTYPE) * divergences * found.mean.shape[1]
        return replace(found, info=replace(found.info, rhat=rhat, divergences=broken))

    return sampler


def _troubled(
    monkeypatch: pytest.MonkeyPatch, limits: list[list[float]], divergences: float = 0.0
) -> Fit:
    monkeypatch.setattr(fitting, "draw", _with_rhat(limits, divergences))
    monkeypatch.setattr(fitting, "diagnosed", lambda draws, position: draws)
    return fit(_data(), sampling=BRIEF, streams=_streams())


def test_chains_that_agree_are_ok_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _troubled(monkeypatch, [[1.0, 1.1, math.nan]])
    assert found.report.status == ("ok", "ok", "ok")


def test_only_the_runs_in_trouble_sample_on_and_the_report_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clean = _troubled(monkeypatch, [[1.0, 1.0, 1.0]])
    with caplog.at_level(logging.WARNING, logger="gpbo"):
        found = _troubled(monkeypatch, [[1.5, 1.0, 2.5], [1.1, 2.4]])
    assert not caplog.records
    assert found.report.status == ("extended", "ok", "unconverged")
    assert found.report.rhat.tolist() == [1.1, 1.0, 2.4]
    steps, at_once = found.report.leapfrog_steps, clean.report.leapfrog_steps
    assert (steps > at_once).tolist() == [True, False, True]
    for ours, expected in zip(_hyperparameters(found), _hyperparameters(clean), strict=True):
        assert torch.equal(ours[1], expected[1])
        assert not torch.isclose(ours[[0, 2]], expected[[0, 2]]).any()
    assert found.warm is not None
    assert clean.warm is not None
    assert torch.equal(found.warm.warmth.position[1], clean.warm.warmth.position[1])
    assert (found.warm.warmth.position[0] != clean.warm.warmth.position[0]).any()


def test_a_warm_fit_whose_chains_disagree_is_told_but_does_not_sample_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They go on at the next fit anyway."""
    rhat = torch.tensor([1.5, 1.0, 1.0], dtype=DTYPE)
    monkeypatch.setattr(
        fitting, "diagnosed", lambda draws, _: replace(draws, info=replace(draws.info, rhat=rhat))
    )
    found = fit(_data(), sampling=BRIEF, warm=_warm(), streams=_streams())
    assert found.report.status == ("unconverged", "ok", "ok")


def test_a_run_that_cannot_be_sampled_gets_its_mode_and_a_fresh_start_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clean = _troubled(monkeypatch, [[1.0, 1.0, 1.0]])
    with caplog.at_level(logging.WARNING, logger="gpbo"):
        found = _troubled(monkeypatch, [[1.0, 999.0, 1.0], [999.0]], divergences=0.9)
    assert found.report.status == ("ok", "fallback-map", "ok")
    assert len(caplog.records) == 1
    assert "fallback-map" in caplog.text
    data = _data()
    posterior = Model().log_posterior(data.x, data.y, data.mask)
    best = fit(data, inference="map", streams=_streams(3)).surrogate
    for ours, expected, kept in zip(
        _hyperparameters(found),
        (best.lengthscale, best.outputscale, best.noise_variance, best.mean),
        _hyperparameters(clean),
        strict=True,
    ):
        assert torch.equal(ours[[0, 2]], kept[[0, 2]])
        mode_of_run = expected[1].expand_as(ours[1])
        torch.testing.assert_close(ours[1], mode_of_run, rtol=1e-3, atol=1e-4)
    assert found.warm is not None
    assert clean.warm is not None
    position = found.warm.warmth.position
    assert (position[1].std(0) > 0).all()
    assert torch.isfinite(posterior(position.flatten(0, 1))[0]).all()
    assert torch.equal(position[[0, 2]], clean.warm.warmth.position[[0, 2]])
    # What the sampler drew in vain tells nothing of how the chains go on.
    lost = found.warm.recent.isnan().flatten(1)
    assert (lost.all(-1).tolist(), lost.any(-1).tolist()) == ([False, True, False],) * 2
    _assert_finite(found, data)


def test_chains_that_a_fallback_starts_afresh_have_even_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    warm = _warm()
    log_weight = torch.zeros(RUNS, BRIEF.chains, dtype=DTYPE)
    log_weight[:, 3] = math.log(1.3)
    monkeypatch.setattr(fitting, "draw", _with_rhat([[1.0, 999.0, 1.0], [999.0]], 0.9))
    monkeypatch.setattr(fitting, "diagnosed", lambda draws, position: draws)
    warm = replace(warm, log_weight=log_weight)
    found = fit(_data(), sampling=BRIEF, warm=warm, streams=_streams())
    assert found.report.status == ("ok", "fallback-map", "ok")
    assert found.warm is not None
    assert (found.warm.log_weight == 0).all(-1).tolist() == [False, True, False]


def test_chains_that_a_fallback_starts_afresh_move_as_often_as_others_that_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They come from the posterior of some of the results, and have not rested."""
    data = _data()
    with monkeypatch.context() as patched:
        patched.setattr(fitting, "draw", _with_rhat([[1.0, 999.0, 1.0], [999.0]], 0.9))
        patched.setattr(fitting, "diagnosed", lambda draws, position: draws)
        before = _warm()
        before = replace(before, afresh=before.afresh - 1)
        warm = fit(data, sampling=BRIEF, warm=before, streams=_streams()).warm
    assert warm is not None
    assert (warm.afresh == data.counts).tolist() == [False, True, False]
    monkeypatch.setattr("gpbo.warm_start.MANY", COUNT - 2)
    again = fit(data, sampling=BRIEF, warm=warm, streams=_streams())
    steps = again.report.leapfrog_steps
    assert (steps[[0, 2]] == 0).all()
    assert steps[1] > 0
    assert warm_start.rounds_due(warm, data.counts.to(DTYPE))[1] == warm_start.MOST_ROUNDS
    assert again.warm is not None
    assert again.warm.moved[1] == data.counts[1]


def test_a_run_whose_chains_are_stuck_falls_back_and_harms_no_other() -> None:
    """No pretending: the last fit's chains of run 1 are where this density is 0."""
    data, before = _data(), _warm()
    warmth = before.warmth
    streams = Streams.named(4, "fit", runs=RUNS)
    clean = fit(data, sampling=BRIEF, warm=before, streams=streams)
    for nowhere in (1e4, math.nan):
        position = warmth.position.clone()
        position[1] = nowhere
        lost = replace(before, warmth=replace(warmth, position=position))
        streams = Streams.named(4, "fit", runs=RUNS)
        found = fit(data, sampling=BRIEF, warm=lost, streams=streams)
        assert found.report.status[1] == "fallback-map"
        _assert_finite(found, data)
        for run in (0, 2):
            assert found.report.status[run] == clean.report.status[run] != "fallback-map"
            for ours, kept in zip(_hyperparameters(found), _hyperparameters(clean), strict=True):
                torch.testing.assert_close(ours[run], kept[run], rtol=1e-6, atol=1e-8)
        assert found.warm is not None
        again = fit(data, sampling=BRIEF, warm=found.warm, streams=_streams(5))
        assert "fallback-map" not in again.report.status


# Warm starts.


def _logarithms(draws: HyperparameterDraws) -> Tensor:
    u = torch.cat(
        [
            draws.lengthscale.log(),
            draws.outputscale.log()[..., None],
            draws.noise_variance.log()[..., None],
            draws.mean[..., None],
        ],
        dim=-1,
    )
    return u.reshape(u.shape[0], draws.chains, -1, u.shape[-1])


def test_a_warm_fit_agrees_with_a_long_cold_one_though_the_values_are_standardised_anew() -> None:
    x, values = _values(20, RUNS, 10, DIM)
    # The new value moves location and scale by much, but is of the same function.
    values[:, -1] = values[:, :-1].amax(-1) + 25.0
    sampling = Sampling(chains=48, warmup=32, draws=24, warm_draws=20, kept=48)
    before = Observations.of(x[:, :-1], values[:, :-1])
    after = Observations.of(x, values)
    assert ((after.units.scale / before.units.scale - 1).abs() > 0.1).all()
    first = fit(before, sampling=sampling, streams=_streams(0))
    warm = fit(after, sampling=sampling, warm=first.warm, streams=_streams(1))
    cold = fit(after, sampling=sampling, streams=_streams(2))
    assert warm.report.warm
    assert "warm start" in warm.report.summary()
    for name in ("rhat", "ess_bulk", "ess_tail", "divergences", "depth_saturation"):
        assert torch.isfinite(getattr(warm.report, name)).all()
    assert not cold.report.warm
    assert warm.draws is not None
    assert cold.draws is not None
    mean, error = chain_means(_logarithms(warm.draws)[:, :, 4:])
    expected, reference_error = chain_means(_logarithms(cold.draws))
    deviation = (mean - expected) / (error.square() + reference_error.square()).sqrt()
    assert deviation.abs().max() < 4


def test_an_observation_as_expected_costs_little_and_a_surprise_gets_more_transitions() -> None:
    x, values = _values(23, RUNS, 12, DIM)
    before = fit(Observations.of(x[:, :-1], values[:, :-1]), streams=_streams(0))
    moment = fit(Observations.of(x[:, :-1], values[:, :-1]), inference="map", streams=_streams(1))
    expected = moment.surrogate.moments(x[:, -1:])[0][:, 0, 0]
    told = Observations.of(x[:, :-1], values[:, :-1]).units.back(expected[:, None])
    values[:, -1] = told[:, 0]
    values[1, -1] += 30.0
    warm = fit(Observations.of(x, values), warm=before.warm, streams=_streams(2))
    steps = warm.report.leapfrog_steps
    assert (steps[[0, 2]] < 0.2 * before.report.leapfrog_steps[[0, 2]]).all()
    assert steps[1] > 2 * steps[[0, 2]].max()
    assert warm.report.transitions == Sampling().warm_draws
    # So few transitions tell no R-hat, but with those of the fit before there are enough, where
    # the chains did not start afresh.
    assert torch.isfinite(warm.report.rhat).tolist() == [True, False, True]
    assert warm.warm is not None
    assert warm.warm.recent.shape[2] == Sampling().draws


def test_draws_of_another_posterior_do_not_count_in_diagnostics() -> None:
    """Another power is another posterior, and so is what made the chains start afresh."""
    x = random_uniform(6, 4, 12, 1)
    values = torch.sin(5 * x[..., 0])
    values[:, 5], values[:, 7] = 1e4, -1e3
    warm: WarmState | None = None
    known, powers, rhats = [torch.full((4,), 24)], [], []
    sampling = Sampling(warm_draws=4)
    for count in range(3, 13):
        data = Observations.of(x[:, :count], values[:, :count])
        streams = Streams.named(5, "fit", count, runs=4)
        found = fit(data, sampling=sampling, warm=warm, streams=streams)
        assert found.warm is not None
        if warm is not None:
            same = (warm.units.power == data.units.power) & (warm.afresh == found.warm.afresh)
            known.append((torch.where(same, known[-1], 0) + 4).clamp(max=24))
        warm = found.warm
        assert torch.equal(warm.recent.isfinite().all(-1).all(1).sum(-1), known[-1])
        assert torch.equal(found.report.rhat.isfinite(), known[-1] >= 12)
        powers.append(data.units.power)
        rhats.append(found.report.rhat)
    assert (torch.stack(powers).diff(dim=0) != 0).any(0).all()
    assert (torch.stack(known) == 4).sum() > 8
    rhat = torch.stack(rhats)
    assert rhat.isnan().any(0).all()
    # The third run's posterior has two modes for a while, which its chains do not leave.
    assert (rhat > 1.3).any(0).tolist() == [False, False, True, False]


def _observing(recorded: list[Warmth]) -> Callable[..., HyperparameterDraws]:
    def observing(
        log_posterior: LogPosterior,
        streams: Streams,
        schedule: Schedule,
        *,
        chains: int,
        warmth: Warmth,
    ) -> HyperparameterDraws:
        recorded.append(warmth)
        return draw(log_posterior, streams, schedule, chains=chains, warmth=warmth)

    return observing


def _in_other_units(data: Observations, location: float, factor: Tensor) -> Observations:
    """Those that have their 0 where it was ``location``, and are so many times as large."""
    zero = data.units.back(torch.full_like(factor, location))
    return in_units(data, Units.affine(zero, factor * data.units.scale))


def test_chains_move_with_the_standardisation_of_the_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is sampled from is the same functions: their values in user units do not change."""
    starts: list[Warmth] = []
    data, warm = _data(), _warm()
    monkeypatch.setattr(fitting, "draw", _observing(starts))
    factor = torch.tensor([0.9, 1.0, 1.15], dtype=DTYPE)
    shifted = _in_other_units(data, 0.1, factor)
    torch.testing.assert_close(shifted.y, (data.y - 0.1) / factor[:, None])
    fit(shifted, sampling=BRIEF, warm=warm, streams=_streams(1))
    old, new = warm.warmth.position, starts[0].position
    torch.testing.assert_close(new[..., :DIM], old[..., :DIM])
    scale = factor[:, None]
    torch.testing.assert_close(new[..., DIM], old[..., DIM] - 2 * scale.log())
    torch.testing.assert_close(new[..., DIM + 1], old[..., DIM + 1] - 2 * scale.log())
    torch.testing.assert_close(new[..., DIM + 2], (old[..., DIM + 2] - 0.1) / scale)


def test_what_chains_drew_moves_with_the_standardisation_as_they_do() -> None:
    data, warm = _data(), _warm()
    factor = torch.tensor([0.9, 1.0, 1.15], dtype=DTYPE)
    shifted = _in_other_units(data, 0.1, factor)
    posterior = Model().log_posterior(shifted.x, shifted.y, shifted.mask)
    found = warm_start.carried_over(warm, shifted, posterior)
    assert not torch.allclose(found.warmth.position, warm.warmth.position)
    torch.testing.assert_close(found.recent[:, :, 0], found.warmth.position)


def _one_more(value: float) -> tuple[Observations, WarmState, Tensor]:
    """A result more in the same units; the warm state; and how well each chain predicted it."""
    data, warm = _data(), _warm()
    x = torch.cat([data.x, torch.full((RUNS, 1, DIM), 0.5, dtype=DTYPE)], 1)
    y = torch.cat([data.y, torch.full((RUNS, 1), value, dtype=DTYPE)], 1)
    mask = torch.ones_like(y, dtype=torch.bool)
    values = data.units.back(y)
    more = in_units(replace(data, x=x, values=values, mask=mask, eligible=mask), data.units)
    posterior = Model().log_posterior(more.x, more.y, more.mask)
    value_now = posterior(warm.warmth.position.flatten(0, 1))[0].reshape(RUNS, -1)
    return more, warm, value_now - warm.warmth.value


def test_chains_gather_the_predictive_density_of_what_comes_in_as_their_weight() -> None:
    data, warm, gain = _one_more(0.1)
    before = 0.05 * random_normal(61, RUNS, BRIEF.chains)
    found = fit(data, sampling=BRIEF, warm=replace(warm, log_weight=before), streams=_streams())
    assert found.warm is not None
    log_weight = before + gain
    even = torch.softmax(log_weight, -1).square().sum(-1) < 1 / (0.95 * BRIEF.chains)
    assert even.any()
    torch.testing.assert_close(
        torch.softmax(found.warm.log_weight, -1)[even],
        torch.softmax(log_weight, -1)[even],
        rtol=1e-8,
        atol=1e-8,
    )
    assert torch.equal(found.warm.afresh, warm.afresh)


def test_chains_of_uneven_weights_are_drawn_anew_and_sample_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of run 0 nearly are not, one of run 1 has three quarters of the weight, one of run 2
    half."""
    data, warm = _data(), _warm()
    log_weight = torch.zeros(RUNS, BRIEF.chains, dtype=DTYPE)
    log_weight[0, 3] = math.log(1.3)
    log_weight[1, 2] = math.log(3 * (BRIEF.chains - 1))
    log_weight[2, 1] = math.log(BRIEF.chains - 1)
    starts: list[Warmth] = []
    monkeypatch.setattr(fitting, "draw", _observing(starts))
    monkeypatch.setattr(fitting, "diagnosed", lambda draws, position: draws)
    found = fit(data, sampling=BRIEF, warm=replace(warm, log_weight=log_weight), streams=_streams())
    begun, old = starts[0].position, warm.warmth.position
    torch.testing.assert_close(begun[0], old[0])
    for run, chain, descendants in ((1, 2, 3), (2, 1, 2)):
        assert (begun[run] == old[run, chain]).all(-1).sum() == descendants
    assert [len(start.position) for start in starts] == [RUNS, 2, 1, 1]
    assert found.warm is not None
    assert (found.warm.log_weight[1:] == 0).all()
    weights = torch.softmax(found.warm.log_weight[0], -1)
    torch.testing.assert_close(weights, torch.softmax(log_weight[0], -1), rtol=1e-8, atol=1e-8)
    assert found.report.leapfrog_steps.argsort().tolist() == [0, 2, 1]
    assert found.report.status == ("ok", "extended", "ok")


def test_chains_of_many_results_stay_until_a_few_more_have_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of run 2 too, whose weights had grown uneven: it moves at once."""
    monkeypatch.setattr("gpbo.warm_start.MANY", 4)  # of 8 results: at every second one
    data, warm, gain = _one_more(0.1)
    gain[2] = 0.0
    warm = replace(warm, moved=warm.moved - torch.tensor([0.0, 1.0, 0.0], dtype=DTYPE))
    warm = replace(warm, log_weight=-gain)
    warm.log_weight[2, 1:] = -1.5
    found = fit(data, sampling=BRIEF, warm=warm, streams=_streams())
    assert found.warm is not None
    steps = found.report.leapfrog_steps
    assert steps[0] == 0
    assert (steps[1:] > 0).all()
    assert found.warm.moved.tolist() == [COUNT, COUNT + 1, COUNT + 1]
    # It is not counted again what chains have drawn before, and the weight of what came stays.
    recent = found.warm.recent
    assert torch.equal(recent[0, :, -1:], warm.recent[0])
    assert recent[0, :, :-1].isnan().all()
    assert recent[1:].isfinite().all(-1).all(1).sum(-1).tolist() == [4, 4]
    assert torch.equal(found.warm.warmth.position[0], warm.warmth.position[0])
    assert torch.equal(found.warm.warmth.step_size[0], warm.warmth.step_size[0])
    ours = found.surrogate.outputscale[0].log().unique()
    torch.testing.assert_close(ours, warm.warmth.position[0, :, DIM].unique())
    own = slice(1, 2)
    alone = fit(
        in_units(rows.selected(data, own), rows.selected(data.units, own)),
        sampling=BRIEF,
        warm=rows.selected(warm, own),
        streams=_streams().select([1]),
    )
    for ours, batched in zip(_hyperparameters(alone), _hyperparameters(found), strict=True):
        torch.testing.assert_close(ours[0], batched[1], rtol=1e-6, atol=1e-8)


def test_resting_chains_that_are_of_no_use_move_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gpbo.warm_start.MANY", 4)
    data, warm, gain = _one_more(0.1)
    warm = replace(warm, log_weight=-gain)
    unusable = torch.tensor([False, True, False])
    monkeypatch.setattr(
        fitting, "_is_broken", lambda draws: unusable & (draws.info.leapfrog_steps == 0)
    )
    found = fit(data, sampling=BRIEF, warm=warm, streams=_streams())
    assert found.warm is not None
    assert (found.report.leapfrog_steps > 0).tolist() == [False, True, False]
    assert found.warm.moved.tolist() == [COUNT, COUNT + 1, COUNT]
    assert found.warm.recent[1].isfinite().all()


def test_chains_of_many_results_move_as_often_as_their_number_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gpbo.warm_start.MANY", 5)
    x, values = _values(24, RUNS, 19, DIM)
    found = fit(Observations.of(x[:, :5], values[:, :5]), sampling=BRIEF, streams=_streams())
    rests = torch.zeros(RUNS)
    for count in range(6, 20):
        before = found.warm
        assert before is not None
        data = Observations.of(x[:, :count], values[:, :count])
        found = fit(data, sampling=BRIEF, warm=before, streams=_streams(count))
        assert found.warm is not None
        rested = found.report.leapfrog_steps == 0
        assert torch.equal(found.warm.moved, torch.where(rested, before.moved, float(count)))
        # Of ten results and fewer until there are two new ones, of fifteen three, of more four.
        assert (count - before.moved[rested] < -(-count // 5)).all()
        rests += rested
    assert (rests > 0).all()
    assert found.warm is not None
    assert found.warm.recent.shape[2] == BRIEF.draws


def test_chains_of_many_results_need_a_round_at_most_but_when_they_start_afresh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first run's are steady, the second one's start afresh, the third one's are uneven."""
    data, warm = _data(), _warm()
    warm.log_weight[2, 1:] = -1.5
    afresh = torch.tensor([False, True, False])
    for most, since, rounds in (
        (COUNT, 0, [1, 2, 2]),
        (COUNT - 1, 0, [0, 4, 1]),
        (COUNT - 1, 2, [1, 4, 1]),
    ):
        monkeypatch.setattr("gpbo.warm_start.MANY", most)
        before = replace(warm, moved=(warm.moved - since).masked_fill(afresh, 0.0))
        assert warm_start.rounds_due(before, data.counts.to(DTYPE)).tolist() == rounds


@pytest.mark.parametrize("why", ["twice the results", "a posterior that is another one"])
def test_chains_start_afresh(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    data, warm = _data(), _warm()
    if why == "twice the results":
        afresh = torch.tensor([COUNT, COUNT / 2, COUNT], dtype=DTYPE)
        warm = replace(warm, afresh=afresh)
    else:
        log_weight = torch.zeros(RUNS, BRIEF.chains, dtype=DTYPE)
        log_weight[1, 2] = 50.0
        warm = replace(warm, log_weight=log_weight)
        monkeypatch.setattr(warm_start, "_COLLAPSED", 0.3)
    starts: list[Warmth] = []
    monkeypatch.setattr(fitting, "draw", _observing(starts))
    found = fit(data, sampling=BRIEF, warm=warm, streams=_streams())
    moved = (starts[0].position != warm.warmth.position).any(-1).any(-1)
    assert moved.tolist() == [False, True, False]
    assert len(starts[0].position[1].unique(dim=0)) == BRIEF.chains
    assert found.warm is not None
    assert (found.warm.afresh == COUNT).all()
    assert found.report.leapfrog_steps[1] > found.report.leapfrog_steps[0]
    assert found.report.status[1] != "fallback-map"


def test_a_run_that_starts_afresh_among_others_does_so_as_it_does_alone() -> None:
    data, own = _data(), torch.tensor([1])
    half = torch.tensor([COUNT, COUNT / 2, COUNT], dtype=DTYPE)
    together = replace(_warm(), afresh=half)
    posterior = Model().log_posterior(data.x, data.y, data.mask)
    alone = rows.selected(together, own)
    found = [
        warm_start.started_afresh(*each)[0].warmth.position
        for each in (
            (together, posterior, _streams()),
            (alone, posterior.select(own), _streams().select([1])),
        )
    ]
    assert not torch.equal(found[0][1], together.warmth.position[1])
    assert torch.equal(found[0][1], found[1][0])


def test_runs_that_start_afresh_may_fill_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: three runs of seven, in the shape of four."""
    data, warm = _data(runs=7), _warm(runs=7)
    afresh = torch.full((7,), float(COUNT), dtype=DTYPE)
    afresh[2:5] = COUNT / 2
    posterior = Model().log_posterior(data.x, data.y, data.mask)
    monkeypatch.setattr(rows, "room_for", lambda count, device: max(count, 4))
    found, spent = warm_start.started_afresh(
        replace(warm, afresh=afresh), posterior, _streams(runs=7)
    )
    moved = (found.warmth.position != warm.warmth.position).any(-1).any(-1)
    assert moved.tolist() == (spent > 0).tolist() == [False, False, *3 * [True], False, False]


def test_the_latest_draws_are_the_last_ones_and_those_of_chains_at_rest_none() -> None:
    draws = fit(_data(), sampling=BRIEF, streams=_streams()).draws
    assert draws is not None
    own, moved = by_chain(draws), torch.tensor([True, False, True])
    earlier = random_normal(7, *own.shape[:2], 3, own.shape[3])
    before = replace(_warm(), recent=earlier)
    latest = warm_start.latest_draws(draws, before, moved, 5)
    assert torch.equal(latest[moved], torch.cat([earlier[:, :, -1:], own], 2)[moved])
    assert latest[1, :, :2].isnan().all()
    assert torch.equal(latest[1, :, 2:], earlier[1])
    assert torch.equal(warm_start.latest_draws(draws, None, moved, 3), own[:, :, -3:])


def test_collapsed_chains_of_many_results_go_on_from_the_best_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gpbo.warm_start.MANY", COUNT - 1)
    data, warm = _data(), _warm()
    log_weight = torch.zeros(RUNS, BRIEF.chains, dtype=DTYPE)
    log_weight[1, 2] = 50.0
    monkeypatch.setattr(warm_start, "_COLLAPSED", 0.3)
    starts: list[Warmth] = []
    monkeypatch.setattr(fitting, "draw", _observing(starts))
    monkeypatch.setattr(fitting, "diagnosed", lambda draws, position: draws)
    sampling = replace(BRIEF, warm_draws=1, kept=4)
    recent = warm.recent.expand(-1, -1, 3, -1)
    before = replace(warm, log_weight=log_weight, recent=recent)
    found = fit(data, sampling=sampling, warm=before, streams=_streams())
    assert (starts[0].position == warm.warmth.position[1, 2]).all()
    assert [len(start.position) for start in starts] == [1] * warm_start.MOST_ROUNDS
    assert found.warm is not None
    assert torch.equal(found.warm.afresh, warm.afresh)
    assert found.report.status[1] == "extended"
    assert (found.warm.log_weight[1] == 0).all()
    # What they drew of the other posterior does not count, and others keep theirs.
    known = found.warm.recent.isfinite().all(-1).all(1).sum(-1)
    assert known.tolist() == [3, 1, 3]


def test_chains_that_all_stay_behind_an_outlier_start_afresh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gpbo.warm_start.MANY", 4)
    x, values = _values(21, RUNS, 9, DIM)
    before = fit(Observations.of(x[:, :-1], values[:, :-1]), sampling=BRIEF, streams=_streams(0))
    values[1, -1] = -1e12
    data = Observations.of(x, values)
    found = fit(data, sampling=BRIEF, warm=before.warm, streams=_streams(1))
    assert found.warm is not None
    assert found.warm.afresh.tolist() == [8, 9, 8]


@pytest.mark.parametrize("many", [4, 64])
def test_chains_stay_behind_only_where_they_would_move_far(
    many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever other runs do; those of many results start afresh then."""
    monkeypatch.setattr(warm_start, "_FAR_OUT", -math.inf)
    monkeypatch.setattr(warm_start, "MANY", many)
    data, warm = _data(), _warm()
    factor = torch.tensor([1.02, 1.0, 1.3], dtype=DTYPE)
    shifted = _in_other_units(data, 0.05, factor)
    posterior = Model().log_posterior(shifted.x, shifted.y, shifted.mask)
    found = warm_start.carried_over(warm, shifted, posterior)
    stayed, far = warm.warmth.position, torch.tensor([False, False, True])
    moved = posterior.parametrization.rescaled(stayed, *shifted.rescaling(warm.units))
    expected = torch.where(far[:, None, None], stayed, moved)
    torch.testing.assert_close(found.warmth.position, expected)
    value, gradient = posterior(expected.flatten(0, 1))
    torch.testing.assert_close(found.warmth.value.flatten(), value)
    assert found.warmth.gradient is not None
    torch.testing.assert_close(found.warmth.gradient.flatten(0, 1), gradient)
    assert torch.equal(found.afresh, torch.where(far & (many == 4), 0.0, warm.afresh))


def test_where_some_chains_stay_behind_the_others_know_the_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(warm_start, "MANY", 4)
    data, warm = _data(), _warm()
    shifted = in_units(data, Units.affine(data.units.best, 2.0 * data.units.scale))
    posterior = Model().log_posterior(shifted.x, shifted.y, shifted.mask)
    stayed = warm.warmth.position
    moved = posterior.parametrization.rescaled(stayed, *shifted.rescaling(warm.units))
    here, there = (posterior(each.flatten(0, 1))[0].view(RUNS, -1) for each in (stayed, moved))
    monkeypatch.setattr(warm_start, "_FAR_OUT", float((here - there).amax(-1).amin()) - 1e-6)
    found = warm_start.carried_over(warm, shifted, posterior)
    behind = (found.warmth.position == stayed).all(-1)
    assert behind.any(-1).all()
    assert not behind.all(-1).any()
    assert torch.equal(found.afresh, warm.afresh)


def test_chains_that_all_lost_their_density_are_weighted_evenly() -> None:
    data, warm = _data(), _warm()
    log_weight = torch.zeros(RUNS, BRIEF.chains, dtype=DTYPE)
    log_weight[1] = -torch.inf
    log_posterior = Model().log_posterior(data.x, data.y, data.mask)
    found = warm_start.carried_over(replace(warm, log_weight=log_weight), data, log_posterior)
    assert (found.log_weight[1] == 0).all()
    assert found.log_weight.isfinite().all()


def test_chains_that_all_lose_their_density_to_what_came_in_are_weighted_evenly() -> None:
    data, warm = _data(), _warm()
    position = warm.warmth.position.clone()
    position[1] = 1e4
    log_posterior = Model().log_posterior(data.x, data.y, data.mask)
    lost = replace(warm, warmth=replace(warm.warmth, position=position))
    found = warm_start.carried_over(lost, data, log_posterior)
    assert found.warmth.value[1].isneginf().all()
    assert (found.log_weight[1] == 0).all()
    assert found.log_weight.isfinite().all()


def test_a_chain_that_had_no_density_gains_none_and_spoils_no_other_one() -> None:
    data, warm = _data(), _warm()
    value = warm.warmth.value.clone()
    value[0, 0], value[0, 1] = -torch.inf, torch.nan
    log_posterior = Model().log_posterior(data.x, data.y, data.mask)
    before = replace(warm, warmth=replace(warm.warmth, value=value))
    expected = torch.zeros_like(value)
    expected[0, 1] = -torch.inf
    found = warm_start.carried_over(before, data, log_posterior)
    torch.testing.assert_close(found.log_weight, expected, rtol=0, atol=1e-9)


def test_an_outlier_does_not_carry_the_chains_off() -> None:
    """It shrinks all other values: following them, every chain would end at no variance at all.

    Few transitions of chains in several modes leave means that differ by 2 of the prior's standard
    deviations; following the outlier they would differ by 4 to 18.
    """
    x, values = _values(21, RUNS, 9, DIM)
    sampling = Sampling(chains=8, warmup=24, draws=8)
    before = fit(Observations.of(x[:, :-1], values[:, :-1]), sampling=sampling, streams=_streams(0))
    values[:, -1] = torch.tensor([1e3, 1e6, 1e12], dtype=DTYPE)
    data = Observations.of(x, values)
    warm = fit(data, sampling=sampling, warm=before.warm, streams=_streams(1))
    cold = fit(data, sampling=sampling, streams=_streams(2))
    assert "fallback-map" not in warm.report.status
    assert warm.draws is not None
    assert cold.draws is not None
    moved = _logarithms(warm.draws).mean((1, 2)) - _logarithms(cold.draws).mean((1, 2))
    spread = torch.tensor([*[1.0] * DIM, 1.0, 3.0, 1.0], dtype=DTYPE)
    assert (moved / spread).abs().max() < 3.0


def test_the_first_difference_after_constant_values_does_not_carry_the_chains_off() -> None:
    x = random_uniform(22, RUNS, 6, DIM)
    values = torch.full((RUNS, 6), 3.0, dtype=DTYPE)
    before = fit(Observations.of(x[:, :-1], values[:, :-1]), sampling=BRIEF, streams=_streams(0))
    values[:, -1] += torch.tensor([1e-9, 1.0, 1e9], dtype=DTYPE)
    data = Observations.of(x, values)
    warm = fit(data, sampling=BRIEF, warm=before.warm, streams=_streams(1))
    assert "fallback-map" not in warm.report.status
    assert warm.draws is not None
    assert warm.draws.outputscale.log().abs().max() < 8
    _assert_finite(warm, data)


def test_rows_that_fill_a_bucket_change_no_other_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: three runs of seven go on, in the shape of four."""
    data, warm = _data(runs=7), _warm(runs=7)
    uneven = torch.zeros_like(warm.log_weight)
    uneven[2:5, 1:] = -10.0
    warm = replace(warm, log_weight=uneven)
    sizes: list[int] = []

    def told(log_posterior: LogPosterior, *args: Any, **kwargs: Any) -> HyperparameterDraws:
        sizes.append(log_posterior.runs)
        return draw(log_posterior, *args, **kwargs)

    monkeypatch.setattr(fitting, "draw", told)

    def fitted() -> HyperparameterDraws:
        found = fit(data, sampling=BRIEF, warm=warm, streams=_streams(runs=7))
        _assert_finite(found, data)
        assert found.draws is not None
        return found.draws

    exact = fitted()
    monkeypatch.setattr(rows, "room_for", lambda count, device: max(count, 4))
    filled = fitted()
    assert sizes == [7, 3, 3, 3, 7, 4, 4, 4]
    at_rest = [0, 1, 5, 6]
    assert torch.equal(filled.unconstrained[at_rest], exact.unconstrained[at_rest])
    assert torch.equal(filled.info.leapfrog_steps, exact.info.leapfrog_steps)


# Degenerate data.


def _degenerate() -> dict[str, tuple[Tensor, Tensor]]:
    x, values = _values(30, 1, 8, DIM)
    repeated = x.clone()
    repeated[:, 3:] = x[:, 3:4]
    spread = values.clone()
    spread[:, ::2] *= 1e12
    outlier = values.clone()
    outlier[:, 5] = 1e6
    return {
        "one point": (x[:, :1], values[:, :1]),
        "two points": (x[:, :2], values[:, :2]),
        "constant": (x, torch.full_like(values, -3.7)),
        "repeated points": (repeated, values),
        "all points the same": (x[:, :1].expand(-1, 8, -1), values),
        "spread of 1e12": (x, spread),
        "twelve orders of magnitude": (x, 10.0 ** (4 * random_normal(35, 1, 8) + 4)),
        "an outlier of 1e6": (x, outlier),
        "near the largest double": (x, 1e300 * random_normal(31, 1, 8)),
        "corners": (x.round(), values),
        "one dimension": _values(32, 1, 8, 1),
        "sixty dimensions": _values(33, 1, 8, 60),
    }


@pytest.mark.parametrize("inference", ["nuts", "map"])
@pytest.mark.parametrize("kind", list(_degenerate()))
def test_degenerate_data_are_fitted(kind: str, inference: fitting.Inference) -> None:
    x, values = _degenerate()[kind]
    data = Observations.of(x, values)
    found = fit(data, inference=inference, sampling=BRIEF, streams=_streams(6, 1))
    assert "fallback-map" not in found.report.status
    _assert_finite(found, data)


def test_runs_of_very_different_lengths_are_fitted_together() -> None:
    x, values = _values(34, RUNS, 8, DIM)
    mask = torch.arange(8) < torch.tensor([[8], [1], [4]])
    data = Observations.of(x, values.masked_fill(~mask, torch.nan), mask)
    found = fit(data, sampling=BRIEF, streams=_streams(8))
    _assert_finite(found, data)


# Bad input.


@pytest.mark.parametrize("inference", ["hmc", "nuts", "map"])
def test_hyperparameters_that_are_all_fixed_are_taken_as_they_are(inference: Any) -> None:
    prior = HyperparameterPrior(Fixed(0.3), Fixed(2.0), Fixed(1e-3), Fixed(0.5))
    found = fit(_data(), Model(prior=prior), inference=inference, streams=_streams())
    _assert_finite(found, _data())
    assert found.report.status == ("map",) * RUNS
    assert [each.unique().tolist() for each in _hyperparameters(found)] == [
        [0.3],
        [2.0],
        [pytest.approx(1e-3 + prior.noise_floor)],
        [0.5],
    ]


def test_there_is_nothing_to_sample_of_fixed_hyperparameters() -> None:
    prior = HyperparameterPrior(Fixed(0.3), Fixed(2.0), Fixed(1e-3), Fixed(0.5))
    data = _data()
    with pytest.raises(
        InvalidOption, match="expected a prior that leaves a hyperparameter to sample"
    ):
        sample_hyperparameters(data.x, data.y, model=Model(prior=prior))


def test_an_unknown_inference_is_refused() -> None:
    with pytest.raises(InvalidOption, match=r"inference='mcmc'.*'nuts', 'map', 'pyro'"):
        fit(_data(), inference="mcmc", streams=_streams())  # type: ignore[arg-type]


def test_a_run_without_observations_is_refused() -> None:
    data = _data()
    mask = data.mask.clone()
    mask[1] = False
    with pytest.raises(InvalidData, match="no observation"):
        fit(replace(data, mask=mask), streams=_streams())
    with pytest.raises(InvalidData, match="no observation"):
        fit(Observations.of(data.x[:, :0], data.y[:, :0]), streams=_streams())


@pytest.mark.parametrize("runs", [1, 4])
def test_a_warm_state_of_other_runs_is_refused(runs: int) -> None:
    with pytest.raises(InvalidOption, match=rf"warm has 3 runs .* expected {runs} and 5"):
        fit(_data(runs=runs), warm=_warm(), streams=_streams(runs=runs))


def test_a_warm_state_of_other_hyperparameters_is_refused() -> None:
    with pytest.raises(InvalidOption, match="3 runs and 5 coordinates: expected 3 and 6"):
        fit(_data(dim=3), warm=_warm(), streams=_streams())
    with pytest.raises(InvalidOption, match="expected 3 and 4"):
        fit(_data(), Model(prior="botorch"), warm=_warm(), streams=_streams())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chains": 0}, "chains=0"),
        ({"draws": 0}, "draws=0"),
        ({"kept": 0}, "kept=0"),
        ({"chains": 2, "draws": 3, "warm_draws": 4, "kept": 7}, "kept=7.*6"),
        ({"chains": 2, "draws": 3, "warm_draws": 2, "kept": 5}, "kept=5.*4"),
    ],
)
def test_a_sampling_that_makes_no_sense_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        Sampling(**options)
