"""run: a loop around an optimizer goes on where the last one ended, however it did."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import gpbo
from gpbo.callbacks import Callback
from gpbo.completion import Completion, Streak
from gpbo.errors import InvalidOption
from gpbo.optimizer import Optimizer
from gpbo.result import Result
from gpbo.space import Real, Space
from gpbo.storage import SqliteStorage
from gpbo.trial import Trial, TrialStatus
from gpbo.tuner import Tuner
from tests.monte_carlo import unchecked_shapes

LINE = Space(Real("x", 0, 1))


def bowl(params: dict[str, Any]) -> float:
    return float((params["x"] - 0.3) ** 2)


def optimizer(strategy: str = "random", **options: Any) -> Optimizer:
    return Optimizer(LINE, strategy, inference="map", **options)


def quietly(
    source: Optimizer, objective: Callable[[dict[str, Any]], Any] = bowl, **options: Any
) -> Result:
    return gpbo.run(source, objective, **{"budget": 7, "progress": False, **options})


def told(result: Result) -> list[Any]:
    return [(trial.id, trial.params, trial.value) for trial in result.trials]


class Impatient(Callback):
    """Ctrl-C comes while it is told of the end."""

    def finished(self, result: Result) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_after_the_end_takes_no_result_away() -> None:
    result = quietly(optimizer(), callbacks=[Impatient()])
    assert (result.stopped, len(result.trials)) == ("budget", 7)
    result = Tuner(optimizer(), bowl, budget=7, callbacks=[Impatient()]).run()
    assert (result.stopped, len(result.trials)) == ("budget", 7)


@pytest.mark.parametrize("options", [{}, {"workers": 3, "mode": "sync"}])
def test_a_loop_in_two_parts_makes_the_trials_of_one(options: Any) -> None:
    whole = quietly(optimizer("ei", initial=3), budget=11, **options)
    parts = optimizer("ei", initial=3)
    # In the order of asking: which of several workers ends first is chance.
    expected = sorted(told(whole))
    assert sorted(told(quietly(parts, budget=6, **options))) == expected[:6]
    assert sorted(told(quietly(parts, budget=11, **options))) == expected
    assert whole.stopped == "budget"


def test_a_loop_with_a_storage_goes_on_in_another_process(tmp_path: Path) -> None:
    script = f"""
import itertools, os, gpbo
space = gpbo.Space(gpbo.Real("x", 0, 1))
made = gpbo.Optimizer(space, "ei", inference="map", initial=3, storage={str(tmp_path / "a.db")!r},
    name="line", exist_ok=True)
calls = itertools.count()
def objective(params):
    if next(calls) == 4:
        os._exit(3)
    return (params["x"] - 0.3) ** 2
print(len(gpbo.run(made, objective, budget=7, progress=False).trials))
"""
    ends = [
        subprocess.run([sys.executable, "-c", script], env=os.environ, capture_output=True)
        for _ in range(2)
    ]
    assert [end.returncode for end in ends] == [3, 0]
    assert ends[1].stdout.split() == [b"7"]
    resumed = Optimizer.resume(str(tmp_path / "a.db"), "line")
    whole = quietly(optimizer("ei", initial=3))
    assert [(trial.params, trial.value) for trial in resumed.finished] == [
        (trial.params, trial.value) for trial in whole.trials
    ]
    assert not resumed.pending


def test_the_budget_counts_earlier_trials_and_no_added_results() -> None:
    source = optimizer()
    source.add({"x": 0.9}, 5.0)
    source.tell(source.ask(), 2.0)
    source.fail(source.ask(), "no value")
    result = quietly(source, budget=5)
    assert [trial.origin for trial in result.trials].count("added") == 1
    assert len(result.trials) == 6

    def never(params: dict[str, Any]) -> float:
        raise AssertionError("called")

    again = quietly(source, never, budget=5)
    assert (again.stopped, told(again)) == ("budget", told(result))


@pytest.mark.parametrize("workers", [1, 3])
def test_pending_trials_come_first_then_the_queue(workers: int) -> None:
    source = optimizer()
    asked = source.ask(2)
    source.enqueue({"x": 0.125})
    result = quietly(source, budget=5, workers=workers)
    assert {trial.id for trial in asked} <= {trial.id for trial in result.trials}
    assert len(result.trials) == 5
    in_order = sorted(result.trials, key=lambda trial: trial.id)
    assert [trial.params for trial in in_order[:2]] == [trial.params for trial in asked]
    assert in_order[2].params == {"x": 0.125}
    assert not source.pending


def test_no_more_pending_trials_are_evaluated_than_the_budget_has() -> None:
    source = optimizer()
    source.ask(5)
    result = quietly(source, budget=3)
    assert [trial.id for trial in result.trials] == [0, 1, 2]
    assert [trial.id for trial in source.pending] == [3, 4]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_an_interrupt_cut_short_is_pending_and_is_evaluated_again(workers: int) -> None:
    calls = count()

    def interrupted(params: dict[str, Any]) -> float:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return bowl(params)

    options: Any = {"workers": workers, "mode": "sync"}
    source = optimizer("ei", initial=3)
    cut = quietly(source, interrupted, **options)
    assert cut.stopped == "interrupted"
    assert all(trial.status is TrialStatus.COMPLETED for trial in cut.trials)
    assert 0 < len(source.pending) <= workers
    again, whole = quietly(source, **options), quietly(optimizer("ei", initial=3), **options)
    assert len(again.trials) == 7
    assert sorted(told(again))[:6] == told(whole)[:6]
    if workers == 1:  # with more, later batches have other results
        assert told(again) == told(whole)


def test_workers_beside_a_trial_that_was_pending_get_new_ones_at_once() -> None:
    all_run = threading.Barrier(3)

    def objective(params: dict[str, Any]) -> float:
        all_run.wait(20)
        return bowl(params)

    source = optimizer()
    source.ask()
    result = quietly(source, objective, budget=3, workers=3)
    assert all(trial.status is TrialStatus.COMPLETED for trial in result.trials)


def test_trials_that_a_broken_executor_did_not_take_are_pending() -> None:
    class Breaks(Executor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            if next(calls) == 2:
                raise ConnectionError("the scheduler is gone")
            future: Future[Any] = Future()
            future.set_result(fn(*args, **kwargs))
            return future

    calls = count()
    source = optimizer()
    result = quietly(source, executor=Breaks(), workers=5)
    assert (result.stopped, len(result.trials)) == ("broken", 2)
    assert [trial.id for trial in source.pending] == [2, 3, 4]
    assert quietly(source).stopped == "budget"
    assert not source.pending


def test_what_waits_in_an_executor_is_cancelled_by_an_interrupt() -> None:
    begun, release = count(), threading.Event()

    def objective(params: dict[str, Any]) -> float:
        if next(begun) == 0:
            return 1.0
        release.wait(20)
        return 2.0

    class Interrupts(Callback):
        def ended(self, trial: Trial) -> None:
            raise KeyboardInterrupt

    source = optimizer()
    with ThreadPoolExecutor(2) as pool:
        result = quietly(source, objective, executor=pool, workers=5, callbacks=[Interrupts()])
        release.set()
    assert (result.stopped, len(result.trials)) == ("interrupted", 1)
    assert len(source.pending) == 4
    assert next(begun) <= 3


def test_a_callback_that_always_interrupts_does_so_once() -> None:
    class Enough(Callback):
        def ended(self, trial: Trial) -> None:
            ended.append(trial.id)
            raise KeyboardInterrupt

    ended: list[int] = []
    options: dict[str, Any] = {"workers": 3, "mode": "sync", "callbacks": [Enough()]}
    result = quietly(optimizer(), **options)
    assert (result.stopped, ended) == ("interrupted", [0, 1, 2])
    ended.clear()
    result = gpbo.minimize(
        bowl, LINE, budget=5, strategy="random", progress=False, **{**options, "mode": "async"}
    )
    assert result.stopped == "interrupted"
    left = {trial.id for trial in result.optimizer.pending}
    assert {*ended, *left} == {0, 1, 2}
    assert len(ended) == len(result.trials) >= 1


def test_a_loop_does_not_wait_for_a_fit_that_nobody_needs() -> None:
    """Whatever was fitted last, trials were asked for after it began."""
    source = optimizer("ei", initial=3)
    planned = []
    plan_fit = source.plan_fit

    def noted() -> Any:
        planned.append(len(source.trials))
        return plan_fit()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "plan_fit", noted)
        quietly(source, workers=2, budget=9)
    assert planned
    assert max(planned) < 9


def test_a_loop_with_a_storage_can_be_asked_to_stop_and_shows_that_it_runs(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path / "a.db")

    def objective(params: dict[str, Any]) -> float:
        shown.append(storage.read("line").ended)
        if len(shown) == 2:
            storage.request_stop("line")
        return bowl(params)

    shown: list[str | None] = []
    source = optimizer(storage=storage, name="line")
    assert quietly(source, budget=1, completion=Completion(target=1.0)).stopped == "target"
    assert storage.read("line").ended == "target"
    result = quietly(source, objective)
    assert (result.stopped, len(result.trials)) == ("interrupted", 3)
    assert shown == [None, None]
    assert storage.read("line").ended == "interrupted"
    assert quietly(source).stopped == "budget"


def test_the_target_ends_the_loop_and_what_runs_then_is_recorded() -> None:
    release = threading.Event()

    def objective(params: dict[str, Any]) -> float:
        if params["x"] == 0.25:
            return 1.0
        release.wait(20)
        return 7.0

    class Releases(Callback):
        def ended(self, trial: Trial) -> None:
            release.set()

    source = optimizer()
    source.enqueue({"x": 0.5})
    source.enqueue({"x": 0.25})
    result = quietly(
        source, objective, workers=2, completion=Completion(target=1.0), callbacks=[Releases()]
    )
    assert result.stopped == "target"
    assert [trial.value for trial in result.trials] == [1.0, 7.0]


def test_a_trial_that_ran_when_patience_ended_may_turn_the_tables() -> None:
    ended, release = count(1), threading.Event()

    def objective(params: dict[str, Any]) -> float:
        if params["x"] == 0.5:
            release.wait(20)
            return -1.0
        return 1.0

    class Releases(Callback):
        def ended(self, trial: Trial) -> None:
            if next(ended) == 4:
                release.set()

    source = optimizer()
    source.tell(source.ask(), 0.0)
    source.enqueue({"x": 0.5})
    options: dict[str, Any] = {"completion": Completion(patience=4), "callbacks": [Releases()]}
    result = quietly(source, objective, budget=20, workers=2, **options)
    values = [trial.value for trial in result.trials]
    assert result.stopped == "no improvement"
    assert values[:6] == [0.0, 1.0, 1.0, 1.0, 1.0, -1.0]
    assert len(values) - 6 in (4, 5)


def test_a_target_that_was_reached_before_needs_no_trial() -> None:
    source = optimizer(direction="maximize")
    source.tell(source.ask(), 3.0)
    result = quietly(source, completion=Completion(target=2.0))
    assert (result.stopped, len(result.trials)) == ("target", 1)


def test_a_target_that_the_last_trial_reaches_is_the_reason() -> None:
    values = iter([3.0, 2.0, 1.0])
    result = quietly(
        optimizer(), lambda params: next(values), budget=3, completion=Completion(target=1.0)
    )
    assert (result.stopped, len(result.trials)) == ("target", 3)


def test_patience_ends_the_loop() -> None:
    values = iter([3.0, 1.0, 2.0, 2.0, 2.0, 0.0])
    result = quietly(optimizer(), lambda params: next(values), completion=Completion(patience=3))
    assert (result.stopped, len(result.trials)) == ("no improvement", 5)


def test_the_time_of_a_loop_ends_it_and_begins_with_the_call() -> None:
    source = optimizer()
    quietly(source, budget=2)
    waited = threading.Event()
    limit = Completion(runtime_s=0.05)
    result = quietly(source, lambda params: waited.wait(0.06), completion=limit)
    assert (result.stopped, len(result.trials)) == ("runtime", 3)


def test_twenty_failures_in_a_row_end_the_loop_unless_it_may_go_on() -> None:
    calls = count()

    def objective(params: dict[str, Any]) -> float:
        return 1.0 if next(calls) == 2 else 1 / 0

    result = quietly(optimizer(), objective, budget=50)
    assert (result.stopped, len(result.trials)) == ("failures", 23)
    assert "too many trials failed in a row" in str(result)
    patient = Completion(failures=None)
    result = quietly(optimizer(), lambda params: 1 / 0, budget=29, completion=patient)
    assert (result.stopped, len(result.trials)) == ("budget", 29)


def test_failures_wait_for_an_earlier_trial_that_may_have_a_value() -> None:
    failed, begun = threading.Semaphore(0), threading.Event()

    def objective(params: dict[str, Any]) -> float:
        if params["x"] == 0.5:
            begun.set()
            for _ in range(6):
                assert failed.acquire(timeout=20)
            return 1.0
        assert begun.wait(20)
        failed.release()
        raise ValueError

    source = optimizer()
    source.enqueue({"x": 0.5})
    result = quietly(source, objective, budget=20, workers=2, completion=Completion(failures=3))
    values = [trial.value for trial in result.trials]
    assert result.stopped == "failures"
    before, after = values.index(1.0), len(values) - values.index(1.0) - 1
    assert before >= 5
    assert after >= 3
    assert len(values) < 20


def test_failures_are_counted_by_when_trials_began_and_not_by_their_numbers() -> None:
    source = optimizer()
    source.ask(60)
    result = quietly(source, lambda params: 1 / 0, budget=90, workers=2)
    assert result.stopped == "failures"
    assert 20 <= len(result.trials) <= 22


def test_a_streak_ends_with_a_trial_that_did_not_fail() -> None:
    streak = Streak()
    assert streak.in_vain([]) == 0
    streak.fail(2.0)
    streak.fail(5.0)
    assert [streak.in_vain(running) for running in ([], [2.0, 3.0], [1.0, 3.0])] == [2, 2, 0]
    streak.end()
    streak.fail(7.0)
    assert [streak.in_vain(running) for running in ([7.0], [6.0])] == [1, 0]


class Listener(Callback):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def started(self, optimizer: Optimizer) -> None:
        self.told.append(("started", len(optimizer.trials)))

    def ended(self, trial: Trial) -> None:
        self.told.append(("ended", trial.id, str(trial.status)))

    def finished(self, result: Result) -> None:
        self.told.append(("finished", result.stopped))


def test_callbacks_are_told_in_order() -> None:
    values = iter([1.0, float("nan"), 3.0])
    listener = Listener()
    gpbo.minimize(
        lambda params: next(values), LINE, budget=3, strategy="random", callbacks=[listener],
        progress=False,
    )  # fmt: skip
    assert listener.told == [
        ("started", 0),
        ("ended", 0, "completed"),
        ("ended", 1, "failed"),
        ("ended", 2, "completed"),
        ("finished", "budget"),
    ]


def test_minimize_takes_a_completion() -> None:
    result = gpbo.minimize(
        bowl, LINE, budget=5, strategy="random", completion=Completion(target=1.0), progress=False
    )
    assert (result.stopped, len(result.trials)) == ("target", 1)


def test_a_callback_that_raises_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Callback):
        def ended(self, trial: Trial) -> None:
            raise RuntimeError("no network")

    listener = Listener()
    with caplog.at_level(logging.WARNING, "gpbo"):
        result = quietly(optimizer(), budget=3, callbacks=[Broken(), listener])
    assert len(result.trials) == 3
    assert len(listener.told) == 5
    assert len(caplog.records) == 3


def test_a_callback_may_interrupt_the_loop() -> None:
    class Enough(Callback):
        def ended(self, trial: Trial) -> None:
            if trial.id == 2:
                raise KeyboardInterrupt

    result = quietly(optimizer(), callbacks=[Enough()])
    assert (result.stopped, len(result.trials)) == ("interrupted", 3)


@pytest.mark.parametrize(
    ("option", "wrong", "expected"),
    [
        ("optimizer", LINE, "an instance of Optimizer"),
        ("objective", 3, "a function that takes a configuration as a dict"),
        ("budget", 0, "a whole number, 1 or more"),
        ("completion", 3, "an instance of Completion"),
        ("executor", 3, "an instance of Executor"),
        ("callbacks", 3, "a list of gpbo.callbacks.Callback"),
        ("callbacks", [3], "a list of gpbo.callbacks.Callback"),
    ],
)
def test_options_that_mean_nothing_are_refused(option: str, wrong: Any, expected: str) -> None:
    options: dict[str, Any] = {"optimizer": optimizer(), "objective": bowl, "budget": 3}
    with unchecked_shapes(), pytest.raises(InvalidOption, match=f"{option}=.*expected {expected}"):
        gpbo.run(**{**options, option: wrong})
