"""From observations to surrogates: reports, policy, degenerate data, and the public sampler."""

import dataclasses
from typing import Any

import pytest
import torch
from scipy.optimize import minimize

from gpbo import fitting, inference, sample_hyperparameters
from gpbo.backend import DTYPE, Streams
from gpbo.data import Observations, standardised
from gpbo.errors import InvalidData, InvalidOption
from gpbo.evidence import Model
from gpbo.fitting import Sampling, fit
from gpbo.inference import HyperparameterDraws, mode, schedule_for

SMALL = Sampling(chains=3, warmup=24, settle=3, draws=7, kept=5)


def observed(runs: int = 2, count: int = 11, dim: int = 3, scale: float = 1.0) -> Observations:
    x = Streams.named(0, "data", runs=runs).uniform(count, dim)
    return standardised(x, scale * (torch.sin(5 * x[..., 0]) + x[..., 1] ** 2))


def test_a_fit_by_nuts_reports_and_can_be_gone_on_from() -> None:
    data = observed()
    cold = fit(data, sampling=SMALL, streams=Streams.named(1, "fit", runs=2))
    assert cold.surrogate.lengthscale.shape == (2, 5, 3)
    assert not cold.report.warm
    warm = fit(data, sampling=SMALL, warm=cold.warm, streams=Streams.named(1, "fit", 1, runs=2))
    assert warm.report.warm
    assert bool((warm.report.leapfrog_steps < cold.report.leapfrog_steps).all())
    for name in ("rhat", "ess_bulk", "ess_tail", "divergences", "depth_saturation"):
        assert bool(torch.isfinite(getattr(warm.report, name)).all()), name
    assert "R-hat" in warm.report.summary()


def test_a_run_is_fitted_in_a_batch_as_alone() -> None:
    data = observed()
    streams = Streams.named(1, "fit", runs=2)
    batch = fit(data, sampling=SMALL, streams=Streams.named(1, "fit", runs=2))
    second = standardised(data.x[1:], data.y[1:])
    alone = fit(second, sampling=SMALL, streams=streams.select([1]))
    close = torch.isclose(alone.surrogate.mean[0], batch.surrogate.mean[1], atol=1e-6)
    assert bool(close.all())


def test_the_mode_is_as_good_as_scipys() -> None:
    data = observed(runs=1)
    posterior = Model().log_posterior(data.x, data.y, data.mask)
    _, value = mode(posterior, Streams([3]))

    def cost(u: Any) -> tuple[float, Any]:
        height, slope = posterior(torch.as_tensor(u, dtype=DTYPE)[None])
        return -float(height), -slope[0].numpy()

    starts = posterior.parametrization.sample(Streams([4]), 10)[0]
    peer = max(-minimize(cost, start, jac=True, method="L-BFGS-B").fun for start in starts.numpy())
    assert float(value) >= peer - 1e-6


def test_a_point_estimate_has_one_draw() -> None:
    result = fit(observed(), inference="map", streams=Streams.named(1, "fit", runs=2))
    assert result.surrogate.draws == 1
    assert result.report.status == ("map", "map")
    assert result.warm is None


def test_pyro_fits_the_same_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpbo import pyro_nuts

    original = pyro_nuts.draw_with_pyro
    monkeypatch.setattr(
        pyro_nuts, "draw_with_pyro", lambda *args: original(*args, warmup=20, draws=20)
    )
    result = fit(observed(runs=1, count=5), inference="pyro", streams=Streams([1]))
    assert result.report.inference == "pyro"
    assert result.surrogate.draws == 16
    assert bool(
        torch.isfinite(result.surrogate.moments(torch.full((1, 1, 3), 0.5).double())[0]).all()
    )


def test_only_the_run_in_trouble_samples_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    original = inference.draw

    def first_in_trouble(*args: Any, **options: Any) -> HyperparameterDraws:
        draws = original(*args, **options)
        calls.append(len(draws.info.rhat))
        rhat = torch.ones_like(draws.info.rhat)
        rhat[0] = 9.0 if len(calls) == 1 else 1.0
        return dataclasses.replace(draws, info=dataclasses.replace(draws.info, rhat=rhat))

    monkeypatch.setattr(fitting, "draw", first_in_trouble)
    result = fit(observed(), sampling=SMALL, streams=Streams.named(1, "fit", runs=2))
    assert calls == [2, 1]
    assert result.report.status == ("extended", "ok")
    monkeypatch.setattr(fitting, "draw", original)
    monkeypatch.setattr(fitting, "RHAT_LIMIT", torch.inf)
    plain = fit(observed(), sampling=SMALL, streams=Streams.named(1, "fit", runs=2))
    torch.testing.assert_close(result.surrogate.mean[1], plain.surrogate.mean[1])


def test_chains_that_never_agree_are_kept_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "RHAT_LIMIT", 0.0)
    result = fit(observed(), sampling=SMALL, streams=Streams.named(1, "fit", runs=2))
    assert result.report.status == ("unconverged", "unconverged")


def test_a_run_that_cannot_be_sampled_gets_its_mode_and_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = inference.draw

    def second_diverges(*args: Any, **options: Any) -> HyperparameterDraws:
        draws = original(*args, **options)
        divergences = draws.info.divergences.clone()
        divergences[-1] = 1e9
        info = dataclasses.replace(draws.info, divergences=divergences)
        return dataclasses.replace(draws, info=info)

    monkeypatch.setattr(fitting, "draw", second_diverges)
    result = fit(observed(), sampling=SMALL, streams=Streams.named(1, "fit", runs=2))
    assert result.report.status[1] == "fallback-map"
    assert result.report.status[0] != "fallback-map"
    assert float(result.surrogate.mean[1].std()) == 0.0
    assert float(result.surrogate.mean[0].std()) > 0.0
    assert "fallback-map" in caplog.text


def degenerate() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    streams = Streams([7])
    x = streams.uniform(12, 3)
    y = streams.normal(12)
    outlier = y.clone()
    outlier[0, 3] = 1e6
    wide = streams.uniform(9, 60)
    return {
        "one point": (x[:, :1], y[:, :1]),
        "constant values": (x, torch.full_like(y, 3.0)),
        "one point repeated": (x[:, :1].expand(1, 12, 3), y),
        "values over twelve orders of magnitude": (x, 10.0 ** (y * 4 + 4)),
        "an outlier of a million": (x, outlier),
        "one dimension": (x[..., :1], y),
        "sixty dimensions": (wide, y[:, :9]),
    }


@pytest.mark.parametrize("name", degenerate())
@pytest.mark.parametrize("method", ["nuts", "map"])
def test_degenerate_data_gives_finite_moments(name: str, method: fitting.Inference) -> None:
    x, values = degenerate()[name]
    data = standardised(x, values)
    sampling = Sampling(chains=2, warmup=12, settle=2, draws=5, kept=3)
    result = fit(data, inference=method, sampling=sampling, streams=Streams([1]))
    mean, variance = result.surrogate.moments(Streams([2]).uniform(5, x.shape[2]))
    assert bool(torch.isfinite(mean).all())
    assert bool((variance > 0).all())


def test_moving_the_chains_to_another_standardisation_is_exact() -> None:
    data = observed(runs=2)
    posterior = Model().log_posterior(data.x, data.y, data.mask)
    shift = torch.tensor([0.3, -1.1], dtype=DTYPE)
    factor = torch.tensor([1.7, 0.4], dtype=DTYPE)
    moved_y = (data.y - shift[:, None]) / factor[:, None]
    other = Model().log_posterior(data.x, moved_y, data.mask)
    parametrization = posterior.parametrization
    u = parametrization.sample(Streams.named(5, "u", runs=2), 3)
    u[..., -2] += 8  # far above the noise floor, which does not scale
    moved = parametrization.rescaled(u, shift, factor)
    before, _ = posterior.log_likelihood(parametrization.constrain(u.flatten(0, 1)))
    after, _ = other.log_likelihood(parametrization.constrain(moved.flatten(0, 1)))
    jacobian = data.y.shape[1] * factor.log().repeat_interleave(3)
    torch.testing.assert_close(after, before + jacobian, rtol=1e-4, atol=1e-3)


def test_hyperparameters_of_one_data_set_need_no_run_axis() -> None:
    data = observed(runs=1)
    draws = sample_hyperparameters(data.x[0], data.y[0], chains=3, draws=5, warmup=12)
    assert draws.lengthscale.shape == (1, 15, 3)
    assert bool((draws.noise_variance > 0).all())
    more = sample_hyperparameters(data.x[0], data.y[0], chains=3, draws=5, start=draws)
    assert bool((more.info.leapfrog_steps < draws.info.leapfrog_steps).all())
    assert draws.last(4).mean.shape == (1, 4)


def test_bad_input_to_the_sampler_is_named() -> None:
    x, y = torch.rand(5, 2, dtype=DTYPE), torch.rand(5, dtype=DTYPE)
    with pytest.raises(InvalidData, match="expected x"):
        sample_hyperparameters(x, y[:4])
    with pytest.raises(InvalidData, match="finite"):
        sample_hyperparameters(x, y.log() / 0)
    with pytest.raises(InvalidOption, match="chains=0"):
        sample_hyperparameters(x, y, chains=0)
    with pytest.raises(InvalidOption, match="draws=0"):
        sample_hyperparameters(x, y, draws=0)
    with pytest.raises(InvalidOption, match="warmup=3"):
        schedule_for(3, 5, cold=True)
    with pytest.raises(InvalidData, match="no observation"):
        fit(standardised(x[None, :0], y[None, :0]), streams=Streams([0]))
    with pytest.raises(InvalidOption, match="kept=99"):
        Sampling(kept=99, chains=2, draws=2)
