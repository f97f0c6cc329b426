"""What the scripts share: their arguments, and tables on the terminal."""

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from gpbo.backend import resolve_device
from gpbo.errors import InvalidOption

from .record import RESULTS, machine, save

#: Keeps figures under a name.
Keep = Callable[[str, Any], None]
Number = TypeVar("Number", int, float)


def parser(about: str | None, *, keeps: bool = True) -> argparse.ArgumentParser:
    """A parser of a script's arguments, with its docstring as help.

    Args:
        keeps: Whether it keeps what it measures, see `begin`.
    """
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawTextHelpFormatter)
    if keeps:
        made.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    return made


def begin(output: Path, arguments: Sequence[str] | None = None) -> Keep:
    """Print where, at which commit and by which command this is measured; keep figures with that.

    Args:
        output: The folder in which to keep them.
        arguments: By default those of the command, except for folders of kept figures.
    """
    if arguments is None:
        folders = argparse.ArgumentParser(add_help=False)
        for name in ("--output", "--keep"):
            folders.add_argument(name)
        arguments = folders.parse_known_args()[1]
    program = ("python", f"benchmarks/{Path(sys.argv[0]).name}")
    where = {**machine(), "command": shlex.join([*program, *arguments])}
    print(where)

    def keep(name: str, figures: Any) -> None:
        print(f"saved {save(name, figures, where, output)}")

    return keep


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table, a row per case, in plain Python: a bare machine has nothing else."""
    cells = [[name.replace("_", " ") for name in rows[0]]]
    for row in rows:
        values = row.values()
        cells.append(
            [f"{value:.3g}" if isinstance(value, float) else str(value) for value in values]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\n{title}")
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def at_least(least: Number) -> Callable[[str], Number]:
    """The ``type`` of an argument of a command: a number like ``least``, at least that."""
    kind = "whole number" if isinstance(least, int) else "number"

    def number(text: str) -> Number:
        with suppress(ValueError):
            if (given := type(least)(text)) >= least:
                return given
        raise argparse.ArgumentTypeError(f"{text!r}: expected a {kind}, {least} or more")

    return number


def known_device(text: str) -> str:
    """The ``type`` of an argument of a command: a device of this machine, or ``auto``."""
    try:
        resolve_device(text)
    except InvalidOption as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text
