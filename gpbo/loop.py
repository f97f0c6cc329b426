"""The loop in this process: ask, evaluate, tell, until the budget is used."""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from gpbo.errors import InvalidOption, InvalidResult, SpaceExhausted
from gpbo.fitting import Inference, Model
from gpbo.optimizer import Direction, Optimizer, default_initial, whole_number
from gpbo.result import Result, Stopped
from gpbo.situation import Strategy
from gpbo.space import Space
from gpbo.trial import Trial, TrialStatus

Objective = Callable[[dict[str, Any]], Any]

#: How many frames of a traceback, the innermost, are kept as the reason of a failed trial.
_FRAMES = 3


def minimize(
    objective: Objective,
    space: Space,
    *,
    budget: int,
    strategy: str | Strategy = "ei",
    direction: Direction = "minimize",
    seed: int = 0,
    initial: int | None = None,
    inference: Inference = "nuts",
    model: Model | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Result:
    """Optimize a Python function over a space.

    A trial whose objective raises an `Exception`, or returns NaN, an infinity or anything that
    is not one real number, is a failed trial with its reason, and the loop goes on. Ctrl-C ends
    the loop and returns what there is; the trial that it met is a failed one.

    Args:
        objective: Gets a configuration as a dict, returns one real number.
        space: Where to search.
        budget: How many trials there are, failed ones included.
        initial: As in `Optimizer`, but by default at most half of the budget.
        progress: Whether to show what is going on, on the standard error stream.

    The other arguments are those of `Optimizer`.

    Raises:
        InvalidOption: an option is not one of those allowed.
    """
    if not callable(objective):
        raise InvalidOption(f"objective={objective!r}: expected a function of a dict")
    budget = whole_number("budget", budget, least=1)
    optimizer = Optimizer(
        space,
        strategy,
        direction=direction,
        seed=seed,
        initial=min(default_initial(space), max(1, budget // 2)) if initial is None else initial,
        inference=inference,
        model=model,
        device=device,
    )
    loop = _Loop(objective, optimizer, budget)
    with _display(loop, progress) as show:
        stopped = loop.run(show)
    return Result(
        trials=tuple(optimizer.finished),
        direction=direction,
        stopped=stopped,
        objective_s=loop.spent("objective"),
        engine_s=loop.spent("engine"),
        optimizer=optimizer,
    )


@dataclass(frozen=True)
class State:
    """Where an optimization stands.

    Attributes:
        title: What is optimized, and how.
        budget: How many trials there will be.
        done: How many ended, the failed ones included.
        failed: How many failed.
        best: The best trial so far.
        running: The trial being evaluated; None while the next one is being chosen.
        objective_s: Seconds spent in the objective so far.
        engine_s: Seconds spent in choosing what to try so far.
        current_s: Seconds since the running trial was started, or the choice of the next one.
    """

    title: str
    budget: int
    done: int
    failed: int
    best: Trial | None
    running: Trial | None
    objective_s: float
    engine_s: float
    current_s: float

    @property
    def left(self) -> int:
        """How many trials are left, a running one included."""
        return self.budget - self.done

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self.objective_s + self.engine_s


class _Loop:
    """One run of the loop, its clock, and its state for a display in another thread."""

    def __init__(self, objective: Objective, optimizer: Optimizer, budget: int) -> None:
        self._objective = objective
        self._optimizer = optimizer
        self._budget = budget
        self._done = 0
        self._failed = 0
        self._best: Trial | None = None
        self._running: Trial | None = None
        self._spent = {"objective": 0.0, "engine": 0.0}
        self._since = time.perf_counter()

    def run(self, show: Callable[[Trial], None]) -> Stopped:
        """Until the budget is used, the space is exhausted or the user has had enough."""
        try:
            while self._done < self._budget:
                trial = self._optimizer.ask()
                with self._evaluating(trial):
                    value, failure = _evaluate(self._objective, trial.params)
                self._end(self._tell(trial, value, failure), show)
        except SpaceExhausted:
            return "exhausted"
        except KeyboardInterrupt:
            for trial in self._optimizer.pending:
                self._end(self._optimizer.fail(trial, "interrupted"), show)
            return "interrupted"
        finally:
            self._clock("engine")
        return "budget"

    def spent(self, activity: str) -> float:
        """Seconds spent on ``"objective"`` or ``"engine"`` until the last change of activity."""
        return self._spent[activity]

    def snapshot(self) -> State:
        """Where the loop stands now; any thread may ask."""
        running, current = self._running, time.perf_counter() - self._since
        return State(
            title=f"gpbo {self._optimizer.direction} {self._optimizer.strategy.name}",
            budget=self._budget,
            done=self._done,
            failed=self._failed,
            best=self._best,
            running=running,
            objective_s=self._spent["objective"] + (0.0 if running is None else current),
            engine_s=self._spent["engine"] + (current if running is None else 0.0),
            current_s=current,
        )

    @contextmanager
    def _evaluating(self, trial: Trial) -> Iterator[None]:
        self._clock("engine")
        self._running = trial
        try:
            yield
        finally:
            self._clock("objective")
            self._running = None

    def _clock(self, activity: str) -> None:
        """Count the time since the last change of activity as spent on this one."""
        now = time.perf_counter()
        self._spent[activity] += now - self._since
        self._since = now

    def _tell(self, trial: Trial, value: object, failure: str | None) -> Trial:
        if failure is not None:
            return self._optimizer.fail(trial, failure)
        try:
            return self._optimizer.tell(trial, value)
        except InvalidResult as error:
            return self._optimizer.fail(trial, str(error))

    def _end(self, trial: Trial, show: Callable[[Trial], None]) -> None:
        self._done += 1
        self._failed += trial.status is TrialStatus.FAILED
        self._best = self._optimizer.best
        show(trial)


def _display(loop: _Loop, progress: bool) -> AbstractContextManager[Callable[[Trial], None]]:
    if not progress:
        return nullcontext(lambda trial: None)
    from gpbo.progress import shown

    return shown(loop.snapshot)


def _evaluate(objective: Objective, params: Mapping[str, Any]) -> tuple[object, str | None]:
    """The objective's value, or why it has none: the error, and the innermost frames."""
    try:
        return objective(dict(params)), None
    except Exception as error:  # noqa: BLE001  whatever it raises, it is the trial that failed
        told = traceback.TracebackException.from_exception(error, limit=-_FRAMES)
        summary = "".join(told.format_exception_only()).strip()
        return None, f"{summary}\n{''.join(told.stack.format())}".rstrip()
