"""The experiments of Kandasamy et al.: what is run, and what is said of it."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from gpbo.backend import DTYPE, Streams
from gpbo.design import sobol
from gpbo.simulation import Simulation
from gpbo.situation import Situation
from gpbo.strategies import RandomSearch
from gpbo_benchmarks import asynchronous, kandasamy
from gpbo_benchmarks.asynchronous import CASES, Case, Method

METHODS = {
    "seqRAND": Method(RandomSearch(), "async", 1),
    "synRAND": Method(RandomSearch(), "sync"),
    "asyRAND": Method(RandomSearch(), "async"),
}


def test_a_single_worker_goes_on_until_it_has_made_as_many_evaluations() -> None:
    done = dict(kandasamy.run_all(CASES["branin"], METHODS, horizon=15.0, runs=3))
    fewest = min(done[name].truth.shape[1] for name in ("synRAND", "asyRAND"))
    assert fewest > 18  # a worker alone makes 14 to 18
    assert done["seqRAND"].evaluations.tolist() == [fewest] * 3
    assert (done["seqRAND"].told[:, -1] > 15.0).all()
    assert list(done) == ["synRAND", "asyRAND", "seqRAND"]


def test_what_is_kept_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def runs() -> dict[str, Simulation]:
        options: dict[str, Any] = {"horizon": 7.0, "runs": 3, "keep": tmp_path / "branin"}
        return dict(kandasamy.run_all(CASES["branin"], METHODS, **options))

    first = runs()
    (tmp_path / "branin" / "asyRAND.npz").unlink()
    again: list[Method] = []
    run = kandasamy.run

    def counted(case: Case, method: Method, **ends: Any) -> Simulation:
        again.append(method)
        return run(case, method, **ends)

    monkeypatch.setattr(kandasamy, "run", counted)
    second = runs()
    assert again == [METHODS["asyRAND"]]
    assert list(second) == list(first)
    for method, one in first.items():
        torch.testing.assert_close(second[method].regret, one.regret, rtol=0, atol=0)


def test_the_runs_of_a_method_go_on_where_they_were_interrupted(tmp_path: Path) -> None:
    calls = 0

    class Interrupted(RandomSearch):
        def propose(self, situation: Situation, count: int) -> Tensor:
            nonlocal calls
            calls += 1
            if calls == 20:
                raise KeyboardInterrupt
            return super().propose(situation, count)

    def runs(keep: Path | None) -> Simulation:
        method = Method(Interrupted(), "async")
        options: dict[str, Any] = {"horizon": 7.0, "runs": 3, "keep": keep}
        return dict(kandasamy.run_all(CASES["branin"], {"asyRAND": method}, **options))["asyRAND"]

    with pytest.raises(KeyboardInterrupt):
        runs(tmp_path / "branin")
    assert [file.name for file in (tmp_path / "branin").iterdir()] == ["asyRAND.begun"]
    found, made = runs(tmp_path / "branin"), calls
    assert [file.name for file in (tmp_path / "branin").iterdir()] == ["asyRAND.npz"]
    whole = runs(None)
    assert calls - made == made - 1  # the one that was interrupted was made once more
    torch.testing.assert_close(found.regret, whole.regret, rtol=0, atol=0)


def test_a_folder_keeps_runs_of_the_same_options_only(tmp_path: Path) -> None:
    kandasamy.begin(tmp_path / "kept", {"runs": 3})
    kandasamy.begin(tmp_path / "kept", {"runs": 3})
    with pytest.raises(SystemExit, match=r"has runs of \{'runs': 3, .*expected \{'runs': 5, "):
        kandasamy.begin(tmp_path / "kept", {"runs": 5})


def test_all_cases_have_a_place_in_the_plot(tmp_path: Path) -> None:
    done = dict(kandasamy.run_all(CASES["branin"], METHODS, horizon=7.0, runs=3))
    names = [f"case {i}" for i in range(7)]
    path = tmp_path / "all.png"
    kandasamy.paint(dict.fromkeys(names, done), dict.fromkeys(names, 7.0), path)
    with Image.open(path) as picture:
        width, height = picture.size
    assert 0.4 * width < height < 0.6 * width  # two rows of pairs, six of them across


def test_a_single_worker_goes_on_until_the_time_is_over() -> None:
    """A batch of many is done early: four workers in step end one batch before the time."""
    done = dict(kandasamy.run_all(CASES["branin"], METHODS, horizon=0.5, runs=3))
    assert done["synRAND"].truth.shape[1] == 4
    assert (done["seqRAND"].told[:, -1] > 0.5).all()


def test_single_workers_alone_stop_with_the_clock() -> None:
    alone = {"seqRAND": METHODS["seqRAND"]}
    done = dict(kandasamy.run_all(CASES["branin"], alone, horizon=7.0, runs=3))
    assert (done["seqRAND"].evaluations < 12).all()


def test_methods_are_compared_in_time_and_at_as_many_evaluations() -> None:
    done = dict(kandasamy.run_all(CASES["branin"], METHODS, horizon=7.0, runs=3))
    rows = {row["method"]: row for row in kandasamy.summarise("branin", done, 7.0)}
    fewest = min(runs.truth.shape[1] for runs in done.values())
    for method, runs in done.items():
        end = runs.regret_at(torch.tensor([7.0]).double())[:, 0]
        assert rows[method]["regret_in_time"] == kandasamy.written(end)
        equal = kandasamy.written(runs.regret[:, fewest - 1])
        assert rows[method][f"regret_after_{fewest}"] == equal
    free, in_step = (done[name] for name in ("asyRAND", "synRAND"))
    gain = free.regret[:, fewest - 1] - in_step.regret[:, fewest - 1]
    assert rows["asyRAND"][f"asy-syn_after_{fewest}"] == kandasamy.written(gain)
    end = torch.tensor([7.0]).double()
    gain = (free.regret_at(end) - in_step.regret_at(end))[:, 0]
    assert rows["asyRAND"]["asy-syn_in_time"] == kandasamy.written(gain)
    assert not rows["synRAND"]["asy-syn_in_time"]
    counted = kandasamy.counts("branin", done, CASES["branin"])
    made = [float(runs.evaluations.double().mean()) for runs in (free, in_step)]
    assert [counted["asy"], counted["syn"]] == made
    assert counted["ratio"] == pytest.approx(made[0] / made[1])


def test_the_interval_of_a_mean_is_that_of_a_normal_distribution() -> None:
    """Its ends, quantiles of 4000 draws, have a standard error of 2 % of the half width."""
    values = 3 + torch.randn(1009, generator=torch.Generator().manual_seed(1)).double()
    mean, low, high = kandasamy.interval(values)
    assert mean == pytest.approx(float(values.mean()))
    half = 1.96 * float(values.std()) / 1009**0.5
    assert [low - mean, high - mean] == pytest.approx([-half, half], rel=0.08)


def test_the_longest_of_a_batch_is_what_the_law_says() -> None:
    """Of four exponential times the longest has the mean 1 + 1/2 + 1/3 + 1/4."""
    expected = sum(1 / number for number in range(1, 5))
    assert math.isclose(kandasamy.longest("exponential", 4), expected, rel_tol=0.03)
    assert kandasamy.longest("constant", 4) == 1.0


@pytest.mark.parametrize("name", CASES)
def test_the_optimum_of_a_case_is_attained_and_nothing_is_below(name: str) -> None:
    problem = CASES[name].build()
    at, points = problem.minimizers[0], sobol(1009, problem.dim, Streams([0]))
    torch.testing.assert_close(
        problem(at), torch.full((len(at),), problem.optimum, dtype=DTYPE), rtol=1e-12, atol=0
    )
    assert bool((problem(points) >= problem.optimum).all())


def test_the_second_function_of_park_is_as_published_with_the_sign_turned() -> None:
    x1, x2, x3, x4 = values = 0.3, 0.7, 0.2, 0.9
    published = 2 / 3 * math.exp(x1 + x2) - x4 * math.sin(x3) + x3
    problem = asynchronous.park2()
    found = problem.evaluate(dict(zip(problem.space.names, values, strict=True)))
    assert found == pytest.approx(-published, rel=1e-14)


def test_a_sum_over_blocks_has_the_minimum_of_each() -> None:
    problem = CASES["hartmann12"].build()
    assert problem.dim == 12
    least = problem.function(problem.unshifted_minimizers.to(torch.float64))
    torch.testing.assert_close(least, torch.full_like(least, problem.optimum), rtol=1e-5, atol=0)
