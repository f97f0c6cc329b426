"""An attempt at a trial, as the job and the worker share it: its folder and its outcome.

In the folder, ``log.txt`` has what it printed, ``metrics.jsonl`` what it reported, and a file
``stop`` asks it to end. So any worker that sees the folder will do, whatever started it. A file
``process`` has the process id of a command while it runs.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpbo.errors import InvalidOption

LOG, METRICS, STOP, PROCESS = "log.txt", "metrics.jsonl", "stop", "process"

#: What reading a line without a value may raise.
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
#: Steps are stored as integers of 64 bits.
_LARGEST_STEP = 2**63 - 1


@dataclass(frozen=True)
class Outcome:
    """The outcome of an attempt: a value, or why there is none.

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
        """The outcome of an attempt that exceeded its time limit."""
        return cls(reason=f"the time limit of {limit_s:g} s was reached", died=True)


def write_report(folder: Path, step: Any, value: float) -> None:
    """Add an intermediate value to those that the attempt reported.

    Raises:
        InvalidOption: the step is not a whole number of 64 bits.
    """
    with (folder / METRICS).open("a") as file:
        file.write(json.dumps({"step": as_step(step), "value": float(value)}) + "\n")


def read_reports(folder: Path, start: int) -> tuple[list[tuple[int, float]], int]:
    """The steps and values reported from offset ``start`` on, and where to continue reading.

    An incomplete line is left for the next time, and so is a file that is missing or cannot be
    read. Lines of another form, which the objective may have written, are skipped.
    """
    try:
        with (folder / METRICS).open("rb") as file:
            file.seek(start)
            news = file.read()
    except OSError:
        return [], start
    complete = news[: news.rfind(b"\n") + 1]
    told = map(reported, complete.splitlines())
    return [one for one in told if one is not None], start + len(complete)


def reported(line: bytes) -> tuple[int, float] | None:
    """The step and the value in a line of the metrics file; None if it has another form."""
    try:
        told = json.loads(line)
        return as_step(told["step"]), float(told["value"])
    except UNREADABLE:
        return None


def as_step(given: Any) -> int:
    """A step that can be stored.

    Raises:
        InvalidOption: not a whole number of 64 bits.
    """
    try:
        step = int(given)
        whole = step == given and not isinstance(given, bool)
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole or not -_LARGEST_STEP <= step <= _LARGEST_STEP:
        raise InvalidOption(f"step={given!r}: expected a whole number that fits in 64 bits")
    return step
