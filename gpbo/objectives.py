"""What can be seen of an objective before it runs: mistakes that every trial would fail by."""

import importlib
import importlib.machinery
import importlib.util
import logging
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Formatter

from gpbo.command import Command, check_can_be_ended
from gpbo.errors import InvalidOption
from gpbo.space import Space
from gpbo.worker import Imported, takes_trial

logger = logging.getLogger("gpbo")


def check_command(command: Command, space: Space) -> None:
    """See whether a command can be given the values of a space.

    Raises:
        InvalidOption: the command names no parameter, or formats a value as it cannot be.
    """
    values = [parameter.grid(2) for parameter in space.parameters]
    for i in range(max(map(len, values))):
        row = [listed[i % len(listed)] for listed in values]
        command.arguments(dict(zip(space.names, row, strict=True)))


def warn_of_unused(command: Command, space: Space) -> None:
    """Tell of parameters that a command does not name."""
    names = _fields(command.template)
    used = {name if name in space.names else re.split(r"[.\[]", name)[0] for name in names}
    unused = [name for name in space.names if name not in used]
    if unused:
        logger.warning(
            "command=%r does not use %s: these parameters have no effect",
            command.template,
            ", ".join(f"{{{name}}}" for name in unused),
        )


def warn_of_silence(objective: object) -> None:
    """Tell of a function that can report nothing, by which its trials could be stopped early."""
    # One at a path cannot be called here: it is imported by the workers only.
    if callable(objective) and not takes_trial(objective):
        logger.warning(
            "early_stopping=MedianRule(...) cannot stop the trials of %r, which takes no running "
            "trial to report to: expected `def objective(params, trial)`",
            objective,
        )


def _fields(template: str) -> Iterator[str]:
    """What a template has in braces, those within the format of another field too."""
    for _, name, specification, _ in Formatter().parse(template):
        if name is not None:
            yield name
            yield from _fields(specification or "")


def check_is_here(objective: object, env: Mapping[str, str]) -> None:
    """See whether the program of a command, or the module of a function, is on this machine.

    Args:
        env: Variables that the workers have beside those of this process.

    Raises:
        InvalidOption: it cannot be found, or no command can be ended here.
    """
    if isinstance(objective, Command):
        _check_program(objective, env)
    elif isinstance(objective, Imported) and "PYTHONPATH" not in env:
        _check_module(objective)


def _check_program(command: Command, env: Mapping[str, str]) -> None:
    check_can_be_ended(command)
    program = shlex.split(command.template)[0]
    if "{" in program:
        return
    path = env.get("PATH", os.environ.get("PATH"))
    place = Path(command.folder or "") / program if os.sep in program else program
    if shutil.which(place, path=path) is None:
        raise InvalidOption(
            f"command={command.template!r}: {program!r} cannot be found: expected a program on "
            "the PATH, or the path of an executable file"
        )


def _check_module(imported: Imported) -> None:
    """Nothing is imported for it, so of ``package.module`` only the package is looked for."""
    name = imported.target.partition(":")[0].partition(".")[0]
    folder = str(imported.folder or Path.cwd())
    importlib.invalidate_caches()  # the module may have been written just now
    if name in sys.modules or importlib.machinery.PathFinder.find_spec(name, [folder]) is not None:
        return
    if importlib.util.find_spec(name) is None:
        raise InvalidOption(
            f"objective={imported.target!r}: there is no module {name!r}: expected one in the "
            f"folder {folder!r}, or an installed one"
        )
