"""Trials and configurations as text, for a terminal, a table or a page."""

import os
import shutil
import site
import sysconfig
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpbo.checks import legible
from gpbo.trial import STOPPED_EARLY, WITHDRAWN, Trial, without_value

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

#: A table has a column per parameter up to this number, if the terminal has room for columns of at
#: least ``_NARROWEST`` characters and ``_BESIDE`` for the other columns; otherwise one column for
#: all parameters, with the heading ``ALL``.
_MOST_COLUMNS, ALL = 8, "configuration"
_NARROWEST, _BESIDE = 9, 30
#: Where code lies that is not the user's: Python's, packages', gpbo's, and generated code.
_NOT_USERS = (
    *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    *(place + os.sep for place in (*site.getsitepackages(), site.getusersitepackages())),
    str(Path(__file__).parent) + os.sep,
    "<frozen",
    "<string>",
)
#: How many frames of a traceback a reason keeps, and characters of the message before them.
_FRAMES, _LONGEST_MESSAGE = 3, 2000


def none_is_best(trials: Iterable[Trial]) -> str:
    """Why there is no best trial."""
    valued = any(trial.value is not None for trial in trials)
    return "no trial meets the constraints" if valued else "no trial has a value"


def new_table(*headings: str) -> "Table":
    """An empty table with these headings."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in literally(*headings):
        table.add_column(heading, overflow="fold")  # cutting a number would lose its exponent
    return table


def parameter_headings(names: Sequence[str]) -> list[str]:
    """Headings of a column per parameter, or of one for all if they are many or wide."""
    return [*names] if _have_columns(names) else [ALL]


def parameter_cells(names: Sequence[str], params: Mapping[str, Any]) -> list[str]:
    """A configuration in the columns of `parameter_headings`."""
    if _have_columns(names):
        return [short(params[name]) for name in names]
    return [short_params(params)]


def _have_columns(names: Sequence[str]) -> bool:
    width = sum(max(len(name), _NARROWEST) + 1 for name in names)
    room = shutil.get_terminal_size().columns - _BESIDE
    return len(names) <= _MOST_COLUMNS and width <= room


def literally(*cells: str) -> "list[Text]":
    """Text as it is: brackets in a name, a choice or a reason are not markup."""
    from rich.text import Text

    return list(map(Text, cells))


def short(value: object) -> str:
    """A value for people: floats with four digits; undecodable parts of file names are escaped."""
    return f"{value:.4g}" if isinstance(value, float) else legible(str(value))


def short_params(params: Mapping[str, Any]) -> str:
    """A configuration on one line."""
    return "  ".join(f"{name}={short(value)}" for name, value in params.items())


def outcome(trial: Trial, most: int = 40) -> str:
    """A trial's value and the constraints it violates, or the first line of the reason why it has
    no value; at most ``most`` characters.
    """
    if trial.value is not None:
        beyond = f", violates {', '.join(trial.violated)}" if trial.violated else ""
        return cut(f"{short(trial.value)}{beyond}", most)
    if trial.reason is None:
        return str(trial.status)
    reason = trial.reason.removeprefix(f"trial {trial.id}: ")
    line = reason.splitlines()[0] if reason else ""
    if trial.stopped_early and len(line) > most:
        line = line.partition(":")[0]  # the step, without the comparison, which would be cut
    line = cut(line, most)
    return line if trial.stopped_early or trial.withdrawn else f"failed: {line}"


def beside_failed(trials: Sequence[Trial]) -> str:
    """Text to follow the number of failures: how many trials were stopped early, were
    withdrawn or violate a constraint, if any.
    """
    _, stopped = without_value(trials)
    counts = {
        STOPPED_EARLY: len(stopped),
        WITHDRAWN: sum(trial.withdrawn for trial in trials),
        "violating a constraint": sum(bool(trial.violated) for trial in trials),
    }
    return "".join(f", {count} {what}" for what, count in counts.items() if count)


def cut(text: str, most: int) -> str:
    """The text, cut to at most ``most`` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def cut_within(text: str, most: int) -> str:
    """The same, cut in the middle, since texts of a list may differ only at the end."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def reason_of(error: BaseException) -> str:
    """What an objective raised, with the innermost frames, and before them the user's last one."""
    told = traceback.TracebackException.from_exception(error)
    summary = "".join(told.format_exception_only()).strip()
    first = max(0, len(told.stack) - _FRAMES)
    lines = traceback.format_list(told.stack[first:])
    users = [i for i, frame in enumerate(told.stack) if _is_users(frame.filename)]
    if users and (own := users[-1]) < first:
        between = ["  …\n"] if own + 1 < first else []
        lines = [*traceback.format_list([told.stack[own]]), *between, *lines]
    return f"{cut_within(summary, _LONGEST_MESSAGE)}\n{''.join(lines)}".rstrip()


def _is_users(filename: str) -> bool:
    """Whether code is neither Python's, nor an installed package's, nor gpbo's."""
    return not filename.startswith(_NOT_USERS)
