"""Job files: a job or a message that names each mistake, never anything else; and warm starts."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpbo.completion import Completion, MedianRule
from gpbo.errors import GpboError, InvalidData, InvalidJob, InvalidOption, UnknownJob
from gpbo.evidence import Model
from gpbo.hyperparameters import HyperparameterPrior
from gpbo.job import Job, check_job, read_job
from gpbo.job_file import read_file
from gpbo.optimizer import Optimizer
from gpbo.options import read_model, read_strategy
from gpbo.priors import Fixed
from gpbo.record import Record
from gpbo.space import Integer, Real, Space
from gpbo.storage import SqliteStorage
from gpbo.strategies import NestedBoxes, ThompsonSampling
from gpbo.transfer import StartKind, started_from, warm_start
from gpbo.tuner import Execution
from gpbo.worker import Command, Imported
from tests.monte_carlo import unchecked_shapes

X = {"type": "real", "low": 0, "high": 1}
SMALL: dict[str, Any] = {"name": "job", "objective": "train:loss", "budget": 3, "space": {"x": X}}


def test_a_file_with_everything_is_read(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(
        r"""
name = "svm"
command = "python train.py --lr {lr} --kind {kind}"
metric = 'loss: (\S+)'
direction = "maximize"
budget = 50
seed = 7
initial = 4
inference = "map"
storage = "other.db"

[space.lr]
type = "real"
low = 1e-5
high = 1
scale = "log"

[space.kind]
type = "categorical"
choices = ["a", 2, true]

[strategy]
name = "ts"
region = {name = "boxes", lengths = [inf, 0.5]}

[model]
nu = 1.5

[model.prior]
noise_variance = {name = "fixed", value = 1e-4}

[execution]
workers = 4
mode = "sync"
time_limit_s = 600
retries = 1
gpus = ["0", "1"]
early_stopping = {trials = 4, steps = 2}

[completion]
target = 0.01
patience = 20
tolerance = 0.01
runtime_s = 3600

[[warm_start]]
job = "before"
kind = "transfer"
"""
    )
    job = read_job(tmp_path / "job.toml")
    assert job.target() == Command("python train.py --lr {lr} --kind {kind}", r"loss: (\S+)")
    assert (job.direction, job.budget, job.seed) == ("maximize", 50, 7)
    assert read_strategy(job.strategy) == ThompsonSampling(region=NestedBoxes((math.inf, 0.5)))
    model = read_model(job.model)
    assert isinstance(model.prior, HyperparameterPrior)
    assert (model.nu, model.prior.noise_variance) == (1.5, Fixed(1e-4))
    rule = job.execution.early_stopping
    assert isinstance(job.execution, Execution)
    assert isinstance(rule, MedianRule)
    assert (rule.trials, rule.steps) == (4, 2)
    assert (job.execution.workers, job.execution.mode, job.execution.gpus) == (
        4,
        "sync",
        ["0", "1"],
    )
    assert isinstance(job.completion, Completion)
    assert (job.completion.target, job.completion.runtime_s) == (0.01, 3600.0)
    assert job.warm_start[0].kind == "transfer"


def test_a_command_may_format_what_its_space_has() -> None:
    space = {"act": {"type": "categorical", "choices": ["relu", "elu"]}}
    content = {**SMALL, "objective": None, "command": "train {act:s}", "space": space}
    check_job({key: value for key, value in content.items() if value is not None})


def test_what_is_left_out_has_its_default() -> None:
    job = check_job(SMALL)
    assert job.target() == Imported("train:loss")
    assert (job.strategy, job.inference, job.storage) == ("ei", "hmc", "gpbo.db")
    assert job.execution.workers == 1
    assert job.completion.patience is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": None}, "job: budget: missing"),
        ({"budget": 0}, "job: budget = 0: expected a whole number, 1 or more"),
        ({"budget": "7"}, "job: budget = '7': expected a whole number"),
        ({"budgt": 7}, "job: budgt: unknown key: expected one of name, space, objective"),
        ({"strategy": "bayes"}, "job: strategy='bayes': expected one of 'ei', 'pi'"),
        ({"strategy": {"name": "ei", "margin": -1.0}}, "job: strategy 'ei': margin=-1.0: expected"),
        ({"model": {"nu": 1.0}}, "job: model: nu=1.0: expected one of (0.5, 1.5, 2.5)"),
        ({"direction": "up"}, "job: direction = 'up': expected 'minimize' or 'maximize'"),
        ({"space": {}}, "space = {}: expected at least one parameter"),
        ({"space": {"x": {**X, "high": -1}}}, "low=0.0, high=-1.0"),
        ({"space": {"x": {**X, "step": 1}}}, "x: unknown 'step': expected one of low, high, scale"),
        ({"space": {"x": 3}}, "job: space.x = 3: expected a table"),
        ({"objective": "train.py"}, "objective='train.py': expected 'module:function'"),
        ({"objective": None}, "expected either objective"),
        ({"command": "train {x}"}, "expected either objective"),
        ({"objective": None, "command": "train {y}"}, "'y': expected in braces one of x"),
        ({"objective": None, "command": "train {x:d}"}, "format code 'd'"),
        ({"objective": None, "command": "a", "metric": "("}, "metric='('"),
        ({"metric": "(.)"}, "metric = '(.)': expected only together with a command"),
        ({"execution": {"workers": 0}}, "workers=0: expected a whole number, 1 or more"),
        ({"execution": {"workers": 1.5}}, "job: execution.workers = 1.5: "),
        ({"execution": {"worker": 1}}, "job: execution.worker: unknown key: expected one of worke"),
        ({"execution": {"early_stopping": {"steps": 0}}}, "steps=0: expected a whole number, 1 or"),
        ({"completion": {"patience": 0}}, "patience=0: expected a whole number"),
        (
            {"completion": {"tolerance": 0.1}},
            "tolerance=0.1, patience=None: a tolerance has an effect only with patience",
        ),
        ({"completion": {"target": "low"}}, "job: completion.target = 'low': "),
        ({"warm_start": [{}]}, "job: warm_start[0].job: missing"),
        ({"warm_start": [{"job": "a"}] * 6}, "at most 5 items"),
        ({"name": 3}, "job: name = 3: expected a string"),
        ({"constraints": "m <= 1"}, "job: constraints = 'm <= 1': expected a list"),
        ({"constraints": ["m < 1"]}, "job: constraints: 'm < 1': expected a name, <= or >=, and"),
        ({"constraints": [0.5]}, "job: constraints[0] = 0.5: expected a string"),
        ({"execution": 3}, "job: execution = 3: expected a table of its options"),
        (
            {"execution": {"workers": -1}},
            "job: execution.workers=-1: expected a whole number, 1 or",
        ),
        ({"execution": {"workers": 1.5}}, "job: execution.workers = 1.5: expected a whole number"),
        ({"execution": {"early_stopping": True}}, "early_stopping = True: expected a table of its"),
        (
            {"execution": {"early_stopping": {"steps": 0}}},
            "job: execution.early_stopping.steps=0: ",
        ),
        ({"execution": {"gpus": 0}}, "job: execution.gpus = 0: expected a list"),
        ({"execution": {"gpus": ["0", 1]}}, "job: execution.gpus[1] = 1: expected a string"),
        ({"execution": {"env": {"SEED": 3}}}, "job: execution.env.SEED = 3: expected a string"),
        ({"completion": {"target": "low"}}, "job: completion.target = 'low': expected a number"),
        ({"warm_start": ["a"]}, "job: warm_start[0] = 'a': expected a table of its options"),
    ],
)
def test_a_mistake_is_named_with_its_key(change: dict[str, Any], message: str) -> None:
    content = {key: value for key, value in {**SMALL, **change}.items() if value is not None}
    with pytest.raises(InvalidJob) as caught:
        check_job(content)
    assert message in str(caught.value)
    assert "pydantic" not in str(caught.value)
    assert "nput should be" not in str(caught.value)


def test_several_mistakes_are_all_named() -> None:
    wrong = {**SMALL, "budget": 0, "seed": -1, "space": {"x": {}, "y": {"type": "real"}}}
    with pytest.raises(InvalidJob) as caught:
        check_job(wrong, "job.toml")
    text = str(caught.value)
    for part in ("job.toml: budget = 0", "job.toml: seed = -1", "x: type=None", "y: missing low"):
        assert part in text


@pytest.mark.parametrize("text", ["name = ", "\xff", 'name = "a"\nname = "b"'])
def test_a_file_that_is_no_toml_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(text, encoding="latin-1")
    with pytest.raises(InvalidJob, match=r"job\.toml"):
        read_job(tmp_path / "job.toml")
    with pytest.raises(InvalidJob, match=r"none\.toml"):
        read_job(tmp_path / "none.toml")


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text('name = "größer"', encoding="utf-8-sig")
    assert read_file(tmp_path / "job.toml") == {"name": "größer"}


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["real", "integer", "categorical", "log", "train:loss", "ei", "{x}"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "low", "high", "scale", "choices", "values", "workers", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=6,
)
FUZZED = st.dictionaries(st.sampled_from(list(Job.model_fields)), VALUES, max_size=5)


def check_fuzzed(change: dict[str, Any]) -> None:
    try:
        job = check_job({**SMALL, **change})
    except InvalidJob:
        return
    try:
        optimizer = Optimizer(
            Space([*_space(job).parameters]),
            read_strategy(job.strategy),
            seed=job.seed,
            inference="map",
        )
        trial = optimizer.ask()
        optimizer.tell(trial, 1.0)
    except GpboError:
        return
    assert optimizer.space.validate(trial.params) == trial.params


def _space(job: Job) -> Space:
    from gpbo.spec import read_space

    return read_space(job.space)


@settings(max_examples=150, deadline=None)
@given(FUZZED)
def test_any_file_is_a_job_or_a_message(change: dict[str, Any]) -> None:
    check_fuzzed(change)


@pytest.mark.long
@settings(max_examples=10_000, deadline=None)
@given(FUZZED)
def test_ten_thousand_files_are_jobs_or_messages(change: dict[str, Any]) -> None:
    check_fuzzed(change)


# --- running


def job_in(folder: Path, **change: Any) -> Job:
    (folder / "train.py").write_text("def loss(params):\n    return params['x'] ** 2\n")
    return check_job({**SMALL, "strategy": "sobol", **change})


def test_a_job_runs_and_is_resumed_with_a_larger_budget(tmp_path: Path) -> None:
    result = job_in(tmp_path).tuner(tmp_path, resume=False).run()
    assert len(result.trials) == 3
    result.optimizer.close()
    tuner = job_in(tmp_path, budget=5).tuner(tmp_path, resume=True)
    assert len(tuner.run().trials) == 5
    tuner.optimizer.close()
    with pytest.raises(InvalidJob, match="the stored job 'job' has 'minimize'"):
        job_in(tmp_path, direction="maximize").tuner(tmp_path, resume=True)
    for change, message in (
        ({"space": {"y": X}}, "space={"),
        ({"seed": 7}, "seed=7: the stored job 'job' has 0"),
        ({"inference": "map"}, "inference='map': the stored job 'job' has 'hmc'"),
        ({"initial": 9}, "initial=9: the stored job 'job' has 1"),
    ):
        with pytest.raises(InvalidJob, match=message):
            job_in(tmp_path, **change).tuner(tmp_path, resume=True)
    with pytest.raises(UnknownJob):
        job_in(tmp_path, name="other").tuner(tmp_path, resume=True)


def test_a_job_has_the_strategy_and_the_model_of_its_file(tmp_path: Path) -> None:
    grid = {"name": "grid", "points_per_real": 3, "shuffle": False}
    model = {"nu": 0.5, "prior": {"mean": {"name": "fixed", "value": 0.0}}}
    tuner = job_in(tmp_path, strategy=grid, model=model).tuner(tmp_path, resume=False)
    assert [trial.params["x"] for trial in tuner.run().trials] == [0.0, 0.5, 1.0]
    tuner.optimizer.close()
    resumed = job_in(tmp_path, budget=5).tuner(tmp_path, resume=True).optimizer
    assert resumed.model == read_model(model)
    resumed.close()
    other = job_in(tmp_path, budget=5, model={"nu": 1.5}).tuner(tmp_path, resume=True).optimizer
    assert other.model == Model(1.5)


def test_a_job_starts_from_finished_ones(tmp_path: Path) -> None:
    before = job_in(tmp_path).tuner(tmp_path, resume=False).run()
    again = job_in(tmp_path, name="again", warm_start=[{"job": "job"}])
    trials = again.tuner(tmp_path, resume=False).run().optimizer.trials
    assert [t.origin for t in trials] == ["added"] * 3 + ["sobol"] * 3
    assert len({t.params["x"] for t in trials}) == 6
    related = job_in(tmp_path, name="related", warm_start=[{"job": "job", "kind": "transfer"}])
    first = related.tuner(tmp_path, resume=False).run().optimizer.trials[0]
    assert before.best is not None
    assert (first.origin, first.params) == ("enqueued", before.best.params)


def test_a_job_that_cannot_begin_leaves_none_behind(tmp_path: Path) -> None:
    """So that it can begin when its mistake is corrected."""
    store = SqliteStorage(tmp_path / "gpbo.db")
    Optimizer(Space(Real("x", 0, 1)), storage=store, name="empty").close()
    nowhere = {"job": "empty", "storage": "typo.db"}
    command = {"objective": None, "command": "no-such-program {x}"}
    for change, error in (
        ({"warm_start": [{"job": "typo"}]}, UnknownJob),
        ({"warm_start": [nowhere]}, UnknownJob),
        ({"warm_start": [{"job": "empty"}]}, InvalidData),
        (command, InvalidOption),
    ):
        with pytest.raises(error):
            job_in(tmp_path, **change).tuner(tmp_path, resume=False)
    assert store.names() == ["empty"]
    assert not (tmp_path / "typo.db").exists()
    job_in(tmp_path).tuner(tmp_path, resume=False)


def test_a_program_of_a_job_is_looked_for_where_its_workers_will_find_it(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "run.sh").chmod(0o755)
    change: dict[str, Any] = {"objective": None, "command": "run.sh {x}"}
    with pytest.raises(InvalidOption, match=r"'run\.sh' cannot be found"):
        job_in(tmp_path, **change).tuner(tmp_path, resume=False)
    change["execution"] = {"env": {"PATH": str(tmp_path)}}
    job_in(tmp_path, **change).tuner(tmp_path, resume=False)


def test_a_job_that_died_before_its_warm_start_has_it_when_it_is_resumed(tmp_path: Path) -> None:
    job_in(tmp_path).tuner(tmp_path, resume=False).run().optimizer.close()
    starts = [{"job": "job"}, {"job": "job", "kind": "transfer"}]
    options: dict[str, Any] = {"name": "again", "warm_start": starts}
    store = SqliteStorage(tmp_path / "gpbo.db")
    store.create("again", store.read("job").spec).close()  # and then the power failed
    for _ in range(2):
        tuner = job_in(tmp_path, **options).tuner(tmp_path, resume=True)
        assert len(tuner.optimizer.trials) == 3
        assert len(tuner.optimizer.queue) == 1
        tuner.optimizer.close()


def test_a_resumed_job_has_something_of_every_job_that_its_file_starts_from(tmp_path: Path) -> None:
    names = "job", "related", "other"
    for number, name in enumerate(names):
        job_in(tmp_path, name=name, seed=number).tuner(
            tmp_path, resume=False
        ).run().optimizer.close()
    starts = [{"job": "job"}, {"job": "related", "kind": "transfer"}]
    options: dict[str, Any] = {"name": "again", "warm_start": starts}
    job_in(tmp_path, **options).tuner(tmp_path, resume=False).optimizer.close()

    def resume(**changes: Any) -> None:
        job_in(tmp_path, **{**options, **changes}).tuner(tmp_path, resume=True).optimizer.close()

    resume()  # what was enqueued is not asked yet
    job_in(tmp_path, **options).tuner(tmp_path, resume=True).run().optimizer.close()
    # A parent has gone on since.
    job_in(tmp_path, budget=9).tuner(tmp_path, resume=True).run().optimizer.close()
    resume()
    resume(warm_start=[])
    for changed in (
        [*starts, {"job": "other"}],
        [{"job": "job", "kind": "transfer"}],
        [{"job": "related"}],
    ):
        with pytest.raises(
            InvalidJob, match=f"warm_start: .* did not start from '{changed[-1]['job']}'"
        ):
            resume(warm_start=changed)
    resume(warm_start=[*starts, {"job": "gone"}, {"job": "gone", "storage": "no/folder.db"}])


def test_a_job_with_nothing_but_a_queue_has_begun(tmp_path: Path) -> None:
    """And needs no job that it started from any more."""
    job_in(tmp_path).tuner(tmp_path, resume=False).run().optimizer.close()
    starts = [{"job": "job", "kind": "transfer"}]
    again = job_in(tmp_path, name="again", warm_start=starts)
    again.tuner(tmp_path, resume=False).optimizer.close()
    resumed = job_in(tmp_path, name="again", warm_start=[*starts, {"job": "gone"}])
    with resumed.tuner(tmp_path, resume=True).optimizer as optimizer:
        assert (optimizer.trials, len(optimizer.queue)) == ([], 1)


def test_the_jobs_to_start_from_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_in(tmp_path).tuner(tmp_path, resume=False).run()
    names, read = [], SqliteStorage.read

    def noting(store: SqliteStorage, name: str) -> Record:
        names.append(name)
        return read(store, name)

    monkeypatch.setattr(SqliteStorage, "read", noting)
    job_in(tmp_path, name="again", warm_start=[{"job": "job"}]).tuner(tmp_path, resume=False)
    assert names == ["job"]


def test_a_warm_start_from_more_jobs_than_five_is_refused(tmp_path: Path) -> None:
    store = SqliteStorage(tmp_path / "runs.db")
    store.create("parent", {}).close()
    with pytest.raises(InvalidData, match="job 'parent' has no result"):
        warm_start(Optimizer(Space(Integer("n", 0, 9))), [(store.read("parent"), "same")] * 5)
    with pytest.raises(InvalidOption, match="6 jobs to start from: expected at most 5"):
        warm_start(Optimizer(Space(Integer("n", 0, 9))), [(store.read("parent"), "same")] * 6)


def test_a_warm_start_is_from_all_jobs_or_from_none(tmp_path: Path) -> None:
    store, space = SqliteStorage(tmp_path / "runs.db"), Space(Integer("n", 0, 9))
    Optimizer(space, storage=store, name="parent").add({"n": 2}, 1.0)
    Optimizer(space, storage=store, name="empty").close()
    child, parent = Optimizer(space), store.read("parent")
    parents: list[Any] = [(parent, "same"), (parent, "transfer")]
    unlike: Any = "likely"
    with unchecked_shapes(), pytest.raises(InvalidOption, match="kind='likely': expected 'same'"):
        warm_start(child, [*parents, (parent, unlike)])
    with pytest.raises(InvalidData, match="job 'empty' has no result in this space"):
        warm_start(child, [*parents, (store.read("empty"), "same")])
    assert (child.trials, child.queue) == ([], [])
    assert warm_start(child, parents) == 2


def test_a_warm_start_takes_what_fits_the_space(tmp_path: Path) -> None:
    store = SqliteStorage(tmp_path / "runs.db")
    parent = Optimizer(Space(Integer("n", 0, 9)), "sobol", storage=store, name="parent")
    for number in (2, 8):
        parent.add({"n": number}, -float(number))
    parent.fail(parent.ask())
    child = Optimizer(Space(Integer("n", 5, 20)))
    assert warm_start(child, [(store.read("parent"), "same")]) == 1
    assert [(t.params, t.value) for t in child.trials] == [({"n": 8}, -8.0)]
    with pytest.raises(InvalidData, match="no result in this space"):
        warm_start(Optimizer(Space(Real("n", 0.25, 0.75))), [(store.read("parent"), "same")])


def test_what_a_job_had_from_another_counts_once(tmp_path: Path) -> None:
    """In any order of them; what one was told twice counts twice."""
    store, space = SqliteStorage(tmp_path / "runs.db"), Space(Integer("n", 0, 9))
    first = Optimizer(space, storage=store, name="first")
    first.add({"n": 2}, 1.0)
    first.add({"n": 2}, 1.0)
    for number in (3, 4):
        first.enqueue({"n": number})
        first.tell(first.ask(), float(number))
    second = Optimizer(space, storage=store, name="second")
    assert warm_start(second, [(store.read("first"), "same")]) == 4
    second.enqueue({"n": 5})
    second.tell(second.ask(), 5.0)
    second.add({"n": 4}, 4.5)
    parents: list[tuple[Record, StartKind]] = [
        (store.read(name), "same") for name in ("first", "second")
    ]
    for order in (parents, parents[::-1]):
        child = Optimizer(space)
        assert warm_start(child, order) == 6
        results = sorted((trial.params["n"], trial.value) for trial in child.trials)
        assert results == [(2, 1.0), (2, 1.0), (3, 3.0), (4, 4.0), (4, 4.5), (5, 5.0)]
    both: list[tuple[Record, StartKind]] = [(parent, "transfer") for parent, _ in parents]
    asked = Optimizer(space)
    assert warm_start(asked, both) == 1
    assert asked.queue == [{"n": 2}]


def test_what_two_jobs_have_measured_counts_twice(tmp_path: Path) -> None:
    store, space = SqliteStorage(tmp_path / "runs.db"), Space(Integer("n", 0, 9))
    for name in ("first", "second"):
        measuring = Optimizer(space, storage=store, name=name)
        measuring.enqueue({"n": 3})
        measuring.tell(measuring.ask(), 3.0)
    parents: list[Any] = [(store.read(name), "same") for name in ("first", "second")]
    assert warm_start(Optimizer(space), parents) == 2


def test_what_is_to_run_first_runs_before_the_best_of_a_related_job(tmp_path: Path) -> None:
    store, space = SqliteStorage(tmp_path / "runs.db"), Space(Integer("n", 0, 9))
    Optimizer(space, storage=store, name="parent").add({"n": 2}, 1.0)
    child = Optimizer(space)
    warm_start(child, [(store.read("parent"), "transfer")], [{"n": 7}])
    assert child.queue == [{"n": 7}, {"n": 2}]


def test_what_a_job_was_to_run_first_may_be_part_of_a_configuration(tmp_path: Path) -> None:
    """It tells of no job that this one started from, nor does one without results."""
    store, space = SqliteStorage(tmp_path / "runs.db"), Space(Integer("n", 0, 9), Real("x", 0, 1))
    Optimizer(space, storage=store, name="parent").add({"n": 2, "x": 0.5}, 1.0)
    Optimizer(space, storage=store, name="empty").close()
    child = Optimizer(space, storage=store, name="child")
    child.enqueue({"n": 2})
    told_nothing: list[tuple[str, StartKind]] = [
        ("parent", "transfer"),
        ("empty", "transfer"),
        ("empty", "same"),
    ]
    for parent, kind in told_nothing:
        assert not started_from(store.read("child"), space, store.read(parent), kind)
    child.enqueue({"n": 2, "x": 0.5})
    assert started_from(store.read("child"), space, store.read("parent"), "transfer")


def test_the_best_of_a_related_job_is_that_of_its_own_direction(tmp_path: Path) -> None:
    store = SqliteStorage(tmp_path / "runs.db")
    space = Space(Integer("n", 0, 9))
    parent = Optimizer(space, "sobol", direction="maximize", storage=store, name="parent")
    for number in (2, 8, 5):
        parent.add({"n": number}, float(number))
    child = Optimizer(space)
    assert warm_start(child, [(store.read("parent"), "transfer")]) == 1
    assert (child.queue, child.trials) == ([{"n": 8}], [])


def test_json_is_what_toml_is() -> None:
    assert check_job(json.loads(json.dumps(SMALL))) == check_job(SMALL)


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (
            {"completion": {"seed": 3}},
            "seed is a key of the job itself and belongs above the first [table]",
        ),
        ({"completion": {"workers": 3}}, "workers belongs in [execution]"),
        ({"patience": 3}, "patience belongs in [completion]"),
        ({"kind": "same"}, "kind belongs in [[warm_start]]"),
        (
            {"space": {"x": {**X, "inference": "map"}}},
            "inference is a key of the job itself and belongs above",
        ),
    ],
)
def test_where_a_misplaced_key_belongs_is_said(given: dict[str, Any], hint: str) -> None:
    with pytest.raises(InvalidJob) as refused:
        check_job({**SMALL, **given})
    assert hint in str(refused.value)


def test_a_stored_job_with_another_space_is_told_where_it_differs(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("def loss(params): return 0.0\n")
    space = {"x": X, "y": X}
    check_job({**SMALL, "space": space}).tuner(tmp_path, resume=False).optimizer.close()
    changed = check_job({**SMALL, "space": {"x": X, "y": {**X, "high": 2.0}}})
    with pytest.raises(InvalidJob) as refused:
        changed.tuner(tmp_path, resume=True)
    assert "'high': 2.0" in str(refused.value)
    assert "'x'" not in str(refused.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_what_is_no_job_file_is_said(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidJob, match="expected a job file"):
        read_job(path)


def test_who_resumes_a_database_is_told_that_its_script_does(tmp_path: Path) -> None:
    SqliteStorage(tmp_path / "runs.db").create("train", {}).close()
    with pytest.raises(InvalidJob, match="in a database, run the script again"):
        read_file(tmp_path / "runs.db")
