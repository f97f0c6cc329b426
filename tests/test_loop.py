"""minimize: the loop ends well whatever the objective does."""

import math
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from gpbo.callbacks import Callback
from gpbo.completion import Completion
from gpbo.errors import InvalidOption
from gpbo.loop import _Loop, minimize
from gpbo.optimizer import Optimizer
from gpbo.result import Result
from gpbo.space import Categorical, Integer, Real, Space
from gpbo.state import State
from gpbo.trial import Trial, TrialStatus

LINE = Space(Real("x", 0, 1))
FINITE = Space(Integer("depth", 1, 3), Categorical("kind", ("a", "b")))


def quietly(
    objective: Callable[[dict[str, Any]], Any], space: Space = LINE, **options: Any
) -> Result:
    options = {"budget": 6, "strategy": "random", "inference": "map", "progress": False, **options}
    return minimize(objective, space, **options)


def test_the_minimum_of_a_bowl_is_found() -> None:
    result = quietly(lambda params: (params["x"] - 0.3) ** 2, strategy="ei", budget=14)
    assert result.best is not None
    assert result.best.params["x"] == pytest.approx(0.3, abs=0.02)
    assert len(result.trials) == 14
    assert result.stopped == "budget"
    assert not result.interrupted
    assert result.fit_report is not None


def test_the_maximum_of_a_hill_is_found() -> None:
    result = quietly(
        lambda params: -((params["x"] - 0.3) ** 2), strategy="ei", budget=14, direction="maximize"
    )
    assert result.best is not None
    assert result.best.params["x"] == pytest.approx(0.3, abs=0.02)
    assert result.direction == "maximize"


def test_an_objective_that_raises_is_a_failed_trial_with_its_reason() -> None:
    def explode(params: dict[str, Any]) -> float:
        if params["x"] < 0.5:
            raise ValueError("no convergence")
        return params["x"]

    result = quietly(explode, budget=12)
    failed = [trial for trial in result.trials if trial.status is TrialStatus.FAILED]
    assert 0 < len(failed) < 12
    for trial in failed:
        assert trial.reason is not None
        assert trial.reason.startswith("ValueError: no convergence\n")
        assert "in explode" in trial.reason
    assert result.best is not None
    assert result.best.params["x"] >= 0.5


def test_of_a_long_message_a_reason_has_both_ends() -> None:
    told = f"begins {10**6 * 'x'} ends"

    def objective(params: dict[str, Any]) -> float:
        raise ValueError(told)

    result = quietly(objective, budget=1)
    reason = str(result.trials[0].reason)
    assert reason.startswith("ValueError: begins x")
    assert " ends" in reason
    assert len(reason) < 4000


def test_a_reason_keeps_the_innermost_part_of_a_long_traceback() -> None:
    def innermost() -> float:
        return 1 / 0

    def deeper() -> float:
        return innermost()

    def deep() -> float:
        return deeper()

    reason = quietly(lambda params: deep(), budget=1).trials[0].reason
    assert reason is not None
    assert reason.startswith("ZeroDivisionError: division by zero\n")
    frames = [row.split(" in ")[-1] for row in reason.splitlines() if " in " in row]
    assert frames == ["deep", "deeper", "innermost"]


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (math.nan, "the value is nan"),
        (-math.inf, "the value is -inf"),
        (None, "has type NoneType"),
        ("0.5", "has type str"),
        ([0.5], "has type list"),
        (True, "has type bool"),
    ],
)
def test_what_is_no_number_is_a_failed_trial_and_the_loop_goes_on(
    returned: Any, reason: str
) -> None:
    values = iter([returned, 2.0, returned, 1.0])
    result = quietly(lambda params: next(values), budget=4)
    assert [trial.value for trial in result.trials] == [None, 2.0, None, 1.0]
    assert all(reason in str(result.trials[i].reason) for i in (0, 2))
    assert result.best is result.trials[3]


@pytest.mark.parametrize("strategy", ["ei", "random"])
def test_if_every_trial_fails_the_result_says_so(strategy: str) -> None:
    result = quietly(lambda params: 1 / 0, strategy=strategy)
    assert [trial.status for trial in result.trials] == [TrialStatus.FAILED] * 6
    assert result.best is None
    assert result.incumbents == (None,) * 6
    assert "no trial has a value" in str(result)


def test_a_region_that_fails_does_not_hold_the_search() -> None:
    """The values fall towards a part of the space where every trial fails."""

    def cliff(params: dict[str, Any]) -> float:
        if params["x"] < 0.4:
            raise RuntimeError("out of memory")
        return params["x"]

    result = quietly(cliff, strategy="ei", budget=20, initial=4)
    failed = sum(trial.status is TrialStatus.FAILED for trial in result.trials)
    assert failed <= 12
    assert result.best is not None
    assert result.best.params["x"] < 0.41


def test_an_interrupt_in_the_objective_gives_the_result_so_far() -> None:
    calls = iter(range(10))

    def interrupted(params: dict[str, Any]) -> float:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return params["x"]

    result = quietly(interrupted)
    assert result.interrupted
    assert result.stopped == "interrupted"
    assert [trial.status for trial in result.trials] == [TrialStatus.COMPLETED] * 3
    assert [trial.id for trial in result.optimizer.pending] == [3]
    assert result.best is not None


def test_an_interrupt_while_choosing_gives_the_result_so_far(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gpbo import fitting

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "fit", interrupted)
    result = quietly(lambda params: params["x"], strategy="ei", initial=3)
    assert result.interrupted
    assert len(result.trials) == 3


def test_after_an_interrupt_the_optimizer_goes_on() -> None:
    def interrupt(params: dict[str, Any]) -> float:
        raise KeyboardInterrupt

    optimizer = quietly(interrupt).optimizer
    assert optimizer.tell(optimizer.ask(), 1.0).value == 1.0


@pytest.mark.parametrize("strategy", ["ei", "random", "grid", "sobol"])
def test_a_used_up_space_ends_the_loop_and_says_so(strategy: str) -> None:
    result = quietly(
        lambda params: params["depth"], FINITE, strategy=strategy, budget=50, initial=3
    )
    assert result.stopped == "exhausted"
    assert len({FINITE.key(trial.params) for trial in result.trials}) == len(result.trials) == 6
    assert "nothing was left to try" in str(result)


def test_the_objective_cannot_change_what_is_recorded() -> None:
    def vandal(params: dict[str, Any]) -> float:
        value = float(params.pop("x"))
        params["y"] = 3
        return value

    result = quietly(vandal)
    assert all(trial.params == {"x": trial.value} for trial in result.trials)


def test_the_same_seed_gives_the_same_trials() -> None:
    def trials(seed: int) -> list[Any]:
        result = quietly(lambda params: params["x"], strategy="ei", seed=seed)
        return [trial.params for trial in result.trials]

    assert trials(3) == trials(3)
    assert trials(3) != trials(4)


def test_time_is_split_between_the_objective_and_the_engine() -> None:
    def slow(params: dict[str, Any]) -> float:
        time.sleep(0.05)
        return params["x"]

    start = time.perf_counter()
    result = quietly(slow, budget=4)
    total = time.perf_counter() - start
    assert 0.2 <= result.objective_s < total
    assert 0 < result.engine_s <= total - result.objective_s


class Clock(Callback):
    """Goes on by three seconds in the objective, and by half a second when a trial has ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def objective(self, params: dict[str, Any]) -> float:
        self.now += 3.0
        return float(params["x"])

    def ended(self, trial: Trial) -> None:
        self.now += 0.5


def test_a_display_sees_the_time_that_passes_while_an_objective_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, states = Clock(monkeypatch), list[State]()

    def objective(params: dict[str, Any]) -> float:
        value = clock.objective(params)
        states.append(loop.snapshot())
        return value

    loop = _Loop(Optimizer(LINE, "random"), objective, 5, 1, "async", None, [clock])
    result = loop.run(None, False)
    seen = [(state.objective_s, state.engine_s, state.current_s) for state in states]
    assert seen == [(3.0 * (number + 1), 0.5 * number, 3.0) for number in range(5)]
    assert (result.objective_s, result.engine_s) == (15.0, 2.5)


def test_a_display_counts_what_was_done_and_failed_before() -> None:
    optimizer, values = Optimizer(LINE, "random"), iter([2.0, math.nan, 3.0])
    optimizer.fail(optimizer.ask())
    optimizer.tell(optimizer.ask(), 5.0)
    loop = _Loop(optimizer, lambda params: next(values), 5, 1, "async", None, ())
    before = loop.snapshot()
    loop.run(None, False)
    seen = [
        (state.done, state.failed, state.best and state.best.value)
        for state in (before, loop.snapshot())
    ]
    assert seen == [(2, 1, 5.0), (5, 2, 2.0)]


def test_a_display_does_not_count_as_failed_what_was_withdrawn_before() -> None:
    optimizer = Optimizer(LINE, "random")
    optimizer.fail(optimizer.ask())
    optimizer.withdraw(optimizer.ask())
    state = _Loop(optimizer, lambda params: 1.0, 5, 1, "async", None, ()).snapshot()
    assert (state.done, state.failed) == (2, 1)


@pytest.mark.parametrize(("limit", "trials"), [(3.5, 1), (3.6, 2), (7.0, 2), (7.1, 3)])
def test_the_time_limit_is_on_the_engine_too(
    limit: float, trials: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    ends = Completion(runtime_s=limit)
    result = quietly(clock.objective, completion=ends, callbacks=[clock])
    assert (result.stopped, len(result.trials)) == ("runtime", trials)


def test_failures_are_no_reason_to_end_once_the_budget_is_used() -> None:
    result = quietly(lambda params: 1 / 0, budget=3, completion=Completion(failures=3))
    assert (result.stopped, len(result.trials)) == ("budget", 3)


def test_the_default_design_takes_at_most_half_of_the_budget() -> None:
    def designed(budget: int, **options: Any) -> int:
        result = quietly(lambda params: params["x"], budget=budget, strategy="ei", **options)
        return sum(trial.origin == "design" for trial in result.trials)

    assert [designed(1), designed(2), designed(5), designed(12)] == [1, 1, 2, 5]
    assert designed(5, initial=4) == 4


@pytest.mark.parametrize("budget", [0, -3, 2.5, True])
def test_a_budget_that_counts_nothing_is_refused_before_any_trial(budget: Any) -> None:
    def never(params: dict[str, Any]) -> float:
        raise AssertionError("called")

    script = f"""
from gpbo.loop import minimize
from gpbo.space import Real, Space
minimize(1 and (lambda params: 1 / 0), Space(Real("x", 0, 1)), budget={budget!r})
"""
    if isinstance(budget, int):
        with pytest.raises(InvalidOption, match=f"budget={budget!r}"):
            quietly(never, budget=budget)
    else:
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert f"budget={budget!r}: expected a whole number, 1 or more" in ran.stderr


def test_without_progress_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    quietly(lambda params: params["x"])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("first", [True, False])
def test_an_interrupt_while_a_result_is_told_loses_no_result(
    first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it comes before the result is recorded or after."""
    told, tell = [], Optimizer.tell

    def interrupted(self: Optimizer, trial: Any, value: Any) -> Any:
        told.append(trial.id)
        if len(told) == 3 and first:
            raise KeyboardInterrupt
        ended = tell(self, trial, value)
        if len(told) == 3:
            raise KeyboardInterrupt
        return ended

    monkeypatch.setattr(Optimizer, "tell", interrupted)
    space = Space(Real("x", 0, 1))
    options: dict[str, Any] = {"strategy": "random", "budget": 9, "progress": False}
    result = minimize(lambda params: params["x"], space, **options)
    assert (result.stopped, told) == ("interrupted", [0, 1, 2, 2])
    assert [trial.value for trial in result.trials] == [t.params["x"] for t in result.trials]
    assert len(result.trials) == 3
