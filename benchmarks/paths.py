"""Objects that users have written, named by the path ``module:attribute`` of their import."""

import functools
import hashlib
import re
from pathlib import Path
from types import ModuleType

from gpbo.errors import InvalidOption
from gpbo.text import reason_of
from gpbo.worker import Imported


def is_path(name: str) -> bool:
    """Whether a name is a path, not one of gpbo's names."""
    return ":" in name


def load(option: str, path: str) -> object:
    """The object at the path, imported; modules in the current folder come first.

    Args:
        option: What it was given as, for an error message.

    Raises:
        InvalidOption: it is not a path, there is no such module or attribute, or the module raises.
    """
    try:
        target = Imported(path)
    except InvalidOption as error:
        raise InvalidOption(f"{option}={path}: expected module:attribute") from error
    name, _, attribute = path.partition(":")
    try:
        module = target.module()
    except (Exception, SystemExit) as error:
        why = f"importing it raised {reason_of(error)}"
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            where = f"{str(Path.cwd())!r}, or an installed one"
            why = f"there is no module {error.name!r}: expected one in {where}"
        raise InvalidOption(f"{option}={path}: {why}") from error
    if not hasattr(module, attribute):
        raise InvalidOption(
            f"{option}={path}: {name} has no attribute {attribute!r}: expected one that it has"
        )
    _hash(module)
    return getattr(module, attribute)


def versions(*names: str) -> dict[str, str]:
    """For those that are paths: a hash of the module's file as this process imported it."""
    return {name: _hash(Imported(name).module()) for name in names if is_path(name)}


@functools.cache
def _hash(module: ModuleType) -> str:
    """The hash at the first call: the file may change while the module is in use."""
    file = getattr(module, "__file__", None)  # a built-in one has none
    return "built-in" if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()[:6]


def check_name(option: str, name: object) -> None:
    """Check that files can be named after a method or a problem.

    Raises:
        InvalidOption: they cannot.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
        raise InvalidOption(
            f"{option}: name={name!r}: expected letters, digits, dots, hyphens and underscores"
        )


def file_name(name: str) -> str:
    """A name, or a path, as the name of a file."""
    return re.sub(r"[^\w-]", "-", name)
