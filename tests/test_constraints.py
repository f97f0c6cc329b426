"""Constraints: what they say, how results are judged by them, and how proposals heed them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from botorch.acquisition.analytic import LogConstrainedExpectedImprovement
from botorch.models import ModelListGP
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from gpbo.acquisition import LogExpectedImprovement
from gpbo.backend import DTYPE, Streams
from gpbo.candidates import Search, Utility
from gpbo.completion import Completion
from gpbo.constraints import Constraint, read_constraints, returned
from gpbo.data import Observations, with_room
from gpbo.errors import InvalidData, InvalidOption, InvalidResult, TrialAlreadyFinished
from gpbo.feasibility import Limits, likely_at, log_chance, weighted, with_limits
from gpbo.fitting import Fit
from gpbo.loop import minimize, run
from gpbo.optimizer import Optimizer
from gpbo.paths import draw_paths
from gpbo.space import Categorical, Real, Space
from gpbo.strategies import (
    CustomAcquisition,
    ExpectedImprovement,
    ProbabilityOfImprovement,
    Strategy,
    ThompsonSampling,
)
from gpbo.surrogate import Surrogate
from gpbo.text import outcome
from gpbo.thompson import DrawnLimits, PathUtility, minima
from gpbo.trial import TrialStatus, incumbents
from gpbo.trust_region import NestedBoxes, TrustRegion
from gpbo.units import in_own_units
from tests.monte_carlo import random_uniform, unchecked_shapes

RUNS, LIMITED, DRAWS, RESULTS, POINTS, DIM = 2, 3, 5, 7, 11, 2
SQUARE = Space(Real("x", 0.0, 1.0), Real("y", 0.0, 1.0))
#: The least of x + y where both are met is 0.5998 (Gramacy et al. 2016, "Modeling an augmented
#: Lagrangian for blackbox constrained optimization", Technometrics 58); without them it is 0.
CURVED, OPTIMUM = ("wave >= 1.5", "disc <= 1.5"), 0.5998
STRATEGIES: list[Strategy] = [
    ExpectedImprovement(),
    ProbabilityOfImprovement(),
    ThompsonSampling(),
    ThompsonSampling(region=TrustRegion(), hallucinate=True),
]


def curved(params: Mapping[str, Any]) -> tuple[float, dict[str, float]]:
    x, y = params["x"], params["y"]
    wave = x + 2 * y + 0.5 * math.sin(2 * math.pi * (x * x - 2 * y))
    return x + y, {"wave": wave, "disc": x * x + y * y}


def summed(params: Mapping[str, Any]) -> tuple[float, dict[str, float]]:
    total = params["x"] + params["y"]
    return total, {"sum": total}


def learned(
    optimizer: Optimizer,
    seed: int,
    count: int,
    objective: Callable[[Mapping[str, Any]], tuple[float, dict[str, float]]] = curved,
) -> Optimizer:
    """The optimizer with results at random points; without constraints with the values alone."""
    for x, y in random_uniform(seed, count, DIM).tolist():
        value, measured = objective({"x": x, "y": y})
        optimizer.add({"x": x, "y": y}, value, measured if optimizer.constraints else None)
    return optimizer


def smooth(data: Observations, draws: int = 1) -> Surrogate:
    """A model of these observations with unit hyperparameters and some noise."""
    ones = torch.ones(data.runs, draws, dtype=DTYPE)
    return Surrogate.condition(
        data.x,
        data.y,
        data.mask,
        ones[..., None].expand(-1, -1, DIM),
        ones,
        0.1 * ones,
        0 * ones,
        eligible=data.eligible,
    )


# --- what they say


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("memory <= 16", Constraint("memory", "<=", 16.0)),
        ("  top-5 accuracy>=.9 ", Constraint("top-5 accuracy", ">=", 0.9)),
        ("a=b <= -1e-3", Constraint("a=b", "<=", -1e-3)),
    ],
)
def test_a_text_says_what_is_limited(text: str, expected: Constraint) -> None:
    assert read_constraints([text]) == (expected,)


@given(
    st.sampled_from(["<=", ">="]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
)
@example(sense="<=", limit=-1e308, measured=1e308)
@example(sense=">=", limit=1e308, measured=-1e308)
def test_a_constraint_is_the_text_that_it_was_read_from(
    sense: Any, limit: float, measured: float
) -> None:
    one = Constraint("n", sense, limit)
    assert read_constraints([str(one)]) == (one,)
    assert one.is_met_by(measured) == (one.excess(measured) <= 0)
    assert math.isfinite(one.excess(measured))


@pytest.mark.parametrize(
    "wrong",
    [
        "memory <= 16",
        7,
        ["memory"],
        ["memory < 16"],
        ["<= 16"],
        ["memory <= much"],
        ["memory <= inf"],
        ["memory <= nan"],
        ["1 <= memory <= 16"],
        ["value <= 1"],
        ["step >= 1"],
        [16.0],
        ["a <= 1", "a<=1.0"],
    ],
)
@unchecked_shapes()
def test_what_is_no_constraint_is_named(wrong: Any) -> None:
    with pytest.raises(InvalidOption, match="constraints") as raised:
        read_constraints(wrong)
    assert "expected" in str(raised.value)


def test_a_quantity_may_have_two_limits() -> None:
    optimizer = Optimizer(SQUARE, "random", constraints=["t >= 1", "t <= 2"])
    told = [optimizer.tell(optimizer.ask(), 0.0, {"t": t}).violated for t in (0.5, 1.0, 2.0, 3.0)]
    assert told == [("t >= 1",), (), (), ("t <= 2",)]


# --- what is told


def test_what_was_measured_is_told_with_the_value() -> None:
    optimizer = Optimizer(SQUARE, "random", constraints=["memory <= 16", "speed >= 2"])
    trial = optimizer.ask()
    measured: dict[str, Any] = {"memory": np.float32(17.0), "speed": torch.tensor([1])}
    with unchecked_shapes():
        told = optimizer.tell(trial, 0.25, measured)
    assert told.measured == {"memory": 17.0, "speed": 1.0}
    assert told.violated == ("memory <= 16", "speed >= 2")
    assert not told.feasible
    assert outcome(told, 100) == "0.25, violates memory <= 16, speed >= 2"
    assert optimizer.tell(trial, 0.25, {"memory": 17.0, "speed": 1.0}) == told
    with pytest.raises(TrialAlreadyFinished):
        optimizer.tell(trial, 0.25, {"memory": 16.0, "speed": 1.0})


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("returned", [Unspeakable(), (1.0, Unspeakable()), "x" * 10**6])
@unchecked_shapes()
def test_what_an_objective_returned_that_is_no_result_is_told_in_short(returned: Any) -> None:
    result = minimize(
        lambda params: returned, SQUARE, budget=2, strategy="random", constraints=["t <= 1"],
        progress=False,
    )  # fmt: skip
    assert [trial.status for trial in result.trials] == [TrialStatus.FAILED] * 2
    assert all(len(trial.reason or "") < 200 for trial in result.trials)
    assert all("expected a " in str(trial.reason) for trial in result.trials)


@pytest.mark.parametrize(
    "measured",
    [None, {}, {"memory": "much"}, {"memory": 1.0, "other": 1.0}, {"memory": None}, [1.0]],
)
@unchecked_shapes()
def test_what_lacks_a_quantity_is_no_result(measured: Any) -> None:
    optimizer = Optimizer(SQUARE, "random", constraints=["memory <= 16"])
    trial = optimizer.ask()
    for tell in (
        lambda: optimizer.tell(trial, 1.0, measured),
        lambda: optimizer.add(trial.params, 1.0, measured),
        lambda: optimizer.learn([(trial.params, 1.0, measured)]),
    ):
        with pytest.raises(InvalidResult, match=r"memory|other") as raised:
            tell()
        assert "expected" in str(raised.value)
    assert [each.status for each in optimizer.trials] == [TrialStatus.PENDING]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_where_there_is_no_value_nothing_need_be_measured(value: float) -> None:
    optimizer = Optimizer(SQUARE, "random", constraints=["memory <= 16"])
    told = optimizer.tell(optimizer.ask(), value)
    added = optimizer.add(told.params, value)
    (learned,) = optimizer.learn([(told.params, value)])
    for trial in (told, added, learned):
        assert (trial.status, trial.reason) == (TrialStatus.FAILED, f"the value is {value}")
    with pytest.raises(InvalidResult, match="has 'other': expected 'memory'"):
        optimizer.add(told.params, value, {"memory": 1.0, "other": 1.0})


def test_a_quantity_may_have_the_name_of_the_value() -> None:
    optimizer = Optimizer(SQUARE, "random", constraints=["the value <= 16"])
    told = optimizer.tell(optimizer.ask(), math.nan, {"the value": 1.0})
    assert told.reason == "the value is nan"


def test_what_is_measured_beyond_the_constraints_may_be_in_a_table_s_row() -> None:
    measured = pd.Series({"memory": 8.0, "accuracy": 0.5})
    constraints = read_constraints(["memory <= 16"])
    assert returned((1.0, measured), constraints) == (1.0, {"memory": 8.0})


def test_without_constraints_nothing_is_measured() -> None:
    optimizer = Optimizer(SQUARE, "random")
    with pytest.raises(InvalidResult, match="expected nothing, since there are no constraints"):
        optimizer.tell(optimizer.ask(), 1.0, {"memory": 1.0})
    assert optimizer.tell(0, 1.0, {}).feasible


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_quantity_that_is_not_finite_makes_a_failed_trial(number: float) -> None:
    optimizer = Optimizer(SQUARE, "random", constraints=["memory <= 16"])
    told = optimizer.tell(optimizer.ask(), 1.0, {"memory": number})
    assert (told.status, told.reason) == (TrialStatus.FAILED, f"memory is {number}")
    assert told.measured == {}


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_best_trial_is_the_best_of_those_that_meet_the_constraints(direction: Any) -> None:
    optimizer = Optimizer(SQUARE, "random", direction=direction, constraints=["memory <= 16"])
    sign = 1.0 if direction == "minimize" else -1.0
    best = []
    for value, memory in ((1.0, 17.0), (3.0, 16.0), (2.0, 16.5), (0.0, 20.0), (2.5, 1.0)):
        optimizer.tell(optimizer.ask(), sign * value, {"memory": memory})
        best.append(None if optimizer.best is None else optimizer.best.id)
    assert best == [None, 1, 1, 1, 4]
    running = incumbents(optimizer.finished, direction)
    assert [None if trial is None else trial.id for trial in running] == best
    done = Completion(target=sign * 2.6).reached(optimizer.finished[:4], sign, 0.0)
    assert done is None
    assert Completion(target=sign * 2.6).reached(optimizer.finished, sign, 0.0) == "target"
    # The trials after the second are no improvement.
    stuck = Completion(patience=2).reached(optimizer.finished[:4], sign, 0.0)
    assert stuck == "no improvement"
    rows = optimizer.records()
    assert [row["measured.memory"] for row in rows] == [17.0, 16.0, 16.5, 20.0, 1.0]
    assert [row["feasible"] for row in rows] == [False, True, False, False, True]


def test_there_is_no_best_trial_while_none_meets_the_constraints() -> None:
    optimizer = Optimizer(SQUARE, "random", constraints=["memory <= 16"])
    optimizer.tell(optimizer.ask(), 1.0, {"memory": 17.0})
    assert optimizer.best is None
    assert "no trial that meets the constraints" in repr(optimizer)
    with pytest.raises(InvalidData, match="meets the constraints"):
        optimizer.recommend()


def test_a_posterior_without_a_new_fit_knows_who_violates_a_constraint() -> None:
    optimizer = Optimizer(SQUARE, inference="map", initial=2, constraints=["sum >= 0.5"])
    for _ in range(3):
        trial = optimizer.ask()
        optimizer.tell(trial, sum(trial.params.values()), {"sum": sum(trial.params.values())})
    assert optimizer.fit_report is not None
    met = optimizer.add({"x": 0.3, "y": 0.3}, 0.6, {"sum": 0.6})
    optimizer.add({"x": 0.0, "y": 0.1}, 0.1, {"sum": 0.1})
    posterior = optimizer.posterior(refit=False)
    assert posterior.recommend().trials == (met.id,)
    near, far = posterior.chance([{"x": 0.35, "y": 0.35}, {"x": 0.05, "y": 0.05}])
    assert near > 0.8 > 0.2 > far


# --- the models of what is limited


def test_the_model_of_the_values_is_the_one_that_there_is_without_constraints() -> None:
    plain, limited = (
        learned(Optimizer(SQUARE, inference="map", constraints=constraints), 1, RESULTS)
        for constraints in ((), CURVED)
    )
    configurations = [{"x": 0.3, "y": 0.6}, {"x": 0.9, "y": 0.1}]
    without, within = (each.posterior() for each in (plain, limited))
    np.testing.assert_allclose(
        within.predict(configurations).median, without.predict(configurations).median, 1e-7
    )
    assert (without.chance(configurations) == 1).all()
    assert limited.observations().runs == 1
    assert limited.fit().surrogate.runs == 1


def test_the_chance_is_that_of_the_models_of_the_quantities() -> None:
    """A model of a quantity is the one of an optimizer that is told it as its value."""
    limited = Optimizer(SQUARE, "ei", constraints=CURVED)
    alone = [Optimizer(SQUARE, "ei", seed=0) for _ in CURVED]
    for x, y in random_uniform(2, 13, DIM).tolist():
        value, measured = curved({"x": x, "y": y})
        limited.add({"x": x, "y": y}, value, measured)
        for one, number in zip(alone, measured.values(), strict=True):
            one.add({"x": x, "y": y}, number)
    configurations = [{"x": x, "y": y} for x, y in random_uniform(3, POINTS, DIM).tolist()]
    chance = limited.posterior().chance(configurations)
    expected = np.ones(POINTS)
    for one, sense, limit in zip(alone, (-1, 1), (1.5, 1.5), strict=True):
        drawn = one.posterior().sample(configurations, 4096, seed=4)
        expected *= (sense * drawn <= sense * limit).mean(0)
    assert np.ptp(chance) > 0.5
    # Draws of the hyperparameters differ: what remains is their Monte-Carlo error.
    np.testing.assert_allclose(chance, expected, atol=0.08)


def limits(runs: int = RUNS, constraints: int = LIMITED) -> tuple[Observations, Limits, Tensor]:
    """Results, models of what is limited, and points."""
    rows = runs * constraints
    x = random_uniform(5, runs, RESULTS, DIM)
    surrogate = Surrogate.condition(
        x.repeat_interleave(constraints, 0),
        random_uniform(6, rows, RESULTS) - 0.5,
        torch.ones(rows, RESULTS, dtype=torch.bool),
        0.2 + random_uniform(7, rows, DRAWS, DIM),
        0.5 + random_uniform(8, rows, DRAWS),
        0.01 + 0.1 * random_uniform(9, rows, DRAWS),
        random_uniform(10, rows, DRAWS) - 0.5,
    )
    most = 0.5 * random_uniform(11, rows).view(runs, constraints)
    eligible = torch.ones(runs, RESULTS, dtype=torch.bool)
    eligible[1:] = False
    data = Observations.of(x, random_uniform(12, runs, RESULTS), eligible=eligible)
    return data, Limits(surrogate, most), random_uniform(13, runs, POINTS, DIM)


def weighed(
    utility: Utility, data: Observations, failed: Tensor, mask: Tensor, limited: Limits
) -> Utility:
    """The utility weighted by the chances that follow from these."""
    chance = with_limits(log_chance(data, failed, mask), limited)
    return weighted(utility, chance, data.eligible.any(-1))


def test_chances_of_a_run_are_multiplied_and_averaged_over_the_draws() -> None:
    data, limited, x = limits()
    mean, variance = limited.surrogate.moments(x.repeat_interleave(LIMITED, 0))
    normal = torch.distributions.Normal(mean, variance.sqrt())
    each = normal.cdf(limited.most.flatten()[:, None, None]).mean(1).view(RUNS, LIMITED, POINTS)
    chance = limited.log_chance()
    torch.testing.assert_close(chance(x).exp(), each.prod(1))
    assert torch.equal(likely_at(chance, x), each.prod(1) > 0.5)
    no_failure = x[:, :0], torch.zeros(RUNS, 0, dtype=torch.bool)
    combined = with_limits(log_chance(data, *no_failure), limited)
    assert combined is not None
    torch.testing.assert_close(combined(x), chance(x))


def test_a_chance_may_be_averaged_over_fewer_draws() -> None:
    _, limited, x = limits()
    mean, variance = limited.surrogate.moments(x.repeat_interleave(LIMITED, 0))
    normal = torch.distributions.Normal(mean[:, ::3], variance[:, ::3].sqrt())
    each = normal.cdf(limited.most.flatten()[:, None, None]).mean(1).view(RUNS, LIMITED, POINTS)
    torch.testing.assert_close(limited.log_chance(2)(x).exp(), each.prod(1))
    for all_of_them in (DRAWS, DRAWS + 2):
        assert torch.equal(limited.log_chance(all_of_them)(x), limited.log_chance()(x))


def test_the_gradient_of_a_chance_is_that_of_autograd() -> None:
    data, limited, x = limits()
    failed = random_uniform(14, RUNS, 3, DIM)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    chance = with_limits(log_chance(data, failed, mask), limited)
    assert chance is not None
    points = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(chance(points).sum(), points)
    value, gradient = chance.value_and_gradient(x)
    torch.testing.assert_close(value, chance(x))
    torch.testing.assert_close(gradient, expected)


def test_the_chance_of_a_value_counts_beside_the_limits() -> None:
    data, limited, x = limits()
    failed = random_uniform(14, RUNS, 3, DIM), torch.ones(RUNS, 3, dtype=torch.bool)
    success = log_chance(data, *failed)
    both = with_limits(success, limited)
    assert both is not None
    assert success is not None
    torch.testing.assert_close(both(x), success(x) + limited.log_chance()(x))


def test_what_is_pending_is_taken_to_measure_what_is_expected_of_it() -> None:
    data, limited, x = limits()
    waiting = torch.tensor([[True, True], [True, False]])
    pending = replace(data, pending=x[:, :2], pending_mask=waiting)
    rows, ahead = x.repeat_interleave(LIMITED, 0), limited.ahead(pending)
    (mean, variance), (later, less) = (each.surrogate.moments(rows) for each in (limited, ahead))
    torch.testing.assert_close(later, mean)
    assert (less[:LIMITED, :, :2] < variance[:LIMITED, :, :2]).all()
    noise, known = limited.surrogate.noise_variance[LIMITED:], variance[LIMITED:, :, 0]
    torch.testing.assert_close(less[LIMITED:, :, 0], noise * known / (noise + known))
    assert not torch.equal(ahead.log_chance()(x), limited.log_chance()(x))


def test_the_unit_of_a_quantity_that_was_always_the_same_changes_nothing() -> None:
    found = []
    for unit in (1.0, 1e-200, 1e-3, 1e200):
        optimizer = Optimizer(
            SQUARE, initial=3, constraints=[f"c <= {unit!r}"], inference="map", seed=1
        )
        for number in range(5):
            params = {"x": number / 5, "y": number * 3 % 5 / 5}
            optimizer.add(params, params["x"] + params["y"], {"c": 0.5 * unit})
        chance = optimizer.posterior().chance([{"x": 0.9, "y": 0.1}])
        found.append([*optimizer.ask().params.values(), float(chance[0])])
    np.testing.assert_allclose(found[1:], [found[0]] * 3, rtol=1e-9)
    assert found[0][-1] > 0.9


@pytest.mark.parametrize("steps", [False, True])
def test_what_is_exactly_on_a_limit_meets_it(steps: bool) -> None:
    """As counts are, of errors say: whether there are any that violate it or not."""
    optimizer = Optimizer(SQUARE, initial=3, constraints=["errors <= 0"], inference="map")
    tried = []
    for x, y in random_uniform(3, 17, 2).tolist():
        errors = float(int(4 * max(x - 0.5, 0) + 1) if steps and x > 0.5 else 0)
        optimizer.add({"x": x, "y": y}, x + y, {"errors": errors})
        tried.append(({"x": x, "y": y}, errors))
    posterior = optimizer.posterior()
    chance = posterior.chance([params for params, _ in tried])
    for each, (_, errors) in zip(chance, tried, strict=True):
        assert each < 0.2 if errors else each > 0.8


def test_padding_is_neither_on_a_limit_nor_beyond_it() -> None:
    """Its value is 0: in a run with a result on the limit, and in one without."""
    x, values = random_uniform(28, RUNS, RESULTS, DIM), random_uniform(29, RUNS, RESULTS)
    excess = 0.5 + random_uniform(30, RUNS, RESULTS, 1)
    excess[0, :3], excess[1, :3] = -excess[0, :3], 0.0
    mask = (torch.arange(RESULTS) < 5).expand(RUNS, -1)
    found = []
    for data in (
        with_room(x, values, mask, excess=excess),
        with_room(x[:, :5], values[:, :5], excess=excess[:, :5]),
    ):
        _, limited = Limits.apart(smooth(data), data)
        assert limited is not None
        found.append(limited.most)
    torch.testing.assert_close(*found)


def crowded(strategy: Any) -> list[float]:
    """The points of a batch that is asked for near a limit, in order."""
    optimizer = Optimizer(
        Space(Real("x", 0, 1)), strategy, seed=1, initial=4, constraints=["c <= 0"]
    )
    for number in range(11):
        x = number / 10
        optimizer.add({"x": x}, (x - 0.1) ** 2, {"c": 1.0 if number < 5 else -1.0})
    return sorted(trial.params["x"] for trial in optimizer.ask(6))


def test_points_of_a_batch_lie_apart_at_a_limit() -> None:
    assert min(b - a for a, b in pairwise(crowded("ei"))) > 1e-3


@pytest.mark.parametrize(
    ("strategy", "asked"),
    [("ei", 6), (ThompsonSampling(hallucinate=True), 6), (ThompsonSampling(), 0)],
)
def test_only_what_is_conditioned_on_what_is_pending_has_limits_that_are(
    monkeypatch: pytest.MonkeyPatch, strategy: str | Strategy, asked: int
) -> None:
    pending: list[int] = []
    ahead = Limits.ahead

    def counting(of: Limits, data: Observations) -> Limits:
        pending.append(data.pending.shape[1])
        return ahead(of, data)

    monkeypatch.setattr(Limits, "ahead", counting)
    crowded(strategy)
    assert pending == list(range(asked))


def test_a_run_knows_its_own_constraints_only() -> None:
    _, limited, x = limits()
    rows = slice(LIMITED, 2 * LIMITED)
    parts = {
        name: part[rows]
        for name, part in vars(limited.surrogate).items()
        if isinstance(part, Tensor)
    }
    alone = Limits(Surrogate(**parts, nu=limited.surrogate.nu), limited.most[1:])
    torch.testing.assert_close(alone.log_chance()(x[1:]), limited.log_chance()(x)[1:])


def test_the_weighted_utility_is_botorchs_constrained_expected_improvement() -> None:
    data, limited, x = limits(runs=1)
    known = Surrogate.condition(
        data.x,
        data.values,
        data.mask,
        torch.full((1, 1, DIM), 0.4, dtype=DTYPE),
        torch.full((1, 1), 1.3, dtype=DTYPE),
        torch.full((1, 1), 0.01, dtype=DTYPE),
        torch.full((1, 1), 0.2, dtype=DTYPE),
    )
    single = {
        name: part[:, :1] if name not in ("x", "mask", "eligible") else part
        for name, part in vars(limited.surrogate).items()
        if isinstance(part, Tensor)
    }
    limited = Limits(Surrogate(**single, nu=limited.surrogate.nu), limited.most)
    models = [known.to_botorch()] + [limited.surrogate.to_botorch(row) for row in range(LIMITED)]
    theirs = LogConstrainedExpectedImprovement(
        ModelListGP(*models),
        best_f=known.incumbent[0, 0],
        objective_index=0,
        constraints={row + 1: (None, float(limited.most[0, row])) for row in range(LIMITED)},
        maximize=False,
    )
    no_failure = data.x[:, :0], data.mask[:, :0]
    ours = weighed(LogExpectedImprovement(known, known.incumbent), data, *no_failure, limited)
    torch.testing.assert_close(ours(x)[0], theirs(x[0][:, None]).squeeze(), rtol=1e-5, atol=1e-5)


def test_a_run_without_a_result_that_meets_the_constraints_seeks_one_whatever_its_value() -> None:
    data, limited, x = limits()

    class Steep:
        def __call__(self, x: Tensor) -> Tensor:
            return 1e3 * x[..., 0]

        def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self(x), torch.full_like(x, 1e3)

    no_failure = x[:, :0], torch.zeros(RUNS, 0, dtype=torch.bool)
    utility, chance = weighed(Steep(), data, *no_failure, limited), limited.log_chance()
    (value, gradient), (alone, slope) = (each.value_and_gradient(x) for each in (utility, chance))
    torch.testing.assert_close(value[1], alone[1])
    torch.testing.assert_close(gradient[1], slope[1])
    torch.testing.assert_close(value[0], alone[0] + 1e3 * x[0, :, 0])
    torch.testing.assert_close(gradient[0], slope[0] + 1e3)
    torch.testing.assert_close(utility(x), value)


def test_a_value_beyond_measure_is_no_penalty_that_hides_a_limit() -> None:
    """As values these would be a penalty, which counts as the worst of the others."""
    optimizer = Optimizer(SQUARE, "ei", inference="map", constraints=["memory <= 16"])
    corner = {"x": 1.0, "y": 1.0}
    for i, (x, y) in enumerate(random_uniform(15, RESULTS, DIM).tolist()):
        optimizer.add({"x": x / 2, "y": y / 2}, x, {"memory": 1.0 + 1e-4 * i})
    assert optimizer.posterior().chance([corner])[0] > 0.99
    optimizer.add(corner, 0.0, {"memory": 20.0})
    posterior = optimizer.posterior()
    assert posterior.chance([corner])[0] < 0.05
    assert posterior.chance([{"x": 0.25, "y": 0.25}])[0] > 0.9


def test_results_that_violate_a_constraint_are_not_to_be_improved_on() -> None:
    x = random_uniform(16, RUNS, RESULTS, DIM)
    eligible = random_uniform(17, RUNS, RESULTS) > 0.5
    surrogate = smooth(
        Observations.of(x, random_uniform(18, RUNS, RESULTS), eligible=eligible), DRAWS
    )
    expected = surrogate.fitted.masked_fill(~eligible[:, None], math.inf)
    assert torch.equal(surrogate.incumbent, expected.amin(-1))
    assert torch.equal(surrogate.recommended, expected.mean(1).argmin(-1))
    pending, mask = random_uniform(19, RUNS, 3, DIM), torch.ones(RUNS, 3, dtype=torch.bool)
    likely = torch.tensor([[True, False, False], [False, False, True]])
    fantasies = surrogate.fantasize(pending, mask, Streams.named(0, "f", runs=RUNS), likely)
    assert torch.equal(fantasies.eligible, torch.cat([eligible, likely], 1))
    whole = surrogate.fantasize(pending, mask, Streams.named(0, "f", runs=RUNS))
    torch.testing.assert_close(fantasies.weights, whole.weights)
    assert whole.eligible[:, RESULTS:].all()


def test_padding_changes_no_result_and_is_never_eligible(monkeypatch: pytest.MonkeyPatch) -> None:
    x = random_uniform(20, RUNS, RESULTS, DIM)
    values = (12 * random_uniform(21, RUNS, RESULTS)).exp()  # which would be bent
    mask = torch.ones(RUNS, RESULTS, dtype=torch.bool)
    mask[1, 5:] = False
    padded = Observations.of(x, values, mask, outputs=2)
    alone, units = in_own_units(x[1:, :5], values[1:, :5], mask[1:, :5], torch.tensor([True]))
    torch.testing.assert_close(padded.y[1:, :5], alone)
    assert torch.equal(padded.eligible, mask)
    y = values[1, :5]
    torch.testing.assert_close(alone[0], (y - y.mean()) / y.std(correction=0))
    torch.testing.assert_close(units.back(alone), values[1:, :5])
    some = values > 100.0
    monkeypatch.setattr("gpbo.data.capacity", lambda count, device: 17)
    excess = torch.stack([100.0 - values, torch.full_like(values, -1.0)], -1)
    room = with_room(x, values, mask, excess=excess)
    assert room.eligible.shape == (3 * RUNS, 17)
    assert torch.equal(room.eligible[::3, :RESULTS], some & mask)
    assert not room.eligible[:, RESULTS:].any()
    for row in (1, 2):
        assert torch.equal(room.eligible[row::3, :RESULTS], mask)
        limited = excess[..., row - 1].where(mask, 0.0)
        assert torch.equal(room.values[row::3, :RESULTS], limited)
    assert room.straight.tolist() == [False, True, True] * RUNS
    assert torch.equal(
        with_room(x, values, mask, excess=excess[..., :0]).eligible[:, :RESULTS], mask
    )


# --- what is proposed


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_the_least_value_that_meets_the_constraints_is_found(strategy: Strategy) -> None:
    """Where y is 3/4 is another minimum, 0.15 above it."""
    budget = {"ei": 22, "ts": 26, "pi": 35}[strategy.name]
    result = minimize(
        curved, SQUARE, budget=budget, strategy=strategy, constraints=CURVED, inference="map",
        progress=False, seed=3,
    )  # fmt: skip
    assert result.best is not None
    assert result.best.value is not None
    assert result.best.feasible
    assert abs(result.best.value - OPTIMUM) < 0.005
    text = str(result)
    assert "violating a constraint" in text
    assert "with wave = " in text


def by_number(seed: int, rows: int) -> Any:
    """Streams of functions and of what they share."""
    return {
        name: lambda number, name=name: Streams.named(seed, name, number, runs=rows)
        for name in ("own", "shared")
    }


def drawn(count: int = 13) -> tuple[PathUtility, Tensor]:
    """Functions of one run whose constraint is met on the right, and a grid of its square."""
    axis = torch.linspace(0, 1, 61, dtype=DTYPE)
    grid = torch.cartesian_prod(axis, axis)[None]
    x = random_uniform(31, 1, 17, DIM)
    ones = torch.ones(1, 1, dtype=DTYPE)
    pair = []
    for number, values in enumerate((x.sum(-1) - 1, 0.5 - x[..., 0])):
        surrogate = Surrogate.condition(
            x,
            values,
            torch.ones_like(values, dtype=torch.bool),
            0.6 * ones[..., None].expand(1, 1, DIM),
            ones,
            1e-4 * ones,
            0 * ones,
        )
        pair.append(draw_paths(surrogate, count, features=256, **by_number(number, 1)))
    limited = DrawnLimits.of(pair[1], torch.zeros(1, 1, dtype=DTYPE))
    return PathUtility(pair[0], limits=limited), grid


def test_a_drawn_function_has_its_minimum_where_the_drawn_limit_is_kept() -> None:
    utility, grid = drawn()
    assert utility.limits is not None
    count = utility.paths.count
    search = Search(raw=256, perturbed=8, restarts=2, scouts=16)
    streams = [Streams([j]) for j in range(count)]
    raw = grid[:, torch.randperm(grid.shape[1], generator=torch.Generator().manual_seed(0))[:256]]
    found = minima(utility, SQUARE, streams, raw=raw, taken=[frozenset()], search=search)
    value, limited = (paths(found[:, :, None]) for paths in (utility.paths, utility.limits.paths))
    assert (limited < 1e-3).all()
    everywhere = grid[:, None].expand(-1, count, -1, -1)
    allowed = utility.limits.paths(everywhere) <= 0
    best = utility.paths(everywhere).masked_fill(~allowed, math.inf).amin(-1, keepdim=True)
    assert (value < best + 1e-3).all()
    # Without the limit it lies elsewhere, for most of them.
    free = utility.paths(everywhere).amin(-1, keepdim=True)
    assert ((best - free) > 0.05).sum() > count // 2


def test_what_is_beyond_a_drawn_limit_costs_a_path_and_the_slope_is_that_of_the_cost() -> None:
    utility, _grid = drawn(count=5)
    assert utility.limits is not None
    # Not too far beyond, where a difference of costs is a difference of large numbers.
    points = torch.tensor([[0.49, 0.3], [0.9, 0.2], [0.45, 0.8]], dtype=DTYPE)
    own = points.expand(1, 5, -1, -1)
    cost, slope = utility.limits.value_and_gradient(own)
    beyond = utility.limits.paths(own).clamp(min=0)
    torch.testing.assert_close(cost, (beyond / 3e-3).square() / 2)
    for axis in range(DIM):
        step = torch.zeros(DIM, dtype=DTYPE)
        step[axis] = 1e-6
        ahead, back = (utility.limits.value_and_gradient(own + way * step)[0] for way in (1, -1))
        torch.testing.assert_close(slope[..., axis], (ahead - back) / 2e-6, rtol=1e-4, atol=1e-2)
    value, _ = utility.value_and_gradient(own.flatten(0, 1))
    torch.testing.assert_close(value, -(utility.paths(own) + cost)[0])
    torch.testing.assert_close(utility.at(points[None]), value, rtol=1e-3, atol=1e-3)


def test_an_ascent_begins_where_limits_give_way_and_they_get_steeper() -> None:
    utility, _grid = drawn(count=5)
    assert utility.limits is not None
    points = torch.tensor([[0.4, 0.3], [0.9, 0.2], [0.45, 0.8]], dtype=DTYPE)
    own = points.expand(1, 5, -1, -1)
    cost, _ = utility.limits.value_and_gradient(own)
    for easier, times in zip(utility.easier(), (30, 10, 3), strict=True):
        assert easier.limits is not None
        torch.testing.assert_close(easier.limits.value_and_gradient(own)[0], cost / times**2)
        assert torch.equal(easier.paths(own), utility.paths(own))
    assert PathUtility(utility.paths).easier() == []


def noted(monkeypatch: pytest.MonkeyPatch) -> list[PathUtility]:
    """What Thompson sampling will search the minima of."""
    searched: list[PathUtility] = []

    def noting(utility: PathUtility, *rest: Any, **options: Any) -> Tensor:
        searched.append(utility)
        return minima(utility, *rest, **options)

    monkeypatch.setattr("gpbo.strategies.minima", noting)
    return searched


def test_a_function_is_a_little_lower_where_the_constraints_are_likelier_met(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched = noted(monkeypatch)
    strategy = ThompsonSampling(Search(64, 8, 2, 8, 8), features=64)
    optimizer = learned(Optimizer(SQUARE, strategy, inference="map", constraints=CURVED), 27, 17)
    optimizer.ask()
    (utility,) = searched
    x = random_uniform(28, 1, POINTS, DIM)
    chance = optimizer.posterior().chance([{"x": x, "y": y} for x, y in x[0].tolist()])
    assert utility.log_chance is not None
    np.testing.assert_allclose((1e3 * utility.log_chance(x))[0].exp(), chance)
    (expected,) = torch.autograd.grad(utility.log_chance(x.requires_grad_()).sum(), x)
    value, gradient = utility.log_chance.value_and_gradient(x.detach())
    torch.testing.assert_close(value, utility.log_chance(x).detach())
    torch.testing.assert_close(gradient, expected)


def test_limits_are_those_of_the_run_and_of_the_path() -> None:
    (_, limited, x), count = limits(), 23
    paths = draw_paths(limited.surrogate, count, features=64, **by_number(3, RUNS * LIMITED))
    cost = DrawnLimits.of(paths, limited.most)
    rows = x.repeat_interleave(LIMITED, 0)[:, None].expand(-1, count, -1, -1)
    beyond = (paths(rows) - limited.most.flatten()[:, None, None]).clamp(min=0)
    expected = (beyond / 3e-3).square().div(2).view(RUNS, LIMITED, count, POINTS).sum(1)
    own = x[:, None].expand(-1, count, -1, -1)
    torch.testing.assert_close(cost.value_and_gradient(own)[0], expected)
    torch.testing.assert_close(cost.at(x), expected, rtol=1e-3, atol=1e-3)
    split = [part.at(x) for part in cost.parts(20)]
    assert [part.shape[1] for part in split] == [20, 3]
    torch.testing.assert_close(torch.cat(split, 1), cost.at(x), rtol=5e-3, atol=1e-3)


def test_functions_that_are_searched_apart_keep_to_the_limits_drawn_with_them() -> None:
    utility, _grid = drawn(count=23)
    x = random_uniform(31, 1, POINTS, DIM)
    split = [part.at(x) for part in utility.parts(20)]
    assert len(split) == 2
    torch.testing.assert_close(torch.cat(split), utility.at(x), rtol=5e-3, atol=1e-3)


def test_points_of_a_batch_are_those_asked_one_by_one() -> None:
    batch, singles = (
        learned(Optimizer(SQUARE, "ts", inference="map", constraints=CURVED), 27, 17)
        for _ in range(2)
    )
    together = [tuple(trial.params.values()) for trial in batch.ask(3)]
    alone = [tuple(singles.ask().params.values()) for _ in range(3)]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert len(set(together)) == 3


def test_a_user_acquisition_is_weighted_by_the_chance() -> None:
    """Least mean, which without constraints is at the corner."""

    def least_mean(surrogate: Surrogate) -> Any:
        return lambda x: -surrogate.moments(x)[0].mean(1)

    strategy = CustomAcquisition("least mean", least_mean)
    sums = []
    for constraints in (["sum >= 0.5"], []):
        optimizer = Optimizer(SQUARE, strategy, inference="map", constraints=constraints)
        learned(optimizer, 22, 23, summed)
        sums.append(sum(optimizer.ask().params.values()))
    assert sums[0] > 0.45
    assert sums[1] < 0.05


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_while_none_meets_the_constraints_what_may_is_proposed(strategy: Strategy) -> None:
    """The quantity falls to the right, the value to the left."""
    optimizer = Optimizer(SQUARE, strategy, inference="map", constraints=["memory <= 0.1"])
    for x, y in random_uniform(23, 13, DIM).tolist():
        optimizer.add({"x": 0.6 * x, "y": y}, x, {"memory": 1 - 0.6 * x})
    if isinstance(strategy, ThompsonSampling) and isinstance(strategy.region, NestedBoxes):
        # In three of four functions; one is searched in the whole cube.
        tried = [optimizer.ask().params["x"] for _ in range(4)]
        assert sum(x > 0.4 for x in tried) >= 2
    else:
        assert optimizer.ask().params["x"] > 0.6


def test_a_trust_region_counts_results_that_meet_the_constraints() -> None:
    """Improvements that do not are none, so the box shrinks around the one that does."""
    x = random_uniform(24, 1, 30, DIM)
    values = torch.arange(30.0, 0.0, -1.0, dtype=DTYPE)[None]
    eligible = torch.zeros(1, 30, dtype=torch.bool)
    eligible[0, 5] = True
    boxes = []
    for counted in (eligible, torch.ones_like(eligible)):
        data = Observations.of(x, values, eligible=counted)
        boxes.append(TrustRegion().boxes(data, smooth(data), SQUARE))
    torch.testing.assert_close(boxes[0].centre[0, 0], x[0, 5])
    torch.testing.assert_close(boxes[1].centre[0, 0], x[0, 29])
    sides = [(box.upper - box.lower).amax() for box in boxes]
    assert sides[0] < 0.5 * sides[1]


def test_boxes_lie_around_the_result_that_most_probably_meets_the_constraints() -> None:
    """While none does; padding, where nothing was tried, is no result."""
    data, limited, _ = limits()
    mask = torch.ones(RUNS, RESULTS, dtype=torch.bool)
    mask[:, 5:] = False
    chance = limited.log_chance()
    best = chance(data.x).masked_fill(~mask, -math.inf).argmax(1)
    none = Observations.of(data.x, data.values, mask, eligible=~mask)
    boxes = NestedBoxes().boxes(none, smooth(none), SQUARE, chance)
    torch.testing.assert_close(boxes.centre[:, 0], data.x[torch.arange(RUNS), best])


def test_what_is_drawn_of_values_and_of_each_limit_is_independent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = noted(monkeypatch)
    learned(Optimizer(SQUARE, "ts", inference="map", constraints=CURVED), 28, 17).ask(3)
    (utility,) = seen
    assert utility.limits is not None
    drawn = utility.paths.amplitudes.flatten(1), utility.limits.paths.amplitudes.flatten(1)
    correlation = torch.corrcoef(torch.cat(drawn)).fill_diagonal_(0.0)
    assert correlation.shape == (3, 3)
    assert correlation.abs().max() < 4 / math.sqrt(drawn[0].shape[1])


def test_a_fixed_value_and_constraints_hold_together() -> None:
    space = Space(Real("x", 0.0, 1.0), Real("y", 0.0, 1.0), Categorical("kind", ("a", "b")))
    optimizer = Optimizer(space, inference="map", constraints=CURVED)
    for number, (x, y) in enumerate(random_uniform(25, 17, DIM).tolist()):
        value, measured = curved({"x": x, "y": y})
        optimizer.add({"x": x, "y": y, "kind": "ab"[number % 2]}, value, measured)
    proposed = optimizer.ask(fixed={"kind": "b"}).params
    assert proposed["kind"] == "b"
    assert optimizer.posterior().chance([proposed])[0] > 0.05


def test_what_is_pending_is_improved_on_where_it_rather_meets_the_constraints() -> None:
    """Where it does not, a fantasy would be far below what there is."""
    seen: list[Tensor] = []

    def noting(surrogate: Surrogate) -> Any:
        seen.append(surrogate.eligible)
        return lambda x: -surrogate.moments(x)[0].mean(1)

    strategy = CustomAcquisition("noting", noting)
    optimizer = Optimizer(SQUARE, strategy, inference="map", constraints=["sum >= 0.5"])
    learned(optimizer, 26, 17, summed)
    for x in (0.1, 0.6, 0.2):
        optimizer.enqueue({"x": x, "y": x})
    optimizer.ask(3)
    points = {tuple(trial.params.values()) for trial in optimizer.ask(3)}
    assert len(points) == 3
    assert seen[0][0, -3:].tolist() == [False, True, False]
    assert torch.equal(seen[0][0, :-3], optimizer.observations().eligible[0])


# --- stored and resumed


def test_a_resumed_optimizer_knows_what_was_measured_and_goes_on_as_it_would_have(
    tmp_path: Path,
) -> None:
    storage = tmp_path / "jobs.db"
    options: dict[str, Any] = {"constraints": CURVED, "initial": 5}
    optimizer = Optimizer(SQUARE, storage=storage, name="curved", **options)
    run(optimizer, curved, budget=8, progress=False)
    twin = Optimizer.of_record(optimizer.journal.read())  # type: ignore[union-attr]
    optimizer.close()
    resumed = Optimizer.resume(storage, "curved")
    assert resumed.trials == optimizer.trials == twin.trials
    assert resumed.constraints == optimizer.constraints
    assert any(trial.violated for trial in resumed.trials)
    whole = Optimizer(SQUARE, **options)
    run(whole, curved, budget=11, progress=False)
    run(resumed, curved, budget=11, progress=False)
    assert [trial.params for trial in resumed.trials] == [trial.params for trial in whole.trials]
    resumed.close()
    with pytest.raises(InvalidOption, match="constraints"):
        Optimizer(SQUARE, storage=storage, name="curved", exist_ok=True, initial=5)
    other = ("wave >= 1.5", "disc <= 2")
    with pytest.raises(InvalidOption, match=r"constraints=.*disc <= 2"):
        Optimizer(
            SQUARE, storage=storage, name="curved", exist_ok=True, constraints=other, initial=5
        )


# --- the loop


@pytest.mark.parametrize("wrong", [1.0, (1.0,), (1.0, 2.0, 3.0), "ab", None, {"wave": 1.0}])
def test_an_objective_that_returns_no_pair_makes_failed_trials(wrong: Any) -> None:
    result = minimize(
        lambda params: wrong, SQUARE, budget=2, strategy="random", constraints=CURVED,
        progress=False,
    )  # fmt: skip
    assert result.best is None
    reasons = {trial.reason for trial in result.trials}
    assert all(reason is not None and "expected" in reason for reason in reasons)
    assert "no trial has a value" in str(result)


def test_what_an_objective_measured_beyond_the_constraints_is_ignored() -> None:
    result = minimize(
        lambda params: (params["x"], {"memory": 1.0, "epochs": 3, "model": "large"}),
        SQUARE, budget=2, strategy="random", constraints=["memory <= 16"], progress=False,
    )  # fmt: skip
    assert [dict(trial.measured) for trial in result.trials] == [{"memory": 1.0}] * 2


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_workers_tell_what_they_measure(mode: Any) -> None:
    result = minimize(
        curved, SQUARE, budget=9, workers=3, mode=mode, constraints=CURVED, inference="map",
        progress=False,
    )  # fmt: skip
    for trial in result.trials:
        value, measured = curved(trial.params)
        assert (trial.value, trial.measured) == (value, measured)
    headings = [column.header.plain for column in result.table().columns]  # type: ignore[union-attr]
    assert headings[:4] == ["trial", "value", "wave", "disc"]


def test_a_strategy_of_the_users_may_ask_for_the_models() -> None:
    seen: list[tuple[Fit, Limits | None]] = []

    class Own:
        name, uses_model = "own", True

        def propose(self, situation: Any, count: int) -> Tensor:
            seen.append((situation.fit(), situation.limits()))
            return situation.data.x[:, :count]

    here = {"x": 0.1, "y": 0.2}
    for constraints in (CURVED, ()):
        optimizer = Optimizer(SQUARE, Own(), inference="map", constraints=constraints)
        value, measured = curved(here)
        optimizer.add(here, value, measured if constraints else None)
        optimizer.initial = 1
        optimizer.ask()
    (fit, limited), (_, none) = seen
    assert fit.surrogate.runs == 1
    assert limited is not None
    assert limited.surrogate.runs == limited.most.shape[1] == 2
    assert none is None
