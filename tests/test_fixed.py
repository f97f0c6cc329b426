"""Trials with the values of some parameters given: `Optimizer.ask` with ``fixed``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpbo.acquisition import LogExpectedImprovement
from gpbo.backend import DTYPE
from gpbo.errors import InvalidData, InvalidParams, SpaceExhausted
from gpbo.fixed import expected_within, holds, is_slice, lie_within, means_within, with_fixed
from gpbo.model_free import GridSearch
from gpbo.optimizer import Optimizer
from gpbo.space import Categorical, Integer, Ordinal, Real, Space
from gpbo.strategies import (
    STRATEGIES,
    CustomAcquisition,
    ExpectedImprovement,
    ProbabilityOfImprovement,
    ThompsonSampling,
    _eligible_within,
)
from gpbo.surrogate import Surrogate
from gpbo.trial import Trial
from gpbo.trust_region import NestedBoxes, TrustRegion
from tests.monte_carlo import random_uniform, unchecked_shapes
from tests.test_strategies import FINITE, check_singles, keys, quick, situation

WHOLE = Space(
    Real("rate", 1e-4, 1.0, "log"),
    Integer("depth", 1, 5),
    Categorical("kind", ("a", "b", "c")),
    Ordinal("width", (8, 32, 64)),
    Integer("seed", 7, 7),
)
FIXED = [
    {"rate": 0.03},
    {"depth": 4, "kind": "b"},
    {"rate": 0.7, "kind": "c", "width": 32},
    {"rate": 0.1, "depth": 1, "kind": "a", "width": 64, "seed": 7},
]
EACH = pytest.mark.parametrize("fixed", FIXED)
BY_NAME = pytest.mark.parametrize("name", STRATEGIES)
#: A task says which of two functions is meant: their minima lie apart, and the second is higher.
TASKS = Space(Real("x", 0, 1), Real("y", 0, 1), Categorical("task", ("easy", "hard")))
LOWEST = {"easy": (0.2, 0.7, 0.0), "hard": (0.8, 0.4, 5.0)}


def loss(params: Mapping[str, Any]) -> float:
    x, y, height = LOWEST[params["task"]]
    return height + (params["x"] - x) ** 2 + (params["y"] - y) ** 2


def optimizer(space: Space = TASKS, strategy: Any = "ei", **options: Any) -> Optimizer:
    return Optimizer(space, strategy, **{"inference": "map", **options})


@EACH
@given(data=st.data())
def test_a_slice_has_the_cube_of_the_whole_and_moves_every_point_into_itself(
    fixed: dict[str, Any], data: st.DataObject
) -> None:
    space = with_fixed(WHOLE, fixed)
    assert (space.dim, space.names, space.slices) == (WHOLE.dim, WHOLE.names, WHOLE.slices)
    coordinates = st.floats(0, 1, width=64)
    row = data.draw(st.lists(coordinates, min_size=space.dim, max_size=space.dim))
    x = torch.tensor([row], dtype=DTYPE)
    (before,), (after,) = WHOLE.decode(x), space.decode(x)
    assert after == {**before, **fixed}
    assert torch.equal(space.snap(x), WHOLE.snap(space.snap(x)))
    assert space.decode(space.snap(x)) == [after]
    assert WHOLE.decode(space.snap(x)) == [{**after, "rate": pytest.approx(after["rate"])}]
    assert torch.equal(space.encode([after]), WHOLE.encode([after]))
    assert holds(space, after)
    assert holds(space, before) == (before == after)
    around = space.neighbours(x)[0]
    assert torch.equal(space.snap(around), around)
    distinct = {space.key(params) for params in space.decode(around)} | {space.key(after)}
    assert len(distinct) == len(around) + 1


def test_the_size_and_the_grid_of_a_slice_are_those_of_what_is_left() -> None:
    space = with_fixed(WHOLE, {"rate": 0.5, "kind": "b"})
    assert space.size == 5 * 3
    grid = list(space.grid(5))
    assert len({space.key(params) for params in grid}) == len(grid) == 15
    assert all(params["rate"] == 0.5 and params["kind"] == "b" for params in grid)
    assert with_fixed(WHOLE, {"kind": "b"}).size is None
    assert not is_slice(WHOLE)
    assert not is_slice(with_fixed(WHOLE, {}))
    assert is_slice(space)


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"tusk": "easy"}, "fixed: unknown 'tusk': expected some of 'x', 'y', 'task'"),
        ({"task": "no"}, "task='no': expected one of 'easy', 'hard'"),
        ({"x": 2}, "x=2: expected a real number from 0.0 to 1.0"),
        ("task", "fixed='task': expected a mapping from names to values"),
    ],
)
def test_what_cannot_be_fixed_is_named(fixed: Any, message: str) -> None:
    made = optimizer()
    with unchecked_shapes(), pytest.raises(InvalidParams) as raised:
        made.ask(fixed=fixed)
    assert str(raised.value) == message
    assert not made.trials


def test_what_is_fixed_may_be_a_table_s_row() -> None:
    made = optimizer()
    made.enqueue({"x": 0.25})
    with unchecked_shapes():
        trial = made.ask(fixed=pd.Series({"x": 0.5, "task": "hard"}))
    assert (trial.params["x"], trial.params["task"], trial.origin) == (0.5, "hard", "design")


def test_a_point_lies_in_a_slice_by_its_fixed_values_alone() -> None:
    """The others may be an ulp beside of where they are snapped to, on a GPU: another quotient."""
    space = Space(Integer("n", 1, 7), Categorical("c", ["p", "q", "r"]), Integer("k", 1, 3))
    told = [{"n": n, "c": c, "k": k} for n in range(1, 8) for c in "pqr" for k in range(1, 4)]
    fixed = {"c": "q", "k": 2}
    x = space.encode(told)
    x[:, 0] = x[:, 0].nextafter(torch.ones(()))
    expected = [{**params, **fixed} == params for params in told]
    assert lie_within(with_fixed(space, fixed), x).tolist() == expected
    assert lie_within(space, x).all()


def test_another_value_is_no_configuration_of_the_slice() -> None:
    space = with_fixed(TASKS, {"task": "easy"})
    with pytest.raises(InvalidParams) as raised:
        space.validate({"x": 0, "y": 1, "task": "hard"})
    assert str(raised.value) == "task='hard': expected 'easy'"
    valid = with_fixed(TASKS, {"x": 1}).validate({"x": 1, "y": 1, "task": "hard"})
    assert [type(valid[name]) for name in ("x", "y")] == [float, float]


@BY_NAME
@EACH
def test_every_strategy_proposes_what_is_fixed_and_no_two_alike(
    name: str, fixed: dict[str, Any]
) -> None:
    made = optimizer(WHOLE, quick(name), initial=3)
    valid = {key: WHOLE.parameters[WHOLE.names.index(key)].validate(fixed[key]) for key in fixed}
    left = with_fixed(WHOLE, fixed).size or math.inf
    for turn in range(4):
        for trial in made.ask(2):
            made.tell(trial, float(trial.params["depth"]) - math.log(trial.params["rate"]))
        known = {WHOLE.key(trial.params) for trial in made.trials}
        if turn < left:
            trial = made.ask(fixed=fixed)
            assert trial.params.items() >= valid.items()
            assert WHOLE.key(trial.params) not in known


@BY_NAME
def test_a_batch_of_a_slice_is_what_single_proposals_are(name: str) -> None:
    now = situation(WHOLE, [7], pending=2)
    now = replace(now, space=with_fixed(WHOLE, {"kind": "b"}), taken=(frozenset(),))
    batch = quick(name).propose(now, 3)
    assert len(set(keys(now.space, batch[0]))) == 3
    check_singles(quick(name), now, batch)


@BY_NAME
def test_a_slice_is_used_up_when_all_of_it_was_asked(name: str) -> None:
    made = optimizer(FINITE, quick(name), initial=2)
    for trial in made.ask(3, fixed={"kind": "a"}):
        made.tell(trial, float(trial.params["depth"]))
    assert len(made.ask(7, fixed={"kind": "b", "width": 8})) == 3
    with pytest.raises(
        SpaceExhausted,
        match="all 3 configurations with these fixed values were tried or are pending",
    ):
        made.ask(fixed={"kind": "b", "width": 8})
    assert len(made.ask(12)) == 12 - 6


@pytest.mark.parametrize(
    "strategy",
    [ExpectedImprovement(repeats=True), ThompsonSampling(features=64, repeats=True)],
    ids=["ei", "ts"],
)
def test_only_what_failed_in_a_slice_is_closed_to_one_that_repeats(strategy: Any) -> None:
    made = optimizer(FINITE, strategy, initial=1)
    one = {"depth": 1, "width": 8}
    made.add({**one, "kind": "a"}, 1.0)
    made.add({**one, "kind": "b"}, math.nan)
    assert made.ask(fixed={**one, "kind": "a"}).params == {**one, "kind": "a"}
    with pytest.raises(SpaceExhausted):
        made.ask(fixed={**one, "kind": "b"})


def test_what_is_enqueued_waits() -> None:
    made = optimizer()
    made.enqueue({"x": 0.5, "y": 0.5, "task": "easy"})
    assert made.ask(fixed={"task": "hard"}).origin == "design"
    assert made.ask(fixed={}).origin == "enqueued"


@pytest.mark.parametrize(
    "strategy",
    [
        "ei",
        "pi",
        "ts",
        ThompsonSampling(region=TrustRegion()),
        ExpectedImprovement(incumbent="sampled"),
    ],
    ids=["ei", "pi", "ts", "trust region", "sampled"],
)
def test_the_minimum_of_a_task_is_found_though_another_task_has_lower_values(
    strategy: Any,
) -> None:
    made = optimizer(strategy=strategy)
    with unchecked_shapes():
        for i in range(40):
            trial = made.ask(fixed={"task": "hard" if i % 2 else "easy"})
            made.tell(trial, loss(trial.params))
    for task, (*lowest, height) in LOWEST.items():
        own = [trial for trial in made.completed if trial.params["task"] == task]
        assert len(own) == 20
        best = min(own, key=lambda trial: trial.value or 0.0)
        assert math.dist((best.params["x"], best.params["y"]), lowest) < 0.06
        assert best.value == pytest.approx(height, abs=0.06**2)


def test_what_is_recommended_has_the_fixed_values_and_is_not_the_luckiest() -> None:
    space = Space(Categorical("arm", ("a", "b")), Categorical("task", ("easy", "hard")))
    made = optimizer(space)
    results = {"a": [-3.0, 4.0, 6.0, 5.0, 3.0], "b": [1.0, 1.2, 0.9, 1.1, 0.8]}
    for task, higher in (("easy", 0.0), ("hard", 50.0)):
        for arm, values in results.items():
            made.learn([({"arm": arm, "task": task}, value + higher) for value in values])
    assert made.recommend().params == {"arm": "b", "task": "easy"}
    hard = made.recommend(fixed={"task": "hard"})
    assert hard.params == {"arm": "b", "task": "hard"}
    assert hard.trials == (15, 16, 17, 18, 19)
    assert made.posterior().recommend(fixed={"task": "hard"}) == hard
    assert made.recommend(fixed={"arm": "a", "task": "hard"}).trials == (10, 11, 12, 13, 14)
    assert made.recommend(fixed={}) == made.recommend()


def test_where_nothing_was_tried_nothing_is_recommended() -> None:
    made = optimizer(constraints=["memory <= 16"])
    made.add({"x": 0.5, "y": 0.5, "task": "easy"}, 1.0, {"memory": 1.0})
    made.add({"x": 0.5, "y": 0.5, "task": "hard"}, 1.0, {"memory": 17.0})
    with pytest.raises(InvalidData, match=r"'hard'\}: no trial with these values meets the constr"):
        made.recommend(fixed={"task": "hard"})
    plain = optimizer()
    plain.add({"x": 0.5, "y": 0.5, "task": "easy"}, 1.0)
    with pytest.raises(
        InvalidData, match=r"^fixed=\{'task': 'hard'\}: no trial with these values has a"
    ):
        plain.recommend(fixed={"task": "hard"})
    with pytest.raises(InvalidParams, match="task='no': expected one of 'easy', 'hard'"):
        plain.recommend(fixed={"task": "no"})
    with pytest.raises(InvalidParams, match="fixed: unknown 'tusk'"):
        plain.recommend(fixed={"tusk": "easy"})


def test_what_is_to_be_improved_on_is_the_best_that_is_expected_in_the_slice() -> None:
    now = situation(WHOLE, [13, 5])
    space, known = with_fixed(WHOLE, {"kind": "b"}), now.fit().surrogate
    moved = known.moments(space.snap(known.x))[0]
    torch.testing.assert_close(means_within(known, space), moved)
    assert torch.equal(means_within(known, WHOLE), known.fitted)
    expected = expected_within(known, space)
    assert torch.equal(expected.isfinite(), known.mask)
    torch.testing.assert_close(expected[known.mask], moved.mean(1)[known.mask])
    assert torch.equal(expected_within(known, WHOLE), known.expected)
    least = torch.stack([moved[0, :, :13].amin(-1), moved[1, :, :5].amin(-1)])
    for strategy in (
        ExpectedImprovement(margin=0.0),
        ExpectedImprovement(margin=0.0, incumbent="observed"),
        ExpectedImprovement(margin=0.0, incumbent="sampled"),
        ProbabilityOfImprovement(margin=0.0),
    ):
        utility: Any = strategy._utility(known, replace(now, space=space))
        torch.testing.assert_close(utility.best, least)
        assert (utility.best > known.incumbent).any()


def forbidden(params: Mapping[str, Any]) -> bool:
    return params["task"] == "hard" and params["x"] < 0.6


@pytest.mark.parametrize("strategy", ["ei", ProbabilityOfImprovement(refine=0)], ids=["ei", "pi"])
@pytest.mark.parametrize("limited", [True, False], ids=["constraint", "failures"])
def test_a_result_moved_to_where_there_is_probably_none_is_not_to_be_improved_on(
    strategy: Any, limited: bool
) -> None:
    """What is best elsewhere would violate a constraint in the slice, or fail there."""
    space = Space(Categorical("task", ("easy", "hard")), Real("x", 0, 1))
    limits = ["c <= 0"] if limited else []
    driven = optimizer(space, strategy, initial=4, constraints=limits)

    def tell(trial: Trial | None, params: Mapping[str, Any]) -> None:
        barred = forbidden(params)
        measured = {"c": 0.6 - params["x"] if params["task"] == "hard" else -1.0}
        value = math.nan if barred and not limited else (params["x"] - 0.1) ** 2
        if trial is None:
            driven.add(dict(params), value, measured if limited else None)
        else:
            driven.tell(trial, value, measured if limited else None)

    for number in range(10):
        tell(None, {"task": "easy", "x": number / 9})
    for x in (0.0, 0.25, 0.5, 0.75):
        tell(None, {"task": "hard", "x": x})
    found = []
    for _ in range(7):
        trial = driven.ask(fixed={"task": "hard"})
        tell(trial, trial.params)
        if not forbidden(trial.params):
            found.append(trial.params["x"])
    assert min(found) < 0.61


@dataclass
class Chance:
    """The same everywhere."""

    log: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x.new_full(x.shape[:2], self.log)

    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self(x), torch.zeros_like(x)


def test_what_is_known_of_a_result_in_the_slice_counts_more_than_what_is_likely_there() -> None:
    now, space = situation(WHOLE, [13, 5]), with_fixed(WHOLE, {"kind": "b"})
    known = now.fit().surrogate
    within = known.mask & lie_within(space, known.x)
    assert within.any()
    violated = within & (within.cumsum(-1) == 1)  # the first one of each run
    surrogate = replace(known, eligible=known.mask & ~violated)
    likely, unlikely = (_eligible_within(surrogate, space, Chance(log)) for log in (0.0, -9.0))
    assert torch.equal(likely.eligible, known.mask & ~violated)
    assert torch.equal(unlikely.eligible, within & ~violated)
    assert (within & ~violated).any()


def test_an_acquisition_of_your_own_improves_on_what_is_in_the_slice() -> None:
    def improvement(surrogate: Surrogate) -> Any:
        return LogExpectedImprovement(surrogate, surrogate.incumbent)

    def height(params: Mapping[str, Any]) -> float:
        return 10 * (params["x"] - 0.3) ** 2 + 5 * (params["task"] == "hard")

    space = Space(Real("x", 0, 1), Categorical("task", ("easy", "hard")))
    asked = []
    for strategy in (CustomAcquisition("own", improvement), ExpectedImprovement(margin=0.0)):
        driven = optimizer(space, strategy, initial=4)
        for number in range(8):
            params = {"x": number / 7, "task": "easy"}
            driven.add(params, height(params))
        for x in (0.1, 0.5, 0.9):
            params = {"x": x, "task": "hard"}
            driven.add(params, height(params))
        asked.append(driven.ask(fixed={"task": "hard"}).params["x"])
    assert asked[0] == pytest.approx(asked[1], abs=0.02)


@pytest.mark.parametrize("region", [NestedBoxes((math.inf, 0.4)), TrustRegion()])
def test_boxes_lie_in_the_slice(region: NestedBoxes | TrustRegion) -> None:
    now = situation(WHOLE, [23, 11])
    space = with_fixed(WHOLE, {"kind": "c"})
    boxes = region.boxes(now.data, now.fit().surrogate, space)
    assert [params["kind"] for params in space.decode(boxes.centre.flatten(0, 1))] == ["c", "c"]
    assert torch.equal(space.snap(boxes.centre), boxes.centre)


def test_nested_boxes_lie_around_the_best_that_is_expected_in_the_slice() -> None:
    x = random_uniform(5, 31, 2)
    made = optimizer()
    for i, (first, second) in enumerate(x.tolist()):
        params = {"x": first, "y": second, "task": "hard" if i % 3 == 0 else "easy"}
        made.add(params, loss(params))
    surrogate = made.fit().surrogate
    for task, (*lowest, _) in LOWEST.items():
        space = with_fixed(TASKS, {"task": task})
        centre = NestedBoxes((0.1,)).boxes(made.observations(), surrogate, space).centre[0, 0]
        assert math.dist(centre[:2].tolist(), lowest) < 0.2
        assert centre[2:].tolist() == [task == "easy", task == "hard"]


def test_a_trust_region_without_a_result_in_the_slice_is_all_of_it() -> None:
    now = situation(WHOLE, [23])
    kind = WHOLE.slices[WHOLE.names.index("kind")]
    now.data.x[..., kind] = torch.tensor([1.0, 0.0, 0.0], dtype=DTYPE)
    surrogate = now.fit().surrogate
    everything, nothing = (
        TrustRegion(length=0.1).boxes(now.data, surrogate, with_fixed(WHOLE, {"kind": each}))
        for each in ("a", "b")
    )
    assert ((everything.upper - everything.lower)[..., :2] < 0.5).all()
    assert (nothing.lower == 0).all()
    assert (nothing.upper == 1).all()
    # Of many coordinates, points that are screened have most from the centre.
    assert nothing.centre[0, 0, kind].tolist() == [0.0, 1.0, 0.0]


def test_a_grid_goes_through_the_slice() -> None:
    made = optimizer(WHOLE, GridSearch(shuffle=False))
    widths = [trial.params["width"] for trial in made.ask(3, fixed={"kind": "a", "rate": 0.02})]
    assert widths == [8, 32, 64]


def test_a_resumed_job_proposes_in_a_slice_what_it_would_have_proposed(tmp_path: Path) -> None:
    made = optimizer(storage=tmp_path / "jobs.db", name="tasks", initial=4)
    for i in range(6):
        trial = made.ask(fixed={"task": "hard" if i % 2 else "easy"})
        made.tell(trial, loss(trial.params))
    expected = made.plan(2, fixed={"task": "easy"})().configurations
    made.close()
    with Optimizer.resume(tmp_path / "jobs.db", "tasks") as again:
        assert again.plan(2, fixed={"task": "easy"})().configurations == expected
