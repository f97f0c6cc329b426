"""An acquisition function of a user's own, where one of the engine's could be."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gpbo.acquisition import Differentiated, LogExpectedImprovement, _log_mean_exp, log_h
from gpbo.backend import DTYPE
from gpbo.candidates import Search
from gpbo.errors import InvalidOption
from gpbo.graphs import _flatten, _Opaque
from gpbo.lockstep import replicate
from gpbo.loop import minimize
from gpbo.optimizer import Optimizer
from gpbo.simulation import simulate
from gpbo.space import Real, Space
from gpbo.strategies import CustomAcquisition, ExpectedImprovement
from gpbo.surrogate import Surrogate
from tests.monte_carlo import random_normal, random_uniform, unchecked_shapes
from tests.test_strategies import FINITE, MIXED, check_singles, keys, situation

SEARCH = Search(raw=32, perturbed=8, restarts=2, iterations=8)
LINE = Space(Real("x", 0, 1))


def bound(surrogate: Surrogate) -> Callable[[Tensor], Tensor]:
    """The lower confidence bound, averaged over the draws, to be minimised."""

    def value(x: Tensor) -> Tensor:
        mean, variance = surrogate.moments(x)
        return (2.0 * variance.sqrt() - mean).mean(1)

    return value


def improvement(surrogate: Surrogate) -> Callable[[Tensor], Tensor]:
    """What `ExpectedImprovement` maximises, without its closed-form gradient."""

    def value(x: Tensor) -> Tensor:
        mean, variance = surrogate.moments(x)
        best = surrogate.incumbent[..., None] - ExpectedImprovement.margin
        return _log_mean_exp(log_h((best - mean) / variance.sqrt())[0] + 0.5 * variance.log())

    return value


BOUND = CustomAcquisition("lcb", bound, SEARCH)


def random_surrogate(runs: int = 3) -> Surrogate:
    ones = torch.ones(runs, 5, dtype=DTYPE)
    return Surrogate.condition(
        random_uniform(1, runs, 7, 2),
        random_normal(2, runs, 7),
        torch.ones(runs, 7, dtype=torch.bool),
        lengthscale=0.2 + random_uniform(3, runs, 5, 2),
        outputscale=1.3 * ones,
        noise_variance=0.1 * ones,
        mean=0.2 * ones,
    )


def test_autograd_gives_the_gradient_of_each_point() -> None:
    surrogate = random_surrogate()
    x = random_uniform(4, 3, 11, 2)
    utility = LogExpectedImprovement(surrogate, best=surrogate.incumbent - 3e-3)
    value, gradient = Differentiated(improvement(surrogate)).value_and_gradient(x)
    expected, slope = utility.value_and_gradient(x)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient, slope, rtol=1e-7, atol=1e-9)
    assert not value.requires_grad
    assert not x.requires_grad


def test_the_same_function_proposes_the_same_points() -> None:
    now = situation(MIXED, [6, 3], pending=1)
    own = CustomAcquisition("own", improvement, SEARCH).propose(now, 3)
    expected = ExpectedImprovement(SEARCH, refine=0).propose(now, 3)
    torch.testing.assert_close(own, expected, atol=1e-4, rtol=0)


def test_the_same_function_proposes_the_same_points_where_trials_failed() -> None:
    """Its incumbent too is of points with a value: the failed one is expected to be the best."""
    space = Space(Real("a", 0, 1), Real("b", 0, 1))
    now = situation(space, [13])
    best = ExpectedImprovement(SEARCH).propose(now, 1)
    failed = replace(now, failed=best, failed_mask=torch.ones(1, 1, dtype=torch.bool))
    own = CustomAcquisition("own", improvement, SEARCH).propose(failed, 1)
    expected = ExpectedImprovement(SEARCH).propose(failed, 1)
    torch.testing.assert_close(own, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("size", "offset"), [(1.0, 0.0), (1e-9, 0.0), (1.0, 1e6), (1e9, -1e9)])
def test_a_maximum_is_found_whatever_the_size_of_the_values(size: float, offset: float) -> None:
    def hill(x: Tensor) -> Tensor:
        return offset - size * (x - 0.377).square().sum(-1)

    space = Space([Real(f"x{i}", 0, 1) for i in range(3)])
    now = situation(space, [5, 3])
    found = CustomAcquisition("hill", lambda surrogate: hill).propose(now, 1)
    torch.testing.assert_close(found, torch.full_like(found, 0.377), atol=1e-4, rtol=0)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_function_without_a_value_is_told_of(
    value: float, caplog: pytest.LogCaptureFixture
) -> None:
    def nothing(x: Tensor) -> Tensor:
        return x.sum(-1) + value

    now = situation(LINE, [4])
    proposed = CustomAcquisition("own", lambda surrogate: nothing, SEARCH).propose(now, 1)
    assert proposed.shape == (1, 1, 1)
    assert caplog.messages == ["the acquisition function is NaN or -inf at all 40 points tried"]


def test_a_batch_is_new_distinct_and_what_single_proposals_are() -> None:
    now = situation(FINITE, [5], pending=2)
    batch = BOUND.propose(now, 3)
    proposed = keys(FINITE, batch[0])
    assert len({*proposed}) == 3
    assert not {*proposed} & now.taken[0]
    check_singles(BOUND, now, batch)


def test_it_serves_wherever_a_strategy_does() -> None:
    result = minimize(
        lambda params: (params["x"] - 0.3) ** 2, LINE, budget=11, strategy=BOUND, inference="map",
        progress=False,
    )  # fmt: skip
    assert [trial.origin for trial in result.trials] == ["design"] * 5 + ["model:lcb"] * 6
    assert result.best is not None
    assert result.best.params["x"] == pytest.approx(0.3, abs=0.02)
    many: dict[str, Any] = {"strategy": BOUND, "budget": 7, "inference": "map", "progress": False}
    together = replicate("branin", runs=2, **many)
    assert together.strategy == "lcb"
    alone = replicate("branin", runs=1, seed=1, **many)
    assert together.values[1].tolist() == pytest.approx(alone.values[0].tolist(), rel=1e-6)
    assert simulate("branin", workers=2, runs=2, **many).points.shape == (2, 7, 2)


def test_it_must_be_given_again_to_go_on_with_a_stored_job(tmp_path: Any) -> None:
    kept: dict[str, Any] = {"storage": tmp_path / "jobs.db", "name": "own"}
    with Optimizer(LINE, BOUND, inference="map", **kept) as optimizer:
        optimizer.tell(optimizer.ask(), 1.0)
    with pytest.raises(InvalidOption, match="strategy"):
        Optimizer.resume(**kept)
    with Optimizer.resume(**kept, strategy=BOUND) as optimizer:
        assert optimizer.strategy is BOUND


def test_where_trials_failed_the_chance_of_a_value_counts() -> None:
    """Without it the bound would go where trials fail, and nothing is known."""

    def chosen(told: float) -> float:
        optimizer = Optimizer(LINE, BOUND, inference="map", initial=1)
        for x in (0.0, 0.1, 0.2, 0.3):
            optimizer.add({"x": x}, 1.0 - x)
        for x in (0.7, 0.8, 0.9, 1.0):
            optimizer.add({"x": x}, told)
        return float(optimizer.ask().params["x"])

    assert chosen(float("nan")) < 0.65
    assert chosen(-1.0) > 0.65


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "name=''"),
        ({"name": 3}, "name=3"),
        ({"acquisition": "ei"}, "acquisition='ei'"),
        ({"search": 7}, "search=7"),
        ({"repeats": 1.5}, "repeats=1.5"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with unchecked_shapes(), pytest.raises(InvalidOption, match=message):
        CustomAcquisition(**{"name": "own", "acquisition": bound, **options})


@pytest.mark.parametrize(
    ("acquisition", "message"),
    [
        (lambda surrogate: 3.0, r"acquisition of 'own' returned 3\.0"),
        (lambda surrogate: lambda x: 3.0, r"returned float: expected .* of shape \(1, 40\)"),
        (lambda surrogate: lambda x: x, r"returned torch.float64 of shape \(1, 40, 1\)"),
        (lambda surrogate: lambda x: x.sum(-1).long(), r"returned torch.int64"),
        (lambda surrogate: lambda x: x.detach().sum(-1), "that depends on the points"),
        (lambda surrogate: lambda x: torch.zeros(1, 40), "that depends on the points"),
    ],
)
def test_what_is_no_acquisition_function_is_said(acquisition: Any, message: str) -> None:
    strategy = CustomAcquisition("own", acquisition, SEARCH)
    with unchecked_shapes(), pytest.raises(InvalidOption, match=message):
        strategy.propose(situation(LINE, [5]), 1)


def test_an_acquisition_function_may_work_out_gradients_before_it_is_searched() -> None:
    steepest = []

    def acquisition(surrogate: Surrogate) -> Callable[[Tensor], Tensor]:
        x = surrogate.x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(surrogate.moments(x)[0].sum(), x)
        steepest.append(slope.abs().amax())
        return bound(surrogate)

    own = CustomAcquisition("own", acquisition, SEARCH).propose(situation(LINE, [5]), 1)
    assert torch.equal(own, BOUND.propose(situation(LINE, [5]), 1))
    assert steepest[0] > 0


def test_points_that_are_nan_are_not_asked_for() -> None:
    def function(x: Tensor) -> Tensor:
        assert x.isfinite().all()
        return x.sum(-1)

    x = torch.tensor([[[0.25, 0.5], [math.nan, 0.5]]], dtype=DTYPE)
    value, gradient = Differentiated(function).value_and_gradient(x)
    assert value.isnan().tolist() == [[False, True]]
    assert float(value[0, 0]) == 0.75
    assert gradient[0, 0].tolist() == [1.0, 1.0]


def test_it_is_not_recorded_for_replay_on_a_gpu() -> None:
    """A function may hold tensors that a recording would keep, of a surrogate of long ago."""
    with pytest.raises(_Opaque):
        _flatten(BOUND._utility(random_surrogate(), situation(LINE, [2])), [])


def test_a_callers_inference_mode_does_not_reach_it() -> None:
    def runs() -> list[Any]:
        made = minimize(
            lambda params: (params["x"] - 0.3) ** 2,
            LINE,
            budget=6,
            initial=3,
            strategy=BOUND,
            inference="map",
            progress=False,
        )
        rows = replicate("branin", strategy=BOUND, runs=2, budget=7, initial=5, progress=False)
        beside = simulate("branin", workers=2, budget=6, strategy=BOUND, initial=3, progress=False)
        points = [trial.params for trial in made.trials]
        return [points, rows.points.tolist(), beside.points.tolist()]

    plain = runs()
    with torch.inference_mode():
        assert runs() == plain
