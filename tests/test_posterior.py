"""What the model says to a user: predictions in their units, and what it recommends."""

import math
import random
from typing import Any

import pytest
import torch

from gpbo import fitting
from gpbo.backend import DTYPE
from gpbo.errors import InvalidData, InvalidParams
from gpbo.loop import minimize
from gpbo.optimizer import Optimizer
from gpbo.space import Categorical, Real, Space
from gpbo.surrogate import Surrogate
from gpbo.trial import Direction
from tests.monte_carlo import random_normal

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


def test_the_band_holds_the_function_and_not_the_noise() -> None:
    expected = told(noise=2.0, count=47).posterior().predict(between())
    truth = [wave(params) for params in between()]
    held = [
        low <= y <= high for low, y, high in zip(expected.low, truth, expected.high, strict=True)
    ]
    assert sum(held) >= 16  # of 19 points, which are not independent
    assert (expected.high - expected.low).mean() < 2.0 * 1.96 * 2.0


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
