"""Synchronous and asynchronous Thompson sampling, the experiments of Kandasamy et al. (2018).

    python benchmarks/kandasamy.py [--full] [--case hartmann6] [--runs 20] [--device cuda]

"Parallelised Bayesian optimisation via Thompson sampling", AISTATS, in the settings of the
authors' code (kirthevasank/gp-parallel-ts), the cases that they found to show no difference too.
All runs of a method advance as rows of a batch; the same seed has the same evaluation times, noise
and initial design in all methods. Tells how many evaluations fit into the time, and simple regret
against time and against completed evaluations. Without ``--full``: small cases, short times.
"""

import argparse
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpbo import problems
from gpbo.problems import Problem
from gpbo.simulation import LAWS, Simulation, Times, pareto, simulate
from gpbo.situation import Strategy
from gpbo.strategies import ExpectedImprovement, RandomSearch, ThompsonSampling
from gpbo_benchmarks.record import RESULTS, machine, save, show


@dataclass(frozen=True)
class Case:
    """A problem with noise, workers, the law of the evaluation times, and the time there is.

    The high-dimensional problems are sums of a low-dimensional one over blocks of coordinates.
    """

    problem: str
    blocks: int
    noise: float
    workers: int
    law: str
    horizon: float
    verdict: str

    @property
    def times(self) -> Times:
        return LAWS[self.law]

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
}
SHORT = ("hartmann3", "park1")

# Evaluations that fit in without waiting, over those in step: the mean of the longest of M times.
RATIOS = {
    ("uniform", 4): 1.60,
    ("half-normal", 4): 1.83,
    ("half-normal", 10): 2.36,
    ("half-normal", 35): 2.98,
    ("exponential", 8): 2.72,
    ("exponential", 12): 3.10,
    ("pareto", 35): 2.96,
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
    """A strategy, and whether a worker waits for the others; ``workers`` if not the case's."""

    strategy: Strategy
    mode: str
    workers: int | None = None


def methods(features: int) -> dict[str, Method]:
    plain = ThompsonSampling(features=features)
    sure = replace(plain, hallucinate=True)
    found = {"seqTS": Method(plain, "async", 1)}
    for name, strategy in (
        ("TS", plain),
        ("RAND", RandomSearch()),
        ("EI", ExpectedImprovement()),
        ("HTS", sure),
    ):
        found |= {f"syn{name}": Method(strategy, "sync"), f"asy{name}": Method(strategy, "async")}
    return found


def run(case: Case, method: Method, runs: int, horizon: float, device: str) -> Simulation:
    problem = case.build()
    return simulate(
        problem,
        strategy=method.strategy,
        mode="sync" if method.mode == "sync" else "async",
        workers=method.workers or case.workers,
        times=pareto(3.0) if case.law == "pareto" else case.times,
        horizon=horizon,
        runs=runs,
        initial=max(case.workers, min(6 * problem.dim, 25)),
        refit_every=case.workers,
        device=device,
    )


def interval(values: Tensor) -> tuple[float, float, float]:
    """Mean, and the ends of its 95 % interval by bootstrap over the runs."""
    draws = torch.randint(
        len(values), (4000, len(values)), generator=torch.Generator().manual_seed(0)
    )
    low, high = values[draws].mean(-1).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return float(values.mean()), low, high


def summarise(name: str, done: dict[str, Simulation], horizon: float) -> list[dict[str, Any]]:
    """A row for each method: evaluations, regret in time, regret at as many evaluations."""
    fewest = min(int(result.evaluations.min()) for result in done.values())
    rows = []
    for method, result in done.items():
        regret = result.regret_at(torch.tensor([horizon]).double())[:, 0]
        mean, low, high = interval(regret)
        row: dict[str, Any] = {
            "case": name,
            "method": method,
            "evaluations": float(result.evaluations.double().mean()),
            "regret_in_time": mean,
            "95%_low": low,
            "95%_high": high,
            "regret_at_equal_evaluations": float(result.regret[:, fewest - 1].mean()),
            "equal_evaluations": fewest,
        }
        if method.startswith("asy") and (other := "syn" + method[3:]) in done:
            difference = regret - done[other].regret_at(torch.tensor([horizon]).double())[:, 0]
            row["asy-syn_low"], row["asy-syn_high"] = interval(difference)[1:]
        else:
            row["asy-syn_low"] = row["asy-syn_high"] = ""
        rows.append(row)
    return rows


def counts(name: str, done: dict[str, Simulation], case: Case) -> dict[str, Any] | None:
    """Evaluations without waiting over those in step, beside what the law says."""
    expected = RATIOS.get((case.law, case.workers))
    if expected is None:
        return None
    free, in_step = (done[f"{mode}RAND"].evaluations.double().mean() for mode in ("asy", "syn"))
    return {
        "case": name,
        "law": case.law,
        "workers": case.workers,
        "asy": float(free),
        "syn": float(in_step),
        "ratio": float(free / in_step),
        "without_an_end": expected,
    }


def paint(curves: dict[str, dict[str, Simulation]], horizons: dict[str, float], path: Path) -> None:
    """Mean regret and its standard error: above against time, below against evaluations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(curves), 7), layout="constrained")
    panels = figure.subplots(2, len(curves), squeeze=False)
    for column, (name, done) in enumerate(curves.items()):
        times = torch.linspace(0, horizons[name], 101).double()[5:]
        for method, result in done.items():
            against_time = result.regret_at(times)
            seen = int(result.evaluations.min())
            for axes, steps, regret in (
                (panels[0][column], times, against_time),
                (panels[1][column], torch.arange(1, seen + 1), result.regret[:, :seen]),
            ):
                shown = regret.isfinite().all(0)
                mean, error = regret.mean(0), regret.std(0) / len(regret) ** 0.5
                line = axes.plot(
                    steps[shown], mean[shown], label=method, ls="--" if "syn" in method else "-"
                )[0]
                low = (mean - error).clamp(min=1e-6)
                axes.fill_between(
                    steps[shown],
                    low[shown],
                    (mean + error)[shown],
                    alpha=0.12,
                    color=line.get_color(),
                )
                axes.set(yscale="log")
        panels[0][column].set(title=name, xlabel="simulated time")
        panels[1][column].set(xlabel="completed evaluations")
    panels[0][0].set_ylabel("simple regret")
    panels[1][0].set_ylabel("simple regret")
    panels[0][-1].legend(fontsize="x-small", ncols=2)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, print, save and paint."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="all cases, as long as the authors'")
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--share", type=float, help="of the time; by default all or a third")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    share = options.share or (1.0 if options.full else 1 / 3)
    names = options.case or (list(CASES) if options.full else list(SHORT))
    print(machine())
    done: dict[str, dict[str, Simulation]] = {}
    horizons = {name: share * CASES[name].horizon for name in names}
    tables, ratios, seconds = [], [], {}
    for name in names:
        done[name] = {}
        for method, setting in methods(4096 if options.full else 1024).items():
            began = time.perf_counter()
            done[name][method] = run(
                CASES[name], setting, options.runs, horizons[name], options.device
            )
            seconds[f"{name} {method}"] = time.perf_counter() - began
            print(f"{name} {method}: {seconds[f'{name} {method}']:.0f} s", flush=True)
        table = summarise(name, done[name], horizons[name])
        show(f"{name} (the authors: {CASES[name].verdict}), {options.runs} runs", table)
        tables += table
        ratios += [row for row in [counts(name, done[name], CASES[name])] if row]
    if ratios:
        show("evaluations without waiting over those in step", ratios)
    options.output.mkdir(exist_ok=True, parents=True)
    paint(done, horizons, options.output / "kandasamy.png")
    print(save("kandasamy", {"table": tables, "counts": ratios, "seconds": seconds}))


if __name__ == "__main__":
    main()
