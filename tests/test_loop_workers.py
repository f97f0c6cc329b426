"""minimize with several workers: in step or not, threads or processes, and what goes wrong."""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from gpbo import fitting, loop
from gpbo.candidates import Search
from gpbo.completion import Completion
from gpbo.errors import InvalidOption
from gpbo.loop import minimize, run
from gpbo.optimizer import Optimizer
from gpbo.result import Result
from gpbo.space import Integer, Real, Space
from gpbo.storage import SqliteStorage
from gpbo.strategies import ThompsonSampling

LINE = Space(Real("x", 0, 1))
SEARCH = Search(raw=32, perturbed=8, restarts=2, iterations=8)
QUICK = ThompsonSampling(SEARCH, features=64)


def quietly(objective: Callable[[dict[str, Any]], Any], **options: Any) -> Result:
    options = {"budget": 8, "strategy": "random", "inference": "map", "progress": False, **options}
    return minimize(objective, LINE, **options)


def params_of(result: Result) -> list[Any]:
    return [trial.params for trial in sorted(result.trials, key=lambda trial: trial.id)]


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_all_workers_work_at_once_and_no_more(mode: str) -> None:
    together = threading.Barrier(3, timeout=20)
    running, most = [0], [0]

    def meet(params: dict[str, Any]) -> float:
        running[0] += 1
        most[0] = max(most[0], running[0])
        together.wait()
        running[0] -= 1
        return params["x"]

    result = quietly(meet, budget=9, workers=3, mode=mode)
    assert [trial.status for trial in result.trials] == ["completed"] * 9
    assert most == [3]


def test_a_free_worker_does_not_wait_for_another() -> None:
    others_done = threading.Event()
    finished = []

    def one_is_slow(params: dict[str, Any]) -> float:
        if threading.current_thread().name.endswith("_0"):
            assert others_done.wait(20)
        finished.append(params["x"])
        if len(finished) == 7:
            others_done.set()
        return params["x"]

    result = quietly(one_is_slow, workers=2, mode="async")
    assert [trial.id for trial in result.trials][:6] == [1, 2, 3, 4, 5, 6]


def test_in_step_no_trial_starts_before_the_last_of_a_batch_has_ended() -> None:
    events: list[str] = []

    def logged(params: dict[str, Any]) -> float:
        events.append("start")
        time.sleep(0.02 * params["x"])
        events.append("end")
        return params["x"]

    quietly(logged, budget=7, workers=3, mode="sync")
    assert [events[start : start + 6].count("start") for start in (0, 6)] == [3, 3]
    assert len(events) == 14


def test_results_that_came_together_are_told_in_the_order_of_asking() -> None:
    options = {"budget": 13, "workers": 13, "mode": "sync", "executor": loop._InThisThread()}
    result = quietly(lambda params: params["x"], **options)
    assert [trial.id for trial in result.trials] == list(range(13))


def test_in_step_the_trials_do_not_depend_on_who_is_fast() -> None:
    def timed(seconds: float) -> Callable[[dict[str, Any]], float]:
        def objective(params: dict[str, Any]) -> float:
            time.sleep(abs(seconds - 0.03 * params["x"]))
            return (params["x"] - 0.3) ** 2

        return objective

    options = {"budget": 9, "workers": 3, "mode": "sync", "strategy": QUICK, "initial": 3}
    first = quietly(timed(0.0), **options)
    assert params_of(quietly(timed(0.03), **options)) == params_of(first)

    optimizer = Optimizer(LINE, QUICK, initial=3, inference="map")
    for _ in range(3):
        for trial in optimizer.ask(3):
            optimizer.tell(trial, (trial.params["x"] - 0.3) ** 2)
    assert params_of(first) == [trial.params for trial in optimizer.trials]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_result_is_recorded_when_it_comes_whoever_is_waited_for(
    mode: Any, tmp_path: Path
) -> None:
    """So that a process that dies in a batch loses what runs, and nothing that has ended."""
    optimizer = Optimizer(LINE, "random", storage=tmp_path / "runs.db", name="job")
    store = SqliteStorage(tmp_path / "runs.db")

    def objective(params: dict[str, Any]) -> float:
        if params == optimizer.trials[0].params:
            deadline = time.monotonic() + 20
            while not store.read("job").finished and time.monotonic() < deadline:
                time.sleep(0.01)
            assert store.read("job").finished == (1,)
        return float(params["x"])

    result = run(optimizer, objective, budget=2, workers=2, mode=mode, progress=False)
    assert [trial.id for trial in result.trials if trial.value is not None] == [1, 0]


def test_while_a_fit_is_under_way_free_workers_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The fit ends only when all trials were asked: a loop that waited for it would never end."""
    all_asked = threading.Event()
    started, fit = [], fitting.fit

    def slow(*args: Any, **kwargs: Any) -> fitting.Fit:
        if threading.current_thread().name.startswith("gpbo-fit"):
            assert all_asked.wait(20)
        return fit(*args, **kwargs)

    def objective(params: dict[str, Any]) -> float:
        started.append(params["x"])
        if len(started) == 9:
            all_asked.set()
        return (params["x"] - 0.3) ** 2

    monkeypatch.setattr(fitting, "fit", slow)
    result = quietly(objective, budget=9, workers=2, strategy=QUICK, initial=3)
    assert len(result.trials) == 9
    assert sum(trial.origin == "model:ts" for trial in result.trials) == 6


def test_a_fit_made_meanwhile_is_asked_from() -> None:
    sizes = []

    def objective(params: dict[str, Any]) -> float:
        time.sleep(0.2)  # several times what a fit takes, on a busy machine too
        return (params["x"] - 0.3) ** 2

    class Noting(ThompsonSampling):
        def propose(self, situation: Any, count: int) -> Any:
            sizes.append(situation.fit().report)
            return super().propose(situation, count)

    strategy = Noting(SEARCH, features=64)
    quietly(objective, budget=12, workers=2, strategy=strategy, initial=3)
    assert len({id(report) for report in sizes}) > 2


def bowl(params: dict[str, Any]) -> float:
    return (params["x"] - 0.3) ** 2


def dies(params: dict[str, Any]) -> float:
    if params["x"] > 0.8:
        os._exit(1)
    return params["x"]


def test_processes_evaluate_too_and_a_pool_that_breaks_ends_the_loop_with_its_results() -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        result = quietly(bowl, workers=2, executor=pool)
        assert [trial.value for trial in result.trials] == [bowl(p.params) for p in result.trials]  # type: ignore[arg-type]
        broken = quietly(dies, budget=60, workers=2, executor=pool)
    assert broken.stopped == "broken"
    assert "trials could not be run" in str(broken)
    failed = [trial for trial in broken.trials if trial.value is None]
    assert 1 <= len(failed) <= 4
    assert all("BrokenProcessPool" in str(trial.reason) for trial in failed)
    assert len(broken.trials) < 60
    assert 1 <= len(broken.optimizer.pending) <= 2  # which no process took


def test_an_executor_that_takes_no_trials_ends_the_loop_whatever_it_raises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Closed(Executor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            raise ConnectionError("the scheduler is gone")

    result = quietly(bowl, budget=9, workers=2, executor=Closed())
    assert (result.stopped, result.trials) == ("broken", ())
    assert [trial.id for trial in result.optimizer.pending] == [0, 1]
    assert caplog.messages == ["trial 0 was not run: ConnectionError('the scheduler is gone')"]


def test_an_executor_that_is_shut_down_meanwhile_ends_the_loop_with_its_results(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = ThreadPoolExecutor(1)

    def shuts_down(params: dict[str, Any]) -> float:
        pool.shutdown(wait=False)
        return bowl(params)

    result = quietly(shuts_down, budget=9, workers=1, executor=pool)
    assert result.stopped == "broken"
    (first,) = result.trials
    assert first.value == bowl(dict(first.params))
    assert [trial.id for trial in result.optimizer.pending] == [1]
    assert "cannot schedule new futures" in caplog.text


def test_an_executor_of_the_user_stays_open() -> None:
    with ThreadPoolExecutor(2) as pool:
        quietly(bowl, workers=2, executor=pool)
        assert pool.submit(bowl, {"x": 0.3}).result() == 0.0


def test_an_executor_of_the_user_serves_though_its_length_is_zero() -> None:
    class Idle(ThreadPoolExecutor):
        def __len__(self) -> int:
            return 0

    threads = set()

    def noted(params: dict[str, Any]) -> float:
        threads.add(threading.current_thread().name)
        return bowl(params)

    with Idle(2, "users") as pool:
        quietly(noted, workers=2, executor=pool)
    assert threads <= {"users_0", "users_1"}


def test_objectives_that_raise_in_a_thread_are_failed_trials() -> None:
    result = quietly(lambda params: 1 / 0, workers=3)
    assert len(result.trials) == 8
    assert all("ZeroDivisionError" in str(trial.reason) for trial in result.trials)


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_a_used_up_space_ends_the_loop_when_the_last_worker_has(mode: Any) -> None:
    space = Space(Integer("n", 1, 5))
    result = minimize(
        lambda params: params["n"], space, budget=20, workers=3, mode=mode, strategy="random",
        progress=False,
    )  # fmt: skip
    assert result.stopped == "exhausted"
    assert sorted(trial.params["n"] for trial in result.trials) == [1, 2, 3, 4, 5]


def test_an_interrupt_keeps_what_has_ended_and_gives_up_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = quietly(bowl, budget=1).trials[0].params
    both_run, release, ended = threading.Barrier(2), threading.Event(), threading.Event()

    def objective(params: dict[str, Any]) -> float:
        both_run.wait(20)
        if params != first:
            release.wait(20)
            ended.set()
        return params["x"]

    def interrupted(futures: dict[Future[Any], Any], *_: Any) -> Any:
        next(iter(futures)).result()
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "wait", interrupted)
    result = quietly(objective, workers=2)
    assert not ended.is_set()  # nobody waited for it
    release.set()
    assert result.interrupted
    assert [trial.reason for trial in result.trials] == [None]
    assert [trial.id for trial in result.optimizer.pending] == [1]


def test_an_interrupt_that_ends_no_wait_is_heard_before_a_trial_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on Windows; here, one that another thread gets."""
    waits, heard, once, real = threading.Event(), threading.Event(), threading.Lock(), futures.wait

    def wait(*arguments: Any) -> Any:
        waits.set()
        return real(*arguments)

    def interrupts(params: dict[str, Any]) -> float:
        if once.acquire(blocking=False):
            waits.wait(20)
            time.sleep(0.1)  # until it does
            signal.raise_signal(signal.SIGINT)
        heard.wait(20)
        return params["x"]

    monkeypatch.setattr(loop, "wait", wait)

    try:
        result = quietly(interrupts, workers=2)
    finally:
        heard.set()
    assert (result.stopped, result.trials) == ("interrupted", ())


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_objectives_that_are_interrupted_themselves_end_the_loop(mode: Any) -> None:
    def objective(params: dict[str, Any]) -> float:
        raise KeyboardInterrupt

    result = quietly(objective, workers=2, mode=mode)
    assert result.interrupted
    assert result.trials == ()
    assert [trial.id for trial in result.optimizer.pending] == [0, 1]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_objective_that_would_end_the_program_fails_its_trial(workers: int) -> None:
    result = quietly(lambda params: sys.exit("enough"), workers=workers, budget=3)
    assert len(result.trials) == 3
    assert all(str(trial.reason).startswith("SystemExit: enough") for trial in result.trials)


class LosingOne(ThreadPoolExecutor):
    """Its first future was cancelled, as one of asyncio's is."""

    lost = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        if not self.lost:
            self.lost, future = True, Future()
            future.set_exception(asyncio.CancelledError())
        return future


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_no_exception_but_is_raised_like_one_fails_its_trial(workers: int) -> None:
    def objective(params: dict[str, Any]) -> float:
        raise asyncio.CancelledError("gone")

    with LosingOne(2) as threads:
        executor = threads if workers > 1 else None
        result = quietly(objective, workers=workers, budget=3, executor=executor)
    assert len(result.trials) == 3
    assert all("CancelledError: " in str(trial.reason) for trial in result.trials)


@pytest.mark.parametrize(
    ("option", "wrong"), [("workers", 0), ("workers", 1.5), ("mode", "parallel"), ("executor", 3)]
)
def test_options_that_mean_nothing_are_refused(option: str, wrong: Any) -> None:
    with pytest.raises((InvalidOption, TypeError), match=option):
        quietly(bowl, **{option: wrong})


def test_a_fit_that_outlives_the_loop_leaves_the_number_of_threads_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It puts back what it began with, which was less beside the trials."""
    began, ended = threading.Event(), threading.Event()
    fits, fit = list[threading.Thread](), fitting.fit

    def slow(*given: Any, **options: Any) -> Any:
        if threading.current_thread().name.startswith("gpbo-fit"):
            fits.append(threading.current_thread())
            before = torch.get_num_threads()
            began.set()
            ended.wait(20)
            torch.set_num_threads(before)
        return fit(*given, **options)

    def objective(params: dict[str, Any]) -> float:
        return -1.0 if began.is_set() else float(params["x"])

    def fresh() -> int:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(torch.get_num_threads).result()

    monkeypatch.setattr(fitting, "fit", slow)
    before = torch.get_num_threads()
    torch.set_num_threads(7)
    try:
        target = Completion(target=-0.5)
        quietly(objective, budget=400, workers=4, initial=4, strategy=QUICK, completion=target)
        ended.set()
        for thread in fits:
            thread.join(20)
        assert fits
        assert fresh() == 7
    finally:
        torch.set_num_threads(before)
