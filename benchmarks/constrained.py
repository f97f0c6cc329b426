"""Constrained problems: the best value that meets the constraints, beside BoTorch's.

    python benchmarks/constrained.py [--seeds 10] [--problem small-region] [--budget N]

``small-region``: sin x + y on [0, 6]^2 where sin x sin y <= -0.95 (Gardner et al. 2014, "Bayesian
optimization with inequality constraints", ICML), two spots of the square. ``curved``: x + y
in the unit square with two constraints, of which one is met at the optimum exactly (Gramacy et al.
2016, "Modeling an augmented Lagrangian for blackbox constrained optimization", Technometrics 58).
``ball``: Hartmann-6 in the ball of radius 0.8, on whose surface the optimum lies.

Both sides start from the same initial designs. BoTorch has a ``SingleTaskGP`` with its default
priors for the value and for each constraint, and its log constrained expected improvement; while
no result meets the constraints, its log probability of feasibility.
"""

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import gpbo
from gpbo_benchmarks.analysis import quartiles
from gpbo_benchmarks.record import at_least, machine, save, show

#: The value, and how far it is beyond each constraint, at a point of the unit cube.
Evaluation = Callable[[Sequence[float]], tuple[float, list[float]]]


@dataclass(frozen=True)
class Constrained:
    """A problem to be minimised where every excess is 0 or less.

    Attributes:
        dim: How many parameters.
        constraints: How many constraints.
        budget: How many evaluations a run has.
        optimum: The least value that meets the constraints, by SLSQP from 300 starts.
        evaluate: The function.
    """

    dim: int
    constraints: int
    budget: int
    optimum: float
    evaluate: Evaluation

    @property
    def space(self) -> gpbo.Space:
        """The unit cube."""
        return gpbo.Space(gpbo.Real(f"x{i}", 0.0, 1.0) for i in range(self.dim))

    @property
    def initial(self) -> int:
        """The size of the initial design."""
        return 2 * self.dim + 1

    @property
    def texts(self) -> list[str]:
        """The constraints as gpbo takes them."""
        return [f"excess{i} <= 0" for i in range(self.constraints)]

    def __call__(self, params: Mapping[str, float]) -> tuple[float, dict[str, float]]:
        """The value, and what the constraints limit."""
        value, excess = self.evaluate(list(params.values()))
        return value, {f"excess{i}": each for i, each in enumerate(excess)}


def _small_region(cube: Sequence[float]) -> tuple[float, list[float]]:
    x, y = (6 * each for each in cube)
    return math.sin(x) + y, [math.sin(x) * math.sin(y) + 0.95]


def _curved(cube: Sequence[float]) -> tuple[float, list[float]]:
    x, y = cube
    wave = x + 2 * y + 0.5 * math.sin(2 * math.pi * (x * x - 2 * y))
    return x + y, [1.5 - wave, x * x + y * y - 1.5]


def _ball(cube: Sequence[float]) -> tuple[float, list[float]]:
    params = {f"x{i}": each for i, each in enumerate(cube, 1)}
    return gpbo.problems.get("hartmann6").evaluate(params), [math.hypot(*cube) - 0.8]


PROBLEMS = {
    "small-region": Constrained(2, 1, 30, 0.2532358975, _small_region),
    "curved": Constrained(2, 2, 30, 0.5997880520, _curved),
    "ball": Constrained(6, 1, 60, -2.9594427957, _ball),
}
METHODS: dict[str, dict[str, Any]] = {
    "ei-hmc": {"strategy": "ei"},
    "ei-map": {"strategy": "ei", "inference": "map"},
    "ts-map": {"strategy": "ts", "inference": "map"},
}


def with_gpbo(problem: Constrained, budget: int, seed: int, **how: Any) -> float:
    """The regret of a run's best value that meets the constraints; infinite without any."""
    result = gpbo.minimize(
        problem,
        problem.space,
        budget=budget,
        constraints=problem.texts,
        seed=seed,
        initial=problem.initial,
        progress=False,
        **how,
    )
    best = result.best
    return math.inf if best is None or best.value is None else best.value - problem.optimum


def with_botorch(problem: Constrained, budget: int, seed: int) -> float:
    """The same of BoTorch's loop, from the same initial design."""
    from gpbo_benchmarks.botorch_loop import minimize_within_constraints

    optimizer = gpbo.Optimizer(problem.space, seed=seed, initial=problem.initial)
    design = [list(trial.params.values()) for trial in optimizer.ask(problem.initial)]
    least = minimize_within_constraints(problem.evaluate, design, budget, seed)
    return least - problem.optimum


def measured(
    problem: Constrained, run: Callable[[Constrained, int, int], float], budget: int, seeds: int
) -> dict[str, Any]:
    """Quartiles of the regret, and seconds of a run."""
    began = time.perf_counter()
    regret = np.array([run(problem, budget, seed) for seed in range(seeds)])
    seconds = (time.perf_counter() - began) / seeds
    low, middle, high = quartiles(regret)
    return {"regret": middle, "quartile_low": low, "quartile_high": high, "seconds": seconds}


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--problem", choices=PROBLEMS, action="append")
    parser.add_argument("--seeds", type=at_least(1), default=10)
    parser.add_argument("--budget", type=at_least(1), help="default: the problem's")
    options = parser.parse_args()
    print(machine())
    runs: dict[str, Callable[[Constrained, int, int], float]] = {
        method: partial(with_gpbo, **how) for method, how in METHODS.items()
    }
    runs["botorch"] = with_botorch
    rows = []
    for name in options.problem or PROBLEMS:
        problem = PROBLEMS[name]
        budget = options.budget or problem.budget
        for method, run in runs.items():
            row = {"problem": name, "budget": budget, "seeds": options.seeds, "method": method}
            rows.append(row | measured(problem, run, budget, options.seeds))
            print(rows[-1], flush=True)
    show("regret of the best value that meets the constraints", rows)
    print(save("constrained", {"rows": rows}))


if __name__ == "__main__":
    main()
