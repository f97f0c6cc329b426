"""gpbo as a sampler of Optuna: what Optuna asks of samplers, and what gpbo proposes without it."""

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

optuna = pytest.importorskip("optuna", minversion="5", reason="optuna is not installed")

from optuna.distributions import (  # noqa: E402
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler  # noqa: E402
from optuna.testing.pytest_samplers import (  # noqa: E402
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)
from optuna.trial import TrialState, create_trial  # noqa: E402

from gpbo.errors import InvalidOption, SpaceError  # noqa: E402
from gpbo.fitting import Model  # noqa: E402
from gpbo.integrations import optuna as bridge  # noqa: E402
from gpbo.integrations.optuna import Sampler  # noqa: E402
from gpbo.optimizer import Optimizer  # noqa: E402
from gpbo.situation import Situation  # noqa: E402
from gpbo.space import Categorical, Integer, Real, Space  # noqa: E402
from gpbo.strategies import RandomSearch  # noqa: E402

X = {"x": FloatDistribution(-2.0, 3.0), "kind": CategoricalDistribution(("a", None, 1.5))}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def study(*results: Any, **options: Any) -> Any:
    """A study that has completed trials of ``X`` already."""
    sampler = options.pop("sampler", None) or Sampler(seed=3, initial=1, inference="map")
    made = optuna.create_study(sampler=sampler, **options)
    for x, kind, value in results:
        made.add_trial(create_trial(params={"x": x, "kind": kind}, distributions=X, value=value))
    return made


RESULTS = [(-1.5, "a", 3.0), (0.5, None, 1.0), (2.5, 1.5, 2.0), (1.5, None, 1.25), (0.0, "a", 1.5)]


class TestWhatOptunaAsksOfSamplers(
    BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase
):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: Sampler("sobol", seed=2)


def test_the_trials_are_those_of_an_optimizer_that_knows_the_first_one() -> None:
    made = optuna.create_study(sampler=Sampler(seed=5, inference="map"), direction="maximize")
    for _ in range(11):
        trial = made.ask(X)
        made.tell(trial, -((trial.params["x"] - 1) ** 2) - (trial.params["kind"] != "a"))
    kinds = X["kind"].choices
    space = Space(Categorical("kind", range(3)), Real("x", -2.0, 3.0))
    optimizer = Optimizer(space, seed=5, inference="map", direction="maximize")
    first, *others = made.trials
    optimizer.add({"x": first.params["x"], "kind": kinds.index(first.params["kind"])}, first.value)
    for trial in others:
        asked = optimizer.ask()
        assert trial.params == {"x": asked.params["x"], "kind": kinds[asked.params["kind"]]}
        optimizer.tell(asked, trial.value)
    assert optimizer.fitted_size == made.sampler._learner._optimizer.fitted_size == 10


def test_what_runs_is_pending_whoever_runs_it(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    here = study(*RESULTS, storage=storage, study_name="shared")
    there = optuna.load_study(
        storage=storage, study_name="shared", sampler=Sampler(seed=3, initial=1, inference="map")
    )
    mine, theirs = here.ask(X), there.ask(X)  # the same seed, and the same results
    late = optuna.load_study(
        storage=storage, study_name="shared", sampler=Sampler(seed=3, initial=1, inference="map")
    ).ask(X)
    assert len({(trial.params["x"], trial.params["kind"]) for trial in (mine, theirs, late)}) == 3
    alone = study(*RESULTS).ask(X)
    assert mine.params == alone.params
    there.tell(theirs, 0.5)
    here.tell(mine, 0.7)
    here.ask(X)
    learner = here.sampler._learner
    assert sorted(trial.value for trial in learner._optimizer.completed) == sorted(
        [0.5, 0.7, *(value for _, _, value in RESULTS)]
    )


def test_a_proposal_is_pending_before_the_trial_has_taken_all_its_values() -> None:
    made = study(*RESULTS)
    begun = made.ask()
    begun.suggest_float("x", -2.0, 3.0)
    assert begun.params.keys() != begun.relative_params.keys() == X.keys()
    asked = made.ask(X).params
    assert asked != begun.relative_params == study(*RESULTS).ask(X).params


def test_values_that_are_enqueued_stay_and_the_others_are_chosen_for_them() -> None:
    made = study(*RESULTS)
    for kept in ("a", None):
        made.enqueue_trial({"kind": kept})
        asked = made.ask(X)
        assert asked.params["kind"] is kept
        optimizer = Optimizer(
            Space(Categorical("kind", range(3)), Real("x", -2.0, 3.0)),
            seed=3,
            initial=1,
            inference="map",
        )
        learned = [one for one in made.trials if one.state is TrialState.COMPLETE]
        kinds = X["kind"].choices
        optimizer.learn(
            [
                ({"x": t.params["x"], "kind": kinds.index(t.params["kind"])}, t.value)
                for t in learned
            ]
        )
        chosen = optimizer.ask(fixed={"kind": kinds.index(kept)})
        assert asked.params["x"] == chosen.params["x"]
        made.tell(asked, 1.0 + asked.params["x"] ** 2)
    made.enqueue_trial({"x": 0.25, "kind": "a"})
    trial = made.ask({**X, "other": FloatDistribution(0.0, 1.0)})
    assert trial.params.items() >= {"x": 0.25, "kind": "a"}.items()
    assert made.sampler._learner._proposals[trial.number] == {"x": 0.25, "kind": 0}


@pytest.mark.filterwarnings("ignore:Fixed parameter")
@pytest.mark.parametrize("x", [7.5, math.inf])
def test_an_enqueued_value_outside_of_the_range_is_no_point_of_the_model(x: float) -> None:
    made = study(*RESULTS)
    made.enqueue_trial({"x": x})
    outside = made.ask()
    assert outside.relative_params.keys() == X.keys()
    learner = made.sampler._learner
    assert learner._proposals[outside.number] != {}
    assert learner._point(made.trials[outside.number]) == {}  # it has taken no value yet
    assert outside.suggest_float("x", -2.0, 3.0) == x
    outside.suggest_categorical("kind", ("a", None, 1.5))
    assert learner._point(made.trials[outside.number]) == {}
    made.ask(X)
    made.tell(outside, -100.0)
    made.ask(X)
    assert len(made.sampler._learner._optimizer.completed) == len(RESULTS)


@pytest.mark.filterwarnings("ignore:Fixed parameter")
def test_nor_is_one_beside_the_grid() -> None:
    steps = {"n": IntDistribution(0, 1000, step=100)}
    made = optuna.create_study(sampler=Sampler(seed=3, initial=1, inference="map"))
    for n in (200, 149, 300):
        made.enqueue_trial({"n": n})
        made.tell(made.ask(steps), n / 100)
    made.ask(steps)
    known = made.sampler._learner._optimizer
    assert sorted(trial.params["n"] for trial in known.completed) == [2, 3]


@pytest.mark.filterwarnings("ignore:Fixed parameter")
def test_nor_is_one_that_has_no_place_on_a_grid_at_all() -> None:
    steps = {"n": FloatDistribution(0.0, 1000.0, step=100.0)}
    made = optuna.create_study(sampler=Sampler("sobol", seed=3))
    for n in (200.0, math.inf):
        made.enqueue_trial({"n": n})
        made.tell(made.ask(steps), 1.0)
    made.ask(steps)
    known = made.sampler._learner._optimizer
    assert [trial.params["n"] for trial in known.completed] == [2]


def test_failed_and_pruned_trials_fail() -> None:
    made = study(*RESULTS)
    for state in (TrialState.FAIL, TrialState.PRUNED):
        made.tell(made.ask(X), state=state)
    made.tell(made.ask(), state=TrialState.FAIL)  # before it took a value: there is no point
    made.ask(X)
    learned = made.sampler._learner._optimizer
    assert len(learned.completed) == len(RESULTS)
    assert [trial.value for trial in learned.finished[len(RESULTS) :]] == [None, None]


def test_the_last_report_of_a_pruned_trial_is_not_its_value() -> None:
    """To Optuna it is."""
    made = study(*RESULTS)
    trial = made.ask(X)
    trial.report(-100.0, step=1)
    made.tell(trial, state=TrialState.PRUNED)
    assert made.trials[-1].value == -100.0
    made.ask(X)
    assert made.sampler._learner._optimizer.finished[-1].value is None


def test_a_trial_is_where_it_was_run_though_something_else_was_proposed() -> None:
    made = study(*RESULTS)
    trial = made.ask()
    proposed = trial.relative_params["x"]
    trial.suggest_float("x", *((-2.0, 0.0) if proposed > 0 else (1.0, 3.0)))
    trial.suggest_categorical("kind", X["kind"].choices)
    made.tell(trial, state=TrialState.FAIL)
    made.ask(X)
    (failed,) = made.sampler._learner._optimizer.history.failed
    assert failed.params["x"] == trial.params["x"] != proposed


def test_what_ends_before_it_has_taken_all_its_values_fails_where_it_was_proposed() -> None:
    made = study(*RESULTS)
    proposed = []
    for state in (TrialState.PRUNED, TrialState.FAIL, TrialState.PRUNED):
        trial = made.ask()
        trial.suggest_float("x", -2.0, 3.0)
        proposed.append(trial.relative_params)
        made.tell(trial, state=state)
    made.ask(X)
    kinds = X["kind"].choices
    failed = made.sampler._learner._optimizer.finished[len(RESULTS) :]
    assert [{**one.params, "kind": kinds[one.params["kind"]]} for one in failed] == proposed
    assert len({params["x"] for params in proposed}) == 3
    assert made.sampler._learner._proposals.keys() == {made.trials[-1].number}


def test_a_finite_space_is_repeated_where_the_values_depend_on_other_parameters_too() -> None:
    def objective(trial: Any) -> float:
        kind = trial.suggest_categorical("kind", ["a", "b", "c"])
        return "abc".index(kind) * 10 + float(trial.suggest_float(f"x_{kind}", 0.0, 1.0))

    made = optuna.create_study(sampler=Sampler(seed=3, inference="map"))
    made.optimize(objective, n_trials=20)
    kinds = [trial.params["kind"] for trial in made.trials]
    assert {*kinds[:7]} == {"a", "b", "c"}
    assert kinds[10:].count("a") >= 8


def test_a_strategy_of_ones_own_need_not_be_able_to_repeat() -> None:
    class Own:
        name = "own"
        uses_model = repeats = False

        def propose(self, situation: Situation, count: int) -> Any:
            return RandomSearch().propose(situation, count)

    def objective(trial: Any) -> float:
        x = trial.suggest_float("x", 0.0, 1.0)
        return float(x + trial.suggest_float("y", 0.0, 1.0) if trial.number % 2 else x)

    made = optuna.create_study(sampler=Sampler(Own(), seed=3))
    made.optimize(objective, n_trials=5)
    assert len({trial.params["x"] for trial in made.trials}) == 5


@pytest.mark.parametrize(("strategy", "initial"), [("sobol", 1), ("ei", 7)])
def test_nothing_is_fitted_that_no_proposal_needs(strategy: str, initial: int) -> None:
    sampler = Sampler(strategy, seed=3, initial=initial, inference="map")
    study(*RESULTS, sampler=sampler).ask(X)
    assert sampler._learner is not None
    assert sampler._learner._optimizer.fitted_size == 0


def test_an_interrupt_takes_no_trial_away(monkeypatch: pytest.MonkeyPatch) -> None:
    made = study(*RESULTS)

    def interrupted(*results: object, **queue: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Optimizer, "learn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            made.ask(X)
    made.ask(X)
    assert len(made.sampler._learner._optimizer.completed) == len(RESULTS)


def test_a_range_that_is_none_of_gpbos_is_drawn_at_random() -> None:
    wide = {
        "wide": IntDistribution(0, 2**41),
        "fine": FloatDistribution(0.0, 1.0, step=1e-13),
        "x": FloatDistribution(0.0, 1.0),
        "one": IntDistribution(7, 7),
    }
    made = optuna.create_study(sampler=Sampler(seed=3, initial=1, inference="map"))
    for _ in range(3):
        trial = made.ask(wide)
        made.tell(trial, trial.params["x"])
    assert made.sampler._learner._optimizer.space.names == ("x",)
    assert trial.relative_params.keys() == {"x"}


def test_limits_that_the_objective_sets_are_heeded() -> None:
    def objective(trial: Any) -> float:
        x, y = trial.suggest_float("x", 0.0, 1.0), trial.suggest_float("y", 0.0, 1.0)
        trial.set_constraint("any words: x <= 0.4", x - 0.4)
        trial.set_constraint("y", 0.3 - y)
        return float((x - 0.9) ** 2 + (y - 0.1) ** 2)

    made = optuna.create_study(sampler=Sampler(seed=2, inference="map"))
    made.optimize(objective, n_trials=22)
    learned = made.sampler._learner._optimizer
    assert list(map(str, learned.constraints)) == ["c0 <= 0", "c1 <= 0"]
    known = learned.completed[0].measured
    assert known == {"c0": made.trials[0].constraints["any words: x <= 0.4"]} | {
        "c1": made.trials[0].constraints["y"]
    }
    assert made.best_value < 0.29 + 0.03 + 0.02
    silent = made.ask(made.trials[0].distributions)
    made.tell(silent, 0.0)  # without limits
    made.ask(made.trials[0].distributions)
    assert learned.finished[-1].value is None


def test_what_only_trials_that_did_not_complete_have_is_no_limit_and_no_other_parameter() -> None:
    made = study(*RESULTS)
    trial = made.ask({**X, "more": FloatDistribution(0.0, 1.0)})
    trial.set_constraint("memory", -1.0)
    made.tell(trial, state=TrialState.PRUNED)
    kind = bridge._Kind.of(made.trials, X, made.direction)
    assert (kind.limited, kind.open) == ((), False)
    made.tell(made.ask({**X, "fixed": IntDistribution(7, 7)}), 1.0)
    assert not bridge._Kind.of(made.trials, X, made.direction).open
    made.tell(made.ask({**X, "more": FloatDistribution(0.0, 1.0)}), 1.0)
    assert bridge._Kind.of(made.trials, X, made.direction).open


def test_limits_are_in_the_same_order_in_every_process() -> None:
    """A set of names has another one in each, and the same seed would give other trials."""
    made = study()
    trial = made.ask(X)
    for name in "feagcbd":
        trial.set_constraint(name, -1.0)
    made.tell(trial, 1.0)
    assert bridge._Kind.of(made.trials, X, made.direction).limited == tuple("abcdefg")


def test_a_space_that_changes_is_another_model_of_the_same_trials() -> None:
    def objective(trial: Any) -> float:
        x = trial.suggest_float("x", 0.0, 1.0)
        if trial.number in (4, 9):  # from then on no parameter of all trials
            return x
        return x + float(trial.suggest_int("y", 1, 5))

    made = optuna.create_study(sampler=Sampler("sobol", seed=2))
    names = []
    for _ in range(12):
        made.optimize(objective, n_trials=1)
        learner = made.sampler._learner
        names.append(learner and learner._optimizer.space.names)
    assert names == [None, *4 * [("x", "y")], *7 * [("x",)]]
    assert len(made.sampler._learner._optimizer.completed) == 11


def test_one_sampler_serves_several_studies() -> None:
    sampler = Sampler(seed=3, initial=1, inference="map")
    first, second = (
        study(*results, sampler=sampler, study_name="alike") for results in (RESULTS, RESULTS[:3])
    )
    asked = [made.ask(X).params for made in (first, second, first)]
    again = study(*RESULTS)
    assert asked[0] == again.ask(X).params
    assert asked[1] == study(*RESULTS[:3]).ask(X).params
    assert asked[2] != asked[0]
    assert len(sampler._learner._optimizer.completed) == len(RESULTS)  # type: ignore[union-attr]


def test_a_finite_space_that_is_used_up_is_searched_at_random() -> None:
    made = optuna.create_study(sampler=Sampler(seed=3, initial=2, inference="map"))
    made.optimize(lambda trial: float(trial.suggest_int("x", 0, 4)), n_trials=9)
    values = [trial.params["x"] for trial in made.trials]
    assert sorted(values[:5]) == [0, 1, 2, 3, 4]


def test_threads_share_a_sampler() -> None:
    made = optuna.create_study(sampler=Sampler(seed=3, inference="map"))
    made.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0) ** 2, n_trials=16, n_jobs=4)
    assert len({trial.params["x"] for trial in made.trials}) == 16
    assert made.best_value < 1e-3


def test_a_copy_that_is_sent_elsewhere_goes_on() -> None:
    made = study(*RESULTS)
    made.ask(X)
    made.sampler = pickle.loads(pickle.dumps(made.sampler))
    again = study(*RESULTS)
    again.ask(X)
    assert made.ask(X).params == again.ask(X).params


def test_a_copy_with_another_seed_proposes_something_else() -> None:
    made, other = study(*RESULTS), study(*RESULTS)
    other.sampler = pickle.loads(pickle.dumps(made.sampler))
    other.sampler.reseed_rng()
    assert made.ask(X).params != other.ask(X).params


def test_a_copy_that_has_learned_goes_on_with_another_seed_too() -> None:
    made = study(*RESULTS)
    made.ask(X)
    same, other = (pickle.loads(pickle.dumps(made.sampler)) for _ in range(2))
    other.reseed_rng()
    last, samplers = made.trials[-1], (made.sampler, same, other)
    chosen = [each.sample_relative(made, last, X) for each in samplers]
    assert chosen[0] == chosen[1] != chosen[2]
    drawn = [each.sample_independent(made, last, "x", X["x"]) for each in samplers]
    assert drawn[0] == drawn[1] != drawn[2]


def test_threads_of_a_study_share_what_was_learned() -> None:
    made = study(*RESULTS)

    def objective(trial: Any) -> float:
        return float(trial.suggest_float("x", -2.0, 3.0)) + (
            trial.suggest_categorical("kind", X["kind"].choices) != "a"
        )

    for sampler in (made.sampler, pickle.loads(pickle.dumps(made.sampler))):
        made.sampler = sampler
        sampler.reseed_rng()
        made.ask(X)
        learner = sampler._learner
        made.optimize(objective, n_trials=5, n_jobs=2)  # reseeds before each trial
        assert sampler._learner is learner


def test_a_seed_may_be_of_any_size() -> None:
    made = optuna.create_study(sampler=Sampler(seed=2**40, inference="map"))
    assert made.ask(X).params["x"] <= 3.0


def test_the_options_are_those_of_the_optimizer_that_chooses() -> None:
    options: dict[str, Any] = {"initial": 23, "inference": "map", "model": Model(1.5), "seed": 0}
    for changed in ({}, {"inference": "hmc"}):
        sampler = Sampler("pi", **options | changed)
        study(*RESULTS, sampler=sampler).ask(X)
        assert sampler._learner is not None
        known = sampler._learner._optimizer
        assert known.strategy.name == "pi"
        found = {name: getattr(known, name) for name in options}
        assert found == options | changed


def test_what_is_not_allowed_is_said_at_once() -> None:
    with pytest.raises(InvalidOption, match="strategy='tpe'"):
        Sampler("tpe")
    with pytest.raises(InvalidOption, match="seed=-1"):
        Sampler(seed=-1)
    with pytest.raises(InvalidOption, match="initial=0"):
        Sampler(initial=0)
    with pytest.raises(SpaceError, match="too wide"):
        bridge._parameter("x", FloatDistribution(-1.7e308, 1.7e308))


def test_without_a_seed_studies_differ() -> None:
    first, second = (
        optuna.create_study(sampler=Sampler(inference="map")).ask(X).params for _ in range(2)
    )
    assert first != second


numbers = st.integers(-50, 50)
DISTRIBUTIONS = st.one_of(
    st.builds(
        lambda low, more, step: IntDistribution(low, low + more, step=step),
        numbers,
        st.integers(1, 60),
        st.integers(1, 7),
    ),
    st.builds(
        lambda low, more: IntDistribution(low, low + more, log=True),
        st.integers(1, 50),
        st.integers(1, 1000),
    ),
    st.builds(
        lambda low, more, step: FloatDistribution(low / 10, (low + more) / 10, step=step),
        numbers,
        st.integers(1, 60),
        st.sampled_from((0.1, 0.25, 0.7, 1 / 3)),
    ),
    st.builds(
        lambda low, more, log: FloatDistribution(low, low + more, log=log),
        st.floats(1e-6, 1e3),
        st.floats(1e-3, 1e3),
        st.booleans(),
    ),
    st.builds(
        CategoricalDistribution,
        st.lists(st.sampled_from((None, True, "a", "b", 2, 3.5)), min_size=2, unique=True),
    ),
)


@pytest.mark.filterwarnings("ignore:The distribution is specified by")
@settings(max_examples=100)
@example(FloatDistribution(0.1, 0.3, step=0.1), 1.0)
@given(DISTRIBUTIONS, st.floats(0.0, 1.0))
def test_every_value_is_one_of_optunas_and_comes_back(values: Any, place: float) -> None:
    space = Space(bridge._parameter("x", values))
    if isinstance(values, CategoricalDistribution):
        mine: Any = min(int(place * len(values.choices)), len(values.choices) - 1)
    else:
        parameter = space.parameters[0]
        assert isinstance(parameter, Real | Integer)
        mine = parameter.low + place * (parameter.high - parameter.low)
        mine = round(mine) if isinstance(parameter, Integer) else min(mine, parameter.high)
    theirs = bridge._decoded(values, mine)
    assert values._contains(values.to_internal_repr(theirs))
    assert bridge._encoded(values, theirs) == mine
    assert space.validate({"x": mine}) == {"x": mine}


@pytest.mark.filterwarnings("ignore:The distribution is specified by")
@pytest.mark.parametrize("step", [1e-9, 1e9 / 3])
def test_a_value_may_be_a_little_off_its_place_in_steps(step: float) -> None:
    grid = FloatDistribution(0.0, 10 * step, step=step)
    assert bridge._encoded(grid, (7 + 1e-9) * step) == 7
    with pytest.raises(ValueError, match="is not on the grid"):
        bridge._encoded(grid, (7 + 1e-3) * step)


def test_the_ends_of_a_range_are_those_of_the_parameter() -> None:
    stepped = FloatDistribution(-0.3, 0.9, step=0.4)
    found = [bridge._decoded(stepped, place) for place in range(4)]
    assert found == pytest.approx([-0.3, 0.1, 0.5, 0.9])
    assert bridge._parameter("x", stepped) == Integer("x", 0, 3)
    assert bridge._parameter("x", IntDistribution(2, 64, log=True)) == Integer("x", 2, 64, "log")
    assert bridge._parameter("x", FloatDistribution(1, 4, log=True)) == Real("x", 1, 4, "log")
    assert bridge._parameter("x", CategoricalDistribution(("b", "a"))) == Categorical("x", (0, 1))
