"""When a job is done, and which trials end early."""

import math
from pathlib import Path
from typing import Any

import pytest

from gpbo.completion import Completion, MedianRule
from gpbo.errors import InvalidOption
from gpbo.loop import minimize
from gpbo.optimizer import Optimizer
from gpbo.space import Real, Space
from gpbo.trial import Trial
from gpbo.tuner import Execution, Tuner
from tests import objectives
from tests.monte_carlo import unchecked_shapes


def ended(*values: float | None) -> list[Trial]:
    trials = [Trial(number, {}, origin="design") for number in range(len(values))]
    return [
        trial.failed("no", None) if value is None else trial.completed(value, None)
        for trial, value in zip(trials, values, strict=True)
    ]


@pytest.mark.parametrize(
    ("criterion", "values", "sign", "reason"),
    [
        ({}, [1.0, 1.0, 1.0], 1, None),
        ({"target": 0.5}, [1.0, 0.6], 1, None),
        ({"target": 0.5}, [1.0, 0.5], 1, "target"),
        ({"target": 0.5}, [0.4], -1, None),
        ({"target": 0.5}, [0.7], -1, "target"),
        ({"target": 0.5}, [None], 1, None),
        ({"target": 0.0}, [0.0], 1, "target"),
        ({"runtime_s": 9.0}, [], 1, None),
        ({"runtime_s": 7.0}, [], 1, "runtime"),
        ({"runtime_s": 8.0}, [], 1, "runtime"),
        ({"patience": 1}, [1.0, 2.0], 1, "no improvement"),
        ({"patience": 2}, [1.0, 2.0], 1, None),
        ({"patience": 2}, [1.0, 2.0, 1.0], 1, "no improvement"),
        ({"patience": 2}, [1.0, None, None], 1, "no improvement"),
        ({"patience": 2}, [None, None, None], 1, None),
        ({"patience": 2}, [1.0, 2.0, 0.9], 1, None),
        ({"patience": 2}, [1.0, 2.0, 0.9], -1, None),
        ({"patience": 2}, [1.0, 0.5, 0.9], -1, "no improvement"),
        ({"patience": 2, "tolerance": 0.01}, [10.0, 9.0, 1.0, 0.999, 5.0], 1, "no improvement"),
        ({"patience": 2, "tolerance": 0.01}, [10.0, 9.0, 1.0, 0.9, 5.0], 1, None),
        ({"patience": 2, "tolerance": 0.01}, [10.0, 9.0, 1.0, 0.97, 5.0], 1, "no improvement"),
        ({"patience": 2, "tolerance": 0.01}, [10.0, 9.0, 1.0, 0.93, 5.0], 1, None),
        ({"patience": 2, "tolerance": 0.01}, [1.0, 1.0, 1.0], 1, "no improvement"),
        ({"patience": 1, "tolerance": 0.1}, [9.0, 5.0, 1.0, 0.8], 1, "no improvement"),
        ({"patience": 1, "tolerance": 0.1}, [9.0, 5.0, 1.0, 0.7], 1, None),
        # The distances are beyond the largest number.
        ({"patience": 2}, [1.0, 1e308, -1e308, -1.5e308], 1, None),
        ({"patience": 2}, [1.5e308, -1e308, -1e308], 1, None),
        ({"patience": 2}, [-1e308, 1.5e308, 1.4e308, 1.5e308], -1, "no improvement"),
        ({"patience": 2, "tolerance": 0.1}, [1.5e308, 1.5e308, 1e308, -1e308], 1, None),
        (
            {"patience": 2, "tolerance": 0.1},
            [1.6e308] * 4 + [-1e308, -1.1e308, 0.0],
            1,
            "no improvement",
        ),
        ({"patience": 2, "tolerance": 0.1}, [1.6e308] * 4 + [-1e308, -1.4e308, 0.0], 1, None),
        ({"patience": 1}, [1e-323, 5e-324], 1, None),
    ],
)
def test_a_job_ends_when_it_should(
    criterion: Any, values: Any, sign: float, reason: str | None
) -> None:
    assert Completion(**criterion).reached(ended(*values), float(sign), elapsed_s=8.0) == reason


@pytest.mark.parametrize(
    ("criterion", "values", "reason"),
    [
        ({"target": 0.5}, [0.7], None),
        ({"target": 0.5}, [0.7, 0.5], "target"),
        ({"patience": 2}, [], None),
        ({"patience": 2}, [0.7], None),
        ({"patience": 2}, [0.7, None], "no improvement"),
        ({"patience": 2}, [0.7, 0.2], None),
        ({"patience": 1, "tolerance": 0.1}, [2.0, 0.3], "no improvement"),
    ],
)
def test_added_results_are_no_trials_but_have_to_be_improved_on(
    criterion: Any, values: Any, reason: str | None
) -> None:
    added = [
        Trial(number, {}).completed(value, None) for number, value in enumerate((0.4, 3.0, 9.0))
    ]
    trials = [*added, *ended(*values)]
    assert Completion(**criterion).reached(trials, 1.0, elapsed_s=8.0) == reason


@pytest.mark.parametrize(("failures", "reason"), [(3, "failures"), (4, None), (None, None)])
def test_a_job_ends_when_one_trial_after_another_fails(
    failures: int | None, reason: str | None
) -> None:
    completion = Completion(failures=failures, patience=7)
    assert completion.reached(ended(1.0, None, None, None), 1.0, 8.0, failed=3) == reason


@pytest.mark.parametrize(
    ("values", "elapsed", "failed", "reason"),
    [
        ([0.7, 0.5, None, None], 8.0, 2, "target"),
        ([0.7, 0.6, None, None], 8.0, 2, "runtime"),
        ([0.7, 0.6, None, None], 7.0, 2, "failures"),
        ([0.7, 0.6, None, None], 7.0, 1, "no improvement"),
    ],
)
def test_of_several_criteria_that_are_met_the_one_that_says_most_is_named(
    values: Any, elapsed: float, failed: int, reason: str
) -> None:
    completion = Completion(runtime_s=8.0, target=0.5, patience=2, failures=2)
    assert completion.reached(ended(*values), 1.0, elapsed, failed=failed) == reason


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Completion, {"runtime_s": 0.0}),
        (Completion, {"runtime_s": "9"}),
        (Completion, {"target": math.nan}),
        (Completion, {"target": "low"}),
        (Completion, {"patience": 0}),
        (Completion, {"failures": 0}),
        (Completion, {"patience": "3"}),
        (Completion, {"tolerance": 1.0, "patience": 2}),
        (Completion, {"tolerance": "0.1"}),
        (Completion, {"tolerance": 0.1}),  # without a patience
        (MedianRule, {"trials": 0}),
        (MedianRule, {"trials": "2"}),
        (MedianRule, {"steps": 2.5}),
    ],
)
def test_a_criterion_out_of_range_is_named(kind: Any, wrong: Any) -> None:
    name = next(iter(wrong))
    with unchecked_shapes(), pytest.raises(InvalidOption, match=f"{name}="):
        kind(**wrong)


OTHERS = [{0: 1.0, 1: 3.0}, {0: 2.0, 1: 2.0}, {0: 9.0, 1: 1.0}]  # averages 2, 2, 5


@pytest.mark.parametrize(
    ("curve", "sign", "stops"),
    [
        ({0: 4.0, 1: 2.5}, 1, True),
        ({0: 4.0, 1: 2.0}, 1, False),
        ({0: 1.9, 1: 8.0}, 1, False),
        ({0: 2.5}, 1, True),
        ({0: 2.0}, 1, False),
        ({0: 1.5, 1: 1.9}, -1, True),
        ({0: 2.1, 1: 1.0}, -1, False),
        ({0: math.nan}, 1, False),
        ({0: math.nan, 1: 2.5}, 1, True),
        ({0: 9.0, 1: 9.0, 2: 9.0}, 1, False),
    ],
)
def test_a_trial_that_is_worse_than_the_median_stops(
    curve: dict[int, float], sign: float, stops: bool
) -> None:
    assert (MedianRule(trials=3).verdict(curve, OTHERS, float(sign)) is not None) == stops


def test_no_trial_stops_before_others_and_it_have_shown_enough() -> None:
    bad = {0: 99.0, 1: 99.0}
    assert MedianRule(trials=4).verdict(bad, OTHERS, 1.0) is None
    assert MedianRule(trials=3, steps=3).verdict(bad, OTHERS, 1.0) is None
    verdict = MedianRule(trials=3, steps=2).verdict(bad, OTHERS, 1.0)
    assert str(verdict).startswith("stopped early at step 1: its best value is 99, the median of ")


def test_unless_told_otherwise_twenty_failures_end_a_job_and_five_others_stop_a_trial() -> None:
    reasons = [Completion().reached([], 1.0, 8.0, failed=failed) for failed in (19, 20)]
    assert reasons == [None, "failures"]
    verdicts = [MedianRule().verdict({0: 2.0}, [{0: 1.0}] * others, 1.0) for others in (4, 5)]
    assert [verdict is not None for verdict in verdicts] == [False, True]


def test_others_without_a_finite_value_do_not_count() -> None:
    others = [{0: 1.0}, {0: 1.0}, {0: math.nan}]
    assert MedianRule(trials=3).verdict({0: 2.0}, others, 1.0) is None
    assert MedianRule(trials=2).verdict({0: 2.0}, others, 1.0) is not None


def test_others_are_averaged_up_to_the_step_of_the_trial() -> None:
    """Later on they get worse; that does not excuse a trial that is worse than they were."""
    others = [{0: 1.0, 1: 9.0}] * 3
    assert MedianRule(trials=3).verdict({0: 2.0}, others, 1.0) is not None
    assert MedianRule(trials=3).verdict({0: 2.0, 1: 6.0}, others, 1.0) is None


def test_others_are_judged_by_the_mean_of_their_finite_values() -> None:
    others = [{0: 0.0, 1: 0.0, 2: 9.0}, {0: 4.0, 1: math.nan, 2: 2.0}, {0: 1.0, 1: 1.0, 2: 7.0}]
    for value, stops in ((2.9, False), (3.1, True)):
        curve = {0: value, 1: value, 2: value}
        assert (MedianRule(trials=3).verdict(curve, others, 1.0) is not None) == stops


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_reports_may_add_up_to_more_than_the_largest_number(sign: float) -> None:
    others = [{0: sign * 1.7e308, 1: sign * 1.5e308, 2: sign * 1.6e308}] * 4
    for value, stops in ((1.7e308, True), (1.6e308, False), (1.5e308, False), (-1.7e308, False)):
        verdict = MedianRule(trials=4).verdict({2: sign * value}, others, sign)
        assert (verdict is not None) == stops, value


def test_a_job_whose_reports_are_huge_goes_on_and_is_resumed(tmp_path: Path) -> None:
    space, values = Space(Real("x", 0.0, 1.0)), (0.1, 0.2, 0.3)
    execution = Execution(early_stopping=MedianRule(trials=1))
    with Optimizer(space, "sobol", storage=tmp_path / "runs.db", name="job") as optimizer:
        for x in values:
            optimizer.enqueue({"x": x})
        result = Tuner(optimizer, objectives.huge_reports, budget=2, execution=execution).run()
        assert [trial.value for trial in result.trials] == [0.1, 0.2]
    with Optimizer.resume(tmp_path / "runs.db", "job") as optimizer:
        result = Tuner(optimizer, objectives.huge_reports, budget=3, execution=execution).run()
        assert [trial.value for trial in result.trials] == [0.1, 0.2, 0.3]


def test_a_value_that_is_no_number_counts_as_a_step_of_the_trial_that_reported_it() -> None:
    curve = {0: 2.0, 1: math.nan}
    assert MedianRule(trials=3, steps=2).verdict(curve, [{0: 1.0, 1: 1.5}] * 3, 1.0) is not None
    assert MedianRule(trials=3).verdict(curve, [{0: 1.0, 1: 9.0}] * 3, 1.0) is None
    assert MedianRule(trials=3).verdict(curve, [{0: 1.0}] * 3, 1.0) is None


def test_a_verdict_on_what_is_maximised_is_in_the_users_sign() -> None:
    verdict = str(MedianRule(trials=3).verdict({0: 1.5, 1: 1.9}, OTHERS, -1.0))
    assert verdict.endswith("its best value is 1.9, the median of the others' averages 2")


class Three(Completion):
    """A rule of a user's own."""

    def reached(self, finished: Any, *others: Any, **more: Any) -> Any:
        return "no improvement" if len(finished) == 3 else None


def test_a_rule_of_the_users_own_ends_a_loop() -> None:
    space = Space(Real("x", 0, 1))
    options: dict[str, Any] = {"strategy": "random", "budget": 9, "progress": False}
    result = minimize(lambda params: 1.0, space, completion=Three(), **options)
    assert str(result).splitlines()[0] == "3 trials (0 failed), no further improvement"
