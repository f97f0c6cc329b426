"""The experiments of Kandasamy et al. (2018): problems with workers on a simulated clock, methods.

"Parallelised Bayesian optimisation via Thompson sampling", AISTATS, in the settings of the authors'
code (kirthevasank/gp-parallel-ts). The suite and the script `kandasamy` run them.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from gpbo import problems
from gpbo.candidates import Search
from gpbo.problems import Problem
from gpbo.replications import Replications
from gpbo.simulation import Simulation, simulate
from gpbo.situation import Strategy
from gpbo.strategies import ExpectedImprovement, RandomSearch, ThompsonSampling
from gpbo.trial import Mode

_Runs = TypeVar("_Runs", Replications, Simulation)


@dataclass(frozen=True)
class Case:
    """A problem with noise, workers, the law of the evaluation times, and the time available.

    The high-dimensional problems are sums of a low-dimensional one over blocks of coordinates.
    """

    problem: str
    blocks: int
    noise: float
    workers: int
    law: str
    horizon: float
    verdict: str

    def build(self) -> Problem:
        single = park2() if self.problem == "park2" else problems.get(self.problem)
        return replace(summed(single, self.blocks), noise=self.noise)


# The authors' Pareto law of hartmann12 has shape 1, and no mean; here its shape is 3 as elsewhere.
CASES = {
    "hartmann3": Case("hartmann3", 1, 0.05, 8, "exponential", 30, "final"),
    "hartmann6": Case("hartmann6", 1, 0.05, 12, "exponential", 30, "final"),
    "hartmann12": Case("hartmann6", 2, 0.5, 15, "pareto", 40, "final"),
    "currin14": Case("currin_exp", 7, 0.5, 35, "pareto", 20, "final"),
    "branin": Case("branin", 1, 0.01, 4, "half-normal", 40, "may be"),
    "currin": Case("currin_exp", 1, 0.01, 4, "uniform", 50, "no difference"),
    "park1": Case("park1", 1, 0.2, 4, "uniform", 50, "no difference"),
    "park2": Case("park2", 1, 0.1, 10, "half-normal", 25, "no difference"),
    "park2-16": Case("park2", 4, 0.5, 35, "half-normal", 20, "no difference"),
    # The noise of these, and the workers and the law of shekel, are our choice.
    "shekel": Case("shekel", 1, 0.05, 4, "uniform", 50, "not worth showing"),
    "hartmann3-4": Case("hartmann3", 1, 0.05, 4, "half-normal", 40, "not worth showing"),
    "hartmann3-16": Case("hartmann3", 1, 0.05, 16, "half-normal", 20, "not worth showing"),
    "hartmann6-8": Case("hartmann6", 1, 0.05, 8, "exponential", 30, "not worth showing"),
    "branin-8": Case("branin", 1, 0.01, 8, "uniform", 30, "not worth showing"),
    "branin6": Case("branin", 3, 0.05, 30, "uniform", 20, "not worth showing"),
    "borehole-4": Case("borehole", 1, 1.0, 4, "uniform", 50, "not worth showing"),
    "borehole-8": Case("borehole", 1, 1.0, 8, "exponential", 30, "not worth showing"),
    "hartmann18": Case("hartmann6", 3, 0.5, 25, "half-normal", 30, "in the paper's figures"),
}


def park2() -> Problem:
    """Minus the second function of Park (1991), greatest at (1, 1, 1, 0)."""

    def negative(x: Tensor) -> Tensor:
        x1, x2, x3, x4 = x.unbind(-1)
        return x4 * x3.sin() - x3 - 2 / 3 * (x1 + x2).exp()

    return replace(
        problems.get("park1"),
        name="park2",
        optimum=-(2 / 3 * math.exp(2) + 1),
        unshifted_minimizers=torch.tensor([[1.0, 1.0, 1.0, 0.0]]).double(),
        function=negative,
    )


def summed(single: Problem, blocks: int) -> Problem:
    """The sum of a problem over blocks of coordinates."""
    if blocks == 1:
        return single
    return replace(
        single,
        name=f"{single.name} x {blocks}",
        dim=single.dim * blocks,
        bounds=single.bounds.repeat(1, blocks),
        optimum=single.optimum * blocks,
        unshifted_minimizers=single.unshifted_minimizers.repeat(1, blocks),
        function=lambda x: single.function(x.unflatten(-1, (blocks, single.dim))).sum(-1),
    )


@dataclass(frozen=True)
class Method:
    """A strategy, and whether workers wait for each other; ``workers`` if not the case's."""

    strategy: Strategy
    mode: Mode
    workers: int | None = None


def methods(*, full: bool) -> dict[str, Method]:
    """Sequential Thompson sampling, and four strategies, each synchronous and asynchronous."""
    plain, improvement = ThompsonSampling(region=None), ExpectedImprovement()
    if not full:
        quick = Search(raw=256, perturbed=64, restarts=4, iterations=30)
        plain = replace(plain, search=replace(quick, scouts=16), features=1024)
        improvement = ExpectedImprovement(quick)
    found = {"seqTS": Method(plain, "async", 1)}
    for name, strategy in (
        ("TS", plain),
        ("RAND", RandomSearch()),
        ("EI", improvement),
        ("HTS", replace(plain, hallucinate=True)),
    ):
        found |= {f"syn{name}": Method(strategy, "sync"), f"asy{name}": Method(strategy, "async")}
    return found


def run(
    case: Case,
    method: Method,
    *,
    horizon: float,
    budget: int | None = None,
    runs: int,
    device: str = "auto",
    latency: bool = False,
    checkpoint: Path | None = None,
) -> Simulation:
    """All runs of a method, until the clock stops or the budget is spent.

    The hyperparameters are fitted again once every worker has had a result.
    """
    problem = case.build()
    done = simulate(
        problem,
        strategy=method.strategy,
        mode=method.mode,
        workers=method.workers or case.workers,
        times=case.law,
        latency="measured" if latency else 0.0,
        horizon=horizon,
        budget=budget,
        runs=runs,
        initial=max(case.workers, min(6 * problem.dim, 25)),
        refit_every=case.workers,
        device=device,
        checkpoint=checkpoint,
        progress=False,
    )
    return whole(done)


def whole(runs: _Runs) -> _Runs:
    """The runs, none of which was cut short.

    Raises:
        KeyboardInterrupt: one was.
    """
    if runs.stopped == "interrupted":
        raise KeyboardInterrupt
    return runs
