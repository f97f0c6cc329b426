"""What the model says to a user: predictions in their units, and what it recommends."""

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from gpbo import fitting, units
from gpbo.backend import DTYPE
from gpbo.errors import InvalidData, InvalidOption, InvalidParams
from gpbo.hyperparameters import NAMES
from gpbo.loop import minimize
from gpbo.optimizer import Optimizer
from gpbo.posterior import Posterior
from gpbo.space import Categorical, Real, Space
from gpbo.surrogate import Surrogate
from gpbo.trial import Direction
from gpbo.units import Units
from tests.monte_carlo import random_normal, unchecked_shapes

LINE = Space(Real("x", 1e-3, 1e3, "log"))
ARMS = Space(Categorical("arm", ("a", "b", "c")))


def wave(params: dict[str, Any]) -> float:
    return 50.0 + 7.0 * math.sin(math.log(params["x"]))


def told(direction: Direction = "minimize", noise: float = 0.0, count: int = 23) -> Optimizer:
    """So many results of the wave, spread over the range; mirrored where they are maximised."""
    optimizer = Optimizer(LINE, direction=direction, inference="map", seed=3)
    lot, sign = random.Random(5), 1.0 if direction == "minimize" else -1.0
    for i in range(count):
        params = LINE.decode(torch.tensor([[(i + 0.5) / count]], dtype=DTYPE))[0]
        optimizer.add(params, sign * (wave(params) + lot.gauss(0.0, noise)))
    return optimizer


def between(count: int = 19) -> list[dict[str, Any]]:
    return LINE.decode(torch.linspace(0.05, 0.95, count, dtype=DTYPE)[:, None])


def test_a_smooth_function_is_predicted_in_the_units_of_the_user() -> None:
    expected = told().posterior().predict(between())
    truth = [wave(params) for params in between()]
    assert expected.median.tolist() == pytest.approx(truth, abs=0.3)
    assert (expected.low < expected.median).all()
    assert (expected.median < expected.high).all()


@pytest.mark.filterwarnings("error")
def test_of_no_configuration_nothing_is_predicted() -> None:
    posterior = told(count=5).posterior()
    assert posterior.predict([]).median.shape == (0,)
    assert posterior.sample([], 3).shape == (3, 0)


def test_the_band_holds_the_function_and_not_the_noise() -> None:
    expected = told(noise=2.0, count=47).posterior().predict(between())
    truth = [wave(params) for params in between()]
    held = [
        low <= y <= high for low, y, high in zip(expected.low, truth, expected.high, strict=True)
    ]
    assert sum(held) >= 16  # of 19 points, which are not independent
    assert (expected.high - expected.low).mean() < 2.0 * 1.96 * 2.0


@pytest.mark.parametrize("constraints", [[], ["x <= 100", "cost <= 2"]], ids=["free", "limited"])
@pytest.mark.parametrize("refit", [True, False])
def test_the_units_are_those_of_the_fit(
    constraints: list[str], refit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit, and they are searched once."""
    optimizer = Optimizer(LINE, constraints=constraints, inference="map", seed=3)
    for number, params in enumerate(between()):
        if number == 11:
            optimizer.adopt(optimizer.plan_fit()())
        x = params["x"]
        optimizer.add(params, x**2, {"x": x, "cost": 1 + 3 / (1 + x)} if constraints else None)
    searched, search = [], units._log_evidence

    def counted(*data: Tensor) -> Tensor:
        searched.append(data)
        return search(*data)

    monkeypatch.setattr(units, "_log_evidence", counted)
    found = optimizer.posterior(refit=refit).units
    assert len(searched) == 1
    assert bool(found.equals(optimizer.observations().units))
    assert float(found.power) < 1


def sampled(optimizer: Optimizer, count: int = 4001) -> tuple[Posterior, list[Any], Any]:
    """The posterior, configurations of which two come twice, and values of functions there."""
    posterior = optimizer.posterior()
    configurations = [*between(7), *between(7)[:2]]
    return posterior, configurations, posterior.sample(configurations, count, seed=3)


def test_sampled_functions_have_the_joint_distribution_of_the_posterior() -> None:
    posterior, configurations, rows = sampled(told(noise=2.0))
    assert rows.shape == (4001, 9)
    points = LINE.encode(configurations)[None]
    mean, covariance = posterior.surrogate.joint(points)
    given = posterior.units(torch.from_numpy(rows)[None])[0]
    error = 4.5 / math.sqrt(len(rows))  # of the mean of so many normals, in standard deviations
    spread = covariance[0, 0].diagonal().sqrt()
    assert ((given.mean(0) - mean[0, 0]).abs() < error * spread).all()
    scaled = given.T.cov() / spread / spread[:, None]
    expected = covariance[0, 0] / spread / spread[:, None]
    assert (scaled - expected).abs().max() < error * math.sqrt(2)
    assert np.allclose(rows[:, :2], rows[:, 7:], rtol=1e-5)  # the same configurations


def test_sampled_functions_keep_to_the_band() -> None:
    posterior, configurations, rows = sampled(told(noise=2.0))
    expected = posterior.predict(configurations)
    below, above = (rows < expected.low).mean(0), (rows > expected.high).mean(0)
    error = 4.5 * math.sqrt(0.025 * 0.975 / len(rows))
    assert (np.abs(np.stack([below, above]) - 0.025) < error).all()


def three_draws(outputscale: list[float], mean: list[float]) -> Surrogate:
    """With lengthscales so short that the data, at 0.1, say nothing of the function elsewhere."""
    return Surrogate.condition(
        torch.full((1, 2, 1), 0.1, dtype=DTYPE),
        torch.zeros(1, 2, dtype=DTYPE),
        torch.ones(1, 2, dtype=torch.bool),
        lengthscale=torch.full((1, 3, 1), 1e-3, dtype=DTYPE),
        outputscale=torch.tensor([outputscale], dtype=DTYPE),
        noise_variance=torch.ones(1, 3, dtype=DTYPE),
        mean=torch.tensor([mean], dtype=DTYPE),
    )


def test_the_band_is_as_wide_as_the_draws_of_the_hyperparameters_disagree() -> None:
    """Far from the data: the variance is the mean of the variances, and that of the means."""
    surrogate = three_draws([0.25, 1.0, 4.0], mean=[0.0, 2.0, 7.0])
    plain = Units.affine(torch.zeros(1, dtype=DTYPE), torch.ones(1, dtype=DTYPE))
    expected = replace(told().posterior(), surrogate=surrogate, units=plain).predict([{"x": 1e3}])
    spread = math.sqrt((0.25 + 1.0 + 4.0) / 3 + (3.0**2 + 1.0**2 + 4.0**2) / 3)
    assert expected.median[0] == pytest.approx(3.0, rel=1e-9)
    assert expected.high[0] == pytest.approx(3.0 + norm.ppf(0.975) * spread, rel=1e-9)
    assert expected.low[0] == pytest.approx(3.0 + norm.ppf(0.025) * spread, rel=1e-9)


def test_a_draw_that_failed_is_left_out() -> None:
    posterior = told().posterior()
    surrogate = posterior.surrogate
    each = {name: getattr(surrogate, name) for name in NAMES}
    draws = {name: part.repeat_interleave(5, 1) for name, part in each.items()}
    draws["lengthscale"] *= torch.linspace(0.5, 2.0, 5, dtype=DTYPE)[:, None]
    rest = {name: part[:, 1:] for name, part in draws.items()}
    draws["lengthscale"][0, 0] = torch.nan
    data = surrogate.x, surrogate.y[:, 0], surrogate.mask
    failed, expected = (
        replace(posterior, surrogate=Surrogate.condition(*data, **part, nu=surrogate.nu))
        for part in (draws, rest)
    )
    assert failed.surrogate.succeeded.sum() == expected.surrogate.draws
    asked = between(7)
    found, other = failed.predict(asked), expected.predict(asked)
    for name in ("median", "low", "high"):
        np.testing.assert_allclose(getattr(found, name), getattr(other, name), rtol=1e-9)
    np.testing.assert_allclose(failed.sample(asked, 40), expected.sample(asked, 40), rtol=1e-7)


def test_sampled_functions_take_the_draws_of_the_hyperparameters_in_turn() -> None:
    """One of three draws has a mean far from the others, and no data near the configuration."""
    surrogate = three_draws([1e-6, 1e-6, 1e-6], mean=[0.0, 1.0, 2.0])
    posterior = told().posterior()
    plain = Units.affine(torch.zeros(1, dtype=DTYPE), torch.ones(1, dtype=DTYPE))
    posterior = replace(posterior, surrogate=surrogate, units=plain)
    rows = posterior.sample([{"x": 1e3}], 7)
    order = np.argsort(np.argsort(rows[:3, 0])).tolist()
    assert order == [0, 1, 2]
    assert rows[:, 0] == pytest.approx(np.resize(rows[:3, 0], 7), abs=0.02 * np.ptp(rows))


def test_sampled_functions_go_by_their_seed_and_mirror_what_is_maximised() -> None:
    (_, _, down), (_, _, up) = (sampled(told(way), 5) for way in ("minimize", "maximize"))
    assert up == pytest.approx(-down, rel=1e-12)
    posterior, configurations, rows = sampled(told(), 5)
    assert (posterior.sample(configurations, 5, seed=3) == rows).all()
    assert (posterior.sample(configurations, 5, seed=4) != rows).any(1).all()


def test_where_the_results_are_exact_so_are_sampled_functions() -> None:
    optimizer = told()
    known = [dict(trial.params) for trial in optimizer.finished]
    rows = optimizer.posterior().sample(known, 11)
    assert np.isfinite(rows).all()
    truth = np.array([wave(params) for params in known])
    assert np.abs(rows - truth).max() < 0.2


@pytest.mark.parametrize(("option", "wrong"), [("count", 0), ("count", 1.5), ("seed", -1)])
def test_no_function_can_be_sampled_so(option: str, wrong: Any) -> None:
    options = {"count": 3, "seed": 0, option: wrong}
    with unchecked_shapes(), pytest.raises(InvalidOption, match=f"{option}={wrong!r}: expected"):
        told().posterior().sample(between(), **options)


def test_what_is_maximised_is_the_mirror_image() -> None:
    down, up = (told(way).posterior().predict(between()) for way in ("minimize", "maximize"))
    assert up.median.tolist() == pytest.approx((-down.median).tolist(), rel=1e-12)
    assert up.low.tolist() == pytest.approx((-down.high).tolist(), rel=1e-12)
    assert up.high.tolist() == pytest.approx((-down.low).tolist(), rel=1e-12)
    least, most = (told(way, noise=2.0).recommend() for way in ("minimize", "maximize"))
    assert most.params == least.params
    assert (most.low, most.high) == pytest.approx((-least.high, -least.low), rel=1e-12)


def lucky() -> Optimizer:
    """The best value is of an arm that is bad on average."""
    optimizer = Optimizer(ARMS, inference="map")
    values = {"a": (-1.0, 5.0, 4.0, 6.0, 5.0), "b": (0.2, -0.1, 0.1, 0.0, -0.2), "c": (9.0, 8.0)}
    for arm, results in values.items():
        for value in results:
            optimizer.add({"arm": arm}, value)
    return optimizer


def test_the_recommendation_is_not_the_luckiest() -> None:
    optimizer = lucky()
    assert optimizer.best is not None
    assert optimizer.best.params == {"arm": "a"}
    recommended = optimizer.recommend()
    assert recommended.params == {"arm": "b"}
    assert recommended.trials == (5, 6, 7, 8, 9)
    expected = optimizer.posterior().predict([{"arm": "b"}])
    assert recommended.median == pytest.approx(float(expected.median[0]), rel=1e-12)
    assert recommended.low < recommended.median < recommended.high


def test_a_result_recommends_what_its_optimizer_does() -> None:
    result = minimize(wave, LINE, budget=7, inference="map", progress=False)
    assert result.recommend() == result.optimizer.recommend()
    assert result.recommend().trials


def test_failed_and_pending_trials_are_not_recommended() -> None:
    optimizer = Optimizer(LINE, inference="map", initial=4)
    trials = optimizer.ask(4)
    optimizer.fail(trials[0], "broken")
    optimizer.tell(trials[1], 3.0)
    optimizer.tell(trials[3], 2.0)
    recommended = optimizer.recommend()
    assert recommended.trials == (3,)
    assert recommended.params == trials[3].params


def test_who_changes_a_recommended_configuration_changes_no_trial() -> None:
    posterior = told(count=5).posterior()
    recommended = posterior.recommend()
    assert isinstance(recommended.params, dict)
    recommended.params["x"] = 7.0
    assert posterior.recommend().params != recommended.params


def test_without_results_there_is_no_posterior() -> None:
    optimizer = Optimizer(LINE)
    optimizer.ask()
    with pytest.raises(InvalidData, match="no trial has a value"):
        optimizer.posterior()
    with pytest.raises(InvalidData, match="no trial has a value"):
        optimizer.recommend()


def test_what_is_no_configuration_is_refused() -> None:
    with pytest.raises(InvalidParams, match="missing 'x'"):
        told().posterior().predict([{"y": 1.0}])


def test_of_many_configurations_the_wrong_one_is_named() -> None:
    with pytest.raises(InvalidParams, match=r"^configurations\[1\]: params: missing 'x'"):
        told().posterior().predict([{"x": 1.0}, {"y": 1.0}])


def test_looking_changes_nothing_that_is_proposed() -> None:
    looked, other = told(), told()
    looked.recommend()
    assert looked.ask().params == other.ask().params


def test_the_last_fit_serves_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = told()
    optimizer.ask()
    optimizer.add({"x": 0.9}, 1.0)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("fitted")

    monkeypatch.setattr(fitting, "fit", never)
    assert optimizer.recommend(refit=False).trials == (24,)
    with pytest.raises(AssertionError, match="fitted"):
        optimizer.recommend()


def test_each_run_is_recommended_a_point_of_its_own() -> None:
    x = random_normal(3, 2, 7, 5).sigmoid()
    mask = torch.arange(7) < torch.tensor([[3], [7]])
    y = torch.tensor([[3.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0], [5.0, 4.0, 6.0, 7.0, 3.0, 1.0, 2.0]])
    draws = torch.tensor([[0.1, 2.0], [1.0, 0.5]], dtype=DTYPE)
    surrogate = Surrogate.condition(
        x,
        y.to(DTYPE),
        mask,
        lengthscale=draws[..., None].expand(2, 2, 5),
        outputscale=draws.flip(1),
        noise_variance=draws / 7,
        mean=torch.full((2, 2), 3.0, dtype=DTYPE),
    )
    expected = surrogate.moments(x)[0].mean(1)
    best = [int(expected[0, :3].argmin()), int(expected[1].argmin())]
    assert surrogate.recommended.tolist() == best
