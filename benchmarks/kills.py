"""A tuning job killed with SIGKILL at random moments, resumed, and compared with one undisturbed.

    python benchmarks/kills.py --kills 1000

A job of one worker is started again and again by a process that is killed after a random time.
When it has ended, its trials must be those of the uninterrupted job, in the same order with the
same values; and no trial may have been evaluated to its end twice, unless the kill came between its
end and the storing of its result.
"""

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from gpbo.candidates import Search
from gpbo.errors import UnknownJob
from gpbo.optimizer import Optimizer
from gpbo.record import JOB_INTERRUPTED, Record
from gpbo.space import Categorical, Integer, Real, Space
from gpbo.storage import SqliteStorage
from gpbo.strategies import ExpectedImprovement
from gpbo.tuner import Tuner
from gpbo_benchmarks import script

SPACE = Space(Real("rate", 1e-4, 1, "log"), Integer("depth", 1, 9), Categorical("kind", ("a", "b")))
STRATEGY = ExpectedImprovement(Search(raw=32, perturbed=8, restarts=2, iterations=8))


def objective(params: dict[str, Any], trial: Any) -> float:
    """Fails for some configurations, and leaves a mark for each evaluation."""
    with (trial.folder.parent / "evaluations").open("a") as ledger:
        ledger.write(f"{trial.id}\n")
    if params["depth"] == 7:
        raise ValueError("seven")
    return float(params["rate"] - 0.01) ** 2 + params["depth"] / 100 + (params["kind"] == "a")


def drive(path: Path, name: str, budget: int) -> None:
    """What a user's script does: start the job, or continue it."""
    try:
        optimizer = Optimizer.resume(path, name, strategy=STRATEGY)
    except UnknownJob:
        options: dict[str, Any] = {"inference": "map", "initial": 4, "seed": 3}
        optimizer = Optimizer(SPACE, STRATEGY, **options, storage=path, name=name)
    Tuner(optimizer, objective, budget=budget).run(progress=False)


def forked(path: Path, name: str, budget: int) -> int:
    """The id of a process that drives the job: a fork, so that nothing is imported each time."""
    process = os.fork()
    if process == 0:
        try:
            drive(path, name, budget)
        except BaseException as error:  # noqa: BLE001  it must not return into the parent's stack
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return process


def finish(path: Path, name: str, budget: int, seconds: random.Random | None, kills: int) -> int:
    """Run the job to its end, killing it up to ``kills`` times; how often it was."""
    done = 0
    while True:
        process = forked(path, name, budget)
        if seconds is not None and done < kills:
            time.sleep(seconds.choice((0.05, 0.3, 0.6, 1.0)) * (0.5 + seconds.random()))
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if not os.WIFSIGNALED(status):
            if os.waitstatus_to_exitcode(status) != 0:
                raise SystemExit("the job ended with an error")
            return done
        done += 1


def facts(record: Record) -> list[Any]:
    """What must be the same: everything but times."""
    return [
        (t.id, dict(t.params), str(t.status), t.value, (t.reason or "").split("\n")[0], t.origin)
        for t in record.trials
    ]


def compare(whole: Record, parts: Record, evaluations: list[int]) -> None:
    """Complain about the first difference."""
    for expected, found in zip(facts(whole), facts(parts), strict=True):
        if expected != found:
            raise SystemExit(f"uninterrupted: {expected}\nkilled:        {found}")
    if whole.finished != parts.finished:
        raise SystemExit(
            f"order in which trials ended, uninterrupted: {whole.finished}\n"
            f"killed:                                     {parts.finished}"
        )
    for trial in parts.trials:
        interrupted = sum(
            attempt.reason == JOB_INTERRUPTED
            for attempt in parts.attempts
            if attempt.trial == trial.id
        )
        if evaluations.count(trial.id) > 1 + interrupted:
            raise SystemExit(f"trial {trial.id} was run again though it was not running")


def main() -> None:
    """Kill this many times, in as many jobs as that takes."""
    parser = script.parser(__doc__, keeps=False)
    parser.add_argument("--kills", type=script.at_least(1), default=1000)
    parser.add_argument("--budget", type=script.at_least(1), default=10)
    parser.add_argument("--seed", type=script.at_least(0), default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seconds = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        store = SqliteStorage(path)
        finish(path, "whole", options.budget, None, 0)
        kills = jobs = 0
        while kills < options.kills:
            name = f"killed-{jobs}"
            kills += finish(path, name, options.budget, seconds, options.kills - kills)
            ledger = path.with_name(f"{path.name}-trials") / name / "evaluations"
            compare(
                store.read("whole"), store.read(name), [int(i) for i in ledger.read_text().split()]
            )
            jobs += 1
    print(f"{kills} kills in {jobs} jobs: every trial as in the uninterrupted job")


if __name__ == "__main__":
    main()
