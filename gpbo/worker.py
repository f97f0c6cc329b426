"""What runs where a trial runs: the objective, its log, its metrics. Loads no tensor stack.

Every attempt has a folder: ``log.txt`` is what it printed, ``metrics.jsonl`` what it reported, and
a file ``stop`` in it asks the attempt to end. So any worker that sees the folder will do, whatever
started it.
"""

import contextlib
import importlib
import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpbo.errors import InvalidOption
from gpbo.trial import reason_of

LOG, METRICS, STOP = "log.txt", "metrics.jsonl", "stop"

#: Seconds between two looks at a running command, and at whether the driver is alive.
_LOOK_S = 0.1
#: Seconds that a command has to end after it was told to.
_GRACE_S = 2.0
#: How much of a log is read before the next look at the command and the clock.
_CHUNK_BYTES = 1 << 20
#: How much of a command's last line is kept as the reason of a failed trial.
_LINE_BYTES = 1000
#: What reading a line raises that tells no value.
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
#: Steps are stored as whole numbers of 64 bits.
_LARGEST_STEP = 2**63 - 1

#: The commands that run now, to be ended if this process has to end.
_running: set["subprocess.Popen[bytes]"] = set()


class TrialStopped(Exception):
    """Raised by `RunningTrial.report` in a trial that is to end early; do not catch it."""


@dataclass(frozen=True)
class RunningTrial:
    """A trial as its objective sees it.

    Attributes:
        id: Its number within the job.
        params: The configuration.
        attempt: Which attempt at the trial this is, from 1.
        folder: For whatever the objective wants to keep; its log is there, too.
    """

    id: int
    params: Mapping[str, Any]
    attempt: int
    folder: Path

    def report(self, step: int, value: float) -> None:
        """Tell an intermediate value of what is optimized, such as the loss after an epoch.

        Args:
            step: How far the trial has come; a step reported again replaces the value.
            value: With the sign of the objective's.

        Raises:
            TrialStopped: the job decided to stop this trial early.
            InvalidOption: the step is no whole number of 64 bits.
        """
        with (self.folder / METRICS).open("a") as file:
            file.write(json.dumps({"step": _step(step), "value": float(value)}) + "\n")
        if (self.folder / STOP).exists():
            raise TrialStopped(f"stopped at step {step}")


@dataclass(frozen=True)
class Imported:
    """The function ``module:function``, imported where it runs.

    Args:
        target: Its name.
        folder: Where modules are looked for first; by default the current one.

    Raises:
        InvalidOption: the name has another form.
    """

    target: str
    folder: Path | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", self.target):
            raise InvalidOption(f"objective={self.target!r}: expected 'module:function'")

    def load(self) -> Callable[..., Any]:
        """The function itself."""
        module, _, name = self.target.partition(":")
        folder = str(self.folder or Path.cwd())
        if folder not in sys.path:
            sys.path.insert(0, folder)
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return function


@dataclass(frozen=True)
class Command:
    """A command line, which prints the value; the last one counts.

    The trial fails if the command ends with a status other than 0 or prints no value.

    Args:
        template: Such as ``"python train.py --lr {lr}"``; ``{name}`` stands for a parameter, and
            ``{{`` and ``}}`` for braces. It is split into arguments as a shell does, but no shell
            runs it.
        metric: A regular expression that finds the value in a line: in its group ``value``, or the
            first group that is not ``step``; a group ``step`` has the step. By default the value
            is ``"value"`` in a line that is a JSON object, and the step its ``"step"``. Values with
            a step are intermediate ones; the last of them is the result if no line has a value
            without one.
        folder: Where it runs; by default the current folder.

    Raises:
        InvalidOption: the template cannot be split, or the expression has no group for the value.
    """

    template: str
    metric: str | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        for name, text in (("command", self.template), ("metric", self.metric)):
            if not isinstance(text, str) and (name == "command" or text is not None):
                raise InvalidOption(f"{name}={text!r}: expected text")
        try:
            words = shlex.split(self.template)
        except ValueError as error:
            raise InvalidOption(f"command={self.template!r}: {error}") from error
        if not words:
            raise InvalidOption(f"command={self.template!r}: expected a program and arguments")
        if self.metric is not None:
            try:
                pattern = re.compile(self.metric)
            except re.error as error:
                raise InvalidOption(f"metric={self.metric!r}: {error}") from error
            if _value_group(pattern) is None:
                raise InvalidOption(
                    f"metric={self.metric!r}: expected a group in parentheses for the value"
                )

    def arguments(self, params: Mapping[str, Any]) -> list[str]:
        """The program and its arguments for a configuration.

        Raises:
            InvalidOption: the template names something that is no parameter, or formats a value as
                it cannot be.
        """
        try:
            return [word.format_map(params) for word in shlex.split(self.template)]
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            names = ", ".join(params)
            raise InvalidOption(
                f"command={self.template!r}: {error}: expected {{name}} with a name of: {names}"
            ) from error

    def reading(self, line: str) -> tuple[int | None, float] | None:
        """The step, if it has one, and the value that a line of output tells; None if none."""
        try:
            if self.metric is None:
                told = json.loads(line)
                step, value = told.get("step"), told["value"]
            else:
                pattern = re.compile(self.metric)
                found = pattern.search(line)
                if found is None:
                    return None
                number, value = found.groupdict().get("step"), found[_value_group(pattern) or 0]
                step = None if number is None else int(number)
            if isinstance(value, bool):
                return None
            return None if step is None else _step(step), float(value)
        except _UNREADABLE:
            return None


def _value_group(pattern: re.Pattern[str]) -> int | None:
    """Which group has the value; None if none can."""
    step = pattern.groupindex.get("step")
    others = (group for group in range(1, pattern.groups + 1) if group != step)
    return pattern.groupindex.get("value", next(others, None))


def reported(line: bytes) -> tuple[int, float] | None:
    """The step and the value that a line of the file of metrics tells; None if it is none."""
    try:
        told = json.loads(line)
        return _step(told["step"]), float(told["value"])
    except _UNREADABLE:
        return None


def _step(given: Any) -> int:
    """A step, as it can be stored.

    Raises:
        InvalidOption: no whole number of 64 bits.
    """
    try:
        step = int(given)
        whole = step == given and not isinstance(given, bool)
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole or not -_LARGEST_STEP <= step <= _LARGEST_STEP:
        raise InvalidOption(f"step={given!r}: expected a whole number of 64 bits")
    return step


Objective = Callable[..., Any] | Imported | Command


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


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt: a value, or why there is none.

    Attributes:
        stopped: Whether the job ended it.
        died: Whether it died or ran out of time, so that another attempt may do better.
    """

    value: Any = None
    reason: str | None = None
    stopped: bool = False
    died: bool = False

    @classmethod
    def out_of_time(cls, limit_s: float) -> "Outcome":
        """Of an attempt that exceeded its limit."""
        return cls(reason=f"the time limit of {limit_s:g} s was reached", died=True)


def evaluate(task: Task) -> Outcome:
    """Run one attempt; whatever the objective does short of ending the process is an outcome."""
    task.folder.mkdir(parents=True, exist_ok=True)
    try:
        if isinstance(task.objective, Command):
            return _run_command(task, task.objective)
        objective = task.objective
        if isinstance(objective, Imported):
            objective = objective.load()
        trial = RunningTrial(task.trial, dict(task.params), task.attempt, task.folder)
        given = (dict(task.params), trial) if _takes_trial(objective) else (dict(task.params),)
        return Outcome(objective(*given))
    except TrialStopped as stopped:
        return Outcome(reason=str(stopped), stopped=True)
    except KeyboardInterrupt:
        return Outcome(reason="interrupted")
    except (Exception, SystemExit) as error:  # noqa: BLE001  whatever it raises, the trial failed
        return Outcome(reason=reason_of(error))


def evaluate_in_own_process(task: Task) -> Outcome:
    """`evaluate` in a process that does nothing else: all that it prints goes to the log."""
    task.folder.mkdir(parents=True, exist_ok=True)
    with _output_to(task.folder / LOG):
        return evaluate(task)


def die_with(driver: int) -> None:
    """End this process, and its command, when its driver is gone, however that ended."""

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(10 * _LOOK_S)
        for command in list(_running):
            _end_group(command)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    # Ctrl-C in a terminal reaches the whole group; the driver decides what becomes of the trials.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _takes_trial(objective: Callable[..., Any]) -> bool:
    """Whether the function takes the running trial after the configuration."""
    try:
        parameters = inspect.signature(objective).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in parameters if p.kind in positional and p.default is p.empty]
    return len(needed) == 2


def _run_command(task: Task, command: Command) -> Outcome:
    reader = _Reader(command, task.folder)
    with (task.folder / LOG).open("ab") as output:
        try:
            process = subprocess.Popen(
                command.arguments(task.params),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
                cwd=command.folder,
            )
        except OSError as error:
            return Outcome(reason=f"the command did not start: {error}")
    deadline = None if task.time_limit_s is None else time.monotonic() + task.time_limit_s
    behind = False
    _running.add(process)
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0 if behind else _LOOK_S)
                break
            behind = reader.read()
            if (task.folder / STOP).exists():
                return Outcome(reason="stopped by the job", stopped=True)
            if deadline is not None and time.monotonic() > deadline:
                return Outcome.out_of_time(task.time_limit_s or 0.0)
    finally:
        _end_group(process)
        _running.discard(process)
    reader.finish()
    if process.returncode:
        reason = ": ".join([f"the command ended with {process.returncode}", *reader.last_line])
        return Outcome(reason=reason, died=process.returncode < 0)
    if reader.value is None:
        return Outcome(reason="the command printed no value")
    return Outcome(reader.value)


class _Reader:
    """Follows the log of a command: reports what has a step, remembers the last value."""

    def __init__(self, command: Command, folder: Path) -> None:
        self.value: float | None = None
        self.last_line: list[str] = []
        self._command = command
        self._folder = folder
        self._final = False
        # An attempt may be run again, by an executor that lost its worker.
        log = folder / LOG
        self._offset = log.stat().st_size if log.exists() else 0
        self._rest = b""
        # To read JSON takes a hundred times as long as to see that a line has none.
        self._needed = b'"value"' if command.metric is None else b""

    def read(self) -> bool:
        """Read on, so much at most that it takes no time; whether there may be more."""
        with (self._folder / LOG).open("rb") as file:
            file.seek(self._offset)
            news = file.read(_CHUNK_BYTES)
        self._offset += len(news)
        text = self._rest + news
        # The last line may not be complete yet.
        end = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
        self._rest = text[end:]
        self._take(text[:end])
        return len(news) == _CHUNK_BYTES

    def finish(self) -> None:
        """Read all that is left, to the end of a last line that has no end."""
        while self.read():
            pass
        self._take(self._rest)

    def _take(self, text: bytes) -> None:
        if self._needed in text:
            for line in text.splitlines():
                if self._needed in line:
                    self._note(self._command.reading(line.decode(errors="replace")))
        last = text[-_LINE_BYTES:].decode(errors="replace").strip()
        if last:
            self.last_line = last.splitlines()[-1:]

    def _note(self, reading: tuple[int | None, float] | None) -> None:
        if reading is None:
            return
        step, value = reading
        if step is None or not self._final:
            self.value, self._final = value, step is None
        if step is not None:
            with (self._folder / METRICS).open("a") as file:
                file.write(json.dumps({"step": step, "value": value}) + "\n")


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    """End a command, if it has not ended, and what it started: politely, then not."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # none of them is left
        os.killpg(process.pid, signal.SIGTERM)
        until = time.monotonic() + _GRACE_S
        while time.monotonic() < until:
            process.poll()  # or the ended command counts as left
            os.killpg(process.pid, 0)
            time.sleep(_GRACE_S / 100)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Everything printed inside goes to the file, by Python or by a library below it.

    Whatever becomes of Python's streams in there, they are whole again afterwards.
    """
    _flush()
    saved = os.dup(1), os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        _flush()
        for number, (name, copy) in enumerate(zip(("stdout", "stderr"), saved, strict=True), 1):
            os.dup2(copy, number)
            os.close(copy)
            stream = getattr(sys, name)
            if stream is None or stream.closed:
                setattr(sys, name, os.fdopen(number, "w", buffering=1, closefd=False))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # none, closed, or broken
            stream.flush()
