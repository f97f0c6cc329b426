"""Ask and tell: whatever comes in whatever order, nothing is lost and nothing is asked twice."""

import copy
import gc
import inspect
import itertools
import math
import pickle
import random
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpbo import fitting
from gpbo.backend import DTYPE
from gpbo.candidates import Search
from gpbo.design import resolve_initial
from gpbo.errors import (
    GpboError,
    InvalidData,
    InvalidOption,
    InvalidParams,
    InvalidResult,
    SpaceExhausted,
    TrialAlreadyFinished,
    UnknownTrial,
)
from gpbo.history import History
from gpbo.optimizer import Optimizer
from gpbo.space import Categorical, Integer, Real, Space
from gpbo.strategies import (
    ExpectedImprovement,
    ProbabilityOfImprovement,
    RandomSearch,
    Strategy,
)
from gpbo.text import outcome
from gpbo.trial import Trial, TrialStatus, without_value
from tests.monte_carlo import random_uniform, unchecked_shapes

SPACE = Space(
    Real("rate", 1e-4, 1.0, "log"), Integer("depth", 1, 5), Categorical("kind", ("a", "b", "c"))
)
LINE = Space(Real("x", 0.0, 1.0))
FINITE = Space(Integer("depth", 1, 3), Categorical("kind", ("a", "b")))
ALL = ["ei", "pi", "random", "grid", "sobol"]


def loss(params: Any) -> float:
    return (math.log10(params["rate"]) + 2) ** 2 + params["depth"] / 10 + (params["kind"] == "a")


QUICK = Search(raw=32, perturbed=8, restarts=2, iterations=8)


def by_map(space: Space = SPACE, strategy: str = "ei", **options: Any) -> Optimizer:
    """An optimizer that fits a point estimate and does not search hard."""
    models: dict[str, Strategy] = {
        "ei": ExpectedImprovement(QUICK),
        "pi": ProbabilityOfImprovement(QUICK),
    }
    chosen = models.get(strategy, strategy)
    return Optimizer(space, chosen, **{"inference": "map", "initial": 3, **options})


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without the annotations, as in production."""
    with unchecked_shapes():
        yield


def run(optimizer: Optimizer, count: int) -> list[Any]:
    for _ in range(count):
        trial = optimizer.ask()
        optimizer.tell(trial, loss(trial.params))
    return [trial.params for trial in optimizer.trials]


# --- asking


@pytest.mark.parametrize("strategy", ALL)
def test_trials_are_legal_numbered_and_named_by_their_origin(strategy: str) -> None:
    optimizer = by_map(strategy=strategy)
    run(optimizer, 5)
    trials = optimizer.trials
    assert [trial.id for trial in trials] == [0, 1, 2, 3, 4]
    assert all(SPACE.validate(trial.params) == trial.params for trial in trials)
    model_based = strategy in ("ei", "pi")
    design = ["design"] * 3 if model_based else [strategy] * 3
    proposed = [f"model:{strategy}"] * 2 if model_based else [strategy] * 2
    assert [trial.origin for trial in trials] == design + proposed
    assert all(trial.status is TrialStatus.COMPLETED for trial in trials)


@pytest.mark.parametrize("strategy", ALL)
def test_the_same_seed_and_the_same_results_give_the_same_proposals(strategy: str) -> None:
    assert run(by_map(strategy=strategy), 6) == run(by_map(strategy=strategy), 6)
    if strategy != "grid":
        assert run(by_map(strategy=strategy, seed=1), 4) != run(by_map(strategy=strategy), 4)


@pytest.mark.long
def test_the_same_seed_gives_the_same_proposals_where_chains_go_on_from_fit_to_fit() -> None:
    assert run(by_map(inference="nuts"), 6) == run(by_map(inference="nuts"), 6)


@pytest.mark.parametrize("strategy", ALL)
def test_a_batch_is_what_as_many_single_asks_are(strategy: str) -> None:
    one, many = by_map(strategy=strategy), by_map(strategy=strategy)
    run(one, 2), run(many, 2)
    assert [trial.params for trial in many.ask(4)] == [one.ask().params for _ in range(4)]


def test_ask_works_with_nothing_told_and_anything_pending() -> None:
    optimizer = by_map()
    asked = [optimizer.ask() for _ in range(7)]
    assert {trial.origin for trial in asked} == {"design"}
    assert len({SPACE.key(trial.params) for trial in asked}) == 7
    optimizer.tell(asked[4], 1.0)
    assert optimizer.ask().origin == "model:ei"
    assert len(optimizer.pending) == 7


def test_ask_one_gives_a_trial_and_ask_n_a_list() -> None:
    optimizer = by_map()
    assert isinstance(optimizer.ask(), Trial)
    assert len(optimizer.ask(1)) == 1


@pytest.mark.parametrize("bad", [0, -1, 1.5, "2", True, math.nan, [3]])
def test_a_batch_size_that_counts_nothing_is_refused(bad: Any) -> None:
    optimizer = by_map()
    with pytest.raises(InvalidOption, match="n="):
        optimizer.ask(bad)
    assert optimizer.trials == []


@pytest.mark.parametrize("wrong", [{"count": 0}, {"thin": 0}, {"thin": 1.5}, {"refit": "no"}])
def test_a_plan_that_means_nothing_is_refused(wrong: dict[str, Any]) -> None:
    (name, value), *_ = wrong.items()
    with unchecked_shapes(), pytest.raises(InvalidOption, match=f"{name}={value!r}: expected"):
        by_map().plan(**{"count": 1, **wrong})


def test_a_finite_space_is_used_up_without_a_duplicate_and_then_says_so() -> None:
    for strategy in ALL:
        optimizer = by_map(FINITE, strategy)
        batch = optimizer.ask(2)
        for trial in batch:
            optimizer.tell(trial, trial.params["depth"])
        rest = optimizer.ask(10)
        assert len(rest) == 4
        assert len({FINITE.key(trial.params) for trial in batch + rest}) == 6
        with pytest.raises(SpaceExhausted, match="all 6"):
            optimizer.ask()
        optimizer.tell(rest[0], 1)
        with pytest.raises(SpaceExhausted, match="all 6"):
            optimizer.ask(2)
        assert len(optimizer.trials) == 6


def test_the_design_is_replaced_where_it_failed_and_shortened_by_results_added() -> None:
    optimizer = by_map(initial=4)
    first = optimizer.ask(3)
    optimizer.fail(first[0], "crashed")
    optimizer.tell(first[1], 1.0)
    assert [trial.origin for trial in optimizer.ask(3)] == ["design", "design", "model:ei"]

    informed = by_map(initial=2)
    informed.add({"rate": 0.1, "depth": 2, "kind": "a"}, 1.0)
    informed.add({"rate": 0.2, "depth": 3, "kind": "b"}, 2.0)
    assert informed.ask().origin == "model:ei"


def test_enqueued_configurations_count_as_design_in_a_batch_as_one_by_one() -> None:
    for batches in ([4], [1, 1, 1, 1]):
        optimizer = by_map(initial=4)
        optimizer.tell(optimizer.ask(), 1.0)
        for depth in (1, 2):
            optimizer.enqueue({"rate": 0.1, "depth": depth, "kind": "a"})
        origins = [trial.origin for n in batches for trial in optimizer.ask(n)]
        assert origins == ["enqueued", "enqueued", "design", "model:ei"]


def test_while_everything_fails_the_design_goes_on() -> None:
    optimizer = by_map()
    for _ in range(6):
        optimizer.fail(optimizer.ask(), "crashed")
    assert {trial.origin for trial in optimizer.trials} == {"design"}
    assert optimizer.best is None
    assert optimizer.fit_report is None


def test_the_default_design_has_two_points_per_parameter_within_limits() -> None:
    def real_space(count: int) -> Space:
        return Space([Real(f"x{i}", 0, 1) for i in range(count)])

    assert [resolve_initial(None, real_space(count)) for count in (1, 2, 6, 60)] == [5, 5, 12, 20]
    constants = [Integer("seed", 3, 3), Categorical("kind", ["a"])]
    assert resolve_initial(None, Space([*real_space(6).parameters, *constants])) == 12
    assert Optimizer(real_space(6)).initial == 12


# --- fitting


def test_ask_fits_only_when_results_came_and_tell_never(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, bool]] = []
    real = fitting.fit

    state = object.__new__(fitting.WarmState)  # the engine hands it on and never looks inside

    def counted(data: Any, *args: Any, warm: Any, **kwargs: Any) -> Any:
        calls.append((int(data.counts[0]), warm is state))
        return replace(real(data, *args, warm=None, **kwargs), warm=state)

    monkeypatch.setattr(fitting, "fit", counted)
    optimizer = by_map()
    design = optimizer.ask(3)
    for trial in design:
        optimizer.tell(trial, loss(trial.params))
    assert calls == []
    optimizer.ask(2)
    optimizer.ask()
    assert calls == [(3, False)]
    optimizer.fail(optimizer.pending[0], "no result, no refit")
    optimizer.ask()
    assert len(calls) == 1
    for trial in optimizer.pending:
        optimizer.tell(trial, loss(trial.params))
    assert len(calls) == 1
    optimizer.ask()
    assert calls == [(3, False), (6, True)]


def test_looking_at_the_fit_changes_nothing_that_is_proposed() -> None:
    looked, left_alone = by_map(), by_map()
    run(looked, 4), run(left_alone, 4)
    for trial in (looked.ask(), left_alone.ask()):
        assert trial.id == 4
    report = looked.fit_report
    looked.tell(4, 0.5), left_alone.tell(4, 0.5)
    looked.fit()
    assert looked.fit_report is report
    assert looked.ask().params == left_alone.ask().params


def test_several_looks_at_the_same_results_make_one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    fit = fitting.fit

    def counted(data: Any, *args: Any, **kwargs: Any) -> fitting.Fit:
        sizes.append(int(data.counts))
        return fit(data, *args, **kwargs)

    monkeypatch.setattr(fitting, "fit", counted)
    optimizer = by_map(LINE)
    for place in (0.25, 0.5, 0.75):
        optimizer.add({"x": place}, place**2)
    best = optimizer.recommend()
    assert optimizer.fit() is optimizer.fit()
    assert optimizer.recommend() == best
    optimizer.ask()
    assert sizes == [3]
    known = optimizer.fit(refit=False)
    optimizer.add({"x": 0.125}, -1.0)
    conditioned = optimizer.fit(refit=False)
    assert optimizer.fit(refit=False) is conditioned is not known
    assert optimizer.posterior(refit=False).surrogate is conditioned.surrogate
    assert optimizer.fit() is not conditioned
    assert optimizer.recommend().params == {"x": 0.125}
    assert sizes == [3, 4]


def test_a_model_that_was_looked_at_is_made_anew_once_there_is_another_fit_to_go_on_from() -> None:
    optimizer = by_map(LINE)
    for place in (0.25, 0.5, 0.75):
        optimizer.add({"x": place}, place**2)
    prepared = optimizer.plan_fit()
    optimizer.add({"x": 0.125}, -1.0)
    looked = optimizer.fit()
    assert optimizer.plan_fit()().fit is looked
    optimizer.adopt(prepared())
    assert optimizer.plan_fit()().fit is not looked


def test_a_model_that_was_looked_at_is_let_go_of_by_the_next_fit() -> None:
    optimizer = by_map(LINE)
    for place in (0.25, 0.5, 0.75):
        optimizer.add({"x": place}, place**2)
    looked = weakref.ref(optimizer.fit().surrogate)
    optimizer.ask()
    optimizer.add({"x": 0.125}, -1.0)
    assert looked() is not None
    optimizer.ask()
    gc.collect()
    assert looked() is None


def test_a_look_in_inference_mode_leaves_gradients_to_the_next_one() -> None:
    optimizer = by_map(LINE)
    for trial in optimizer.ask(3):
        optimizer.tell(trial, float(trial.id))
    optimizer.ask()
    optimizer.add({"x": 0.125}, 0.5)
    with torch.inference_mode():
        optimizer.fit(refit=False)
    x = torch.full((1, 5, 1), 0.3, dtype=DTYPE, requires_grad=True)
    mean, _ = optimizer.fit(refit=False).surrogate.moments(x)
    mean.sum().backward()
    assert x.grad is not None


def test_a_fit_needs_a_result() -> None:
    with pytest.raises(InvalidData, match="no trial has a value"):
        by_map().fit()


def test_an_ask_that_fails_leaves_no_trial_and_no_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = by_map()
    run(optimizer, 3)
    optimizer.enqueue({"rate": 0.1, "depth": 2, "kind": "a"})

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            optimizer.ask(3)
    assert len(optimizer.trials) == 3
    assert [trial.origin for trial in optimizer.ask(2)] == ["enqueued", "model:ei"]


# --- telling


@pytest.mark.parametrize(
    "value",
    [
        2,
        2.0,
        Fraction(2),
        np.float32(2),
        np.float64(2),
        np.int64(2),
        np.array(2.0),
        np.array([[2]]),
        torch.tensor(2.0),
        torch.tensor([2], dtype=torch.int32),
        torch.tensor([2.0], requires_grad=True),
    ],
)
def test_one_real_number_of_any_library_is_a_value(value: Any) -> None:
    optimizer = by_map()
    told = optimizer.tell(optimizer.ask(), value)
    assert told.value == 2.0
    assert type(told.value) is float
    assert optimizer.best == told


@pytest.mark.parametrize(
    "value",
    [
        None,
        "1.0",
        "",
        b"1",
        True,
        np.bool_(False),
        torch.tensor(True),
        np.array([True]),
        1 + 0j,
        np.complex128(1),
        torch.tensor(1j),
        [1.0],
        (1.0,),
        {"value": 1.0},
        np.array([1.0, 2.0]),
        np.zeros(0),
        torch.zeros(2, 1),
        np.array(["1.0"]),
        np.ma.masked,
        np.datetime64("2020-01-01"),
        object(),
        10**400,
    ],
)
def test_what_is_no_real_number_is_refused_and_the_trial_stays_pending(value: Any) -> None:
    optimizer = by_map()
    trial = optimizer.ask()
    with pytest.raises(InvalidResult, match="trial 0: value"):
        optimizer.tell(trial, value)
    assert optimizer.pending == [trial]
    assert optimizer.tell(trial, 1.0).status is TrialStatus.COMPLETED


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_a_value_that_is_not_finite_is_a_failure_with_its_reason(value: float) -> None:
    optimizer = by_map()
    told = optimizer.tell(optimizer.ask(), value)
    assert told.status is TrialStatus.FAILED
    assert told.value is None
    assert told.reason == f"the value is {float(value)}"
    assert optimizer.pending == []
    assert optimizer.best is None


def test_a_result_finds_its_trial_by_id_in_any_order() -> None:
    optimizer = by_map()
    first, second, third = optimizer.ask(3)
    optimizer.tell(third, 3.0)
    optimizer.tell(first.id, 1.0)
    optimizer.tell(np.int64(second.id), 2.0)
    assert [trial.value for trial in optimizer.trials] == [1.0, 2.0, 3.0]
    assert [trial.id for trial in optimizer.completed] == [2, 0, 1]


@pytest.mark.parametrize("unknown", [1, -1, "0", 0.0, None, True, False, [0]])
def test_an_unknown_trial_is_refused(unknown: Any) -> None:
    optimizer = by_map()
    trial = optimizer.ask()
    for call in (lambda: optimizer.tell(unknown, 1.0), lambda: optimizer.fail(unknown, "why")):
        with pytest.raises(UnknownTrial, match="trial="):
            call()
    assert optimizer.pending == [trial]


def test_a_trial_of_another_optimizer_is_refused() -> None:
    mine, other = by_map(seed=1), by_map(seed=2)
    trial = mine.ask()
    other.ask()
    with pytest.raises(
        UnknownTrial, match="expected a trial of this optimizer, whose trial 0 has params"
    ):
        other.tell(trial, 1.0)


def interrupted_at(line: int, code: CodeType, call: Callable[..., Any], *args: Any) -> bool:
    """Whether Ctrl-C came: before this line that runs of the code, counted from 0."""
    lines = itertools.count()

    def look(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line" and next(lines) == line:
            raise KeyboardInterrupt
        return look if frame.f_code is code else None

    before = sys.gettrace()
    sys.settrace(look)
    try:
        call(*args)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_what_ctrl_c_met_while_it_was_told_is_told_again_and_comes_once() -> None:
    code = inspect.unwrap(History.remember).__code__
    for line in itertools.count():
        optimizer = Optimizer(LINE, "random")
        trial = optimizer.ask()
        came = interrupted_at(line, code, optimizer.tell, trial, 0.5)
        assert {each.status for each in optimizer.finished} <= {TrialStatus.COMPLETED}
        optimizer.tell(trial, 0.5)
        assert [each.value for each in optimizer.finished] == [0.5]
        if not came:
            assert line > 3
            return


def test_what_is_told_once_more_changes_nothing() -> None:
    optimizer = by_map()
    told, failed, broken = optimizer.ask(3)
    for _ in range(2):
        assert optimizer.tell(told, 1.0) == optimizer.trials[0]
        assert optimizer.fail(failed, "crashed") == optimizer.trials[1]
        assert optimizer.tell(broken, math.nan) == optimizer.trials[2]
    assert [trial.id for trial in optimizer.finished] == [0, 1, 2]


@pytest.mark.parametrize("reason", [None, ""])
def test_a_trial_that_failed_for_no_reason_has_failed(reason: str | None) -> None:
    optimizer = by_map()
    assert optimizer.fail(optimizer.ask(), reason).reason == "failed"


def test_results_and_configurations_are_learned_all_or_none() -> None:
    optimizer = by_map()
    (params,) = (dict(trial.params) for trial in [by_map(seed=9).ask()])
    with pytest.raises(InvalidResult):
        optimizer.learn([(params, 1.0), (params, "high")], [params])
    with pytest.raises(InvalidParams):
        optimizer.learn([(params, 1.0)], [params, {"bogus": 1}])
    assert (optimizer.trials, optimizer.queue) == ([], [])
    added = optimizer.learn([(params, 1.0), (params, math.inf)], [params])
    assert [trial.value for trial in optimizer.trials] == [1.0, None]
    assert added == optimizer.trials
    assert optimizer.queue == [params]


def test_a_second_result_is_refused_and_changes_nothing() -> None:
    optimizer = by_map()
    told, failed = optimizer.ask(2)
    optimizer.tell(told, 1.0)
    optimizer.fail(failed, "crashed")
    for trial in (told, failed):
        with pytest.raises(TrialAlreadyFinished, match=f"trial {trial.id}"):
            optimizer.tell(trial, 2.0)
        with pytest.raises(TrialAlreadyFinished, match=f"trial {trial.id}"):
            optimizer.fail(trial, "again")
        with pytest.raises(TrialAlreadyFinished, match=f"trial {trial.id}"):
            optimizer.tell(trial, math.nan)
    assert [trial.value for trial in optimizer.trials] == [1.0, None]
    assert optimizer.trials[1].reason == "crashed"
    assert len(optimizer.completed) == 1


def test_a_failed_trial_counts_and_is_never_proposed_again() -> None:
    optimizer = by_map(FINITE, "random")
    failed = optimizer.ask()
    optimizer.fail(failed, "out of memory")
    assert optimizer.pending == []
    rest = optimizer.ask(10)
    assert len(rest) == 5
    assert FINITE.key(failed.params) not in {FINITE.key(trial.params) for trial in rest}


@pytest.mark.parametrize("strategy", ALL)
def test_a_withdrawn_trial_tells_nothing_and_may_be_proposed_again(
    strategy: str, tmp_path: Path
) -> None:
    """Unlike one that failed, also after a resume, unless another trial has its configuration."""
    storage = tmp_path / "jobs.db"
    with closing(by_map(FINITE, strategy, storage=storage, name="lab")) as optimizer:
        for trial in optimizer.ask(5):
            optimizer.tell(trial, float(trial.params["depth"]))
        optimizer.enqueue(optimizer.trials[1].params)
        repeat, last = optimizer.ask(2)
        assert optimizer.withdraw(repeat).reason == "withdrawn"
        withdrawn = optimizer.withdraw(last.id, "the oven was cold")
        assert optimizer.withdraw(last, "the oven was cold") == withdrawn
        assert withdrawn.reason == "withdrawn: the oven was cold" == outcome(withdrawn)
        assert without_value(optimizer.trials) == ([], [])
        assert optimizer.history.failed == optimizer.pending == []
    for fixed in (None, {"kind": last.params["kind"]}):
        with closing(Optimizer.resume(storage, "lab")) as optimizer:
            assert optimizer.history.failed == []
            (again,) = optimizer.ask(2, fixed=fixed)
            assert again.params == last.params
            optimizer.withdraw(again)


def test_a_trial_that_failed_has_failed_whatever_its_reason_begins_with() -> None:
    optimizer = by_map(FINITE, "random")
    failed = optimizer.fail(optimizer.ask(), "withdrawn by the supplier: no more of it")
    assert not failed.withdrawn
    assert optimizer.history.failed == [failed]
    assert optimizer.history.taken == {FINITE.key(failed.params)}


# --- adding and enqueueing


def test_an_added_result_is_a_trial_and_its_configuration_is_taken() -> None:
    optimizer = by_map(FINITE, "grid")
    added = optimizer.add({"depth": 2, "kind": "b"}, 0.5)
    assert (added.origin, added.value, added.id) == ("added", 0.5, 0)
    assert optimizer.best == added
    asked = optimizer.ask(10)
    assert len(asked) == 5
    assert all(trial.params != added.params for trial in asked)
    again = optimizer.add({"depth": 2, "kind": "b"}, 0.25)
    assert optimizer.best == again


def test_an_added_value_that_is_not_finite_is_a_failed_trial() -> None:
    optimizer = by_map(FINITE)
    assert optimizer.add({"depth": 2, "kind": "b"}, math.nan).status is TrialStatus.FAILED


def test_bad_additions_record_nothing() -> None:
    optimizer = by_map(FINITE)
    with pytest.raises(InvalidParams, match="depth=9"):
        optimizer.add({"depth": 9, "kind": "a"}, 1.0)
    with pytest.raises(InvalidParams, match="missing 'kind'"):
        optimizer.add({"depth": 1}, 1.0)
    with pytest.raises(InvalidResult, match="value='high'"):
        optimizer.add({"depth": 1, "kind": "a"}, "high")
    assert optimizer.trials == []


def test_enqueued_configurations_come_first_in_order_even_if_known() -> None:
    optimizer = by_map(strategy="random")
    wanted = [{"rate": 0.1, "depth": depth, "kind": "a"} for depth in (5, 1, 5)]
    for params in wanted:
        optimizer.enqueue(params)
    first = optimizer.ask()
    rest = optimizer.ask(3)
    assert [trial.params for trial in [first, *rest[:2]]] == wanted
    assert [trial.origin for trial in rest] == ["enqueued", "enqueued", "random"]


def test_a_bad_configuration_is_refused_when_it_is_enqueued() -> None:
    optimizer = by_map()
    with pytest.raises(InvalidParams, match="kind='z'"):
        optimizer.enqueue({"rate": 0.1, "depth": 1, "kind": "z"})
    assert optimizer.ask().origin == "design"


def test_what_is_enqueued_is_asked_even_where_the_space_is_used_up() -> None:
    optimizer = by_map(FINITE, "random")
    optimizer.ask(6)
    optimizer.enqueue({"depth": 1, "kind": "a"})
    assert [trial.origin for trial in optimizer.ask(2)] == ["enqueued"]


# --- directions, times, options


def test_maximising_is_minimising_the_negative() -> None:
    down, up = by_map(), by_map(direction="maximize")
    for _ in range(6):
        low, high = down.ask(), up.ask()
        assert low.params == high.params
        down.tell(low, loss(low.params))
        up.tell(high, -loss(high.params))
    assert down.best is not None
    assert up.best is not None
    assert down.best.id == up.best.id
    assert up.best.value == max(trial.value or 0.0 for trial in up.completed)
    torch.testing.assert_close(down.observations().y, up.observations().y)


def test_the_first_of_equally_good_trials_is_the_best() -> None:
    optimizer = by_map()
    for trial in optimizer.ask(3):
        optimizer.tell(trial, 1.0)
    assert optimizer.best == optimizer.trials[0]


def test_trials_know_when_they_were_asked_and_finished() -> None:
    optimizer = by_map()
    before = time.time()
    trial = optimizer.tell(optimizer.ask(), 1.0)
    assert trial.asked_at is not None
    assert trial.finished_at is not None
    assert before <= trial.asked_at <= trial.finished_at <= time.time()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("strategy", "bogus"),
        ("seed", -1),
        ("seed", True),
        ("initial", 0),
        ("initial", True),
        ("device", "tpu"),
        ("model", "saas"),
    ],
)
def test_a_bad_option_is_refused_by_name(option: str, value: Any, unchecked: None) -> None:
    with pytest.raises(InvalidOption, match=f"{option}={value!r}"):
        by_map(**{option: value})


def test_options_that_annotations_rule_out_are_refused_by_name_without_the_annotations() -> None:
    """In its own process: here the annotations are checked, in production they are not."""
    script = """
from gpbo import optimizer, space
for options in ({"direction": "up"}, {"inference": "vi"}, {"initial": "3"}, {"space": {"x": 1}}):
    try:
        optimizer.Optimizer(**{"space": space.Space(space.Real("x", 0, 1)), **options})
    except optimizer.InvalidOption as error:
        print(error)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [
        "direction='up': expected 'minimize' or 'maximize'",
        "inference='vi': expected one of ('hmc', 'nuts', 'map', 'pyro')",
        "initial='3': expected a whole number, 1 or more",
        "space={'x': 1}: expected a gpbo.Space",
    ]


def test_what_is_done_to_a_configuration_that_was_handed_out_changes_no_history(
    tmp_path: Path,
) -> None:
    optimizer = by_map(strategy="random", storage=tmp_path / "runs.db", name="job")
    trial = optimizer.ask()
    params = dict(trial.params)
    handed_out = [trial, *optimizer.trials, *optimizer.pending]
    handed_out += [optimizer.tell(trial.id, 1.0), optimizer.tell(trial.id, 1.0)]
    assert optimizer.best is not None
    handed_out += [*optimizer.finished, *optimizer.completed, optimizer.best]
    for each in handed_out:
        assert isinstance(each.params, dict)
        each.params.pop("rate")
    assert optimizer.best.params == params
    optimizer.close()
    assert [trial.params for trial in Optimizer.resume(tmp_path / "runs.db", "job").trials] == [
        params
    ]


@pytest.mark.parametrize("strategy", ["random", "ei"])
def test_threads_that_ask_and_tell_wait_for_one_another(strategy: str) -> None:
    optimizer = by_map(LINE, strategy)

    def work(_: int) -> None:
        for _ in range(7 if strategy == "ei" else 97):
            trial = optimizer.ask()
            optimizer.tell(trial, trial.params["x"])

    with ThreadPoolExecutor(5) as threads:
        list(threads.map(work, range(5)))
    told = [trial.id for trial in optimizer.completed]
    assert sorted(told) == list(range(len(optimizer.trials)))
    assert len({trial.params["x"] for trial in optimizer.trials}) == len(told)


def test_a_stored_optimizer_serves_any_thread(tmp_path: Path) -> None:
    stored: dict[str, Any] = {"storage": tmp_path / "runs.db", "name": "job"}
    optimizer = by_map(LINE, "random", **stored)
    with ThreadPoolExecutor(1) as thread:
        trial = thread.submit(optimizer.ask).result()
        optimizer.tell(trial, 0.5)
        thread.submit(optimizer.close).result()
    with closing(Optimizer.resume(**stored)) as resumed:
        assert [known.value for known in resumed.trials] == [0.5]


class Odd:
    """No number, and of no use to whoever wants to say so."""

    shape = (None,)

    def item(self) -> None:
        raise RuntimeError

    def __repr__(self) -> str:
        raise ValueError("no words")


class Lazy:
    """An array of one number, whose computation fails."""

    shape = ()

    def item(self) -> None:
        raise FileNotFoundError("chunk 3")


@pytest.mark.parametrize(
    "value", [Odd(), Lazy(), scipy.sparse.csr_matrix([[1.0]]), {"loss": "x" * 10**6}]
)
def test_whatever_else_is_told_is_refused_in_few_words(value: Any) -> None:
    optimizer = by_map(LINE, "random")
    with unchecked_shapes(), pytest.raises(InvalidResult, match="expected one real number") as told:
        optimizer.tell(optimizer.ask(), value)
    assert len(str(told.value)) < 500


def test_a_reason_that_no_file_can_hold_is_escaped(tmp_path: Path) -> None:
    optimizer = by_map(LINE, "random", storage=tmp_path / "runs.db", name="job")
    assert optimizer.fail(optimizer.ask(), "caf\udce9.csv").reason == r"caf\udce9.csv"


def test_an_optimizer_that_was_pickled_goes_on() -> None:
    optimizer = by_map(LINE)
    for trial in optimizer.ask(5):
        optimizer.tell(trial, trial.params["x"])
    again = pickle.loads(pickle.dumps(optimizer))
    assert again.ask().params == optimizer.ask().params


def test_a_copy_of_a_stored_optimizer_is_not_stored(tmp_path: Path) -> None:
    with by_map(LINE, storage=tmp_path / "runs.db", name="job") as optimizer:
        optimizer.tell(optimizer.ask(), 1.0)
        for again in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)):
            assert again.ask().params == optimizer.plan(1)().configurations[0][0]
            assert again.journal is None
    with Optimizer.resume(tmp_path / "runs.db", "job") as resumed:  # nobody drives it
        assert len(resumed.trials) == 1


def test_a_copy_and_what_it_is_of_go_on_by_themselves() -> None:
    optimizer = by_map(LINE)
    optimizer.enqueue({"x": 0.25})
    for again in (copy.copy(optimizer), copy.deepcopy(optimizer)):
        again.tell(again.ask(), 1.0)
        again.enqueue({"x": 0.75})
        assert (optimizer.trials, optimizer.queue) == ([], [{"x": 0.25}])
    again = copy.copy(optimizer)
    optimizer.tell(optimizer.ask(), 2.0)
    assert (again.trials, again.queue) == ([], [{"x": 0.25}])


def test_who_changes_a_queued_configuration_changes_no_queue() -> None:
    optimizer = by_map(LINE)
    optimizer.enqueue({"x": 0.25})
    optimizer.queue[0]["x"] = 99.0
    assert optimizer.ask().params == {"x": 0.25}


def test_of_many_results_the_wrong_one_is_named() -> None:
    optimizer = by_map(LINE)
    good = ({"x": 0.5}, 1.0)
    with pytest.raises(InvalidParams, match=r"^results\[1\]: x=1.5: expected a real number"):
        optimizer.learn([good, ({"x": 1.5}, 1.0)])
    with pytest.raises(InvalidResult, match=r"^results\[2\]: value='bad'"):
        optimizer.learn([good, good, ({"x": 0.5}, "bad")])
    with pytest.raises(InvalidParams, match=r"^x=1.5"):
        optimizer.add({"x": 1.5}, 1.0)
    with unchecked_shapes(), pytest.raises(InvalidResult, match=r"^results\[1\]: result=3: expec"):
        optimizer.learn([good, 3])  # type: ignore[list-item]
    with pytest.raises(InvalidParams, match=r"^queue\[1\]: x=1.5: expected a real number"):
        optimizer.learn(queue=[{"x": 0.5}, {"x": 1.5}])
    with pytest.raises(InvalidParams, match=r"^x=1.5"):
        optimizer.enqueue({"x": 1.5})
    assert optimizer.trials == []


def test_what_is_enqueued_after_a_plan_stays_in_the_queue() -> None:
    optimizer = by_map(strategy="random")
    first, second, third = ({"rate": 0.1 * i, "depth": i, "kind": "a"} for i in (1, 2, 3))
    optimizer.enqueue(first)
    chosen = optimizer.plan(3)()
    optimizer.learn(queue=[second, third])
    assert [trial.origin for trial in optimizer.register(chosen)] == ["enqueued", *2 * ["random"]]
    assert optimizer.queue == [second, third]


@pytest.mark.parametrize(("reason", "kept"), [("", "failed"), (OSError("disk full"), "disk full")])
def test_any_reason_is_text_and_may_be_given_again(reason: Any, kept: str, unchecked: None) -> None:
    optimizer = by_map()
    trial = optimizer.ask()
    for _ in range(2):
        assert optimizer.fail(trial, reason).reason == kept


@pytest.mark.parametrize("values", [[0.0, 0.0], [1e6] * 3, [7.0]])
def test_draws_of_values_that_were_all_the_same_serve_where_these_differ(
    values: list[float],
) -> None:
    """They had no scale of their own, so that of the values that came serves."""
    optimizer = by_map()
    for trial, value in zip(optimizer.ask(len(values)), values, strict=True):
        optimizer.tell(trial, value)
    optimizer.ask()
    for trial, value in zip(optimizer.ask(2, refit=False), (500.0, -1e9), strict=True):
        optimizer.tell(trial, value)
    surrogate = optimizer.fit(refit=False).surrogate
    _, variance = surrogate.moments(random_uniform(1, 1, 5, surrogate.dim))
    assert bool(surrogate.succeeded.all())
    assert ((variance > 1e-3) & (variance < 1e3)).all()


# --- any order of calls


def _is_told_again(trial: Trial, value: Any) -> bool:
    return trial.reason == f"the value is {value}"


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=6, deadline=None)
def test_any_sequence_of_good_and_bad_calls_keeps_the_books(seed: int) -> None:
    """A model of the bookkeeping: what was asked is pending until it is told or failed, once."""
    choose = random.Random(seed)
    optimizer = by_map(strategy=choose.choice(["random", "sobol", "grid"]))
    pending: set[int] = set()
    values: dict[int, float] = {}
    failed: set[int] = set()
    for _ in range(30):
        number = choose.randrange(-1, 12)
        value = choose.choice([1.5, -2.0, math.nan, "x", None])
        match choose.choice(["ask", "ask", "tell", "tell", "fail"]):
            case "ask":
                pending |= {trial.id for trial in optimizer.ask(choose.randrange(1, 3))}
            case "fail" if number in pending:
                optimizer.fail(number, "why")
                failed.add(number)
            case "tell" if number in pending and isinstance(value, float):
                optimizer.tell(number, value)
                if math.isnan(value):
                    failed.add(number)
                else:
                    values[number] = value
            case "tell" if number in values and value == values[number]:
                optimizer.tell(number, value)  # once more
            case "tell" if number in failed and _is_told_again(optimizer.trials[number], value):
                optimizer.tell(number, value)
            case action:
                with pytest.raises(GpboError):
                    optimizer.tell(number, value) if action == "tell" else optimizer.fail(number)
        pending -= failed | set(values)
        assert {trial.id for trial in optimizer.pending} == pending
        assert {trial.id: trial.value for trial in optimizer.completed} == values
        assert list(optimizer.observations().counts) == [len(values)]
        assert optimizer.observations().pending.shape[1] == len(pending)


def test_the_strategy_cannot_be_replaced_by_a_name() -> None:
    optimizer = Optimizer(Space(Real("x", 0, 1)), "random")
    with pytest.raises(AttributeError):
        optimizer.strategy = "ts"  # type: ignore[misc,assignment]
    assert optimizer.strategy.name == "random"


def test_an_optimizer_shows_where_it_stands() -> None:
    optimizer = Optimizer(Space(Real("x", 0, 1)), "random")
    assert repr(optimizer) == "<Optimizer 'random': 0 trials, 0 pending, no value yet>"
    first, second, _ = optimizer.ask(3)
    optimizer.tell(first, 123456.789)
    optimizer.fail(second, "broken")
    expected = "<Optimizer 'random': 2 trials, 1 pending, best 123456.789 at trial 0>"
    assert repr(optimizer) == expected


def test_a_row_of_a_table_is_a_configuration() -> None:
    class Row:
        """As `pandas.Series`: no `Mapping`, and whole numbers are floats beside others."""

        def keys(self) -> list[str]:
            return ["x", "n"]

        def __getitem__(self, name: str) -> float:
            return {"x": 0.5, "n": 3.0}[name]

    optimizer = Optimizer(
        Space(Real("x", 0, 1), Integer("n", 1, 8)), "random", constraints=["x <= 1", "n >= 2"]
    )
    with unchecked_shapes():
        added = optimizer.add(Row(), 1.0, Row())  # type: ignore[arg-type]
    assert (added.params, added.measured) == ({"x": 0.5, "n": 3}, {"x": 0.5, "n": 3.0})


def test_what_another_optimizer_chose_or_fitted_is_refused_and_harms_no_stored_job(
    tmp_path: Path,
) -> None:
    own = by_map(LINE, storage=tmp_path / "runs.db", name="own")
    others = [by_map(Space(Real("y", 0, 1))), by_map(), by_map(LINE, constraints=["y <= 0"])]
    longer = by_map(LINE)
    for number, optimizer in enumerate([own, longer, *others]):
        for trial in optimizer.ask(4 + number):
            optimizer.tell(trial, float(trial.id), {"y": 1.0} if optimizer.constraints else None)
    with pytest.raises(InvalidParams, match="params: missing 'x'"):
        own.register(replace(others[0].plan(1)(), index=4, fitted=None))
    for other in (longer, *others[1:]):
        fitted = other.plan_fit()()
        with pytest.raises(InvalidOption, match=r"^fitted: expected a fit to at most 4 results"):
            own.adopt(fitted)
        chosen = replace(longer.plan(1)(), index=4, fitted=fitted)
        with pytest.raises(InvalidOption, match=r"^chosen\.fitted: expected a fit to at most 4"):
            own.register(chosen)
    with unchecked_shapes():
        for wrong in (3, own.plan(1), None):
            with pytest.raises(InvalidOption, match="expected an instance of Chosen"):
                own.register(wrong)  # type: ignore[arg-type]
            with pytest.raises(InvalidOption, match="expected an instance of Fitted"):
                own.adopt(wrong)  # type: ignore[arg-type]
    own.adopt(copy.copy(own).plan_fit()())
    params = own.ask().params
    own.close()
    resumed = Optimizer.resume(tmp_path / "runs.db", "own", strategy=own.strategy)
    assert [trial.params for trial in resumed.pending] == [params]


def test_a_look_at_what_was_fitted_makes_no_other_model(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = by_map(LINE)
    for trial in optimizer.ask(3):
        optimizer.tell(trial, float(trial.id))
    optimizer.ask()
    known = optimizer.fit()
    assert optimizer.fit(refit=False) is known
    optimizer.add({"x": 0.125}, 0.5)
    assert optimizer.fit(refit=False) is not known


def test_who_changes_what_a_plan_chose_changes_no_queue() -> None:
    optimizer = Optimizer(LINE, "random")
    optimizer.enqueue({"x": 0.5})
    optimizer.plan(1)().configurations[0][0]["x"] = 99
    assert optimizer.queue == [{"x": 0.5}]


def test_only_what_was_enqueued_leaves_the_queue() -> None:
    class Enqueued(RandomSearch):
        name = "enqueued"

    optimizer = Optimizer(Space(Real("x", 0, 1), Real("y", 0, 1)), Enqueued())
    optimizer.enqueue({"x": 0.5, "y": 0.5})
    assert optimizer.ask(fixed={"y": 0.25}).params["y"] == 0.25
    assert optimizer.queue == [{"x": 0.5, "y": 0.5}]


def test_a_trial_that_was_made_incomparable_is_not_of_this_optimizer() -> None:
    optimizer = Optimizer(LINE, "random")
    trial = optimizer.ask()
    other = replace(trial, params={"x": np.zeros(2)})
    with pytest.raises(
        UnknownTrial, match="expected a trial of this optimizer, whose trial 0 has params"
    ):
        optimizer.tell(other, 1.0)
    with unchecked_shapes():
        assert optimizer.fail(trial, np.zeros(2)).reason == "[0. 0.]"  # type: ignore[arg-type]


@pytest.mark.parametrize("look", ["fit", "posterior", "recommend"])
def test_whether_to_refit_is_true_or_false(look: str) -> None:
    optimizer = Optimizer(LINE, "random")
    optimizer.add({"x": 0.5}, 1.0)
    with unchecked_shapes(), pytest.raises(InvalidOption, match="refit=None"):
        getattr(optimizer, look)(refit=None)
