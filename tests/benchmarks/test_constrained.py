"""Constrained problems: their optima, and that both sides of the comparison have the same start."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import gpbo
from gpbo_benchmarks import constrained, stored
from gpbo_benchmarks.constrained import PROBLEMS, with_botorch, with_gpbo

#: Where the optimum is, in the unit cube.
AT = {
    "small-region": [np.pi * 1.5 / 6, 1.2532359 / 6],
    "curved": [0.19512269, 0.40466536],
    "ball": [0.16856155, 0.11460503, 0.31836295, 0.25619322, 0.2906222, 0.58906833],
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_nothing_that_meets_the_constraints_is_below_the_optimum(name: str) -> None:
    problem = PROBLEMS[name]
    value, excess = problem.evaluate(AT[name])
    assert value == pytest.approx(problem.optimum, abs=1e-6)
    assert max(excess) < 1e-6
    assert len(excess) == problem.constraints
    generator = np.random.default_rng(0)
    near = np.clip(generator.normal(AT[name], 0.05, (3000, problem.dim)), 0, 1)
    for point in [*generator.random((3000, problem.dim)).tolist(), *near.tolist()]:
        value, excess = problem.evaluate(point)
        assert value > problem.optimum - 1e-9 or max(excess) > 0


def test_both_sides_have_the_same_design_and_get_better() -> None:
    problem = PROBLEMS["curved"]
    start = 2 * problem.dim + 1
    own, peer = ([run(problem, budget, 2) for budget in (start, start + 4)] for run in (
        lambda *case: with_gpbo(*case, inference="map"), with_botorch
    ))  # fmt: skip
    assert own[0] == pytest.approx(peer[0])
    assert 0 <= own[1] < own[0]
    assert 0 <= peer[1] < peer[0]


def test_a_run_that_never_meets_the_constraints_has_infinite_regret() -> None:
    problem = PROBLEMS["ball"]
    assert with_gpbo(problem, 3, 0) == with_botorch(problem, 3, 0) == np.inf


def test_what_is_measured_is_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["constrained", "--problem", "curved", "--budget", "5"])
    monkeypatch.setattr(constrained, "with_botorch", lambda problem, budget, seed: 0.5 + seed)
    monkeypatch.setattr(constrained, "with_gpbo", lambda problem, budget, seed, **how: 0.25)
    kept = {}
    monkeypatch.setattr(constrained, "save", lambda name, figures: kept.update(figures) or name)
    constrained.main()
    assert [row["seeds"] for row in kept["rows"]] == [10] * 4
    (tmp_path / "constrained.json").write_text(
        json.dumps({"machine": constrained.machine(), "figures": kept})
    )
    line = stored.markdown(["constrained"], tmp_path).splitlines()[-1]
    assert "| curved, 5 evaluations, 10 seeds | 0.25 (0.25, 0.25), " in line
    assert "| 5 (2.75, 7.25), " in line
    assert "regret of the best value" in capsys.readouterr().out


def test_the_problems_are_told_as_gpbo_takes_them() -> None:
    problem = PROBLEMS["curved"]
    assert problem.texts == ["excess0 <= 0", "excess1 <= 0"]
    value, measured = problem({"x0": 0.5, "x1": 0.5})
    assert (value, list(measured)) == (1.0, ["excess0", "excess1"])
    assert isinstance(problem.space, gpbo.Space)
