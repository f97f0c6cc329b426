"""From how many runs on a GPU is faster than the CPU: the table behind ``device="auto"``.

    python benchmarks/crossover.py [--results 32 64 128 256] [--most 64] [--repeats 3]

For every number of results, batches of 1, 2, 4, ... runs take one warm step on each device: a fit
from the chains of the last one, and a proposal by expected improvement. It ends where the GPU is
faster. The last line is what `gpbo.backend.CROSSOVER` should be on this machine.
"""

import statistics
import sys
import time
from dataclasses import replace
from typing import Any

import torch

from gpbo import fitting, problems
from gpbo.backend import Streams
from gpbo.data import Observations
from gpbo.design import sobol
from gpbo.graphs import wait
from gpbo.situation import Situation
from gpbo.strategies import ExpectedImprovement
from gpbo_benchmarks import script
from gpbo_benchmarks.inputs import moving

PROBLEM = problems.get("hartmann6")


def step_s(runs: int, results: int, device: torch.device, repeats: int) -> float:
    """Median seconds of a warm step."""
    seeds = tuple(range(runs))
    x = sobol(results, PROBLEM.dim, Streams.per_seed(seeds, "crossover")).to(device)
    data = Observations.of(x, PROBLEM(x))
    # The chains need not have converged: they do the same work as those that have.
    short = fitting.Sampling(warmup=16)
    streams = Streams.per_seed(seeds, "cold", device=device)
    warm = moving(fitting.fit(data, sampling=short, streams=streams))
    nobody = x[:, :0]
    seconds = []
    for repeat in range(repeats + 1):
        situation = Situation(
            space=PROBLEM.space,
            data=data,
            failed=nobody,
            failed_mask=nobody[..., 0].bool(),
            taken=(frozenset(),) * runs,
            seeds=seeds,
            index=repeat,
            fit=_no_fit,
        )
        began = time.perf_counter()
        fit = fitting.fit(data, warm=warm, streams=situation.streams("fit"))
        warm = moving(fit)
        ExpectedImprovement().propose(replace(situation, fit=lambda fit=fit: fit), 1)
        wait(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])  # the first loads and captures


def crossover(results: int, most: int, repeats: int) -> list[dict[str, Any]]:
    """Both devices at 1, 2, 4, ... runs, until the GPU is faster."""
    rows: list[dict[str, Any]] = []
    runs = 1
    while runs <= most and not (rows and rows[-1]["cpu_s"] > rows[-1]["gpu_s"]):
        cpu, gpu = (step_s(runs, results, torch.device(name), repeats) for name in ("cpu", "cuda"))
        rows.append({"results": results, "runs": runs, "cpu_s": cpu, "gpu_s": gpu})
        print(rows[-1], flush=True)
        runs *= 2
    return rows


def table(rows: list[dict[str, Any]]) -> tuple[tuple[int, int], ...]:
    """The least runs for every number of results at which the GPU was faster, if it ever was."""
    won = [row for row in rows if row["cpu_s"] > row["gpu_s"]]
    least: dict[int, int] = {}
    for row in won:
        if row["runs"] < min(least.values(), default=row["runs"] + 1):
            least[row["results"]] = row["runs"]
    return tuple(least.items())


def _no_fit() -> fitting.Fit:
    raise AssertionError("the fit comes first")


def main() -> None:
    """Measure, print and save."""
    parser = script.parser(__doc__)
    parser.add_argument("--results", type=script.at_least(1), nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--most", type=script.at_least(1), default=64, help="runs")
    parser.add_argument("--repeats", type=script.at_least(1), default=3)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device here: there is no crossover to measure")
    keep = script.begin(options.output)
    rows = [
        row
        for results in sorted(options.results)
        for row in crossover(results, options.most, options.repeats)
    ]
    script.show("a warm step, seconds", rows)
    keep("crossover", {"steps": rows, "crossover": table(rows)})
    print(f"CROSSOVER = {table(rows)}")


if __name__ == "__main__":
    main()
