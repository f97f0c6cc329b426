"""When the trials of a job are chosen, and its model is fitted: while other trials run."""

import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from gpbo.engine import LOST, Engine
from gpbo.errors import SpaceExhausted
from gpbo.execution import Execution
from gpbo.optimizer import Optimizer
from gpbo.pace import Pace
from gpbo.plans import Chosen, Fitted
from gpbo.trial import Trial

#: The next fit is urgent once there are this many times the results of the last fit.
_MUCH_MORE = 1.5

_T = TypeVar("_T")


@dataclass(frozen=True)
class _UnderWay(Generic[_T]):
    """A computation that the engine is busy with."""

    future: Future[_T]
    since: float


class Chooser:
    """Keeps an engine busy with choices for the workers of a job, and with fits beside them.

    Args:
        optimizer: The optimizer to ask.
        budget: The number of trials, results from elsewhere not counted.
        execution: Has the number of workers, and whether they wait for each other.

    Attributes:
        overlaps: Whether trials are chosen while others run.
        pace: How long trials and choices take.
        exhausted: Whether the space had nothing left.
        seconds: How long the engine was busy.
    """

    def __init__(self, optimizer: Optimizer, budget: int, execution: Execution) -> None:
        self._optimizer = optimizer
        self._budget = budget
        self._workers = execution.workers
        self._in_step = execution.mode == "sync"
        self.overlaps: bool = not self._in_step and self._workers > 1
        self.pace: Pace = Pace(self._workers)
        self.seconds = 0.0
        self.begin()

    def begin(self) -> None:
        """Forget what a former engine was busy with."""
        self._choice: _UnderWay[Chosen] | None = None
        self._fit: _UnderWay[Fitted] | None = None
        self.exhausted = False

    @property
    def under_way(self) -> list[Future[Any]]:
        """The futures of what the engine is busy with."""
        return [work.future for work in (self._choice, self._fit) if work is not None]

    @property
    def left(self) -> int:
        """How many trials of the budget have not been asked."""
        return self._budget - sum(not trial.added for trial in self._optimizer.history.trials)

    def advance(self, engine: Engine, running: int, ready: int) -> list[Trial]:
        """Take the engine's finished work, and give it the next.

        Args:
            running: How many trials run.
            ready: How many wait for a worker.

        Returns:
            The trials that were chosen.
        """
        self._take_fit(engine)
        chosen = self._take_choice()
        busy = running + ready + len(chosen)
        wanted, beside = self._wanted(busy), self._fits_beside()
        if wanted > 0 and self._choice is None and not self.exhausted:
            began = time.monotonic()
            plan = self._optimizer.plan(wanted, refit=not beside, thin=self.pace.thin)
            self._choice = _UnderWay(engine.choose(plan), began)
        if beside and self._fit is None and self._fit_is_due(busy):
            began = time.monotonic()
            self._fit = _UnderWay(engine.fit(self._optimizer.plan_fit()), began)
        return chosen

    def _take_fit(self, engine: Engine) -> None:
        if self._fit is None or not self._fit.future.done():
            return
        fit, self._fit = self._fit, None
        self.seconds += time.monotonic() - fit.since
        try:
            self._optimizer.adopt(fit.future.result())
        except LOST as error:
            engine.mend(error)

    def _take_choice(self) -> list[Trial]:
        if self._choice is None or not self._choice.future.done():
            return []
        choice, self._choice = self._choice, None
        seconds = time.monotonic() - choice.since
        self.seconds += seconds
        try:
            chosen = self._optimizer.register(choice.future.result())
        except SpaceExhausted:
            self.exhausted = True
            return []
        self.pace.choice_took(seconds, len(chosen))
        return chosen

    def _wanted(self, busy: int) -> int:
        """How many trials to choose now, if ``busy`` ones run or are ready."""
        if self._in_step:
            return min(self._workers, self.left) if busy == 0 else 0
        # Few at once, so that ready ones start while the next are chosen.
        return min(self._workers + self.pace.ahead - busy, self._workers, self.left)

    def _fits_beside(self) -> bool:
        """Whether the next fit runs beside the trials instead of being waited for."""
        report = self._optimizer.fit_report
        if report is None or not self._optimizer.strategy.uses_model:
            return False
        return self.overlaps and self.pace.is_long(report.seconds)

    def _fit_is_due(self, busy: int) -> bool:
        """Whether to fit beside the trials now.

        A fit slows choices down, so it waits while a worker is idle, unless there are half as many
        results again as at the last fit.
        """
        known, fitted = len(self._optimizer.history.completed), self._optimizer.fitted_size
        if known <= fitted or self.exhausted or self.left <= 0:
            return False
        return busy >= self._workers or known >= _MUCH_MORE * fitted
