"""Thompson sampling with large batches: ten rounds of 100 points, next to published figures.

    python benchmarks/thompson_rounds.py [--problem hartmann6] [--seeds 3] [--inference hmc]
                                         [--last-fit 0] [--fresh]

The protocol is that of Teufel et al. (2024), "Batched energy-entropy acquisition for Bayesian
optimization" (BEEBO), NeurIPS: 100 uniform random points, none within 0.5 of an optimum, then ten
rounds of 100 points without noise. The score is the share of the way from the best of the random
points to the optimum. Here the optimum is moved, differently for each seed. The published figures
are means of five seeds, with the optimum in its original place, from the file
``best_so_far_1.0.csv`` of the authors' code; their Thompson sampling takes the best of 10,000 Sobol
points.

The fit to 600 results is used from then on, unless ``--last-fit`` says otherwise: the posterior
given all results, at the same hyperparameters. Runs that were kept with the same options are not
made again: an interrupted command continues, and one with more seeds adds to them.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from gpbo import Optimizer, problems
from gpbo.backend import Streams
from gpbo.problems import Problem
from gpbo.strategies import Strategy, ThompsonSampling
from gpbo.trust_region import TrustRegion
from gpbo_benchmarks import script
from gpbo_benchmarks.record import machine
from gpbo_benchmarks.suites import embedded

#: Where all runs are kept.
_NAME = "thompson-rounds"
#: Runs with other values of these options are different runs.
_DECISIVE = ("rounds", "inference", "last_fit")
#: Points of a round, and how far the first ones are, at least, from the optimum.
BATCH, APART = 100, 0.5

PUBLISHED = {
    "hartmann6": {"published_TS": 0.807, "published_qLogEI": 0.992, "published_BEEBO": 1.000},
    "styblinski20": {"published_TS": 0.266, "published_qLogEI": 0.607, "published_BEEBO": 0.669},
    "styblinski50": {"published_TS": 0.254, "published_qLogEI": 0.702, "published_BEEBO": 0.693},
    "embedded": {"published_TS": 0.554, "published_qLogEI": 0.902, "published_BEEBO": 0.988},
}


#: Each with the number of coordinates that matter.
PROBLEMS: dict[str, tuple[Callable[[], Problem], int]] = {
    "hartmann6": (lambda: problems.get("hartmann6"), 6),
    "styblinski20": (lambda: problems.get("styblinski_tang", dim=20), 20),
    "styblinski50": (lambda: problems.get("styblinski_tang", dim=50), 50),
    "embedded": (lambda: embedded(problems.get("hartmann6"), 100, torch.arange(6)), 6),
}

#: ``default``: in nested boxes; ``cube``: anywhere; or as in TuRBO.
STRATEGIES: dict[str, Strategy] = {
    "default": ThompsonSampling(),
    "cube": ThompsonSampling(region=None),
    "trust-region": ThompsonSampling(region=TrustRegion(batch=BATCH, length=0.25)),
}


def first_points(problem: Problem, effective: int, seed: int) -> Tensor:
    """Uniform random points that are not close to an optimum, ``[100, d]``."""
    points = Streams.named(seed, "first-points").uniform(20 * BATCH, problem.dim)[0]
    optima = problem.minimizers[0, :, :effective]
    far = torch.cdist(points[:, :effective], optima).amin(-1) > APART
    return points[far][:BATCH]


def run(name: str, strategy: Strategy, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The score after every round, and the seconds that each choice took."""
    where = {"problem": name, "seed": seed, "commit": machine()["commit"]}
    build, effective = PROBLEMS[name]
    problem = build().shifted(seed)
    optimizer = Optimizer(problem.space, strategy, seed=seed, inference=options.inference)
    for params in problem.space.decode(first_points(problem, effective, seed)):
        optimizer.add(params, problem.evaluate(params))
    start = best(optimizer)
    scores, seconds = [], []
    for number in range(options.rounds):
        began = time.perf_counter()
        fits = not options.last_fit or len(optimizer.completed) <= options.last_fit
        trials = optimizer.ask(BATCH, refit=fits)
        seconds.append(time.perf_counter() - began)
        for trial in trials:
            optimizer.tell(trial, problem.evaluate(trial.params))
        scores.append((start - best(optimizer)) / (start - problem.optimum))
        print(
            f"{name} seed {seed} round {number + 1}: {scores[-1]:.3f}, {seconds[-1]:.0f} s",
            flush=True,
        )
    return where | {"scores": scores, "seconds": seconds}


def decisive(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that all runs in one file share."""
    return {name: options[name] for name in _DECISIVE}


def kept(options: argparse.Namespace) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The stored runs, by problem, strategy and seed.

    Raises:
        SystemExit: they were made with other options.
    """
    path = options.output / f"{_NAME}.json"
    if not path.exists():
        return {}
    stored = json.loads(path.read_text())["figures"]
    asked = decisive(vars(options))
    before = decisive(stored["options"])
    if before != asked:
        sys.exit(f"{path}: has runs of {before}; expected {asked}, or another --output")
    return {(run["problem"], run["strategy"], run["seed"]): run for run in stored["runs"]}


def rows(runs: Iterable[dict[str, Any]], rounds: int) -> list[dict[str, Any]]:
    """A row for each problem and strategy."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for made in runs:
        groups.setdefault((made["problem"], made["strategy"]), []).append(made)
    table = []
    for (name, strategy), of_problem in groups.items():
        scores = [made["scores"][-1] for made in of_problem]
        row: dict[str, Any] = {"problem": name, "strategy": strategy}
        row |= {"seeds": len(scores), "rounds": rounds}
        row |= {"score": mean(scores), "least": min(scores), "greatest": max(scores)}
        row["seconds"] = mean(sum(made["seconds"]) for made in of_problem)
        row["commit"] = ", ".join(dict.fromkeys(made["commit"] for made in of_problem))
        table.append(row | PUBLISHED[name])
    return table


def best(optimizer: Optimizer) -> float:
    """The least value so far."""
    assert optimizer.best is not None
    assert optimizer.best.value is not None
    return optimizer.best.value


def main() -> None:
    """Measure, print and save."""
    parser = script.parser(__doc__)
    parser.add_argument("--problem", action="append", choices=list(PROBLEMS))
    parser.add_argument("--strategy", action="append", choices=list(STRATEGIES))
    parser.add_argument("--seeds", type=script.at_least(1), default=1)
    parser.add_argument("--first-seed", type=script.at_least(0), default=0)
    parser.add_argument("--rounds", type=script.at_least(1), default=10)
    parser.add_argument("--inference", choices=["map", "hmc", "nuts"], default="map")
    parser.add_argument(
        "--last-fit",
        type=script.at_least(0),
        default=600,
        help="fit to at most this many results; 0 for no limit",
    )
    parser.add_argument("--fresh", action="store_true", help="repeat runs that are kept")
    options = parser.parse_args()
    made, alike = kept(options), decisive(vars(options))
    # The runs may come from several commands: what these have in common.
    common = [f"--{name.replace('_', '-')}={value}" for name, value in alike.items()]
    keep = script.begin(options.output, common)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    asked = product(options.problem or PROBLEMS, options.strategy or ["default"], seeds)
    for name, chosen, seed in asked:
        if options.fresh or (name, chosen, seed) not in made:
            done = run(name, STRATEGIES[chosen], seed, options)
            made[name, chosen, seed] = {"strategy": chosen, **done}
            runs = [made[key] for key in sorted(made)]
            table = rows(runs, options.rounds)
            keep(_NAME, {"table": table, "runs": runs, "options": alike})
    table = rows([made[key] for key in sorted(made)], options.rounds)
    script.show(f"the way to the optimum after {options.rounds} rounds of {BATCH}", table)


if __name__ == "__main__":
    main()
