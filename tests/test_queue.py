"""Configurations that are enqueued in part: what they leave out is chosen when they are asked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import gpbo
from gpbo.errors import InvalidJob, InvalidParams
from gpbo.job import Job, check_job
from gpbo.model_free import GridSearch
from gpbo.optimizer import Optimizer
from gpbo.space import Space
from gpbo.storage import SqliteStorage
from gpbo.strategies import (
    STRATEGIES,
    ExpectedImprovement,
    ProbabilityOfImprovement,
    Strategy,
    ThompsonSampling,
)
from tests.monte_carlo import unchecked_shapes
from tests.test_optimizer import FINITE, QUICK, SPACE, loss

MODELS: dict[str, Strategy] = {
    "ei": ExpectedImprovement(QUICK),
    "pi": ProbabilityOfImprovement(QUICK),
    "ts": ThompsonSampling(QUICK, features=64),
}
PARTS: list[dict[str, Any]] = [{"kind": "b"}, {"depth": 4}, {"rate": 0.03, "kind": "c"}]
BY_NAME = pytest.mark.parametrize("name", STRATEGIES)


def by_map(space: Space = SPACE, strategy: str = "ei", **options: Any) -> Optimizer:
    options = {"inference": "map", "initial": 3, "seed": 7, **options}
    return Optimizer(space, MODELS.get(strategy, strategy), **options)


def told(optimizer: Optimizer, count: int) -> Optimizer:
    """The optimizer after so many trials."""
    for _ in range(count):
        trial = optimizer.ask()
        optimizer.tell(trial, loss(trial.params))
    return optimizer


def asked(optimizer: Optimizer, batches: list[int]) -> list[tuple[Mapping[str, Any], str]]:
    trials = [trial for count in batches for trial in optimizer.ask(count)]
    return [(trial.params, trial.origin) for trial in trials]


@BY_NAME
@pytest.mark.parametrize("results", [0, 3])
def test_what_is_left_out_is_chosen_as_with_these_values_fixed(name: str, results: int) -> None:
    for part in PARTS:
        queued, fixed = (told(by_map(strategy=name), results) for _ in range(2))
        queued.enqueue(part)
        trial = queued.ask()
        assert trial.origin == "enqueued"
        assert trial.params == fixed.ask(fixed=part).params
        assert trial.params == {**trial.params, **part}
        assert queued.queue == []


@BY_NAME
@pytest.mark.parametrize("results", [0, 2, 5])
def test_a_batch_is_what_single_calls_ask(name: str, results: int) -> None:
    whole = {"rate": 0.2, "depth": 2, "kind": "a"}
    found = []
    for batches in ([6], [1] * 6, [2, 4]):
        optimizer = told(by_map(strategy=name, initial=5), results)
        optimizer.learn(queue=[PARTS[0], whole, PARTS[0], PARTS[2]])
        found.append(asked(optimizer, batches))
    assert [origin for _, origin in found[0][:4]] == ["enqueued"] * 4
    assert found[0][1][0] == whole
    first, third = found[0][0][0], found[0][2][0]
    assert (first["kind"], third["kind"]) == ("b", "b")
    assert first != third
    for other in found[1:]:
        for (params, origin), (same, too) in zip(found[0], other, strict=True):
            assert (origin, params["kind"]) == (too, same["kind"])
            # A batch of functions is summed in single precision.
            assert params["rate"] == pytest.approx(same["rate"], rel=1e-2)


def test_they_count_as_design() -> None:
    optimizer = by_map(initial=3)
    optimizer.learn(queue=PARTS[:2])
    trials = optimizer.ask(3)
    assert [trial.origin for trial in trials] == ["enqueued", "enqueued", "design"]
    for trial in trials:
        optimizer.tell(trial, 1.0 + trial.id)
    optimizer.enqueue(PARTS[2])
    assert [trial.origin for trial in optimizer.ask(2)] == ["enqueued", "model:ei"]


def test_one_that_a_model_completed_brings_its_fit_along() -> None:
    optimizer = told(by_map(), 3)
    optimizer.enqueue(PARTS[0])
    assert optimizer.fitted_size == 0
    optimizer.ask()
    assert optimizer.fitted_size == 3


@pytest.mark.parametrize("name", ["random", "sobol", "ei", "grid"])
def test_in_a_batch_none_is_asked_twice_while_others_are_left(name: str) -> None:
    optimizer = by_map(FINITE, name)
    optimizer.add({"depth": 2, "kind": "b"}, 1.0)
    optimizer.learn(queue=[{"kind": "b"}] * 2)
    depths = [trial.params["depth"] for trial in optimizer.ask(2)]
    assert sorted(depths) == [1, 3]


@pytest.mark.parametrize("strategy", ["random", "sobol", GridSearch(), MODELS["ei"]])
def test_where_all_such_configurations_are_known_one_is_asked_again(
    strategy: str | Strategy,
) -> None:
    optimizer = Optimizer(FINITE, strategy, inference="map", initial=2)
    for trial in optimizer.ask(6):
        optimizer.tell(trial, float(trial.id))
    optimizer.learn(queue=[{"kind": "b"}, {"depth": 3}])
    one, other = optimizer.ask(3)
    assert (one.params["kind"], other.params["depth"]) == ("b", 3)
    assert optimizer.queue == []


def test_a_value_on_which_everything_failed_is_tried_again_when_it_is_enqueued() -> None:
    optimizer = by_map(FINITE, "random")
    for depth in (1, 2, 3):
        optimizer.add({"depth": depth, "kind": "b"}, float("nan"))
    optimizer.enqueue({"kind": "b"})
    assert optimizer.ask().params["kind"] == "b"


def test_with_fixed_values_it_waits() -> None:
    optimizer = by_map()
    optimizer.enqueue({"kind": "b"})
    assert optimizer.ask(fixed={"kind": "c"}).origin == "design"
    assert optimizer.queue == [{"kind": "b"}]


def test_values_are_checked_and_one_at_least_is_needed() -> None:
    optimizer = by_map()
    with pytest.raises(InvalidParams, match=r"^params: unknown 'dept': expected the names 'rate'"):
        optimizer.enqueue({"dept": 3})
    with pytest.raises(InvalidParams, match=r"^params: missing 'rate', 'depth', 'kind'"):
        optimizer.enqueue({})
    with pytest.raises(InvalidParams, match=r"^queue\[1\]: depth=9: expected an integer from 1"):
        optimizer.learn(queue=[{"kind": "a"}, {"depth": 9}])
    assert optimizer.queue == []
    with pytest.raises(InvalidParams, match="missing 'rate', 'depth'"):
        optimizer.add({"kind": "a"}, 1.0)


def test_a_resumed_optimizer_has_it_in_its_queue_and_chooses_the_same(tmp_path: Path) -> None:
    stored = by_map(storage=tmp_path / "runs.db", name="job")
    other = by_map()
    for optimizer in (stored, other):
        told(optimizer, 4).learn(queue=PARTS)
    stored.close()
    with Optimizer.resume(tmp_path / "runs.db", "job", strategy=MODELS["ei"]) as resumed:
        assert resumed.queue == PARTS
        assert asked(resumed, [2]) == asked(other, [2])
        assert resumed.queue == PARTS[2:]


def test_minimize_evaluates_first_what_is_enqueued() -> None:
    today = {"rate": 0.2, "depth": 2, "kind": "a"}
    result = gpbo.minimize(
        lambda params: params["rate"],
        SPACE,
        budget=4,
        strategy="sobol",
        queue=(each for each in (today, {"kind": "b"})),
        progress=False,
    )
    first, second = result.trials[:2]
    assert (first.params, second.params["kind"]) == (today, "b")
    assert [trial.origin for trial in result.trials] == ["enqueued"] * 2 + ["sobol"] * 2
    refused = pytest.raises(InvalidParams, match=r"^queue={'rate': 0.2}: expected a list")
    with refused, unchecked_shapes():
        gpbo.minimize(lambda _: 0.0, SPACE, budget=4, queue={"rate": 0.2})  # type: ignore[dict-item]


# --- of a job file


X = {"type": "real", "low": 0, "high": 1}
SMALL: dict[str, Any] = {"name": "job", "objective": "train:loss", "budget": 5, "initial": 2}
SMALL |= {"space": {"x": X, "y": X}, "strategy": "sobol"}


def job_in(folder: Path, **change: Any) -> Job:
    (folder / "train.py").write_text("def loss(params):\n    return params['x'] ** 2\n")
    return check_job({**SMALL, **change})


def queued(folder: Path, **change: Any) -> list[dict[str, Any]]:
    """What is in the queue of the job, if it is resumed."""
    with job_in(folder, **change).tuner(folder, resume=True).optimizer as optimizer:
        return optimizer.queue


def test_a_job_begins_with_its_queue(tmp_path: Path) -> None:
    queue = [{"x": 0.5, "y": 0.25}, {"y": 1}]
    trials = job_in(tmp_path, queue=queue).tuner(tmp_path, resume=False).run().trials
    assert [trial.origin for trial in trials] == ["enqueued"] * 2 + ["sobol"] * 3
    assert trials[0].params == queue[0]
    assert trials[1].params["y"] == 1.0


def test_its_queue_comes_before_what_other_jobs_found(tmp_path: Path) -> None:
    with job_in(tmp_path).tuner(tmp_path, resume=False).run().optimizer as before:
        assert before.best is not None
        best = before.best.params
    start: dict[str, Any] = {"name": "next", "warm_start": [{"job": "job", "kind": "transfer"}]}
    queue = [{"x": best["x"]}]
    tuner = job_in(tmp_path, **start, queue=queue).tuner(tmp_path, resume=False)
    tuner.optimizer.close()
    assert tuner.optimizer.queue == [*queue, best]
    assert queued(tmp_path, **start, queue=queue) == [*queue, best]


def test_what_came_into_the_file_since_is_enqueued_when_it_is_resumed(tmp_path: Path) -> None:
    begun = [{"x": 0.5}, {"x": 0.25, "y": 0.75}]
    job_in(tmp_path, queue=begun).tuner(tmp_path, resume=False).optimizer.close()
    assert queued(tmp_path, queue=begun) == begun
    assert queued(tmp_path) == begun
    longer = [*begun, {"y": 0.125}]
    assert queued(tmp_path, queue=longer) == longer
    with job_in(tmp_path, queue=longer).tuner(tmp_path, resume=True).run().optimizer as finished:
        assert [trial.origin for trial in finished.trials] == ["enqueued"] * 3 + ["sobol"] * 2
    assert queued(tmp_path, queue=longer) == []


def test_each_enqueued_configuration_accounts_for_one_of_the_file(tmp_path: Path) -> None:
    """Parts of one that was asked are new, wherever in the file they stand."""
    whole = {"x": 0.25, "y": 0.75}
    job_in(tmp_path, queue=[whole]).tuner(tmp_path, resume=False).run().optimizer.close()
    parts = [{"y": 0.75}, whole, {"x": 0.25}, {"x": 0.25}]
    assert queued(tmp_path, queue=parts) == [{"y": 0.75}, {"x": 0.25}, {"x": 0.25}]
    assert len(queued(tmp_path, queue=parts)) == 3


def test_a_configuration_that_was_proposed_is_asked_when_it_is_enqueued(tmp_path: Path) -> None:
    with job_in(tmp_path).tuner(tmp_path, resume=False).run().optimizer as before:
        known = dict(before.trials[1].params)
    assert queued(tmp_path, queue=[known]) == [known]


def test_a_job_that_died_before_it_had_its_queue_has_it_when_it_is_resumed(tmp_path: Path) -> None:
    with job_in(tmp_path).tuner(tmp_path, resume=False).optimizer as other:
        assert other.journal is not None
        spec = other.journal.read().spec
    store = SqliteStorage(tmp_path / "gpbo.db")
    store.create("again", spec).close()  # and then the power failed
    for _ in range(2):
        assert queued(tmp_path, name="again", queue=[{"x": 0.5}]) == [{"x": 0.5}]


@pytest.mark.parametrize(
    ("queue", "message"),
    [
        ([{"x": 2}], "job: queue[0]: x=2: expected a real number from 0.0 to 1.0"),
        ([{"x": 0.5}, {"z": 1}], "job: queue[1]: params: unknown 'z': expected the names 'x', 'y'"),
        (
            [{"x": 0.5, "seed": 3}],
            "job: queue[0]: params: unknown 'seed': expected the names 'x', 'y'; "
            "keys of the job, such as 'seed', go above [[queue]]",
        ),
        ([{}], "job: queue[0]: params: missing 'x', 'y'"),
        ({"x": 1}, "job: queue = {'x': 1}: expected a list"),
        ([3], "job: queue[0] = 3: expected a table"),
    ],
)
def test_what_cannot_be_enqueued_is_told_with_its_place(queue: Any, message: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        check_job({**SMALL, "queue": queue})
    assert str(caught.value).startswith(message)
