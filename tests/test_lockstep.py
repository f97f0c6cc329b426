"""Many runs together: every row is the run that it would be alone."""

import itertools
import math
import signal
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gpbo import fitting, problems
from gpbo.candidates import Search
from gpbo.errors import InvalidOption
from gpbo.lockstep import replicate
from gpbo.loop import minimize
from gpbo.optimizer import Optimizer
from gpbo.problems import Problem
from gpbo.replications import Replications
from gpbo.strategies import (
    STRATEGIES,
    ExpectedImprovement,
    ProbabilityOfImprovement,
    Strategy,
    ThompsonSampling,
)
from gpbo.text import short
from tests.changed_problems import changed, failing
from tests.noting import Noting

BRANIN = problems.get("branin")
HARTMANN = problems.get("hartmann3")
GRAMACY = problems.get("gramacy")
QUICK = Search(raw=32, perturbed=8, restarts=3, iterations=12)

devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


def quick(name: str) -> Strategy:
    """The strategy of this name; with a model, one that does not search hard."""
    models: dict[str, Strategy] = {
        "ei": ExpectedImprovement(QUICK),
        "ei-sampled": ExpectedImprovement(QUICK, incumbent="sampled"),
        "pi": ProbabilityOfImprovement(QUICK),
        "ts": ThompsonSampling(QUICK, features=64),
    }
    return models.get(name) or STRATEGIES[name]()


def quietly(problem: Problem | str = BRANIN, strategy: str = "ei", **options: Any) -> Replications:
    chosen = {
        "runs": 2,
        "budget": 7,
        "initial": 4,
        "inference": "map",
        "progress": False,
        **options,
    }
    return replicate(problem, strategy=quick(strategy), **chosen)


# --- a row is a run


@devices
@pytest.mark.parametrize("strategy", [*STRATEGIES, "ei-sampled"])
def test_a_run_in_a_batch_makes_the_trials_that_it_makes_alone(strategy: str, device: str) -> None:
    together = quietly(strategy=strategy, seed=4, device=device)
    for run in range(2):
        alone = quietly(strategy=strategy, seed=4 + run, runs=1, device=device)
        np.testing.assert_allclose(together.points[run], alone.points[0], atol=1e-4)
        np.testing.assert_allclose(together.values[run], alone.values[0], atol=1e-2)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_alone_makes_the_trials_of_minimize_with_its_seed(strategy: str) -> None:
    runs = quietly(HARTMANN, strategy, seed=6, runs=1)
    result = minimize(
        HARTMANN.evaluate,
        HARTMANN.space,
        budget=7,
        initial=4,
        strategy=quick(strategy),
        seed=6,
        inference="map",
        progress=False,
    )
    assert runs.values[0].tolist() == [trial.value for trial in result.trials]
    designed = sum(trial.origin == "design" for trial in result.trials)
    assert runs.design.tolist() == [designed]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_so_it_does_with_constraints(strategy: str) -> None:
    """Two models of limits beside that of the value, in the same batch."""
    together = quietly(GRAMACY, strategy, seed=6, runs=3, budget=9)
    assert together.excess.shape == (3, 9, 2)
    for run in range(3):
        result = minimize(
            GRAMACY.measure, GRAMACY.space, budget=9, initial=4, strategy=quick(strategy),
            seed=6 + run, inference="map", progress=False, constraints=GRAMACY.limits,
        )  # fmt: skip
        alone = quietly(GRAMACY, strategy, seed=6 + run, runs=1, budget=9)
        assert alone.values[0].tolist() == [trial.value for trial in result.trials]
        np.testing.assert_array_equal(
            alone.excess[0], [list(trial.measured.values()) for trial in result.trials]
        )
        best = None if result.best is None else result.best.id
        assert alone.incumbents[0, -1] == (-1 if best is None else best)
        np.testing.assert_allclose(together.points[run], alone.points[0], atol=1e-4)


@pytest.mark.usefixtures("few_draws")
def test_and_the_hyperparameters_of_limits_are_integrated_out_too() -> None:
    options: dict[str, Any] = {"inference": "hmc", "budget": 7, "initial": 4}
    alone = quietly(GRAMACY, seed=3, runs=1, **options)
    result = minimize(
        GRAMACY.measure, GRAMACY.space, strategy=quick("ei"), seed=3, progress=False,
        constraints=GRAMACY.limits, **options,
    )  # fmt: skip
    assert alone.values[0].tolist() == [trial.value for trial in result.trials]
    reported = ~np.isnan(alone.diagnostics.rhat[0])
    assert reported.tolist() == [False] * 4 + [True] * 3


def test_a_trial_fails_whose_excess_is_no_number() -> None:
    """Designs of different lengths part the runs, with what is limited."""
    first, second = GRAMACY.constraints
    torn = replace(
        GRAMACY, constraints=(first, lambda x: second(x).where(x[..., 0] > 0.3, torch.inf))
    )
    together = quietly(torn, seed=4, runs=3, budget=9, initial=3)
    missing = np.isnan(together.values)
    np.testing.assert_array_equal(missing, ~np.isfinite(together.excess).all(-1))
    assert len(set(together.design)) > 1
    for run in range(3):
        alone = quietly(torn, seed=4 + run, runs=1, budget=9, initial=3)
        np.testing.assert_allclose(together.points[run], alone.points[0], atol=1e-4)
        np.testing.assert_allclose(together.excess[run], alone.excess[0], atol=1e-3)


@pytest.mark.usefixtures("few_draws")
def test_integrated_out_hyperparameters_make_no_difference_to_that() -> None:
    """The second fit goes on from the first. (In a batch NUTS amplifies the roundings.)"""
    options: dict[str, Any] = {"inference": "nuts", "budget": 5, "initial": 3}
    alone = quietly(seed=3, runs=1, **options)
    result = minimize(
        BRANIN.evaluate, BRANIN.space, strategy=quick("ei"), seed=3, progress=False, **options
    )
    assert alone.values[0].tolist() == [trial.value for trial in result.trials]


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_batch_is_what_an_optimizer_is_asked_for_and_told(batch: int) -> None:
    runs = quietly(HARTMANN, seed=1, runs=1, batch=batch)
    optimizer = Optimizer(HARTMANN.space, quick("ei"), seed=1, initial=4, inference="map")
    sizes = [4, *[batch] * 9]
    while missing := 7 - len(optimizer.trials):
        for trial in optimizer.ask(min(missing, sizes.pop(0))):
            optimizer.tell(trial, HARTMANN.evaluate(trial.params))
    assert runs.values[0].tolist() == [trial.value for trial in optimizer.trials]


@pytest.mark.parametrize("strategy", ["ei", "random"])
def test_runs_with_failures_of_their_own_stay_runs_of_their_own(strategy: str) -> None:
    """Designs of different lengths, and different numbers of results in one batch."""
    problem = failing(HARTMANN)
    together = quietly(problem, strategy, seed=4, runs=3, budget=7, initial=3)
    missing = np.isnan(together.values)
    assert len(set(missing.sum(1))) > 1
    if strategy == "ei":
        assert len(set(together.design)) > 1
        for row, design in zip(missing, together.design, strict=True):
            assert (~row[:design]).sum() == 3
            assert not row[design - 1]
    for run in range(3):
        alone = quietly(problem, strategy, seed=4 + run, runs=1, budget=7, initial=3)
        np.testing.assert_allclose(together.points[run], alone.points[0], atol=1e-4)
        np.testing.assert_array_equal(missing[run], np.isnan(alone.values[0]))


def test_room_for_more_results_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = failing(HARTMANN)
    exact = quietly(problem, seed=4)
    monkeypatch.setattr("gpbo.data.capacity", lambda count, device: 13)
    roomy = quietly(problem, seed=4)
    np.testing.assert_allclose(roomy.points, exact.points, atol=1e-4)


def test_runs_have_their_own_shift_and_their_own_noise() -> None:
    seeds = [5, 6]
    shifted = problems.get("hartmann3", shift_seed=seeds, noise=0.1)
    together = quietly(shifted, seed=5)
    for run, seed in enumerate(seeds):
        own = problems.get("hartmann3", shift_seed=seed, noise=0.1)
        alone = quietly(own, seed=seed, runs=1)
        np.testing.assert_allclose(together.values[run], alone.values[0], atol=1e-3)
        x = torch.from_numpy(together.points[run])
        np.testing.assert_allclose(together.truth[run], own(x).numpy(), atol=1e-12)
    noise = (together.values - together.truth).flatten()
    assert 0.05 < noise.std() < 0.15
    assert len(set(noise)) == noise.size


def test_shifts_stay_with_their_runs_where_designs_part() -> None:
    problem = failing(problems.get("hartmann3", shift_seed=[0, 1, 2, 3, 4]))
    together = quietly(problem, runs=5, budget=6)
    assert len(set(together.design)) > 1
    points = torch.from_numpy(together.points)
    np.testing.assert_allclose(together.truth, problem(points).numpy(), atol=1e-12)


def test_runs_that_parted_take_turns_and_each_knows_what_it_tried_itself() -> None:
    noting = Noting(uses_model=True)
    options: dict[str, Any] = {"runs": 5, "budget": 11, "initial": 3, "seed": 4}
    runs = replicate(failing(HARTMANN), strategy=noting, progress=False, **options)
    assert len(set(runs.design)) > 1
    for situation in noting.seen:
        for seed, taken in zip(situation.seeds, situation.taken, strict=True):
            tried = torch.from_numpy(runs.points[seed - 4, : situation.index])
            assert taken == {*map(HARTMANN.space.key, HARTMANN.space.decode(tried))}
    begun = [situation.index for situation in noting.seen]
    assert begun == sorted(begun)  # those that are behind go first


def test_a_strategy_sees_where_trials_of_a_run_failed() -> None:
    noting = Noting(uses_model=True)
    options: dict[str, Any] = {"runs": 3, "budget": 11, "initial": 3, "seed": 4}
    runs = replicate(failing(HARTMANN), strategy=noting, progress=False, **options)
    parts = [
        (run, situation.index, situation.failed[row, situation.failed_mask[row]])
        for situation in noting.seen
        for row, run in enumerate(seed - 4 for seed in situation.seeds)
    ]
    assert len({len(failed) for _, _, failed in parts}) > 2
    for run, made, failed in parts:
        nowhere = np.isnan(runs.values[run, :made])
        np.testing.assert_array_equal(failed, runs.points[run, :made][nowhere])


# --- what is recorded


@pytest.mark.usefixtures("few_draws")
def test_values_and_diagnostics_are_of_the_trial_in_their_column() -> None:
    runs = quietly(HARTMANN, budget=6, initial=3, batch=2, inference="nuts")
    assert runs.points.shape == (2, 6, 3)
    expected = HARTMANN(torch.from_numpy(runs.points)).numpy()
    np.testing.assert_allclose(runs.values, expected, atol=1e-12)
    np.testing.assert_array_equal(runs.values, runs.truth)
    assert runs.trials.tolist() == [6, 6]
    assert runs.design.tolist() == [3, 3]
    assert (runs.diagnostics.status[:, :3] == "").all()
    assert (runs.diagnostics.status[:, 3:] != "").all()
    for name, array in vars(runs.diagnostics).items():
        if name != "status":
            assert np.isnan(array[:, :3]).all()
    steps = runs.diagnostics.leapfrog_steps
    assert (steps[:, 3:] > 0).all()
    assert (steps[:, 3] == steps[:, 4]).all()  # trials of a batch came from one fit
    assert (steps[:, 4] != steps[:, 5]).all()


def test_the_time_is_split_into_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr("gpbo.lockstep.time.perf_counter", lambda: float(next(ticks)))
    runs = quietly(budget=6)
    # A tick per switch, and two within each of the two fits, which interrupt the acquisition.
    assert runs.seconds == {"design": 1.0, "fit": 6.0, "acquisition": 4.0, "evaluation": 3.0}


def test_a_strategy_without_a_model_has_no_design_and_no_fits() -> None:
    runs = quietly(strategy="sobol")
    assert runs.design.tolist() == [0, 0]
    assert (runs.diagnostics.status == "").all()
    assert runs.seconds["fit"] == runs.seconds["design"] == 0.0


def test_a_used_up_grid_ends_the_runs() -> None:
    runs = quietly(strategy="grid", budget=30)
    assert runs.stopped == "exhausted"
    assert runs.trials.tolist() == [25, 25]


def test_runs_that_fail_everywhere_use_up_their_budget() -> None:
    runs = quietly(changed(BRANIN, lambda x, y: y * math.inf))
    assert np.isnan(runs.values).all()
    assert runs.trials.tolist() == runs.design.tolist() == [7, 7]
    assert (runs.incumbents == -1).all()


def test_a_function_is_evaluated_once_for_each_trial() -> None:
    """Also where it is random itself: what was observed is what the regret is of."""
    calls = itertools.count()

    def drifting(x: Tensor, y: Tensor) -> Tensor:
        return y + next(calls)

    runs = quietly(changed(BRANIN, drifting), "random", budget=5)
    assert next(calls) == 5
    assert (runs.values == runs.truth).all()


def test_an_interrupt_gives_what_there_is() -> None:
    calls = itertools.count(1)

    def interrupt(x: Tensor, y: Tensor) -> Tensor:
        if next(calls) == 3:  # one call a step
            raise KeyboardInterrupt
        return y

    runs = quietly(changed(BRANIN, interrupt))
    assert runs.stopped == "interrupted"
    assert runs.trials.tolist() == [5, 5]
    whole = quietly()
    np.testing.assert_array_equal(runs.values, whole.values[:, :5])


def test_an_interrupt_in_a_fit_gives_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "fit", interrupted)
    runs = quietly()
    assert runs.stopped == "interrupted"
    assert runs.trials.tolist() == [4, 4]


def test_runs_that_parted_may_have_made_different_numbers_of_trials_then() -> None:
    problem, calls = failing(HARTMANN), itertools.count(1)

    def interrupt(x: Tensor, y: Tensor) -> Tensor:
        if next(calls) == 6:
            raise KeyboardInterrupt
        return y

    options: dict[str, Any] = {"runs": 5, "budget": 11, "initial": 3, "seed": 4}
    options |= {"strategy": Noting(uses_model=True), "progress": False}
    whole = replicate(problem, **options)
    cut = replicate(changed(problem, interrupt), **options)
    assert len(set(cut.trials)) > 1
    assert cut.points.shape[1] == max(cut.trials)
    for run, made in enumerate(cut.trials):
        np.testing.assert_array_equal(cut.points[run, :made], whole.points[run, :made])
        assert np.isnan(cut.points[run, made:]).all()


def test_ctrl_c_ends_a_real_process_with_its_results() -> None:
    script = """
import gpbo
print(gpbo.replicate("hartmann3", runs=2, budget=10_000, inference="map", strategy="random"))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "trials, median regret" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "on cpu, interrupted" in out


# --- options


@pytest.mark.parametrize(
    ("problem", "strategy", "sizes"),
    [
        (HARTMANN, "ei", {"runs": 3, "results": 7}),
        (GRAMACY, "ei", {"runs": 9, "results": 7}),  # a model of each limit, too
        (HARTMANN, "sobol", {"runs": 3, "results": 0}),  # no model
    ],
)
def test_the_device_is_chosen_for_the_work_that_there_is(
    problem: Problem, strategy: str, sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, int]] = []

    def noting(device: str, **sizes: int) -> torch.device:
        asked.append(sizes)
        return torch.device("cpu")

    monkeypatch.setattr("gpbo.lockstep.resolve_device", noting)
    quietly(problem, strategy, runs=3, initial=7)
    assert asked == [sizes]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runs": 0}, "runs=0: expected a whole number, 1 or more"),
        ({"budget": 0}, "budget=0: expected a whole number, 1 or more"),
        ({"batch": 0}, "batch=0: expected"),
        ({"seed": -1}, "seed=-1: expected a whole number, 0 or more"),
        ({"initial": 0}, "initial=0: expected"),
        ({"device": "tpu"}, "device='tpu': expected"),
        ({"problem": "bogus"}, "problem='bogus': expected one of branin, six"),
        (
            {"problem": BRANIN.shifted(1, 2, 3)},
            "runs=2: expected 3, the number of runs",
        ),
    ],
)
def test_mistakes_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        quietly(**options)


def test_what_is_of_another_type_is_refused_where_types_are_not_checked() -> None:
    script = """
import gpbo
for wrong in ({"problem": 3}, {"runs": 2.5}, {"inference": "mcmc"}):
    try:
        gpbo.replicate(**{"problem": "branin", "progress": False, **wrong})
    except gpbo.errors.InvalidOption as error:
        print(error)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [
        "problem=3: expected a gpbo.problems.Problem or its name",
        "runs=2.5: expected a whole number, 1 or more",
        "inference='mcmc': expected one of ('hmc', 'nuts', 'map', 'pyro')",
    ]


def test_a_problem_can_be_named() -> None:
    named = quietly("hartmann3", "random")
    np.testing.assert_array_equal(named.values, quietly(HARTMANN, "random").values)


def test_without_progress_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    quietly(strategy="random")
    assert capfd.readouterr() == ("", "")


def test_the_regret_that_progress_tells_is_the_median_of_the_summary(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Of an even number of runs too, where it lies between two of them."""
    runs = replicate("branin", strategy="random", runs=4, budget=5)
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert f"median regret {short(float(np.median(runs.final_regret)))}" in last


def test_progress_counts_all_runs_and_is_of_trials_that_meet_the_constraints(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Where they parted, too."""
    torn = failing(GRAMACY)
    runs = quietly(torn, runs=3, seed=4, initial=3, budget=5, progress=True)
    assert len(set(runs.design)) > 1
    regret = float(np.median(runs.final_regret))
    assert regret != np.median(np.nanmin(runs.values, 1)) - GRAMACY.optimum
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"ei on gramacy: 15/15 trials, median regret {short(regret)}")
