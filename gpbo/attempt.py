"""An attempt at a trial, as the two sides of it know it: its folder, and what came of it.

In the folder ``log.txt`` is what it printed, ``metrics.jsonl`` what it reported, and a file
``stop`` asks it to end. So any worker that sees the folder will do, whatever started it. A file
``process`` has the number of a command while it runs.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpbo.errors import InvalidOption

LOG, METRICS, STOP, PROCESS = "log.txt", "metrics.jsonl", "stop", "process"

#: What reading a line raises that tells no value.
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
#: Steps are stored as whole numbers of 64 bits.
_LARGEST_STEP = 2**63 - 1


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


def write_report(folder: Path, step: Any, value: float) -> None:
    """Add an intermediate value to those that the attempt reported.

    Raises:
        InvalidOption: the step is no whole number of 64 bits.
    """
    with (folder / METRICS).open("a") as file:
        file.write(json.dumps({"step": as_step(step), "value": float(value)}) + "\n")


def read_reports(folder: Path, start: int) -> tuple[list[tuple[int, float]], int]:
    """The steps and values reported from this place in the file on, and where to go on reading.

    A line that is not complete is left for the next time; the objective may write others there. So
    is what the system does not let us read, if there is a file at all.
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
    """The step and the value that a line of the file of metrics tells; None if it is none."""
    try:
        told = json.loads(line)
        return as_step(told["step"]), float(told["value"])
    except UNREADABLE:
        return None


def as_step(given: Any) -> int:
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
