"""Strategies and models come back from plain values as they were, or are refused with a reason."""

import json
import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpbo import Model
from gpbo.candidates import Search
from gpbo.errors import InvalidOption
from gpbo.hyperparameters import PRIORS, HyperparameterPrior, resolve_prior
from gpbo.options import read_model, read_strategy, write_model, write_strategy
from gpbo.priors import Fixed, Gamma, HalfCauchy, Horseshoe, LogNormal, Normal, Saas, Uniform
from gpbo.strategies import (
    STRATEGIES,
    ExpectedImprovement,
    GridSearch,
    NestedBoxes,
    ProbabilityOfImprovement,
    RandomSearch,
    Strategy,
    ThompsonSampling,
    TrustRegion,
)
from tests.monte_carlo import unchecked_shapes

ALL: list[tuple[Strategy, Any]] = [
    (RandomSearch(), "random"),
    (ExpectedImprovement(), "ei"),
    (ExpectedImprovement(margin=0.0), {"name": "ei", "margin": 0.0}),
    (ExpectedImprovement(incumbent="mean"), {"name": "ei", "incumbent": "mean"}),
    (ExpectedImprovement(incumbent="observed"), {"name": "ei", "incumbent": "observed"}),
    (ProbabilityOfImprovement(repeats=True), {"name": "pi", "repeats": True}),
    (ProbabilityOfImprovement(Search(restarts=3)), {"name": "pi", "search": {"restarts": 3}}),
    (GridSearch(7, shuffle=False), {"name": "grid", "points_per_real": 7, "shuffle": False}),
    (ThompsonSampling(region=None), {"name": "ts", "region": "cube"}),
    (ThompsonSampling(region=TrustRegion()), {"name": "ts", "region": "trust-region"}),
    (
        ThompsonSampling(Search(), 64, True, TrustRegion(batch=4, failures=5)),
        {
            "name": "ts",
            "search": {},
            "features": 64,
            "hallucinate": True,
            "region": {"name": "trust-region", "batch": 4, "failures": 5},
        },
    ),
    (
        ThompsonSampling(region=NestedBoxes((math.inf, 0.2), others=0)),
        {"name": "ts", "region": {"name": "boxes", "lengths": ["inf", 0.2], "others": 0}},
    ),
]

OWN = HyperparameterPrior(
    lengthscale=LogNormal(0.5, 2.0, scaled_by_dim=True),
    outputscale=Gamma(2.0, 3.0),
    noise_variance=Fixed(0.25),
    mean=Normal(-1.0, 0.5),
    noise_floor=1e-5,
)


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))


@pytest.mark.parametrize(("strategy", "written"), ALL)
def test_a_strategy_comes_back_from_its_name_and_what_is_not_its_default(
    strategy: Strategy, written: Any
) -> None:
    assert write_strategy(strategy) == written
    assert read_strategy(through_json(written)) == strategy


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_written_by_its_name(name: str) -> None:
    assert write_strategy(STRATEGIES[name]()) == name
    assert read_strategy({"name": name}) == read_strategy(name) == STRATEGIES[name]()


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
@pytest.mark.parametrize("prior", [*PRIORS, OWN, *(make() for make in PRIORS.values())])
def test_a_model_comes_back(nu: float, prior: str | HyperparameterPrior) -> None:
    model = Model(nu, prior)
    assert read_model(through_json(write_model(model))) == model


@pytest.mark.parametrize(
    "prior",
    [LogNormal(), Gamma(2.0, 3.0), HalfCauchy(0.5), Horseshoe(0.2), Uniform(1.0, 2.0), Saas(0.3)],
)
def test_every_prior_of_lengthscales_comes_back(prior: Any) -> None:
    model = Model(prior=replace(OWN, lengthscale=prior))
    assert read_model(through_json(write_model(model))) == model


def test_priors_that_are_left_out_are_those_of_the_default_model() -> None:
    given = {"prior": {"noise_variance": {"name": "fixed", "value": 0.01}}}
    usual = resolve_prior(Model().prior)
    assert read_model(given) == Model(prior=replace(usual, noise_variance=Fixed(0.01)))
    assert read_model({}) == Model()


def test_numbers_of_torch_are_written_as_numbers() -> None:
    with unchecked_shapes():
        model = Model(prior=replace(OWN, mean=Fixed(torch.tensor(0.5))))  # type: ignore[arg-type]
    assert read_model(through_json(write_model(model))) == replace(
        model, prior=replace(OWN, mean=Fixed(0.5))
    )


@dataclass(frozen=True)
class Bolder(ExpectedImprovement):
    """A strategy of a user's own, by the name of one of ours."""


@dataclass(frozen=True)
class Harder(Search):
    """Likewise."""


@dataclass(frozen=True)
class Elsewhere(NestedBoxes):
    """Likewise."""


@pytest.mark.parametrize(
    "strategy",
    [Bolder(), ExpectedImprovement(Harder()), ThompsonSampling(region=Elsewhere())],
)
def test_what_is_of_the_users_own_class_is_not_written(strategy: Strategy) -> None:
    assert write_strategy(strategy) is None


def test_a_distribution_is_not_written() -> None:
    prior = replace(OWN, noise_variance=torch.distributions.LogNormal(0.0, 1.0))
    assert write_model(Model(prior=prior)) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("bayes", "strategy='bayes': expected one of 'ei', 'pi', 'ts', 'random', 'grid', 'sobol',"),
        (None, "strategy=None: expected one of 'ei'"),
        ({"margin": 1.0}, "strategy={'margin': 1.0}: expected one of 'ei'"),
        ({"name": ["ei"]}, "expected one of 'ei'"),
        ({"name": "ei", "margn": 1.0}, "strategy 'ei': unknown 'margn': expected one of search, m"),
        ({"name": "random", "margin": 1.0}, "strategy 'random': unknown 'margin': it has no opt"),
        ({"name": "ei", "margin": -1.0}, "strategy 'ei': margin=-1.0: expected a finite number"),
        ({"name": "ei", "search": 3}, "strategy 'ei': search=3: expected a table"),
        (
            {"name": "pi", "search": {"raw": 0}},
            "strategy 'pi': search: raw=0: expected a whole number, 1 or more",
        ),
        (
            {"name": "pi", "search": {"raw": 7}},
            "strategy 'pi': search: restarts=16: expected at most raw=7",
        ),
        ({"name": "ts", "region": "here"}, "region='here': expected one of 'cube', 'boxes', 'tru"),
        (
            {"name": "ts", "region": {"name": "cube", "others": 1}},
            "region 'cube': unknown 'others'",
        ),
        (
            {"name": "ts", "region": {"name": "boxes", "lengths": [0.1, "inf"]}},
            "strategy 'ts': region 'boxes': lengths=(0.1, inf): expected the longest first",
        ),
    ],
)
def test_what_is_wrong_with_a_strategy_is_said(given: Any, message: str) -> None:
    with unchecked_shapes(), pytest.raises(InvalidOption) as error:
        read_strategy(given)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("botorch", "model='botorch': expected a table of its options"),
        ({"kernel": "rbf"}, "model: unknown 'kernel': expected one of nu, prior"),
        ({"nu": 2.0}, "model: nu=2.0: expected one of (0.5, 1.5, 2.5)"),
        ({"prior": "flat"}, "model: prior='flat': expected one of 'botorch', "),
        ({"prior": 3}, "model: prior=3: expected a table of its options"),
        ({"prior": {"scale": "saas"}}, "model: prior: unknown 'scale': expected one of lengthscal"),
        ({"prior": {"mean": "flat"}}, "mean='flat': expected one of 'normal', 'log-normal', "),
        ({"prior": {"mean": "fixed"}}, "model: prior: mean 'fixed': missing value"),
        ({"prior": {"mean": "saas"}}, "model: prior: mean=Saas(scale=0.1): expected a prior on al"),
        (
            {"prior": {"lengthscale": {"name": "log-normal", "scaled_by_dim": "no"}}},
            "lengthscale 'log-normal': scaled_by_dim='no': expected True or False",
        ),
    ],
)
def test_what_is_wrong_with_a_model_is_said(given: Any, message: str) -> None:
    with unchecked_shapes(), pytest.raises(InvalidOption) as error:
        read_model(given)
    assert message in str(error.value)


OPTIONS = ("name", "search", "raw", "region", "lengths", "margin", "prior", "nu", "mean", "value")
INCUMBENT = ("incumbent", "observed")
NAMES = st.sampled_from(
    [*OPTIONS, *INCUMBENT, "ei", "ts", "boxes", "cube", "inf", "fixed", "gamma", "rate"]
)
TABLES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(TABLES)
def test_anything_is_read_or_refused(table: Any) -> None:
    for read, write in ((read_strategy, write_strategy), (read_model, write_model)):
        for candidate in (table, {"name": "ts", "region": table}, {"prior": {"mean": table}}):
            with unchecked_shapes():
                try:
                    made: Any = read(candidate)
                except InvalidOption:
                    continue
                assert read(through_json(write(made))) == made


@pytest.mark.parametrize("of", [np.float32, np.float64, Fraction, lambda x: torch.tensor(float(x))])
def test_numbers_of_any_kind_are_those_of_python(of: Any) -> None:
    with unchecked_shapes():
        prior = replace(OWN, mean=Normal(of(0), of(1)), lengthscale=Uniform(of(0), of(2)))
        assert prior == replace(OWN, mean=Normal(0.0, 1.0), lengthscale=Uniform(0.0, 2.0))
        assert type(prior.lengthscale.high) is float  # type: ignore[union-attr]
        if of is not Fraction:
            model = Model(of(2.5))
            assert read_model(through_json(write_model(model))) == Model(2.5)


def test_options_of_strategies_are_numbers_of_python() -> None:
    half = Fraction(1, 2)
    with unchecked_shapes():
        strategies: list[tuple[Strategy, Strategy]] = [
            (ExpectedImprovement(margin=half), ExpectedImprovement(margin=0.5)),  # type: ignore[arg-type]
            (ExpectedImprovement(Search(np.int64(64))), ExpectedImprovement(Search(64))),  # type: ignore[arg-type]
            (GridSearch(np.int64(3)), GridSearch(3)),  # type: ignore[arg-type]
            (
                ThompsonSampling(features=np.int64(64), region=NestedBoxes([half])),  # type: ignore[arg-type]
                ThompsonSampling(features=64, region=NestedBoxes((0.5,))),
            ),
            (
                ThompsonSampling(region=TrustRegion(np.int64(2), half)),  # type: ignore[arg-type]
                ThompsonSampling(region=TrustRegion(2, 0.5)),
            ),
        ]
    for odd, plain in strategies:
        assert through_json(write_strategy(odd)) == write_strategy(plain)
