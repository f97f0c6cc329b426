"""A tuning job: an optimizer proposes, workers run the trials, a storage remembers."""

import logging
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from filelock import FileLock, Timeout

from gpbo.attempt import STOP, Outcome, read_reports
from gpbo.backend import threads_beside
from gpbo.callbacks import Callback, check_callbacks, tell
from gpbo.checks import instance_of, legible, truth_value, whole_number
from gpbo.chooser import Chooser
from gpbo.command import Command, end_abandoned
from gpbo.completion import Completion, Stopped, Streak
from gpbo.constraints import Constraint, Told, quantities, result_told, returned
from gpbo.engine import Engine
from gpbo.errors import InvalidOption, InvalidResult
from gpbo.execution import Execution
from gpbo.executors import LocalWorkers, raised_there
from gpbo.objectives import check_command, check_is_here, warn_of_silence, warn_of_unused
from gpbo.optimizer import Optimizer
from gpbo.record import JOB_ENDED, NOT_RUN, Attempt, Metric
from gpbo.result import Result
from gpbo.storage import INHERITED_S
from gpbo.trial import Trial, sign_of
from gpbo.worker import Imported, NotStarted, Objective, Task, evaluate

__all__ = ["Execution", "Tuner"]

logger = logging.getLogger("gpbo")

#: Seconds between two checks of metrics, time limits and requests to stop.
_LOOK_S = 0.2
#: Seconds beyond its time limit after which a trial in an executor of the user's is given up.
_GRACE_S = 5.0


@dataclass
class _Run:
    """An attempt that a worker is busy with."""

    trial: Trial
    attempt: Attempt
    folder: Path
    # On the monotonic clock, since the system clock may be set meanwhile.
    submitted_at: float = field(default_factory=time.monotonic)
    seen_since: float | None = None  # when we first saw the folder that the worker makes
    metrics_read: int = 0
    stopping: str | None = None


class Tuner:
    """Runs the trials that an optimizer proposes in worker processes.

    A worker is a process that runs one trial after another, each in the state that the last one
    left, and is replaced if it ends. A trial whose process crashes, is killed, exceeds its time
    limit or returns no number fails, and the job continues. If the optimizer has a storage,
    everything is stored before it has consequences: a job that was killed continues with
    ``Tuner(Optimizer.resume(...), ...).run()``, and repeats only the trials that were running.

    In mode ``"async"`` with several workers, long fits run beside the trials (on a CPU in a process
    of their own), and trials asked meanwhile come from the last draws, conditioned on all results.
    If workers would have to wait, trials are chosen ahead of time and, if that is not enough, by a
    part of the draws, a different one each time. What is proposed then depends on when results
    come; in mode ``"sync"``, and with one worker, it depends only on the seed and the results.

    Args:
        optimizer: Proposes the trials; nothing else may use it while the job runs.
        objective: A function of a configuration, or of a configuration and a
            `gpbo.worker.RunningTrial` to report to, that returns one real number or, if the
            optimizer has constraints, a pair of it and a dict of the measured quantities, whose
            other entries are ignored; ``"module:function"``; or a `gpbo.worker.Command`.
        budget: The number of trials in all, failed ones and those before a resume included, added
            results not. Trials that are pending beyond it stay pending.
        execution: Workers, mode, time limit, retries, early stopping, GPUs, environment.
        completion: What ends the job earlier; by default twenty failures in a row.
        executor: Where to run trials instead of processes of this machine: any
            `concurrent.futures.Executor`, such as Dask's ``Client.get_executor(pure=False)``. There
            a time limit kills a command, but a function that exceeds it is only given up. The time
            starts when the worker makes the trial's folder, which this process must see.
        folder: Where logs and metrics go, in a folder for each attempt that is emptied first; by
            default beside the storage, or without one a temporary folder that is removed at the
            end. Jobs that run at the same time need different folders.
        callbacks: Listeners to what happens.

    Raises:
        InvalidOption: an option has a value that is not allowed, or the command's program or the
            function's module cannot be found.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        objective: Objective | str,
        *,
        budget: int,
        execution: Execution | None = None,
        completion: Completion | None = None,
        executor: Executor | None = None,
        folder: str | Path | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        instance_of("optimizer", optimizer, Optimizer)
        if not isinstance(objective, str | Command | Imported) and not callable(objective):
            raise InvalidOption(
                f"objective={objective!r}: expected a function, 'module:function' or a Command"
            )
        instance_of("execution", execution, Execution | None)
        instance_of("completion", completion, Completion | None)
        instance_of("executor", executor, Executor | None)
        instance_of("folder", folder, str | Path | None)
        check_callbacks(callbacks)
        self.optimizer = optimizer
        self.objective = Imported(objective) if isinstance(objective, str) else objective
        self.budget: int = whole_number("budget", budget, least=1)
        self.execution: Execution = Execution() if execution is None else execution
        self.completion: Completion = Completion() if completion is None else completion
        if isinstance(self.objective, Command):
            measured = quantities(optimizer.constraints)
            self.objective = replace(self.objective, measured=measured)
            check_command(self.objective, optimizer.space)
            warn_of_unused(self.objective, optimizer.space)
        elif self.execution.early_stopping is not None:
            warn_of_silence(self.objective)
        if executor is None:
            check_is_here(self.objective, self.execution.env)
        for name in ("gpus", "env"):
            if executor is not None and getattr(self.execution, name):
                raise InvalidOption(
                    f"{name}={getattr(self.execution, name)!r}: cannot be combined with executor; "
                    "set up the executor's own workers instead"
                )
        self._executor = executor
        self._folder = folder
        self._callbacks = self._told = tuple(callbacks)  # the latter with the display of a run
        self._journal = optimizer.journal
        self._sign = sign_of(optimizer.direction)
        self._attempts: dict[int, Attempt] = {}  # the last one of each trial
        self._deaths: Counter[int] = Counter()  # attempts that died, of each trial
        self._failures = Streak()
        self._finished: list[Trial] = []  # copies, since a user's own rule gets them
        self._curves: dict[int, dict[int, float]] = defaultdict(dict)
        self._ready: deque[Trial] = deque()
        self._running: dict[Future[Outcome], _Run] = {}
        self._late: dict[Future[Outcome], _Run] = {}
        self._chooser = Chooser(optimizer, self.budget, self.execution)
        self._broken = False
        self._began_at = time.monotonic()
        self._busy_s = 0.0

    def run(self, *, progress: bool = True) -> Result:
        """Run the job to its end, or until Ctrl-C, a signal to terminate, the end of the terminal
        or `gpbo stop`.

        Trials that still run when the job ends early are killed and stay pending: they run again
        when the job is resumed, or `run` is called again.

        Args:
            progress: Whether to report progress on the standard error stream, a line per trial.

        Raises:
            InvalidOption: ``progress`` is neither True nor False, the folder cannot be made or
                written, a running job uses it, or as `gpbo.Optimizer.ask`.
            StorageError: the storage can no longer be used.
        """
        truth_value("progress", progress)
        self._told = (*self._callbacks, *_display(progress))
        with ExitStack() as stack:
            stack.enter_context(_terminated_as_interrupted())
            # An absolute path, since an objective may change the working directory.
            self._root = self._made_folder(stack)
            tell(self._told, lambda callback: callback.started(self.optimizer))
            self._resume()
            workers = self._executor
            if workers is None:
                workers = stack.enter_context(
                    LocalWorkers(self.execution.workers, self.execution.gpus, self.execution.env)
                )
            if self._chooser.overlaps:
                stack.enter_context(threads_beside(self.execution.workers))
            on_cpu = self.optimizer.device.type == "cpu"
            engine = stack.enter_context(Engine(apart=on_cpu))
            try:
                stopped = self._loop(workers, engine)
            except KeyboardInterrupt:
                stopped = "interrupted"
            self._leave(stopped)
        result = Result(
            trials=tuple(self.optimizer.finished),
            stopped=stopped,
            objective_s=self._busy_s,
            engine_s=self._chooser.seconds,
            optimizer=self.optimizer,
        )
        with suppress(KeyboardInterrupt):  # during a slow callback: the result is there
            tell(self._told, lambda callback: callback.finished(result))
        return result

    def _made_folder(self, stack: ExitStack) -> Path:
        """The folder of the trials, writable and locked against other jobs while the stack is open.

        Raises:
            InvalidOption: it cannot be made or written, or a running job uses it.
        """
        stored = None if self._journal is None else self._journal.folder
        given = self._folder or stored
        place = None if given is None else str(Path(given).absolute())
        try:
            if place is None:
                # In a user's executor trials may still write after the job has ended.
                own = tempfile.TemporaryDirectory(prefix="gpbo-", ignore_cleanup_errors=True)
                return Path(stack.enter_context(own)).absolute()
            folder = Path(place)
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryDirectory(dir=folder).cleanup()  # tests that folders can be made
            if given is not stored:  # a stored job has a lock of its own
                lock = FileLock(folder / ".lock")
                stack.enter_context(lock.acquire(timeout=INHERITED_S))
        except Timeout as error:
            raise InvalidOption(
                f"folder={place!r}: another running job uses this folder; choose a different one"
            ) from error
        except OSError as error:
            raise InvalidOption(
                f"folder={place!r}: {error.strerror}: expected a folder to write in, "
                "which is made if needed"
            ) from error
        return folder

    def _resume(self) -> None:
        """Take over from the last driver or run: results not yet told, trials that were running."""
        for left in (self._ready, self._running, self._late):
            left.clear()
        self._chooser.begin()
        self._broken = False
        self._failures.end()
        if self._journal is None:
            self._ready.extend(self.optimizer.pending)
            return
        record = self._journal.read()
        self._began_at = time.monotonic() - max(0.0, time.time() - record.created_at)
        attempts = record.ended_attempts()
        known = zip(record.attempts, attempts, strict=True)
        interrupted = [ended for before, ended in known if ended is not before]
        for one in interrupted:
            end_abandoned(self._folder_of(one))
        self._write(attempts=interrupted)
        self._attempts = {attempt.trial: attempt for attempt in attempts}
        self._deaths = Counter(attempt.trial for attempt in attempts if _has_died(attempt))
        for metric in record.metrics:
            last = self._attempts.get(metric.trial)
            if last is not None and last.number == metric.attempt:
                self._curves[metric.trial][metric.step] = metric.value
        for trial in self.optimizer.pending:
            attempt = self._attempts.get(trial.id)
            if attempt is not None and attempt.value is not None and not attempt.late:
                self._notify_end(self._tell(attempt))
            else:
                self._ready.append(trial)
        self._write(ended="")

    def _loop(self, workers: Executor, engine: Engine) -> Stopped:
        while True:
            self._collect()
            self._follow()
            ended = self._ended()
            if ended is not None and not (ended == "no improvement" and self._running):
                return ended
            under_way = []
            if ended is None:
                running, ready = len(self._running), len(self._ready)
                self._ready.extend(self._chooser.advance(engine, running, ready))
                self._start(workers)
                under_way = self._chooser.under_way
            wait([*self._running, *under_way], _LOOK_S, FIRST_COMPLETED)

    def _ended(self) -> Stopped | None:
        """Why the job ends now, if it does."""
        if self._broken:
            return "broken"
        if self._journal is not None and self._journal.stop_requested():
            return "interrupted"
        self._finished += self.optimizer.history.ended_since(len(self._finished))
        elapsed = time.monotonic() - self._began_at
        running = (run.submitted_at for run in self._running.values())
        failed = 0 if self._to_begin <= 0 else self._failures.in_vain(running)
        finished = list(self._finished)
        reached = self.completion.reached(finished, self._sign, elapsed, failed)
        if reached is not None:
            return reached
        if self._running or (self._ready and self._room > 0):
            return None
        if self._chooser.left <= 0:
            return "budget"
        return "exhausted" if self._chooser.exhausted else None

    def _leave(self, stopped: Stopped) -> None:
        """Tell what ended; the rest stays pending, as do trials that died: maybe of the signal."""
        for future in [future for future in self._running if future.done()]:
            with suppress(KeyboardInterrupt):  # again, during a callback
                if not (outcome := _outcome(future)).died:
                    self._finish(future, outcome)
        now = time.time()
        last = [self._attempts[run.trial.id] for run in self._running.values()]
        ended = [
            one if one.ended_at is not None else replace(one, ended_at=now, reason=JOB_ENDED)
            for one in last
        ]
        for future, run in self._running.items():
            future.cancel()
            with suppress(OSError):  # asks trials in a user's executor to end
                (run.folder / STOP).touch()
        self._write(attempts=ended, ended=stopped)

    # --- the workers

    @property
    def _to_begin(self) -> int:
        """How many trials of the budget have neither ended nor run now; more may be pending."""
        ended = sum(not trial.added for trial in self._finished)
        return self.budget - ended - len(self._running)

    @property
    def _room(self) -> int:
        """How many more trials may run, by the free workers and the budget."""
        return min(self.execution.workers - len(self._running), self._to_begin)

    def _start(self, workers: Executor) -> None:
        """Give each free worker a trial."""
        while self._ready and self._room > 0:
            trial = self._ready.popleft()
            last = self._attempts.get(trial.id)
            busy = {run.attempt.worker for run in self._running.values()}
            attempt = Attempt(
                trial=trial.id,
                number=1 if last is None else last.number + 1,
                worker=min(set(range(self.execution.workers)) - busy),
                started_at=time.time(),
            )
            self._attempts[trial.id] = attempt
            self._curves.pop(trial.id, None)
            run = _Run(trial, attempt, self._folder_of(attempt))
            self._write(attempts=[attempt])
            if run.folder.exists():  # of another job: its results would count as this one's
                shutil.rmtree(run.folder)
            task = Task(
                self.objective,
                trial.id,
                attempt.number,
                trial.params,
                run.folder,
                attempt.worker,
                self.execution.time_limit_s,
            )
            try:
                self._running[workers.submit(evaluate, task)] = run
            except Exception as error:  # noqa: BLE001  broken, shut down, or a user's own
                self._not_run(attempt, f"{type(error).__name__}: {error}")
                return

    def _folder_of(self, attempt: Attempt) -> Path:
        return self._root / f"{attempt.trial:05}.{attempt.number}"

    def _not_run(self, attempt: Attempt, why: str) -> None:
        """Trials cannot be run: this one stays pending, and the job ends."""
        logger.error("trial %d was not run: %s", attempt.trial, why)
        reason = legible(f"{NOT_RUN}{why}")
        self._write(attempts=[replace(attempt, ended_at=time.time(), reason=reason)])
        self._broken = True

    def _collect(self) -> None:
        """Tell the results of trials that ended, and give up those that exceed the time limit."""
        for future in [future for future in self._running if future.done()]:
            error = None if future.cancelled() else future.exception()
            if isinstance(error, NotStarted):
                self._not_run(self._running.pop(future).attempt, str(error))
            else:
                self._finish(future, _outcome(future))
        for future in [future for future in self._late if future.done()]:
            self._keep_late(self._late.pop(future), _outcome(future))
        limit = self.execution.time_limit_s
        if self._executor is not None and limit is not None:
            self._give_up(limit, time.monotonic())

    def _give_up(self, limit: float, now: float) -> None:
        """Fail the trials that began longer ago than the limit; their executor cannot end them."""
        for future, run in list(self._running.items()):
            if run.seen_since is None and run.folder.exists():
                run.seen_since = now
            if run.seen_since is not None and now - run.seen_since > limit + _GRACE_S:
                if not future.cancel():
                    self._late[future] = run
                self._finish(future, Outcome.out_of_time(limit))

    def _keep_late(self, run: _Run, outcome: Outcome) -> None:
        """Record a result that came after its trial was given up; it changes nothing."""
        late = _with_outcome(run.attempt, outcome, self.optimizer.constraints, late=True)
        self._write(attempts=[late])

    def _finish(self, future: Future[Outcome], outcome: Outcome) -> None:
        """Tell a result, then remove the future: if Ctrl-C comes between, it is told again."""
        run, ended = self._running[future], None
        self._read_metrics(run)
        now = time.monotonic()
        self._busy_s += now - run.submitted_at
        self._chooser.pace.trial_took(now - run.submitted_at)
        if outcome.stopped and run.stopping is not None:
            outcome = replace(outcome, reason=run.stopping)
        attempt = _with_outcome(run.attempt, outcome, self.optimizer.constraints)
        self._attempts[run.trial.id] = attempt
        if attempt.value is not None:
            self._write(attempts=[attempt])
            ended = self._tell(attempt)
        elif outcome.died and self._deaths[run.trial.id] < self.execution.retries:
            self._write(attempts=[attempt])
            self._deaths[run.trial.id] += 1
            self._ready.appendleft(run.trial)
        else:
            # Before the attempt: a stored failed attempt does not say that no retry is due.
            ended = self.optimizer.fail(run.trial.id, attempt.reason)
            self._write(attempts=[attempt])
            if outcome.stopped:
                self._failures.end()
            else:
                self._failures.fail(now)
        del self._running[future]
        if ended is not None:
            self._notify_end(ended)

    def _tell(self, attempt: Attempt) -> Trial:
        self._failures.end()
        return self.optimizer.tell(attempt.trial, attempt.value, attempt.measured)

    def _notify_end(self, trial: Trial) -> None:
        tell(self._told, lambda callback: callback.ended(trial))

    def _write(
        self,
        *,
        attempts: Sequence[Attempt] = (),
        metrics: Sequence[Metric] = (),
        ended: str | None = None,
    ) -> None:
        if self._journal is not None:
            self._journal.write(attempts=attempts, metrics=metrics, ended=ended)

    # --- intermediate values

    def _follow(self) -> None:
        """Read what the trials reported, and stop those that the early stopping rule rejects."""
        rule = self.execution.early_stopping
        trials = [] if rule is None else self.optimizer.history.completed
        completed = [self._curves[trial.id] for trial in trials if trial.id in self._curves]
        for run in self._running.values():
            if self._read_metrics(run) and rule is not None and run.stopping is None:
                curve = self._curves[run.trial.id]
                why = rule.verdict(curve, completed, self._sign)
                if why is not None:
                    with suppress(OSError):  # tried again at its next report
                        (run.folder / STOP).touch()
                        run.stopping = why

    def _read_metrics(self, run: _Run) -> bool:
        """Whether the attempt reported something new."""
        told, run.metrics_read = read_reports(run.folder, run.metrics_read)
        metrics = [Metric(run.trial.id, run.attempt.number, *report) for report in told]
        if metrics:
            self._write(metrics=metrics)
        for metric in metrics:
            self._curves[metric.trial][metric.step] = metric.value
            self._notify_report(run.trial, metric)
        return bool(metrics)

    def _notify_report(self, trial: Trial, metric: Metric) -> None:
        tell(self._told, lambda one: one.reported(trial, metric.step, metric.value))


def _display(progress: bool) -> Sequence[Callback]:
    if not progress:
        return ()
    from gpbo.progress import Lines

    return (Lines(),)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Inside, a signal to terminate, or the end of the terminal, acts like Ctrl-C, unless the
    program has its own handler or ignores it (`nohup`)."""
    in_main = threading.current_thread() is threading.main_thread()
    numbers = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]  # Windows lacks one
    ours = [n for n in numbers if n and in_main and signal.getsignal(n) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: object) -> None:
    """Act like Ctrl-C. The end of a terminal is ignored from then on, since the shell may signal it
    again while the workers are being ended.
    """
    hangup = getattr(signal, "SIGHUP", None)
    if hangup and signal.getsignal(hangup) is _interrupt:
        signal.signal(hangup, signal.SIG_IGN)
    raise KeyboardInterrupt


def _has_died(attempt: Attempt) -> bool:
    """Whether a stored attempt that has ended counts towards the retries of its trial."""
    return (attempt.late or attempt.value is None) and not attempt.interrupted


def _outcome(future: Future[Outcome]) -> Outcome:
    """The outcome of a future of any executor; an exception is the executor's."""
    if future.cancelled():
        return Outcome(reason="the executor cancelled the trial", died=True)
    error = future.exception()
    if error is not None:
        return Outcome(reason=_told_by(error), died=True)
    return future.result()


def _told_by(error: BaseException) -> str:
    """Why an executor failed: its message, the cause, and the traceback from another process."""
    said, cause = f"{type(error).__name__}: {error}", error.__cause__
    if cause is None:
        return said
    raised = raised_there(cause)
    if raised is None:
        return f"{said}; {type(cause).__name__}: {cause}"
    return "; ".join(dict.fromkeys([said, raised])) + f"\n{cause}"


def _with_outcome(
    attempt: Attempt, outcome: Outcome, constraints: Sequence[Constraint], *, late: bool = False
) -> Attempt:
    """The attempt with its value, or why it has none."""
    if outcome.reason is not None:
        told = Told(None, reason=legible(outcome.reason))
    else:
        try:
            result = returned(outcome.value, constraints)
            told = result_told(f"trial {attempt.trial}: ", constraints, *result)
        except InvalidResult as error:
            told = Told(None, reason=str(error))
    return replace(attempt, ended_at=time.time(), late=late, **vars(told))
