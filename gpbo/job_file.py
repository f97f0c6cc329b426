"""A job file, unchecked, and where its job is stored; does not import torch."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpbo.errors import InvalidJob

#: The database of a job whose file names none.
STORAGE = "gpbo.db"


def read_file(path: str | Path) -> dict[str, Any]:
    """What a job file says, unchecked.

    Raises:
        InvalidJob: no such file, or not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InvalidJob(f"{path}: {error.strerror}: expected a job file") from error
    except UnicodeDecodeError as error:
        raise InvalidJob(
            f"{path}: expected a job file, which is TOML in UTF-8; to resume a job that a script "
            "started in a database, run the script again"
        ) from error
    except ValueError as error:
        raise InvalidJob(f"{path}: {error}") from error


@dataclass(frozen=True)
class Stored:
    """A job in a database.

    Attributes:
        budget: The budget in the file; None if the file does not say.
    """

    storage: Path
    name: str
    budget: int | None


def stored(path: Path) -> Stored:
    """Where the job of a file is stored; the rest of the file is not checked.

    Raises:
        InvalidJob: no such file, not TOML, or ``storage`` or ``name`` is not text.
    """
    content = {"storage": STORAGE, **read_file(path)}
    storage, name = (_text(path, content, key) for key in ("storage", "name"))
    budget = content.get("budget")
    return Stored(path.parent / storage, name, budget if isinstance(budget, int) else None)


def _text(path: Path, content: dict[str, Any], key: str) -> str:
    value = content.get(key)
    if not isinstance(value, str):
        raise InvalidJob(f"{path}: {key}={value!r}: expected a string")
    return value
