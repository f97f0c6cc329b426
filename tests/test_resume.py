"""An optimizer that is resumed proposes exactly what the uninterrupted one proposes."""

import io
import math
import os
import random
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from gpytorch import priors as gp
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gpbo.candidates import Search
from gpbo.errors import GpboError, InvalidOption, SpaceExhausted, StorageError
from gpbo.evidence import Model
from gpbo.hyperparameters import HyperparameterPrior, resolve_prior
from gpbo.kept import Kept
from gpbo.optimizer import Optimizer
from gpbo.priors import Fixed
from gpbo.space import Categorical, Integer, Real, Space
from gpbo.storage import SqliteStorage
from gpbo.strategies import (
    STRATEGIES,
    ExpectedImprovement,
    GridSearch,
    ProbabilityOfImprovement,
    RandomSearch,
    Strategy,
    ThompsonSampling,
)
from gpbo.trial import TrialStatus
from tests.monte_carlo import unchecked_shapes

SEARCH = Search(32, 8, 2, 8)
QUICK: dict[str, Strategy] = {
    "ei": ExpectedImprovement(SEARCH),
    "pi": ProbabilityOfImprovement(SEARCH),
}
LINE = Space(Real("x", 0, 1))
SPACE = Space(
    Real("rate", 1e-4, 1.0, "log"), Integer("depth", 1, 5), Categorical("kind", ("a", None, True))
)


def loss(params: Any) -> float:
    return (math.log10(params["rate"]) + 2) ** 2 + params["depth"] / 10 + (params["kind"] == "a")


def act(optimizer: Optimizer, step: int) -> None:
    """One of everything that can happen, in a fixed order."""
    if step == 3:
        optimizer.enqueue({"rate": 0.5, "depth": 2, "kind": True})
        optimizer.enqueue({"rate": 0.25, "depth": 3, "kind": None})
    if step == 4:
        optimizer.add({"rate": 0.125, "depth": 1, "kind": "a"}, 0.7)
    for trial in optimizer.ask(2):
        if trial.id % 5 == 3:
            optimizer.fail(trial, "out of memory")
        elif trial.id % 5 != 1:
            optimizer.tell(trial, loss(trial.params))
    if step % 2:
        optimizer.tell(optimizer.pending[0], 1.25)


def facts(optimizer: Optimizer) -> list[Any]:
    return [(t.id, t.params, t.status, t.value, t.reason, t.origin) for t in optimizer.trials]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_resumed_after_every_step_it_proposes_what_it_would_have_proposed(
    strategy: str, tmp_path: Path
) -> None:
    searching = QUICK.get(strategy, strategy)
    options: dict[str, Any] = {"strategy": searching, "inference": "map", "initial": 3, "seed": 5}
    whole = Optimizer(SPACE, **options)
    parts = Optimizer(SPACE, **options, storage=tmp_path / "runs.db", name="job")
    for step in range(6):
        act(whole, step)
        act(parts, step)
        parts.close()
        parts = Optimizer.resume(tmp_path / "runs.db", "job", strategy=searching)
        assert facts(parts) == facts(whole)
        assert [t.id for t in parts.finished] == [t.id for t in whole.finished]
    assert parts.best == next(t for t in parts.trials if whole.best and t.id == whole.best.id)


def some_act(optimizer: Optimizer, choose: random.Random) -> object:
    """Anything that may be called, with anything; what it answers, or how it refuses."""
    space = optimizer.space
    at = torch.tensor([[choose.random() for _ in range(space.dim)]], dtype=torch.float64)
    (params,) = space.decode(at)
    part = {name: params[name] for name in choose.sample(space.names, choose.randint(1, 3))}
    value = choose.choice([choose.gauss(0, 1), 10 ** choose.uniform(-6, 6), 1.0, math.nan])
    measured = {"size": choose.random()} if optimizer.constraints else None
    count, refit = choose.randint(1, 3), choose.random() < 0.5
    trial = choose.choice([trial.id for trial in optimizer.pending] or [0])

    def planned(registered: Callable[[Any], object], plan: Callable[[], object]) -> object:
        optimizer.tell(trial, value, measured)
        return registered(plan())

    acts: list[Callable[[], object]] = [
        lambda: optimizer.ask(count, refit=refit),
        lambda: optimizer.ask(count, fixed=part),
        lambda: optimizer.tell(trial, value, measured),
        lambda: optimizer.fail(trial),
        lambda: optimizer.enqueue(part),
        lambda: optimizer.learn([(params, value, measured)], [params]),
        lambda: optimizer.recommend(refit=refit, fixed=part),
        lambda: optimizer.posterior(refit=refit).predict([params]),
        lambda: planned(optimizer.register, optimizer.plan(count, refit=refit, thin=2)),
        lambda: planned(optimizer.adopt, optimizer.plan_fit()),
    ]
    (chosen,) = choose.choices(acts, [3, 1, 4, 1, 1, 1, 1, 1, 1, 1])
    try:
        return re.sub(r"_at=[^,)]*", "", str(chosen()))
    except GpboError as error:
        return str(error)


def check_that_breaks_change_nothing(seed: int, inference: Any, acts: int) -> None:
    """Two optimizers to which the same is done, one of which is closed and resumed in between."""
    choose = random.Random(seed)
    searching = choose.choice(
        [*QUICK.values(), ThompsonSampling(SEARCH, features=64), RandomSearch(), GridSearch(2)]
    )
    options: dict[str, Any] = {
        "inference": inference,
        "initial": choose.randint(1, 4),
        "seed": choose.randrange(9),
        "direction": choose.choice(["minimize", "maximize"]),
        "constraints": choose.choice([(), (), ["size <= 0.6"]]),
    }
    with TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        whole = Optimizer(SPACE, searching, **options)
        parts = Optimizer(SPACE, searching, **options, storage=path, name="job")
        for _ in range(acts):
            act_seed = choose.random()
            answers = [some_act(each, random.Random(act_seed)) for each in (whole, parts)]
            assert answers[0] == answers[1]
            if choose.random() < 0.4:
                parts.close()
                parts = Optimizer.resume(path, "job", strategy=searching)
            assert facts(parts) == facts(whole)
            assert [t.id for t in parts.finished] == [t.id for t in whole.finished]
            assert parts.queue == whole.queue
            assert parts.fitted_size == whole.fitted_size
        parts.close()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=5, deadline=None, phases=[Phase.generate])
def test_whatever_is_called_breaks_change_nothing(seed: int) -> None:
    check_that_breaks_change_nothing(seed, "map", acts=12)


@pytest.mark.long
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None, phases=[Phase.generate])
def test_whatever_is_called_breaks_change_nothing_of_chains(seed: int) -> None:
    check_that_breaks_change_nothing(seed, "hmc", acts=25)


@pytest.mark.parametrize("results", [5, pytest.param(12, marks=pytest.mark.long)])
def test_chains_go_on_where_they_were(results: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"strategy": QUICK["ei"], "initial": 3}
    whole = Optimizer(LINE, **options)
    parts = Optimizer(LINE, **options, storage=tmp_path / "runs.db", name="job")
    for _ in range(results):
        for optimizer in (whole, parts):
            trial = optimizer.ask()
            optimizer.tell(trial, (trial.params["x"] - 0.3) ** 2)
        parts.close()
        parts = Optimizer.resume(tmp_path / "runs.db", "job", strategy=options["strategy"])
        assert facts(parts) == facts(whole)
    assert parts.fit_report is not None
    assert whole.fit_report is not None
    assert parts.fit_report.warm
    assert float(parts.fit_report.rhat) == float(whole.fit_report.rhat)


def test_a_fit_that_was_restored_proposes_again_without_a_new_one(tmp_path: Path) -> None:
    optimizer = Optimizer(LINE, QUICK["ei"], initial=2, storage=tmp_path / "runs.db", name="job")
    for value in (1.0, 0.5):
        optimizer.tell(optimizer.ask(), value)
    optimizer.ask()
    optimizer.close()
    resumed = Optimizer.resume(tmp_path / "runs.db", "job", strategy=QUICK["ei"])
    before = resumed.fit_report
    assert resumed.ask().origin == "model:ei"
    assert resumed.fit_report is before


def test_a_space_that_was_used_up_is_used_up_after_resuming(tmp_path: Path) -> None:
    space = Space(Integer("depth", 1, 3))
    optimizer = Optimizer(space, "random", storage=tmp_path / "runs.db", name="job")
    optimizer.ask(3)
    optimizer.close()
    with pytest.raises(SpaceExhausted):
        Optimizer.resume(tmp_path / "runs.db", "job").ask()


@pytest.mark.parametrize("written", [b"\x00\x11", b"", None])
def test_a_fit_that_cannot_be_read_is_made_anew_and_no_trial_is_lost(
    written: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Damaged, empty, or cut off in the middle."""
    path = tmp_path / "runs.db"
    with Optimizer(SPACE, QUICK["ei"], initial=2, storage=path, name="job") as optimizer:
        for _ in range(4):
            trial = optimizer.ask()
            optimizer.tell(trial, loss(trial.params))
        trials = optimizer.trials
    if written is None:
        engine = SqliteStorage(path).read("job").engine
        assert engine is not None
        written = engine[: len(engine) // 2]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE job SET engine = ?", (written,))
    with Optimizer.resume(path, "job") as resumed:
        assert "job 'job': its last fit cannot be read and is ignored" in caplog.text
        assert resumed.trials == trials
        assert resumed.fit_report is None
        assert resumed.ask().origin == "model:ei"


def test_a_strategy_and_a_model_with_options_are_stored(tmp_path: Path) -> None:
    fixed = replace(resolve_prior("botorch"), mean=Fixed(0.0))
    options: dict[str, Any] = {
        "strategy": ThompsonSampling(SEARCH, features=64, region=None),
        "model": Model(1.5, fixed),
        "inference": "map",
        "initial": 3,
    }
    whole = Optimizer(SPACE, **options)
    parts = Optimizer(SPACE, **options, storage=tmp_path / "runs.db", name="job")
    for step in range(4):
        act(whole, step)
        act(parts, step)
        parts.close()
        parts = Optimizer.resume(tmp_path / "runs.db", "job")
        assert (parts.strategy, parts.model) == (whole.strategy, whole.model)
        assert facts(parts) == facts(whole)
    assert parts.ask().origin == "model:ts"


@pytest.mark.parametrize("inference", ["hmc", "map"])
def test_another_model_begins_anew_and_is_the_stored_one_then(
    inference: Any, tmp_path: Path
) -> None:
    stored: dict[str, Any] = {"storage": tmp_path / "runs.db", "name": "job"}
    first = Optimizer(LINE, QUICK["ei"], inference=inference, initial=3, **stored)
    for _ in range(5):
        trial = first.ask()
        first.tell(trial, trial.params["x"] ** 2)
    first.close()
    usual = resolve_prior("dimension-scaled")
    known = Model(1.5, replace(usual, lengthscale=Fixed(0.25), noise_variance=Fixed(1e-4)))
    Optimizer.resume(**stored, strategy="ts", model=known).close()
    assert SqliteStorage(stored["storage"]).read("job").engine is None
    again = Optimizer.resume(**stored)
    assert again.fit_report is None
    assert again.fit().surrogate.lengthscale.unique().tolist() == [0.25]
    again.ask()
    again.close()
    after = Optimizer.resume(**stored)
    assert (after.strategy.name, after.model) == ("ts", known)
    assert after.fit_report is not None
    assert len(after.trials) == 6


@dataclass(frozen=True)
class Own(ExpectedImprovement):
    """A strategy of a user's own."""


def test_what_is_not_stored_must_be_given_again(tmp_path: Path) -> None:
    search = Own(SEARCH)
    Optimizer(SPACE, search, storage=tmp_path / "runs.db", name="job").close()
    with pytest.raises(InvalidOption, match="strategy=None"):
        Optimizer.resume(tmp_path / "runs.db", "job")
    resumed = Optimizer.resume(tmp_path / "runs.db", "job", strategy=search)
    assert resumed.strategy == search


def test_a_cell_that_is_run_again_goes_on_with_its_job(tmp_path: Path) -> None:
    options: dict[str, Any] = {"storage": tmp_path / "runs.db", "name": "job", "exist_ok": True}
    first = Optimizer(SPACE, "random", **options)
    first.tell(first.ask(), 1.0)
    for again in (
        lambda: Optimizer(SPACE, "random", **options),
        lambda: Optimizer.resume(tmp_path / "runs.db", "job"),
    ):
        optimizer = again()
        with pytest.raises(StorageError, match="closed"):
            first.ask()
        assert optimizer.best is not None
        first = optimizer
    first.ask()


def test_a_job_that_another_process_made_in_the_meantime_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"strategy": "random", "storage": tmp_path / "runs.db", "name": "job"}
    create = SqliteStorage.create

    def create_second(store: SqliteStorage, name: str, spec: Any) -> Any:
        monkeypatch.setattr(SqliteStorage, "create", create)
        store.create(name, spec).close()
        return store.create(name, spec)

    monkeypatch.setattr(SqliteStorage, "create", create_second)
    assert Optimizer(SPACE, **options, exist_ok=True).ask().id == 0


def test_a_job_that_cannot_be_made_is_not_taken_for_one_that_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SqliteStorage(tmp_path / "runs.db").create("other", {}).close()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(StorageError, match="readonly database"):
        Optimizer(SPACE, storage=tmp_path / "runs.db", name="job", exist_ok=True)


def test_an_array_is_no_name_of_a_job_that_there_is(tmp_path: Path) -> None:
    SqliteStorage(tmp_path / "runs.db").create("other", {}).close()
    name: Any = np.array(["other", "job"])
    with unchecked_shapes(), pytest.raises(InvalidOption, match=r"name=array.*: expected 1 to 100"):
        Optimizer(SPACE, storage=tmp_path / "runs.db", name=name, exist_ok=True)


def test_a_job_that_is_another_one_stays_with_the_optimizer_that_has_it(tmp_path: Path) -> None:
    options: dict[str, Any] = {"storage": tmp_path / "runs.db", "name": "job", "exist_ok": True}
    first = Optimizer(LINE, "sobol", **options)
    for other in ({"space": SPACE}, {"seed": 3}):
        with pytest.raises(InvalidOption):
            Optimizer(**{"space": LINE, "strategy": "sobol", **options, **other})
    assert first.ask().id == 0


def test_a_job_of_before_there_were_constraints_is_one_without(tmp_path: Path) -> None:
    store = SqliteStorage(tmp_path / "runs.db")
    options: dict[str, Any] = {"storage": store, "name": "job", "exist_ok": True}
    Optimizer(LINE, "sobol", **options).close()
    journal = store.open("job")
    journal.write(spec={k: v for k, v in journal.read().spec.items() if k != "constraints"})
    journal.close()
    with Optimizer(LINE, "sobol", **options) as again:
        assert not again.constraints


def test_a_script_that_is_run_again_goes_on_with_its_job(tmp_path: Path) -> None:
    options: dict[str, Any] = {"strategy": QUICK["ei"], "inference": "map", "initial": 3}
    stored = options | {"storage": tmp_path / "runs.db", "name": "job", "exist_ok": True}
    uninterrupted = Optimizer(SPACE, **options)
    for step in range(3):
        again = Optimizer(SPACE, **stored)
        for optimizer in (uninterrupted, again):
            act(optimizer, step)
        assert facts(again) == facts(uninterrupted)
        again.close()


@pytest.mark.parametrize(
    ("option", "other"),
    [
        ("space", LINE),
        ("space", Space(SPACE.parameters[::-1])),
        ("direction", "maximize"),
        ("seed", 7),
        ("initial", 11),
        ("inference", "map"),
    ],
)
def test_a_stored_job_goes_on_with_the_options_that_it_began_with(
    option: str, other: Any, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"space": SPACE, "initial": 3}
    options |= {"storage": tmp_path / "runs.db", "name": "job", "exist_ok": True}
    Optimizer(**options).close()
    with pytest.raises(InvalidOption, match=f"{option}=.*the stored job 'job' has"):
        Optimizer(**{**options, option: other})
    Optimizer(**{**options, "strategy": "ts"}).close()  # it was let go of, and may be searched so
    with unchecked_shapes(), pytest.raises(InvalidOption, match="exist_ok='yes': expected True"):
        Optimizer(**{**options, "exist_ok": "yes"})


@pytest.mark.parametrize(
    ("stored", "given", "told"),
    [
        (["a", "b", "c"], ["c", "b", "a"], "space=['c', 'b', 'a']: the stored job 'job' has ['a',"),
        ([True, False], [1, 0], "space={'f': {'type': 'categorical', 'choices': [1, 0]}}: the st"),
    ],
)
def test_a_space_that_only_looks_like_the_stored_one_is_another(
    stored: list[Any], given: list[Any], told: str, tmp_path: Path
) -> None:
    def space(of: list[Any]) -> Space:
        if isinstance(of[0], str):
            return Space([Real(name, 0, 1) for name in of])
        return Space(Categorical("f", of))

    options: dict[str, Any] = {"storage": tmp_path / "runs.db", "name": "job", "exist_ok": True}
    Optimizer(space(stored), **options).close()
    with pytest.raises(InvalidOption, match=re.escape(told)):
        Optimizer(space(given), **options)


@pytest.mark.parametrize("options", [{"storage": "runs.db"}, {"name": "job"}])
def test_a_storage_and_a_name_belong_together(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match="expected both or neither"):
        Optimizer(SPACE, **options)


def test_a_name_is_given_once(tmp_path: Path) -> None:
    Optimizer(SPACE, storage=tmp_path / "runs.db", name="job").close()
    with pytest.raises(StorageError, match="already has a job of this name"):
        Optimizer(SPACE, storage=tmp_path / "runs.db", name="job")


def test_what_could_not_be_written_did_not_happen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimizer = Optimizer(SPACE, "random", storage=tmp_path / "runs.db", name="job")
    trial = optimizer.ask()
    before = facts(optimizer)

    def full(**news: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(optimizer._journal, "write", full)
    for action in (
        optimizer.ask,
        lambda: optimizer.tell(trial, 1.0),
        lambda: optimizer.fail(trial),
        lambda: optimizer.add(trial.params, 1.0),
        lambda: optimizer.enqueue(trial.params),
    ):
        with pytest.raises(OSError, match="no space left"):
            action()
    assert facts(optimizer) == before
    monkeypatch.undo()
    assert optimizer.ask().origin == "random"
    assert optimizer.tell(trial, 1.0).status is TrialStatus.COMPLETED


# --- planning in another thread


def told(count: int) -> Optimizer:
    optimizer = Optimizer(SPACE, strategy=QUICK["ei"], inference="map", initial=3)
    for _ in range(count):
        trial = optimizer.ask()
        optimizer.tell(trial, loss(trial.params))
    return optimizer


def test_a_plan_changes_nothing_and_its_answer_is_what_ask_gives() -> None:
    one, other = told(5), told(5)
    chosen = one.plan(2)()
    assert len(one.trials) == 5
    assert [t.params for t in one.register(chosen)] == [t.params for t in other.ask(2)]
    with pytest.raises(InvalidOption, match=r"chosen\.index=5: expected 7"):
        one.register(chosen)


def test_results_may_come_between_a_plan_and_its_registration() -> None:
    optimizer = told(5)
    pending = optimizer.ask()
    chosen = optimizer.plan(1)()
    optimizer.tell(pending, 0.5)
    assert optimizer.register(chosen)[0].status is TrialStatus.PENDING


def test_without_refit_the_last_draws_serve_on_all_results() -> None:
    """A posterior conditioned on everything, so nothing known is proposed as if it were not."""
    optimizer = told(6)
    before = optimizer.fit_report
    chosen = optimizer.plan(1, refit=False)()
    assert chosen.fitted is not None
    assert chosen.fitted.fit.surrogate.x.shape[1] == 6
    assert chosen.fitted.kept.size == 5
    optimizer.register(chosen)
    assert optimizer.fit_report is before
    optimizer.adopt(optimizer.plan_fit()())
    assert optimizer.fit_report is not before


def test_a_fit_that_was_adopted_is_there_after_resuming(tmp_path: Path) -> None:
    stored: dict[str, Any] = {"storage": tmp_path / "runs.db", "name": "job"}
    with Optimizer(LINE, QUICK["ei"], inference="map", **stored) as optimizer:
        for x in (0.1, 0.4, 0.5, 0.7, 0.9):
            optimizer.add({"x": x}, x**2)
        optimizer.adopt(optimizer.plan_fit()())
    assert Optimizer.resume(**stored).fitted_size == 5


def test_a_fit_that_was_kept_before_chains_rested_goes_on() -> None:
    """Its chains move at the next one, as they would have then."""
    optimizer = Optimizer(LINE, QUICK["ei"], inference="hmc")
    for x in (0.1, 0.4, 0.5, 0.7):
        optimizer.add({"x": x}, x**2)
    kept = optimizer.plan_fit()().kept
    assert kept.warm is not None
    kept = replace(kept, warm=replace(kept.warm, moved=kept.warm.afresh + 1))
    assert kept.warm is not None
    written = torch.load(io.BytesIO(kept.to_bytes()), weights_only=True)
    del written["warm"]["moved"]
    old = io.BytesIO()
    torch.save(written, old)
    read = Kept.from_bytes(old.getvalue(), torch.device("cpu"))
    assert read.warm is not None
    assert torch.equal(read.warm.moved, kept.warm.afresh)
    assert torch.equal(read.warm.warmth.position, kept.warm.warmth.position)


def test_draws_carried_to_other_results_predict_the_same_in_the_users_units() -> None:
    """The same results and one more of the same distribution's mean: new standardisation, same
    posterior mean and spread far from the data."""
    optimizer = told(6)
    fitted = optimizer.plan_fit()()
    old = optimizer.observations()
    optimizer.add({"rate": 1e-4, "depth": 5, "kind": "a"}, 20.0)
    new = optimizer.observations()
    kept = fitted.kept
    carried = kept.condition(new, 2.5).surrogate
    units, was = new.units.scale[:, None], old.units.scale[:, None]
    assert (carried.outputscale * units**2).allclose(kept.outputscale * was**2)
    assert (carried.noise_variance * units**2).allclose(kept.noise_variance * was**2)
    assert new.units.back(carried.mean).allclose(old.units.back(kept.mean))


def own_model(concentration: float, **others: Any) -> Model:
    lengthscale = gp.GammaPrior(concentration, 1000.0)
    return Model(prior=HyperparameterPrior(lengthscale=lengthscale, **others))


@pytest.mark.parametrize("inference", ["hmc", "map"])
def test_a_model_of_the_users_own_goes_on_and_another_starts_anew(
    inference: Any, tmp_path: Path
) -> None:
    path, options = tmp_path / "runs.db", {"inference": inference, "strategy": QUICK["ei"]}
    with Optimizer(LINE, model=own_model(300.0), storage=path, name="job", **options) as made:
        for _ in range(7):
            made.tell(made.ask(), made.pending[0].params["x"])
        expected = [made.plan(1, refit=refit)().configurations for refit in (True, False)]
    with Optimizer.resume(path, "job", model=own_model(300.0)) as again:
        assert again.fitted_size == made.fitted_size == 6
        assert [again.plan(1, refit=r)().configurations for r in (True, False)] == expected
    for model in (own_model(900.0), own_model(300.0, noise_variance=Fixed(1e-3))):
        with Optimizer.resume(path, "job", model=model) as other:
            assert other.fitted_size == 0
            fresh = Optimizer(LINE, model=model, **options)
            fresh.learn([(trial.params, trial.value) for trial in made.completed])
            found, anew = other.fit().surrogate, fresh.fit().surrogate
            assert found.lengthscale.tolist() == anew.lengthscale.tolist()


class Interrupting:
    """A journal after whose next write Ctrl-C arrives, as it does when it came during a commit."""

    def __init__(self, journal: Any) -> None:
        self.journal, self.due = journal, True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.journal, name)

    def write(self, **what: Any) -> None:
        self.journal.write(**what)
        if self.due:
            self.due = False
            raise KeyboardInterrupt


INTERRUPTED: dict[str, Any] = {
    "ask": lambda optimizer: optimizer.ask(2),
    "ask for what is enqueued": lambda optimizer: optimizer.ask(1),
    "tell": lambda optimizer: optimizer.tell(2, 0.1),
    "fail": lambda optimizer: optimizer.fail(2, "no power"),
    "add": lambda optimizer: optimizer.learn([({"x": 0.1}, 1.0), ({"x": 0.2}, -9.0)]),
    "enqueue": lambda optimizer: optimizer.enqueue({"x": 0.875}),
    "fit": lambda optimizer: optimizer.adopt(optimizer.plan_fit()()),
}


@pytest.mark.parametrize("call", INTERRUPTED)
def test_what_was_written_as_ctrl_c_came_is_remembered(call: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"strategy": QUICK["ei"], "inference": "map", "initial": 2}
    optimizer = Optimizer(LINE, storage=tmp_path / "runs.db", name="job", **options)
    optimizer.ask(4)
    optimizer.tell(1, 0.5)
    if "enqueued" in call:
        optimizer.enqueue({"x": 0.75})
    optimizer._journal = Interrupting(optimizer.journal)
    with pytest.raises(KeyboardInterrupt):
        INTERRUPTED[call](optimizer)
    with Optimizer.of_record(optimizer.journal.read()) as stored:  # type: ignore[union-attr]
        assert facts(optimizer) == facts(stored)
    for trial in (0, 3, 2):
        if trial in [each.id for each in optimizer.pending]:
            optimizer.tell(trial, 0.25 * trial)
    optimizer.tell(optimizer.ask(), 0.125)
    optimizer.close()
    with Optimizer.resume(tmp_path / "runs.db", "job") as again:
        assert facts(again) == facts(optimizer)
        assert [t.id for t in again.finished] == [t.id for t in optimizer.finished]
        assert (again.queue, again.fitted_size) == (optimizer.queue, optimizer.fitted_size)
        assert again.plan(1)().configurations == optimizer.plan(1)().configurations
