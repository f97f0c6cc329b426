"""gpbo's methods as the suites run them: paired, timed, recommending."""

import time
from dataclasses import replace
from typing import Any

import pytest
import torch

import gpbo
from gpbo.candidates import Search
from gpbo.errors import InvalidOption
from gpbo.strategies import ExpectedImprovement, RandomSearch
from gpbo_benchmarks import methods, suites
from gpbo_benchmarks.methods import METHODS
from gpbo_benchmarks.suites import Case, noisy
from gpbo_benchmarks.timing import Done, TimedStrategy
from gpbo_benchmarks.trace import Trace
from gpbo_benchmarks.units import initial_design, objective
from tests.changed_problems import failing

BRANIN = Case("branin", gpbo.problems.get("branin"), budget=11)
SEEDS = (3, 4)


@pytest.fixture(scope="module")
def traces() -> dict[str, list[Trace]]:
    names = ("random", "sobol", "ei-map", "ei-map-sync4", "ei-map-async4")
    return {name: METHODS[name].run(BRANIN, SEEDS) for name in names}


def test_all_methods_of_a_seed_share_problem_and_design(traces: dict[str, list[Trace]]) -> None:
    for row, seed in enumerate(SEEDS):
        design = initial_design(BRANIN, seed)
        problem = BRANIN.of([seed])
        values = [problem.evaluate(params) for params in design]
        assert len(design) == BRANIN.design == 5
        for method, runs in traces.items():
            pairs = list(zip(runs[row].params, runs[row].values, strict=True))
            if method.endswith("4"):  # in the order in which they ended, one perhaps not yet
                known = dict(zip(map(str, design), values, strict=True))
                met = [(known[str(p)], value) for p, value in pairs if str(p) in known]
                assert len(met) >= 5 - method.endswith("async4")
                assert [value for _, value in met] == pytest.approx([v for v, _ in met])
            else:
                assert [params for params, _ in pairs[:5]] == design
                assert [value for _, value in pairs[:5]] == pytest.approx(values, rel=1e-12)


def test_every_trace_is_complete_and_timed(traces: dict[str, list[Trace]]) -> None:
    for method, runs in traces.items():
        for seed, trace in zip(SEEDS, runs, strict=True):
            assert (trace.method, trace.problem, trace.seed) == (method, "branin", seed)
            assert len(trace.params) == trace.budget == 11
            assert trace.failure is None
            assert trace.together == 2
            # Only what was not designed took time; in async one of the design may run still.
            designed = sum(seconds == 0 for seconds in trace.ask_s)
            assert BRANIN.design - method.endswith("async4") <= designed <= BRANIN.design
            for ask, fit, acquisition in zip(
                trace.ask_s, trace.fit_s, trace.acquisition_s, strict=True
            ):
                assert fit is not None
                assert acquisition is not None
                assert ask >= fit + acquisition >= 0
            modelled = method.startswith("ei")
            assert any(fit for fit in trace.fit_s if fit) == modelled


def test_workers_have_a_clock_and_nobody_waits_in_async(traces: dict[str, list[Trace]]) -> None:
    assert traces["ei-map"][0].clock == ()
    for row in range(2):
        sync, free = traces["ei-map-sync4"][row], traces["ei-map-async4"][row]
        assert list(sync.clock) == sorted(sync.clock)
        assert len(set(free.clock)) == 11
        assert len(set(sync.clock)) == 4  # one of the design, then batches of four
        assert free.clock[-1] < sync.clock[-1]


@pytest.mark.parametrize("method", ["ei-map", "ts-map"])
def test_batches_are_proposed_together(method: str) -> None:
    """Two of three points and one of two, as `gpbo.replicate` makes them."""
    case = replace(BRANIN, budget=13, batch=3)
    own = METHODS[method]
    assert isinstance(own, methods.Method)
    runs = gpbo.replicate(
        case.of(SEEDS),
        strategy=own.strategy,
        inference=own.inference,
        runs=2,
        seed=SEEDS[0],
        budget=13,
        initial=5,
        batch=3,
        device="cpu",
        progress=False,
    )
    for row, trace in enumerate(own.run(case, SEEDS)):
        assert trace.failure is None
        assert list(trace.values) == runs.values[row].tolist()
        seconds = trace.ask_s[5:]
        assert len(set(seconds[:3])) == len(set(seconds[3:6])) == len(set(seconds[6:])) == 1
        assert len(set(seconds)) == 3
        assert trace.values[5:11] != own.run(BRANIN, SEEDS)[row].values[5:]


def test_workers_take_no_batches() -> None:
    with pytest.raises(InvalidOption, match="workers=4: expected 1 for branin, which is run in"):
        METHODS["ei-map-sync4"].run(replace(BRANIN, batch=3), SEEDS)


def test_with_noise_a_model_recommends_after_every_result() -> None:
    case = noisy(replace(BRANIN, budget=8), 0.2)
    modelled, blind = (METHODS[name].run(case, SEEDS)[0] for name in ("ei-map", "random"))
    assert all(truth is None for truth in modelled.recommended_truth[: case.design - 1])
    for params, truth in list(zip(modelled.recommended, modelled.recommended_truth, strict=True))[
        case.design - 1 :
    ]:
        assert params in modelled.params
        assert truth == modelled.truth[modelled.params.index(params)]
    assert set(blind.recommended_truth) == {None}
    assert all(a != b for a, b in zip(modelled.values, modelled.truth, strict=True))


@pytest.mark.parametrize("method", ["ei-map", "ts-map", "random", "ei-map-async4"])
def test_what_does_not_meet_the_constraints_is_told_as_peers_are_told(method: str) -> None:
    case = Case("gramacy", gpbo.problems.get("gramacy"), budget=9)
    for trace in METHODS[method].run(case, SEEDS):
        evaluate = objective(case, case.of([trace.seed]), trace.seed)
        found = [evaluate(params, number) for number, params in enumerate(trace.params)]
        assert [each.value for each in found] == pytest.approx(list(trace.values), rel=1e-12)
        assert tuple(each.status for each in found) == trace.status
        assert {*trace.status} == {"completed", "violated"}
        for params in filter(None, trace.recommended):  # only what meets them
            assert trace.status[trace.params.index(params)] == "completed"
        assert all(len(each.excess) == 2 for each in found)


def test_with_noise_and_constraints_the_best_of_those_that_meet_them_is_recommended() -> None:
    """As `gpbo.Optimizer.recommend` says; nothing while there is none."""
    problem = replace(gpbo.problems.get("gramacy"), noise=0.1)
    case = Case("gramacy", problem, budget=12)
    for trace in METHODS["ei-map"].run(case, SEEDS):
        optimizer = gpbo.Optimizer(
            problem.space, constraints=problem.limits, inference="map", seed=trace.seed
        )
        measure = case.of([trace.seed]).measure
        for params, value in zip(trace.params, trace.values, strict=True):
            assert value is not None
            optimizer.add(params, value, measured=measure(params)[1])
        assert trace.recommended[-1] == optimizer.recommend().params


@pytest.mark.parametrize("limited", [False, True])
def test_the_seconds_of_a_problem_are_its_own_and_no_method_s(limited: bool) -> None:
    """Each has an equal share of what all evaluations took."""
    calls = list[None]()

    def slow(values: Any) -> Any:
        def of(x: torch.Tensor) -> Any:
            time.sleep(0.01)
            calls.append(None)
            return values(x)

        return of

    problem = gpbo.problems.get("gramacy")
    if limited:
        problem = replace(problem, constraints=tuple(map(slow, problem.constraints)))
    else:
        problem = replace(problem, function=slow(problem.function))
    case = Case("slow", problem, budget=7)
    for method in ("random", "ei-map-sync4"):
        calls.clear()
        traces = METHODS[method].run(case, SEEDS)
        (each,) = {seconds for trace in traces for seconds in trace.evaluation_s}
        told = 7 * len(SEEDS)  # with several workers some evaluations are told of no more
        assert each > 0
        assert method != "random" or told * each >= 0.0099 * len(calls) > 0


@pytest.mark.parametrize("broken", ["value", "constraint"])
def test_an_evaluation_that_fails_is_told_as_peers_are_told(broken: str) -> None:
    """What is NaN is a failed trial, whether it is the value or what a constraint limits."""
    problem = gpbo.problems.get("gramacy")
    if broken == "value":
        problem = failing(problem)
    else:
        first, second = problem.constraints
        broken_first = failing(replace(problem, function=first)).function
        problem = replace(problem, constraints=(broken_first, second))
    case = Case("nans", problem, budget=12, shifted=False)
    for trace in METHODS["random"].run(case, SEEDS):
        evaluate = objective(case, case.of([trace.seed]), trace.seed)
        found = [evaluate(params, number) for number, params in enumerate(trace.params)]
        assert tuple(each.status for each in found) == trace.status
        failed = [status == "failed" for status in trace.status]
        assert 0 < sum(failed) < len(failed)
        for each in (trace.values, trace.truth):
            assert [value is None for value in each] == failed


def test_suites_are_measured_on_the_processor_that_peers_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their seconds are compared."""
    asked = {}

    class Asked(Exception):
        pass

    def look(*_: Any, **options: Any) -> None:
        asked.update(options)
        raise Asked

    for method, name in (("ei-map", "replicate"), ("ei-map-sync4", "simulate")):
        monkeypatch.setattr(gpbo if name == "replicate" else methods, name, look)
        with pytest.raises(Asked):
            METHODS[method].run(BRANIN, SEEDS)
        assert asked.pop("device") == "cpu"


def test_what_is_recommended_is_counted_in_results_and_told_as_a_trial() -> None:
    """A failed trial is no result: the second result is the third trial, and stays recommended."""
    strategy = TimedStrategy(RandomSearch())
    value = torch.tensor([[5.0, torch.nan, 3.0, 4.0]]).double()
    points = torch.rand(1, 4, 2).double()
    strategy.recommended = {(3, n): points[0, at] for n, at in ((1, 0), (2, 2), (3, 2))}
    done = Done((3,), [4], [[0, 1, 2, 3]], points, value, value, value.new_zeros(1, 4, 0), [])
    case = replace(BRANIN, budget=4)
    (trace,) = done.traces("random", case, case.problem, strategy, 1.0)
    assert trace.recommended_truth == (5.0, 5.0, 3.0, 3.0)
    assert trace.recommended[2] == trace.params[2]


@pytest.mark.parametrize("method", ["ei-map", "ts-map", "ei-map-sync4", "ei-map-async4"])
def test_what_is_recommended_is_known_by_then_whatever_failed_or_ended_late(method: str) -> None:
    """Without noise it is the best result, or nearly."""
    case = Case("fails", failing(gpbo.problems.get("branin")), budget=14)
    traces = METHODS[method].run(case, (0, 1, 2, 3))
    assert any(None in trace.values for trace in traces)
    compared = 0
    for trace in traces:
        for n, truth in enumerate(trace.recommended_truth, start=1):
            if truth is not None:
                known = [value for value in trace.values[:n] if value is not None]
                assert truth == pytest.approx(min(known), abs=1.5)
                compared += 1
    assert compared > 15


def test_all_seconds_are_of_some_trial_and_runs_of_a_batch_share_them() -> None:
    strategy = TimedStrategy(ExpectedImprovement(Search(32, 8, 2, 8)))
    options: dict[str, Any] = {"runs": 3, "budget": 7, "batch": 2, "initial": 3}
    runs = gpbo.replicate(
        BRANIN.problem, strategy=strategy, inference="map", progress=False, **options
    )
    assert sorted(strategy.steps) == [(seed, n) for seed in range(3) for n in range(3, 7)]
    assert sum(map(sum, strategy.steps.values())) == pytest.approx(strategy.seconds)
    seconds, case = strategy.seconds + 6.0, replace(BRANIN, budget=7)
    traces = Done.replicated(runs).traces("ei", case, case.problem, strategy, seconds)
    assert sum(sum(trace.ask_s) for trace in traces) == pytest.approx(seconds)
    assert [trace.ask_s for trace in traces] == [traces[0].ask_s] * 3


def test_peers_see_the_noise_that_gpbo_sees() -> None:
    case = noisy(replace(BRANIN, budget=9), 0.2)
    trace = METHODS["random"].run(case, SEEDS)[1]
    evaluate = objective(case, case.of([SEEDS[1]]), SEEDS[1])
    found = [evaluate(params, number) for number, params in enumerate(trace.params)]
    assert [f.value for f in found] == pytest.approx(list(trace.values), rel=1e-12)
    assert [f.truth for f in found] == pytest.approx(list(trace.truth), rel=1e-12)


def test_a_mixed_space_is_run_as_one_batch() -> None:
    case = suites.get("tuning").with_budget(9).case("neighbours-diabetes")
    for trace in METHODS["ei-map"].run(case, SEEDS):
        assert set(trace.params[0]) == {"k", "weights", "power"}
        assert len(trace.params) == 9
        assert all(seconds > 0 for seconds in trace.evaluation_s)


def test_the_clock_of_kandasamy_s_cases_ends_the_runs() -> None:
    case = suites.get("kandasamy").with_budget(40).case("hartmann3")
    for trace in METHODS["asyRAND"].run(case, (0, 1)):
        assert max(trace.clock) <= 40 / 8
        assert trace.budget == len(trace.params) > 20
        assert trace.failure is None
