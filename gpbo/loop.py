"""The loop: ask, let workers evaluate, tell, until the budget is used or a criterion is met.

Synchronous or asynchronous is up to this loop, not to a strategy. In mode ``"sync"`` all workers
wait for the last one and get their trials as one batch. Otherwise a free worker gets its next trial
at once: the posterior is then conditioned on all results, but its hyperparameters may be those of
an earlier fit, while the next fit runs in a thread of its own.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from typing import Any, ParamSpec, TypeVar, get_args

import torch

from gpbo.attempt import Outcome
from gpbo.backend import threads_beside
from gpbo.callbacks import Callback, check_callbacks, tell
from gpbo.checks import instance_of, one_of, truth_value, whole_number
from gpbo.completion import Completion, Stopped, Streak
from gpbo.constraints import Returned, returned
from gpbo.design import resolve_initial
from gpbo.errors import InvalidOption, InvalidResult, SpaceExhausted
from gpbo.fitting import Inference, Model
from gpbo.optimizer import Optimizer
from gpbo.plans import Fitted
from gpbo.result import Result
from gpbo.situation import Strategy
from gpbo.space import Space
from gpbo.state import State
from gpbo.text import reason_of
from gpbo.trial import Direction, Mode, Trial, TrialStatus, sign_of, without_value

logger = logging.getLogger("gpbo")

Objective = Callable[[dict[str, Any]], Returned]
#: Seconds after which a wait is repeated: on Windows, Ctrl-C has no effect until a wait ends.
_LOOK_S = 0.5

_P = ParamSpec("_P")
_T = TypeVar("_T")


def minimize(
    objective: Objective,
    space: Space,
    *,
    budget: int,
    workers: int = 1,
    mode: Mode = "async",
    executor: Executor | None = None,
    strategy: str | Strategy = "ei",
    direction: Direction = "minimize",
    seed: int = 0,
    initial: int | None = None,
    constraints: Sequence[str] = (),
    queue: Iterable[Mapping[str, Any]] = (),
    inference: Inference = "hmc",
    model: Model | None = None,
    device: str = "auto",
    completion: Completion | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Result:
    """Optimize a Python function over a space.

    The same as `run` with a new `Optimizer`.

    Args:
        objective: Takes a configuration as a dict and returns one real number; with
            ``constraints``, a pair of it and a dict of the measured quantities, whose other entries
            are ignored. See `run`.
        space: Where to search.
        budget: The number of trials, failed ones included.
        initial: As in `Optimizer`, but by default at most half of the budget.
        queue: Configurations to evaluate first, such as the one in use today, as in
            `Optimizer.enqueue`; they count as part of the initial design.

    The other arguments are those of `Optimizer` and of `run`.

    Raises:
        InvalidParams: ``queue`` is not a list of configurations of the space.
        InvalidOption: as in `Optimizer` and in `run`. An exception of a strategy of your own is
            passed on, and the results are lost; with `run` your optimizer has them.
    """
    budget = whole_number("budget", budget, least=1)
    optimizer = Optimizer(
        space,
        strategy,
        direction=direction,
        seed=seed,
        initial=resolve_initial(initial, space, budget),
        constraints=constraints,
        inference=inference,
        model=model,
        device=device,
    )
    optimizer.learn(queue=queue)
    return run(
        optimizer,
        objective,
        budget=budget,
        workers=workers,
        mode=mode,
        executor=executor,
        completion=completion,
        callbacks=callbacks,
        progress=progress,
    )


def run(
    optimizer: Optimizer,
    objective: Objective,
    *,
    budget: int,
    workers: int = 1,
    mode: Mode = "async",
    executor: Executor | None = None,
    completion: Completion | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Result:
    """Evaluate an optimizer's proposals by a Python function.

    The optimizer may have trials, results from elsewhere, a queue and a storage. Its pending trials
    are evaluated first, so the loop continues an earlier one that ended with its budget, by Ctrl-C
    or with its process.

    If the objective raises anything but `KeyboardInterrupt`, or returns NaN, an infinity or
    something that is not such a result, the trial fails, with the reason, and the loop continues.
    Ctrl-C ends the loop and returns the result so far; trials that were running stay pending. (A
    thread cannot be killed: the program exits only when the objective that runs there returns.)

    With one worker, or in mode ``"sync"``, the same seed gives the same trials. With several in
    mode ``"async"`` they depend on the order in which results come.

    Args:
        optimizer: Proposes the trials; nothing else may ask or tell it meanwhile. If it has a
            storage, `gpbo stop` ends the loop when the next trial ends.
        objective: Takes a configuration as a dict and returns one real number; if the optimizer has
            constraints, a pair of it and a dict of the measured quantities, whose other entries are
            ignored. With several workers it is called by several threads at once; for an executor
            of processes it must be possible to pickle it.
        budget: The number of trials in all, failed and earlier ones included, added results not.
        workers: How many trials run at a time.
        mode: ``"async"``: a worker gets its next trial as soon as it is free; ``"sync"``: when all
            workers are free, they get a batch.
        executor: Where trials run, any `concurrent.futures.Executor`; it is not shut down. By
            default this thread for one worker, and threads of this process for several.
        completion: What ends the loop earlier; by default twenty failures in a row. It is checked
            whenever a trial has ended. Trials that still run are waited for, and may change the
            verdict. Its ``runtime_s`` starts with this call.
        callbacks: Listeners, called in this thread.
        progress: Whether to report progress on the standard error stream.

    Raises:
        InvalidOption: an option has a value that is not allowed, or as in `Optimizer.ask`.
        StorageError: the optimizer's storage can no longer be used.
    """
    instance_of("optimizer", optimizer, Optimizer)
    truth_value("progress", progress)
    loop = _Loop(optimizer, objective, budget, workers, mode, completion, callbacks)
    return loop.run(executor, progress)


class _Loop:
    """One run of the loop, with its clock, and its state for a display in another thread."""

    def __init__(
        self,
        optimizer: Optimizer,
        objective: Objective,
        budget: int,
        workers: int,
        mode: Mode,
        completion: Completion | None,
        callbacks: Sequence[Callback],
    ) -> None:
        if not callable(objective):
            raise InvalidOption(
                f"objective={objective!r}: expected a function that takes a configuration as a dict"
            )
        one_of("mode", mode, get_args(Mode))
        instance_of("completion", completion, Completion | None)
        check_callbacks(callbacks)
        self._optimizer = optimizer
        self._objective = objective
        self._budget = whole_number("budget", budget, least=1)
        self._workers = whole_number("workers", workers, least=1)
        self._in_step = mode == "sync"
        self._completion = Completion() if completion is None else completion
        self._callbacks = tuple(callbacks)
        self._waiting = deque(optimizer.pending)
        self._fitting: Future[Fitted] | None = None
        self._futures: dict[Future[Outcome], Trial] = {}
        self._running: tuple[Trial, ...] = ()
        self._began: dict[int, float] = {}  # when each trial was started, by id
        self._ended: Stopped | None = None
        before = [trial for trial in optimizer.finished if not trial.added]
        self._done = len(before)
        self._failed = sum(map(len, without_value(before)))
        self._failures = Streak()
        self._finished: list[Trial] = []  # copies, since a user's own rule gets them
        self._best = optimizer.best
        self._activity = "engine"
        self._spent = {"objective": 0.0, "engine": 0.0}
        self._since = time.perf_counter()

    def run(self, executor: Executor | None, progress: bool) -> Result:
        """Run until the budget is used, nothing is left to try, or the user interrupts."""
        instance_of("executor", executor, Executor | None)
        tell(self._callbacks, lambda callback: callback.started(self._optimizer))
        threads = torch.get_num_threads()
        with ExitStack() as stack:
            if not self._in_step and self._workers > 1:
                stack.enter_context(threads_beside(self._workers))
            if executor is None:
                executor = stack.enter_context(_executor(self._workers))
            fitter = stack.enter_context(_Threads(1, "gpbo-fit"))
            show = stack.enter_context(_display(self, progress))
            self._write("")
            try:
                stopped = self._evaluate_all(executor, fitter, show)
            except KeyboardInterrupt:
                stopped = "interrupted"
            self._leave(show)
            if self._fitting is not None:  # may outlive us, and restores the number it began with
                self._fitting.add_done_callback(lambda _: torch.set_num_threads(threads))
            self._now("engine")
        self._write(stopped)
        result = Result(
            trials=tuple(self._optimizer.finished),
            stopped=stopped,
            objective_s=self._spent["objective"],
            engine_s=self._spent["engine"],
            optimizer=self._optimizer,
        )
        with suppress(KeyboardInterrupt):  # during a slow callback: the result is there
            tell(self._callbacks, lambda callback: callback.finished(result))
        return result

    def _write(self, ended: str) -> None:
        if self._optimizer.journal is not None:
            self._optimizer.journal.write(ended=ended)

    def _evaluate_all(
        self, executor: Executor, fitter: Executor, show: Callable[[Trial], None]
    ) -> Stopped:
        while True:
            ended = self._ended or self._completed()
            if ended is None:
                self._start_trials(executor, fitter)
            if not self._running:
                return ended or self._ended or "budget"
            self._end_trials(show)

    def _completed(self) -> Stopped | None:
        """Why the loop should end, if it should."""
        journal = self._optimizer.journal
        if journal is not None and journal.stop_requested():
            return "interrupted"
        all_asked = self._done + len(self._running) >= self._budget
        running = (self._began[trial.id] for trial in self._running)
        failed = 0 if all_asked else self._failures.in_vain(running)
        self._finished += self._optimizer.history.ended_since(len(self._finished))
        finished, sign = list(self._finished), sign_of(self._optimizer.direction)
        return self._completion.reached(finished, sign, sum(self._spent_now().values()), failed)

    def _leave(self, show: Callable[[Trial], None]) -> None:
        """Record what has ended; what has not stays pending."""
        for future, trial in self._futures.items():
            if not future.cancel() and _has_ended(future):
                ended = self._tell(trial, future)
                with suppress(KeyboardInterrupt):  # again, during a callback
                    self._end(ended, show)

    def snapshot(self) -> State:
        """The state of the loop now; any thread may ask."""
        spent = self._spent_now()
        return State(
            title=f"gpbo {self._optimizer.direction} {self._optimizer.strategy.name}",
            budget=self._budget,
            done=self._done,
            failed=self._failed,
            best=self._best,
            running=self._running,
            objective_s=spent["objective"],
            engine_s=spent["engine"],
            current_s=time.perf_counter() - self._since,
        )

    def _start_trials(self, executor: Executor, fitter: Executor) -> None:
        """Give the free workers trials; in mode ``"sync"`` only if all are free."""
        while self._ended is None and (free := self._free()):
            try:
                trials = self._next(free, fitter)
            except SpaceExhausted:
                self._ended = "exhausted"
                return
            self._now("objective")
            for trial in trials:
                self._running += (trial,)
                self._began[trial.id] = time.perf_counter()
                try:
                    future = executor.submit(_evaluate, self._objective, trial.params)
                except Exception as error:  # noqa: BLE001  broken, shut down, or a user's own
                    logger.error("trial %d was not run: %r", trial.id, error)
                    self._ended, self._running = "broken", self._running[:-1]
                    return
                self._futures[future] = trial

    def _free(self) -> int:
        """How many trials can be started."""
        busy = len(self._running)
        if self._in_step and busy:
            return 0
        return max(0, min(self._workers, self._budget - self._done) - busy)

    def _next(self, count: int, fitter: Executor) -> list[Trial]:
        """The next trials: those that were pending before, then new ones."""
        if self._waiting:
            return [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
        if self._in_step or self._workers == 1:
            return self._optimizer.ask(count)
        if self._fitting is not None and self._fitting.done():
            self._optimizer.adopt(self._fitting.result())
            self._fitting = None
        trials = self._optimizer.ask(count, refit=False)
        more_to_come = self._done + len(self._running) + count < self._budget
        has_model = self._optimizer.strategy.uses_model and self._optimizer.fit_report is not None
        if more_to_come and self._fitting is None and has_model:
            self._fitting = fitter.submit(self._optimizer.plan_fit())
        return trials

    def _end_trials(self, show: Callable[[Trial], None]) -> None:
        """Wait for a worker and record its result; several results in the order of asking."""
        ended = set[Future[Outcome]]()
        while not ended:
            ended, _ = wait(self._futures, _LOOK_S, FIRST_COMPLETED)
        self._now("engine")
        for future in [future for future in self._futures if future in ended]:
            # Told before it is removed: if Ctrl-C comes between, it is told again.
            trial = self._tell(self._futures[future], future)
            del self._futures[future]
            self._running = tuple(self._futures.values())
            self._end(trial, show)

    def _now(self, activity: str) -> None:
        """Book the time since the last change on the current activity, and begin this one."""
        now = time.perf_counter()
        self._spent[self._activity] += now - self._since
        self._activity, self._since = activity, now

    def _spent_now(self) -> dict[str, float]:
        """Seconds spent on each activity, including those since the last change."""
        current = time.perf_counter() - self._since
        return {**self._spent, self._activity: self._spent[self._activity] + current}

    def _tell(self, trial: Trial, future: Future[Outcome]) -> Trial:
        try:
            outcome = future.result()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  such as a worker that died
            return self._optimizer.fail(trial, f"{type(error).__name__}: {error}")
        if outcome.reason is not None:
            return self._optimizer.fail(trial, outcome.reason)
        try:
            told = returned(outcome.value, self._optimizer.constraints)
            return self._optimizer.tell(trial, *told)
        except InvalidResult as error:
            return self._optimizer.fail(trial, str(error))

    def _end(self, trial: Trial, show: Callable[[Trial], None]) -> None:
        failed = trial.status is TrialStatus.FAILED
        self._done += 1
        self._failed += failed
        if failed:
            self._failures.fail(time.perf_counter())
        else:
            self._failures.end()
        self._best = self._optimizer.best
        show(trial)
        tell(self._callbacks, lambda callback: callback.ended(trial))


class _InThisThread(Executor):
    """Evaluates a trial at once, so that an interrupt reaches it."""

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """The future of a call that has been made."""
        future: Future[_T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class _Threads(ThreadPoolExecutor):
    """Threads that are not waited for at the end: after an interrupt they may still be busy."""

    def __exit__(self, *error: object) -> None:
        self.shutdown(wait=False, cancel_futures=True)


def _has_ended(future: Future[_T]) -> bool:
    """Whether a trial has a result or failed, and was not interrupted itself."""
    if not future.done() or future.cancelled():
        return False
    return not isinstance(future.exception(), KeyboardInterrupt)


def _executor(workers: int) -> Executor:
    return _InThisThread() if workers == 1 else _Threads(workers, "gpbo-worker")


def _display(loop: _Loop, progress: bool) -> AbstractContextManager[Callable[[Trial], None]]:
    if not progress:
        return nullcontext(lambda trial: None)
    from gpbo.progress import shown

    return shown(loop.snapshot)


def _evaluate(objective: Objective, params: Mapping[str, Any]) -> Outcome:
    try:
        return Outcome(objective(dict(params)))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  whatever it raises, the trial failed
        return Outcome(reason=reason_of(error))
