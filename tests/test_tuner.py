"""A tuning job: whatever trials do, in whatever order they end, it ends well and can go on."""

import errno
import itertools
import math
import os
import signal
import subprocess
import sys
import threading
import time
from asyncio import CancelledError
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import scipy.sparse

from gpbo import optimizer as optimizer_module
from gpbo.attempt import METRICS, PROCESS, STOP, write_report
from gpbo.callbacks import Callback
from gpbo.candidates import Search
from gpbo.chooser import Chooser
from gpbo.completion import Completion, MedianRule
from gpbo.engine import Engine
from gpbo.errors import InvalidOption
from gpbo.optimizer import Optimizer
from gpbo.pace import Pace
from gpbo.record import Attempt, Metric, Record
from gpbo.space import Categorical, Integer, Real, Space
from gpbo.storage import SqliteStorage
from gpbo.strategies import (
    STRATEGIES,
    ExpectedImprovement,
    ProbabilityOfImprovement,
    Strategy,
    ThompsonSampling,
)
from gpbo.trial import Trial, TrialStatus
from gpbo.tuner import Execution, Tuner
from gpbo.view import summary
from gpbo.worker import Command, Imported, Outcome
from tests import objectives
from tests.monte_carlo import unchecked_shapes

ROOT = Path(__file__).parent.parent
LINE = Space(Real("x", 0, 1))
EI = ExpectedImprovement(Search(raw=32, perturbed=8, restarts=2, iterations=8))


def stored(folder: Path, space: Space = LINE, strategy: Any = "sobol", **options: Any) -> Optimizer:
    path = folder / "runs.db"
    return Optimizer(space, strategy, inference="map", storage=path, name="job", **options)


def read(folder: Path) -> Record:
    return SqliteStorage(folder / "runs.db").read("job")


class Inline(Executor):
    """Runs a trial at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args))
        return future


def tuned(optimizer: Optimizer, objective: Any = objectives.bowl, **options: Any) -> Any:
    """A job in this process, which is enough where processes are not what is tested."""
    return Tuner(optimizer, objective, **{"executor": Inline(), **options})


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_runs_its_budget(strategy: str, tmp_path: Path) -> None:
    space = Space(Real("x", 0, 1), Integer("depth", 1, 3), Categorical("kind", ("a", "b")))
    optimizer = stored(tmp_path, space, strategy, initial=3)
    result = tuned(optimizer, budget=5).run()
    assert result.stopped == "budget"
    assert len(result.trials) == 5
    record = read(tmp_path)
    assert record.ended == "budget"
    assert record.trials == tuple(optimizer.trials)
    assert [(a.trial, a.number, a.value) for a in record.attempts] == [
        (trial.id, 1, trial.value) for trial in record.trials
    ]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_space_that_is_used_up_ends_the_job_which_says_so(strategy: str, tmp_path: Path) -> None:
    """Failed ones and one from elsewhere included, no configuration comes twice."""
    space = Space(Integer("depth", 1, 3), Categorical("kind", ("a", "b")))

    def objective(params: dict[str, Any]) -> float:
        return params["depth"] / 0 if params["depth"] == 2 else params["depth"]

    optimizer = stored(tmp_path, space, strategy, initial=2)
    optimizer.add({"depth": 3, "kind": "b"}, 0.5)
    result = tuned(optimizer, objective, budget=20, execution=Execution(workers=2)).run()
    assert len(result.trials) == space.size == 6
    assert len({space.key(trial.params) for trial in result.trials}) == 6
    assert result.stopped == read(tmp_path).ended == "exhausted"
    assert "nothing was left to try" in str(result)
    assert "the job ended: nothing was left to try" in summary(read(tmp_path))


@pytest.mark.parametrize(
    "strategy",
    [EI, ProbabilityOfImprovement(EI.search), ThompsonSampling(EI.search, 64)],
    ids=lambda strategy: strategy.name,
)
def test_where_trials_crash_a_job_goes_less_often_for_the_weight(
    strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The minimum lies where every trial crashes: without the weight nearly all are tried there."""

    def objective(params: dict[str, Any]) -> float:
        return float(params["x"]) if params["x"] > 0.3 else math.nan

    def crashes() -> int:
        optimizer = Optimizer(LINE, strategy, inference="map", initial=4, seed=1)
        result = tuned(optimizer, objective, budget=18).run()
        return sum(trial.value is None for trial in result.trials[6:])

    weighted = crashes()
    monkeypatch.setattr("gpbo.strategies.weighted", lambda utility, *rest: utility)
    monkeypatch.setattr("gpbo.strategies.log_chance", lambda *rest, **options: None)
    assert weighted < 0.75 * crashes()


@pytest.mark.parametrize(("workers", "mode"), [(1, "async"), (3, "sync")])
def test_where_the_seed_decides_a_job_proposes_what_ask_and_tell_propose(
    workers: int, mode: Any
) -> None:
    options: dict[str, Any] = {"inference": "map", "initial": 3, "seed": 2}
    result = tuned(
        Optimizer(LINE, EI, **options), budget=8, execution=Execution(workers=workers, mode=mode)
    ).run()
    by_hand = Optimizer(LINE, EI, **options)
    while len(by_hand.trials) < 8:
        for trial in by_hand.ask(min(workers, 8 - len(by_hand.trials))):
            by_hand.tell(trial, objectives.bowl(dict(trial.params)))
    assert [t.params for t in result.trials] == [t.params for t in by_hand.trials]


class LastFirst(Executor):
    """Ends the trials of a batch one after another, the last one first."""

    def __init__(self, optimizer: Optimizer, batch: int) -> None:
        self._optimizer, self._batch = optimizer, batch
        self._waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._waiting.append((future, partial(fn, *args)))
        if len(self._waiting) == self._batch:
            threading.Thread(target=self._end, args=[self._waiting]).start()
            self._waiting = []
        return future

    def _end(self, waiting: list[tuple[Future[Any], Callable[[], Any]]]) -> None:
        for future, trial in reversed(waiting):
            told = len(self._optimizer.finished)
            future.set_result(trial())
            while len(self._optimizer.finished) == told:
                time.sleep(0.001)


def test_in_step_a_job_does_not_depend_on_who_is_fast() -> None:
    options: dict[str, Any] = {"initial": 3, "seed": 2}
    execution = Execution(workers=3, mode="sync")
    in_order = tuned(Optimizer(LINE, EI, **options), budget=9, execution=execution).run()
    optimizer = Optimizer(LINE, EI, **options)
    executor = LastFirst(optimizer, batch=3)
    backwards = tuned(optimizer, budget=9, execution=execution, executor=executor).run()
    assert [trial.id for trial in backwards.optimizer.finished] == [2, 1, 0, 5, 4, 3, 8, 7, 6]
    trials = backwards.optimizer.trials
    assert [t.params for t in trials] == [t.params for t in in_order.trials]


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_as_many_trials_run_at_a_time_as_there_are_workers(mode: Any) -> None:
    running, most, lock = [0], [0], threading.Lock()
    three = threading.Event()

    def slow(params: dict[str, Any]) -> float:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
            if running[0] == 3:
                three.set()
        assert three.wait(10)
        time.sleep(0.02)
        with lock:
            running[0] -= 1
        return float(params["x"])

    with ThreadPoolExecutor(9) as threads:
        execution = Execution(workers=3, mode=mode)
        result = tuned(
            Optimizer(LINE, EI, inference="map", initial=4),
            slow,
            budget=14,
            executor=threads,
            execution=execution,
        ).run()
    assert most[0] == 3
    assert len(result.trials) == 14
    assert len({trial.params["x"] for trial in result.trials}) == 14
    assert {trial.origin for trial in result.trials} == {"design", "model:ei"}
    # In step every choice waits for its fit; otherwise how many fits there are is a matter of time.
    assert result.optimizer.fitted_size > 4 or mode == "async"


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """How every choice of an optimizer is asked for."""
    asked, plan = [], Optimizer.plan

    def noting(self: Optimizer, count: int, **how: Any) -> Any:
        asked.append(SimpleNamespace(**how))
        return plan(self, count, **how)

    monkeypatch.setattr(Optimizer, "plan", noting)
    return asked


def wait_until(done: Callable[[], bool]) -> None:
    """Up to half a minute."""
    for _ in range(600):
        if done():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def test_trials_are_chosen_ahead_and_by_as_few_draws_as_the_pace_says(
    plans: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While two run three more are chosen, if they are chosen as slowly as this."""
    monkeypatch.setattr(Pace, "ahead", property(lambda pace: 3))
    monkeypatch.setattr(Pace, "choice_took", lambda pace, *_: setattr(pace, "thin", 5))
    optimizer, five = Optimizer(LINE, "random"), threading.Event()

    def five_were_there() -> bool:
        """Whoever sees them tells the other, who may look when there are more."""
        if len(optimizer.trials) == 5:
            five.set()
        return five.is_set()

    def objective(params: dict[str, Any], trial: Any) -> float:
        if trial.id < 2:
            wait_until(five_were_there)
        return 1.0

    with ThreadPoolExecutor(2) as threads:
        execution = Execution(workers=2)
        job = tuned(optimizer, objective, budget=7, executor=threads, execution=execution)
        assert [trial.value for trial in job.run().trials] == [1.0] * 7
    assert [how.thin for how in plans] == [1, *[5] * (len(plans) - 1)]


def test_a_job_fits_beside_its_trials_whenever_no_worker_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where nothing is chosen ahead, so that no choice begins while all workers are busy."""
    monkeypatch.setattr(Pace, "ahead", property(lambda pace: 0))
    monkeypatch.setattr(Pace, "is_long", lambda pace, seconds: True)
    strategy = ThompsonSampling(Search(32, 8, 2, 8), features=64)
    made = Optimizer(Space(Real("x", 0, 1)), strategy, initial=4, inference="map")
    fitted, adopt = list[int](), made.adopt

    def adopted(fit: Any) -> None:
        adopt(fit)
        fitted.append(made.fitted_size)

    monkeypatch.setattr(made, "adopt", adopted)

    def objective(params: dict[str, Any]) -> float:
        wanted, until = len(made.completed), time.monotonic() + 20
        while made.fit_report and made.fitted_size < wanted and len(made.trials) < 11:
            assert time.monotonic() < until, "no fit came while all workers were busy"
            time.sleep(0.01)
        return float(params["x"])

    with ThreadPoolExecutor(2) as threads:
        Tuner(made, objective, budget=13, executor=threads, execution=Execution(workers=2)).run()
    assert fitted  # how many is a matter of how fast they are; each trial saw to its own
    assert all(trial.value is not None for trial in made.trials)


def test_a_fit_that_takes_long_runs_beside_the_trials_and_serves_the_next_ones(
    plans: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pace, "is_long", lambda pace, seconds: True)
    optimizer = Optimizer(LINE, EI, inference="map", initial=3)

    def objective(params: dict[str, Any], trial: Any) -> float:
        if trial.id == 6:
            wait_until(lambda: optimizer.fitted_size > 5)
        return objectives.bowl(params)

    with ThreadPoolExecutor(2) as threads:
        execution = Execution(workers=2)
        job = tuned(optimizer, objective, budget=13, executor=threads, execution=execution)
        assert all(trial.value is not None for trial in job.run().trials)
    waits = [how.refit for how in plans]
    assert waits == sorted(waits, reverse=True)  # at first, and never again
    assert 1 <= waits.count(True) < len(waits)


@pytest.mark.parametrize(
    ("budget", "exhausted", "fits"), [(6, False, 1), (6, True, 0), (5, False, 0)]
)
def test_no_fit_is_begun_for_trials_that_do_not_come(
    budget: int, exhausted: bool, fits: int
) -> None:
    begun: list[Any] = []

    class Noting(Engine):
        def fit(self, plan: Callable[[], Any]) -> Future[Any]:
            begun.append(plan)
            return Future()

    optimizer = Optimizer(LINE, EI, inference="map", initial=3)
    for trial in optimizer.ask(3):
        optimizer.tell(trial, trial.params["x"])
    optimizer.tell(optimizer.ask(2)[0], 0.5)  # after a fit
    chooser = Chooser(optimizer, budget, Execution(workers=2))
    chooser.exhausted = exhausted
    with Noting(apart=False) as engine:
        chooser.advance(engine, running=2, ready=0)
    assert len(begun) == fits


def test_trials_that_fail_are_trials_and_the_job_goes_on(tmp_path: Path) -> None:
    ways = ("segfault", "exit", "killed", "hang", "raise", "nan", "text", "lock", "fine")
    optimizer = stored(tmp_path, Space(Categorical("how", ways)), "grid")
    execution = Execution(workers=2, time_limit_s=3.0)
    result = Tuner(optimizer, objectives.treacherous, budget=20, execution=execution).run()
    reasons = {trial.params["how"]: trial.reason for trial in result.trials}
    assert result.stopped == "exhausted"
    assert set(reasons) == set(ways)
    assert [how for how, reason in reasons.items() if reason is None] == ["fine"]
    assert "SIGSEGV" in str(reasons["segfault"])
    assert "time limit of 3 s" in str(reasons["hang"])
    assert reasons["nan"] == "the value is nan"
    assert "has type str" in str(reasons["text"])
    assert "pickle" in str(reasons["lock"]).lower()
    log = tmp_path / "runs.db-trials" / "job" / "00000.1" / "log.txt"
    assert log.read_text().startswith("trying ")


def test_a_trial_that_died_is_tried_again_and_no_oftener_than_allowed(tmp_path: Path) -> None:
    optimizer = stored(tmp_path)
    execution = Execution(retries=1)
    result = Tuner(optimizer, objectives.once_unlucky, budget=2, execution=execution).run()
    assert all(trial.value == trial.params["x"] for trial in result.trials)
    outcomes = [(a.trial, a.number, a.value is None) for a in read(tmp_path).attempts]
    assert outcomes == [(0, 1, True), (0, 2, False), (1, 1, True), (1, 2, False)]


def test_an_exception_would_be_raised_again(tmp_path: Path) -> None:
    calls: list[float] = []

    def never(params: dict[str, Any]) -> float:
        calls.append(params["x"])
        raise ValueError("no")

    failed = tuned(Optimizer(LINE, "sobol"), never, budget=1, execution=Execution(retries=3)).run()
    assert len(calls) == 1
    assert failed.trials[0].status is TrialStatus.FAILED
    command = Command("bash -c 'echo {x} >> ran; exit 1'", folder=tmp_path)
    tuned(Optimizer(LINE, "sobol"), command, budget=1, execution=Execution(retries=3)).run()
    assert len((tmp_path / "ran").read_text().split()) == 1


class Broken(Executor):
    """Loses every trial."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(RuntimeError("worker lost"))
        return future


def test_a_trial_that_was_lost_or_cancelled_is_tried_again_before_others_begin() -> None:
    ran: list[int] = []

    class Unlucky(Inline):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            ran.append(args[0].trial)
            if args[0].attempt == 2:
                return super().submit(fn, *args)
            future = Broken().submit(fn) if args[0].trial else Future[Any]()
            if future.cancel():
                future.set_running_or_notify_cancel()
            return future

    optimizer = Optimizer(LINE, "sobol")
    optimizer.ask(3)
    tuned(optimizer, budget=3, executor=Unlucky(), execution=Execution(retries=1)).run()
    assert ran == [0, 0, 1, 1, 2, 2]


def test_interruptions_use_no_retries_up(tmp_path: Path) -> None:
    optimizer = stored(tmp_path)
    trial = optimizer.ask()
    reasons = ("the job was interrupted", "the job ended", "not run: gone", "it was killed")
    attempts = [Attempt(trial.id, n, 0, 1.0, 2.0, reason=why) for n, why in enumerate(reasons, 1)]
    assert optimizer.journal is not None
    optimizer.journal.write(attempts=attempts)
    optimizer.close()
    resumed = Optimizer.resume(tmp_path / "runs.db", "job")
    tuned(resumed, budget=1, executor=Broken(), execution=Execution(retries=2)).run()
    # Two retries after the first attempt that died of its own accord, the fourth.
    assert [a.number for a in read(tmp_path).attempts] == [1, 2, 3, 4, 5, 6]


def test_a_clock_that_is_set_meanwhile_changes_no_duration_and_ends_no_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, set_by = time.time, itertools.cycle((0.0, -3600.0, 10800.0))
    monkeypatch.setattr(time, "time", lambda: real() + next(set_by))
    job = tuned(Optimizer(LINE, "sobol"), budget=7, completion=Completion(runtime_s=1800.0))
    result = job.run()
    assert result.stopped == "budget"
    assert 0 < result.objective_s < 600


def test_what_an_objective_raises_or_returns_fails_its_trial_only(tmp_path: Path) -> None:
    """A part of a character, as in the name of a file; what is no number; a file of metrics."""

    def objective(params: dict[str, Any], trial: Any) -> Any:
        huge = f'{{"step": 1, "value": 1{"0" * 400}}}\n'
        (trial.folder / METRICS).write_text('{"step": 0, "value": 2}\nmine\n{"step": "a"}\n' + huge)
        if trial.id == 0:
            raise ValueError("cannot parse caf\udce9.csv")
        return scipy.sparse.csr_matrix([[1.0]]) if trial.id == 1 else 0.5

    result = tuned(stored(tmp_path), objective, budget=3).run()
    assert [trial.value for trial in result.trials] == [None, None, 0.5]
    record = read(tmp_path)
    assert r"caf\udce9.csv" in str(record.attempts[0].reason)
    assert [(metric.step, metric.value) for metric in record.metrics] == [(0, 2.0)] * 3


def test_an_objective_may_change_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    def objective(params: dict[str, Any], trial: Any) -> float:
        os.chdir(tmp_path / "elsewhere")
        trial.report(0, 1.0)
        return 0.5

    optimizer = Optimizer(LINE, "sobol", storage="runs.db", name="job")
    result = tuned(optimizer, objective, budget=3).run()
    assert [trial.value for trial in result.trials] == [0.5] * 3
    assert len(read(tmp_path).metrics) == 3
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_objective_that_is_imported_may_remove_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone.py").write_text(
        """
import os, tempfile

def objective(params):
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
    return 0.5
"""
    )
    monkeypatch.chdir(tmp_path)
    result = tuned(Optimizer(LINE, "sobol"), "gone:objective", budget=3).run()
    assert [trial.value for trial in result.trials] == [0.5] * 3


def test_a_command_is_an_objective(tmp_path: Path) -> None:
    command = Command("bash -c 'echo loss: {x}'", metric=r"loss: (\S+)")
    result = tuned(stored(tmp_path), command, budget=3).run()
    assert [trial.value for trial in result.trials] == [t.params["x"] for t in result.trials]
    for template, space, message in (
        ("train {rate}", LINE, "'rate'"),
        ("train {x:d}", LINE, "format code 'd'"),
        ("train {kind:d}", Space(Categorical("kind", (1, "a"))), "format code 'd'"),
        ("{n} {k:d}", Space(Integer("n", 1, 1), Categorical("k", (1, "a"))), "format code 'd'"),
    ):
        with pytest.raises(InvalidOption, match=message):
            tuned(Optimizer(space), Command(template), budget=3)
    tuned(Optimizer(Space(Categorical("act", ("relu", "elu")))), Command("train {act:s}"), budget=3)


def test_an_objective_that_cannot_report_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    rule = Execution(early_stopping=MedianRule())
    for silent in (objectives.bowl, partial(objectives.bowl)):
        tuned(Optimizer(LINE), silent, budget=3, execution=rule)
        assert "cannot stop the trials of" in caplog.records[-1].message
    tuned(Optimizer(LINE), budget=3)
    tuned(Optimizer(LINE), lambda params, trial: 0.5, budget=3, execution=rule)
    tuned(Optimizer(LINE), "math:sqrt", budget=3, execution=rule)
    tuned(Optimizer(LINE), Command("train {x}"), budget=3, execution=rule)
    assert len(caplog.records) == 2


def test_a_command_without_a_parameter_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    reals = [Real(name, 0, 1) for name in ("x", "y", "opt", "opt.lr")]
    space = Space(Integer("depth", 1, 3), *reals)
    tuned(Optimizer(space), Command("train {depth:03} {{y}} {opt.lr}"), budget=3)
    (record,) = caplog.records
    assert "does not use {x}, {y}, {opt}: these parameters have no effect" in record.message
    precise = Space(Integer("digits", 1, 3), reals[0])
    tuned(Optimizer(precise), Command("train {x:.{digits}f}"), budget=3)
    tuned(Optimizer(LINE), Command("train {x.real}"), budget=3)
    assert len(caplog.records) == 1


def test_a_program_that_is_not_there_ends_the_job_before_it_began(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("#!/bin/sh\necho {}")
    for template in ("no-such-program {x}", "./run.sh {x}"):  # the second may not be run
        with pytest.raises(InvalidOption, match="cannot be found"):
            Tuner(Optimizer(LINE), Command(template, folder=tmp_path), budget=3)
    (tmp_path / "run.sh").chmod(0o755)
    Tuner(Optimizer(LINE), Command("./run.sh {x}", folder=tmp_path), budget=3)
    env = {"PATH": str(tmp_path)}
    Tuner(Optimizer(LINE), Command("run.sh {x}"), budget=3, execution=Execution(env=env))


def test_what_another_job_left_in_the_folder_is_not_taken_for_results(tmp_path: Path) -> None:
    heard = Listener()
    options: dict[str, Any] = {"budget": 2, "folder": tmp_path}
    before = Command("echo step 1 value 7 {x}", r"step (?P<step>\d+) value (\S+)")
    assert tuned(Optimizer(LINE, "sobol"), before, **options).run().best.value == 7
    (tmp_path / "00001.1" / "stop").touch()
    command = Command("echo nothing {x}")
    result = tuned(Optimizer(LINE, "sobol"), command, **options, callbacks=[heard]).run()
    expected = 'the command printed no value: expected a line such as {"value": 0.25}'
    assert [trial.reason for trial in result.trials] == [
        f"{expected}; its last line was 'nothing {trial.params['x']}'" for trial in result.trials
    ]
    assert not [what for what in heard.heard if what[0] == "reported"]


def test_unpromising_trials_are_stopped_and_their_curves_kept(tmp_path: Path) -> None:
    optimizer = stored(tmp_path)
    for x in (0.1, 0.2, 0.3, 0.9, 0.15):
        optimizer.enqueue({"x": x})
    options: dict[str, Any] = {
        "execution": Execution(early_stopping=MedianRule(trials=3)),
        "completion": Completion(failures=1),  # one that was stopped is none
    }
    result = Tuner(optimizer, objectives.curve, budget=5, **options).run()
    by_x = {trial.params["x"]: trial for trial in result.trials}
    assert by_x[0.15].value == 0.15
    assert str(by_x[0.9].reason).startswith("stopped early at step ")
    assert by_x[0.9].status is TrialStatus.FAILED
    metrics = read(tmp_path).metrics
    assert [m.step for m in metrics if m.trial == 0] == list(range(20))
    assert 1 <= sum(m.trial == 3 for m in metrics) < 20


def test_a_trial_that_ends_by_itself_when_it_is_to_stop_has_its_value(tmp_path: Path) -> None:
    def objective(params: dict[str, Any], trial: Any) -> float:
        write_report(trial.folder, 0, float(trial.id))
        wait_until(lambda: trial.id == 0 or (trial.folder / STOP).exists())
        return 0.5

    execution = Execution(early_stopping=MedianRule(trials=1))
    with ThreadPoolExecutor(1) as threads:
        job = tuned(stored(tmp_path), objective, budget=2, executor=threads, execution=execution)
        assert [trial.value for trial in job.run().trials] == [0.5, 0.5]


def test_whatever_an_objective_raises_fails_its_trial_and_is_not_tried_again(
    tmp_path: Path,
) -> None:
    def objective(params: dict[str, Any]) -> float:
        raise CancelledError("no more")

    with ThreadPoolExecutor(1) as threads:
        result = tuned(
            stored(tmp_path),
            objective,
            budget=2,
            executor=threads,
            execution=Execution(retries=2),
        ).run()
    for trial in result.trials:
        assert str(trial.reason).startswith("asyncio.exceptions.CancelledError: no more")
    assert [attempt.number for attempt in read(tmp_path).attempts] == [1, 1]


def interrupt_after(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have Ctrl-C come when this method of an optimizer has done its work."""
    call = getattr(Optimizer, name)

    def interrupted(optimizer: Optimizer, *given: Any) -> Any:
        call(optimizer, *given)
        raise KeyboardInterrupt

    monkeypatch.setattr(Optimizer, name, interrupted)


def test_a_result_that_was_told_as_ctrl_c_came_is_kept_with_its_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(monkeypatch, "tell")
    with ThreadPoolExecutor(1) as threads:
        result = tuned(stored(tmp_path), lambda params: 3.0, budget=2, executor=threads).run()
    assert (result.stopped, len(result.trials)) == ("interrupted", 1)
    (attempt,) = read(tmp_path).attempts
    assert (attempt.value, attempt.reason) == (3.0, None)


class Lost(BaseException):
    """What an executor raises that lost a worker."""


def test_a_death_that_was_told_as_ctrl_c_came_is_kept_with_its_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Losing(Executor):
        def submit(self, fn: Any, /, *given: Any, **named: Any) -> Any:
            future: Future[Any] = Future()
            future.set_exception(Lost("a worker"))
            return future

    interrupt_after(monkeypatch, "fail")
    result = tuned(stored(tmp_path), budget=2, executor=Losing()).run()
    assert (result.stopped, len(result.trials)) == ("interrupted", 1)
    (attempt,) = read(tmp_path).attempts
    assert attempt.reason == result.trials[0].reason == "Lost: a worker"


def test_trials_are_stopped_by_the_curves_of_last_attempts_after_resuming_too(
    tmp_path: Path,
) -> None:
    """By what attempts that died had reported, nothing would be stopped."""
    optimizer = stored(tmp_path)
    assert optimizer.journal is not None
    for trial in optimizer.ask(3):
        died, ended = Attempt(trial.id, 1, 0, 1.0, 2.0), Attempt(trial.id, 2, 0, 2.0, 3.0, 1.0)
        reports = [Metric(trial.id, 1, 0, 1e9), *(Metric(trial.id, 2, n, 1.0) for n in (1, 500))]
        optimizer.journal.write(attempts=[replace(died, reason="killed"), ended], metrics=reports)
        optimizer.tell(trial, 1.0)
    optimizer.close()

    def objective(params: dict[str, Any], trial: Any) -> float:
        if trial.attempt == 1:
            trial.report(0, 0.0)
            return 0.0
        for step in range(1, 200):
            trial.report(step, 9.0)
            time.sleep(0.05)
        return 9.0

    class Losing(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *given: Any, **named: Any) -> Any:
            def run() -> Any:
                outcome = fn(*given, **named)
                if given[0].attempt == 1:
                    raise Lost
                return outcome

            return super().submit(run)

    rule = MedianRule(trials=3)
    with Losing(1) as threads:
        result = tuned(
            Optimizer.resume(tmp_path / "runs.db", "job"),
            objective,
            budget=4,
            executor=threads,
            execution=Execution(retries=1, early_stopping=rule),
        ).run()
    assert str(result.trials[3].reason).startswith("stopped early at step ")


def test_a_line_of_metrics_that_is_half_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    first_is_read = threading.Event()

    class Heard(Callback):
        def reported(self, trial: Trial, step: int, value: float) -> None:
            first_is_read.set()

    def objective(params: dict[str, Any], trial: Any) -> float:
        with (trial.folder / METRICS).open("a", buffering=1) as file:
            file.write('{"step": 0, "value": 2}\n{"step": 1, ')
            file.flush()
            assert first_is_read.wait(30)
            file.write('"value": 3}\n')
        return 0.5

    with ThreadPoolExecutor(1) as threads:
        tuned(stored(tmp_path), objective, budget=1, executor=threads, callbacks=[Heard()]).run()
    assert [(metric.step, metric.value) for metric in read(tmp_path).metrics] == [(0, 2), (1, 3)]


def test_reports_that_cannot_be_read_or_answered_are_no_reason_to_end_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch = Path.touch

    def touched(path: Path, *given: Any, **named: Any) -> None:
        if path.name == STOP and not asked:
            asked.append(path)
            raise OSError(errno.ESTALE, "Stale file handle")
        touch(path, *given, **named)

    def objective(params: dict[str, Any], trial: Any) -> float:
        if trial.id == 0:
            (trial.folder / METRICS).mkdir()
            return 0.5
        for step in range(200):
            trial.report(step, 1.0 if trial.id == 1 else 2.0)
            time.sleep(0.0 if trial.id == 1 else 0.05)
        return 0.5

    asked: list[Path] = []
    monkeypatch.setattr(Path, "touch", touched)
    execution = Execution(early_stopping=MedianRule(trials=1))
    with ThreadPoolExecutor(1) as threads:
        job = tuned(stored(tmp_path), objective, budget=3, executor=threads, execution=execution)
        first, second, third = job.run().trials
    assert (first.value, second.value, len(asked)) == (0.5, 0.5, 1)
    assert third.stopped_early


@pytest.mark.parametrize(
    ("completion", "budget", "stopped"),
    [
        (Completion(target=0.2), 50, "target"),
        (Completion(patience=4), 200, "no improvement"),
        (Completion(runtime_s=1e-6), 50, "runtime"),
        (Completion(), 3, "budget"),
    ],
)
def test_a_job_ends_by_its_criteria(completion: Completion, budget: int, stopped: str) -> None:
    result = tuned(Optimizer(LINE, "sobol"), completion=completion, budget=budget).run()
    assert result.stopped == stopped
    assert len(result.trials) < 50
    assert str(result).splitlines()[0].startswith(f"{len(result.trials)} trials (0 failed), ")


def test_a_trial_that_runs_when_patience_ends_is_waited_for_and_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release, looks = threading.Event(), 0

    def counted(*args: Any) -> Any:
        nonlocal looks
        looks += 1
        return wait(*args)

    monkeypatch.setattr("gpbo.tuner.wait", counted)

    def objective(params: dict[str, Any]) -> float:
        if params["x"] == 0.5:
            assert release.wait(30)
            return -1.0
        return 1.0

    class Releases(Callback):
        def ended(self, trial: Trial) -> None:
            if len(optimizer.finished) == 5:
                threading.Timer(1.0, release.set).start()

    optimizer = Optimizer(LINE, "sobol")
    optimizer.tell(optimizer.ask(), 0.0)
    optimizer.enqueue({"x": 0.5})
    options: dict[str, Any] = {"completion": Completion(patience=4), "callbacks": [Releases()]}
    with ThreadPoolExecutor(2) as threads:
        options |= {"execution": Execution(workers=2), "executor": threads}
        result = tuned(optimizer, objective, budget=30, **options).run()
    values = [trial.value for trial in result.trials]
    assert result.stopped == "no improvement"
    assert values[:6] == [0.0, 1.0, 1.0, 1.0, 1.0, -1.0]
    assert len(values) - 6 in (4, 5)
    assert looks < 1000  # it was not looked for all the time


def test_a_job_of_which_all_trials_fail_ends_and_goes_on_when_that_is_mended(
    tmp_path: Path,
) -> None:
    works = iter([True, False, False, True, False, False, False])

    def objective(params: dict[str, Any]) -> float:
        if not next(works, True):
            raise OSError("no space left on device")
        return objectives.bowl(params)

    options: dict[str, Any] = {"budget": 9, "completion": Completion(failures=3)}
    optimizer = stored(tmp_path, LINE, "sobol")
    result = tuned(optimizer, objective, **options).run()
    assert result.stopped == read(tmp_path).ended == "failures"
    assert len(result.trials) == 7
    assert "too many trials failed in a row" in str(result)
    optimizer.close()
    again = tuned(Optimizer.resume(tmp_path / "runs.db", "job"), objective, **options).run()
    assert again.stopped == "budget"
    assert len(again.trials) == 9


def test_a_job_that_failures_ended_is_run_again() -> None:
    works = iter([False, False, False])

    def objective(params: dict[str, Any]) -> float:
        if not next(works, True):
            raise OSError("no space left on device")
        return 1.0

    tuner = tuned(Optimizer(LINE, "sobol"), objective, budget=5, completion=Completion(failures=3))
    assert [tuner.run().stopped for _ in range(2)] == ["failures", "budget"]


def test_what_a_run_was_choosing_when_it_ended_is_chosen_anew_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left: Future[Any] = Future()
    verdicts = iter([None, "target"])

    class Soon(Completion):
        def reached(self, *given: Any, **named: Any) -> Any:
            return next(verdicts, None)

    tuner = tuned(Optimizer(LINE, "sobol"), budget=2, completion=Soon())
    with monkeypatch.context() as patched:
        patched.setattr(Engine, "choose", lambda engine, plan: left)
        assert tuner.run().stopped == "target"
    left.set_exception(RuntimeError("its engine is gone"))
    assert tuner.run().stopped == "budget"


def test_the_time_of_a_job_is_counted_from_its_first_start_pauses_included(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path).close()
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600)
    resumed = Optimizer.resume(tmp_path / "runs.db", "job")
    result = tuned(resumed, budget=3, completion=Completion(runtime_s=1800.0)).run()
    assert (result.stopped, result.trials) == ("runtime", ())


def test_of_a_job_that_was_created_in_the_future_the_time_is_counted_from_now_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: 1e12)
        optimizer = stored(tmp_path)
    job = tuned(optimizer, budget=50, completion=Completion(runtime_s=1e-6))
    assert job.run().stopped == "runtime"


def test_failures_that_end_before_an_earlier_trial_does_end_no_job() -> None:
    """The first trial, which has a value, ends when eight have failed beside it."""
    failed = threading.Semaphore(0)

    def objective(params: dict[str, Any], trial: Any) -> float:
        if trial.id == 0:
            for _ in range(8):
                failed.acquire(timeout=1)
            return 1.0
        failed.release()
        if trial.id <= 8:
            raise OSError("no space left on device")
        return 2.0

    with ThreadPoolExecutor(2) as executor:
        result = tuned(
            Optimizer(LINE, "random"),
            objective,
            budget=12,
            executor=executor,
            execution=Execution(workers=2),
            completion=Completion(failures=3),
        ).run()
    assert result.stopped == "budget"


def test_to_look_at_a_job_copies_no_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which there may be thousands, and five looks a second."""
    looks, copied = list[None](), list[int]()
    ended, copies = Tuner._ended, optimizer_module._copies

    def looked(tuner: Tuner) -> Any:
        looks.append(None)
        return ended(tuner)

    def counted(trials: Any) -> list[Trial]:
        copied.append(len(given := list(trials)))
        return copies(given)

    monkeypatch.setattr("gpbo.tuner._LOOK_S", 0.01)
    monkeypatch.setattr(Tuner, "_ended", looked)
    monkeypatch.setattr(optimizer_module, "_copies", counted)
    optimizer = Optimizer(LINE, "random")
    optimizer.learn([({"x": number / 7}, float(number)) for number in range(7)])

    def objective(params: dict[str, Any]) -> int:
        wanted, before = len(looks) + 10, len(copied)
        wait_until(lambda: len(looks) >= wanted)
        return len(copied) - before

    execution = Execution(workers=2, early_stopping=MedianRule())
    with ThreadPoolExecutor(2) as threads:
        job = tuned(optimizer, objective, budget=4, executor=threads, execution=execution)
        assert [trial.value for trial in job.run().trials[7:]] == [0.0] * 4
    assert copied


def test_a_budget_that_failures_use_up_is_used_up() -> None:
    works = iter([True, True, False, False, False])

    def objective(params: dict[str, Any]) -> float:
        if not next(works):
            raise OSError("no space left on device")
        return 1.0

    result = tuned(
        Optimizer(LINE, "random"), objective, budget=5, completion=Completion(failures=3)
    ).run()
    assert result.stopped == "budget"


@pytest.mark.parametrize("workers", [1, 2])
def test_trials_that_are_pending_are_not_used_up(workers: int) -> None:
    """Though nothing is left to ask for."""

    def objective(params: dict[str, Any]) -> float:
        raise OSError("no space left on device")

    optimizer = Optimizer(LINE, "random")
    optimizer.ask(30)
    execution = Execution(workers=workers)
    with ThreadPoolExecutor(workers) as threads:
        options: dict[str, Any] = {"execution": execution, "executor": threads}
        job = tuned(optimizer, objective, budget=30, completion=Completion(failures=3), **options)
        result = job.run()
    assert result.stopped == "failures"
    assert 3 <= len(result.trials) <= 3 + workers


def test_results_from_elsewhere_are_not_of_the_budget() -> None:
    optimizer = Optimizer(LINE, "sobol")
    optimizer.add({"x": 0.5}, 1.0)
    assert len(tuned(optimizer, budget=2).run().trials) == 3


def test_a_request_to_stop_ends_the_job_and_it_goes_on_later(tmp_path: Path) -> None:
    optimizer = stored(tmp_path)
    store = SqliteStorage(tmp_path / "runs.db")

    class AfterTwo(Callback):
        def ended(self, trial: Trial) -> None:
            if trial.id == 1:
                store.request_stop("job")

    result = tuned(optimizer, budget=6, callbacks=[AfterTwo()]).run()
    assert result.stopped == "interrupted"
    assert read(tmp_path).ended == "interrupted"
    assert len(result.trials) == 2
    optimizer.close()
    meanwhile: list[str | None] = []

    class Looking(Callback):
        def ended(self, trial: Trial) -> None:
            meanwhile.append(read(tmp_path).ended)

    again = tuned(Optimizer.resume(store, "job"), budget=6, callbacks=[Looking()]).run()
    assert meanwhile == [None] * 4
    assert again.stopped == read(tmp_path).ended == "budget"
    whole = tuned(Optimizer(LINE, "sobol", inference="map"), budget=6).run()
    assert [t.params for t in again.trials] == [t.params for t in whole.trials]


@pytest.mark.parametrize("storage", [True, False])
def test_a_job_that_was_interrupted_is_run_again(storage: bool, tmp_path: Path) -> None:
    """By Ctrl-C, or a signal to terminate, while two trials run."""
    optimizer = stored(tmp_path) if storage else Optimizer(LINE, "sobol", inference="map")
    both_run, go_on = threading.Barrier(3, timeout=30), threading.Event()

    def objective(params: dict[str, Any]) -> float:
        again = go_on.is_set()
        if not again:
            both_run.wait()
            go_on.wait(30)
        return float(params["x"] + again)

    def interrupt() -> None:
        both_run.wait()
        time.sleep(0.3)  # so that the job waits for them
        os.kill(os.getpid(), signal.SIGTERM if storage else signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with ThreadPoolExecutor(4) as threads:
        execution = Execution(workers=2)
        tuner = tuned(optimizer, objective, budget=6, executor=threads, execution=execution)
        assert tuner.run().stopped == "interrupted"
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if storage:
            assert [a.reason for a in read(tmp_path).attempts] == ["the job ended"] * 2
        go_on.set()
        result = tuner.run()
    assert result.stopped == "budget"
    assert all(trial.value == trial.params["x"] + 1 for trial in result.trials)
    whole = tuned(Optimizer(LINE, "sobol", inference="map"), budget=6).run()
    assert {t.params["x"] for t in result.trials} == {t.params["x"] for t in whole.trials}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_way_of_the_program_s_own_with_a_signal_to_terminate_stays_its_own(
    number: signal.Signals,
) -> None:
    heard: list[int] = []

    def objective(params: dict[str, Any]) -> float:
        os.kill(os.getpid(), number)
        return 1.0

    before = signal.signal(number, lambda number, frame: heard.append(number))
    try:
        result = tuned(Optimizer(LINE, "sobol"), objective, budget=3).run()
    finally:
        signal.signal(number, before)
    assert result.stopped == "budget"
    assert heard == [number] * 3


@pytest.mark.parametrize("where", ["ended", "tell"])
def test_what_had_ended_when_ctrl_c_came_is_told_and_what_died_of_it_is_not(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes in a callback, which is slow, or when a result was told and not yet forgotten."""
    heard: list[int] = []
    first = iter([True])

    def objective(params: dict[str, Any], trial: Any) -> Any:
        if trial.id == 3:
            raise KeyboardInterrupt
        return "text" if trial.id == 2 else params["x"]

    class Listening(Callback):
        def ended(self, trial: Trial) -> None:
            heard.append(trial.id)
            if where == "ended" and next(first, False):
                raise KeyboardInterrupt

    tell = Optimizer.tell

    def interrupted(self: Optimizer, *told: Any) -> Trial:
        trial = tell(self, *told)
        if where == "tell" and next(first, False):
            raise KeyboardInterrupt
        return trial

    monkeypatch.setattr(Optimizer, "tell", interrupted)
    execution = Execution(workers=4)
    job = tuned(stored(tmp_path), objective, budget=4, execution=execution, callbacks=[Listening()])
    result = job.run()
    assert (result.stopped, heard) == ("interrupted", [0, 1, 2])
    assert [trial.value is None for trial in result.trials] == [False, False, True]
    reasons = [attempt.reason for attempt in read(tmp_path).attempts]
    assert reasons[:2] == [None, None]
    assert "has type str" in str(reasons[2])
    assert reasons[3] == "the job ended"
    assert [trial.id for trial in result.optimizer.pending] == [3]


@pytest.mark.parametrize("cancels", [False, True])
def test_what_an_executor_of_ones_own_still_runs_is_asked_to_end(
    cancels: bool, tmp_path: Path
) -> None:
    """Even if its future can be cancelled, as a Dask one can while its trial runs."""

    class Slow(Inline):
        """Trials but the first one begin and do not end."""

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            (given,) = args
            if given.trial == 0:
                return super().submit(fn, given)
            given.folder.mkdir(parents=True)
            future: Future[Any] = Future()
            assert cancels or future.set_running_or_notify_cancel()
            return future

    options: dict[str, Any] = {"execution": Execution(workers=2), "executor": Slow()}
    job = tuned(stored(tmp_path), budget=4, completion=Completion(target=9.0), **options)
    result = job.run()
    assert (result.stopped, len(result.trials)) == ("target", 1)
    running = [trial.id for trial in result.optimizer.pending]
    assert running
    for trial in running:
        assert (tmp_path / "runs.db-trials" / "job" / f"{trial:05}.1" / STOP).exists()


@pytest.mark.parametrize(("budget", "ended"), [(2, 2), (5, 5), (9, 9)])
@pytest.mark.parametrize("workers", [1, 3])
def test_trials_that_are_pending_beyond_the_budget_stay_so(
    workers: int, budget: int, ended: int, tmp_path: Path
) -> None:
    optimizer = stored(tmp_path)
    optimizer.add({"x": 0.5}, 0.25)
    optimizer.ask(5)
    result = tuned(optimizer, budget=budget, execution=Execution(workers=workers)).run()
    assert result.stopped == "budget"
    assert len([trial for trial in optimizer.finished if trial.origin != "added"]) == ended
    assert len(optimizer.pending) == max(0, 5 - budget)


def test_the_folder_of_a_job_that_is_not_stored_goes_with_it() -> None:
    folders: list[Path] = []

    def objective(params: dict[str, Any], trial: Any) -> float:
        folders.append(trial.folder)
        return float(trial.folder.is_dir())

    result = tuned(Optimizer(LINE, "sobol"), objective, budget=2).run()
    assert [trial.value for trial in result.trials] == [1.0, 1.0]
    assert not folders[0].parent.exists()


def test_a_folder_that_is_written_as_it_is_removed_takes_no_result_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By trials that somebody's executor still runs when the job ends early."""

    def written_meanwhile(*given: Any, **named: Any) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os, "rmdir", written_meanwhile)
    assert len(tuned(Optimizer(LINE, "sobol"), budget=2).run().trials) == 2


def test_a_job_that_was_asked_to_stop_is_run_again(tmp_path: Path) -> None:
    optimizer = stored(tmp_path)
    tuner = tuned(optimizer, budget=3)
    SqliteStorage(tmp_path / "runs.db").request_stop("job")
    assert tuner.run().stopped == "interrupted"
    assert tuner.run().stopped == "budget"


def test_what_ran_when_the_driver_died_runs_again_and_a_result_that_came_is_told(
    tmp_path: Path,
) -> None:
    optimizer = stored(tmp_path)
    told, ran, waited = optimizer.ask(3)
    assert optimizer.journal is not None
    optimizer.journal.write(
        attempts=[Attempt(told.id, 1, 0, 1.0, 2.0, value=0.25), Attempt(ran.id, 1, 1, 1.0)]
    )
    optimizer.close()
    heard: list[int] = []

    class Heard(Callback):
        def ended(self, trial: Trial) -> None:
            heard.append(trial.id)

    resumed = Optimizer.resume(tmp_path / "runs.db", "job")
    result = tuned(resumed, budget=3, callbacks=[Heard()]).run()
    assert heard == [0, 1, 2]
    assert {t.id: t.value for t in result.trials} == {
        told.id: 0.25,
        ran.id: objectives.bowl(dict(ran.params)),
        waited.id: objectives.bowl(dict(waited.params)),
    }
    attempts = [(a.trial, a.number, a.reason) for a in read(tmp_path).attempts]
    assert attempts == [(0, 1, None), (1, 1, "the job was interrupted"), (1, 2, None), (2, 1, None)]


def test_a_result_that_came_too_late_is_not_told_after_a_resume_either(tmp_path: Path) -> None:
    optimizer = stored(tmp_path)
    trial = optimizer.ask()
    assert optimizer.journal is not None
    optimizer.journal.write(attempts=[Attempt(trial.id, 1, 0, 1.0, 2.0, value=0.25, late=True)])
    optimizer.close()
    resumed = Optimizer.resume(tmp_path / "runs.db", "job")
    (again,) = tuned(resumed, budget=1).run().trials
    assert again.value == objectives.bowl(dict(trial.params)) != 0.25
    assert [(a.number, a.late) for a in read(tmp_path).attempts] == [(1, True), (2, False)]


def test_what_ran_when_the_driver_was_killed_ended_when_the_job_was_last_heard_of(
    tmp_path: Path,
) -> None:
    optimizer = stored(tmp_path)
    ran, told, waited = optimizer.ask(3)
    assert optimizer.journal is not None
    optimizer.journal.write(
        attempts=[Attempt(ran.id, 1, 0, time.time()), Attempt(told.id, 1, 1, time.time())]
    )
    optimizer.tell(told, 0.5)
    last = read(tmp_path).attempts[1].started_at
    optimizer.journal.write(attempts=[Attempt(waited.id, 1, 1, last + 2, last + 3, reason="no")])
    optimizer.close()
    first = tuned(Optimizer.resume(tmp_path / "runs.db", "job"), budget=3, executor=Broken())
    first.run()
    ended = {a.trial: a.ended_at for a in read(tmp_path).attempts if a.number == 1}
    assert ended == {
        ran.id: last + 3,
        told.id: first.optimizer.trials[1].finished_at,
        waited.id: last + 3,
    }


@pytest.mark.skipif(sys.platform == "win32", reason="runs no commands")
@pytest.mark.parametrize("noted_ago", [0, 3600])
def test_a_command_that_outlived_driver_and_worker_is_ended_when_the_job_goes_on(
    noted_ago: int, tmp_path: Path
) -> None:
    """As by `kill -9` of the group; a process that began later only has the number of one."""
    optimizer = stored(tmp_path)
    trial = optimizer.ask()
    assert optimizer.journal is not None
    optimizer.journal.write(attempts=[Attempt(trial.id, 1, 0, time.time())])
    note = optimizer.journal.folder / "00000.1" / PROCESS
    optimizer.close()
    note.parent.mkdir(parents=True)
    with subprocess.Popen(["sleep", "300"], start_new_session=True) as command:
        note.write_text(str(command.pid))
        os.utime(note, (time.time() - noted_ago,) * 2)
        tuned(Optimizer.resume(tmp_path / "runs.db", "job"), budget=3).run()
        assert command.poll() == (None if noted_ago else -signal.SIGTERM)
        command.kill()


def test_a_trial_that_failed_is_not_run_again_whenever_the_driver_dies(tmp_path: Path) -> None:
    """Between any two of its writes, too."""

    class Dying:
        def __init__(self, journal: Any, writes: int) -> None:
            self._journal, self._left = journal, writes

        def __getattr__(self, name: str) -> Any:
            return getattr(self._journal, name)

        def write(self, **what: Any) -> None:
            if self._left == 0:
                raise Lost
            self._left -= 1
            self._journal.write(**what)

    def objective(params: dict[str, Any], trial: Any) -> float:
        if trial.id == 0:
            raise ValueError("no convergence")
        return 1.0

    for writes in itertools.count():
        (folder := tmp_path / str(writes)).mkdir()
        optimizer = stored(folder)
        optimizer._journal = Dying(optimizer.journal, writes)
        died = False
        try:
            tuned(optimizer, objective, budget=2, completion=Completion(failures=None)).run()
        except Lost:
            died = True
        optimizer.close()
        with Optimizer.resume(folder / "runs.db", "job") as resumed:
            result = tuned(resumed, objective, budget=2).run()
        assert [trial.value for trial in result.trials] == [None, 1.0]
        attempts = read(folder).attempts
        assert all(attempt.ended_at is not None for attempt in attempts)
        for attempt, after in itertools.pairwise(attempts):
            assert attempt.interrupted == (attempt.trial == after.trial), writes
        last = [attempt for attempt in attempts if attempt.trial == 0][-1]
        assert last.reason == result.trials[0].reason
        if not died:
            break
    assert writes > 5


class Slow(Executor):
    """Brings the first result long after its time, and all others at once."""

    def __init__(self) -> None:
        self.first: Future[Any] | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self.first is None:
            future.set_running_or_notify_cancel()
            args[0].folder.mkdir(parents=True)  # as the first thing that its worker does
            self.first = future
        else:
            future.set_result(fn(*args))
        return future


def test_a_result_that_comes_too_late_is_kept_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpbo.tuner._GRACE_S", 0.0)
    slow = Slow()

    class Wake(Callback):
        def ended(self, trial: Trial) -> None:
            if slow.first is not None and not slow.first.done():
                slow.first.set_result(Outcome(0.125))

    execution = Execution(time_limit_s=0.3)
    result = tuned(
        stored(tmp_path), budget=3, executor=slow, execution=execution, callbacks=[Wake()]
    ).run()
    assert [trial.value is None for trial in result.trials] == [True, False, False]
    first = read(tmp_path).attempts[0]
    assert (first.value, first.late, first.reason) == (0.125, True, None)


def test_a_trial_that_is_cancelled_when_its_time_is_over_ended_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpbo.tuner._GRACE_S", 0.0)

    waiting: Future[Any] = Future()

    class Waiting(Inline):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            if args[0].trial:
                return super().submit(fn, *args)
            args[0].folder.mkdir(parents=True)
            return waiting

    execution = Execution(time_limit_s=0.1)
    tuned(stored(tmp_path), budget=2, executor=Waiting(), execution=execution).run()
    first = read(tmp_path).attempts[0]
    assert waiting.cancelled()
    assert (first.reason, first.late) == ("the time limit of 0.1 s was reached", False)


def test_the_time_of_a_trial_begins_when_its_worker_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times as many trials as threads: the last ones wait longer than a trial may take."""
    monkeypatch.setattr("gpbo.tuner._GRACE_S", 0.0)

    def objective(params: dict[str, Any]) -> float:
        time.sleep(0.4)
        return float(params["x"])

    with ThreadPoolExecutor(1) as threads:
        execution = Execution(workers=4, time_limit_s=1.0)
        result = tuned(
            Optimizer(LINE, "sobol"), objective, budget=4, executor=threads, execution=execution
        ).run()
    assert [trial.reason for trial in result.trials] == [None] * 4


def test_workers_have_the_environment_of_the_execution(tmp_path: Path) -> None:
    optimizer = stored(tmp_path)
    execution = Execution(
        workers=2, gpus=["5", "3"], env={"GPBO_TEST": "7", "OMP_NUM_THREADS": "2"}
    )
    result = Tuner(optimizer, objectives.variable, budget=2, execution=execution).run()
    assert [trial.value for trial in result.trials] == [7.0, 7.0]
    logs = [
        (tmp_path / "runs.db-trials" / "job" / f"0000{number}.1" / "log.txt").read_text().split()
        for number in range(2)
    ]
    assert sorted(logs) == [["3", "2"], ["5", "2"]]


class Listener(Callback):
    """Writes down what it is told, and complains about it."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def started(self, optimizer: Optimizer) -> None:
        self._hear("started", len(optimizer.trials))

    def reported(self, trial: Trial, step: int, value: float) -> None:
        self._hear("reported", trial.id, step, value)

    def ended(self, trial: Trial) -> None:
        self._hear("ended", trial.id, trial.value)

    def finished(self, result: Any) -> None:
        self._hear("finished", result.stopped)

    def _hear(self, *what: Any) -> None:
        self.heard.append(what)
        raise RuntimeError("I am listening")


def test_callbacks_hear_everything_and_what_they_raise_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def objective(params: dict[str, Any], trial: Any) -> float:
        trial.report(3, 0.5)
        if trial.id == 1:
            raise ValueError("no")
        return 0.25

    one, other = Listener(), Listener()
    result = tuned(stored(tmp_path), objective, budget=2, callbacks=[one, other]).run()
    assert [trial.value for trial in result.trials] == [0.25, None]
    assert one.heard == other.heard
    assert one.heard == [
        ("started", 0),
        ("reported", 0, 3, 0.5),
        ("ended", 0, 0.25),
        ("reported", 1, 3, 0.5),
        ("ended", 1, None),
        ("finished", "budget"),
    ]
    warned = [record for record in caplog.records if "I am listening" in str(record.exc_info)]
    assert len(warned) == 12


def test_an_executor_that_breaks_fails_its_trial(tmp_path: Path) -> None:
    result = tuned(Optimizer(LINE, "sobol"), budget=2, executor=Broken()).run()
    assert [trial.reason for trial in result.trials] == ["RuntimeError: worker lost"] * 2


@pytest.mark.parametrize("error", [BrokenExecutor("gone"), OSError("gone")])
def test_a_job_whose_executor_takes_no_more_trials_ends_and_keeps_them(
    error: Exception, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Closed(Executor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            raise error

    optimizer = stored(tmp_path)
    assert tuned(optimizer, budget=2, executor=Closed()).run().stopped == "broken"
    why = f"{type(error).__name__}: gone"
    assert f"trial 0 was not run: {why}" in caplog.text
    (attempt,) = read(tmp_path).attempts
    assert (attempt.reason, attempt.interrupted) == (f"not run: {why}", True)
    optimizer.close()
    resumed = Optimizer.resume(tmp_path / "runs.db", "job")
    assert len(tuned(resumed, budget=2).run().trials) == 2


def test_a_job_whose_executor_is_mended_is_run_again() -> None:
    works = iter([False])

    class Mended(Inline):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            if not next(works, True):
                raise BrokenExecutor("gone")
            return super().submit(fn, *args)

    tuner = tuned(Optimizer(LINE, "sobol"), budget=2, executor=Mended())
    assert [tuner.run().stopped for _ in range(2)] == ["broken", "budget"]


def test_an_objective_that_cannot_be_loaded_ends_the_job_and_costs_no_trial(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says nothing of the configurations: when it is mended, they are tried."""
    module = tmp_path / "mended_later.py"
    module.write_text("import json\n")
    optimizer = stored(tmp_path)
    objective = Imported("mended_later:loss", tmp_path)
    execution = Execution(workers=2)
    job = Tuner(optimizer, objective, budget=3, execution=execution)
    result = job.run(progress=False)
    assert (result.stopped, result.trials) == ("broken", ())
    why = "AttributeError: module 'mended_later' has no attribute 'loss'"
    assert f"was not run: objective='mended_later:loss' cannot be loaded: {why}" in caplog.text
    module.write_text("def loss(params): return params['x']\n")
    result = job.run(progress=False)
    assert result.stopped == "budget"
    assert [trial.status for trial in result.trials] == ["completed"] * 3
    assert {attempt.interrupted for attempt in read(tmp_path).attempts} == {True, False}


def test_an_objective_that_cannot_be_sent_ends_the_job_and_costs_no_trial(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (tmp_path / "log").open("w") as log:

        def loss(params: Any) -> float:
            print(params, file=log)
            return 1.0

        optimizer = stored(tmp_path)
        result = Tuner(optimizer, loss, budget=3).run(progress=False)
    assert (result.stopped, result.trials) == ("broken", ())
    assert "was not run: the objective cannot be pickled for its process: " in caplog.text
    result = Tuner(optimizer, objectives.bowl, budget=3).run(progress=False)
    assert [trial.status for trial in result.trials] == ["completed"] * 3


def test_a_module_that_is_not_there_ends_the_job_before_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidOption, match=r"'mine.losses:bowl': there is no module 'mine'"):
        Tuner(Optimizer(LINE), "mine.losses:bowl", budget=3)
    elsewhere = Execution(env={"PYTHONPATH": "somewhere"})
    Tuner(Optimizer(LINE), "mine.losses:bowl", budget=3, execution=elsewhere)
    tuned(Optimizer(LINE), "mine.losses:bowl", budget=3)  # an executor may have it
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("raise AssertionError('it is not imported')")
    Tuner(Optimizer(LINE), "mine.losses:bowl", budget=3)
    Tuner(Optimizer(LINE), "json:loads", budget=3)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """Before anything is told of a job that does not begin."""
    (tmp_path / "file").touch()
    listener = Listener()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        options: dict[str, Any] = {"folder": folder, "callbacks": [listener]}
        with pytest.raises(InvalidOption, match=r"folder='.*file"):
            tuned(Optimizer(LINE, "sobol"), budget=3, **options).run()
    assert not listener.heard


def test_a_folder_that_cannot_be_written_is_refused_before_a_trial_fails_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*given: Any, **named: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "here").mkdir()
    for optimizer, options in (
        (Optimizer(LINE, "sobol"), {"folder": tmp_path / "here"}),
        (stored(tmp_path), {}),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(os, "mkdir", lambda *given: None)  # as where the folder is there
            patched.setattr("tempfile.mkdtemp", forbidden)
            with pytest.raises(InvalidOption, match=r"folder='.*: Permission denied: .* write in"):
                tuned(optimizer, budget=3, **options).run()
        assert optimizer.trials == []


def test_a_job_without_any_temporary_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", none)
    with pytest.raises(InvalidOption, match=r"folder=None: No usable temporary .* write in"):
        tuned(Optimizer(LINE, "sobol"), budget=3).run()


def test_two_jobs_that_run_have_two_folders(tmp_path: Path) -> None:
    """They would empty each other's, whose attempts have the same names."""

    def job(objective: Any, folder: Path) -> Any:
        return tuned(Optimizer(LINE, "sobol"), objective, budget=1, folder=folder).run()

    def within(params: dict[str, Any], trial: Any) -> float:
        if trial.folder.parent.name == "other":
            return 1.0
        used = r"folder='.*mine': another running job uses this folder"
        with pytest.raises(InvalidOption, match=used):
            job(objectives.bowl, tmp_path / "mine")
        job(within, tmp_path / "other")
        return 0.5

    for _ in range(2):  # one after the other
        assert [trial.value for trial in job(within, tmp_path / "mine").trials] == [0.5]


def test_what_cannot_be_sent_to_a_worker_is_named(caplog: pytest.LogCaptureFixture) -> None:
    lock = threading.Lock()
    job = Tuner(Optimizer(LINE, "sobol"), lambda params: lock, budget=1)  # type: ignore[arg-type]
    assert job.run(progress=False).stopped == "broken"
    raised = "TypeError: cannot pickle '_thread.lock' object"
    told = f"cannot be pickled for its process: {raised}; create"
    assert told in caplog.text


class Failing(Executor):
    """Whose trials fail with an error that comes from this one."""

    def __init__(self, cause: BaseException | None) -> None:
        self._cause = cause

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        error = RuntimeError("gone")
        error.__cause__ = self._cause
        future: Future[Any] = Future()
        future.set_exception(error)
        return future


def test_what_an_executor_says_comes_with_its_cause() -> None:
    def failed(cause: BaseException | None) -> str:
        options: dict[str, Any] = {"budget": 1, "executor": Failing(cause)}
        (trial,) = Tuner(Optimizer(LINE, "sobol"), lambda params: 0.5, **options).run().trials
        return str(trial.reason)

    assert failed(None) == "RuntimeError: gone"
    assert failed(ValueError("bad")) == "RuntimeError: gone; ValueError: bad"
    traceback = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    f()\n'
    reason = failed(Exception(f"{traceback}KeyError: 3\na note\n"))
    assert reason.splitlines()[0] == "RuntimeError: gone; KeyError: 3"
    assert "line 1, in f" in reason
    again = failed(Exception(f"{traceback}RuntimeError: gone\n"))
    assert again.splitlines()[0] == "RuntimeError: gone"


def test_a_job_prints_a_line_per_trial_unless_told_not_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = Tuner(Optimizer(LINE, "sobol"), lambda params: 0.25, budget=2, executor=Inline())
    trials = job.run().trials
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split("  ")[0] for line in err.splitlines()] == [
        f"trial {trial.id}: 0.25" for trial in trials
    ]
    job = Tuner(Optimizer(LINE, "sobol"), lambda params: 0.25, budget=2, executor=Inline())
    job.run(progress=False)
    assert capsys.readouterr() == ("", "")
    with unchecked_shapes(), pytest.raises(InvalidOption, match="progress='no': expected True or"):
        job.run(progress="no")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "budget=0"),
        ({"objective": "train.py"}, "expected 'module:function'"),
        (
            {"executor": Inline(), "execution": Execution(gpus=["0"])},
            "gpus=.*cannot be combined with executor",
        ),
        (
            {"executor": Inline(), "execution": Execution(env={"A": "1"})},
            "env=.*cannot be combined with exec",
        ),
    ],
)
def test_options_that_make_no_job_are_refused(options: dict[str, Any], message: str) -> None:
    arguments = {"objective": objectives.bowl, "budget": 3, **options}
    with pytest.raises(InvalidOption, match=message):
        Tuner(Optimizer(LINE), **arguments)


@pytest.mark.parametrize(
    "wrong",
    [
        {"execution": {"workers": 2}},
        {"completion": {"target": 2}},
        {"executor": "dask"},
        {"callbacks": [print]},
        {"callbacks": [None]},
        {"callbacks": 3},
        {"optimizer": LINE},
    ],
)
def test_options_of_another_class_are_named(wrong: Any) -> None:
    (name,) = wrong
    options = {"optimizer": Optimizer(LINE), "objective": objectives.bowl, "budget": 3, **wrong}
    kind = "a list of gpbo.callbacks.Callback" if name == "callbacks" else "an instance of "
    message = f"{name}=.*: expected {kind}"
    with unchecked_shapes(), pytest.raises(InvalidOption, match=message):
        Tuner(**options)


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": 0},
        {"retries": -1},
        {"mode": "both"},
        {"time_limit_s": 0.0},
        {"time_limit_s": "10"},
        {"early_stopping": "median"},
        {"gpus": "0,1"},
        {"gpus": [0, 1]},
        {"gpus": 3},
        {"gpus": None},
        {"env": "SEED=3"},
        {"env": {"SEED": 3}},
    ],
)
def test_an_execution_out_of_range_is_named(wrong: Any) -> None:
    (name,) = wrong
    with unchecked_shapes(), pytest.raises(InvalidOption, match=f"{name}="):
        Execution(**wrong)


@pytest.mark.parametrize("kills", [4, pytest.param(1000, marks=pytest.mark.long)])
def test_a_job_killed_at_any_moment_goes_on_as_if_it_had_not_been(kills: int) -> None:
    script = str(ROOT / "benchmarks" / "kills.py")
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", script, "--kills", str(kills), "--budget", "6"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    assert f"{kills} kills in" in ran.stdout
