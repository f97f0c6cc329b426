"""Any space, any results, any order: an error of ours or a correct run, never one of torch."""

import math
import tempfile
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gpbo.candidates import Search
from gpbo.errors import GpboError, InvalidOption, SpaceError, SpaceExhausted
from gpbo.optimizer import Optimizer
from gpbo.parameters import Parameter
from gpbo.report.page import html
from gpbo.space import Categorical, Integer, Ordinal, Real, Space
from gpbo.storage import SqliteStorage
from gpbo.strategies import (
    ExpectedImprovement,
    GridSearch,
    ProbabilityOfImprovement,
    RandomSearch,
    SobolSearch,
    Strategy,
    ThompsonSampling,
)
from gpbo.trial import TrialStatus
from tests.test_tuner import tuned

SEARCH = Search(16, 4, 2, 4)
STRATEGIES: list[Strategy] = [
    ExpectedImprovement(SEARCH),
    ExpectedImprovement(SEARCH, incumbent="sampled"),
    ProbabilityOfImprovement(SEARCH),
    ThompsonSampling(SEARCH, features=64),
    RandomSearch(),
    GridSearch(),
    SobolSearch(),
]

NUMBERS = st.one_of(
    st.floats(),
    st.floats(-10, 10),
    st.integers(),
    st.integers(-5, 5),
    st.sampled_from([0.0, -0.0, 1.0, 1e308, -1e308, 5e-324, 1e-12, 2.0**40, 10**400, math.nan]),
)
LISTED = st.lists(
    st.one_of(st.text(max_size=3), st.integers(-3, 3), st.floats(), st.booleans(), st.none()),
    max_size=6,
)
RESULTS = st.one_of(
    NUMBERS,
    st.sampled_from(
        [
            None,
            "0.5",
            True,
            1j,
            [1.0],
            Decimal("0.5"),
            Fraction(1, 3),
            np.float32(0.5),
            np.array([0.5]),
            np.array([0.5, 1.0]),
            np.ma.masked,
            torch.tensor(0.5),
            torch.tensor([math.inf]),
            torch.tensor([]),
        ]
    ),
)


def _is_nearly_nothing(low: Any, high: Any) -> bool:
    """Whether the range has few doubles: such a continuum is used up after so many trials."""
    largest = max(abs(low), abs(high))
    return largest <= 1e308 and 0 < high - low < 1e3 * math.ulp(max(largest, 1e-290))


@st.composite
def parameters(draw: Any, name: str) -> Parameter:
    """A legal parameter, of bounds, scales and lists of every kind; illegal ones are tried too."""
    for _ in range(4):
        low, high = draw(NUMBERS), draw(NUMBERS)
        low, high = (low, high) if low < high else (high, low)
        if _is_nearly_nothing(low, high):
            continue
        scale = draw(st.sampled_from(["linear", "log", "reverse_log"]))
        kind = draw(st.sampled_from([Real, Integer, Categorical, Ordinal]))
        given = (draw(LISTED),) if kind in (Categorical, Ordinal) else (low, high, scale)
        try:
            parameter: Parameter = kind(name, *given)
            return parameter
        except SpaceError:
            continue
    return Real(name, 0, 1)


@st.composite
def spaces(draw: Any) -> Space:
    """A space of one to four parameters."""
    names = draw(st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=4, unique=True))
    return Space([draw(parameters(name)) for name in names])


def limit(space: Space, strategy: Strategy) -> int:
    """How many trials there can be."""
    if isinstance(strategy, GridSearch):
        return math.prod(len(p.grid(strategy.points_per_real)) for p in space.parameters)
    return 10**9 if space.size is None else space.size


def check(space: Space, strategy: Strategy, results: list[Any], direction: Any, seed: int) -> None:
    """Ask and tell, whatever is told; what comes is of the space and, while it lasts, new."""
    optimizer = Optimizer(
        space, strategy, direction=direction, seed=seed, inference="map", initial=2
    )
    for result in results:
        try:
            trial = optimizer.ask()
        except SpaceExhausted:
            assert len(optimizer.trials) == limit(space, strategy)
            return
        except InvalidOption:  # a grid that is too large to be shuffled
            assert isinstance(strategy, GridSearch)
            return
        try:
            optimizer.tell(trial, result)
        except GpboError:
            optimizer.fail(trial, "not a number")
    for trial in optimizer.trials:
        assert space.validate(trial.params) == trial.params
        assert trial.status is not TrialStatus.PENDING
    keys = {space.key(trial.params) for trial in optimizer.trials}
    assert len(keys) == len(optimizer.trials)


FUZZED = (
    spaces(),
    st.sampled_from(STRATEGIES),
    st.lists(RESULTS, min_size=1, max_size=5),
    st.sampled_from(["minimize", "maximize"]),
    st.integers(0, 3),
)
HEALTH = [HealthCheck.filter_too_much, HealthCheck.too_slow]


@settings(max_examples=60, deadline=None, suppress_health_check=HEALTH)
@given(*FUZZED)
def test_any_space_and_results_make_a_run(
    space: Space, strategy: Strategy, results: list[Any], direction: Any, seed: int
) -> None:
    check(space, strategy, results, direction, seed)


@pytest.mark.long
@settings(max_examples=10_000, deadline=None, suppress_health_check=HEALTH)
@given(*FUZZED)
def test_ten_thousand_spaces_and_results_make_runs(
    space: Space, strategy: Strategy, results: list[Any], direction: Any, seed: int
) -> None:
    check(space, strategy, results, direction, seed)


@settings(max_examples=15, deadline=None, suppress_health_check=HEALTH)
@given(*FUZZED)
def test_a_job_of_any_space_and_results_ends(
    space: Space, strategy: Strategy, results: list[Any], direction: Any, seed: int
) -> None:
    """The same through a tuner, where what is no number is a failed trial."""
    told = iter(results)
    optimizer = Optimizer(
        space, strategy, direction=direction, seed=seed, inference="map", initial=2
    )
    try:
        result = tuned(optimizer, lambda params: next(told), budget=len(results)).run()
    except InvalidOption:
        assert isinstance(strategy, GridSearch)
        return
    most = limit(space, strategy)
    assert result.stopped == ("budget" if most >= len(results) else "exhausted")
    assert len(result.trials) == min(len(results), most)


@settings(max_examples=12, deadline=None, suppress_health_check=HEALTH, phases=[Phase.generate])
@given(*FUZZED)
def test_a_job_of_any_space_and_results_has_a_report(
    space: Space, strategy: Strategy, results: list[Any], direction: Any, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        optimizer = Optimizer(
            space,
            strategy if strategy.uses_model else "random",
            direction=direction,
            seed=seed,
            inference="map",
            initial=2,
            storage=path,
            name="job",
        )
        told = iter(results)
        tuned(optimizer, lambda params: next(told), budget=len(results)).run()
        optimizer.close()
        page = html(SqliteStorage(path).read("job"), 0.0)
    assert page.count("<section") >= 7
    assert "Infinity" not in page[page.index("<body>") :]
