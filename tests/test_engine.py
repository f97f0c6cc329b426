"""The engine beside the trials: fits in a process of their own, and what becomes of it."""

import functools
import os
import signal
import threading
import time
from concurrent.futures import BrokenExecutor, Future
from typing import Any

import pytest
import torch

from gpbo.engine import LOST, Engine
from gpbo.optimizer import Optimizer
from gpbo.space import Integer, Real, Space

PLANE = Space(Real("x", 0, 1), Integer("depth", 1, 9))


def process_of(engine: Engine) -> int:
    """The process that fits, once it has started."""
    until = time.monotonic() + 60
    while (found := engine.fit(os.getpid).result()) == os.getpid():
        assert time.monotonic() < until, "it never started"
        time.sleep(0.05)
    return found


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_fits_go_to_a_process_once_it_has_started_and_choices_never() -> None:
    with Engine(apart=True) as engine:
        assert engine.fit(os.getpid).result() == os.getpid()
        process = process_of(engine)
        assert engine.fit(os.getpid).result() == process
        assert engine.choose(os.getpid).result() == os.getpid()


def test_on_a_gpu_and_with_one_worker_nothing_goes_to_a_process() -> None:
    with Engine(apart=False) as engine:
        assert {engine.fit(os.getpid).result() for _ in range(5)} == {os.getpid()}


def test_the_process_ends_with_the_job_even_in_the_middle_of_a_fit() -> None:
    with Engine(apart=True) as engine:
        process = process_of(engine)
        engine.fit(signal.pause)  # it would never end
    assert not is_there(process)


def test_the_process_ignores_what_interrupts_its_driver() -> None:
    """Ctrl-C in a terminal reaches the whole group of processes."""
    with Engine(apart=True) as engine:
        process_of(engine)
        heeds = engine.fit(functools.partial(signal.getsignal, signal.SIGINT)).result(60)
        assert heeds is signal.SIG_IGN


def test_without_its_process_the_fits_go_on_in_a_thread(caplog: pytest.LogCaptureFixture) -> None:
    with Engine(apart=True) as engine:
        process = process_of(engine)
        lost: Future[Any] = engine.fit(signal.pause)
        os.kill(process, signal.SIGKILL)
        with pytest.raises(BrokenExecutor) as error:
            lost.result(60)
        engine.mend(error.value)
        assert "fits continue in a thread" in caplog.text
        assert {engine.fit(os.getpid).result() for _ in range(5)} == {os.getpid()}


def test_a_process_that_dies_between_two_fits_is_done_without() -> None:
    with Engine(apart=True) as engine:
        os.kill(process_of(engine), signal.SIGKILL)
        while True:  # until its end is noticed; a fit that it takes with it says so
            try:
                found = engine.fit(os.getpid).result(60)
            except BrokenExecutor as error:
                engine.mend(error)
            else:
                break
        assert found == os.getpid()


def test_what_cannot_be_pickled_is_fitted_in_a_thread() -> None:
    lock = threading.Lock()
    with Engine(apart=True) as engine:
        process_of(engine)
        with pytest.raises(LOST) as error:
            engine.fit(lambda: lock).result(60)
        engine.mend(error.value)
        assert engine.fit(lambda: lock).result() is lock


def test_a_fit_in_a_process_is_the_fit() -> None:
    optimizer = Optimizer(PLANE, "ei", initial=5)
    for trial in optimizer.ask(7):
        optimizer.tell(trial, trial.params["x"] + trial.params["depth"])
    plan = optimizer.plan_fit()
    with Engine(apart=True) as engine:
        process_of(engine)
        found, expected = engine.fit(plan).result(), plan()
    assert found.kept.size == expected.kept.size == 7
    for name in ("lengthscale", "outputscale", "noise_variance", "mean"):
        torch.testing.assert_close(getattr(found.kept, name), getattr(expected.kept, name))
    torch.testing.assert_close(found.fit.surrogate.weights, expected.fit.surrogate.weights)


def test_fits_go_on_in_a_thread_where_no_process_can_be_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = []

    def refused(*given: Any) -> Any:
        tried.append(given)
        raise OSError("Too many open files")

    monkeypatch.setattr("loky.ProcessPoolExecutor.submit", refused)
    with Engine(apart=True) as engine:
        assert [engine.fit(os.getpid).result() for _ in range(2)] == [os.getpid()] * 2
    assert len(tried) == 1
    assert "fits continue in a thread" in caplog.text
    assert "no process could be started: OSError: Too many open files" in caplog.text
