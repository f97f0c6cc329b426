"""Where trials run on this machine: a process per worker, whose death fails only one trial."""

import functools
import io
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing.process import BaseProcess
from multiprocessing.resource_tracker import ensure_running
from pickle import PicklingError
from typing import Any, TypeVar

from cloudpickle import register_pickle_by_value
from loky import ProcessPoolExecutor
from loky.backend.utils import get_exitcodes_terminated_worker
from loky.process_executor import ShutdownExecutorError

from gpbo.attempt import Outcome
from gpbo.command import Command, end_left
from gpbo.worker import SPAWNED, NotStarted, Task, die_with, evaluate, evaluate_in_own_process

#: Trials share the cores; a library that starts a thread per core in each of them slows them all.
ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMEXPR_NUM_THREADS",
    ),
    "1",
)
#: loky restarts a process that has grown by 300 MB, which it considers a leak. But what the first
#: trial imports, such as torch, is that large, and would be imported again for every trial.
NO_LEAK_CHECK = {"LOKY_MAX_MEMORY_LEAK_SIZE": "1e18"}
#: Seconds that a trial has beyond its time limit, at which its own process ends its command.
_GRACE_S = 5.0
#: Seconds within which an idle process must answer.
_ANSWER_S = 60.0
#: Seconds between two checks that a process still lives while we wait for it.
_LOOK_S = 1.0

_NOT_STARTED = "no process could be started: "

_Cached = type(functools.lru_cache(lambda: None))

_T = TypeVar("_T")


def pool_of_one(**options: Any) -> ProcessPoolExecutor:
    """A pool whose one process is yet to be started.

    Args:
        options: Options of loky's `ProcessPoolExecutor`.

    Raises:
        NotStarted: the pool cannot be made.
    """
    _replace_closed_streams()
    if SPAWNED in sys.modules:
        register_pickle_by_value(sys.modules[SPAWNED])  # like `__main__`, which it stands for
    with _named():  # there may be no room for its semaphores, which are files
        return ProcessPoolExecutor(1, job_reducers={_Cached: _by_value}, **options)


def _replace_closed_streams() -> None:
    """Replace closed standard streams: the new process would die without their descriptors, and
    loky flushes them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: a file that is opened gets the lowest free number
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, _Nowhere())


def _by_value(cached: Any) -> Any:
    """How to pickle a function that `functools.lru_cache` wraps: by value if it is from a script,
    like all others of a script; by name if it is from a module.
    """
    if cached.__module__ not in ("__main__", SPAWNED):
        return cached.__qualname__
    return _cached, (cached.__wrapped__, cached.cache_parameters())


def _cached(function: Callable[..., Any], options: Mapping[str, Any]) -> Callable[..., Any]:
    return functools.lru_cache(**options)(function)


def start(pool: ProcessPoolExecutor) -> "Future[int]":
    """Start the process of a pool, if it does not run; the result is its id once it runs.

    Raises:
        NotStarted: it cannot be started.
    """
    with _named(), _interrupts_blocked():
        return pool.submit(os.getpid)


def end(pool: ProcessPoolExecutor) -> None:
    """Kill the process of a pool, if it runs."""
    process, results = _process_of(pool), pool._result_queue
    thread = pool._executor_manager_thread
    try:
        pool.shutdown(wait=False, kill_workers=True)
        if thread is not None:
            thread.join(_LOOK_S)
    except RuntimeError:  # the thread that would wait for the process cannot be started
        if process is not None:
            process.terminate()
            process.join()
        return
    if thread is not None and thread.is_alive():
        results._writer.close()  # a process was killed with half a result told: loky waits for more
        thread.join()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block Ctrl-C, which also reaches the process being started, until that process ignores it."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    ensure_running()  # first, as loky starts multiprocessing's tracker, which unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _named() -> Iterator[None]:
    """Turn the errors of starting a process into `NotStarted`."""
    try:
        yield
    except (BrokenExecutor, ShutdownExecutorError):  # it had started
        raise
    except Exception as error:  # the system's, or loky's
        raise NotStarted(f"{_NOT_STARTED}{type(error).__name__}: {error}") from error


class _Nowhere(io.TextIOBase):
    """Stands for a missing standard stream."""

    def write(self, text: str) -> int:
        return len(text)


class LocalWorkers(Executor):
    """Runs trials in worker processes of this machine: loky pools of one process each.

    So a process that crashes, or is killed (also by the time limit), fails only one trial, and its
    worker gets a new process. The processes are spawned, never forked, and end with the process
    that drives them.

    Args:
        workers: How many trials run at a time.
        gpus: The devices that the workers get in turn, one each, as ``CUDA_VISIBLE_DEVICES``.
        env: Further environment variables for the workers.
    """

    def __init__(
        self, workers: int, gpus: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> None:
        self._env = [
            {
                **ONE_THREAD,
                **NO_LEAK_CHECK,
                **({"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {}),
            }
            | dict(env or {})
            for i in range(workers)
        ]
        self._pools: list[ProcessPoolExecutor | None] = [None] * workers
        self._commands: dict[int, int] = {}  # the processes that run a command, by worker
        self._lock = threading.Lock()
        self._command_ended = threading.Condition(self._lock)
        self._closed = False
        # A thread per process waits for it, and notices when its time is up.
        self._threads = [ThreadPoolExecutor(1, f"gpbo-worker-{i}") for i in range(workers)]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``fn(task)``, with the time limit of the task, in the process of its worker.

        The future raises `NotStarted` if the process cannot be started, or cannot load the task.
        """
        (task,) = args
        return self._threads[task.worker].submit(self._run, fn, task)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers; running trials are killed, commands as at their time limit."""
        for thread in self._threads:
            thread.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._closed = True
            pools, self._pools = self._pools, [None] * len(self._pools)
        try:
            self._end_commands()
        finally:  # an interrupt skips waiting for the commands
            for pool in pools:
                if pool is not None:
                    end(pool)
        for thread in self._threads:
            thread.shutdown(wait=wait)

    def _end_commands(self) -> None:
        """Let the processes that run a command end it, with all that it started."""
        with self._lock:
            for process in self._commands.values():
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGTERM)
            self._command_ended.wait_for(lambda: not self._commands, _GRACE_S)

    def _run(self, fn: Callable[..., Any], task: Task) -> Outcome:
        if fn is evaluate:
            fn = evaluate_in_own_process
        is_command = isinstance(task.objective, Command)
        limit = math.inf if task.time_limit_s is None else task.time_limit_s
        limit += _GRACE_S if is_command else 0.0
        try:
            pool, process = self._started(task.worker)  # does not count as the trial's time
            with self._noted(task, process) if is_command else nullcontext():
                outcome: Outcome = _awaited(pool, pool.submit(fn, task), limit)
            return outcome
        except NotStarted:
            self._discard(task.worker)
            raise
        except PicklingError as error:
            raise NotStarted(
                f"the objective cannot be pickled for its process{_raised(error)}; create what it "
                "uses inside the function, or in a module that it imports"
            ) from error
        except TimeoutError:
            self._discard(task.worker)
            return Outcome.out_of_time(task.time_limit_s or 0.0)
        except (BrokenExecutor, ShutdownExecutorError) as error:
            self._discard(task.worker)
            if "task has failed to un-serialize" in str(error):  # loky's message
                raise NotStarted(
                    f"the process of the trial cannot unpickle the objective{_raised(error)}; "
                    "define what it uses in a module that it imports"
                ) from error
            if "result has failed to un-serialize" in str(error):
                return Outcome(
                    reason=f"what the objective returned cannot be unpickled{_raised(error)}; "
                    "return numbers, or what is defined in a module that the job imports too"
                )
            return Outcome(reason="the process of the trial died" + _code(error), died=True)

    @contextmanager
    def _noted(self, task: Task, process: int) -> Iterator[None]:
        """Inside, the worker's process runs a command, which ends even if the process is killed."""
        with self._lock:
            self._commands[task.worker] = process
        try:
            yield
        finally:
            end_left(task.folder)
            with self._lock:
                del self._commands[task.worker]
                self._command_ended.notify_all()

    def _started(self, worker: int) -> tuple[ProcessPoolExecutor, int]:
        """The pool of this worker and its process: a new one if the last died, or hangs while idle.

        Raises:
            NotStarted: a process cannot be started, or the new one died, too.
        """
        pool = self._pool(worker)
        limit = _ANSWER_S if _process_of(pool) is not None else math.inf
        try:
            return pool, _awaited(pool, start(pool), limit)
        except NotStarted:
            raise
        except (BrokenExecutor, ShutdownExecutorError, TimeoutError):
            self._discard(worker)
            pool = self._pool(worker)
            answer = start(pool)
            try:
                return pool, _awaited(pool, answer)
            except BrokenExecutor as error:  # before any trial ran in it
                raise NotStarted(f"{_NOT_STARTED}it died at once{_code(error)}") from error

    def _pool(self, worker: int) -> ProcessPoolExecutor:
        with self._lock:
            if self._closed:
                raise ShutdownExecutorError("the workers were shut down")
            pool = self._pools[worker]
            if pool is None:
                pool = pool_of_one(
                    env=self._env[worker], initializer=die_with, initargs=(os.getpid(),)
                )
                self._pools[worker] = pool
            return pool

    def _discard(self, worker: int) -> None:
        with self._lock:
            pool, self._pools[worker] = self._pools[worker], None
        if pool is not None:
            end(pool)


def _process_of(pool: ProcessPoolExecutor) -> BaseProcess | None:
    """The one process of a pool; None before it is started, and after loky saw it die."""
    return next(iter(list(pool._processes.values())), None)


def _awaited(pool: ProcessPoolExecutor, future: "Future[_T]", limit: float = math.inf) -> _T:
    """The result of a future of the pool.

    loky notices the death of a process by a pipe that closes, but a child that the process forked
    holds the pipe open; so this function also checks whether the process lives.

    Raises:
        BrokenExecutor: the process died.
        TimeoutError: it took longer than the limit, in seconds; those in which this process was
            stopped hardly count.
    """
    process = _process_of(pool)
    now, left, dead = time.monotonic(), limit, False
    while not wait([future], look := min(_LOOK_S, left)).done:
        if dead:  # since the last check: loky had time to report it, or a result
            raise BrokenExecutor(get_exitcodes_terminated_worker({0: process}))
        before, now = now, time.monotonic()
        stopped = now - before > look + _LOOK_S  # as by Ctrl-Z, and so was loky
        left -= look if stopped else now - before
        if left <= 0 and not (stopped and wait([future], _LOOK_S).done):
            raise TimeoutError
        dead = process is not None and process.exitcode is not None
    return future.result()


def raised_there(cause: BaseException | None) -> str | None:
    """What another process raised, if an error's cause is its traceback as text; else None."""
    raised = re.findall(r"^ .*\n(\w.*)", str(cause), re.MULTILINE)  # after the lines of frames
    return raised[-1] if raised else None


def _raised(error: Exception) -> str:
    raised = raised_there(error.__cause__)
    return "" if raised is None else f": {raised}"


def _code(error: Exception) -> str:
    """The exit code, which is in braces in loky's long message."""
    code = re.search(r"\{(.+?)\}", str(error))
    return f": {code[1]}" if code else ""
