"""Strategies that may propose again what was tried: noisy objectives on finite spaces."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from gpbo.candidates import Search
from gpbo.errors import InvalidOption, SpaceExhausted
from gpbo.loop import minimize
from gpbo.model_free import RepeatingSobol
from gpbo.optimizer import Optimizer
from gpbo.situation import Situation, Strategy
from gpbo.space import Categorical, Integer, Space
from gpbo.strategies import (
    ExpectedImprovement,
    ProbabilityOfImprovement,
    ThompsonSampling,
)
from gpbo.trial import Trial
from tests.monte_carlo import unchecked_shapes
from tests.test_strategies import FINITE, check_singles, keys, situation

SEARCH = Search(raw=32, perturbed=8, restarts=2, iterations=8)
STRATEGIES: list[Callable[[Any], Strategy]] = [
    lambda repeats: ExpectedImprovement(SEARCH, repeats=repeats),
    lambda repeats: ProbabilityOfImprovement(SEARCH, repeats=repeats),
    lambda repeats: ThompsonSampling(SEARCH, features=64, repeats=repeats),
    lambda repeats: ThompsonSampling(SEARCH, 64, hallucinate=True, repeats=repeats),
]
IDS = ["ei", "pi", "ts", "hallucinated"]
EACH = pytest.mark.parametrize("strategy", [make(True) for make in STRATEGIES], ids=IDS)
DESIGN_TOO = pytest.mark.parametrize(
    "strategy", [*(make(True) for make in STRATEGIES), RepeatingSobol()], ids=[*IDS, "design"]
)
ARMS = Space(Categorical("arm", ("a", "b", "c")))


def noisy(trial: Trial, lot: random.Random) -> float:
    """The second arm is the best, by as much as the noise."""
    return {"a": 1.0, "b": 0.0, "c": 2.0}[trial.params["arm"]] + lot.gauss(0.0, 1.0)


def used_up(counts: list[int], **how: int) -> Situation:
    """Runs that have taken every configuration; so many of them are results."""
    every = frozenset(map(FINITE.key, FINITE.grid(3)))
    assert len(every) == FINITE.size
    return replace(situation(FINITE, counts, **how), taken=(every,) * len(counts))


def told(optimizer: Optimizer, count: int, value: Callable[[Trial], float]) -> list[Trial]:
    trials = []
    for _ in range(count):
        trials.append(optimizer.ask())
        optimizer.tell(trials[-1], value(trials[-1]))
    return trials


@EACH
def test_a_used_up_space_is_searched_on(strategy: Strategy) -> None:
    value = partial(noisy, lot=random.Random(3))
    trials = told(Optimizer(ARMS, strategy, inference="map", seed=5), 17, value)
    # The initial design is of five trials, and there are but three configurations.
    assert {trial.params["arm"] for trial in trials[:3]} == {"a", "b", "c"}
    chosen = "model:" + strategy.name
    assert [trial.origin for trial in trials] == ["design"] * 5 + [chosen] * 12


@EACH
def test_what_is_promising_is_measured_most(strategy: Strategy) -> None:
    times: Counter[str] = Counter()
    for seed in range(3):
        value = partial(noisy, lot=random.Random(seed))
        trials = told(Optimizer(ARMS, strategy, inference="map", seed=seed), 17, value)
        times.update(trial.params["arm"] for trial in trials)
    assert times["b"] > times["a"] > 0
    assert times["b"] > 2 * times["c"]


@EACH
def test_what_failed_is_not_proposed_again(strategy: Strategy) -> None:
    optimizer = Optimizer(ARMS, strategy, inference="map", initial=3)
    for trial in optimizer.ask(3):
        optimizer.tell(trial, float("nan") if trial.params["arm"] == "b" else 1.0)
    later = told(optimizer, 7, lambda trial: 1.0)
    assert {trial.params["arm"] for trial in later} <= {"a", "c"}


@EACH
def test_where_all_failed_nothing_is_left(strategy: Strategy) -> None:
    optimizer = Optimizer(ARMS, strategy, inference="map")
    for trial in optimizer.ask(3):
        optimizer.fail(trial, "broken")
    with pytest.raises(SpaceExhausted):
        optimizer.ask()


@EACH
def test_before_any_result_workers_repeat_what_others_run(strategy: Strategy) -> None:
    optimizer = Optimizer(ARMS, strategy, inference="map")
    trials = [*optimizer.ask(4), optimizer.ask()]
    assert {trial.params["arm"] for trial in trials[:3]} == {"a", "b", "c"}


@DESIGN_TOO
def test_a_batch_is_what_single_proposals_are(strategy: Strategy) -> None:
    now = used_up([11], pending=1)
    batch = strategy.propose(now, 5)
    assert batch.shape == (1, 5, FINITE.dim)
    check_singles(strategy, now, batch)


@DESIGN_TOO
def test_a_run_in_a_batch_is_proposed_what_it_is_alone(strategy: Strategy) -> None:
    failed = FINITE.encode(list(FINITE.grid(3))[:5]).unsqueeze(0)
    now = replace(
        used_up([11, 7]),
        index=12,
        failed=failed.repeat(2, 1, 1),
        failed_mask=torch.tensor([[True] * 5, [True] * 2 + [False] * 3]),
    )
    together = strategy.propose(now, 3)
    for run, count in enumerate([11, 7]):
        alone = replace(
            used_up([count], first_run=run),
            index=12,
            failed=now.failed[run : run + 1],
            failed_mask=now.failed_mask[run : run + 1],
        )
        proposed = strategy.propose(alone, 3)
        torch.testing.assert_close(together[run : run + 1], proposed, rtol=0, atol=0)
        refused = keys(FINITE, now.failed[run][now.failed_mask[run]])
        assert not {*keys(FINITE, proposed[0])} & {*refused}


def test_a_space_that_is_not_used_up_is_covered_before_points_are_repeated() -> None:
    points = RepeatingSobol().propose(situation(FINITE, [0]), 24)[0]
    assert len({*keys(FINITE, points[:12])}) == 12


@pytest.mark.parametrize("mode", ["async", "sync"])
@EACH
def test_the_loop_uses_its_budget(strategy: Strategy, mode: Any) -> None:
    space = Space(Integer("n", 1, 3))
    result = minimize(
        lambda params: float(params["n"]), space, strategy=strategy, inference="map", budget=13,
        workers=5, mode=mode, progress=False,
    )  # fmt: skip
    assert result.stopped == "budget"
    assert len(result.trials) == 13


@EACH
def test_a_stored_job_goes_on_repeating(strategy: Strategy, tmp_path: Path) -> None:
    def value(trial: Trial) -> float:
        return noisy(trial, random.Random(trial.id))

    whole = told(Optimizer(ARMS, strategy, inference="map"), 11, value)
    kept: dict[str, Any] = {"storage": tmp_path / "jobs.db", "name": "arms"}
    with Optimizer(ARMS, strategy, inference="map", **kept) as begun:
        told(begun, 7, value)
    with Optimizer.resume(**kept) as resumed:
        assert resumed.strategy == strategy
        rest = told(resumed, 4, value)
    assert [trial.params for trial in rest] == [trial.params for trial in whole[7:]]


@pytest.mark.parametrize("make", STRATEGIES, ids=IDS)
def test_repeats_is_a_truth_value(make: Callable[[Any], Strategy]) -> None:
    with unchecked_shapes(), pytest.raises(InvalidOption, match="repeats='no'"):
        make("no")


def test_without_it_nothing_is_repeated() -> None:
    now = situation(ARMS, [2])
    assert now.closed(False) == now.taken
    assert now.closed(True) == (frozenset(),)
