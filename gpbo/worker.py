"""The worker's side of a trial: runs the objective and logs its output. Does not import torch."""

import contextlib
import functools
import importlib
import inspect
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

import psutil
from loky.backend.reduction import dumps

from gpbo.attempt import LOG, STOP, Outcome, write_report
from gpbo.checks import as_number
from gpbo.command import Command, end_all, run_command
from gpbo.constraints import Returned
from gpbo.errors import InvalidOption
from gpbo.text import reason_of

__all__ = [
    "Command",
    "Imported",
    "NotStarted",
    "Objective",
    "Outcome",
    "RunningTrial",
    "Task",
    "TrialStopped",
    "die_with",
    "evaluate",
    "evaluate_in_own_process",
]

#: `multiprocessing`'s name for a script in a process that it spawned, where it is `__main__` too.
SPAWNED = "__mp_main__"
#: Seconds between two checks that the driver is alive.
_LOOK_S = 1.0
#: By name, streams in place of Python's own: one that nobody holds would close its buffer, which
#: another one may write to.
_to_descriptor: dict[str, TextIO] = {}


class NotStarted(BrokenExecutor):
    """A trial was not started: it has no process, or its process cannot load the objective."""


class TrialStopped(Exception):
    """Raised by `RunningTrial.report` in a trial that is stopped early; do not catch it."""


@dataclass(frozen=True)
class RunningTrial:
    """A trial as its objective sees it.

    Attributes:
        id: Its number within the job.
        params: The configuration.
        attempt: Which attempt at the trial this is, from 1.
        folder: For files that the objective wants to keep; the log is there, too.
    """

    id: int
    params: Mapping[str, Any]
    attempt: int
    folder: Path

    def report(self, step: int, value: float) -> None:
        """Report an intermediate value of the objective, such as the loss after an epoch.

        Args:
            step: How far the trial has come; reporting a step again replaces its value.
            value: With the objective's sign; may be NaN or infinite.

        Raises:
            TrialStopped: the job decided to stop this trial early.
            InvalidOption: the step is not a whole number of 64 bits.
            InvalidResult: the value is not one real number.
        """
        write_report(self.folder, step, as_number("value", value))
        if (self.folder / STOP).exists():
            raise TrialStopped(f"stopped at step {step}")


@dataclass(frozen=True)
class Imported:
    """The function ``module:function``, imported where it runs.

    Args:
        target: Its name, ``"module:function"``.
        folder: Where modules are looked for first; by default the current folder.

    Raises:
        InvalidOption: the name has another form.
    """

    target: str
    folder: Path | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", self.target):
            raise InvalidOption(f"objective={self.target!r}: expected 'module:function'")

    def load(self) -> Callable[..., Any]:
        """The function itself.

        Raises:
            TypeError: the object of this name cannot be called.
        """
        function: Callable[..., Any] = getattr(self.module(), self.target.partition(":")[2])
        if not callable(function):
            raise TypeError(f"{function!r} cannot be called")
        return function

    def module(self) -> ModuleType:
        """The module that it is in."""
        with contextlib.suppress(FileNotFoundError):  # an earlier trial removed where it had gone
            folder = str(self.folder or Path.cwd())
            if folder not in sys.path:
                sys.path.insert(0, folder)
        return importlib.import_module(self.target.partition(":")[0])


Objective = (
    Callable[[dict[str, Any]], Returned]
    | Callable[[dict[str, Any], RunningTrial], Returned]
    | Imported
    | Command
)


@dataclass(frozen=True)
class Task:
    """One attempt at a trial, to be sent to a worker."""

    objective: Objective
    trial: int
    attempt: int
    params: Mapping[str, Any]
    folder: Path
    worker: int = 0
    time_limit_s: float | None = None


def evaluate(task: Task) -> Outcome:
    """Run one attempt; whatever the objective does, short of ending the process, is an outcome.

    Raises:
        NotStarted: the objective has to be imported, and cannot be.
    """
    task.folder.mkdir(parents=True, exist_ok=True)
    try:
        if isinstance(task.objective, Command):
            return run_command(task.objective, task.params, task.folder, task.time_limit_s)
        objective = task.objective
        if isinstance(objective, Imported):
            objective = _loaded(objective)
        _settle(objective)
        trial = RunningTrial(task.trial, dict(task.params), task.attempt, task.folder)
        given = (dict(task.params), trial) if takes_trial(objective) else (dict(task.params),)
        return Outcome(objective(*given))
    except NotStarted:
        raise
    except TrialStopped as stopped:
        return Outcome(reason=str(stopped), stopped=True)
    except KeyboardInterrupt:
        return Outcome(reason="interrupted", died=True)
    except BaseException as error:  # noqa: BLE001  whatever it raises, the trial failed
        return Outcome(reason=reason_of(error))


def _loaded(imported: Imported) -> Callable[..., Any]:
    """The imported function.

    Raises:
        NotStarted: it cannot be imported, which is not the fault of a configuration.
    """
    try:
        return imported.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        why = f"objective={imported.target!r} cannot be loaded: {reason_of(error)}"
        raise NotStarted(why) from error


def evaluate_in_own_process(task: Task) -> Outcome:
    """`evaluate` in a process that does nothing else: all its output goes to the log."""
    task.folder.mkdir(parents=True, exist_ok=True)
    is_command = isinstance(task.objective, Command)
    with (
        _output_to(task.folder / LOG),
        _ending_commands() if is_command else contextlib.nullcontext(),
    ):
        outcome = _sendable(evaluate(task))
    if outcome.reason is not None and not is_command:
        # The folder may be gone, or the disk full.
        with (
            contextlib.suppress(OSError),
            (task.folder / LOG).open("a", encoding="utf-8", errors="replace") as log,
        ):
            print(outcome.reason, file=log)
    return outcome


def _sendable(outcome: Outcome) -> Outcome:
    """The outcome; a failure, which is not retried, if it cannot be pickled for the driver."""
    try:
        dumps(outcome)
    except Exception as error:  # noqa: BLE001  whatever its value raises
        return Outcome(reason=f"what the objective returned cannot be pickled: {reason_of(error)}")
    return outcome


def die_with(driver: int) -> None:
    """End this process, and all that it started, when its driver has ended, in whatever way."""

    # On Windows a process keeps the id of a dead parent, which may have a new owner by then.
    process = psutil.Process(driver) if os.name == "nt" else None

    def watch() -> None:
        while os.getppid() == driver if process is None else process.is_running():
            time.sleep(_LOOK_S)
        try:
            end_all()
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    child.kill()
        finally:
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    # Ctrl-C and Ctrl-\ in a terminal, and its end, reach the whole process group, but the driver
    # decides what becomes of the trials. Commands would inherit SIG_IGN, but not a handler.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):  # it was blocked until now
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    for name in ("SIGHUP", "SIGQUIT"):
        number = getattr(signal, name, None)  # Windows has neither
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda number, frame: None)
    # A process that ignores SIGCHLD, which is inherited, does not learn how its children ended: the
    # status of a command that failed would be 0.
    if hasattr(signal, "SIGCHLD") and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _settle(objective: Callable[..., Any]) -> None:
    """Make a process that loky started behave like an ordinary one."""
    # loky leaves its own start method as the default, which does not work for processes of
    # `multiprocessing`, such as those of torch's data loaders.
    if str(multiprocessing.get_start_method(allow_none=True)).startswith("loky"):
        multiprocessing.set_start_method(None, force=True)
    # A function of a script is sent by value, with what it uses. To be pickled, or found by another
    # process, these have to be in the main module, which is loky's.
    while isinstance(objective, functools.partial):
        objective = objective.func
    used = getattr(inspect.unwrap(objective), "__globals__", None)
    used = getattr(type(objective).__call__, "__globals__", {}) if used is None else used
    main = vars(sys.modules["__main__"])
    if used.get("__name__") in ("__main__", SPAWNED) and used is not main:
        sys.modules[SPAWNED] = sys.modules["__main__"]
        main.update({name: used[name] for name in used if not name.startswith("__")})
        _have_spawned_processes_load(used.get("__file__"), used.get("__package__"))


def _have_spawned_processes_load(script: str | None, package: str | None) -> None:
    """Make processes that `multiprocessing` spawns from here load the objective's main module.

    It is given by the name of a module, or the path of a script; a notebook has neither, and
    another machine may lack the file.
    """
    if script is not None and Path(script).is_file():
        main = sys.modules["__main__"]
        main.__file__ = script
        main.__spec__ = ModuleSpec(f"{package}.{Path(script).stem}", None) if package else None


def takes_trial(objective: Callable[..., Any]) -> bool:
    """Whether the function takes the running trial after the configuration."""
    try:
        parameters = inspect.signature(objective).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = [p for p in parameters if p.kind in positional]
    needed = [p for p in given if p.default is p.empty]
    return len(needed) == 2 or [p.name for p in given[1:2]] == ["trial"]


@contextlib.contextmanager
def _ending_commands() -> Iterator[None]:
    """Inside, a signal to terminate this process first ends its command and all that it started."""

    def end(number: int, frame: object) -> None:
        end_all()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    # A command would inherit SIG_IGN, but not a handler.
    handlers = {signal.SIGTERM: end, signal.SIGINT: lambda number, frame: None}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Everything printed inside goes to the file, by Python or by a library below it.

    Python's streams are restored afterwards, whatever happened to them inside.
    """
    _flush()
    with log.open("ab") as file:
        saved = os.dup(1), os.dup(2)
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
    _write_to_descriptors()
    try:
        yield
    finally:
        _flush()
        for number, copy in enumerate(saved, 1):
            os.dup2(copy, number)
            os.close(copy)
        _write_to_descriptors()


def _write_to_descriptors() -> None:
    """Make Python's streams write to descriptors 1 and 2, in UTF-8, unless they were replaced.
    Those that Python makes for a Windows console can write to nothing else.
    """
    for number, name in enumerate(("stdout", "stderr"), 1):
        stream = getattr(sys, name)
        gone = stream is None or getattr(stream, "closed", False)
        if gone or stream is getattr(sys, f"__{name}__"):
            _to_descriptor[name] = os.fdopen(
                number, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False
            )
            setattr(sys, name, _to_descriptor[name])


def _flush() -> None:
    for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # none, closed, or broken
            getattr(sys, name).flush()
