"""The simulated clock: how many evaluations fit in, and that a run is what an optimizer does."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from gpbo import problems
from gpbo.backend import Streams
from gpbo.candidates import Search
from gpbo.errors import InvalidData, InvalidOption, SpaceExhausted
from gpbo.lockstep import replicate
from gpbo.optimizer import Optimizer
from gpbo.problems import Problem
from gpbo.replications import Replications
from gpbo.simulation import LAWS, Simulation, pareto, simulate
from gpbo.situation import Situation
from gpbo.strategies import ExpectedImprovement, GridSearch, RandomSearch, ThompsonSampling
from gpbo.text import short
from tests.monte_carlo import unchecked_shapes
from tests.noting import Noting

BRANIN = problems.get("branin")
GRAMACY = problems.get("gramacy")
QUICK = Search(raw=32, perturbed=8, restarts=2, iterations=8)
CLOSE = Search(raw=64, perturbed=16, restarts=4, iterations=60)
TS = ThompsonSampling(QUICK, features=64)


def clock(**options: Any) -> Simulation:
    usual = {"problem": BRANIN, "strategy": "random", "workers": 3, "horizon": 4.0}
    usual["progress"] = False
    return simulate(**{**usual, **options})


def _failing(x: Tensor) -> Tensor:
    return torch.where(x[..., 0] < 0, torch.where(x[..., 1] < 7, torch.nan, -torch.inf), _branin(x))


_branin = BRANIN.function
#: A third of the box has no value.
FAILING = replace(BRANIN, function=_failing)


def replay(
    result: Simulation, run: int, strategy: Any, *, initial: int, problem: Problem = BRANIN
) -> None:
    """An optimizer that is asked and told in the order of the events makes the same trials."""
    optimizer = Optimizer(
        problem.space, strategy, seed=result.seeds[run], initial=initial, inference="map",
        constraints=problem.limits,
    )  # fmt: skip
    names = [one.name for one in optimizer.constraints]
    numbers = result.trial[run].tolist()
    values = dict(zip(numbers, result.values[run].tolist(), strict=True))
    excess = dict(zip(numbers, result.excess[run].tolist(), strict=True))
    points = dict(zip(numbers, result.points[run], strict=True))
    for kind, number in result.events(run):
        if kind == "tell":
            measured = dict(zip(names, excess[number], strict=True))
            optimizer.tell(number, values[number], measured)
            continue
        trial = optimizer.ask()
        assert trial.id == number
        if number not in points:  # under way when the simulation ended
            assert number in result.unfinished[run]
            continue
        asked = problem.space.encode([trial.params])[0]
        torch.testing.assert_close(asked, points[number], rtol=0, atol=1e-5)


class Still:
    """Asks for one point, again and again."""

    name = "still"
    uses_model = False

    def propose(self, situation: Situation, count: int) -> Tensor:
        return situation.data.x.new_full((situation.data.runs, count, 2), 0.5)


@pytest.mark.parametrize("law", LAWS)
def test_the_laws_have_mean_one(law: str) -> None:
    times = LAWS[law](torch.zeros(2, 200_000, 1), Streams([0, 1]))
    assert (times >= 0).all()
    error = times.std() / 400_000**0.5
    assert (times.mean() - 1).abs() <= 4 * error + 1e-12


# Expected numbers: the mean of 300 simulations of the bare clocks, which are in the literature too:
# a renewal process for each worker, or a maximum of as many times.
@pytest.mark.parametrize(
    ("law", "workers", "horizon", "free", "in_step"),
    [
        pytest.param("uniform", 4, 50.0, 198, 123, marks=pytest.mark.long),
        pytest.param("half-normal", 4, 40.0, 160, 86, marks=pytest.mark.long),
        pytest.param("half-normal", 25, 30.0, 746, 255, marks=pytest.mark.long),
        pytest.param("half-normal", 35, 20.0, 693, 219, marks=pytest.mark.long),
        pytest.param("pareto", 35, 20.0, 688, 227, marks=pytest.mark.long),
        pytest.param("exponential", 12, 30.0, 360, 111, marks=pytest.mark.long),
        ("half-normal", 10, 25.0, 248, 101),
        ("exponential", 8, 30.0, 242, 85),
    ],
)
def test_as_many_evaluations_fit_in_as_the_law_says(
    law: str, workers: int, horizon: float, free: int, in_step: int
) -> None:
    options = {"workers": workers, "horizon": horizon, "times": law}
    for mode, expected in (("async", free), ("sync", in_step)):
        # In step there are few batches, and the longest of Pareto times vary much.
        runs = 24 if mode == "async" or law != "pareto" else 300
        counts = clock(mode=mode, strategy=Still(), runs=runs, **options).evaluations.double()
        error = counts.std() / runs**0.5
        assert abs(counts.mean() - expected) < 0.05 * expected
        assert abs(counts.mean() - expected) < 4 * error + 1


#: Evaluations that fit in without waiting over those in step, by the number of workers.
GAINS = {
    "constant": dict.fromkeys((4, 8, 10, 12, 25, 35, 100), 1.0),
    "uniform": {4: 1.60, 8: 1.78, 10: 1.82, 12: 1.85, 25: 1.92, 35: 1.94},
    "half-normal": {4: 1.83, 8: 2.24, 10: 2.36, 12: 2.46, 25: 2.83, 35: 2.98, 100: 3.44},
    "exponential": {4: 2.08, 8: 2.72, 10: 2.93, 12: 3.10, 25: 3.82, 35: 4.16, 100: 5.19},
    "pareto": {4: 1.47, 8: 1.83, 10: 1.97, 12: 2.07, 25: 2.65, 35: 2.96, 100: 4.19},
}


@pytest.mark.parametrize(("law", "ratios"), GAINS.items())
def test_the_gain_of_not_waiting_is_the_expected_maximum(
    law: str, ratios: dict[int, float]
) -> None:
    """The mean of the longest of M times, which is how much longer a batch lasts than a trial."""
    times = LAWS[law](torch.zeros(1, 100 * 20_000, 1), Streams([3]))[0]
    for workers, ratio in ratios.items():
        longest = times[: workers * 20_000].view(20_000, workers).amax(1)
        assert abs(longest.mean() / ratio - 1) < 0.05


@pytest.mark.parametrize(
    ("law", "workers"),
    [
        pytest.param(
            law, workers, marks=() if (law, workers) == ("uniform", 4) else pytest.mark.long
        )
        for law, gains in GAINS.items()
        for workers in gains
    ],
)
def test_the_simulator_gains_as_much_as_the_law_says(law: str, workers: int) -> None:
    """Without waiting a worker makes a trial per unit of time, in step one per longest of a batch.

    A clock that stops loses what is under way: on average the squared coefficient of variation
    of the times less 1, halved, of a trial or a batch.
    """
    horizon = 50.0
    options = {"workers": workers, "times": law, "horizon": horizon}
    drawn = LAWS[law](torch.zeros(1, 20_000 * workers, 1), Streams([3]))[0].view(-1, workers)
    for mode, lasting in (("async", drawn.flatten()), ("sync", drawn.amax(-1))):
        several = 20 if mode == "async" else 25 * min(workers, 16)
        runs = 1 if law == "constant" else several  # all alike
        counts = clock(mode=mode, strategy=Still(), runs=runs, **options).evaluations.double()
        lost = float((lasting.var() / lasting.mean().square() - 1) / 2)
        mean = 1.0 if mode == "async" else GAINS[law][workers]
        expected = workers * (horizon / mean + (0.0 if law == "constant" else lost))
        assert abs(counts.mean() / expected - 1) < 0.05


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_no_more_trials_run_at_a_time_than_there_are_workers(mode: str) -> None:
    result = clock(mode=mode, runs=5)
    moments = torch.linspace(0.01, 3.9, 97).double()
    started = (result.started.unsqueeze(-1) <= moments).sum(1)
    ended = (result.ended.unsqueeze(-1) <= moments).sum(1)
    running = started - ended
    assert running.max() <= 3
    if mode == "async":  # those that end last, after the horizon, are not all in the log
        early = moments < 2.0
        assert (running[:, early] >= 1).all()


def test_in_step_all_workers_start_together() -> None:
    result = clock(mode="sync", workers=5, runs=2)
    starts = result.started.view(2, -1, 5)
    assert (starts == starts[..., :1]).all()
    assert (starts[:, 1:, 0] == result.ended.view(2, -1, 5)[:, :-1].amax(-1)).all()


@pytest.mark.parametrize("latency", [0.0, 0.4])
@pytest.mark.parametrize("mode", ["async", "sync"])
@pytest.mark.parametrize("strategy", [TS, ExpectedImprovement(QUICK)], ids=["ts", "ei"])
def test_a_run_is_what_an_optimizer_asked_and_told_in_that_order_does(
    mode: str, strategy: Any, latency: float
) -> None:
    options = {"strategy": strategy, "mode": mode, "initial": 4, "workers": 2, "seed": 7}
    options["latency"] = latency
    runs = [clock(**{**options, "seed": seed}) for seed in (7, 8)]
    for result in runs:
        replay(result, 0, strategy, initial=4)


@pytest.mark.parametrize("mode", ["async", "sync"])
@pytest.mark.parametrize(
    ("strategy", "budget"),
    [(ThompsonSampling(CLOSE, features=64), 7), (ExpectedImprovement(CLOSE), 10)],
    ids=["ts", "ei"],
)
def test_so_it_is_with_constraints_and_trials_that_fail_in_some_runs(
    mode: str, strategy: Any, budget: int
) -> None:
    """Two quantities are limited; the second is no number in a third of the box.

    A search that ends early, or many trials in single precision, would show the roundings.
    """
    first, second = GRAMACY.constraints
    torn = replace(
        GRAMACY, constraints=(first, lambda x: second(x).where(x[..., 0] > 0.3, torch.nan))
    )
    options = {"problem": torn, "strategy": strategy, "mode": mode, "initial": 3, "workers": 2}
    options |= {"horizon": float("inf"), "budget": budget}
    together = clock(**options, runs=3, seed=4)
    failed = together.values.isnan()
    assert torch.equal(failed, together.excess.isnan().any(-1))
    assert len({*failed.sum(-1).tolist()}) > 1
    assert together.regret[:, -1].isfinite().any()
    for run in range(3):
        replay(together, run, strategy, initial=3, problem=torn)


@pytest.mark.parametrize("mode", ["async", "sync"])
@pytest.mark.parametrize(
    "strategy",
    ["random", ThompsonSampling(CLOSE, features=64), ExpectedImprovement(QUICK)],
    ids=["random", "ts", "ei"],
)
def test_failed_trials_are_failures_of_their_run_alone(mode: str, strategy: Any) -> None:
    """Designs of different lengths, fits at different times, and different numbers of results."""
    assert_failures_are_of_their_run_alone(mode, strategy, FAILING)


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_so_they_are_where_an_improvement_is_on_samples(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpbo.strategies._NOISY", 0.0)
    strategy = ExpectedImprovement(CLOSE, incumbent="sampled", refine=0)
    assert_failures_are_of_their_run_alone(mode, strategy, replace(FAILING, noise=30.0))


def assert_failures_are_of_their_run_alone(mode: str, strategy: Any, problem: Problem) -> None:
    options = {"problem": problem, "strategy": strategy, "mode": mode, "initial": 3, "workers": 2}
    options |= {"horizon": float("inf"), "budget": 10}
    together = clock(**options, runs=3, seed=5)
    failed = together.values.isnan()
    assert torch.equal(failed, ~together.truth.isfinite())
    assert len({*failed.sum(-1).tolist()}) > 1
    for run in range(3):
        replay(together, run, strategy, initial=3)
        alone = clock(**options, seed=5 + run)
        assert torch.equal(together.trial[run], alone.trial[0])
        assert torch.equal(failed[run], alone.values[0].isnan())
        torch.testing.assert_close(together.points[run], alone.points[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("workers", "latency"), [(2, 0.0), (2, 0.4), (3, 0.8)])
def test_fits_that_are_due_at_different_times_stay_in_their_runs(
    workers: int, latency: float
) -> None:
    options = {"problem": FAILING, "strategy": TS, "initial": 3, "refit_every": 3}
    options |= {"workers": workers}
    options |= {"horizon": float("inf"), "budget": 12, "latency": latency}
    together = clock(**options, runs=3, seed=4)
    for run in range(3):
        alone = clock(**options, seed=4 + run)
        torch.testing.assert_close(together.points[run], alone.points[0], rtol=0, atol=1e-4)


def test_a_fit_has_the_chains_and_the_random_numbers_of_its_own_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gpbo import fitting

    few = fitting.Sampling(chains=2, warmup=1, draws=2, kept=2)
    ended: dict[frozenset[Any], Tensor] = {}  # where the chains of these results did
    drawn: list[tuple[frozenset[Any], Tensor]] = []
    warm_runs, fit = [], fitting.fit

    def noting(data: Any, *args: Any, warm: Any, streams: Streams, **kwargs: Any) -> Any:
        rows = zip(data.x, data.mask, strict=True)
        told = [frozenset(map(tuple, x[mask].tolist())) for x, mask in rows]
        for row, results in enumerate(told if warm is not None else []):
            last = [position for before, position in ended.items() if before <= results][-1]
            assert torch.equal(warm.warmth.position[row], last)
        warm_runs.append(0 if warm is None else len(told))
        drawn.extend(zip(told, streams.uniform(1), strict=True))
        found = fit(data, *args, warm=warm, streams=streams, sampling=few, **kwargs)
        assert found.warm is not None
        ended.update(zip(told, found.warm.warmth.position, strict=True))
        return found

    monkeypatch.setattr(fitting, "fit", noting)
    options = {"problem": FAILING, "strategy": TS, "initial": 3, "workers": 3, "latency": 0.8}
    result = clock(**options, runs=3, seed=4, horizon=float("inf"), budget=12, inference="hmc")
    assert {*warm_runs} == {0, 1, 2, 3}
    of_runs = [frozenset(map(tuple, points.tolist())) for points in result.points]
    for results, number in drawn:
        seeds = tuple(4 + run for run, own in enumerate(of_runs) if results <= own)
        assert torch.equal(Streams.per_seed(seeds, "fit", len(results)).uniform(1)[0], number)


def test_a_strategy_sees_where_trials_failed() -> None:
    noting = Noting(uses_model=False)
    result = clock(problem=FAILING, strategy=noting, runs=3, budget=8, horizon=float("inf"))
    seen = noting.seen
    last = seen[-2].failed_mask  # the last ask but one knew of seven trials
    assert last.any(0).all()
    for run in range(3):
        by_number = result.trial[run, :7].argsort()
        failed = result.values[run, by_number].isnan()
        points = result.points[run, by_number]
        assert torch.equal(seen[-2].failed[run, last[run]], points[failed])
        assert seen[-2].data.mask[run].tolist() == (~failed).tolist()
        # Before trial 5, two are under way: in the order in which they were asked for.
        place = {number: place for place, number in enumerate(result.trial[run].tolist())}
        under_way = sorted({*range(5)} - {*result.trial[run, :3].tolist()})
        points = result.points[run, [place[number] for number in under_way]]
        assert torch.equal(seen[5].data.pending[run], points)


def test_an_ask_that_waited_sees_the_trials_that_ended_first() -> None:
    noting = Noting(uses_model=False)
    result = clock(strategy=noting, workers=5, latency=0.8, horizon=math.inf, budget=17)
    for number, known in zip(result.trial[0].tolist(), result.known[0].tolist(), strict=True):
        by_number = result.trial[0, :known].argsort()
        assert torch.equal(noting.seen[number].data.x[0], result.points[0, by_number])


def test_points_of_the_design_are_pending_for_those_of_their_batch() -> None:
    """Trials fail, so that some batches begin with points of the design."""
    noting = Noting(uses_model=True)
    options = {"problem": FAILING, "mode": "sync", "workers": 5, "runs": 3, "seed": 5}
    clock(strategy=noting, initial=3, budget=17, **options)
    assert {count for _, count in noting.asked} > {5}
    for situation, count in noting.asked:
        assert (situation.index + count) % 5 == 0  # with those of the design, a batch
        data, failed = situation.data, situation.failed_mask.sum(-1)
        asked = data.counts + failed + data.pending_mask.sum(-1)
        assert asked.tolist() == [situation.index] * data.runs
        assert [len(taken) for taken in situation.taken] == asked.tolist()


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_more_workers_than_the_design_has_points_get_more_of_it_while_there_is_no_result(
    mode: str,
) -> None:
    """Nothing is fitted to no result; the first trial of one run fails."""
    noting = Noting(uses_model=True)
    options = {"problem": FAILING, "mode": mode, "workers": 5, "initial": 2, "runs": 3}
    result = clock(strategy=noting, budget=17, horizon=math.inf, seed=6, **options)
    assert min(int(situation.data.counts.min()) for situation in noting.seen) > 0
    for run in range(3):
        replay(result, run, Noting(uses_model=True), initial=2)


def test_a_trial_may_take_no_time() -> None:
    result = clock(times=lambda x, streams: torch.zeros_like(x[..., 0]), budget=7)
    assert result.trial.tolist() == [[*range(7)]]
    assert (result.ended == 0).all()


@pytest.mark.parametrize("wrong", ["soon", None, ["a"], [[1.0]], {"at": 1.0}])
@unchecked_shapes()
def test_what_is_no_time_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidOption, match=r"^times=.*: expected a number, or a list of them"):
        clock().regret_at(wrong)


def test_the_summary_says_what_came_of_it() -> None:
    result = clock(runs=5)
    low, middle, high = np.quantile(result.regret_at(4.0), [0.25, 0.5, 0.75])
    first, regret, told = str(result).splitlines()
    trials = result.trial.shape[1]
    ended = f"in each {trials} trials ended and 3 were running, the time was used up"
    assert first == f"5 runs, {ended}"
    assert regret.startswith(
        f"simple regret by time 4: median {short(float(middle))} "
        f"(quartiles {short(float(low))} to {short(float(high))}), mean "
    )
    heard = np.quantile(result.evaluations, 0.5)
    assert told.startswith(f"results told by time 4: median {short(float(heard))} (")
    assert repr(result) == str(result)
    unknown = replace(result, optimum=math.nan)
    reached = short(float(middle) + BRANIN.optimum)
    assert f"true value at the best trial by time 4: median {reached} (" in str(unknown)
    assert str(clock(horizon=math.inf, budget=6)).splitlines()[1].startswith("simple regret: med")


def test_the_summary_counts_the_runs_that_met_no_constraint() -> None:
    result = clock(problem=GRAMACY, runs=2)
    excess = result.excess.clone()
    excess[0] = 1.0
    told = str(replace(result, excess=excess)).splitlines()
    assert "runs without a trial that meets the constraints, not counted: 1" in told
    none = str(replace(result, excess=torch.ones_like(excess)))
    assert "regret" not in none
    assert "not counted: 2" in none


def test_runs_that_fail_everywhere_have_an_infinite_regret() -> None:
    nowhere = replace(BRANIN, function=lambda x: x[..., 0] * torch.inf)
    result = clock(problem=nowhere, strategy=TS, progress=True)
    assert result.values.isnan().all()
    assert (result.regret == torch.inf).all()


@pytest.mark.parametrize("latency", [0.0, 0.25])
def test_a_run_of_a_batch_is_the_run_alone(latency: float) -> None:
    together = clock(strategy=TS, runs=3, seed=4, initial=3, latency=latency)
    alone = clock(strategy=TS, runs=1, seed=5, initial=3, latency=latency)
    replay(together, 1, TS, initial=3)
    size = min(together.values.shape[1], alone.values.shape[1])
    assert size > 6
    torch.testing.assert_close(together.ended[1, :size], alone.ended[0, :size])
    torch.testing.assert_close(together.points[1, :size], alone.points[0, :size], rtol=0, atol=1e-4)


def test_a_trial_takes_as_long_and_has_the_same_noise_whatever_the_strategy_and_the_mode() -> None:
    def drawn(**options: Any) -> dict[tuple[int, int], Tensor]:
        noisy = problems.get("branin", noise=0.5)
        result = clock(problem=noisy, runs=2, budget=13, horizon=float("inf"), **options)
        told = torch.stack([result.ended - result.started, result.values - result.truth], -1)
        numbers = result.trial.tolist()
        return {
            (run, number): told[run, place]
            for run in range(2)
            for place, number in enumerate(numbers[run])
        }

    free = drawn(strategy="random", mode="async")
    in_step = drawn(strategy="sobol", mode="sync", workers=5)
    common = sorted(free.keys() & in_step.keys())
    assert len(common) > 17
    one, other = (torch.stack([of[key] for key in common]) for of in (free, in_step))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_times_may_come_from_what_is_evaluated() -> None:
    def left_is_slow(x: Tensor, streams: Streams) -> Tensor:
        return torch.where(x[..., 0] < 0.5, 3.0, 1.0)

    result = clock(times=left_is_slow)
    took = result.ended - result.started
    assert (took.round() == torch.where(result.points[..., 0] < 0.5, 3.0, 1.0)).all()


@pytest.mark.parametrize("took", [1.0, [1.0], [[-1.0]], [[float("nan")]]])
def test_times_that_are_none_are_refused(took: Any) -> None:
    times = torch.tensor(took) if isinstance(took, list) else took
    with unchecked_shapes(), pytest.raises(InvalidOption, match="times returned"):
        clock(times=lambda x, streams: times)


def test_what_the_optimizer_takes_counts_if_asked_for() -> None:
    free = clock(times="constant", workers=1, horizon=10.0)
    assert free.evaluations.tolist() == [10]
    slow = clock(times="constant", workers=1, horizon=10.0, latency=0.5)
    assert slow.evaluations.tolist() == [6]
    # One optimizer answers four workers in turn, a quarter each: never more than 4 a unit.
    busy = clock(times="constant", workers=8, horizon=10.0, latency=0.25)
    assert 30 <= int(busy.evaluations) <= 40
    measured = clock(times="constant", workers=1, horizon=2.0, latency="measured")
    assert (measured.started > 0).all()


def test_what_it_really_took_is_shared_by_the_points_of_all_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr("gpbo.simulator.time.perf_counter", lambda: float(next(ticks)))
    result = clock(mode="sync", workers=3, runs=5, latency="measured", budget=3)
    asked_at = (1 + result.trial) / 15.0  # one after another, in a tick for all of them
    torch.testing.assert_close(result.started, asked_at.double())


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_one_ask_is_answered_at_a_time_in_the_initial_design_too(mode: str) -> None:
    """In step the first trials are asked for together, and the next ones one by one."""
    options = {"strategy": "ei", "initial": 13, "workers": 3, "budget": 7}
    options["horizon"] = math.inf
    result = clock(mode=mode, times="constant", latency=0.75, runs=2, **options)
    starts = result.started.gather(1, result.trial.argsort(1))
    torch.testing.assert_close(starts, 0.75 * torch.arange(1.0, 8.0).double().expand(2, -1))


def test_workers_that_end_at_the_same_time_are_asked_for_one_by_one() -> None:
    result = clock(times="constant", workers=3, runs=2)
    assert torch.equal(result.known, (result.trial - 2).clamp(min=0))


@pytest.mark.parametrize("mode", ["async", "sync"])
@pytest.mark.parametrize("latency", [0.0, 0.1, 0.5])
def test_an_ask_knows_what_was_told_before_it_began(mode: str, latency: float) -> None:
    """Also what was told while it waited for the optimizer, which answers one ask at a time."""
    result = clock(latency=latency, mode=mode, runs=5, workers=7)
    began = result.started - latency + 1e-9  # the start was rounded
    told = (result.told.unsqueeze(1) <= began.unsqueeze(2)).sum(2)
    assert torch.equal(result.known, told)
    assert bool((result.unfinished.diff() > 0).all())
    if mode == "async":
        waited = result.known > (result.trial - 6).clamp(min=0)
        assert bool(waited.any()) == (latency > 0)


def test_an_ask_knows_what_was_told_at_the_moment_when_it_began() -> None:
    result = clock(latency=0.5, times="constant", workers=4, runs=2)
    told = (result.told.unsqueeze(1) <= (result.started - 0.5).unsqueeze(2)).sum(2)
    assert torch.equal(result.known, told)


def test_the_regret_at_a_time_is_that_of_what_had_ended() -> None:
    result = Simulation(
        trial=torch.tensor([[1, 0, 2]]),
        started=torch.tensor([[0.0, 0.0, 1.0]]),
        ended=torch.tensor([[1.0, 2.0, 5.0]]),
        told=torch.tensor([[1.0, 2.0, 5.0]]),
        known=torch.tensor([[0, 0, 1]]),
        points=torch.zeros(1, 3, 1),
        values=torch.tensor([[3.0, 4.0, 0.0]]),
        truth=torch.tensor([[3.0, 4.0, 1.0]]),
        excess=torch.zeros(1, 3, 0),
        unfinished=torch.tensor([[3]]),
        unfinished_started=torch.tensor([[2.0]]),
        unfinished_known=torch.tensor([[2]]),
        optimum=0.5,
        horizon=4.0,
        seeds=(0,),
    )
    failed = replace(result, values=torch.tensor([[torch.nan, 4.0, 0.0]]))
    assert failed.regret.tolist() == [[float("inf"), 3.5, 0.5]]
    assert failed.regret_at(torch.tensor([1.0, 3.0])).tolist() == [[float("inf"), 3.5]]
    violated = replace(result, excess=torch.tensor([[[-1.0, 0.0], [0.1, -9.0], [0.0, 0.0]]]))
    assert violated.regret.tolist() == [[2.5, 2.5, 0.5]]
    times = torch.tensor([0.5, 1.0, 3.0, 5.0])
    assert result.regret_at(times).tolist() == [[float("inf"), 2.5, 2.5, 0.5]]
    assert result.regret_at([0.5, 1.0, 3.0, 5.0]).tolist() == result.regret_at(times).tolist()
    assert result.regret_at(times.numpy()).tolist() == result.regret_at(times).tolist()
    assert result.regret_at(2.0).tolist() == result.regret_at(3.0).tolist() == [[2.5]]
    assert result.evaluations.tolist() == [2]
    assert list(result.events()) == [
        ("ask", 0), ("ask", 1), ("tell", 1), ("ask", 2), ("tell", 0), ("ask", 3), ("tell", 2),
    ]  # fmt: skip


def test_hyperparameters_may_be_fitted_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpbo import fitting

    sizes, fit = [], fitting.fit

    def noting(data: Any, *args: Any, **kwargs: Any) -> Any:
        sizes.append(data.x.shape[1])
        return fit(data, *args, **kwargs)

    monkeypatch.setattr(fitting, "fit", noting)
    clock(strategy=TS, workers=1, horizon=12.0, times="constant", initial=3, refit_every=4)
    assert sizes == [3, 7, 11]


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("workers", 0),
        ("horizon", 0.0),
        ("horizon", float("inf")),
        ("budget", 0),
        ("mode", "step"),
        ("times", "normal"),
        ("latency", -1.0),
        ("refit_every", 0),
        ("runs", 0),
        ("initial", 0),
        ("latency", "long"),
        ("latency", float("inf")),
        ("seed", -1),
        ("model", "saas"),
        ("problem", "bogus"),
        ("problem", 3),
    ],
)
def test_options_that_mean_nothing_are_refused(option: str, wrong: Any) -> None:
    with unchecked_shapes(), pytest.raises(InvalidOption, match=f"{option}="):
        clock(**{option: wrong})


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_a_used_up_grid_ends_the_runs_when_all_trials_have_ended(mode: str) -> None:
    options = {"horizon": float("inf"), "budget": 40, "workers": 4, "mode": mode, "runs": 2}
    result = clock(strategy=GridSearch(3), **options)
    assert result.stopped == "exhausted"
    assert result.trial.sort().values.tolist() == [[*range(9)]] * 2
    assert result.unfinished.shape == (2, 0)
    assert all(len(set(map(tuple, run.tolist()))) == 9 for run in result.points)
    replay(result, 1, GridSearch(3), initial=1)
    assert clock(strategy=GridSearch(3), **{**options, "budget": 9}).stopped == "budget"


class Scarce:
    """Has points for six trials only."""

    name = "scarce"
    uses_model = True

    def propose(self, situation: Situation, count: int) -> Tensor:
        if situation.index >= 6:
            raise SpaceExhausted("nothing is left")
        return RandomSearch().propose(situation, min(6 - situation.index, count))


@pytest.mark.parametrize(("initial", "made"), [(1, 6), (4, 6), (5, 6), (6, 6), (7, 7)])
def test_the_initial_design_is_made_where_nothing_else_is_left(initial: int, made: int) -> None:
    options = {"initial": initial, "workers": 4, "mode": "sync", "horizon": float("inf")}
    result = clock(strategy=Scarce(), budget=20, runs=2, **options)
    assert result.stopped == "exhausted"
    assert result.trial.sort().values.tolist() == [[*range(made)]] * 2
    # Where trials fail, some runs have more of their designs to make: the least is for all.
    result = clock(strategy=Scarce(), problem=FAILING, budget=20, runs=5, **options)
    assert result.stopped == "exhausted"
    assert result.trial.sort().values.tolist() == [[*range(result.trial.shape[1])]] * 5
    assert (result.points != 0).all()


def test_in_step_nobody_waits_in_the_initial_design() -> None:
    options = {"strategy": "ei", "initial": 8, "workers": 3, "horizon": 6.0, "runs": 2}
    in_step = clock(mode="sync", **options)
    free = clock(mode="async", **options)
    for run in range(2):
        starts = [
            dict(zip(each.trial[run].tolist(), each.started[run].tolist(), strict=True))
            for each in (in_step, free)
        ]
        assert [starts[0][j] for j in range(8)] == [starts[1][j] for j in range(8)]
        ends = dict(zip(in_step.trial[run].tolist(), in_step.ended[run].tolist(), strict=True))
        for batch in range(8, len(ends) - 3, 3):
            began = {starts[0][j] for j in range(batch, batch + 3)}
            assert began == {max(ends[j] for j in range(batch))}


@pytest.mark.parametrize(("mode", "ended"), [("async", 7), ("sync", 9)])
def test_a_budget_ends_the_runs_in_step_with_the_whole_batch(
    mode: Literal["async", "sync"], ended: int
) -> None:
    short = clock(horizon=float("inf"), budget=7, mode=mode, runs=2)
    long = clock(horizon=20.0, mode=mode, runs=2)
    assert short.values.shape == (2, ended)
    assert torch.equal(short.values, long.values[:, :ended])
    assert torch.equal(short.told, long.told[:, :ended])
    # The clock still counts, where it is the first to stop.
    both = clock(budget=700, horizon=2.0, mode=mode)
    assert both.values.shape[1] < 100


def test_pareto_times_without_a_mean_are_refused() -> None:
    with pytest.raises(InvalidOption, match=r"shape=1\.0"):
        pareto(1.0)


def test_room_for_more_results_changes_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU pads the results, so that shapes, and what is captured for them, are few."""
    options: dict[str, Any] = {"strategy": ExpectedImprovement(QUICK), "initial": 3, "runs": 2}
    exact = clock(**options)
    monkeypatch.setattr("gpbo.data.capacity", lambda count, device: count + 5 if count else 0)
    roomy = clock(**options)
    assert torch.equal(roomy.trial, exact.trial)
    torch.testing.assert_close(roomy.points, exact.points, atol=1e-4, rtol=0)


def test_a_file_of_before_there_were_constraints_is_read(tmp_path: Path) -> None:
    path = tmp_path / "runs.npz"
    runs = clock()
    runs.save(path)
    with np.load(path) as file:
        older = {name: file[name] for name in file if name != "excess"}
    np.savez_compressed(path, **older)
    again = Simulation.load(path)
    assert again.excess.shape == runs.excess.shape
    assert torch.equal(again.regret, runs.regret)


@pytest.mark.parametrize("problem", [BRANIN, GRAMACY], ids=["branin", "gramacy"])
def test_a_file_gives_back_every_field(problem: Problem, tmp_path: Path) -> None:
    runs = clock(problem=problem, runs=2, workers=5)
    path = tmp_path / "runs.data"  # the name is kept as it is
    runs.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["runs.data"]
    again = Simulation.load(path)
    for name, value in vars(runs).items():
        other = getattr(again, name)
        if isinstance(value, Tensor):
            torch.testing.assert_close(other, value, rtol=0, atol=0)
        else:
            assert other == value
    assert list(again.events(1)) == list(runs.events(1))


def test_an_interrupt_gives_what_had_ended() -> None:
    calls = 0

    def interrupt(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 13:
            raise KeyboardInterrupt
        return BRANIN.function(x)

    whole = clock(runs=2)
    cut = clock(runs=2, problem=replace(BRANIN, function=interrupt))
    assert (cut.stopped, whole.stopped) == ("interrupted", "runtime")
    assert clock(budget=3).stopped == "budget"
    made = cut.truth.shape[1]
    assert 0 < made < whole.truth.shape[1]
    assert torch.equal(cut.truth, whole.truth[:, :made])


@pytest.mark.parametrize(("horizon", "stopped"), [(4.0, "runtime"), (float("inf"), "budget")])
def test_trials_that_never_end_are_no_trouble_for_the_progress(
    horizon: float, stopped: str
) -> None:
    def never(x: Tensor, streams: Streams) -> Tensor:
        return torch.full(x.shape[:2], torch.inf, dtype=torch.double)

    result = clock(times=never, horizon=horizon, budget=7, runs=2, progress=True)
    assert result.stopped == stopped


@pytest.mark.parametrize(
    ("limit", "shares"),
    [
        ({}, [25, 50, 75, 100]),
        ({"budget": 3}, [33, 66, 100]),
        ({"horizon": float("inf"), "budget": 2}, [50, 100]),
    ],
)
def test_progress_is_the_share_of_the_clock_or_of_the_budget(
    limit: dict[str, Any], shares: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    result = clock(workers=1, runs=3, times="constant", progress=True, **limit)
    out, err = capfd.readouterr()
    assert out == ""
    regret = (result.values.cummin(-1).values - BRANIN.optimum).median(0).values.tolist()
    assert [line.split("  [")[0] for line in err.splitlines()] == [
        f"random on branin: {share}/100 %, median regret {short(best)}"
        for share, best in zip(shares, regret, strict=False)
    ]


def test_a_budget_alone_has_a_file_too(tmp_path: Path) -> None:
    runs = clock(horizon=float("inf"), budget=5)
    runs.save(tmp_path / "runs.npz")
    assert Simulation.load(tmp_path / "runs.npz").horizon == float("inf")


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    replicate("branin", strategy="random", runs=2, budget=3, progress=False).save(path)
    with pytest.raises(InvalidData, match=r"expected a file that Simulation\.save wrote"):
        Simulation.load(path)
    clock().save(path)
    with pytest.raises(InvalidData, match=r"expected a file that Replications\.save wrote"):
        Replications.load(path)


def test_an_interrupt_of_the_first_trials_ends_all_runs_too() -> None:
    def interrupt(x: Tensor) -> Tensor:
        raise KeyboardInterrupt

    cut = clock(runs=2, problem=replace(BRANIN, function=interrupt))
    assert (cut.stopped, cut.values.shape) == ("interrupted", (2, 0))
    assert cut.regret_at(torch.tensor([0.0, 3.0])).tolist() == [[math.inf] * 2] * 2
