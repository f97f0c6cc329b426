"""Where choices and fits of a job are computed while its trials run."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from pickle import PicklingError
from typing import TypeVar

import torch
from loky import ProcessPoolExecutor

from gpbo.executors import NO_LEAK_CHECK, end, pool_of_one, start
from gpbo.worker import NotStarted, die_with

logger = logging.getLogger("gpbo")

#: What a fit raises if its process died or could not be sent the plan.
LOST = (BrokenExecutor, PicklingError)

_T = TypeVar("_T")


class Engine:
    """Makes choices in a thread and, at the same time, fits in a process once that has started.

    Two threads would compete for the interpreter: with 20 to 100 results a choice took twice as
    long beside fits as alone. And a process can be killed when the job ends.

    Args:
        apart: Whether fits go to a process; if not, or until it has started, or after it died, they
            go to a thread.
    """

    def __init__(self, *, apart: bool) -> None:
        self._apart = apart
        self._threads = ThreadPoolExecutor(2, "gpbo-engine")
        self._process: ProcessPoolExecutor | None = None
        self._start: Future[int] | None = None

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *error: object) -> None:
        self._leave_process()
        self._threads.shutdown()

    def choose(self, plan: Callable[[], _T]) -> Future[_T]:
        """Run the plan of a choice."""
        return self._threads.submit(plan)

    def fit(self, plan: Callable[[], _T]) -> Future[_T]:
        """Run the plan of a fit.

        The future raises one of `LOST` if the process died, or if a prior of the user's cannot be
        pickled for it; then call `mend`.
        """
        if self._apart and self._process is None:
            try:
                self._process = pool_of_one(
                    env=NO_LEAK_CHECK,
                    initializer=_begin,
                    initargs=(os.getpid(), torch.get_num_threads()),
                )
                self._start = start(self._process)
            except NotStarted as error:
                self.mend(error)
        started = self._start is not None and self._start.done()
        if self._process is None or not started:
            return self._threads.submit(plan)
        try:
            future: Future[_T] = self._process.submit(plan)
        except BrokenExecutor as error:
            self.mend(error)
            return self._threads.submit(plan)
        return future

    def mend(self, error: Exception) -> None:
        """Continue without the process."""
        logger.warning("fits continue in a thread, where they slow down choices: %s", error)
        self._apart = False
        self._leave_process()

    def _leave_process(self) -> None:
        if self._process is not None:
            end(self._process)
        self._process = None


def _begin(driver: int, threads: int) -> None:
    die_with(driver)
    torch.set_num_threads(threads)
