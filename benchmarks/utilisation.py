"""How much of the workers' time trials take, synchronously and asynchronously.

    python benchmarks/utilisation.py --workers 8 --seconds 1 --budget 200

Trials sleep, in processes of their own, so that the engine has the cores. A trial records when it
began and ended. "steady" is the share of the workers' time that trials took from the first moment
at which every worker had one to the moment when the last trial began; "whole" that of the job from
its first trial's begin to its last one's end, the slack at both ends included.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import torch

from gpbo import Categorical, Integer, Optimizer, Real, Space, Tuner
from gpbo.fitting import Inference
from gpbo.strategies import STRATEGIES
from gpbo.tuner import Execution
from gpbo_benchmarks import script

SPACE = Space(
    Real("rate", 1e-4, 1, "log"),
    Real("decay", 1e-6, 1, "log"),
    Real("dropout", 0, 0.9),
    Integer("layers", 1, 8),
    Integer("width", 8, 512, "log"),
    Categorical("kind", ("a", "b")),
)


def sleeper(seconds: float, ledger: Path) -> Any:
    """An objective that takes this long and records when."""

    def objective(params: dict[str, Any], trial: Any) -> float:
        began = time.time()
        time.sleep(seconds)
        with ledger.open("a") as file:
            file.write(json.dumps([began, time.time()]) + "\n")
        value: float = (params["dropout"] - 0.3) ** 2 + abs(params["layers"] - 3) / 10
        return value + (params["kind"] == "a") + params["rate"]

    return objective


def shares(times: list[list[float]], workers: int) -> tuple[float, float]:
    """The steady share and the whole one."""
    begins, ends = zip(*sorted(times), strict=True)
    start, last = begins[workers - 1], begins[-1]

    def busy(low: float, high: float) -> float:
        taken = sum(max(0.0, min(end, high) - max(begin, low)) for begin, end in times)
        return taken / (workers * (high - low))

    return busy(start, last), busy(begins[0], max(ends))


def measure(options: argparse.Namespace, mode: Any, strategy: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "times"
        optimizer = Optimizer(
            SPACE,
            strategy,
            inference=options.inference,
            storage=Path(folder) / "runs.db",
            name="job",
        )
        began = time.time()
        result = Tuner(
            optimizer,
            sleeper(options.seconds, ledger),
            budget=options.budget,
            execution=Execution(workers=options.workers, mode=mode),
        ).run(progress=False)
        optimizer.close()
        elapsed = time.time() - began
        steady, whole = shares(
            [json.loads(line) for line in ledger.read_text().splitlines()], options.workers
        )
    return {
        "strategy": strategy,
        "mode": mode,
        "workers": options.workers,
        "trials": len(result.trials),
        "trial_s": options.seconds,
        "steady": steady,
        "whole": whole,
        "job_s": elapsed,
        "engine_s": result.engine_s,
        "fitted_to": optimizer.fitted_size,
    }


def main() -> None:
    """Measure, print and save."""
    parser = script.parser(__doc__)
    parser.add_argument("--workers", type=script.at_least(1), default=8)
    parser.add_argument("--seconds", type=script.at_least(0.0), default=1.0)
    parser.add_argument("--budget", type=script.at_least(1), default=200)
    parser.add_argument("--inference", choices=get_args(Inference), default="hmc")
    parser.add_argument(
        "--strategy", action="append", choices=list(STRATEGIES), help="by default random, ei and ts"
    )
    parser.add_argument(
        "--mode", action="append", choices=["async", "sync"], help="by default async and sync"
    )
    options = parser.parse_args()
    if options.budget <= options.workers:
        parser.error(f"argument --budget: {options.budget}: expected more than --workers")
    torch.set_num_threads(1)
    keep = script.begin(options.output)
    rows = []
    for strategy in options.strategy or ("random", "ei", "ts"):
        for mode in options.mode or ("async", "sync"):
            rows.append(measure(options, mode, strategy))
            script.show("Utilisation of the workers", rows[-1:])
    script.show("Utilisation of the workers", rows)
    keep("utilisation", rows)


if __name__ == "__main__":
    main()
