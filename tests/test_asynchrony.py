"""Results in any order, late, wrong or never: what breaks other systems, a test each."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gpbo import fitting
from gpbo.candidates import Search
from gpbo.errors import TrialAlreadyFinished, UnknownTrial
from gpbo.fitting import Inference
from gpbo.optimizer import Optimizer
from gpbo.space import Integer, Real, Space
from gpbo.strategies import ExpectedImprovement, Strategy, ThompsonSampling
from gpbo.trial import Trial, TrialStatus

PLANE = Space(Real("x", -2.0, 6.0), Real("rate", 1e-4, 1.0, "log"), Integer("depth", 1, 9))
QUICK = Search(raw=32, perturbed=8, restarts=2, iterations=8)
STRATEGIES = pytest.mark.parametrize(
    "strategy",
    [
        ExpectedImprovement(QUICK),
        ExpectedImprovement(QUICK, incumbent="sampled"),
        ThompsonSampling(QUICK, features=64),
    ],
    ids=["ei", "ei-sampled", "ts"],
)


def optimizer(strategy: Strategy, **options: Any) -> Optimizer:
    return Optimizer(PLANE, strategy, **{"initial": 4, "inference": "map", **options})


def value(trial: Trial) -> float:
    params = trial.params
    return float(params["x"] ** 2 + math.log(params["rate"]) + params["depth"])


def told(strategy: Strategy, count: int, **options: Any) -> Optimizer:
    made = optimizer(strategy, **options)
    for trial in made.ask(count):
        made.tell(trial, value(trial))
    return made


def check_alignment(made: Optimizer) -> None:
    """Every value the engine sees belongs to the point beside it."""
    data = made.observations()
    points = PLANE.decode(data.x[0])
    expected = [value(Trial(0, params)) for params in points]
    seen = data.units.back(data.y)[0]
    torch.testing.assert_close(seen, torch.tensor(expected, dtype=seen.dtype))
    waiting = PLANE.decode(data.pending[0])
    assert waiting == [dict(trial.params) for trial in made.pending]


@STRATEGIES
def test_results_that_come_out_of_order_belong_to_their_points(strategy: Strategy) -> None:
    made = optimizer(strategy)
    asked = made.ask(7)
    for j in (5, 0, 6, 2, 3):
        made.tell(asked[j], value(asked[j]))
    check_alignment(made)
    assert made.ask().origin == f"model:{strategy.name}"


@STRATEGIES
def test_a_failed_trial_is_no_longer_pending_and_not_proposed_again(strategy: Strategy) -> None:
    made = told(strategy, 5)
    trial = made.ask()
    made.fail(trial, "out of memory")
    assert made.pending == []
    assert made.observations().pending.shape[1] == 0
    assert PLANE.key(made.ask().params) != PLANE.key(trial.params)


@STRATEGIES
def test_what_is_pending_is_not_asked_again(strategy: Strategy) -> None:
    made = told(strategy, 5)
    asked = [made.ask() for _ in range(4)] + made.ask(5)
    assert len({PLANE.key(trial.params) for trial in asked}) == 9


@STRATEGIES
def test_a_result_for_an_unknown_or_finished_trial_changes_nothing(strategy: Strategy) -> None:
    made = told(strategy, 5)
    for stranger in (99, "3", Trial(0, {"x": 0.0, "rate": 0.1, "depth": 1})):
        with pytest.raises(UnknownTrial):
            made.tell(stranger, 1.0)
    with pytest.raises(TrialAlreadyFinished):
        made.tell(0, 1.0)
    check_alignment(made)


@STRATEGIES
def test_parameters_that_the_user_rounded_do_not_matter(strategy: Strategy) -> None:
    """The result goes to the trial with this id, at the point that was asked for."""
    made = told(strategy, 5)
    trial = made.ask()
    rounded = {name: round(number, 1) for name, number in trial.params.items()}
    assert rounded != trial.params
    made.tell(trial.id, 3.0)
    assert made.trials[trial.id].params == trial.params
    assert made.pending == []


@STRATEGIES
def test_more_trials_may_be_pending_than_have_results(strategy: Strategy) -> None:
    made = optimizer(strategy)
    first, *_ = made.ask(9)
    made.tell(first, value(first))
    assert len(made.ask(3)) == 3
    assert len(made.pending) == 11
    check_alignment(made)


@STRATEGIES
def test_while_all_is_pending_and_nothing_known_the_design_goes_on(strategy: Strategy) -> None:
    made = optimizer(strategy)
    asked = made.ask(6) + [made.ask() for _ in range(6)]
    assert {trial.origin for trial in asked} == {"design"}
    assert len({PLANE.key(trial.params) for trial in asked}) == 12


@STRATEGIES
def test_a_worker_that_never_returns_holds_up_nobody_and_can_be_given_up(
    strategy: Strategy,
) -> None:
    made = optimizer(strategy)
    lost = made.ask()
    for _ in range(7):
        trial = made.ask()
        made.tell(trial, value(trial))
    assert made.pending == [lost]
    made.fail(lost, "timed out")
    assert made.pending == []
    with pytest.raises(TrialAlreadyFinished):
        made.tell(lost, 1.0)  # it did return


@STRATEGIES
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_a_failure_of_that_trial_only(
    strategy: Strategy, wrong: float
) -> None:
    made = told(strategy, 5)
    first, second = made.ask(2)
    assert made.tell(first, wrong).status is TrialStatus.FAILED
    made.tell(second, value(second))
    check_alignment(made)
    assert torch.isfinite(made.observations().y).all()
    made.ask()


@STRATEGIES
def test_several_results_at_once_cost_one_fit(
    strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = told(strategy, 5)
    for trial in made.ask(4):
        made.tell(trial, value(trial))
    fits = counted(monkeypatch)
    made.ask(3)
    assert fits() == 1


@pytest.mark.usefixtures("few_draws")
@STRATEGIES
@pytest.mark.parametrize("inference", ["map", "hmc"])
def test_what_is_proposed_does_not_depend_on_the_order_in_which_results_came(
    strategy: Strategy, inference: Inference
) -> None:
    """Nor what is recommended, of fits that are cold and of ones that are warm; with failures."""

    def proposed(mixed: random.Random | None) -> list[Any]:
        made = optimizer(strategy, inference=inference, initial=5, constraints=["depth <= 5"])
        for _ in range(4):
            asked = made.ask(5)
            for trial in asked if mixed is None else mixed.sample(asked, 5):
                if trial.id % 7 == 3:
                    made.fail(trial)
                else:
                    made.tell(trial, value(trial), {"depth": float(trial.params["depth"])})
        return [*(trial.params for trial in made.ask(2)), made.recommend()]

    in_order = proposed(None)
    assert [proposed(random.Random(seed)) for seed in range(2)] == [in_order, in_order]


@STRATEGIES
def test_the_same_calls_in_the_same_order_give_the_same_trials(strategy: Strategy) -> None:
    """So a log of the events is enough to go on from where a process ended."""

    def replayed(events: int) -> list[Any]:
        made, order = optimizer(strategy), random.Random(3)
        for _ in range(events):
            if made.pending and order.random() < 0.5:
                trial = order.choice(made.pending)
                if order.random() < 0.8:
                    made.tell(trial, value(trial))
                else:
                    made.fail(trial)
            else:
                made.ask(refit=order.random() < 0.5)
        return [(trial.params, trial.status, trial.value) for trial in made.trials]

    whole = replayed(18)
    assert replayed(18) == whole
    for (params, _, _), (again, _, _) in zip(replayed(13), whole, strict=False):
        assert params == again


@STRATEGIES
def test_a_restart_in_mid_flight_asks_for_what_it_would_have_asked_for(
    strategy: Strategy, tmp_path: Path
) -> None:
    """Killed while trials run; their results come to the next process, the last one first."""
    steady = optimizer(strategy)
    killed = optimizer(strategy, storage=tmp_path / "runs.db", name="job")
    for made in (steady, killed):
        for trial in made.ask(6)[::2]:
            made.tell(trial, value(trial))
        made.ask(2)
    killed.close()
    resumed = Optimizer.resume(tmp_path / "runs.db", "job", strategy=strategy)
    assert [trial.params for trial in resumed.pending] == [trial.params for trial in steady.pending]
    for made in (steady, resumed):
        for number in (7, 3, 5):
            made.tell(number, value(made.trials[number]))
    check_alignment(resumed)
    assert [trial.params for trial in resumed.ask(2)] == [trial.params for trial in steady.ask(2)]


@STRATEGIES
def test_a_request_while_the_model_is_fitted_is_answered_from_the_old_model(
    strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = told(strategy, 6)
    made.ask()
    old = made.fit_report
    made.add({"x": 1.0, "rate": 0.5, "depth": 3}, 2.0)
    under_way = made.plan_fit()
    fits = counted(monkeypatch)
    asked = [made.ask(refit=False) for _ in range(3)]
    assert fits() == 0
    assert made.fit_report is old
    made.adopt(under_way())
    assert made.fit_report is not old
    assert PLANE.key(made.ask().params) not in {PLANE.key(trial.params) for trial in asked}


def test_no_result_goes_astray_in_many_random_events() -> None:
    made, order = Optimizer(PLANE, "random"), random.Random(5)
    for _ in range(150):
        pending = made.pending
        if len(pending) > 12 or (pending and order.random() < 0.45):
            for trial in order.sample(pending, min(len(pending), order.randint(1, 3))):
                event = order.random()
                if event < 0.8:
                    made.tell(trial.id, value(trial))
                else:
                    made.tell(trial, math.nan) if event < 0.9 else made.fail(trial)
        else:
            made.ask(order.randint(1, 3))
    check_alignment(made)
    by_id = {trial.id: trial for trial in made.trials}
    assert all(by_id[trial.id].value == value(trial) for trial in made.completed)


def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many fits are made from now on."""
    calls, fit = [], fitting.fit

    def counting(*args: Any, **kwargs: Any) -> fitting.Fit:
        calls.append(1)
        return fit(*args, **kwargs)

    monkeypatch.setattr(fitting, "fit", counting)
    return lambda: len(calls)


@STRATEGIES
def test_without_a_refit_the_posterior_still_knows_every_result(
    strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = told(strategy, 6)
    made.ask()
    last, before = made.fit().surrogate, made.observations()
    far = {"x": 6.0, "rate": 1.0, "depth": 9}
    made.add(far, 500.0)  # an outlier: the values are standardised anew
    fits = counted(monkeypatch)
    made.ask(2, refit=False)
    assert fits() == 0
    now, after = made.fit(refit=False).surrogate, made.observations()
    torch.testing.assert_close(now.lengthscale, last.lengthscale)
    point = PLANE.encode([far]).unsqueeze(0)
    (mean, variance), (then, less) = last.moments(point), now.moments(point)
    assert (after.units.back(then) > before.units.back(mean) + 100).all()
    unit = (after.units.scale / before.units.scale).square()
    assert (unit * less < 0.5 * variance).all()


def test_the_first_ask_of_the_model_fits_even_without_a_refit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = told(ThompsonSampling(QUICK, features=64), 5)
    fits = counted(monkeypatch)
    assert made.ask(refit=False).origin == "model:ts"
    made.ask(refit=False)
    assert fits() == 1


def test_a_prepared_fit_is_of_the_results_that_there_were_and_is_adopted_once() -> None:
    strategy = ThompsonSampling(QUICK, features=64)
    made, same = told(strategy, 5), told(strategy, 5)
    prepared = made.plan_fit()
    made.add({"x": 1.0, "rate": 0.5, "depth": 3}, 2.0)
    later = made.plan_fit()
    old, new = prepared(), later()
    assert (old.kept.size, new.kept.size) == (5, 6)
    torch.testing.assert_close(
        old.fit.surrogate.lengthscale, same.fit().surrogate.lengthscale, rtol=0, atol=0
    )
    made.adopt(new)
    made.adopt(old)
    assert made.fit_report is new.fit.report


def test_in_a_hurry_trials_are_chosen_by_different_draws_and_all_get_their_turn() -> None:
    made = told(ExpectedImprovement(QUICK), 6, inference="hmc")
    made.ask()
    fitted = made._fitted
    assert fitted is not None
    whole = fitted.kept.outputscale[0]
    seen = []
    for _ in range(3):
        surrogate = made._plan_model(False, thin=3)().fit.surrogate
        seen.append(surrogate.outputscale[0])
        trial = made.register(made.plan(1, refit=False, thin=3)())[0]
        assert PLANE.validate(trial.params) == trial.params
    assert sorted(map(len, seen)) == [5, 5, 6]
    torch.testing.assert_close(torch.cat(seen).sort().values, whole.sort().values)
    assert made._fitted is fitted


def test_a_single_draw_cannot_be_thinned() -> None:
    made = told(ExpectedImprovement(QUICK), 6)
    made.ask()
    thinned, whole = (made.plan(1, refit=False, thin=thin)() for thin in (4, 1))
    assert thinned.configurations == whole.configurations


@pytest.mark.parametrize("every", [2, 3, 4])
def test_functions_chosen_in_a_hurry_come_from_all_draws(every: int) -> None:
    """A path takes the draws that are left in turn, by the number of its trial."""
    made = told(ExpectedImprovement(QUICK), 6, inference="hmc")
    made.ask()
    fitted = made._fitted
    assert fitted is not None
    whole = fitted.kept.outputscale[0].tolist()
    seen = set()
    for number in range(4 * len(whole)):
        left = fitted.kept.thinned(every, number).outputscale[0].tolist()
        seen.add(left[number % len(left)])
    assert seen == set(whole)
