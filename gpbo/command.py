"""Commands as objectives: their arguments, how they run, and the values in their output."""

import contextlib
import json
import math
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

import psutil

from gpbo.attempt import LOG, PROCESS, STOP, UNREADABLE, Outcome, as_step, write_report
from gpbo.errors import InvalidOption

#: Seconds between two checks of a running command.
_LOOK_S = 0.1
#: Seconds that a command has to end after SIGTERM.
_GRACE_S = 2.0
#: Seconds between the start of a command and the writing of its process id, at most.
_NOTED_S = 10.0
#: How much of a log is read between two checks of the command and the clock.
_CHUNK_BYTES = 1 << 20
#: How much of a command's last line is kept as the reason of a failed trial.
_LINE_BYTES = 1000

_DECODER = json.JSONDecoder()

#: The running commands, to be ended if this process has to end.
_running: set["subprocess.Popen[bytes]"] = set()


class _Filled(Formatter):
    """Looks a whole name up as a parameter first, since ``{opt.lr}`` may be one."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The value of this name, and the name."""
        if field_name in kwargs:
            return kwargs[field_name], field_name
        return super().get_field(field_name, args, kwargs)


_FILLED = _Filled()

#: What a shell takes literally, and a word that begins like one of its operators.
_QUOTED = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*\"""")
_OPERATOR = re.compile(r"(?<!\S)\d*[<>|&;]\S*")


@dataclass(frozen=True)
class Command:
    """A command line that prints the value; the last line with one counts.

    The trial fails if the command ends with a status other than 0 or prints no value.

    Args:
        template: Such as ``"python train.py --lr {lr}"``; ``{name}`` stands for a parameter, and
            ``{{`` and ``}}`` for braces. It is split into arguments as a shell does, but no shell
            runs it.
        metric: A regular expression that finds the value in a line: in its group ``value``, or the
            first group that is not ``step``; a group ``step`` has the step. By default the value
            is ``"value"`` in a line that ends with a JSON object, and the step its ``"step"``.
            Values with a step are intermediate ones; the last of them is the result if no line has
            a value without one.
        folder: Where it runs; by default the current folder.
        measured: Names of quantities that are measured with the value: they are looked for in lines
            that end with a JSON object, with or without the value, and the last ones count. A
            `gpbo.Tuner` fills in those of its constraints.

    Raises:
        InvalidOption: the template cannot be split or has a shell operator, or the expression has
            no group for the value.
    """

    template: str
    metric: str | None = None
    folder: Path | None = None
    measured: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, text in (("command", self.template), ("metric", self.metric)):
            if not isinstance(text, str) and (name == "command" or text is not None):
                raise InvalidOption(f"{name}={text!r}: expected a string")
        try:
            words = shlex.split(self.template)
        except ValueError as error:
            raise InvalidOption(f"command={self.template!r}: {error}") from error
        if not words:
            raise InvalidOption(f"command={self.template!r}: expected a program and arguments")
        if found := _OPERATOR.search(_QUOTED.sub("_", self.template)):
            raise InvalidOption(
                f"command={self.template!r}: no shell runs the command, so {found[0]!r} has no "
                "special meaning: put it in quotes, or run the whole command with `sh -c '...'`"
            )
        if self.metric is not None:
            try:
                pattern = re.compile(self.metric)
            except re.error as error:
                raise InvalidOption(
                    f"metric={self.metric!r}: expected a regular expression: {error}"
                ) from error
            if _value_group(pattern) is None:
                raise InvalidOption(
                    f"metric={self.metric!r}: expected a group in parentheses for the value"
                )

    def arguments(self, params: Mapping[str, Any]) -> list[str]:
        """The program and its arguments for a configuration.

        Raises:
            InvalidOption: the template names something that is not a parameter, or has a format
                that does not fit a value.
        """
        try:
            return [_FILLED.vformat(word, (), params) for word in shlex.split(self.template)]
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            names = ", ".join(params)
            raise InvalidOption(
                f"command={self.template!r}: {error}: expected in braces one of {names}, "
                "with a format that fits its values (write {{ and }} for literal braces)"
            ) from error

    def reading(self, line: str) -> tuple[int | None, float] | None:
        """The step, None without one, and the value in a line of output; None if it has none."""
        try:
            if self.metric is None:
                told = _object(line)
                step, value = told.get("step"), told["value"]
                if value is None:  # standard JSON has no NaN, so encoders write null
                    value = math.nan
            else:
                pattern = re.compile(self.metric)
                found = pattern.search(line)
                if found is None:
                    return None
                number, value = found.groupdict().get("step"), found[_value_group(pattern) or 0]
                step = None if number is None else int(number)
            if isinstance(value, bool):
                return None
            return None if step is None else as_step(step), float(value)
        except UNREADABLE:
            return None

    def quantities(self, line: str) -> dict[str, Any]:
        """The measured quantities in a line of output."""
        with contextlib.suppress(*UNREADABLE):
            told = _object(line)
            return {name: told[name] for name in self.measured if name in told}
        return {}


def _object(line: str) -> Any:
    """The JSON object that a line ends with: a progress bar, say, may precede it in the line."""
    text = line.rstrip()
    # Not from every brace: each failed attempt reads far, which would take quadratic time.
    for brace in re.finditer(r'{\s*["}]', text if text.endswith("}") else ""):
        with contextlib.suppress(ValueError):
            found, end = _DECODER.raw_decode(text, brace.start())
            if end == len(text):
                return found
    raise ValueError("no JSON object at the end")


def check_can_be_ended(command: Command) -> None:
    """Check that this system can end a command with all that it started.

    Raises:
        InvalidOption: it cannot.
    """
    if not hasattr(os, "killpg"):  # Windows, where processes that a command started outlive it
        raise InvalidOption(
            f"command={command.template!r}: commands run only on systems with process groups, such "
            "as Linux or macOS; here, use a Python function as the objective"
        )


def run_command(
    command: Command, params: Mapping[str, Any], folder: Path, time_limit_s: float | None
) -> Outcome:
    """One attempt with this configuration; the command's output goes to the log in this folder.

    Raises:
        InvalidOption: as in `check_can_be_ended` and `Command.arguments`.
    """
    check_can_be_ended(command)  # the worker's system may differ from the driver's
    reader = _Reader(command, folder)
    with (folder / LOG).open("ab") as output:
        try:
            process = subprocess.Popen(
                command.arguments(params),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
                cwd=command.folder,
            )
        except OSError as error:
            return Outcome(reason=f"the command did not start: {error}")
    began, behind = time.monotonic(), False
    _running.add(process)
    try:
        (folder / PROCESS).write_text(str(process.pid))
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0 if behind else _LOOK_S)
                break
            behind = reader.read()
            if (folder / STOP).exists():
                return Outcome(reason="stopped by the job", stopped=True)
            if time_limit_s is not None and time.monotonic() > began + time_limit_s:
                return Outcome.out_of_time(time_limit_s)
    finally:
        _end(process)
        _running.discard(process)
        (folder / PROCESS).unlink(missing_ok=True)
    reader.finish()
    if process.returncode:
        reason = ": ".join([f"the command ended with {process.returncode}", *reader.last_line])
        return Outcome(reason=reason, died=process.returncode < 0)
    if reader.value is None:
        expected = 'such as {"value": 0.25}' if command.metric is None else f"of {command.metric!r}"
        last = "".join(f"; its last line was {line!r}" for line in reader.last_line)
        reason = f"the command printed no value: expected a line {expected}{last}"
        return Outcome(reason=reason)
    return Outcome((reader.value, reader.measured) if command.measured else reader.value)


def end_all() -> None:
    """End the commands that this process runs."""
    for command in list(_running):
        _end(command)


def end_left(folder: Path) -> None:
    """End this folder's command, if a process that was killed left it running."""
    note = folder / PROCESS
    try:
        group = int(note.read_text())
        note.unlink()
    except (OSError, ValueError):  # none was left
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):  # its children may be left
        if os.getsid(group) != group:
            return  # the id has a new owner: a command leads a session of its own
    _end_group(group)


def end_abandoned(folder: Path) -> None:
    """`end_left` for a driver whose predecessor was killed together with its workers.

    By now the id may belong to another process, or to one of another machine: the command's began
    when the id was written.
    """
    note = folder / PROCESS
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        began = psutil.Process(int(note.read_text())).create_time()
        if abs(note.stat().st_mtime - began) < _NOTED_S:
            end_left(folder)


def _value_group(pattern: re.Pattern[str]) -> int | None:
    """The number of the group that has the value; None if there is none."""
    step = pattern.groupindex.get("step")
    others = (group for group in range(1, pattern.groups + 1) if group != step)
    return pattern.groupindex.get("value", next(others, None))


class _Reader:
    """Follows the log of a command: reports values with a step, and remembers the last value."""

    def __init__(self, command: Command, folder: Path) -> None:
        self.value: float | None = None
        self.measured: dict[str, Any] = {}
        self.last_line: list[str] = []
        self._command = command
        self._folder = folder
        self._final = False
        # An executor that lost its worker may run an attempt again.
        log = folder / LOG
        self._offset = log.stat().st_size if log.exists() else 0
        self._rest = b""
        # Parsing JSON takes a hundred times as long as searching a line for these.
        self._needed = [b'"value"' if command.metric is None else b""]
        self._needed += {  # encoders may or may not escape non-ASCII characters
            json.dumps(name, ensure_ascii=escaped).encode(errors="replace")
            for name in command.measured
            for escaped in (True, False)
        }

    def read(self) -> bool:
        """Read the next part, short enough to take no time; returns whether there may be more."""
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
        """Read all that is left, including a last line without a line end."""
        while self.read():
            pass
        self._take(self._rest)

    def _take(self, text: bytes) -> None:
        if any(needed in text for needed in self._needed):
            for line in text.splitlines():
                if any(needed in line for needed in self._needed):
                    self._note(line.decode(errors="replace"))
        last = text[-_LINE_BYTES:].decode(errors="replace").strip()
        if last:
            self.last_line = last.splitlines()[-1:]

    def _note(self, line: str) -> None:
        if self._command.measured:
            self.measured |= self._command.quantities(line)
        reading = self._command.reading(line)
        if reading is None:
            return
        step, value = reading
        if step is None or not self._final:
            self.value, self._final = value, step is None
        if step is not None:
            write_report(self._folder, step, value)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a command, if it still runs, and all that it started."""
    _end_group(process.pid, process.poll)  # unless polled, an ended command counts as running
    process.wait()


def _end_group(group: int, look: Callable[[], object] = lambda: None) -> None:
    """End a process group: by SIGTERM, then by SIGKILL."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # no process is left
        os.killpg(group, signal.SIGTERM)
        until = time.monotonic() + _GRACE_S
        while time.monotonic() < until:
            look()
            os.killpg(group, 0)
            time.sleep(_GRACE_S / 100)
        os.killpg(group, signal.SIGKILL)
