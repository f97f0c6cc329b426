"""Any order of calls: a stored job that is resumed, or copied, is the run that never stopped.

And it is that of the negated values to be maximised: what holds of every state, whatever led there.
"""

import pickle
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gpbo.errors import InvalidData, SpaceExhausted
from gpbo.optimizer import Optimizer
from gpbo.space import Categorical, Integer, Ordinal, Real, Space
from gpbo.strategies import ExpectedImprovement, Strategy, ThompsonSampling
from gpbo.trial import Trial
from tests.test_fuzz import HEALTH, SEARCH

STRATEGIES: list[Strategy | str] = [
    ExpectedImprovement(SEARCH),
    ThompsonSampling(SEARCH, features=32),
    "sobol",
]
SPACES = [
    Space([Real("x", -1, 2), Integer("n", 1, 40, "log"), Categorical("kind", ["a", "b", "c"])]),
    Space([Integer("n", 0, 2), Ordinal("size", [1, 10, 100]), Categorical("on", [True, False])]),
]
VALUES = st.one_of(st.floats(-3, 5), st.sampled_from([0.0, 0.5, float("nan")]))
PARTS = st.data()


class Operations(RuleBasedStateMachine):
    """A stored optimizer, and one of the negated values that lives in memory from first to last."""

    @initialize(
        space=st.sampled_from(SPACES),
        strategy=st.sampled_from(STRATEGIES),
        constraints=st.sampled_from([(), ("memory <= 1",)]),
        seed=st.integers(0, 2),
    )
    def begin(
        self, space: Space, strategy: Strategy, constraints: tuple[str, ...], seed: int
    ) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path, self.space = Path(self.folder.name) / "runs.db", space
        options: Any = {
            "seed": seed,
            "inference": "map",
            "initial": 3,
            "constraints": constraints,
        }
        self.stored = Optimizer(
            space, strategy, direction="minimize", storage=self.path, name="job", **options
        )
        self.twin = Optimizer(space, strategy, direction="maximize", **options)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.stored.close()
            self.folder.cleanup()

    def both(self, value: float, memory: float) -> Iterator[tuple[Optimizer, tuple[Any, ...]]]:
        """Either optimizer, with its value and what was measured."""
        measured = ({"memory": memory},) if self.stored.constraints else ()
        yield self.stored, (value, *measured)
        yield self.twin, (-value, *measured)

    @rule(n=st.sampled_from([None, 1, 3]), refit=st.booleans(), part=PARTS, fix=st.booleans())
    def ask(self, n: int | None, refit: bool, part: st.DataObject, fix: bool) -> None:
        fixed = self.some_values(part) if fix else None
        queue = [] if fix else self.stored.queue[: n or 1]
        waiting = self.stored.queue[len(queue) :]
        asked: list[Trial] = []
        for optimizer in (self.stored, self.twin):
            try:
                given = optimizer.ask(n, refit=refit, fixed=fixed)
                asked = given if isinstance(given, list) else [given]
            except SpaceExhausted:
                assert optimizer is self.stored or not asked
            assert optimizer.queue == waiting
        for trial, values in zip(asked, queue, strict=False):
            assert trial.origin == "enqueued"
            assert values.items() <= trial.params.items()
        assert len(queue) <= len(asked) <= (n or 1)
        if fixed is not None:
            assert all(fixed.items() <= trial.params.items() for trial in asked)

    @precondition(lambda self: self.stored.pending)
    @rule(part=PARTS, value=VALUES, memory=st.floats(0, 2))
    def tell(self, part: st.DataObject, value: float, memory: float) -> None:
        trial = part.draw(st.sampled_from([trial.id for trial in self.stored.pending]))
        for optimizer, told in self.both(value, memory):
            ended = optimizer.tell(trial, *told)
            assert optimizer.tell(trial, *told) == ended

    @precondition(lambda self: self.stored.pending)
    @rule(part=PARTS)
    def fail(self, part: st.DataObject) -> None:
        trial = part.draw(st.sampled_from([trial.id for trial in self.stored.pending]))
        for optimizer in (self.stored, self.twin):
            optimizer.fail(trial, "no luck")

    @rule(part=PARTS, value=VALUES, memory=st.floats(0, 2))
    def add(self, part: st.DataObject, value: float, memory: float) -> None:
        params = self.some_values(part, whole=True)
        for optimizer, told in self.both(value, memory):
            optimizer.add(params, *told)

    @rule(part=PARTS)
    def enqueue(self, part: st.DataObject) -> None:
        params = self.some_values(part)
        for optimizer in (self.stored, self.twin):
            optimizer.enqueue(params)

    @rule(refit=st.booleans())
    def look(self, refit: bool) -> None:
        """Changes nothing, of one of the two only."""
        try:
            expected = self.stored.recommend(refit=refit)
        except InvalidData:
            assert self.stored.best is None
            return
        tried = [trial.params for trial in self.stored.completed if trial.feasible]
        assert expected.params in tried

    @rule()
    def resume(self) -> None:
        self.stored.close()
        self.stored = Optimizer.resume(self.path, "job")

    @rule()
    def copy(self) -> None:
        self.twin = pickle.loads(pickle.dumps(self.twin))

    def some_values(self, part: st.DataObject, whole: bool = False) -> dict[str, Any]:
        """A configuration, or a part of one."""
        names = list(self.space.names)
        some = st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)
        kept = names if whole else part.draw(some)
        point = [part.draw(st.floats(0, 1)) for _ in range(self.space.dim)]
        (params,) = self.space.decode(torch.tensor([point], dtype=torch.float64))
        return {name: value for name, value in params.items() if name in kept}

    @invariant()
    def both_know_the_same(self) -> None:
        assert _negated(self.stored.trials) == _timeless(self.twin.trials)
        assert [t.id for t in self.stored.finished] == [t.id for t in self.twin.finished]
        assert self.stored.queue == self.twin.queue
        assert self.stored.fitted_size == self.twin.fitted_size
        assert self.stored.fitted_size <= len(self.stored.completed)
        best = [optimizer.best for optimizer in (self.stored, self.twin)]
        assert _negated(best[:1]) == _timeless(best[1:])

    @invariant()
    def what_was_asked_is_of_the_space_and_new(self) -> None:
        seen = set()
        for trial in self.stored.trials:
            assert self.space.validate(trial.params) == trial.params
            key = self.space.key(trial.params)
            assert trial.origin in ("added", "enqueued") or key not in seen
            seen.add(key)
            assert trial.feasible == (
                trial.value is not None and trial.measured.get("memory", 0) <= 1
            )


def _timeless(trials: Sequence[Trial | None]) -> list[Trial | None]:
    return [trial and replace(trial, asked_at=None, finished_at=None) for trial in trials]


def _negated(trials: Sequence[Trial | None]) -> list[Trial | None]:
    """The trials as those are that maximise."""
    return [
        trial if trial is None or trial.value is None else replace(trial, value=-trial.value)
        for trial in _timeless(trials)
    ]


def test_any_order_of_calls_is_the_same_run_resumed_or_not() -> None:
    run_state_machine_as_test(
        Operations,
        settings=settings(
            max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=HEALTH
        ),
    )


@pytest.mark.long
def test_many_orders_of_calls_are_the_same_run_resumed_or_not() -> None:
    run_state_machine_as_test(
        Operations,
        settings=settings(
            max_examples=1000, stateful_step_count=60, deadline=None, suppress_health_check=HEALTH
        ),
    )
