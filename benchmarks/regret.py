"""Simple regret at a fixed budget: gpbo, BoTorch's log EI with a MAP fit, random and Sobol search.

    python benchmarks/regret.py [--seeds 10] [--problem branin] [--output benchmarks/results]

Every method starts from the same scrambled Sobol points of the same seed, and shifted problems
have the same shift. The seeds of gpbo advance together as rows of a batch, in two batches; BoTorch
runs them one after the other. As many processes as there are cores share the work, a thread each.
"""

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import wilcoxon
from torch import Tensor

from gpbo import fitting, problems
from gpbo.backend import Streams
from gpbo.data import standardised
from gpbo.design import sobol, uniform
from gpbo.situation import Situation
from gpbo.strategies import resolve_strategy
from gpbo_benchmarks.record import machine, save


@dataclass(frozen=True)
class Case:
    """A problem, the number of evaluations, and whether every seed moves the optimum."""

    problem: str
    dim: int | None
    budget: int
    shifted: bool

    def problem_for(self, seeds: list[int]) -> problems.Problem:
        """The problem of these seeds, a shift for each."""
        return problems.get(self.problem, dim=self.dim, shift_seed=seeds if self.shifted else None)


CASES = {
    "branin": Case("branin", None, 30, shifted=False),
    "hartmann6": Case("hartmann6", None, 60, shifted=False),
    "ackley5": Case("ackley", 5, 60, shifted=True),
    "levy4": Case("levy", 4, 50, shifted=True),
}


def design(dim: int, seeds: list[int]) -> Tensor:
    """The first points of every seed, ``[r, 2d, d]``, at least five."""
    return sobol(max(5, 2 * dim), dim, Streams([1000 + seed for seed in seeds]))


def with_gpbo(case: Case, seeds: list[int], inference: fitting.Inference) -> Tensor:
    """Values that log EI observes, ``[r, t]``, all seeds in one batch."""
    problem, strategy = case.problem_for(seeds), resolve_strategy("ei")
    x = design(problem.dim, seeds)
    y = problem(x)
    warm = None
    nobody = torch.zeros(len(seeds), 0, problem.dim, dtype=x.dtype)
    while y.shape[1] < case.budget:
        index = y.shape[1]
        data = standardised(x, y)
        fit = fitting.fit(
            data,
            inference=inference,
            warm=warm,
            streams=Streams.per_seed(seeds, "fit", index),
        )
        warm = fit.warm
        keys = [map(problem.space.key, problem.space.decode(row)) for row in x]
        situation = Situation(
            space=problem.space,
            data=data,
            failed=nobody,
            failed_mask=nobody[..., 0].bool(),
            taken=tuple(map(frozenset, keys)),
            seeds=tuple(seeds),
            index=index,
            fit=lambda fit=fit: fit,
        )
        points = strategy.propose(situation, 1)
        x, y = torch.cat([x, points], 1), torch.cat([y, problem(points)], 1)
    return y


def with_botorch(case: Case, seeds: list[int]) -> Tensor:
    """Values that BoTorch observes, ``[r, t]``, one seed after the other."""
    from gpbo_benchmarks.botorch_loop import minimize_with_map

    rows = []
    for seed in seeds:
        problem = case.problem_for([seed])
        start = design(problem.dim, [seed])[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows.append(
                minimize_with_map(lambda x, p=problem: p(x[None])[0], start, case.budget, seed)
            )
    return torch.stack(rows)


def with_points(points: Callable[[int, int, Streams], Tensor]) -> Callable[..., Tensor]:
    """A model-free method: the values at these points."""

    def run(case: Case, seeds: list[int]) -> Tensor:
        problem = case.problem_for(seeds)
        streams = Streams([1000 + seed for seed in seeds])
        return problem(points(case.budget, problem.dim, streams))

    return run


METHODS: dict[str, Callable[[Case, list[int]], Tensor]] = {
    "gpbo EI, HMC": lambda case, seeds: with_gpbo(case, seeds, "hmc"),
    "gpbo EI, MAP": lambda case, seeds: with_gpbo(case, seeds, "map"),
    "BoTorch log EI, MAP": with_botorch,
    "Sobol": with_points(sobol),
    "random": with_points(uniform),
}
PEER = "BoTorch log EI, MAP"


def measure(name: str, method: str, seeds: list[int]) -> tuple[list[list[float]], float]:
    """Best regret so far of every seed after every evaluation, and the seconds that it took."""
    torch.set_num_threads(1)
    case = CASES[name]
    began = time.perf_counter()
    values = METHODS[method](case, seeds)
    seconds = time.perf_counter() - began
    regret = (values - case.problem_for(seeds).optimum).cummin(1).values
    return regret.tolist(), seconds


def parts(method: str, seeds: list[int]) -> list[list[int]]:
    """The seeds that one process works on: halves of a batch, or single seeds of BoTorch's."""
    size = 1 if method == PEER else -(-len(seeds) // 2)
    return [seeds[start : start + size] for start in range(0, len(seeds), size)]


def summarise(curves: dict[str, list[list[float]]]) -> dict[str, dict[str, float | None]]:
    """Final regret of every method, and the paired test against BoTorch."""
    final = {method: [row[-1] for row in rows] for method, rows in curves.items()}
    table: dict[str, dict[str, float | None]] = {}
    for method, values in final.items():
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        paired = PEER in final and method != PEER and len(values) > 4
        pairs = zip(values, final.get(PEER, []), strict=False)
        table[method] = {
            "median": middle,
            "quartile_low": low,
            "quartile_high": high,
            "better_than_peer": sum(a < b for a, b in pairs),
            "p_wilcoxon": float(wilcoxon(values, final[PEER]).pvalue) if paired else None,
        }
    return table


def show(name: str, table: dict[str, dict[str, Any]]) -> None:
    """One problem's table."""
    view = Table(title=f"{name}: simple regret after {CASES[name].budget} evaluations")
    for column in ("method", "median", "quartiles", f"seeds better than {PEER}", "p"):
        view.add_column(column, justify="left" if column == "method" else "right")
    for method, row in table.items():
        p = row["p_wilcoxon"]
        view.add_row(
            method,
            f"{row['median']:.3g}",
            f"{row['quartile_low']:.2g} to {row['quartile_high']:.2g}",
            "" if method == PEER else str(row["better_than_peer"]),
            "" if p is None else f"{p:.3f}",
        )
    Console(width=120).print(view)


def paint(curves: dict[str, dict[str, list[list[float]]]], path: Path) -> None:
    """Median and quartiles of every method, a panel for each problem."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(curves), 3.6), layout="constrained")
    for axes, (name, methods) in zip(
        figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True
    ):
        for method, rows in methods.items():
            regret = torch.tensor(rows, dtype=torch.float64).clamp_min(1e-12)
            low, middle, high = regret.quantile(torch.tensor([0.25, 0.5, 0.75]).double(), dim=0)
            steps = range(1, regret.shape[1] + 1)
            axes.plot(steps, middle, label=method)
            axes.fill_between(steps, low, high, alpha=0.15)
        axes.set(title=name, xlabel="evaluations", yscale="log")
    figure.axes[0].set_ylabel("simple regret")
    figure.axes[-1].legend(fontsize="small")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, print, save and paint."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--problem", action="append", choices=list(CASES))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    names, seeds = options.problem or list(CASES), list(range(options.seeds))
    print(machine())
    curves: dict[str, dict[str, list[list[float]]]] = {name: {} for name in names}
    seconds: dict[str, dict[str, float]] = {name: {} for name in names}
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        jobs: dict[tuple[str, str], list[Future[tuple[list[list[float]], float]]]] = {
            (name, method): [
                pool.submit(measure, name, method, part) for part in parts(method, seeds)
            ]
            for method in METHODS
            for name in names
        }
        for (name, method), shares in jobs.items():
            done = [share.result() for share in shares]
            curves[name][method] = [row for rows, _ in done for row in rows]
            seconds[name][method] = sum(spent for _, spent in done)
            print(f"{name}, {method}: {seconds[name][method]:.0f} s", flush=True)
    tables = {name: summarise(curves[name]) for name in names}
    for name, table in tables.items():
        show(name, table)
    options.output.mkdir(exist_ok=True, parents=True)
    paint(curves, options.output / "regret.png")
    print(save("regret", {"tables": tables, "seconds": seconds, "curves": curves}))


if __name__ == "__main__":
    main()
