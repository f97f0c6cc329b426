"""What storage costs a tuning job, per trial.

    python benchmarks/storage.py --trials 300

Ten parameters; every trial is asked, started, reports three values, ends and is told: each of these
is a transaction that is on disk when it returns. The seconds in the storage are counted around its
calls, by the clock and by the processor's time of the thread; the trials themselves take none.
"""

import tempfile
import time
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import torch

from gpbo import Optimizer, Real, Space, Tuner
from gpbo.candidates import Search
from gpbo.storage import SqliteJournal
from gpbo.strategies import ExpectedImprovement, RandomSearch, Strategy
from gpbo_benchmarks import script

SPACE = Space(*(Real(f"x{number}", 0, 1) for number in range(10)))
STRATEGIES: dict[str, Strategy] = {
    "random": RandomSearch(),
    "ei, point estimates": ExpectedImprovement(Search(16, 4, 1, 2)),
}


class Inline(Executor):
    """Runs a trial at once."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args))
        return future


def objective(params: dict[str, Any], trial: Any) -> float:
    for step in range(3):
        trial.report(step, 1.0 / (step + 1))
    return float(sum(params.values()))


def timed(name: str, spent: list[tuple[float, float]]) -> Any:
    """A method of the journal that counts its seconds."""
    method = getattr(SqliteJournal, name)

    def call(self: SqliteJournal, **news: Any) -> Any:
        began, worked = time.perf_counter(), time.thread_time()
        try:
            return method(self, **news)
        finally:
            spent.append((time.perf_counter() - began, time.thread_time() - worked))

    return call


def measure(strategy: str, trials: int) -> dict[str, Any]:
    spent: list[tuple[float, float]] = []
    methods = {name: getattr(SqliteJournal, name) for name in ("write", "stop_requested")}
    for name in methods:
        setattr(SqliteJournal, name, timed(name, spent))
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "runs.db"
            optimizer = Optimizer(
                SPACE, STRATEGIES[strategy], inference="map", storage=path, name="job"
            )
            Tuner(optimizer, objective, budget=trials, executor=Inline()).run(progress=False)
            optimizer.close()
            size = path.stat().st_size
    finally:
        for name, method in methods.items():
            setattr(SqliteJournal, name, method)
    wall, processor = zip(*spent, strict=True)
    return {
        "strategy": strategy,
        "trials": trials,
        "calls_per_trial": len(spent) / trials,
        "ms_per_trial": 1e3 * sum(wall) / trials,
        "processor_ms_per_trial": 1e3 * sum(processor) / trials,
        "slowest_call_ms": 1e3 * max(wall),
        "kB_per_trial": size / trials / 1e3,
    }


def main() -> None:
    """Measure, print and save."""
    parser = script.parser(__doc__)
    parser.add_argument("--trials", type=script.at_least(1), default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep = script.begin(options.output)
    rows = [measure(strategy, options.trials) for strategy in STRATEGIES]
    script.show("Storage, per trial", rows)
    keep("storage", rows)


if __name__ == "__main__":
    main()
