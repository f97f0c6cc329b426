"""Many runs at once against BoTorch's loop, run after run, in one process.

    python benchmarks/replications.py [--problem branin] [--runs 16] [--budget 30] [--device auto]

Both sides start from the same initial designs. gpbo advances all runs in one batch, hyperparameters
integrated out or at their mode; BoTorch has its default model, a MAP fit and log EI, and torch's
default number of threads. The last column is BoTorch's time for as many runs over gpbo's; BoTorch
may make fewer runs than gpbo (``--peer-runs``), and the table says how many. It stays on the CPU
whatever ``--device`` says.
"""

import argparse
import time
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gpbo
from gpbo.backend import resolve_device
from gpbo.problems import Problem
from gpbo.replications import Replications, quartiles
from gpbo_benchmarks import script


def with_gpbo(problem: Problem, options: argparse.Namespace, **how: Any) -> dict[str, Any]:
    """Seconds in all and by phase, and the regret, of runs in one batch."""
    began = Moment()
    runs = gpbo.replicate(problem, budget=options.budget, device=options.device, **how)
    row = summary(f"gpbo, {how['inference']}", began, runs.final_regret)
    return row | {f"{phase}_s": seconds for phase, seconds in runs.seconds.items()}


def with_botorch(problem: Problem, design: Replications, budget: int, runs: int) -> dict[str, Any]:
    """Seconds of BoTorch's runs one after another, from the same designs, and their regret."""
    from gpbo_benchmarks.botorch_loop import minimize_with_map

    def values_of(run: int, budget: int) -> Tensor:
        start = torch.from_numpy(design.points[run])
        return minimize_with_map(lambda x: problem(x[None])[0], start, budget, run)

    values_of(0, design.points.shape[1] + 1)  # loads
    began, least = Moment(), []
    for run in range(runs):
        values = values_of(run, budget)
        least.append(float(values.min()) - problem.optimum)
    return summary("BoTorch, MAP", began, least)


class Moment:
    """A point in wall time, and in the time of all cores, which reveals a busy machine."""

    def __init__(self) -> None:
        self.wall, self.cores = time.perf_counter(), time.process_time()


def summary(method: str, began: Moment, regret: Any) -> dict[str, Any]:
    """What every method reports."""
    now = Moment()
    low, middle, high = map(float, quartiles(np.asarray(regret)))
    return {
        "method": method,
        "runs": len(regret),
        "seconds": now.wall - began.wall,
        "core_seconds": now.cores - began.cores,
        "regret": middle,
        "quartile_low": low,
        "quartile_high": high,
    }


def main() -> None:
    """Measure, print and save."""
    parser = script.parser(__doc__)
    parser.add_argument("--problem", default="branin")
    parser.add_argument("--runs", type=script.at_least(1), default=16)
    parser.add_argument("--budget", type=script.at_least(1), default=30)
    parser.add_argument("--device", type=script.known_device, default="auto")
    parser.add_argument("--peer-runs", type=script.at_least(1), help="default: --runs")
    options = parser.parse_args()
    problem = gpbo.problems.get(options.problem)
    if problem.constraints:
        parser.error(
            f"argument --problem: {options.problem!r}: expected a problem without constraints"
        )
    initial = max(5, 2 * problem.dim)
    quiet: dict[str, Any] = {"initial": initial, "progress": False}
    design = gpbo.replicate(
        problem, strategy="sobol", runs=options.runs, budget=initial, progress=False
    )
    gpbo.replicate(problem, runs=1, budget=initial + 1, device=options.device, **quiet)  # loads

    keep = script.begin(options.output)
    rows = []
    for inference, runs in product(("hmc", "map"), (options.runs, 1)):
        rows.append(with_gpbo(problem, options, runs=runs, inference=inference, **quiet))
        print(rows[-1], flush=True)
    peer = with_botorch(problem, design, options.budget, options.peer_runs or options.runs)
    print(peer, flush=True)
    for row in rows:
        row["ratio"] = peer["seconds"] / peer["runs"] * row["runs"] / row["seconds"]
    script.show(f"{problem.name}, {options.budget} evaluations a run", rows)
    script.show("BoTorch, one run after another", [peer])
    case = {name: value for name, value in vars(options).items() if name != "output"}
    figures = {"case": case, "gpbo": rows, "botorch": peer}
    device = resolve_device(options.device, runs=options.runs, results=options.budget).type
    keep(f"replications_{problem.name}-{device}", figures)


if __name__ == "__main__":
    main()
